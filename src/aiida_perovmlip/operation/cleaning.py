"""The scratch folders of jobs that have ended, which of them nothing needs any more, and how much they hold."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aiida_perovmlip.watching import ACTIVE

TOGETHER = 100
"""Folders that are measured or removed by one command."""


@dataclass(frozen=True)
class Scratch:
    """The folder of one job on its computer.

    :param kept: why it has to stay; empty where nothing needs it.
    :param n_bytes: what it holds; None where it was not measured, or is gone already.
    """

    pk: int
    process: str
    computer: str
    path: str
    kept: str = ''
    n_bytes: int | None = None


def scratch(
    computer: str | None = None, days: float = 0.0, failed: bool = False, group: str | None = None
) -> list[Scratch]:
    """Return the folders of jobs that are still there, each with the reason to keep it, if there is one.

    :param computer: label of the only computer to look at.
    :param days: jobs that ended later than so many days ago keep theirs.
    :param failed: whether those of jobs that failed may go, from which another run could go on.
    :param group: label of a group; only jobs of its processes are looked at.
    """
    young, needed = datetime.now(tz=UTC) - timedelta(days=days), _needed()
    wanted = None if group is None else _below(_members(group))
    found, kept = [], {}
    for row in _rows(computer):
        where = (row['computer'], row['path'])
        if why := _reason(row, failed, young, needed):
            kept[where] = why
        if wanted is None or row['pk'] in wanted:
            found.append(Scratch(row['pk'], row['process'] or '', *where))
    once = {(each.computer, each.path): each for each in found}  # a job of the cache has the folder of the first
    return [replace(each, kept=kept.get(where, '')) for where, each in once.items()]


def measured(found: Sequence[Scratch], transport: Any) -> Iterator[Scratch]:
    """Yield folders of one computer with what they hold; those that are gone hold nothing."""
    for start in range(0, len(found), TOGETHER):
        part = found[start : start + TOGETHER]
        names = ' '.join(shlex.quote(each.path) for each in part)
        _, said, _ = transport.exec_command_wait(f'du -sk -- {names} 2>/dev/null')
        sizes = {path: int(size) * 1024 for size, _, path in (line.partition('\t') for line in said.splitlines())}
        yield from (replace(each, n_bytes=sizes.get(each.path)) for each in part)


def remove(found: Sequence[Scratch], transport: Any) -> Iterator[Scratch]:
    """Remove folders of one computer, and note it at their nodes; yields each that is gone.

    A folder is looked at once more just before: what began to need it meanwhile keeps it.
    """
    from aiida import orm

    for start in range(0, len(found), TOGETHER):
        needed = _needed()
        for each in found[start : start + TOGETHER]:
            if each.kept or each.pk in needed or each.path in needed:
                continue
            if transport.isdir(each.path):
                transport.rmtree(each.path)
            for node in _nodes_of(each):
                node.base.extras.set(orm.RemoteData.KEY_EXTRA_CLEANED, True)
            yield each


def _rows(computer: str | None) -> Iterator[dict[str, Any]]:
    """Yield what the database knows of each job that left a folder which nobody has removed."""
    from aiida import orm

    names = ('pk', 'process', 'process_state', 'exit_status', 'ended', 'computer', 'path')
    query = orm.QueryBuilder().append(
        orm.CalcJobNode,
        tag='job',
        project=['id', 'attributes.process_label', 'attributes.process_state', 'attributes.exit_status', 'mtime'],
    )
    query.append(orm.Computer, with_node='job', filters={'label': computer} if computer else {}, project='label')
    query.append(
        orm.RemoteData,
        with_incoming='job',
        edge_filters={'label': 'remote_folder'},
        filters={'extras': {'!has_key': orm.RemoteData.KEY_EXTRA_CLEANED}},
        project='attributes.remote_path',
    )
    for values in query.order_by({'job': {'id': 'asc'}}).iterall():
        yield dict(zip(names, values, strict=True))


def _members(group: str) -> set[int]:
    from aiida import orm

    if not orm.QueryBuilder().append(orm.Group, filters={'label': group}).count():
        raise LookupError(f'there is no group `{group}`; `verdi group list` shows those that there are.')
    query = orm.QueryBuilder().append(orm.Group, filters={'label': group}, tag='group')
    return set(query.append(orm.ProcessNode, with_group='group', project='id').all(flat=True))


def _below(pks: set[int]) -> set[int]:
    """Return processes with all that they called."""
    from aiida import orm

    found, level = set(pks), pks
    while level:
        query = orm.QueryBuilder()
        query.append(orm.WorkflowNode, filters={'id': {'in': sorted(level)}}, tag='above')
        query.append(orm.ProcessNode, with_incoming='above', project='id')
        level = set(query.all(flat=True)) - found
        found |= level
    return found


def _needed() -> dict[int | str, str]:
    """Return why jobs, by their PK, or folders, by their path, have to keep what they left."""
    from aiida import orm

    from aiida_perovmlip.data.trajectory import TrajectoryData

    active = {'attributes.process_state': {'in': list(ACTIVE)}}
    chains = orm.QueryBuilder().append(orm.ProcessNode, filters=active, project='id').all(flat=True)
    needed: dict[int | str, str] = dict.fromkeys(
        _below(set(chains)), 'it, or the chain that it belongs to, has not ended'
    )
    query = orm.QueryBuilder().append(orm.RemoteData, tag='folder', project='attributes.remote_path')
    query.append(orm.ProcessNode, with_incoming='folder', filters=active, project='id')
    needed |= {path: f'the process {pk}, which has not ended, goes on from it' for path, pk in query.iterall()}
    query = orm.QueryBuilder().append(orm.CalcJobNode, tag='job', project='id')
    query.append(TrajectoryData, with_incoming='job', filters={'attributes.is_remote': True}, project='id')
    needed |= {job: f'the trajectory {pk} lies in it' for job, pk in query.iterall()}
    return needed


def _reason(row: Mapping[str, Any], failed: bool, young: datetime, needed: Mapping[int | str, str]) -> str:
    """Return why a folder has to stay; empty where nothing needs it."""
    if why := needed.get(row['pk']) or needed.get(row['path']):
        return why
    if row['process_state'] == 'excepted':
        return 'its result may not have been read'
    if not failed and (row['process_state'] == 'killed' or row['exit_status']):
        return 'it failed, and another run may go on from it'
    return 'it ended not long ago' if row['ended'] > young else ''


def _nodes_of(each: Scratch) -> list[Any]:
    """Return the nodes of a folder: that of its job, and those of jobs that were cached from it."""
    from aiida import orm

    query = orm.QueryBuilder().append(orm.Computer, filters={'label': each.computer}, tag='computer')
    filters = {'attributes.remote_path': each.path}
    return list(query.append(orm.RemoteData, with_computer='computer', filters=filters).all(flat=True))
