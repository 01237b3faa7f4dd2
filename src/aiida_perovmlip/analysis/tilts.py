"""Tilts of the octahedra of a perovskite along a trajectory, as amplitudes of the modes M and R of the cubic crystal.

Each halide belongs to a site of an ideal a×b×c supercell of cubic cells. What counts is how far it is from there in
coordinates scaled with the cell of the same frame, so that homogeneous strain drops out, in runs at constant pressure
too; then drift is taken away, and only then is folded to the nearest image. Displacements are along the vectors of the
cell, so that a rotated cell gives the same.

An octahedron that turns about an axis moves its four halides around that axis by d. Neighbours across the axis turn
the other way; along the axis they turn the same way in the mode M and the other way in the mode R. Amplitudes are per
halide of the cell, of which two in three move: 2 d / 3, for any number of cells.

Everything is read once, block by block. A block is (times in ps (F,), positions in Å (F, N, 3), cells in Å (F, 3, 3)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Block = tuple[Array, Array, Array]

HALIDES = (9, 17, 35, 53)
METALS = (12, 20, 25, 26, 27, 28, 29, 30, 32, 38, 48, 50, 56, 70, 80, 82)
"""Elements of oxidation state 2 that sit in octahedra of halide perovskites; Cs and Rb never do."""

PER_HALIDE = 2 / 3
"""Halides that a tilt about an axis moves, among all halides."""

AWAY = 0.35
"""A halide that is farther from its site, in lattice constants, has left it: half the way to the next one."""

NUMBERS_AT_ONCE = 1_000_000
"""Coordinates of halides that are worked on together; some ten arrays of this size live at a time."""

_LOOSE = 0.25
"""Largest distance of a metal from its place in the grid, in lattice constants, and largest misfit of a repeat."""


@dataclass(frozen=True)
class Octahedra:
    """Which halide belongs to which site of an a×b×c supercell of cubic cells.

    :param repeat: number of cells along each vector of the cell, all even.
    :param halides: (n_cells, 3) index of the halide on the bond that leaves the metal of a cell along each vector; the
        last index of the cell runs fastest.
    :param sites: (n_cells, 3, 3) their ideal places in coordinates of the cell, but for a common shift.
    """

    repeat: tuple[int, int, int]
    halides: NDArray[np.int64] = field(repr=False)
    sites: Array = field(repr=False)

    @property
    def n_cells(self) -> int:
        """Return the number of octahedra."""
        return len(self.halides)

    def of_halides_alone(self) -> Octahedra:
        """Return the same for blocks that hold the atoms `halides.ravel()` alone, in this order."""
        return replace(self, halides=np.arange(self.halides.size).reshape(self.halides.shape))


@dataclass(frozen=True)
class TiltSeries:
    """Tilts along a trajectory; amplitudes are in Å per halide, axes are the vectors of the cell.

    :param repeat: number of cells along each axis.
    :param times: (F,) in ps.
    :param lengths: (F, 3) pseudo-cubic lattice constants in Å.
    :param angles: (F, 3) of the cell in degrees: between b and c, a and c, a and b.
    :param m: (F, 3) signed amplitude of M over the whole cell, for each axis of rotation.
    :param r: (F, 3) the same of R.
    :param local: (F, 3) root mean square over the octahedra of the rotation of each.
    :param local_m: (F, 3) the same of the half sum of each octahedron with the next along the axis.
    :param local_r: (F, 3) of their half difference; the squares of the two add up to that of `local`.
    :param layers: for each axis (F, repeat) the signed amplitude of each layer across it, in which neighbours turn
        against each other: equal in all layers in M, alternating in R, anything else is mixed.
    :param n_away: (F,) halides that have left their sites, whose tilts mean nothing.
    :param window: length in ps of the windows below; None where all is one window.
    :param edges: (W + 1,) ends of the windows in ps.
    :param frozen: (W, 3) root mean square over the octahedra of what a window shares with the one before or after, that
        which is more alike; of a window that is alone, what its halves share.
    :param frozen_m: (W, 3) the same of the half sums.
    :param frozen_r: (W, 3) of the half differences.
    """

    repeat: tuple[int, int, int]
    times: Array = field(repr=False)
    lengths: Array = field(repr=False)
    angles: Array = field(repr=False)
    m: Array = field(repr=False)
    r: Array = field(repr=False)
    local: Array = field(repr=False)
    local_m: Array = field(repr=False)
    local_r: Array = field(repr=False)
    layers: tuple[Array, Array, Array] = field(repr=False)
    n_away: NDArray[np.int64] = field(repr=False)
    window: float | None
    edges: Array = field(repr=False)
    frozen: Array = field(repr=False)
    frozen_m: Array = field(repr=False)
    frozen_r: Array = field(repr=False)

    def arrays(self) -> dict[str, Array]:
        """Return all arrays by name, those of the layers as `layers_1` to `layers_3`."""
        found = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return found | {f'layers_{axis}': values for axis, values in enumerate(self.layers, start=1)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], window: float | None) -> TiltSeries:
        """Return what `arrays` was called on."""
        layers = tuple(np.asarray(arrays[f'layers_{axis}']) for axis in (1, 2, 3))
        repeat = tuple(values.shape[1] for values in layers)
        others = {name: np.asarray(value) for name, value in arrays.items() if not name.startswith('layers_')}
        return cls(repeat=repeat, layers=layers, window=window, **others)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- which halide sits where


def octahedra_of(
    numbers: Sequence[int] | NDArray[Any],
    positions: Array,
    cell: Array,
    metals: Sequence[int] = METALS,
    halides: Sequence[int] = HALIDES,
) -> Octahedra:
    """Return which halide of a frame belongs to which site; molecules or ions on the A site do not matter.

    The frame may be strained, rotated, tilted, warm, drifted and wrapped, but its vectors have to be multiples of those
    of the cubic cell.

    :param numbers: (N,) atomic numbers.
    :param positions: (N, 3) in Å.
    :param cell: (3, 3) in Å.
    :param metals: atomic numbers on the B site.
    :param halides: atomic numbers on the X site.
    """
    kinds = np.asarray(numbers)
    on_b, on_x = np.flatnonzero(np.isin(kinds, metals)), np.flatnonzero(np.isin(kinds, halides))
    if not len(on_b) or len(on_x) != 3 * len(on_b):
        raise ValueError(
            f'there are {len(on_b)} metals and {len(on_x)} halides; a whole perovskite has three per metal.'
        )
    scaled = np.asarray(positions, dtype=float) @ np.linalg.inv(cell)
    repeat, shift = _repeat_of(scaled[on_b], np.asarray(cell, dtype=float))
    if any(count % 2 for count in repeat):
        raise ValueError(f'the cell is {_written(repeat)} cubic cells; M and R need an even number along each vector.')
    found = _on_sites(scaled[on_x] * repeat - shift, repeat)
    cells = np.array(list(np.ndindex(*repeat)), dtype=float)
    sites = (cells[:, None] + np.eye(3) / 2) / repeat
    return Octahedra(repeat, on_x[found], sites)


def _repeat_of(scaled: Array, cell: Array) -> tuple[tuple[int, int, int], Array]:
    """Return the number of cells along each vector, and where the grid of the metals starts, in cells."""
    count, sides = len(scaled), np.linalg.norm(cell, axis=1)
    constant = (abs(np.linalg.det(cell)) / count) ** (1 / 3)
    best: tuple[float, tuple[int, int, int], Array] | None = None
    for repeat in _factors(count):
        if np.any(np.abs(sides / np.array(repeat) / constant - 1) > _LOOSE):
            continue
        places = scaled * repeat
        shift = _circular_mean(places)
        misfit = places - shift - np.round(places - shift)
        worst = float(np.abs(misfit).max())
        cells = np.round(places - shift).astype(int) % repeat
        unique = len(np.unique(np.ravel_multi_index(tuple(cells.T), repeat))) == count
        if unique and worst < _LOOSE and (best is None or worst < best[0]):
            best = worst, repeat, shift
    if best is None:
        raise ValueError(
            f'the {count} metals do not form a grid along the vectors of the cell, which has the sides '
            f'{", ".join(f"{side:.2f}" for side in sides)} Å; give an a×b×c supercell of cubic cells, which may be '
            f'strained and rotated.'
        )
    return best[1], best[2]


def _factors(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield all ways to write a number as a product of three."""
    divisors = [number for number in range(1, count + 1) if count % number == 0]
    for first in divisors:
        for second in divisors:
            if (count // first) % second == 0:
                yield first, second, count // first // second


def _on_sites(places: Array, repeat: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return which halide (n_cells, 3) is on which site, from their places (n, 3) in cells."""
    offsets = places[:, None] - np.eye(3) / 2
    misfits = np.linalg.norm(offsets - np.round(offsets), axis=2)
    axes = misfits.argmin(axis=1)
    rows = np.arange(len(places))
    cells = np.round(offsets[rows, axes]).astype(int) % repeat
    sites = np.ravel_multi_index(tuple(cells.T), repeat) * 3 + axes
    if len(np.unique(sites)) < len(sites):
        shared = len(sites) - len(np.unique(sites))
        raise ValueError(
            f'{shared} halides share their site with another one, so that {shared} sites are empty: the first frame '
            'has to be a perovskite in which each halide is nearest to a site of its own.'
        )
    found = np.empty(len(sites), dtype=np.int64)
    found[sites] = rows
    return found.reshape(-1, 3)


def _circular_mean(values: Array) -> Array:
    """Return the mean over the first axis of numbers that are known up to whole numbers."""
    return np.asarray(np.angle(np.exp(2j * np.pi * values).mean(axis=0)) / (2 * np.pi))


def _written(repeat: Sequence[int]) -> str:
    return '×'.join(str(count) for count in repeat)


# ---------------------------------------------------------------------- amplitudes of frames


def displacements(octahedra: Octahedra, positions: Array, cells: Array) -> Array:
    """Return how far each halide is from its site along the vectors of the cell, (F, n_cells, 3 sites, 3) in Å.

    Strain and drift are taken away.

    :param positions: (F, N, 3) in Å, unwrapped or wrapped.
    :param cells: (F, 3, 3) in Å.
    """
    order = octahedra.halides.ravel()
    scaled = np.asarray(positions, dtype=float)[:, order] @ np.linalg.inv(cells)
    away = scaled - octahedra.sites.reshape(-1, 3)
    # Drift may be of any size and atoms may be wrapped, but two halides never come far apart. So what is folded is the
    # difference to one of them; what is folded with the drift in it would land on either side of the cell.
    away -= away[:, :1].copy()
    away -= np.round(away)
    away -= away.mean(axis=1, keepdims=True)
    away *= np.linalg.norm(cells, axis=2)[:, None]
    return np.asarray(away.reshape(len(positions), octahedra.n_cells, 3, 3))


def rotations(octahedra: Octahedra, moved: Array) -> Array:
    """Return the rotation of each octahedron about each axis, (F, a, b, c, 3): its displacement in Å per halide.

    The sign is turned in every second octahedron across the axis, so that it is the same in a whole layer of a tilt.

    :param moved: (F, n_cells, 3, 3) as `displacements` returns it.
    """
    repeat = octahedra.repeat
    shaped = moved.reshape(len(moved), *repeat, 3, 3)
    found = np.empty((len(moved), *repeat, 3))
    for axis in range(3):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        # Turning about z moves the halides at +x and -x to +y and -y, those at +y and -y to -x and +x.
        along, across = shaped[..., one, other], shaped[..., other, one]
        turn = along - np.roll(along, 1, axis=1 + one) - across + np.roll(across, 1, axis=1 + other)
        found[..., axis] = PER_HALIDE / 4 * turn * _alternating(repeat, (one, other))
    return found


def _alternating(repeat: Sequence[int], axes: Sequence[int]) -> Array:
    """Return (a, b, c) of 1 and -1, alternating along some axes."""
    index = np.indices(tuple(repeat))
    return np.asarray((-1.0) ** sum(index[axis] for axis in axes))


def angle_of(amplitude: Array | float, length: Array | float) -> Any:
    """Return the angle of a tilt in degrees.

    :param amplitude: in Å per halide.
    :param length: pseudo-cubic lattice constant across the axis in Å.
    """
    return np.degrees(np.arctan2(2 * np.abs(amplitude) / PER_HALIDE, length))


# ---------------------------------------------------------------------- a whole trajectory


def tilt_series(blocks: Iterable[Block], octahedra: Octahedra, window: float | None = None) -> TiltSeries:
    """Read a trajectory once and return its tilts; memory holds a block, a few numbers a frame and one window.

    :param blocks: in the order of time.
    :param window: length in ps of the windows over which it is asked what is frozen in; None for one window.
    """
    if window is not None and not window > 0:
        raise ValueError(f'the window is {window} ps but has to be positive.')
    parts: list[tuple[Any, ...]] = []
    windows = _Windows(window)
    last = -math.inf
    for times, positions, cells in _pieces(blocks, octahedra):
        if times[0] <= last or np.any(np.diff(times) <= 0):
            raise ValueError(f'the times do not grow after {last} ps; give the blocks in the order of time.')
        last = float(times[-1])
        moved = displacements(octahedra, positions, cells)
        turned = rotations(octahedra, moved)
        windows.add(times, turned)
        shape = _cell_parameters(cells, octahedra.repeat)
        parts.append((times, *shape, *_amplitudes(turned), _away(moved, octahedra, cells)))
    if not parts:
        raise ValueError('the trajectory has no frame.')
    columns = [np.concatenate(values) for values in zip(*parts, strict=True)]
    times, lengths, angles, m, r, local, local_m, local_r, *layers, away = columns
    edges, frozen = windows.end()
    return TiltSeries(
        repeat=octahedra.repeat,
        times=times,
        lengths=lengths,
        angles=angles,
        m=m,
        r=r,
        local=local,
        local_m=local_m,
        local_r=local_r,
        layers=(layers[0], layers[1], layers[2]),
        n_away=away,
        window=window,
        edges=edges,
        frozen=frozen[:, 0],
        frozen_m=frozen[:, 1],
        frozen_r=frozen[:, 2],
    )


def _pieces(blocks: Iterable[Block], octahedra: Octahedra) -> Iterator[Block]:
    """Yield blocks cut so small that what is worked out of them stays small."""
    rows = max(1, NUMBERS_AT_ONCE // (9 * octahedra.n_cells))
    highest = int(octahedra.halides.max())
    for times, positions, cells in blocks:
        if positions.ndim != 3 or positions.shape[1] <= highest:
            raise ValueError(f'the block has the shape {positions.shape}, but the halides go up to atom {highest}.')
        for start in range(0, len(times), rows):
            part = slice(start, start + rows)
            yield np.asarray(times[part], dtype=float), positions[part], np.asarray(cells[part], dtype=float)


def _cell_parameters(cells: Array, repeat: Sequence[int]) -> tuple[Array, Array]:
    """Return pseudo-cubic constants (F, 3) in Å and angles (F, 3) in degrees."""
    sides = np.linalg.norm(cells, axis=2)
    units = cells / sides[:, :, None]
    cosines = [np.sum(units[:, one] * units[:, other], axis=1) for one, other in ((1, 2), (0, 2), (0, 1))]
    return sides / np.asarray(repeat), np.degrees(np.arccos(np.clip(np.stack(cosines, axis=1), -1.0, 1.0)))


def _amplitudes(turned: Array) -> tuple[Array, ...]:
    """Return M, R, the three local ones and the layers of each axis."""
    layers = [turned[..., axis].mean(axis=tuple(1 + each for each in range(3) if each != axis)) for axis in range(3)]
    signs = [(-1.0) ** np.arange(values.shape[1]) for values in layers]
    m = np.stack([values.mean(axis=1) for values in layers], axis=1)
    r = np.stack([(values * sign).mean(axis=1) for values, sign in zip(layers, signs, strict=True)], axis=1)
    total, same, other = (_mean_squares(turned, turned, which) for which in (0, 1, -1))
    return m, r, np.sqrt(total), np.sqrt(same), np.sqrt(other), *layers


def _mean_squares(one: Array, two: Array, neighbour: int) -> Array:
    """Return the mean over octahedra (F, 3) of the product of two fields (F, a, b, c, 3).

    :param neighbour: 0 for the fields, 1 and -1 for half the sum or difference with the next octahedron on the axis.
    """
    found = np.empty((len(one), 3))
    for axis in range(3):
        first, second = one[..., axis], two[..., axis]
        if neighbour:
            first = (first + neighbour * np.roll(first, -1, axis=1 + axis)) / 2
            second = (second + neighbour * np.roll(second, -1, axis=1 + axis)) / 2
        found[:, axis] = np.mean(first * second, axis=(1, 2, 3))
    return found


def _away(moved: Array, octahedra: Octahedra, cells: Array) -> NDArray[np.int64]:
    """Return how many halides (F,) have left their sites."""
    constant = np.linalg.norm(cells, axis=2).mean(axis=1) / np.mean(octahedra.repeat)
    far = np.linalg.norm(moved, axis=3) > AWAY * constant[:, None, None]
    return np.asarray(far.sum(axis=(1, 2)), dtype=np.int64)


class _Windows:
    """What windows that follow each other share, octahedron by octahedron: a frozen tilt; motion differs in them.

    A window that stays alone is cut in the middle of its time. Where the end of the trajectory leaves less than half a
    window, that is counted to the window before, and asked for nothing frozen.
    """

    def __init__(self, window: float | None) -> None:
        self.window = window
        self.edges: list[float] = []
        self.found: list[Array] = []
        self.sums: list[Array | None] = [None, None]
        self.counts = [0, 0]
        self.before: Array | None = None
        self.last = 0.0

    def add(self, times: Array, turned: Array) -> None:
        """Take up frames; a window that they have left behind is worked out."""
        if not self.edges:
            self.edges.append(float(times[0]))
        for time, each in zip(times.tolist(), turned, strict=True):
            parts = 0.0 if self.window is None else (time - self.edges[-1]) / self.window + 1e-9
            if parts >= 1.0:
                self._close(self.edges[-1] + (self.window or 0.0) * math.floor(parts))
                parts -= math.floor(parts)
            half = int(parts >= 0.5)
            known = self.sums[half]
            self.sums[half] = each.copy() if known is None else np.add(known, each, out=known)
            self.counts[half] += 1
            self.last = time

    def _close(self, edge: float) -> None:
        """Work out what the window that ends here shares with the one before."""
        halves = [(values, count) for values, count in zip(self.sums, self.counts, strict=True) if values is not None]
        mean = sum((values for values, _ in halves), np.zeros(1)) / sum(count for _, count in halves)
        if self.before is None:
            one, two = (values / count for values, count in (halves[0], halves[-1]))
            shared = _shared(one, two)
        else:
            shared = _shared(self.before, mean)
            only_halves = len(self.found) == 1
            self.found[-1] = shared if only_halves else _more_alike(self.found[-1], shared)
        self.found.append(shared)
        self.edges.append(edge)
        self.before, self.sums, self.counts = mean, [None, None], [0, 0]

    def end(self) -> tuple[Array, Array]:
        """Return the edges (W + 1,) and what is frozen (W, 3 kinds, 3 axes)."""
        short = self.window is not None and self.last - self.edges[-1] < self.window / 2
        if short and self.found:
            self.edges[-1] = self.last
        else:
            self._close(self.last)
        return np.array(self.edges), np.sqrt(np.clip(self.found, 0.0, None))


def _shared(one: Array, two: Array) -> Array:
    """Return mean products (3 kinds, 3 axes) of two fields (a, b, c, 3): of themselves, half sums, half differences."""
    return np.array([_mean_squares(one[None], two[None], which)[0] for which in (0, 1, -1)])


def _more_alike(one: Array, two: Array) -> Array:
    """Return, for each axis, that of two sets of mean products (3 kinds, 3 axes) whose first kind is larger."""
    return np.where(one[0] >= two[0], one, two)
