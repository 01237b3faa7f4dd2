"""Look into the files of a potential that somebody else made, and make a potential of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.calculations.base import ComputeCalculation, results_of
from aiida_perovmlip.calculations.functions.potentials import potential_of
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.contract import Response, Status
from aiida_perovmlip.data.potential import PotentialData


class InspectCalculation(ComputeCalculation):
    """Open the files of a potential from elsewhere, beside its architecture, and tell what is in them.

    Such files may be pickles, and opening one runs what its author put in. That happens in this job and nowhere else,
    and only where `trust` is said. The potential has the files that went in, whatever the job did to its copy.
    """

    task = 'inspect'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.input(
            'architecture',
            valid_type=orm.Str,
            help='Name of the architecture, one of `aiida_perovmlip.architectures`.',
            **to_node,
        )
        spec.input(
            'files', valid_type=orm.FolderData, help='The files of the potential, under the names of its architecture.'
        )
        spec.input(
            'levels',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='The level of theory, or one for each head; empty where it is not known.',
            **to_node,
        )
        spec.input(
            'trust',
            valid_type=orm.Bool,
            default=lambda: orm.Bool(False),
            help='Whether you know whom the files are from: opening them can run foreign code on the computer of the '
            'job.',
            **to_node,
        )
        spec.inputs.validator = _validate
        spec.output('potential', valid_type=PotentialData, required=False, help='The potential.')
        spec.default_output_node = 'results'

    def _build_process_label(self) -> str:
        """Return a label that says what is looked into."""
        return f'Inspect<{self.inputs.architecture.value}>'

    def plugins(self) -> dict[str, str]:
        """Return the architecture."""
        return {'architecture': registry.reference('architectures', self.inputs.architecture.value)}

    def folders(self) -> dict[str, Any]:
        """Return the files."""
        return {'potential': self.inputs.files}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield what the job says, and the potential where it could be opened."""
        if response is None or response.status is not Status.OK:
            return
        yield 'results', results_of(response)
        inputs = node.inputs
        facts = response.results['facts']
        yield 'potential', potential_of(inputs.files, inputs.architecture.value, facts, inputs.levels.get_dict())


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse an unknown architecture, and files that nobody has vouched for."""
    if 'architecture' not in inputs:
        return None
    name = inputs['architecture'].value
    try:
        kind = registry.load('architectures', name)
    except registry.UnknownPlugin as error:
        return str(error)
    if kind.opens_pickles and not inputs['trust'].value:
        return (
            f'files of {name} are pickles, which can run foreign code when they are opened. Where you know whom they '
            'are from, say so by `trust`.'
        )
    return None
