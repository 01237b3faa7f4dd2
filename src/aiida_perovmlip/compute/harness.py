"""The program of every job: read the request, run the task, write the response, whatever happens."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from aiida_perovmlip.compute.contract import REQUEST, RESPONSE, JobError, Request, Response, Status


def main(folder: Path | None = None) -> int:
    """Run the job of a folder; the exit status is 0 only where the task succeeded."""
    folder = folder or Path.cwd()
    started = time.monotonic()
    (folder / RESPONSE).unlink(missing_ok=True)  # an answer of an earlier attempt is not ours
    response = Response(Status.FAILED)
    try:
        request = Request.load((folder / REQUEST).read_text())
        limit_threads(request.cores)
        run(folder, request, response)
    except BaseException as error:
        describe_failure(response, error)
    response.seconds['total'] = round(time.monotonic() - started, 3)
    response.seconds['cpu'] = processor_time()
    response.peak_memory_mb = peak_memory()
    response.write(folder)
    if response.error:
        print(f'{response.status.value}: {response.error["message"]}', file=sys.stderr)
    return 0 if response.status is Status.OK else 1


def run(folder: Path, request: Request, response: Response) -> None:
    """Run the task and fill the response with what it found."""
    from aiida_perovmlip.compute.plugin import load_object, versions_of
    from aiida_perovmlip.compute.task import Job

    job = Job(folder, request)
    plugins = needed_plugins({role: job.plugin(role) for role in request.plugins})
    packages = {'numpy', 'ase'}.union(*(plugin.packages() for plugin in plugins))
    response.versions = {'python': platform.python_version(), **versions_of(tuple(sorted(packages)))}
    missing = [name for name, version in response.versions.items() if version == 'missing']
    if missing:
        names = ' '.join(f'--with {plugin.name}' for plugin in plugins if not plugin.needs_potential)
        raise JobError(
            Status.MISSING_PACKAGE,
            f'{sys.executable} has no {", ".join(missing)}. Install it there, or build an environment with it: '
            f'`aiida-perovmlip setup {names}`.',
        )
    for plugin in plugins:
        if not plugin.needs_potential:  # it computes where its potential does
            response.device = plugin.device(request.device)
    started = time.monotonic()
    try:
        with stop_on_signal(job):
            response.results = load_object(request.task)().run(job)
        response.status = Status(response.results.pop('status', Status.OK))
    finally:
        response.seconds['task'] = round(time.monotonic() - started, 3)


def needed_plugins(plugins: Mapping[str, Any]) -> list[Any]:
    """Return the plug-ins, by their roles, whose packages the job needs: not those that another one only reads of."""
    return [
        plugin
        for role, plugin in plugins.items()
        if all(other is plugin or other.needs_packages_of(role) for other in plugins.values())
    ]


def describe_failure(response: Response, error: BaseException) -> None:
    """Give a failure its status, its message and, where the program is at fault, its traceback."""
    response.status, message = Status.FAILED, f'{type(error).__name__}: {error}'
    if isinstance(error, JobError):
        response.status, message = error.status, error.message
        response.results = error.results
    elif isinstance(error, MemoryError) or 'out of memory' in str(error).lower():
        response.status = Status.OUT_OF_MEMORY
    elif isinstance(error, ModuleNotFoundError):
        response.status = Status.MISSING_PACKAGE
    response.error = {'type': type(error).__name__, 'message': message}
    if not isinstance(error, JobError):
        response.error['traceback'] = traceback.format_exc()


def limit_threads(cores: int) -> None:
    """Let numerical libraries use the job's cores and no more; idle threads sleep instead of spinning."""
    for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ.setdefault(name, str(cores))
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')


@contextmanager
def stop_on_signal(job: Any) -> Iterator[None]:
    """Let the task finish what it is at and write its results when the scheduler asks the job to stop."""

    def stop(number: int, frame: Any) -> None:
        if job.stopping:  # asked twice: at once
            raise JobError(Status.OUT_OF_WALLTIME, f'The job was stopped by signal {number}.')
        job.stopping = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def peak_memory() -> float:
    """Return the largest resident memory of this process and its children in MB."""
    unit = 1024**2 if sys.platform == 'darwin' else 1024
    used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(used / unit, 1)


def processor_time() -> float:
    """Return the processor time in s of this process and of its children that have ended, of all cores together."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(sum(each.ru_utime + each.ru_stime for each in used), 3)


def leave(code: int) -> NoReturn:
    """End at once: no thread or process that a library left may keep the job alive."""
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a full disk is no reason to stay
            stream.flush()
    os._exit(code)


if __name__ == '__main__':
    code = 1
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)
