"""The manifest of an archive: a hash of each node, the same in every profile and in every database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from aiida_perovmlip.query.filters import batches

FORMAT = 'aiida-perovmlip manifest 1'
"""What a manifest calls itself."""

MANIFEST = 'manifest.json'
"""The file with the hashes, in a node of the group of an archive."""

FIGURES = 'figures'
"""The label of the node with pages in the group of an archive."""

GROUP = 'perovmlip archive '
"""The group of an archive is called this and the name of the archive."""


def hash_of_node(node_type: str, attributes: Mapping[str, Any], files: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 of what a node holds: the same in every profile and in every database.

    :param files: path and SHA-256 of each file.
    """
    kept = {name: value for name, value in attributes.items() if name not in PASSING}
    text = json.dumps([node_type, _canonical(kept), sorted(map(list, files))], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_of_links(links: Iterable[tuple[str, str, str, str]]) -> str:
    """Return the SHA-256 of links, each as the UUIDs of its source and its target, its type and its label."""
    lines = sorted('\t'.join(link) for link in links)
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def links_among(uuids: Collection[str], storage: Any = None) -> Iterator[tuple[str, str, str, str]]:
    """Yield the links between nodes of a storage, that of the profile by default; see `hash_of_links`."""
    from aiida import orm

    for some in batches(sorted(uuids)):
        query = orm.QueryBuilder(backend=storage)
        query.append(orm.Node, tag='source', project='uuid')
        query.append(
            orm.Node,
            with_incoming='source',
            filters={'uuid': {'in': some}},
            project='uuid',
            edge_project=['type', 'label'],
        )
        for source, target, kind, label in query.iterall():
            if source in uuids:
                yield source, target, kind, label


PASSING = ('checkpoints', 'sealed')
"""Attributes of processes that are no part of what these are."""


def _canonical(value: Any) -> Any:
    """Return plain values in which a number is the same however a database writes it."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # no text holds a zero byte, and a sum is never the negative zero
        return f'\0{value + 0.0:.15g}' if abs(value) < 1e300 else f'\0{value}'
    return value


def files_of(metadata: Mapping[str, Any], folder: str = '') -> Iterator[tuple[str, str]]:
    """Yield path and key in the object store of each file, as AiiDA keeps the tree of a node."""
    for name, entry in sorted((metadata.get('o') or {}).items()):
        if 'k' in entry:
            yield f'{folder}{name}', entry['k']
        else:
            yield from files_of(entry, f'{folder}{name}/')


def without_potcars(files: Iterable[tuple[str, str]], asked: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the files that are no POTCAR, or all where these were asked for."""
    for path, key in files:
        if 'potcars' in asked or not is_potcar(path):
            yield path, key


def is_potcar(path: str) -> bool:
    """Whether a file has the name by which VASP knows its potentials."""
    return path.rpartition('/')[2].upper().startswith('POTCAR')
