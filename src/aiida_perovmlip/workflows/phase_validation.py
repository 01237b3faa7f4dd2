"""How far the energies of phases by potentials are from those of a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.analysis.barriers import LABELS
from aiida_perovmlip.calculations.functions.phases import compare_phases, refuse_other_formulas
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.workflows.tasks import Task
from aiida_perovmlip.workflows.training import fill
from aiida_perovmlip.workflows.validation import (
    ValidationWorkChain,
    failures_of,
    problem_of_potentials,
    problem_of_reference,
)

TAKEN = (LABELS, 'report', 'structures')
"""Names that something else has in the comparison."""


class PhaseValidationWorkChain(ValidationWorkChain):
    """Predict the energies of phases with some potentials, label them with a reference, and compare.

    The structures are taken as they are; the group of each is the phase that it belongs to.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        spec.input(
            'structures', valid_type=DatasetData, help='Structures of one substance; the group of each is its phase.'
        )
        spec.input(
            'zero',
            valid_type=orm.Str,
            serializer=orm.to_aiida_type,
            help='The phase whose energy is zero.',
        )
        spec.inputs.validator = _validate
        spec.outline(cls.begin, while_(cls.has_work)(cls.go_on), cls.collect)
        spec.output(
            'labels', valid_type=DatasetData, required=False, help='The labels of the reference on the structures.'
        )
        spec.output(
            'comparison',
            valid_type=orm.Dict,
            required=False,
            help='Energies of the phases in eV per formula unit by all methods, and how far they are apart.',
        )
        spec.default_output_node = 'comparison'
        spec.exit_code(582, 'ERROR_NO_PREDICTION', message='No potential predicts the structures. {message}')

    @classmethod
    def get_builder_from_protocol(
        cls,
        potentials: PotentialData | Mapping[str, PotentialData],
        codes: orm.AbstractCode | Mapping[str, orm.AbstractCode],
        structures: DatasetData,
        zero: str,
        *,
        reference: Any = None,
        options: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> Any:
        """Return a builder; for potentials, codes, reference and options see `methods`.

        :param zero: the phase whose energy is zero.
        :param inputs: further inputs of the chain.
        """
        known = cls.methods(potentials, codes, reference, options)
        return fill(cls.get_builder(), {**known, 'structures': structures, 'zero': zero, **inputs})

    # ------------------------------------------------------------------ the steps

    def collect(self) -> ExitCode | None:
        """Compare what there is, and say what there is not."""
        self._enter_failures()
        predicted = {name: self._whole(f'predict_by_{name}') for name in self.inputs.potentials}
        labelled = {name: dataset for name, dataset in predicted.items() if dataset is not None}
        if not labelled:
            return self.exit_codes.ERROR_NO_PREDICTION.format(message=self._what_lacks())
        reference = self._ended('label')
        if reference is not None:
            labelled[LABELS] = reference.outputs.dataset
            self.out('labels', reference.outputs.dataset)
        unlabelled = failures_of(reference)
        told = {'zero': self.inputs.zero.value, 'unlabelled': unlabelled, 'failed': self.ctx.failed}
        self.out('comparison', compare_phases(orm.Dict(told), self.inputs.structures, **labelled))
        if unlabelled:
            first = reference.outputs.failures['frames'][0]
            which = ', '.join(map(str, unlabelled))
            self._lack('label', f'the structures {which} have no label: {first["reason"]}')
        lacks = self._what_lacks()
        return self.exit_codes.ERROR_INCOMPLETE.format(message=lacks) if lacks else None

    # ------------------------------------------------------------------ what the steps are made of

    def _wanted(self) -> Iterator[Task]:
        """Yield the labelling and the predictions."""
        if 'reference' in self.inputs:
            yield 'label', self._label, (self.inputs.structures,)
        for name in self.inputs.potentials:
            yield f'predict_by_{name}', self._predict, (self.inputs.structures, name)


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what cannot be started."""
    if 'structures' not in inputs or 'zero' not in inputs:
        return None
    structures = inputs['structures']
    groups, zero = structures.base.attributes.get('groups'), inputs['zero'].value
    if zero not in groups:
        return f'there is no phase `{zero}`; the groups of the structures are {", ".join(groups)}.'
    try:
        refuse_other_formulas(list(structures.frames))
    except ValueError as error:
        return str(error)
    return problem_of_potentials(inputs, structures.elements, TAKEN) or problem_of_reference(inputs)
