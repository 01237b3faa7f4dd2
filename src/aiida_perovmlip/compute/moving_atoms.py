"""What does not change of the atoms of a trajectory: a small `.npz` beside its chunks."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aiida_perovmlip.compute.chunk import TrajectoryError
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.npz import read_arrays, write_arrays


@dataclass(frozen=True)
class MovingAtoms:
    """What does not change of the atoms of a trajectory.

    :param numbers: (N,) atomic numbers.
    :param masses: (N,) amu, as the run took them.
    :param pbc: (3,) periodic directions.
    """

    numbers: Array
    masses: Array
    pbc: Array

    def __post_init__(self) -> None:
        numbers, masses, pbc = np.asarray(self.numbers), np.asarray(self.masses), np.asarray(self.pbc)
        if numbers.ndim != 1 or not len(numbers) or numbers.min() < 1 or numbers.max() > 118:
            raise TrajectoryError('`numbers` has to hold the atomic number of each atom.')
        if masses.shape != numbers.shape or not (np.isfinite(masses) & (masses > 0)).all():
            raise TrajectoryError('`masses` has to hold a positive mass in amu for each atom.')
        if pbc.shape != (3,):
            raise TrajectoryError('`pbc` has to say of three directions whether they are periodic.')
        object.__setattr__(self, 'numbers', numbers.astype(np.uint8))
        object.__setattr__(self, 'masses', masses.astype(np.float64))
        object.__setattr__(self, 'pbc', pbc.astype(np.bool_))

    def __len__(self) -> int:
        return len(self.numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MovingAtoms) and self.difference(other) is None

    __hash__ = None  # type: ignore[assignment]

    def difference(self, other: MovingAtoms) -> str | None:
        """Return which of both kinds of atoms differ first; None where all are the same."""
        for name in ('numbers', 'masses', 'pbc'):
            if not np.array_equal(getattr(self, name), getattr(other, name)):
                return name
        return None

    @property
    def digest(self) -> str:
        """SHA-256 of all three arrays."""
        return hashlib.sha256(self.numbers.tobytes() + self.masses.tobytes() + self.pbc.tobytes()).hexdigest()

    def write(self, handle: BinaryIO) -> None:
        """Write as `.npz`."""
        write_arrays(handle, {'numbers': self.numbers, 'masses': self.masses, 'pbc': self.pbc})

    @classmethod
    def read(cls, handle: BinaryIO) -> MovingAtoms:
        """Read what `write` wrote."""
        try:
            return cls(**read_arrays(handle))
        except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise TrajectoryError(f'the file of the atoms cannot be read: {error}') from error

    @classmethod
    def read_file(cls, path: Path) -> MovingAtoms:
        """Read what `write` wrote to a file."""
        try:
            with path.open('rb') as handle:
                return cls.read(handle)
        except FileNotFoundError as error:
            raise TrajectoryError(f'there is no {path}, without which frames have no atoms.') from error

    @classmethod
    def of(cls, frame: Frame, masses: Array) -> MovingAtoms:
        """Return the atoms of a frame with these masses in amu."""
        return cls(frame.numbers, masses, frame.pbc)
