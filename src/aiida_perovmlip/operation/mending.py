"""What is stuck goes on: lost processes get their tasks back, and paused jobs are played once their cause is gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from aiida_perovmlip.operation.activity import Activity

STARTING = 60
"""Seconds that the daemon may take to stop or to start on a busy machine."""

REPAIR = """
from aiida.cmdline.commands.cmd_verdi import verdi
from aiida.storage.psql_dos.backend import PsqlDosBackend

PsqlDosBackend.get_unreferenced_connections = lambda storage: []
verdi()
"""
"""`verdi`, whose repair would else end the sessions of all others in PostgreSQL: of notebooks, scripts and chains."""


def mend(loaded: Any, found: Sequence[Activity], broken_broker: bool = False) -> Iterator[str]:
    """Do what lets stuck processes go on, and tell each step.

    A job whose computer cannot be reached stays paused, and so does what a person has paused.
    """
    from aiida.engine.daemon.client import get_daemon_client

    lost = [each for each in found if each.state == 'lost']
    if lost or broken_broker or not _lives(get_daemon_client()):
        yield from _start_anew(loaded, len(lost))
    paused = [each for each in found if each.gave_up]
    for label in sorted({each.computer for each in paused}):
        yield from _play(label, [each.pk for each in paused if each.computer == label])


def _start_anew(loaded: Any, lost: int) -> Iterator[str]:
    """Stop the daemon, give the broker a task for each process that has none, and start it with as many workers."""
    from aiida.engine.daemon.client import DaemonException, get_daemon_client
    from aiida.manage import get_config_option, get_manager

    client, workers = get_daemon_client(), int(get_config_option('daemon.default_workers'))
    get_manager().reset_broker()
    with suppress(DaemonException):
        workers = max(workers, len(client.get_worker_info()['info'])) if _lives(client) else workers
    with suppress(DaemonException):  # to stop one that was killed removes the PID that it left, and nobody answers
        client.stop_daemon(wait=True, timeout=STARTING if _lives(client) else 1)
        yield 'the daemon is stopped'
    command = [sys.executable, '-c', REPAIR, '-p', loaded.name, 'process', 'repair', '--force']
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(
            f'`verdi process repair` failed: {(told.stderr or told.stdout).strip()[-300:]}. The daemon is stopped; '
            'repair it by hand and start it: `verdi daemon start`.'
        )
    yield f'processes without a task have one again ({lost} were lost)' if lost else 'each process has its task'
    client.start_daemon(number_workers=workers, timeout=STARTING)
    get_manager().reset_broker()
    yield f'the daemon runs with {workers} workers'


def _lives(client: Any) -> bool:
    """Whether the process of the daemon is there."""
    import psutil

    pid = client.get_daemon_pid()
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _play(label: str, pks: Sequence[int]) -> Iterator[str]:
    """Let paused processes of a computer go on, if it can be reached."""
    from aiida import orm
    from aiida.engine.processes.control import play_processes

    from aiida_perovmlip.operation.services import look_at_computers

    for finding in look_at_computers([label]):
        if finding.state == 'broken':
            yield f'{len(pks)} paused jobs stay so: {finding.subject} {finding.detail}; {finding.advice}'
            return
    play_processes([orm.load_node(pk) for pk in pks], timeout=STARTING)
    yield f'{len(pks)} paused processes{f" of {label}" if label else ""} go on'
