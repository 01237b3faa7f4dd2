"""Frames that are chosen by what a potential sees of them, with provenance."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.analysis.committee import mean_and_spread
from aiida_perovmlip.analysis.farthest import choose_farthest
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.tasks.embed import MEAN
from aiida_perovmlip.data.dataset import DatasetData


@recorded
def choose_frames(
    dataset: DatasetData,
    descriptors: orm.ArrayData,
    count: orm.Int,
    seed: orm.Int | None = None,
    known: orm.ArrayData | None = None,
) -> DatasetData:
    """Choose frames that differ as much as possible, one by one, each the farthest from all before it.

    The frames come in the order of choice, so that the first of them are what a smaller choice would give.

    :param descriptors: what an `EmbedCalculation` of this dataset returned.
    :param count: how many frames to choose.
    :param seed: of the lot that the first frame is drawn by; 0 if left out.
    :param known: descriptors, by the same potential, of frames that one has already and wants no more of.
    """
    _refuse_others(dataset, descriptors, known)
    with tempfile.TemporaryDirectory() as scratch:
        points = _mapped(descriptors, Path(scratch) / 'points.npy')
        if len(points) != len(dataset):
            raise ValueError(f'there are {len(points)} descriptors for {len(dataset)} frames; embed this very dataset.')
        had = None if known is None else _mapped(known, Path(scratch) / 'known.npy')
        choice = choose_farthest(points, count.value, seed.value if seed is not None else 0, had)
    if len(choice.positions) < count.value:
        raise ValueError(
            f'only {len(choice.positions)} of the {len(dataset)} frames differ for the potential, so {count.value} '
            'cannot be chosen; ask for fewer.'
        )
    return dataset.select(choice.positions)


def _refuse_others(dataset: DatasetData, descriptors: orm.ArrayData, known: orm.ArrayData | None) -> None:
    """Refuse descriptors that are known to be of other frames, or by another potential than the known ones."""
    own = _origin(descriptors, 'dataset')
    if own is not None and own.content_hash != dataset.content_hash:
        raise ValueError(
            f'the descriptors are those of the dataset {own.pk}, not of {dataset.pk}; embed this very dataset.'
        )
    if known is None:
        return
    one, other = _origin(descriptors, 'potential'), _origin(known, 'potential')
    if one is not None and other is not None and one.content_hash != other.content_hash:
        raise ValueError(
            f'the descriptors are by the potential {one.pk}, the known ones by {other.pk}: they cannot be compared. '
            'Embed both datasets with one potential.'
        )


def _mapped(node: orm.ArrayData, path: Path) -> Array:
    """Return descriptors mapped from a copy of their file: those of a million frames need no memory."""
    with node.base.repository.open(f'{MEAN}.npy', 'rb') as source, path.open('wb') as copy:
        shutil.copyfileobj(source, copy)
    found: Array = np.load(path, mmap_mode='r', allow_pickle=False)
    return found


def _origin(node: orm.ArrayData, name: str) -> Any:
    """Return an input of the job that made the descriptors; None where nothing is known of it."""
    creator = node.creator
    return creator.inputs[name] if creator is not None and name in creator.inputs else None


@recorded
def choose_by_spread(dataset: DatasetData, count: orm.Int, **members: DatasetData) -> DatasetData:
    """Choose the frames that a committee is least sure of, in energies or in forces; the most uncertain come first.

    The largest spread of a force in a frame and the spread of its energy per atom are each divided by their median over
    all frames, and the larger of both counts.

    :param count: how many frames to choose.
    :param members: the same frames in the same order as each member predicts them, at least two.
    """
    refuse_other_frames(dataset, members)
    if count.value > len(dataset):
        raise ValueError(f'{count.value} frames cannot be chosen out of {len(dataset)}; ask for fewer.')
    sizes = np.diff(np.concatenate([[0], np.cumsum([len(frame) for frame in dataset])]))
    energies = np.stack([member.frames.column('energy') for member in members.values()]) / sizes
    forces = np.stack([np.concatenate([np.asarray(frame.forces) for frame in member]) for member in members.values()])
    of_energy = mean_and_spread(energies)[1]
    of_atoms = np.sqrt((mean_and_spread(forces)[1] ** 2).mean(axis=1))
    of_forces = np.maximum.reduceat(of_atoms, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    unsure = np.maximum(*(spread / (np.median(spread) or 1.0) for spread in (of_energy, of_forces)))
    return dataset.select(np.argsort(-unsure, kind='stable')[: count.value])


def refuse_other_frames(dataset: DatasetData, members: dict[str, DatasetData]) -> None:
    """Refuse predictions that are not of these frames in this order."""
    wanted = [digest for _, digest, _ in dataset.frames.with_digests()]
    for name, member in members.items():
        if [digest for _, digest, _ in member.frames.with_digests()] != wanted:
            raise ValueError(f'what `{name}` predicts are not the frames of the dataset in their order.')
