"""What nodes and figures depend on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from aiida import orm
from aiida.common.links import LinkType
from query_world import found

from aiida_perovmlip.query import ancestors


def test_a_potential_depends_on_its_training_and_frames(trained, store_frames, make_potential):
    frames, foundation = store_frames('frames', 71), make_potential('foundation', 'foundation')
    tuned = trained('tuned', frames, parent=foundation)
    table = ancestors(tuned)
    assert table['generation'].tolist() == [0, 1, 2, 2]
    assert table['node'].tolist() == [tuned.pk, tuned.creator.pk, *sorted((frames.pk, foundation.pk))]
    assert set(table['class']) == {'PotentialData', 'CalcJobNode', 'DatasetData'}
    assert table['node_uuid'].tolist()[0] == tuned.uuid
    for again in (tuned.pk, tuned.uuid, [tuned], [tuned.uuid, tuned]):
        assert ancestors(again)['node'].tolist() == table['node'].tolist()


def test_a_node_that_is_reached_in_many_ways_is_one_row(make_potential, trained_in_legs, store_frames, count_queries):
    frames, last = store_frames('frames', 72), make_potential('stage 0')
    for stage in range(1, 6):
        last = trained_in_legs(f'stage {stage}', 3, training=frames, parent=last)
    pk = last.pk
    count_queries.clear()
    table = ancestors(pk)
    assert table['node'].is_unique
    assert len(table) == 1 + 1 + 5 * 6  # frames, the first, and of each three legs, two folders and a potential
    assert len(count_queries) < 3 * table['generation'].max()
    assert not any('RECURSIVE' in statement.upper() for statement in count_queries)


def test_the_chain_that_ran_a_calculation_is_there_and_its_other_inputs_are_not(trained, store_frames):
    frames, other = store_frames('frames', 73), store_frames('of another stage', 74)
    chain = orm.WorkChainNode(label='both stages')
    for name, data in (('first', frames), ('second', other)):
        chain.base.links.add_incoming(data, LinkType.INPUT_WORK, name)
    chain.store()
    job = orm.CalcJobNode()
    job.base.links.add_incoming(chain, LinkType.CALL_CALC, 'job')
    job.base.links.add_incoming(frames, LinkType.INPUT_CALC, 'training')
    job.store()
    result = orm.Int(1)
    result.base.links.add_incoming(job, LinkType.CREATE, 'result')
    result.store()
    assert set(ancestors(result)['node']) == {result.pk, job.pk, chain.pk, frames.pk}
    assert set(ancestors(chain)['node']) == {chain.pk, frames.pk, other.pk}


@pytest.mark.parametrize('kind', ['svg', 'pdf', 'png'])
def test_a_figure_names_what_it_depends_on(tmp_path, make_potential, kind):
    from matplotlib.figure import Figure

    from aiida_perovmlip.report.profiles import save_figure

    potential = make_potential('of a figure')
    chain, result = found('perovmlip.neb_validation', 'drawn', 'comparison', {'paths': {}}, potential=potential)
    path = tmp_path / f'figure.{kind}'
    save_figure(Figure(), path, 'Nothing – Å', [chain.uuid, result.uuid])
    assert set(ancestors(path)['node']) == {chain.pk, result.pk, potential.pk}


def test_what_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(LookupError, match='this profile has no node 123456789; load the profile'):
        ancestors(123456789)
    with pytest.raises(LookupError, match=r'no node not-a-uuid'):
        ancestors(['not-a-uuid'])
    empty = tmp_path / 'figure.svg'
    empty.write_text('<svg/>')
    with pytest.raises(LookupError, match=re.escape(f'{empty} names no node')):
        ancestors(Path(empty))
