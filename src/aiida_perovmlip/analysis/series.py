"""What a series of correlated values tells: its mean and its drift, with errors that count what is independent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

WINDOW = 5.0
"""The autocorrelation is summed over so many correlation times (Sokal's window): beyond them it is noise."""

LEAST = 3
"""Values from which an error can be told at all."""


@dataclass(frozen=True)
class Average:
    """The mean of a series.

    :param error: its standard error; None where there are too few values.
    :param spread: the standard deviation of the values.
    :param n_independent: how many of the values count as independent.
    """

    mean: float
    error: float | None
    spread: float
    n: int
    n_independent: float

    def numbers(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Drift:
    """The straight line through a series: its slope in units of the values by those of the times, with its error."""

    slope: float
    error: float | None

    def numbers(self) -> dict[str, Any]:
        """Return both as plain values."""
        return asdict(self)


def average_of(values: ArrayLike) -> Average:
    """Return the mean of equidistant values (n,) with its standard error σ √(g / n); g of them count as one."""
    series = np.asarray(values, dtype=float)
    n = len(series)
    if not n:
        raise ValueError('a series without values has no mean.')
    spread = float(series.std(ddof=1)) if n > 1 else 0.0
    independent = n / inefficiency(series)
    error = spread / independent**0.5 if n >= LEAST else None
    return Average(float(series.mean()), error, spread, n, independent)


def drift_of(times: ArrayLike, values: ArrayLike) -> Drift:
    """Return the slope of the line of least squares through equidistant values (n,) at times (n,).

    Its error counts how many of the deviations from the line are independent.
    """
    t, y = np.asarray(times, dtype=float), np.asarray(values, dtype=float)
    if len(t) < 2 or not np.ptp(t):
        raise ValueError('a line needs values at two times at least.')
    centred = t - t.mean()
    weight = float(centred @ centred)
    slope = float(centred @ (y - y.mean())) / weight
    if len(t) < LEAST:
        return Drift(slope, None)
    rest = y - y.mean() - slope * centred
    variance = float(rest @ rest) / (len(t) - 2)
    return Drift(slope, float(np.sqrt(variance * inefficiency(rest) / weight)))


def inefficiency(values: ArrayLike) -> float:
    """Return how many equidistant values (n,) count as one: g = 1 + 2 Σ ρ(k), with the autocorrelation ρ.

    The sum ends at the first k that is `WINDOW` times the correlation time g / 2 found so far. Values that are
    all alike count each for itself; so do those that avoid each other, which would make an error too small.
    """
    series = np.asarray(values, dtype=float)
    n = len(series)
    centred = series - series.mean() if n else series
    scale = float(np.abs(centred).max()) if n else 0.0
    if n < LEAST or scale <= 1e-14 * float(np.abs(series).max()):
        return 1.0
    rho = autocorrelation(centred / scale)
    sums = 1.0 + 2.0 * np.cumsum(rho[1:])
    enough = np.flatnonzero(np.arange(1, n) >= WINDOW * sums / 2)
    last = int(enough[0]) if len(enough) else n - 2
    return float(min(max(1.0, sums[last]), n))


def autocorrelation(centred: Array) -> Array:
    """Return the autocorrelation (n,) of values (n,) whose mean is zero, which is 1 at 0."""
    n = len(centred)
    spectrum = np.fft.rfft(centred, 2 * n)
    products = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[:n]
    rho: Array = products / products[0]
    return rho
