"""What a drawn figure says in numbers: to whoever points at it, and to whoever wants to draw it anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from aiida_perovmlip.report.contents import Array

Readout = Sequence[dict[str, Any]]
"""For each pair of axes its box in the drawing, its limits, its labels and its series."""

POINTS = 72.0
"""Units of an SVG in an inch of a figure."""

MOST = 4000
"""Points of a series that a page reads out; of more, as many are taken at even distances."""

DIGITS = 6


def readout_of(figure: Any) -> Readout:
    """Return the axes of a figure that show points or lines, as plain values."""
    figure.draw_without_rendering()
    width, height = (POINTS * side for side in figure.get_size_inches())
    found = []
    for axes in figure.axes:
        series = [
            [label, *([_rounded(each) for each in column[_even(len(column))]] for column in (x, y))]
            for label, x, y in series_of(axes)
        ]
        if not series or not axes.axison:
            continue
        box = axes.get_position()
        found.append(
            {
                'size': [round(width, 2), round(height, 2)],
                'box': [round(each, 2) for each in (box.x0 * width, (1 - box.y1) * height,
                                                    box.x1 * width, (1 - box.y0) * height)],
                'x': _scale_of(axes.xaxis, axes.get_xlim()),
                'y': _scale_of(axes.yaxis, axes.get_ylim()),
                'series': series,
            }
        )  # fmt: skip
    return found


def series_of(axes: Any) -> Iterator[tuple[str, Array, Array]]:
    """Yield label, x and y of all lines and markers; those that the legend explains by another have its label."""
    known = {_look(line): line.get_label().strip() for line in axes.lines if not line.get_label().startswith('_')}
    for line in axes.lines:
        x, y = (np.asarray(each, dtype=float) for each in line.get_data())
        if len(x) == 0 or line.get_transform() != axes.transData:  # lines across the axes show no data
            continue
        label = line.get_label()
        yield (known.get(_look(line), '') if label.startswith('_') else label.strip()), *_finite(x, y)
    for points in axes.collections:
        offsets = np.asarray(points.get_offsets(), dtype=float)
        if type(points).__name__ == 'PathCollection' and len(offsets):
            label = str(points.get_label())
            yield ('' if label.startswith('_') else label.strip()), *_finite(*offsets.T)


def _look(line: Any) -> tuple[str, str]:
    """Return what a reader recognises a line by."""
    return str(line.get_color()), str(line.get_marker())


def _finite(x: Array, y: Array) -> tuple[Array, Array]:
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


def _even(count: int) -> Array:
    return np.arange(count) if count <= MOST else np.linspace(0, count - 1, MOST).round().astype(int)


def _scale_of(axis: Any, limits: Sequence[float]) -> dict[str, Any]:
    """Return limits, scale, label and, where they are words, the ticks of an axis."""
    from matplotlib.ticker import FixedFormatter

    found: dict[str, Any] = {
        'limits': [float(each) for each in limits],
        'is_log': axis.get_scale() == 'log',
        'label': str(axis.get_label_text()),
    }
    if isinstance(axis.get_major_formatter(), FixedFormatter):
        words = [str(word) for word in axis.get_major_formatter().seq]
        found['words'] = dict(zip((f'{place:g}' for place in axis.get_ticklocs()), words, strict=False))
    return found


def _rounded(value: float) -> float:
    return float(f'{value:.{DIGITS}g}')


def rows_of(figure: Any) -> Iterator[dict[str, Any]]:
    """Yield each drawn point with the labels of its axes and of its series, as it was given."""
    for number, axes in enumerate(figure.axes, start=1):
        for label, xs, ys in series_of(axes):
            for x, y in zip(xs, ys, strict=True):
                yield {
                    'panel': number,
                    'x_label': axes.get_xlabel(),
                    'y_label': axes.get_ylabel(),
                    'series': label,
                    'x': float(x),
                    'y': float(y),
                }
