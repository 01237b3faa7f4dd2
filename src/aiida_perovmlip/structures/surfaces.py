"""Slabs of perovskites, and molecules that sit on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from ase import Atoms
from ase.geometry import get_distances
from scipy.spatial.transform import Rotation

from aiida_perovmlip.structures.bonds import Indices, Positions, bonds
from aiida_perovmlip.structures.distort import reoriented
from aiida_perovmlip.structures.molecules import MOLECULES, molecule
from aiida_perovmlip.structures.perovskite import cubic

Termination = Literal['AX', 'BX']
"""The plane at the lower side of a (001) slab, and with an odd number of planes at both: AX, or BX₂."""

TERMINATIONS: tuple[str, ...] = get_args(Termination)

THICKNESS_OF_A_PLANE = 1.0
"""How far in Å atoms of one plane may be below the highest of their kind."""

TURNS = tuple(range(0, 360, 15))
"""Turns about the normal in degrees that are tried."""


def slab(
    a_site: str,
    b_site: str,
    x_site: str,
    lattice_constant: float,
    repeat: Sequence[int] = (2, 2),
    planes: int = 3,
    termination: Termination = 'BX',
    vacuum: float = 15.0,
    rng: np.random.Generator | None = None,
) -> Atoms:
    """Return a (001) slab of the cubic perovskite in the middle of its cell, with its normal along z.

    :param lattice_constant: distance of neighbouring B in Å.
    :param repeat: number of cells along x and y.
    :param planes: number of planes, AX and BX₂ in turn; an odd number leaves both sides alike.
    :param vacuum: distance in Å between the outermost centres of A, B and X of a slab and of its next image.
    :param rng: draws an orientation of each molecule; None leaves all of them parallel.
    """
    if termination not in TERMINATIONS:
        raise ValueError(f'the termination is {termination!r} but has to be one of {", ".join(TERMINATIONS)}.')
    if len(repeat) != 2:
        raise ValueError(f'`repeat` is {list(repeat)} but has to be the number of cells along x and y.')
    if planes < 1 or not vacuum >= 0:
        raise ValueError(f'a slab has at least one plane and no negative vacuum, not {planes} and {vacuum} Å.')
    first = TERMINATIONS.index('BX') - TERMINATIONS.index(termination)  # BX₂ is plane 0 of a cell, AX plane 1
    n_cells = (first + planes + 1) // 2
    crystal = cubic(a_site, b_site, x_site, lattice_constant, (repeat[0], repeat[1], n_cells))
    size = len(molecule(a_site)) if a_site in MOLECULES else 1
    of_cell = np.array([1] * size + [0, 0, 0, 1])  # A, then B, X along x, y and z
    depth = np.tile(np.arange(n_cells), repeat[0] * repeat[1])
    plane = (2 * depth[:, None] + of_cell).ravel()
    kept = crystal[(plane >= first) & (plane < first + planes)]
    height = lattice_constant / 2 * (planes - 1)
    kept.positions[:, 2] += vacuum / 2 - lattice_constant / 2 * first
    kept.set_cell([*crystal.cell.lengths()[:2], height + vacuum])
    return kept if rng is None else reoriented(kept, rng)


def top_atoms(atoms: Atoms, element: str) -> Indices:
    """Return the atoms of an element that lie in its highest plane, those with the smallest index first."""
    chosen = np.flatnonzero(np.array(atoms.symbols) == element)
    if not len(chosen):
        raise ValueError(f'the slab {atoms.get_chemical_formula()} holds no {element}.')
    heights = atoms.positions[chosen, 2]
    return np.asarray(chosen[heights > heights.max() - THICKNESS_OF_A_PLANE], dtype=np.int64)


def adsorbed(
    surface: Atoms, guest: Atoms, anchor: int, site: int, height: float, turn_degrees: float | None = None
) -> Atoms:
    """Return a slab with a molecule on its upper side, as its last atoms; it has to be relaxed.

    The bonds of the anchor and the bulk of the molecule point away from the surface, a lone pair to the site.

    :param guest: the molecule.
    :param anchor: its atom above the site.
    :param site: the atom of the slab below it.
    :param height: distance of both in Å, along z.
    :param turn_degrees: turn of the molecule about the normal; None for the one of `TURNS` that leaves the most room.
    """
    if not 0 <= anchor < len(guest) or not 0 <= site < len(surface):
        raise ValueError(f'there is no atom {anchor} of the molecule, or no atom {site} of the slab.')
    offsets = guest.positions - guest.positions[anchor]
    pairs = bonds(guest)
    partners = np.concatenate([pairs[pairs[:, 0] == anchor, 1], pairs[pairs[:, 1] == anchor, 0]])
    bonded = np.sum([_unit(vector) for vector in offsets[partners]], axis=0)
    away = _unit(bonded) + _unit(guest.get_center_of_mass() - guest.positions[anchor])
    offsets = _turning(away, np.array([0.0, 0.0, 1.0])).apply(offsets)
    foot = surface.positions[site] + [0.0, 0.0, height]
    turns = TURNS if turn_degrees is None else (turn_degrees,)
    ways = [Rotation.from_euler('z', turn, degrees=True).apply(offsets) + foot for turn in turns]
    both = surface.copy()
    added = guest.copy()
    added.positions = max(ways, key=lambda way: round(_room(surface, way), 6))
    both.extend(added)
    if 'molecule' in surface.arrays:
        both.arrays['molecule'][len(surface) :] = surface.arrays['molecule'].max(initial=-1) + 1
    return both


def _room(surface: Atoms, positions: Positions) -> float:
    """Return the shortest distance in Å of a molecule (n, 3) from a slab."""
    _, distances = get_distances(positions, surface.positions, cell=surface.cell, pbc=surface.pbc)
    return float(distances.min())


def _unit(vector: Positions) -> Positions:
    """Return a direction (3,), or nothing where there is none."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 1e-9 else np.zeros(3))


def _turning(vector: Positions, wanted: Positions) -> Rotation:
    """Return the shortest rotation of one direction (3,) onto another."""
    one, other = _unit(vector), _unit(wanted)
    axis = np.cross(one, other)
    sine, cosine = float(np.linalg.norm(axis)), float(one @ other)
    if sine < 1e-9:
        across = np.cross(one, [1.0, 0.0, 0.0] if abs(one[0]) < 0.9 else [0.0, 1.0, 0.0])
        return Rotation.from_rotvec((0.0 if cosine > 0 else np.pi) * across / np.linalg.norm(across))
    return Rotation.from_rotvec(np.arctan2(sine, cosine) * axis / sine)


def motifs(atoms: Atoms, guest: Sequence[int] | Indices, longest: Mapping[tuple[str, str], float]) -> dict[str, int]:
    """Return how many atoms of a molecule touch atoms of the surface, by both elements: `{'N-Pb': 1}`.

    :param guest: the atoms of the molecule.
    :param longest: largest distance in Å that counts, by the element of the molecule and that of the surface.
    """
    own = np.asarray(guest, dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(atoms)), own)
    symbols = np.array(atoms.symbols)
    _, distances = get_distances(atoms.positions[own], atoms.positions[rest], cell=atoms.cell, pbc=atoms.pbc)
    found = {}
    for (mine, theirs), distance in longest.items():
        near = distances[symbols[own] == mine][:, symbols[rest] == theirs] <= distance
        found[f'{mine}-{theirs}'] = int(near.any(axis=1).sum())
    return found
