"""Continual learning: trainings one after the other, each of which starts from the potential of the one before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.calculations.base import check_plugin
from aiida_perovmlip.calculations.feasibility import Parent, parent_to_be, problem_of_training, strategy_of
from aiida_perovmlip.calculations.functions.training import list_stages
from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.workflows.pool import PoolWorkChain
from aiida_perovmlip.workflows.train import TrainWorkChain, validate_training
from aiida_perovmlip.workflows.training import fill, given, how_it_ended, monitors_of, settings_of_protocol

SHARED = ('architecture', 'code', 'seed', 'options', 'monitors', 'max_iterations')
"""Inputs that are the same for every stage."""

OF_A_STAGE: dict[str, Any] = {
    'training': DatasetData,
    'validation': DatasetData,
    'replay': DatasetData,
    'strategy': orm.Str,
    'settings': orm.Dict,
    'seed': orm.Int,
}
"""Inputs of a stage and their types; all but `training` may be left out."""


class ContinualWorkChain(PoolWorkChain):
    """Train a potential in stages, each with datasets, a strategy and settings of its own."""

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        spec.expose_inputs(TrainWorkChain, include=[*SHARED, 'parent'])
        spec.input_namespace(
            'stages',
            valid_type=orm.Data,
            dynamic=True,
            help=f'The stages in the order of their names, each a mapping of {", ".join(OF_A_STAGE)}; '
            '`get_builder_from_protocol` makes these of a list.',
        )
        spec.inputs.validator = _validate
        spec.outline(cls.setup, while_(cls.has_stage)(cls.run_stage, cls.inspect_stage), cls.collect)
        spec.output_namespace(
            'potentials', valid_type=PotentialData, dynamic=True, help='The potential of each stage by its name.'
        )
        spec.output('potential', valid_type=PotentialData, required=False, help='The potential of the last stage.')
        spec.output('results', valid_type=orm.Dict, help='What each stage did, by its name.')
        spec.exit_code(
            550,
            'ERROR_STAGE_FAILED',
            message='The stage `{stage}` gave no potential; those of {n_done} of {n_stages} stages are in '
            '`potentials`. {message} Correct it and go on: a new chain with the stages that are left and the last '
            'potential as `parent`.',
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        architecture: str,
        code: orm.AbstractCode,
        stages: Sequence[Mapping[str, Any]],
        *,
        protocol: str = 'fast',
        parent: PotentialData | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        monitor: bool | Mapping[str, Any] = True,
        **inputs: Any,
    ) -> Any:
        """Return a builder with the settings of a protocol.

        :param stages: for each stage `training` and, where they are wanted, `validation`, `replay`, `strategy`,
            `settings` and `seed`; `name` is added to the number of the stage.
        :param settings: what differs from the protocol in all stages; those of a stage come on top.
        """
        plain = settings_of_protocol(architecture, protocol, settings)
        later = settings_of_protocol(architecture, protocol, settings, has_parent=True)
        known = {
            'architecture': architecture,
            'code': code,
            'parent': parent,
            'seed': seed,
            'options': dict(options) if options else None,
            'monitors': monitors_of(monitor) or None,
        }
        known['stages'] = {}
        for number, stage in enumerate(stages, 1):
            common = later if _has_parent(stage, number > 1 or parent) else plain
            known['stages'][_name(number, stage, len(stages))] = _inputs(stage, common)
        return fill(cls.get_builder(), {**known, **inputs})

    # ------------------------------------------------------------------ the steps

    def setup(self) -> None:
        """Begin with the first stage."""
        self.ctx.names, self.ctx.done, self.ctx.told, self.ctx.failed = sorted(self.inputs.stages), [], {}, None
        self.report(f'{len(self.ctx.names)} stages: {", ".join(self.ctx.names)}.')

    def has_stage(self) -> bool:
        """Whether there is a stage to be run."""
        return self.ctx.failed is None and len(self.ctx.done) < len(self.ctx.names)

    def run_stage(self) -> None:
        """Start the next stage."""
        name = self.ctx.names[len(self.ctx.done)]
        self.ctx.running = None
        try:
            node = self.start(name, self._builder(name))
        except ValueError as error:  # what AiiDA raises where inputs are refused
            self.ctx.failed = f'Its training could not be submitted: {" ".join(str(error).split())}.'
            return
        self.report(f'{name} is {node.process_label} (PK {node.pk}).')
        self.ctx.running = node.pk
        self.watch([node.pk])

    def inspect_stage(self) -> None:
        """Take the potential of the stage that has ended, or remember why there is none."""
        name = self.ctx.names[len(self.ctx.done)]
        told: dict[str, Any] = {'state': 'failed', 'uuid': None}
        if self.ctx.running is not None:
            node = orm.load_node(self.ctx.running)
            told['uuid'] = node.uuid
            if node.is_finished_ok:
                told['state'] = 'trained'
                self.ctx.done = [*self.ctx.done, node.pk]
            else:
                self.ctx.failed = how_it_ended(node)
        if told['state'] == 'failed':
            told['reason'] = self.ctx.failed
            self.report(f'{name} gave no potential. {self.ctx.failed}')
        self.ctx.told = {**self.ctx.told, name: told}

    def collect(self) -> ExitCode | None:
        """Return the potentials of the stages that succeeded, also where a later one did not."""
        nodes = [orm.load_node(pk) for pk in self.ctx.done]
        for name, node in zip(self.ctx.names, nodes, strict=False):
            self.out(f'potentials.{name}', node.outputs.potential)
        known = {name: node.outputs.results for name, node in zip(self.ctx.names, nodes, strict=False)}
        self.out('results', list_stages(orm.Dict(self.ctx.told), **known))
        if self.ctx.failed is None:
            self.out('potential', nodes[-1].outputs.potential)
            return None
        facts = {'stage': self.ctx.names[len(nodes)], 'n_done': len(nodes), 'n_stages': len(self.ctx.names)}
        return self.exit_codes.ERROR_STAGE_FAILED.format(message=self.ctx.failed, **facts)

    def _builder(self, name: str) -> Any:
        """Return the builder of the training of a stage."""
        builder = fill(TrainWorkChain.get_builder(), given(self.inputs, *SHARED))
        fill(builder, self.inputs.stages[name])
        if self.ctx.done:
            parent = orm.load_node(self.ctx.done[-1]).outputs.potential
        else:
            parent = self.inputs.get('parent', None)
        if parent is not None and _strategy(self.inputs.stages[name], parent) != 'scratch':
            builder.parent = parent
        return builder


def _has_parent(stage: Mapping[str, Any], is_there: Any) -> bool:
    """Whether a stage starts from a potential; one from scratch does not, whatever there is."""
    strategy = stage.get('strategy')
    return bool(is_there) and getattr(strategy, 'value', strategy) != 'scratch'


def _name(number: int, stage: Mapping[str, Any], total: int) -> str:
    """Return a name that sorts by number, and that AiiDA takes for the name of a link."""
    given = re.sub(r'\W+|__+', '_', str(stage.get('name') or ''), flags=re.ASCII).strip('_')
    return f'stage_{number:0{max(2, len(str(total)))}d}' + (f'_{given}' if given else '')


def _inputs(stage: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, orm.Data]:
    """Return the inputs of a stage as nodes."""
    values = {name: value for name, value in stage.items() if name != 'name' and value is not None}
    values['settings'] = {**settings, **values.get('settings', {})}
    return {name: value if isinstance(value, orm.Data) else orm.to_aiida_type(value) for name, value in values.items()}


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what a stage could not do, before the first begins."""
    if 'architecture' not in inputs:
        return None
    stages = inputs.get('stages', {})
    if not stages:
        return 'there are no stages: `get_builder_from_protocol(…, stages=[{"training": …}, {"training": …}])`.'
    parent = Parent.of(inputs['parent']) if 'parent' in inputs else None
    for number, name in enumerate(sorted(stages)):
        stage = stages[name]
        problem = _malformed(stage)
        if problem is None:
            problem = _first(inputs, stage) if number == 0 else _later(inputs['architecture'].value, stage, parent)
        if problem is not None:
            return f'stage `{name}`: {problem}'
        settings = stage['settings'].get_dict() if 'settings' in stage else {}
        parent = parent_to_be(inputs['architecture'].value, settings, stage, _strategy(stage, parent), parent)
    return None


def _strategy(stage: Mapping[str, Any], parent: Any) -> str:
    """Return the strategy of a stage."""
    return strategy_of({'parent': parent, **stage} if parent is not None else stage)


def _malformed(stage: Mapping[str, Any]) -> str | None:
    """Return a sentence where a stage has other inputs than a stage may have."""
    unknown = sorted(set(stage) - set(OF_A_STAGE))
    if unknown:
        return f'it has no input {", ".join(map(repr, unknown))}; a stage may have {", ".join(OF_A_STAGE)}.'
    if 'training' not in stage:
        return 'it has no `training` dataset.'
    wrong = [
        f'`{name}` has to be a {OF_A_STAGE[name].__name__}'
        for name, value in stage.items()
        if not isinstance(value, OF_A_STAGE[name])
    ]
    return f'{"; ".join(wrong)}.' if wrong else None


def _first(inputs: Mapping[str, Any], stage: Mapping[str, Any]) -> str | None:
    """Return a sentence where the first stage cannot be trained: its parent is there, so that all can be judged."""
    whole = AttributeDict({'settings': orm.Dict({}), **given(inputs, *SHARED, 'parent'), **stage})
    if 'strategy' in stage and stage['strategy'].value == 'scratch' and 'parent' in whole:
        return 'the strategy `scratch` has no use for a `parent`.'
    return validate_training(whole, None)


def _later(name: str, stage: Mapping[str, Any], parent: Parent | None) -> str | None:
    """Return a sentence where a later stage cannot be trained, as far as is known before its parent is made.

    :param parent: what the potential of the stage before will be.
    """
    settings, strategy = stage['settings'].get_dict() if 'settings' in stage else {}, _strategy(stage, parent)
    known = None if strategy == 'scratch' else parent
    unknown = missing_elements(stage['training'].elements, known.facts.elements) if known is not None else []
    if unknown and known is not None:
        return (
            f'the potential of the stages before does not know {", ".join(unknown)}; it knows '
            f'{", ".join(known.facts.elements)}. Let the first parent or stage have all elements.'
        )
    problem = check_plugin('architectures', name, settings)
    return problem or problem_of_training(name, settings, stage, strategy, known)
