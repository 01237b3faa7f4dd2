"""Statistics of groups of frames."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.statistics import GPA, GroupStatistics, Spread


def test_a_spread_that_comes_in_pieces_is_that_of_the_whole():
    values = -3000.0 + np.random.default_rng(0).normal(0, 1e-3, 1000)
    spread = Spread()
    for piece in np.split(values, [1, 10, 500]):
        spread.add(piece)
    found = spread.to_dict()
    assert found['mean'] == pytest.approx(values.mean(), abs=1e-12)
    assert found['std'] == pytest.approx(values.std(), rel=1e-6)
    assert (found['lowest'], found['highest']) == (values.min(), values.max())


def test_no_number_has_no_spread():
    spread = Spread()
    spread.add(np.array([np.nan]))
    assert spread.to_dict() is None


def test_compression_is_a_positive_pressure_and_a_slab_has_no_volume():
    columns = {
        'offsets': np.array([0, 1, 3]),
        'cells': np.array([2 * np.eye(3), 3 * np.eye(3)]),
        'pbc': np.array([[True] * 3, [True, True, False]]),
        'stress': np.array([[-1.0, -1.0, -1.0, 0, 0, 0], [np.nan] * 6]),
        'forces': np.array([[3.0, 4.0, 0.0], [0, 0, 0], [0, 0, 12.0]]),
    }
    found = GroupStatistics()
    found.add(columns, np.array([0, 1]))
    told = found.to_dict()
    assert told['pressure']['mean'] == pytest.approx(GPA)
    assert told['volume'] == pytest.approx({'mean': 8.0, 'std': 0.0, 'lowest': 8.0, 'highest': 8.0})
    assert told['forces']['highest'] == 12.0
    assert told['forces_rms'] == pytest.approx(np.sqrt((25 + 144) / 9))
    assert told['energy'] is None
