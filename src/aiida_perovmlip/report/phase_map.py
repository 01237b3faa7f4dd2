"""From phase maps in the provenance graph to their pictures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.launch import table
from aiida_perovmlip.report.profiles import save_figure
from aiida_perovmlip.report.ramps import (
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

MOST_COLUMNS = 6
"""Compositions that one picture of ramps shows unless it is told which."""


def describe_map(node: Any) -> str:
    """Return labels, transitions, the boundary, how the modes are damped, and the warnings, as text.

    :param node: the node of a `PhaseMapWorkChain`.
    """
    phases = node.outputs.phases.get_dict()
    lines: list[str] = []
    for formula, entry in phases['compositions'].items():
        lines.append(f'\n{formula}, {entry["n_atoms"]} atoms, by rising temperature:')
        for direction, ramp in entry['ramps'].items():
            lines.append(f'  {direction} at {ramp["rate"]:.3g} K/ns: {", ".join(ramp["labels"])}')
        rows = [
            (f'{each["low"]} to {each["high"]}', *(_with_error(each, name) for name in ('heating', 'cooling', 'width')))
            for each in entry['transitions']
        ]
        lines += ['', table(('transition', 'heating (K)', 'cooling (K)', 'hysteresis (K)'), rows)]
    boundary = phases['boundary']
    if boundary is not None:
        lines.append(f'\nBoundary of M and R at x = {boundary["centre"]:.2f} ± {boundary["error"]:.2f}')
    if phases['modes']:
        lines.append('\nModes, Γ / 2ω₀ with 95 % of the bootstrap, and the slow relaxation time:\n')
        lines.append(table(('T (K)', 'mode', 'Γ / 2ω₀', 'damping', 'τ (ps)'), list(_rows_of_modes(phases['modes']))))
    lines += [f'\nWarning: {warning}' for warning in phases['warnings']]
    return '\n'.join(lines)


def _with_error(row: Mapping[str, Any], name: str) -> str:
    return '–' if row[name] is None else f'{row[name]:.0f} ± {row[f"{name}_error"]:.0f}'


def _rows_of_modes(modes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each mode at each temperature."""
    for entry in modes:
        for mode in ('m', 'r'):
            fit = entry[mode]
            low, high = fit['ratio_interval']
            ratio = f'{fit["ratio"]:.2f} ({low:.2f}–{high:.2f})'
            yield f'{entry["kelvin"]:g}', mode.upper(), ratio, fit['kind'], f'{fit["relaxation"]:.2f}'


def write_ramps(node: Any, path: str | Path, compositions: Sequence[str] | None = None) -> Path:
    """Write the picture of lattice constants, M and R against temperature (SVG, PDF or PNG).

    :param node: the node of a `PhaseMapWorkChain`.
    :param compositions: which of them; None takes all, or the ends and some between where they are many.
    """
    columns = some_columns(node, compositions)
    description = f'Lattice constants and tilts of {", ".join(column.title for column in columns)} against temperature'
    save_figure(draw_ramps(columns), path, description, _uuids(node))
    return Path(path)


def write_diagram(node: Any, path: str | Path) -> Path:
    """Write the phase diagram: labels, transitions and boundary over composition and temperature.

    :param node: the node of a `PhaseMapWorkChain`.
    """
    phases = node.outputs.phases.get_dict()
    found = phases['boundary']
    boundary = None if found is None else (found['centre'], found['error'])
    figure = draw_diagram(columns_of(node), lines_of(node), boundary, phases['axis'])
    save_figure(figure, path, f'Phases of {len(phases["compositions"])} compositions over temperature', _uuids(node))
    return Path(path)


def write_damping(node: Any, path: str | Path) -> Path:
    """Write how the modes are damped: over composition and temperature, or over temperature where there are few.

    :param node: the node of a `PhaseMapWorkChain`.
    """
    save_figure(damping_of(node), path, f'Damping of M and R in {len(motions_of(node))} runs', _uuids(node))
    return Path(path)


def write_oscillations(node: Any, path: str | Path, labels: Sequence[str] | None = None, mode: str = 'r') -> Path:
    """Write autocorrelations of a mode with their fits.

    :param node: the node of a `PhaseMapWorkChain`.
    :param labels: names of its outputs `correlations`; None takes all.
    :param mode: `m` or `r`.
    """
    known = dict(node.outputs.correlations)
    lines = oscillations_of(node, mode, labels)
    uuids = [*_uuids(node), *(known[label].uuid for label in labels or known)]
    save_figure(draw_oscillations(lines), path, f'Autocorrelation of {mode.upper()} in {len(lines)} runs', uuids)
    return Path(path)


def some_columns(node: Any, compositions: Sequence[str] | None = None) -> list[Column]:
    """Return the ramps of compositions: of those that are named, or of all, or of some where these are many."""
    columns = columns_of(node)
    if compositions is not None:
        return [_named(columns, name) for name in compositions]
    if len(columns) <= MOST_COLUMNS:
        return columns
    chosen = np.unique(np.linspace(0, len(columns) - 1, MOST_COLUMNS).round().astype(int))
    return [columns[index] for index in chosen]


def damping_of(node: Any) -> Any:
    """Return the figure of how the modes are damped."""
    motions = motions_of(node)
    if not motions:
        raise ValueError('the map has no run for the modes; give it temperatures by `modes`.')
    is_map = len({motion.x for motion in motions}) > 2
    return draw_regions(motions, node.outputs.phases['axis']) if is_map else draw_damping(motions)


def oscillations_of(node: Any, mode: str = 'r', labels: Sequence[str] | None = None) -> list[Oscillation]:
    """Return the autocorrelation of a mode with its fit, of the runs that are named or of all."""
    known = dict(node.outputs.correlations)
    return [
        Oscillation(
            label.removeprefix('modes_').replace('_', ' '),
            *(known[label].get_array(f'{mode}__{what}') for what in ('lags', 'correlation', 'fit')),
        )
        for label in (known if labels is None else labels)
    ]


def columns_of(node: Any) -> list[Column]:
    """Return the ramps of each composition, by x."""
    phases, curves = node.outputs.phases.get_dict(), node.outputs.curves
    found = []
    for formula, entry in phases['compositions'].items():
        ramps = []
        for direction, told in entry['ramps'].items():
            base = f'{formula.replace(".", "_")}__{direction}'
            arrays = {name: curves.get_array(f'{base}__{name}') for name in ('temperature', 'lengths')}
            m, r = (curves.get_array(f'{base}__{name}_layers') for name in ('m', 'r'))
            sure = [np.nan if each is None else each for each in told['confidences']]
            places = tuple((each['temperature'], each['error']) for each in told['transitions'])
            ramps.append(
                RampLines(
                    direction=direction,
                    temperatures=arrays['temperature'],
                    lengths=arrays['lengths'],
                    m=m,
                    r=r,
                    labels=tuple(told['window_labels']),
                    confidences=np.array(sure, dtype=float),
                    transitions=places,
                )
            )
        found.append(Column(formula, entry['x'], tuple(ramps)))
    return sorted(found, key=lambda column: column.x)


def lines_of(node: Any) -> list[DiagramLine]:
    """Return the transitions over composition."""
    return [
        DiagramLine(
            label=f'{line["low"]} to {line["high"]}',
            direction=line['direction'],
            x=np.array(line['x']),
            temperatures=np.array(line['temperatures']),
            errors=np.array(line['errors']),
        )
        for line in node.outputs.phases['diagram']
    ]


def motions_of(node: Any) -> list[Motion]:
    """Return how the modes are damped in each run for them."""
    return [
        Motion(
            title=entry['formula'],
            x=entry['x'],
            temperature=entry['kelvin'],
            ratios=(entry['m']['ratio'], entry['r']['ratio']),
            intervals=(tuple(entry['m']['ratio_interval']), tuple(entry['r']['ratio_interval'])),
            kinds=(entry['m']['kind'], entry['r']['kind']),
        )
        for entry in node.outputs.phases['modes']
    ]


def _named(columns: Sequence[Column], name: str) -> Column:
    """Return a composition by its name."""
    found = next((column for column in columns if column.title == name), None)
    if found is None:
        known = ', '.join(column.title for column in columns)
        raise ValueError(f'the map has no composition {name!r}; it has {known}.')
    return found


def _uuids(node: Any) -> list[str]:
    return [node.uuid, node.outputs.phases.uuid, node.outputs.curves.uuid]
