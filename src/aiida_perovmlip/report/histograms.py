"""Plot of how the labels of a dataset are distributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aiida_perovmlip.report.contents import Array
from aiida_perovmlip.report.style import SERIES, SETTINGS

BINS = 60
MOST_GROUPS = len(SERIES)


@dataclass
class Histogram:
    """Counts of values by group, between limits that are known beforehand.

    :param limits: smallest and largest value.
    """

    title: str
    limits: tuple[float, float]
    counts: dict[str, Array] = field(default_factory=dict)

    def add(self, group: str, values: Array) -> None:
        """Count the values of some frames of a group."""
        found, _ = np.histogram(values[np.isfinite(values)], bins=self.edges)
        self.counts[group] = self.counts.get(group, np.zeros(BINS, dtype=np.int64)) + found

    @property
    def edges(self) -> Array:
        """Borders of the bins, (BINS + 1,)."""
        low, high = self.limits
        margin = 1e-9 + 1e-6 * abs(high - low)
        return np.linspace(low - margin, high + margin, BINS + 1)

    def columns(self) -> Mapping[str, Any]:
        """Return the counts as columns."""
        edges = self.edges
        return {'from': edges[:-1].tolist(), 'to': edges[1:].tolist(),
                **{group: counts.tolist() for group, counts in self.counts.items()}}  # fmt: skip


def draw_histogram(histogram: Histogram) -> Any:
    """Return a figure of the counts, the groups stacked; the rarest are joined."""
    import matplotlib
    from matplotlib.figure import Figure

    frequent = sorted(histogram.counts, key=lambda name: -int(histogram.counts[name].sum()))
    shown = {name: histogram.counts[name] for name in frequent[: MOST_GROUPS - 1]}
    if rest := frequent[MOST_GROUPS - 1 :]:
        shown[f'{len(rest)} others'] = np.sum([histogram.counts[name] for name in rest], axis=0)
    edges = histogram.edges
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(5.4, 3.2), layout='constrained')
        axes = figure.add_subplot()
        bottom = np.zeros(BINS)
        for number, (name, counts) in enumerate(shown.items()):
            axes.stairs(bottom + counts, edges, baseline=bottom, fill=True, color=SERIES[number], label=f' {name[:24]}')
            bottom = bottom + counts
        middles = 0.5 * (edges[1:] + edges[:-1])
        axes.plot(middles[bottom > 0], bottom[bottom > 0], linestyle='none', marker='', label='_all')
        axes.set_xlabel(histogram.title)
        axes.set_ylabel('Number')
        axes.set_ylim(bottom=0)
        axes.locator_params(axis='x', nbins=6)
        if len(shown) > 1:
            axes.legend(loc='best')
        return figure
