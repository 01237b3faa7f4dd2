"""Temperatures of phase transitions, from change points along heating and cooling.

Between two changes each quantity is taken to follow a straight line in temperature, not to be constant: lattice
constants grow and tilts shrink within a phase as well, which constant pieces would cut into steps. The best cut is
found exactly, by dynamic programming, and the number of pieces by an information criterion. Libraries for change points
find constant pieces as fast, but straight ones by a fit for each of the n² pieces; here sums of powers make all of them
at once, so that the bootstrap of the error stays cheap.

A change between windows of the same label is a change within a phase, and no transition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Direction = Literal['heating', 'cooling']

LEAST = 3
"""Smallest number of windows in a piece; a straight line through two says nothing."""

MOST = 6
"""Largest number of changes that are looked for on one ramp."""

LABEL_NOISE = 0.25
"""How far a label, which is 0 or 1, may be off by chance: a single window with another label makes no phase."""


MEDIAN, MEAN = 0.6745, 0.5147
"""Of the sizes of Gaussian noise the median, and the mean of the smaller three quarters, over its deviation."""


@dataclass(frozen=True)
class Pieces:
    """A series cut into straight pieces.

    :param breaks: index of the first point of each piece but the first one.
    :param fit: (n, n_quantities) the lines.
    :param cost: sum of squares of what is left, each quantity over its noise.
    :param noise: (n_quantities,) standard deviation of the noise, from second differences.
    """

    breaks: tuple[int, ...]
    fit: Array = field(repr=False)
    cost: float
    noise: Array = field(repr=False)


@dataclass(frozen=True)
class Transition:
    """A change from one phase to another on one ramp.

    :param direction: whether it was seen on heating or on cooling.
    :param temperature: in K, between the last window of one phase and the first of the other.
    :param error: in K, from a bootstrap and from the distance of the windows.
    :param low: label on the side of low temperature.
    :param high: label on the side of high temperature.
    """

    direction: Direction
    temperature: float
    error: float
    low: str
    high: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Ramp:
    """What changes along one ramp.

    :param transitions: changes of phase, by rising temperature.
    :param within: temperatures in K of changes within a phase.
    :param labels: of the phases, by rising temperature.
    """

    direction: Direction
    transitions: tuple[Transition, ...]
    within: tuple[float, ...]
    labels: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            'direction': self.direction,
            'transitions': [each.to_dict() for each in self.transitions],
            'within': list(self.within),
            'labels': list(self.labels),
        }


@dataclass(frozen=True)
class Hysteresis:
    """One transition as heating and cooling see it; None where it was not seen.

    :param heating: temperature in K: where it is of first order, an upper bound of that of equilibrium.
    :param cooling: temperature in K: a lower bound.
    :param width: of heating above cooling in K; with its error.
    """

    low: str
    high: str
    heating: float | None
    heating_error: float | None
    cooling: float | None
    cooling_error: float | None
    width: float | None
    width_error: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return dict(vars(self))


# ---------------------------------------------------------------------- change points


def cut(
    x: Array,
    values: Array,
    n_breaks: int | None = None,
    penalty: float = 1.0,
    least: int = LEAST,
    straight: bool = True,
    noise: Array | None = None,
) -> Pieces:
    """Return the best cut of a series into pieces, in each of which all quantities follow lines in `x`.

    :param x: (n,) growing.
    :param values: (n, n_quantities).
    :param n_breaks: how many changes there are; None to find it, up to `MOST`.
    :param penalty: what a change costs, over its Bayesian price: the logarithm of n for each of its parameters.
    :param least: smallest number of points in a piece.
    :param straight: False for constant pieces.
    :param noise: (n_quantities,) standard deviations; None for `noise_of`.
    """
    values = np.asarray(values, dtype=float).reshape(len(x), -1)
    _check(x, values, n_breaks, least)
    noise = noise_of(values) if noise is None else noise
    most = min(MOST, max(len(x) // least - 1, 0)) if n_breaks is None else n_breaks
    tables = _tables(_costs(np.asarray(x, dtype=float), values / noise, straight), least, most)
    if n_breaks is None:
        price = penalty * ((2 if straight else 1) * values.shape[1] + 1) * np.log(len(x))
        n_breaks = int(np.argmin([best[-1] + price * number for number, (best, _) in enumerate(tables)]))
    breaks = _traced(tables, n_breaks, len(x))
    return Pieces(breaks, _lines(x, values, breaks, straight), float(tables[n_breaks][0][-1]), noise)


def noise_of(values: Array) -> Array:
    """Return the standard deviation of the noise of each quantity (n_quantities,), blind to lines and to a few jumps.

    Second differences of white noise have six times its variance; their median, and the mean of the smaller three
    quarters of them, are those of no jump. The larger of both counts: an activation is zero wherever nothing lasts, so
    that most of its differences may be zero though it is not quiet.

    :param values: (n, n_quantities).
    """
    differences = np.sort(np.abs(np.diff(values, n=2, axis=0)), axis=0)
    smaller = differences[: max(1, 3 * len(differences) // 4)]
    spread = np.maximum(np.median(differences, axis=0) / MEDIAN, smaller.mean(axis=0) / MEAN) / np.sqrt(6)
    # A quantity that does not vary by itself would weigh without bound; what is left then is a millionth of its range.
    ranges = np.ptp(values, axis=0)
    return np.asarray(np.maximum(spread, np.where(ranges > 0, 1e-6 * ranges, 1.0)))


def _costs(x: Array, values: Array, straight: bool) -> Array:
    """Return the sum of squares (n, n + 1) left in the piece from i up to, but without, j; infinite if j ≤ i."""
    n = len(x)
    x = (x - x.mean()) / max(float(np.ptp(x)), 1e-30)
    values = values - values.mean(axis=0)
    ones = np.ones(n)
    sums = [np.concatenate([[0.0], np.cumsum(each)]) for each in (ones, x, x * x)]
    s0, s1, s2 = (each[None, :] - each[:-1, None] for each in sums)
    found = np.zeros((n, n + 1))
    with np.errstate(divide='ignore', invalid='ignore'):
        for column in values.T:
            powers = [np.concatenate([[0.0], np.cumsum(each)]) for each in (column, x * column, column * column)]
            t0, t1, t2 = (each[None, :] - each[:-1, None] for each in powers)
            left = t2 - t0 * t0 / s0
            if straight:
                spread = s2 - s1 * s1 / s0
                slope = np.where(spread > 1e-12, (t1 - s1 * t0 / s0) ** 2 / spread, 0.0)
                left = left - slope
            found += np.maximum(left, 0.0)
    found[s0 <= 0] = np.inf
    return found


def _tables(costs: Array, least: int, most: int) -> list[tuple[Array, NDArray[np.int64]]]:
    """Return, for each number of breaks, the cost of the best cut of the first j points, and its last break."""
    n = len(costs)
    first = costs[0].copy()
    first[:least] = np.inf
    found = [(first, np.zeros(n + 1, dtype=np.int64))]
    shorter = np.arange(n)[:, None] > np.arange(n + 1)[None, :] - least
    allowed = np.where(shorter, np.inf, costs)
    for _ in range(most):
        total = found[-1][0][:-1, None] + allowed
        last = total.argmin(axis=0)
        found.append((total[last, np.arange(n + 1)], last))
    return found


def _traced(tables: Sequence[tuple[Array, NDArray[np.int64]]], n_breaks: int, end: int) -> tuple[int, ...]:
    """Return the breaks of the best cut with so many."""
    breaks: list[int] = []
    for number in range(n_breaks, 0, -1):
        end = int(tables[number][1][end])
        breaks.append(end)
    return tuple(reversed(breaks))


def _lines(x: Array, values: Array, breaks: Sequence[int], straight: bool) -> Array:
    """Return the lines of all pieces (n, n_quantities)."""
    found = np.empty_like(values)
    for start, stop in pairwise([0, *breaks, len(x)]):
        basis = np.vander(np.asarray(x[start:stop], dtype=float) - x[start], 2 if straight else 1)
        found[start:stop] = basis @ np.linalg.lstsq(basis, values[start:stop], rcond=None)[0]
    return found


def _check(x: Array, values: Array, n_breaks: int | None, least: int) -> None:
    """Refuse a series that cannot be cut."""
    if len(x) < 3 or not np.all(np.diff(x) > 0) or not (np.isfinite(values).all() and np.isfinite(x).all()):
        raise ValueError(f'a series to be cut has at least three finite points in growing order; there are {len(x)}.')
    if least < 1 or (n_breaks is not None and (n_breaks < 0 or (n_breaks + 1) * least > len(x))):
        raise ValueError(f'{len(x)} points cannot be cut {n_breaks} times into pieces of at least {least}.')


# ---------------------------------------------------------------------- transitions of a ramp


def transitions_of(
    temperatures: Array,
    values: Array,
    labels: Sequence[str],
    direction: Direction,
    penalty: float = 1.0,
    n_draws: int = 100,
    seed: int = 0,
) -> Ramp:
    """Return the transitions along one ramp.

    Labels are cut together with the values, so that a phase whose amplitudes set in gently is found as well.

    :param temperatures: (n,) mean of each window in K, in any order.
    :param values: (n, n_quantities) amplitudes of M and R and lattice constants of each window.
    :param labels: (n,) tilt system of each window.
    :param direction: heating or cooling.
    :param penalty: what a change costs, see `cut`.
    :param n_draws: of the bootstrap.
    :param seed: of the bootstrap.
    """
    order = np.argsort(temperatures, kind='stable')
    x = np.asarray(temperatures, dtype=float)[order]
    names = [labels[index] for index in order]
    measured = np.asarray(values, dtype=float).reshape(len(x), -1)[order]
    y = np.hstack([measured, _indicators(names)])
    noise = np.concatenate([noise_of(measured), np.full(y.shape[1] - measured.shape[1], LABEL_NOISE)])
    pieces = cut(x, y, penalty=penalty, noise=noise)
    kinds = [_majority(names[start:stop]) for start, stop in pairwise([0, *pieces.breaks, len(x)])]
    errors = _errors(x, measured, pieces.breaks, n_draws, np.random.default_rng(seed))
    found, within = [], []
    for number, index in enumerate(pieces.breaks):
        low, high = kinds[number : number + 2]
        place = _between(x, index)
        if low == high:
            within.append(place)
            continue
        # Where exactly in the gap between two windows it happened is not known: a uniform distribution.
        error = float(np.hypot(errors[number], (x[index] - x[index - 1]) / np.sqrt(12)))
        found.append(Transition(direction, place, error, low, high))
    phases = [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]
    return Ramp(direction, tuple(found), tuple(within), tuple(phases))


def hysteresis_of(heating: Ramp | None, cooling: Ramp | None) -> tuple[Hysteresis, ...]:
    """Return each transition as both ramps see it, by rising temperature; one of None was not run."""
    found: dict[tuple[str, str, int], dict[Direction, Transition]] = {}
    for ramp in filter(None, (heating, cooling)):
        seen: Counter[tuple[str, str]] = Counter()
        for each in ramp.transitions:
            found.setdefault((each.low, each.high, seen[each.low, each.high]), {})[ramp.direction] = each
            seen[each.low, each.high] += 1
    told = [_hysteresis(low, high, both) for (low, high, _), both in found.items()]
    return tuple(sorted(told, key=lambda each: max(filter(None, (each.heating, each.cooling)))))


def _hysteresis(low: str, high: str, both: dict[Direction, Transition]) -> Hysteresis:
    up, down = both.get('heating'), both.get('cooling')
    return Hysteresis(
        low=low,
        high=high,
        heating=up.temperature if up else None,
        heating_error=up.error if up else None,
        cooling=down.temperature if down else None,
        cooling_error=down.error if down else None,
        width=up.temperature - down.temperature if up and down else None,
        width_error=float(np.hypot(up.error, down.error)) if up and down else None,
    )


def _indicators(labels: Sequence[str]) -> Array:
    """Return a column for each label (n, n_labels) that is 1 where it holds; none where there is one label alone."""
    kinds = sorted(set(labels))
    return np.array([[float(label == kind) for kind in kinds[1:]] for label in labels]).reshape(len(labels), -1)


def _majority(labels: Sequence[str]) -> str:
    """Return the commonest label; of equally common ones the first."""
    return Counter(labels).most_common(1)[0][0]


def _between(x: Array, index: int) -> float:
    return float((x[index - 1] + x[index]) / 2)


def _errors(x: Array, values: Array, breaks: Sequence[int], n_draws: int, rng: np.random.Generator) -> Array:
    """Return how far the place of each break in K (n_breaks,) is off in a bootstrap, root mean square.

    Each is looked for again between its neighbours, by the values alone: labels that were made of the same values would
    make it look surer than it is. What the lines leave is drawn anew from what they leave in the same piece, in pairs,
    as neighbouring windows are not quite independent.

    :param values: (n, n_quantities) without labels.
    """
    edges = [0, *breaks, len(x)]
    left = values - (fit := _lines(x, values, breaks, straight=True))
    noise = noise_of(values)
    found = np.zeros(len(breaks))
    for number, index in enumerate(breaks):
        start, stop = edges[number], edges[number + 2]
        part = slice(start, stop)
        places = []
        for _ in range(n_draws):
            rows = np.concatenate([_drawn(start, index, rng), _drawn(index, stop, rng)])
            again = cut(x[part], fit[part] + left[rows], n_breaks=1, noise=noise)
            places.append(_between(x[part], again.breaks[0]))
        found[number] = np.sqrt(np.mean((np.array(places) - _between(x, index)) ** 2))
    return found


def _drawn(start: int, stop: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return as many rows of a piece as it has, in pairs that begin anywhere."""
    count = stop - start
    first = rng.integers(count, size=(count + 1) // 2)
    return np.asarray(start + np.stack([first, (first + 1) % count], axis=1).ravel()[:count])
