"""GPUMD's trainer as a process: what is made of what it writes, and of the ways in which it ends.

GPUMD needs a GPU, so a stand-in takes its place, which reads and writes the same files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.architectures.nep import gpumd
from aiida_perovmlip.compute.architectures.nep.gpumd import train_with_gpumd
from aiida_perovmlip.compute.architectures.nep.inputs import nep_in, write_frames
from aiida_perovmlip.compute.architectures.nep.potential_file import Header, read_nep
from aiida_perovmlip.compute.architectures.nep.settings import NepSettings, resolve
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards

STAND_IN = Path(__file__).parents[1] / 'stand_ins' / 'gpumd_nep_stand_in.py'
HEADER = Header(('Cs', 'I', 'Pb'), (5.0, 4.0), (2, 2), (3, 3), (2, 0, 0), 4)
SMALL = {'radial_cutoff': 5.0, 'angular_cutoff': 4.0, 'n_max': [2, 2], 'basis_size': [3, 3], 'l_max': [2, 0, 0]}
SMALL['neurons'] = 4


@pytest.fixture
def executable(tmp_path):
    path = tmp_path / 'stand-in'
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN}\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def run(executable, make_frames, tmp_path, monkeypatch):
    """Return a function that trains in a fresh folder and keeps the checkpoint."""
    count = iter(range(100))

    def go(way='', generations=500, seconds=lambda: 100.0, extra=None, **fields):
        monkeypatch.setenv('NEP_STAND_IN', way)
        folder = tmp_path / f'run{next(count)}'
        folder.mkdir()
        settings = NepSettings(
            **{
                'trainer': 'gpumd',
                'executable': executable,
                'neurons': 4,
                'generations': generations,
                **SMALL,
                **fields,
            }
        )
        frames = write_folder(build_shards(make_frames(3)), folder / 'training')
        reports = []
        training = Training(
            settings=settings,
            training=frames,
            validation=frames,
            folder=folder,
            checkpoint=Checkpoint(tmp_path / 'checkpoint', 'the same'),
            report=reports.append,
            seconds_left=seconds,
        )
        wanted = resolve(settings, None, 3, has_stress=True)
        state = training.checkpoint.state()
        left = {**wanted, 'generations': generations - (state.step if state else 0)}
        (folder / 'nep.in').write_text(nep_in(left, HEADER.elements, extra or {}))
        for name in ('train.xyz', 'test.xyz'):
            write_frames(frames, folder / name, {})
        curve, effective = train_with_gpumd(training, wanted, {'trainer': 'gpumd'}, HEADER)
        return folder, curve, effective, reports

    return go


def test_a_run_gives_its_curve_its_potential_and_what_it_used(run):
    folder, curve, effective, reports = run()
    assert [step['step'] for step in curve] == [100, 200, 300, 400, 500]
    assert curve[-1]['loss'] == 0.02
    assert curve[-1]['validation_forces_rmse'] == 0.2
    assert reports[-1] == {**curve[-1], 'of': 500}
    assert read_nep(folder / 'nep.txt').header == HEADER
    assert effective['generations'] == 500
    assert (effective['frames_per_generation'], effective['population']) == (3, 50)
    assert (effective['lambda_e'], effective['lambda_v']) == (1.0, 0.1)


def test_a_run_that_is_stopped_goes_on_from_its_restart_file(run, monkeypatch):
    monkeypatch.setattr(gpumd, 'SAVE_EVERY', 0.0)
    left = iter([100.0] * 8)
    with pytest.raises(JobError, match='was stopped at generation') as caught:
        run('slow', 3000, lambda: next(left, 0.0))
    assert caught.value.status is Status.OUT_OF_WALLTIME
    reached = caught.value.results['curve'][-1]['step']
    assert 0 < reached < 3000
    folder, curve, effective, reports = run('', 3000)
    assert [step['step'] for step in curve] == list(range(100, 3001, 100))
    assert 'Started from nep.restart' in (folder / 'trainer.log').read_text()
    assert reports[0]['step'] > 100
    assert effective['generations'] == 3000
    # and once more, now that nothing is left to do
    _, again, found, reports = run('', 3000)
    assert (again, found, reports) == (curve, effective, [])


@pytest.mark.parametrize(
    ('way', 'status', 'message'),
    [
        ('crash', Status.FAILED, 'exit status 1 after step 200.*illegal memory access'),
        ('silent', Status.FAILED, r'ended without `Finished running nep\.`'),
        ('diverge', Status.DIVERGED, 'The loss is nan at generation 100'),
    ],
)
def test_every_bad_end_has_a_name(run, way, status, message):
    with pytest.raises(JobError, match=message) as caught:
        run(way)
    assert caught.value.status is status


def test_an_unknown_keyword_ends_the_run_with_what_the_trainer_said(run):
    with pytest.raises(JobError, match='no_such_keyword is an invalid keyword'):
        run(extra={'no_such_keyword': 1})


def test_a_trainer_that_is_not_there_is_named_with_advice(run):
    with pytest.raises(JobError, match=r'`prepend_text`.*`executable`.*trainer `neppo`') as caught:
        run(executable='no-such-nep')
    assert caught.value.status is Status.MISSING_PACKAGE


def test_half_a_restart_file_is_never_saved(run, tmp_path):
    folder, *_ = run()
    lines = (folder / 'nep.restart').read_text().splitlines()
    (folder / 'nep.restart').write_text('\n'.join(lines[:-1]))
    whole = gpumd._Run._is_whole
    fake = type('Run', (), {'folder': folder, 'header': HEADER})()
    assert not whole(fake, 'nep.restart')
    assert whole(fake, 'nep.txt')
    (folder / 'nep.txt').write_text('\n'.join((folder / 'nep.txt').read_text().splitlines()[:-2]))
    assert not whole(fake, 'nep.txt')
