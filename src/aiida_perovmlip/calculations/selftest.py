"""The self-test of a plug-in as a job: through the queue, on the node where real jobs will run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.calculations.base import ComputeCalculation, results_of
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.contract import Response, Status


class SelftestCalculation(ComputeCalculation):
    """Let a plug-in do one small real thing in about a second; `results` has what it found, its versions and device."""

    task = 'selftest'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.input('plugin', valid_type=orm.Str, help='Name of the plug-in.', **to_node)
        spec.input('role', valid_type=orm.Str, help=f'What it is: {", ".join(registry.ROLES)}.', **to_node)
        spec.inputs.validator = _validate
        spec.default_output_node = 'results'

    def _build_process_label(self) -> str:
        """Return a label that says what is tested."""
        return f'Selftest<{self.inputs.plugin.value}>'

    def plugins(self) -> dict[str, str]:
        """Return the plug-in."""
        role = self.inputs.role.value
        return {role: registry.reference(registry.ROLES[role], self.inputs.plugin.value)}

    def folders(self) -> dict[str, Any]:
        """Return nothing: the job reads no files."""
        return {}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield what the job says."""
        if response is not None and response.status is Status.OK:
            yield 'results', results_of(response)


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what is no plug-in."""
    if 'plugin' not in inputs or 'role' not in inputs:
        return None
    role, name = inputs['role'].value, inputs['plugin'].value
    if role not in registry.ROLES:
        return f'there is no role `{role}`; there are {", ".join(registry.ROLES)}.'
    try:
        registry.reference(registry.ROLES[role], name)
    except registry.UnknownPlugin as error:
        return str(error)
    return None
