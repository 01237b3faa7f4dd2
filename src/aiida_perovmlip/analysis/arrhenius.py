"""Activation energies of diffusion, and what they say of other temperatures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BOLTZMANN = 8.617333262e-5
"""eV/K"""

ROOM = 300.0
"""The temperature in K at which coefficients of diffusion are compared."""

PS_PER_S = 1e12
MOST_STEPS, LARGEST_STEP, SMALLEST_STEP = 500, 0.5, 1e-11
"""Of the fit, in ln D."""

CM_PER_ANGSTROM = 1e-8


@dataclass(frozen=True)
class Estimate:
    """A positive number whose error multiplies: it lies between value/factor and value·factor.

    :param factor: of one standard error; None where nothing tells, or it says nothing.
    """

    value: float
    factor: float | None


@dataclass(frozen=True)
class Arrhenius:
    """D = D₀ exp(-Eₐ/kT), a straight line of ln D that is fitted to all runs alike.

    Runs are not weighted by their own errors: those of a few runs are so uncertain that an error bar of 68 % then
    covers 47 %. What the runs of one temperature differ by, and what the line leaves, gives the error.

    :param activation_energy: in eV, and its standard error; None where two runs make the line.
    :param prefactor: in cm²/s, with an error that multiplies.
    :param prefactor_error: in cm²/s, the same error as if it were added, as papers print it; it is larger than the
        prefactor itself where nothing is known of it.
    :param covariance: (2, 2) of ln D₀ and Eₐ/eV: they are all but one number, so that no other temperature has a
        correct error without it. None where two runs make the line.
    :param temperatures: of each run in the fit, in K.
    :param coefficients: of each run in the fit, in cm²/s.
    :param left_out: temperatures in K that are not in the fit, as the mean of their runs shows no diffusion.
    """

    activation_energy: float
    activation_energy_error: float | None
    prefactor: Estimate
    prefactor_error: float | None
    covariance: tuple[tuple[float, float], tuple[float, float]] | None
    temperatures: tuple[float, ...]
    coefficients: tuple[float, ...]
    left_out: tuple[float, ...]

    @property
    def correlation(self) -> float | None:
        """How much ln D₀ and Eₐ are one number; 1 where they are."""
        if self.covariance is None:
            return None
        (one, both), (_, other) = self.covariance
        return both / math.sqrt(one * other) if one * other > 0 else None

    def at(self, temperature: float) -> Estimate:
        """Return the coefficient in cm²/s at a temperature in K, with an error that knows the covariance."""
        slopes = np.array([1.0, -1.0 / (BOLTZMANN * temperature)])
        value = float(np.exp(slopes @ [math.log(self.prefactor.value), self.activation_energy]))
        if self.covariance is None:
            return Estimate(value, None)
        return Estimate(value, _factor(float(np.sqrt(slopes @ np.array(self.covariance) @ slopes))))

    def numbers(self) -> dict[str, Any]:
        """Return all of it, and the coefficient at room temperature, as plain values."""
        room = self.at(ROOM)
        return {
            'activation_energy': self.activation_energy,
            'activation_energy_error': self.activation_energy_error,
            'prefactor': self.prefactor.value,
            'prefactor_factor': self.prefactor.factor,
            'prefactor_error': self.prefactor_error,
            'covariance': None if self.covariance is None else [list(row) for row in self.covariance],
            'room_temperature': ROOM,
            'at_room_temperature': room.value,
            'at_room_temperature_factor': room.factor,
            'temperatures': list(self.temperatures),
            'coefficients': list(self.coefficients),
            'left_out': list(self.left_out),
        }


@dataclass(frozen=True)
class LowerBound:
    """The least activation energy of what was not seen to move.

    :param activation_energy: in eV.
    :param most_hops: so many hops would have been expected at that energy.
    :param attempt_frequency: assumed, in THz.
    :param duration: in which nothing moved, in ps, over all runs and defects.
    """

    activation_energy: float
    most_hops: float
    attempt_frequency: float
    temperature: float
    duration: float


def fit_arrhenius(temperatures: Sequence[float] | Array, coefficients: Sequence[float] | Array) -> Arrhenius:
    """Fit ln D = ln D₀ - Eₐ/kT to all runs, each with the same weight.

    The equations are those of a quasi-likelihood whose errors are a part of the coefficient that is the same for all
    (Wedderburn, Biometrika 61, 439 (1974)). For small errors this is the least squares of ln D; for large ones it keeps
    a run that chance has made negative, which has no logarithm: to leave it out, or all of its temperature, would be
    to keep what chance has made large.

    :param temperatures: (n,) of each run in K.
    :param coefficients: (n,) of each run in cm²/s.
    """
    kelvins, values = np.asarray(temperatures, dtype=float), np.asarray(coefficients, dtype=float)
    if kelvins.shape != values.shape or kelvins.ndim != 1:
        raise ValueError(f'there are {kelvins.size} temperatures and {values.size} coefficients.')
    if not np.isfinite(values).all() or not (kelvins > 0).all():
        raise ValueError('a coefficient is not finite, or a temperature not above 0 K.')
    dark = sorted(float(one) for one in np.unique(kelvins) if values[kelvins == one].mean() <= 0)
    used = ~np.isin(kelvins, dark)
    kelvins, values = kelvins[used], values[used]
    if len(np.unique(kelvins)) < 2:
        gone = f' At {", ".join(f"{one:g}" for one in dark)} K the mean of the runs shows none.' if dark else ''
        raise ValueError(
            f'an activation energy takes two temperatures, and there is diffusion at {len(np.unique(kelvins))}.{gone} '
            'Give a lower bound instead, or run longer or hotter.'
        )
    design = np.column_stack([np.ones(len(kelvins)), -1.0 / (BOLTZMANN * kelvins)])
    (log_prefactor, energy), covariance = _line(design, values)
    prefactor = math.exp(log_prefactor)
    errors = None if covariance is None else np.sqrt(np.diag(covariance))
    return Arrhenius(
        activation_energy=energy,
        activation_energy_error=None if errors is None else float(errors[1]),
        prefactor=Estimate(prefactor, None if errors is None else _factor(float(errors[0]))),
        prefactor_error=None if errors is None else float(prefactor * errors[0]),
        covariance=None if covariance is None else _pairs(covariance),
        temperatures=tuple(map(float, kelvins)),
        coefficients=tuple(map(float, values)),
        left_out=tuple(dark),
    )


def lower_bound(
    temperature: float, duration: float, attempt_frequency: float, confidence: float | None = None
) -> LowerBound:
    """Return the least activation energy of a defect that did not hop.

    :param temperature: in K.
    :param duration: of all runs together, times the number of defects, in ps.
    :param attempt_frequency: in THz; `attempt_frequency_of` makes it from a prefactor.
    :param confidence: with which the energy is larger, such as 0.95; None where fewer than one hop is expected, as
        Tyagi, Brocks and Tao have it, which is 63 %.
    """
    if confidence is not None and not 0 < confidence < 1:
        raise ValueError(f'the confidence is {confidence:g} but has to lie between 0 and 1.')
    most_hops = 1.0 if confidence is None else -math.log(1.0 - confidence)
    attempts = attempt_frequency * duration
    if attempts <= most_hops:
        raise ValueError(f'in {duration:g} ps there are {attempts:g} attempts, too few to say anything; run longer.')
    energy = BOLTZMANN * temperature * math.log(attempts / most_hops)
    return LowerBound(energy, most_hops, attempt_frequency, temperature, duration)


def attempt_frequency_of(prefactor: float, length: float) -> float:
    """Return 6 D₀/d² in THz, the attempts to hop that make a prefactor.

    :param prefactor: in cm²/s.
    :param length: of a hop in Å.
    """
    return 6.0 * prefactor / (length * CM_PER_ANGSTROM) ** 2 / PS_PER_S


def _line(design: Array, values: Array) -> tuple[tuple[float, float], Array | None]:
    """Return both parameters of the line of ln D, and their covariance where it is known.

    Each step is the least squares of what the line misses, as a part of what it says.
    """
    inverse = np.linalg.pinv(design)
    line = inverse @ np.log(_means(design[:, 1], values))
    for _ in range(MOST_STEPS):
        step = inverse @ _misses(design, values, line)
        length = float(np.abs(design @ step).max())
        line = line + step * min(1.0, LARGEST_STEP / length if length else 1.0)
        if length < SMALLEST_STEP:
            break
    else:
        raise ValueError('no line comes near the coefficients: they scatter too much. Run longer, or more runs.')
    left = len(values) - 2
    misses = _misses(design, values, line)
    covariance = float(misses @ misses) / left * np.linalg.inv(design.T @ design) if left > 0 else None
    return (float(line[0]), float(line[1])), covariance


def _misses(design: Array, values: Array, line: Array) -> Array:
    """Return by what part of itself each coefficient of the line is off."""
    misses: Array = values / np.exp(design @ line) - 1.0
    return misses


def _means(places: Array, values: Array) -> Array:
    """Return for each run the mean of all runs of its temperature."""
    means: Array = np.array([values[places == place].mean() for place in places])
    return means


def _factor(error: float) -> float | None:
    """Return the factor of an error of a logarithm; None where it is so large that it says nothing."""
    return math.exp(error) if error < 100.0 else None


def _pairs(covariance: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    (one, both), (_, other) = covariance.tolist()
    return (one, both), (both, other)
