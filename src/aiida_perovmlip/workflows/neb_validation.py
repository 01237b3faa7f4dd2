"""How far the barriers of potentials are from those of a reference: paths, labels on their images, one comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.analysis.barriers import LABELS
from aiida_perovmlip.calculations.functions.barriers import compare_paths
from aiida_perovmlip.calculations.functions.paths import build_path, read_recipe, take_ends
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.labellers.base import labeller_named
from aiida_perovmlip.structures.paths import AtomsMeetError, BondBrokenError, EndsDifferError, check_path
from aiida_perovmlip.workflows.band import BandWorkChain
from aiida_perovmlip.workflows.tasks import Task
from aiida_perovmlip.workflows.training import fill, given
from aiida_perovmlip.workflows.validation import (
    ValidationWorkChain,
    failures_of,
    problem_of_potentials,
    problem_of_reference,
)

FIRST = 'first'
"""Name of the path that went in, where no potential relaxes it."""

REFUSED: dict[type[ValueError], str] = {
    EndsDifferError: 'ERROR_ENDS_DIFFER',
    AtomsMeetError: 'ERROR_ATOMS_MEET',
    BondBrokenError: 'ERROR_BOND_BROKEN',
    ValueError: 'ERROR_NO_PATH',
}
"""Exit codes of paths that no band should start from, the most special first."""


class NebValidationWorkChain(ValidationWorkChain):
    """Relax a path with each of some potentials, label its images with a reference, and compare.

    Each path is predicted by all potentials, so that their barriers, and the spread of these, are of the same
    geometries. What of this fails is told, and does not stop the rest.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.input(
            'path', valid_type=DatasetData, required=False, help='The first path; else `recipe` and `structures`.'
        )
        spec.input(
            'recipe', valid_type=orm.Dict, required=False, help='What `build_path` makes the first path by.', **to_node
        )
        spec.input('structures', valid_type=DatasetData, required=False, help='The host, or both ends, for the recipe.')
        spec.input(
            'relax',
            valid_type=orm.Bool,
            default=lambda: orm.Bool(True),
            help='Whether each potential relaxes the path; else energies along the first path are compared.',
            **to_node,
        )
        spec.expose_inputs(BandWorkChain, include=['settings', 'split', 'max_iterations'])
        spec.input(
            'reference_band',
            valid_type=orm.Dict,
            required=False,
            help='Settings of a band that the reference relaxes by itself, from the path of the first potential; '
            'without it the reference labels the images of the potentials alone. `{}` for the defaults.',
            **to_node,
        )
        spec.inputs.validator = _validate
        spec.outline(cls.setup, while_(cls.has_work)(cls.go_on), cls.collect)
        spec.output_namespace(
            'paths', valid_type=DatasetData, dynamic=True, help='The path that each potential relaxed.'
        )
        spec.output_namespace(
            'labels', valid_type=DatasetData, dynamic=True, help='The labels of the reference on each path.'
        )
        spec.output(
            'comparison',
            valid_type=orm.Dict,
            required=False,
            help='Barriers of all potentials and the reference on each path, and how far they are apart.',
        )
        spec.output(
            'profiles',
            valid_type=orm.ArrayData,
            required=False,
            help='Places, energies, slopes and curves, named `path__method__what`.',
        )
        spec.default_output_node = 'comparison'
        spec.exit_code(230, 'ERROR_NO_PATH', message='There is no path: {message}')
        spec.exit_code(231, 'ERROR_ENDS_DIFFER', message='There is no path between other atoms: {message}')
        spec.exit_code(232, 'ERROR_ATOMS_MEET', message='Atoms meet on the first path: {message}')
        spec.exit_code(233, 'ERROR_BOND_BROKEN', message='A molecule is torn apart on the first path: {message}')
        spec.exit_code(580, 'ERROR_NO_BAND', message='No potential gave a relaxed path. {message}')
        spec.exit_code(570, 'ERROR_ENDS_MEET', message='{message}')

    @classmethod
    def get_builder_from_protocol(
        cls,
        potentials: PotentialData | Mapping[str, PotentialData],
        codes: orm.AbstractCode | Mapping[str, orm.AbstractCode],
        *,
        path: DatasetData | None = None,
        recipe: Mapping[str, Any] | None = None,
        structures: DatasetData | None = None,
        settings: Mapping[str, Any] | None = None,
        reference: Any = None,
        reference_band: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> Any:
        """Return a builder.

        :param potentials: one potential, or some by name.
        :param codes: one for all, or by the names of potentials or of their architectures.
        :param path: the first path; else `recipe` and `structures`.
        :param settings: those of the band that differ from its defaults.
        :param reference: a builder of `LabelWorkChain` without frames, as its `get_builder_from_protocol` gives it.
        :param reference_band: settings of a band that the reference relaxes by itself; None for no such band.
        :param options: `metadata.options` of every job of a potential.
        :param inputs: further inputs of the chain.
        """
        known = {
            **cls.methods(potentials, codes, reference, options),
            'path': path,
            'recipe': dict(recipe) if recipe is not None else None,
            'structures': structures,
            'settings': dict(settings) if settings is not None else None,
            'reference_band': dict(reference_band) if reference_band is not None else None,
        }
        return fill(cls.get_builder(), {**known, **inputs})

    # ------------------------------------------------------------------ the steps

    def setup(self) -> ExitCode | None:
        """Make and check the first path."""
        self.begin()
        try:
            path = self._first_path()
        except ValueError as error:
            name = next(name for kind, name in REFUSED.items() if isinstance(error, kind))
            return self.exit_codes[name].format(message=str(error))
        self.ctx.path = path.pk
        return None

    def collect(self) -> ExitCode | None:
        """Compare what there is, and say what there is not."""
        self._enter_failures()
        report, labelled = self._found()
        self._out_found(report, labelled)
        if not report:
            return self._without_path()
        told = {'paths': report, 'failed': self.ctx.failed, 'recipe': self._recipe()}
        self.out_many(compare_paths(orm.Dict(told), **labelled))
        lacks = [*filter(None, [self._what_lacks()]), *self._unlabelled(report)]
        return self.exit_codes.ERROR_INCOMPLETE.format(message=' '.join(lacks)) if lacks else None

    # ------------------------------------------------------------------ what the steps are made of

    def _first_path(self) -> DatasetData:
        """Return the first path, made by the recipe where it was not given; refuse one that is none."""
        path: DatasetData
        made = self._started('first_path')
        if 'path' in self.inputs:
            path = self.inputs.path
        elif made is not None and made.is_finished_ok:
            path = made.outputs.result
        else:
            path = build_path(self.inputs.recipe, self.inputs.structures, metadata={'call_link_label': 'first_path'})
        is_scan = not self.inputs.relax.value and 'reference_band' not in self.inputs
        check_path([frame.to_atoms(labels=False) for frame in path.frames], may_return=is_scan)
        return path

    def _wanted(self) -> Iterator[Task]:
        """Yield all that is to be done as far as it is known, the label of each with a function and its inputs."""
        if self.inputs.relax.value:
            for name in self.inputs.potentials:
                yield f'band_{name}', self._band, (name,)
        first = self._first_relaxed()
        if 'reference_band' in self.inputs and first is not None:
            yield f'band_{LABELS}', self._band_of_reference, first
        for name in self._names_of_paths():
            path = self._path_of(name)
            if path is None:
                continue
            if 'reference' in self.inputs and name != LABELS:
                yield f'label_{name}', self._label, (path,)
            for potential in self.inputs.potentials:
                if potential != name:
                    yield f'predict_{name}_by_{potential}', self._predict, (path, potential)

    def _names_of_paths(self) -> list[str]:
        """Return the names of all paths: those of the potentials that relax one, and of the reference."""
        names = list(self.inputs.potentials) if self.inputs.relax.value else [FIRST]
        return [*names, LABELS] if 'reference_band' in self.inputs else names

    def _path_of(self, name: str) -> DatasetData | None:
        """Return a path by its name; None where it is not there, or not yet."""
        if name == FIRST:
            first: DatasetData = orm.load_node(self.ctx.path)
            return first
        pk = self.ctx.tasks.get(f'band_{name}')
        node: Any = orm.load_node(pk) if pk is not None else None
        found: DatasetData | None = node.outputs.path if node is not None and node.is_finished_ok else None
        return found

    def _band(self, name: str) -> Any:
        """Return the builder of the band of a potential."""
        known = given(self.inputs, 'settings', 'split', 'max_iterations', 'options')
        builder = fill(BandWorkChain.get_builder(), known)
        builder.code, builder.potential = self.inputs.codes[name], self.inputs.potentials[name]
        builder.path = orm.load_node(self.ctx.path)
        head = self.inputs.heads.get_dict().get(name)
        return fill(builder, {'head': head})

    def _first_relaxed(self) -> tuple[DatasetData, DatasetData] | None:
        """Return the first path that the reference has labelled, and these labels; None where there is none yet."""
        for name in self._names_of_paths():
            path, labels = self._path_of(name), self._ended(f'label_{name}')
            if path is not None and labels is not None and not failures_of(labels):
                return path, labels.outputs.dataset
        return None

    def _band_of_reference(self, path: DatasetData, labels: DatasetData) -> Any:
        """Return the builder of the band that the reference relaxes by itself."""
        reference = self.inputs.reference
        process = labeller_named(reference.labeller.value).band
        assert process is not None  # the validator has asked
        builder, ports = process.get_builder(), process.spec().inputs
        known = {
            'code': next(iter(reference.codes.values())),
            'path': path,
            'settings': reference.settings,
            'band': self.inputs.reference_band,
            'labeller': reference.labeller,
            'ends': self._ends(labels) if 'ends' in ports else None,
            **dict(reference.get('job', {})),
        }
        fill(builder, {name: value for name, value in known.items() if name in ports})
        builder.metadata.options.update(reference.options.get_dict())
        return builder

    def _ends(self, labels: DatasetData) -> DatasetData:
        """Return the labels of both ends; made once, as they are a node of the chain."""
        made = self._recorded('ends', take_ends, labels)
        assert made is not None  # there is nothing to refuse
        ends: DatasetData = made['result']
        return ends

    def _found(self) -> tuple[dict[str, Any], dict[str, DatasetData]]:
        """Return what `compare_paths` is told of each path, and the datasets."""
        report: dict[str, Any] = {}
        labelled: dict[str, DatasetData] = {}
        for name in self._names_of_paths():
            path = self._path_of(name)
            if path is None:
                continue
            known = {f'path_{name}': path} if name != FIRST else {}
            own = {name: f'path_{name}'} if name in self.inputs.potentials else {}
            for potential in self.inputs.potentials:
                key = f'predict_{name}_by_{potential}'
                predicted = self._whole(key)
                if predicted is not None:
                    known[key], own[potential] = predicted, key
            if not own:
                continue
            reference = self._ended(f'label_{name}')
            if reference is not None:
                known[f'label_{name}'] = reference.outputs.dataset
            report[name] = {
                'relaxed_by': name if name != FIRST else None,
                'potentials': {each: own[each] for each in self.inputs.potentials if each in own},
                'reference': next((key for key in (f'label_{name}', f'path_{LABELS}') if key in known), None),
                'unlabelled': failures_of(reference),
            }
            labelled |= known
        return report, labelled

    def _unlabelled(self, report: Mapping[str, Any]) -> Iterator[str]:
        """Yield a sentence for each path of which the reference does not know the barrier."""
        for name, entry in report.items():
            if entry['unlabelled']:
                node = self._ended(f'label_{name}')
                first = node.outputs.failures['frames'][0]
                images = ', '.join(map(str, entry['unlabelled']))
                yield f'The images {images} of the path {name} have no label, so its barrier is unknown: '
                yield f'{first["reason"]}'

    def _out_found(self, report: Mapping[str, Any], labelled: Mapping[str, DatasetData]) -> None:
        """Return paths and labels."""
        for name in report:
            for kind, namespace in (('path', 'paths'), ('label', 'labels')):
                if f'{kind}_{name}' in labelled:
                    self.out(f'{namespace}.{name}', labelled[f'{kind}_{name}'])

    def _without_path(self) -> ExitCode:
        """Return why there is nothing to compare; where it is the same for all potentials, with its own code."""
        ends = [orm.load_node(pk).exit_status for pk in self.ctx.tasks.values()]
        meet = self.exit_codes.ERROR_ENDS_MEET
        same = bool(ends) and set(ends) == {meet.status}
        return (meet if same else self.exit_codes.ERROR_NO_BAND).format(message=self._what_lacks())

    def _recipe(self) -> dict[str, Any] | None:
        return self.inputs.recipe.get_dict() if 'recipe' in self.inputs else None


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what cannot be started; the path itself is looked at when the chain begins."""
    problem = _problem_of_first(inputs)
    if problem:
        return problem
    elements = (inputs['path'] if 'path' in inputs else inputs['structures']).elements
    return (
        problem_of_potentials(inputs, elements, (FIRST, LABELS))
        or problem_of_reference(inputs)
        or _problem_of_own_band(inputs)
    )


def _problem_of_first(inputs: Mapping[str, Any]) -> str | None:
    """Return a sentence where it is not clear what the first path is."""
    has = {name: name in inputs for name in ('path', 'recipe', 'structures')}
    if has['path'] == (has['recipe'] or has['structures']) or has['recipe'] != has['structures']:
        return 'the first path is either `path`, or made of `recipe` and `structures`.'
    if has['recipe']:
        try:
            read_recipe(inputs['recipe'].get_dict())
        except ValueError as error:
            return str(error)
    return None


def _problem_of_own_band(inputs: Mapping[str, Any]) -> str | None:
    """Return a sentence where the reference cannot relax a band by itself."""
    if 'reference_band' not in inputs:
        return None
    reference = inputs.get('reference')
    if not reference:
        return 'there is a `reference_band` but no `reference`.'
    labeller = labeller_named(reference['labeller'].value)
    return labeller.problem_of_band(reference['settings'].get_dict(), inputs['reference_band'].get_dict())
