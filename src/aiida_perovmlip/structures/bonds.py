"""Covalent bonds of organic molecules in a crystal, found by distance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Indices = NDArray[np.int64]
Positions = NDArray[np.float64]

ORGANIC = ('H', 'C', 'N', 'O', 'Si')
"""Elements whose neighbours count as bonded: lead and halides at such distances are no part of a molecule."""

STRETCH = 1.3
"""Longest bond relative to the sum of the covalent radii: N–H up to 1.33 Å, C–N up to 1.91 Å."""


def bonds(atoms: Atoms, elements: Iterable[str] = ORGANIC, stretch: float = STRETCH) -> Indices:
    """Return the pairs (n_bonds, 2) of bonded atoms of these elements, in ascending order."""
    first, second, _ = _bonded(atoms, np.isin(np.array(atoms.symbols), list(elements)), stretch)
    pairs = np.column_stack([first, second])
    return np.asarray(np.unique(pairs[first < second], axis=0), dtype=np.int64)


def molecules_by_bonds(atoms: Atoms, elements: Iterable[str] = ORGANIC, stretch: float = STRETCH) -> list[Indices]:
    """Return the indices of the atoms of each molecule, two atoms or more, in the order of their first atoms."""
    pairs = bonds(atoms, elements, stretch)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(atoms), len(atoms)))
    _, labels = connected_components(graph, directed=False)
    _, starts = np.unique(labels, return_index=True)
    groups = [np.flatnonzero(labels == labels[start]).astype(np.int64) for start in np.sort(starts)]
    return [group for group in groups if len(group) > 1]


def whole(atoms: Atoms, indices: Sequence[int] | Indices, stretch: float = STRETCH) -> Positions:
    """Return the positions (n, 3) in Å of a molecule that is not cut by the periodic boundary.

    The first atom stays where it is; the others are placed bond by bond, whatever their elements.
    """
    part = atoms[np.asarray(indices)]
    first, second, vectors = _bonded(part, np.ones(len(part), dtype=bool), stretch)
    positions = np.array(part.positions)
    placed, waiting = {0}, [0]
    while waiting:
        centre = waiting.pop()
        for neighbour, vector in zip(second[first == centre], vectors[first == centre], strict=True):
            if int(neighbour) not in placed:
                positions[neighbour] = positions[centre] + vector
                placed.add(int(neighbour))
                waiting.append(int(neighbour))
    if len(placed) < len(part):
        lost = sorted(set(range(len(part))) - placed)
        raise ValueError(
            f'{named(atoms, np.asarray(indices)[lost])} are bonded to no atom of the molecule of '
            f'{named(atoms, [indices[0]])}: the indices have to be those of one molecule.'
        )
    return positions


def centre_of_mass(atoms: Atoms, indices: Sequence[int] | Indices) -> Positions:
    """Return the centre of mass (3,) in Å of an atom or of a molecule, also where the boundary cuts this."""
    masses = atoms.get_masses()[np.asarray(indices)]
    return np.asarray(masses @ whole(atoms, indices) / masses.sum())


def named(atoms: Atoms, indices: Iterable[int]) -> str:
    """Return the names of atoms such as `C0, H12`, counted as in the structure."""
    return ', '.join(f'{atoms.symbols[int(index)]}{int(index)}' for index in indices)


def _bonded(atoms: Atoms, chosen: NDArray[np.bool_], stretch: float) -> tuple[Indices, Indices, Positions]:
    """Return both atoms (n,) of each bond of the chosen atoms, in both directions, and the vector (n, 3) in Å."""
    radii = np.where(chosen, stretch * covalent_radii[atoms.numbers], 0.0)
    first, second, vectors = neighbor_list('ijD', atoms, radii)
    inside = chosen[first] & chosen[second] & (first != second)
    return first[inside], second[inside], vectors[inside]
