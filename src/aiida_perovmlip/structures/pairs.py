"""Pairs of places in a crystal that are distinct under its space group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.build.supercells import lattice_points_in_supercell
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from aiida_perovmlip.structures.bonds import Indices, Positions, centre_of_mass, molecules_by_bonds

MARGIN = 4
"""Distance, in units of the tolerance of the symmetry, within which places and vectors are the same."""


@dataclass(frozen=True)
class SpaceGroup:
    """The operations of a space group in the primitive cell: the same for all supercells of a crystal.

    :param rotations: (n, 3, 3), acting on columns of scaled positions.
    :param translations: (n, 3) in scaled positions.
    :param cell: primitive cell (3, 3) in Å, oriented as the structure.
    :param tolerance: in Å.
    """

    rotations: NDArray[np.int64]
    translations: Positions
    cell: Positions
    tolerance: float

    def scaled(self, places: Positions) -> Positions:
        """Return scaled positions of places (n, 3) in Å."""
        return np.asarray(np.linalg.solve(self.cell.T, places.T).T)

    def applied(self, places: Positions) -> Positions:
        """Return the scaled positions (n_operations, n, 3) that all operations take places (n, 3) in Å to."""
        turned = np.einsum('oab,pb->opa', self.rotations, self.scaled(places))
        return np.asarray(turned + self.translations[:, None])

    def turns(self) -> Positions:
        """Return the rotations (n_operations, 3, 3) that act on columns of Cartesian vectors."""
        return np.asarray(self.cell.T @ self.rotations @ np.linalg.inv(self.cell.T))

    def gaps(self, scaled: Positions) -> NDArray[np.float64]:
        """Return the lengths (…) in Å of scaled vectors (…, 3), up to vectors of the primitive cell."""
        return np.asarray(np.linalg.norm((scaled - np.round(scaled)) @ self.cell, axis=-1))

    def sites(self, places: Positions) -> Indices:
        """Return the site (n,) of each place (n, 3) in Å: sites are places up to translations, by first appearance."""
        scaled, near = self.scaled(places), MARGIN * self.tolerance
        widest = near / np.linalg.svd(self.cell, compute_uv=False).min()  # of a sphere, in scaled coordinates
        pairs = KDTree(_wrapped(scaled), boxsize=1.0).query_pairs(min(widest, 0.49), output_type='ndarray')
        first, second = pairs[self.gaps(scaled[pairs[:, 0]] - scaled[pairs[:, 1]]) < near].T
        graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(places), len(places)))
        labels = connected_components(graph, directed=False)[1]
        _, appearance, inverse = np.unique(labels, return_index=True, return_inverse=True)
        return np.asarray(np.argsort(np.argsort(appearance))[inverse], dtype=np.int64)

    def images(self, sites: Positions) -> Indices:
        """Return which of the sites (n, 3) in Å each operation takes each of them to, (n_operations, n)."""
        moved, scaled = self.applied(sites), self.scaled(sites)
        _, found = KDTree(_wrapped(scaled), boxsize=1.0).query(_wrapped(moved))
        worst = float(self.gaps(moved - scaled[found]).max())
        if worst > MARGIN * self.tolerance:
            raise ValueError(
                f'an operation of the space group takes a place {worst:.3g} Å off all others: give all equivalents of '
                f'each place, or another symprec than {self.tolerance:g} Å.'
            )
        return np.asarray(found, dtype=np.int64)

    def equivalents(self, places: Positions, cell: Positions) -> Positions:
        """Return all equivalents (n, 3) in Å of places (n, 3) in Å, once each in a supercell (3, 3) in Å."""
        every = _wrapped(self.applied(places).transpose(1, 0, 2).reshape(-1, 3)) @ self.cell
        _, appearance = np.unique(self.sites(every), return_index=True)
        repeats = np.round(cell @ np.linalg.inv(self.cell)).astype(int)
        return np.asarray((every[appearance] + (lattice_points_in_supercell(repeats) @ cell)[:, None]).reshape(-1, 3))


@dataclass(frozen=True)
class Pair:
    """Two places, for all equivalent pairs.

    :param first: index of a place.
    :param second: index of the other place.
    :param vector: (3,) in Å from the first to the second.
    :param multiplicity: number of equivalent pairs that the first place belongs to.
    :param has_equivalent_ends: whether both places are equivalent.
    """

    first: int
    second: int
    vector: NDArray[np.float64]
    multiplicity: int
    has_equivalent_ends: bool


def space_group(host: Atoms, symprec: float, molecules_as_points: bool = False) -> SpaceGroup:
    """Return the space group of a structure, found by spglib.

    :param symprec: distance in Å within which two atoms count as equivalent.
    :param molecules_as_points: whether molecules count as points at their centres of mass.
    """
    import spglib

    numbers, positions = _points_of(host) if molecules_as_points else (host.numbers.astype(int), host.positions)
    cell: Any = (host.cell.array, host.cell.scaled_positions(positions), numbers)
    dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
    if dataset is None:
        raise ValueError(f'spglib found no symmetry of the host within {symprec:g} Å: do two of its atoms coincide?')
    # Operations in a supercell are those that keep its shape: a cubic crystal in 2×2×1 cells would lose its threefold
    # axes. So they are looked for in the primitive cell.
    lattice = np.asarray(dataset.primitive_lattice)
    _, kept = np.unique(dataset.mapping_to_primitive, return_index=True)
    primitive: Any = (lattice, np.linalg.solve(lattice.T, positions[kept].T).T, numbers[kept])
    found: Any = spglib.get_symmetry(primitive, symprec=symprec)  # a part of what was found above: never None
    return SpaceGroup(np.asarray(found['rotations']), np.asarray(found['translations']), lattice, symprec)


def distinct_pairs(host: Atoms, group: SpaceGroup, places: Positions, max_distance: float) -> list[Pair]:
    """Return one pair for each set of equivalent ones, the shortest first.

    :param places: (n, 3) in Å, all that are in the cell of the host.
    :param max_distance: in Å.
    """
    if not 0 < max_distance < np.inf:
        raise ValueError(f'the longest distance is {max_distance} Å but has to be positive.')
    sites = group.sites(places)
    _, appearance = np.unique(sites, return_index=True)
    images, turns = group.images(places[appearance]), group.turns()
    sublattice = Atoms(['X'] * len(places), positions=places, cell=host.cell, pbc=host.pbc)
    first, second, vectors = neighbor_list('ijD', sublattice, max_distance + group.tolerance)
    pairs = []
    for site in sorted(set(images.min(axis=0).tolist())):
        here = first == appearance[site]
        classes = _classes(sites[second[here]], vectors[here], images, turns, site, MARGIN * group.tolerance)
        pairs += [
            _pair(int(appearance[site]), second[here][one], vectors[here][one], is_equivalent)
            for one, is_equivalent in classes
        ]
    return sorted(pairs, key=lambda pair: (round(float(np.linalg.norm(pair.vector)), 3), pair.first, pair.second))


def _pair(first: int, others: Indices, vectors: Positions, has_equivalent_ends: bool) -> Pair:
    """Return the pair that stands for equivalent ones: that with the lowest other place."""
    apart = [one for one in range(len(others)) if others[one] != first]
    if not apart:
        raise ValueError(
            f'the cell repeats a place after {np.linalg.norm(vectors[0]):.2f} Å, so nothing can hop that far in it: '
            'repeat the host, or ask for shorter hops.'
        )
    chosen = min(apart, key=lambda one: (int(others[one]), *np.round(vectors[one], 3).tolist()))
    return Pair(first, int(others[chosen]), vectors[chosen], len(others), has_equivalent_ends)


def _classes(
    others: Indices, vectors: Positions, images: Indices, turns: Positions, site: int, tolerance: float
) -> Iterator[tuple[Indices, bool]]:
    """Yield which pairs of a site are equivalent, and whether so are their ends; each pair of sites is met once.

    An operation that keeps the site takes each of its pairs to another one. A pair may be turned round as well, if its
    other site is equivalent: an operation takes that one back to the first.

    :param others: sites (n,) that the vectors (n, 3) in Å lead to.
    :param images: site (n_operations, n_sites) that each operation takes each site to.
    :param turns: rotation (n_operations, 3, 3) of each operation.
    """
    lowest, orbit = images.min(axis=0), images[:, site]
    back = {int(place): turn.T for place, turn in zip(orbit, turns, strict=True)}
    reversible = np.flatnonzero(np.isin(others, orbit))
    turned_round = np.array([-back[int(others[one])] @ vectors[one] for one in reversible]).reshape(-1, 3)
    kept = [vectors @ turn.T for turn in turns[orbit == site]]
    if not len(vectors):
        return
    distances, targets = KDTree(vectors).query(np.concatenate([turned_round, *kept]))
    sources = np.concatenate([reversible, np.tile(np.arange(len(vectors)), len(kept))])
    match = distances < tolerance  # of pairs at the very end of the range, some may lie beyond it
    graph = coo_array((np.ones(match.sum()), (sources[match], targets[match])), shape=(len(vectors), len(vectors)))
    labels = connected_components(graph, directed=False)[1]
    for label in range(labels.max() + 1):
        alike = np.flatnonzero(labels == label)
        if lowest[others[alike[0]]] >= site:
            yield alike, bool(lowest[others[alike[0]]] == site)


def _points_of(host: Atoms) -> tuple[NDArray[np.int64], Positions]:
    """Return numbers (n,) and positions (n, 3) in Å of atoms and molecules; those of a formula share a number."""
    parts = molecules_by_bonds(host)
    loose = np.setdiff1d(np.arange(len(host)), np.array([index for part in parts for index in part], dtype=np.int64))
    formulas = [host[part].symbols.formula.format('hill') for part in parts]
    kinds = [1000 + sorted(set(formulas)).index(formula) for formula in formulas]  # beyond the elements
    centres = np.array([centre_of_mass(host, part) for part in parts]).reshape(-1, 3)
    return np.array([*host.numbers[loose], *kinds], dtype=np.int64), np.vstack([host.positions[loose], centres])


def _wrapped(scaled: Positions) -> Positions:
    """Return scaled positions in [0, 1), also those that rounding would put at 1."""
    wrapped = scaled % 1.0
    return np.asarray(np.where(wrapped >= 1.0, 0.0, wrapped))
