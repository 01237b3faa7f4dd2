"""Perovskites that share their A sites, with provenance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.settings import option, read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.mixing import ARRANGEMENTS, fractions_of, mixed
from aiida_perovmlip.structures.perovskite import GLAZER, LATTICE_CONSTANTS


@dataclass(frozen=True)
class Mixture:
    """How a mixed perovskite is built."""

    formula: str = option('MA0.5FA0.5PbI3', 'What it is made of; fractions become whole numbers of sites.')
    repeat: list[int] = option([2, 2, 2], 'Cells along each axis.')
    arrangement: str = option(
        'random', 'How kinds are spread over the A sites; see the topic on phases.', choices=ARRANGEMENTS
    )
    glazer: str = option('a0a0a0', 'Tilts of the octahedra.', choices=GLAZER)
    tilt_degrees: float = option(0.0, 'Angle of these tilts.', unit='degrees', minimum=0.0, maximum=30.0)
    lattice_constants: dict[str, float] = option(
        {}, 'Lattice constants of pure crystals that differ from the typical ones, by formula.', unit='Å'
    )


@recorded
def build_mixture(recipe: orm.Dict, seed: orm.Int) -> DatasetData:
    """Build one perovskite, its A sites shared at random; the dataset has one frame, whose group is the formula.

    :param recipe: see :class:`Mixture`.
    """
    how: Mixture = read_settings(Mixture, recipe.get_dict())
    fractions, b_site, x_site = fractions_of(how.formula)
    known = {**LATTICE_CONSTANTS, **how.lattice_constants}
    pure = {kind: f'{kind}{b_site}{x_site}3' for kind in fractions}
    absent = sorted(formula for formula in pure.values() if formula not in known)
    if absent:
        raise ValueError(f'no lattice constant of {", ".join(absent)} is known: give it in Å by `lattice_constants`.')
    atoms = mixed(
        fractions,
        b_site,
        x_site,
        how.repeat,
        np.random.default_rng(seed.value),
        lattice_constant=sum(part * known[pure[kind]] for kind, part in fractions.items()),
        glazer=how.glazer,  # type: ignore[arg-type]
        angle_degrees=how.tilt_degrees,
        arrangement=how.arrangement,  # type: ignore[arg-type]
    )
    atoms.info['group'] = how.formula
    return DatasetData.from_ase([atoms])
