"""Trajectories are read piece by piece."""

from __future__ import annotations

import io
from contextlib import nullcontext

import numpy as np
import pytest

from aiida_perovmlip.compute.chunk_writer import FOLDER
from aiida_perovmlip.compute.trajectory import Trajectory, TrajectoryError


@pytest.fixture
def trajectory(write_trajectory, tmp_path):
    return write_trajectory(tmp_path, range(0, 300, 10), velocities=True)


class Counted(io.FileIO):
    """A file that counts the bytes that are read of all of its kind."""

    total = 0

    def readinto(self, buffer):
        count = super().readinto(buffer)
        Counted.total += count
        return count

    def read(self, size=-1):
        data = super().read(size)
        Counted.total += len(data)
        return data


def counted(folder, trajectory):
    """Return the same trajectory, read through files that count."""
    Counted.total = 0

    def opener(entry):
        return Counted(folder / FOLDER / entry.path)

    opening = lambda: nullcontext(opener)  # noqa: E731
    return Trajectory(trajectory.atoms, trajectory.timestep, trajectory.entries, trajectory.columns, opening)


def test_blocks_hold_all_frames_once_with_times_in_ps(trajectory):
    blocks = list(trajectory.blocks())
    assert len(blocks) == len(trajectory.entries) > 3
    times = np.concatenate([block.times for block in blocks])
    assert np.allclose(times, np.arange(0, 300, 10) * 0.002)
    positions = np.concatenate([block.positions for block in blocks])
    assert positions.dtype == np.float64
    assert positions.shape == (30, 4, 3)
    assert np.allclose(positions[:, 3, 0], 9 + np.arange(0, 300, 10), atol=0.5)  # unwrapped: it walks out of the cell
    cells = np.concatenate([block.cells for block in blocks])
    assert np.allclose(cells[:, 1, 1], 12 + 1e-4 * np.arange(0, 300, 10))
    assert np.array_equal(cells, trajectory.cells())


@pytest.mark.parametrize('every', [1, 2, 3, 7, 29, 30, 1000])
def test_every_counts_over_the_whole_trajectory(trajectory, every):
    found = np.concatenate([block.times for block in trajectory.blocks(every)])
    assert np.allclose(found, (np.arange(0, 300, 10) * 0.002)[::every])


def test_atoms_are_taken_by_positions_or_by_a_mask(trajectory):
    everything = np.concatenate([block.positions for block in trajectory.blocks()])
    wanted = trajectory.atoms.numbers == 53
    for atoms, columns in ((wanted, [2, 3]), ([3, 0], [3, 0]), (np.array([], int), [])):
        found = np.concatenate([block.positions for block in trajectory.blocks(atoms=atoms)])
        assert np.array_equal(found, everything[:, columns])


def test_a_step_of_nothing_is_refused(trajectory):
    with pytest.raises(TrajectoryError, match='counts from 1'):
        next(trajectory.blocks(0))


def test_blocks_can_be_gone_through_again(trajectory):
    first, second = (sum(block.positions.sum() for block in trajectory.blocks()) for _ in range(2))
    assert first == second


def test_thermo_has_times_and_values(trajectory):
    times, values = trajectory.thermo('stress')
    assert np.array_equal(values, np.arange(6.0) * np.arange(0, 300, 10)[:, None])
    assert np.allclose(times, np.arange(0, 300, 10) * 0.002)
    assert trajectory.thermo_names == ('temperature', 'stress')
    assert trajectory.has_velocities
    with pytest.raises(TrajectoryError, match='no `spread`; its thermodynamic rows hold temperature, stress'):
        trajectory.thermo('spread')


def test_a_run_without_rows_says_so(write_trajectory, tmp_path):
    with pytest.raises(TrajectoryError, match='hold nothing'):
        write_trajectory(tmp_path, range(3), thermo=False).thermo('temperature')


def test_reading_one_column_does_not_read_the_positions(tmp_path):
    from aiida_perovmlip.compute.trajectory import ChunkWriter, MovingAtoms

    writer = ChunkWriter(tmp_path, MovingAtoms(np.full(20_000, 53), np.full(20_000, 127.0), np.ones(3, bool)), 10**6)
    for step in range(20):
        writer.thermo(step, temperature=300.0)
        writer.frame(step, np.zeros((20_000, 3)), np.eye(3))
    writer.close()
    whole = Trajectory.open_folder(tmp_path, 1.0)
    size = sum(entry.bytes for entry in whole.entries)
    for read in (Trajectory.steps, Trajectory.cells, lambda one: one.thermo('temperature')):
        read(counted(tmp_path, whole))
        assert 0 < Counted.total < size / 50
    list(counted(tmp_path, whole).blocks())
    assert Counted.total > size * 0.9


def test_frames_are_found_by_their_number(trajectory):
    everything = np.concatenate([block.positions for block in trajectory.blocks()])
    for index in (0, 5, 29, -1, -30):
        frame = trajectory.frame(index, charge=1)
        assert np.array_equal(frame.positions, everything[index])
        assert frame.charge == 1
        assert frame.numbers.tolist() == [55, 82, 53, 53]
    for index in (30, -31):
        with pytest.raises(IndexError, match=f'no frame {index} among 30'):
            trajectory.frame(index)


def test_one_frame_after_the_other_reads_each_chunk_once(trajectory, tmp_path):
    one = counted(tmp_path, trajectory)
    list(one.blocks())
    once = Counted.total
    one = counted(tmp_path, trajectory)
    assert [one.frame(index).cell[0, 0] for index in range(len(one))] == trajectory.cells()[:, 0, 0].tolist()
    assert Counted.total == once


def test_velocities_come_with_their_chunk(trajectory):
    chunk = next(trajectory.chunks())
    assert chunk.velocities.shape == chunk.positions.shape
    assert np.array_equal(chunk.velocities[1], trajectory.chunk(0, ['velocities']).velocities[1])


@pytest.mark.parametrize('damage', ['truncated', 'another', 'gone'])
def test_a_chunk_that_is_not_as_it_was_is_named(trajectory, tmp_path, damage):
    paths = [tmp_path / FOLDER / entry.path for entry in trajectory.entries]
    if damage == 'truncated':
        paths[1].write_bytes(paths[1].read_bytes()[:-100])
    elif damage == 'another':
        paths[1].write_bytes(paths[0].read_bytes())
    else:
        paths[1].unlink()
    with pytest.raises(TrajectoryError, match=r'chunk 1 \(000002\.npz\): '):
        list(trajectory.blocks())


def test_a_folder_without_a_trajectory_is_refused(tmp_path, write_trajectory):
    with pytest.raises(TrajectoryError, match=r'`chunks\.json` is missing'):
        Trajectory.open_folder(tmp_path, 1.0)
    write_trajectory(tmp_path, range(3))
    with pytest.raises(TrajectoryError, match='timestep is 0 fs'):
        Trajectory.open_folder(tmp_path, 0)
    (tmp_path / FOLDER / 'atoms.npz').write_bytes(b'nothing')
    with pytest.raises(TrajectoryError, match='atoms cannot be read'):
        Trajectory.open_folder(tmp_path, 1.0)
    (tmp_path / FOLDER / 'atoms.npz').unlink()
    with pytest.raises(TrajectoryError, match=r'no .*atoms\.npz'):
        Trajectory.open_folder(tmp_path, 1.0)
