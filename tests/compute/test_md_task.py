"""Molecular dynamics as a task of a job: killed, started again, taken up, refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import RESPONSE, JobError, Request, Response, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.harness import main, needed_plugins
from aiida_perovmlip.compute.md import read_md_settings
from aiida_perovmlip.compute.recorder import ABOUT, ARRAYS, OPEN, Recorder, read_state
from aiida_perovmlip.compute.shard import build_shards
from aiida_perovmlip.compute.task import Job
from aiida_perovmlip.compute.tasks.md import Segment
from aiida_perovmlip.compute.trajectory import Trajectory

ATOMS = bulk('Cu', cubic=True) * (2, 1, 1)
SETTINGS = {'steps': 40, 'timestep': 2.0, 'frames_every': 4, 'thermo_every': 2, 'save_every': 5, 'ensemble': 'npt'}


@pytest.fixture
def prepare(copper_files: Path, tmp_path: Path) -> Any:
    """Return a function that makes the folder of a job and returns it."""

    def make(name='job', settings=None, frames=(ATOMS,), without=(), **more: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        shutil.copytree(copper_files, folder / 'potential', dirs_exist_ok=True)
        if frames:
            write_folder(build_shards([Frame.from_atoms(atoms) for atoms in frames]), folder / 'start')
        inputs = {name: name for name in ('potential', 'start', 'state') if (folder / name).is_dir()}
        request = Request(
            task='aiida_perovmlip.compute.tasks.md:Md',
            plugins={
                'architecture': 'aiida_perovmlip.compute.architectures.reference:Reference',
                'engine': 'aiida_perovmlip.compute.engines.ase:Ase',
            },
            inputs={name: place for name, place in inputs.items() if name not in without},
            settings={'md': {**SETTINGS, **(settings or {})}, 'identity': 'this run', **more},
            seed=3,
        )
        (folder / 'request.json').write_text(request.dump())
        return folder

    return make


def response_of(folder: Path) -> Response:
    main(folder)
    return Response.load((folder / RESPONSE).read_text())


def bytes_of(*folders: Path) -> dict[str, bytes]:
    chunks = [chunk for folder in folders for chunk in Trajectory.open_folder(folder, 2.0).chunks()]
    return {name: np.concatenate([chunk.columns[name] for chunk in chunks]).tobytes() for name in chunks[0].columns}


def hand_over(folder: Path, to: Path) -> None:
    """Leave the newest state of a folder to another job, as AiiDA does."""
    state = Checkpoint(folder / 'checkpoint', 'this run').state()
    shutil.copytree(state.folder, to / 'state')
    about = {name: state.about[name] for name in ('engine', 'spread')}
    (to / 'state' / ABOUT).write_text(json.dumps({'step': state.step, 'identity': 'this run', **about}))


def test_a_job_that_was_killed_and_started_again_leaves_what_it_would_have_left(prepare):
    assert response_of(prepare('whole')).status is Status.OK
    folder = prepare('killed', {'steps': 10**6})
    command = [sys.executable, '-m', 'aiida_perovmlip.compute.harness']
    job = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (folder / 'checkpoint' / '000003').is_dir():
            assert time.monotonic() < deadline
            assert job.poll() is None
            time.sleep(0.01)
        os.kill(job.pid, signal.SIGKILL)
    finally:
        job.kill()
        job.wait()
    assert not (folder / RESPONSE).exists()
    reached = Checkpoint(folder / 'checkpoint', 'this run').state().step
    prepare('killed', {'steps': 40})
    response = response_of(folder)
    assert response.status is Status.OK
    assert response.results['begun_at_step'] == reached >= 15
    assert bytes_of(folder) == bytes_of(folder.with_name('whole'))


def test_a_job_ends_after_its_segment_and_the_next_goes_on(prepare):
    first = prepare('first', segment_steps=17)
    response = response_of(first)
    assert (response.status, response.results['step'], response.results['n_steps']) == (Status.OK, 17, 40)
    assert response.results['effective']['degrees_of_freedom'] == 24
    second = first.with_name('second')
    second.mkdir()
    hand_over(first, second)
    assert response_of(prepare('second')).results['begun_at_step'] == 17
    response_of(prepare('whole'))
    assert bytes_of(first, second) == bytes_of(first.with_name('whole'))


def test_what_a_job_of_aiida_would_not_have_been_given_is_refused(prepare):
    for number, (more, words) in enumerate(
        [
            ({'settings': {'steps': 0}}, '`steps` is 0'),
            ({'settings': {'masses': {'Ag': 3.0}}}, 'names Ag, which the frame does not hold'),
            ({'settings': {'barostat': 'scr'}}, 'ase has no barostat `scr`'),
            ({'frames': ()}, 'starts from one structure, but there are none'),
            ({'frames': (ATOMS, ATOMS)}, 'starts from one structure, but there are 2'),
            ({'without': ('potential',)}, 'A run needs a potential'),
            ({'frames': (bulk('Ag'),), 'settings': {'ensemble': 'nve'}}, 'The dataset holds Ag'),
            ({'head': 'other'}, 'names the head `other`'),
        ]
    ):
        response = response_of(prepare(str(number), **more))
        assert response.status is Status.BAD_INPUT
        assert words in response.error['message']


def test_a_state_that_is_damaged_or_of_another_run_is_refused(prepare, tmp_path):
    first = prepare('first', segment_steps=5)
    response_of(first)
    hand_over(first, tmp_path)
    state = tmp_path / 'state'
    assert read_state(state, 'this run').step == 5
    with pytest.raises(JobError, match='The state is of another run'):
        read_state(state, 'another run')
    (state / ARRAYS).write_bytes(b'nothing')
    with pytest.raises(JobError, match='The state cannot be read'):
        read_state(state, 'this run')


def recorder_in(folder: Path) -> Recorder:
    settings = read_md_settings(SETTINGS)
    checkpoint = Checkpoint(folder / 'checkpoint', 'this run', asdict(settings))
    return Recorder(settings, Frame.from_atoms(ATOMS), checkpoint, folder)


def test_a_run_whose_frames_are_gone_is_not_gone_on_with(prepare):
    folder = prepare()
    response_of(folder)
    recorder = recorder_in(folder)
    assert recorder.step == 40
    recorder.close()
    recorder.save(40, {'positions': ATOMS.positions})
    (folder / 'trajectory' / '000001.npz').unlink()
    with pytest.raises(JobError, match='cannot be gone on with'):
        recorder_in(folder)


def test_a_damaged_state_leads_to_the_one_before_it(prepare):
    folder = prepare()
    response_of(folder)
    newest = max((folder / 'checkpoint').iterdir())
    (newest / OPEN).write_bytes(b'nothing')
    assert recorder_in(folder).step == 35


def test_progress_tells_how_far_a_run_is(prepare, monkeypatch):
    monkeypatch.setattr('aiida_perovmlip.compute.recorder.SHOW_EVERY', 0.0)
    folder = prepare()
    response_of(folder)
    states = [json.loads(line) for line in (folder / 'progress.jsonl').read_text().splitlines()]
    assert states[-1]['what'] == 'dynamics'
    assert (states[-1]['step'], states[-1]['of']) == (40, 40)
    assert states[-1]['temperature'] > 0


def test_a_program_of_its_own_needs_no_packages_of_the_architecture():
    from aiida_perovmlip.compute.architectures.mace import Mace
    from aiida_perovmlip.compute.engines.ase import Ase

    class Alone(Ase):
        uses_calculator = False

    assert [type(plugin) for plugin in needed_plugins({'architecture': Mace(), 'engine': Ase()})] == [Mace, Ase]
    assert [type(plugin) for plugin in needed_plugins({'architecture': Mace(), 'engine': Alone()})] == [Alone]
    assert Ase.needs_potential
    assert not Alone.needs_potential


def test_what_comes_after_the_newest_state_is_not_counted_as_done(tmp_path):
    settings, frame = read_md_settings(SETTINGS), Frame.from_atoms(ATOMS)
    recorder = Recorder(settings, frame, Checkpoint(tmp_path / 'checkpoint', 'this run'), tmp_path)
    segment = Segment(Job(tmp_path, Request(task='')), recorder)
    for step in range(9):
        recorder.watch(step, frame.positions, frame.cell)
        if step == 5:
            recorder.save(step, {})
    assert segment.reached()['step'] == 5


def test_a_long_job_keeps_no_hour_back(prepare):
    folder = prepare()
    for walltime, least in ((86_400.0, 86_400.0 - 310.0), (100.0, 94.0)):
        segment = Segment(Job(folder, Request('', walltime=walltime)), recorder_in(folder))
        assert least < segment.seconds_left() < walltime * 0.9999
        segment.job.stopping = True
        assert segment.seconds_left() == 0.0
    unlimited = Segment(Job(folder, Request('')), recorder_in(folder))
    assert unlimited.seconds_left() == math.inf
    unlimited.recorder.step = 40
    assert unlimited.seconds_left() == 0.0
