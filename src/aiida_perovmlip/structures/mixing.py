"""Perovskites with several ions or molecules on the A site, arranged at random or as if they were.

A random arrangement of few sites has correlations by chance. The quasi-random one has as little of them as exchanges of
pairs can reach: for each shell of neighbours the number of pairs of each two kinds is that of an infinite random
crystal (Zunger et al., Phys. Rev. Lett. 65, 353 (1990)).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from aiida_perovmlip.structures.distort import is_too_close, reoriented
from aiida_perovmlip.structures.molecules import MOLECULES, molecule
from aiida_perovmlip.structures.perovskite import LATTICE_CONSTANTS, Glazer, sites_of, tilted

Arrangement = Literal['random', 'quasirandom']
ARRANGEMENTS: tuple[str, ...] = get_args(Arrangement)

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

SHELLS = 3
"""Shells of neighbours whose pairs are counted: along the edges, face diagonals and space diagonals of the cubes."""

EXCHANGES = 200
"""Exchanges that are tried for each site."""


def mixed(
    fractions: Mapping[str, float],
    b_site: str,
    x_site: str,
    repeat: Sequence[int],
    rng: np.random.Generator,
    lattice_constant: float | None = None,
    glazer: Glazer = 'a0a0a0',
    angle_degrees: float = 0.0,
    arrangement: Arrangement = 'random',
) -> Atoms:
    """Return a perovskite whose A sites are shared by ions and molecules, each molecule turned at random.

    Fractions are rounded to whole numbers of sites. Molecules keep clear of the framework. In each cell A comes first,
    as in `perovskite.cubic`; `arrays['molecule']` numbers the molecules.

    :param fractions: of the A sites by kind, such as `{'MA': 0.73, 'FA': 0.27}`; their sum is 1.
    :param repeat: number of cells along each axis.
    :param rng: draws the arrangement first, then the orientations.
    :param lattice_constant: in Å; None for the mean of the typical ones of the pure crystals.
    :param glazer: tilts to start from.
    :param angle_degrees: of these tilts.
    """
    counts = counts_of(fractions, math.prod(repeat))
    if lattice_constant is None:
        lattice_constant = mean_constant(fractions, b_site, x_site)
    if arrangement not in ARRANGEMENTS:
        raise ValueError(f'the arrangement is {arrangement!r} but has to be one of {", ".join(ARRANGEMENTS)}.')
    kinds = shuffled(counts, rng)
    if arrangement == 'quasirandom':
        kinds = quasirandom(kinds, repeat, rng)
    framework = tilted('Cs', b_site, x_site, lattice_constant, repeat, glazer, angle_degrees)
    atoms = reoriented(with_cations(framework, kinds), rng)
    if is_too_close(atoms):
        raise ValueError(
            f'two atoms of {atoms.get_chemical_formula()} are too close at a lattice constant of '
            f'{lattice_constant:.3f} Å: take a larger one, or smaller tilts.'
        )
    return atoms


def mean_constant(fractions: Mapping[str, float], b_site: str, x_site: str) -> float:
    """Return the mean of the typical lattice constants in Å of the pure crystals, as Vegard would."""
    absent = sorted(kind for kind in fractions if f'{kind}{b_site}{x_site}3' not in LATTICE_CONSTANTS)
    if absent:
        raise ValueError(f'no lattice constant of {absent[0]}{b_site}{x_site}3 is known here: give it in Å.')
    total = math.fsum(fractions.values())
    return math.fsum(part * LATTICE_CONSTANTS[f'{kind}{b_site}{x_site}3'] for kind, part in fractions.items()) / total


def fractions_of(formula: str) -> tuple[dict[str, float], str, str]:
    """Return what is on A with its fractions, on B and on X, of a formula such as `MA0.73FA0.27PbI3` or `CsPbBr3`."""
    match = re.fullmatch(r'((?:(?:MA|FA|Cs|Rb|K)(?:\d*\.?\d+)?)+)([A-Z][a-z]?)([A-Z][a-z]?)3', formula)
    if match is None:
        raise ValueError(f'the formula {formula!r} is none such as CsPbBr3 or MA0.73FA0.27PbI3.')
    parts = re.findall(r'(MA|FA|Cs|Rb|K)(\d*\.?\d+)?', match.group(1))
    found = {kind: float(part) if part else 1.0 for kind, part in parts}
    if len(found) != len(parts) or not math.isclose(math.fsum(found.values()), 1.0, abs_tol=1e-6):
        raise ValueError(f'the fractions on the A site of {formula!r} have to be of different ions and have the sum 1.')
    for kind in found:
        sites_of(f'{kind}{match.group(2)}{match.group(3)}3')
    return found, match.group(2), match.group(3)


def counts_of(fractions: Mapping[str, float], n_sites: int) -> dict[str, int]:
    """Return how many sites each kind gets: whole numbers with the right sum, none off by one or more."""
    for kind, part in fractions.items():
        if kind not in MOLECULES and atomic_numbers.get(kind, 0) == 0:
            raise ValueError(
                f'{kind!r} cannot sit on the A site: it is no element, and none of {", ".join(MOLECULES)}.'
            )
        if not 0 <= part <= 1:
            raise ValueError(f'the fraction of {kind} is {part} but has to be between 0 and 1.')
    if not fractions or not math.isclose(math.fsum(fractions.values()), 1.0, abs_tol=1e-6):
        raise ValueError(f'the fractions have the sum {math.fsum(fractions.values()):g} but it has to be 1.')
    exact = {kind: part * n_sites for kind, part in fractions.items()}
    found = {kind: math.floor(value + 1e-9) for kind, value in exact.items()}
    order = sorted(fractions, key=lambda kind: found[kind] - exact[kind])
    for kind in order[: n_sites - sum(found.values())]:
        found[kind] += 1
    return found


def shuffled(counts: Mapping[str, int], rng: np.random.Generator) -> list[str]:
    """Return the kind on each site, in random order without any correlation."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return [kinds[index] for index in rng.permutation(len(kinds))]


def short_range_order(kinds: Sequence[str], repeat: Sequence[int], n_shells: int = SHELLS) -> dict[str, Array]:
    """Return the Warren–Cowley parameters (n_shells,) of each two kinds, such as `FA-MA`.

    They are one minus the number of such pairs over that in a random crystal: 0 where random, positive where the two
    avoid each other.

    :param kinds: on each site, the last axis running fastest.
    :param repeat: number of sites along each axis.
    """
    names, codes = _codes(kinds)
    counts = np.bincount(codes, minlength=len(names))
    pairs = _Occupied(codes, _neighbours(repeat, n_shells), len(names)).pairs()
    found = {}
    for one, other in itertools.combinations(range(len(names)), 2):
        both = pairs[:, one, other] + pairs[:, other, one]
        expected = pairs.sum(axis=(1, 2)) * 2 * counts[one] * counts[other] / len(codes) ** 2
        found[f'{names[one]}-{names[other]}'] = 1 - both / expected
    return found


def quasirandom(
    kinds: Sequence[str],
    repeat: Sequence[int],
    rng: np.random.Generator,
    n_shells: int = SHELLS,
    exchanges: int = EXCHANGES,
) -> list[str]:
    """Return an arrangement of the same kinds whose pairs are as in an infinite random crystal, as far as it gets.

    Two sites are exchanged where this brings the numbers of pairs nearer to those of the random crystal; nearer shells
    weigh more.

    :param exchanges: tries for each site.
    """
    names, codes = _codes(kinds)
    if len(names) < 2:
        return list(kinds)
    lattice = _Occupied(codes, _neighbours(repeat, n_shells), len(names))
    parts = np.bincount(codes) / len(codes)
    sizes = np.array([shell.size for shell in lattice.neighbours], dtype=float)
    wanted = sizes[:, None, None] * parts[:, None] * parts
    # Relative to the number of pairs of a shell, halved from shell to shell.
    weights = (0.5 ** np.arange(n_shells) / sizes)[:, None, None]
    off = lattice.pairs() - wanted
    misfit = float(np.abs(weights * off).sum())
    for one, other in rng.integers(len(codes), size=(exchanges * len(codes), 2)).tolist():
        if codes[one] == codes[other]:
            continue
        changed = off + lattice.change(one, other)
        after = float(np.abs(weights * changed).sum())
        if after <= misfit:
            lattice.exchange(one, other)
            off, misfit = changed, after
        if misfit < 1e-12:
            break
    return [names[code] for code in lattice.codes]


def with_cations(framework: Atoms, kinds: Sequence[str]) -> Atoms:
    """Return a crystal with other ions or molecules in place of its A-site ions, centres of mass on their sites.

    :param framework: with one atom on A, one on B and three on X for each cell, in this order.
    :param kinds: what sits on A in each cell.
    """
    if len(framework) != 5 * len(kinds):
        raise ValueError(f'{len(framework)} atoms are not the framework of {len(kinds)} cells of five atoms.')
    cells = framework.positions.reshape(-1, 5, 3)
    numbers, positions, marks, count = [], [], [], 0
    for cell, kind, around in zip(cells, kinds, framework.numbers.reshape(-1, 5), strict=True):
        cation = molecule(kind) if kind in MOLECULES else Atoms(kind, positions=[[0.0, 0.0, 0.0]])
        is_molecule = len(cation) > 1
        numbers += [cation.numbers, around[1:]]
        positions += [cell[0] + cation.positions, cell[1:]]
        marks += [np.full(len(cation), count if is_molecule else -1), np.full(4, -1)]
        count += is_molecule
    atoms = Atoms(np.concatenate(numbers), np.concatenate(positions), cell=framework.cell, pbc=True)
    atoms.set_array('molecule', np.concatenate(marks))
    return atoms


def _codes(kinds: Sequence[str]) -> tuple[list[str], Integers]:
    """Return the names of the kinds in alphabetical order, and the number of that on each site."""
    names, codes = np.unique(np.asarray(kinds), return_inverse=True)
    return names.tolist(), np.asarray(codes, dtype=np.int64).ravel()


def _neighbours(repeat: Sequence[int], n_shells: int) -> list[Integers]:
    """Return, for each shell of a simple cubic lattice, the neighbours (n_sites, n) of each site.

    In a small cell a neighbour may be there several times, or be the site itself.
    """
    reach = range(-2, 3)
    vectors = sorted(itertools.product(reach, reach, reach), key=lambda each: sum(x * x for x in each))
    distances = sorted({sum(x * x for x in each) for each in vectors if any(each)} - {12})
    sites = np.array(list(np.ndindex(*repeat)))
    found = []
    for distance in distances[:n_shells]:
        shell = np.array([each for each in vectors if sum(x * x for x in each) == distance])
        moved = (sites[:, None] + shell) % np.asarray(repeat)
        found.append(np.ravel_multi_index(tuple(np.moveaxis(moved, 2, 0)), tuple(repeat)))
    return found


class _Occupied:
    """A lattice with something on each site, which knows what is around each of them.

    With the occupation as a matrix O (n_sites, n_kinds) of 0 and 1 and the neighbours as a matrix A, pairs are
    OᵀAO. An exchange adds D to O, so that they grow by DᵀAO + OᵀAD + DᵀAD; D has two rows that are not zero.

    :param codes: (n_sites,) number of the kind on each; changed by `exchange`.
    """

    def __init__(self, codes: Integers, neighbours: Sequence[Integers], n_kinds: int) -> None:
        self.codes, self.neighbours, self.n_kinds = codes, neighbours, n_kinds
        self.unit = np.eye(n_kinds)
        self.around = np.stack([self.unit[codes[shell]].sum(axis=1) for shell in neighbours], axis=1)

    def pairs(self) -> Array:
        """Return the numbers of ordered pairs (n_shells, n_kinds, n_kinds)."""
        return np.asarray(np.einsum('ix,isy->sxy', self.unit[self.codes], self.around))

    def change(self, one: int, other: int) -> Array:
        """Return what an exchange of two sites would add to the numbers of pairs."""
        turn = self.unit[self.codes[other]] - self.unit[self.codes[one]]
        outer = (self.around[one] - self.around[other])[:, None, :] * turn[:, None]
        both = [self._met(shell, one, one) + self._met(shell, other, other) - 2 * self._met(shell, one, other)
                for shell in self.neighbours]  # fmt: skip
        return np.asarray(outer + outer.transpose(0, 2, 1) + np.array(both)[:, None, None] * (turn[:, None] * turn))

    def exchange(self, one: int, other: int) -> None:
        """Exchange two sites."""
        turn = self.unit[self.codes[other]] - self.unit[self.codes[one]]
        for number, shell in enumerate(self.neighbours):
            # Neighbours are mutual; in a small cell one may be met several times.
            np.add.at(self.around, (shell[one], number), turn)
            np.add.at(self.around, (shell[other], number), -turn)
        self.codes[one], self.codes[other] = self.codes[other], self.codes[one]

    @staticmethod
    def _met(shell: Integers, one: int, other: int) -> int:
        """Return how often a site meets another one in a shell."""
        return int(np.count_nonzero(shell[one] == other))
