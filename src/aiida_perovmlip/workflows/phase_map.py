"""Which phases a perovskite, or a series of mixed ones, has over temperature: ramps, transitions, a phase diagram."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.calculations.functions.mixtures import build_mixture
from aiida_perovmlip.calculations.functions.phase_map import map_phases
from aiida_perovmlip.calculations.functions.tilts import measure_modes, measure_tilts
from aiida_perovmlip.calculations.functions.trajectories import select_frames
from aiida_perovmlip.calculations.md import MdCalculation, refusal_of
from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.compute.md import read_md_settings
from aiida_perovmlip.compute.settings import SettingsError
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.data.trajectory import TrajectoryData
from aiida_perovmlip.workflows.md import MdWorkChain
from aiida_perovmlip.workflows.phase_map_plan import (
    PhaseMapSettings,
    PlannedRun,
    planned_runs,
    protocol_of,
    read_phase_map_settings,
)
from aiida_perovmlip.workflows.tasks import Task, TaskWorkChain
from aiida_perovmlip.workflows.training import fill, given, unknown_options

PASSED_ON = ('code', 'potential', 'engine', 'head', 'segment_steps', 'options', 'max_iterations')
"""Inputs that are the same for all runs."""


class PhaseMapWorkChain(TaskWorkChain):
    """Heat and cool perovskites, and tell the phases that they go through.

    Compositions and directions run beside each other; a cooling that starts from the end of a heating waits for it.
    What fails is told, and does not stop the rest. A run that is faster, or a cell that is smaller, than what is known
    to be needed stands among the warnings of the result.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.expose_inputs(MdWorkChain, include=[*PASSED_ON, 'seed'])
        spec.inputs['seed'].help = (
            'Seed of the first run; those of the others, and of their crystals, follow. Another map is independent of '
            'this one where its seed is farther away than this one has runs.'
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='Compositions, temperatures, rate, size; what is left out has its default.',
            **to_node,
        )
        spec.inputs.validator = _validate
        spec.outline(cls.setup, while_(cls.has_work)(cls.take_stock, cls.go_on), cls.collect)
        spec.output(
            'phases',
            valid_type=orm.Dict,
            required=False,
            help='Labels, transitions with hysteresis, phase diagram, boundary, motion of the modes, and `warnings`.',
        )
        spec.output(
            'curves',
            valid_type=orm.ArrayData,
            required=False,
            help='Amplitudes in Å per halide and lattice constants in Å against temperature in K, named '
            '`formula__direction__what`.',
        )
        spec.output_namespace(
            'tilts', valid_type=orm.ArrayData, dynamic=True, help='The tilts of each ramp, frame by frame.'
        )
        spec.output_namespace(
            'correlations', valid_type=orm.ArrayData, dynamic=True, help='The motion of the modes, with its fits.'
        )
        spec.output_namespace('trajectories', valid_type=TrajectoryData, dynamic=True, help='All ramps.')
        spec.default_output_node = 'phases'
        spec.exit_code(581, 'ERROR_INCOMPLETE', message='The map lacks something. {message}')
        spec.exit_code(584, 'ERROR_NO_RUN', message='No ramp could be looked at. {message}')

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode,
        potential: PotentialData,
        *,
        protocol: str = 'fast',
        engine: str | None = None,
        settings: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> Any:
        """Return a builder with the settings of a protocol.

        :param engine: None takes that of the protocol.
        :param settings: what differs from the protocol.
        :param options: `metadata.options` of every job.
        :param inputs: further inputs of the chain.
        """
        known = protocol_of(protocol)
        told = {
            'code': code,
            'potential': potential,
            'engine': engine or known['engine'],
            'settings': {**known['settings'], **(settings or {})},
            'options': dict(options) if options else None,
        }
        return fill(cls.get_builder(), {**told, **inputs})

    # ------------------------------------------------------------------ the steps

    def setup(self) -> None:
        """Begin with nothing done."""
        self.begin()
        runs = self._runs()
        self.report(f'{len(runs)} runs, {self.inputs.max_concurrent.value} at a time.')

    def take_stock(self) -> None:
        """Look at the runs that have ended."""
        self._enter_failures()
        for run in self._runs():
            self._measured(run)

    def collect(self) -> ExitCode | None:
        """Bring all runs together, and say what there is not."""
        self._enter_failures()
        report, nodes = self._found()
        if not report['ramps']:
            return self.exit_codes.ERROR_NO_RUN.format(message=self._what_lacks())
        told = orm.Dict({**report, **self._told()})
        found = self._recorded('map', map_phases, told, **nodes)
        if found is not None:
            self.out_many(found)
        lacks = self._what_lacks()
        return self.exit_codes.ERROR_INCOMPLETE.format(message=lacks) if lacks else None

    # ------------------------------------------------------------------ what the steps are made of

    def _settings(self) -> PhaseMapSettings:
        return read_phase_map_settings(self.inputs.settings.get_dict())

    def _runs(self) -> list[PlannedRun]:
        return list(planned_runs(self._settings(), self.inputs.seed.value))

    def _wanted(self) -> Iterator[Task]:
        """Yield all runs whose start is known, or can be built."""
        settings = self._settings()
        for run in self._runs():
            if run.kind == 'modes' and settings.modes_equilibration > 0:
                yield from self._after(run, run.label.replace('modes', 'settling', 1))
            elif run.kind in ('modes', 'settling'):
                yield from self._from_ramp(run, settings)
            elif run.kind == 'cooling' and settings.cooling_start == 'heating':
                yield from self._after(run, run.label.replace('cooling', 'heating', 1))
            else:
                yield run.label, self._built, (run,)

    def _built(self, run: PlannedRun) -> Any:
        """Return the builder of a ramp from a crystal of its own."""
        settings = self._settings()
        recipe: dict[str, Any] = {
            'formula': run.formula,
            'repeat': settings.repeat_of(run.formula),
            'arrangement': settings.arrangement,
            'lattice_constants': settings.lattice_constants,
        }
        if run.kind == 'heating':
            recipe |= {'glazer': settings.heating_start, 'tilt_degrees': settings.tilt_degrees}
        found = self._recorded(f'build_{run.label}', build_mixture, orm.Dict(recipe), orm.Int(run.seed))
        if found is None:
            raise ValueError('there is no crystal to start from.')
        return self._run(run, found['result'])

    def _after(self, run: PlannedRun, source: str) -> Iterator[Task]:
        """Yield a run that starts from the end of another one."""
        before = self._ended(source)
        if before is not None:
            yield run.label, partial(self._from_frame, before.outputs.trajectory, -1), (run,)
        elif self._is_over(source):
            self._lack(run.label, f'{source}, from whose end it starts, did not end well.')

    def _from_ramp(self, run: PlannedRun, settings: PhaseMapSettings) -> Iterator[Task]:
        """Yield a run at one temperature, from a frame of the first ramp of its crystal that has ended well."""
        name = run.formula.replace('.', '_')
        sources = [f'{direction}_{name}' for direction in settings.directions]
        for source in sources:
            ramp = self._ended(source)
            if ramp is not None:
                index = _nearest(ramp.outputs.trajectory, run.kelvin[0], settings)
                yield run.label, partial(self._from_frame, ramp.outputs.trajectory, index), (run,)
                return
        if all(self._is_over(source) for source in sources):
            self._lack(run.label, 'no ramp of its crystal ended well, from which it could start.')

    def _from_frame(self, trajectory: TrajectoryData, index: int, run: PlannedRun) -> Any:
        """Return the builder of a run from a frame of another one."""
        found = self._recorded(f'start_{run.label}', select_frames, trajectory, indices=orm.List([index]))
        if found is None:
            raise ValueError('there is no frame to start from.')
        return self._run(run, found['result'])

    def _run(self, run: PlannedRun, start: DatasetData) -> Any:
        """Return the builder of a run."""
        builder = fill(MdWorkChain.get_builder(), given(self.inputs, *PASSED_ON))
        builder.start, builder.settings, builder.seed = start, orm.Dict(run.settings), orm.Int(run.seed)
        return builder

    def _measured(self, run: PlannedRun) -> dict[str, Any] | None:
        """Return what is seen in a run; of one that has broken off, as far as it came."""
        if not self._is_over(run.label) or run.label not in self.ctx.tasks or run.kind == 'settling':
            return None
        node = orm.load_node(self.ctx.tasks[run.label])
        if 'trajectory' not in node.outputs:
            return None
        settings = self._settings()
        told: dict[str, Any] = {'smallest': settings.smallest, 'purity': settings.purity}
        if run.kind == 'modes':
            return self._recorded(f'measure_{run.label}', measure_modes, node.outputs.trajectory, orm.Dict(told))
        told |= {'window': settings.window_ps, 'skip': settings.equilibration}
        return self._recorded(f'measure_{run.label}', measure_tilts, node.outputs.trajectory, orm.Dict(told))

    def _found(self) -> tuple[dict[str, Any], dict[str, orm.Node]]:
        """Return the runs that there are, and the nodes that they are known by; give out the nodes of each."""
        report: dict[str, Any] = {'ramps': [], 'modes': []}
        nodes: dict[str, orm.Node] = {}
        for run in self._runs():
            found = self._measured(run)
            if found is None:
                continue
            entry = {'formula': run.formula, 'x': self._settings().x_of(run.formula), 'node': _uuid_of(found)}
            if run.kind == 'modes':
                nodes[run.label] = found['modes']
                report['modes'].append({**entry, 'modes': run.label, 'kelvin': run.kelvin[0]})
                self.out(f'correlations.{run.label}', found['correlations'])
            else:
                nodes[run.label] = found['windows']
                report['ramps'].append({**entry, 'windows': run.label, 'direction': run.kind})
                self.out(f'tilts.{run.label}', found['tilts'])
                self.out(f'trajectories.{run.label}', orm.load_node(self.ctx.tasks[run.label]).outputs.trajectory)
        return report, nodes

    def _told(self) -> dict[str, Any]:
        """Return what the map is told beside the runs."""
        settings = self._settings()
        kelvin = settings.boundary_temperature
        boundary = None if kelvin is None else {'temperature': kelvin, 'half_width': settings.boundary_width}
        return {
            'failed': dict(self.ctx.failed),
            'penalty': settings.penalty,
            'boundary': boundary,
            'axis': settings.axis or list(settings.parts[settings.compositions[-1]][0])[-1],
            'potential': self.inputs.potential.content_hash,
            'engine': self.inputs.engine.value,
        }


def _uuid_of(found: Mapping[str, Any]) -> str:
    """Return the UUID of the node that holds what was seen in a run."""
    return str((found.get('windows') or found['modes']).uuid)


def _nearest(trajectory: TrajectoryData, kelvin: float, settings: PhaseMapSettings) -> int:
    """Return the frame of a ramp at which the temperature that was asked for is the nearest."""
    run = trajectory.trajectory
    times, asked = run.thermo('target_temperature')
    frames = run.times(run.steps())
    late = frames >= settings.equilibration - 1e-9
    away = np.abs(np.interp(frames, times, asked) - kelvin)
    return int(np.where(late, away, np.inf).argmin())


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what no run could do."""
    try:
        settings = read_phase_map_settings(inputs['settings'].get_dict())
    except SettingsError as error:
        return str(error)
    potential = inputs['potential']
    for formula in settings.compositions:
        unknown = missing_elements(settings.elements_of(formula), potential.elements)
        if unknown:
            known = ', '.join(potential.elements)
            return f'{formula} holds {", ".join(unknown)}, but the potential knows only {known}.'
    if inputs['max_concurrent'].value < 1:
        return f'`max_concurrent` is {inputs["max_concurrent"].value} but has to be at least 1.'
    return unknown_options(inputs['options'].get_dict(), MdCalculation) or _problem_of_runs(settings, inputs)


def _problem_of_runs(settings: PhaseMapSettings, inputs: Mapping[str, Any]) -> str | None:
    """Return a sentence where the engine does not do one of the runs; those of a kind are alike."""
    for run in {run.kind: run for run in planned_runs(settings, 0)}.values():
        try:
            problem = refusal_of(read_md_settings(run.settings), inputs['engine'].value, inputs['potential'])
        except SettingsError as error:
            problem = str(error)
        if problem:
            return f'{run.label}: {problem}'
    return None
