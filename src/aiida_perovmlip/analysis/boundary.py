"""The boundary between in-phase and out-of-phase tilts over composition, and the phase diagram around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit

from aiida_perovmlip.analysis.transitions import Ramp

Array = NDArray[np.float64]

LEAST_VARIANCE = 1e-4
"""Variance of a share where all layers are of one kind."""

DECIDED = 0.1
"""A composition whose share is nearer than this to 0 or to 1 is on one side, and does not tell how far the other is."""

N_CENTRES, N_WIDTHS = 600, 12
"""Curves of the grid that the bootstrap chooses from."""


@dataclass(frozen=True)
class Boundary:
    """Where the share of M in the activation of M and R passes one half, over the composition x.

    :param centre: x there by a logistic curve through all compositions, which rises or falls.
    :param error: standard deviation of it over the bootstrap, and over what lies between compositions.
    :param interval: x between which it is with 68 %.
    :param width: of the logistic curve in x: from 27 to 50 % of its rise.
    :param midpoint: x by straight lines between compositions, which believes no curve.
    :param midpoint_error: as of the centre.
    :param n_compositions: number of compositions.
    """

    centre: float
    error: float
    interval: tuple[float, float]
    width: float
    midpoint: float
    midpoint_error: float
    n_compositions: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**vars(self), 'interval': list(self.interval)}


@dataclass(frozen=True)
class Line:
    """One kind of transition over the composition, on heating or on cooling.

    :param x: (n,) compositions where it was seen, growing.
    :param temperatures: (n,) in K.
    :param errors: (n,) in K.
    """

    low: str
    high: str
    direction: str
    x: tuple[float, ...]
    temperatures: tuple[float, ...]
    errors: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def boundary_of(x: Sequence[float], shares: Sequence[Sequence[float]], n_draws: int = 500, seed: int = 0) -> Boundary:
    """Return where the share of M passes one half.

    Where the share jumps from one side to the other between two compositions, the boundary is anywhere between these:
    half of their distance over √3 is added to the errors.

    The bootstrap draws among the shares of each composition where there are several, which should be independent. Where
    each has one alone, it draws what the curve leaves of them, over the standard deviation √(p (1 - p)) of layers that
    are M with the probability p.

    :param x: (n,) compositions, from 0 to 1.
    :param shares: for each composition the shares M / (M + R) at one temperature, one for each run or window.
    """
    order = np.argsort(x, kind='stable')
    places = np.asarray(x, dtype=float)[order]
    sets = [np.asarray(shares[index], dtype=float) for index in order]
    _check(places, sets)
    means = np.array([values.mean() for values in sets])
    centre, width = _fit(places, means)
    drawn = _drawn(sets, _curve(places, centre, width), n_draws, np.random.default_rng(seed))
    drawn = drawn[(drawn.min(axis=1) <= 0.5) & (drawn.max(axis=1) >= 0.5)]  # the others have no boundary
    fits = _fit_many(places, drawn, centre, width)
    low, high = np.quantile(fits, [0.16, 0.84])
    middle, half = _unknown(places, means)
    return Boundary(
        centre=centre,
        error=float(np.hypot(np.std(fits, ddof=1), half / np.sqrt(3))),
        interval=(float(min(low, middle - 0.68 * half)), float(max(high, middle + 0.68 * half))),
        width=abs(width),
        midpoint=_crossing(places, means),
        midpoint_error=float(np.hypot(np.std([_crossing(places, each) for each in drawn], ddof=1), half / np.sqrt(3))),
        n_compositions=len(places),
    )


def diagram_of(ramps: Mapping[float, Sequence[Ramp]]) -> tuple[Line, ...]:
    """Return the lines of a phase diagram, by their names and directions.

    :param ramps: those of each composition.
    """
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    for x in sorted(ramps):
        for ramp in ramps[x]:
            for each in ramp.transitions:
                point = (float(x), each.temperature, each.error)
                found.setdefault((each.low, each.high, each.direction), []).append(point)
    lines = []
    for (low, high, direction), points in sorted(found.items()):
        xs, temperatures, errors = zip(*points, strict=True)
        lines.append(Line(low, high, direction, xs, temperatures, errors))
    return tuple(lines)


def _curve(x: Array, centre: float, width: float) -> Array:
    return np.asarray(expit((x - centre) / width))


def _drawn(sets: Sequence[Array], curve: Array, n_draws: int, rng: np.random.Generator) -> Array:
    """Return shares (n_draws, n) of the bootstrap."""
    if any(len(values) > 1 for values in sets):
        return np.array([[rng.choice(values, len(values)).mean() for values in sets] for _ in range(n_draws)])
    means = np.array([values[0] for values in sets])
    spread = np.sqrt(curve * (1 - curve) + LEAST_VARIANCE)
    # Two parameters were fitted, which makes what is left smaller than the noise.
    left = (means - curve) / spread * np.sqrt(len(means) / max(len(means) - 2, 1))
    return np.asarray(np.clip(curve + spread * rng.choice(left, (n_draws, len(means))), 0.0, 1.0))


def _fit(x: Array, shares: Array) -> tuple[float, float]:
    """Return centre and width of the logistic curve; a width below zero for one that falls.

    A jump between two compositions has any width below their distance; the smallest that is looked at is a tenth of it.
    """
    spread = float(np.ptp(x))
    narrowest = float(np.diff(x).min()) / 10
    sign = 1.0 if np.polyfit(x, shares, 1)[0] >= 0 else -1.0
    starts = [(_crossing(x, shares), width) for width in np.geomspace(narrowest * 1.01, spread, 4)]
    fits = [
        least_squares(
            lambda p: _curve(x, p[0], sign * p[1]) - shares,
            start,
            bounds=([x[0] - spread, narrowest], [x[-1] + spread, 10 * spread]),
            x_scale=spread,
        )
        for start in starts
    ]
    best = min(fits, key=lambda fit: float(fit.cost))
    return float(best.x[0]), float(sign * best.x[1])


def _fit_many(x: Array, shares: Array, centre: float, width: float) -> Array:
    """Return the centre (n_draws,) of the best curve of a grid for each of many draws (n_draws, n).

    All curves are held against all draws in one product of matrices.
    """
    spread = float(np.ptp(x))
    centres = np.concatenate([[centre], np.linspace(x[0] - spread / 4, x[-1] + spread / 4, N_CENTRES)])
    widths = np.concatenate([[width], np.sign(width) * np.geomspace(np.diff(x).min() / 10, 3 * spread, N_WIDTHS)])
    grid = np.array(np.meshgrid(centres, widths, indexing='ij')).reshape(2, -1).T
    curves = np.array([_curve(x, *point) for point in grid])
    squares = np.sum(curves**2, axis=1) - 2 * shares @ curves.T
    return np.asarray(grid[squares.argmin(axis=1), 0])


def _crossing(x: Array, shares: Array) -> float:
    """Return where straight lines between the points pass one half; the mean where they do so several times."""
    above = shares - 0.5
    steps = np.flatnonzero(above[:-1] * above[1:] <= 0)
    places = []
    for step in steps:
        rise = above[step + 1] - above[step]
        part = 0.5 if rise == 0 else -above[step] / rise
        places.append(float(x[step] + part * (x[step + 1] - x[step])))
    return float(np.mean(places))


def _unknown(x: Array, shares: Array) -> tuple[float, float]:
    """Return the middle and half of the length of what lies between two compositions of different sides.

    Half of the length is 0 where a composition tells more.
    """
    step = int(np.flatnonzero((shares[:-1] - 0.5) * (shares[1:] - 0.5) <= 0)[0])
    half = float(x[step + 1] - x[step]) / 2
    is_jump = np.all(np.minimum(shares, 1 - shares)[step : step + 2] < DECIDED)
    return float(x[step]) + half, half if is_jump else 0.0


def _check(x: Array, sets: Sequence[Array]) -> None:
    """Refuse shares that tell no boundary."""
    if len(x) < 2 or np.any(np.diff(x) <= 0):
        raise ValueError(f'there are {len(np.unique(x))} compositions; a boundary needs at least two that differ.')
    if any(not len(values) or not np.all((values >= 0) & (values <= 1)) for values in sets):
        raise ValueError('each composition needs a share of M, which is between 0 and 1.')
    means = np.array([values.mean() for values in sets])
    if not means.min() <= 0.5 <= means.max():
        side = 'below' if means.max() < 0.5 else 'above'
        raise ValueError(
            f'the share of M is {side} one half from x = {x[0]:g} ({means[0]:.2f}) to x = {x[-1]:g} ({means[-1]:.2f}): '
            'there is no boundary between these compositions.'
        )
