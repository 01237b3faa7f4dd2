"""Plot of the errors of several potentials on several test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida_perovmlip.query.compare import dataset_name
from aiida_perovmlip.report.quantities import shorten
from aiida_perovmlip.report.style import MARKERS, SERIES, SETTINGS, scale_by_powers

PANELS = {'energy_per_atom_rmse': 'Energy RMSE (meV/atom)', 'forces_rmse': 'Forces RMSE (meV/Å)'}
LONGEST = 26


def named(record: Mapping[str, Any]) -> str:
    """Return what to call the potential of a record."""
    return f'{record["potential_label"] or record["architecture"]} ({record["potential"]})'


def draw_errors(records: Sequence[Mapping[str, Any]]) -> Any:
    """Return a figure of errors, a row for each potential and a marker for each test set."""
    import matplotlib
    from matplotlib.figure import Figure

    potentials = list(dict.fromkeys(named(record) for record in records))
    sets = list(dict.fromkeys((dataset_name(record), record['head']) for record in records))
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(9.0, 1.6 + 0.38 * len(potentials)), layout='constrained')
        for number, (name, title) in enumerate(PANELS.items()):
            axes = figure.add_subplot(1, len(PANELS), number + 1)
            for index, (dataset, head) in enumerate(sets):
                found = [
                    (1e3 * record[name], potentials.index(named(record)))
                    for record in records
                    if (dataset_name(record), record['head']) == (dataset, head) and record[name]
                ]
                label = dataset if head.lower() == 'default' else f'{dataset}, {head}'
                axes.plot(
                    [error for error, _ in found],
                    [place for _, place in found],
                    MARKERS[index % len(MARKERS)],
                    color=SERIES[index % len(SERIES)],
                    markersize=7.0,
                    label=f' {shorten(label, LONGEST)}',
                )
            scale_by_powers(axes, 'x')
            axes.set_xlabel(title)
            axes.set_yticks(
                range(len(potentials)), [shorten(each, LONGEST) for each in potentials] if not number else []
            )
            axes.set_ylim(len(potentials) - 0.5, -0.5)
        figure.legend(*axes.get_legend_handles_labels(), loc='outside upper center', ncols=3)
        return figure
