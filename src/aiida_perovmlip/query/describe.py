"""What is in a dataset or a potential, as plain values, asked of the database: no file is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Record = dict[str, Any]

DATASET = (
    'n_frames', 'n_atoms', 'n_stress', 'elements', 'groups', 'heads', 'labels', 'levels', 'charges', 'spins',
    'energy_per_atom_range', 'force_range', 'content_hash',
)  # fmt: skip
POTENTIAL = ('architecture', 'elements', 'cutoff', 'heads', 'levels', 'dtype', 'n_parameters', 'content_hash')
KINDS = {
    'dataset': ('data.perovmlip.dataset.DatasetData.', DATASET),
    'potential': ('data.perovmlip.potential.PotentialData.', POTENTIAL),
}
"""Type, as the database has it, and attributes of the nodes that can be described; loading their classes takes long."""


def describe(identifier: Any, kind: str) -> Record:
    """Return what is known of a dataset or potential, with the process that made it.

    :param identifier: PK, UUID or the beginning of one, or a label that no other has.
    :param kind: `dataset` or `potential`.
    :raises LookupError: where there is no such node, or where it is something else.
    """
    from aiida import orm

    _, names = KINDS[kind]
    node = find(identifier, kind)
    project = ['id', 'uuid', 'label', 'description', 'ctime', *(f'attributes.{name}' for name in names)]
    query = orm.QueryBuilder().append(orm.Data, filters={'id': node['id']}, project=project)
    pk, uuid, label, description, ctime, *values = query.first()
    about = {'pk': pk, 'uuid': uuid, 'label': label, 'description': description}
    known = dict(zip(names, values, strict=True))
    return {**about, 'created': ctime.isoformat(timespec='seconds'), **known, 'made_by': _maker(pk)}


def _maker(pk: int) -> Record | None:
    """Return the calculation that made a node; None where it is a beginning."""
    from aiida import orm

    query = orm.QueryBuilder().append(orm.Data, filters={'id': pk}, tag='node')
    query.append(orm.CalculationNode, with_outgoing='node', project=['id', 'uuid', 'attributes.process_label'])
    found = query.first()
    return dict(zip(('pk', 'uuid', 'process'), found, strict=True)) if found else None


def load(identifier: Any, kind: str) -> Any:
    """Return the one dataset or potential that is meant; see `describe`."""
    from aiida import orm

    return orm.load_node(find(identifier, kind)['id'])


def load_any(identifier: Any, suits: Callable[[Any], bool]) -> Any:
    """Return the one node of any kind that is meant; see `describe`.

    :param suits: whether a node is of a kind that is of use; of several with one label those alone are meant, since a
        chain and what it made may bear the same.
    """
    from aiida import orm

    found = _matching(str(identifier), {}, orm.Node)
    if len(found) > 1:
        found = [entry for entry in found if suits(orm.load_node(entry[0]))] or found
    if len(found) == 1:
        return orm.load_node(found[0][0])
    if found:
        pks = ', '.join(str(pk) for pk, _ in found[:10])
        raise LookupError(f'`{identifier}` means {len(found)} nodes: PK {pks}; say which by its PK.')
    raise LookupError(f'there is no node `{identifier}`; give its PK, its UUID or its label.')


def find(identifier: Any, kind: str) -> Record:
    """Return `id` and `uuid` of the one dataset or potential that is meant; see `describe`."""
    from aiida import orm

    found = _matching(str(identifier), {'node_type': KINDS[kind][0]}, orm.Data)
    if len(found) > 1:
        pks = ', '.join(str(pk) for pk, _ in found[:10])
        raise LookupError(f'`{identifier}` means {len(found)} {kind}s: PK {pks}; say which by its PK.')
    if found:
        return {'id': found[0][0], 'uuid': found[0][1]}
    others = _matching(str(identifier), {}, orm.Node, project='node_type')
    if others:
        what = others[0].rstrip('.').rpartition('.')[2]
        raise LookupError(f'`{identifier}` is a node of the type {what}, and no {kind}.')
    raise LookupError(f'there is no {kind} `{identifier}`; give its PK, its UUID or its label. {_some(kind)}')


def _matching(identifier: str, filters: Mapping[str, Any], node: Any, project: Any = ('id', 'uuid')) -> list[Any]:
    """Return the nodes that an identifier may mean; a PK goes before a UUID, and this before a label."""
    from aiida import orm

    ways: list[dict[str, Any]] = [{'id': int(identifier)}] if identifier.isdecimal() else []
    if len(identifier) >= 6 and not set(identifier.lower()) - set('0123456789abcdef-'):
        ways.append({'uuid': {'like': f'{identifier.lower()}%'}})
    ways.append({'label': identifier})
    project = list(project) if isinstance(project, tuple) else project
    for way in ways:
        found = orm.QueryBuilder().append(node, filters={**filters, **way}, project=project).all(
            flat=isinstance(project, str)
        )  # fmt: skip
        if found:
            return list(found)
    return []


def _some(kind: str) -> str:
    """Return which nodes of a kind there are, the newest few."""
    from aiida import orm

    query = orm.QueryBuilder().append(
        orm.Data, filters={'node_type': KINDS[kind][0]}, tag='node', project=['id', 'label']
    )
    found = query.order_by({'node': {'id': 'desc'}}).limit(3).all()
    if not found:
        return f'There is none yet: `aiida-perovmlip {kind} import` makes one.'
    return 'The newest are ' + ', '.join(f'{pk} ({label})' if label else str(pk) for pk, label in found) + '.'
