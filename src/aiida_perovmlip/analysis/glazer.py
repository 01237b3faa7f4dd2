"""Tilt systems in the notation of Glazer, window by window along a trajectory.

What counts of the rotation of layers is what lasts: the product of their means over a window with those over the
window before or after, whichever is alike. Slow motion is not frozen in within one window either, but its means differ
from one to the next. An axis is tilted where twice as much lasts as fluctuates within the window, which is the thermal
floor, and more than a smallest tilt that is worth a name. How the layers follow each other says which tilt it is: the
Fourier components along the axis hold M at q = 0 and R at q = ½; the rest is mixed, as in a stacking ++--, which has
neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_perovmlip.analysis.tilts import TiltSeries

Array = NDArray[np.float64]

SMALLEST = 0.1
"""Smallest tilt that gets a name, in Å per halide: an angle of 2.7° where neighbouring metals are 6.3 Å apart."""

THERMAL = 2.0
"""How many times the standard deviation of the layers within a window has to last: layers of a small cubic cell take
several picoseconds to turn round, which may be longer than a window."""

PURITY = 0.75
"""Share of M or of R from which on a tilt is the one or the other, and below which it is mixed."""

N_PARTS = 8
"""Parts of a window that are drawn from again and again to tell how sure its label is."""

MIXED = 'mixed'

NAMES = {
    '000': 'a0a0a0',
    '00+': 'a0a0c+',
    '00-': 'a0a0c-',
    '0++': 'a0b+b+',
    '0--': 'a0b-b-',
    '0+-': 'a0b+c-',
    '+++': 'a+a+a+',
    '++-': 'a+a+c-',
    '+--': 'a-a-c+',
    '---': 'a-a-a-',
}
"""Names by the tilts about the three axes, sorted; whether two angles are equal is not asked."""


@dataclass(frozen=True)
class Window:
    """What the octahedra of a perovskite do for a while. Amplitudes are in Å per halide, one for each axis.

    :param start: in ps.
    :param stop: in ps.
    :param label: one of `NAMES`, or `mixed`.
    :param confidence: in how many of the draws from the parts of the window the label is the same; None where there
        are no parts to draw from.
    :param pattern: a character for each axis: `0` no tilt, `+` in phase, `-` out of phase, `m` mixed layers, `d`
        domains that cancel in each layer.
    :param m: mean of the signed amplitude of M over the cell and the window.
    :param r: the same of R.
    :param m_absolute: mean of the absolute value at each moment, which is above zero in a cubic crystal too.
    :param r_absolute: the same of R.
    :param m_layers: root mean square of what lasts in the half sums of neighbouring layers: the activation of M, also
        where layers of M and R lie upon each other.
    :param r_layers: the same of the half differences; the squares of both add up to that of `tilt`.
    :param tilt: root mean square of what lasts in the layers; 0 where the windows before and after are not alike.
    :param floor: what `tilt` has to exceed.
    :param shares: of M, R and the rest in the square of `tilt`, for each axis.
    :param local: root mean square over the octahedra of what lasts in each.
    :param lengths: pseudo-cubic lattice constants in Å.
    :param lengths_error: standard error of each, from the parts of the window; None where there is one part.
    :param angles: of the cell in degrees.
    :param n_away: the most halides off their sites in a frame.
    """

    start: float
    stop: float
    n_frames: int
    label: str
    confidence: float | None
    pattern: str
    m: tuple[float, ...]
    r: tuple[float, ...]
    m_absolute: tuple[float, ...]
    r_absolute: tuple[float, ...]
    m_layers: tuple[float, ...]
    r_layers: tuple[float, ...]
    tilt: tuple[float, ...]
    floor: tuple[float, ...]
    shares: tuple[tuple[float, ...], ...]
    local: tuple[float, ...]
    lengths: tuple[float, ...]
    lengths_error: tuple[float, ...] | None
    angles: tuple[float, ...]
    n_away: int

    @property
    def activation(self) -> float | None:
        """Return the share of M in the sum of M and R about the axis that is tilted the most; None without a tilt."""
        axis = int(np.argmax(self.tilt))
        total = self.m_layers[axis] + self.r_layers[axis]
        return self.m_layers[axis] / total if total > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**vars(self), 'shares': [list(each) for each in self.shares], 'activation': self.activation}


def label_windows(
    series: TiltSeries,
    smallest: float = SMALLEST,
    purity: float = PURITY,
    n_draws: int = 200,
    seed: int = 0,
) -> tuple[Window, ...]:
    """Return what each window of a series is.

    :param smallest: smallest tilt that gets a name, in Å per halide.
    :param purity: share of M or R from which on a tilt is not mixed.
    :param n_draws: number of draws that the confidence is counted from.
    :param seed: of these draws.
    """
    if not 0.5 < purity <= 1 or not smallest >= 0:
        raise ValueError(
            f'the purity is {purity} and the smallest tilt {smallest} Å: these are above ½, and not negative.'
        )
    frames = {number: _frames_of(series, number) for number in range(len(series.frozen))}
    windows = [_Window(series, number, own, smallest, purity) for number, own in frames.items() if own.any()]
    found = []
    for place, window in enumerate(windows):
        neighbours = [windows[other] for other in (place - 1, place + 1) if 0 <= other < len(windows)]
        found.append(window.told(neighbours, np.random.default_rng([seed, window.number]), n_draws))
    return tuple(found)


def name_of(pattern: str) -> str:
    """Return the name of a tilt system from a character for each axis: `0`, `+`, `-`, or others for what is mixed."""
    return NAMES.get(''.join(sorted(pattern, key='0+-'.find)), MIXED)


def spectrum_of(one: Array, two: Array) -> Array:
    """Return the products of the Fourier components of layers (…, n_layers); their sum is the mean product.

    :param one: (…, n_layers) signed amplitudes.
    :param two: the same at another time, or the same ones.
    """
    products = np.fft.fft(one) * np.conj(np.fft.fft(two))
    return np.asarray(np.real(products) / np.shape(one)[-1] ** 2)


def shares_of(spectrum: Array) -> Array:
    """Return the shares (…, 3) of M, R and the rest in a spectrum; zeros where nothing lasts.

    Components that do not last may be negative; they count as nothing.

    :param spectrum: (…, n_layers) as `spectrum_of` returns it, n_layers even.
    """
    positive = np.clip(spectrum, 0.0, None)
    total = positive.sum(axis=-1)
    safe = np.where(total > 0, total, 1.0)
    m, r = positive[..., 0] / safe, positive[..., positive.shape[-1] // 2] / safe
    return np.stack([m, r, np.clip(np.where(total > 0, 1.0, 0.0) - m - r, 0.0, None)], axis=-1)


def activations(spectrum: Array) -> tuple[float, float]:
    """Return the root mean square of half sums and of half differences of neighbouring layers.

    A wave along the axis has cos² πq of its square in the half sums.

    :param spectrum: (n_layers,) as `spectrum_of` returns it.
    """
    phases = np.pi * np.fft.fftfreq(len(spectrum))
    return _root(float(np.sum(spectrum * np.cos(phases) ** 2))), _root(float(np.sum(spectrum * np.sin(phases) ** 2)))


def _frames_of(series: TiltSeries, number: int) -> NDArray[np.bool_]:
    """Return which frames (F,) lie in a window; the last window holds its end."""
    start, stop = series.edges[number], series.edges[number + 1]
    # Edges are sums of windows; a frame that is meant to lie on one may be less by a rounding error.
    tiny = 1e-9 * max(series.window or 0.0, abs(stop))
    before = series.times < stop - tiny
    if number == len(series.frozen) - 1:
        before = np.ones_like(before)
    return np.asarray((series.times >= start - tiny) & before)


class _Window:
    """The frames of one window, and the pattern of any choice of its parts."""

    def __init__(
        self, series: TiltSeries, number: int, frames: NDArray[np.bool_], smallest: float, purity: float
    ) -> None:
        self.series, self.number, self.frames, self.purity = series, number, frames, purity
        self.layers = [values[frames] for values in series.layers]
        spreads = [THERMAL * float(np.sqrt(values.var(axis=0).mean())) for values in self.layers]
        self.floor = np.array([max(smallest, spread) for spread in spreads])
        self.n_frames = int(frames.sum())
        self.parts = np.array_split(np.arange(self.n_frames), min(N_PARTS, self.n_frames))
        self.means = [np.array([values[part].mean(axis=0) for part in self.parts]) for values in self.layers]
        self.local = series.frozen[number]
        # What is frozen in the octahedra, most of it not in the layers, counts by the same rule: more than fluctuates.
        fluctuating = np.sqrt(np.clip((series.local[frames] ** 2).mean(axis=0) - self.local**2, 0.0, None))
        self.domains = (self.n_frames > 1) & (self.local > np.maximum(smallest, fluctuating))

    def told(self, neighbours: Sequence[_Window], rng: np.random.Generator, n_draws: int) -> Window:
        """Return all that is known of the window.

        :param neighbours: the windows before and after.
        """
        drawn = self._lasting(neighbours)
        spectra, (pattern,) = [each[0] for each in drawn], self._patterns(drawn)
        both = np.array([activations(each) for each in spectra])
        series, frames = self.series, self.frames
        return Window(
            start=float(series.edges[self.number]),
            stop=float(series.edges[self.number + 1]),
            n_frames=self.n_frames,
            label=name_of(pattern),
            confidence=self._confidence(name_of(pattern), neighbours, rng, n_draws),
            pattern=pattern,
            m=_floats(series.m[frames].mean(axis=0)),
            r=_floats(series.r[frames].mean(axis=0)),
            m_absolute=_floats(np.abs(series.m[frames]).mean(axis=0)),
            r_absolute=_floats(np.abs(series.r[frames]).mean(axis=0)),
            m_layers=_floats(both[:, 0]),
            r_layers=_floats(both[:, 1]),
            tilt=_floats([_root(float(each.sum())) for each in spectra]),
            floor=_floats(self.floor),
            shares=tuple(_floats(shares_of(each)) for each in spectra),
            local=_floats(self.local),
            lengths=_floats(series.lengths[frames].mean(axis=0)),
            lengths_error=self._lengths_error(),
            angles=_floats(series.angles[frames].mean(axis=0)),
            n_away=int(series.n_away[frames].max()),
        )

    def _lasting(
        self, neighbours: Sequence[_Window], rng: np.random.Generator | None = None, n_draws: int = 1
    ) -> list[Array]:
        """Return, for each axis, the spectrum (n_draws, n_layers) of what this window shares with one beside it.

        Of two neighbours that which is more alike is taken, as at a transition the other one is of another phase. In a
        window that is alone, every second part stands for a neighbour, and a single frame is all that there is.

        :param rng: draws parts anew; None takes all of them as they are.
        """
        if neighbours:
            own = self._means(slice(None), rng, n_draws)
            others = [each._means(slice(None), rng, n_draws) for each in neighbours]
        elif len(self.parts) > 1:
            own = self._means(slice(0, None, 2), rng, n_draws)
            others = [self._means(slice(1, None, 2), rng, n_draws)]
        else:
            own = self._means(slice(None), rng, n_draws)
            others = [own]
        found = []
        for axis in range(3):
            spectra = np.array([spectrum_of(own[axis], other[axis]) for other in others])
            best = spectra.sum(axis=2).argmax(axis=0)
            found.append(spectra[best, np.arange(spectra.shape[1])])
        return found

    def _means(self, which: slice, rng: np.random.Generator | None, n_draws: int) -> list[Array]:
        """Return, for each axis, the mean of the layers (n_draws, n_layers) over some parts, or over draws of these."""
        parts = np.arange(len(self.parts))[which]
        rows = parts[None] if rng is None else rng.choice(parts, size=(n_draws, len(parts)))
        return [values[rows].mean(axis=1) for values in self.means]

    def _patterns(self, spectra: Sequence[Array]) -> list[str]:
        """Return the pattern of each draw."""
        signs = []
        for axis, each in enumerate(spectra):
            shares, tilts = shares_of(each), np.sqrt(np.clip(each.sum(axis=1), 0.0, None))
            kinds = np.where(shares[:, 0] >= self.purity, '+', np.where(shares[:, 1] >= self.purity, '-', 'm'))
            hidden = self.domains[axis] & (2 * tilts**2 < self.local[axis] ** 2)
            signs.append(np.where(tilts > self.floor[axis], kinds, np.where(hidden, 'd', '0')))
        return [''.join(each) for each in zip(*signs, strict=True)]

    def _confidence(
        self, label: str, neighbours: Sequence[_Window], rng: np.random.Generator, n_draws: int
    ) -> float | None:
        """Return how often parts that are drawn at random, as many as there are, give the same label."""
        if len(self.parts) < 2:
            return None
        labels = [name_of(pattern) for pattern in self._patterns(self._lasting(neighbours, rng, n_draws))]
        return labels.count(label) / n_draws

    def _lengths_error(self) -> tuple[float, ...] | None:
        count = len(self.parts)
        if count < 2:
            return None
        lengths = self.series.lengths[self.frames]
        means = np.array([lengths[part].mean(axis=0) for part in self.parts])
        return _floats(means.std(axis=0, ddof=1) / np.sqrt(count))


def _root(square: float) -> float:
    """Return the root of a mean product; 0 where nothing lasts, so that it is below zero."""
    return float(np.sqrt(max(square, 0.0)))


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
