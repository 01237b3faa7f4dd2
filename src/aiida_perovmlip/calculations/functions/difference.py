"""How the labels of two labellers differ, with provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.analysis.force_difference import BINS_PER_DECADE, RESOLUTION
from aiida_perovmlip.analysis.label_difference import DifferenceAccumulator, LabelDifference
from aiida_perovmlip.analysis.matching import DigestIndex
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.frames import STRUCTURE, Frames
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.shard import Shard, digests, join
from aiida_perovmlip.data.dataset import DatasetData, LevelError


@recorded
def label_difference(one: DatasetData, other: DatasetData) -> dict[str, orm.Data]:
    """Compare the labels of two datasets, `one` minus `other`, on the structures that are in both.

    A frame is recognised by its atoms, positions, cell, periodicity, charge and spin, to the last digit, never by its
    place. Of equal structures in one dataset the first counts. Returns `summary` and the `arrays` of
    `analysis.label_difference`: all that a figure needs.
    """
    levels = {'one': _level(one, 'one'), 'other': _level(other, 'other')}
    found, matching = compare_labels(one, other)
    summary = {
        'difference': 'one minus other',
        'levels': {name: level.to_dict() for name, level in levels.items()},
        'same_level': levels['one'].fingerprint == levels['other'].fingerprint,
        'matching': vars(matching),
        'histograms': {
            'bins_per_decade': BINS_PER_DECADE,
            'quantile_resolution': RESOLUTION,
            'elements': list(found.forces_per_element),
            'groups': list(found.forces_per_group),
        },
        **found.to_dict(),
    }
    return {'summary': orm.Dict(summary), 'arrays': orm.ArrayData(found.arrays())}


@dataclass(frozen=True)
class Matching:
    """How many frames of two datasets are the same; repeated ones are those that equal an earlier one."""

    n_one: int
    n_other: int
    n_matched: int
    n_repeated_one: int
    n_repeated_other: int
    n_unmatched_one: int
    n_unmatched_other: int


def compare_labels(one: DatasetData, other: DatasetData) -> tuple[LabelDifference, Matching]:
    """Return how labels differ and how many frames are in both; one chunk of each is in memory at a time."""
    keys = [_all_digests(dataset.frames) for dataset in (one, other)]
    own, theirs = (DigestIndex(each) for each in keys)
    partners = theirs.find(keys[0])
    partners[own.find(keys[0]) != np.arange(len(partners))] = -1  # only the first of equal ones
    n_matched = int((partners >= 0).sum())
    matching = Matching(
        n_one=len(one),
        n_other=len(other),
        n_matched=n_matched,
        n_repeated_one=own.n_repeated,
        n_repeated_other=theirs.n_repeated,
        n_unmatched_one=len(one) - own.n_repeated - n_matched,
        n_unmatched_other=len(other) - theirs.n_repeated - n_matched,
    )
    if not n_matched:
        raise ValueError(f'not one frame of `one` is in `other`. {_hint(one, other)}')
    return _accumulate(one, other, partners), matching


def _accumulate(one: DatasetData, other: DatasetData, partners: Array) -> LabelDifference:
    """Add up all pairs.

    :param partners: (n_frames,) position in `other` of each frame of `one`; -1 where there is none.
    """
    accumulator = DifferenceAccumulator()
    shared = set(one.labels) & set(other.labels)
    for positions, mine, theirs in _pairs(one.frames, other.frames, partners):
        columns, others = mine.columns, theirs.columns
        stress = 'stress' in columns and 'stress' in others
        accumulator.add(
            positions,
            columns['numbers'],
            columns['offsets'],
            [mine.text('group', index) for index in range(len(mine))],
            (columns['forces'], others['forces']),
            (columns['energy'], others['energy']) if 'energy' in shared else None,
            (columns['stress'], others['stress']) if stress else None,
            columns.get('charge'),
        )
    return accumulator.result()


def _pairs(one: Frames, other: Frames, partners: Array) -> Iterator[tuple[tuple[Array, Array], Shard, Shard]]:
    """Yield positions in both, and the same frames of both, chunk by chunk of the first."""
    start = 0
    for chunk in one.chunks(('numbers', 'forces', 'energy', 'stress', 'charge', 'group')):
        local = np.flatnonzero(partners[start : start + len(chunk)] >= 0)
        if len(local):
            wanted = partners[start + local]
            # A shard is read once for each chunk that has frames in it: once in all where both are in one order.
            theirs = join(list(other.take(wanted).chunks(('forces', 'energy', 'stress'))))
            yield (start + local, wanted), chunk.take(local), theirs
        start += len(chunk)


def _all_digests(frames: Frames) -> Array:
    """Return the digest of each structure, (n_frames, 16) uint8."""
    return np.concatenate([digests(chunk, labels=False) for chunk in frames.chunks(STRUCTURE)])


def _level(dataset: DatasetData, name: str) -> Level:
    """Return the level of theory of a dataset that can be compared."""
    if 'forces' not in dataset.labels:
        raise ValueError(f'`{name}` has no forces to compare; label it first.')
    levels = dataset.levels
    if len(levels) > 1:
        raise LevelError(
            f'`{name}` mixes the levels of theory of the heads {", ".join(levels)}; compare each: '
            '`dataset.select_head(…)`.'
        )
    return next(iter(levels.values()))


def _hint(one: DatasetData, other: DatasetData) -> str:
    """Return why frames may not be recognised."""
    stated: dict[str, Any] = {
        what: [bool(dataset.base.attributes.get(f'{what}s', [])) for dataset in (one, other)]
        for what in ('charge', 'spin')
    }
    for what, (mine, theirs) in stated.items():
        if mine != theirs:
            return f'Only one of them states a `{what}`; state it in both or in none.'
    if not set(one.elements) & set(other.elements):
        return 'They have no element in common.'
    return 'Frames are recognised to the last digit: compare what two labellers made of one dataset.'
