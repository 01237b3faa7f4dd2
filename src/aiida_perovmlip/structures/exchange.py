"""Concerted moves of several ions, as where an interstitial pushes its neighbour out and takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from aiida_perovmlip.structures.bonds import Positions, centre_of_mass, whole


@dataclass(frozen=True)
class Move:
    """An ion or molecule that moves as it stands.

    :param indices: its atoms.
    :param vector: its way (3,) in Å.
    """

    indices: tuple[int, ...]
    vector: tuple[float, float, float]


def moved_together(atoms: Atoms, moves: Sequence[Move], charge: float | None = None) -> tuple[Atoms, Atoms]:
    """Return the structure before and after several moves at once, in the same order of atoms, molecules whole.

    :param charge: of the cell, kept in `info['charge']` of both; None for none.
    """
    indices = [index for move in moves for index in move.indices]
    if not indices or len(set(indices)) < len(indices):
        raise ValueError(f'the moves name the atoms {indices} but have to name at least one, and each of them once.')
    start = atoms.copy()
    start.info = {} if charge is None else {'charge': charge}
    for move in moves:
        start.positions[list(move.indices)] = whole(atoms, move.indices)
    end = start.copy()
    for move in moves:
        end.positions[list(move.indices)] += move.vector
    return start, end


def pushed(atoms: Atoms, chain: Sequence[Sequence[int]], last_place: Sequence[float] | Positions) -> list[Move]:
    """Return the moves by which each ion of a chain takes the place of the next one, and the last a free place.

    Centres of mass move, by the nearest image; orientations stay.

    :param chain: atoms of each ion, the interstitial first.
    :param last_place: where the centre of mass of the last ion goes, (3,) in Å.
    """
    if len(chain) < 2:
        raise ValueError(f'the chain has {len(chain)} ions: it needs the interstitial and at least one that it pushes.')
    centres = np.array([*[centre_of_mass(atoms, part) for part in chain], np.asarray(last_place, dtype=float)])
    vectors, _ = find_mic(np.diff(centres, axis=0), atoms.cell, atoms.pbc)
    return [
        Move(tuple(int(index) for index in part), (float(x), float(y), float(z)))
        for part, (x, y, z) in zip(chain, vectors, strict=True)
    ]
