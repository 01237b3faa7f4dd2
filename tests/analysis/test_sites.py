"""Hops of atoms that are moved by hand in a perovskite that vibrates."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.displacement import Particles, survey
from aiida_perovmlip.analysis.sites import Sites, cages, count_hops, mean_places, midpoints

A = 6.3
INTERVAL = 0.1


def metals_of(n, noise=0.0):
    places = A * np.array([(i, j, k) for i in range(n) for j in range(n) for k in range(n)], dtype=float)
    return places + (np.random.default_rng(0).normal(0, noise, places.shape) if noise else 0.0), n * A * np.eye(3)


def trajectory(paths, metals, cell, n_frames, swing, drift=(0.0, 0.0, 0.0)):
    """Return blocks of halides (n_frames, n, 3) in Å and metals that swing and drift; metals come last."""
    rng = np.random.default_rng(1)
    positions = np.concatenate([paths, np.tile(metals, (n_frames, 1, 1))], axis=1)
    positions = positions + rng.normal(0, swing, positions.shape) + np.arange(n_frames)[:, None, None] * drift
    return [(INTERVAL * np.arange(n_frames), positions, np.tile(cell, (n_frames, 1, 1)))]


def hopping(sites, moves, n_frames, left_out=1):
    """Return paths (n_frames, n - left_out, 3) in Å of atoms that go, at a frame, to the nearest image of a site."""
    places = sites.places @ sites.cell
    paths = np.tile(places[left_out:], (n_frames, 1, 1))
    for frame, who, to in moves:
        way = sites.places[to] - paths[frame, who] @ np.linalg.inv(sites.cell)
        paths[frame:, who] += (way - np.round(way)) @ sites.cell
    return paths


@pytest.mark.parametrize('n', [2, 3])
def test_halides_and_cations_have_their_sites_between_metals(n):
    metals, cell = metals_of(n)
    on_x, on_a = midpoints(metals, cell), cages(metals, cell)
    assert (len(on_x), len(on_a)) == (3 * n**3, n**3)
    assert np.sort((on_a.places @ cell / A) % 1.0, axis=None) == pytest.approx(0.5)
    halves = (2 * on_x.places @ cell / A).round(9) % (2 * n)
    assert np.sort(halves % 2, axis=1) == pytest.approx(np.tile([0.0, 0.0, 1.0], (3 * n**3, 1)))
    assert len(np.unique(halves, axis=0)) == 3 * n**3


def test_sites_follow_metals_that_are_off_their_places_and_a_turned_cell():
    metals, cell = metals_of(2, noise=0.2)
    assert len(midpoints(metals, cell)) == 24
    primitive = np.array([(0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 0, 1)], dtype=float) * A
    slanted = A * np.array([(1, 1, 0), (-1, 1, 0), (0, 0, 2)], dtype=float)
    assert len(midpoints(primitive, slanted)) == 12
    assert len(cages(primitive, slanted)) == 4


def test_what_is_no_perovskite_has_no_sites_of_its_own():
    with pytest.raises(ValueError, match='metal 0 has 12 neighbours'):
        midpoints(np.zeros((1, 3)), A * np.array([(0, 1, 1), (1, 0, 1), (1, 1, 0)]))


def test_hops_of_a_vacancy_are_counted_with_their_lengths():
    metals, cell = metals_of(3)
    sites = midpoints(metals, cell)
    near = [at for at in range(1, len(sites)) if sites.distance(np.array([0]), np.array([at]))[0] < 0.8 * A]
    first, second = near[0], near[1]
    moves = [(300, first - 1, 0), (600, second - 1, first)]
    paths = hopping(sites, moves, 1000)
    host = np.arange(len(sites) - 1, len(sites) - 1 + 27)
    blocks = trajectory(paths, metals, cell, 1000, swing=0.3, drift=(0.01, 0.0, 0.005))
    found = count_hops(blocks, Particles.of_atoms(np.arange(len(sites) - 1)), sites, host)
    assert found.n_hops == 2
    assert found.lengths[0] == pytest.approx(A / np.sqrt(2), abs=1e-6)
    assert found.events[:, 1:].tolist() == [[first - 1, first, 0], [second - 1, second, first]]
    assert (found.n_defects, found.n_returns, found.n_windows) == (1, 0, 100)
    assert found.ambiguous == 0.0
    assert found.rate == pytest.approx(2 / 99.9)
    assert found.numbers()['mean_length'] > 4.0
    assert found.coefficient == pytest.approx(2 * A**2 / 2 / 6 / 99.9 * 1e-4)


def test_hops_that_go_back_are_told():
    metals, cell = metals_of(2)
    sites = midpoints(metals, cell)
    paths = hopping(sites, [(200, 4, 0), (400, 4, 5), (600, 4, 0)], 800)
    blocks = trajectory(paths, metals, cell, 800, swing=0.1)
    found = count_hops(blocks, Particles.of_atoms(np.arange(23)), sites)
    assert (found.n_hops, found.n_returns) == (3, 2)


def test_averages_over_time_see_sites_where_single_frames_do_not():
    metals, cell = metals_of(2)
    sites = midpoints(metals, cell)
    blocks = trajectory(hopping(sites, [], 500), metals, cell, 500, swing=0.9)
    particles = Particles.of_atoms(np.arange(23))
    at_once, averaged = (count_hops(blocks, particles, sites, window=window) for window in (0.0, 2.0))
    assert at_once.ambiguous > 0.5
    assert averaged.ambiguous == 0.0
    assert averaged.n_hops == 0
    assert (at_once.n_windows, averaged.n_windows) == (500, 25)


def test_ambiguous_windows_are_stated_and_hops_across_them_counted_once():
    metals, cell = metals_of(2)
    sites = midpoints(metals, cell)
    paths = hopping(sites, [(400, 4, 0)], 800)
    paths[400:450, 7] = paths[400:450, 6]  # two halides on one site
    blocks = trajectory(paths, metals, cell, 800, swing=0.05)
    found = count_hops(blocks, Particles.of_atoms(np.arange(23)), sites)
    assert found.n_hops == 1
    assert found.ambiguous == pytest.approx(5 / 80)
    never = trajectory(np.repeat(paths[:, :1], 23, axis=1), metals, cell, 800, swing=0.05)
    none = count_hops(never, Particles.of_atoms(np.arange(23)), sites)
    assert (none.ambiguous, none.n_hops, none.numbers()['mean_length']) == (1.0, 0, None)


def test_an_interstitial_is_a_site_that_is_taken_twice():
    metals, cell = metals_of(2)
    sites = midpoints(metals, cell)
    extra = np.tile(sites.places[3] @ cell + [0.5, 0.5, 0.5], (200, 1, 1))
    paths = np.concatenate([hopping(sites, [], 200, left_out=0), extra], axis=1)
    found = count_hops(trajectory(paths, metals, cell, 200, 0.1), Particles.of_atoms(np.arange(25)), sites)
    assert (found.n_defects, found.ambiguous, found.n_hops) == (-1, 0.0, 0)


def test_mean_places_are_those_without_vibrations_and_drift():
    metals, cell = metals_of(2)
    paths = np.zeros((4000, 1, 3))
    blocks = trajectory(paths, metals, cell, 4000, swing=0.1, drift=(0.001, 0.0, 0.0))
    host = np.arange(1, 9)
    found = mean_places(blocks, Particles.of_atoms(host), survey(blocks, host))
    assert found == pytest.approx(metals + blocks[0][1][0, 1:].mean(axis=0) - metals.mean(axis=0), abs=0.02)


def test_distances_of_sites_are_the_shortest_ones():
    sites = Sites(np.array([[0.05, 0, 0], [0.95, 0, 0], [0.5, 0.5, 0.5]]), 10 * np.eye(3))
    assert sites.distance(np.array([0, 0]), np.array([1, 2])) == pytest.approx([1.0, np.sqrt(4.5**2 + 50)])
