"""The evaluation task: its clock, its files and what it refuses."""

from __future__ import annotations

import time

import numpy as np
import pytest

from aiida_perovmlip.compute.architecture import Prediction
from aiida_perovmlip.compute.contract import JobError
from aiida_perovmlip.compute.tasks.evaluate import Clock, PredictionFiles


class Sized:
    """A frame that knows its size alone."""

    def __len__(self):
        return 10


def timed(n_frames, batch, seconds=0.02, loading=0.1):
    """Return the speed of an architecture that predicts whole batches."""
    clock = Clock()

    def predict(frames):
        time.sleep(loading)
        waiting = []
        for frame in frames:
            waiting.append(frame)
            if len(waiting) == batch:
                time.sleep(seconds * batch)
                yield from [Prediction(0.0, np.zeros((10, 3)))] * batch
                waiting = []

    assert sum(1 for _ in clock.taken(predict(clock.given([Sized()] * n_frames)))) == n_frames
    return clock.speed()


@pytest.mark.parametrize('batch', [1, 4])
def test_loading_counts_for_nothing_and_neither_does_the_batch(batch):
    speed = timed(16, batch)
    assert speed['speed_is_warm'] is True
    assert speed['microseconds_per_atom'] == pytest.approx(2000, rel=0.3)


def test_a_single_batch_is_cold_and_says_so():
    speed = timed(4, 4)
    assert speed['speed_is_warm'] is False
    assert speed['microseconds_per_atom'] == pytest.approx(0.18 / 40 * 1e6, rel=0.3)


def test_what_is_not_predicted_is_nan(tmp_path):
    written = PredictionFiles(tmp_path / 'predictions', np.array([2, 1, 3]))
    written.put(1, Prediction(-1.0, np.ones((1, 3))))
    written.put(2, Prediction(-2.0, np.ones((3, 3)), np.arange(6.0)))
    written.flush()
    energy, forces, stress = (np.load(tmp_path / 'predictions' / f'{name}.npy') for name in written.arrays)
    assert np.array_equal(energy, [np.nan, -1.0, -2.0], equal_nan=True)
    assert np.isnan(forces[:2]).all()
    assert (forces[2:] == 1).all()
    assert np.isnan(stress[:2]).all()
    assert stress[2].tolist() == [0, 1, 2, 3, 4, 5]


def test_forces_of_another_frame_are_refused(tmp_path):
    written = PredictionFiles(tmp_path, np.array([2]))
    with pytest.raises(JobError, match=r'shape \(3, 3\) for frame 0, which has 2 atoms'):
        written.put(0, Prediction(0.0, np.zeros((3, 3))))
