"""What all chains have in common that judge potentials by a reference on the same structures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ProcessSpec

from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.labellers.base import labeller_named
from aiida_perovmlip.workflows.label import LabelWorkChain
from aiida_perovmlip.workflows.tasks import TaskWorkChain
from aiida_perovmlip.workflows.training import fill

NAME = re.compile('[A-Za-z0-9]+(_[A-Za-z0-9]+)*')
"""What a potential may be called: the names of outputs hold it, in which AiiDA has two underscores for levels."""


class ValidationWorkChain(TaskWorkChain):
    """Base of chains in which some potentials predict, and a reference labels, the same structures."""

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define potentials and reference."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.input_namespace(
            'potentials', valid_type=PotentialData, dynamic=True, help='The potentials to judge, by names of your own.'
        )
        spec.input_namespace(
            'codes',
            valid_type=orm.AbstractCode,
            dynamic=True,
            help='The Python that each potential is used with, by the same names.',
        )
        spec.input(
            'heads',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='The head to predict with, by the name of the potential; needed where one has several.',
            **to_node,
        )
        spec.input(
            'options',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='`metadata.options` of every job of a potential.',
            **to_node,
        )
        spec.expose_inputs(
            LabelWorkChain,
            namespace='reference',
            exclude=('frames', 'failures', 'labelled'),
            namespace_options={
                'required': False,
                'populate_defaults': False,
                'help': 'How the reference labels the structures; without it potentials alone are compared.',
            },
        )
        spec.inputs['reference'].validator = None  # it knows defaults that a builder has not filled in yet
        spec.exit_code(581, 'ERROR_INCOMPLETE', message='The comparison lacks something. {message}')

    @classmethod
    def methods(
        cls,
        potentials: PotentialData | Mapping[str, PotentialData],
        codes: orm.AbstractCode | Mapping[str, orm.AbstractCode],
        reference: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the inputs that are said of potentials and the reference.

        :param potentials: one potential, or some by name.
        :param codes: one for all, or by the names of potentials or of their architectures.
        :param reference: a builder of `LabelWorkChain`; its frames do not matter.
        :param options: `metadata.options` of every job of a potential.
        """
        if isinstance(potentials, PotentialData):
            potentials = {potentials.architecture: potentials}
        return {
            'potentials': dict(potentials),
            'codes': {name: _code_of(name, potential, codes) for name, potential in potentials.items()},
            'reference': _bare(reference) if reference is not None else None,
            'options': dict(options) if options else None,
        }

    # ------------------------------------------------------------------ what the steps are made of

    def _label(self, frames: DatasetData) -> Any:
        """Return the builder by which the reference labels frames."""
        builder = LabelWorkChain.get_builder()
        builder.frames = frames
        return fill(builder, {name: value for name, value in self.inputs.reference.items() if name != 'metadata'})

    def _predict(self, frames: DatasetData, name: str) -> Any:
        """Return the builder by which a potential predicts frames."""
        builder = LabelWorkChain.get_builder()
        builder.frames, builder.labeller = frames, 'potential'
        builder.codes = {'code': self.inputs.codes[name]}
        builder.job = {'potential': self.inputs.potentials[name]}
        builder.options = self.inputs.options
        head = self.inputs.heads.get_dict().get(name)
        builder.settings = {'head': head} if head else {}
        return builder

    def _ended(self, label: str) -> Any:
        """Return what has ended well under a label, with labels; None where there is none."""
        node = super()._ended(label)
        return node if node is not None and 'dataset' in node.outputs else None

    def _whole(self, label: str) -> DatasetData | None:
        """Return what a potential predicted, where it predicted all frames; where it did not, that is told."""
        node = self._ended(label)
        failures = failures_of(node)
        if failures:
            self._lack(label, f'it predicts nothing for the frames {", ".join(map(str, failures))}.')
        found: DatasetData | None = node.outputs.dataset if node is not None and not failures else None
        return found


def failures_of(node: Any) -> list[int]:
    """Return the frames that a labelling left without a label, counted from 0; none where there is no labelling."""
    return [] if node is None else [row['frame'] for row in node.outputs.failures['frames']]


def _bare(reference: Any) -> AttributeDict:
    """Return the inputs of a builder of a labelling, without those that the chain gives."""
    inputs = reference._inputs(prune=True) if hasattr(reference, '_inputs') else dict(reference)
    return AttributeDict({name: value for name, value in inputs.items() if name not in ('frames', 'metadata')})


def _code_of(name: str, potential: PotentialData, codes: Any) -> orm.AbstractCode:
    """Return the code of a potential."""
    if isinstance(codes, orm.AbstractCode):
        return codes
    found = codes.get(name, codes.get(potential.architecture))
    if found is None:
        raise ValueError(f'there is no code for `{name}`: name one by it, or by `{potential.architecture}`.')
    return found


def problem_of_potentials(inputs: Mapping[str, Any], elements: Sequence[str], taken: Sequence[str]) -> str | None:
    """Return a sentence where potentials and codes do not fit each other, or the structures.

    :param elements: those of the structures.
    :param taken: names that something else has in the comparison.
    """
    potentials, codes = inputs.get('potentials') or {}, inputs.get('codes') or {}
    if not potentials:
        return 'there is no potential to judge: `builder.potentials = {"mace": potential}`.'
    if set(potentials) != set(codes):
        named, known = ', '.join(sorted(potentials)), ', '.join(sorted(codes)) or 'none'
        return f'the potentials are {named}, but the codes {known}.'
    strange = sorted(set(inputs['heads'].get_dict()) - set(potentials))
    if strange:
        return f'`heads` names {", ".join(strange)}, which is no potential of the chain.'
    if odd := [name for name in potentials if not NAME.fullmatch(name)]:
        return f'a potential is called `{odd[0]}`, but its name has to be of letters, digits and single underscores.'
    if clash := sorted(set(taken) & set(potentials)):
        return f'a potential may not be called `{clash[0]}`: that is what something else is called in the comparison.'
    for name, potential in potentials.items():
        unknown = missing_elements(elements, potential.elements)
        if unknown:
            known = ', '.join(potential.elements)
            return f'the structures hold {", ".join(unknown)}, but the potential `{name}` knows only {known}.'
    return None


def problem_of_reference(inputs: Mapping[str, Any]) -> str | None:
    """Return a sentence where the reference cannot label, or labels other structures than the potentials predict."""
    reference = inputs.get('reference')
    if not reference:
        return None
    validate = LabelWorkChain.spec().inputs.validator
    problem = validate(reference, None) if validate is not None else None
    if problem or 'labeller' not in reference:
        return problem
    labeller = labeller_named(reference['labeller'].value)
    if labeller.moves_atoms(labeller.read(reference['settings'].get_dict())):
        return 'the reference moves the atoms (`run`), but has to label the structures as they are; leave `run` out.'
    return None
