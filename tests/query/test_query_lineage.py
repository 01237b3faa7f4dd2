"""Lineages of potentials in a real database."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.manage import get_manager

from aiida_perovmlip.query.stages import lineage, lineage_records


def test_an_imported_potential_has_one_stage_and_no_training(make_potential):
    potential = make_potential('foundation', 'foundation')
    (stage,) = lineage_records(potential.uuid)
    assert (stage['potential'], stage['training'], stage['strategy']) == (potential.pk, None, None)


def test_stages_come_in_the_order_of_training(make_potential, trained, store_frames):
    frames, more = store_frames('frames', 1), store_frames('more', 2, count=2)
    foundation = make_potential('foundation', 'foundation')
    first = trained('first', frames, parent=foundation)
    second = trained('second', more, 'multihead', parent=first, replay=frames)
    table = lineage(second)
    assert table['potential'].tolist() == [foundation.pk, first.pk, second.pk]
    assert [stage['strategy'] for stage in lineage_records(second)] == [None, 'naive', 'multihead']
    assert table['n_frames'].tolist()[1:] == [3, 2]
    assert table['dataset_label'].tolist()[1:] == ['frames', 'more']
    assert table['replay'].tolist()[2] == frames.pk
    assert table['training'].tolist()[2] == second.creator.pk


def test_a_teacher_is_no_parent(trained, store_frames, make_dataset):
    """The potential that labelled the frames is an ancestor, but the training did not start from it."""
    teacher = trained('teacher', store_frames('frames', 1), 'scratch')
    label = orm.CalcJobNode(process_type='aiida.calculations:perovmlip.label')
    label.base.links.add_incoming(teacher, LinkType.INPUT_CALC, 'potential')
    label.store()
    labelled = make_dataset(2, seed=9)
    labelled.base.links.add_incoming(label, LinkType.CREATE, 'dataset')
    labelled.store()
    pupil = trained('pupil', labelled, 'scratch')
    assert [stage['potential'] for stage in lineage_records(pupil)] == [pupil.pk]


def test_chains_in_between_do_not_matter(trained, store_frames):
    frames = store_frames('frames', 1)
    first = trained('first', frames, 'scratch')
    chain = orm.WorkChainNode()
    chain.base.links.add_incoming(first, LinkType.INPUT_WORK, 'parent')
    chain.store()
    second = trained('second', frames, parent=first)
    second.base.links.add_incoming(chain, LinkType.RETURN, 'potential')
    assert [stage['potential'] for stage in lineage_records(second)] == [first.pk, second.pk]


def test_queries_grow_with_the_stages_and_not_with_the_legs(
    make_potential, trained_in_legs, store_frames, count_queries
):
    frames, potentials, counts = store_frames('frames', 1), [make_potential('stage 0')], []
    for stage in range(1, 7):
        potentials.append(trained_in_legs(f'stage {stage}', 3, training=frames, parent=potentials[-1]))
        last = potentials[-1].pk
        count_queries.clear()
        records = lineage_records(last)
        counts.append(len(count_queries))
        assert [record['potential'] for record in records] == [potential.pk for potential in potentials]
    assert counts == [2 + 2 * stage for stage in range(1, 7)]
    # One number a query is not enough: a recursion would be one statement whose rows multiply.
    assert not any('RECURSIVE' in statement.upper() for statement in count_queries)


def test_a_leg_that_was_resumed_is_no_stage_of_its_own(make_potential, trained_in_legs, store_frames):
    parent = make_potential('parent')
    tuned = trained_in_legs('tuned', 3, training=store_frames('frames', 1), parent=parent)
    assert [stage['training'] for stage in lineage_records(tuned)] == [None, tuned.creator.pk]


def test_a_potential_that_descends_from_itself_is_a_sentence_and_no_endless_walk(trained, store_frames):
    frames = store_frames('frames', 1)
    first = trained('first', frames)
    second = trained('second', frames, parent=first)
    child = first.creator.backend_entity
    # AiiDA refuses such a link; only a damaged database holds one, and this one only until the end of the test.
    child.add_incoming(second.backend_entity, LinkType.INPUT_CALC, 'parent')
    try:
        with pytest.raises(ValueError, match=f'the potential {second.pk} descends from itself'):
            lineage_records(second)
    finally:
        session = get_manager().get_profile_storage().get_session()
        session.query(child.LINK_CLASS).filter_by(output_id=child.pk, label='parent').delete()
        session.commit()
    assert len(lineage_records(second)) == 2


def test_a_training_without_results_is_a_stage_all_the_same(make_potential, store_frames, trained):
    foundation, frames = make_potential('foundation'), store_frames('frames', 1)
    tuned = trained('tuned', frames, has_results=False, parent=foundation)
    stages = lineage_records(tuned)
    assert [stage['potential'] for stage in stages] == [foundation.pk, tuned.pk]
    assert (stages[1]['training'], stages[1]['strategy'], stages[1]['dataset']) == (tuned.creator.pk, None, frames.pk)


def test_a_real_training_is_found(python_code, make_dataset):
    from aiida.engine import run

    from aiida_perovmlip.calculations.train import TrainCalculation

    training = make_dataset(4).store()
    inputs = {'code': python_code, 'training': training, 'architecture': 'reference'}
    first = run(TrainCalculation, **inputs)['potential']
    second = run(TrainCalculation, parent=first, **inputs)['potential']
    stages = lineage_records(second)
    assert [stage['potential'] for stage in stages] == [first.pk, second.pk]
    assert [stage['strategy'] for stage in stages] == ['scratch', 'naive']


def test_what_is_no_potential_is_refused():
    with pytest.raises(ValueError, match='no potential 123456789'):
        lineage(123456789)
