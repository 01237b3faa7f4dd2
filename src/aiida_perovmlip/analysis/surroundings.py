"""Which atoms are near a point defect of a perovskite, told by the neighbours of its metals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Sublattice = Literal['A', 'X']

EXPECTED: dict[Sublattice, int] = {'A': 8, 'X': 6}
"""Neighbours of a metal in a whole crystal."""

CUTOFFS: dict[Sublattice, float] = {'A': 1.26, 'X': 0.81}
"""Lengths up to which neighbours count, in lattice constants: halfway from the nearest shell to the next one.

These are √3/2 and √11/2 for A cations and 1/2 and √5/2 for halides, so that vibrations do not matter. Cutoffs that are
just beyond a bond, such as 4 Å for Pb and I, find half of all Pb without a neighbour at 700 K.
"""


@dataclass(frozen=True)
class Surroundings:
    """The atoms near a defect.

    :param counts: (n_metals,) neighbours of each metal.
    :param metals: those metals whose number of neighbours is another one than in a whole crystal.
    :param atoms: (N,) whether an atom is one of these metals, or nearer to one than `reach`.
    :param expected: neighbours of a metal in a whole crystal.
    :param cutoff: up to which neighbours count, in Å.
    :param reach: in Å.
    """

    counts: Array = field(repr=False)
    metals: Array
    atoms: Array = field(repr=False)
    expected: int
    cutoff: float
    reach: float

    def deviations(self) -> dict[int, int]:
        """Return how many metals have how many neighbours too many, or too few where negative; none but these."""
        values, numbers = np.unique(self.counts - self.expected, return_counts=True)
        return {int(value): int(number) for value, number in zip(values, numbers, strict=True) if value}


def surroundings_of(
    positions: Array,
    cell: Array,
    metals: Sequence[int] | Array,
    centres: Array,
    sublattice: Sublattice,
    cutoff: float | None = None,
    reach: float | None = None,
) -> Surroundings:
    """Return the atoms near a defect of one sublattice in one frame, to select forces by.

    A Pb with 9 or 7 A cations marks an interstitial or a vacancy of these, one with 7 or 5 halides those of a halide.

    :param positions: (N, 3) in Å, wrapped or not.
    :param cell: (3, 3) in Å.
    :param metals: indices of the B cations.
    :param centres: (n, 3) in Å of what the metals are to have around them: halides, or A cations. Of molecules take
        `centres_of` them.
    :param cutoff: up to which neighbours count, in Å; None for halfway between the shells.
    :param reach: in Å, how near to a marked metal an atom belongs to the surroundings; None for the cutoff, 0 for the
        metals alone.
    """
    marks = np.asarray(metals, dtype=np.int64)
    if not len(marks):
        raise ValueError('there is no metal whose neighbours could be counted.')
    if sublattice not in EXPECTED:
        raise ValueError(f'the sublattice is {sublattice!r} but has to be A or X.')
    constant = float(np.cbrt(abs(np.linalg.det(cell)) / len(marks)))
    near = cutoff if cutoff is not None else CUTOFFS[sublattice] * constant
    counts = neighbour_counts(np.asarray(positions)[marks], centres, cell, near)
    odd = marks[counts != EXPECTED[sublattice]]
    around = near if reach is None else reach
    atoms = np.zeros(len(positions), dtype=bool)
    if len(odd) and around > 0:
        atoms = neighbour_counts(np.asarray(positions), np.asarray(positions)[odd], cell, around) > 0
    atoms[odd] = True
    return Surroundings(counts, odd, atoms, EXPECTED[sublattice], near, around)


def centres_of(positions: Array, cell: Array, molecules: Sequence[Sequence[int]], masses: Array) -> Array:
    """Return the centres of mass (n, 3) in Å of molecules that may lie across the border of the cell.

    :param positions: (N, 3) in Å.
    :param cell: (3, 3) in Å.
    :param masses: (N,) in any unit.
    """
    inverse, found = np.linalg.inv(cell), []
    for molecule in molecules:
        atoms = np.asarray(molecule, dtype=np.int64)
        ways = (np.asarray(positions)[atoms] - np.asarray(positions)[atoms[0]]) @ inverse
        near = (ways - np.round(ways)) @ np.asarray(cell, dtype=float)
        found.append(positions[atoms[0]] + np.average(near, axis=0, weights=np.asarray(masses)[atoms]))
    return np.array(found).reshape(-1, 3)


def neighbour_counts(of: Array, centres: Array, cell: Array, cutoff: float) -> Array:
    """Return how many centres, images in other cells included, are nearer than a cutoff to each place, (n,).

    A place does not count itself.

    :param of: (n, 3) in Å.
    :param centres: (m, 3) in Å.
    :param cell: (3, 3) in Å.
    :param cutoff: in Å.
    """
    matrix = np.asarray(cell, dtype=float)
    inverse = np.linalg.inv(matrix)
    reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) - 0.5).astype(int).clip(1)
    images = np.array(list(product(*(range(-each, each + 1) for each in reach)))) @ matrix
    counts = np.zeros(len(of), dtype=np.int64)
    goals = np.asarray(centres, dtype=float).reshape(-1, 3) @ inverse
    for at, start in enumerate(np.asarray(of, dtype=float) @ inverse):
        ways = goals - start
        near = (ways - np.round(ways)) @ matrix
        square = ((near[:, None] + images[None]) ** 2).sum(axis=2)
        counts[at] = int(((square < cutoff**2) & (square > 1e-12)).sum())
    return counts
