"""The page of a phase map: ramps, the diagram over composition, and the motion of the modes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiida_perovmlip.report import tables
from aiida_perovmlip.report.kinds.base import OfChain, result_of
from aiida_perovmlip.report.methods import methods_of
from aiida_perovmlip.report.page import Drawing, Identity, Page, Section, Text, Tile
from aiida_perovmlip.report.quantities import write_number_of
from aiida_perovmlip.report.sections import last_sections

RAMPS = (
    tables.Field('formula', 'Composition', is_number=False),
    tables.Field('x', 'x'),
    tables.Field('direction', 'Ramp', is_number=False),
    tables.Field('transitions', 'Transitions', 'K', is_number=False),
    tables.Field('labels', 'Labels', is_number=False),
    tables.Field('share_sure', 'Sure windows', '%', 100.0),
    tables.Field('rate', 'Rate', 'K/ns'),
    tables.Field('n_windows', 'Windows'),
)
MODES = (
    tables.Field('formula', 'Composition', is_number=False),
    tables.Field('kelvin', 'Temperature', 'K'),
    tables.Field('mode', 'Mode', is_number=False),
    tables.Field('kind', 'Motion', is_number=False),
    tables.Field('ratio', 'Damping ratio'),
    tables.Field('interval', 'Interval', is_number=False),
)


class PhaseMapKind(OfChain):
    """Pages of phase maps."""

    name = 'phase_map'
    made_of = 'a phase map'
    process = 'perovmlip.phase_map'

    @classmethod
    def page(cls, node: Any, created: str) -> Page:
        """Return all that a map found."""
        result = result_of(node, 'phases')
        phases = result.get_dict()
        methods = methods_of([node])
        names = list(phases['compositions'])
        return Page(
            kind='a phase map',
            title=node.label or f'Phases of {", ".join(names[:3])}{" and others" if len(names) > 3 else ""}',
            lead=f'Phases of {write_number_of(len(names), "composition")} over temperature, by ramps of '
            'molecular dynamics and the amplitudes of the tilts M and R.',
            created=created,
            nodes=(Identity('Map', node.uuid, node.pk), Identity('Result', result.uuid, result.pk)),
            tiles=tuple(_tiles(phases)),
            sections=(
                Section('ramps', 'Ramps', tuple(_ramps(node, phases))),
                Section('diagram', 'Diagram', tuple(_diagram(node, phases))),
                *([Section('modes', 'Modes', tuple(_modes(node, phases)))] if phases['modes'] else []),
                *last_sections(node, result, methods, 'map'),
            ),
            citations=methods.citations,
        )


def _tiles(phases: Mapping[str, Any]) -> Iterator[Tile]:
    for formula, entry in list(phases['compositions'].items())[:2]:
        for direction, told in entry['ramps'].items():
            for place in told['transitions'][:1]:
                yield Tile(f'{formula}, {direction}', _place(place), 'K')
    if phases['boundary']:
        found = phases['boundary']
        yield Tile('Boundary', f'{found["centre"]:.3f} ± {found["error"]:.3f}', phases['axis'])


def _place(transition: Mapping[str, Any]) -> str:
    return f'{transition["temperature"]:.0f} ± {transition["error"]:.0f}'


def _uuids(node: Any) -> list[str]:
    return [node.uuid, node.outputs.phases.uuid, node.outputs.curves.uuid]


def _ramps(node: Any, phases: Mapping[str, Any]) -> Iterator[Any]:
    """Yield lattice constants and tilts against temperature, and what limits their meaning."""
    from aiida_perovmlip.report.phase_map import some_columns
    from aiida_perovmlip.report.ramps import draw_ramps

    for warning in phases['warnings']:
        yield Text(warning, 'note')
    columns = some_columns(node)
    caption = f'Lattice constants and tilts of {", ".join(each.title for each in columns)} against temperature'
    yield Drawing.of('ramp-curves', draw_ramps(columns), caption, _uuids(node))
    rows = [
        {
            **told,
            'formula': formula,
            'x': float(entry['x']),
            'direction': direction,
            'labels': ', '.join(dict.fromkeys(told['window_labels'])),
            'transitions': ', '.join(map(_place, told['transitions'])),
        }
        for formula, entry in phases['compositions'].items()
        for direction, told in entry['ramps'].items()
    ]
    yield tables.tabulate('table-ramps', 'Ramps', RAMPS, rows)


def _diagram(node: Any, phases: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the phases over composition, and the boundary or why there is none."""
    from aiida_perovmlip.report.phase_map import columns_of, lines_of
    from aiida_perovmlip.report.ramps import draw_diagram

    found = phases['boundary']
    boundary = None if found is None else (found['centre'], found['error'])
    figure = draw_diagram(columns_of(node), lines_of(node), boundary, phases['axis'])
    yield Drawing.of(
        'phase-diagram',
        figure,
        f'Phases of {write_number_of(len(phases["compositions"]), "composition")} over temperature',
        _uuids(node),
    )
    if phases['no_boundary']:
        yield Text(f'There is no boundary: {phases["no_boundary"]}', 'muted')


def _modes(node: Any, phases: Mapping[str, Any]) -> Iterator[Any]:
    """Yield how the modes are damped, and their autocorrelations."""
    from aiida_perovmlip.report.phase_map import damping_of, oscillations_of
    from aiida_perovmlip.report.ramps import draw_oscillations

    yield Drawing.of(
        'damping',
        damping_of(node),
        f'Damping of M and R in {write_number_of(len(phases["modes"]), "run")}',
        _uuids(node),
    )
    rows = [
        {
            'formula': entry['formula'],
            'kelvin': entry['kelvin'],
            'mode': mode.upper(),
            'kind': entry[mode]['kind'],
            'ratio': entry[mode]['ratio'],
            'interval': ' to '.join(f'{each:.3g}' for each in entry[mode]['ratio_interval']),
        }
        for entry in phases['modes']
        for mode in ('m', 'r')
    ]
    yield tables.tabulate('table-modes', 'Motion of the modes', MODES, rows)
    for mode in ('m', 'r'):
        lines = oscillations_of(node, mode)
        if lines:
            runs = write_number_of(len(lines), 'run')
            caption = f'Autocorrelation of {mode.upper()} in {runs}, with the fits of a damped oscillator'
            yield Drawing.of(f'oscillations-{mode}', draw_oscillations(lines), caption, _uuids(node))
