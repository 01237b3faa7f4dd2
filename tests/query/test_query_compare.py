"""Tables of evaluations, asked of a real database."""

from __future__ import annotations

import json
import math

import pytest
from aiida import orm

from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.query import evaluations, forgetting_matrix
from aiida_perovmlip.query.compare import evaluations_query, evaluations_records, forgetting_records

FORCES = 'forces_rmse [eV/Å]'


def test_a_row_is_a_potential_a_test_set_and_a_head(make_potential, store_frames, evaluated):
    one, two = make_potential('one', 'first'), make_potential('two')
    bulk, slab = store_frames('bulk', 1), store_frames('slab', 2)
    for potential, dataset, error in ((one, bulk, 0.05), (two, bulk, 0.02), (one, slab, 0.3)):
        evaluated(potential, dataset, error)
    table = evaluations([one, two])
    assert table['potential'].tolist() == [one.pk, two.pk, one.pk]
    assert table['dataset_label'].tolist() == ['bulk', 'bulk', 'slab']
    assert table[FORCES].tolist() == [0.05, 0.02, 0.3]
    assert table['energy_per_atom_mae [eV/atom]'].tolist() == pytest.approx([0.0025, 0.001, 0.015])
    assert table['stress_rmse [eV/Å³]'].isna().all()
    assert table['speed [µs/atom]'].tolist() == [12.5] * 3
    assert table['potential_label'].tolist() == ['first', '', 'first']
    assert table['same_level'].tolist() == [True] * 3


def test_the_newest_evaluation_counts_and_the_others_can_be_seen(make_potential, store_frames, evaluated):
    potential, bulk = make_potential('newest'), store_frames('bulk', 1)
    evaluated(potential, bulk, 0.9)
    last = evaluated(potential, bulk, 0.1)
    table = evaluations([potential])
    assert table[FORCES].tolist() == [0.1]
    assert table['evaluation'].tolist() == [last.pk]
    assert sorted(evaluations([potential], newest=False)[FORCES]) == [0.1, 0.9]


def test_equal_frames_in_two_nodes_are_one_test_set(make_potential, store_frames, evaluated):
    one, two = make_potential('one'), make_potential('two')
    bulk, copy = store_frames('', 1), store_frames('bulk', 1)
    assert bulk.uuid != copy.uuid
    evaluated(one, bulk, 0.1)
    evaluated(two, copy, 0.2)
    for asked in ([bulk], [copy], [bulk, copy]):
        table = evaluations([one, two], asked)
        assert table['dataset'].tolist() == [bulk.pk] * 2
        assert table['dataset_label'].tolist() == ['bulk'] * 2
        assert table[FORCES].tolist() == [0.1, 0.2]


def test_potentials_and_datasets_are_named_by_node_pk_or_uuid(make_potential, store_frames, evaluated):
    one, two = make_potential('one'), make_potential('two')
    bulk, slab = store_frames('bulk', 1), store_frames('slab', 2)
    for potential in (one, two):
        for dataset in (bulk, slab):
            evaluated(potential, dataset, 0.1)
    assert len(evaluations([one.pk, two.uuid], [bulk.uuid])) == 2
    assert len(evaluations([one], [bulk.pk, slab])) == 2
    assert len(evaluations([], None)) == 0
    assert len(evaluations([one], [])) == 0


def test_each_head_has_a_row(make_potential, store_frames, evaluated):
    potential, bulk = make_potential('heads', heads=('pbe', 'r2scan')), store_frames('bulk', 1)
    blocks = {'forces': {'rmse': 0.5}}, {'forces': {'rmse': 0.7}}
    more = {'per_head': dict(zip(('pbe', 'r2scan'), blocks, strict=True)), 'same_level_per_head': {'pbe': True}}
    evaluated(potential, bulk, 0.6, head=None, **more)
    table = evaluations([potential])
    assert dict(zip(table['head'], table[FORCES], strict=True)) == {'pbe': 0.5, 'r2scan': 0.7}
    assert table['same_level'].tolist() == [True, None]


def test_a_head_has_frames_and_state_of_its_own(make_potential, store_frames, evaluated):
    potential, mixed = make_potential('heads', heads=('pbe', 'r2scan')), store_frames('mixed', 1, count=5)
    broken = {'energy_per_atom': {'n': 2, 'rmse': 0.1}, 'forces': {'n': 30, 'n_not_finite': 3}}
    sound = {'energy_per_atom': {'n': 3, 'rmse': 0.1}, 'forces': {'n': 45, 'rmse': 0.7}}
    more = {'state': 'not_finite', 'per_head': {'pbe': broken, 'r2scan': sound}}
    evaluated(potential, mixed, 0.6, 530, head=None, **more)
    pbe, r2scan = evaluations_records([potential])
    assert (pbe['n_frames'], pbe['state'], pbe['not_finite'], pbe['forces_rmse']) == (2, 'not_finite', 'forces', None)
    assert (r2scan['n_frames'], r2scan['state'], r2scan['not_finite'], r2scan['forces_rmse']) == (3, 'finite', '', 0.7)


def test_an_evaluation_that_failed_is_no_number_and_one_that_met_nan_says_so(
    make_potential, store_frames, evaluated, broken_evaluation
):
    potential, bulk = make_potential('nan'), store_frames('bulk', 1)
    evaluated(potential, bulk, 0.1, exit_status=400)
    assert evaluations([potential]).empty
    broken_evaluation(potential, bulk)
    table = evaluations([potential])
    assert table['state'].tolist() == ['not_finite']
    assert math.isnan(table[FORCES][0])


def test_an_empty_table_has_all_columns(make_potential):
    assert FORCES in evaluations([make_potential('lonely')]).columns


def test_the_number_of_queries_does_not_grow(make_potential, store_frames, evaluated, count_queries):
    potentials, bulk = [make_potential(f'p{index}') for index in range(6)], store_frames('bulk', 1)
    counts, pks, dataset = [], [entry.pk for entry in potentials], bulk.pk
    for potential in potentials:
        evaluated(potential, bulk, 0.1)
        count_queries.clear()
        evaluations_records(pks, [dataset])
        counts.append(len(count_queries))
    assert counts == [2] * 6
    assert len(evaluations_records(potentials, [bulk])) == 6


def test_the_query_beneath_can_be_narrowed(make_potential, store_frames, evaluated):
    one, two, bulk = make_potential('one'), make_potential('two'), store_frames('bulk', 1)
    evaluated(one, bulk, 0.1)
    evaluated(two, bulk, 2.5)
    query = evaluations_query([one, two])
    assert isinstance(query, orm.QueryBuilder)
    query.add_filter('metrics', {'attributes.forces.rmse': {'>': 2.0}})
    assert [row[0] for row in query.all()] == [two.pk]


def test_a_record_is_plain_json(make_potential, store_frames, evaluated):
    potential, bulk = make_potential('one'), store_frames('bulk', 1)
    evaluated(potential, bulk, 0.1)
    assert json.loads(json.dumps(evaluations_records([potential.pk], [bulk.pk]), allow_nan=False))


@pytest.fixture
def history(make_potential, store_frames, evaluated, trained):
    """Return a foundation potential and two that were trained from it, each with its test set."""
    frames = [store_frames(f'frames {index}', seed=index) for index in (1, 2, 3)]
    first = trained('first', frames[0], 'scratch')
    second = trained('second', frames[1], parent=first)
    third = trained('third', frames[2], 'multihead', parent=second, replay=frames[0])
    for stage, potential in enumerate((first, second, third)):
        for index, dataset in enumerate(frames[: stage + 1]):
            evaluated(potential, dataset, 0.1 * (stage + 1) + index)
    return [first, second, third], frames


def test_what_was_forgotten_is_seen_down_a_column(history):
    potentials, frames = history
    table = forgetting_matrix(potentials[2])
    assert table.index.tolist() == [potential.pk for potential in potentials]
    assert table.columns.tolist() == [f'{node.label} ({node.pk})' for node in frames]
    assert table.iloc[:, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert math.isnan(table.iloc[0, 1])
    assert table.iloc[2, 2] == pytest.approx(2.3)
    assert table.attrs == {'quantity': 'forces', 'error': 'rmse', 'unit': 'eV/Å'}


def test_later_stages_are_no_part_of_the_past(history):
    potentials, _ = history
    assert forgetting_matrix(potentials[1].pk, 'energy_per_atom', 'mae').index.tolist() == [
        potential.pk for potential in potentials[:2]
    ]


def test_the_past_takes_two_queries_a_stage_and_one_for_all_evaluations(history, count_queries):
    last = history[0][2].pk
    count_queries.clear()
    forgetting_records(last)
    assert len(count_queries) == 1 + 2 * 3 + 1


def test_what_was_forgotten_can_be_asked_of_one_test_set(history):
    potentials, frames = history
    table = forgetting_matrix(potentials[2], datasets=[frames[1]])
    assert table.columns.tolist() == [f'{frames[1].label} ({frames[1].pk})']
    assert len(table) == 3


def test_a_level_of_theory_is_one_column_whatever_its_head_is_called(make_potential, evaluated, trained, make_frames):
    levels = {'PBE': {'labeller': 'vasp', 'functional': 'PBE'}, 'HSE': {'labeller': 'vasp', 'functional': 'HSE06'}}
    plain = DatasetData.from_frames(make_frames(2, seed=60), levels['PBE']).store()
    frames = [*make_frames(2, seed=61, head='PBE'), *make_frames(2, seed=62, head='HSE')]
    mixed = DatasetData.from_frames(frames, levels).store()
    first = trained('one head', plain, 'scratch')
    second = trained('two heads', plain, 'multihead', parent=first)
    evaluated(first, plain, 0.1, head='default')
    evaluated(second, plain, 0.2, head='PBE')
    blocks = {name: {'forces': {'rmse': error}} for name, error in (('PBE', 0.3), ('HSE', 0.4))}
    evaluated(second, mixed, 0.35, head=None, per_head=blocks)
    table = forgetting_matrix(second)
    assert table.columns.tolist() == [str(plain.pk), f'{mixed.pk} vasp / HSE06', f'{mixed.pk} vasp / PBE']
    assert table.iloc[:, 0].tolist() == [0.1, 0.2]
    assert table.iloc[1, 1:].tolist() == [0.4, 0.3]


def test_two_heads_of_one_level_have_a_column_each(make_potential, evaluated, trained, store_frames):
    frames = store_frames('twice', 63)
    tuned = trained('two', frames, 'scratch')
    evaluated(tuned, frames, 0.1, head='old')
    evaluated(tuned, frames, 0.2, head='new')
    table = forgetting_matrix(tuned)
    assert dict(zip(table.columns, table.iloc[0], strict=True)) == {
        f'twice ({frames.pk}) new': 0.2,
        f'twice ({frames.pk}) old': 0.1,
    }


def test_copies_that_caching_has_made_count_once(make_potential, store_frames, evaluated):
    one, copy, bulk = make_potential('one', 'first'), make_potential('one'), store_frames('bulk', 64)
    original = evaluated(one, bulk, 0.1)
    clone = evaluated(copy, bulk, 0.1)
    clone.base.extras.set('_aiida_cached_from', original.uuid)
    for newest in (True, False):
        (record,) = evaluations_records(datasets=[bulk], newest=newest)
        assert (record['potential'], record['evaluation']) == (one.pk, original.pk)
    (record,) = evaluations_records([copy], [bulk])
    assert (record['potential'], record['evaluation']) == (copy.pk, clone.pk)
    assert [record['potential'] for record in evaluations_records([one, copy], [bulk])] == [one.pk, copy.pk]


def test_the_newest_evaluation_may_be_a_copy_of_an_older_one(make_potential, store_frames, evaluated):
    one, bulk = make_potential('one'), store_frames('bulk', 64)
    original = evaluated(one, bulk, 0.1)
    second = evaluated(one, bulk, 0.5)
    newest = evaluated(one, bulk, 0.1)
    newest.base.extras.set('_aiida_cached_from', original.uuid)
    (record,) = evaluations_records([one], [bulk])
    assert record['evaluation'] == newest.pk
    every = evaluations_records([one], [bulk], newest=False)
    assert {record['evaluation'] for record in every} == {original.pk, second.pk}


def test_predictions_that_are_not_finite_are_not_taken_for_no_evaluation(history, broken_evaluation):
    potentials, frames = history
    broken_evaluation(potentials[2], frames[0])
    forces, stress = (forgetting_matrix(potentials[2], quantity).iloc[:, 0] for quantity in ('forces', 'stress'))
    assert forces.tolist() == [pytest.approx(0.1), pytest.approx(0.2), math.inf]
    assert math.isnan(stress.iloc[2])
    assert math.isnan(forgetting_matrix(potentials[2]).iloc[0, 1])


def test_a_quantity_that_nobody_measures_is_refused(history):
    with pytest.raises(ValueError, match="no 'rmse' of 'charge'"):
        forgetting_matrix(history[0][0], 'charge')
