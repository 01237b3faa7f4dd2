"""Evaluate a potential on a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.analysis.metrics import MetricsAccumulator
from aiida_perovmlip.calculations.base import ComputeCalculation
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.compute.contract import Response, Status
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.tasks.evaluate import PREDICTIONS
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


class EvaluateCalculation(ComputeCalculation):
    """Predict all frames of a dataset with a potential and compare with the labels."""

    task = 'evaluate'
    products = (PREDICTIONS,)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        spec.input('potential', valid_type=PotentialData, help='The potential to evaluate.')
        spec.input('dataset', valid_type=DatasetData, help='The frames with labels to compare with.')
        spec.input(
            'head',
            valid_type=orm.Str,
            required=False,
            serializer=orm.to_aiida_type,
            help='The head to evaluate; needed where the potential has several.',
        )
        spec.inputs.validator = _validate
        spec.output('metrics', valid_type=orm.Dict, required=False, help='Errors overall, per element and per group.')
        spec.output(
            'predictions',
            valid_type=orm.ArrayData,
            required=False,
            help='`energy` (n_frames,) in eV, `forces` (n_atoms, 3) in eV/Å, `stress` (n_frames, 6) in eV/Å³, in the '
            'order of the dataset; a frame without a stress has a row of NaN.',
        )
        spec.default_output_node = 'metrics'

    def _build_process_label(self) -> str:
        """Return a label that says what is evaluated."""
        return f'Evaluate<{self.inputs.potential.architecture}>'

    def plugins(self) -> dict[str, str]:
        """Return the architecture of the potential."""
        return {'architecture': registry.reference('architectures', self.inputs.potential.architecture)}

    def settings(self) -> dict[str, Any]:
        """Return the head."""
        return {'head': self.inputs.head.value if 'head' in self.inputs else None}

    def folders(self) -> dict[str, Any]:
        """Return potential and dataset."""
        return {'potential': self.inputs.potential, 'dataset': self.inputs.dataset}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield results, predictions and metrics of an evaluation that succeeded."""
        if response is None or response.status is not Status.OK:
            return
        about = {'seconds': response.seconds, 'versions': response.versions, 'device': response.device}
        yield 'results', orm.Dict({**response.results, **about, 'peak_memory_mb': response.peak_memory_mb})
        with np.load(folder / PREDICTIONS, allow_pickle=False) as archive:
            predictions = {name: archive[name] for name in ('energy', 'forces', 'stress')}
        dataset: DatasetData = node.inputs.dataset
        expected = {'energy': len(dataset), 'forces': dataset.base.attributes.get('n_atoms'), 'stress': len(dataset)}
        wrong = [name for name, length in expected.items() if len(predictions[name]) != length]
        if wrong:
            raise ValueError(f'the number of predictions of {", ".join(wrong)} is not that of the dataset.')
        yield 'predictions', orm.ArrayData(predictions)
        metrics = compare(dataset, predictions)
        metrics['same_level'] = _same_level(node, response.results['head'])
        metrics['microseconds_per_atom'] = response.results['microseconds_per_atom']
        yield 'metrics', orm.Dict(metrics)


def compare(dataset: DatasetData, predictions: dict[str, Array]) -> dict[str, Any]:
    """Return the metrics of predictions, one shard of the dataset in memory at a time."""
    accumulator = MetricsAccumulator()
    frame, atom = 0, 0
    for chunk in dataset.frames.chunks():
        columns = chunk.columns
        frames, atoms = slice(frame, frame + len(chunk)), slice(atom, atom + chunk.n_atoms)
        groups = [chunk.names['group'][code] for code in columns['group']]
        accumulator.add_frames(
            columns['numbers'],
            columns['offsets'],
            groups,
            columns['energy'],
            predictions['energy'][frames],
            columns['forces'],
            predictions['forces'][atoms],
            columns.get('stress'),
            predictions['stress'][frames],
        )
        frame, atom = frames.stop, atoms.stop
    return accumulator.metrics()


def _same_level(node: orm.CalcJobNode, head: str) -> bool:
    """Whether potential and labels are known to be of one level of theory."""
    own = node.inputs.potential.levels.get(head)
    theirs = {level.fingerprint for level in node.inputs.dataset.levels.values()}
    return own is not None and theirs == {own.fingerprint}


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in inputs for name in ('potential', 'dataset')):
        return None
    potential, dataset = inputs['potential'], inputs['dataset']
    missing = sorted({'energy', 'forces'} - set(dataset.labels))
    if missing:
        return f'the dataset has no {" and no ".join(missing)} to compare with; label it first.'
    if len(dataset.base.attributes.get('fingerprints')) > 1:
        heads = ', '.join(dataset.levels)
        return f'the dataset mixes the levels of theory of the heads {heads}; evaluate each: `dataset.select_head(…)`.'
    unknown = missing_elements(dataset.elements, potential.elements)
    if unknown:
        return (
            f'the dataset holds {", ".join(unknown)}, but the potential knows only {", ".join(potential.elements)}; '
            'select the frames without these elements, or train a potential that has seen them.'
        )
    head = inputs['head'].value if 'head' in inputs else None
    if head is None and len(potential.heads) > 1:
        return f'the potential has several heads, {", ".join(potential.heads)}; say which by `head`.'
    if head is not None and head not in potential.heads:
        return f'the potential has no head `{head}`; it has {", ".join(potential.heads)}.'
    return None
