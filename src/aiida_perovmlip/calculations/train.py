"""Train a potential of any architecture."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.calculations.base import ComputeCalculation, check_plugin, results_of
from aiida_perovmlip.calculations.feasibility import Parent, has_level_of_parent, problem_of_training, strategy_of
from aiida_perovmlip.calculations.progress import is_number, retrieved_states
from aiida_perovmlip.compute import checkpoint, registry
from aiida_perovmlip.compute.children import COMMAND
from aiida_perovmlip.compute.contract import Response, Status, number_of
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.tasks.train import CURVE, POTENTIAL
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData

FOLDERS = ('training', 'validation', 'replay', 'parent')
"""Inputs whose files the job reads."""


class TrainCalculation(ComputeCalculation):
    """Train a potential on a dataset, from scratch or from a parent potential.

    The job reopens what the trainer wrote: `results` says which settings had an effect and what is in the potential,
    and a difference from what was asked ends the job with an exit code of its own.
    """

    task = 'train'
    architecture: ClassVar[str | None] = None
    """The architecture that this class trains; None leaves it to the input."""

    retrieved = ('trainer.log', COMMAND)
    products = (POTENTIAL, CURVE)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        known: dict[str, Any] = {'default': lambda: orm.Str(cls.architecture)} if cls.architecture else {}
        spec.input(
            'architecture',
            valid_type=orm.Str,
            serializer=orm.to_aiida_type,
            help='Name of the architecture, one of `aiida_perovmlip.architectures`.',
            **known,
        )
        spec.input('training', valid_type=DatasetData, help='The frames to learn from.')
        spec.input('validation', valid_type=DatasetData, required=False, help='The frames to choose the best state by.')
        spec.input('parent', valid_type=PotentialData, required=False, help='The potential to start from.')
        spec.input(
            'strategy',
            valid_type=orm.Str,
            required=False,
            serializer=orm.to_aiida_type,
            help='What to do with the parent: one of `scratch`, `naive`, `multihead`, `freeze`, `lora`, as far as the '
            'architecture has it. If nothing is said: `scratch` without a parent, `naive` with one.',
        )
        spec.input(
            'replay',
            valid_type=DatasetData,
            required=False,
            help='For `multihead`: frames that keep the parent from forgetting what it knew.',
        )
        spec.input(
            'restart',
            valid_type=orm.RemoteData,
            required=False,
            help='The working directory of an earlier run of the same training (its output `remote_folder`); this run '
            'goes on where its checkpoint was saved.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            serializer=orm.to_aiida_type,
            help='Settings of the architecture; what is left out has the default of the reference.',
        )
        spec.inputs.validator = cls._check_inputs
        spec.output('potential', valid_type=PotentialData, required=False, help='The trained potential.')
        spec.output('curve', valid_type=orm.ArrayData, required=False, help='The training curve, an array a column.')
        spec.default_output_node = 'results'

    @classmethod
    def _check_inputs(cls, inputs: Any, _: Any) -> str | None:
        """Refuse what no job could do."""
        if any(name not in inputs for name in ('architecture', 'training')):
            return None
        name = inputs['architecture'].value
        if cls.architecture and name != cls.architecture:
            return f'this class trains `{cls.architecture}`; use TrainCalculation for `{name}`.'
        settings = inputs['settings'].get_dict()
        return check_plugin('architectures', name, settings) or _problem_of(name, settings, inputs)

    def _build_process_label(self) -> str:
        """Return a label that says what is trained."""
        return f'Train<{self.inputs.architecture.value}>'

    def plugins(self) -> dict[str, str]:
        """Return the architecture."""
        return {'architecture': registry.reference('architectures', self.inputs.architecture.value)}

    def settings(self) -> dict[str, Any]:
        """Return the settings of the architecture, the strategy, and what else only the nodes tell."""
        parent = Parent.of(self.inputs.parent) if 'parent' in self.inputs else None
        name, settings = self.inputs.architecture.value, self.inputs.settings.get_dict()
        return {
            name: settings,
            'strategy': strategy_of(self.inputs),
            'restart': 'restart' in self.inputs,
            'has_level_of_parent': has_level_of_parent(name, settings, self.inputs.training, parent),
        }

    def folders(self) -> dict[str, Any]:
        """Return datasets and parent."""
        return {name: self.inputs[name] for name in FOLDERS if name in self.inputs}

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Take the checkpoint of an earlier run along."""
        info = super().prepare_for_submission(folder)
        info.retrieve_list += registry.load('architectures', self.inputs.architecture.value).records
        if 'restart' in self.inputs:
            earlier = self.inputs.restart
            path = f'{earlier.get_remote_path()}/{checkpoint.FOLDER}'
            info.remote_copy_list = [(earlier.computer.uuid, path, checkpoint.FOLDER)]
        return info

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield the results and the curve, and the potential of a training that succeeded."""
        if response is not None and response.results:
            yield 'results', results_of(response)
        if response is not None and response.status is Status.OK:  # before the curve, which may not cost it
            results = response.results
            yield 'potential', _potential(node, results['facts'], results['effective'], folder / POTENTIAL)
        if (folder / CURVE).is_file():
            curve = json.loads((folder / CURVE).read_text())
        else:  # it was killed, or failed by a fault; what it had reported is there
            curve = reported_curve(retrieved_states(node))
        if curve:
            yield 'curve', _curve(curve)


class TrainAllegroCalculation(TrainCalculation):
    """Train an Allegro potential."""

    architecture = 'allegro'


class TrainMaceCalculation(TrainCalculation):
    """Train a MACE potential."""

    architecture = 'mace'


class TrainNepCalculation(TrainCalculation):
    """Train a NEP potential."""

    architecture = 'nep'


def _problem_of(name: str, settings: dict[str, Any], inputs: Any) -> str | None:
    """Return a sentence where the architecture cannot be trained on these nodes."""
    if 'restart' in inputs and 'code' in inputs and inputs['restart'].computer.uuid != inputs['code'].computer.uuid:
        here, there = inputs['code'].computer.label, inputs['restart'].computer.label
        return f'the earlier run lies on `{there}`, but the code is on `{here}`; a run is taken up where it was.'
    parent: PotentialData | None = inputs.get('parent', None)
    if parent is not None and parent.architecture != name:
        return f'the parent is a potential of `{parent.architecture}`, not of `{name}`.'
    known = None if parent is None else Parent.of(parent)
    return problem_of_training(name, settings, inputs, strategy_of(inputs), known)


def _curve(steps: list[dict[str, Any]]) -> orm.ArrayData:
    """Return the curve as one array a column; what a step does not have is NaN.

    What AiiDA takes for no part of a name, as in that of a head, becomes `_`.
    """
    names = sorted({name for step in steps for name, value in step.items() if number_of(value) is not None})
    columns = {
        re.sub(r'\W', '_', name, flags=re.ASCII): np.array([number_of(step.get(name)) for step in steps], dtype=float)
        for name in names
    }
    return orm.ArrayData(columns)


def reported_curve(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the curve that reported states tell of.

    Where a scheduler has put the job back into its queue, it went on from its last state, in the same folder: steps
    that were done once more count once.
    """
    steps: list[dict[str, Any]] = []
    for state in states:
        if 'step' not in state:
            continue
        while steps and is_number(state['step']) and steps[-1]['step'] >= state['step']:
            steps.pop()
        steps.append(_step(state))
    return steps


def _step(state: dict[str, Any]) -> dict[str, Any]:
    """Return the step of the curve that a reported state tells of."""
    return {name: value for name, value in state.items() if name not in ('what', 'of', 'seconds')}


def _potential(node: orm.CalcJobNode, facts: dict[str, Any], effective: dict[str, Any], folder: Path) -> PotentialData:
    """Return the potential with what the job read from its files and with the level of theory of its labels."""
    levels = _levels(node, facts['heads'], effective.get('heads'))
    return PotentialData(
        folder,
        architecture=node.inputs.architecture.value,
        elements=facts['elements'],
        cutoff=facts['cutoff'],
        heads=facts['heads'],
        levels=levels,
        dtype=facts['dtype'],
        n_parameters=facts['n_parameters'],
    )


def _levels(
    node: orm.CalcJobNode, heads: Sequence[str], origins: Mapping[str, Mapping[str, str]] | None
) -> dict[str, Level]:
    """Return the level of theory of each head, as far as it is known.

    :param origins: of which of the inputs (`training` or `parent`) and under which name there a head is; None where the
        architecture has nothing to tell.
    """
    levels = node.inputs.training.levels
    if len(heads) == 1 and len({level.fingerprint for level in levels.values()}) == 1:
        return {heads[0]: next(iter(levels.values()))}
    known = {'training': levels, 'parent': node.inputs.parent.levels if 'parent' in node.inputs else {}}
    named = origins or {head: {'of': 'training', 'head': head} for head in heads}
    found = {head: known[origin['of']].get(origin['head']) for head, origin in named.items()}
    return {head: level for head, level in found.items() if head in heads and level is not None}
