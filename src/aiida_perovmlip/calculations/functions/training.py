"""Steps of trainings that run in the AiiDA process, with provenance."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm
from ase.data import atomic_numbers

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.data.dataset import DatasetData

DRAWS = 1000
"""Bootstrap samples that are drawn until one holds all elements."""


@recorded
def add_legs(legs: orm.List, results: orm.Dict | None = None) -> orm.Dict:
    """Return the results of the last leg of a training, with what was done and changed in all of them.

    :param legs: a dictionary for each leg, with `seconds`.
    """
    known: dict[str, Any] = results.get_dict() if results is not None else {}
    entries = legs.get_list()
    return orm.Dict({**known, 'legs': entries, 'seconds_of_all_legs': round(sum(leg['seconds'] for leg in entries), 2)})


@recorded
def draw_bootstrap(dataset: DatasetData, seed: orm.Int, member: orm.Int | None = None) -> DatasetData:
    """Draw as many frames as there are, with replacement; all elements of the dataset are among them.

    :param member: number of the sample; what is drawn depends on this and on `seed` alone.
    """
    of = [seed.value, member.value if member is not None else 0]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(of)))
    sample = dataset.select(_draw(rng, len(dataset)))
    if sample.elements == dataset.elements:
        return sample
    holds = _elements_of_frames(dataset)  # so rarely needed that the frames are read for it only now
    for _ in range(DRAWS - 1):
        drawn = _draw(rng, len(dataset))
        if holds[drawn].any(axis=0).all():
            return dataset.select(drawn)
    raise ValueError(f'not one of {DRAWS} samples holds all elements ({", ".join(dataset.elements)}).')


def _draw(rng: np.random.Generator, count: int) -> Array:
    """Return as many positions as there are, drawn with replacement, in ascending order."""
    return np.sort(rng.integers(count, size=count))


def _elements_of_frames(dataset: DatasetData) -> Array:
    """Return which frame holds which element, (n_frames, n_elements); the numbers alone are read, once."""
    wanted = np.array([atomic_numbers[symbol] for symbol in dataset.elements])
    rows = []
    for chunk in dataset.frames.chunks(('numbers',)):
        numbers, starts = chunk.columns['numbers'], chunk.columns['offsets'][:-1]
        rows.append(np.logical_or.reduceat(numbers[:, None] == wanted, starts, axis=0))
    return np.concatenate(rows)


@recorded
def list_members(members: orm.Dict, **results: orm.Dict) -> orm.Dict:
    """Return what is known of the members of a committee.

    :param results: the results of each training that gave a potential.
    """
    entries = members.get_dict()
    for name, node in results.items():
        known = node.get_dict()
        entries['members'][name] |= {key: known[key] for key in ('last', 'seconds_of_all_legs') if key in known}
    return orm.Dict(entries)


@recorded
def list_stages(stages: orm.Dict, **results: orm.Dict) -> orm.Dict:
    """Return what each stage of a continual training did.

    :param stages: what the chain knows of each, by name.
    :param results: the results of the trainings, by the same names.
    """
    return orm.Dict({name: {**known, **_of(results.get(name))} for name, known in stages.get_dict().items()})


def _of(results: orm.Dict | None) -> dict[str, Any]:
    """Return what a list of stages tells of a training."""
    known = results.get_dict() if results is not None else {}
    kept = ('strategy', 'settings', 'dropped_elements', 'last', 'notes', 'seconds_of_all_legs')
    return {name: known[name] for name in kept if name in known}
