"""Pictures of phases, where there is all to draw and where there is not."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.report.ramps import (
    COLOURS,
    Column,
    DiagramLine,
    Motion,
    Oscillation,
    RampLines,
    draw_damping,
    draw_diagram,
    draw_oscillations,
    draw_ramps,
    draw_regions,
)

KELVINS = np.linspace(50, 450, 21)


def ramp(direction='heating', tilt='a0a0c-', end=300.0):
    frozen = end > KELVINS
    values = np.zeros((21, 3))
    values[frozen, 2] = 0.4
    lengths = 6.3 + 1e-4 * KELVINS[:, None] + np.where(frozen[:, None], [[-0.03, -0.03, 0.05]], 0.0)
    labels = tuple(tilt if each else 'a0a0a0' for each in frozen)
    confidences = np.full(21, 1.0)
    confidences[12] = np.nan
    return RampLines(direction, KELVINS, lengths, 0.02 + 0 * values, values, labels, confidences, ((end, 4.0),))


def column(x=0.0, *ramps):
    return Column(f'x = {x}', x, ramps or (ramp(), ramp('cooling', end=280.0)))


def words(legend):
    return [text.get_text().strip() for text in legend.get_texts()]


def motion(x=0.0, kelvin=400.0, kinds=('overdamped', 'underdamped')):
    ratios = tuple(2.0 if kind == 'overdamped' else 0.5 for kind in kinds)
    return Motion(f'x = {x}', x, kelvin, ratios, tuple((0.8 * each, 1.3 * each) for each in ratios), kinds)


def test_ramps_have_a_column_for_each_composition_with_lattice_modes_and_labels():
    figure = draw_ramps([column(0.0), column(1.0)])
    assert len(figure.axes) == 8
    lattice, m, r, labels = figure.axes[:4]
    assert lattice.get_title(loc='left') == 'x = 0.0'
    assert words(lattice.get_legend()) == [f'{axis}, {way}' for way in ('heating', 'cooling') for axis in 'abc']
    assert m.get_ylim() == r.get_ylim()  # so that they can be compared
    assert [text.get_text() for text in labels.get_yticklabels()] == ['heating', 'cooling']
    assert len(labels.patches) == 42
    assert words(figure.legends[0]) == ['a0a0a0', 'a0a0c-']
    places = [line.get_xdata()[0] for line in r.lines if len(line.get_xdata()) == 2]
    assert places == [300.0, 280.0]


def test_a_ramp_of_one_window_can_be_drawn():
    short = RampLines(
        'heating', KELVINS[:1], np.full((1, 3), 6.3), np.zeros((1, 3)), np.zeros((1, 3)), ('x',), np.ones(1)
    )
    assert len(draw_ramps([column(0.0, short, ramp('cooling'))]).axes) == 4


def test_labels_that_are_not_sure_are_pale():
    unsure = RampLines(**{**vars(ramp()), 'confidences': np.linspace(0, 1, 21)})
    labels = draw_ramps([column(0.0, unsure)]).axes[3]
    alphas = [patch.get_alpha() for patch in labels.patches]
    assert alphas == sorted(alphas)
    assert alphas[0] < 0.3 < 0.99 < alphas[-1]


def test_a_diagram_shows_labels_transitions_and_the_boundary():
    line = DiagramLine(
        'a0a0c- to a0a0a0', 'heating', np.array([0.0, 0.5]), np.array([300.0, 320.0]), np.array([4.0, 5.0])
    )
    figure = draw_diagram([column(0.0), column(0.5)], [line], (0.27, 0.02), 'FA')
    (axes,) = figure.axes
    assert axes.get_xlabel() == 'Fraction of FA'
    assert words(figure.legends[0]) == [
        'a0a0a0',
        'a0a0c-',
        'boundary at 0.270 ± 0.020',
        'a0a0c- to a0a0a0, heating',
    ]
    assert len([patch for patch in axes.patches if hasattr(patch, 'get_width')]) >= 84


def test_a_diagram_of_one_composition_can_be_drawn():
    figure = draw_diagram([column(1.0)], [], None)
    assert figure.axes[0].get_xlim() == (0.5, 1.5)
    assert figure.axes[0].get_xticks().tolist() == [1.0]


def test_every_known_label_has_a_colour_of_its_own():
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_damping_has_a_panel_for_each_mode_and_a_line_at_one():
    figure = draw_damping([motion(0.0, 300.0), motion(0.0, 400.0, ('undecided', 'underdamped')), motion(1.0, 400.0)])
    m, r = figure.axes
    assert (m.get_title(loc='left'), r.get_title(loc='left')) == ('M', 'R')
    assert m.get_yscale() == 'log'
    assert words(m.get_legend()) == ['x = 0.0', 'x = 1.0']
    assert [1.0, 1.0] in [list(line.get_ydata()) for line in m.lines]


def test_regions_are_named_by_which_modes_are_overdamped():
    kinds = [
        ('underdamped', 'underdamped'),
        ('overdamped', 'underdamped'),
        ('overdamped', 'overdamped'),
        ('undecided', 'overdamped'),
    ]
    figure = draw_regions([motion(0.2 * number, 400.0, each) for number, each in enumerate(kinds)], 'FA')
    assert words(figure.axes[0].get_legend()) == [
        'both underdamped',
        'M alone overdamped',
        'both overdamped',
        'undecided',
    ]


def test_oscillations_are_drawn_with_their_fits():
    lags = np.linspace(0, 4, 30)
    (axes,) = draw_oscillations([Oscillation('400 K', lags, np.exp(-lags), np.exp(-lags))]).axes
    assert words(axes.get_legend()) == ['400 K']
    assert axes.lines[1].get_ydata() == pytest.approx(np.exp(-lags))
