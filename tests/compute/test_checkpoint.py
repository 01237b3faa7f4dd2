"""Checkpoints: whole at any moment, and never those of another training."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.compute import checkpoint
from aiida_perovmlip.compute.checkpoint import KEPT, STATE, Checkpoint, State
from aiida_perovmlip.compute.contract import JobError, Status


@pytest.fixture
def saved(tmp_path):
    """Return a checkpoint with three states, of which the older ones may be gone."""
    states = Checkpoint(tmp_path / 'checkpoint', 'mine')
    for step in (1, 2, 3):
        source = tmp_path / 'weights'
        source.write_text(f'weights of step {step}')
        states.save(step, {'weights': source}, [{'step': number, 'loss': float('nan')} for number in range(step)])
    return states


def test_the_newest_state_is_found_with_its_curve(saved):
    state = saved.state()
    assert state.step == 3
    assert state.file('weights').read_text() == 'weights of step 3'
    assert [entry['loss'] for entry in state.curve] == ['nan'] * 3


def test_a_fresh_folder_has_no_state(tmp_path):
    assert Checkpoint(tmp_path / 'nowhere', 'mine').state() is None


def test_old_states_go(saved):
    assert len([path for path in saved.folder.iterdir() if path.name.isdigit()]) == KEPT


@pytest.mark.parametrize('name', ['weights', STATE])
def test_a_truncated_file_leads_to_the_state_before_and_is_named(saved, name):
    path = saved.state().file(name)
    path.write_bytes(path.read_bytes()[:-3])
    assert saved.state().step == 2
    assert name in saved.damaged[0]


def test_a_state_whose_file_is_gone_is_passed_over(saved):
    saved.state().file('weights').unlink()
    assert saved.state().step == 2


def test_states_of_another_training_are_refused(saved):
    other = Checkpoint(saved.folder, 'other')
    assert other.state() is None
    assert other.is_foreign
    assert all('another training' in sentence for sentence in other.damaged)


def test_a_kill_while_a_state_is_written_leaves_the_one_before(saved, monkeypatch, tmp_path):
    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.shutil, 'copyfile', killed)
    with pytest.raises(KeyboardInterrupt):
        saved.save(4, {'weights': tmp_path / 'weights'}, [])
    assert saved.state().step == 3
    monkeypatch.undo()
    saved.save(4, {'weights': tmp_path / 'weights'}, [], {'best': np.pi})
    assert (saved.state().step, saved.state().about) == (4, {'best': np.pi})


def test_an_end_is_remembered_and_only_that_of_the_same_training(saved):
    assert not saved.finished
    saved.finish()
    assert saved.finished
    assert not Checkpoint(saved.folder, 'other').finished


def test_a_state_that_does_not_tell_what_is_needed_is_refused_by_name(tmp_path):
    state = State(tmp_path, 7, [], {'run': 1, 'best_loss': 0.1})
    assert state.told('run') == {'run': 1}
    with pytest.raises(JobError, match='state of step 7 does not tell `energies`, `best_step`: an earlier') as caught:
        state.told('run', 'energies', 'best_step')
    assert caught.value.status is Status.BAD_INPUT
    assert 'train anew' in caught.value.message
