"""Evaluate a potential on a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.analysis.metrics import MetricsAccumulator
from aiida_perovmlip.calculations.base import PotentialCalculation, results_of
from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.compute.contract import Response, Status
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.tasks.evaluate import PREDICTIONS, QUANTITIES
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


class EvaluateCalculation(PotentialCalculation):
    """Predict all frames of a dataset with a potential and compare with the labels."""

    task = 'evaluate'
    products = (PREDICTIONS,)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        spec.inputs['potential'].help = 'The potential to evaluate.'
        spec.input('dataset', valid_type=DatasetData, help='The frames with labels to compare with.')
        spec.input(
            'head',
            valid_type=orm.Str,
            required=False,
            serializer=orm.to_aiida_type,
            help='The head to evaluate. Where it is left out, a potential with one head predicts all frames with it; '
            'of one with several, each frame is predicted by the head that it carries itself.',
        )
        spec.inputs.validator = _validate
        spec.output('metrics', valid_type=orm.Dict, required=False, help='Errors overall, per element, group and head.')
        spec.output(
            'predictions',
            valid_type=orm.ArrayData,
            required=False,
            help='`energy` (n_frames,) in eV, `forces` (n_atoms, 3) in eV/Å, `stress` (n_frames, 6) in eV/Å³, in the '
            'order of the dataset; a frame without a stress has a row of NaN, and where the wall time ran out so have '
            'the frames that are left.',
        )
        spec.default_output_node = 'metrics'

    def settings(self) -> dict[str, Any]:
        """Return the head, or whether every frame is predicted by its own."""
        head = self.inputs.head.value if 'head' in self.inputs else None
        return {'head': head, 'own_heads': head is None and len(self.inputs.potential.heads) > 1}

    def folders(self) -> dict[str, Any]:
        """Return potential and dataset."""
        return {'potential': self.inputs.potential, 'dataset': self.inputs.dataset}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield results and predictions, as far as the job came, and the metrics where it came to its end."""
        if response is None:
            return
        is_whole = response.status is Status.OK
        if not is_whole and not response.results.get('n_frames_done'):
            return
        yield 'results', results_of(response)
        predictions = read_predictions(node.inputs.dataset, folder / PREDICTIONS)
        yield 'predictions', orm.ArrayData(predictions)
        if is_whole:
            yield 'metrics', orm.Dict(_metrics(node, response, predictions))


def read_predictions(dataset: DatasetData, folder: Path) -> dict[str, Array]:
    """Return the predictions that a job wrote, mapped from their files; refuse those that are not of the dataset."""
    predictions = {name: np.load(folder / f'{name}.npy', mmap_mode='r', allow_pickle=False) for name in QUANTITIES}
    n_frames, n_atoms = len(dataset), dataset.base.attributes.get('n_atoms')
    expected = {'energy': (n_frames,), 'forces': (n_atoms, 3), 'stress': (n_frames, 6)}
    wrong = [name for name, shape in expected.items() if predictions[name].shape != shape]
    if wrong:
        raise ValueError(f'the number of predictions of {", ".join(wrong)} is not that of the dataset.')
    return predictions


def _metrics(node: orm.CalcJobNode, response: Response, predictions: dict[str, Array]) -> dict[str, Any]:
    """Return the errors with what else tells one evaluation from another."""
    results = response.results
    head = results['head']
    levels = same_levels(node.inputs.potential, node.inputs.dataset, head)
    return {
        **compare(node.inputs.dataset, predictions, head),
        'head': head,
        'same_level': bool(levels) and all(levels.values()),
        'same_level_per_head': {name.replace('.', '_'): same for name, same in levels.items()},
        'microseconds_per_atom': results['microseconds_per_atom'],
        'speed_is_warm': results['speed_is_warm'],
        'peak_memory_mb': response.peak_memory_mb,
        'peak_gpu_memory_mb': results['peak_gpu_memory_mb'],
        'device': response.device,
    }


def compare(dataset: DatasetData, predictions: dict[str, Array], head: str | None = None) -> dict[str, Any]:
    """Return the metrics of predictions, one shard of the dataset in memory at a time.

    :param head: the head that predicted all frames; None where each was predicted by its own.
    """
    accumulator = MetricsAccumulator()
    frame, atom = 0, 0
    for chunk in dataset.frames.chunks():
        columns = chunk.columns
        frames, atoms = slice(frame, frame + len(chunk)), slice(atom, atom + chunk.n_atoms)
        accumulator.add_frames(
            columns['numbers'],
            columns['offsets'],
            [chunk.names['group'][code] for code in columns['group']],
            columns['energy'],
            predictions['energy'][frames],
            columns['forces'],
            predictions['forces'][atoms],
            columns.get('stress'),
            predictions['stress'][frames],
            heads=[chunk.names['head'][code] for code in columns['head']] if head is None else [head] * len(chunk),
        )
        frame, atom = frames.stop, atoms.stop
    return accumulator.metrics()


def same_levels(potential: PotentialData, dataset: DatasetData, head: str | None) -> dict[str, bool]:
    """Return, for each head that predicts, whether it and the labels are known to be of one level of theory.

    :param head: the head that predicts all frames; None where each is predicted by its own.
    """
    theirs, ours = dataset.levels, potential.levels
    if head is None:
        return {name: name in ours and ours[name].fingerprint == level.fingerprint for name, level in theirs.items()}
    own = ours.get(head)
    return {head: own is not None and {level.fingerprint for level in theirs.values()} == {own.fingerprint}}


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in inputs for name in ('potential', 'dataset')):
        return None
    potential, dataset = inputs['potential'], inputs['dataset']
    missing = sorted({'energy', 'forces'} - set(dataset.labels))
    if missing:
        return f'the dataset has no {" and no ".join(missing)} to compare with; label it first.'
    unknown = missing_elements(dataset.elements, potential.elements)
    if unknown:
        return (
            f'the dataset holds {", ".join(unknown)}, but the potential knows only {", ".join(potential.elements)}; '
            'select the frames without these elements, or train a potential that has seen them.'
        )
    return _problem_of_heads(potential, dataset, inputs['head'].value if 'head' in inputs else None)


def _problem_of_heads(potential: PotentialData, dataset: DatasetData, head: str | None) -> str | None:
    """Return a sentence where it is not clear which head is to predict which frame."""
    known, own = potential.heads, list(dataset.base.attributes.get('heads'))
    is_mixed = len(dataset.base.attributes.get('fingerprints')) > 1
    if head is not None and head not in known:
        return f'the potential has no head `{head}`; it has {", ".join(known)}.'
    if is_mixed and (head is not None or len(known) == 1):
        return (
            f'the dataset mixes the levels of theory of the heads {", ".join(own)}, which one head cannot all predict; '
            'evaluate each: `dataset.select_head(…)`.'
        )
    unknown = sorted(set(own) - set(known))
    if head is None and len(known) > 1 and unknown:
        return (
            f'the potential has several heads, {", ".join(known)}, but none for the frames of {", ".join(unknown)}; '
            + ('evaluate each: `dataset.select_head(…)`.' if is_mixed else 'say which by `head`.')
        )
    if head is None and len(known) > 1:
        return _problem_of_levels(potential, dataset)
    return None


def _problem_of_levels(potential: PotentialData, dataset: DatasetData) -> str | None:
    """Return a sentence where a head of the frames has the name of one of the potential, but another level."""
    ours, theirs = potential.levels, dataset.levels
    different = [name for name in theirs if name in ours and ours[name].fingerprint != theirs[name].fingerprint]
    if not different:
        return None
    name = different[0]
    return (
        f'the head `{name}` is one of the potential and one of the dataset, but not of one level of theory: '
        f'{ours[name]} and {theirs[name]}. Where this is meant, evaluate `dataset.select_head({name!r})` with '
        f'`head={name!r}`.'
    )
