"""What AiiDA and a job say to each other: a request, a response, and the names of all outcomes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

VERSION = 1
"""Version of this contract; a job refuses a request of another version."""

REQUEST = 'request.json'
RESPONSE = 'response.json'
LOG = 'job.log'
"""What the job printed."""

PROGRESS = 'progress.jsonl'
"""One JSON object a line, appended while the job works; the last line is the present state."""


class Status(StrEnum):
    """How a job ended; the parser has one exit code for each."""

    OK = 'ok'
    NOT_CONVERGED = 'not_converged'
    OUT_OF_WALLTIME = 'out_of_walltime'
    OUT_OF_MEMORY = 'out_of_memory'
    DIVERGED = 'diverged'
    NOT_FINITE = 'not_finite'
    EXPLODED = 'exploded'
    ENDS_MEET = 'ends_meet'
    SETTINGS_IGNORED = 'settings_ignored'
    MISSING_PACKAGE = 'missing_package'
    BAD_INPUT = 'bad_input'
    FAILED = 'failed'


class JobError(Exception):
    """A failure with a name: what happened, the facts, and what to do next."""

    def __init__(self, status: Status, message: str, results: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.results = dict(results or {})


@dataclass(frozen=True)
class Request:
    """What a job is asked to do.

    :param task: `module:Class` of the task.
    :param plugins: `module:Class` of each plug-in that the task uses, by role (`architecture`, `labeller`).
    :param inputs: names of the folders, beside the request, that hold the inputs.
    :param settings: what the task is to do, as plain JSON.
    :param seed: the seed of every random number that the job draws.
    :param cores: the processor cores that the job may use.
    :param device: `auto`, `cpu` or `cuda`.
    :param walltime: seconds after which the scheduler kills the job; None where there is no limit.
    """

    task: str
    plugins: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    cores: int = 1
    device: str = 'auto'
    walltime: float | None = None
    contract: int = VERSION

    def dump(self) -> str:
        """Return the request as JSON text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def load(cls, text: str) -> Request:
        """Read a request; an unknown key or another version of the contract is refused."""
        content = json.loads(text)
        if content.get('contract') != VERSION:
            raise JobError(
                Status.BAD_INPUT,
                f'The request follows contract {content.get("contract")}, but this job follows {VERSION}.',
            )
        return cls(**content)


@dataclass
class Response:
    """What a job answers, whether it succeeded or not.

    :param results: what the task found, as plain JSON; files of arrays lie beside it.
    :param error: `type`, `message` and, for a fault of the program, `traceback`.
    :param versions: version of Python and of each package that matters.
    :param seconds: wall time in s of the `task` and of everything (`total`); processor time of all cores (`cpu`).
    :param peak_memory_mb: largest resident memory of the job's process in MB.
    """

    status: Status
    results: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    device: str = 'cpu'
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    contract: int = VERSION

    def write(self, folder: Path) -> None:
        """Write the response in one step, so that a reader never sees half of it."""
        content = asdict(self)
        content['status'] = self.status.value
        partial = folder / f'{RESPONSE}.partial'
        partial.write_text(json.dumps(name_non_finite(content), indent=2, sort_keys=True, allow_nan=False))
        partial.replace(folder / RESPONSE)

    @classmethod
    def load(cls, text: str) -> Response:
        """Read a response; raises ValueError, KeyError or TypeError where it is not one."""
        content = json.loads(text)
        content['status'] = Status(content['status'])
        response = cls(**content)
        for name in ('results', 'versions', 'seconds'):
            if not isinstance(getattr(response, name), dict):
                raise ValueError(f'`{name}` of the response is not an object.')
        error = {} if response.error is None else response.error
        if not isinstance(error, dict) or not all(isinstance(text, str) for text in error.values()):
            raise ValueError('`error` of the response is not an object of texts.')
        return response


def name_non_finite(value: Any) -> Any:
    """Replace what JSON and AiiDA attributes cannot hold (NaN, infinities) by its name as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return 'nan' if math.isnan(value) else ('inf' if value > 0 else '-inf')
    if isinstance(value, Mapping):
        return {str(key): name_non_finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [name_non_finite(entry) for entry in value]
    if hasattr(value, 'tolist'):  # numpy scalars and arrays
        return name_non_finite(value.tolist())
    return value


def number_of(value: Any) -> float | None:
    """Return a number, also one that `name_non_finite` has named; None where it is no number."""
    if isinstance(value, str) and value in ('nan', 'inf', '-inf'):
        return float(value)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
