"""Tables that tell which queries they were made by."""

from __future__ import annotations

import pickle

import pytest
from aiida import orm

from aiida_perovmlip import query
from aiida_perovmlip.query.compare import evaluations_query
from aiida_perovmlip.query.table import code_of, table_of


@pytest.fixture
def two(make_potential, store_frames, evaluated):
    potentials, bulk = [make_potential('one', 'first'), make_potential('two')], store_frames('bulk', 1)
    for potential, error in zip(potentials, (0.1, 2.5), strict=True):
        evaluated(potential, bulk, error)
    return potentials


def test_the_query_is_shown_as_code_that_runs(two):
    table = query.evaluations(two)
    text = str(table.query)
    assert text == repr(table.query)
    assert "plugins.DataFactory('perovmlip.potential')" in text
    assert "with_incoming='potential'" in text
    namespace = {}
    exec(text, namespace)
    (builder,) = table.query.builders
    assert namespace['query'].as_dict() == builder.as_dict() == evaluations_query(two).as_dict()
    assert len(namespace['query'].all()) == 2


def test_the_query_can_be_narrowed(two):
    (builder,) = query.evaluations(two).query.builders
    builder.add_filter('metrics', {'attributes.forces.rmse': {'>': 2.0}})
    assert [row[0] for row in builder.all()] == [two[1].pk]


def test_the_query_of_pandas_still_works(two):
    table = query.evaluations(two)
    assert table.query('potential_label == "first"')['potential'].tolist() == [two[0].pk]
    assert table.query('potential == @wanted', local_dict={'wanted': two[1].pk})['potential'].tolist() == [two[1].pk]


@pytest.mark.parametrize(
    'change',
    [
        lambda table: table[table['potential'] > 0],
        lambda table: table.sort_values('potential').head(1),
        lambda table: table.copy(),
        lambda table: pickle.loads(pickle.dumps(table)),
    ],
    ids=['filtered', 'sorted', 'copied', 'pickled'],
)
def test_what_is_made_of_a_table_still_tells_its_query(two, change):
    table = query.evaluations(two)
    assert str(change(table).query) == str(table.query)


def test_all_that_a_query_may_have_is_in_its_code():
    builder = orm.QueryBuilder(limit=2, offset=1)
    builder.append(orm.Node, tag='source', filters={'or': [{'id': {'>': 0}}, {'label': {'like': 'a%'}}]})
    long = {'process_type': {'in': [f'aiida.calculations:perovmlip.number.{number}' for number in range(9)]}}
    builder.append(
        orm.CalcJobNode, with_incoming='source', tag='job', filters=long, edge_project=['label'], project='id'
    )
    builder.order_by({'job': [{'id': 'desc'}]}).distinct()
    namespace = {}
    exec(code_of(builder), namespace)
    assert namespace['query'].as_dict() == builder.as_dict()


def test_units_stand_in_headings_and_unknown_numbers_are_nan():
    columns = {'name': '', 'energy': 'eV', 'count': '1'}
    table = table_of(
        [{'name': None, 'energy': None, 'count': None}, {'name': 'a', 'energy': 1, 'count': 2}], columns, []
    )
    assert list(table.columns) == ['name', 'energy [eV]', 'count']
    assert table['energy [eV]'].isna().tolist() == [True, False]
    assert table['count'].tolist()[1] == 2.0
    assert str(table.query) == ''


@pytest.mark.parametrize('name', ['potentials', 'evaluations', 'compare_strategies', 'compare_architectures', 'costs'])
def test_more_nodes_take_no_more_queries(name, trained, store_frames, evaluated, count_queries):
    frames, counts = store_frames('frames', 77), []
    for number in range(3):
        potential = trained(f'{name} {number}', frames)
        evaluated(potential, frames, 0.1)
        count_queries.clear()
        getattr(query, name)()
        counts.append(len(count_queries))
    assert len(set(counts)) == 1


NAMES = [name for name in query.__all__ if name not in ('ancestors', 'forgetting_matrix', 'lineage')]


@pytest.mark.parametrize('name', NAMES)
def test_every_question_can_be_asked_of_nothing(name):
    """A node that exists, but is of no kind that has an answer."""
    pk = orm.Int(1).store().pk
    of = pk if name == 'costs' else [pk]
    table = getattr(query, name)(of if name == 'costs' else iter(of))
    assert len(table) == 0
    assert table.query.builders
    assert all(isinstance(heading, str) for heading in table.columns)
