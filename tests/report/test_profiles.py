"""Pictures of barriers and phases, where there is all to draw and where there is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.report.profiles import Barrier, Line, Picture, draw_barriers, draw_phases, draw_profiles


def line(label='one', **more):
    places = np.array([0.0, 1.0, 2.0])
    return Line(label, places, np.array([0.0, 0.5, 0.1]), np.vstack([places, [0.0, 0.5, 0.1]]), **more)


def test_each_method_has_a_line_and_its_images():
    (axes,) = draw_profiles([line(), line('PBE', is_reference=True)]).axes
    labels = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert labels == ['one, 0.50 eV', 'PBE, 0.50 eV']
    assert axes.lines[0].get_xdata() == pytest.approx([0.0, 0.5, 1.0])  # paths of unlike lengths end at one place


@pytest.fixture
def picture():
    """Return lead at the corner of a cell, and iodine that goes along x and z."""
    positions = np.array([[3.0, 1.0, 3.0], [0.1, 0.0, 0.0]])
    track = positions[:1] + np.array([[0, 0, 0], [1, 0, 1], [2, 0, 2]])[:, None]
    return Picture('top', np.array([53, 82]), positions, 6 * np.eye(3), np.array([True, False]), track)


def test_one_looks_along_the_direction_in_which_nothing_moves(picture):
    axes, key, _ = draw_profiles([line()], [picture]).axes
    track = axes.lines[-1].get_xydata()
    assert np.ptp(track, axis=0) == pytest.approx([2.0, 2.0])
    assert [text.get_text() for text in key.get_legend().get_texts()] == ['Pb', 'I']


def test_atoms_on_the_border_are_drawn_on_all_its_sides_and_what_moves_above_all(picture):
    *resting, moving = draw_profiles([line()], [picture]).axes[0].patches
    assert len(resting) == 4  # of lead, in the plane of the view
    assert moving.get_zorder() > max(disc.get_zorder() for disc in resting)
    assert moving.get_facecolor()[:3] == pytest.approx((0.58, 0.0, 0.58), abs=0.01)
    assert min(resting[0].get_facecolor()) > 0.5  # pale


def test_a_molecule_without_a_cell_is_drawn_once(picture):
    bare = replace(picture, cell=np.zeros((3, 3)))
    assert len(draw_profiles([line()], [bare]).axes[0].patches) == 2


def test_a_phase_that_the_reference_does_not_know_is_drawn_all_the_same():
    reference = {'cubic': 0.0, 'black': -0.1}
    (axes,) = draw_phases(reference, {'one': {'cubic': 0.0, 'black': -0.12, 'yellow': -0.2}}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ['yellow', 'black', 'cubic']
    assert len(axes.collections) == 2  # the reference has a bar for each phase that it knows
    assert axes.lines[0].get_ydata() == pytest.approx([-200.0, -120.0, 0.0])


def test_phases_are_drawn_without_a_reference():
    (axes,) = draw_phases(None, {'one': {'cubic': 0.0, 'black': -0.12}, 'other': {'cubic': 0.0}}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ['black', 'cubic']
    assert len(axes.collections) == 0
    assert [text.get_text().strip() for text in axes.get_legend().get_texts()] == ['one', 'other']


def test_barriers_lie_on_the_diagonal_where_they_agree():
    (axes,) = draw_barriers([Barrier('one', 0.3, 0.3), Barrier('one', 0.4, 0.5)]).axes
    (label,) = (text.get_text().strip() for text in axes.get_legend().get_texts())
    assert label == 'one: MAE 50 meV, n = 2'
    assert axes.get_xlim() == axes.get_ylim()
