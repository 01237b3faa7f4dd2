"""How MACE's trainer is followed, and what is read from what it writes; no MACE is needed here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zipfile

import pytest

from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.architectures.mace import MaceSettings, known_head
from aiida_perovmlip.compute.architectures.mace import effective as mace_effective
from aiida_perovmlip.compute.architectures.mace import network as mace_network
from aiida_perovmlip.compute.architectures.mace import run as mace_run
from aiida_perovmlip.compute.architectures.mace.heads import Head
from aiida_perovmlip.compute.architectures.mace.results import Results, States, is_whole
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError, Status

LOG = """\
2026-01-01 00:00:00 DEBUG: Configuration: Namespace(config=None, lr=0.5, max_num_epochs=7, ema=True, ema_decay=0.99, \
batch_size=3, energy_weight=1.0, forces_weight=2.0, stress_weight=0.0, keys=Keys(a={'b': 'c'}), clip_grad=None, \
swa_lr=0.001, foundation_model_elements=True)
2026-01-01 00:00:01 INFO: Using Exponential Moving Average with decay: 0.99999
2026-01-01 00:00:01 INFO: Learning rate: 0.0001, weight decay: 5e-07
"""


def heads(*names):
    return [Head(name, name, ('training', name), None, None) for name in names]


REPLAY = Head('pbe', 'pt_head', ('parent', 'pbe'), None, None)


def opt(epoch, loss):
    return {'mode': 'opt', 'epoch': epoch, 'loss': loss}


def evaluation(epoch, loss, head='Default'):
    return {'mode': 'eval', 'epoch': epoch, 'loss': loss, 'head': head, 'rmse_f': 2 * loss}


@pytest.fixture
def results(tmp_path):
    def make(*entries, of=()):
        path = tmp_path / 'results.txt'
        path.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
        return Results(path, of or heads('Default'))

    return make


def test_an_epoch_is_finished_when_the_next_has_begun_or_the_trainer_has_ended(results):
    first = [evaluation(None, 9.0), opt(0, 4.0), opt(0, 2.0), evaluation(0, 1.0)]
    found = results(*first)
    assert list(found.new_epochs(ended=False)) == []
    with found.path.open('a') as handle:
        handle.write(json.dumps(opt(1, 1.0)) + '\n' + '{"mode": "ev')
    expected = {'step': 1, 'loss': 3.0, 'validation_loss': 1.0, 'validation_forces_rmse': 2.0}
    assert list(found.new_epochs(ended=False)) == [expected]
    assert list(found.new_epochs(ended=True)) == []  # the second has no errors yet
    assert list(results(*first).new_epochs(ended=True)) == [expected]


def test_the_loss_is_the_mean_of_all_target_heads_and_never_that_of_the_last(results):
    entries = [evaluation(0, 9.0, 'pt_head'), evaluation(0, 1.0, 'a'), evaluation(0, 3.0, 'b')]
    (step,) = results(*entries, of=[REPLAY, *heads('a', 'b')]).new_epochs(ended=True)
    assert step['validation_loss'] == 2.0
    assert (step['validation_loss__a'], step['validation_loss__b'], step['validation_loss__pbe']) == (1.0, 3.0, 9.0)
    assert step['validation_forces_rmse'] == step['validation_forces_rmse__a'] == 2.0
    missing_one = results(*entries[:2], of=[REPLAY, *heads('a', 'b')])
    assert list(missing_one.new_epochs(ended=True)) == []


def test_epochs_that_were_not_wanted_are_skipped(results):
    found = results(opt(0, 1.0), evaluation(0, 1.0))
    found.skip()
    assert list(found.new_epochs(ended=True)) == []


def archive(path):
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, 'w') as handle:
        handle.writestr('data', b'0' * 1000)
    return path


def test_a_state_that_was_cut_off_is_none(tmp_path):
    states = States(tmp_path / 'checkpoints', 'mace_run-1')
    path = archive(states.path(3))
    assert states.whole(3) == path
    assert is_whole(path)
    path.write_bytes(path.read_bytes()[:500])
    assert states.whole(3) is None
    assert states.whole(4) is None


def test_the_folder_of_the_trainer_does_not_fill_the_disk(tmp_path):
    states = States(tmp_path / 'checkpoints', 'mace_run-1')
    paths = [archive(states.path(epoch, epoch > 2)) for epoch in range(6)]
    states.prune(paths[2])
    assert sorted(states.folder.iterdir()) == sorted(paths[2:])
    states.prune(paths[5])
    assert sorted(states.folder.iterdir()) == sorted([paths[2], paths[5]])  # it fails without one of stage one


def step(number, loss, stage=None):
    return {'step': number, 'validation_loss': loss} | ({'stage': stage} if stage else {})


def test_the_best_epoch_is_of_the_last_stage():
    assert mace_run.best_step([step(1, 3.0), step(2, 1.0), step(3, 2.0)]) == 2
    assert mace_run.best_step([step(1, 1.0, 1), step(2, 9.0, 2), step(3, 8.0, 2)]) == 3


@pytest.fixture
def run_of(tmp_path):
    def make(curve=(), left=math.inf, **settings):
        training = Training(
            folder=tmp_path,
            checkpoint=Checkpoint(tmp_path / 'checkpoint', 'test'),
            training=None,
            settings=MaceSettings(**settings),
            seconds_left=lambda: left,
        )
        run = mace_run.Run(training, heads('Default'), {}, {}, None)
        run.curve = list(curve)
        return run

    return make


def test_stages_end_early_where_the_loss_does_not_fall(run_of):
    losses = [3.0, 2.0, 2.5, 2.5]
    curve = [step(number, loss) for number, loss in enumerate(losses, 1)]
    assert run_of(curve, epochs=9).total == 9
    assert run_of(curve, epochs=9, patience=3).total == 9
    assert run_of(curve, epochs=9, patience=2).total == 4
    staged = [entry | {'stage': 1} for entry in curve]
    again = run_of(staged, epochs=9, patience=2, stage_two_epochs=5)
    assert (again.stage_one, again.total) == (4, 9)
    second = [*staged, step(5, 1.0, 2), step(6, 2.0, 2), step(7, 2.0, 2)]
    assert run_of(second, epochs=9, patience=2, stage_two_epochs=5).total == 7
    assert mace_effective.epochs_done(curve, MaceSettings(epochs=9, patience=2))['epochs'] == 9
    assert mace_effective.epochs_done(curve, MaceSettings(epochs=9))['epochs'] == 4
    notes = mace_effective.notes_of(second, MaceSettings(epochs=9, patience=2, stage_two_epochs=5))
    assert [note.partition(' ended')[0] for note in notes] == ['Stage 1', 'Stage 2']


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_no_state(run_of, tmp_path):
    run = run_of()
    with pytest.raises(JobError, match='validation_loss of epoch 1 is not a finite number') as caught:
        run._take({**step(1, math.nan), 'loss': 1.0}, archive(tmp_path / 'checkpoints' / 'a.pt'), 5)
    assert caught.value.status is Status.DIVERGED
    assert len(caught.value.results['curve']) == 1
    assert not run.best.is_file()


def test_a_trainer_that_does_not_listen_is_ended(monkeypatch):
    monkeypatch.setattr(mace_run, 'PATIENCE', 0.5)
    code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)'
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
    process.stdout.readline()
    mace_run.end(process)
    assert process.returncode == -9


@pytest.mark.parametrize(('left', 'status'), [(0.0, Status.OUT_OF_WALLTIME), (math.inf, Status.FAILED)])
def test_a_trainer_that_a_signal_ended_is_out_of_time_where_time_is_over(monkeypatch, run_of, left, status):
    """A scheduler signals all processes of a job, so the trainer may be gone before the job looks."""

    def start(command, folder, log, environment):
        process = subprocess.Popen([sys.executable, '-c', 'import os; os.kill(os.getpid(), 15)'])
        process.wait()
        return process

    monkeypatch.setattr(mace_run, 'start_child', start)
    with pytest.raises(JobError) as caught:
        run_of(left=left).run()
    assert caught.value.status is status


def test_memory_that_ran_out_is_told_from_other_failures(tmp_path):
    log = tmp_path / mace_run.LOG
    log.write_text('torch.OutOfMemoryError: CUDA out of memory.')
    assert mace_run.failure(tmp_path, 1, []).status is Status.OUT_OF_MEMORY
    log.write_text('ValueError: no')
    found = mace_run.failure(tmp_path, 1, [])
    assert (found.status, 'ValueError: no' in found.message) == (Status.FAILED, True)
    killed = mace_run.failure(tmp_path, -9, [])
    assert (killed.status, 'lower `batch_size`' in killed.message) == (Status.OUT_OF_MEMORY, True)


def test_the_log_tells_what_was_used_after_strategies_changed_it():
    assert mace_effective.settings_of_log(LOG) == {
        'learning_rate': 0.0001,
        'ema_decay': 0.99999,
        'batch_size': 3,
        'energy_weight': 1.0,
        'forces_weight': 2.0,
        'stress_weight': 0.0,
        'clip_grad': 0.0,
        'stage_two_learning_rate': 0.001,
        'keep_elements': True,
        'gpus': 1,
    }
    assert mace_effective.settings_of_log('nothing') == {'gpus': 1}
    assert mace_effective.settings_of_log(f'{LOG}INFO: Processes: 4\n')['gpus'] == 4


@pytest.mark.parametrize(
    ('printed', 'loss'),
    [
        ('UniversalLoss(energy_weight=1.000)', 'universal'),
        ('WeightedEnergyForcesLoss(energy_weight=1.000)', 'squared'),
        ('WeightedEnergyForcesStressLoss(energy_weight=1.000)', 'squared'),
        ('WeightedForcesLoss(forces_weight=1.000)', 'WeightedForces'),
    ],
)
def test_the_log_tells_which_loss_was_taken(printed, loss):
    assert mace_effective.settings_of_log(f'{LOG}2026-11-21 17:42:22.978 INFO: {printed}\n')['loss'] == loss


@pytest.mark.parametrize(
    ('n_heads', 'changed', 'rank', 'pinned', 'done'),
    [
        (1, None, None, False, 'scratch'),
        (2, None, None, False, 'scratch'),
        (2, {'embedding': 'all'}, None, False, 'multihead'),
        (1, {'embedding': 'all'}, None, False, 'naive'),  # what multihead becomes where it switches itself off
        (1, {'embedding': 'none', 'readouts': 'all'}, None, True, 'freeze'),
        (1, {'embedding': 'all', 'readouts': 'all'}, None, True, 'naive'),
        (1, {'embedding': 'some'}, 4, False, 'lora'),
    ],
)
def test_the_strategy_is_read_from_the_files(n_heads, changed, rank, pinned, done):
    assert mace_effective.strategy_done(n_heads, changed, rank, pinned) == done


@pytest.mark.parametrize(
    ('still', 'layers'),
    [((), 'nothing'), (('embedding',), 'embedding'), (('embedding', 'interactions', 'products'), 'products')],
)
def test_the_layers_that_stayed_are_read_from_the_file(still, layers):
    changed = {kind: 'none' if kind in still else 'all' for kind in ('embedding', 'interactions', 'products')}
    found = mace_effective.settings_of_strategy('freeze', changed, None, '')
    assert found == {'freeze_layers': layers}


@pytest.mark.parametrize(
    ('losses', 'asked', 'done'),
    [
        ([3.0, 2.0, 2.5, 2.5], 2, 2),  # of 9 epochs: it ended early
        ([3.0, 2.0, 2.5, 2.5], 3, 2),  # it ended too early
        ([3.0, 2.0] + 7 * [2.5], 3, 6),  # it did not end where it should have
        ([3.0, 2.0, 2.5, 2.5, 1.0, 0.9, 0.8, 0.7, 0.6], 3, 3),
        ([3.0, 2.0] + 7 * [2.5], 0, 0),
    ],
)
def test_the_patience_is_read_from_the_curve(losses, asked, done):
    curve = [step(number, loss) for number, loss in enumerate(losses, 1)]
    assert mace_effective.epochs_done(curve, MaceSettings(epochs=9, patience=asked))['patience'] == done


SLOW = [1.0, *10 * [2.0]]
"""Losses of an earlier run, of which ten did not fall."""


@pytest.mark.parametrize(
    ('losses', 'begun', 'done'),
    [
        ([*SLOW, 0.5, 0.4, 0.3, 0.2, 0.1, 0.09, 0.08, 0.07, 0.06], 0, 10),  # of 20 epochs, it did not end
        ([*SLOW[:4], 0.9, *SLOW[5:]], 0, 6),  # it ended after six
        ([*SLOW[:5], 0.9, *SLOW[6:]], 10, 5),  # it ended after five
        (SLOW, 11, 5),  # it ended at once, as five had been reached before
        ([*SLOW, 2.0], 11, 11),  # it should have ended at once
        ([*SLOW[:4], 0.9, *15 * [0.8]], 4, 13),  # it did not end where it should have
        ([*SLOW[:9], 0.9, *10 * [0.8]], 9, 8),  # nor here
        ([*SLOW[:9], *(1 / n for n in range(2, 13))], 10, 5),  # it had nothing to wait for
    ],
)
def test_the_patience_of_a_run_that_was_taken_up_is_judged_by_its_own_epochs(losses, begun, done):
    """What an earlier run waited for says nothing of what this one was asked for."""
    curve = [step(number, loss) for number, loss in enumerate(losses, 1)]
    found = mace_effective.epochs_done(curve, MaceSettings(epochs=20, patience=5), begun)
    assert found['patience'] == done
    assert found['epochs_done'] == len(losses)
    assert found['epochs'] == (20 if done == 5 else found['epochs'])


def test_a_stage_that_was_over_when_a_run_was_taken_up_is_not_judged_again():
    """It had ended by another patience."""
    first = [step(number, loss, 1) for number, loss in enumerate([1.0, 2.0, 2.0, 2.0], 1)]
    curve = [*first, *(step(number, 1.0 / number, 2) for number in range(5, 11))]
    settings = MaceSettings(epochs=9, stage_two_epochs=6, patience=8)
    asked = {'epochs': 9, 'epochs_done': 4, 'stage_two_epochs': 6, 'stage_two_epochs_done': 6, 'patience': 8}
    assert mace_effective.epochs_done(curve, settings, begun=6) == asked
    assert mace_effective.epochs_done(curve, settings, begun=4) == asked | {'epochs': 4, 'patience': 3}
    (note,) = mace_effective.notes_of(curve, settings)
    assert note == 'Stage 1 ended after 4 epochs, as the validation loss had not fallen for 3.'


def test_what_is_to_be_remembered_lies_in_the_states(run_of, tmp_path):
    run = run_of([step(1, 1.0)])
    run.about, run.newest = {'notes': ['said once'], 'way': 'average'}, tmp_path / 'a.pt'
    run.newest.write_text('newest')
    run.best.write_text('best')
    run.save()
    about = run.training.checkpoint.state().about
    assert about == {'notes': ['said once'], 'way': 'average', 'learning_rate': run.rate}
    assert run._keep_newest().read_text() == 'newest' == run.newest.read_text()


class ScaleShiftMACE:
    """A network as far as its kind goes."""


def test_what_is_no_potential_of_mace_is_told_by_its_kind():
    compiled = type('RecursiveScriptModule', (), {'original_name': 'ScaleShiftMACE'})()
    assert [mace_network.kind_of(each) for each in ({}, ScaleShiftMACE(), compiled)] == [
        'dict', 'ScaleShiftMACE', 'ScaleShiftMACE'
    ]  # fmt: skip
    with pytest.raises(JobError, match='of the kind `dict`, which is no MACE potential') as caught:
        mace_network.facts_of({})
    assert caught.value.status is Status.BAD_INPUT


def test_what_was_replayed_is_read_from_the_file_that_the_trainer_names(tmp_path):
    path = tmp_path / 'replay.xyz'

    def done(energies, asked, more=''):
        path.write_text(f'2\nLattice="1 0 0" REF_energy=-12.5 pbc="T T T"{more}\nCs 0 0 0\n')
        return mace_effective.replay_done(path, energies, asked)

    other = {'dataset': -12.5, 'parent': -12.6}
    assert done(other, 'dataset') == {'replay_labels': 'dataset', 'replay_weight': 1.0}
    assert done(other, 'parent', ' config_energy_weight=0.25') == {'replay_labels': 'dataset', 'replay_weight': 0.25}
    assert done({'dataset': None, 'parent': -12.5}, 'dataset')['replay_labels'] == 'parent'
    assert done({'dataset': -12.5, 'parent': -12.5}, 'parent')['replay_labels'] == 'parent'
    assert done({'dataset': -1.0, 'parent': -2.0}, 'parent')['replay_labels'] == 'others'


def test_equal_features_have_the_spelling_of_the_settings():
    assert mace_network.spelled('16x0e + 16x1o', '16x0e+16x1o') == '16x0e + 16x1o'
    assert mace_network.spelled('0e+1o', '1x0e+1x1o') == '0e+1o'
    assert mace_network.spelled('32x0e', '16x0e') == '16x0e'
    assert mace_network.spelled('16x0e + 16x1o', '16x0e+16x1e') == '16x0e+16x1e'


def test_no_head_is_ever_guessed():
    assert known_head(('a',), None) == 'a'
    assert known_head(('a', 'b'), 'b') == 'b'
    for wanted in (None, 'typo'):
        with pytest.raises(JobError, match='has the heads a, b') as caught:
            known_head(('a', 'b'), wanted)
        assert caught.value.status is Status.BAD_INPUT
