"""The plots of a report as SVG: parity of a quantity, and the course of a training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiida_perovmlip.report.contents import METRIC_OF, Array, Curve, Parity, Quantity
from aiida_perovmlip.report.quantities import (
    milli_of,
    shorten,
    to_number,
    write_count,
    write_number,
    write_number_of,
    write_power,
)
from aiida_perovmlip.report.style import ACCENT, INK, MARKERS, MUTED, RULE, SERIES, SETTINGS, SURFACE

MOST_MARKERS = 5000
"""Above this number of points a density is drawn instead, which is smaller and shows more."""

NAMES: dict[Quantity, str] = {'energy': 'energy', 'forces': 'force component', 'stress': 'stress component'}
_PANELS: tuple[tuple[Quantity, str, str], ...] = (
    ('energy', 'Energy', 'eV/atom'),
    ('forces', 'Forces', 'eV/Å'),
    ('stress', 'Stress', 'eV/Å³'),
)
_MOST_CATEGORIES = len(SERIES)
_DENSITY_STEPS = 8


def draw_parity(parity: Parity, metrics: Mapping[str, Any] | None = None) -> Any:
    """Return a figure of predicted against reference values, with the distribution of their differences.

    :param metrics: errors of all points by name (`rmse`, `mae`, `r2`), in the unit of the parity.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(3.8, 3.7))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        factor, unit = _axis_unit(parity)
        _frame_parity(axes, parity, factor, unit)
        _make_room(axes, 3.8 / 3.7)
        if len(parity.reference):
            _draw_points(axes, parity, factor)
            _draw_residuals(axes, parity)
        _write_errors(axes, parity, metrics or {})
        return figure


def describe_parity(parity: Parity, metrics: Mapping[str, Any] | None = None) -> str:
    """Say in words what the parity plot shows."""
    factor, unit = milli_of(parity.unit)
    rmse = to_number((metrics or {}).get('rmse'))
    error = f'; RMSE {write_number(rmse * factor)} {unit}' if rmse is not None else ''
    count = write_count(parity.n_total or len(parity.reference))
    return f'Predicted against reference {NAMES[parity.quantity]} in {parity.unit} for {count} values{error}'


def _axis_unit(parity: Parity) -> tuple[float, str]:
    """Stress is small in eV/Å³ and read in thousandths; energies and forces are read as they are."""
    return milli_of(parity.unit) if parity.quantity == 'stress' else (1.0, parity.unit)


def _frame_parity(axes: Any, parity: Parity, factor: float, unit: str) -> None:
    """Draw equal axes with the diagonal on which a perfect potential would lie."""
    low, high = _limits(parity, factor)
    axes.set(xlim=(low, high), ylim=(low, high), aspect='equal')
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.set_xlabel(f'Reference {NAMES[parity.quantity]} ({unit})')
    axes.set_ylabel(f'Predicted {NAMES[parity.quantity]} ({unit})')
    axes.ticklabel_format(style='plain', useOffset=False)
    axes.locator_params(nbins=6)
    if (length := _longest_tick(axes)) > 5:
        axes.locator_params(nbins=4)
        # The last of several long numbers would reach over the edge.
        axes.locator_params(axis='x', nbins=4 if length < 8 else 3, prune='upper')


def _longest_tick(axes: Any) -> int:
    """Return the number of characters of the longest number at the axes."""
    ticks = axes.yaxis.get_major_formatter().format_ticks(axes.get_yticks())
    return max((len(tick) for tick in ticks), default=0)


def _make_room(axes: Any, ratio: float) -> None:
    """Place square axes so that the numbers at their left fit; all-electron energies are long.

    :param ratio: width of the figure over its height.
    """
    left, bottom, right = 0.087 + 0.022 * max(4, _longest_tick(axes)), 0.145, 0.98
    axes.set_position((left, bottom, right - left, min(0.83, (right - left) * ratio)))


def _limits(parity: Parity, factor: float) -> tuple[float, float]:
    """Return the interval that holds all values, with a margin."""
    if not len(parity.reference):
        return -1.0, 1.0
    values = np.concatenate([parity.reference, parity.predicted]) * factor
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _draw_points(axes: Any, parity: Parity, factor: float) -> None:
    """Draw markers by category, or a density where there are too many."""
    if len(parity.reference) > MOST_MARKERS:
        _draw_density(axes, parity.reference * factor, parity.predicted * factor)
        return
    size = float(np.clip(160 / math.sqrt(len(parity.reference)), 2.6, 5.0))
    drawn = []
    for label, chosen, colour, marker in _series(parity):
        drawn += axes.plot(
            parity.reference[chosen] * factor,
            parity.predicted[chosen] * factor,
            marker,
            color=colour,
            markersize=size,
            markeredgewidth=0,
            alpha=0.55,
            # A leading blank, because matplotlib hides labels that begin with an underscore.
            label=f' {label}',
        )
    if len(drawn) > 1:
        _draw_legend(axes, drawn)


def _draw_legend(axes: Any, drawn: Sequence[Any]) -> None:
    """Name the categories in the empty corner above the diagonal."""
    legend = axes.legend(
        handles=drawn, loc='upper left', bbox_to_anchor=(0.0, 0.77), handletextpad=0.2, labelspacing=0.3, borderpad=0.2
    )
    for handle in legend.legend_handles:
        handle.set(alpha=1.0, markersize=5.0)


def _series(parity: Parity) -> list[tuple[str, Array, str, str]]:
    """Return label, points, colour and marker of each category, the rare ones joined."""
    if parity.categories is None:
        return [('', np.arange(len(parity.reference)), ACCENT, 'o')]
    counts = Counter(parity.categories)
    frequent = sorted(counts, key=lambda name: (-counts[name], name))
    if len(frequent) > _MOST_CATEGORIES:
        frequent = frequent[: _MOST_CATEGORIES - 1]
    categories = np.array(parity.categories, dtype=object)
    series = [
        (shorten(label, 18), np.flatnonzero(categories == label), SERIES[index], MARKERS[index])
        for index, label in enumerate(sorted(frequent))
    ]
    rest = np.flatnonzero(~np.isin(categories.astype(str), frequent))
    return [*series, ('others', rest, SERIES[-1], MARKERS[-1])] if len(rest) else series


def _draw_density(axes: Any, reference: Array, predicted: Array) -> None:
    """Draw hexagons whose opacity is the logarithm of the number of points, which reads on light and dark paper."""
    from matplotlib.colors import ListedColormap, LogNorm, to_rgb

    opacities = np.linspace(0.28, 1.0, _DENSITY_STEPS)
    colours = ListedColormap([(*to_rgb(ACCENT), opacity) for opacity in opacities])
    extent = (*axes.get_xlim(), *axes.get_ylim())
    cells = axes.hexbin(reference, predicted, gridsize=70, extent=extent, mincnt=1, linewidths=0, cmap=colours)
    most = max(2.0, float(np.max(cells.get_array())))
    cells.set_norm(LogNorm(1.0, most))
    _draw_scale(axes, opacities, most)


def _draw_scale(axes: Any, opacities: Array, most: float) -> None:
    """Say which opacity is how many points."""
    scale = axes.inset_axes((0.045, 0.66, 0.3, 0.026))
    for index, opacity in enumerate(opacities):
        scale.axvspan(index, index + 1, facecolor=ACCENT, alpha=float(opacity), linewidth=0)
    scale.set(xlim=(0, len(opacities)), yticks=[], xticks=[0, len(opacities)])
    scale.set_xticklabels(['1', write_count(most)], fontsize=8)
    scale.set_title('points per cell (log)', fontsize=8, fontweight='normal', pad=3)
    scale.tick_params(length=0, pad=2)
    scale.grid(False)
    for spine in scale.spines.values():
        spine.set_visible(False)


def _draw_residuals(axes: Any, parity: Parity) -> None:
    """Draw how the errors are distributed, with the central 68 % and 95 % shaded."""
    factor, unit = milli_of(parity.unit)
    residuals = (parity.predicted - parity.reference) * factor
    inset = axes.inset_axes((0.595, 0.155, 0.375, 0.2))
    reach = float(np.quantile(np.abs(residuals), 0.99)) * 1.15 or 1.0
    for share, opacity in ((0.95, 0.10), (0.68, 0.16)):
        low, high = np.quantile(residuals, [(1 - share) / 2, (1 + share) / 2])
        inset.axvspan(low, high, facecolor=ACCENT, alpha=opacity, linewidth=0, zorder=0)
    bins = int(np.clip(2 * len(residuals) ** (1 / 3), 9, 45))
    inset.hist(
        residuals, bins=bins, range=(-reach, reach), histtype='stepfilled', color=ACCENT, alpha=0.75, linewidth=0
    )
    inset.axvline(0.0, color=INK, linewidth=0.8)
    inset.set(xlim=(-reach, reach), yticks=[])
    inset.set_xlabel(f'Error ({unit})', fontsize=8, labelpad=1.5)
    inset.set_facecolor((*_rgb(SURFACE), 0.85))
    inset.grid(False)
    inset.spines['left'].set_visible(False)
    inset.tick_params(labelsize=8, pad=2)
    inset.locator_params(axis='x', nbins=4)


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def _write_errors(axes: Any, parity: Parity, metrics: Mapping[str, Any]) -> None:
    """Write the errors of all points into the empty corner."""
    factor, unit = milli_of(parity.unit)
    lines = [
        f'{name.upper()} {write_number(value * factor)} {unit}'
        for name in ('rmse', 'mae')
        if (value := to_number(metrics.get(name))) is not None
    ]
    r2 = to_number(metrics.get('r2'))
    count = f'n = {write_count(parity.n_total or len(parity.reference))}'
    lines.append(f'R² {r2:.4f}, {count}' if r2 is not None else count)
    axes.text(0.035, 0.965, '\n'.join(lines), transform=axes.transAxes, va='top', fontsize=9, linespacing=1.45)


@dataclass(frozen=True)
class _Line:
    """One line of a training curve: steps (n,), values (n,) in the unit of its panel."""

    label: str
    steps: Array
    values: Array
    is_validation: bool = False


@dataclass(frozen=True)
class _Panel:
    """Lines that share an axis."""

    title: str
    axis: str
    lines: tuple[_Line, ...]


def draw_curve(curve: Curve) -> Any:
    """Return a figure of loss and errors against the training step, one panel each, on logarithmic axes."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = _panels(curve)
    with matplotlib.rc_context(dict(SETTINGS)):
        width = 11.8 if len(panels) > 2 else 4.6 * max(1, len(panels))
        layout = ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.04, wspace=0.04)
        figure = Figure(figsize=(width, 3.3), layout=layout)
        for number, panel in enumerate(panels, start=1):
            _draw_panel(figure.add_subplot(1, len(panels), number), panel)
        if not panels:
            figure.text(0.5, 0.5, 'No positive value was recorded.', ha='center', color=MUTED)
        return figure


def describe_curve(curve: Curve) -> str:
    """Say in words what the training curve shows."""
    shown = ', '.join(panel.title.lower() for panel in _panels(curve)) or 'nothing'
    return f'Course of {shown} over {write_number_of(len(curve.steps), "training step")}, on logarithmic axes'


def _panels(curve: Curve) -> tuple[_Panel, ...]:
    """Return the panels for which there are values; RMSE are preferred to MAE."""
    panels = [_Panel('Loss', 'Loss (a. u.)', tuple(_lines(curve, {'Loss': 'loss'}, 1.0)))]
    for quantity, title, unit in _PANELS:
        factor, name = milli_of(unit)
        for kind in ('rmse', 'mae'):
            keys = {part.capitalize(): f'{part}_{METRIC_OF[quantity]}_{kind}' for part in ('training', 'validation')}
            lines = tuple(_lines(curve, keys, factor))
            if lines:
                panels.append(_Panel(title, f'{title} {kind.upper()} ({name})', lines))
                break
    return tuple(panel for panel in panels if panel.lines)


def _lines(curve: Curve, keys: Mapping[str, str], factor: float) -> list[_Line]:
    """Return a line for each key that has a positive value; others have no place on a logarithmic axis."""
    lines = []
    for label, key in keys.items():
        points = [
            (to_number(step.get('step', index)), to_number(step.get(key))) for index, step in enumerate(curve.steps)
        ]
        kept = [(at, value * factor) for at, value in points if at is not None and value is not None and value > 0]
        if kept:
            steps, values = np.array(kept).T
            lines.append(_Line(label, steps, values, label == 'Validation'))
    return lines


def _draw_panel(axes: Any, panel: _Panel) -> None:
    """Draw one panel and mark where validation was best."""
    for line in panel.lines:
        colour = SERIES[1] if line.is_validation else SERIES[0]
        style = {'linestyle': (0, (5, 1.6)), 'marker': 's'} if line.is_validation else {'linestyle': '-', 'marker': 'o'}
        size = 3.2 if len(line.steps) <= 30 else 0.0
        best = f', best {write_number(line.values.min())}' if line.is_validation else ''
        axes.plot(line.steps, line.values, color=colour, markersize=size, label=f'{line.label}{best}', **style)
        if line.is_validation and len(line.steps) > 1:
            _mark_best(axes, line, colour)
    axes.set_yscale('log')
    _write_log_axis(axes, panel)
    if len({step for line in panel.lines for step in line.steps}) == 1:
        axes.set_xlim(panel.lines[0].steps[0] - 1, panel.lines[0].steps[0] + 1)
    axes.set_title(panel.title)
    axes.set_xlabel('Training step')
    axes.set_ylabel(panel.axis)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    if len(panel.lines) > 1:
        axes.legend(loc='upper right')


def _mark_best(axes: Any, line: _Line, colour: str) -> None:
    """Ring the smallest validation error."""
    best = int(np.argmin(line.values))
    axes.plot(line.steps[best], line.values[best], 'o', mfc='none', mec=colour, mew=1.3, markersize=8)


def _write_log_axis(axes: Any, panel: _Panel) -> None:
    """Give a logarithmic axis plain numbers, and more of them where it spans little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = np.concatenate([line.values for line in panel.lines])
    low, high = float(values.min()) / 1.9, float(values.max()) * 1.5
    axes.set_ylim(low, high)
    is_narrow = math.log10(high / low) < 2
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if is_narrow else (1.0,), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(_write_tick))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(which='minor', axis='y', color=RULE, linewidth=0.3)


def _write_tick(value: float, _: Any = None) -> str:
    """Write a tick of a logarithmic axis."""
    exponent = math.floor(math.log10(value) + 1e-9)
    if -3 <= exponent <= 4:
        return f'{value:g}'
    leading = round(value / 10**exponent)
    return write_power(exponent) if leading == 1 else f'{leading}·{write_power(exponent)}'
