"""Numbers that describe the frames of each group of a dataset: energies, forces, pressures and densities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass
class Spread:
    """How numbers spread that come piece by piece; of no number at all there is nothing to tell.

    :param shift: a number near to all of them, which keeps the variance exact where they are large and alike.
    """

    n: int = 0
    shift: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    lowest: float = np.inf
    highest: float = -np.inf

    def add(self, values: Array) -> None:
        """Add numbers; what is not finite is left out."""
        values = values[np.isfinite(values)]
        if not len(values):
            return
        if not self.n:
            self.shift = float(values[0])
        self.n += len(values)
        self.total += float((values - self.shift).sum())
        self.squares += float(((values - self.shift) ** 2).sum())
        self.lowest, self.highest = min(self.lowest, float(values.min())), max(self.highest, float(values.max()))

    def to_dict(self) -> dict[str, float] | None:
        """Return mean, standard deviation, lowest and highest; None where there is no number."""
        if not self.n:
            return None
        mean = self.total / self.n
        return {
            'mean': self.shift + mean,
            'std': max(self.squares / self.n - mean**2, 0.0) ** 0.5,
            'lowest': self.lowest,
            'highest': self.highest,
        }


@dataclass
class GroupStatistics:
    """The frames of one group.

    :param energy: eV/atom.
    :param forces: norms of the forces in eV/Å.
    :param pressure: GPa, positive under compression.
    :param volume: Å³/atom, of frames that are periodic in three directions.
    """

    n_frames: int = 0
    n_atoms: int = 0
    square_of_forces: float = 0.0
    energy: Spread = field(default_factory=Spread)
    forces: Spread = field(default_factory=Spread)
    pressure: Spread = field(default_factory=Spread)
    volume: Spread = field(default_factory=Spread)

    def add(self, columns: dict[str, Array], frames: Array) -> None:
        """Add some frames of a shard.

        :param columns: `offsets` (F + 1,), `cells` (F, 3, 3) in Å, `pbc` (F, 3) and, where there are such, `energy`
            (F,) in eV, `forces` (A, 3) in eV/Å and `stress` (F, 6) in eV/Å³.
        :param frames: (n,) positions of the frames in the shard.
        """
        sizes = np.diff(columns['offsets'])
        self.n_frames += len(frames)
        self.n_atoms += int(sizes[frames].sum())
        volumes = np.abs(np.linalg.det(columns['cells'][frames])) / sizes[frames]
        self.volume.add(np.where(columns['pbc'][frames].all(axis=1), volumes, np.nan))
        if 'energy' in columns:
            self.energy.add(columns['energy'][frames] / sizes[frames])
        if 'stress' in columns:
            self.pressure.add(-columns['stress'][frames, :3].mean(axis=1) * GPA)
        if 'forces' in columns:
            norms = np.linalg.norm(columns['forces'][np.repeat(np.isin(np.arange(len(sizes)), frames), sizes)], axis=1)
            self.square_of_forces += float((norms**2).sum())
            self.forces.add(norms)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values; `forces_rms` is of components, as errors of forces are."""
        rms = (self.square_of_forces / (3 * self.forces.n)) ** 0.5 if self.forces.n else None
        spreads = {name: getattr(self, name).to_dict() for name in ('energy', 'forces', 'pressure', 'volume')}
        return {'n_frames': self.n_frames, 'n_atoms': self.n_atoms, 'forces_rms': rms, **spreads}


GPA = 160.21766208
"""GPa of 1 eV/Å³."""
