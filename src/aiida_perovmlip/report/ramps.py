"""Plots of phases: what changes along ramps, phase diagrams, and how modes are damped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aiida_perovmlip.report.contents import Array
from aiida_perovmlip.report.style import INK, MARKERS, MUTED, RULE, SERIES, SETTINGS, SURFACE, scale_by_powers

COLOURS = {
    'a0a0a0': RULE,
    'a0a0c-': SERIES[0],
    'a0a0c+': SERIES[1],
    'a-a-c+': SERIES[2],
    'mixed': SERIES[3],
}
"""Colours of labels; what else there is has the next ones."""

OTHERS = SERIES[4:]
AXES = ('a', 'b', 'c')
FAINT = 0.25
FEW = 6
"""Compositions that have a tick each."""

REGIONS = {
    ('underdamped', 'underdamped'): ('both underdamped', 'o', SERIES[5]),
    ('overdamped', 'underdamped'): ('M alone overdamped', 's', SERIES[1]),
    ('underdamped', 'overdamped'): ('R alone overdamped', 'D', SERIES[0]),
    ('overdamped', 'overdamped'): ('both overdamped', '^', SERIES[3]),
}
"""What M and R are, in this order, with name, marker and colour."""


@dataclass(frozen=True)
class RampLines:
    """What changes along one ramp, by rising temperature.

    :param direction: `heating` or `cooling`.
    :param temperatures: (n,) in K.
    :param lengths: (n, 3) pseudo-cubic lattice constants in Å.
    :param m: (n, 3) activations of M in Å per halide.
    :param r: (n, 3) of R.
    :param labels: (n,) tilt systems.
    :param confidences: (n,), not a number where unknown.
    :param transitions: temperature and error in K of each transition.
    """

    direction: str
    temperatures: Array
    lengths: Array
    m: Array
    r: Array
    labels: tuple[str, ...]
    confidences: Array
    transitions: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Column:
    """All ramps of one composition."""

    title: str
    x: float
    ramps: tuple[RampLines, ...]


@dataclass(frozen=True)
class DiagramLine:
    """One kind of transition over x: compositions, temperatures and errors in K."""

    label: str
    direction: str
    x: Array
    temperatures: Array
    errors: Array


@dataclass(frozen=True)
class Motion:
    """How the modes of one composition are damped at one temperature.

    :param ratios: Γ / 2ω₀ of M and of R.
    :param intervals: of each, the smallest and largest with 95 %.
    :param kinds: of each `underdamped`, `overdamped` or `undecided`.
    """

    title: str
    x: float
    temperature: float
    ratios: tuple[float, float]
    intervals: tuple[tuple[float, float], tuple[float, float]]
    kinds: tuple[str, str]


@dataclass(frozen=True)
class Oscillation:
    """The autocorrelation of a mode and its fit: times (n,) in ps, both (n,) over their value at zero."""

    title: str
    lags: Array = field(repr=False)
    correlation: Array = field(repr=False)
    fit: Array = field(repr=False)


def draw_ramps(columns: Sequence[Column]) -> Any:
    """Return a figure with a column for each composition: lattice, M, R and labels against temperature.

    Heating is drawn with full lines and cooling with broken ones; the axes of the cell have a colour and a marker each.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        count = max(1, len(columns))
        figure = Figure(figsize=(1.4 + 3.4 * count, 7.2), layout='constrained')
        grid = figure.add_gridspec(4, count, height_ratios=[1.0, 1.0, 1.0, 0.34])
        names = sorted({label for column in columns for ramp in column.ramps for label in ramp.labels})
        for number, column in enumerate(columns):
            rows = [figure.add_subplot(grid[row, number]) for row in range(4)]
            _draw_column(rows, column, is_first=number == 0)
        n_columns = min(3 * max(1, len(columns)), max(1, len(names)), 6)  # more would reach over the border
        figure.legend(handles=_label_handles(names), loc='outside lower center', ncols=n_columns)
        return figure


def _draw_column(rows: Sequence[Any], column: Column, is_first: bool) -> None:
    """Draw one composition."""
    names = ('Lattice constant (Å)', 'M (Å per halide)', 'R (Å per halide)')
    for axes, name, what in zip(rows, names, ('lengths', 'm', 'r'), strict=False):
        for ramp in column.ramps:
            _draw_ramp(axes, ramp, getattr(ramp, what), is_named=axes is rows[0])
        axes.tick_params(labelbottom=False)
        axes.set_ylabel(name if is_first else '')
    for axes in rows[1:3]:
        axes.set_ylim(0.0, _highest(column))
    _draw_labels(rows[3], column.ramps)
    rows[0].set_title(column.title)
    rows[0].legend(loc='best', ncols=2)
    limits = [float(edge(ramp.temperatures)) for ramp in column.ramps for edge in (np.min, np.max)]
    for axes in rows:
        axes.set_xlim(min(limits), max(limits))
    rows[3].set_xlabel('Temperature (K)')


def _highest(column: Column) -> float:
    """Return one upper limit for M and R, so that they can be compared."""
    return 1.08 * max([0.05, *(float(values.max()) for ramp in column.ramps for values in (ramp.m, ramp.r))])


def _draw_ramp(axes: Any, ramp: RampLines, values: Array, is_named: bool) -> None:
    """Draw a quantity of the three axes along a ramp, and where its transitions are."""
    is_heating = ramp.direction == 'heating'
    style = '-' if is_heating else (0, (3, 1.6))
    for axis, name in enumerate(AXES):
        colour = SERIES[axis]
        axes.plot(
            ramp.temperatures,
            values[:, axis],
            linestyle=style,
            marker=MARKERS[axis],
            markersize=3.0,
            markevery=max(1, len(ramp.temperatures) // 12),
            mfc=colour if is_heating else SURFACE,
            color=colour,
            linewidth=1.2,
            label=f' {name}, {ramp.direction}' if is_named else None,
        )
    for place, error in ramp.transitions:
        axes.axvline(place, color=MUTED, linewidth=0.9, linestyle=style, zorder=1)
        axes.axvspan(place - error, place + error, color=MUTED, alpha=0.12, linewidth=0, zorder=0)


def _draw_labels(axes: Any, ramps: Sequence[RampLines]) -> None:
    """Draw the labels of all windows as stripes, pale where they are not sure."""
    for row, ramp in enumerate(ramps):
        edges = _edges(ramp.temperatures)
        for number, label in enumerate(ramp.labels):
            sure = ramp.confidences[number]
            alpha = 1.0 if not np.isfinite(sure) else FAINT + (1 - FAINT) * float(sure)
            width = edges[number + 1] - edges[number]
            axes.barh(row, width, left=edges[number], height=0.8, color=_colour_of(label), alpha=alpha, linewidth=0)
    axes.set_yticks(range(len(ramps)), [ramp.direction for ramp in ramps])
    axes.set_ylim(-0.5, len(ramps) - 0.5)
    axes.grid(visible=False)


def _edges(places: Array) -> Array:
    """Return the edges (n + 1,) between places, as far outside at both ends as inside."""
    if len(places) < 2:
        return np.array([places[0] - 1.0, places[0] + 1.0])
    between = (places[1:] + places[:-1]) / 2
    return np.concatenate([[2 * places[0] - between[0]], between, [2 * places[-1] - between[-1]]])


def _colour_of(label: str) -> str:
    """Return the colour of a tilt system."""
    return COLOURS.get(label, OTHERS[sum(map(ord, label)) % len(OTHERS)])


def _label_handles(names: Sequence[str]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(color=_colour_of(name), label=f' {name}') for name in names]


def draw_diagram(
    columns: Sequence[Column],
    lines: Sequence[DiagramLine],
    boundary: tuple[float, float] | None = None,
    axis: str = 'x',
) -> Any:
    """Return a phase diagram: the labels of all windows, the transitions, and the boundary between both tilts.

    Heating is on the left of each composition and cooling on the right.

    :param boundary: its x and the error of it.
    :param axis: what x is the fraction of.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(5.6, 4.4), layout='constrained')
        axes = figure.add_subplot()
        spacing = _spacing([column.x for column in columns])
        for column in columns:
            for ramp in column.ramps:
                _draw_strip(axes, column.x, ramp, spacing)
        for number, line in enumerate(lines):
            _draw_line(axes, line, number, spacing)
        if boundary is not None:
            centre, error = boundary
            axes.axvspan(centre - error, centre + error, color=MUTED, alpha=0.2, linewidth=0)
            axes.axvline(centre, color=INK, linewidth=1.2, label=f' boundary at {centre:.3f} ± {error:.3f}')
        names = sorted({label for column in columns for ramp in column.ramps for label in ramp.labels})
        found, _ = axes.get_legend_handles_labels()
        figure.legend(handles=[*_label_handles(names), *found], loc='outside right upper')
        axes.set_xlim(min(column.x for column in columns) - spacing, max(column.x for column in columns) + spacing)
        if len(columns) <= FEW:
            axes.set_xticks([column.x for column in columns])
        axes.set_xlabel(f'Fraction of {axis}')
        axes.set_ylabel('Temperature (K)')
        axes.grid(visible=False)
        return figure


def _spacing(xs: Sequence[float]) -> float:
    """Return half of the smallest distance of compositions."""
    places = np.unique(xs)
    return 0.5 * float(np.diff(places).min()) if len(places) > 1 else 0.5


def _draw_strip(axes: Any, x: float, ramp: RampLines, spacing: float) -> None:
    """Draw the labels of a ramp as a column of boxes."""
    edges, width = _edges(ramp.temperatures), 0.42 * spacing
    left = x - width if ramp.direction == 'heating' else x
    for number, label in enumerate(ramp.labels):
        height = edges[number + 1] - edges[number]
        axes.bar(left, height, width=width, bottom=edges[number], align='edge', color=_colour_of(label), alpha=0.75)


def _draw_line(axes: Any, line: DiagramLine, number: int, spacing: float) -> None:
    """Draw one kind of transition with its errors."""
    is_heating = line.direction == 'heating'
    side = -0.21 * spacing if is_heating else 0.21 * spacing
    axes.errorbar(
        line.x + side,
        line.temperatures,
        yerr=line.errors,
        fmt=MARKERS[number % len(MARKERS)],
        linestyle='-' if is_heating else (0, (3, 1.6)),
        color=INK,
        mfc=INK if is_heating else SURFACE,
        markersize=5.0,
        linewidth=1.0,
        capsize=2.5,
        label=f' {line.label}, {line.direction}',
    )


def draw_damping(motions: Sequence[Motion]) -> Any:
    """Return a figure of Γ / 2ω₀ against temperature, a panel for M and one for R, a colour for each composition."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(7.0, 3.4), layout='constrained')
        panels = figure.subplots(1, 2, sharey=True)
        titles = list(dict.fromkeys(each.title for each in motions))
        for mode, (axes, name) in enumerate(zip(panels, ('M', 'R'), strict=True)):
            for number, title in enumerate(titles):
                own = sorted((each for each in motions if each.title == title), key=lambda each: each.temperature)
                _draw_ratios(axes, own, mode, number)
            axes.axhline(1.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            scale_by_powers(axes)
            axes.set_title(name)
            axes.set_xlabel('Temperature (K)')
        panels[0].set_ylabel('Γ / 2ω₀, overdamped above 1')
        panels[0].legend(loc='best')
        return figure


def _draw_ratios(axes: Any, motions: Sequence[Motion], mode: int, number: int) -> None:
    """Draw the ratios of one mode of a composition; open where nothing is decided."""
    colour, marker = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
    kelvins = np.array([each.temperature for each in motions])
    ratios = np.array([each.ratios[mode] for each in motions])
    limits = np.array([each.intervals[mode] for each in motions])
    below, above = np.clip(ratios - limits[:, 0], 0, None), np.clip(limits[:, 1] - ratios, 0, None)
    axes.errorbar(kelvins, ratios, yerr=np.stack([below, above]), color=colour, linewidth=1.2, capsize=2.5)
    decided = np.array([each.kinds[mode] != 'undecided' for each in motions])
    axes.plot(kelvins[decided], ratios[decided], marker, color=colour, markersize=5.5)
    axes.plot(kelvins[~decided], ratios[~decided], marker, mfc=SURFACE, mec=colour, markersize=5.5)
    axes.plot([], [], marker=marker, color=colour, label=f' {motions[0].title}')


def draw_regions(motions: Sequence[Motion], axis: str = 'x') -> Any:
    """Return a map over composition and temperature of which modes are overdamped.

    :param axis: what x is the fraction of.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(5.0, 3.8), layout='constrained')
        axes = figure.add_subplot()
        for kinds, (name, marker, colour) in REGIONS.items():
            own = [each for each in motions if each.kinds == kinds]
            if own:
                places = ([each.x for each in own], [each.temperature for each in own])
                axes.plot(*places, marker, color=colour, linestyle='none', markersize=7.0, label=f' {name}')
        rest = [each for each in motions if each.kinds not in REGIONS]
        if rest:
            places = ([each.x for each in rest], [each.temperature for each in rest])
            axes.plot(*places, 'o', mfc=SURFACE, mec=MUTED, linestyle='none', markersize=7.0, label=' undecided')
        axes.set_xlabel(f'Fraction of {axis}')
        axes.set_ylabel('Temperature (K)')
        axes.legend(loc='best')
        return figure


def draw_oscillations(oscillations: Sequence[Oscillation]) -> Any:
    """Return a figure of autocorrelations and their fits."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(5.0, 3.6), layout='constrained')
        axes = figure.add_subplot()
        for number, each in enumerate(oscillations):
            colour = SERIES[number % len(SERIES)]
            axes.plot(each.lags, each.correlation, '.', color=colour, markersize=3.0, label=f' {each.title}')
            axes.plot(each.lags, each.fit, color=colour, linewidth=1.2)
        axes.axhline(0.0, color=MUTED, linewidth=0.8)
        axes.set_xlabel('Time (ps)')
        axes.set_ylabel('Autocorrelation')
        axes.legend(loc='best')
        return figure
