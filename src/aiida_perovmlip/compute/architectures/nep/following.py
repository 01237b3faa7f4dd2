"""A trainer in a process of its own: started, followed, and ended where the time runs out."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.children import failure_of, last_lines_of, python_path, start_child
from aiida_perovmlip.compute.contract import JobError

LOG = 'trainer.log'
POLL = 0.2
"""Seconds between two looks at what a trainer has written."""

PATIENCE = 20.0
"""Seconds that a trainer which was asked to end may take."""


@dataclass(frozen=True)
class End:
    """How a trainer ended.

    :param code: its exit status; minus the number of the signal that killed it.
    :param out_of_time: whether it was stopped because the time ran out.
    """

    code: int
    out_of_time: bool


def follow(command: list[str], training: Training, look: Callable[[], None]) -> End:
    """Run a trainer in the folder of the training until it ends or the time runs out.

    :param look: is called every now and then, and once after its end; it may raise.
    """
    environment = {**os.environ, 'OMP_NUM_THREADS': str(training.cores), 'PYTHONPATH': python_path()}
    with (training.folder / LOG).open('w') as log:
        process = start_child(command, training.folder, log, environment)
        try:
            while process.poll() is None and training.seconds_left() > 0:
                time.sleep(POLL)
                look()
        finally:
            was_running = process.poll() is None
            _end(process)
    look()
    # A scheduler may signal the trainer too, which then ends before it is asked.
    return End(process.returncode, was_running or (process.returncode != 0 and training.seconds_left() <= 0))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and make it end where it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def failure(training: Training, code: int, curve: list[dict[str, Any]], smaller: str) -> JobError:
    """Return what went wrong when a trainer failed.

    :param smaller: the setting that takes less memory where it is smaller.
    """
    log = (training.folder / LOG).read_text(errors='replace')
    reached = f'after step {curve[-1]["step"]}' if curve else 'before its first report'
    return failure_of(code, log, reached, f'lower `{smaller}`', {'curve': curve})


def last_lines(folder: Path) -> str:
    """Return the end of the trainer's log."""
    return last_lines_of((folder / LOG).read_text(errors='replace'))
