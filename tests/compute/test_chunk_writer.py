"""What a run leaves on disk: whole chunks, whenever it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.compute.chunk import Chunk, TrajectoryError
from aiida_perovmlip.compute.chunk_writer import FOLDER, MANIFEST, ChunkWriter, read_manifest
from aiida_perovmlip.compute.trajectory import MovingAtoms, Trajectory


@pytest.fixture
def atoms():
    return MovingAtoms(np.array([55, 82, 53, 53]), np.array([132.9, 207.2, 126.9, 126.9]), np.ones(3, bool))


def files_of(folder):
    return {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()}


def test_the_same_frames_give_the_same_files(write_trajectory, tmp_path):
    for name in ('a', 'b'):
        write_trajectory(tmp_path / name, range(0, 200, 10), velocities=True)
    assert files_of(tmp_path / 'a') == files_of(tmp_path / 'b')
    assert len(files_of(tmp_path / 'a')) > 6


def test_a_chunk_ends_where_it_is_full(write_trajectory, tmp_path):
    trajectory = write_trajectory(tmp_path, range(0, 200, 10), most_bytes=800)
    sizes = [sum(column.nbytes for column in chunk.columns.values()) for chunk in trajectory.chunks()]
    frame, row = 8 + 48 + 72, 8 + 8 + 48  # step, positions, cell; step, temperature, stress
    assert len(sizes) > 3
    assert all(800 <= size < 800 + max(frame, row) for size in sizes[:-1])
    assert sum(sizes) == 20 * (frame + row)


def test_rows_without_frames_fill_chunks_too(atoms, tmp_path):
    writer = ChunkWriter(tmp_path, atoms, 200)
    for step in range(60):
        writer.thermo(step, temperature=300.0)
    writer.close()
    trajectory = Trajectory.open_folder(tmp_path, 1.0)
    assert len(trajectory.entries) > 3
    assert len(trajectory) == 0
    assert trajectory.thermo('temperature')[1].tolist() == [300.0] * 60
    assert list(trajectory.blocks()) == []


def test_an_empty_chunk_is_not_written(atoms, tmp_path):
    writer = ChunkWriter(tmp_path, atoms)
    writer.close()
    assert writer.n_closed == 0
    assert len(writer.open_chunk()) == 0
    assert writer.open_chunk().problem(4) is None
    assert len(Trajectory.open_folder(tmp_path, 1.0)) == 0


def test_a_run_that_is_taken_up_leaves_the_same_files(write_trajectory, add_step, atoms, tmp_path):
    write_trajectory(tmp_path / 'at once', range(0, 300, 10))
    writer = ChunkWriter(tmp_path / 'taken up', atoms, 800)
    for step in range(0, 110, 10):
        add_step(writer, step)
    with (tmp_path / 'rest.npz').open('wb') as handle:
        writer.open_chunk().write(handle)
    closed = writer.n_closed
    for step in range(110, 230, 10):  # what is written after the state that was saved is written again
        add_step(writer, step)
    assert writer.n_closed > closed + 1
    with (tmp_path / 'rest.npz').open('rb') as handle:
        writer = ChunkWriter(tmp_path / 'taken up', atoms, 800, closed, Chunk.read(handle))
    assert len(read_manifest(tmp_path / 'taken up' / FOLDER)[1]) == closed
    for step in range(110, 300, 10):
        add_step(writer, step)
    writer.close()
    assert files_of(tmp_path / 'taken up') == files_of(tmp_path / 'at once')


def test_a_run_that_starts_again_forgets_what_was_there(write_trajectory, tmp_path):
    write_trajectory(tmp_path, range(0, 300, 10))
    trajectory = write_trajectory(tmp_path, range(0, 30, 10))
    assert trajectory.steps().tolist() == [0, 10, 20]
    assert len(files_of(tmp_path)) == 2 + len(trajectory.entries)


FOREVER = """
import sys
from itertools import count
from pathlib import Path
import numpy as np
from aiida_perovmlip.compute.trajectory import ChunkWriter, MovingAtoms
atoms = MovingAtoms(np.full(2000, 53), np.full(2000, 126.9), np.ones(3, bool))
writer = ChunkWriter(Path(sys.argv[1]), atoms, 200_000)
for step in count():
    writer.thermo(step, temperature=300.0)
    writer.frame(step, np.full((2000, 3), float(step)), np.eye(3))
"""


@pytest.mark.parametrize('attempt', range(4))
def test_a_killed_run_leaves_only_whole_chunks(tmp_path, attempt):
    child = subprocess.Popen([sys.executable, '-c', FOREVER, str(tmp_path)])
    manifest = tmp_path / FOLDER / MANIFEST
    while not manifest.is_file() or len(read_manifest(manifest.parent)[1]) < 3 + attempt:
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(0.003 * attempt)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    trajectory = Trajectory.open_folder(tmp_path, 1.0)
    steps = trajectory.steps()
    assert steps.tolist() == list(range(len(trajectory)))
    for block in trajectory.blocks():
        assert (block.positions == np.rint(block.times * 1000)[:, None, None]).all()
    assert trajectory.thermo('temperature')[0].shape == steps.shape


@pytest.mark.parametrize(
    ('add', 'what'),
    [
        (
            lambda writer: writer.thermo(20, temperature=300.0, stress=np.zeros(6)),
            'thermodynamic row of step 20 comes after that of step 20',
        ),
        (lambda writer: writer.frame(10, np.zeros((4, 3)), np.eye(3)), 'frame of step 10 comes after that of step 20'),
        (lambda writer: writer.frame(30, np.zeros((3, 3)), np.eye(3)), r'`positions` has shape \(3, 3\)'),
        (lambda writer: writer.frame(30, np.full((4, 3), np.nan), np.eye(3)), '`positions` .* not finite'),
        (lambda writer: writer.frame(30, np.full((4, 3), 1e39), np.eye(3)), '`positions` .* not finite'),
        (lambda writer: writer.frame(30, np.zeros((4, 3)), np.full((3, 3), np.inf)), '`cells` .* not finite'),
        (lambda writer: writer.frame(30, np.zeros((4, 3)), np.eye(3), np.zeros((4, 3))), 'differs .* `velocities`'),
        (lambda writer: writer.thermo(30, temperature=300.0), 'differs from those before in `stress`'),
        (lambda writer: writer.thermo(30, temperature=np.inf, stress=np.zeros(6)), '`thermo_temperature` .* finite'),
        (lambda writer: writer.thermo(30, temperature=300.0, stress=0.0), '`thermo_stress` has shape'),
    ],
)
def test_a_bad_row_is_refused_with_its_step_and_nothing_is_lost(atoms, add_step, tmp_path, add, what):
    writer = ChunkWriter(tmp_path, atoms, 400)
    for step in (0, 10, 20):
        add_step(writer, step)
    with pytest.raises(TrajectoryError, match=what):
        add(writer)
    add_step(writer, 30)
    writer.close()
    assert Trajectory.open_folder(tmp_path, 1.0).steps().tolist() == [0, 10, 20, 30]


def test_an_unknown_quantity_is_refused(atoms, tmp_path):
    with pytest.raises(TrajectoryError, match='`mood`; known are temperature, '):
        ChunkWriter(tmp_path, atoms).thermo(0, mood=1.0)


def test_a_state_that_does_not_fit_the_folder_is_refused(write_trajectory, atoms, tmp_path):
    trajectory = write_trajectory(tmp_path, range(0, 300, 10))
    n_chunks = len(trajectory.entries)
    with pytest.raises(TrajectoryError, match=f'of the {n_chunks + 1} chunks .* only {n_chunks} were written'):
        ChunkWriter(tmp_path, atoms, 800, n_chunks + 1)
    with pytest.raises(TrajectoryError, match='other atoms: their masses differ'):
        ChunkWriter(tmp_path, replace(atoms, masses=atoms.masses * 2), 800, 1)
    with pytest.raises(TrajectoryError, match='open when the state was saved is none'):
        ChunkWriter(tmp_path, atoms, 800, 1, Chunk({'steps': np.zeros(1)}))
    with pytest.raises(TrajectoryError, match='step 0 comes after'):
        ChunkWriter(tmp_path, atoms, 800, 1, trajectory.chunk(0))
    (tmp_path / FOLDER / '000001.npz').unlink()
    with pytest.raises(TrajectoryError, match=r'not all are there: 000001\.npz'):
        ChunkWriter(tmp_path, atoms, 800, 1)
    with pytest.raises(TrajectoryError, match='there is no trajectory in'):
        ChunkWriter(tmp_path / 'nowhere', atoms, 800, 1)


@pytest.mark.parametrize(
    ('text', 'what'),
    [
        ('{', 'no list of chunks'),
        ('[]', 'no list of chunks'),
        (json.dumps({'format': 1, 'columns': []}), 'no list of chunks'),
        (json.dumps({'format': 2}), 'written in format 2; this version reads 1'),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, text, what):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(TrajectoryError, match=what):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ('change', 'what'),
    [
        ({'numbers': np.zeros(0)}, '`numbers`'),
        ({'numbers': np.array([0, 1, 2, 3])}, '`numbers`'),
        ({'numbers': np.array([300, 1, 2, 3])}, '`numbers`'),
        ({'masses': np.ones(3)}, '`masses`'),
        ({'masses': np.zeros(4)}, '`masses`'),
        ({'masses': np.full(4, np.nan)}, '`masses`'),
        ({'pbc': np.ones(2, bool)}, '`pbc`'),
    ],
)
def test_atoms_that_cannot_be_are_refused(atoms, change, what):
    with pytest.raises(TrajectoryError, match=what):
        replace(atoms, **change)
