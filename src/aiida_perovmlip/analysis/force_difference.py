"""Differences of forces on atoms, summed and counted by element and group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BINS_PER_DECADE = 100
SMALLEST, LARGEST = -6, 3
"""The bins of force differences reach from 1e-6 to 1e3 eV/Å; what is outside is counted in two further bins."""

EDGES: Floats = np.logspace(SMALLEST, LARGEST, (LARGEST - SMALLEST) * BINS_PER_DECADE + 1)
"""Edges of the bins of the length of a force difference, eV/Å."""

SIGNED_EDGES: Floats = np.concatenate([-EDGES[::-1], EDGES])
"""Edges of the bins of a component of a force difference, eV/Å; the one in the middle holds zero."""

RESOLUTION = 10 ** (0.5 / BINS_PER_DECADE) - 1
"""Largest relative error of a quantile, which is read off the bins."""

QUANTILES = {'p50': 0.5, 'p90': 0.9, 'p95': 0.95, 'p99': 0.99}


@dataclass(frozen=True)
class ForceDifference:
    """Differences of the forces on some atoms, in eV/Å.

    :param n_frames: frames in which these atoms are.
    :param rms: root mean square of a component.
    :param mean_absolute: mean absolute component.
    :param mean_norm: mean length of the difference.
    :param largest: largest length of a difference.
    :param other_rms: root mean square of a component of the forces of `other`, to compare with.
    :param quantiles: lengths that a part of the atoms stays below, to `RESOLUTION`; None where they were not counted.
    """

    n_atoms: int
    n_frames: int
    rms: float
    mean_absolute: float
    mean_norm: float
    largest: float
    other_rms: float
    quantiles: dict[str, float] | None = None


@dataclass(frozen=True)
class Histograms:
    """Counts of atoms by the length, and of components by the value, of a force difference.

    The first and the last column of counts are for what is below and above all edges.

    :param edges: (n_bins + 1,) in eV/Å.
    :param signed_edges: (n_signed + 1,) in eV/Å.
    :param counts: (n_bins + 2,) of lengths.
    :param signed_counts: (n_signed + 2,) of components.
    :param counts_per_element: (n_elements, n_bins + 2) of lengths, in the order of atomic numbers; so is the next.
    :param signed_counts_per_element: (n_elements, n_signed + 2) of components.
    :param counts_per_group: (n_groups, n_bins + 2) of lengths, in alphabetical order.
    """

    edges: Floats
    signed_edges: Floats
    counts: Integers
    signed_counts: Integers
    counts_per_element: Integers
    signed_counts_per_element: Integers
    counts_per_group: Integers


@dataclass(frozen=True)
class ForceDifferences:
    """Differences of the forces on all atoms, and on the atoms of each element, of each group, and of both."""

    all: ForceDifference
    per_element: dict[str, ForceDifference]
    per_group: dict[str, ForceDifference]
    per_both: dict[str, dict[str, ForceDifference]]


@dataclass
class _Sum:
    """Sums over the force differences of some atoms."""

    n_atoms: int = 0
    n_frames: int = 0
    squares: float = 0.0
    absolute: float = 0.0
    norms: float = 0.0
    largest: float = 0.0
    other_squares: float = 0.0

    def __iadd__(self, other: _Sum) -> _Sum:
        for name in ('n_atoms', 'n_frames', 'squares', 'absolute', 'norms', 'other_squares'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.largest = max(self.largest, other.largest)
        return self

    def difference(self, counts: Integers | None = None) -> ForceDifference:
        """Return the means.

        :param counts: (n_bins + 2,) of lengths.
        """
        components = 3 * self.n_atoms
        return ForceDifference(
            n_atoms=self.n_atoms,
            n_frames=self.n_frames,
            rms=float(np.sqrt(self.squares / components)),
            mean_absolute=self.absolute / components,
            mean_norm=self.norms / self.n_atoms,
            largest=self.largest,
            other_rms=float(np.sqrt(self.other_squares / components)),
            quantiles=None if counts is None else quantiles_of(counts, self.largest),
        )


class AtomSums:
    """Sums and counts by element and group."""

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], _Sum] = {}
        self._frames_of_element: dict[int, int] = {}
        self._frames_of_group: dict[int, int] = {}
        self._counts: dict[str, dict[int, Integers]] = {'element': {}, 'signed': {}, 'group': {}}

    def add(self, numbers: Integers, groups: Integers, owner: Integers, difference: Floats, other: Floats) -> Floats:
        """Add atoms and return the lengths of their differences (n_atoms,) in eV/Å.

        :param groups: (n_atoms,) code of the group of each atom.
        :param owner: (n_atoms,) number of the frame of each atom, ascending.
        """
        norms: Floats = np.linalg.norm(difference, axis=1)
        for code, atoms in _by_value(groups * 256 + numbers):
            self._sums.setdefault((code % 256, code // 256), _Sum()).__iadd__(
                _sum_of(difference[atoms], norms[atoms], other[atoms], owner[atoms])
            )
        bins = np.searchsorted(EDGES, norms, side='right')
        signed = np.searchsorted(SIGNED_EDGES, difference, side='right')
        for number, atoms in _by_value(numbers):
            self._count('element', number, bins[atoms], len(EDGES) + 1)
            self._count('signed', number, signed[atoms].reshape(-1), len(SIGNED_EDGES) + 1)
            _increase(self._frames_of_element, number, len(np.unique(owner[atoms])))
        for group, atoms in _by_value(groups):
            self._count('group', group, bins[atoms], len(EDGES) + 1)
            _increase(self._frames_of_group, group, len(np.unique(owner[atoms])))
        return norms

    def _count(self, what: str, key: int, bins: Integers, size: int) -> None:
        counts = np.bincount(bins, minlength=size)
        known = self._counts[what].get(key)
        self._counts[what][key] = counts if known is None else known + counts

    def per_kind(self, names: Sequence[str], codes: Mapping[str, int]) -> ForceDifferences:
        """Return the differences of all atoms, per element, per group and per element and group."""
        from ase.data import chemical_symbols

        elements, groups, everything = dict[int, _Sum](), dict[int, _Sum](), _Sum()
        for (number, group), part in self._sums.items():
            for total in (elements.setdefault(number, _Sum()), groups.setdefault(group, _Sum()), everything):
                total += part
        for number, frames in self._frames_of_element.items():
            elements[number].n_frames = frames
        for group, frames in self._frames_of_group.items():
            groups[group].n_frames = frames
        everything.n_frames = sum(self._frames_of_group.values())
        counts, numbers = self._counts, sorted(elements)
        return ForceDifferences(
            everything.difference(np.sum(list(counts['element'].values()), axis=0)),
            {chemical_symbols[n]: elements[n].difference(counts['element'][n]) for n in numbers},
            {name: groups[codes[name]].difference(counts['group'][codes[name]]) for name in names},
            {
                chemical_symbols[n]: {
                    name: self._sums[n, codes[name]].difference() for name in names if (n, codes[name]) in self._sums
                }
                for n in numbers
            },
        )

    def histograms(self, names: Sequence[str], codes: Mapping[str, int]) -> Histograms:
        """Return all counts."""
        numbers = sorted(self._counts['element'])
        per_element = np.array([self._counts['element'][number] for number in numbers])
        signed = np.array([self._counts['signed'][number] for number in numbers])
        return Histograms(
            edges=EDGES,
            signed_edges=SIGNED_EDGES,
            counts=per_element.sum(axis=0),
            signed_counts=signed.sum(axis=0),
            counts_per_element=per_element,
            signed_counts_per_element=signed,
            counts_per_group=np.array([self._counts['group'][codes[name]] for name in names]),
        )


def _sum_of(difference: Floats, norms: Floats, other: Floats, owner: Integers) -> _Sum:
    return _Sum(
        n_atoms=len(norms),
        n_frames=len(np.unique(owner)),
        squares=float((difference**2).sum()),
        absolute=float(np.abs(difference).sum()),
        norms=float(norms.sum()),
        largest=float(norms.max()),
        other_squares=float((other**2).sum()),
    )


def quantiles_of(counts: Integers, largest: float) -> dict[str, float]:
    """Return the `QUANTILES` of what was counted in the bins of `EDGES`, in eV/Å; below all edges it is zero.

    :param counts: (n_bins + 2,).
    :param largest: the largest value that was counted.
    """
    middles = np.concatenate([[0.0], np.sqrt(EDGES[:-1] * EDGES[1:]), [largest]])
    total = np.cumsum(counts)
    places = {name: int(np.searchsorted(total, part * total[-1])) for name, part in QUANTILES.items()}
    return {name: float(min(middles[place], largest)) for name, place in places.items()}


def _by_value(values: Integers) -> Iterator[tuple[int, Integers]]:
    """Yield each distinct value with the indices where it stands, ascending."""
    order = np.argsort(values, kind='stable')
    distinct, first = np.unique(values[order], return_index=True)
    yield from zip(distinct.tolist(), np.split(order, first[1:]), strict=True)


def _increase(counts: dict[int, int], key: int, by: int) -> None:
    counts[key] = counts.get(key, 0) + by
