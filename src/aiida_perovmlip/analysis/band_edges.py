"""How much the band edges of a crystal fluctuate, from snapshots of a trajectory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fluctuation:
    """Mean and standard deviation of a level over snapshots, in eV; the deviation has n - 1 below it.

    :param mean_error: standard error of the mean.
    :param std_error: standard error of the deviation, if the level is Gaussian: 16 % of it for 20 snapshots.
    """

    mean: float
    mean_error: float
    std: float
    std_error: float

    def to_dict(self) -> dict[str, float]:
        """Return it as plain JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class BandEdges:
    """What the band edges do over snapshots of one composition.

    :param n: number of snapshots.
    :param has_reference: whether the edges are against a common reference; if not, `vbm` and `cbm` hold the shift of
        the zero of each calculation too, and only the gap means something.
    :param correlation: of the two edges over the snapshots; None where one of them does not move.
    """

    n: int
    has_reference: bool
    vbm: Fluctuation
    cbm: Fluctuation
    gap: Fluctuation
    correlation: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            name: value.to_dict() if isinstance(value, Fluctuation) else value for name, value in vars(self).items()
        }


def edges_of(vbm: Sequence[float], cbm: Sequence[float], reference: Sequence[float] | None = None) -> BandEdges:
    """Return what band edges do.

    :param vbm: (n,) highest occupied level of each snapshot in eV.
    :param cbm: (n,) lowest empty level in eV.
    :param reference: (n,) a level in eV that is the same in all snapshots, such as a core level or the mean
        electrostatic potential; None where the zero of all snapshots is one already, or unknown.
    """
    top, bottom = np.asarray(vbm, dtype=float), np.asarray(cbm, dtype=float)
    zero = np.zeros(len(top)) if reference is None else np.asarray(reference, dtype=float)
    if len(top) < 2 or top.shape != bottom.shape or top.shape != zero.shape:
        raise ValueError(f'there are {len(top)} and {len(bottom)} edges; both are needed of at least two snapshots.')
    if not np.isfinite([top, bottom, zero]).all():
        raise ValueError('a band edge is not finite: leave out snapshots without it.')
    gap = bottom - top
    if np.any(gap < 0):
        worst = int(gap.argmin())
        raise ValueError(
            f'the lowest empty level of snapshot {worst} is {-gap[worst]:.3f} eV below the highest full one.'
        )
    top, bottom = top - zero, bottom - zero
    moves = top.std() > 0 and bottom.std() > 0
    return BandEdges(
        n=len(top),
        has_reference=reference is not None,
        vbm=_fluctuation(top),
        cbm=_fluctuation(bottom),
        gap=_fluctuation(gap),
        correlation=float(np.corrcoef(top, bottom)[0, 1]) if moves else None,
    )


def _fluctuation(values: Array) -> Fluctuation:
    std, n = float(values.std(ddof=1)), len(values)
    return Fluctuation(float(values.mean()), std / math.sqrt(n), std, std / math.sqrt(2 * (n - 1)))
