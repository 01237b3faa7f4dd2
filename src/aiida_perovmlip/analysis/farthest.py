"""Farthest-point sampling: points of which each is as far as possible from all that were chosen before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROWS = 65_536
"""Points that are looked at together; what is needed beside them is one distance a point."""


@dataclass(frozen=True)
class Choice:
    """The points that were chosen.

    :param positions: (k,) in the order of choice: the first m of them are what a choice of m would give.
    :param distances: (k,) distance of each to the nearest of those before it, in the unit of the points; infinite for
        a first one that nothing was before.
    :param radius: distance of the farthest point that was left out to the nearest chosen one; 0 where none is left.
    """

    positions: NDArray[np.int64]
    distances: NDArray[np.float64]
    radius: float


def choose_farthest(
    points: NDArray[Any],
    count: int,
    seed: int = 0,
    known: ArrayLike | None = None,
    rows: int = ROWS,
) -> Choice:
    """Choose points one by one, each the farthest from all before it (Gonzalez, Theor. Comput. Sci. 38, 293 (1985)).

    A point that equals a chosen one is never chosen: where fewer than `count` differ, fewer are returned. Of points
    that are equally far the first is taken.

    :param points: (n, d), which may lie in a file that numpy maps: each of the `count` passes reads it once.
    :param seed: of the lot that the first point is drawn by; without effect where points are `known`.
    :param known: (m, d) points that count as chosen already, which may lie in such a file too.
    :param rows: how many points are in memory at a time.
    """
    _check(points, count)
    n = len(points)
    square = np.full(n, np.inf)
    had = np.asanyarray(known) if known is not None else points[:0]
    if len(had):
        _come_nearer_to_all(square, points, had, rows)
        position = int(np.argmax(square))
    else:
        position = int(np.random.Generator(np.random.PCG64(seed)).integers(n))
    positions: list[int] = []
    distances: list[float] = []
    while len(positions) < count and square[position] > 0:
        positions.append(position)
        distances.append(math.sqrt(square[position]))
        _come_nearer(square, points, np.asarray(points[position], dtype=np.float64), rows)
        position = int(np.argmax(square))
    return Choice(np.array(positions, np.int64), np.array(distances), math.sqrt(square[position]))


def _come_nearer(square: NDArray[np.float64], points: NDArray[Any], chosen: NDArray[np.float64], rows: int) -> None:
    """Lower the squared distances (n,) to those of one more chosen point (d,)."""
    for start in range(0, len(points), rows):
        part = slice(start, start + rows)
        step = points[part] - chosen
        np.minimum(square[part], np.einsum('ij,ij->i', step, step), out=square[part])


def _come_nearer_to_all(square: NDArray[np.float64], points: NDArray[Any], known: NDArray[Any], rows: int) -> None:
    """Lower the squared distances (n,) to those of many chosen points (m, d), some of each at a time."""
    from scipy.spatial import KDTree

    if known.shape[1:] != points.shape[1:]:
        raise ValueError(f'the known points have {known.shape[1:]} components, the others {points.shape[1:]}.')
    for first in range(0, len(known), rows):
        some = np.asarray(known[first : first + rows], dtype=np.float64)
        if not np.isfinite(some).all():
            raise ValueError('some of the known points are not finite.')
        tree = KDTree(some)
        for start in range(0, len(points), rows):
            part = slice(start, start + rows)
            nearest = tree.query(np.asarray(points[part], dtype=np.float64))[0] ** 2
            np.minimum(square[part], nearest, out=square[part])


def _check(points: NDArray[Any], count: int) -> None:
    """Refuse what has no farthest point."""
    if points.ndim != 2 or not len(points):
        raise ValueError(f'points have the shape (n, d) with at least one of them, not {points.shape}.')
    if not 1 <= count <= len(points):
        raise ValueError(f'{count} points cannot be chosen of {len(points)}.')
    for start in range(0, len(points), ROWS):
        bad = ~np.isfinite(points[start : start + ROWS]).all(axis=1)
        if bad.any():
            raise ValueError(f'point {start + int(np.argmax(bad))} is not finite.')
