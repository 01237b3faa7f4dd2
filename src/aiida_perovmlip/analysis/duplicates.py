"""Frames that repeat an earlier one, found by the distances between their atoms."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PAIRS_AT_ONCE = 2**20
"""Distances that are in memory at the same time, with about 100 bytes for each."""

MAXIMUM_IMAGES = 20_000
BYTES_AT_ONCE = 2**24
ROWS_AT_ONCE = 32
SAMPLE = 512
COMPONENTS = 12


def structure_vector(
    numbers: Array, positions: Array, cell: Array, pbc: Array, cutoff: float = 6.0, neighbours: int = 6
) -> Array:
    """Return distances between atoms in Å, arranged such that equal structures have equal vectors.

    For each element it has a matrix: a row for each atom with the sorted distances to the nearest atoms of every
    element, and each column sorted over the atoms. Translating, rotating or mirroring a frame, renumbering
    atoms of one element or choosing other periodic images changes nothing, and moving every atom by at most d changes
    no entry by more than 2d. Elements are kept apart because in a mixed crystal on ideal sites the distances without
    them are the same for every arrangement.

    :param numbers: (atoms,) atomic numbers.
    :param positions: (atoms, 3) in Å.
    :param cell: (3, 3) in Å, rows are the lattice vectors; those along which `pbc` is false do not matter.
    :param cutoff: in Å; a neighbour beyond, or one that is not there, counts as being at this distance.
    :param neighbours: how many of each element for each atom.
    """
    table, counts = _surroundings(numbers, positions, cell, pbc, cutoff, neighbours)
    vector: Array = _sorted_columns(table[None], counts)[0]
    return vector


def _surroundings(
    numbers: Array, positions: Array, cell: Array, pbc: Array, cutoff: float = 6.0, neighbours: int = 6
) -> tuple[Array, Array]:
    """Return (atoms, elements × neighbours) distances in Å, a row for each atom, and the number of atoms per element.

    The rows are sorted by element and then by their mean.
    """
    order = np.argsort(numbers, kind='stable')
    _, starts, counts = np.unique(numbers[order], return_index=True, return_counts=True)
    groups = np.split(np.arange(len(order)), starts[1:])
    lattice = np.asarray(cell)[np.asarray(pbc, bool)]
    table = _nearest(np.asarray(positions)[order], lattice, groups, cutoff, neighbours).reshape(len(order), -1)
    return table[np.lexsort((table.mean(axis=1), numbers[order]))], counts


def _sorted_columns(tables: Array, counts: Array) -> Array:
    """Return (frames, width) the tables of surroundings, (frames, atoms, distances), sorted over equal atoms."""
    blocks = np.split(tables, np.cumsum(counts)[:-1], axis=1)
    return np.concatenate([np.sort(block, axis=1).reshape(len(tables), -1) for block in blocks], axis=1)


def _nearest(positions: Array, lattice: Array, groups: list[Array], cutoff: float, neighbours: int) -> Array:
    """Return (atoms, groups, neighbours) the distances to the nearest atoms of each group, at most the cutoff."""
    shifts = _shifts(lattice, cutoff)
    result = np.full((len(positions), len(groups), neighbours), cutoff)
    step = max(1, PAIRS_AT_ONCE // (len(positions) * len(shifts)))
    for start in range(0, len(positions), step):
        squares = _squares(positions, lattice, shifts, slice(start, start + step))
        for index, group in enumerate(groups):
            few = squares[:, group].reshape(len(squares), -1)
            if few.shape[1] > neighbours:
                few = np.partition(few, neighbours - 1, axis=1)[:, :neighbours]
            result[start : start + step, index, : few.shape[1]] = np.sqrt(np.sort(few, axis=1))
    return np.minimum(result, cutoff)


def _shifts(lattice: Array, cutoff: float) -> Array:
    """Return (images, 3) in Å the shifts by which an atom is seen within the cutoff, the first of them zero.

    Differences between atoms are first reduced to half a lattice vector or less. An image n lattice vectors further on
    is then at least (n - 1/2) heights of the cell away.
    """
    if not len(lattice):
        return np.zeros((1, 3))
    heights = 1 / np.linalg.norm(np.linalg.pinv(lattice), axis=0)
    counts = np.floor(cutoff / heights + 0.5 + 1e-9)
    if np.prod(2 * counts + 1) > MAXIMUM_IMAGES:
        raise ValueError(f'the cell is only {heights.min():.2g} Å high, too flat to count its neighbours.')
    axes = [np.arange(-count, count + 1) for count in counts]
    grid = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1).reshape(-1, len(axes))
    grid = grid[np.argsort(np.abs(grid).sum(axis=1), kind='stable')]
    shifts: Array = grid @ lattice
    return shifts


def _squares(positions: Array, lattice: Array, shifts: Array, rows: slice) -> Array:
    """Return (rows, atoms, images) the squared distances in Å², infinite from an atom to itself."""
    vectors = positions[None, :] - positions[rows, None]
    if len(lattice):
        vectors -= np.round(vectors @ np.linalg.pinv(lattice)) @ lattice
    squares = np.zeros((*vectors.shape[:2], len(shifts)))
    for axis in range(3):
        squares += (vectors[:, :, axis, None] + shifts[:, axis]) ** 2
    own = np.arange(len(vectors))
    squares[own, own + rows.start, 0] = np.inf
    return squares


@dataclass
class _Family:
    """Frames that could be equal: their surroundings, first in memory and then in a file, and what else is compared."""

    path: Path
    counts: Array
    shape: tuple[int, ...]
    members: list[int] = field(default_factory=list)
    spacings: list[float] = field(default_factory=list)
    waiting: list[Array] = field(default_factory=list)

    def flush(self) -> None:
        """Move what is in memory into the file."""
        if self.waiting:
            with self.path.open('ab') as handle:
                handle.write(np.concatenate(self.waiting).tobytes())
            self.waiting.clear()

    def tables(self) -> Array:
        """Return (frames, atoms, distances) all surroundings, mapped from the file."""
        return np.memmap(self.path, np.float32, 'r', shape=(len(self.members), *self.shape))


class DuplicateFinder:
    """Finds frames that repeat an earlier one; what is compared of them waits on disk.

    Two frames are equal if they have the same composition, as many periodic directions, in a bulk a spacing
    (volume per atom)^(1/3) that differs by no more than the tolerance, and if their atoms can be paired such that the
    distances of the pairs to their neighbours (those of `structure_vector`) differ by no more than the tolerance in
    the root mean square. The difference of the vectors is a lower bound of this. It is not enough by itself: sorted
    over many atoms, the distances of two snapshots at one temperature are nearly the same.

    :param tolerance: in Å.
    :param scratch: an empty folder, for about 70 bytes for each atom in frames of three elements.
    """

    def __init__(self, tolerance: float, scratch: Path) -> None:
        if not 1e-6 <= tolerance < np.inf:
            raise ValueError(f'the tolerance is {tolerance} Å; distances are kept to a precision of 1e-6 Å.')
        self.tolerance = tolerance
        self.scratch = scratch
        self._families: dict[Hashable, _Family] = {}
        self._waiting = 0
        self._n_frames = 0

    def add(self, numbers: Array, positions: Array, cell: Array, pbc: Array, kind: Hashable = None) -> None:
        """Add one frame; see `structure_vector` for the arrays.

        :param kind: what else tells frames apart, such as charge, spin and head.
        """
        table, counts = _surroundings(numbers, positions, cell, pbc)
        key = (np.sort(numbers).tobytes(), int(np.sum(pbc)), kind)
        if key not in self._families:
            path = self.scratch / f'family-{len(self._families)}.f32'
            path.unlink(missing_ok=True)
            self._families[key] = _Family(path, counts, table.shape)
        family = self._families[key]
        family.members.append(self._n_frames)
        family.spacings.append(abs(float(np.linalg.det(cell)) / len(numbers)) ** (1 / 3) if np.all(pbc) else 0.0)
        family.waiting.append(table.astype(np.float32))
        self._n_frames += 1
        self._waiting += 4 * table.size
        if self._waiting > BYTES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        """Move everything that is in memory to the disk."""
        for family in self._families.values():
            family.flush()
        self._waiting = 0

    def keep(self) -> Array:
        """Return (frames,) whether each frame is to be kept: it is equal to none that is kept before it."""
        self._flush()
        mask = np.ones(self._n_frames, dtype=bool)
        for family in self._families.values():
            if len(family.members) > 1:
                mask[family.members] = _distinct(family, self.tolerance)
        return mask


def _distinct(family: _Family, tolerance: float) -> Array:
    """Return (frames,) which of these are equal to none of the distinct ones before."""
    from scipy.spatial import KDTree

    tables, spacings = family.tables(), np.array(family.spacings)
    points = _project(tables, family.counts)
    tree = KDTree(points)
    distinct = np.ones(len(tables), dtype=bool)
    for index, point in enumerate(points):
        if not distinct[index]:
            continue
        # A projection brings points closer and never apart, so that no equal frame is farther than the tolerance.
        near = np.sort(np.array(tree.query_ball_point(point, tolerance * (1 + 1e-6) + 1e-9)))
        near = near[(near > index) & distinct[near]]
        near = near[np.abs(spacings[near] - spacings[index]) <= tolerance]
        for part in _parts(near, tables[0].size):
            distinct[part] = ~_are_equal(tables[index], tables[part], family.counts, tolerance)
    return distinct


def _are_equal(table: Array, others: Array, counts: Array, tolerance: float) -> Array:
    """Return (frames,) which of other frames have the same surroundings as one; cheap answers come first."""
    one, others = table.astype(np.float64), others.astype(np.float64)
    # Pairing atoms in the order of the table is one way to pair them, and sorting the columns is better than any way.
    equal: Array = ((others - one) ** 2).mean(axis=(1, 2)) <= tolerance**2
    differences = _sorted_columns(others, counts) - _sorted_columns(one[None], counts)
    possible = (differences**2).mean(axis=1) <= tolerance**2
    for index in np.flatnonzero(possible & ~equal):
        equal[index] = _can_be_paired(one, others[index], counts, tolerance**2 * one.size)
    return equal


def _can_be_paired(one: Array, other: Array, counts: Array, limit: float) -> bool:
    """Whether equal atoms of two frames can be paired such that the sum of squared differences is within a limit."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    total = 0.0
    cuts = np.cumsum(counts)[:-1]
    for rows, columns in zip(np.split(one, cuts), np.split(other, cuts), strict=True):
        costs: list[Array] = []
        lowest = total
        for start in range(0, len(rows), ROWS_AT_ONCE):
            costs.append(cdist(rows[start : start + ROWS_AT_ONCE], columns, 'sqeuclidean'))
            lowest += float(costs[-1].min(axis=1).sum())
            if lowest > limit:
                return False
        cost = np.concatenate(costs)
        total += float(cost[linear_sum_assignment(cost)].sum())
    return total <= limit


def _project(tables: Array, counts: Array) -> Array:
    """Return (frames, components) the vectors along the directions in which they differ most, over √width.

    The directions come from a sample: a worse choice costs time and changes no result.
    """
    sample = _sorted_columns(tables[:: max(1, len(tables) // SAMPLE)][:SAMPLE], counts).astype(np.float64)
    mean = sample.mean(axis=0)
    values, combinations = np.linalg.eigh((sample - mean) @ (sample - mean).T)
    leading = combinations[:, values > 1e-12 * max(values[-1], 1e-12)][:, -COMPONENTS:]
    directions, _ = np.linalg.qr((sample - mean).T @ leading) if leading.size else (np.zeros((len(mean), 1)), None)
    directions = directions / np.sqrt(len(mean))
    parts = _parts(np.arange(len(tables)), len(mean))
    return np.concatenate([(_sorted_columns(tables[part], counts) - mean) @ directions for part in parts])


def _parts(indices: Array, width: int) -> Iterator[Array]:
    """Yield indices in parts whose vectors fit into memory."""
    step = max(1, BYTES_AT_ONCE // (8 * width))
    for start in range(0, len(indices), step):
        yield indices[start : start + step]
