"""Ideal and tilted halide perovskites ABX₃.

Every builder sets `atoms.arrays['molecule']` (n_atoms,): the number of the A-site molecule that an atom belongs to,
or -1 for atoms that belong to none. Each cell holds A, then B at its corner, then three X on the edges from there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_perovmlip.structures.distort import reoriented
from aiida_perovmlip.structures.molecules import MOLECULES, molecule

Glazer = Literal['a0a0a0', 'a0a0c+', 'a0a0c-', 'a-a-c+']
"""Tilt systems in the notation of A. M. Glazer, Acta Cryst. B 28, 3384 (1972)."""

GLAZER: tuple[str, ...] = get_args(Glazer)
HALIDES = ('F', 'Cl', 'Br', 'I')

LATTICE_CONSTANTS = {
    # Typical experimental constants in Å of the cubic phase, at the temperature where it exists; they are a start for
    # a relaxation or a strained dataset, not a reference. The DFT constant of a functional differs by up to 2 %.
    'CsPbCl3': 5.61,  # above 320 K; Møller, Nature 182, 1436 (1958)
    'CsPbBr3': 5.87,  # above 403 K; Møller, Nature 182, 1436 (1958)
    'CsPbI3': 6.29,  # 634 K; Trots and Myagkota, J. Phys. Chem. Solids 69, 2520 (2008)
    'MAPbCl3': 5.68,  # Poglitsch and Weber, J. Chem. Phys. 87, 6373 (1987)
    'MAPbBr3': 5.93,  # room temperature
    'MAPbI3': 6.33,  # above 327 K; Poglitsch and Weber, J. Chem. Phys. 87, 6373 (1987)
    'FAPbBr3': 5.99,  # room temperature; Schueller et al., Inorg. Chem. 57, 695 (2018)
    'FAPbI3': 6.36,  # room temperature; Weller et al., Chem. Commun. 51, 4180 (2015)
    'CsSnBr3': 5.80,  # room temperature
    'CsSnI3': 6.22,  # above 425 K; Yamada et al., J. Electrochem. Soc. 138, 2117 (1991)
    'MASnBr3': 5.89,  # room temperature; Weber, Z. Naturforsch. B 33, 862 (1978)
    'MASnI3': 6.24,  # room temperature; Weber, Z. Naturforsch. B 33, 862 (1978)
    'FASnI3': 6.32,  # room temperature; Schueller et al., Inorg. Chem. 57, 695 (2018)
}


class Sites(NamedTuple):
    """What sits on the sites of a perovskite: an element or molecule on A, a metal on B, a halide on X."""

    a_site: str
    b_site: str
    x_site: str


def sites_of(formula: str) -> Sites:
    """Return the sites of a formula such as `CsPbI3` or `MAPbBr3`."""
    match = re.fullmatch(r'(MA|FA|[A-Z][a-z]?)([A-Z][a-z]?)([A-Z][a-z]?)3', formula)
    if match is None:
        raise ValueError(f'the formula {formula!r} is no perovskite ABX3 such as CsPbI3, MAPbI3 or FASnBr3.')
    sites = Sites(*match.groups())
    _check_sites(sites)
    return sites


def lattice_constant_of(formula: str) -> float:
    """Return the typical experimental (pseudo-)cubic lattice constant in Å."""
    if formula not in LATTICE_CONSTANTS:
        known = ', '.join(sorted(LATTICE_CONSTANTS))
        raise ValueError(f'no lattice constant of {formula!r} is known here: give it in Å. Known are {known}.')
    return LATTICE_CONSTANTS[formula]


def cubic(
    a_site: str,
    b_site: str,
    x_site: str,
    lattice_constant: float,
    repeat: Sequence[int] = (1, 1, 1),
    rng: np.random.Generator | None = None,
) -> Atoms:
    """Return a supercell of the ideal cubic perovskite.

    :param a_site: an element such as `Cs`, or the molecule `MA` or `FA`.
    :param lattice_constant: distance of neighbouring B in Å.
    :param repeat: number of cells along each axis.
    :param rng: draws an orientation of each molecule, clear of the framework; None leaves all of them parallel.
    """
    _check_sites(Sites(a_site, b_site, x_site))
    _check_size(lattice_constant, repeat)
    cation = molecule(a_site) if a_site in MOLECULES else Atoms(a_site, positions=[[0.0, 0.0, 0.0]])
    corners = lattice_constant * _cells(repeat)
    frameworks = corners[:, None] + lattice_constant * np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]])
    cations = corners[:, None] + lattice_constant / 2 + cation.positions
    atoms = Atoms(
        numbers=np.tile([*cation.numbers, atomic_numbers[b_site], *[atomic_numbers[x_site]] * 3], len(corners)),
        positions=np.concatenate([cations, frameworks], axis=1).reshape(-1, 3),
        cell=lattice_constant * np.asarray(repeat),
        pbc=True,
    )
    atoms.set_array('molecule', _molecule_numbers(len(cation), len(corners)))
    return atoms if rng is None else reoriented(atoms, rng)


def tilted(
    a_site: str,
    b_site: str,
    x_site: str,
    lattice_constant: float,
    repeat: Sequence[int],
    glazer: Glazer,
    angle_degrees: float,
    rng: np.random.Generator | None = None,
) -> Atoms:
    """Return a supercell whose octahedra are tilted by moving the halides alone, to first order in the angle.

    Neighbouring B stay `lattice_constant` apart, so the B–X bonds grow by 1/cos(angle). Axes are x, y, z in the order
    of the Glazer symbol, all with the same angle.

    :param repeat: number of cells along each axis, even wherever the tilts alternate.
    :param angle_degrees: tilt about each of the tilted axes.
    """
    signs = tilt_signs(glazer, repeat)
    if not 0 <= angle_degrees < 45:
        raise ValueError(f'the tilt is {angle_degrees}° but has to be at least 0° and less than 45°.')
    atoms = cubic(a_site, b_site, x_site, lattice_constant, repeat)
    # A rotation vector φ of the octahedron at B moves its halide at (a/2) eᵢ by φ × (a/2) eᵢ. Taking tan instead of
    # the angle makes the B–X direction turn by exactly this angle where there is a single axis.
    rotations = np.tan(np.radians(angle_degrees)) * signs
    shifts = lattice_constant / 2 * np.cross(rotations[:, None, :], np.eye(3)[None])
    by_cell = atoms.positions.reshape(len(signs), -1, 3)
    by_cell[:, -3:] += shifts
    atoms.positions = by_cell.reshape(-1, 3)
    return atoms if rng is None else reoriented(atoms, rng)


def tilt_signs(glazer: str, repeat: Sequence[int]) -> NDArray[np.float64]:
    """Return the sense of rotation (n_cells, 3) of each octahedron about each axis: -1, 0 or 1.

    Corner sharing makes a tilt alternate along the two axes across it. Along its own axis it may stay in phase (+, an M
    point) or alternate as well (-, the R point).
    """
    if glazer not in GLAZER:
        raise ValueError(f'the tilt system is {glazer!r} but has to be one of {", ".join(GLAZER)}.')
    _check_repeat(repeat)
    cells = _cells(repeat)
    signs = np.zeros((len(cells), 3))
    for axis, phase in enumerate(glazer[1::2]):
        if phase == '0':
            continue
        alternating = [other for other in range(3) if phase == '-' or other != axis]
        if any(repeat[other] % 2 for other in alternating):
            raise ValueError(
                f'the repeat is {tuple(repeat)} but the tilts {glazer} need an even number of cells along '
                f'{", ".join("xyz"[other] for other in alternating)}.'
            )
        signs[:, axis] = (-1.0) ** cells[:, alternating].sum(axis=1)
    return signs


def _cells(repeat: Sequence[int]) -> NDArray[np.int64]:
    """Return the integer coordinates (n_cells, 3) of all cells, the last axis running fastest."""
    return np.array(list(np.ndindex(*repeat)), dtype=np.int64)


def _molecule_numbers(size: int, n_cells: int) -> NDArray[np.int64]:
    """Return the molecule (n_atoms,) of each atom where every cell starts with a cation of this many atoms."""
    numbers = np.full((n_cells, size + 4), -1, dtype=np.int64)
    if size > 1:
        numbers[:, :size] = np.arange(n_cells)[:, None]
    return numbers.ravel()


def _check_sites(sites: Sites) -> None:
    """Refuse what cannot sit on a site."""
    if sites.a_site not in MOLECULES and atomic_numbers.get(sites.a_site, 0) == 0:
        raise ValueError(f'the A site is {sites.a_site!r} but has to be an element or one of {", ".join(MOLECULES)}.')
    if atomic_numbers.get(sites.b_site, 0) == 0:
        raise ValueError(f'the B site is {sites.b_site!r} but has to be an element.')
    if sites.x_site not in HALIDES:
        raise ValueError(f'the X site is {sites.x_site!r} but has to be one of {", ".join(HALIDES)}.')


def _check_size(lattice_constant: float, repeat: Sequence[int]) -> None:
    """Refuse a lattice constant or a repeat that makes no crystal."""
    if not (np.isfinite(lattice_constant) and lattice_constant > 0):
        raise ValueError(f'the lattice constant is {lattice_constant} Å but has to be positive.')
    _check_repeat(repeat)


def _check_repeat(repeat: Sequence[int]) -> None:
    """Refuse a repeat that is not three positive whole numbers."""
    if len(repeat) != 3 or any(int(number) != number or number < 1 for number in repeat):
        raise ValueError(f'the repeat is {tuple(repeat)} but has to be three whole numbers of at least 1.')
