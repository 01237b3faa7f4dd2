"""Trainings one after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import run_get_node

from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.workflows.continual import ContinualWorkChain, _validate


@pytest.fixture
def sets(make_dataset):
    return [make_dataset(4, seed=seed).store() for seed in range(3)]


@pytest.fixture
def run(python_code):
    def start(stages: Any, architecture: str = 'unruly', **inputs: Any) -> Any:
        builder = ContinualWorkChain.get_builder_from_protocol(architecture, python_code, stages, **inputs)
        return run_get_node(builder)

    return start


def made_from_a_parent(potential):
    return json.loads(potential.base.repository.get_object_content('unruly.json'))['has_parent']


def test_each_stage_starts_from_the_potential_of_the_one_before(run, sets):
    stages = [
        {'training': sets[0], 'name': 'bulk'},
        {'training': sets[1], 'settings': {'rate': 0.01}, 'validation': sets[2]},
    ]
    outputs, node = run(stages, settings={'steps': 2, 'rate': 0.2}, seed=7)
    assert node.is_finished_ok, node.exit_message
    assert list(outputs['potentials']) == ['stage_01_bulk', 'stage_02']
    first, second = outputs['potentials'].values()
    assert outputs['potential'].uuid == second.uuid
    assert (made_from_a_parent(first), made_from_a_parent(second)) == (False, True)
    trainings = {child.label or child.base.links.get_incoming().first().link_label: child for child in node.called}
    later = trainings['stage_02']
    assert later.inputs.parent.uuid == first.uuid
    assert later.inputs.validation.uuid == sets[2].uuid
    assert later.inputs.seed == 7
    results = outputs['results'].get_dict()
    assert results['stage_01_bulk']['strategy'] == 'scratch'
    assert results['stage_02']['strategy'] == 'naive'
    assert [results[name]['settings']['rate'] for name in sorted(results)] == [0.2, 0.01]


def test_what_was_trained_before_a_stage_failed_stays(run, sets):
    stages = [{'training': sets[0]}, {'training': sets[1], 'settings': {'way': 'raise'}}, {'training': sets[2]}]
    outputs, node = run(stages)
    assert node.exit_status == 550
    assert 'stage `stage_02` gave no potential; those of 1 of 3 stages' in node.exit_message
    assert 'a fault of the program' in node.exit_message
    assert list(outputs['potentials']) == ['stage_01']
    assert 'potential' not in outputs
    assert outputs['results']['stage_02']['state'] == 'failed'


def test_a_first_parent_is_taken_up(run, sets):
    outputs, _ = run([{'training': sets[0]}])
    outputs, node = run([{'training': sets[1]}], parent=outputs['potential'])
    assert node.is_finished_ok, node.exit_message
    assert made_from_a_parent(outputs['potential'])


def test_a_stage_that_the_potential_before_cannot_take_is_refused_before_anything_runs(run, sets, make_frames):
    known = {'labeller': 'test', 'functional': 'pairs'}
    frame = make_frames(1)[0]
    frame.numbers[0] = 11
    sodium = DatasetData.from_frames([frame], known).store()
    unlabelled = DatasetData.from_frames(make_frames(2, labels=False)).store()
    first = {'training': sets[0]}
    for stages, words in [
        ([], 'there are no stages'),
        ([first, {'training': sodium}], 'stage `stage_02`: the potential of the stages before does not know Na'),
        ([first, {'training': sets[1], 'strategy': 'lora'}], 'unruly has no strategy `lora`; it has scratch, naive'),
        ([first, {'training': sets[1], 'strategy': 'wild'}], 'there is no strategy `wild`'),
        ([first, {'training': sets[1], 'replay': sets[2]}], 'replays nothing'),
        ([first, {'training': sets[1], 'settings': {'steps': 0}}], 'at least 1'),
        ([first, {'training': unlabelled}], 'has no energy and no forces'),
        ([first, {'validation': sets[1]}], 'it has no `training` dataset'),
        ([first, {'training': sets[1], 'epochs': 3}], "it has no input 'epochs'"),
        ([first, {'training': 7}], '`training` has to be a DatasetData'),
        ([{'training': sets[0], 'strategy': 'naive'}], 'stage `stage_01`: .* needs a `parent`'),
    ]:
        with pytest.raises(ValueError, match=words):
            run(stages)


def test_levels_and_elements_of_later_stages_are_judged_before_the_first_runs(run, sets, make_frames):
    known, other = {'labeller': 'test', 'functional': 'pairs'}, {'labeller': 'test', 'functional': 'other'}
    frames = [*make_frames(2, seed=6), *make_frames(2, seed=7, head='fine')]
    mixed = DatasetData.from_frames(frames, {'fine': other, 'default': known}).store()
    elsewhere = DatasetData.from_frames(make_frames(2, seed=8), other).store()
    sodium = make_frames(2, seed=9)
    sodium[0].numbers[0] = 11
    sodium = DatasetData.from_frames(sodium, known).store()
    first, tested = {'training': sets[0]}, {'training': sets[0], 'validation': sets[1]}
    replaying = {**tested, 'strategy': 'multihead', 'replay': elsewhere}
    for architecture, stages, words in [
        ('unruly', [first, {'training': mixed}], 'stage `stage_02`: the datasets mix 2 levels of theory'),
        ('unruly', [first, {**first, 'validation': elsewhere}], 'stage `stage_02`: the datasets mix 2 levels'),
        (
            'unruly',
            [first, first, {**first, 'validation': sodium}],
            'stage `stage_03`: the validation dataset holds Na, which the potential will not know',
        ),
        ('mace', [tested, tested, {**tested, 'settings': {'batch_size': 50}}], 'stage_03`.*only 4 training frames'),
        ('mace', [tested, first], 'stage `stage_02`: MACE chooses the best epoch'),
        ('mace', [tested, replaying], 'stage `stage_02`: the replayed frames are of another level of theory'),
        ('mace', [tested, tested, {**replaying, 'replay': mixed}], 'stage `stage_03`: the replayed frames are of'),
    ]:
        with pytest.raises(ValueError, match=words):
            run(stages, architecture, **({'settings': {'batch_size': 2}} if architecture == 'mace' else {}))


def test_what_a_multihead_stage_has_learned_may_be_replayed_by_the_next(make_frames, sets):
    """The potential of the second stage knows the levels of both, so that frames of the first can be replayed."""
    other = DatasetData.from_frames(make_frames(4, seed=8), {'labeller': 'test', 'functional': 'other'}).store()
    stages = {
        'stage_01': {'training': sets[0], 'validation': sets[1]},
        'stage_02': {'training': other, 'validation': other, 'replay': sets[0], 'strategy': orm.Str('multihead')},
        'stage_03': {'training': other, 'validation': other, 'replay': sets[1], 'strategy': orm.Str('multihead')},
    }

    def problem(**last):
        settings = {name: orm.Dict({'batch_size': 2, **(last if name == 'stage_03' else {})}) for name in stages}
        given = {name: {**stage, 'settings': settings[name]} for name, stage in stages.items()}
        return _validate(AttributeDict({'architecture': orm.Str('mace'), 'stages': given}), None)

    assert problem(parent_head='parent') is None
    assert 'stage `stage_03`: the replayed frames are of another level' in problem(parent_head='default')
    assert 'stage `stage_03`: the parent has the heads parent, default; say by `parent_head`' in problem()
    assert 'stage `stage_03`: the parent has no head `typo`; it has parent, default' in problem(parent_head='typo')


def test_a_stage_after_one_with_several_heads_has_to_say_which_before_the_first_runs(run, sets, make_frames):
    other = DatasetData.from_frames(make_frames(4, seed=8), {'labeller': 'test', 'functional': 'other'}).store()
    stages = [
        {'training': sets[0], 'validation': sets[1]},
        {'training': other, 'validation': other, 'replay': sets[0], 'strategy': 'multihead'},
        {'training': sets[0], 'validation': sets[1]},
    ]
    with pytest.raises(ValueError, match='stage `stage_03`: the parent has the heads parent, default; say by `parent_'):
        run(stages, 'mace', settings={'batch_size': 2})


@pytest.mark.parametrize(
    ('architecture', 'common', 'first', 'later', 'words'),
    [
        ('mace', {}, {'r_max': 4.0}, {'r_max': 4.5}, '`r_max`: asked 4.5, the parent has 4.0'),
        ('mace', {}, {}, {'r_max': 4.5}, '`r_max`: asked 4.5, the parent has 6.0'),  # of the protocol
        ('mace', {'r_max': 4.0}, {'r_max': 4.5}, {}, '`r_max`: asked 4.0, the parent has 4.5'),
        ('mace', {}, {'max_ell': 1}, {'max_ell': 3}, '`max_ell`: asked 3, the parent has 1'),
        ('mace', {}, {'num_interactions': 1}, {'readout_irreps': '4x0e'}, '`readout_irreps`: asked .4x0e., the parent'),
        ('nep', {}, {'radial_cutoff': 6.0}, {'radial_cutoff': 7.0}, '`radial_cutoff`: asked 7.0, the parent has 6.0'),
        ('allegro', {}, {}, {'l_max': 3}, '`l_max`: asked 3, the parent has'),
    ],
)
def test_a_network_that_a_later_stage_asks_for_is_compared_before_the_first_runs(
    run, sets, architecture, common, first, later, words
):
    stages = [
        {'training': sets[0], 'validation': sets[1], 'settings': first},
        {'training': sets[0], 'validation': sets[1]},
        {'training': sets[0], 'validation': sets[1], 'settings': later},
    ]
    size = {} if architecture == 'nep' else {'batch_size': 2}
    stage = 'stage_02' if common else 'stage_03'
    with pytest.raises(ValueError, match=f'stage `{stage}`: the parent decides .*{words}'):
        run(stages, architecture, settings={**size, **common})


def test_the_same_network_in_all_stages_is_not_refused(sets):
    settings = [{'hidden_irreps': '8x0e+8x1o', 'r_max': 4.0}, {'hidden_irreps': '8x0e + 8x1o', 'r_max': 4.0}, {}]
    stages = {
        f'stage_{number:02d}': {
            'training': sets[0],
            'validation': sets[1],
            'settings': orm.Dict({'batch_size': 2, **given}),
        }
        for number, given in enumerate(settings, 1)
    }
    assert _validate(AttributeDict({'architecture': orm.Str('mace'), 'stages': stages}), None) is None
    stages['stage_03'] |= {'settings': orm.Dict({'batch_size': 2, 'r_max': 7.0}), 'strategy': orm.Str('scratch')}
    assert _validate(AttributeDict({'architecture': orm.Str('mace'), 'stages': stages}), None) is None


def test_a_later_stage_from_scratch_takes_no_parent(run, sets):
    outputs, node = run([{'training': sets[0]}, {'training': sets[1], 'strategy': 'scratch'}])
    assert node.is_finished_ok, node.exit_message
    assert not made_from_a_parent(outputs['potential'])


def test_elements_that_a_potential_has_dropped_end_the_chain_where_they_are_needed(run, sets, make_frames, tmp_path):
    """Which elements a trained potential still knows is only known when it is there."""
    (tmp_path / 'unruly.json').write_text(json.dumps({'way': 'none', 'elements': ['Cs', 'Pb', 'I']}))
    facts = {'cutoff': 5.0, 'n_parameters': 1}
    parent = PotentialData(tmp_path, architecture='unruly', elements=['Cs', 'Pb', 'I'], **facts).store()
    frames = make_frames(2)
    for frame in frames:
        frame.numbers[:] = 55
    caesium = DatasetData.from_frames(frames, {'labeller': 'test', 'functional': 'pairs'}).store()
    stages = [{'training': caesium, 'settings': {'way': 'forgets'}}, {'training': sets[1]}]
    outputs, node = run(stages, parent=parent)
    assert node.exit_status == 550
    assert 'could not be submitted' in node.exit_message
    assert 'the parent does not know I, Pb; it knows Cs' in node.exit_message
    assert list(outputs['potentials']) == ['stage_01']
    assert outputs['results']['stage_01']['dropped_elements'] == ['I', 'Pb']
