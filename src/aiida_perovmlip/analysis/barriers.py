"""Barriers along a path, and how far those of two methods on one path are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SHALLOW = 0.01
"""An image between the ends is a minimum where its energy in eV is lower than both maxima beside it by more."""

BARRIERS = ('forward', 'reverse', 'span', 'reaction')
"""The numbers of a profile that are told apart, all in eV."""

LABELS = 'labels'
"""What the reference is called among the methods that see a path."""

FINE = 2000
"""Points at which the curve through energies and forces is looked at."""


@dataclass(frozen=True)
class Profile:
    """The energy along a path.

    `forward`, `reverse`, `span` and `reaction` are of the images. Where the ends differ these are four numbers: from
    the first end to the top, from the last end to the top, from the lowest image to the top, and from end to end.

    :param places: length of the path up to each image in Å, all atoms together.
    :param energies: energy of each image above the first in eV.
    :param slopes: change of the energy along the path in eV/Å, from the forces; None where there are none.
    :param curve: places in Å and energies in eV, (2, n), of the curve through all images and their slopes.
    :param top: the highest image; `is_interior` tells whether it is none of the ends.
    :param minima: images between the ends that are lower than what lies on both sides of them.
    :param steps: forward and reverse barrier in eV of each step from minimum to minimum; one where there are none.
    :param curve_forward: from the first end to the top of the curve in eV, which the images may have missed.
    """

    places: Array = field(repr=False)
    energies: Array = field(repr=False)
    slopes: Array | None = field(repr=False)
    curve: Array = field(repr=False)
    forward: float
    reverse: float
    span: float
    reaction: float
    top: int
    is_interior: bool
    minima: tuple[int, ...]
    steps: tuple[tuple[float, float], ...]
    curve_forward: float
    curve_reverse: float

    def numbers(self) -> dict[str, Any]:
        """Return all but the arrays."""
        arrays = {'places', 'energies', 'slopes', 'curve'}
        return {name: value for name, value in asdict(self).items() if name not in arrays}


@dataclass(frozen=True)
class Difference:
    """What one method says of a path less what the other says: barriers, reaction energy, images.

    :param energies: energy of each image above the first, the difference in eV.
    :param forces_rmse: root mean square over all components of all images, in eV/Å; None without forces.
    :param top: how many images the tops are apart.
    """

    energies: Array = field(repr=False)
    forward: float
    reverse: float
    span: float
    reaction: float
    top: int
    energies_rmse: float
    energies_largest: float
    forces_rmse: float | None
    forces_mae: float | None

    def numbers(self) -> dict[str, Any]:
        """Return all but the arrays."""
        return {name: value for name, value in asdict(self).items() if name != 'energies'}


def profile_of(positions: Array, energies: Array, forces: Array | None = None) -> Profile:
    """Return the profile of a path.

    :param positions: (n_images, n_atoms, 3) in Å, not wrapped, ends included.
    :param energies: (n_images,) in eV.
    :param forces: (n_images, n_atoms, 3) in eV/Å.
    """
    _check(positions, energies, forces)
    places = lengths(positions)
    heights = np.asarray(energies, dtype=float) - float(energies[0])
    slopes = None if forces is None else -np.einsum('ijk,ijk->i', forces, tangents(positions, places))
    curve = _curve(places, heights, slopes)
    top, minima = int(heights.argmax()), minima_of(heights)
    return Profile(
        places=places,
        energies=heights,
        slopes=slopes,
        curve=curve,
        forward=float(heights[top]),
        reverse=float(heights[top] - heights[-1]),
        span=float(heights.max() - heights.min()),
        reaction=float(heights[-1]),
        top=top,
        is_interior=0 < top < len(heights) - 1,
        minima=minima,
        steps=steps_of(heights, minima),
        curve_forward=float(curve[1].max()),
        curve_reverse=float(curve[1].max() - heights[-1]),
    )


def difference_of(one: Profile, other: Profile, forces: tuple[Array, Array] | None = None) -> Difference:
    """Return how far one profile is from another of the same images.

    :param forces: those of both, (n_images, n_atoms, 3) in eV/Å.
    """
    if len(one.places) != len(other.places) or not np.allclose(one.places, other.places, atol=1e-6):
        raise ValueError('the profiles are of different images; compare energies on one path.')
    energies = one.energies - other.energies
    errors = None if forces is None else np.asarray(forces[0]) - np.asarray(forces[1])
    return Difference(
        energies=energies,
        forward=one.forward - other.forward,
        reverse=one.reverse - other.reverse,
        span=one.span - other.span,
        reaction=one.reaction - other.reaction,
        top=one.top - other.top,
        energies_rmse=float(np.sqrt(np.mean(energies[1:] ** 2))),
        energies_largest=float(np.abs(energies).max()),
        forces_rmse=None if errors is None else float(np.sqrt(np.mean(errors**2))),
        forces_mae=None if errors is None else float(np.mean(np.abs(errors))),
    )


def lengths(positions: Array) -> Array:
    """Return the length of a path up to each image (n_images,) in Å.

    :param positions: (n_images, n_atoms, 3) in Å.
    """
    steps = np.linalg.norm(np.diff(np.asarray(positions, dtype=float), axis=0), axis=(1, 2))
    return np.concatenate([[0.0], np.cumsum(steps)])


def tangents(positions: Array, places: Array) -> Array:
    """Return the direction of a path at each image, (n_images, n_atoms, 3): of length one, zeros where it turns back.

    :param positions: (n_images, n_atoms, 3) in Å.
    :param places: (n_images,) in Å.
    """
    from scipy.interpolate import CubicSpline

    ways = CubicSpline(places, positions, axis=0)(places, 1)
    norms = np.linalg.norm(ways, axis=(1, 2), keepdims=True)
    return np.asarray(ways / np.where(norms > 0, norms, 1.0))


def minima_of(heights: Array) -> tuple[int, ...]:
    """Return the images between the ends that are minima by more than noise: a path with such has two barriers.

    :param heights: (n_images,) in eV.
    """
    found = []
    for index in range(1, len(heights) - 1):
        lowest = heights[index] < heights[index - 1] and heights[index] <= heights[index + 1]
        if lowest and min(heights[:index].max(), heights[index + 1 :].max()) - heights[index] > SHALLOW:
            found.append(index)
    return tuple(found)


def steps_of(heights: Array, minima: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """Return the forward and the reverse barrier in eV of each step between neighbouring minima.

    :param heights: (n_images,) in eV.
    """
    stops = [0, *minima, len(heights) - 1]
    tops = [float(heights[one : other + 1].max()) for one, other in pairwise(stops)]
    ways = zip(tops, pairwise(stops), strict=True)
    return tuple((top - float(heights[one]), top - float(heights[other])) for top, (one, other) in ways)


def by_potential(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return those records of many barriers that a potential is judged by: of its own paths, or all if it has none.

    :param records: a path and a `potential` each; `is_own` tells whether the path is the one that it relaxed.
    """
    found = {}
    for potential in sorted({record['potential'] for record in records}):
        rows = [record for record in records if record['potential'] == potential]
        found[potential] = [record for record in rows if record['is_own']] or rows
    return found


def _curve(places: Array, heights: Array, slopes: Array | None) -> Array:
    """Return a smooth curve (2, n) through energies and, where they are known, slopes."""
    from scipy.interpolate import CubicHermiteSpline, CubicSpline

    fine = np.union1d(np.linspace(0.0, places[-1], FINE), places)
    spline = CubicSpline(places, heights) if slopes is None else CubicHermiteSpline(places, heights, slopes)
    return np.vstack([fine, spline(fine)])


def _check(positions: Array, energies: Array, forces: Array | None) -> None:
    """Refuse arrays that are no path."""
    shape = np.shape(positions)
    if len(shape) != 3 or shape[0] < 3 or shape[2] != 3:
        raise ValueError(f'the positions have the shape {shape}, but have to be those of at least three images.')
    if np.shape(energies) != shape[:1] or (forces is not None and np.shape(forces) != shape):
        raise ValueError('energies and forces are not those of the images.')
    if not np.isfinite(energies).all() or (forces is not None and not np.isfinite(forces).all()):
        raise ValueError('an energy or a force is not finite: not all images have a label.')
    if lengths(np.asarray(positions))[-1] == 0.0 or np.any(np.diff(lengths(np.asarray(positions))) == 0.0):
        raise ValueError('two images that follow each other are the same.')
