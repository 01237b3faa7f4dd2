"""Whether this machine can work: AiiDA, the environments, and a self-test of every code where it runs."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from aiida_perovmlip.compute import contract, registry
from aiida_perovmlip.installation import catalogue, profile
from aiida_perovmlip.installation.catalogue import JobPlugin
from aiida_perovmlip.installation.environments import incomplete
from aiida_perovmlip.installation.outcome import SetupFailure
from aiida_perovmlip.installation.programs import program_of

if TYPE_CHECKING:
    from aiida.orm import InstalledCode

    from aiida_perovmlip.labellers.base import Program

State = Literal['ok', 'note', 'broken']
"""Fine; worth knowing; needs a remedy before jobs can run."""

SELF_TEST_LIMIT = 300
"""Seconds that a self-test may take; loading torch from a slow disk can take one minute."""

ROOM_FOR_AN_ENVIRONMENT_GB = 3.0


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    subject: str
    state: State
    detail: str
    advice: str = ''


@dataclass(frozen=True)
class CodeFinding:
    """What the self-test of one plug-in found on one code.

    :param status: a status of the contract, or `no_connection`, `no_executable`, `no_response`.
    :param message: what the self-test says, or the last it said.
    :param seconds: wall time in s of everything, with the way there and back.
    """

    code: str
    role: str
    status: str
    message: str = ''
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ''
    seconds: float = 0.0
    advice: str = ''

    @property
    def is_broken(self) -> bool:
        """Tell whether jobs of this code will fail."""
        return self.status != contract.Status.OK.value


def check_prefix(prefix: Path) -> Iterator[Finding]:
    """Look at the room for environments and at those that were never finished."""
    nearest = next(folder for folder in (prefix, *prefix.parents) if folder.exists())
    free = shutil.disk_usage(nearest).free / 1e9
    scarce = free < ROOM_FOR_AN_ENVIRONMENT_GB
    advice = f'an environment with torch needs about {ROOM_FOR_AN_ENVIRONMENT_GB:.0f} GB: make room' if scarce else ''
    yield Finding('disk', 'note' if scarce else 'ok', f'{free:.0f} GB free for {prefix}', advice)
    for folder in incomplete(prefix):
        name = folder.name.rpartition('-')[0]
        yield Finding(
            'environment', 'note', f'{folder} is incomplete', f'build it again: `aiida-perovmlip setup --with {name}`'
        )


def check_profile(name: str | None = None) -> Iterator[Finding]:
    """Look at AiiDA: profile, storage, broker and daemon; the profile stays loaded."""
    try:
        loaded = profile.load_profile(name)
    except SetupFailure as failure:
        yield Finding('profile', 'broken', str(failure))
        return
    from aiida import __version__

    yield Finding('AiiDA', 'ok', __version__)
    yield Finding('profile', 'ok', f'{loaded.name} in {profile.config_folder()}')
    yield check_storage()
    yield check_daemon(loaded)


def check_codes(label: str | None = None) -> Iterator[CodeFinding]:
    """Run the self-test of every code whose label is a plug-in; needs a loaded profile.

    :param label: `name` or `name@computer` of the only code to look at.
    """
    name, _, computer = (label or '').partition('@')
    codes = [code for code in profile.find_codes(name or None) if computer in ('', code.computer.label)]
    codes = [code for code in codes if code.label in catalogue.names()]
    if label and not codes:
        raise SetupFailure(f'there is no code `{label}` of a plug-in. Make it: `aiida-perovmlip setup --with {name}`.')
    for code in codes:
        for plugin in catalogue.find(code.label):
            yield try_code(code, plugin)
        if (program := program_of(code.label)) is not None:
            yield try_program(code, program)


def try_program(code: InstalledCode, program: Program) -> CodeFinding:
    """Ask a program of its own for its version, on its computer."""
    from aiida.common.escaping import escape_for_bash

    begin = time.monotonic()
    executable = str(code.filepath_executable)
    found: dict[str, Any] = {'status': contract.Status.OK.value, 'message': 'its version cannot be asked for'}
    try:
        with code.computer.get_transport() as transport:
            if code.filepath_executable.is_absolute() and not transport.isfile(executable):
                message = f'{executable} does not exist'
                found = {'status': 'no_executable', 'message': message, 'advice': program.how_to_get}
            elif program.version:
                command = ' '.join(escape_for_bash(part) for part in (executable, *program.version))
                lines = '\n'.join((code.computer.get_prepend_text(), code.prepend_text, command))
                status, said, complained = transport.exec_command_wait(lines)
                lines_said = (said if status == 0 else complained or said).strip().splitlines() or ['it said nothing']
                state = contract.Status.OK if status == 0 else contract.Status.FAILED
                found = {'status': state.value, 'message': lines_said[0][:300]}
    except Exception as error:  # transports raise whatever their library raises
        advice = f'`verdi computer test {code.computer.label}`, then `verdi computer configure` it again'
        found = {'status': 'no_connection', 'message': f'{type(error).__name__}: {error}', 'advice': advice}
    return CodeFinding(code.full_label, 'labeller', **found, seconds=time.monotonic() - begin)


def try_code(code: InstalledCode, plugin: JobPlugin) -> CodeFinding:
    """Run the self-test of a plug-in with this code: on its computer, by its transport, but not in its queue."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        stage(Path(name), code, plugin)
        try:
            finding = _try_on_computer(Path(name), code, plugin)
        except Exception as error:  # transports raise whatever their library raises
            computer = code.computer.label
            advice = f'`verdi computer test {computer}`, then `verdi computer configure` it again'
            finding = {'status': 'no_connection', 'message': f'{type(error).__name__}: {error}', 'advice': advice}
    return CodeFinding(code.full_label, plugin.role, **finding, seconds=time.monotonic() - begin)


def _try_on_computer(staged: Path, code: InstalledCode, plugin: JobPlugin) -> dict[str, Any]:
    """Return the fields of a finding; raises whatever the transport raises."""
    with code.computer.get_transport() as transport:
        executable = code.filepath_executable
        if executable.is_absolute() and not transport.isfile(str(executable)):
            advice = _advice_to_install(code, plugin)
            return {'status': 'no_executable', 'message': f'{executable} does not exist', 'advice': advice}
        workdir = PurePosixPath(code.computer.get_workdir().format(username=transport.whoami()))
        folder = str(workdir / f'doctor-{uuid.uuid4().hex[:8]}')
        transport.makedirs(str(workdir), ignore_existing=True)
        try:
            return _run_self_test(transport, staged, folder, _advice_to_install(code, plugin))
        finally:
            if transport.path_exists(folder):
                transport.rmtree(folder)


def _run_self_test(transport: Any, staged: Path, folder: str, advice_to_install: str) -> dict[str, Any]:
    """Upload what a job would upload, run it, and read the answer."""
    transport.puttree(str(staged), folder)
    _, said, complained = transport.exec_command_wait('bash selftest.sh', workdir=folder)
    if not transport.isfile(f'{folder}/{contract.RESPONSE}'):
        return {
            'status': 'no_response',
            'message': _last_line(complained or said),
            'advice': 'the Python of this code did not get as far as the self-test; its last words stand above',
        }
    transport.getfile(f'{folder}/{contract.RESPONSE}', str(staged / contract.RESPONSE))
    return read_response((staged / contract.RESPONSE).read_text(), advice_to_install)


def stage(folder: Path, code: InstalledCode, plugin: JobPlugin) -> None:
    """Write into a folder all that the self-test needs."""
    from aiida_perovmlip.calculations.sources import SOURCES, job_sources, pack

    task = registry.reference('tasks', 'selftest')
    pack(job_sources(task, [plugin.reference]), folder / SOURCES)
    request = contract.Request(task=task, plugins={plugin.role: plugin.reference}, walltime=float(SELF_TEST_LIMIT))
    (folder / contract.REQUEST).write_text(request.dump())
    (folder / 'selftest.sh').write_text(script(code))


def script(code: InstalledCode) -> str:
    """Return the script of the self-test: what a job script of this code would say, without a scheduler."""
    from aiida.common.escaping import escape_for_bash

    from aiida_perovmlip.calculations.sources import SOURCES

    python = escape_for_bash(str(code.filepath_executable))
    return '\n'.join(
        [
            code.computer.get_prepend_text() or '',
            code.prepend_text or '',
            f'limit=$(command -v timeout >/dev/null && echo "timeout {SELF_TEST_LIMIT}")',
            f'PYTHONPATH="$PWD/{SOURCES}" $limit {python} -m aiida_perovmlip.compute.harness',
            '',
        ]
    )


def read_response(text: str, advice_to_install: str) -> dict[str, Any]:
    """Return the fields of a finding from the response of a self-test."""
    try:
        response = contract.Response.load(text)
    except (ValueError, KeyError, TypeError) as error:
        return {'status': 'no_response', 'message': f'the response cannot be read: {error}'}
    found = response.results.get('found', {})
    message = response.error['message'] if response.error else ' '.join(str(entry) for entry in found.values())
    is_missing = response.status is contract.Status.MISSING_PACKAGE
    return {
        'status': response.status.value,
        'message': message,
        'versions': response.versions,
        'device': response.device,
        'advice': advice_to_install if is_missing else '',
    }


def _advice_to_install(code: InstalledCode, plugin: JobPlugin) -> str:
    """Return how to make the environment of a plug-in where its code runs."""
    if code.computer.label == profile.COMPUTER:
        return f'`aiida-perovmlip setup --with {plugin.name}`'
    packages = ' '.join((*plugin.requirements, 'ase'))
    return f'on {code.computer.label}: `pip install {packages}` into the environment of {code.filepath_executable}'


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else 'it said nothing'


def check_storage() -> Finding:
    """Open the storage of the loaded profile."""
    from aiida.common.exceptions import AiidaException
    from aiida.manage import get_manager

    try:  # opening it checks that its version is that of this AiiDA
        storage: Any = get_manager().get_profile_storage()
    except AiidaException as error:
        return Finding('storage', 'broken', str(error).splitlines()[0], '`verdi status` says more')
    return Finding('storage', 'ok', f'{storage.profile.storage_backend}, version {storage.version_head()}')


def check_daemon(loaded: Any) -> Finding:
    """Tell whether `submit` would work; `run` works without a daemon."""
    from aiida.engine.daemon.client import DaemonException, DaemonNotRunningException
    from aiida.manage import get_manager

    broker = loaded.process_control_backend
    if broker is None:
        advice = f'`verdi profile configure-broker core.zeromq {loaded.name}` makes `submit` possible'
        return Finding('daemon', 'note', 'this profile has no broker, so nothing can be submitted', advice)
    try:
        status = get_manager().get_daemon_client().get_status()
    except DaemonNotRunningException:
        return Finding('daemon', 'note', f'broker {broker}; not running', '`verdi daemon start` before you submit')
    except DaemonException as error:
        return Finding('daemon', 'broken', f'broker {broker}; {error}', '`verdi daemon restart`')
    return Finding('daemon', 'ok', f'broker {broker}; running with PID {status["pid"]}')
