"""A command whose output goes to a log while the terminal shows that it is still at work."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

SECONDS_BETWEEN_LINES = 10.0
"""How often a log that is no terminal gets a line."""


class Progress:
    """One line a task: overwritten on a terminal, repeated every ten seconds elsewhere."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.title = title
        self.stream = stream or sys.stderr
        self.begin = time.monotonic()
        self.said = self.begin - SECONDS_BETWEEN_LINES  # so that the first line comes at once

    @property
    def seconds(self) -> float:
        """Return the seconds since the task began."""
        return time.monotonic() - self.begin

    def show(self) -> None:
        """Show that the task goes on."""
        if self.stream.isatty():
            self._write(f'\r{self.title} … {self.seconds:.0f} s')
        elif time.monotonic() - self.said >= SECONDS_BETWEEN_LINES:
            self.said = time.monotonic()
            self._write(f'{self.title} … {self.seconds:.0f} s\n')

    def finish(self, word: str = 'done') -> None:
        """Show how the task ended."""
        start = '\r' if self.stream.isatty() else ''
        self._write(f'{start}{self.title} … {self.seconds:.0f} s, {word}\n')

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def run_logged(command: Sequence[str], log: Path, title: str, keep_open: tuple[int, ...] = ()) -> int:
    """Run a command, append what it says to the log, and return its exit status.

    :param keep_open: file descriptors that the command inherits. A lock held through one of these outlives a killed
        parent, so that nobody builds in a folder where an orphaned pip is still writing.
    """
    progress = Progress(title)
    with log.open('ab') as handle:
        handle.write(f'$ {" ".join(command)}\n'.encode())
        handle.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT, pass_fds=keep_open
        )
        try:
            status = _wait(process, progress)
        except BaseException:
            _stop(process)
            progress.finish('interrupted')
            raise
    progress.finish('done' if status == 0 else 'failed')
    return status


def _wait(process: subprocess.Popen[bytes], progress: Progress) -> int:
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            progress.show()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a command, gently first."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
