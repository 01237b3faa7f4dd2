"""Lattice constants of runs, and structures that have them, with provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from aiida import orm
from ase.data import atomic_numbers

from aiida_perovmlip.analysis.lattice import LEFT_OUT, Lattice, fit_expansion, lattice_of
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.trajectory import TrajectoryData


@recorded
def measure_lattice(trajectory: TrajectoryData, settings: orm.Dict) -> orm.Dict:
    """Return the pseudo-cubic lattice constants of a run at constant pressure.

    :param settings: `temperature` in K; `repeat`, how many pseudo-cubic cells lie along each vector, or `host`, the
        element of the metals, one in each cell, to find that by; `left_out`, the part of the run to leave out.
    """
    told = settings.get_dict()
    run = trajectory.trajectory
    repeat = told.get('repeat') or repeat_of(run.atoms.numbers, run.cells()[0], told['host'])
    times = run.times(run.steps())
    found = lattice_of(times, run.cells(), repeat, told['temperature'], told.get('left_out', LEFT_OUT))
    return orm.Dict({**found.numbers(), 'repeat': [int(count) for count in repeat]})


@recorded
def fit_lattice(settings: orm.Dict, **points: orm.Dict) -> orm.Dict:
    """Return lattice constants in Å at temperatures, from a line through those of runs, or from given ones.

    :param settings: `temperatures` in K; `given`, lattice constants by temperature as text, where there are no runs.
    :param points: what `measure_lattice` returned.
    """
    told = settings.get_dict()
    if not points:
        given = {float(kelvin): float(constant) for kelvin, constant in told['given'].items()}
        missing = [kelvin for kelvin in told['temperatures'] if kelvin not in given]
        if missing:
            raise ValueError(f'no lattice constant is given at {", ".join(f"{kelvin:g}" for kelvin in missing)} K.')
        rows = [{'temperature': kelvin, 'constant': given[kelvin]} for kelvin in told['temperatures']]
        return orm.Dict({'constants': rows, 'points': [], 'line': None})
    lattices = [_lattice(point.get_dict()) for point in points.values()]
    line = fit_expansion(lattices)
    rows = [
        {'temperature': kelvin, **dict(zip(('constant', 'error'), line.at(kelvin), strict=True)),
         'is_extrapolated': line.is_extrapolated(kelvin)}
        for kelvin in told['temperatures']
    ]  # fmt: skip
    found = {'constants': rows, 'points': [lattice.numbers() for lattice in lattices], 'line': line.numbers()}
    return orm.Dict(found)


@recorded
def scale_cell(start: DatasetData, lattice: orm.Dict, settings: orm.Dict) -> DatasetData:
    """Return a structure whose cell has the volume that the lattice constant at a temperature makes.

    :param start: one frame.
    :param lattice: what `fit_lattice` returned.
    :param settings: `temperature` in K, and `repeat` or `host` as for `measure_lattice`.
    """
    told = settings.get_dict()
    frame = start.frames[0]
    repeat = told.get('repeat') or repeat_of(frame.numbers, frame.cell, told['host'])
    constant = next(row['constant'] for row in lattice['constants'] if row['temperature'] == told['temperature'])
    return DatasetData.from_frames([scaled(frame, repeat, constant)])


def repeat_of(numbers: Array, cell: Array, host: str) -> tuple[int, int, int]:
    """Return how many pseudo-cubic cells with one host atom each lie along the vectors of a cell.

    :param numbers: (N,) atomic numbers.
    :param cell: (3, 3) in Å.
    """
    count = int((numbers == atomic_numbers[host]).sum())
    lengths = np.linalg.norm(cell, axis=1)
    repeat = np.round(lengths * np.cbrt(count / max(abs(float(np.linalg.det(cell))), 1e-9))).astype(int)
    if count == 0 or int(repeat.prod()) != count:
        raise ValueError(
            f'a cell of {", ".join(f"{length:.2f}" for length in lengths)} Å with {count} {host} is not made of cubic '
            'cells with one each; say by `repeat` how many lie along each vector.'
        )
    return int(repeat[0]), int(repeat[1]), int(repeat[2])


def scaled(frame: Frame, repeat: Iterable[int], constant: float) -> Frame:
    """Return a frame whose volume is that of cubic cells of a lattice constant in Å; its shape and places stay."""
    volume = float(np.prod(list(repeat))) * constant**3
    factor = np.cbrt(volume / abs(float(np.linalg.det(frame.cell))))
    return Frame(
        frame.numbers,
        frame.positions * factor,
        frame.cell * factor,
        frame.pbc,
        charge=frame.charge,
        spin=frame.spin,
        group=frame.group,
    )


def _lattice(point: Mapping[str, Any]) -> Lattice:
    """Return lattice constants from what is stored of them."""
    known: dict[str, Any] = {name: value for name, value in point.items() if name != 'repeat'}
    return Lattice(**{**known, **{name: tuple(known[name]) for name in ('axes', 'axes_errors')}})
