"""Child processes that end with the job, also where the job is killed and cannot end them."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from aiida_perovmlip.compute.contract import JobError, Status

EVERY = 1.0
"""Seconds between two looks at the parent."""

COMMAND = 'command.json'
"""What a job's child was started with: `command`, and what of its `environment` differs from the job's."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""What schedulers and people send to a job that is to stop; the job decides what that means for its children."""


def end_with_parent() -> None:
    """Let this process end soon after its parent, whatever it is doing then."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # also the programs that it started
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Worker:
    """A process that does one piece of work at a time, so that its death costs that piece and tells which it was.

    :param work: what it does with the arguments that it is given; has to be importable by name.
    """

    def __init__(self, work: Callable[..., Any]) -> None:
        context = multiprocessing.get_context('spawn')
        self.item: tuple[Any, ...] | None = None
        self.since: float | None = None
        self.free = self.lost = False
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work))
        with _stop_signals_blocked():  # one that arrives before the child ignores them would end it
            self.process.start()
        theirs.close()  # else its end would never be noticed here

    def give(self, item: tuple[Any, ...] | None = None) -> None:
        """Take a piece of work, and send it as soon as the process is free: sending can block while it is not."""
        self.item = item or self.item
        if self.free and self.item is not None:
            self.free, self.since = False, time.monotonic()
            with suppress(OSError):  # it has just died; that is noticed later
                self.pipe.send(self.item)

    def seconds(self) -> float:
        """Return how long it has been at its present piece."""
        return 0.0 if self.since is None else time.monotonic() - self.since

    def answer(self) -> Any:
        """Return what its work gave; None where it is not done, or where the process died (then it is `lost`)."""
        alive = self.process.is_alive()  # asked first: what it wrote before it died is still there
        try:
            while self.pipe.poll():
                answer = self.pipe.recv()
                self.free = True
                if answer is not None:
                    self.item = self.since = None
                    return answer
                self.give()
        except Exception:  # the end of the pipe, or half a message: it died while it wrote
            alive = False
        self.lost = not alive
        return None

    def kill(self) -> None:
        """End it and all that it started, also where they would rather not."""
        if self.process.pid:
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join(timeout=5.0)
        self.pipe.close()


def _serve(pipe: Connection, work: Callable[..., Any]) -> None:
    """Do what comes through the pipe until it is closed; the first answer, None, says that this process is ready."""
    try:
        os.setpgid(0, 0)  # to be killed with the programs that it starts
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        end_with_parent()
        answer = None
        while True:
            pipe.send(answer)
            answer = work(*pipe.recv())
    except (EOFError, BrokenPipeError):
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(1)  # no thread that a library left may keep it


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Let signals that ask the job to stop wait; a process that is started meanwhile inherits this."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


START = f'----- A program starts here; {COMMAND} tells how. -----'
"""The line of a log before what a program prints: runs in one folder share a log."""


def start_child(command: list[str], folder: Path, log: IO[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a program that writes into a log and does not outlive this process; `COMMAND` tells how to run it again."""
    different = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    print(START, file=log, flush=True)
    (folder / COMMAND).write_text(json.dumps({'command': command, 'environment': different}, indent=1))
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=_ask_kernel if sys.platform == 'linux' else None,  # noqa: PLW1509 - a job has no threads here
    )


def python_path() -> str:
    """Return where children find our modules, as `PYTHONPATH`: where this one came from comes first."""
    ours = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (ours, os.environ.get('PYTHONPATH'))))


MEMORY = (
    'out of memory',
    'outofmemoryerror',
    'memoryerror',
    "can't allocate memory",
    'cannot allocate memory',
    'signal 9 (sigkill)',
)
"""What programs print where memory runs out, in small letters; the last is of torchrun, of a worker that was killed."""

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""Exit status of a program that was killed, as Python and as shells have it."""


def failure_of(code: int, log: str, when: str, advice: str, results: dict[str, Any]) -> JobError:
    """Return why a trainer failed.

    :param code: its exit status; minus the number of the signal that ended it.
    :param log: what it printed, after whatever was printed by programs that were started before it.
    :param when: how far it had come.
    :param advice: what takes less memory.
    """
    if any(words in of_last_program(log).lower() for words in MEMORY):
        return JobError(Status.OUT_OF_MEMORY, f'The trainer ran out of memory {when}; {advice}.', results)
    if code in KILLED:
        message = (
            f'The trainer was killed by SIGKILL (signal 9) {when}, which is what the system does when memory runs out; '
            f'{advice}, or ask for more memory.'
        )
        return JobError(Status.OUT_OF_MEMORY, message, results)
    if code < 0:
        return JobError(Status.FAILED, f'The trainer was killed by {name_of_signal(-code)} {when}.', results)
    return JobError(Status.FAILED, f'The trainer failed with exit status {code} {when}. {last_lines_of(log)}', results)


def name_of_signal(number: int) -> str:
    """Return the name of a signal; real-time signals have a number alone."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'


def of_last_program(log: str) -> str:
    """Return what the program that was started last has printed."""
    return log.rpartition(START)[2]


def last_lines_of(log: str, count: int = 5) -> str:
    """Return the end of what a program printed."""
    lines = [line.strip() for line in of_last_program(log).splitlines() if line.strip()]
    return 'The log ends: ' + (' | '.join(lines[-count:]) or 'nothing was printed.')


def run_attached(module: str, arguments: list[str]) -> None:
    """Run a module as a program that does not outlive the one that started it."""
    if sys.platform == 'linux':
        _ask_kernel()
        if os.getppid() == 1:  # it is gone already
            os._exit(1)
    else:
        end_with_parent()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name='__main__', alter_sys=True)


def _ask_kernel() -> None:
    """Ask Linux to kill this process when its parent ends."""
    import ctypes

    death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)


if __name__ == '__main__':
    run_attached(sys.argv[1], sys.argv[2:])
