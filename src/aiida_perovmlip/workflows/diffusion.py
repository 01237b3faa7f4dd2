"""How fast ions or molecules diffuse, and with which activation energy: lattice, runs at several temperatures, fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.calculations.functions.diffusion import analyse_diffusion, measure_displacements
from aiida_perovmlip.calculations.functions.lattice import fit_lattice, measure_lattice, scale_cell
from aiida_perovmlip.calculations.functions.trajectories import select_frames
from aiida_perovmlip.calculations.md import MdCalculation
from aiida_perovmlip.compute.settings import SettingsError
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.data.trajectory import TrajectoryData
from aiida_perovmlip.workflows.diffusion_plan import (
    DiffusionSettings,
    PlannedRun,
    diffusion_runs,
    lattice_runs,
    read_diffusion_settings,
    settings_of_protocol,
)
from aiida_perovmlip.workflows.md import MdWorkChain
from aiida_perovmlip.workflows.tasks import Task, TaskWorkChain
from aiida_perovmlip.workflows.training import fill, given, unknown_options

PASSED_ON = ('code', 'engine', 'head', 'segment_steps', 'options', 'max_iterations')
"""Inputs that are the same for all runs."""


class DiffusionWorkChain(TaskWorkChain):
    """Measure how fast species diffuse in a structure, at several temperatures.

    Runs of the whole crystal at constant pressure give the lattice constants. At each temperature independent runs
    start from the structure with a defect in a cell of that size: each finds its equilibrium first, and is measured
    then. What fails is told, and does not stop the rest.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.expose_inputs(MdWorkChain, include=[*PASSED_ON, 'potential', 'start', 'seed'])
        spec.inputs['start'].help = 'The structure with the defect, a dataset of one frame.'
        spec.inputs['seed'].help = (
            'Seed of the first run; those of the others follow. Another study is independent of this one where its '
            'seed is farther away than this one has runs.'
        )
        spec.input(
            'crystal',
            valid_type=DatasetData,
            required=False,
            help='The structure without a defect, whose lattice constants are found by runs at constant pressure.',
        )
        spec.input(
            'lattice_potential',
            valid_type=PotentialData,
            required=False,
            help='The potential of these runs, of the same architecture; that of all runs if left out.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='Temperatures, number and length of runs, what is followed; what is left out has its default.',
            **to_node,
        )
        spec.inputs.validator = _validate
        spec.outline(cls.setup, while_(cls.has_work)(cls.take_stock, cls.go_on), cls.collect)
        spec.output(
            'lattice',
            valid_type=orm.Dict,
            required=False,
            help='Lattice constants in Å at all temperatures, the runs that they are from, and their line.',
        )
        spec.output(
            'diffusion',
            valid_type=orm.Dict,
            required=False,
            help='Of each species the coefficients in cm²/s with windows, errors and hops, and the Arrhenius fit.',
        )
        spec.output(
            'msd',
            valid_type=orm.ArrayData,
            required=False,
            help='Displacements in Å² against time in ps, named `species__kind__temperature__what`.',
        )
        spec.output_namespace(
            'trajectories', valid_type=TrajectoryData, dynamic=True, help='The runs that were measured.'
        )
        spec.default_output_node = 'diffusion'
        spec.exit_code(581, 'ERROR_INCOMPLETE', message='The study lacks something. {message}')
        spec.exit_code(583, 'ERROR_NO_LATTICE', message='There are no lattice constants. {message}')
        spec.exit_code(584, 'ERROR_NO_RUN', message='No run could be measured. {message}')

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode,
        potential: PotentialData,
        start: DatasetData,
        *,
        crystal: DatasetData | None = None,
        protocol: str = 'fast',
        engine: str = 'ase',
        settings: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> Any:
        """Return a builder with the settings of a protocol.

        :param start: the structure with the defect.
        :param crystal: the one without, for the lattice constants; not needed where these are given, or where
            `lattice_temperatures` is empty.
        :param settings: what differs from the protocol.
        :param options: `metadata.options` of every job.
        :param inputs: further inputs of the chain.
        """
        known = {
            'code': code,
            'potential': potential,
            'start': start,
            'crystal': crystal,
            'engine': engine,
            'settings': settings_of_protocol(protocol, settings),
            'options': dict(options) if options else None,
        }
        return fill(cls.get_builder(), {**known, **inputs})

    # ------------------------------------------------------------------ the steps

    def setup(self) -> None:
        """Begin with nothing done."""
        self.begin()
        settings = self._settings()
        runs = len(settings.temperatures) * settings.n_runs
        self.report(f'{runs} runs of {settings.production:g} ps, {self.inputs.max_concurrent.value} at a time.')

    def take_stock(self) -> None:
        """Measure what has ended."""
        self._enter_failures()
        for run in lattice_runs(self._settings(), 0):
            self._lattice_at(run)
        for _, run in diffusion_runs(self._settings(), 0):
            self._measured(run)

    def collect(self) -> ExitCode | None:
        """Bring all runs together, and say what there is not."""
        self._enter_failures()
        lattice = self._lattice() if self._settings().scales_cell else None
        if lattice is not None:
            self.out('lattice', lattice)
        elif self._settings().scales_cell:
            return self.exit_codes.ERROR_NO_LATTICE.format(message=self._what_lacks())
        report, nodes = self._found()
        if not report:
            return self.exit_codes.ERROR_NO_RUN.format(message=self._what_lacks())
        found = self._recorded('analysis', analyse_diffusion, orm.Dict(self._told(report)), **nodes)
        if found is None:
            return self.exit_codes.ERROR_INCOMPLETE.format(message=self._what_lacks())
        self.out_many(found)
        return self.exit_codes.ERROR_INCOMPLETE.format(message=self._what_lacks()) if self.ctx.failed else None

    # ------------------------------------------------------------------ what the steps are made of

    def _settings(self) -> DiffusionSettings:
        return read_diffusion_settings(self.inputs.settings.get_dict())

    def _wanted(self) -> Iterator[Task]:
        """Yield all runs that can be made as far as lattice constants and equilibria are known."""
        settings, seed = self._settings(), self.inputs.seed.value
        for run in lattice_runs(settings, seed):
            yield run.label, self._lattice_run, (run,)
        if settings.scales_cell and self._lattice() is None:
            return
        for before, run in diffusion_runs(settings, seed):
            start = self._start_of(run)
            if start is None:
                continue
            if before is not None:
                yield before.label, self._run, (before, start)
                start = self._equilibrated(before)
            if start is not None:
                yield run.label, self._run, (run, start)

    def _lattice_run(self, run: PlannedRun) -> Any:
        """Return the builder of a run of the whole crystal."""
        builder = self._run(run, self.inputs.crystal)
        builder.potential = self.inputs.get('lattice_potential', self.inputs.potential)
        return builder

    def _run(self, run: PlannedRun, start: DatasetData) -> Any:
        """Return the builder of a run."""
        builder = fill(MdWorkChain.get_builder(), given(self.inputs, *PASSED_ON, 'potential'))
        builder.start, builder.settings, builder.seed = start, orm.Dict(run.settings), orm.Int(run.seed)
        return builder

    def _lattice_at(self, run: PlannedRun) -> orm.Dict | None:
        """Return the lattice constants of a run, where it has ended well."""
        node = self._ended(run.label)
        if node is None:
            return None
        settings = self._settings()
        told = orm.Dict({'temperature': run.temperature, 'repeat': settings.repeat, 'host': settings.host})
        found = self._recorded(f'measure_{run.label}', measure_lattice, node.outputs.trajectory, told)
        return found['result'] if found is not None else None

    def _lattice(self) -> orm.Dict | None:
        """Return the lattice constants at all temperatures, as soon as all runs that they are from have ended."""
        settings = self._settings()
        runs = list(lattice_runs(settings, 0))
        if not all(self._is_over(run.label) for run in runs):
            return None
        points = {run.label: self._lattice_at(run) for run in runs}
        known = {label: point for label, point in points.items() if point is not None}
        told = {'temperatures': settings.temperatures, 'given': settings.lattice_constants}
        if runs and len(known) < 2:
            self._lack('fit_lattice', f'{len(known)} of {len(runs)} runs gave a lattice constant; a line takes two.')
            return None
        found = self._recorded('fit_lattice', fit_lattice, orm.Dict(told), **known)
        return found['result'] if found is not None else None

    def _start_of(self, run: PlannedRun) -> DatasetData | None:
        """Return the structure in the cell of a temperature."""
        start: DatasetData = self.inputs.start
        settings, lattice = self._settings(), self._lattice() if self._settings().scales_cell else None
        if lattice is None:
            return start
        told = {'temperature': run.temperature, 'repeat': settings.repeat, 'host': settings.host}
        label = f'scale_{run.temperature:g}K'.replace('.', '_')
        found = self._recorded(label, scale_cell, start, lattice, orm.Dict(told))
        scaled: DatasetData | None = found['result'] if found is not None else None
        return scaled

    def _equilibrated(self, before: PlannedRun) -> DatasetData | None:
        """Return the last frame of an equilibration, where it has ended well."""
        node = self._ended(before.label)
        if node is None:
            return None
        label = before.label.replace('equilibrate', 'last_of')
        found = self._recorded(label, select_frames, node.outputs.trajectory, indices=orm.List([-1]))
        frames: DatasetData | None = found['result'] if found is not None else None
        return frames

    def _measured(self, run: PlannedRun) -> dict[str, Any] | None:
        """Return the displacements of a production, where it has ended well."""
        node = self._ended(run.label)
        if node is None:
            return None
        label = run.label.replace('produce', 'measure')
        told = orm.Dict(self._settings().following())
        return self._recorded(label, measure_displacements, node.outputs.trajectory, told)

    def _found(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return what the analysis is told of each run, and the nodes; the trajectories go out."""
        report: list[dict[str, Any]] = []
        nodes: dict[str, Any] = {}
        for _, run in diffusion_runs(self._settings(), self.inputs.seed.value):
            measured = self._measured(run)
            if measured is None:
                continue
            place = run.label.removeprefix('produce_')
            self.out(f'trajectories.at_{place}', self._ended(run.label).outputs.trajectory)
            nodes |= {f'{what}_{place}': measured[what] for what in ('displacements', 'counts')}
            names = {what: f'{what}_{place}' for what in ('displacements', 'counts')}
            report.append({'temperature': run.temperature, 'seed': run.seed, **names})
        return report, nodes

    def _told(self, report: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what the analysis is told and passes on."""
        settings, potential = self._settings(), self.inputs.potential
        frame = self.inputs.start.frames[0]
        return {
            'runs': report,
            'window': settings.window,
            'attempt_frequency': settings.attempt_frequency,
            'formula': frame.to_atoms(labels=False).get_chemical_formula(),
            'charge': frame.charge,
            'architecture': potential.architecture,
            'potential': potential.content_hash,
            'engine': self.inputs.engine.value,
            'n_runs_asked': settings.n_runs,
            'settings': self.inputs.settings.get_dict(),
            'failed': dict(self.ctx.failed),
        }


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what no run could do."""
    if any(name not in inputs for name in ('potential', 'start', 'settings')):
        return None
    try:
        settings = read_diffusion_settings(inputs['settings'].get_dict())
    except SettingsError as error:
        return str(error)
    if inputs['max_concurrent'].value < 1:
        return f'`max_concurrent` is {inputs["max_concurrent"].value} but has to be at least 1.'
    if settings.needs_lattice_runs and 'crystal' not in inputs:
        return (
            'lattice constants are to be found, but there is no `crystal` without a defect; give it, or '
            '`lattice_constants`, or no `lattice_temperatures` to keep the cell of the start.'
        )
    if 'lattice_potential' in inputs and not settings.needs_lattice_runs:
        return '`lattice_potential` has no effect, as no lattice constants are to be found; leave it out.'
    if settings.bayesian and find_spec('kinisi') is None:
        return '`bayesian` needs the package kinisi beside AiiDA, and it is not installed; it asks for numpy 2.'
    return _problem_of_species(settings, inputs) or _problem_of_runs(settings, inputs)


def _problem_of_species(settings: DiffusionSettings, inputs: Mapping[str, Any]) -> str | None:
    """Return a sentence where the start does not hold what is followed, or the host."""
    held = set(inputs['start'].elements)
    asked = [name for name in (*settings.followed, settings.host) if name not in ('MA', 'FA')]
    missing = [name for name in asked if name not in held]
    if missing:
        return f'the start holds {", ".join(sorted(held))}, and no {", ".join(missing)}.'
    return None


def _problem_of_runs(settings: DiffusionSettings, inputs: Mapping[str, Any]) -> str | None:
    """Return a sentence where the engine, the potential or a structure does not do for one of the runs."""
    unknown = unknown_options(inputs['options'].get_dict(), MdCalculation)
    if unknown:
        return unknown
    examples = [(run, 'crystal') for run in lattice_runs(settings, 0)][:1]
    examples += [(run, 'start') for pair in list(diffusion_runs(settings, 0))[:1] for run in pair if run is not None]
    validate = MdCalculation.spec().inputs.validator
    for run, name in examples:
        told = {**given(inputs, *PASSED_ON, 'potential'), 'start': inputs[name], 'settings': orm.Dict(run.settings)}
        if run.kind == 'lattice' and 'lattice_potential' in inputs:
            told['potential'] = inputs['lattice_potential']
        problem = validate(AttributeDict(told), None) if validate is not None else None
        if problem:
            return f'{run.label}: {problem}'
    return None
