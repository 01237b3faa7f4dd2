"""How far the particles of a trajectory go in a time: mean square displacements, read block by block.

A trajectory is read through blocks: tuples of times (F,) in ps, positions (F, N, 3) in Å that are not wrapped, and
cells (F, 3, 3) in Å. It is read several times, so it has to be a sequence of blocks, or a function that opens it. Never
is more in memory than a block, and the tracks of as many particles as `most_bytes` allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[Any]
Block = tuple[Array, Array, Array]
Source = Iterable[Block] | Callable[[], Iterable[Block]]
Kind = Literal['sum', 'tracer', 'collective']

MOST_BYTES = 100_000_000
"""Memory in bytes that the tracks of particles may take at a time."""

SLAB_BYTES = 32_000_000
"""Memory in bytes that Fourier transforms may take at a time."""

N_PARTS = 5
"""Into how many parts that follow each other a run is cut to see how far it agrees with itself."""

LEAST_FRAMES = 20
"""Shorter trajectories have no displacement over a time that is much shorter than they are."""

JUMP = 0.5
"""An atom that goes this part of a cell vector from one frame to the next was wrapped, or is seen too seldom."""


class WrappedError(ValueError):
    """The positions jump across the cell."""


@dataclass(frozen=True)
class Particles:
    """What is followed: atoms, or molecules by their centres of mass.

    :param atoms: (n,) the atoms of all particles, one particle after the other.
    :param starts: (n_particles,) where each particle begins in `atoms`.
    :param weights: (n,) of each atom; those of a particle add up to one.
    """

    atoms: Array = field(repr=False)
    starts: Array = field(repr=False)
    weights: Array = field(repr=False)

    @classmethod
    def of_atoms(cls, atoms: Sequence[int] | Array) -> Particles:
        """Follow atoms, named by their indices."""
        known = _indices(atoms, 'atoms')
        return cls(known, np.arange(len(known)), np.ones(len(known)))

    @classmethod
    def of_molecules(cls, molecules: Sequence[Sequence[int] | Array], masses: Array) -> Particles:
        """Follow the centres of mass of molecules.

        :param molecules: the atoms of each molecule.
        :param masses: (N,) of all atoms of the trajectory, in any unit. Take those of the run, where these are not the
            natural ones.
        """
        if not len(molecules) or not all(len(molecule) for molecule in molecules):
            raise ValueError('there is no molecule, or one has no atom; nothing can be followed.')
        atoms = _indices(np.concatenate([np.asarray(molecule) for molecule in molecules]), 'molecules')
        sizes = np.array([len(molecule) for molecule in molecules])
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        weights = np.asarray(masses, dtype=float)[atoms]
        return cls(atoms, starts, weights / np.repeat(np.add.reduceat(weights, starts), sizes))

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, chosen: slice) -> Particles:
        """Return particles that follow each other."""
        bounds = np.append(self.starts, len(self.atoms))
        first, last, _ = chosen.indices(len(self))
        atoms = slice(bounds[first], bounds[last])
        return Particles(self.atoms[atoms], self.starts[first:last] - bounds[first], self.weights[atoms])

    def centres(self, positions: Array) -> Array:
        """Return the places of the particles (F, n_particles, 3) in Å.

        :param positions: (F, N, 3) in Å.
        """
        chosen = positions[:, self.atoms].astype(float)
        if len(self) == len(self.atoms):
            return np.asarray(chosen)
        return np.asarray(np.add.reduceat(chosen * self.weights[:, None], self.starts, axis=1))


@dataclass(frozen=True)
class Survey:
    """What has to be known of a trajectory before its particles are followed.

    :param times: (F,) in ps, evenly spaced.
    :param drift: (F, 3) in Å, how far the host has gone as a whole; zero where there is none.
    :param cell: (3, 3) in Å, the mean one.
    :param is_fixed: whether all frames have one cell. Else positions are scaled into the mean cell, so that the
        breathing of the cell moves nothing.
    :param n_host: atoms whose mean displacement is the drift.
    """

    times: Array = field(repr=False)
    drift: Array = field(repr=False)
    cell: Array = field(repr=False)
    is_fixed: bool
    n_atoms: int
    n_host: int

    @property
    def interval(self) -> float:
        """Time between two frames in ps."""
        return float((self.times[-1] - self.times[0]) / (len(self.times) - 1))

    @property
    def duration(self) -> float:
        """Time from the first to the last frame in ps."""
        return float(self.times[-1] - self.times[0])

    def settled(self, places: Array, cells: Array, first: int) -> Array:
        """Return places (F, n, 3) in Å in the mean cell and in the frame of the host.

        :param places: (F, n, 3) in Å.
        :param cells: (F, 3, 3) in Å.
        :param first: which frame of the trajectory the first one is.
        """
        if not self.is_fixed:
            places = places @ (np.linalg.inv(cells) @ self.cell)
        return np.asarray(places - self.drift[first : first + len(places), None])


@dataclass(frozen=True)
class Msd:
    """A displacement squared, averaged over all moments to begin at, against the time that has passed.

    :param kind: `sum` is Σᵢ|Δrᵢ|² over all particles, without division by their number; `tracer` is that divided by
        their number; `collective` is |ΣᵢΔrᵢ|².
    :param lags: (L,) time that has passed, in ps, from zero.
    :param values: (L,) in Å².
    :param parts: (n_parts, L') in Å², the same of parts of the run that follow each other, for the first L' lags.
    :param n_particles: over which `sum` runs.
    :param duration: of the run in ps.
    :param n_host: atoms whose mean displacement was subtracted as drift; 0 where nothing was.
    :param is_cell_fixed: else displacements are those in the mean cell.
    """

    kind: Kind
    lags: Array = field(repr=False)
    values: Array = field(repr=False)
    parts: Array = field(repr=False)
    n_particles: int
    n_frames: int
    duration: float
    n_host: int
    is_cell_fixed: bool


@dataclass(frozen=True)
class Displacements:
    """All three kinds of displacement of the same particles."""

    sum: Msd
    tracer: Msd
    collective: Msd


def sum_msd(source: Source, particles: Particles, host: Sequence[int] | Array | None = None) -> Msd:
    """Return Σᵢ|Δrᵢ|², not divided by the number of particles.

    This is the displacement of one defect, however many atoms it moves: Eq. 1 of Tyagi, Brocks and Tao. What a vacancy
    loses by hops that go back at once is contained.

    :param host: atoms whose mean displacement is the drift.
    """
    return displacements(source, particles, host).sum


def tracer_msd(source: Source, particles: Particles, host: Sequence[int] | Array | None = None) -> Msd:
    """Return Σᵢ|Δrᵢ|²/N, the displacement of one particle."""
    return displacements(source, particles, host).tracer


def collective_msd(source: Source, particles: Particles, host: Sequence[int] | Array | None = None) -> Msd:
    """Return |ΣᵢΔrᵢ|², that of the charge which the particles carry: for a single defect, of the defect itself."""
    return displacements(source, particles, host).collective


def displacements(
    source: Source,
    particles: Particles,
    host: Sequence[int] | Array | None = None,
    *,
    n_parts: int = N_PARTS,
    most_bytes: int = MOST_BYTES,
    known: Survey | None = None,
) -> Displacements:
    """Return all three displacements of some particles.

    :param source: blocks of the trajectory, which can be read again and again.
    :param host: atoms whose mean displacement is the drift, such as all Pb; None to subtract nothing. In a run the
        centre of mass stays, so that what hops makes all the rest move the other way.
    :param n_parts: into how many parts the run is cut, besides.
    :param most_bytes: memory that tracks of particles may take. Where they take more, the trajectory is read again.
    :param known: `survey(source, host, …)`, where that was made before.
    """
    about = known if known is not None else survey(source, host, particles.atoms)
    n_frames = len(about.times)
    n_lags = n_frames // 2 + 1
    total, parts, whole = np.zeros(n_lags), np.zeros((n_parts, n_frames // n_parts // 2 + 1)), np.zeros((3, n_frames))
    at_a_time = max(1, most_bytes // (n_frames * 3 * 4))
    for first in range(0, len(particles), at_a_time):
        tracks = tracks_of(source, particles[first : first + at_a_time], about)
        total += _summed(tracks, n_lags)
        parts += _of_parts(tracks, n_parts)
        whole += tracks.sum(axis=0, dtype=float)
    lone, lone_parts = _summed(whole[None], n_lags), _of_parts(whole[None], n_parts)
    n = len(particles)
    return Displacements(
        sum=_msd('sum', total, parts, n, about),
        tracer=_msd('tracer', total / n, parts / n, n, about),
        collective=_msd('collective', lone, lone_parts, n, about),
    )


def survey(source: Source, host: Sequence[int] | Array | None = None, followed: Array | None = None) -> Survey:
    """Read a trajectory once: times, drift, mean cell; refuse what cannot be followed.

    :param host: atoms whose mean displacement is the drift.
    :param followed: atoms whose positions have to go on from frame to frame; None for all.
    """
    chosen = None if host is None else _indices(host, 'host atoms')
    watch = _Watch(followed, chosen)
    times, drifts, n_frames, cells, cell, is_fixed, n_atoms = [], [], 0, np.zeros((3, 3)), None, True, 0
    for block_times, positions, block_cells in pieces(source):
        n_atoms = positions.shape[1]
        _refuse_no_cell(block_cells)
        inverse = np.linalg.inv(block_cells)
        watch.see(block_times, positions, inverse)
        if chosen is not None:
            drifts.append((positions[:, chosen].mean(axis=1, dtype=float)[:, None] @ inverse)[:, 0])
        cell = block_cells[0] if cell is None else cell
        is_fixed = is_fixed and bool(np.all(block_cells == cell))
        cells, n_frames = cells + block_cells.sum(axis=0), n_frames + len(block_times)
        times.append(np.asarray(block_times, dtype=float))
    axis = _even(np.concatenate(times) if times else np.zeros(0))
    mean = cell if is_fixed and cell is not None else cells / n_frames
    gone = np.concatenate(drifts) if chosen is not None else np.zeros((n_frames, 3))
    drift = (gone - gone[0]) @ mean
    return Survey(axis, drift, mean, is_fixed, n_atoms, 0 if chosen is None else len(chosen))


def average_of_elements(
    displacements_of: Mapping[str, Msd], per_molecule: Mapping[str, int], convention: Literal['molecule', 'literal']
) -> Msd:
    """Return the mean of the summed displacements of the elements of a molecule, where its centre is not followed.

    :param displacements_of: the `sum` of each element, such as C, N and H of methylammonium.
    :param per_molecule: atoms of each element in a molecule.
    :param convention: `molecule` counts each element once per molecule, so that all of them tell the motion of the
        molecules; `literal` takes the sum over all atoms of an element as the supplement of Tyagi, Brocks and Tao
        (Eq. S2) has it, by which the six H of methylammonium count six times: (1 + 1 + 6)/3 of the other.
    """
    msds = dict(displacements_of)
    first = next(iter(msds.values()), None)
    if first is None or any(msd.kind != 'sum' for msd in msds.values()):
        raise ValueError('the displacements have to be sums over the atoms of an element, of one element at least.')
    if any(len(msd.lags) != len(first.lags) or msd.parts.shape != first.parts.shape for msd in msds.values()):
        raise ValueError('the elements were not followed over the same time.')
    share = {name: 1.0 if convention == 'literal' else 1.0 / per_molecule[name] for name in msds}
    n = {round(msd.n_particles / per_molecule[name]) for name, msd in msds.items()}
    if len(n) != 1:
        raise ValueError(f'the elements {", ".join(msds)} make {sorted(n)} molecules; they have to be of the same.')
    return Msd(
        kind='sum',
        lags=first.lags,
        values=np.mean([share[name] * msd.values for name, msd in msds.items()], axis=0),
        parts=np.mean([share[name] * msd.parts for name, msd in msds.items()], axis=0),
        n_particles=n.pop(),
        n_frames=first.n_frames,
        duration=first.duration,
        n_host=first.n_host,
        is_cell_fixed=first.is_cell_fixed,
    )


def unwrapped(source: Source) -> Callable[[], Iterator[Block]]:
    """Return a source whose positions are those of another one, but do not jump where an atom leaves the cell.

    Frames have to follow each other so closely that no atom goes half a cell vector in between.
    """

    def opened() -> Iterator[Block]:
        last: Array | None = None
        for times, positions, cells in blocks_of(source):
            places = positions @ np.linalg.inv(cells)
            before = places[:1] if last is None else last
            steps = np.diff(np.concatenate([before, places]), axis=0)
            places = before + np.cumsum(steps - np.round(steps), axis=0)
            last = places[-1:]
            yield times, places @ cells, cells

    return opened


def blocks_of(source: Source) -> Iterable[Block]:
    """Return the blocks of a source from the first one on; refuse one that can be read only once."""
    blocks = source() if callable(source) else source
    if blocks is source and iter(blocks) is blocks:
        raise ValueError('the trajectory can be read only once; pass a list of blocks, or a function that opens it.')
    return blocks


def pieces(source: Source, most_bytes: int = SLAB_BYTES) -> Iterator[Block]:
    """Yield the blocks of a source, cut where they are larger than some bytes."""
    for times, positions, cells in blocks_of(source):
        shape = np.shape(positions)
        if len(shape) != 3 or shape[2] != 3 or np.shape(times) != shape[:1] or np.shape(cells) != (shape[0], 3, 3):
            raise ValueError(
                f'times, positions and cells have the shapes {np.shape(times)}, {shape} and {np.shape(cells)}, but '
                'have to be (F,), (F, N, 3) and (F, 3, 3).'
            )
        step = max(1, most_bytes // max(1, shape[1] * 3 * 8))
        for first in range(0, shape[0], step):
            part = slice(first, first + step)
            yield times[part], positions[part], np.asarray(cells[part], dtype=float)


class _Watch:
    """Looks whether atoms go on from frame to frame."""

    def __init__(self, followed: Array | None, host: Array | None) -> None:
        both = [atoms for atoms in (followed, host) if atoms is not None]
        self.atoms = None if followed is None else np.unique(np.concatenate(both))
        self.last: Array | None = None
        self.time = 0.0

    def see(self, times: Array, positions: Array, inverse: Array) -> None:
        """Refuse frames in which an atom is nowhere, or has jumped.

        :param inverse: (F, 3, 3) of the cells, in 1/Å.
        """
        n_atoms = positions.shape[1]
        if self.atoms is not None and (self.atoms.max() >= n_atoms or self.atoms.min() < 0):
            raise ValueError(f'atom {self.atoms.max()} is followed, but the trajectory has {n_atoms} atoms.')
        places = (positions if self.atoms is None else positions[:, self.atoms]) @ inverse
        if not np.isfinite(places).all():
            raise ValueError(f'a position near {float(times[0]):g} ps is not finite: the run has exploded there.')
        before = places[:1] if self.last is None else self.last
        jumps = np.abs(np.diff(np.concatenate([before, places]), axis=0)).max(axis=2)
        if jumps.size and jumps.max() >= JUMP:
            frame, atom = np.unravel_index(int(jumps.argmax()), jumps.shape)
            start = self.time if frame == 0 else float(times[frame - 1])
            raise WrappedError(
                f'atom {atom if self.atoms is None else self.atoms[atom]} goes {jumps.max():.2f} of a cell vector from '
                f'{start:g} to {float(times[frame]):g} ps: the positions are wrapped, or the frames too far apart. '
                '`unwrapped` mends the first.'
            )
        self.last, self.time = places[-1:], float(times[-1])


def tracks_of(source: Source, particles: Particles, about: Survey) -> Array:
    """Return where particles are relative to their first place, (n, 3, F) float32 in Å, drift and breathing removed."""
    tracks = np.empty((len(particles), 3, len(about.times)), dtype=np.float32)
    first, origin = 0, None
    for _, positions, cells in pieces(source):
        places = about.settled(particles.centres(positions), cells, first)
        origin = places[0] if origin is None else origin
        last = first + len(places)
        if last > len(about.times):
            break
        tracks[:, :, first:last] = (places - origin).transpose(1, 2, 0)
        first = last
    if first != len(about.times):
        raise ValueError(f'the trajectory had {len(about.times)} frames when it was first read, and other ones now.')
    return tracks


def _summed(tracks: Array, n_lags: int) -> Array:
    """Return Σᵢ|Δrᵢ|² (n_lags,) in Å², averaged over all moments to begin at, by Fourier transforms.

    :param tracks: (n, 3, F) in Å.
    """
    n, _, n_frames = tracks.shape
    length = fft.next_fast_len(2 * n_frames, real=True)
    at_a_time = max(1, SLAB_BYTES // (length * 3 * 16))
    power, squares = np.zeros(length // 2 + 1), np.zeros(n_frames)
    for first in range(0, n, at_a_time):
        some = tracks[first : first + at_a_time].astype(float)
        some -= some.mean(axis=2, keepdims=True)  # what is small is squared with less loss
        squares += np.einsum('nif,nif->f', some, some)
        waves = fft.rfft(some, length, axis=2)
        power += np.einsum('nif,nif->f', waves.real, waves.real) + np.einsum('nif,nif->f', waves.imag, waves.imag)
    products = fft.irfft(power, length)[:n_lags]
    left_out = np.concatenate([[0.0], np.cumsum(squares + squares[::-1])[: n_lags - 1]])
    values = (2 * squares.sum() - left_out - 2 * products) / (n_frames - np.arange(n_lags))
    values[0] = 0.0
    return np.asarray(values)


def _of_parts(tracks: Array, n_parts: int) -> Array:
    """Return Σᵢ|Δrᵢ|² (n_parts, L) in Å² of parts that follow each other, up to half of their length."""
    size = tracks.shape[2] // n_parts
    cuts = range(0, n_parts * size, size)
    return np.array([_summed(tracks[:, :, first : first + size], size // 2 + 1) for first in cuts])


def _msd(kind: Kind, values: Array, parts: Array, n_particles: int, about: Survey) -> Msd:
    return Msd(
        kind=kind,
        lags=about.interval * np.arange(len(values)),
        values=values,
        parts=parts,
        n_particles=n_particles,
        n_frames=len(about.times),
        duration=about.duration,
        n_host=about.n_host,
        is_cell_fixed=about.is_fixed,
    )


def _indices(atoms: Sequence[int] | Array, what: str) -> Array:
    """Return indices as an array; refuse none, and those that name an atom twice."""
    known = np.asarray(atoms, dtype=np.int64)
    if not known.size:
        raise ValueError(f'there are no {what}.')
    if len(np.unique(known)) != known.size:
        raise ValueError(f'an atom is named twice among the {what}.')
    return known


def _even(times: Array) -> Array:
    """Return times (F,) in ps; refuse too few, and those that are not evenly spaced."""
    if len(times) < LEAST_FRAMES:
        raise ValueError(f'the trajectory has {len(times)} frames, but {LEAST_FRAMES} are the least to see diffusion.')
    steps = np.diff(times)
    mean = (times[-1] - times[0]) / len(steps)
    if mean <= 0 or np.abs(steps - mean).max() > 1e-3 * mean:
        odd = int(np.abs(steps - mean).argmax())
        raise ValueError(
            f'frames are {mean:g} ps apart on average but those at {times[odd]:g} and {times[odd + 1]:g} ps are '
            f'{steps[odd]:g} ps apart; take frames that are evenly spaced.'
        )
    return times


def _refuse_no_cell(cells: Array) -> None:
    if not len(cells) or np.abs(np.linalg.det(cells)).min() < 1e-6:
        raise ValueError('a frame has no cell, in which no crystal is.')
