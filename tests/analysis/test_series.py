"""Means and drifts of correlated series, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.series import autocorrelation, average_of, drift_of, inefficiency


def process(n, memory, seed=0):
    """Return a series each value of which is `memory` times the one before, plus noise: variance 1, ρ(k) = memory^k."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, np.sqrt(1 - memory**2), n)
    values = np.empty(n)
    values[0] = random.normal()
    for index in range(1, n):
        values[index] = memory * values[index - 1] + noise[index]
    return values


@pytest.mark.parametrize('memory', [0.0, 0.5, 0.9])
def test_the_inefficiency_of_a_process_with_memory_is_the_known_one(memory):
    found = np.mean([inefficiency(process(20_000, memory, seed)) for seed in range(10)])
    assert found == pytest.approx((1 + memory) / (1 - memory), rel=0.1)


@pytest.mark.parametrize('memory', [0.0, 0.9])
def test_the_error_of_a_mean_is_the_scatter_of_means(memory):
    averages = [average_of(process(3_000, memory, seed)) for seed in range(300)]
    scatter = np.std([average.mean for average in averages])
    assert np.mean([average.error for average in averages]) == pytest.approx(scatter, rel=0.15)


@pytest.mark.parametrize('memory', [0.0, 0.9])
def test_the_error_of_a_drift_is_the_scatter_of_drifts(memory):
    times = np.arange(3_000) * 0.1
    drifts = [drift_of(times, 2.0 + 0.01 * times + process(3_000, memory, seed)) for seed in range(300)]
    slopes = [drift.slope for drift in drifts]
    assert np.mean(slopes) == pytest.approx(0.01, abs=4 * np.std(slopes) / 300**0.5)
    assert np.mean([drift.error for drift in drifts]) == pytest.approx(np.std(slopes), rel=0.2)


def test_a_line_is_found_exactly_with_no_error():
    times = np.linspace(0, 7, 50)
    drift = drift_of(times, 3.0 - 0.25 * times)
    assert drift.slope == pytest.approx(-0.25)
    assert drift.error == pytest.approx(0.0, abs=1e-12)


def test_an_offset_changes_no_error():
    values = process(5_000, 0.8)
    assert average_of(values + 1e6).error == pytest.approx(average_of(values).error, rel=1e-6)


def test_values_that_are_all_alike_have_a_mean_without_error():
    average = average_of(np.full(100, 300.1))
    assert (average.mean, average.error, average.n_independent) == (
        pytest.approx(300.1),
        pytest.approx(0, abs=1e-9),
        100,
    )


def test_values_that_avoid_each_other_do_not_make_the_error_smaller():
    assert inefficiency(np.tile([1.0, -1.0], 500)) == 1.0


def test_a_series_that_only_drifts_counts_for_little():
    assert average_of(np.arange(1000.0)).n_independent < 20


def test_of_few_values_there_is_no_error():
    assert average_of([1.0, 2.0]).error is None
    assert drift_of([0.0, 1.0], [1.0, 3.0]).error is None
    assert drift_of([0.0, 1.0], [1.0, 3.0]).slope == 2.0
    with pytest.raises(ValueError, match='without values'):
        average_of([])
    with pytest.raises(ValueError, match='two times'):
        drift_of([1.0, 1.0], [0.0, 1.0])


def test_the_autocorrelation_is_the_sum_of_products():
    values = process(50, 0.5)
    values -= values.mean()
    direct = [values[: 50 - k] @ values[k:] for k in range(50)]
    assert np.allclose(autocorrelation(values), np.array(direct) / direct[0])
