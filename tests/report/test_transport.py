"""Pictures of diffusion, where there is all to draw and where there is not."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.arrhenius import BOLTZMANN, fit_arrhenius
from aiida_perovmlip.report.transport import Coefficients, Curve, draw_arrhenius, draw_displacements

KELVINS = np.array([500.0, 550.0, 600.0])


def coefficients(label='I', noise=0.1, fit=True, means=None):
    runs = np.repeat(KELVINS, 3)
    chance = np.random.default_rng(0).normal(0, noise, len(runs))
    values = 3e-4 * np.exp(-0.2 / (BOLTZMANN * runs) + chance)
    found = values.reshape(3, 3)
    return Coefficients(
        label,
        KELVINS,
        found.mean(axis=1) if means is None else means,
        found.std(axis=1, ddof=1) / np.sqrt(3),
        np.column_stack([runs, values]),
        fit_arrhenius(runs, values) if fit else None,
    )


def texts(axes):
    return [text.get_text().strip() for text in axes.get_legend().get_texts()]


def test_coefficients_lie_on_the_line_of_their_fit_with_its_energy_in_words():
    (axes,) = draw_arrhenius([coefficients(noise=0.0)]).axes
    assert texts(axes) == ['I: 0.20 ± 0.00 eV']
    assert axes.get_yscale() == 'log'
    line = next(line for line in axes.lines if len(line.get_xdata()) == 60)
    slope = np.polyfit(line.get_xdata() / 1e3, np.log(line.get_ydata()), 1)[0]
    assert slope == pytest.approx(-0.2 / BOLTZMANN)
    assert axes.child_axes[0].get_xlabel() == 'T (K)'


def test_the_band_of_a_fit_is_narrowest_where_the_data_are():
    (axes,) = draw_arrhenius([coefficients()]).axes
    band = next(each for each in axes.collections if len(each.get_paths()[0].vertices) > 100)
    points = band.get_paths()[0].vertices
    widths = [np.ptp(np.log(points[np.isclose(points[:, 0], x)][:, 1])) for x in (1e3 / 500, 1e3 / 600)]
    middle = points[np.abs(points[:, 0] - 1e3 / 548).argmin(), 0]
    assert np.ptp(np.log(points[np.isclose(points[:, 0], middle)][:, 1])) < min(widths)


def test_what_has_no_fit_and_no_positive_mean_is_drawn_as_far_as_it_can():
    figure = draw_arrhenius([coefficients('MA', fit=False, means=np.array([-1e-9, 1e-8, 2e-8]))])
    assert texts(figure.axes[0]) == ['MA']
    figure.canvas.draw()
    assert len(draw_arrhenius([]).axes) == 1


def curve(**more):
    lags = np.linspace(0, 10, 50)
    runs = np.array([6 * lags + 3, 5 * lags + 3])
    return Curve('600 K', lags, runs.mean(axis=0), runs, **more)


def test_displacements_show_runs_mean_and_what_was_fitted():
    (axes,) = draw_displacements({'I': [curve(window=(2.0, 8.0), line=(5.5, 3.0))]}).axes
    assert axes.get_title(loc='left') == 'I'
    assert len(axes.lines) == 2 + 1 + 2
    assert axes.lines[3].get_ydata() == pytest.approx([14.0, 47.0])
    (axes,) = draw_displacements({'I': [curve()]}).axes
    assert len(axes.lines) == 3


def test_species_have_panels_of_their_own():
    figure = draw_displacements({name: [curve()] for name in ('C', 'N', 'H', 'I')})
    assert [axes.get_title(loc='left') for axes in figure.axes] == ['C', 'N', 'H', 'I']
