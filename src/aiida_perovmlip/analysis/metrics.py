"""Errors of predictions against references, added up frame by frame so that a dataset of any size fits.

Frames stream through a :class:`MetricsAccumulator`; :meth:`MetricsAccumulator.metrics` returns plain JSON without NaN
or infinity, and :func:`flat_rows` turns this into a table for people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNITS = {'energy_per_atom': 'eV/atom', 'forces': 'eV/Å', 'stress': 'eV/Å³'}
"""Unit of each quantity in the metrics."""

COLUMNS = ('scope', 'quantity', 'n', 'MAE', 'RMSE', 'unit', 'R²')
"""Headings of what `flat_rows` returns."""

LARGEST = 1e100
"""Predictions beyond this count as not finite: their squares would overflow, and nothing but divergence makes them."""


@dataclass(frozen=True)
class Errors:
    """Errors of n components; error means prediction minus reference.

    :param unit: of all but `r2`.
    :param mae: mean absolute error.
    :param rmse: root of the mean squared error.
    :param bias: mean error.
    :param largest: largest absolute error.
    :param r2: coefficient of determination, 1 - Σ(error²) / Σ((reference - mean)²); None for a constant reference.
    """

    n: int
    unit: str
    mae: float
    rmse: float
    bias: float
    largest: float
    r2: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the errors as plain JSON, without an undefined `r2`."""
        content = {'n': self.n, 'mae': self.mae, 'rmse': self.rmse, 'bias': self.bias, 'largest': self.largest}
        return {**content, **({} if self.r2 is None else {'r2': self.r2}), 'unit': self.unit}


class ErrorSum:
    """Sums from which the errors of all components added so far follow.

    The spread of the reference is kept as its mean and the sum of squared deviations from it, merged after Chan, Golub
    and LeVeque, Am. Stat. 37, 242 (1983). The difference Σr² - (Σr)²/n has no digits left for energies such as
    -278 858 eV/atom that spread by some meV.
    """

    def __init__(self) -> None:
        self.n = 0
        self.n_not_finite = 0
        self.sum_error = 0.0
        self.sum_absolute = 0.0
        self.sum_squared = 0.0
        self.largest = 0.0
        self.mean = 0.0
        self.spread = 0.0
        self.lowest = math.inf
        self.highest = -math.inf

    def add(self, reference: ArrayLike, prediction: ArrayLike) -> None:
        """Add two arrays of one shape and unit, component by component; predictions may be NaN, references may not."""
        known, predicted = np.asarray(reference, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
        if known.shape != predicted.shape:
            raise ValueError(f'the reference has shape {known.shape} but the prediction {predicted.shape}.')
        if not np.all(np.abs(known) <= LARGEST):
            raise ValueError('the reference has values that are not finite: leave these frames out.')
        is_finite = np.abs(predicted) <= LARGEST
        self.n_not_finite += int(known.size - np.count_nonzero(is_finite))
        if is_finite.any():
            self._merge_sums(_sums_of(known[is_finite], predicted[is_finite]))

    def merge(self, other: ErrorSum) -> None:
        """Add all that another sum holds."""
        self.n_not_finite += other.n_not_finite
        if other.n:
            self._merge_sums(other)

    def errors(self, unit: str) -> Errors:
        """Return the errors; raises ValueError where nothing was added or some prediction was not finite.

        :param unit: of the arrays that were added.
        """
        if self.n_not_finite:
            total = self.n + self.n_not_finite
            raise ValueError(f'{self.n_not_finite} of {total} predictions are not finite and have no error.')
        if self.n == 0:
            raise ValueError('there are no errors, as nothing was added.')
        return Errors(
            n=self.n,
            unit=unit,
            mae=self.sum_absolute / self.n,
            rmse=math.sqrt(self.sum_squared / self.n),
            bias=self.sum_error / self.n,
            largest=self.largest,
            r2=self._r2(),
        )

    def _merge_sums(self, other: ErrorSum) -> None:
        """Add sums over at least one component."""
        total = self.n + other.n
        step = other.mean - self.mean
        self.spread += other.spread + step**2 * (self.n * other.n / total)
        self.mean += step * (other.n / total)
        self.n = total
        self.sum_error += other.sum_error
        self.sum_absolute += other.sum_absolute
        self.sum_squared += other.sum_squared
        self.largest = max(self.largest, other.largest)
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)

    def _r2(self) -> float | None:
        """Return the coefficient of determination; None for a constant reference, which rounding may seem to spread."""
        if self.lowest == self.highest or self.spread == 0.0:
            return None
        r2 = 1.0 - self.sum_squared / self.spread
        return r2 if math.isfinite(r2) else None


class MetricsAccumulator:
    """Errors in energy per atom, forces and stress: overall, by element, by group and, where they are given, by head.

    In the names of groups and heads a `.` becomes `_`, because AiiDA's queries read a dot as a step into a
    dictionary; those whose names then are the same count as one.
    """

    def __init__(self) -> None:
        self._n_frames = 0
        self._n_atoms = 0
        self._groups: dict[str, dict[str, ErrorSum]] = {}
        self._heads: dict[str, dict[str, ErrorSum]] = {}
        self._elements: dict[int, ErrorSum] = {}

    def add_frame(
        self,
        numbers: ArrayLike,
        group: str,
        energy_reference: float,
        energy_predicted: float,
        forces_reference: ArrayLike,
        forces_predicted: ArrayLike,
        stress_reference: ArrayLike | None = None,
        stress_predicted: ArrayLike | None = None,
    ) -> None:
        """Add one frame.

        :param numbers: atomic numbers (n_atoms,).
        :param energy_reference: in eV, of the whole frame; so is `energy_predicted`.
        :param forces_reference: (n_atoms, 3) in eV/Å; so is `forces_predicted`.
        :param stress_reference: (6,) in eV/Å³; so is `stress_predicted`. None, in either, compares no stress.
        """
        stresses = None if stress_reference is None else np.asarray(stress_reference)[None]
        predicted = None if stress_predicted is None else np.asarray(stress_predicted)[None]
        self.add_frames(
            numbers,
            [0, len(np.asarray(numbers))],
            [group],
            [energy_reference],
            [energy_predicted],
            forces_reference,
            forces_predicted,
            stresses,
            predicted,
        )

    def add_frames(
        self,
        numbers: ArrayLike,
        offsets: ArrayLike,
        groups: Sequence[str],
        energy_reference: ArrayLike,
        energy_predicted: ArrayLike,
        forces_reference: ArrayLike,
        forces_predicted: ArrayLike,
        stress_reference: ArrayLike | None = None,
        stress_predicted: ArrayLike | None = None,
        heads: Sequence[str] | None = None,
    ) -> None:
        """Add many frames, their atoms one after another.

        :param numbers: atomic numbers (n_atoms,) of all frames.
        :param offsets: (n_frames + 1,) where the atoms of each frame start, and the end of the last.
        :param groups: the group of each frame.
        :param energy_reference: (n_frames,) in eV, of whole frames; so is `energy_predicted`.
        :param forces_reference: (n_atoms, 3) in eV/Å; so is `forces_predicted`.
        :param stress_reference: (n_frames, 6) in eV/Å³, NaN in the rows of frames without stress; so is
            `stress_predicted`, but there NaN means a failure wherever the reference has a stress. None, in either,
            compares no stress.
        :param heads: the head that predicted each frame; None tells no heads apart.
        """
        numbers, starts = np.asarray(numbers), np.asarray(offsets)
        sizes = np.diff(starts)
        energies = (np.asarray(energy_reference, dtype=np.float64), np.asarray(energy_predicted, dtype=np.float64))
        forces = (np.asarray(forces_reference), np.asarray(forces_predicted))
        _check_layout(numbers, starts, len(groups), energies, forces)
        has_stress, stresses = _stresses(stress_reference, stress_predicted, len(sizes))
        for number, atoms in _by_value(numbers):
            self._elements.setdefault(int(number), ErrorSum()).add(forces[0][atoms], forces[1][atoms])
        columns = _Columns(sizes, energies, forces, has_stress, stresses)
        _add_by(self._groups, groups, columns)
        if heads is not None:
            _add_by(self._heads, heads, columns)
        self._n_frames += len(sizes)
        self._n_atoms += len(numbers)

    def metrics(self) -> dict[str, Any]:
        """Return all errors as plain JSON without NaN or infinity.

        A block with predictions that are not finite has their number as `n_not_finite` in place of errors, and the
        `state` of the whole is then `not_finite`. The block `stress` is left out where there is none.
        """
        from ase.data import chemical_symbols

        overall = _new_sums()
        for sums in self._groups.values():
            for quantity, total in overall.items():
                total.merge(sums[quantity])
        is_finite = not any(total.n_not_finite for total in overall.values())
        return {
            'n_frames': self._n_frames,
            'n_atoms': self._n_atoms,
            'state': 'finite' if is_finite else 'not_finite',
            **_blocks(overall),
            'per_element': {
                chemical_symbols[number]: _blocks({'forces': self._elements[number]})
                for number in sorted(self._elements)
            },
            'per_group': {name: _blocks(self._groups[name]) for name in sorted(self._groups)},
            **({'per_head': {name: _blocks(self._heads[name]) for name in sorted(self._heads)}} if self._heads else {}),
        }


@dataclass(frozen=True)
class _Columns:
    """Frames with references and predictions: `sizes` (n_frames,), the others in pairs of reference and prediction."""

    sizes: NDArray[Any]
    energies: tuple[NDArray[np.float64], NDArray[np.float64]]
    forces: tuple[NDArray[Any], NDArray[Any]]
    has_stress: NDArray[np.bool_]
    stresses: tuple[NDArray[np.float64], NDArray[np.float64]]


def _add_by(sums_of: dict[str, dict[str, ErrorSum]], categories: Sequence[str], columns: _Columns) -> None:
    """Add frames to the sums of the category that each belongs to."""
    names, codes = np.unique(np.asarray(categories, dtype=np.str_), return_inverse=True)
    atoms_of = dict(_by_value(np.repeat(codes, columns.sizes)))
    for code, frames in _by_value(codes):
        sums = sums_of.setdefault(str(names[code]).replace('.', '_'), _new_sums())
        sizes = columns.sizes[frames]
        sums['energy_per_atom'].add(*(energy[frames] / sizes for energy in columns.energies))
        sums['forces'].add(*(forces[atoms_of[code]] for forces in columns.forces))
        frames = frames[columns.has_stress[frames]]
        if len(frames):
            sums['stress'].add(*(stress[frames] for stress in columns.stresses))


def flat_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the metrics as rows of text under `COLUMNS`, in meV rather than eV.

    :param metrics: what `MetricsAccumulator.metrics` returned.
    """
    scopes = [('all', metrics)]
    scopes += [(f'element {symbol}', blocks) for symbol, blocks in metrics['per_element'].items()]
    scopes += [(f'group {name}', blocks) for name, blocks in metrics['per_group'].items()]
    heads = metrics.get('per_head', {})
    scopes += [(f'head {name}', blocks) for name, blocks in heads.items() if len(heads) > 1]
    return [_row(scope, key, blocks[key]) for scope, blocks in scopes for key in UNITS if key in blocks]


def _row(scope: str, quantity: str, block: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one line of the table."""
    unit = 'm' + block['unit']
    name = quantity.replace('_', ' ')
    if 'n_not_finite' in block:
        return (scope, name, str(block['n']), f'{block["n_not_finite"]} not finite', '–', unit, '–')
    if 'mae' not in block:
        return (scope, name, str(block['n']), '–', '–', unit, '–')
    r2 = f'{block["r2"]:.4f}' if 'r2' in block else '–'
    return (scope, name, str(block['n']), f'{1e3 * block["mae"]:.4g}', f'{1e3 * block["rmse"]:.4g}', unit, r2)


def _sums_of(reference: NDArray[np.float64], prediction: NDArray[np.float64]) -> ErrorSum:
    """Return the sums over two finite arrays (n,) with at least one component."""
    error = prediction - reference
    absolute = np.abs(error)
    sums = ErrorSum()
    sums.n = int(error.size)
    sums.sum_error = float(error.sum())
    sums.sum_absolute = float(absolute.sum())
    sums.sum_squared = float(np.dot(error, error))
    sums.largest = float(absolute.max())
    sums.lowest, sums.highest = float(reference.min()), float(reference.max())
    # From the first value on, the mean of a large offset is as precise as the values themselves.
    sums.mean = float(reference[0] + np.mean(reference - reference[0]))
    deviation = reference - sums.mean
    # The second term takes out what rounding the mean put in.
    sums.spread = max(0.0, float(np.dot(deviation, deviation) - deviation.sum() ** 2 / error.size))
    return sums


def _by_value(values: NDArray[Any]) -> Iterator[tuple[Any, NDArray[np.int64]]]:
    """Yield each distinct value with the indices where it stands, in one sort however many there are."""
    order = np.argsort(values, kind='stable')
    distinct, first = np.unique(values[order], return_index=True)
    yield from zip(distinct, np.split(order, first[1:]), strict=True) if len(values) else ()


def _stresses(
    reference: ArrayLike | None, prediction: ArrayLike | None, n_frames: int
) -> tuple[NDArray[np.bool_], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return which frames have a stress (n_frames,), and both stresses (n_frames, 6) in eV/Å³."""
    if reference is None or prediction is None:
        empty = np.full((n_frames, 6), np.nan)
        return np.zeros(n_frames, dtype=bool), (empty, empty)
    pair = (np.asarray(reference, dtype=np.float64), np.asarray(prediction, dtype=np.float64))
    for stress in pair:
        if stress.shape != (n_frames, 6):
            raise ValueError(f'a stress has shape {stress.shape} but {n_frames} frames need {(n_frames, 6)}.')
    return ~np.isnan(pair[0]).all(axis=1), pair


def _check_layout(
    numbers: NDArray[Any],
    offsets: NDArray[Any],
    n_groups: int,
    energies: tuple[NDArray[Any], NDArray[Any]],
    forces: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    """Refuse arrays that do not belong together."""
    n_frames, n_atoms = len(offsets) - 1, len(numbers)
    if n_frames < 0 or offsets[0] != 0 or offsets[-1] != n_atoms or np.any(np.diff(offsets) < 1):
        raise ValueError(f'the offsets do not cut {n_atoms} atoms into frames of at least one atom.')
    if n_groups != n_frames:
        raise ValueError(f'there are {n_groups} groups for {n_frames} frames.')
    for name, pair, shape in (('energies', energies, (n_frames,)), ('forces', forces, (n_atoms, 3))):
        for array in pair:
            if array.shape != shape:
                raise ValueError(f'the {name} have shape {array.shape} but need {shape}.')


def _new_sums() -> dict[str, ErrorSum]:
    """Return an empty sum for each quantity."""
    return {quantity: ErrorSum() for quantity in UNITS}


def _blocks(sums: Mapping[str, ErrorSum]) -> dict[str, Any]:
    """Return the errors of each quantity, without the stress where there is none."""
    return {
        quantity: _block(total, UNITS[quantity])
        for quantity, total in sums.items()
        if quantity != 'stress' or total.n or total.n_not_finite
    }


def _block(total: ErrorSum, unit: str) -> dict[str, Any]:
    """Return one block of the metrics."""
    if total.n_not_finite:
        return {'n': total.n + total.n_not_finite, 'n_not_finite': total.n_not_finite, 'unit': unit}
    return total.errors(unit).to_dict() if total.n else {'n': 0, 'unit': unit}
