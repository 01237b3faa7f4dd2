"""Hops of atoms or molecules from site to site of a crystal, counted in a trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from aiida_perovmlip.analysis.diffusion import CM2_PER_S, DIMENSIONS
from aiida_perovmlip.analysis.displacement import Particles, Source, Survey, pieces, survey

Array = NDArray[Any]

WINDOW = 1.0
"""Over so many ps positions are averaged before they are put into sites: at once, vibrations look like hops."""

NEIGHBOURS = 1.3
"""Metals up to so many times the shortest distance apart are neighbours; the next ones are √2 times it apart."""

SLANTED = np.array([1.0, 0.73, 0.41])
"""A direction that is at right angles to no axis of a perovskite, be the cell √2 × √2 × 2 or cubic."""


@dataclass(frozen=True)
class Sites:
    """Places that atoms can take.

    :param places: (n, 3), as parts of the vectors of the cell.
    :param cell: (3, 3) in Å.
    """

    places: Array = field(repr=False)
    cell: Array = field(repr=False)

    def __len__(self) -> int:
        return len(self.places)

    def distance(self, one: Array, other: Array) -> Array:
        """Return the shortest distance between sites, (n,) in Å.

        :param one: (n,) indices.
        :param other: (n,) indices.
        """
        ways = self.places[other] - self.places[one]
        images = np.array(list(product((-1, 0, 1), repeat=3)))
        every = (ways - np.round(ways))[:, None] + images[None]
        return np.asarray(np.linalg.norm(every @ self.cell, axis=2).min(axis=1))


@dataclass(frozen=True)
class Hops:
    """What moved from site to site in a run.

    :param events: (n_hops, 4) whole numbers: the window of time after the hop, the particle, the site it left and the
        one it took; in the order of time.
    :param lengths: (n_hops,) in Å, from site to site.
    :param n_returns: hops that take back the hop before of the same particle: these carry nothing on.
    :param n_windows: how many times positions were looked at.
    :param ambiguous: the part of them in which sites are not taken as the number of particles asks for; no hop is
        counted into them, and one across them counts where both sides of them differ.
    :param n_defects: sites without a particle, where it is positive, or particles without a site, where it is negative.
    :param window: over which positions were averaged, in ps.
    :param duration: in ps.
    """

    events: Array = field(repr=False)
    lengths: Array = field(repr=False)
    n_returns: int
    n_windows: int
    ambiguous: float
    n_particles: int
    n_sites: int
    n_defects: int
    window: float
    duration: float

    @property
    def n_hops(self) -> int:
        """How many hops were counted."""
        return len(self.events)

    @property
    def rate(self) -> float:
        """Hops of all particles together in a ps."""
        return self.n_hops / self.duration

    @property
    def coefficient(self) -> float:
        """Coefficient of diffusion in cm²/s if each hop went its own way: more than that of hops that return."""
        return float((self.lengths**2).sum() / (2 * DIMENSIONS * self.duration) * CM2_PER_S)

    def numbers(self) -> dict[str, Any]:
        """Return all but the arrays as plain values."""
        known = {name: value for name, value in asdict(self).items() if name not in ('events', 'lengths')}
        mean = float(self.lengths.mean()) if self.n_hops else None
        return {**known, 'n_hops': self.n_hops, 'rate': self.rate, 'mean_length': mean, 'coefficient': self.coefficient}


def count_hops(
    source: Source,
    particles: Particles,
    sites: Sites,
    host: Sequence[int] | Array | None = None,
    window: float = WINDOW,
    known: Survey | None = None,
) -> Hops:
    """Count hops of particles: each belongs to the nearest site (Wigner and Seitz), averaged over windows of time.

    :param source: blocks of the trajectory; of quenched frames take a window of 0.
    :param host: atoms whose mean displacement is the drift.
    :param sites: where the host is in the first frame, such as `midpoints` or `cages` of `mean_places` of the host.
    :param window: in ps; 0 looks at each frame by itself.
    :param known: `survey(source, host, …)`, where that was made before.
    """
    about = known if known is not None else survey(source, host, particles.atoms)
    per_window = max(1, round(window / about.interval))
    taken = _taken(source, particles, sites, about, per_window)
    n_defects = len(sites) - len(particles)
    whole = np.array([_is_expected(each, len(sites), n_defects) for each in taken], dtype=bool)
    events = _events(taken, whole)
    return Hops(
        events=events,
        lengths=sites.distance(events[:, 2], events[:, 3]),
        n_returns=_returns(events),
        n_windows=len(taken),
        ambiguous=float(1.0 - whole.mean()) if len(taken) else 1.0,
        n_particles=len(particles),
        n_sites=len(sites),
        n_defects=n_defects,
        window=per_window * about.interval,
        duration=about.duration,
    )


def mean_places(source: Source, particles: Particles, known: Survey) -> Array:
    """Return the mean places (n, 3) in Å of particles in the mean cell, the drift of the host removed."""
    total, first = np.zeros((len(particles), 3)), 0
    for _, positions, cells in pieces(source):
        total += known.settled(particles.centres(positions), cells, first).sum(axis=0)
        first += len(positions)
    return total / first


def midpoints(metals: Array, cell: Array) -> Sites:
    """Return the sites of the halides of a perovskite: halfway between neighbouring metals.

    :param metals: (n, 3) in Å, their mean places.
    :param cell: (3, 3) in Å.
    """
    places, ways = _neighbours(metals, cell)
    forward = [(at, way) for at, each in enumerate(ways) for way in each if _is_forward(way)]
    inverse = np.linalg.inv(cell)
    return Sites(np.array([places[at] + 0.5 * way @ inverse for at, way in forward]), np.asarray(cell, dtype=float))


def cages(metals: Array, cell: Array) -> Sites:
    """Return the sites of the A cations of a perovskite: amid eight metals.

    :param metals: (n, 3) in Å, their mean places.
    :param cell: (3, 3) in Å.
    """
    places, ways = _neighbours(metals, cell)
    inverse = np.linalg.inv(cell)
    forward = [sum(way for way in each if _is_forward(way)) for each in ways]
    middle = [place + 0.5 * way @ inverse for place, way in zip(places, forward, strict=True)]
    return Sites(np.array(middle), np.asarray(cell, dtype=float))


def _neighbours(metals: Array, cell: Array) -> tuple[Array, list[Array]]:
    """Return metals (n, 3) as parts of the cell, and the ways (6, 3) in Å from each of them to its neighbours."""
    places = np.asarray(metals, dtype=float) @ np.linalg.inv(cell)
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    ways = places[None, :] - places[:, None]
    every = ((ways - np.round(ways))[:, :, None] + images) @ np.asarray(cell, dtype=float)
    distances = np.linalg.norm(every, axis=3)
    there = distances > 1e-6
    nearest = float(distances[there].min())
    found = [each[(near < NEIGHBOURS * nearest) & ok] for each, near, ok in zip(every, distances, there, strict=True)]
    odd = next((at for at, each in enumerate(found) if len(each) != 6 or sum(map(_is_forward, each)) != 3), None)
    if odd is not None:
        raise ValueError(
            f'metal {odd} has {len(found[odd])} neighbours within {NEIGHBOURS * nearest:.2f} Å, but six, two along '
            'each axis, make a perovskite; name the sites yourself.'
        )
    return places, found


def _is_forward(way: Array) -> bool:
    """Whether a way goes along an axis rather than against it."""
    return bool(way @ SLANTED > 0)


def _taken(source: Source, particles: Particles, sites: Sites, about: Survey, per_window: int) -> Array:
    """Return which site each particle belongs to in each window, (n_windows, n_particles)."""
    tree, owner = _tree(sites)
    inverse, found = np.linalg.inv(about.cell), []
    total, count, first = np.zeros((len(particles), 3)), 0, 0
    for _, positions, cells in pieces(source):
        for places in about.settled(particles.centres(positions), cells, first):
            total, count = total + places, count + 1
            if count == per_window:
                parts = (total / count @ inverse) % 1.0
                found.append(owner[tree.query(parts @ sites.cell)[1]])
                total, count = np.zeros_like(total), 0
        first += len(positions)
    return np.array(found, dtype=np.int64).reshape(-1, len(particles))


def _tree(sites: Sites) -> tuple[KDTree, Array]:
    """Return a tree of sites, with those outside the cell that may be nearest to what is inside, and which each is."""
    margin = 0.5 if len(sites) < 64 else 0.3
    images = np.array(list(product((-1, 0, 1), repeat=3)))
    every = (sites.places % 1.0)[None] + images[:, None]
    owner = np.tile(np.arange(len(sites)), len(images))
    every = every.reshape(-1, 3)
    near = np.all((every > -margin) & (every < 1.0 + margin), axis=1)
    return KDTree(every[near] @ sites.cell), owner[near]


def _is_expected(taken: Array, n_sites: int, n_defects: int) -> bool:
    """Whether as many sites are free, or doubly taken, as the number of particles asks for, and none besides."""
    counts = np.bincount(taken, minlength=n_sites)
    free, surplus = int((counts == 0).sum()), int((counts - 1).clip(0).sum())
    return free == max(0, n_defects) and surplus == max(0, -n_defects)


def _events(taken: Array, whole: Array) -> Array:
    """Return all changes of site from one unambiguous window to the next, (n, 4)."""
    events: list[tuple[int, int, int, int]] = []
    before: Array | None = None
    for window in np.flatnonzero(whole):
        now = taken[window]
        if before is not None:
            moved = np.flatnonzero(now != before)
            events += [(int(window), int(who), int(before[who]), int(now[who])) for who in moved]
        before = now
    return np.array(events, dtype=np.int64).reshape(-1, 4)


def _returns(events: Array) -> int:
    """Return how many hops take back the one before of the same particle."""
    last: dict[int, tuple[int, int]] = {}
    count = 0
    for _, who, left, took in events.tolist():
        count += last.get(who) == (took, left)
        last[who] = (left, took)
    return count
