"""Parts of one run follow each other, and what is none is refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.compute.chunk import TrajectoryError, sum_of_digests
from aiida_perovmlip.compute.seams import join


def digest_of(entries):
    return sum_of_digests(entry.digest for entry in entries)


@pytest.fixture
def write(write_trajectory, tmp_path):
    def write(name, steps, **fields):
        return write_trajectory(tmp_path / name, steps, **fields)

    return write


@pytest.mark.parametrize('start', [110, 100])
@pytest.mark.parametrize('most_bytes', [1, 600, 100_000])
def test_legs_hold_the_rows_of_one_run_however_they_were_cut(write, start, most_bytes):
    whole = write('whole', range(0, 310, 10))
    parts = [write('a', range(0, 110, 10)), write('b', range(start, 210, 10), most_bytes=most_bytes)]
    parts.append(write('c', range(start + 100, 310, 10), most_bytes=most_bytes))
    entries = join(parts)
    assert digest_of(entries) == digest_of(whole.entries)
    assert sum(entry.frames.count for entry in entries) == 31
    assert sum(entry.skipped_frames for entry in entries) == (2 if start == 100 and most_bytes > 1 else 0)


def test_a_part_of_nothing_but_the_seam_adds_nothing(write):
    parts = [write('a', range(0, 110, 10)), write('b', [100]), write('c', range(100, 210, 10))]
    assert digest_of(join(parts)) == digest_of(write('whole', range(0, 210, 10)).entries)


def test_parts_without_frames_are_joined_by_their_rows(write, tmp_path):
    from aiida_perovmlip.compute.trajectory import ChunkWriter, Trajectory

    parts = []
    for name, steps in (('a', range(0, 50, 10)), ('b', range(40, 90, 10))):
        atoms = write('atoms', [0]).atoms
        writer = ChunkWriter(tmp_path / name, atoms, 100)
        for step in steps:
            writer.thermo(step, temperature=float(step))
        writer.close()
        parts.append(Trajectory.open_folder(tmp_path / name, 1.0))
    joined = parts[0].of_chunks(join(parts)[: len(parts[0].entries)])
    assert sum(entry.thermo.count for entry in join(parts)) == 9
    assert joined.thermo('temperature')[1].tolist() == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    ('steps', 'fields', 'what'),
    [
        (range(120, 210, 10), {}, 'gap in the frames: one part ends at step 100, the next one starts at step 120'),
        (range(90, 210, 10), {}, 'the frames overlap: one part ends at step 100, the next one starts at step 90'),
        (range(0, 110, 10), {}, 'the frames overlap'),
        (range(110, 210, 10), {'masses': np.ones(4)}, 'other atoms: their masses differ'),
        (range(110, 210, 10), {'timestep': 1.0}, r'timesteps of the parts differ: 2\.0 fs and 1\.0 fs'),
        (range(110, 210, 10), {'velocities': True}, 'frames of the parts differ in `velocities`'),
    ],
)
def test_parts_of_no_one_run_are_refused(write, steps, fields, what):
    with pytest.raises(TrajectoryError, match=what):
        join([write('a', range(0, 110, 10)), write('b', steps, **fields)])


def test_a_gap_in_the_rows_alone_is_refused(write, tmp_path):
    from aiida_perovmlip.compute.trajectory import ChunkWriter, Trajectory

    first = write('a', range(0, 110, 10))
    writer = ChunkWriter(tmp_path / 'b', first.atoms)
    writer.frame(110, np.zeros((4, 3)), np.eye(3))
    writer.thermo(130, temperature=300.0, stress=np.zeros(6))
    writer.close()
    with pytest.raises(TrajectoryError, match='gap in the thermodynamic rows'):
        join([first, Trajectory.open_folder(tmp_path / 'b', 2.0)])


def test_other_quantities_are_refused(write, tmp_path):
    from aiida_perovmlip.compute.trajectory import ChunkWriter, Trajectory

    first = write('a', range(0, 110, 10))
    writer = ChunkWriter(tmp_path / 'b', first.atoms)
    writer.thermo(110, temperature=300.0)
    writer.close()
    with pytest.raises(TrajectoryError, match='thermodynamic rows of the parts differ in `stress`'):
        join([first, Trajectory.open_folder(tmp_path / 'b', 2.0)])


def test_frames_of_one_step_that_differ_are_of_different_runs(write, tmp_path):
    from aiida_perovmlip.compute.trajectory import ChunkWriter, Trajectory

    first = write('a', range(0, 110, 10))
    for shift, refused in ((0.001, False), (0.1, True)):
        frame = first.frame(-1)
        writer = ChunkWriter(tmp_path / str(shift), first.atoms)
        writer.frame(100, frame.positions + shift, frame.cell)
        writer.frame(110, frame.positions, frame.cell)
        writer.close()
        later = Trajectory.open_folder(tmp_path / str(shift), 2.0)
        if refused:
            with pytest.raises(TrajectoryError, match=r'different runs: their frames of step 100 differ by up to 0\.1'):
                join([first, later])
        else:
            assert sum(entry.frames.count for entry in join([first, later])) == 12


def test_parts_are_compared_even_where_the_first_one_has_no_frames(write, tmp_path):
    from aiida_perovmlip.compute.trajectory import ChunkWriter, Trajectory

    later = [write('b', range(0, 50, 10)), write('c', range(50, 90, 10), velocities=True)]
    writer = ChunkWriter(tmp_path / 'a', later[0].atoms)
    writer.thermo(0, temperature=300.0, stress=np.zeros(6))
    writer.close()
    with pytest.raises(TrajectoryError, match='frames of the parts differ in `velocities`'):
        join([Trajectory.open_folder(tmp_path / 'a', 2.0), *later])
