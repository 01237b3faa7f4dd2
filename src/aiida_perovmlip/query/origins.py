"""Everything that a node or a figure depends on, followed through the graph generation by generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.filters import UUID, Record, among, batches, time_of

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

UPWARDS = ('input_calc', 'create', 'call_calc', 'call_work')
"""Types of the links that lead to what a node depends on: data, what made these, and the chains that ran it."""

COLUMNS = {
    'node': '',
    'node_uuid': '',
    'class': '',
    'label': '',
    'process': '',
    'exit_status': '',
    'created': '',
    'generation': '',
}
"""The columns of the table."""


def ancestors(of: Any) -> Table:
    """Return everything that a node, several, or a figure depend on: a row a node, the nearest first.

    Followed are the inputs of calculations and what these made; a chain is there as what ran a calculation. Asked of
    a chain itself, it is what the chain was given and returned, and all that this depends on. `generation` 0 is what
    was asked for. What is not in this profile raises LookupError.

    :param of: node, PK or UUID, several of these, or the path of a figure of ours, which names the nodes that it shows.
    """
    from aiida_perovmlip.query.table import table_of

    records = ancestors_records(of)
    return table_of(records, COLUMNS, [ancestors_query([record['node'] for record in records])])


def ancestors_records(of: Any) -> list[Record]:
    """Return a record for each node, as plain values; see `ancestors`."""
    generations = ancestors_of(of)
    records = [
        {
            'node': pk,
            'node_uuid': uuid,
            'class': node_type.rstrip('.').rpartition('.')[2],
            'label': label,
            'process': process,
            'exit_status': exit_status,
            'created': time_of(created),
            'generation': generations[pk],
        }
        for some in batches(list(generations))
        for pk, uuid, node_type, label, created, process, exit_status in ancestors_query(some).all()
    ]
    return sorted(records, key=lambda record: (record['generation'], record['node']))


def ancestors_query(nodes: Iterable[Any]) -> QueryBuilder:
    """Return the query for what is told of nodes; its tag is `node`."""
    from aiida import orm

    project = ['id', 'uuid', 'node_type', 'label', 'ctime', 'attributes.process_label', 'attributes.exit_status']
    return orm.QueryBuilder().append(orm.Node, tag='node', filters=among(nodes), project=project)


def ancestors_of(of: Any) -> dict[int, int]:
    """Return the generation of everything that something depends on, by its PK; see `ancestors`.

    One query a generation: a query over all ancestors at once counts the ways that lead to each of them.
    """
    newest = _starts(of)
    generations = dict.fromkeys(newest, 0)
    above = _above(newest) + _around_chains(newest)
    while newest := [pk for pk in dict.fromkeys(above) if pk not in generations]:
        generations |= dict.fromkeys(newest, max(generations.values()) + 1)
        above = _above(newest)
    return generations


def above_query(nodes: Sequence[int]) -> QueryBuilder:
    """Return the query for what nodes depend on at once."""
    from aiida import orm

    query = orm.QueryBuilder().append(orm.Node, tag='node', filters=among(nodes))
    types = {'type': {'in': list(UPWARDS)}}
    return query.append(orm.Node, tag='above', with_outgoing='node', edge_filters=types, project='id')


def _above(nodes: Sequence[int]) -> list[int]:
    return [pk for some in batches(nodes) for pk in above_query(some).all(flat=True)]


def _around_chains(starts: Sequence[int]) -> list[int]:
    """Return what those nodes that are chains were given and returned."""
    from aiida import orm

    found: list[int] = []
    for keyword, kind in (('with_outgoing', 'input_work'), ('with_incoming', 'return')):
        query = orm.QueryBuilder().append(orm.WorkflowNode, tag='chain', filters=among(starts))
        query.append(orm.Data, edge_filters={'type': kind}, project='id', **{keyword: 'chain'})
        found += query.all(flat=True)
    return found


def _starts(of: Any) -> list[int]:
    """Return the PKs of what is meant."""
    from aiida import orm

    if isinstance(of, Path):
        of = uuids_in(of)
    given = [of] if isinstance(of, (int, str)) or hasattr(of, 'pk') else list(of)
    identifiers = [getattr(node, 'pk', node) for node in given]
    rows = orm.QueryBuilder().append(orm.Node, filters=among(identifiers), project=['id', 'uuid']).all()
    known = {name for row in rows for name in row}
    missing = [str(name) for name in identifiers if name not in known]
    if missing:
        raise LookupError(f'this profile has no node {", ".join(missing)}; load the profile, or import the archive.')
    return sorted(pk for pk, _ in rows)


def uuids_in(figure: Path) -> list[str]:
    """Return the UUIDs of the nodes that a figure, page or table names, in the order of the file."""
    found = dict.fromkeys(UUID.findall(figure.read_text(encoding='latin-1')))
    if not found:
        raise LookupError(f'{figure} names no node; figures of this package do, unless a program has rewritten them.')
    return list(found)
