"""Child processes that end with the job, also where the job is killed and cannot end them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

EVERY = 1.0
"""Seconds between two looks at the parent."""


def end_with_parent() -> None:
    """Let this process end soon after its parent, whatever it is doing then."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def start_child(command: list[str], folder: Path, log: IO[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a program that writes into a log and does not outlive this process."""
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=_ask_kernel if sys.platform == 'linux' else None,  # noqa: PLW1509 - a job has no threads here
    )


def _ask_kernel() -> None:
    """Ask Linux to kill this process when its parent ends; runs between fork and exec."""
    import ctypes
    import signal

    death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)
