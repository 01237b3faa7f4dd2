"""Find out in about a second whether an environment can do its work."""

from __future__ import annotations

from typing import Any

from aiida_perovmlip.compute.task import Job, Task


class Selftest(Task):
    """Let every plug-in of the request do one small real thing."""

    def run(self, job: Job) -> dict[str, Any]:
        """Return what each plug-in found."""
        return {'found': {role: job.plugin(role).self_test() for role in job.request.plugins}}
