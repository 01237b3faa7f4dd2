"""The estimate of what a labelling costs."""

from __future__ import annotations

import pytest

from aiida_perovmlip.workflows.forecast import describe_left, estimate


def test_frames_of_the_same_size_cost_the_same():
    assert estimate([40] * 10, [(40.0, 36.0)]) == pytest.approx(0.1)


def test_the_median_of_the_nearest_jobs_counts_and_no_others():
    assert estimate([40], [(40.0, 10.0), (40.0, 20.0), (40.0, 900.0), (5.0, 1e6)]) == pytest.approx(20 / 3600)


def test_another_size_is_scaled():
    assert estimate([80], [(40.0, 10.0)]) == pytest.approx(40 / 3600)


def test_nothing_costs_nothing():
    assert estimate([], [(40.0, 10.0)]) == 0


def test_what_is_left_is_told_by_what_was_done():
    assert 'about 1 more for 30 frames' in describe_left(30, 10, 1200.0)
