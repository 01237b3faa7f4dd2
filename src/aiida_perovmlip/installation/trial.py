"""A self-test of every code of a cluster through its queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from aiida_perovmlip.installation import catalogue
from aiida_perovmlip.installation.checks import CodeFinding, try_program
from aiida_perovmlip.installation.cluster import Cluster
from aiida_perovmlip.installation.programs import program_of

WALLTIME = '5 min'
"""Short enough for a scheduler to find a gap for it."""


def try_cluster(cluster: Cluster) -> Iterator[CodeFinding]:
    """Run the self-test of each code as a job, with the resources of the code; yield what each found.

    A program of its own, such as CP2K, is asked for its version where jobs are submitted.
    """
    from aiida import orm

    for entry in cluster.codes:
        code = orm.load_code(f'{entry.label}@{cluster.label}')
        if (program := program_of(entry.plugin)) is not None:
            yield try_program(code, program)
            continue
        for plugin in catalogue.find(entry.plugin):
            yield _try(code, plugin.name, plugin.role)


def _try(code: Any, name: str, role: str) -> CodeFinding:
    """Submit one self-test and wait for it."""
    from aiida.common.exceptions import InputValidationError

    from aiida_perovmlip.calculations.running import run_here
    from aiida_perovmlip.calculations.selftest import SelftestCalculation

    begin = time.monotonic()
    builder = SelftestCalculation.get_builder()
    builder.code, builder.plugin, builder.role = code, name, role
    builder.metadata.options.walltime = WALLTIME
    builder.metadata.disable_cache = True  # what was right yesterday says nothing of today
    try:
        node = run_here(builder)
    except InputValidationError as error:
        return CodeFinding(code.full_label, role, 'refused', str(error))
    seconds = time.monotonic() - begin
    if not node.is_finished_ok:
        advice = f'`verdi process report {node.pk}` and `verdi calcjob gotocomputer {node.pk}` show more'
        message = node.exit_message or f'the job ended as {node.process_state.value if node.process_state else "lost"}'
        status = f'exit code {node.exit_status}' if node.exit_status is not None else 'lost'
        return CodeFinding(code.full_label, role, status, message, seconds=seconds, advice=advice)
    results = node.outputs.results.get_dict()
    message = ' '.join(str(found) for found in (results.get('found') or {}).values())
    return CodeFinding(
        code.full_label, role, 'ok', message, results.get('versions', {}), str(results.get('device', '')), seconds
    )
