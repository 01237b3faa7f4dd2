"""Fluctuations of levels that were drawn from a known distribution."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aiida_perovmlip.analysis.band_edges import edges_of


def test_the_deviation_has_one_less_below_it():
    found = edges_of([1.0, 3.0], [4.0, 5.0])
    assert found.vbm.std == pytest.approx(np.sqrt(2))
    assert found.vbm.mean_error == pytest.approx(1.0)
    assert found.gap.mean == pytest.approx(2.5)
    assert not found.has_reference


def test_the_deviation_of_twenty_snapshots_is_known_to_sixteen_percent():
    rng = np.random.default_rng(0)
    found = [edges_of(rng.normal(0, 0.1, 20), rng.normal(2, 0.2, 20)) for _ in range(2000)]
    assert found[0].vbm.std_error / found[0].vbm.std == pytest.approx(0.162, abs=0.001)
    assert np.std([each.vbm.std for each in found]) == pytest.approx(0.0162, rel=0.06)
    assert np.mean([each.cbm.std for each in found]) == pytest.approx(0.2, rel=0.02)


def test_a_shift_of_the_zero_is_taken_away_by_the_reference():
    rng = np.random.default_rng(1)
    vbm, cbm, shift = rng.normal(0, 0.1, 50), rng.normal(2, 0.1, 50), rng.normal(0, 3, 50)
    known, found = edges_of(vbm, cbm), edges_of(vbm + shift, cbm + shift, shift)
    assert found.has_reference
    assert found.vbm.std == pytest.approx(known.vbm.std)
    assert edges_of(vbm + shift, cbm + shift).vbm.std > 1.0
    assert edges_of(vbm + shift, cbm + shift).gap.std == pytest.approx(known.gap.std)


def test_edges_that_move_together_are_correlated():
    vbm = np.random.default_rng(0).normal(size=30)
    assert edges_of(vbm, vbm + 2).correlation == pytest.approx(1.0)
    assert edges_of(np.zeros(3), vbm[:3] ** 2).correlation is None


def test_edges_are_plain_json():
    assert json.loads(json.dumps(edges_of([0, 1], [2, 3]).to_dict()))['n'] == 2


@pytest.mark.parametrize(
    ('vbm', 'cbm', 'reference', 'sentence'),
    [
        ([0], [1], None, 'at least two snapshots'),
        ([0, 1], [1], None, 'there are 2 and 1 edges'),
        ([0, 1], [1, 2], [0], 'at least two snapshots'),
        ([0, np.nan], [1, 2], None, 'not finite'),
        ([0, 3], [1, 2], None, 'of snapshot 1 is 1.000 eV below'),
    ],
)
def test_edges_that_are_none_are_refused(vbm, cbm, reference, sentence):
    with pytest.raises(ValueError, match=sentence):
        edges_of(vbm, cbm, reference)
