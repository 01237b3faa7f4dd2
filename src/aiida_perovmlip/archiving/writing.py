"""Write an archive with its manifest, without what has to stay at home."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiida_perovmlip.archiving.contents import Plan
from aiida_perovmlip.archiving.manifest import (
    FIGURES,
    FORMAT,
    GROUP,
    MANIFEST,
    files_of,
    hash_of_links,
    hash_of_node,
    is_potcar,
    links_among,
    without_potcars,
)
from aiida_perovmlip.query.filters import batches


def write(wanted: Plan, path: Path, pages: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write an archive, and return what it holds: numbers, and the hash of its manifest.

    :param pages: HTML text of pages that go along, by their names.
    """
    from aiida import orm

    from aiida_perovmlip.launch import write_archive

    if path.is_dir() or not path.absolute().parent.is_dir():
        raise FileNotFoundError(f'{path} cannot be written: it is a folder, or the folder around it is missing.')
    group = orm.Group.collection.get_or_create(label=GROUP + path.stem)[0]
    figures = [_kept(pages, FIGURES)] if pages else []
    text = manifest_of(wanted, [node.pk for node in figures])
    about = [*figures, _kept({MANIFEST: text}, 'manifest')]
    group.clear()
    group.description = f'What was exported as {path.name}, with the hashes of all that it holds'
    group.add_nodes([*(orm.load_node(pk) for pk in wanted.starts), *about])
    with TemporaryDirectory(dir=path.absolute().parent, prefix='.export-') as scratch:
        whole = write_archive([group], Path(scratch) / 'whole.aiida')
        slim = leave_out(whole, Path(scratch) / 'slim.aiida', _uuids(wanted.left_out), 'potcars' in wanted.asked)
        shutil.move(slim, path)
    return {
        'archive': str(path),
        'n_bytes': path.stat().st_size,
        'n_nodes': len(wanted.nodes) - len(wanted.left_out) + len(about),
        'group': group.label,
        'manifest': hashlib.sha256(text.encode()).hexdigest(),
    }


def _kept(texts: Mapping[str, str], label: str) -> Any:
    """Return a stored node with texts by the names of files; that of an earlier export where nothing has changed."""
    import io

    from aiida import orm

    node = orm.FolderData(label=label)
    for name, text in sorted(texts.items()):
        node.base.repository.put_object_from_filelike(io.BytesIO(text.encode()), name)
    wanted = node.base.repository.hash()
    known = orm.QueryBuilder().append(orm.FolderData, filters={'label': label}).all(flat=True)
    return next((each for each in known if each.base.repository.hash() == wanted), None) or node.store()


def _uuids(pks: Iterable[int]) -> list[str]:
    from aiida import orm

    query = (
        orm.QueryBuilder().append(orm.Node, filters={'id': {'in': some}}, project='uuid') for some in batches([*pks])
    )
    return [uuid for each in query for uuid in each.all(flat=True)]


def leave_out(archive: Path, target: Path, uuids: Sequence[str], with_potcars: bool) -> Path:
    """Return an archive without some nodes, and without files that are called POTCAR in any node.

    AiiDA itself takes all inputs and outputs of whatever goes in along. The links of nodes that are left out go, too.
    """
    with TemporaryDirectory(dir=target.parent) as scratch, zipfile.ZipFile(archive) as whole:
        database = Path(whole.extract('db.sqlite3', scratch))
        with closing(sqlite3.connect(database)) as connection:
            removed = _remove_nodes(connection, uuids)
            removed += 0 if with_potcars else _remove_potcars(connection)
            needed = _needed(connection)
        if not removed:
            return archive
        with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED) as slim:
            slim.writestr('metadata.json', whole.read('metadata.json'))
            slim.write(database, 'db.sqlite3')
            for entry in whole.infolist():
                if entry.filename.startswith('repo/') and entry.filename.removeprefix('repo/') in needed:
                    with whole.open(entry) as source, slim.open(entry.filename, 'w', force_zip64=True) as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _remove_nodes(connection: sqlite3.Connection, uuids: Sequence[str]) -> int:
    """Remove nodes with all that hangs on them; return how many there were."""
    marks = [(uuid,) for uuid in uuids]
    connection.execute('CREATE TEMP TABLE gone (uuid TEXT PRIMARY KEY)')
    connection.executemany('INSERT INTO gone VALUES (?)', marks)
    pks = '(SELECT id FROM db_dbnode WHERE uuid IN (SELECT uuid FROM gone))'
    for table, column in (
        ('db_dblink', 'input_id'),
        ('db_dblink', 'output_id'),
        ('db_dbgroup_dbnodes', 'dbnode_id'),
        ('db_dbcomment', 'dbnode_id'),
        ('db_dblog', 'dbnode_id'),
    ):
        connection.execute(f'DELETE FROM {table} WHERE {column} IN {pks}')
    removed = connection.execute('DELETE FROM db_dbnode WHERE uuid IN (SELECT uuid FROM gone)').rowcount
    connection.commit()
    connection.execute('VACUUM')
    return int(removed)


def _remove_potcars(connection: sqlite3.Connection) -> int:
    """Take files that are called POTCAR out of all nodes; return out of how many."""
    rows = connection.execute(
        "SELECT id, repository_metadata FROM db_dbnode WHERE upper(repository_metadata) LIKE '%\"POTCAR%'"
    ).fetchall()
    for pk, text in rows:
        connection.execute(
            'UPDATE db_dbnode SET repository_metadata = ? WHERE id = ?',
            (json.dumps(_tree_without_potcars(json.loads(text))), pk),
        )
    connection.commit()
    return len(rows)


def _tree_without_potcars(tree: dict[str, Any]) -> dict[str, Any]:
    if 'o' not in tree:
        return tree
    kept = {name: entry for name, entry in tree['o'].items() if 'k' not in entry or not is_potcar(name)}
    return {**tree, 'o': {name: _tree_without_potcars(entry) for name, entry in kept.items()}}


def _needed(connection: sqlite3.Connection) -> set[str]:
    """Return the keys of all objects that a node has."""
    rows = connection.execute('SELECT repository_metadata FROM db_dbnode WHERE repository_metadata IS NOT NULL')
    return {key for (text,) in rows for _, key in files_of(json.loads(text) or {})}


def manifest_of(wanted: Plan, figures: Sequence[int] = ()) -> str:
    """Return the manifest of an archive as JSON text: the hash of each node by its UUID, and what was left out.

    :param figures: PKs of nodes that come along.
    """
    from aiida import orm

    project = ['uuid', 'node_type', 'attributes', 'repository_metadata']
    nodes: dict[str, str] = {}
    for some in batches([*(pk for pk in wanted.nodes if pk not in wanted.left_out), *figures]):
        for uuid, kind, attributes, metadata in (
            orm.QueryBuilder().append(orm.Node, filters={'id': {'in': some}}, project=project).all()
        ):
            files = without_potcars(files_of(metadata or {}), wanted.asked)
            nodes[uuid] = hash_of_node(kind, attributes, files)
    left_out = {part.name: part.n_nodes for part in wanted.parts if not part.goes_in}
    content = {'format': FORMAT, 'nodes': nodes, 'links': hash_of_links(links_among(nodes)), 'left_out': left_out}
    return json.dumps(content, indent=0, sort_keys=True)


def pages_of(potentials: Sequence[int]) -> dict[str, str]:
    """Return the page of each potential as HTML by its name; the same for the same nodes, whenever it is made."""
    from aiida import orm

    from aiida_perovmlip.report.collect import find_evaluations
    from aiida_perovmlip.report.page import render
    from aiida_perovmlip.report.writing import page_of

    pages = {}
    for node in map(orm.load_node, potentials):
        newest = max(each.ctime for each in (node, *find_evaluations(node)))
        pages[f'potential-{node.uuid}.html'] = render(page_of(node, newest.isoformat(timespec='seconds')))
    return pages
