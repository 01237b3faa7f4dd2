"""Saturated molecules without rings, such as the amino-silanes that passivate surfaces, from their SMILES."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

Positions = NDArray[np.float64]

PASSIVATORS = {
    'AEAPTMS': 'CO[Si](CCCNCCN)(OC)OC',  # N-(2-aminoethyl)-3-aminopropyltrimethoxysilane
    'aminomethylsilane': 'NC[SiH3]',
    'methylamine': 'CN',
}
"""Molecules that have a name here."""

VALENCES = {'C': 4, 'N': 3, 'O': 2, 'Si': 4, 'H': 1}

BONDS = {
    # Typical lengths of single bonds in Å, as electron diffraction has them.
    frozenset('C'): 1.53,
    frozenset('CN'): 1.47,
    frozenset('CO'): 1.42,
    frozenset(('C', 'Si')): 1.87,
    frozenset(('O', 'Si')): 1.64,
    frozenset(('N', 'Si')): 1.74,
    frozenset('CH'): 1.09,
    frozenset('NH'): 1.02,
    frozenset('OH'): 0.97,
    frozenset(('H', 'Si')): 1.48,
}

TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
STAGGERED = (180.0, 60.0, -60.0)
"""Angles of torsion in degrees in the order in which they are taken: the zigzag chain first."""

MARGIN = 1e-6
"""What a turn has to gain: two ways that leave as much room are one."""

_TOKEN = re.compile(r'\[(?P<bracket>Si|[CNO])(?P<count>H\d?)?\]|(?P<plain>[CNO])|(?P<branch>[()])')


@dataclass
class Tree:
    """The bonds of a molecule.

    :param parents: the atom that each atom is bonded to among those before it; -1 for the first.
    :param hydrogens: how many hydrogens a bracket says that an atom has; None where nothing is said.
    """

    symbols: list[str]
    parents: list[int]
    hydrogens: list[int | None]

    def children(self, atom: int) -> list[int]:
        """Return the atoms that hang on one, hydrogens last."""
        return [index for index, parent in enumerate(self.parents) if parent == atom]

    def neighbours(self, atom: int) -> list[int]:
        """Return the atoms that are bonded to one, the one it hangs on first."""
        return ([self.parents[atom]] if self.parents[atom] >= 0 else []) + self.children(atom)


def passivator(name: str) -> Atoms:
    """Return a molecule with its centre of mass at the origin, all angles tetrahedral and all torsions staggered.

    It is a start for a relaxation: chains are zigzag as far as there is room for it.

    :param name: one of `PASSIVATORS`, or the SMILES of a molecule of C, N, O, Si and H with single bonds alone.
    """
    tree = read_smiles(PASSIVATORS.get(name, name))
    positions = np.full((len(tree.symbols), 3), np.nan)
    positions[0] = 0.0
    for atom in range(len(tree.symbols)):  # an atom stands behind the one that it hangs on
        _place_children(tree, atom, positions)
    _turn_apart(tree, positions)
    atoms = Atoms(tree.symbols, positions=positions)
    atoms.translate(-atoms.get_center_of_mass())
    return atoms


def read_smiles(text: str) -> Tree:
    """Return the bonds of a molecule, level by level from its first atom, with all hydrogens."""
    heavy = _read_heavy(text)
    for atom, symbol in enumerate(list(heavy.symbols)):
        room = VALENCES[symbol] - len(heavy.neighbours(atom))
        said = heavy.hydrogens[atom]
        if room < 0 or said not in (None, room):
            raise ValueError(
                f'{symbol} number {atom + 1} of {text!r} has not {VALENCES[symbol]} single bonds: the molecule has to '
                'be saturated.'
            )
        for _ in range(room):
            heavy.symbols.append('H')
            heavy.parents.append(atom)
    return _by_level(heavy)


def _read_heavy(text: str) -> Tree:
    """Return the bonds of all atoms but hydrogen."""
    tree = Tree([], [], [])
    last, opened, end = -1, [], 0
    for match in _TOKEN.finditer(text):
        if match.start() != end:
            break
        end = match.end()
        if match['branch'] == '(':
            opened.append(last)
        elif match['branch'] == ')':
            if not opened:
                raise ValueError(f'{text!r} closes a branch that it has not opened.')
            last = opened.pop()
        else:
            tree.symbols.append(match['bracket'] or match['plain'])
            tree.parents.append(last)
            said = match['count']
            tree.hydrogens.append((int(said[1:] or 1) if said else 0) if match['bracket'] else None)
            last = len(tree.symbols) - 1
    if end != len(text) or opened or not tree.symbols or tree.parents.count(-1) != 1:
        raise ValueError(
            f'{text!r} is no saturated molecule: a SMILES of C, N, O and [Si] with branches, such as '
            f'{PASSIVATORS["AEAPTMS"]!r}, or one of {", ".join(PASSIVATORS)}.'
        )
    return tree


def _by_level(tree: Tree) -> Tree:
    """Return the same molecule with its atoms in the order of their distance from the first."""
    order = [0]
    for atom in order:  # grows on the way
        order += tree.children(atom)
    place = {atom: index for index, atom in enumerate(order)}
    parents = [-1 if tree.parents[atom] < 0 else place[tree.parents[atom]] for atom in order]
    return Tree([tree.symbols[atom] for atom in order], parents, [])


def _place_children(tree: Tree, atom: int, positions: Positions) -> None:
    """Place the atoms that hang on one, in its free directions as these come."""
    for child, direction in zip(tree.children(atom), _free_directions(tree, atom, positions), strict=False):
        positions[child] = positions[atom] + BONDS[frozenset((tree.symbols[atom], tree.symbols[child]))] * direction


def _turn_apart(tree: Tree, positions: Positions) -> None:
    """Turn parts of the molecule about their bonds, from one staggered torsion to another, as long as it makes room."""
    parts = [_part(tree, atom) for atom in range(1, len(tree.symbols)) if tree.children(atom)]
    crowding, before = _crowding(positions), np.inf
    while crowding < before:
        before = crowding
        for part in parts:
            atom, parent = part[0], tree.parents[part[0]]
            axis = positions[atom] - positions[parent]
            axis /= np.linalg.norm(axis)
            for degrees in (120.0, -120.0):
                turned = positions.copy()
                turn = Rotation.from_rotvec(np.radians(degrees) * axis)
                turned[part] = positions[parent] + turn.apply(positions[part] - positions[parent])
                if (found := _crowding(turned)) < crowding - MARGIN:
                    crowding, positions[:] = found, turned
                    break


def _part(tree: Tree, atom: int) -> list[int]:
    """Return an atom and all that hangs on it."""
    found = [atom]
    for each in found:  # grows on the way
        found += tree.children(each)
    return found


def _crowding(positions: Positions) -> float:
    """Return a number that grows steeply where atoms come near each other."""
    return float((pdist(positions) ** -12).sum())


def _free_directions(tree: Tree, atom: int, positions: Positions) -> list[Positions]:
    """Return the tetrahedral directions (3,) of an atom but that to the atom which it hangs on."""
    parent = tree.parents[atom]
    if parent < 0:
        return list(TETRAHEDRON)
    back = positions[parent] - positions[atom]
    back /= np.linalg.norm(back)
    other = next(each for each in tree.neighbours(parent) if each != atom)
    across = positions[other] - positions[parent]
    across -= (across @ back) * back
    across /= np.linalg.norm(across)
    side = np.cross(back, across)
    found = []
    for degrees in STAGGERED:
        angle = np.radians(degrees)
        radial = np.cos(angle) * across + np.sin(angle) * side
        found.append(-back / 3 + np.sqrt(8) / 3 * radial)
    return found
