"""Calibration of committees against closed forms."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf
from scipy.stats import norm, pearsonr, spearmanr
from scipy.stats import t as student

from aiida_perovmlip.analysis.committee import CalibrationSum, calibrate, mean_and_spread

RNG = np.random.default_rng


def gaussian_area(factor: float) -> float:
    """Return ∫ |P(|e| < s Φ⁻¹((1 + p) / 2)) - p| dp for errors that are `factor` times as wide as the spread s."""
    return quad(lambda p: abs(erf(norm.ppf((1 + p) / 2) / factor / math.sqrt(2)) - p), 0, 1, limit=200)[0]


def test_mean_and_spread_are_those_of_numpy():
    members = RNG(0).normal(size=(5, 7, 3))
    mean, spread = mean_and_spread(members)
    assert np.allclose(mean, members.mean(axis=0))
    assert np.allclose(spread, members.std(axis=0, ddof=1))


def test_the_spread_of_large_energies_keeps_its_digits():
    members = -278_858.0 + RNG(0).normal(0, 1e-3, size=(4, 50))
    assert np.allclose(mean_and_spread(members)[1], (members + 278_858.0).std(axis=0, ddof=1), rtol=1e-6)


def test_one_member_has_no_spread():
    with pytest.raises(ValueError, match='at least two members'):
        mean_and_spread(np.zeros((1, 3)))


@pytest.mark.parametrize('m', [2, 3, 4, 16])
def test_truth_drawn_like_the_members_needs_a_scale_of_one_plus_one_over_m(m):
    """Members and truth ~ N(μ, σ²): the variance of truth minus mean is σ² (1 + 1/m)."""
    rng, n = RNG(m), 200_000
    mean, spread = mean_and_spread(rng.normal(3.0, 0.2, size=(m, n)))
    found = calibrate(spread, mean - rng.normal(3.0, 0.2, size=n))
    assert found.rms_spread == pytest.approx(0.2, rel=0.01)
    assert found.scale == pytest.approx(math.sqrt(1 + 1 / m), rel=0.01)


def student_area(n_members: int, components: int, factor: float) -> float:
    """Return the area of errors that follow √(1 + 1/n) times Student's t, with all spreads multiplied by `factor`."""
    law, width = student(components * (n_members - 1)), math.sqrt(1 + 1 / n_members)
    return quad(lambda p: abs(2 * law.cdf(factor / width * norm.ppf((1 + p) / 2)) - 1 - p), 0, 1, limit=200)[0]


@pytest.mark.parametrize(('m', 'whole', 'scaled'), [(2, 0.174, 0.128), (3, 0.111, 0.072), (4, 0.082, 0.050),
                                                    (8, 0.040, 0.022), (16, 0.020, 0.011)])  # fmt: skip
def test_a_perfect_committee_of_few_has_the_areas_of_student_and_not_zero(m, whole, scaled):
    """As the topic on evaluation tells them."""
    rng, n = RNG(10 + m), 400_000
    mean, spread = mean_and_spread(rng.normal(size=(m, n)))
    found = calibrate(spread, mean - rng.normal(size=n))
    width = math.sqrt(1 + 1 / m)
    assert (student_area(m, 1, 1.0), student_area(m, 1, width)) == pytest.approx((whole, scaled), abs=6e-4)
    assert found.miscalibration_area == pytest.approx(whole, abs=0.005)
    assert found.scaled_area == pytest.approx(scaled, abs=0.005)


def test_the_spread_of_forces_has_three_times_as_many_degrees_of_freedom():
    rng, n, m = RNG(17), 200_000, 4
    mean, deviation = mean_and_spread(rng.normal(size=(m, n, 3)))
    found = calibrate(np.sqrt((deviation**2).mean(axis=1)), mean - rng.normal(size=(n, 3)))
    assert found.miscalibration_area == pytest.approx(student_area(m, 3, 1.0), abs=0.004)


@pytest.mark.parametrize('factor', [0.5, 1.0, 2.0, 10.0])
def test_errors_that_are_a_factor_wider_than_the_spread_give_the_area_of_the_closed_form(factor):
    rng, n = RNG(1), 400_000
    spread = 10.0 ** rng.uniform(-3, 0, size=n)
    found = calibrate(spread, factor * spread * rng.normal(size=n))
    assert found.scale == pytest.approx(factor, rel=0.02)
    assert found.miscalibration_area == pytest.approx(gaussian_area(factor), abs=0.004)
    assert found.scaled_area == pytest.approx(0.0, abs=0.006)
    assert np.allclose(found.bin_rmse / found.bin_spread, factor, rtol=0.05)


def test_all_components_of_a_force_count():
    rng, n = RNG(2), 100_000
    members = rng.normal(size=(8, n, 3))
    mean, deviation = mean_and_spread(members)
    spread = np.sqrt((deviation**2).mean(axis=1))
    found = calibrate(spread, mean - rng.normal(size=(n, 3)))
    assert found.scale == pytest.approx(math.sqrt(1 + 1 / 8), rel=0.01)
    assert found.rmse == pytest.approx(math.sqrt(1 + 1 / 8), rel=0.01)
    assert found.scaled_area < 0.02


def test_a_spread_that_says_nothing_of_the_error_has_no_correlation():
    rng, n = RNG(3), 100_000
    found = calibrate(np.exp(rng.normal(size=n)), rng.normal(size=n))
    assert found.pearson == pytest.approx(0, abs=0.01)
    assert found.spearman == pytest.approx(0, abs=0.01)


def test_correlations_are_those_of_scipy():
    rng, n = RNG(4), 5000
    spread = np.exp(rng.normal(size=n))
    error = spread * rng.normal(size=n)
    found = calibrate(spread, error)
    assert found.pearson == pytest.approx(pearsonr(spread, np.abs(error))[0], abs=1e-9)
    assert found.spearman == pytest.approx(spearmanr(spread, np.abs(error))[0], abs=2e-3)


def test_an_error_that_grows_with_the_spread_has_the_correlation_one():
    spread = np.geomspace(1e-4, 1, 500)
    found = calibrate(spread, -3 * spread)
    assert found.pearson == pytest.approx(1)
    assert found.spearman == pytest.approx(1, abs=1e-3)  # ranks are told apart by bins


def test_reading_in_parts_changes_nothing():
    rng = RNG(5)
    spread, error = np.exp(rng.normal(size=300)), rng.normal(size=(300, 3))
    total = CalibrationSum()
    for part in np.array_split(np.arange(300), 7):
        total.add(spread[part], error[part])
    one, other = total.result().to_dict(), calibrate(spread, error).to_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == pytest.approx(other[name]), name


def test_members_that_agree_have_no_scale_and_are_as_sure_of_themselves_as_can_be():
    found = calibrate(np.zeros(10), np.ones(10))
    assert (found.scale, found.pearson, found.spearman, found.scaled_area) == (None, None, None, None)
    assert found.miscalibration_area == pytest.approx(0.5)
    assert 'scale' not in json.loads(json.dumps(found.to_dict(), allow_nan=False))


def test_no_error_at_all_is_no_fault_of_the_spread():
    found = calibrate(np.ones(10), np.zeros(10))
    assert (found.rmse, found.scale) == (0.0, 0.0)
    assert found.miscalibration_area == pytest.approx(0.5)


@pytest.mark.parametrize(('spread', 'error'), [([-1.0], [0.0]), ([np.nan], [0.0]), ([1.0], [np.inf])])
def test_what_is_no_spread_or_no_error_is_refused(spread, error):
    with pytest.raises(ValueError, match='have to be finite'):
        calibrate(spread, error)


def test_numbers_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match='spreads for'):
        calibrate([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match='nothing was added'):
        CalibrationSum().result()
