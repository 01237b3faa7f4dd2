"""Arrhenius fits of data made up with known parameters, and of the numbers of a paper."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.arrhenius import BOLTZMANN, attempt_frequency_of, fit_arrhenius, lower_bound

TEMPERATURES = (500.0, 525.0, 550.0, 575.0, 600.0)

TABLE_2 = {  # Tyagi, Brocks and Tao: Eₐ in eV, D₀ in 1e-4 cm²/s, D(300 K) in 1e-7 cm²/s, each with its error
    'I_i-': (0.18, 0.03, 5.93, 3.97, 5.61),
    'V_I+': (0.15, 0.04, 1.04, 0.92, 3.19),
    'I_MA0': (0.18, 0.06, 3.16, 4.27, 2.99),
    'I_MA+': (0.20, 0.07, 3.47, 5.12, 1.51),
}


def made_up(energy=0.2, prefactor=3e-4, noise=0.0, n_runs=3, seed=0):
    """Return temperatures and coefficients of runs, whose logarithms are off by a width."""
    kelvins = np.repeat(TEMPERATURES, n_runs)
    chance = np.random.default_rng(seed).normal(0, noise, len(kelvins)) if noise else 0.0
    return kelvins, prefactor * np.exp(-energy / (BOLTZMANN * kelvins) + chance)


def test_a_line_without_noise_is_found():
    found = fit_arrhenius(*made_up())
    assert found.activation_energy == pytest.approx(0.2)
    assert found.prefactor.value == pytest.approx(3e-4)
    assert found.activation_energy_error == pytest.approx(0.0, abs=1e-9)
    assert found.prefactor.factor == pytest.approx(1.0)


@pytest.mark.parametrize('defect', TABLE_2)
def test_table_2_follows_from_its_own_parameters(defect):
    energy, _, prefactor, _, room = TABLE_2[defect]
    found = fit_arrhenius(*made_up(energy, 1e-4 * prefactor)).at(300.0)
    assert found.value == pytest.approx(1e-7 * room, rel=0.03)


@pytest.mark.parametrize('defect', TABLE_2)
def test_the_error_of_the_prefactor_in_table_2_is_that_of_the_energy_multiplied(defect):
    """ΔD₀/D₀ = Δ ln D₀ = ΔEₐ/k⟨T⟩: what the paper adds to D₀ multiplies it."""
    _, energy_error, prefactor, prefactor_error, _ = TABLE_2[defect]
    assert prefactor_error / prefactor == pytest.approx(energy_error / (BOLTZMANN * 548.0), rel=0.1)


def test_the_error_of_the_prefactor_multiplies_and_is_printed_as_if_it_added():
    found = fit_arrhenius(*made_up(noise=0.3))
    assert found.prefactor_error == pytest.approx(found.prefactor.value * np.log(found.prefactor.factor))
    assert found.prefactor.factor > 2.0  # its lower end is positive nevertheless


def test_energy_and_prefactor_are_all_but_one_number():
    assert fit_arrhenius(*made_up(noise=0.2)).correlation > 0.995


def test_room_temperature_needs_the_covariance():
    found = fit_arrhenius(*made_up(noise=0.2))
    apart = np.hypot(np.log(found.prefactor.factor), found.activation_energy_error / (BOLTZMANN * 300.0))
    assert np.log(found.at(300.0).factor) < 0.5 * apart
    inside = found.at(548.0).factor  # where the data are
    assert inside < found.at(300.0).factor


@pytest.mark.parametrize('n_runs', [3, 5])
def test_error_bars_cover_what_they_say(n_runs):
    """Of 1000 experiments with runs that differ by 15 %, about 68 % have the truth within one standard error."""
    truth = 3e-4 * np.exp(-0.2 / (BOLTZMANN * 300.0))
    covers = np.zeros(3)
    for seed in range(1000):
        found = fit_arrhenius(*made_up(noise=0.15, n_runs=n_runs, seed=seed))
        room = found.at(300.0)
        covers += [
            abs(found.activation_energy - 0.2) < found.activation_energy_error,
            abs(np.log(found.prefactor.value / 3e-4)) < np.log(found.prefactor.factor),
            abs(np.log(room.value / truth)) < np.log(room.factor),
        ]
    assert covers / 1000 == pytest.approx(0.67, abs=0.05)


def test_weights_by_the_errors_of_three_runs_would_cover_less_than_half():
    """Why runs have equal weights: three runs do not know their own spread."""
    covers = 0
    for seed in range(1000):
        _, values = made_up(noise=0.15, seed=seed)
        logs = np.log(values).reshape(5, 3)
        sigma = logs.std(axis=1, ddof=1) / np.sqrt(3)
        design = np.column_stack([np.ones(5), -1 / (BOLTZMANN * np.array(TEMPERATURES))]) / sigma[:, None]
        covariance = np.linalg.inv(design.T @ design)
        energy = (covariance @ design.T @ (logs.mean(axis=1) / sigma))[1]
        covers += abs(energy - 0.2) < np.sqrt(covariance[1, 1])
    assert covers / 1000 < 0.52


def test_two_runs_make_a_line_without_errors():
    found = fit_arrhenius([500.0, 600.0], [1e-6, 3e-6])
    assert found.activation_energy == pytest.approx(BOLTZMANN * np.log(3) / (1 / 500 - 1 / 600))
    assert (found.activation_energy_error, found.prefactor.factor, found.covariance) == (None, None, None)
    assert (found.prefactor_error, found.correlation, found.at(300.0).factor) == (None, None, None)
    assert found.numbers()['covariance'] is None


def test_a_temperature_whose_runs_show_nothing_on_the_mean_is_left_out():
    kelvins, values = made_up(noise=0.1)
    values[:3] = [1e-9, -1e-9, -1e-9]
    found = fit_arrhenius(kelvins, values)
    assert found.left_out == (500.0,)
    assert set(found.temperatures) == {525.0, 550.0, 575.0, 600.0}
    assert found.numbers()['left_out'] == [500.0]
    assert found.numbers()['at_room_temperature'] == found.at(300.0).value


def test_runs_that_chance_made_negative_are_kept_and_the_error_bar_still_covers():
    """Three temperatures, three runs whose coefficients are off by 60 %: every other experiment has a negative one."""
    kelvins = np.repeat([650.0, 725.0, 800.0], 3)
    truth = 3e-4 * np.exp(-0.2 / (BOLTZMANN * kelvins))
    energies, covered, n_negative = [], [], 0
    for seed in range(500):
        values = truth * (1 + 0.6 * np.random.default_rng(seed).normal(size=9))
        if any(values[kelvins == one].mean() <= 0 for one in kelvins):
            continue
        found = fit_arrhenius(kelvins, values)
        assert len(found.coefficients) == 9
        n_negative += int((values < 0).any())
        energies.append(found.activation_energy)
        covered.append(abs(found.activation_energy - 0.2) < found.activation_energy_error)
    assert n_negative > 100
    assert np.mean(energies) == pytest.approx(0.2, abs=0.03)
    assert np.mean(covered) == pytest.approx(0.66, abs=0.06)


def test_for_small_errors_the_fit_is_the_least_squares_of_the_logarithm():
    kelvins, values = made_up(noise=0.01)
    slope = np.polyfit(-1 / (BOLTZMANN * kelvins), np.log(values), 1)[0]
    found = fit_arrhenius(kelvins, values)
    assert found.activation_energy == pytest.approx(slope, abs=0.02 * found.activation_energy_error)


def test_what_does_not_diffuse_has_no_fit():
    with pytest.raises(ValueError, match=r'at 1\. At 500, 600 K the mean of the runs shows none\. Give a lower bound'):
        fit_arrhenius([500.0, 550.0, 600.0], [-1e-9, 1e-8, 0.0])
    with pytest.raises(ValueError, match='2 temperatures and 1 coefficients'):
        fit_arrhenius([500.0, 600.0], [1e-6])
    with pytest.raises(ValueError, match='not finite'):
        fit_arrhenius([500.0, 600.0], [1e-6, np.nan])


def test_the_bound_of_an_immobile_vacancy_is_that_of_the_paper():
    """No hop of the MA vacancy in 2 ns at 600 K at half an attempt a ps: at least about 0.4 eV."""
    found = lower_bound(600.0, 2000.0, 0.5)
    assert found.activation_energy == pytest.approx(BOLTZMANN * 600 * np.log(1000))
    assert round(found.activation_energy, 1) == 0.4
    sure = lower_bound(600.0, 2000.0, 0.5, confidence=0.95)
    assert sure.most_hops == pytest.approx(3.0, abs=0.01)
    assert sure.activation_energy < found.activation_energy < lower_bound(600.0, 10000.0, 0.5).activation_energy


def test_too_short_a_run_bounds_nothing():
    with pytest.raises(ValueError, match=r'0\.5 attempts'):
        lower_bound(600.0, 1.0, 0.5)
    with pytest.raises(ValueError, match='between 0 and 1'):
        lower_bound(600.0, 1000.0, 0.5, confidence=95)


def test_attempts_make_the_prefactor_of_a_walk():
    """A walker with ν hops of a length d each second has D = νd²/6."""
    assert attempt_frequency_of(1e-4 * 4.5**2 * 0.5 / 6, 4.5) == pytest.approx(0.5)
