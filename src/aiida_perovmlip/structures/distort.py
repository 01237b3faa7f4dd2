"""Random distortions of crystals that keep molecules whole.

Molecules are what `atoms.arrays['molecule']` numbers (-1 for none); without this array every atom moves by itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

INTERNAL_FRACTION = 0.25
"""Amplitude within a molecule relative to that of the molecule: C–H and N–H bonds are stiff."""

ROOM = 1.3
"""Distance, relative to the sum of covalent radii, that a turned molecule keeps from the framework: H–I above 2.2 Å."""

SURROUNDINGS = 8.0
"""How far around a molecule, in Å, it looks for the framework; a cell of a perovskite ends 5.5 Å from its centre."""

CLOSEST = 0.8
"""Smallest distance of two atoms relative to the sum of their covalent radii; every bond here is above 0.89."""


def rattled(atoms: Atoms, amplitude: float, rng: np.random.Generator, internal_amplitude: float | None = None) -> Atoms:
    """Return a copy with Gaussian displacements; a molecule moves and turns as a whole, and a little in itself.

    :param amplitude: standard deviation in Å of each Cartesian component, of atoms and of the centres of molecules;
        molecules turn by as much as moves their atoms by the same.
    :param internal_amplitude: the same of the atoms within a molecule; None for a quarter of `amplitude`.
    """
    _check_amplitude('rattle', amplitude)
    internal = INTERNAL_FRACTION * amplitude if internal_amplitude is None else internal_amplitude
    _check_amplitude('internal rattle', internal)
    unit_noise = rng.normal(size=(len(atoms), 3))
    shifts = amplitude * unit_noise
    for members in molecules(atoms):
        offsets = _offsets(atoms, members)
        radius = math.sqrt(np.mean(np.sum(offsets**2, axis=1)))
        turn = Rotation.from_rotvec(rng.normal(size=3) * (amplitude / radius if radius > 0 else 0.0))
        rigid = amplitude * rng.normal(size=3) + turn.apply(offsets) - offsets
        shifts[members] = rigid + internal * unit_noise[members]
    result = atoms.copy()
    result.positions += shifts
    return result


def strained(atoms: Atoms, maximum_strain: float, rng: np.random.Generator) -> Atoms:
    """Return a copy under a random symmetric strain; molecules follow with their centres and keep their shape.

    :param maximum_strain: largest absolute value of each component of the strain tensor, such as 0.03.
    """
    if not 0 <= maximum_strain < 0.3:
        raise ValueError(f'the strain is {maximum_strain} but has to be at least 0 and less than 0.3.')
    deformation = np.eye(3) + _symmetric(rng.uniform(-maximum_strain, maximum_strain, size=6))
    result = atoms.copy()
    result.set_cell(atoms.cell.array @ deformation)
    positions = atoms.positions @ deformation
    for members in molecules(atoms):
        offsets = _offsets(atoms, members)
        centre = atoms.positions[members[0]] - offsets[0]
        positions[members] = centre @ deformation + offsets
    result.positions = positions
    return result


def distorted(
    atoms: Atoms,
    strain: float,
    rattle: float,
    rng: np.random.Generator,
    closest: float = CLOSEST,
    attempts: int = 100,
) -> Atoms:
    """Return a strained and rattled copy in which no two atoms come too close, drawing again where they do.

    :param closest: smallest allowed distance relative to the sum of covalent radii.
    :param attempts: number of draws before giving up.
    """
    for _ in range(attempts):
        candidate = rattled(strained(atoms, strain, rng), rattle, rng)
        if not is_too_close(candidate, closest):
            return candidate
    raise ValueError(
        f'none of {attempts} distortions of {atoms.get_chemical_formula()} kept all atoms apart by {closest} of the '
        f'sum of their covalent radii: lower the rattle ({rattle} Å), the strain ({strain}) or the tilt.'
    )


def reoriented(atoms: Atoms, rng: np.random.Generator, room: float = ROOM, attempts: int = 50) -> Atoms:
    """Return a copy with a random orientation of each molecule that keeps clear of the framework around it.

    Uniformly random orientations of FA would push its hydrogens onto halides, where no trajectory ever comes.

    :param room: smallest distance to atoms outside of molecules, relative to the sum of covalent radii; where no
        orientation reaches it, the roomiest of those drawn is taken.
    :param attempts: number of orientations that are drawn for each molecule at most.
    """
    result = atoms.copy()
    parts = [(members, _offsets(atoms, members)) for members in molecules(atoms)]
    centres = np.array([atoms.positions[members[0]] - offsets[0] for members, offsets in parts]).reshape(-1, 3)
    surroundings = _framework_around(atoms, centres)
    for (members, offsets), centre, (around, numbers) in zip(parts, centres, surroundings, strict=True):
        radii = covalent_radii[atoms.numbers[members]][:, None] + covalent_radii[numbers]
        best = -math.inf
        for _ in range(attempts):
            # A normalised Gaussian quaternion is uniform over all orientations.
            turned = Rotation.from_quat(rng.normal(size=4)).apply(offsets)
            clearance = float(np.min(cdist(turned, around) / radii, initial=math.inf))
            if clearance > best:
                best, result.positions[members] = clearance, centre + turned
            if clearance >= room:
                break
    return result


def shortest_distance(atoms: Atoms) -> float:
    """Return the shortest distance in Å of two atoms, periodic images included; infinite for a single free atom."""
    farthest = (
        float(np.linalg.norm(np.ptp(atoms.positions, axis=0)) + atoms.cell.lengths().sum()) if len(atoms) else 0.0
    )
    cutoff = 2.0
    while True:
        distances = neighbor_list('d', atoms, cutoff)
        if len(distances):
            return float(distances.min())
        if cutoff > farthest:
            return math.inf
        cutoff *= 2


def is_too_close(atoms: Atoms, closest: float = CLOSEST) -> bool:
    """Return whether two atoms are nearer than this fraction of the sum of their covalent radii."""
    return bool(len(neighbor_list('d', atoms, closest * covalent_radii[atoms.numbers])))


def molecules(atoms: Atoms) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of the atoms of each molecule."""
    numbers = atoms.arrays.get('molecule', np.full(len(atoms), -1))
    for number in np.unique(numbers[numbers >= 0]):
        yield np.flatnonzero(numbers == number)


def _offsets(atoms: Atoms, members: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where the atoms of a molecule lie around its centre of mass (n, 3) in Å, also if it was wrapped."""
    vectors, _ = find_mic(atoms.positions[members] - atoms.positions[members[0]], atoms.cell, atoms.pbc)
    masses = atoms.get_masses()[members]
    return np.asarray(vectors - masses @ vectors / masses.sum())


def _framework_around(
    atoms: Atoms, centres: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Yield, for each point (n, 3), vectors (m, 3) in Å to the atoms near it, molecules left out, and their numbers."""
    framework = atoms[atoms.arrays['molecule'] < 0]
    points = Atoms(np.zeros(len(centres), dtype=int), positions=centres, cell=atoms.cell, pbc=atoms.pbc)
    both = points + framework
    pairs = {('X', symbol): SURROUNDINGS for symbol in set(framework.symbols)}
    first, second, vectors = neighbor_list('ijD', both, pairs)
    from_points = first < len(points)
    first, second, vectors = first[from_points], second[from_points], vectors[from_points]
    edges = np.searchsorted(first, np.arange(len(points) + 1))
    for start, stop in itertools.pairwise(edges):
        yield vectors[start:stop], both.numbers[second[start:stop]]


def _symmetric(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the symmetric tensor (3, 3) of components (6,) in the order xx, yy, zz, yz, xz, xy."""
    xx, yy, zz, yz, xz, xy = components
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _check_amplitude(name: str, amplitude: float) -> None:
    """Refuse an amplitude that is not a length."""
    if not 0 <= amplitude < math.inf:
        raise ValueError(f'the {name} is {amplitude} Å but has to be finite and not negative.')
