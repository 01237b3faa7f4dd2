"""Plots of diffusion: coefficients against temperature, and displacements against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiida_perovmlip.analysis.arrhenius import Arrhenius
from aiida_perovmlip.report.contents import Array
from aiida_perovmlip.report.style import INK, MARKERS, MUTED, SERIES, SETTINGS, SURFACE, scale_by_powers

ROW = 3
"""Panels in a row."""


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of diffusion of one species.

    :param temperatures: (n,) in K.
    :param means: (n,) over the runs, in cm²/s.
    :param errors: (n,) standard errors in cm²/s.
    :param runs: temperature in K and coefficient in cm²/s of each run, (n_runs, 2).
    :param fit: the line through them; None where there is none.
    """

    label: str
    temperatures: Array
    means: Array
    errors: Array
    runs: Array
    fit: Arrhenius | None = None


@dataclass(frozen=True)
class Curve:
    """Displacements at one temperature.

    :param lags: (L,) in ps.
    :param mean: (L,) over the runs, in Å².
    :param runs: (n_runs, L) in Å².
    :param window: begin and end of the fit in ps; None where nothing was fitted.
    :param line: slope in Å²/ps and intercept in Å² of the fit, the mean over the runs.
    """

    label: str
    lags: Array
    mean: Array
    runs: Array
    window: tuple[float, float] | None = None
    line: tuple[float, float] | None = None


def draw_arrhenius(series: Sequence[Coefficients]) -> Any:
    """Return a figure of coefficients against 1000/T, with their fits and the band of one standard error of these."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(5.4, 4.2), layout='constrained')
        axes = figure.add_subplot()
        for number, each in enumerate(series):
            _draw_coefficients(axes, each, number)
        scale_by_powers(axes)
        axes.set_xlabel('1000 / T (1/K)')
        axes.set_ylabel('D (cm²/s)')
        if series:
            axes.legend(loc='best')
            _name_temperatures(axes, sorted({float(kelvin) for each in series for kelvin in each.temperatures}))
        return figure


def _draw_coefficients(axes: Any, each: Coefficients, number: int) -> None:
    """Draw the runs, their means with errors, and the fit of one species."""
    colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
    shown = each.runs[:, 1] > 0
    axes.plot(1e3 / each.runs[shown, 0], each.runs[shown, 1], marker, color=colour, alpha=0.3, markersize=3.5, mew=0)
    # Of an error that reaches below zero a logarithmic axis shows the upper half alone.
    positive = each.means > 0
    means, errors = each.means[positive], each.errors[positive]
    low = np.where(errors < means, errors, 0.0)
    label = f' {each.label}'
    if each.fit is not None:
        error = each.fit.activation_energy_error
        label += f': {each.fit.activation_energy:.2f}' + (' eV' if error is None else f' ± {error:.2f} eV')
        _draw_fit(axes, each.fit, colour)
    axes.errorbar(
        1e3 / each.temperatures[positive],
        means,
        yerr=[low, errors],
        fmt=marker,
        color=colour,
        markersize=5.5,
        capsize=2.5,
        linewidth=1.2,
        label=label,
    )


def _draw_fit(axes: Any, fit: Arrhenius, colour: str) -> None:
    """Draw a fit over the temperatures that it is from."""
    kelvins = 1.0 / np.linspace(1.0 / min(fit.temperatures), 1.0 / max(fit.temperatures), 60)
    found = [fit.at(float(kelvin)) for kelvin in kelvins]
    values = np.array([each.value for each in found])
    axes.plot(1e3 / kelvins, values, linestyle=(0, (4, 1.6)), color=colour, linewidth=1.2, zorder=1)
    if all(each.factor is not None for each in found):
        factors = np.array([each.factor for each in found], dtype=float)
        axes.fill_between(1e3 / kelvins, values / factors, values * factors, color=colour, alpha=0.15, linewidth=0)


def _name_temperatures(axes: Any, kelvins: Sequence[float]) -> None:
    """Name the temperatures themselves at the upper side."""
    twin = axes.secondary_xaxis('top')
    twin.set_xticks([1e3 / kelvin for kelvin in kelvins], [f'{kelvin:g}' for kelvin in kelvins])
    twin.set_xlabel('T (K)')


def draw_displacements(panels: Mapping[str, Sequence[Curve]]) -> Any:
    """Return a figure of displacements against time, a panel for each species, with the windows and lines of the fits.

    :param panels: the curves of each species, by temperature.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        columns = max(1, min(ROW, len(panels)))
        rows = max(1, -(-len(panels) // ROW))
        figure = Figure(figsize=(1.0 + 3.7 * columns, 3.4 * rows), layout='constrained')
        for number, (title, curves) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, number)
            for place, curve in enumerate(curves):
                _draw_curve(axes, curve, SERIES[place % len(SERIES)])
            axes.set(xlim=(0, None), ylim=(0, None))
            axes.set_title(title)
            axes.set_xlabel('Time (ps)')
            axes.set_ylabel('Displacement squared (Å²)')
            axes.legend(loc='upper left')
        return figure


def _draw_curve(axes: Any, curve: Curve, colour: str) -> None:
    """Draw the runs of a temperature pale, their mean, and what was fitted."""
    for run in curve.runs if len(curve.runs) > 1 else ():
        axes.plot(curve.lags, run, color=colour, linewidth=0.6, alpha=0.35)
    axes.plot(curve.lags, curve.mean, color=colour, label=f' {curve.label}')
    if curve.window is not None and curve.line is not None:
        ends = np.array(curve.window)
        values = curve.line[0] * ends + curve.line[1]
        axes.plot(ends, values, color=INK, linewidth=1.0, linestyle=(0, (4, 1.6)))
        axes.plot(ends, values, 'o', mfc=SURFACE, mec=MUTED, markersize=3.5)
