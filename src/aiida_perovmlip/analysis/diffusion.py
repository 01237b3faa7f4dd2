"""Coefficients of diffusion from mean square displacements, with the window they were fitted in and their error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aiida_perovmlip.analysis.displacement import Kind, Msd

Array = NDArray[Any]

CM2_PER_S = 1e-4
"""cm²/s in one Å²/ps."""

DIMENSIONS = 3

STRETCHES: dict[Kind, int] = {'sum': 5, 'tracer': 5, 'collective': 10}
"""How often the longest time of the window fits into the run: beyond that an average is one over few cases.

Sums over many particles are averages over all that hops; a collective displacement is one walk.
"""

TOLERANCE = 0.1
"""By how much of itself a slope may change inside the window."""

N_ERRORS = 2.0
"""By how many of its standard errors a slope may change inside the window."""

CONDITION = 1e4
"""Up to which ratio of its eigenvalues the covariance of displacements is believed, in the Bayesian check.

It is that of a walk without vibrations. With these its small eigenvalues are noise, and at kinisi's own limit of 1e16
the posterior has no end: coefficients of 1e29 cm²/s were seen.
"""

RULE = (
    f'ends at 1/{STRETCHES["sum"]} of the run (1/{STRETCHES["collective"]} for a collective displacement); begins '
    'where the slope from t to 2t first agrees with that from 2t to the end, within '
    f'{TOLERANCE:.0%} or {N_ERRORS:g} standard errors, and does so at the next t too'
)
"""How a window is chosen, in words."""


@dataclass(frozen=True)
class Window:
    """The times between which displacements grow by diffusion.

    :param begin: in ps; before it atoms swing about their places.
    :param end: in ps; after it too few stretches of the run are averaged.
    :param is_settled: whether the slope is one from begin to end. Where it is not, the run is too short.
    :param is_chosen: whether `RULE` chose it; else somebody did.
    """

    begin: float
    end: float
    is_settled: bool = True
    is_chosen: bool = False


@dataclass(frozen=True)
class Diffusion:
    """A coefficient of diffusion.

    :param coefficient: in cm²/s; the mean over the runs.
    :param error: its standard error in cm²/s; None where nothing tells.
    :param error_of: from what: `runs` that are independent, or the parts (`blocks`) of a single one.
    :param block_error: in cm²/s, what the parts of all runs tell: beside `error`, which for few runs is itself
        uncertain.
    :param coefficients: of each run, in cm²/s.
    :param intercepts: of each run, in Å²: the displacement of what only swings.
    :param n_particles: over which a `sum` runs.
    :param duration: of all runs together, in ps.
    """

    kind: Kind
    coefficient: float
    error: float | None
    error_of: Literal['runs', 'blocks']
    block_error: float
    coefficients: tuple[float, ...]
    intercepts: tuple[float, ...]
    window: Window
    n_runs: int
    n_particles: int
    duration: float
    n_host: int
    is_cell_fixed: bool

    def numbers(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Posterior:
    """What Bayesian regression tells of a coefficient of diffusion.

    :param coefficient: median of the posterior in cm²/s.
    :param error: its standard deviation in cm²/s.
    :param interval: which holds the coefficient with a probability of 95 %, in cm²/s.
    """

    coefficient: float
    error: float
    interval: tuple[float, float]
    samples: Array = field(repr=False)


def diffusion_of(runs: Sequence[Msd], window: Window | None = None) -> Diffusion:
    """Return the coefficient of diffusion of some runs that differ by chance alone.

    A straight line with a free intercept is fitted to each run; the intercept holds the vibrations, which would
    else be taken for diffusion.

    :param runs: displacements of one kind, of equal particles.
    :param window: the times to fit between; None to choose them by `RULE`, the same for all runs.
    """
    _refuse_unlike(runs)
    chosen = window if window is not None else choose_window(runs)
    lines = [fit_line(run.lags, run.values, chosen) for run in runs]
    slopes, intercepts = np.array(lines).T
    coefficients = slopes * CM2_PER_S / (2 * DIMENSIONS)
    blocks = np.array([block_error_of(run, chosen) for run in runs])
    block_error = float(np.sqrt(np.mean(blocks**2) / len(runs)))
    several = len(runs) > 1
    spread = float(coefficients.std(ddof=1) / np.sqrt(len(runs))) if several else block_error
    return Diffusion(
        kind=runs[0].kind,
        coefficient=float(coefficients.mean()),
        error=spread,
        error_of='runs' if several else 'blocks',
        block_error=block_error,
        coefficients=tuple(map(float, coefficients)),
        intercepts=tuple(map(float, intercepts)),
        window=chosen,
        n_runs=len(runs),
        n_particles=runs[0].n_particles,
        duration=float(sum(run.duration for run in runs)),
        n_host=runs[0].n_host,
        is_cell_fixed=all(run.is_cell_fixed for run in runs),
    )


def choose_window(runs: Sequence[Msd]) -> Window:
    """Return the window of runs by `RULE`.

    Where the slope settles nowhere, the last third of what the statistics allow is taken, and said not to be settled.
    """
    stretches, n_frames = STRETCHES[runs[0].kind], min(run.n_frames for run in runs)
    lags, mean, parts = _curves(runs)
    last = min(n_frames // stretches, len(lags) - 1)
    if last < 3:
        raise ValueError(f'a run has {n_frames} frames; {3 * stretches} are the least for a window.')
    places = [at for at in _grid(last) if 3 * at <= last]
    agrees = [_agrees(lags, mean, parts, at, last) for at in places]
    for at, now, later in zip(places, agrees, [*agrees[1:], True], strict=True):
        if now and later:
            return Window(float(lags[at]), float(lags[last]), is_settled=True, is_chosen=True)
    return Window(float(lags[max(1, 2 * last // 3)]), float(lags[last]), is_settled=False, is_chosen=True)


def fit_line(lags: Array, values: Array, window: Window) -> tuple[float, float]:
    """Return slope in Å²/ps and intercept in Å² of a straight line in a window.

    :param lags: (L,) in ps.
    :param values: (L,) in Å².
    """
    slack = 1e-6 * (lags[1] - lags[0])
    inside = (lags >= window.begin - slack) & (lags <= window.end + slack)
    if inside.sum() < 2:
        raise ValueError(
            f'{inside.sum()} times lie between {window.begin:g} and {window.end:g} ps; displacements are known up to '
            f'{lags[-1]:g} ps, every {lags[1] - lags[0]:g} ps.'
        )
    slope, intercept = np.polyfit(lags[inside], values[inside], 1)
    return float(slope), float(intercept)


def block_error_of(run: Msd, window: Window) -> float:
    """Return the standard error in cm²/s of the coefficient of one run, from parts that follow each other.

    Of a window that is longer than the parts see, what they see of it is fitted.
    """
    lags = run.lags[: run.parts.shape[1]]
    seen = Window(min(window.begin, float(lags[max(0, len(lags) - 2)])), min(window.end, float(lags[-1])))
    slopes = [fit_line(lags, part, seen)[0] for part in run.parts]
    return float(np.std(slopes, ddof=1) / np.sqrt(len(slopes)) * CM2_PER_S / (2 * DIMENSIONS))


def posterior_of(tracks: Array, interval: float, begin: float, seed: int = 0, n_lags: int = 60) -> Posterior:
    """Return what Bayesian regression by `kinisi` tells of the `sum` coefficient, to check the fit by other means.

    It knows that displacements over different times are correlated, which least squares do not.

    :param tracks: (n, 3, F) in Å, of the particles, drift removed, as `tracks_of` gives them.
    :param interval: time between two frames in ps.
    :param begin: of the window, in ps.
    :param n_lags: at how many times the displacement is looked at.
    """
    analyze, scipp = _kinisi()
    from ase import Atoms

    places = np.asarray(tracks, dtype=float).transpose(2, 0, 1)
    side = 4 * (np.ptp(places, axis=(0, 1)) + 10.0)  # so large that nothing leaves the cell
    middle = side / 2 - places.mean(axis=(0, 1))
    numbers = np.zeros(len(tracks), dtype=int)
    frames = [Atoms(numbers, positions=frame + middle, cell=side, pbc=True) for frame in places]
    first, most = max(1, round(begin / interval)), (len(places) - 1) // 2
    steps = np.unique(np.linspace(first, most, n_lags).round().astype(int))
    found = analyze.DiffusionAnalyzer.from_ase(
        frames,
        specie='X',
        time_step=scipp.scalar(interval, unit='ps'),
        step_skip=scipp.scalar(1),
        dt=scipp.array(dims=['time interval'], values=steps * interval, unit='ps'),
        progress=False,
    )
    state = np.random.RandomState(seed)  # what kinisi takes
    start = scipp.scalar(float(steps[0] * interval), unit='ps')
    found.diffusion(start, cond_max=CONDITION, progress=False, random_state=state)
    samples = len(tracks) * scipp.to_unit(found.D, 'cm^2/s').values
    low, high = np.percentile(samples, [2.5, 97.5])
    return Posterior(float(np.median(samples)), float(samples.std(ddof=1)), (float(low), float(high)), samples)


def _kinisi() -> tuple[Any, Any]:
    """Return the packages of the Bayesian check, or say how to get them."""
    try:
        analyze, scipp = import_module('kinisi.analyze'), import_module('scipp')
    except ImportError as error:
        raise ImportError(
            'the Bayesian check needs the package kinisi, which is not installed here; it asks for numpy 2: '
            '`pip install kinisi`.'
        ) from error
    return analyze, scipp


def _refuse_unlike(runs: Sequence[Msd]) -> None:
    """Refuse runs whose coefficients have no mean."""
    if not runs:
        raise ValueError('there is no run.')
    if len({(run.kind, run.n_particles) for run in runs}) > 1:
        raise ValueError('the runs are of different kinds of displacement, or of different particles.')


def _curves(runs: Sequence[Msd]) -> tuple[Array, Array, Array]:
    """Return times (L,) in ps that all runs have, their mean (L,) and that of all parts (n_parts, L') in Å²."""
    n_lags, n_parts = min(len(run.lags) for run in runs), min(run.parts.shape[1] for run in runs)
    lags = runs[0].lags[:n_lags]
    if any(not np.allclose(run.lags[:n_lags], lags) for run in runs):
        raise ValueError('the runs have frames at different times.')
    mean = np.mean([run.values[:n_lags] for run in runs], axis=0)
    return lags, mean, np.concatenate([run.parts[:, :n_parts] for run in runs])


def _grid(last: int) -> list[int]:
    """Return places between 1 and the last one, each a little further than the one before."""
    return [int(at) for at in np.unique(np.geomspace(1, last, 4 * max(1, int(np.log2(last)))).round().astype(int))]


def _agrees(lags: Array, mean: Array, parts: Array, at: int, last: int) -> bool:
    """Whether the slope from a time to twice that time is the slope after it, as far as can be seen."""
    before, after = _two_slopes(lags, mean[None], at, last)
    change, later = float((before - after)[0]), float(after[0])
    # The parts do not see the longest times; what they see last tells how uncertain a slope is.
    seen, error = parts.shape[1] - 1, 0.0
    if seen >= 3:
        early, late = _two_slopes(lags, parts, min(at, seen // 3), min(last, seen))
        error = float((early - late).std(ddof=1) / np.sqrt(len(parts)))
    return abs(change) <= max(TOLERANCE * abs(later), N_ERRORS * error)


def _two_slopes(lags: Array, curves: Array, at: int, last: int) -> tuple[Array, Array]:
    """Return the slopes of curves (n, L) from a time to twice that time, and from there to the last one."""
    early, late = slice(at, 2 * at + 1), slice(2 * at, last + 1)
    before, after = (np.polyfit(lags[part], curves[:, part].T, 1)[0] for part in (early, late))
    return before, after
