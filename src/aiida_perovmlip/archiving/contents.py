"""What an archive of some potentials and datasets holds, and how large that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiida_perovmlip.archiving.manifest import files_of
from aiida_perovmlip.query.filters import batches

OPTIONAL = {
    'potcars': 'POTCAR files of VASP, which may not be passed on without a licence',
    'scratch': 'addresses of folders in which jobs ran, which nobody else can reach',
    'trajectories': 'trajectories of molecular dynamics',
}
"""What does not go into an archive unless it is asked for."""

CLASSES = {
    'datasets': ('data.perovmlip.dataset.',),
    'potentials': ('data.perovmlip.potential.',),
    'potcars': ('data.vasp.potcar_file.',),
    'scratch': ('data.core.remote.',),
    'trajectories': ('data.perovmlip.trajectory.', 'data.core.array.trajectory.'),
    'metrics and settings': ('data.core.dict.', 'data.core.list.', 'data.core.int.', 'data.core.float.',
                             'data.core.str.', 'data.core.bool.'),
    'predictions and curves': ('data.core.array.',),
    'codes': ('data.core.code.',),
    'jobs and chains': ('process.',),
    'files': ('data.core.folder.', 'data.core.singlefile.'),
}  # fmt: skip
"""Classes of nodes by the beginnings of their types, of which the first that fits counts."""

OTHER = 'other data'

RULES = {'return_backward': True, 'call_calc_backward': True}
"""How the graph is followed from what is named, besides to all inputs."""


@dataclass(frozen=True)
class Part:
    """The nodes of one class.

    :param n_bytes: size of their files, each content counted once.
    :param goes_in: whether the archive will hold them.
    """

    name: str
    n_nodes: int
    n_bytes: int
    goes_in: bool


@dataclass(frozen=True)
class Plan:
    """What an archive will hold.

    :param starts: PKs of the nodes from which the graph is followed.
    :param nodes: type and files of all nodes that are reached, by PK.
    :param left_out: PKs of those that stay at home.
    """

    starts: list[int]
    nodes: dict[int, tuple[str, dict[str, Any]]]
    left_out: frozenset[int]
    parts: list[Part] = field(default_factory=list)
    asked: frozenset[str] = frozenset()


def plan(nodes: Sequence[Any], asked: Iterable[str] = ()) -> Plan:
    """Return what an archive of some potentials and datasets will hold; nothing is written.

    These are the nodes, the potentials from which they were trained, whatever was measured of all of these, and all
    that led to it.

    :param nodes: PKs or nodes.
    :param asked: names of `OPTIONAL` that are to go in.
    """
    from aiida import orm
    from aiida.tools.graph.graph_traversers import get_nodes_export

    wanted = frozenset(asked)
    starts = sorted(_starts([getattr(node, 'pk', node) for node in nodes]))
    reached = get_nodes_export(starts, **RULES)['nodes']
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for some in batches(sorted(reached)):
        project = ['id', 'node_type', 'repository_metadata']
        query = orm.QueryBuilder().append(orm.Node, filters={'id': {'in': some}}, project=project)
        found |= {pk: (kind, files or {}) for pk, kind, files in query.all()}
    left_out = frozenset(pk for pk, (kind, _) in found.items() if class_of(kind) in set(OPTIONAL) - wanted)
    return Plan(starts, found, left_out, _parts(found, left_out), wanted)


def _starts(pks: Sequence[int]) -> set[int]:
    """Return nodes, the potentials of their lineage, and the processes that measured one of these."""
    from aiida import orm

    from aiida_perovmlip.query.stages import lineage_records

    stages = set(pks)
    for pk in pks:
        if (
            orm.QueryBuilder()
            .append(orm.Node, filters={'id': pk, 'node_type': {'like': 'data.perovmlip.potential.%'}})
            .count()
        ):
            stages |= {stage['potential'] for stage in lineage_records(pk)}
    potential = {'id': {'in': list(stages)}, 'node_type': {'like': 'data.perovmlip.potential.%'}}
    measured = ({'like': f'aiida.{group}:perovmlip.{name}%'} for group, name in MEASURED)
    query = orm.QueryBuilder().append(orm.Data, filters=potential, tag='potential')
    query.append(
        orm.ProcessNode,
        with_incoming='potential',
        filters={
            'or': [{'process_type': pattern} for pattern in measured],
            'attributes.process_state': {'in': ['finished', 'excepted', 'killed']},
        },
        project='id',
    )
    return stages | set(query.all(flat=True))


MEASURED = (
    ('calculations', 'evaluate'),
    ('workflows', 'neb_validation'),
    ('workflows', 'phase_validation'),
    ('workflows', 'diffusion'),
    ('workflows', 'phase_map'),
)
"""Group and name of the entry points of processes that measure potentials."""


def class_of(node_type: str) -> str:
    """Return the class of a node by its type."""
    for name, beginnings in CLASSES.items():
        if node_type.startswith(beginnings):
            return name
    return OTHER


def _parts(nodes: Mapping[int, tuple[str, dict[str, Any]]], left_out: frozenset[int]) -> list[Part]:
    """Return how many nodes there are of each class, and how large their files are."""
    counts: dict[str, int] = {}
    keys: dict[str, set[str]] = {}
    for kind, files in nodes.values():
        name = class_of(kind)
        counts[name] = counts.get(name, 0) + 1
        keys.setdefault(name, set()).update(key for _, key in files_of(files))
    sizes = _sizes(set().union(*keys.values()))
    outside = {class_of(nodes[pk][0]) for pk in left_out}
    parts = [Part(name, counts[name], sum(sizes[key] for key in keys[name]), name not in outside) for name in counts]
    return sorted(parts, key=lambda part: (not part.goes_in, -part.n_bytes, part.name))


def _sizes(keys: set[str]) -> dict[str, int]:
    """Return the size in bytes of each object of the store."""
    from aiida.manage import get_manager
    from aiida.repository.backend import DiskObjectStoreRepositoryBackend

    store = get_manager().get_profile_storage().get_repository()
    if isinstance(store, DiskObjectStoreRepositoryBackend):
        with store._container as container:  # no public way tells a size without reading the object
            return {key: int(about['size']) for key, about in container.get_objects_meta(list(keys))}
    return {key: _length(handle) for key, handle in store.iter_object_streams(keys)}


def _length(handle: Any) -> int:
    return sum(len(block) for block in iter(lambda: handle.read(1 << 20), b''))
