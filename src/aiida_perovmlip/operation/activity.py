"""What runs, waits, is paused or is lost, of all processes that have not ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiida_perovmlip.query.filters import batches
from aiida_perovmlip.watching import ACTIVE

GRACE = 60.0
"""Seconds without a change after which a process that no worker knows counts as lost."""

ANSWER = 5.0
"""Seconds in which workers have to tell which processes they hold."""

RETRY_SPAN = 400.0
"""Seconds within which a job whose transport failed is tried again; then AiiDA pauses it."""

FAILED_TRANSPORT = 'failed transport task'
"""What the status of a process says that AiiDA has paused."""

ASKED = 200
"""Processes that workers are asked for; more are not needed to see that they have lost some."""

WAITING_FOR = {
    'uploading': 'being submitted',
    'submitting': 'being submitted',
    'withscheduler': 'running',
    'stashing': 'coming back',
    'retrieving': 'coming back',
    'parsing': 'coming back',
}
"""What a job does in each of its states."""

REASONS = (
    (('no space left', 'disk quota', 'errno 28', 'errno 122'), 'the disk is full', 'make room there'),
    (
        ('scheduler', 'sbatch', 'qsub', 'bsub', 'requested node configuration', 'submit failed'),
        'the scheduler refuses it',
        'see what it says; where nothing can satisfy the job, `verdi process kill {pk}` and ask for less',
    ),
    (
        ('permission denied', 'authentication'),
        'the computer lets nobody in',
        '`verdi computer test {computer}`, renew key or ticket',
    ),
    (
        ('connect', 'timed out', 'timeout', 'closed', 'unreachable', 'ssh', 'lost', 'resolve', 'transport'),
        'the computer could not be reached',
        '`verdi computer test {computer}` until it succeeds',
    ),
    (  # the last one: SFTP gives no reason for a full disk, but others it does
        ('error while uploading',),
        'the disk is full, or nothing may be written there',
        'make room there, or see whose its folder is',
    ),
)
"""Words in what a transport said, what they mean, and what has to be done before the process goes on."""


@dataclass(frozen=True)
class Activity:
    """One process that has not ended.

    :param state: `not started`, `being submitted`, `in the queue`, `running`, `coming back`, `trying again`,
        `paused` or `lost`.
    :param chain: PK of the process that it belongs to and that nothing has called; its own where it is that one.
    :param computer: label of the computer of a job; empty for others.
    :param seconds: since its last change.
    :param why: what is wrong; empty where nothing is.
    :param advice: what to do about it.
    :param gave_up: whether AiiDA paused it, after several tries to reach its computer.
    """

    pk: int
    process: str
    label: str
    state: str
    chain: int
    computer: str = ''
    seconds: float = 0.0
    why: str = ''
    advice: str = ''
    gave_up: bool = False

    @property
    def needs_a_person(self) -> bool:
        """Whether it will not go on by itself."""
        return self.state in ('paused', 'lost')


def activities(reachable: bool = True) -> list[Activity]:
    """Return all processes that have not ended, oldest first.

    :param reachable: whether a daemon runs that can be asked which processes it holds.
    """
    rows = list(_rows())
    lost = _lost([row for row in rows if row['seconds'] > GRACE]) if reachable else set()
    chains = _chains([row['pk'] for row in rows])
    said = _last_words([row['pk'] for row in rows])
    return [_activity(row, row['pk'] in lost, chains[row['pk']], said.get(row['pk'])) for row in rows]


def counts(found: Iterable[Activity]) -> dict[str, dict[str, int]]:
    """Return how many jobs of each computer are in each state; chains and functions stand under an empty name."""
    table: dict[str, dict[str, int]] = {}
    for each in found:
        states = table.setdefault(each.computer, {})
        states[each.state] = states.get(each.state, 0) + 1
    return table


def _rows() -> Iterator[dict[str, Any]]:
    """Yield what the database knows of each process that has not ended."""
    from aiida import orm

    filters = {'attributes.process_state': {'in': list(ACTIVE)}}
    projections = {
        'pk': 'id',
        'label': 'label',
        'process': 'attributes.process_label',
        'process_state': 'attributes.process_state',
        'paused': 'attributes.paused',
        'status': 'attributes.process_status',
        'state': 'attributes.state',
        'scheduler_state': 'attributes.scheduler_state',
        'changed': 'mtime',
    }
    query = orm.QueryBuilder().append(
        orm.ProcessNode, filters=filters, tag='process', project=list(projections.values())
    )
    query.append(orm.Computer, with_node='process', project='label', outerjoin=True)
    now = datetime.now(tz=UTC)
    for *values, computer in query.order_by({'process': {'id': 'asc'}}).iterall():
        row = dict(zip(projections, values, strict=True))
        yield row | {'computer': computer or '', 'seconds': max(0.0, (now - row['changed']).total_seconds())}


def _activity(row: Mapping[str, Any], is_lost: bool, chain: int, said: tuple[float, str] | None) -> Activity:
    """Return a process in the words of this module."""
    state, why, advice = _standing(row, is_lost, said)
    return Activity(
        pk=row['pk'],
        process=row['process'] or '',
        label=row['label'] or '',
        state=state,
        chain=chain,
        computer=row['computer'],
        seconds=row['seconds'],
        why=why,
        advice=advice,
        gave_up=state == 'paused' and FAILED_TRANSPORT in (row['status'] or ''),
    )


def _standing(row: Mapping[str, Any], is_lost: bool, said: tuple[float, str] | None) -> tuple[str, str, str]:
    """Return state, what is wrong, and what to do."""
    where = {'pk': row['pk'], 'computer': row['computer'] or 'localhost'}
    if is_lost:
        return 'lost', 'no worker of the daemon knows it', '`aiida-perovmlip status --mend`'
    if row['paused']:
        why, first = reason_of(said[1] if said else row['status'] or '')
        steps = [*([first] if first else []), '`verdi process play {pk}`']
        return 'paused', why or 'somebody paused it', ', then '.join(steps).format(**where)
    if row['process_state'] == 'created':
        return 'not started', '', ''
    if row['state'] == 'withscheduler' and row['scheduler_state'] in ('queued', 'queued held'):
        return 'in the queue', '', ''
    state = WAITING_FOR.get(row['state'] or '', 'running')
    if said is not None and row['computer'] and said[0] < RETRY_SPAN:
        why, first = reason_of(said[1])
        return 'trying again', why, first.format(**where)
    return state, '', ''


def reason_of(said: str) -> tuple[str, str]:
    """Return what words of a transport or scheduler mean, with the last line of them, and what to do first."""
    lines = said.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(' ')]
    error = [line.strip() for line in lines[frames[-1] + 1 if frames else 0 :] if line.strip()]  # without the way to it
    last, lowered = error[-1] if error else '', ' '.join(error).lower()
    for words, meaning, advice in REASONS:
        if any(word in lowered for word in words):
            return f'{meaning}: {last[:200]}', advice
    return last[:200], ''


def _last_words(pks: Sequence[int]) -> dict[int, tuple[float, str]]:
    """Return of each process how many seconds ago a transport failed for it, and what was said of it."""
    from aiida import orm

    now, words = datetime.now(tz=UTC), {}
    for part in batches(pks):
        query = orm.QueryBuilder().append(
            orm.Log,
            filters={'dbnode_id': {'in': part}, 'levelname': 'ERROR', 'message': {'like': 'Traceback%'}},
            project=['dbnode_id', 'time', 'message'],
            tag='log',
        )
        for pk, told, message in query.order_by({'log': {'time': 'asc'}}).iterall():
            words[pk] = ((now - told).total_seconds(), message)
    return words


def _chains(pks: Sequence[int]) -> dict[int, int]:
    """Return of each process the one that it was called for in the first place."""
    from aiida import orm

    above: dict[int, int] = {}
    wanted = list(pks)
    while wanted:
        query: list[tuple[int, int]] = []
        for part in batches(wanted):
            asked = orm.QueryBuilder().append(orm.ProcessNode, filters={'id': {'in': part}}, project='id', tag='below')
            asked.append(orm.WorkflowNode, with_outgoing='below', project='id')
            query += [(below, caller) for below, caller in asked.iterall()]
        above |= dict(query)
        wanted = sorted({caller for _, caller in query} - above.keys())
    return {pk: _top(pk, above) for pk in pks}


def _top(pk: int, above: Mapping[int, int]) -> int:
    while pk in above:
        pk = above[pk]
    return pk


def _lost(rows: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the processes that no worker answers for.

    Workers that have no slot left leave some in the queue of the broker: those wait, and are not lost.
    """
    from aiida.manage import get_config_option, get_manager

    if not rows:
        return set()
    slots = _workers() * int(get_config_option('daemon.worker_process_slots'))
    if len(rows) > slots:
        return set()
    controller = get_manager().get_process_controller()
    asked = {row['pk']: _asked(controller, row['pk']) for row in rows[:ASKED]}
    deadline = time.monotonic() + ANSWER
    return {pk for pk, answer in asked.items() if not _may_live(answer, deadline)}


def _asked(controller: Any, pk: int) -> Any:
    """Ask the worker that holds a process for its state; None where the broker knows of none."""
    try:
        return controller.get_status(pk)
    except Exception:  # each broker has its own error for this
        return None


def _may_live(answer: Any, deadline: float) -> bool:
    """Whether a worker holds a process; one that is too busy to answer in time does."""
    from concurrent.futures import Future

    while isinstance(answer, Future):
        try:
            answer = answer.result(timeout=max(0.01, deadline - time.monotonic()))
        except TimeoutError:
            return True
        except Exception:  # each broker has its own error for a process that nobody holds
            return False
    return answer is not None


def _workers() -> int:
    from aiida.engine.daemon.client import get_daemon_client

    try:
        return len(get_daemon_client().get_worker_info()['info'])
    except Exception:  # it may stop just now
        return 0


@dataclass(frozen=True)
class Failure:
    """Processes of one kind that failed in one way."""

    process: str
    exit_status: int | None
    message: str
    number: int
    last: int


def recent_failures(days: float = 1.0) -> Iterator[Failure]:
    """Yield how processes failed that nothing else called, the most frequent failure first."""
    from datetime import timedelta

    from aiida import orm

    since = datetime.now(tz=UTC) - timedelta(days=days)
    filters = {
        'mtime': {'>': since},
        'or': [
            {'attributes.process_state': {'in': ['excepted', 'killed']}},
            {'and': [{'attributes.process_state': 'finished'}, {'attributes.exit_status': {'>': 0}}]},
        ],
    }
    names = ['process_label', 'process_state', 'exit_status', 'exit_message']
    query = orm.QueryBuilder().append(
        orm.ProcessNode, filters=filters, project=['id', *(f'attributes.{name}' for name in names)], tag='process'
    )
    rows = query.order_by({'process': {'id': 'asc'}}).all()
    chains = _chains([row[0] for row in rows])
    found: dict[tuple[str, int | None, str], list[int]] = {}
    for pk, process, state, code, message in rows:
        if chains[pk] == pk:
            why = ' '.join((message or state).split())[:200]
            found.setdefault((process or '', code, why), []).append(pk)
    for (process, code, why), pks in sorted(found.items(), key=lambda entry: -len(entry[1])):
        yield Failure(process, code, why, len(pks), pks[-1])
