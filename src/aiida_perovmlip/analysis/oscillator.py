"""Damped harmonic oscillators, fitted to the autocorrelation of the amplitude of a mode.

The convention is x″ + Γ x′ + ω₀² x = noise: overdamped where Γ > 2 ω₀. Other authors write exp(-Γt) for what is
exp(-Γt/2) here. Far in the overdamped region ω₀ and Γ cannot be told apart; the slow relaxation time can.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]
Damping = Literal['underdamped', 'overdamped', 'undecided']

SURE = 0.95
"""Part of the bootstrap that has to agree before a mode is called under- or overdamped."""

N_STARTS = 4
"""Fits from the best points of the grid of starts."""

RATIOS = (1e-3, 1e3)
"""Smallest and largest Γ / 2ω₀ that is looked at."""


@dataclass(frozen=True)
class Oscillator:
    """What the autocorrelation of a mode says of its motion. Errors are standard deviations of a block bootstrap.

    :param frequency: ω₀ in rad/ps.
    :param damping: Γ in 1/ps.
    :param ratio: Γ / 2ω₀, above 1 where overdamped.
    :param ratio_interval: between which 95 % of the bootstrap lie.
    :param kind: undecided where less than 95 % of the bootstrap are on one side.
    :param relaxation: time in ps in which the slowest part decays by e; far in the overdamped region Γ / ω₀².
    :param window: lags in ps up to which was fitted.
    :param is_resolved: whether the slowest part decays within the window; else `relaxation` is a guess.
    :param misfit: root mean square of what the fit leaves of the autocorrelation, which starts at 1.
    :param lags: (n,) in ps; with them the autocorrelation and the fit.
    """

    frequency: float
    frequency_error: float
    damping: float
    damping_error: float
    ratio: float
    ratio_interval: tuple[float, float]
    kind: Damping
    relaxation: float
    relaxation_error: float
    window: float
    is_resolved: bool
    misfit: float
    lags: Array = field(repr=False, compare=False)
    correlation: Array = field(repr=False, compare=False)
    fit: Array = field(repr=False, compare=False)

    def numbers(self) -> dict[str, Any]:
        """Return all but the arrays."""
        arrays = {'lags', 'correlation', 'fit'}
        found = {name: value for name, value in vars(self).items() if name not in arrays}
        return {**found, 'ratio_interval': list(self.ratio_interval)}


def correlation_of(times: Array, frequency: float, damping: float) -> Array:
    """Return the autocorrelation of a damped harmonic oscillator over its value at zero.

    :param times: (n,) in ps, not negative.
    :param frequency: ω₀ in rad/ps.
    :param damping: Γ in 1/ps.
    """
    ratio, times = damping / (2 * frequency), np.asarray(times, dtype=float)
    if abs(ratio - 1) < 1e-6:
        return np.asarray(np.exp(-frequency * times) * (1 + frequency * times))
    if ratio < 1:
        turning = frequency * math.sqrt(1 - ratio**2)
        return np.asarray(
            np.exp(-damping * times / 2) * (np.cos(turning * times) + damping / 2 / turning * np.sin(turning * times))
        )
    fast = frequency * (ratio + math.sqrt(ratio**2 - 1))
    slow = frequency**2 / fast
    return np.asarray((fast * np.exp(-slow * times) - slow * np.exp(-fast * times)) / (fast - slow))


def relaxation_of(frequency: float, damping: float) -> float:
    """Return the time in ps in which the slowest part of the motion decays by e."""
    ratio = damping / (2 * frequency)
    if ratio <= 1:
        return 2 / damping
    return (ratio + math.sqrt(ratio**2 - 1)) / frequency


def autocorrelations(values: Array, n_lags: int, n_blocks: int = 1, subtract_mean: bool = True) -> Array:
    """Return the autocorrelation of each block of each component, (n_blocks · n_components, n_lags), not normalised.

    :param values: (n, n_components), at equal steps.
    :param n_lags: number of lags, from zero.
    :param n_blocks: pieces of equal length; what is left over at the end is left out.
    :param subtract_mean: of each component over all of its values: what is frozen in does not move.
    """
    values = np.asarray(values, dtype=float).reshape(len(values), -1)
    if subtract_mean:
        values = values - values.mean(axis=0)
    length = len(values) // n_blocks
    if not 1 <= n_lags <= length:
        raise ValueError(f'{n_lags} lags are asked of blocks of {length} values; give a longer series or fewer blocks.')
    blocks = values[: length * n_blocks].reshape(n_blocks, length, -1).transpose(0, 2, 1).reshape(-1, length)
    powers = np.abs(np.fft.rfft(blocks, n=2 * length, axis=1)) ** 2
    products = np.fft.irfft(powers, n=2 * length, axis=1)[:, :n_lags]
    return np.asarray(products / (length - np.arange(n_lags)))


def fit_oscillator(
    values: Array,
    timestep: float,
    window: float | None = None,
    n_blocks: int = 5,
    n_draws: int = 100,
    seed: int = 0,
    subtract_mean: bool = True,
) -> Oscillator:
    """Return the damped harmonic oscillator that a mode resembles.

    :param values: (n, n_components) amplitudes at equal steps; components are equivalent, such as the three axes.
    :param timestep: between two values in ps.
    :param window: lags in ps up to which is fitted; None for five times the slow relaxation time, at most half a block.
    :param n_blocks: pieces of the series that, with the components, the bootstrap draws from.
    :param n_draws: of the bootstrap.
    :param seed: of the bootstrap.
    :param subtract_mean: whether to take away what is frozen in.
    """
    values = np.asarray(values, dtype=float).reshape(len(values), -1)
    most = len(values) // n_blocks // 2 + 1
    if most < 8 or not np.isfinite(values).all() or not np.any(np.ptp(values, axis=0) > 0):
        raise ValueError(
            f'{len(values)} values in {n_blocks} blocks are not enough for a fit, or do not vary; give at least '
            f'{16 * n_blocks} finite ones.'
        )
    pieces = autocorrelations(values, most, n_blocks, subtract_mean)
    lags = timestep * np.arange(most)
    n_lags = most if window is None else min(most, max(8, round(window / timestep) + 1))
    best = _fit(lags[:n_lags], _pooled(pieces)[:n_lags])
    if window is None:
        n_lags = int(np.clip(round(5 * relaxation_of(*best) / timestep), 8, most))
        best = _fit(lags[:n_lags], _pooled(pieces)[:n_lags])
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(pieces), size=(n_draws, len(pieces)))
    draws = np.array([_fit(lags[:n_lags], _pooled(pieces[row])[:n_lags], best) for row in rows])
    return _told(lags[:n_lags], _pooled(pieces)[:n_lags], best, draws)


def _pooled(pieces: Array) -> Array:
    """Return the mean autocorrelation over its value at zero."""
    mean = pieces.mean(axis=0)
    return np.asarray(mean / mean[0])


def _told(lags: Array, correlation: Array, best: tuple[float, float], draws: Array) -> Oscillator:
    """Return all that the fits say."""
    frequency, damping = best
    ratios = draws[:, 1] / (2 * draws[:, 0])
    times = np.array([relaxation_of(*draw) for draw in draws])
    over = float(np.mean(ratios > 1))
    kind: Damping = 'overdamped' if over >= SURE else 'underdamped' if over <= 1 - SURE else 'undecided'
    low, high = np.quantile(ratios, [0.025, 0.975])
    fit = correlation_of(lags, frequency, damping)
    return Oscillator(
        frequency=frequency,
        frequency_error=float(draws[:, 0].std(ddof=1)),
        damping=damping,
        damping_error=float(draws[:, 1].std(ddof=1)),
        ratio=damping / (2 * frequency),
        ratio_interval=(float(low), float(high)),
        kind=kind,
        relaxation=relaxation_of(frequency, damping),
        relaxation_error=float(times.std(ddof=1)),
        window=float(lags[-1]),
        is_resolved=relaxation_of(frequency, damping) <= float(lags[-1]),
        misfit=float(np.sqrt(np.mean((correlation - fit) ** 2))),
        lags=lags,
        correlation=correlation,
        fit=fit,
    )


def _fit(lags: Array, correlation: Array, near: tuple[float, float] | None = None) -> tuple[float, float]:
    """Return ω₀ and Γ of the best fit, from the best points of a grid of starts, or from near a known one.

    What is fitted are the logarithms of ω₀ and of Γ / 2ω₀.
    """
    lowest, highest = np.log(1e-2 / lags[-1]), np.log(np.pi / lags[1])
    bounds = ([lowest, np.log(RATIOS[0])], [highest, np.log(RATIOS[1])])

    def residuals(point: Array) -> Array:
        frequency = math.exp(point[0])
        return correlation_of(lags, frequency, 2 * frequency * math.exp(point[1])) - correlation

    starts = _starts(residuals, lowest, highest) if near is None else []
    if near is not None:
        known = np.array([math.log(near[0]), math.log(near[1] / (2 * near[0]))])
        starts.append(np.clip(known, np.array(bounds[0]) + 1e-6, np.array(bounds[1]) - 1e-6))
    fits = [least_squares(residuals, start, bounds=bounds) for start in starts]
    best = min(fits, key=lambda fit: float(fit.cost))
    frequency = math.exp(best.x[0])
    return frequency, 2 * frequency * math.exp(best.x[1])


def _starts(residuals: Callable[[Array], Array], lowest: float, highest: float) -> list[Array]:
    """Return the best points of a grid."""
    grid = [
        np.array([one, other])
        for one in np.linspace(lowest, highest, 14)[1:-1]
        for other in np.log([0.03, 0.1, 0.3, 0.7, 1.5, 4.0, 15.0])
    ]
    return sorted(grid, key=lambda point: float(np.sum(residuals(point) ** 2)))[:N_STARTS]
