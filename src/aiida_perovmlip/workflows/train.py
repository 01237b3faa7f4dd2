"""Train one potential to the end, with the repairs that a careful person would make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.engine import BaseRestartWorkChain, ExitCode, ProcessHandlerReport, ProcessSpec, process_handler, while_

from aiida_perovmlip.calculations.functions.training import add_legs
from aiida_perovmlip.calculations.monitors import DIVERGENCE
from aiida_perovmlip.calculations.progress import is_number, retrieved_states
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.workflows.pool import PoolWorkChain
from aiida_perovmlip.workflows.training import (
    fill,
    given,
    how_it_ended,
    monitors_of,
    settings_of_protocol,
    unknown_options,
)

JOB = TrainCalculation.exit_codes
LEGS = 10
"""Legs of a training by default: the first one, and those after a repair or the end of the wall time."""

PASSED_ON = ('architecture', 'training', 'validation', 'parent', 'replay', 'strategy', 'seed', 'code')
"""Inputs that are the same for every leg."""


class TrainWorkChain(BaseRestartWorkChain, PoolWorkChain):
    """Train one potential, in as many jobs (legs) as it takes.

    A training that ran out of wall time or was killed goes on from its checkpoint; one that ran out of memory takes
    smaller batches; one that diverged starts anew with a lower learning rate. `results` lists all legs and what was
    changed between these.
    """

    _process_class = TrainCalculation

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        spec.expose_inputs(TrainCalculation, include=[*PASSED_ON, 'settings', 'restart', 'monitors'])
        spec.input(
            'options',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            serializer=orm.to_aiida_type,
            help='`metadata.options` of every job: resources, wall time, queue.',
        )
        spec.inputs['max_iterations'].default = lambda: orm.Int(LEGS)
        spec.inputs['max_iterations'].help = 'Largest number of jobs (legs).'
        spec.inputs['clean_workdir'].help = (
            'Whether to empty the folders of the jobs once the potential is made. Those of a training that failed are '
            'kept: it can go on from these.'
        )
        del spec.inputs['pause_on_max_iterations']  # the number of the legs would start anew, and with it their names
        spec.inputs.validator = validate_training
        spec.outline(cls.setup, while_(cls.should_run_process)(cls.run_process, cls.inspect_process), cls.results)
        spec.expose_outputs(TrainCalculation, include=['potential', 'curve', 'remote_folder'])
        spec.outputs['remote_folder'].required = False
        spec.output(
            'results',
            valid_type=orm.Dict,
            required=False,
            help='The results of the last leg that told any, `legs` with what was done and changed in each, and the '
            'seconds of all.',
        )
        _define_exit_codes(spec)

    @classmethod
    def get_builder_from_protocol(
        cls,
        architecture: str,
        code: orm.AbstractCode,
        training: DatasetData,
        validation: DatasetData | None = None,
        *,
        protocol: str = 'fast',
        strategy: str | None = None,
        parent: PotentialData | None = None,
        replay: DatasetData | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        monitor: bool | Mapping[str, Any] = True,
        **inputs: Any,
    ) -> Any:
        """Return a builder with the settings of a protocol.

        :param settings: what differs from the protocol.
        :param options: `metadata.options` of every job.
        :param monitor: whether a running job is stopped where it diverges; a mapping changes the monitor.
        :param inputs: further inputs of the chain.
        """
        known = {
            'architecture': architecture,
            'code': code,
            'training': training,
            'validation': validation,
            'strategy': strategy,
            'parent': parent,
            'replay': replay,
            'settings': settings_of_protocol(architecture, protocol, settings, has_parent=parent is not None),
            'seed': seed,
            'options': dict(options) if options else None,
            'monitors': monitors_of(monitor) or None,
        }
        return fill(cls.get_builder(), {**known, **inputs})

    # ------------------------------------------------------------------ the steps

    def setup(self) -> None:
        """Begin with nothing done and nothing changed."""
        super().setup()
        self.ctx.process_name = f'Train<{self.inputs.architecture.value}>'
        self.ctx.legs, self.ctx.changes, self.ctx.reason, self.ctx.n_stuck = [], {}, '', 0
        self.ctx.restart = self.inputs.restart.pk if 'restart' in self.inputs else None

    def run_process(self) -> ExitCode | None:
        """Start the next leg, or find the one that this very step had started before the daemon was killed."""
        self.ctx.iteration += 1
        label = f'leg_{self.ctx.iteration:02d}'
        try:
            node = self.start(label, self._builder())
        except ValueError as error:  # what AiiDA raises where inputs are refused: a repair has spoiled the settings
            self._leave()
            return self.exit_codes.ERROR_BAD_INPUT.format(message=' '.join(str(error).split()), job=label)
        considered = self.node.base.extras.get(self._considered_handlers_extra, [])
        considered += [[]] * (self.ctx.iteration - len(considered))
        self.node.base.extras.set(self._considered_handlers_extra, considered)
        self.report(f'{label} is {self.ctx.process_name} (PK {node.pk}){self._how()}.')
        self.ctx.children = [*self.ctx.get('children', []), node]
        self.watch([node.pk])
        return None

    def inspect_process(self) -> ExitCode | None:
        """Look at how the leg ended; where the chain ends here, leave what is known."""
        node = self.ctx.children[-1]
        self.ctx.verdict = None
        self._enter(node)
        code: ExitCode | None = super().inspect_process()
        if code is None and node.is_failed and 'repair' not in self.ctx.legs[-1]:
            self._repair(node, restart=True)  # no handler knows it, but `on_unhandled_failure` wants another leg
        if code is None or code.status == 0:
            return code
        code = self._final(code, node)
        self._leave()
        return code

    def results(self) -> None:
        """Return the potential."""
        legs = len(self.ctx.legs)
        self.report(f'the potential is made, in {legs} {"leg" if legs == 1 else "legs"}.')
        self._leave()

    def on_terminated(self) -> None:
        """Clean the folders of the legs where that was asked for and the potential is made.

        Whoever goes on with a training that failed needs its states, and the folder of a leg that came from the cache
        is another job's.
        """
        super(BaseRestartWorkChain, self).on_terminated()
        if not self.inputs.clean_workdir.value:
            return
        if not self.node.is_finished_ok:
            self.report('the folders of the legs are kept, as the training can go on from these.')
            return
        own = [node for node in self.ctx.children if not node.base.caching.is_created_from_cache]
        for node in own:
            try:
                node.outputs.remote_folder._clean()
            except Exception as error:  # whatever a transport raises; the potential is there all the same
                self.report(f'the folder of the job {node.pk} could not be cleaned: {error}')

    # ------------------------------------------------------------------ the repairs

    @process_handler(priority=510, exit_codes=[JOB.ERROR_BAD_INPUT])
    def begin_anew_where_the_checkpoint_refuses_the_repair(self, node: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Begin anew: not every trainer takes other settings in the middle of a training."""
        repair = self.ctx.legs[-2].get('repair') if len(self.ctx.legs) > 1 else None
        return self._repair(node, restart=False) if repair and repair['resumes'] and repair['changed'] else None

    @process_handler(priority=500, exit_codes=[JOB.ERROR_BAD_INPUT, JOB.ERROR_MISSING_PACKAGE])
    def stop_at_what_a_person_has_to_mend(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Stop: the next leg would end the same way."""
        return self._stop(node.exit_status, node)

    @process_handler(priority=490, exit_codes=[JOB.ERROR_SETTINGS_IGNORED])
    def stop_where_the_trainer_did_something_else(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Stop: a potential that is not what was asked for is no result."""
        return self._stop(node.exit_status, node)

    @process_handler(
        priority=400,
        exit_codes=[
            JOB.ERROR_OUT_OF_WALLTIME,
            JOB.ERROR_SCHEDULER_OUT_OF_WALLTIME,
            JOB.ERROR_SCHEDULER_NODE_FAILURE,
            JOB.ERROR_NO_RESPONSE,
        ],
    )
    def go_on_where_it_stopped(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Start a leg that goes on from the checkpoint; not again and again where nothing comes of it."""
        leg = self.ctx.legs[-1]
        self.ctx.n_stuck = 0 if leg['reached'] > reached_before(self.ctx.legs) else self.ctx.n_stuck + 1
        if self.ctx.n_stuck >= 2:
            return self._stop(440, node, step=leg['reached'])
        return self._repair(node, restart=True)

    @process_handler(priority=390, exit_codes=[JOB.ERROR_OUT_OF_MEMORY, JOB.ERROR_SCHEDULER_OUT_OF_MEMORY])
    def take_smaller_batches(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Take smaller batches, and go on from the checkpoint where steps were done."""
        changes = self._architecture().smaller_batch(self._settings(), has_parent='parent' in self.inputs)
        if not changes:
            return self._stop(410, node)
        return self._repair(node, changes, restart=self.ctx.legs[-1]['reached'] > 0)

    @process_handler(priority=380, exit_codes=[JOB.ERROR_DIVERGED, JOB.ERROR_NOT_FINITE, JOB.STOPPED_BY_MONITOR])
    def lower_the_rate(self, node: orm.CalcJobNode) -> ProcessHandlerReport:
        """Start anew with a lower rate: what has diverged is no state to go on from."""
        if node.exit_status == JOB.STOPPED_BY_MONITOR.status and DIVERGENCE not in (node.exit_message or ''):
            return self._stop(450, node)
        changes = self._architecture().lower_rate(self._settings(), has_parent='parent' in self.inputs)
        if not changes:
            return self._stop(510, node)
        return self._repair(node, changes, restart=False)

    def _repair(
        self, node: orm.CalcJobNode, changes: Mapping[str, Any] | None = None, *, restart: bool
    ) -> ProcessHandlerReport:
        """Remember what the next leg does differently, and say so."""
        leg = self.ctx.legs[-1]
        if not restart:
            self.ctx.restart, self.ctx.n_stuck = None, 0
        elif leg['reached'] or self.ctx.restart is None:
            self.ctx.restart = node.outputs.remote_folder.pk if leg['reached'] else None
        self.ctx.changes = {**self.ctx.changes, **(changes or {})}
        told = ', '.join(f'`{name}` {value!r}' for name, value in (changes or {}).items())
        how = f'goes on from step {leg["reached"]}' if self.ctx.restart is not None else 'begins anew'
        self.ctx.reason = f'{leg["message"]} The next leg {how}{f" with {told}" if told else ""}.'
        leg['repair'] = {'changed': dict(changes or {}), 'resumes': self.ctx.restart is not None}
        self.report(self.ctx.reason)
        return ProcessHandlerReport(True)

    def _stop(self, status: int, node: orm.CalcJobNode, **facts: Any) -> ProcessHandlerReport:
        """Stop with an exit code of this chain that has the message of the job."""
        code = self.exit_codes(status).format(
            message=node.exit_message, tried=self._tried(), job=f'job PK {node.pk}', **facts
        )
        self.ctx.verdict = [code.status, code.message]
        return ProcessHandlerReport(True, code)

    # ------------------------------------------------------------------ what the steps are made of

    def _builder(self) -> Any:
        """Return the builder of the next leg."""
        builder = fill(TrainCalculation.get_builder(), given(self.inputs, *PASSED_ON))
        settings = self.inputs.settings
        builder.settings = orm.Dict({**settings.get_dict(), **self.ctx.changes}) if self.ctx.changes else settings
        if self.ctx.restart is not None:
            builder.restart = orm.load_node(self.ctx.restart)
        if self.inputs.get('monitors'):
            builder.monitors = dict(self.inputs.monitors)
        builder.metadata.options.update(self.inputs.options.get_dict())
        return builder

    def _architecture(self) -> Any:
        return registry.load('architectures', self.inputs.architecture.value)()

    def _settings(self) -> Any:
        """Return the settings of the last leg as the architecture knows them."""
        values = {**self.inputs.settings.get_dict(), **self.ctx.changes}
        return read_settings(self._architecture().Settings, values)

    def _how(self) -> str:
        """Return how the leg that starts now begins."""
        return '' if self.ctx.restart is None else f', which goes on from the files of {self.ctx.restart}'

    def _enter(self, node: orm.CalcJobNode) -> None:
        """Enter an ended leg into the list, once."""
        leg = leg_of(node)
        leg['changed'], leg['resumed'] = dict(self.ctx.changes), self.ctx.restart is not None
        self.ctx.legs = [*self.ctx.legs[: self.ctx.iteration - 1], leg]

    def _tried(self) -> str:
        """Return what was tried, in a sentence."""
        done = [_tell(leg['repair']) for leg in self.ctx.legs if leg.get('repair')]
        return f'Tried in {len(done) + 1} legs: {"; ".join(done)}.' if done else 'Nothing was tried.'

    def _final(self, code: ExitCode, node: orm.CalcJobNode) -> ExitCode:
        """Return the exit code with its facts; that of a repair says more than the number of legs."""
        if self.ctx.verdict:
            return ExitCode(*self.ctx.verdict)
        facts = {'message': how_it_ended(node), 'tried': self._tried(), 'n_legs': len(self.ctx.legs)}
        return self.exit_codes(code.status).format(**facts)

    def _leave(self) -> None:
        """Attach what the legs have left, each output of the newest that has it, and the list of all legs.

        The folder is that of the newest leg with a state to go on from.
        """
        legs = list(zip(reversed(self.ctx.get('children', [])), reversed(self.ctx.legs), strict=False))
        stated = [node for node, leg in legs if leg['reached']]
        for name, nodes in {
            'potential': [node for node, _ in legs[:1]],
            'curve': [node for node, _ in legs],
            'remote_folder': [*stated, *(node for node, _ in legs)],
        }.items():
            found = next((node.outputs[name] for node in nodes if name in node.outputs), None)
            if found is not None:
                self.out(name, found)
        known = next((node.outputs.results for node, _ in legs if 'results' in node.outputs), None)
        self.out('results', add_legs(orm.List(self.ctx.legs), **({} if known is None else {'results': known})))


def leg_of(node: orm.CalcJobNode) -> dict[str, Any]:
    """Return what is to be remembered of an ended job.

    `reached` is the last step that can be taken up: that of the checkpoint where the job could still say it, else the
    last step that it had reported.
    """
    results = node.outputs.results.get_dict() if 'results' in node.outputs else {}
    states = [state for state in retrieved_states(node) if is_number(state.get('step'))]
    reached = max((int(state['step']) for state in states), default=0)
    if 'checkpoint_step' in results:
        reached = int(results['checkpoint_step'] or 0)
    seconds = results.get('seconds', {}).get('total') or (states[-1].get('seconds', 0.0) if states else 0.0)
    return {
        'pk': node.pk,
        'uuid': node.uuid,
        'exit_status': node.exit_status,
        'message': how_it_ended(node),
        'resumed_from_step': results.get('resumed_from_step'),
        'reached': reached,
        'seconds': float(seconds),
    }


def reached_before(legs: Sequence[Mapping[str, Any]]) -> int:
    """Return the step that had been reached before the last leg, since the training was last begun anew."""
    best, resumed = 0, legs[-1]['resumed']
    for leg in reversed(legs[:-1]):
        if not resumed:
            break
        best, resumed = max(best, leg['reached']), leg['resumed']
    return best


def _tell(repair: Mapping[str, Any]) -> str:
    """Return what was done, in a few words."""
    changed = ', '.join(f'{name} = {value!r}' for name, value in repair['changed'].items())
    how = 'taken up' if repair['resumes'] else 'begun anew'
    return f'{how} with {changed}' if changed else how


def validate_training(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in inputs for name in ('architecture', 'training', 'settings')):
        return None
    problem = unknown_options(inputs['options'].get_dict() if 'options' in inputs else {}, TrainCalculation)
    return problem or TrainCalculation._check_inputs(inputs, None)


def _define_exit_codes(spec: ProcessSpec) -> None:
    """Define the exit codes; where a cause has one in the job, it has the same number here."""
    spec.exit_code(210, 'ERROR_BAD_INPUT', message='{message} The chain stopped at {job}: correct the inputs.')
    spec.exit_code(301, 'ERROR_SUB_PROCESS_EXCEPTED', message='{message} {tried} Look at its report.')
    spec.exit_code(302, 'ERROR_SUB_PROCESS_KILLED', message='{message} {tried}')
    spec.exit_code(320, 'ERROR_MISSING_PACKAGE', message='{message}')
    spec.exit_code(
        401,
        'ERROR_MAXIMUM_ITERATIONS_EXCEEDED',
        message='The training is not done after {n_legs} legs, as many as `max_iterations` allows. {message} {tried} '
        'Give the jobs more wall time, or go on: the output `remote_folder` as the input `restart` of a new chain.',
    )
    spec.exit_code(402, 'ERROR_UNHANDLED_FAILURE', message='No repair is known for this failure. {message} {tried}')
    spec.exit_code(
        410,
        'ERROR_OUT_OF_MEMORY',
        message='{message} There is no smaller batch. {tried} Give the job more memory, or take a smaller potential.',
    )
    spec.exit_code(
        440,
        'ERROR_NO_PROGRESS',
        message='Two legs one after the other got no further than step {step}. {message} {tried} Give the job a longer '
        'wall time than one step takes, more memory where the system had killed it, and look whether it can start at '
        'all: `aiida-perovmlip doctor`.',
    )
    spec.exit_code(450, 'ERROR_STOPPED_BY_MONITOR', message='A monitor has stopped {job}: {message} {tried}')
    spec.exit_code(
        510,
        'ERROR_DIVERGED',
        message='{message} The learning rate cannot be lowered further. {tried} Look for frames with very large '
        'forces or wrong labels.',
    )
    spec.exit_code(520, 'ERROR_SETTINGS_IGNORED', message='{message} The chain stopped at {job}.')
