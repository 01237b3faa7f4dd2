"""Structures made from a recipe, or from others, with provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from aiida import orm
from ase import Atoms

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.settings import option, read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.bonds import molecules_by_bonds
from aiida_perovmlip.structures.distort import distorted
from aiida_perovmlip.structures.recipes import frames_from_recipe


@recorded
def build_frames(recipe: orm.Dict, seed: orm.Int) -> DatasetData:
    """Build perovskite frames from families of structures; see `structures.recipes` for the recipe."""
    return DatasetData.from_ase(frames_from_recipe(recipe.get_dict(), seed.value))


@dataclass(frozen=True)
class Distortion:
    """How copies of frames are distorted."""

    count: int = option(1, 'Copies of each frame.', minimum=1)
    rattle: float = option(0.05, 'Standard deviation of the displacements.', unit='Å', minimum=0.0)
    strain: float = option(0.0, 'Largest absolute value of each component of the strain.', minimum=0.0)


@recorded
def distort_frames(frames: DatasetData, settings: orm.Dict, seed: orm.Int) -> DatasetData:
    """Return distorted copies of frames, without labels: what a potential has to know around these.

    Molecules move and turn as a whole; no two atoms come too near each other. Group, charge and spin stay.

    :param settings: see :class:`Distortion`.
    """
    how: Distortion = read_settings(Distortion, settings.get_dict())
    return DatasetData.from_ase(_distorted(frames, how, np.random.default_rng(seed.value)))


def _distorted(frames: DatasetData, how: Distortion, rng: np.random.Generator) -> Iterator[Atoms]:
    """Yield the copies, those of one frame after the other."""
    for frame in frames:
        atoms = frame.to_atoms(labels=False)
        molecule = np.full(len(atoms), -1)
        for number, members in enumerate(molecules_by_bonds(atoms)):
            molecule[members] = number
        atoms.set_array('molecule', molecule)
        atoms.info.pop('source', None)  # that is who labelled the frame that this one was made of
        for _ in range(how.count):
            yield distorted(atoms, how.strain, how.rattle, rng)
