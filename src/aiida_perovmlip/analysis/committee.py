"""How far the members of a committee are apart, and what this says of the error of their mean.

The spread of a frame is the standard deviation of the members' energies per atom, eV/atom; the spread of an atom is
the root mean square over x, y, z of the standard deviations of its force, eV/Å. Both have `n - 1` in the denominator.
A committee whose errors are as large as its spread is calibrated; one that is too sure of itself has a `scale` above 1.

All pairs of spread and error are counted in bins of their logarithms, so that memory does not grow with their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS_PER_DECADE = 20
LOWEST, HIGHEST = -12, 6
"""Decades of spread and error, in their unit, that are told apart; what lies beyond counts as lying at the end."""

PER_SHOWN_BIN = 5
"""Counted bins in one bin of the reliability curve."""

RATIOS_PER_DECADE = 100
"""Bins of error over spread; the area has an error of less than 0.003 by it."""

_N = (HIGHEST - LOWEST) * BINS_PER_DECADE
_N_RATIO = 2 * (HIGHEST - LOWEST) * RATIOS_PER_DECADE

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What the spread of a committee says of its errors; spreads and errors are in the unit of the quantity.

    :param n: number of frames or atoms.
    :param rmse: of the mean of the members, over all components.
    :param rms_spread: root mean square of the spread.
    :param scale: what the spread has to be multiplied with to be as large as the error, `rmse / rms_spread`. This
        ratio of means holds for any number of members; the mean of (error / spread)² has no finite value for three.
        None where all members agree.
    :param pearson: correlation of spread and absolute error; None where one of them is constant.
    :param spearman: the same of their ranks: whether what the committee is unsure of is what it gets wrong. Values
        closer than 1/20 of a decade have one rank.
    :param miscalibration_area: area between the fraction of errors within each central interval of a Gaussian as wide
        as the spread and the fraction that should be there (Tran et al., Mach. Learn. Sci. Technol. 1, 025006 (2020));
        0 is calibrated, 1/2 as wrong as can be. The spread of n members is an estimate itself: error over spread then
        follows √(1 + 1/n) times Student's t with n - 1 degrees of freedom (for forces with 3 (n - 1)), so that a
        perfect committee of four has an area of 0.08 for energies, and 0.05 once it is scaled.
    :param scaled_area: the same once all spreads are multiplied with `scale`.
    :param bin_spread: (n_bins,) root mean square of the spread in bins of a quarter of a decade, lowest first.
    :param bin_rmse: (n_bins,) of the errors there: the reliability curve, a diagonal where calibrated.
    :param bin_count: (n_bins,) number of frames or atoms there.
    """

    n: int
    rmse: float
    rms_spread: float
    scale: float | None
    pearson: float | None
    spearman: float | None
    miscalibration_area: float
    scaled_area: float | None
    bin_spread: Array
    bin_rmse: Array
    bin_count: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON, without what has no value."""
        content = {name: value.tolist() if hasattr(value, 'tolist') else value for name, value in vars(self).items()}
        return {name: value for name, value in content.items() if value is not None}


def mean_and_spread(members: ArrayLike) -> tuple[Array, Array]:
    """Return mean and standard deviation over the members, the first axis; the deviation has `n - 1` below it.

    :param members: (n_members, …) in any unit.
    """
    values = np.asarray(members, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f'a spread needs at least two members, not {len(values)}.')
    mean = values.mean(axis=0)
    return mean, np.sqrt(((values - mean) ** 2).sum(axis=0) / (len(values) - 1))


class CalibrationSum:
    """Pairs of spread and error, added up so that any number of them fits."""

    def __init__(self) -> None:
        self._n = self._n_components = 0
        self._moments = np.zeros(5)  # Σs, Σs², Σe, Σe², Σse
        self._table = np.zeros((_N, _N), dtype=np.int64)
        self._ratios = np.zeros(_N_RATIO, dtype=np.int64)
        self._spreads, self._squares = np.zeros(_N), np.zeros(_N)

    def add(self, spread: ArrayLike, error: ArrayLike) -> None:
        """Add frames or atoms.

        :param spread: (n,) of each.
        :param error: (n,) or (n, n_components) of the mean of the members, with any sign, in the unit of the spread.
        """
        s, components = np.asarray(spread, dtype=np.float64), np.asarray(error, dtype=np.float64)
        components = components[:, None] if components.ndim == 1 else components
        if s.shape != components.shape[:1]:
            raise ValueError(f'there are {s.shape} spreads for {components.shape[:1]} errors.')
        if not (np.isfinite(s).all() and np.isfinite(components).all() and (s >= 0).all()):
            raise ValueError('spreads and errors have to be finite, and spreads not negative.')
        e = np.sqrt((components**2).mean(axis=1))
        self._n += len(s)
        self._n_components += components.size
        self._moments += [s.sum(), s @ s, e.sum(), e @ e, s @ e]
        rows = _bins(s, BINS_PER_DECADE, LOWEST, _N)
        np.add.at(self._table, (rows, _bins(e, BINS_PER_DECADE, LOWEST, _N)), 1)
        self._spreads += np.bincount(rows, s**2, minlength=_N)
        self._squares += np.bincount(rows, e**2, minlength=_N)
        self._ratios += np.bincount(_ratio_bins(np.abs(components), s[:, None]), minlength=_N_RATIO)

    def result(self) -> Calibration:
        """Return what all pairs say; raises ValueError where there are none."""
        if not self._n:
            raise ValueError('there are no errors, as nothing was added.')
        rms_spread, rmse = (math.sqrt(self._moments[index] / self._n) for index in (1, 3))
        scale = rmse / rms_spread if rms_spread > 0 else None
        counts, spreads, squares = (
            values.reshape(-1, PER_SHOWN_BIN).sum(axis=1)
            for values in (self._table.sum(axis=1), self._spreads, self._squares)
        )
        filled = counts > 0
        return Calibration(
            n=self._n,
            rmse=rmse,
            rms_spread=rms_spread,
            scale=scale,
            pearson=self._pearson(),
            spearman=_rank_correlation(self._table),
            miscalibration_area=self._area(1.0),
            scaled_area=self._area(scale) if scale else None,
            bin_spread=np.sqrt(spreads[filled] / counts[filled]),
            bin_rmse=np.sqrt(squares[filled] / counts[filled]),
            bin_count=counts[filled],
        )

    def _pearson(self) -> float | None:
        """Return the correlation of spread and error."""
        s, ss, e, ee, se = self._moments / self._n
        variances = (ss - s**2, ee - e**2)
        if min(variances[0] / ss if ss else 0.0, variances[1] / ee if ee else 0.0) < 1e-12:
            return None
        return float((se - s * e) / math.sqrt(variances[0] * variances[1]))

    def _area(self, scale: float) -> float:
        """Return the area between observed and expected fractions with all spreads multiplied."""
        from scipy.special import erf

        # A bin ends at a ratio that should not be passed with the probability erf(ratio / √2).
        ends = (np.arange(_N_RATIO) + 1) / RATIOS_PER_DECADE - (HIGHEST - LOWEST)
        with np.errstate(over='ignore'):
            expected = np.concatenate([[0.0], erf(10.0**ends / scale / math.sqrt(2)), [1.0]])
        observed = np.concatenate([[0.0], np.cumsum(self._ratios) / self._n_components, [1.0]])
        return _area_between(expected, observed)


def calibrate(spread: ArrayLike, error: ArrayLike) -> Calibration:
    """Return what spreads (n,) say of errors (n,) or (n, n_components), all in one unit."""
    total = CalibrationSum()
    total.add(spread, error)
    return total.result()


def _bins(values: Array, per_decade: int, lowest: int, count: int) -> NDArray[np.int64]:
    """Return the bin of the logarithm of each value; zero is in the first."""
    with np.errstate(divide='ignore'):
        places = np.floor((np.log10(values) - lowest) * per_decade)
    found: NDArray[np.int64] = np.clip(places, 0, count - 1).astype(np.int64)
    return found


def _ratio_bins(error: Array, spread: Array) -> NDArray[np.int64]:
    """Return the bin of each |error| / spread, flat; no error is in the first, whatever the spread."""
    with np.errstate(divide='ignore', invalid='ignore'):
        ratio = np.where(error == 0, 0.0, error / spread)
    return _bins(ratio.reshape(-1), RATIOS_PER_DECADE, LOWEST - HIGHEST, _N_RATIO)


def _rank_correlation(table: NDArray[np.int64]) -> float | None:
    """Return the correlation of ranks in a table of counts; equal ones have the mean of their ranks."""
    n = table.sum()
    ranks = []
    for counts in (table.sum(axis=1), table.sum(axis=0)):
        ranks.append(np.cumsum(counts) - 0.5 * counts - 0.5 * n)
    variances = [float(table.sum(axis=1 - axis) @ ranks[axis] ** 2) for axis in (0, 1)]
    if min(variances) == 0:
        return None
    return float(ranks[0] @ table @ ranks[1] / math.sqrt(variances[0] * variances[1]))


def _area_between(expected: Array, observed: Array) -> float:
    """Return ∫ |observed - expected| d(expected) of two curves of straight pieces, exactly where they cross too."""
    gap = observed - expected
    before, after, width = gap[:-1], gap[1:], np.diff(expected)
    crosses = before * after < 0
    total = np.abs(before) + np.abs(after)
    with np.errstate(divide='ignore', invalid='ignore'):
        crossed = (before**2 + after**2) / (2 * total)
    return float((width * np.where(crosses, crossed, total / 2)).sum())
