"""Describe the frames of a dataset as a potential sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.calculations.base import PotentialCalculation, results_of
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import Architecture, missing_elements
from aiida_perovmlip.compute.contract import Response, Status
from aiida_perovmlip.compute.tasks.embed import EMBEDDING
from aiida_perovmlip.data.dataset import DatasetData


class EmbedCalculation(PotentialCalculation):
    """Give each frame of a dataset one point in the space in which a potential tells atoms apart.

    The frames need no labels. What comes out is meant for `choose_frames`, for maps of a dataset, and for telling how
    far a frame is from all that a potential was trained on.
    """

    task = 'embed'
    products = (EMBEDDING,)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        spec.inputs['potential'].help = 'The potential whose descriptors are used.'
        spec.input('dataset', valid_type=DatasetData, help='The frames to describe; labels are not read.')
        spec.input(
            'per_element',
            valid_type=orm.Bool,
            default=lambda: orm.Bool(False),
            serializer=orm.to_aiida_type,
            help='Whether to add the mean over the atoms of each element.',
        )
        spec.inputs.validator = _validate
        spec.output(
            'descriptors',
            valid_type=orm.ArrayData,
            required=False,
            help='`mean` (n_frames, n) float32, in the order of the dataset and in the unit of the architecture; with '
            '`per_element` also `mean_<symbol>`, with NaN for frames without that element.',
        )
        spec.default_output_node = 'results'

    def settings(self) -> dict[str, Any]:
        """Return whether elements are told apart."""
        return {'per_element': self.inputs.per_element.value}

    def folders(self) -> dict[str, Any]:
        """Return potential and dataset."""
        return {'potential': self.inputs.potential, 'dataset': self.inputs.dataset}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield results and descriptors of a job that succeeded."""
        if response is None or response.status is not Status.OK:
            return
        yield 'results', results_of(response)
        files = sorted((folder / EMBEDDING).glob('*.npy'))
        arrays = {path.stem: np.load(path, mmap_mode='r', allow_pickle=False) for path in files}
        expected = (len(node.inputs.dataset), response.results['n_descriptors'])
        if not arrays or any(array.shape != expected for array in arrays.values()):
            raise ValueError(f'the descriptors have not the shape {expected}.')
        yield 'descriptors', orm.ArrayData(arrays)


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in inputs for name in ('potential', 'dataset')):
        return None
    potential, dataset = inputs['potential'], inputs['dataset']
    try:
        architecture = registry.load('architectures', potential.architecture)
    except registry.UnknownPlugin as error:
        return str(error)
    if architecture.descriptors is Architecture.descriptors:
        return f'{potential.architecture} gives no descriptors; describe the frames with a potential of another kind.'
    unknown = missing_elements(dataset.elements, potential.elements)
    if unknown:
        return (
            f'the dataset holds {", ".join(unknown)}, but the potential knows only {", ".join(potential.elements)}; '
            'take a potential that knows them.'
        )
    return None
