"""Several potentials that differ by chance."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.functions.training import draw_bootstrap
from aiida_perovmlip.workflows.committee import CommitteeWorkChain


@pytest.fixture
def run(python_code, make_dataset):
    def start(architecture: str = 'unruly', training: Any = None, validation: Any = None, **inputs: Any) -> Any:
        training = training or make_dataset(6).store()
        builder = CommitteeWorkChain.get_builder_from_protocol(
            architecture, python_code, training, validation, **inputs
        )
        return run_get_node(builder)

    return start


def trainings_of(node):
    children = node.base.links.get_outgoing().all()
    return {entry.link_label: entry.node for entry in children if entry.link_label.startswith('member_')}


def test_members_that_fail_are_listed_and_the_others_are_the_committee(run):
    outputs, node = run(settings={'way': 'odd'}, n_members=4, max_concurrent=2, seed=10, group='my committee')
    assert node.is_finished_ok, node.exit_message
    members = outputs['members'].get_dict()
    assert (members['asked'], members['made'], members['group']) == (4, 2, 'my committee')
    assert [member['seed'] for member in members['members'].values()] == [10, 11, 12, 13]
    assert [member['state'] for member in members['members'].values()] == ['trained', 'failed', 'trained', 'failed']
    assert 'the seed is odd' in members['members']['member_02']['reason']
    assert members['members']['member_01']['last']['step'] == 3
    assert list(outputs['potentials']) == ['member_01', 'member_03']
    group = orm.load_group('my committee')
    assert {each.uuid for each in group.nodes} == {each.uuid for each in outputs['potentials'].values()}
    assert members['notes'] == []
    with pytest.raises(ValueError, match='there is a group `my committee` already, with 2 nodes'):
        run(group='my committee')


def test_one_potential_is_no_committee(run):
    outputs, node = run(settings={'way': 'raise'}, n_members=2)
    assert node.exit_status == 560
    assert '0 of 2 members were made' in node.exit_message
    assert 'a fault of the program' in node.exit_message
    assert outputs['members']['group'] is None


def test_members_that_are_the_same_potential_are_said_so(run):
    outputs, node = run('reference', n_members=2)
    assert node.is_finished_ok, node.exit_message
    assert 'member_01, member_02 are the same potential' in outputs['members']['notes'][0]


def test_members_learn_from_samples_of_their_own(run):
    outputs, node = run('reference', n_members=2, by='bootstrap')
    assert node.is_finished_ok, node.exit_message
    assert outputs['members']['notes'] == []
    samples = [training.inputs.training for training in trainings_of(node).values()]
    assert [len(sample) for sample in samples] == [6, 6]
    assert samples[0].content_hash != samples[1].content_hash
    assert all(sample.creator.process_label == 'draw_bootstrap' for sample in samples)
    assert outputs['members']['group'].startswith('committee-reference-')


def test_members_learn_from_splits_of_their_own(run):
    _, node = run('reference', n_members=2, by='split', validation_fraction=0.34)
    assert node.is_finished_ok, node.exit_message
    trainings = list(trainings_of(node).values())
    sizes = [(len(each.inputs.training), len(each.inputs.validation)) for each in trainings]
    assert sizes == [(4, 2), (4, 2)]
    assert trainings[0].inputs.validation.content_hash != trainings[1].inputs.validation.content_hash


def test_a_split_that_leaves_nothing_to_validate_on_is_a_reason(run, make_dataset):
    _, node = run('reference', training=make_dataset(3).store(), n_members=2, by='split')
    assert node.exit_status == 560
    assert 'Its frames could not be drawn' in node.exit_message
    assert len(trainings_of(node)) == 0


@pytest.mark.parametrize(
    ('inputs', 'words'),
    [
        ({'by': 'luck'}, "`by` is 'luck' but has to be one of seed, bootstrap, split"),
        ({'n_members': 1}, 'at least 2'),
        ({'max_concurrent': 0}, 'at least 1'),
        ({'validation_fraction': 1.0}, 'between 0 and 1'),
        ({'settings': {'steps': 0}}, 'at least 1'),
    ],
)
def test_what_no_job_could_do_is_refused_before_anything_runs(run, inputs, words):
    with pytest.raises(ValueError, match=words):
        run(**inputs)


def test_validation_frames_are_not_given_twice(run, make_dataset):
    with pytest.raises(ValueError, match='leave `validation` out'):
        run(by='split', validation=make_dataset(2).store())


def test_a_bootstrap_sample_is_of_full_size_holds_every_element_and_depends_on_the_seed_alone(make_frames):
    from aiida_perovmlip.data.dataset import DatasetData

    frames = make_frames(6)
    frames[0].numbers[0] = 11
    dataset = DatasetData.from_frames(frames, {'labeller': 'test'}).store()
    samples = [draw_bootstrap(dataset, orm.Int(7), orm.Int(member)) for member in (0, 0, 1, 2, 3, 4)]
    assert draw_bootstrap(dataset, orm.Int(8), orm.Int(0)).content_hash != samples[2].content_hash
    assert all(len(sample) == 6 and 'Na' in sample.elements for sample in samples)
    assert samples[0].content_hash == samples[1].content_hash
    assert len({sample.content_hash for sample in samples}) > 2


def test_the_frames_of_a_sample_are_read_once(make_dataset, monkeypatch):
    from aiida_perovmlip.data.dataset import DatasetData

    dataset, opened = make_dataset(6, seed=4).store(), []
    find = DatasetData._open
    monkeypatch.setattr(DatasetData, '_open', lambda self, path: opened.append(path) or find(self, path))
    draw_bootstrap(dataset, orm.Int(0))
    assert sum(path.startswith('shards/') for path in opened) == 1


def test_a_chain_that_takes_up_a_step_again_draws_no_frames_twice(run, monkeypatch):
    """As where the daemon is killed behind the draw: the step runs again with the context of before."""
    draw = CommitteeWorkChain.draw

    def twice(self):
        before = deepcopy(self.ctx.members)
        draw(self)
        after, self.ctx.members = self.ctx.members, before
        draw(self)
        assert self.ctx.members == after

    monkeypatch.setattr(CommitteeWorkChain, 'draw', twice)
    _, node = run('reference', n_members=2, by='bootstrap')
    assert node.is_finished_ok, node.exit_message
    assert [each.process_label for each in node.called].count('draw_bootstrap') == 2
