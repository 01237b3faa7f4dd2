"""The box of LAMMPS: a cell turned so that its first vector lies along x and its second in the plane of x and y."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiida_perovmlip.compute.frame import Array

FLAT = 1e-10
"""Part of a length below which a tilt is rounding."""


@dataclass(frozen=True)
class Turn:
    """How the cell of a run is turned into the box of LAMMPS, and back.

    :param matrix: (3, 3), orthogonal; a row vector of LAMMPS times it is one of the cell. It turns a left-handed cell
        inside out too, which no potential notices.
    """

    matrix: Array

    @classmethod
    def of(cls, cell: Array) -> Turn:
        """Return how this cell, (3, 3) in Å, is turned."""
        axes, upper = np.linalg.qr(cell.T)
        return cls((axes * np.where(np.diag(upper) < 0, -1.0, 1.0)).T)

    def box_of(self, cell: Array) -> Array:
        """Return the box, (3, 3) in Å and lower triangular, of a cell."""
        box: Array = np.tril(cell @ self.matrix.T)
        box[np.abs(box) < FLAT * np.abs(box).max()] = 0.0
        return box

    def to_lammps(self, vectors: Array) -> Array:
        """Return row vectors, (n, 3), as LAMMPS has them."""
        turned: Array = vectors @ self.matrix.T
        return turned

    def back(self, vectors: Array) -> Array:
        """Return row vectors of LAMMPS, (n, 3), as they lie in the cell of the run."""
        turned: Array = vectors @ self.matrix
        return turned

    def tensor_back(self, tensor: Array) -> Array:
        """Return a tensor of LAMMPS, (3, 3), as it lies in the cell of the run."""
        turned: Array = self.matrix.T @ tensor @ self.matrix
        return turned


def is_orthogonal(box: Array) -> bool:
    """Whether a box has no tilt."""
    return not np.tril(box, -1).any()
