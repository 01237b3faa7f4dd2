"""The page of a study of diffusion: displacements, coefficients, activation energies and hops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiida_perovmlip.report import tables
from aiida_perovmlip.report.kinds.base import OfChain, beside, result_of
from aiida_perovmlip.report.methods import methods_of
from aiida_perovmlip.report.page import Article, Drawing, Identity, Page, Section, Text, Tile
from aiida_perovmlip.report.sections import last_sections

MEANINGS = {
    'sum': 'summed over the particles of a species, not divided by their number',
    'tracer': 'of one particle, the mean over the species',
    'collective': 'of the centre of all particles, times their number',
}
ACTIVATION = (
    tables.Field('name', 'Study', is_number=False),
    tables.Field('species', 'Species', is_number=False),
    tables.Field('activation_energy', 'Activation energy', 'eV'),
    tables.Field('activation_energy_error', '±', 'eV'),
    tables.Field('prefactor', 'Prefactor', 'cm²/s'),
    tables.Field('prefactor_factor', '×/÷'),
    tables.Field('at_room_temperature', 'D(300 K)', 'cm²/s'),
    tables.Field('at_room_temperature_factor', '×/÷'),
    tables.Field('lower_bound', 'At least', 'eV'),
    tables.Field('n_temperatures', 'Temperatures'),
    tables.Field('n_runs', 'Runs'),
    tables.Field('n_hops', 'Hops'),
    tables.Field('ambiguous', 'Ambiguous', '%', 100.0),
)
COEFFICIENTS = (
    tables.Field('species', 'Species', is_number=False),
    tables.Field('temperature', 'Temperature', 'K'),
    tables.Field('coefficient', 'D', 'cm²/s'),
    tables.Field('error', 'Standard error', 'cm²/s'),
    tables.Field('n_runs', 'Runs'),
    tables.Field('window', 'Window', 'ps', is_number=False),
    tables.Field('lack', 'Remark', is_number=False),
)


class DiffusionKind(OfChain):
    """Pages of studies of diffusion."""

    name = 'diffusion'
    made_of = 'a study of diffusion'
    process = 'perovmlip.diffusion'

    @classmethod
    def page(cls, node: Any, created: str) -> Page:
        """Return all that one study found."""
        found = result_of(node, 'diffusion')
        methods = methods_of([node])
        return Page(
            kind='diffusion',
            title=node.label or f'Diffusion in {found["formula"]}',
            lead=f'Diffusion of {", ".join(found["species"])} in {found["formula"]}, by molecular dynamics.',
            created=created,
            nodes=(Identity('Study', node.uuid, node.pk), Identity('Result', found.uuid, found.pk)),
            tiles=tuple(_tiles([node])),
            sections=(
                Section('activation', 'Activation', tuple(_activation([node]))),
                Section('displacements', 'Displacements', tuple(_displacements(node))),
                *([_lattice(node.outputs.lattice.get_dict())] if 'lattice' in node.outputs else []),
                *last_sections(node, found, methods, 'study'),
            ),
            citations=methods.citations,
        )

    @classmethod
    def comparison(cls, nodes: Sequence[Any], created: str) -> Page:
        """Return the activation energies of several studies."""
        for node in nodes:
            result_of(node, 'diffusion')
        return beside(
            nodes,
            created,
            Section('activation', 'Activation', tuple(_activation(nodes))),
            kind='several studies of diffusion',
            title=f'Diffusion in {len(nodes)} studies',
            lead='Coefficients of diffusion against temperature, side by side.',
        )


def _tiles(nodes: Sequence[Any]) -> Iterator[Tile]:
    from aiida_perovmlip.query.motion import diffusion_records

    for record in diffusion_records(nodes)[:4]:
        if record['activation_energy'] is not None:
            error = record['activation_energy_error']
            value = f'{record["activation_energy"]:.3f}'
            yield Tile(f'Activation, {record["species"]}', value if error is None else f'{value} ± {error:.3f}', 'eV')
        elif record['lower_bound'] is not None:
            yield Tile(f'Activation, {record["species"]}', f'> {record["lower_bound"]:.2f}', 'eV')


def _activation(nodes: Sequence[Any]) -> Iterator[Any]:
    """Yield coefficients against temperature and what was fitted to them, kind by kind."""
    from aiida_perovmlip.query.motion import diffusion_records
    from aiida_perovmlip.report.diffusion import coefficients_of
    from aiida_perovmlip.report.transport import draw_arrhenius

    uuids = [uuid for node in nodes for uuid in (node.uuid, node.outputs.diffusion.uuid)]
    for kind, meaning in MEANINGS.items():
        records = diffusion_records(nodes, kind)
        if not records:
            continue
        series = [each for node in nodes for each in coefficients_of(node, kind, is_alone=len(nodes) == 1)]
        caption = f'Coefficients of diffusion, {meaning}. Small: each run; lines: fits, with one standard error'
        drawn = [Drawing.of(f'arrhenius-{kind}', draw_arrhenius(series), caption, uuids)] if series else []
        table = tables.tabulate(f'table-activation-{kind}', f'Activation, {meaning}', ACTIVATION, records)
        lacks = [f'{each["species"]}: {each["lack"]}' for each in records if each.get('lack')]
        yield Article(
            f'kind-{kind}', kind.capitalize(), (*drawn, *(Text(lack, 'note') for lack in lacks), table), meaning
        )


def _displacements(node: Any) -> Iterator[Any]:
    """Yield displacements against time, the coefficients, and what limits their meaning."""
    from aiida_perovmlip.report.diffusion import curves_of
    from aiida_perovmlip.report.transport import draw_displacements

    found = node.outputs.diffusion
    for name, species in found['species'].items():
        for note in species.get('notes', []):
            yield Text(f'{name}: {note}', 'note')
    for kind in MEANINGS:
        panels = curves_of(node, kind)
        if panels:
            caption = f'Displacements squared ({kind}) of {", ".join(panels)}; thin lines: the fits, in their windows'
            uuids = [node.uuid, found.uuid, node.outputs.msd.uuid]
            yield Drawing.of(f'msd-{kind}', draw_displacements(panels), caption, uuids)
            break
    rows = [
        {**row, 'species': name, 'window': _window(row), 'lack': row.get('lack') or ''}
        for name, species in found['species'].items()
        for row in species.get('sum', {}).get('temperatures', [])
    ]
    if rows:
        yield tables.tabulate('table-coefficients', 'Coefficients at each temperature (sum)', COEFFICIENTS, rows)


def _window(row: Mapping[str, Any]) -> str:
    window = row.get('window') or {}
    return f'{window["begin"]:g} to {window["end"]:g}' if window else ''


def _lattice(found: Mapping[str, Any]) -> Section:
    """Return the lattice constants as they were used."""
    rows = [{'name': name, 'value': value} for name, value in tables.flatten(found)]
    fields = (tables.Field('name', 'Name', is_number=False), tables.Field('value', 'Value', is_number=False))
    about = Text('Lattice constants in Å at temperatures in K, as the runs were given them.', 'muted')
    return Section('lattice', 'Lattice', (about, tables.tabulate('table-lattice', 'Lattice constants', fields, rows)))
