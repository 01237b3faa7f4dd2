"""Trainings of the reference architecture: from a parent, and in two runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aiida_perovmlip.compute.architecture import STRATEGIES, Plan, PotentialFacts, Training, common_problem
from aiida_perovmlip.compute.architectures.reference import FILENAME, Reference, ReferenceSettings
from aiida_perovmlip.compute.checkpoint import Checkpoint, State
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards
from aiida_perovmlip.compute.tasks.train import _changes


@pytest.fixture
def train(tmp_path, make_frames):
    """Return a function that trains in a folder of its own and returns that and the parameters."""
    frames = write_folder(build_shards(make_frames(10)), tmp_path / 'frames')

    def run(name, **more):
        folder = tmp_path / name
        (folder / 'potential').mkdir(parents=True, exist_ok=True)
        checkpoint = Checkpoint(tmp_path / more.pop('checkpoint', name) / 'checkpoint', 'test')
        settings = ReferenceSettings(**more.pop('settings', {}))
        Reference().train(Training(folder=folder, checkpoint=checkpoint, training=frames, settings=settings, **more))
        return folder / 'potential', np.array(json.loads((folder / 'potential' / FILENAME).read_text())['weights'])

    return run


def test_a_strong_ridge_stays_at_the_parent_and_a_weak_one_leaves_it(train):
    parent, weights = train('parent', settings={'ridge': 1e-2})
    stays = train('stays', parent=parent, settings={'ridge': 1e9})[1]
    leaves = train('leaves', parent=parent, settings={'ridge': 1e-9})[1]
    assert np.allclose(stays, weights, rtol=1e-6)
    assert not np.allclose(leaves, weights, rtol=1e-3)


def test_a_run_that_was_stopped_is_taken_up_and_gives_the_same(train):
    _, whole = train('whole')
    calls = iter(range(100))
    with pytest.raises(JobError) as caught:
        train('first', seconds_left=lambda: 0.0 if next(calls) == 5 else 1.0)
    assert caught.value.status is Status.OUT_OF_WALLTIME
    _, resumed = train('second', checkpoint='first')
    assert np.array_equal(resumed, whole)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'strategy': 'wild'}, 'there is no strategy `wild`; there are scratch, naive'),
        ({'strategy': 'lora', 'known': ('Cs', 'I', 'Pb')}, 'reference has no strategy `lora`; it has scratch, naive'),
        ({'strategy': 'naive'}, 'the strategy `naive` needs a `parent`'),
        ({'known': ('Cs', 'I', 'Pb')}, 'has no use for a `parent`'),
        ({'replay': True}, 'the strategy `scratch` replays nothing'),
        ({'training': []}, 'the training dataset is empty'),
        ({'validation': []}, 'the validation dataset is empty'),
        ({'strategy': 'naive', 'known': ('Cs', 'I')}, 'the parent does not know Pb; it knows Cs, I'),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(tmp_path, make_frames, change, words):
    frames = write_folder(build_shards(make_frames(2)), tmp_path / 'frames')
    nothing = frames.take([])
    plan = {'strategy': 'scratch', 'settings': ReferenceSettings(), 'training': frames, **change}
    plan |= {name: nothing for name, value in plan.items() if value == []}
    plan |= {'replay': frames} if 'replay' in change else {}
    plan['known'] = PotentialFacts(plan['known'], 5.0) if 'known' in plan else None
    assert words in common_problem(Reference(), Plan(**plan))


def test_every_strategy_has_its_sentence():
    assert all(sentence.endswith('.') for sentence in STRATEGIES.values())
    assert set(Reference.strategies) <= set(STRATEGIES)


def test_frames_tell_their_elements_labels_and_categories(tmp_path, make_frames):
    frames = write_folder(build_shards(make_frames(3)), tmp_path / 'frames')
    assert frames.elements() == ('Cs', 'I', 'Pb')
    assert frames.has('energy')
    assert sum(frames.categories('group').values()) == 3
    assert frames.take([1]).categories('head') == {'default': 1}


def test_a_setting_that_lies_in_the_state_does_not_change_on_the_way():
    state = State(Path(), 3, [], settings={'cutoff': 4.0, 'ridge': 1e-6})
    with pytest.raises(JobError, match=r'`cutoff`: 4\.0 before, 5\.0 now'):
        _changes(Reference(), ReferenceSettings(), state)
    state = State(Path(), 3, [], settings={'cutoff': 5.0, 'ridge': 1e-3})
    assert _changes(Reference(), ReferenceSettings(), state) == [
        'Settings changed at step 3: `ridge`: 0.001 before, 1e-06 now.'
    ]
