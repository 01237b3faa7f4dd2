"""Splits of frames into parts that share none."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def split(
    n: int,
    parts: Mapping[str, float | int | None],
    *,
    by: Literal['random', 'stratified', 'grouped'],
    seed: int,
    keys: Array | None = None,
) -> dict[str, Array]:
    """Return the sorted positions of the frames of each part; every frame is in exactly one.

    :param parts: the fraction of each part (floats that add up to 1) or its number of frames (integers that add up
        to `n`); one part may be None (or -1 beside integers): what the others leave.
    :param by: `random`; `stratified`, equal fractions of every key in each part, whose size is exact; `grouped`, no
        key on two sides, which meets the size of a part as well as whole groups can.
    :param keys: (n,) what a frame belongs to; in a grouped split '' belongs to nothing else.
    """
    sizes = _sizes(n, parts)
    rng = np.random.Generator(np.random.PCG64(seed))
    if by == 'random':
        owner = _split_randomly(sizes, rng)
    elif by == 'stratified':
        owner = _split_strata(_codes(n, keys, by), sizes, rng)
    elif by == 'grouped':
        owner = _split_groups(_single_out(keys, _codes(n, keys, by)), sizes, list(parts), rng)
    else:
        raise ValueError(f'{by!r} is not a way to split; there are random, stratified and grouped.')
    return {name: np.flatnonzero(owner == index) for index, name in enumerate(parts)}


def _sizes(n: int, parts: Mapping[str, float | int | None]) -> list[int]:
    """Return the number of frames of each part."""
    values = dict(parts)
    given = {name: value for name, value in values.items() if value is not None}
    if not values or any(isinstance(value, bool) or not isinstance(value, Real) for value in given.values()):
        raise ValueError(f'the parts have to be fractions or numbers of frames, not {values}.')
    are_counts = [isinstance(value, Integral) for value in given.values()]
    if any(are_counts) and not all(are_counts):
        raise ValueError(f'fractions (floats) and numbers of frames (integers) are mixed in {values}.')
    sizes = _counts(n, values) if all(are_counts) else _fractions(n, values)
    for name, size in zip(values, sizes, strict=True):
        if size < 1:
            raise ValueError(f'the part {name!r} would be empty: {values[name]} of {n} frames.')
    return sizes


def _counts(n: int, parts: Mapping[str, Any]) -> list[int]:
    """Return the sizes of parts that are given as numbers of frames."""
    sizes = {name: -1 if value is None else int(value) for name, value in parts.items()}
    rest = [name for name, size in sizes.items() if size == -1]
    total = sum(size for size in sizes.values() if size != -1)
    if len(rest) > 1 or min(sizes.values()) < -1:
        raise ValueError(f'{parts} are no numbers of frames; at most one part may be None or -1, the rest.')
    if total > n or (total < n and not rest):
        hint = '' if total > n else '; let one part be None to take the rest'
        raise ValueError(f'the parts have {total} frames together, but there are {n}{hint}.')
    return [n - total if size == -1 else size for size in sizes.values()]


def _fractions(n: int, parts: Mapping[str, Any]) -> list[int]:
    """Return the sizes of parts that are given as fractions: the largest remainders are rounded up."""
    rest = [name for name, value in parts.items() if value is None]
    total = sum(value for value in parts.values() if value is not None)
    is_whole = total <= 1 + 1e-6 if rest else abs(total - 1) <= 1e-6
    if len(rest) > 1 or not is_whole or any(value is not None and value < 0 for value in parts.values()):
        raise ValueError(f'the fractions {dict(parts)} have to be positive and add up to 1, not {total:g}.')
    exact = np.array([1 - total if value is None else value for value in parts.values()], dtype=float) * n
    sizes = np.floor(exact + 1e-6).astype(np.int64)
    order = np.argsort(sizes - exact, kind='stable')
    sizes[order[: n - sizes.sum()]] += 1
    return [int(size) for size in sizes]


def _codes(n: int, keys: Array | None, by: str) -> Array:
    """Return (n,) the keys as integers in the order in which they appear."""
    if keys is None or np.shape(keys) != (n,):
        raise ValueError(
            f'a {by} split of {n} frames needs one key for each, not {np.shape(keys) if keys is not None else None}.'
        )
    known: dict[Any, int] = {}
    return np.fromiter((known.setdefault(key, len(known)) for key in np.asarray(keys).tolist()), np.int64, n)


def _single_out(keys: Any, codes: Array) -> Array:
    """Return the codes with one of its own for each frame without a key."""
    alone = np.flatnonzero(np.asarray(keys) == '') if np.asarray(keys).dtype.kind in 'USO' else np.zeros(0, np.int64)
    single = codes.copy()
    single[alone] = len(codes) + alone
    return np.unique(single, return_inverse=True)[1].reshape(-1)


def _split_randomly(sizes: list[int], rng: np.random.Generator) -> Array:
    """Return the part of each frame."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return rng.permutation(owner)


def _split_strata(codes: Array, sizes: list[int], rng: np.random.Generator) -> Array:
    """Return the part of each frame: equal fractions of each key."""
    table = _allot(np.bincount(codes), sizes)
    shuffled = rng.permutation(len(codes))
    members = shuffled[np.argsort(codes[shuffled], kind='stable')]
    owner = np.empty(len(codes), dtype=np.int64)
    owner[members] = np.repeat(np.tile(np.arange(len(sizes)), len(table)), table.ravel())
    return owner


def _allot(strata: Array, sizes: list[int]) -> Array:
    """Return (strata, parts) how many frames of each stratum go to each part; rows and columns add up exactly."""
    exact = strata[:, None] * np.array(sizes) / strata.sum()
    table: Array = np.floor(exact + 1e-9).astype(np.int64)
    needs = (np.array(sizes) - table.sum(axis=0)).tolist()
    # The rest of each stratum, at most one frame per part, goes where most is missing, and this always comes out even:
    # it is how Gale and Ryser build a matrix of zeros and ones (Ryser, Can. J. Math. 9, 371 (1957)).
    for row in np.flatnonzero(strata > table.sum(axis=1)).tolist():
        missing = int(strata[row] - table[row].sum())
        for part in sorted(range(len(needs)), key=needs.__getitem__, reverse=True)[:missing]:
            table[row, part] += 1
            needs[part] -= 1
    _spread(table)
    return table


def _spread(table: Array) -> None:
    """Let each stratum that has enough frames appear in every part, as long as others can give one away."""
    n_parts = table.shape[1]
    for row, part in np.argwhere((table == 0) & (table.sum(axis=1) >= n_parts)[:, None]).tolist():
        giver, other = int(np.argmax(table[:, part])), int(np.argmax(table[row]))
        if table[giver, part] > 1:
            table[[row, giver], [part, other]] += 1
            table[[row, giver], [other, part]] -= 1


def _split_groups(codes: Array, sizes: list[int], names: list[str], rng: np.random.Generator) -> Array:
    """Return the part of each frame: the largest groups first, each to the part that misses most."""
    counts = np.bincount(codes)
    if len(counts) < len(sizes):
        raise ValueError(
            f'{len(counts)} groups cannot be spread over the {len(sizes)} parts {", ".join(names)}: '
            'no group may be on two sides.'
        )
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order], kind='stable')]
    part_of = np.empty(len(counts), dtype=np.int64)
    part_of[order] = _fill(counts[order].tolist(), sizes)
    return part_of[codes]


def _fill(groups: list[int], sizes: list[int]) -> list[int]:
    """Return the part of each group; no part stays empty, and none is off by more than the largest group else."""
    needs, empty = list(sizes), set(range(len(sizes)))
    chosen = []
    for left, group in zip(range(len(groups), 0, -1), groups, strict=True):
        candidates = sorted(empty) if left <= len(empty) else range(len(needs))
        part = max(candidates, key=needs.__getitem__)
        needs[part] -= group
        empty.discard(part)
        chosen.append(part)
    return chosen
