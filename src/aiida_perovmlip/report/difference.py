"""Pictures of how forces of two levels of theory differ: densities, and the elements of the periodic table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.report.profiles import save_figure
from aiida_perovmlip.report.style import INK, MUTED, RULE, SERIES, SETTINGS, SURFACE, scale_by_powers

BINS_TOGETHER = 10
"""Bins of a histogram of differences that are drawn as one: ten to a decade."""

NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)
FIRST_OF_F_BLOCK = {6: 57, 7: 89}
"""The first element of the f block of a period; its fourteen elements stand below the others."""


def write_differences(differences: Mapping[str, Mapping[str, Any]], path: str | Path) -> Path:
    """Write the densities of the lengths of differences of forces (SVG, PDF or PNG), a line each.

    :param differences: what `label_difference` returned, by the name of its line.
    """
    lines = {name: density_of(found['arrays']) for name, found in differences.items()}
    uuids = [node.uuid for found in differences.values() for node in found.values()]
    description = f'Densities of differences of forces: {", ".join(lines)}'
    save_figure(draw_densities(lines), path, description, uuids)
    return Path(path)


def write_elements(difference: Mapping[str, Any], path: str | Path) -> Path:
    """Write the mean length of the differences of forces of each element as a periodic table (SVG, PDF or PNG).

    :param difference: what `label_difference` returned.
    """
    per_element = difference['summary']['forces_per_element']
    means = {symbol: float(found['mean_norm']) for symbol, found in per_element.items()}
    uuids = [node.uuid for node in difference.values()]
    save_figure(draw_elements(means), path, f'Mean differences of forces of {", ".join(means)}', uuids)
    return Path(path)


def density_of(arrays: Any) -> tuple[Array, Array]:
    """Return the lengths in eV/Å (n,) and the part of all atoms in a decade around each (n,).

    :param arrays: with `edges` and `counts` of `analysis.force_difference.Histograms`.
    """
    edges, counts = arrays.get_array('edges'), arrays.get_array('counts')[1:-1]
    joined = counts.reshape(-1, BINS_TOGETHER).sum(axis=1)
    borders = edges[::BINS_TOGETHER]
    width = np.diff(np.log10(borders))
    return np.sqrt(borders[1:] * borders[:-1]), joined / max(1, int(arrays.get_array('counts').sum())) / width


def draw_densities(lines: Mapping[str, tuple[Array, Array]]) -> Any:
    """Return a figure of densities over a logarithmic axis."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(5.4, 3.2), layout='constrained')
        axes = figure.add_subplot()
        for number, (name, (lengths, density)) in enumerate(lines.items()):
            seen = np.flatnonzero(density)
            shown = slice(max(0, seen[0] - 1), seen[-1] + 2) if len(seen) else slice(0)
            # A leading blank, because matplotlib hides labels that begin with an underscore.
            axes.plot(lengths[shown], density[shown], color=SERIES[number % len(SERIES)], label=f' {name}')
        scale_by_powers(axes, 'x')
        axes.set_xlabel('Length of the difference of forces (eV/Å)')
        axes.set_ylabel('Part of the atoms in a decade')
        axes.set_ylim(bottom=0)
        axes.legend(loc='best')
        return figure


def draw_elements(values: Mapping[str, float]) -> Any:
    """Return a periodic table whose known elements are coloured by a value in eV/Å."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    colours = LinearSegmentedColormap.from_list('differences', [SURFACE, SERIES[0]])
    scale = Normalize(0.0, max(values.values(), default=1.0) or 1.0)
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(7.2, 4.0), layout='constrained')
        axes = figure.add_subplot()
        for symbol, number in atomic_numbers.items():
            if not 1 <= number <= 103:
                continue
            row, column = place_of(number)
            known = values.get(symbol)
            colour = 'none' if known is None else colours(scale(known))
            axes.add_patch(Rectangle((column, row), 0.94, 0.94, facecolor=colour, edgecolor=RULE))
            dark = known is not None and scale(known) > 0.6
            style: dict[str, Any] = {
                'ha': 'center',
                'va': 'center',
                'color': SURFACE if dark else INK if known is not None else MUTED,
            }
            axes.text(column + 0.47, row + (0.34 if known is not None else 0.47), symbol, fontsize=7.5, **style)
            if known is not None:
                axes.text(column + 0.47, row + 0.7, f'{1e3 * known:.0f}', fontsize=5.5, **style)
        axes.set(xlim=(-0.1, 18.1), ylim=(9.6, -0.1), aspect='equal')
        axes.set_axis_off()
        axes.set_title('Mean length of the difference of forces (meV/Å)')
        return figure


def place_of(number: int) -> tuple[float, int]:
    """Return row and column of an element in the periodic table, counted from 0; the f block is below."""
    period = sum(number > last for last in NOBLE_GASES)
    before = (0, *NOBLE_GASES)[period]
    first_of_f = FIRST_OF_F_BLOCK.get(period + 1)
    if first_of_f is not None and first_of_f <= number < first_of_f + 14:
        return period + 2.3, number - first_of_f + 2
    left = number - before - 1
    size = NOBLE_GASES[period] - before
    if left < 2 and number != 2:
        return float(period), left
    return float(period), 18 - (size - left)
