"""Farthest-point sampling against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.farthest import choose_farthest


def brute_force(points, count, chosen):
    """Choose with the table of all distances."""
    table = np.linalg.norm(points[:, None] - points[None], axis=2)
    chosen = list(chosen)
    while len(chosen) < count:
        chosen.append(int(np.argmax(table[:, chosen].min(axis=1))))
    return chosen


def cloud(n=200, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize('rows', [1, 7, 200, 1000])
def test_each_point_is_the_farthest_from_those_before_it_however_the_points_are_read(rows):
    points = cloud()
    choice = choose_farthest(points, 25, seed=3, rows=rows)
    assert choice.positions.tolist() == brute_force(points, 25, choice.positions[:1])


def test_distances_fall_and_the_radius_covers_what_is_left():
    points = cloud()
    choice = choose_farthest(points, 25)
    assert np.isinf(choice.distances[0])
    assert (np.diff(choice.distances[1:]) <= 0).all()
    to_chosen = np.linalg.norm(points[:, None] - points[choice.positions][None], axis=2).min(axis=1)
    assert choice.radius == pytest.approx(to_chosen.max())


def test_a_smaller_choice_is_the_beginning_of_a_larger_one():
    points = cloud()
    assert choose_farthest(points, 40).positions[:11].tolist() == choose_farthest(points, 11).positions.tolist()


def test_the_seed_draws_the_first_point_and_nothing_else_is_left_to_chance():
    points = cloud()
    assert (
        choose_farthest(points, 9, seed=5).positions.tolist() == choose_farthest(points, 9, seed=5).positions.tolist()
    )
    assert len({int(choose_farthest(points, 1, seed=seed).positions[0]) for seed in range(30)}) > 20


def test_points_that_are_known_are_kept_away_from():
    line = np.arange(11.0)[:, None]
    choice = choose_farthest(line, 3, known=[[0.0], [1.0]])
    assert choice.positions.tolist() == [10, 5, 3]  # 5 and 6 are four away, the first of them counts
    assert choice.distances.tolist() == [9.0, 4.0, 2.0]


def test_known_points_in_the_cloud_are_as_if_they_had_been_chosen():
    points = cloud()
    choice = choose_farthest(points, 12, known=points[:20])
    assert choice.positions.tolist() == brute_force(points, 32, range(20))[20:]


def test_many_known_points_in_pieces_are_as_good_as_all_at_once():
    points, known = cloud(), cloud(50, seed=1)
    choice = choose_farthest(points, 12, known=known)
    assert np.array_equal(choose_farthest(points, 12, known=known, rows=7).positions, choice.positions)


def test_no_point_is_chosen_twice_and_equal_ones_count_once():
    points = np.repeat(cloud(5), 4, axis=0)
    choice = choose_farthest(points, 20)
    assert len(choice.positions) == 5
    assert len(np.unique(points[choice.positions], axis=0)) == 5
    assert choice.radius == 0


def test_all_points_can_be_chosen():
    choice = choose_farthest(cloud(6), 6)
    assert sorted(choice.positions) == list(range(6))
    assert choice.radius == 0


def test_a_mapped_file_is_read_as_it_is(tmp_path):
    points = cloud().astype(np.float32)
    np.save(tmp_path / 'points.npy', points)
    mapped = np.load(tmp_path / 'points.npy', mmap_mode='r')
    assert choose_farthest(mapped, 9, rows=16).positions.tolist() == choose_farthest(points, 9).positions.tolist()


@pytest.mark.parametrize('count', [0, -1, 201])
def test_what_cannot_be_chosen_is_refused(count):
    with pytest.raises(ValueError, match=rf'^{count} points cannot be chosen of 200'):
        choose_farthest(cloud(), count)


def test_points_that_are_not_finite_are_named():
    points = cloud()
    points[17, 1] = np.nan
    with pytest.raises(ValueError, match='point 17 is not finite'):
        choose_farthest(points, 3)
    with pytest.raises(ValueError, match='known points are not finite'):
        choose_farthest(cloud(), 3, known=points)


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r'shape \(n, d\)'):
        choose_farthest(np.zeros(5), 1)
    with pytest.raises(ValueError, match='components'):
        choose_farthest(cloud(), 1, known=np.zeros((2, 4)))
