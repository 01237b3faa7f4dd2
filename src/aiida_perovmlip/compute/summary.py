"""What one asks of frames without reading them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from ase.data import chemical_symbols

from aiida_perovmlip.compute.frame import LABELS, Array
from aiida_perovmlip.compute.shard import Shard


@dataclass(frozen=True)
class Summary:
    """Counts, ranges and names; the summaries of parts add up to that of the whole."""

    n_frames: int = 0
    n_atoms: int = 0
    n_stress: int = 0
    elements: frozenset[str] = frozenset()
    groups: Mapping[str, int] = field(default_factory=dict)
    heads: Mapping[str, int] = field(default_factory=dict)
    labels: frozenset[str] | None = None
    charges: frozenset[int] = frozenset()
    spins: frozenset[int] = frozenset()
    energy_per_atom_range: tuple[float, float] | None = None
    force_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, shard: Shard) -> Summary:
        """Summarise one shard."""
        columns = shard.columns
        counts = np.diff(columns['offsets'])
        energy = columns['energy'] / counts if 'energy' in columns else None
        force = np.sqrt(np.einsum('ij,ij->i', columns['forces'], columns['forces'])) if 'forces' in columns else None
        return cls(
            n_frames=len(shard),
            n_atoms=shard.n_atoms,
            n_stress=int(np.isfinite(columns['stress'][:, 0]).sum()) if 'stress' in columns else 0,
            elements=frozenset(chemical_symbols[number] for number in np.flatnonzero(np.bincount(columns['numbers']))),
            groups=_count(shard, 'group'),
            heads=_count(shard, 'head'),
            labels=frozenset(name for name in LABELS if name in columns and _has(columns[name])),
            charges=frozenset(np.unique(columns['charge']).tolist()) if 'charge' in columns else frozenset(),
            spins=frozenset(np.unique(columns['spin']).tolist()) if 'spin' in columns else frozenset(),
            energy_per_atom_range=(float(energy.min()), float(energy.max())) if energy is not None else None,
            force_range=(float(force.min()), float(force.max())) if force is not None else None,
        )

    def __add__(self, other: Summary) -> Summary:
        return replace(
            self,
            n_frames=self.n_frames + other.n_frames,
            n_atoms=self.n_atoms + other.n_atoms,
            n_stress=self.n_stress + other.n_stress,
            elements=self.elements | other.elements,
            groups=Counter(self.groups) + Counter(other.groups),
            heads=Counter(self.heads) + Counter(other.heads),
            labels=(self.labels or frozenset()) | (other.labels or frozenset()),
            charges=self.charges | other.charges,
            spins=self.spins | other.spins,
            energy_per_atom_range=_span(self.energy_per_atom_range, other.energy_per_atom_range),
            force_range=_span(self.force_range, other.force_range),
        )


def _has(column: Array) -> bool:
    """Whether a label is there: a column of stresses may be empty."""
    return bool(np.isfinite(column.reshape(len(column), -1)[:, 0]).any())


def _count(shard: Shard, category: str) -> dict[str, int]:
    """Return how many frames are of each name of a category."""
    counts = np.bincount(shard.columns[category], minlength=len(shard.names[category]))
    return {name: int(count) for name, count in zip(shard.names[category], counts, strict=True) if count}


def _span(one: tuple[float, float] | None, other: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the range that covers both."""
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])
