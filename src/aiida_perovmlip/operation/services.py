"""Whether all that work needs is there: storage, broker, daemon with workers, and room on the disks."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aiida_perovmlip.installation.checks import Finding, State, check_daemon, check_storage

SCARCE_GB = 2.0
"""Free room below which work may stop before long."""

FULL_GB = 0.1
"""Free room below which it has stopped, or is about to."""


def look_at_services(loaded: Any) -> Iterator[Finding]:
    """Look at storage, room, daemon and broker of a profile that is loaded."""
    yield check_storage()
    yield _room_here(loaded)
    daemon = check_daemon(loaded)
    yield daemon
    if daemon.state == 'ok':
        yield from _broker()
        yield from _workers()
        yield from _versions()


def look_at_computers(labels: Iterable[str]) -> Iterator[Finding]:
    """Connect to computers, and look for room where their jobs run."""
    from aiida import orm

    for label in sorted(set(labels) - {''}):
        computer = orm.load_computer(label)
        try:
            with computer.get_transport() as transport:
                folder = computer.get_workdir().format(username=transport.whoami())
                yield _room_there(label, folder, transport)
        except Exception as error:  # transports raise whatever their library raises
            reason = ' '.join(str(error).split()) or type(error).__name__
            yield Finding(label, 'broken', f'cannot be reached: {reason[:200]}', f'`verdi computer test {label}`')


def _room_here(loaded: Any) -> Finding:
    from urllib.parse import urlparse

    config = loaded.storage_config
    folder = Path(urlparse(config['repository_uri']).path if 'repository_uri' in config else config['filepath'])
    free = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free / 1e9
    return _room('disk', free, f'for the files of nodes, in {folder}', '`verdi storage maintain`, or make room')


def _room_there(label: str, folder: str, transport: Any) -> Finding:
    from aiida.common.escaping import escape_for_bash

    asked = f'd={escape_for_bash(folder)}; while [ ! -d "$d" ]; do d=$(dirname "$d"); done; df -Pk "$d" | tail -n 1'
    code, said, complained = transport.exec_command_wait(asked)
    try:
        free = int(said.split()[-3]) * 1024 / 1e9
    except (IndexError, ValueError):
        return Finding(
            label, 'note', f'its room could not be asked (exit {code}): {(complained or said).strip()[:200]}'
        )
    return _room(label, free, f'in {folder}', f'`aiida-perovmlip clean --computer {label}`, or make room')


def _room(subject: str, free: float, where: str, advice: str) -> Finding:
    scarce = free < SCARCE_GB
    state: State = 'broken' if free < FULL_GB else 'note' if scarce else 'ok'
    return Finding(subject, state, f'{free:.1f} GB free {where}', advice if scarce else '')


def _broker() -> Iterator[Finding]:
    from aiida.manage import get_manager

    broker = get_manager().get_broker()
    if broker is None:
        return
    told: Any = getattr(broker, 'probe_service_status', dict)()
    if told and not told.get('connected', True):
        yield Finding('broker', 'broken', 'it does not answer', '`aiida-perovmlip status --mend`')
        return
    try:
        get_manager().get_communicator()
    except Exception as error:  # each broker raises what its library raises
        yield Finding('broker', 'broken', f'{broker}: {error}', 'start it, and see `verdi status`')
        return
    yield Finding('broker', 'ok', str(broker))


def _workers() -> Iterator[Finding]:
    from aiida.engine.daemon.client import DaemonException, get_daemon_client

    try:
        number = len(get_daemon_client().get_worker_info()['info'])
    except DaemonException as error:
        yield Finding('workers', 'broken', str(error), '`verdi daemon restart`')
        return
    advice = '' if number else '`verdi daemon incr 2`'
    yield Finding('workers', 'ok' if number else 'broken', f'{number} of the daemon', advice)


def _versions() -> Iterator[Finding]:
    from aiida.cmdline.utils.daemon import validate_daemon_env
    from aiida.engine.daemon.client import get_daemon_client

    differs = validate_daemon_env(get_daemon_client())
    if differs:
        yield Finding('versions', 'broken', ' '.join(differs.split()), '`verdi daemon restart`')
