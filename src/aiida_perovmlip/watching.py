"""What a process is doing just now, followed until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

EVERY = 2.0
"""Seconds between two looks; a computer that wants connections to be rarer is looked at as rarely as it wants."""

ACTIVE = ('created', 'running', 'waiting')
ENDED = {'finished': 'finished', 'killed': 'killed', 'excepted': 'excepted'}


@dataclass(frozen=True)
class JobLook:
    """One job at one moment.

    :param where: the labels on the way from the process that is watched to the job, such as `stage_01/leg_02`.
    :param state: `not started`, `paused`, `being submitted`, `in the queue`, `running`, `coming back`, or
        `unreachable` where it runs on a computer that cannot be asked just now.
    :param progress: the last state that it reported; None where there is none.
    :param seconds_left: seconds to the last step at the present pace.
    :param text: all this as a line.
    """

    pk: int
    process: str
    where: str
    state: str
    progress: dict[str, Any] | None
    seconds_left: float | None
    text: str


@dataclass(frozen=True)
class Look:
    """A process at one moment; `jobs` are those that have not ended."""

    pk: int
    process: str
    state: str
    text: str
    jobs: tuple[JobLook, ...] = ()
    exit_status: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED

    @property
    def went_well(self) -> bool:
        """Whether it has finished without a failure."""
        return self.state == 'finished' and self.exit_status == 0

    @property
    def lines(self) -> list[str]:
        """Return what a person wants to read."""
        if self.is_over or not self.jobs or (self.state == 'paused' and self.jobs[0].pk != self.pk):
            return [self.text, *(_line(job) for job in self.jobs)]
        return [_line(job) for job in self.jobs]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def follow(pk: int, every: float | None = None) -> Iterator[Look]:
    """Yield looks at a process, one for each change, until it has ended.

    :param every: seconds between two looks; if None, as often as its computers like.
    """
    before = None
    while True:
        now = look(pk)
        if _without_clock(now) != before:
            yield now
        if now.is_over:
            return
        before = _without_clock(now)
        time.sleep(every if every is not None else _interval(now))


def look(pk: int) -> Look:
    """Return what a process is doing just now."""
    from aiida import orm

    from aiida_perovmlip.workflows.training import how_it_ended

    node = orm.load_node(pk)
    about = {'pk': node.pk, 'process': node.process_label or node.node_type}
    state = node.process_state.value if node.process_state else 'created'
    if state in ENDED:
        return Look(**about, state=state, text=how_it_ended(node), exit_status=node.exit_status)
    jobs = [(node, '')] if isinstance(node, orm.CalcJobNode) else list(_active_jobs(pk))
    jobs_now = _look_at_all(jobs)
    stand, text = _standing(node)
    name = f'{about["process"]} (PK {pk})'
    return Look(**about, state=stand, text=f'{name}: {text or "no job of it runs just now"}', jobs=jobs_now)


def _active_jobs(pk: int) -> Iterator[tuple[Any, str]]:
    """Yield the jobs below a chain that have not ended, with the labels on the way to them."""
    from aiida import orm

    level = {pk: ''}
    while level:
        query = orm.QueryBuilder().append(
            orm.WorkflowNode, filters={'id': {'in': list(level)}}, project='id', tag='above'
        )
        active = {'attributes.process_state': {'in': list(ACTIVE)}}
        links = {'type': {'in': ['call_calc', 'call_work']}}
        query.append(
            orm.ProcessNode,
            with_incoming='above',
            filters=active,
            edge_filters=links,
            project='*',
            edge_project='label',
            tag='below',
        )
        found = [(row['above']['id'], row['below']['*'], row['above--below']['label']) for row in query.iterdict()]
        below = sorted(((node, f'{level[above]}/{label}'.lstrip('/')) for above, node, label in found), key=_where)
        yield from ((node, where) for node, where in below if isinstance(node, orm.CalcJobNode))
        level = {node.pk: where for node, where in below if isinstance(node, orm.WorkflowNode)}


def _where(entry: tuple[Any, str]) -> str:
    return entry[1]


def _look_at_all(jobs: Sequence[tuple[Any, str]]) -> tuple[JobLook, ...]:
    """Return what jobs are doing just now, over one connection to each computer on which some of them run."""
    standing = {job.pk: _standing(job) for job, _ in jobs}
    running = [job for job, _ in jobs if standing[job.pk][0] == 'running']
    reports: dict[int, list[dict[str, Any]]] = {}
    for pk in sorted({job.computer.pk for job in running}):
        mine = [job for job in running if job.computer.pk == pk]
        try:
            reports |= _ask(mine)
        except Exception as error:  # every transport raises what it likes
            standing |= dict.fromkeys((job.pk for job in mine), _unreachable(mine[0].computer.label, error))
    return tuple(_look_at(job, where, *standing[job.pk], reports.get(job.pk, [])) for job, where in jobs)


def _ask(jobs: Sequence[Any]) -> dict[int, list[dict[str, Any]]]:
    """Return what jobs of one computer have reported last, by their PK."""
    from aiida_perovmlip.calculations.progress import read_last_states

    with jobs[0].computer.get_transport() as transport:
        return {job.pk: read_last_states(job, transport) for job in jobs}


def _unreachable(computer: str, error: Exception) -> tuple[str, str]:
    """Return the state of a job whose computer cannot be asked, and a sentence with the reason and what to do."""
    reason = ' '.join(str(error).split()).rstrip('.') or type(error).__name__
    return 'unreachable', (
        f'it runs on `{computer}`, which cannot be asked just now: {reason}. It goes on all the same; look what is '
        f'wrong: `verdi computer test {computer}`'
    )


def _look_at(job: Any, where: str, state: str, text: str, states: list[dict[str, Any]]) -> JobLook:
    """Return what a job is doing just now.

    :param states: what it has reported last.
    """
    from aiida_perovmlip.calculations.progress import describe, seconds_left

    return JobLook(
        pk=job.pk,
        process=job.process_label or '',
        where=where,
        state=state,
        progress=states[-1] if states else None,
        seconds_left=seconds_left(states),
        text=describe(states[-1], states[:-1]) if states else text,
    )


def _standing(node: Any) -> tuple[str, str]:
    """Return the state of a process that has not ended in few words, and in a sentence with what to do."""
    from aiida.common.datastructures import CalcJobState
    from aiida.schedulers import JobState

    if node.paused:
        why = f' ({node.process_status})' if node.process_status else ''
        return 'paused', f'paused{why}; let it go on: `verdi process play {node.pk}`'
    if not node.process_state or node.process_state.value == 'created':
        return 'not started', f'not started yet{_no_daemon()}'
    state = node.get_state() if hasattr(node, 'get_state') else None
    if state in (CalcJobState.UPLOADING, CalcJobState.SUBMITTING):
        return 'being submitted', 'its files are sent, and it is submitted'
    if state is CalcJobState.WITHSCHEDULER:
        if node.get_scheduler_state() in (JobState.QUEUED, JobState.QUEUED_HELD):
            return 'in the queue', 'it waits in the queue of its computer'
        return 'running', 'it runs, and has reported nothing yet'
    if state is not None:
        return 'coming back', 'it has ended; its files are brought back and read'
    return 'running', ''


def _no_daemon() -> str:
    """Return what is wrong where nobody is there who could start a process."""
    from aiida.engine.daemon.client import get_daemon_client

    try:
        runs = get_daemon_client().is_daemon_running
    except Exception:  # a profile without a broker has no daemon
        runs = False
    return '' if runs else ', and no daemon runs that could: `verdi daemon start`'


def _interval(now: Look) -> float:
    """Return the seconds until the next look."""
    from aiida import orm
    from aiida.common.exceptions import NotExistent

    user, longest = orm.User.collection.get_default(), EVERY
    computers = {computer.pk: computer for computer in (orm.load_node(job.pk).computer for job in now.jobs)}
    for computer in computers.values():
        try:
            wanted = computer.get_authinfo(user).get_auth_params()
        except NotExistent:  # it is not configured; that it cannot be asked was said
            continue
        longest = max(longest, float(wanted.get('safe_interval') or 0.0))
    return longest


def _without_clock(now: Look) -> Any:
    """Return what has to change for a look to be worth telling."""
    return now.state, now.text, [(job.pk, job.state, job.progress or job.text) for job in now.jobs]


def _line(job: JobLook) -> str:
    return f'{f"{job.where}: " if job.where else ""}{job.process} (PK {job.pk}): {job.text}'
