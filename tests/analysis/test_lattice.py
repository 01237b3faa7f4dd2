"""Lattice constants of cells that are made up, and their lines."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.lattice import Lattice, fit_expansion, lattice_of, pseudo_cubic
from aiida_perovmlip.analysis.series import average_of


def correlated(n, keeps, width=1.0, seed=0):
    """Return a series in which each value keeps a part of the one before."""
    rng = np.random.default_rng(seed)
    values = np.empty(n)
    values[0] = rng.normal(0, width)
    for at in range(1, n):
        values[at] = keeps * values[at - 1] + rng.normal(0, width * np.sqrt(1 - keeps**2))
    return values


def lattice(temperature, constant, error=0.001):
    return Lattice(temperature, constant, error, (constant,) * 3, (error,) * 3, 8, 100, 0.0, 100.0)


def test_a_cell_that_is_still_has_its_own_constants():
    cells = np.tile(np.diag([12.0, 12.6, 19.2]), (100, 1, 1))
    found = lattice_of(0.1 * np.arange(100), cells, (2, 2, 3), 300.0)
    assert found.axes == pytest.approx((6.0, 6.3, 6.4))
    assert found.constant == pytest.approx((6.0 * 6.3 * 6.4) ** (1 / 3))
    assert found.error == pytest.approx(0.0, abs=1e-12)
    assert (found.n_units, found.n_frames, found.left_out) == (12, 80, pytest.approx(2.0))
    assert found.numbers()['axes'] == found.axes


def test_the_cell_of_four_units_has_pseudo_cubic_vectors():
    a, c = 6.2, 6.4
    matrix = np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 2]])
    cells = matrix @ np.diag([a, a, c])
    assert pseudo_cubic(cells[None], matrix)[0] == pytest.approx(np.diag([a, a, c]))
    turned = cells @ np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]])
    found = lattice_of(np.arange(50.0), np.tile(turned, (50, 1, 1)), matrix, 300.0)
    assert found.axes == pytest.approx((a, a, c))
    assert found.n_units == 4


def test_the_begin_of_a_run_is_left_out():
    sides = np.where(np.arange(200) < 40, 14.0, 12.0)
    found = lattice_of(np.arange(200.0), sides[:, None, None] * np.eye(3), (2, 2, 2), 300.0)
    assert found.constant == pytest.approx(6.0)


def test_the_error_of_the_constant_is_that_of_the_volume():
    sides = 12.0 + 0.1 * correlated(2000, 0.5)
    found = lattice_of(np.arange(2000.0), sides[:, None, None] * np.eye(3), (2, 2, 2), 300.0)
    assert found.error == pytest.approx(average_of(sides[400:]).error / 2, rel=0.05)
    assert found.axes_errors[0] == pytest.approx(average_of(sides[400:]).error / 2)


def test_the_line_of_the_paper_is_extrapolated():
    """Table S3 of Tyagi, Brocks and Tao: from 300…450 K to 500…600 K, five numbers on a line of 2.3e-4 Å/K."""
    line = fit_expansion([lattice(kelvin, 6.354 + 2.3e-4 * (kelvin - 500)) for kelvin in (300, 350, 400, 450)])
    table = {500: 6.354, 525: 6.359, 550: 6.365, 575: 6.371, 600: 6.377}
    for kelvin, constant in table.items():
        assert line.at(kelvin)[0] == pytest.approx(constant, abs=1.1e-3)
        assert line.is_extrapolated(kelvin)
    assert not line.is_extrapolated(350)
    assert line.at(600)[1] > line.at(500)[1] > line.at(375)[1]


def test_error_bars_of_an_extrapolation_cover_the_truth():
    covers = 0
    for seed in range(500):
        noise = np.random.default_rng(seed).normal(0, 0.002, 4)
        kelvins = (300, 350, 400, 450)
        line = fit_expansion([lattice(t, 6.2 + 2e-4 * t + e, 0.002) for t, e in zip(kelvins, noise, strict=True)])
        value, error = line.at(550.0)
        covers += abs(value - (6.2 + 2e-4 * 550)) < error
    assert covers / 500 == pytest.approx(0.71, abs=0.07)  # errors only grow with the scatter


def test_points_that_leave_the_line_make_it_uncertain():
    bent = [lattice(t, 6.2 + 2e-4 * t + 1e-6 * (t - 375) ** 2, 1e-4) for t in (300, 350, 400, 450)]
    found = fit_expansion(bent)
    assert found.scatter > 5
    assert found.constant_error == pytest.approx(found.scatter * 1e-4 / 2)
    assert found.numbers()['temperatures'] == (300.0, 350.0, 400.0, 450.0)


def test_two_temperatures_make_a_line_with_the_errors_of_its_points():
    found = fit_expansion([lattice(300, 6.30, 0.003), lattice(400, 6.33, 0.003)])
    assert found.slope == pytest.approx(3e-4)
    assert found.slope_error == pytest.approx(np.sqrt(2) * 0.003 / 100)
    assert found.scatter == 0.0


def test_a_point_without_an_error_counts_as_one_with_a_small_one():
    found = fit_expansion([lattice(300, 6.30, 0.0), lattice(400, 6.33, 0.003)])
    assert found.at(300)[0] == pytest.approx(6.30)
    assert np.isfinite(found.at(500)[1])
    assert fit_expansion([lattice(300, 6.30, 0.0), lattice(400, 6.33, 0.0)]).slope == pytest.approx(3e-4)


def test_what_has_no_constants_is_refused():
    cells = np.tile(12 * np.eye(3), (19, 1, 1))
    with pytest.raises(ValueError, match='of 19 frames 15 are averaged'):
        lattice_of(np.arange(19.0), cells, (2, 2, 2), 300.0)
    for repeat in ((2, 2), (0, 2, 2), (1.5, 2, 2), np.zeros((3, 3))):
        with pytest.raises(ValueError, match='neither three whole numbers'):
            lattice_of(np.arange(19.0), cells, repeat, 300.0)
    with pytest.raises(ValueError, match='known at 1'):
        fit_expansion([lattice(300, 6.3), lattice(300, 6.31)])
