"""Damped oscillators whose motion was made exactly, from under- to overdamped."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import cholesky, expm

from aiida_perovmlip.analysis.oscillator import (
    _fit,
    autocorrelations,
    correlation_of,
    fit_oscillator,
    relaxation_of,
)


def motion(frequency, damping, timestep=0.05, n=4000, n_components=3, seed=0, mean=0.0):
    """Return the position (n, n_components) of oscillators in a heat bath of variance 1, without error of the step."""
    drift = expm(timestep * np.array([[0.0, 1.0], [-(frequency**2), -damping]]))
    stationary = np.diag([1.0, frequency**2])
    kick = cholesky(stationary - drift @ stationary @ drift.T + 1e-14 * np.eye(2), lower=True)
    rng = np.random.default_rng(seed)
    state = np.sqrt(stationary) @ rng.normal(size=(2, n_components))
    found = np.empty((n, n_components))
    for step, noise in enumerate(rng.normal(size=(n, 2, n_components))):
        found[step] = state[0]
        state = drift @ state + kick @ noise
    return found + mean


@pytest.mark.parametrize(
    ('frequency', 'damping'), [(5.0, 0.5), (5.0, 4.0), (5.0, 10.0), (5.0, 10.000001), (5.0, 40.0), (0.3, 90.0)]
)
def test_the_correlation_solves_the_equation_of_motion(frequency, damping):
    times = np.linspace(0, 4, 50)

    def equation(_, state):
        return [state[1], -damping * state[1] - frequency**2 * state[0]]

    solution = solve_ivp(equation, (0, 4), [1.0, 0.0], t_eval=times, rtol=1e-9, atol=1e-11, method='LSODA')
    assert correlation_of(times, frequency, damping) == pytest.approx(solution.y[0], abs=1e-6)


@pytest.mark.parametrize(('frequency', 'damping'), [(5.0, 1.0), (5.0, 9.0), (5.0, 10.0), (5.0, 12.0), (2.0, 30.0)])
def test_the_fit_of_an_exact_correlation_is_exact(frequency, damping):
    lags = np.linspace(0, 8, 200)
    found = _fit(lags, correlation_of(lags, frequency, damping))
    assert found == pytest.approx((frequency, damping), rel=1e-3)


@pytest.mark.parametrize(
    ('frequency', 'damping', 'kind'),
    [(5.0, 2.0, 'underdamped'), (2.0, 2.6, 'underdamped'), (3.0, 6.0, 'undecided'), (3.0, 20.0, 'overdamped')],
)
def test_kinds_of_damping_are_told_apart_and_the_critical_one_is_not(frequency, damping, kind):
    found = fit_oscillator(motion(frequency, damping), 0.05)
    assert found.kind == kind
    low, high = found.ratio_interval
    if kind == 'overdamped':
        assert low > 1  # how far above, a correlation that is all but an exponential does not tell
    else:
        assert low < damping / (2 * frequency) < high
    assert found.relaxation == pytest.approx(relaxation_of(frequency, damping), rel=0.4)
    assert found.is_resolved
    if kind == 'underdamped':
        assert abs(found.frequency - frequency) < 4 * found.frequency_error
        assert abs(found.damping - damping) < 4 * found.damping_error


def test_a_strongly_overdamped_mode_has_a_relaxation_time_all_the_same():
    found = fit_oscillator(motion(5.0, 40.0, n=20000), 0.05)
    assert found.kind == 'overdamped'
    assert relaxation_of(5.0, 40.0) == pytest.approx(40 / 25, rel=0.02)
    assert found.relaxation == pytest.approx(40 / 25, rel=0.15)


def test_what_is_frozen_in_does_not_matter():
    free, frozen = fit_oscillator(motion(5.0, 3.0), 0.05), fit_oscillator(motion(5.0, 3.0, mean=12.0), 0.05)
    assert frozen.frequency == pytest.approx(free.frequency, rel=1e-6)
    kept = fit_oscillator(motion(5.0, 3.0, mean=12.0), 0.05, subtract_mean=False)
    assert not kept.is_resolved  # a correlation that never decays


def test_the_window_hardly_changes_the_fit():
    values = motion(4.0, 3.0, n=8000)
    found = [fit_oscillator(values, 0.05, window=window, n_draws=20) for window in (2.0, 4.0, 8.0)]
    assert [each.window for each in found] == pytest.approx([2.0, 4.0, 8.0])
    assert np.ptp([each.ratio for each in found]) < 0.05


def test_a_longer_run_decides_what_a_short_one_cannot():
    short = fit_oscillator(motion(3.0, 5.0, n=600, seed=3), 0.05)
    long = fit_oscillator(motion(3.0, 5.0, n=20000, seed=3), 0.05)
    assert (short.kind, long.kind) == ('undecided', 'underdamped')


def test_equal_seeds_give_equal_errors():
    values = motion(5.0, 3.0, n=1000)
    assert fit_oscillator(values, 0.05) == fit_oscillator(values, 0.05)


def test_autocorrelations_are_those_of_the_definition():
    values = np.random.default_rng(0).normal(size=(12, 2))
    found = autocorrelations(values, 4, n_blocks=2, subtract_mean=False)
    for row, (block, component) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        part = values[6 * block : 6 * block + 6, component]
        expected = [np.mean(part[: 6 - lag] * part[lag:]) for lag in range(4)]
        assert found[row] == pytest.approx(expected)


def test_numbers_are_plain():
    found = fit_oscillator(motion(5.0, 3.0, n=1000), 0.05, n_draws=10)
    assert 'lags' not in found.numbers()
    assert len(found.numbers()['ratio_interval']) == 2
    assert len(found.lags) == len(found.correlation) == len(found.fit)


@pytest.mark.parametrize('values', [np.ones((50, 1)), np.ones((500, 1)), np.full((500, 1), np.nan)])
def test_series_that_tell_nothing_are_refused(values):
    with pytest.raises(ValueError, match='are not enough for a fit, or do not vary'):
        fit_oscillator(values, 0.05)


def test_more_lags_than_values_are_refused():
    with pytest.raises(ValueError, match='7 lags are asked of blocks of 6 values'):
        autocorrelations(np.zeros(12), 7, n_blocks=2)
