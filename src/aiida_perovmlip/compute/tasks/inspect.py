"""Look into the files of a potential that somebody else made."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.task import Job, Task


class Inspect(Task):
    """Open the input `potential` and tell what is in it."""

    def run(self, job: Job) -> dict[str, Any]:
        """Return the facts; whatever the files do when they are opened, they do it here."""
        architecture: Architecture = job.plugin('architecture')
        potential = job.path('potential')
        if potential is None:
            raise JobError(Status.BAD_INPUT, 'There are no files to look into.')
        try:
            facts = architecture.facts(potential)
        except JobError:
            raise
        except Exception as error:  # every format has errors of its own
            names = ', '.join(sorted(path.name for path in potential.iterdir()))
            raise JobError(
                Status.BAD_INPUT,
                f'{architecture.name} cannot open {names}: {type(error).__name__}: {error}. Is it a potential of this '
                'architecture, and of a version that this environment can read?',
            ) from error
        return {'facts': asdict(facts)}
