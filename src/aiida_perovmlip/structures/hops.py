"""Symmetry-distinct hops of an ion or a molecule into a vacancy or between interstitial places of a host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial import KDTree, Voronoi

from aiida_perovmlip.structures.bonds import Positions, centre_of_mass, molecules_by_bonds, whole
from aiida_perovmlip.structures.molecules import MOLECULES, molecule
from aiida_perovmlip.structures.pairs import MARGIN, distinct_pairs, space_group

Vector = tuple[float, float, float]

SYMPREC = 1e-3
"""Distance in Å within which two atoms count as equivalent; take 0.1 for a structure from a rough relaxation."""


@dataclass(frozen=True)
class Hop:
    """A hop that stands for all that are equivalent to it under the space group of the host.

    :param ion: element such as `I`, or molecule such as `MA`.
    :param vector: straight way of the hop (3,) in Å.
    :param multiplicity: number of equivalent hops between the first place (of a vacancy, `emptied`) and its neighbours.
    :param has_equivalent_ends: whether both places are equivalent, so that the barriers of both directions are equal.
    """

    ion: str
    vector: Vector
    multiplicity: int
    has_equivalent_ends: bool

    @property
    def distance(self) -> float:
        """Length of the straight way in Å."""
        return float(np.linalg.norm(self.vector))


@dataclass(frozen=True)
class VacancyHop(Hop):
    """A hop of the ion `moved` into the place of the ion `emptied`.

    :param emptied: atoms of the host that are taken out.
    :param moved: atoms of the host that move, with the indices they have in the host.
    """

    emptied: tuple[int, ...]
    moved: tuple[int, ...]

    def ends(self, host: Atoms, charge: float | None = None) -> tuple[Atoms, Atoms]:
        """Return the host without `emptied`, before and after the hop, in the same order of atoms.

        :param host: in which the hop was found; or the same after a relaxation, where the way is the one between the
            places of now. So the hops of an ideal crystal serve one whose molecules leave no symmetry.
        :param charge: of the cell, kept in `info['charge']` of both; None for none.
        """
        for part in (self.emptied, self.moved):
            if max(part) >= len(host) or _name_of(host, part) != _name(self.ion):
                raise ValueError(f'the host has no {self.ion} at {part}: give the host that the hop was found in.')
        way = self._way(host)
        start = _prepared(host, charge)
        start.positions[list(self.moved)] = whole(host, self.moved)
        end = start.copy()
        end.positions[list(self.moved)] += way
        for structure in (start, end):
            del structure[list(self.emptied)]
        return start, end

    def _way(self, host: Atoms) -> Positions:
        """Return the way (3,) in Å between the places in this host, to the periodic image that the vector leads to."""
        gap = centre_of_mass(host, self.moved) - centre_of_mass(host, self.emptied)
        cells = np.round(host.cell.scaled_positions((gap + self.vector)[None])[0])
        return np.asarray(cells @ host.cell.array - gap)


@dataclass(frozen=True)
class InterstitialHop(Hop):
    """A hop of an ion that is added to the host, from one place between its atoms to another.

    :param place: where the ion (the centre of mass of a molecule) starts, (3,) in Å.
    """

    place: Vector

    def ends(self, host: Atoms, charge: float | None = None) -> tuple[Atoms, Atoms]:
        """Return the host with the ion as its last atoms, before and after the hop.

        :param charge: of the cell, kept in `info['charge']` of both; None for none.
        """
        added = molecule(self.ion) if self.ion in MOLECULES else Atoms(self.ion, positions=np.zeros((1, 3)))
        added.positions += self.place
        start = _prepared(host, charge)
        start.extend(added)
        if 'molecule' in host.arrays:
            last = host.arrays['molecule'].max(initial=-1)
            start.arrays['molecule'][len(host) :] = last + 1 if len(added) > 1 else -1
        end = start.copy()
        end.positions[len(host) :] += self.vector
        return start, end


def vacancy_hops(
    host: Atoms, ion: str, max_distance: float, symprec: float = SYMPREC, molecules_as_points: bool = False
) -> list[VacancyHop]:
    """Return the distinct hops of an ion into a vacancy of its kind, the shortest first.

    :param ion: element such as `I`; or a molecule, as `MA`, `FA` or its formula: it moves as it stands.
    :param max_distance: longest straight way in Å.
    :param symprec: distance in Å within which atoms count as equivalent.
    :param molecules_as_points: whether the symmetry is that of the host with each molecule as a point at its centre of
        mass. Molecules that stand at random leave no symmetry, and each pair of ions would be a hop of its own.
    """
    members = _ions(host, ion)
    if not members:
        raise ValueError(f'the host {host.get_chemical_formula()} holds no {ion} that could hop.')
    places = np.array([centre_of_mass(host, part) for part in members])
    group = space_group(host, symprec, molecules_as_points)
    return [
        VacancyHop(
            ion=ion,
            vector=_vector(-pair.vector),
            multiplicity=pair.multiplicity,
            has_equivalent_ends=pair.has_equivalent_ends,
            emptied=members[pair.first],
            moved=members[pair.second],
        )
        for pair in distinct_pairs(host, group, places, max_distance)
    ]


def interstitial_hops(
    host: Atoms,
    ion: str,
    places: Sequence[Sequence[float]] | Positions,
    max_distance: float,
    symprec: float = SYMPREC,
    molecules_as_points: bool = False,
) -> list[InterstitialHop]:
    """Return the distinct hops of an added ion between places and all their equivalents, the shortest first.

    :param ion: element such as `I`, or `MA` or `FA`, which moves as :func:`~.molecules.molecule` orients it.
    :param places: where the ion may sit, (n, 3) in Å; one of each set of equivalent places is enough.
    """
    given = np.asarray(places, dtype=float)
    if given.ndim != 2 or given.shape[1] != 3 or not len(given):
        raise ValueError(
            f'the places have the shape {given.shape} but have to be one or more of three coordinates in Å.'
        )
    group = space_group(host, symprec, molecules_as_points)
    equivalents = group.equivalents(given, host.cell.array)
    return [
        InterstitialHop(
            ion=ion,
            vector=_vector(pair.vector),
            multiplicity=pair.multiplicity,
            has_equivalent_ends=pair.has_equivalent_ends,
            place=_vector(equivalents[pair.first]),
        )
        for pair in distinct_pairs(host, group, equivalents, max_distance)
    ]


def interstitial_places(host: Atoms, clearance: float, symprec: float = SYMPREC) -> Positions:
    """Return the distinct places (n, 3) in Å that are farther from all atoms than places around, the roomiest first.

    They are vertices of the Voronoi cells of the atoms: starts of relaxations, not yet the sites of an ion.

    :param clearance: smallest distance in Å from a place to the centres of the atoms.
    """
    if not host.pbc.all():
        raise ValueError(
            'the host is not periodic in all three directions: name the places for an interstitial instead.'
        )
    group = space_group(host, symprec)
    around = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T @ host.cell.array
    centres = (host.get_positions(wrap=True) + around[:, None]).reshape(-1, 3)
    vertices = Voronoi(centres).vertices
    scaled = group.scaled(vertices)
    vertices = vertices[np.all((scaled > -1e-6) & (scaled < 1 - 1e-6), axis=1)]
    room, _ = KDTree(centres).query(vertices)
    roomy = vertices[np.argsort(-np.round(room, 3), kind='stable')][: np.count_nonzero(room >= clearance)]
    found: list[Positions] = []
    taken = np.empty((0, 3))
    for place in roomy:
        scaled = group.scaled(place[None])
        if not len(taken) or group.gaps(scaled - taken).min() > MARGIN * symprec:
            found.append(place)
            taken = np.vstack([taken, group.applied(place[None])[:, 0]])
    return np.array(found).reshape(-1, 3)


def _ions(host: Atoms, ion: str) -> list[tuple[int, ...]]:
    """Return the atoms of each ion of this name; an atom of a molecule is no ion."""
    parts = [tuple(int(index) for index in part) for part in molecules_by_bonds(host)]
    inside = {index for part in parts for index in part}
    groups: list[tuple[int, ...]] = [(index,) for index in range(len(host)) if index not in inside]
    return [group for group in [*groups, *parts] if _name_of(host, group) == _name(ion)]


def _name_of(host: Atoms, members: Sequence[int]) -> str:
    """Return the name of an ion: its element, `MA`, `FA`, or the formula of another molecule."""
    return _name(host[list(members)].symbols.formula.format('hill'))


def _name(ion: str) -> str:
    """Return the short name of a molecule that is given by its formula."""
    return next((name for name in MOLECULES if ion == molecule(name).symbols.formula.format('hill')), ion)


def _vector(values: NDArray[np.float64]) -> Vector:
    """Return three numbers."""
    x, y, z = (float(value) + 0.0 for value in values)  # no -0.0
    return x, y, z


def _prepared(host: Atoms, charge: float | None) -> Atoms:
    """Return a copy of the host whose `info` knows the charge of the cell alone."""
    copy = host.copy()
    copy.info = {} if charge is None else {'charge': charge}
    return copy
