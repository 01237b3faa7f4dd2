"""From trajectories to tilts of octahedra, their labels and their motion, with provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from aiida import orm

from aiida_perovmlip.analysis.glazer import PURITY, SMALLEST, Window, label_windows
from aiida_perovmlip.analysis.oscillator import Oscillator, fit_oscillator
from aiida_perovmlip.analysis.tilts import Block, Octahedra, TiltSeries, octahedra_of, tilt_series
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.settings import option, read_settings
from aiida_perovmlip.compute.trajectory import Trajectory
from aiida_perovmlip.data.trajectory import TrajectoryData

MODES = ('m', 'r')


@dataclass(frozen=True)
class Tilting:
    """How a trajectory is cut into windows, and when a tilt gets a name."""

    window: float | None = option(None, 'Length of a window; None takes all as one.', unit='ps', minimum=1e-6)
    skip: float = option(0.0, 'What is left out at the beginning.', unit='ps', minimum=0.0)
    every: int = option(1, 'Take each such frame.', minimum=1)
    smallest: float = option(SMALLEST, 'Smallest tilt that gets a name.', unit='Å per halide', minimum=0.0)
    purity: float = option(PURITY, 'Share of M or R from which on a tilt is not mixed.', minimum=0.5, maximum=1.0)
    n_blocks: int = option(5, 'Blocks of a run that the errors of its modes are drawn from.', minimum=2)


@recorded
def measure_tilts(trajectory: TrajectoryData, settings: orm.Dict) -> dict[str, orm.Data]:
    """Follow the tilts of all octahedra through a trajectory, which is read chunk by chunk.

    :param settings: see :class:`Tilting`.

    Returns `tilts`, the arrays of `analysis.tilts.TiltSeries`, and `windows`: of each window the label with its
    confidence, amplitudes, lattice and temperature; see the topic on phases.
    """
    how: Tilting = read_settings(Tilting, settings.get_dict())
    run = trajectory.trajectory
    series = series_of(run, how)
    windows, thermometer = label_windows(series, how.smallest, how.purity), _Thermometer(run)
    told = {
        'windows': [{**each.to_dict(), **thermometer.in_window(each)} for each in windows],
        'repeat': list(series.repeat),
        'n_atoms': run.n_atoms,
        'n_frames': len(series.times),
        'n_away': int(series.n_away.max()),
        'settings': settings.get_dict(),
        'content_hash': trajectory.content_hash,
    }
    return {'tilts': orm.ArrayData(series.arrays()), 'windows': orm.Dict(told)}


@recorded
def measure_modes(trajectory: TrajectoryData, settings: orm.Dict) -> dict[str, orm.Data]:
    """Fit damped oscillators to the motion of M and R in a run at one temperature; the three axes count as equal.

    :param settings: see :class:`Tilting`; the whole run is one window.

    Returns `modes`, of `m` and `r` frequency, damping, kind and relaxation time, with label and temperature, and
    `correlations`: the lags in ps, the autocorrelation and the fit of each.
    """
    how: Tilting = read_settings(Tilting, {**settings.get_dict(), 'window': None})
    run = trajectory.trajectory
    series = series_of(run, how)
    steps = np.diff(series.times)
    if len(steps) < 2 or np.ptp(steps) > 1e-6 * steps.mean():
        raise ValueError('the frames do not follow each other at equal times, which an autocorrelation needs.')
    window = label_windows(series, how.smallest, how.purity)[0]
    fits = {name: fit_oscillator(getattr(series, name), float(steps.mean()), n_blocks=how.n_blocks) for name in MODES}
    told = {
        **{name: fit.numbers() for name, fit in fits.items()},
        'label': window.label,
        'confidence': window.confidence,
        **_Thermometer(run).in_window(window),
        'n_atoms': run.n_atoms,
        'n_frames': len(series.times),
        'length': float(series.times[-1] - series.times[0]),
        'settings': settings.get_dict(),
    }
    return {'modes': orm.Dict(told), 'correlations': orm.ArrayData(_correlations(fits))}


def series_of(run: Trajectory, how: Tilting) -> TiltSeries:
    """Return the tilts along a trajectory of which the halides alone are looked at."""
    octahedra = _octahedra(run, how.skip)
    return tilt_series(_blocks(run, octahedra, how), octahedra.of_halides_alone(), how.window)


def _octahedra(run: Trajectory, skip: float) -> Octahedra:
    """Return the sites, from the first frame: later ones are warmer, or have seen halides leave."""
    if not len(run):
        raise ValueError('the trajectory has no frames, only rows.')
    frame = run.frame(0)
    if run.times(run.steps())[-1] < skip:
        raise ValueError(f'the trajectory ends before the {skip:g} ps that are left out at its beginning.')
    return octahedra_of(frame.numbers, frame.positions, frame.cell)


def _blocks(run: Trajectory, octahedra: Octahedra, how: Tilting) -> Iterator[Block]:
    """Yield the frames behind what is skipped."""
    for times, positions, cells in run.blocks(how.every, octahedra.halides.ravel()):
        late = times >= how.skip - 1e-9
        if late.any():
            yield times[late], positions[late], cells[late]


class _Thermometer:
    """The temperatures of a run, read once."""

    def __init__(self, run: Trajectory) -> None:
        names = ('target_temperature', 'temperature')
        self.known = {name: run.thermo(name) for name in names if name in run.thermo_names}

    def in_window(self, window: Window) -> dict[str, float | None]:
        """Return the mean temperature in K that was asked for, and the one that there was; None where unknown."""
        measured, target = self._mean('temperature', window), self._mean('target_temperature', window)
        return {'temperature': measured if target is None else target, 'measured': measured}

    def _mean(self, name: str, window: Window) -> float | None:
        times, values = self.known.get(name, (np.zeros(0), np.zeros(0)))
        inside = (times >= window.start - 1e-9) & (times <= window.stop + 1e-9)
        return float(values[inside].mean()) if inside.any() else None


def _correlations(fits: dict[str, Oscillator]) -> dict[str, Array]:
    """Return the arrays of all fits, named `m__lags` and so on."""
    names = ('lags', 'correlation', 'fit')
    return {f'{mode}__{name}': getattr(fit, name) for mode, fit in fits.items() for name in names}
