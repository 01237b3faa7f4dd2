"""Structures made from a recipe, with provenance."""

from __future__ import annotations

from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.recipes import frames_from_recipe


@recorded
def build_frames(recipe: orm.Dict, seed: orm.Int) -> DatasetData:
    """Build perovskite frames from families of structures; see `structures.recipes` for the recipe."""
    return DatasetData.from_ase(frames_from_recipe(recipe.get_dict(), seed.value))
