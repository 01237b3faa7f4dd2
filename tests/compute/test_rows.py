"""Rows of thermodynamics by themselves: they and the frames add up to the trajectory."""

from __future__ import annotations

import io

import numpy as np
import pytest

from aiida_perovmlip.compute.chunk import Chunk, TrajectoryError, sum_of_digests
from aiida_perovmlip.compute.chunk_writer import ChunkWriter
from aiida_perovmlip.compute.moving_atoms import MovingAtoms
from aiida_perovmlip.compute.rows import Rows, without_rows
from aiida_perovmlip.compute.trajectory import Trajectory

ATOMS = MovingAtoms(np.array([29, 29]), np.array([63.5, 63.5]), np.ones(3, bool))


def write(folder, rows, steps=range(0, 40), most_bytes=600):
    """Write a frame each four steps and a row each step, in several chunks."""
    writer = ChunkWriter(folder, ATOMS, most_bytes)
    for step in steps:
        values = {'temperature': 300.0 + step, 'stress': np.arange(6.0) + step}
        writer.thermo(step, **values)
        rows.add(step, values)
        if step % 4 == 0:
            writer.frame(step, np.full((2, 3), step), np.eye(3))
    writer.close()
    return Trajectory.open_folder(folder, 1.0)


def test_frames_and_rows_apart_are_the_trajectory(tmp_path):
    rows = Rows(2)
    whole = write(tmp_path, rows)
    assert len(whole.entries) > 3
    alone, chunk = without_rows(whole.entries, rows.chunk()), rows.chunk()
    assert chunk.problem(2) is None
    frames = whole.of_chunks(alone)
    assert (len(frames), frames.thermo_span.count) == (10, 0)
    assert np.array_equal(frames.cells(), whole.cells())
    assert np.array_equal(frames.steps(), whole.steps())
    together = sum_of_digests([*(entry.digest for entry in alone), chunk.digest])
    assert together == sum_of_digests(entry.digest for entry in whole.entries)
    assert np.array_equal(chunk.thermo('stress')[1], whole.thermo('stress')[1])


def test_a_chunk_without_frames_is_left_out(tmp_path):
    rows = Rows(2)
    whole = write(tmp_path, rows, most_bytes=100)
    assert any(not entry.frames.count for entry in whole.entries)
    assert all(entry.frames.count for entry in without_rows(whole.entries, rows.chunk()))


def test_rows_go_on_behind_those_of_a_state():
    first, whole = Rows(2), Rows(2)
    for step in range(6):
        whole.add(step, {'temperature': float(step)})
        if step < 3:
            first.add(step, {'temperature': float(step)})
    buffer = io.BytesIO()
    first.chunk().write(buffer)
    buffer.seek(0)
    rest = Rows(2, Chunk.read(buffer))
    for step in range(3, 6):
        rest.add(step, {'temperature': float(step)})
    assert rest.chunk().digest == whole.chunk().digest
    assert Rows(2).chunk().problem(2) is None


def test_rows_of_another_run_are_refused(tmp_path):
    rows = Rows(2)
    whole = write(tmp_path, rows)
    other = Rows(2)
    for step in range(1, 41):
        other.add(step, {'temperature': 1.0, 'stress': np.zeros(6)})
    with pytest.raises(TrajectoryError, match=r'the rows are not those of the chunk 000001\.npz'):
        without_rows(whole.entries, other.chunk())


def test_a_row_that_no_trajectory_has_is_refused():
    rows = Rows(2)
    rows.add(0, {'mood': 1.0})
    with pytest.raises(TrajectoryError, match='there is no column `thermo_mood`'):
        rows.chunk()
