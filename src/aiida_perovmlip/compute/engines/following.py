"""A program of molecular dynamics as a child of the job: ended where it has to be, and why it ended by itself."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

from aiida_perovmlip.compute.children import KILLED, MEMORY, last_lines_of, name_of_signal
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.md import MdSettings

PATIENCE = 5.0
"""Seconds that a program may take to end when it is told to."""

LOOK = 1.0
"""Seconds that a look at what a program has written may take: then time and stop are looked at, however much waits."""

MOST_OF_LOG = 1_000_000
"""Bytes at each end of a log by which it is judged."""


def steps_between_states(settings: MdSettings, frames: int, least: int, most: int) -> int:
    """Return the steps between two states that a program writes: on frames, unless these are too rare.

    :param frames: steps between two frames.
    :param least: so many steps at least.
    :param most: about so many at most, as a kill costs all steps behind the newest state.
    """
    if settings.save_every is not None:
        return settings.save_every
    if frames <= most:
        return frames * math.ceil(least / frames)
    row = math.gcd(frames, settings.thermo_every)  # no more rows are written for it
    return row * math.ceil(most / row)


def end_child(process: subprocess.Popen[bytes]) -> None:
    """Make a program end, and what started it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ends_of(path: Path) -> str:
    """Return the text of a file, of a large one both ends."""
    if not path.is_file():
        return ''
    size = path.stat().st_size
    with path.open('rb') as handle:
        text = handle.read(MOST_OF_LOG)
        if size > MOST_OF_LOG:
            handle.seek(max(MOST_OF_LOG, size - MOST_OF_LOG))
            text += b'\n' + handle.read()
    return text.decode(errors='replace')


def failure(name: str, code: int, error: str, log: str, where: str) -> JobError:
    """Return why a program ended before the end.

    :param code: its exit status; minus the number of the signal that ended it.
    :param error: what it calls its error; empty where it does not say.
    :param log: what it printed.
    :param where: how far it had come.
    """
    if any(words in log.lower() for words in MEMORY) or code in KILLED:
        advice = 'take a smaller cell, or ask for more memory'
        return JobError(Status.OUT_OF_MEMORY, f'{name} ran out of memory, or was killed, {where}: {advice}.')
    if error:
        return JobError(Status.FAILED, f'{name} ended with an error {where}: {error}')
    if code < 0:
        return JobError(Status.FAILED, f'{name} was ended by {name_of_signal(-code)} {where}.')
    said = last_lines_of(log)
    return JobError(Status.FAILED, f'{name} ended {where} with exit status {code}, and did not say why. {said}')
