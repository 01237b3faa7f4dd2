"""Frames that a committee is least sure of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.calculations.functions.choose import choose_by_spread
from aiida_perovmlip.data.dataset import DatasetData


def predicted(frames, level, energies, forces):
    """Return frames with energies and forces that are shifted by so much."""
    changed = [
        replace(frame, energy=frame.energy + energy, forces=frame.forces + force)
        for frame, energy, force in zip(frames, energies, forces, strict=True)
    ]
    return DatasetData.from_frames(changed, level).store()


@pytest.fixture
def frames(make_frames):
    return make_frames(5)


def test_frames_come_by_the_larger_of_both_spreads(frames, level):
    dataset = DatasetData.from_frames(frames, level).store()
    one = predicted(frames, level, np.zeros(5), np.zeros(5))
    other = predicted(frames, level, [0.1, 0.1, 9.0, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 2.0])
    found = choose_by_spread(dataset, orm.Int(2), one=one, other=other)
    positions = [list(dataset.frames.digests()).index(digest) for digest in found.frames.digests()]
    assert positions == [2, 4]


def test_predictions_of_other_frames_and_too_many_are_refused(frames, level):
    dataset = DatasetData.from_frames(frames, level).store()
    one, other = (predicted(frames, level, np.full(5, shift), np.zeros(5)) for shift in (0.0, 1.0))
    with pytest.raises(ValueError, match='6 frames cannot be chosen out of 5'):
        choose_by_spread(dataset, orm.Int(6), one=one, other=other)
    reverse = DatasetData.from_frames(list(one)[::-1], level).store()
    with pytest.raises(ValueError, match='`other` predicts are not the frames'):
        choose_by_spread(dataset, orm.Int(1), one=one, other=reverse)
    with pytest.raises(ValueError, match='at least two members'):
        choose_by_spread(dataset, orm.Int(1), one=one)
