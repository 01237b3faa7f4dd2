"""What is asked of MACE's trainer and read from its log; no MACE is needed here."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest

from aiida_perovmlip.compute.architecture import Plan, PotentialFacts, Training
from aiida_perovmlip.compute.architectures import mace
from aiida_perovmlip.compute.architectures.mace import Mace, MaceSettings
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards

LOG = """\
2026-01-01 00:00:00 DEBUG: Configuration: Namespace(config=None, lr=0.5, max_num_epochs=7, ema=False, ema_decay=0.99, \
batch_size=3, energy_weight=1.0, forces_weight=2.0, stress_weight=0.0, keys=Keys(a={'b': 'c'}))
2026-01-01 00:00:01 INFO: Atomic Energies used (z: eV) for head Default: {53: -105.64, 55: -35.25, 82: -1e-3}
"""


@pytest.fixture
def frames_of(tmp_path):
    def write(frames, name='training'):
        return write_folder(build_shards(frames), tmp_path / name)

    return write


def training_of(folder, frames, settings, parent=None):
    plan = {'training': frames, 'validation': frames, 'settings': settings, 'parent': parent}
    return Training(folder=folder, checkpoint=Checkpoint(folder / 'checkpoint', 'test'), **plan)


def problem_of(settings, training, validation):
    return Mace().check(Plan(settings=settings, training=training, validation=validation))


def without_stress(frames):
    return [replace(frame, stress=None) for frame in frames]


def test_energies_of_atoms_have_to_be_complete_and_may_be_more(frames_of, make_frames):
    frames = frames_of(make_frames(4))
    some = MaceSettings(atomic_energies={'Cs': -1.0})
    assert 'has no I, Pb' in problem_of(some, frames, frames)
    more = {'Cs': -1.0, 'Pb': -2.0, 'I': -3.0, 'Br': -4.0}
    assert problem_of(MaceSettings(atomic_energies=more), frames, frames) is None
    way = mace._way(more, None, {'Cs', 'Pb', 'I'})
    assert mace._atomic_energies(way) == '{55: -1.0, 82: -2.0, 53: -3.0}'
    assert 'has to be one of' in problem_of(MaceSettings(atomic_energies='mean'), frames, frames)


@pytest.mark.parametrize(
    ('given', 'known', 'expected'),
    [
        (None, None, 'average'),
        ('average', None, 'average'),
        (None, ('Cs', 'I'), 'foundation'),
        ('parent', ('Cs', 'I'), 'foundation'),
        ('estimated', ('Br', 'Cs', 'I'), 'estimated'),
    ],
)
def test_the_energies_of_atoms_come_from_the_parent_where_there_is_one(given, known, expected):
    assert mace._atomic_energies(mace._way(given, known, {'Cs', 'I'})) == expected


@pytest.mark.parametrize(
    ('given', 'known', 'words'),
    [
        ('average', ('Cs', 'I'), 'would shift all energies'),
        ('parent', None, 'needs a parent'),
        ('estimated', None, 'needs a parent'),
        ('estimated', ('Cs', 'I'), 'has no effect where the parent has the same elements'),
    ],
)
def test_energies_of_atoms_that_would_silently_be_others_are_refused(given, known, words):
    with pytest.raises(JobError, match=words) as caught:
        mace._way(given, known, {'Cs', 'I'})
    assert caught.value.status is Status.BAD_INPUT


@pytest.mark.parametrize(
    ('way', 'done'),
    [
        ({'I': -105.64, 'Cs': -35.25}, {'I': -105.64, 'Cs': -35.24}),
        ('average', {'I': -105.64, 'Cs': -35.24}),
        ('average', {'I': -105.64, 'Br': -35.25}),
    ],
)
def test_a_file_with_other_energies_of_atoms_is_an_error(monkeypatch, tmp_path, way, done):
    def facts(self, potential):
        return PotentialFacts(tuple(done), 5.0, ('Default',), energies_of_atoms={'Default': done})

    monkeypatch.setattr(Mace, 'facts', facts)
    training = training_of(tmp_path, None, MaceSettings())
    with pytest.raises(JobError, match=r'Cs: asked -35.250000 eV, done -35.240000 eV|Br: done') as caught:
        Mace()._check_energies(training, way, LOG)
    assert caught.value.status is Status.SETTINGS_IGNORED
    good = {'I': -105.64, 'Cs': -35.25 * (1 + 1e-8)}
    done.clear()
    done.update(good)
    Mace()._check_energies(training, way, LOG)


def test_one_frame_without_a_stress_does_not_take_it_from_the_others(tmp_path, frames_of, make_frames):
    one, *others = make_frames(4)
    mixed = frames_of([*without_stress([one]), *others])
    settings = MaceSettings(stress_weight=7.0)
    assert problem_of(settings, mixed, mixed) is None
    assert mixed.has('stress')
    arguments = mace._arguments(training_of(tmp_path, mixed, settings), 'average', True, True)
    assert (arguments['stress_weight'], arguments['compute_stress']) == (7.0, True)


def test_a_stress_weight_without_any_stress_is_refused_and_its_default_is_zero(tmp_path, frames_of, make_frames):
    frames = frames_of(without_stress(make_frames(4)))
    assert 'no training frame has a stress' in problem_of(MaceSettings(stress_weight=1.0), frames, frames)
    assert problem_of(MaceSettings(), frames, frames) is None
    training = training_of(tmp_path, frames, MaceSettings())
    assert mace._arguments(training, 'average', False, False)['stress_weight'] == 0.0
    assert mace._arguments(training, 'average', True, True)['stress_weight'] == 10.0


def test_frames_of_several_charges_are_refused(frames_of, make_frames):
    charged = [replace(frame, charge=index % 2) for index, frame in enumerate(make_frames(4))]
    mixed, same, none = frames_of(charged, 'mixed'), frames_of(charged[1:2] * 4, 'same'), frames_of(make_frames(4))
    assert 'the charges 0, +1, but MACE does not see' in problem_of(MaceSettings(), mixed, mixed)
    assert problem_of(MaceSettings(), same, same) is None
    assert 'the charges 0, +1' in problem_of(MaceSettings(), same, none)


def test_no_group_of_frames_means_anything_to_the_trainer(tmp_path, frames_of, make_frames):
    frames = frames_of([replace(frame, group='IsolatedAtom') for frame in make_frames(2)])
    mace._write(frames, tmp_path / 'training.xyz')
    text = (tmp_path / 'training.xyz').read_text()
    assert text.count('config_type=frames') == 2
    assert 'IsolatedAtom' not in text


def test_the_log_tells_what_was_used():
    used = mace._effective_of_log(LOG)
    assert used == {
        'learning_rate': 0.5,
        'epochs': 7,
        'batch_size': 3,
        'energy_weight': 1.0,
        'forces_weight': 2.0,
        'stress_weight': 0.0,
        'ema_decay': 0.0,
    }
    assert mace._energies_of_log(LOG) == {'I': -105.64, 'Cs': -35.25, 'Pb': -0.001}
    assert mace._effective_of_log('nothing') == {}
    assert mace._energies_of_log('nothing') == {}


def test_equal_features_have_the_spelling_of_the_settings():
    assert mace._spelled('16x0e + 16x1o', '16x0e+16x1o') == '16x0e + 16x1o'
    assert mace._spelled('0e+1o', '1x0e+1x1o') == '0e+1o'
    assert mace._spelled('32x0e', '16x0e') == '16x0e'
    assert mace._spelled('16x0e + 16x1o', '16x0e+16x1e') == '16x0e+16x1e'


def test_a_trainer_that_does_not_listen_is_ended(monkeypatch):
    monkeypatch.setattr(mace, 'PATIENCE', 0.5)
    code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)'
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    process.stdout.readline()
    mace._end(process)
    assert process.returncode == -9


@pytest.mark.parametrize(('left', 'status'), [(0.0, Status.OUT_OF_WALLTIME), (math.inf, Status.FAILED)])
def test_a_trainer_that_a_signal_ended_is_out_of_time_where_time_is_over(monkeypatch, tmp_path, left, status):
    """A scheduler signals all processes of a job, so the trainer may be gone before the job looks."""

    def start(command, folder, log, environment):
        process = subprocess.Popen([sys.executable, '-c', 'import os; os.kill(os.getpid(), 15)'])
        process.wait()
        return process

    monkeypatch.setattr(mace, 'start_child', start)
    training = replace(training_of(tmp_path, None, MaceSettings()), seconds_left=lambda: left)
    with pytest.raises(JobError) as caught:
        mace._run_trainer(training, {})
    assert caught.value.status is status
