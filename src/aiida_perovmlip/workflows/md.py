"""Simulate molecular dynamics to the end: as many jobs, one after the other, as it takes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from aiida import orm
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.calculations.functions.dynamics import summarize_run
from aiida_perovmlip.calculations.functions.trajectories import join_trajectories
from aiida_perovmlip.calculations.md import MdCalculation
from aiida_perovmlip.compute.contract import number_of
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.data.trajectory import TrajectoryData
from aiida_perovmlip.workflows.pool import PoolWorkChain
from aiida_perovmlip.workflows.training import fill, given, how_it_ended, problem_of_legs

JOB = MdCalculation.exit_codes
LEGS = 100
"""Jobs of one run by default."""

MOST_STUCK = 2
"""Legs one after the other without a step that end the run."""

PASSED_ON = ('code', 'potential', 'start', 'settings', 'engine', 'head', 'committee', 'seed', 'segment_steps')
"""Inputs that are the same for every leg."""

GOES_ON = (
    JOB.ERROR_OUT_OF_WALLTIME,
    JOB.ERROR_SCHEDULER_OUT_OF_WALLTIME,
    JOB.ERROR_SCHEDULER_NODE_FAILURE,
    JOB.ERROR_NO_RESPONSE,
)
"""Ends of a leg after which another one goes on from the newest state."""


class MdWorkChain(PoolWorkChain):
    """Simulate one run of molecular dynamics.

    A leg that ran out of time, or was killed, is followed by one that goes on from the newest state: no frame is lost
    or there twice. A run that explodes ends, and leaves the frames before as candidates for labelling.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.expose_inputs(MdCalculation, include=[*PASSED_ON, 'state'])
        spec.inputs['segment_steps'].help = 'Most steps of one leg; without it a leg goes on while it has time.'
        spec.input(
            'options',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='`metadata.options` of every leg: resources, wall time, queue, `keep_remote`.',
            **to_node,
        )
        spec.input(
            'max_iterations',
            valid_type=orm.Int,
            default=lambda: orm.Int(LEGS),
            help='Largest number of legs.',
            **to_node,
        )
        spec.inputs.validator = _validate
        spec.outline(cls.setup, while_(cls.has_work)(cls.take_stock, cls.launch), cls.collect)
        spec.expose_outputs(MdCalculation, include=['trajectory', 'state', 'candidates'])
        spec.outputs['trajectory'].help = 'The frames and thermodynamic rows of all legs, each once.'
        spec.outputs['state'].help = 'The newest state, from which a longer run can go on.'
        spec.output(
            'results',
            valid_type=orm.Dict,
            required=False,
            help='Means over the whole run with standard errors, the drift of what should be conserved, and `legs`.',
        )
        spec.default_output_node = 'results'
        _define_exit_codes(spec)

    @classmethod
    def get_builder_from_protocol(
        cls,
        code: orm.AbstractCode,
        potential: PotentialData,
        start: DatasetData,
        *,
        protocol: str = 'fast',
        engine: str = 'ase',
        settings: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> Any:
        """Return a builder with the settings of a protocol.

        :param settings: what differs from the protocol.
        :param options: `metadata.options` of every leg.
        :param inputs: further inputs of the chain.
        """
        known = {
            'code': code,
            'potential': potential,
            'start': start,
            'engine': engine,
            'settings': settings_of_protocol(protocol, settings),
            'options': dict(options) if options else None,
        }
        return fill(cls.get_builder(), {**known, **inputs})

    # ------------------------------------------------------------------ the steps

    def setup(self) -> None:
        """Begin with no leg, at the state that was given."""
        self.ctx.jobs, self.ctx.legs, self.ctx.n_stuck, self.ctx.verdict = [], [], 0, None
        self.ctx.state = self.inputs.state.pk if 'state' in self.inputs else None
        self.ctx.step = self.inputs.state.base.attributes.get('step') if 'state' in self.inputs else 0
        self.ctx.is_running, self.ctx.is_done = False, False

    def has_work(self) -> bool:
        """Whether there is a leg to start or to wait for."""
        return not self.ctx.is_done and self.ctx.verdict is None

    def take_stock(self) -> None:
        """Enter the leg that has ended, if it has."""
        if self.ctx.is_running and (node := orm.load_node(self.ctx.jobs[-1])).is_terminated:
            self.ctx.is_running = False
            self._enter(node)

    def launch(self) -> None:
        """Start the next leg, where there is one to start, and await it."""
        if not self.has_work():
            return
        if not self.ctx.is_running:
            label = f'leg_{len(self.ctx.jobs) + 1:02d}'
            try:
                node = self.start(label, self._builder())
            except ValueError as error:  # what AiiDA raises where inputs are refused
                self.ctx.verdict = [210, ' '.join(str(error).split())]
                return
            self.ctx.jobs, self.ctx.is_running = [*self.ctx.jobs, node.pk], True
            self.report(f'{label} is {node.process_label} (PK {node.pk}), from step {self.ctx.step}.')
        self.watch([self.ctx.jobs[-1]])

    def collect(self) -> ExitCode | None:
        """Return the whole trajectory, the newest state, and what they tell."""
        legs = [orm.load_node(pk) for pk in self.ctx.jobs]
        parts = {f'leg_{number:02d}': leg.outputs.trajectory for number, leg in enumerate(legs, 1)
                 if 'trajectory' in leg.outputs}  # fmt: skip
        if parts:
            self._sum_up(parts, legs)
        if self.ctx.state is not None and self.ctx.jobs:
            self.out('state', orm.load_node(self.ctx.state))
        if legs and 'candidates' in legs[-1].outputs:
            self.out('candidates', legs[-1].outputs.candidates)
        return self._code_of(*self.ctx.verdict) if self.ctx.verdict else None

    # ------------------------------------------------------------------ what the steps are made of

    def _sum_up(self, parts: dict[str, TrajectoryData], legs: list[orm.CalcJobNode]) -> None:
        """Give out the trajectory of all legs, and what it tells."""
        whole = next(iter(parts.values()))
        try:
            if len(parts) > 1:
                whole = self.once('join', join_trajectories, **parts)['result']
        except ValueError as error:
            advice = 'The output `trajectory` of each leg is whole; `join_trajectories` joins them.'
            self.ctx.verdict = self.ctx.verdict or [402, f'The legs cannot be joined: {error} {advice}']
            return
        self.out('trajectory', whole)
        told = next((leg.outputs.results for leg in reversed(legs) if 'results' in leg.outputs), None)
        more = {} if told is None else {'results': told}
        self.out('results', self.once('sum_up', summarize_run, whole, orm.List(self.ctx.legs), **more)['result'])

    def _builder(self) -> Any:
        """Return the builder of the next leg."""
        builder = fill(MdCalculation.get_builder(), given(self.inputs, *PASSED_ON))
        if self.ctx.state is not None:
            builder.state = orm.load_node(self.ctx.state)
        builder.metadata.options.update(self.inputs.options.get_dict())
        return builder

    def _enter(self, node: orm.CalcJobNode) -> None:
        """Enter an ended leg: the run is done, goes on, or has failed."""
        leg = leg_of(node, self.ctx.step)
        self.ctx.legs = [*self.ctx.legs, leg]
        reached = node.outputs.state.base.attributes.get('step') if 'state' in node.outputs else -1
        is_ahead = reached > self.ctx.step
        if is_ahead or (reached >= 0 and self.ctx.state is None):
            self.ctx.state, self.ctx.step = node.outputs.state.pk, reached
        ended = how_it_ended(node)
        if node.is_finished_ok and leg['step'] >= leg['n_steps']:
            self.ctx.is_done = True
            return
        if not node.is_finished_ok and node.exit_status not in [code.status for code in GOES_ON]:
            self.ctx.verdict = [_status_of(node), ended]
            return
        self.ctx.n_stuck = 0 if is_ahead else self.ctx.n_stuck + 1
        if self.ctx.n_stuck >= MOST_STUCK:
            self.ctx.verdict = [440, ended]
        elif len(self.ctx.jobs) >= self.inputs.max_iterations.value:
            self.ctx.verdict = [401, ended]
        else:
            self.report(f'{ended} The next leg goes on from step {self.ctx.step} of {leg["n_steps"]}.')

    def _code_of(self, status: int, message: str) -> ExitCode:
        """Return the exit code of the chain: that of its job, where there is one."""
        facts = {'message': message, 'step': self.ctx.step, 'n_legs': len(self.ctx.jobs)}
        known = {code.status: code for code in self.exit_codes.values()}
        return known.get(status, self.exit_codes.ERROR_UNHANDLED_FAILURE).format(**facts)


def protocols() -> dict[str, dict[str, Any]]:
    """Return the protocols by name: what each is for, where it is from, and its settings."""
    text = (files('aiida_perovmlip.workflows') / 'protocols' / 'md.yaml').read_text(encoding='utf-8')
    known: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return known


def settings_of_protocol(protocol: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a protocol with what differs from it; a protocol that is not there is refused.

    Where these ask for another ensemble, the thermostat of the protocol is left out: it is one for a fixed cell.
    """
    known = protocols()
    if protocol not in known:
        raise ValueError(f'molecular dynamics has no protocol `{protocol}`; there are {", ".join(known)}.')
    said = dict(settings or {})
    given = {**known[protocol]['settings'], **said}
    if given.get('ensemble', 'nvt') != 'nvt' and 'thermostat' not in said:
        given.pop('thermostat', None)
    return given


def leg_of(node: orm.CalcJobNode, before: int) -> dict[str, Any]:
    """Return what is to be remembered of an ended leg.

    :param before: the step that had been reached before it.
    """
    results = node.outputs.results.get_dict() if 'results' in node.outputs else {}
    return {
        'uuid': node.uuid,
        'exit_status': node.exit_status,
        'message': how_it_ended(node),
        'begun_at_step': before,
        'step': int(results.get('step', before)),
        'n_steps': results.get('n_steps'),
        'atom_steps_per_second': number_of(results.get('atom_steps_per_second')),
    }


def _status_of(node: orm.CalcJobNode) -> int:
    """Return the exit status of the chain for a leg that cannot be gone on from."""
    if node.is_excepted:
        return 301
    return 302 if node.is_killed else int(node.exit_status)


def _define_exit_codes(spec: ProcessSpec) -> None:
    """Define the exit codes; where a cause has one in the job, it has the same number here."""
    spec.exit_code(210, 'ERROR_BAD_INPUT', message='{message}')
    spec.exit_code(301, 'ERROR_SUB_PROCESS_EXCEPTED', message='{message} Look at its report.')
    spec.exit_code(302, 'ERROR_SUB_PROCESS_KILLED', message='{message}')
    spec.exit_code(320, 'ERROR_MISSING_PACKAGE', message='{message}')
    spec.exit_code(
        401,
        'ERROR_MAXIMUM_ITERATIONS_EXCEEDED',
        message='The run is at step {step} after {n_legs} legs, as many as `max_iterations` allows. {message} Go on: '
        'the output `state` as the input `state` of a new chain.',
    )
    spec.exit_code(402, 'ERROR_UNHANDLED_FAILURE', message='{message} The run is at step {step}; the output `state`, '
                   'where there is one, can be gone on from.')  # fmt: skip
    spec.exit_code(410, 'ERROR_OUT_OF_MEMORY', message='{message}')
    spec.exit_code(
        440,
        'ERROR_NO_PROGRESS',
        message='Two legs one after the other got no further than step {step}. {message} Give the jobs a longer wall '
        'time, or `save_every` fewer steps, and look whether they can start at all: `aiida-perovmlip doctor`.',
    )
    spec.exit_code(535, 'ERROR_EXPLODED', message='{message}')


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    return problem_of_legs(inputs, MdCalculation)
