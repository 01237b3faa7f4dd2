"""Splits of frames."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_perovmlip.analysis.splits import split

WAYS = ('random', 'stratified', 'grouped')


@st.composite
def problems(draw: Any) -> dict[str, Any]:
    n_parts = draw(st.integers(1, 4))
    keys = draw(st.lists(st.sampled_from([*'abcdefgh', '']), min_size=12, max_size=120))
    weights = np.array(draw(st.lists(st.integers(1, 9), min_size=n_parts, max_size=n_parts)))
    if draw(st.booleans()):
        sizes = np.maximum(1, weights * len(keys) // weights.sum() - 1)
        values: list[Any] = [*sizes[1:].tolist(), draw(st.sampled_from([None, -1]))]
    else:
        values = (weights / weights.sum()).tolist()
    parts = {f'part{index}': value for index, value in enumerate(values)}
    return {'n': len(keys), 'parts': parts, 'seed': draw(st.integers(0, 9)), 'keys': np.array([*keys])}


def targets(problem: dict[str, Any]) -> np.ndarray:
    values, n = list(problem['parts'].values()), problem['n']
    if any(value in (None, -1) for value in values):
        return np.array([*values[:-1], n - sum(values[:-1])], float)
    return np.array(values) * n


@pytest.mark.parametrize('by', WAYS)
@settings(max_examples=150, derandomize=True, deadline=None)
@given(problem=problems())
def test_every_frame_is_in_exactly_one_part(by: Any, problem: dict[str, Any]) -> None:
    if by == 'grouped':
        problem['keys'][: len(problem['parts'])] = ''  # as many groups as parts at least
    result = split(**problem, by=by)
    assert list(result) == list(problem['parts'])
    assert all(len(part) and (np.diff(part) > 0).all() for part in result.values())
    assert sorted(np.concatenate(list(result.values())).tolist()) == list(range(problem['n']))
    again = split(**problem, by=by)
    assert all(np.array_equal(result[name], again[name]) for name in result)


@pytest.mark.parametrize('by', ['random', 'stratified'])
@settings(max_examples=150, derandomize=True, deadline=None)
@given(problem=problems())
def test_the_size_of_a_part_is_off_by_less_than_a_frame(by: Any, problem: dict[str, Any]) -> None:
    sizes = np.array([len(part) for part in split(**problem, by=by).values()])
    assert (np.abs(sizes - targets(problem)) < 1).all()


@settings(max_examples=200, derandomize=True, deadline=None)
@given(problem=problems())
def test_no_key_is_on_two_sides_and_sizes_are_as_good_as_whole_groups_allow(problem: dict[str, Any]) -> None:
    keys = problem['keys']
    keys[: len(problem['parts'])] = ''
    result = split(**problem, by='grouped')
    sides = [set(keys[part]) - {''} for part in result.values()]
    assert sum(map(len, sides)) == len(set(keys) - {''})
    largest = max([1, *(int((keys == key).sum()) for key in set(keys) - {''})])
    sizes = np.array([len(part) for part in result.values()])
    assert (np.abs(sizes - targets(problem)) < largest * max(1, len(sizes) - 1) + 1).all()


@settings(max_examples=200, derandomize=True, deadline=None)
@given(problem=problems())
def test_strata_have_equal_fractions_and_appear_everywhere_if_they_can(problem: dict[str, Any]) -> None:
    keys, result = problem['keys'], split(**problem, by='stratified')
    names = sorted(set(keys))
    table = np.array([[(keys[part] == name).sum() for part in result.values()] for name in names])
    lacking = (table == 0) & (table.sum(axis=1) >= len(result))[:, None]
    assert not lacking[:, table.max(axis=0) > 1].any()
    exact = np.outer(table.sum(axis=1), table.sum(axis=0)) / problem['n']
    if not ((exact < 1) & (exact > 0)).any():  # nothing was moved to let a rare stratum appear
        assert (np.abs(table - exact) <= 1 + 1e-9).all()


def test_strata_of_round_sizes_are_split_exactly() -> None:
    keys = np.array(['alpha'] * 100 + ['beta'] * 50 + ['gamma'] * 10)
    parts = split(160, {'train': 0.8, 'valid': 0.1, 'test': 0.1}, by='stratified', seed=1, keys=keys)
    counts = {
        name: [int((keys[part] == key).sum()) for key in ('alpha', 'beta', 'gamma')] for name, part in parts.items()
    }
    assert counts == {'train': [80, 40, 8], 'valid': [10, 5, 1], 'test': [10, 5, 1]}


def test_a_rare_stratum_is_tested_too() -> None:
    keys = np.array(['bulk'] * 197 + ['defect'] * 3)
    parts = split(200, {'train': 0.9, 'valid': 0.05, 'test': 0.05}, by='stratified', seed=0, keys=keys)
    assert [len(part) for part in parts.values()] == [180, 10, 10]
    assert all((keys[part] == 'defect').sum() == 1 for part in parts.values())


def test_the_seed_decides() -> None:
    keys = np.repeat([f'run{index}' for index in range(20)], 5)
    for by in WAYS:
        one, other = (split(100, {'a': 0.5, 'b': 0.5}, by=by, seed=seed, keys=keys) for seed in (0, 1))
        assert not np.array_equal(one['a'], other['a']), by


def test_one_dominant_group_does_not_empty_a_part() -> None:
    keys = np.array(['a'] * 50 + ['b'] * 30 + ['c'] * 20)
    parts = split(100, {'train': 0.8, 'valid': 0.1, 'test': 0.1}, by='grouped', seed=0, keys=keys)
    assert sorted(map(len, parts.values())) == [20, 30, 50]
    assert len(parts['train']) == 50


def test_integers_may_be_keys() -> None:
    parts = split(6, {'a': 3, 'b': None}, by='grouped', seed=0, keys=np.array([4, 4, 4, 7, 7, 7]))
    assert sorted(map(len, parts.values())) == [3, 3]


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        ({}, 'the parts have to be fractions or numbers of frames, not {}'),
        ({'a': True, 'b': None}, 'the parts have to be fractions or numbers of frames'),
        ({'a': 'half'}, 'the parts have to be fractions or numbers of frames'),
        ({'a': 0.5, 'b': 5}, 'are mixed'),
        ({'a': 0.5, 'b': 0.4}, 'add up to 1, not 0.9'),
        ({'a': 1.5, 'b': -0.5}, 'have to be positive'),
        ({'a': 0.8, 'b': 0.4, 'c': None}, 'add up to 1, not 1.2'),
        ({'a': float('nan'), 'b': 0.5}, 'add up to 1, not nan'),
        ({'a': 0.5, 'b': None, 'c': None}, 'the fractions .* have to'),
        ({'a': 5, 'b': 4}, 'the parts have 9 frames together, but there are 10; let one part be None'),
        ({'a': 5, 'b': 7}, 'the parts have 12 frames together, but there are 10[.]'),
        ({'a': 5, 'b': -1, 'c': None}, 'at most one part may be None or -1'),
        ({'a': -5, 'b': None}, 'are no numbers of frames'),
        ({'a': 10, 'b': None}, "the part 'b' would be empty: None of 10 frames"),
        ({'a': 0.99, 'b': 0.01}, "the part 'b' would be empty: 0.01 of 10 frames"),
        ({'a': 1.0, 'b': 0.0}, "the part 'b' would be empty"),
    ],
)
def test_parts_that_make_no_sense_are_refused(parts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(10, parts, by='random', seed=0)


def test_groups_that_cannot_be_spread_are_refused() -> None:
    with pytest.raises(ValueError, match='2 groups cannot be spread over the 3 parts a, b, c'):
        split(4, {'a': 2, 'b': 1, 'c': 1}, by='grouped', seed=0, keys=np.array(['x', 'x', 'y', 'y']))


@pytest.mark.parametrize('by', ['stratified', 'grouped'])
def test_keys_are_needed_for_every_frame(by: Any) -> None:
    with pytest.raises(ValueError, match='of 4 frames needs one key for each, not None'):
        split(4, {'a': 2, 'b': 2}, by=by, seed=0)
    with pytest.raises(ValueError, match=r'of 4 frames needs one key for each, not \(3,\)'):
        split(4, {'a': 2, 'b': 2}, by=by, seed=0, keys=np.array(['x', 'y', 'z']))


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="'size' is not a way to split"):
        split(4, {'a': 2, 'b': 2}, by='size', seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize('by', WAYS)
def test_a_million_frames_are_split_in_seconds(by: Any) -> None:
    n = 1_000_000
    keys = np.array([f'run{index}' for index in range(20_000)])[np.random.default_rng(0).integers(20_000, size=n)]
    keys[::2] = ''
    start = time.perf_counter()
    parts = split(n, {'train': 0.8, 'valid': 0.1, 'test': 0.1}, by=by, seed=0, keys=keys)
    seconds = time.perf_counter() - start
    print(f'\n{by}: {seconds:.2f} s')
    assert [len(part) for part in parts.values()] == [800_000, 100_000, 100_000]
    assert seconds < 20
