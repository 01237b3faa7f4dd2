"""Paths of structures between two ends, as the nudged elastic band starts from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import covalent_radii
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from aiida_perovmlip.structures.bonds import STRETCH, bonds, named

Positions = NDArray[np.float64]

CLOSEST = 0.7
"""Shortest distance on a path relative to the sum of the covalent radii: halides pass lead at 0.78 of it."""

SHORTEST = 0.6
"""Shortest distance on a path in Å, whatever the elements: the bond of H₂ has 0.74 Å."""

HALF_A_CELL = 0.5
"""A displacement that is longer than its nearest image by less than this, in Å, is one of about half a cell: both ways
are as long, so the one that the positions name is taken."""

TOGETHER = 0.1
"""Distance in Å below which two atoms are at one place."""

AT_REST = 1e-3
"""Displacement in Å below which an atom counts as unmoved."""


class PathError(ValueError):
    """A path that no band should start from."""


class EndsDifferError(PathError):
    """Images of other atoms, or in another order, cell or charge, than the first."""


class AtomsMeetError(PathError):
    """A path on which atoms go through each other."""


class BondBrokenError(PathError):
    """A path on which a molecule is torn apart."""


def linear(start: Atoms, end: Atoms, n_images: int) -> list[Atoms]:
    """Return the straight path of `n_images` between both ends, which are its first and last structures.

    Atoms take the nearest image, and are not wrapped: the last structure may differ from `end` by cell vectors.
    """
    shifts = displacements(start, end)
    return [image_of(start, end, start.positions + part * shifts) for part in fractions(n_images)]


def idpp(start: Atoms, end: Atoms, n_images: int, fmax: float = 1e-3, steps: int = 500) -> list[Atoms]:
    """Return a path whose distances between atoms change as evenly as possible, ends included.

    This is the image-dependent pair potential of Smidstrup et al., J. Chem. Phys. 140, 214106 (2014). The limit of 0.1
    that ASE takes ends at once where one atom hops, at the straight path.

    :param fmax: largest force on an image in 1/Å³, the unit of this potential.
    :param steps: iterations after which the search is given up with a ValueError.
    """
    from ase.mep.neb import NEB
    from ase.optimize import FIRE

    images = linear(start, end, n_images)
    _check_apart(images)
    for image, part in zip(images, fractions(n_images), strict=True):
        image.calc = _EvenDistances(images[0], images[-1], image, part)
    band = NEB(images, method='improvedtangent')
    with FIRE(band, logfile=None) as optimizer:
        converged = optimizer.run(fmax=fmax, steps=steps)
    for image in images:
        image.calc = None
    if not converged:
        raise ValueError(
            f'the IDPP path has a force of {band.get_residual():.2g}/Å³ after {steps} steps, more than {fmax:g}/Å³: '
            'allow more steps, raise fmax, or take rotations.between if a molecule turns.'
        )
    return images


def displacements(start: Atoms, end: Atoms) -> Positions:
    """Return the way (n_atoms, 3) in Å of each atom from one structure to the other, by the nearest image."""
    problem = _difference(start, end)
    if problem:
        raise EndsDifferError(f'the ends of a path have to be alike, but the last {problem}.')
    named_way = end.positions - start.positions
    nearest, lengths = find_mic(named_way, start.cell, start.pbc)
    is_short = np.linalg.norm(named_way, axis=1) <= lengths + HALF_A_CELL
    return np.where(is_short[:, None], named_way, nearest)


def path_length(images: Sequence[Atoms]) -> float:
    """Return the length in Å of the way of all atoms together: the sum of √Σᵢ|Δrᵢ|² over neighbouring images."""
    return float(sum(np.linalg.norm(displacements(one, other)) for one, other in pairwise(images)))


def rmsd_between(path: Sequence[Atoms], other: Sequence[Atoms]) -> float:
    """Return the root mean square distance in Å of the atoms of two paths, over all atoms and images."""
    if len(path) != len(other):
        raise ValueError(f'the paths have {len(path)} and {len(other)} images but have to have equally many.')
    squares = [np.sum(displacements(one, two) ** 2, axis=1) for one, two in zip(path, other, strict=True)]
    return float(np.sqrt(np.mean(squares)))


def resampled(images: Sequence[Atoms], n_images: int) -> list[Atoms]:
    """Return the same path with `n_images` between its ends, as far from one another as can be.

    Atoms go along smooth curves through the images that there are, of which there have to be two at least.
    """
    steps = [np.linalg.norm(displacements(one, other)) for one, other in pairwise(images)]
    places = np.concatenate([[0.0], np.cumsum(steps)])
    curve = CubicSpline(places, [image.positions for image in images], axis=0)
    return [image_of(images[0], images[-1], curve(part * places[-1])) for part in fractions(n_images)]


def fractions(n_images: int) -> NDArray[np.float64]:
    """Return the place (n_images + 2,) of each image on the path, from 0 to 1."""
    if isinstance(n_images, bool) or not isinstance(n_images, (int, np.integer)) or n_images < 1:
        raise ValueError(f'the number of images between the ends is {n_images!r} but has to be at least 1.')
    return np.linspace(0.0, 1.0, int(n_images) + 2)


def image_of(start: Atoms, end: Atoms, positions: Positions) -> Atoms:
    """Return a copy of the start at other positions (n_atoms, 3) in Å, knowing of `info` what both ends agree on.

    A charge stays, an energy goes: it is that of one structure.
    """
    image = start.copy()
    image.positions = positions
    image.info = {key: value for key, value in image.info.items() if key in end.info and _same(value, end.info[key])}
    return image


def problem_of_path(images: Sequence[Atoms], **limits: Any) -> str | None:
    """Return in a sentence why no band should start from this path, or None; see `check_path`."""
    try:
        check_path(images, **limits)
    except PathError as error:
        return str(error)
    return None


def check_path(
    images: Sequence[Atoms],
    reference_bonds: Sequence[tuple[int, int]] | None = None,
    closest: float = CLOSEST,
    shortest: float = SHORTEST,
    stretch: float = STRETCH,
    may_return: bool = False,
) -> None:
    """Raise a PathError where no band should start from this path. Images are counted from 0, the start.

    :param reference_bonds: pairs of atoms that have to stay bonded; None for those of both ends among H, C and N.
    :param closest: shortest distance relative to the sum of the covalent radii.
    :param shortest: shortest distance in Å.
    :param stretch: longest bond relative to the sum of the covalent radii.
    :param may_return: whether the last structure may be the first one again, as in a scan of a whole turn.
    """
    if len(images) < 3:
        raise PathError(
            f'the path has {len(images)} structures: it needs its two ends and at least one image between them.'
        )
    if problem := _problem_of_order(images):
        raise EndsDifferError(problem)
    if problem := _problem_of_motion(images, may_return):
        raise PathError(problem)
    kept = _bonds_of_ends(images, stretch) if reference_bonds is None else np.array(reference_bonds, dtype=int)
    for number, image in enumerate(images):
        which = f'image {number} of 0 to {len(images) - 1}'
        if problem := _problem_of_distances(image, closest, shortest):
            raise AtomsMeetError(f'{which}: {problem}')
        if problem := _problem_of_bonds(image, kept, stretch):
            raise BondBrokenError(f'{which}: {problem}')


def _problem_of_order(images: Sequence[Atoms]) -> str | None:
    """Return which image holds other atoms, in another order, cell or charge than the first one, or no numbers."""
    for number, image in enumerate(images):
        problem = _difference(images[0], image)
        if problem:
            return f'image {number} of 0 to {len(images) - 1} {problem}.'
    return None


def _problem_of_motion(images: Sequence[Atoms], may_return: bool) -> str | None:
    """Return which atom jumps by a cell vector between two images, or that two images are one structure."""
    for number, (one, other) in enumerate(pairwise(images)):
        jumps = np.linalg.norm(other.positions - one.positions - displacements(one, other), axis=1)
        if jumps.max() > AT_REST:
            atom = int(jumps.argmax())
            return (
                f'{named(one, [atom])} jumps by a cell vector ({jumps[atom]:.2f} Å) between images {number} and '
                f'{number + 1}: do not wrap the images.'
            )
    if not may_return and _farthest(images[0], images[-1]) < AT_REST:
        return f'both ends are the same structure: no atom moves by more than {AT_REST:g} Å.'
    for number, (one, other) in enumerate(pairwise(images)):
        if _farthest(one, other) < AT_REST:
            return (
                f'images {number} and {number + 1} are the same structure: no atom moves by more than {AT_REST:g} Å. '
                'Leave one of them out.'
            )
    return None


def _farthest(one: Atoms, other: Atoms) -> float:
    """Return how far, in Å, an atom is at most from where it is in another structure."""
    return float(np.linalg.norm(other.positions - one.positions, axis=1).max())


def _problem_of_distances(image: Atoms, closest: float, shortest: float) -> str | None:
    """Return which two atoms are too near, the worst of them."""
    radii = covalent_radii[image.numbers]
    first, second, found = neighbor_list('ijd', image, np.maximum(closest * radii, shortest / 2))
    limits = np.maximum(closest * (radii[first] + radii[second]), shortest)
    if not np.any(found < limits):
        return None
    worst = int((found / limits).argmin())
    names = ' and '.join(named(image, [atom]) for atom in (first[worst], second[worst]))
    return f'{names} are {found[worst]:.3f} Å apart, less than {limits[worst]:.3f} Å.'


def _problem_of_bonds(image: Atoms, kept: NDArray[np.int64], stretch: float) -> str | None:
    """Return which bond is stretched the most of those that are broken."""
    if not len(kept):
        return None
    lengths, limits = _lengths(image, kept), stretch * covalent_radii[image.numbers[kept]].sum(axis=1)
    worst = int((lengths / limits).argmax())
    if lengths[worst] <= limits[worst]:
        return None
    bond = '–'.join(named(image, [atom]) for atom in kept[worst])
    return f'the bond {bond} is broken: it is {lengths[worst]:.3f} Å long, more than {limits[worst]:.3f} Å.'


def _bonds_of_ends(images: Sequence[Atoms], stretch: float) -> NDArray[np.int64]:
    """Return the bonds (n, 2) of molecules; refuse ends that do not have the same."""
    start, end = (bonds(image, stretch=stretch) for image in (images[0], images[-1]))
    only_one = sorted({tuple(pair) for pair in start.tolist()} ^ {tuple(pair) for pair in end.tolist()})
    if only_one:
        pair = np.array(only_one[:1])
        first, last = (_lengths(image, pair)[0] for image in (images[0], images[-1]))
        bond = '–'.join(named(images[0], [atom]) for atom in pair[0])
        raise BondBrokenError(
            f'{bond} is {first:.2f} Å in image 0 and {last:.2f} Å in image {len(images) - 1}, so bonded in '
            'one end only: give both ends the same order of atoms, or name the bonds to be kept.'
        )
    return start


def _lengths(image: Atoms, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the distance (n,) in Å of each pair of atoms (n, 2) by the nearest image."""
    vectors = image.positions[pairs[:, 1]] - image.positions[pairs[:, 0]]
    return np.asarray(find_mic(vectors, image.cell, image.pbc)[1])


def _difference(first: Atoms, other: Atoms) -> str | None:
    """Return how a structure differs from the first one in what a path must not change."""
    if len(first) != len(other):
        return f'has {len(other)} atoms and not {len(first)} as the first'
    if not np.isfinite(other.positions).all():
        return 'has positions that are no numbers'
    unlike = np.flatnonzero(first.numbers != other.numbers)
    if len(unlike):
        return f'has {named(other, unlike[:1])} where the first has {named(first, unlike[:1])}'
    if not np.allclose(first.cell.array, other.cell.array, atol=1e-6) or np.any(first.pbc != other.pbc):
        return 'has another cell than the first'
    return _difference_of_state(first, other)


def _difference_of_state(first: Atoms, other: Atoms) -> str | None:
    """Return in what a structure differs that has the same atoms; who tells no charge is neutral."""
    charges = [atoms.info.get('charge') or 0 for atoms in (first, other)]
    if charges[0] != charges[1]:
        return f'has the charge {charges[1]} and not {charges[0]} as the first'
    spins = [atoms.info.get('spin') for atoms in (first, other)]
    if None not in spins and spins[0] != spins[1]:
        return f'has the spin multiplicity {spins[1]} and not {spins[0]} as the first'
    return None


def _check_apart(images: Sequence[Atoms]) -> None:
    """Refuse a straight path on which two atoms meet: the pair potential is infinite there."""
    for number, image in enumerate(images):
        problem = _problem_of_distances(image, closest=0.0, shortest=TOGETHER)
        if problem:
            raise AtomsMeetError(
                f'image {number} of the straight path, which IDPP starts from, cannot be mended: {problem} '
                'If a molecule turns, take rotations.between.'
            )


def _same(value: Any, other: Any) -> bool:
    """Whether two values of `info` agree."""
    return bool(np.array_equal(np.asarray(value), np.asarray(other)))


class _EvenDistances(Calculator):
    """Pair potential that is zero where each distance is interpolated between its values in the two ends.

    Each pair keeps the periodic image that is nearest on the straight path, found once: this makes the potential smooth
    and an evaluation 20 times cheaper than one that looks for nearest images each time.
    """

    implemented_properties = ('energy', 'forces')

    def __init__(self, start: Atoms, end: Atoms, image: Atoms, fraction: float):
        super().__init__()
        vectors = _vectors(image.positions)
        nearest, _ = find_mic(vectors.reshape(-1, 3), image.cell, image.pbc)
        upper = np.triu(np.ones(vectors.shape[:2]))[:, :, None] * (nearest.reshape(vectors.shape) - vectors)
        self.shifts = upper - upper.transpose(1, 0, 2)  # both orders of a pair half a cell apart take the same image
        self.target = (1 - fraction) * self._distances(start.positions) + fraction * self._distances(end.positions)

    def _distances(self, positions: Positions) -> Positions:
        """Return all distances (n, n) in Å, 1 on the diagonal."""
        return np.asarray(np.linalg.norm(_vectors(positions) + self.shifts, axis=2) + np.eye(len(positions)))

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
        """Set energy Σ (d - d₀)² / 2d⁴ over ordered pairs in 1/Å², and forces (n, 3) in 1/Å³."""
        super().calculate(atoms, properties, system_changes)
        vectors = _vectors(self.atoms.positions) + self.shifts
        distances = np.linalg.norm(vectors, axis=2) + np.eye(len(vectors))
        excess = distances - self.target
        pulls = 2 * excess * (1 - 2 * excess / distances) / distances**5
        self.results = {
            'energy': float(0.5 * np.sum(excess**2 / distances**4)),
            'forces': np.einsum('ij,ijk->ik', pulls, vectors),
        }


def _vectors(positions: Positions) -> Positions:
    """Return the vectors (n, n, 3) in Å from each atom (first axis) to each other one."""
    return np.asarray(positions[None] - positions[:, None])
