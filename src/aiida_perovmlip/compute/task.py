"""A task: one thing that a job can do, and the job as the task sees it."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.contract import PROGRESS, JobError, Request, Status, name_non_finite
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.plugin import Plugin, load_object
from aiida_perovmlip.compute.settings import SettingsError, read_settings

GRACE = 0.05
"""Part of the wall time that is kept back for writing the results."""


@dataclass
class Job:
    """What a task may ask of the job it runs in.

    :param folder: the working directory, in which inputs lie and results are left.
    """

    folder: Path
    request: Request
    started: float = field(default_factory=time.monotonic)
    stopping: bool = False

    def plugin(self, role: str) -> Any:
        """Return the plug-in of a role (`architecture`, `labeller`), with its package loaded or a clear failure."""
        plugin: Plugin = load_object(self.request.plugins[role])()
        return plugin

    def settings_of(self, plugin: Any) -> Any:
        """Return the checked settings of a plug-in."""
        try:
            return read_settings(plugin.Settings, self.request.settings.get(plugin.name, {}))
        except SettingsError as error:
            raise JobError(Status.BAD_INPUT, f'Settings of {plugin.name}: {error}') from error

    def frames(self, name: str) -> Frames | None:
        """Return the frames of an input; None where it was not given."""
        folder = self.request.inputs.get(name)
        return Frames.open_folder(self.folder / folder) if folder else None

    def path(self, name: str) -> Path | None:
        """Return the folder of an input; None where it was not given."""
        folder = self.request.inputs.get(name)
        return self.folder / folder if folder else None

    def seconds_left(self) -> float:
        """Return how long the task may still work; zero once the scheduler asked it to stop."""
        if self.stopping:
            return 0.0
        if self.request.walltime is None:
            return math.inf
        return self.request.walltime * (1 - GRACE) - (time.monotonic() - self.started)

    def progress(self, **state: Any) -> None:
        """Make the present state visible from outside."""
        state['seconds'] = round(time.monotonic() - self.started, 2)
        with (self.folder / PROGRESS).open('a') as handle:
            handle.write(json.dumps(name_non_finite(state)) + '\n')


class Task(ABC):
    """Base of all tasks; one file and one entry point add another."""

    @abstractmethod
    def run(self, job: Job) -> dict[str, Any]:
        """Do it; return the results as plain values, or raise `JobError`."""
