"""Lattice constants from runs at constant pressure, and their line against temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_perovmlip.analysis.series import average_of

Array = NDArray[Any]

LEFT_OUT = 0.2
"""The part of a run at its begin in which the cell finds its size."""

LEAST_FRAMES = 16
"""Frames from which an average has an error that means something."""


@dataclass(frozen=True)
class Lattice:
    """Pseudo-cubic lattice constants at one temperature.

    :param temperature: in K.
    :param constant: in Å, the cube root of the mean volume of a formula unit; and its standard error.
    :param axes: lengths of the three pseudo-cubic vectors of the mean cell in Å, and their standard errors.
    :param left_out: time at the begin of the run in ps that is not averaged.
    :param duration: time that is averaged, in ps.
    """

    temperature: float
    constant: float
    error: float
    axes: tuple[float, float, float]
    axes_errors: tuple[float, float, float]
    n_units: int
    n_frames: int
    left_out: float
    duration: float

    def numbers(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Expansion:
    """The lattice constant as a straight line against temperature.

    :param slope: in Å/K, and its standard error.
    :param centre: the temperature in K at which the line is known best; there the errors of constant and slope are
        independent.
    :param constant: in Å at the centre, and its standard error.
    :param scatter: by how much the points leave the line, over what their errors say; 0 for two points.
    """

    slope: float
    slope_error: float
    centre: float
    constant: float
    constant_error: float
    scatter: float
    temperatures: tuple[float, ...]

    def at(self, temperature: float) -> tuple[float, float]:
        """Return the lattice constant at a temperature in K, and its standard error, in Å."""
        away = temperature - self.centre
        error = np.hypot(self.constant_error, away * self.slope_error)
        return self.constant + away * self.slope, float(error)

    def is_extrapolated(self, temperature: float) -> bool:
        """Whether a temperature in K lies outside those that were run."""
        return not min(self.temperatures) <= temperature <= max(self.temperatures)

    def numbers(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


def lattice_of(
    times: Array, cells: Array, repeat: Sequence[int] | Array, temperature: float, left_out: float = LEFT_OUT
) -> Lattice:
    """Return the lattice constants of a run.

    :param times: (F,) in ps.
    :param cells: (F, 3, 3) in Å.
    :param repeat: how many pseudo-cubic cells lie along each vector, (3,); or the matrix (3, 3) whose rows make the
        vectors of the cell from the pseudo-cubic ones, such as (1, 1, 0), (-1, 1, 0), (0, 0, 2).
    :param temperature: of the run in K.
    :param left_out: the part of the run at its begin that is not averaged.
    """
    units = pseudo_cubic(cells, repeat)
    first = int(np.ceil(left_out * len(units)))
    if len(units) - first < LEAST_FRAMES:
        raise ValueError(
            f'of {len(units)} frames {max(0, len(units) - first)} are averaged, but {LEAST_FRAMES} are the least for '
            'an error; run longer, or write frames more often.'
        )
    units = units[first:]
    volumes = np.abs(np.linalg.det(units))
    constant = float(np.cbrt(volumes.mean()))
    lengths = np.linalg.norm(units, axis=2)
    return Lattice(
        temperature=temperature,
        constant=constant,
        error=_error_of(volumes) / (3 * constant**2),
        axes=_three(np.linalg.norm(units.mean(axis=0), axis=1)),
        axes_errors=_three([_error_of(series) for series in lengths.T]),
        n_units=_n_units(_matrix(repeat)),
        n_frames=len(units),
        left_out=float(times[first] - times[0]),
        duration=float(times[-1] - times[first]),
    )


def pseudo_cubic(cells: Array, repeat: Sequence[int] | Array) -> Array:
    """Return the pseudo-cubic vectors (F, 3, 3) in Å of cells.

    :param cells: (F, 3, 3) in Å.
    :param repeat: as for `lattice_of`.
    """
    return np.asarray(np.linalg.inv(_matrix(repeat)) @ np.asarray(cells, dtype=float))


def fit_expansion(lattices: Sequence[Lattice]) -> Expansion:
    """Fit the lattice constant by a straight line against temperature.

    Each point counts by its error; where the points leave the line by more than these say, the errors of the line
    grow with that.
    """
    kelvins = np.array([lattice.temperature for lattice in lattices], dtype=float)
    constants = np.array([lattice.constant for lattice in lattices])
    if len(np.unique(kelvins)) < 2:
        raise ValueError(f'a line takes two temperatures; lattice constants are known at {len(np.unique(kelvins))}.')
    errors = np.array([lattice.error for lattice in lattices])
    weights = 1.0 / np.maximum(errors, 1e-3 * max(float(errors.max()), 1e-9)) ** 2
    centre = float(np.average(kelvins, weights=weights))
    away = kelvins - centre
    constant = float(np.average(constants, weights=weights))
    spread = float((weights * away**2).sum())
    slope = float((weights * away * constants).sum() / spread)
    left = constants - constant - slope * away
    freedom = len(kelvins) - 2
    scatter = float(np.sqrt((weights * left**2).sum() / freedom)) if freedom else 0.0
    grown = max(1.0, scatter)
    return Expansion(
        slope=slope,
        slope_error=float(grown / np.sqrt(spread)),
        centre=centre,
        constant=constant,
        constant_error=float(grown / np.sqrt(weights.sum())),
        scatter=scatter,
        temperatures=tuple(map(float, kelvins)),
    )


def _error_of(series: Array) -> float:
    """Return the standard error of the mean of correlated values (n,)."""
    return average_of(series).error or 0.0


def _matrix(repeat: Sequence[int] | Array) -> Array:
    """Return the matrix (3, 3) that makes the cell from pseudo-cubic vectors."""
    known = np.asarray(repeat, dtype=float)
    matrix = np.diag(known) if known.shape == (3,) else known
    if matrix.shape != (3, 3) or np.abs(matrix - matrix.round()).max() > 1e-9 or _n_units(matrix) < 1:
        raise ValueError(
            f'{known.tolist()} is neither three whole numbers above zero nor a whole matrix of three rows.'
        )
    return matrix


def _n_units(matrix: Array) -> int:
    return round(abs(float(np.linalg.det(matrix))))


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
