"""Read an archive of somebody else, once it is what its manifest says."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiida_perovmlip.archiving.manifest import (
    FORMAT,
    GROUP,
    MANIFEST,
    files_of,
    hash_of_links,
    hash_of_node,
    links_among,
    without_potcars,
)
from aiida_perovmlip.query.filters import batches


class Differs(ValueError):  # noqa: N818 - says what is the matter
    """An archive is not what its manifest says."""

    exit_code = 4


@dataclass(frozen=True)
class Findings:
    """How the content of an archive differs from its manifest; each is a list of UUIDs with their types.

    :param manifest: SHA-256 of the manifest; empty where there is none.
    :param changed: nodes that hold something else.
    :param missing: nodes that are in the manifest alone.
    :param unlisted: nodes that are in the archive alone.
    :param links: whether nodes are linked as the manifest says.
    """

    manifest: str = ''
    n_nodes: int = 0
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    links: bool = True

    @property
    def is_good(self) -> bool:
        """Whether all is as the manifest says."""
        return not self.sentences()

    def sentences(self) -> list[str]:
        """Return what differs, in words."""
        if not self.manifest:
            return ['there is no manifest in it: it was not written by `aiida-perovmlip export`']
        told = (('holds something else', self.changed), ('is missing', self.missing), ('is not listed', self.unlisted))
        sentences = [f'{node} {what}' for what, nodes in told for node in nodes]
        return sentences if self.links else [*sentences, 'nodes are linked in another way']


def verify(path: Path) -> Findings:
    """Compare each node and each byte of each file in an archive with its manifest; nothing is imported."""
    with _opened(path) as storage:
        text = _manifest(storage)
        if text is None:
            return Findings()
        expected = json.loads(text)
        found = dict(_hashes(storage, _wrong_objects(storage)))
        about = _about(storage)
        links = hash_of_links(links_among(set(found) - about, storage))
    nodes = expected['nodes']
    return Findings(
        manifest=hashlib.sha256(text.encode()).hexdigest(),
        n_nodes=len(found),
        changed=_named((uuid for uuid in nodes if uuid in found and found[uuid][1] != nodes[uuid]), found),
        missing=sorted(set(nodes) - set(found)),
        unlisted=_named((uuid for uuid in found if uuid not in nodes and uuid not in about), found),
        links=links == expected['links'],
    )


def _named(uuids: Iterable[str], found: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return UUIDs with the type of each node."""
    return sorted(f'{uuid} ({found[uuid][0].rstrip(".").rpartition(".")[2]})' for uuid in uuids)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an archive for reading, as it lies there."""
    from aiida.common.exceptions import AiidaException
    from aiida.storage.sqlite_zip.backend import SqliteZipBackend

    if not path.is_file():
        raise FileNotFoundError(f'there is no archive {path}.')
    try:
        storage = SqliteZipBackend(SqliteZipBackend.create_profile(path.absolute()))
    except (AiidaException, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise Differs(
            f'{path} cannot be opened as an archive: {error}. One of an older version is brought up to date by '
            f'`verdi archive migrate`; one that is damaged has to be fetched again.'
        ) from error
    try:
        yield storage
    finally:
        storage.close()


def _manifest(storage: Any) -> str | None:
    """Return the text of the manifest of an archive; None where it has none that can be read."""
    for node in _group_nodes(storage):
        if MANIFEST in node.base.repository.list_object_names():
            with suppress(OSError, zipfile.BadZipFile, zlib.error, ValueError):
                text: str = node.base.repository.get_object_content(MANIFEST)
                if json.loads(text)['format'] == FORMAT:
                    return text
    return None


def _group_nodes(storage: Any) -> list[Any]:
    """Return the nodes of the groups of archives that no process made, oldest first."""
    from aiida import orm

    query = orm.QueryBuilder(backend=storage).append(orm.Group, filters={'label': {'like': f'{GROUP}%'}}, tag='group')
    query.append(
        orm.Data,
        with_group='group',
        filters={'node_type': 'data.core.folder.FolderData.'},
        tag='node',
    )
    return list(query.order_by({'node': {'id': 'asc'}}).all(flat=True))


def _about(storage: Any) -> set[str]:
    """Return the UUID of the manifest, which does not list itself."""
    return {node.uuid for node in _group_nodes(storage) if node.base.repository.list_object_names() == [MANIFEST]}


def _wrong_objects(storage: Any) -> dict[str, str]:
    """Return the true hash of each object of an archive whose content is not what its name says."""
    wrong = {}
    store = storage.get_repository()
    for key in store.list_objects():
        try:
            with store.open(key) as handle:
                digest = hashlib.file_digest(handle, 'sha256').hexdigest()
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            digest = f'unreadable: {error}'
        if digest != key:
            wrong[key] = digest
    return wrong


def _hashes(storage: Any, wrong: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield UUID, type and hash of each node, by what its files really hold."""
    from aiida import orm

    present = set(storage.get_repository().list_objects())
    query = orm.QueryBuilder(backend=storage).append(
        orm.Node, project=['uuid', 'node_type', 'attributes', 'repository_metadata']
    )
    for uuid, kind, attributes, files in query.iterall():
        real = ((path, wrong.get(key, key if key in present else 'absent')) for path, key in files_of(files or {}))
        yield uuid, (kind, hash_of_node(kind, attributes, real))


def read(path: Path, sha256: str | None = None, unverified: bool = False) -> dict[str, Any]:
    """Verify an archive and import it; return numbers, and what is in the profile otherwise than in the archive.

    :param sha256: the hash that the manifest has to have, as its author has published it.
    :param unverified: import it although it is not what its manifest says, or has none.
    """
    findings = verify(path)
    problems = problems_of(findings, sha256)
    if not unverified:
        refuse_different(path, findings, sha256)
    before = _count()
    _import(path)
    return {
        'archive': str(path),
        'manifest': findings.manifest,
        'n_nodes': findings.n_nodes,
        'n_new': _count() - before,
        'problems': problems,
        'differs_here': differs_here(path),
    }


def refuse_different(path: Path, findings: Findings, sha256: str | None = None) -> None:
    """Raise `Differs` where an archive is not what it has to be."""
    problems = problems_of(findings, sha256)
    if problems:
        shown = '; '.join(problems[:5]) + (f'; and {len(problems) - 5} more' if len(problems) > 5 else '')
        raise Differs(
            f'{path} is not imported: {shown}. Fetch it again, or pass --unverified where you want it all the same.'
        )


def problems_of(findings: Findings, sha256: str | None = None) -> list[str]:
    """Return what is not as it has to be, in words.

    :param sha256: the hash that the manifest has to have.
    """
    if sha256 is None or findings.manifest == sha256.lower():
        return findings.sentences()
    return [f'its manifest has the SHA-256 {findings.manifest or "of none"} and not {sha256}', *findings.sentences()]


def differs_here(path: Path) -> list[str]:
    """Return the nodes of an archive that the profile has under the same UUID with another content."""
    with _opened(path) as storage:
        theirs = dict(_hashes(storage, {}))
    return _named((uuid for uuid, hashes in _own_hashes(list(theirs)) if theirs[uuid][1] not in hashes), theirs)


def _own_hashes(uuids: Sequence[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield UUID and hash of nodes of the profile; those with a POTCAR have one with and one without it."""
    from aiida import orm

    project = ['uuid', 'node_type', 'attributes', 'repository_metadata']
    for some in batches(uuids):
        query = orm.QueryBuilder().append(orm.Node, filters={'uuid': {'in': some}}, project=project)
        for uuid, kind, attributes, metadata in query.all():
            files = list(files_of(metadata or {}))
            ways = (files, list(without_potcars(files, ())))
            yield uuid, {hash_of_node(kind, attributes, each) for each in ways}


def _count() -> int:
    from aiida import orm

    return int(orm.QueryBuilder().append(orm.Node).count())


def _import(path: Path) -> None:
    """Import an archive without forty lines of report."""
    import logging

    from aiida.common.log import LOG_LEVEL_REPORT
    from aiida.tools.archive import import_archive

    logging.disable(LOG_LEVEL_REPORT)
    try:
        import_archive(path)
    finally:
        logging.disable(logging.NOTSET)
