"""The page of a validation of barriers: profiles, barriers, and how far potentials are from the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiida_perovmlip.report import tables
from aiida_perovmlip.report.kinds.base import OfChain, beside, result_of
from aiida_perovmlip.report.methods import methods_of
from aiida_perovmlip.report.page import Drawing, Identity, Page, Row, Section, Structure, Text, Tile, Viewer
from aiida_perovmlip.report.quantities import write_number_of
from aiida_perovmlip.report.sections import last_sections

FIELDS = (
    tables.Field('name', 'Path', is_number=False),
    tables.Field('path', 'Of', is_number=False),
    tables.Field('potential', 'Potential', is_number=False),
    tables.Field('forward', 'Forward', 'eV'),
    tables.Field('forward_reference', 'Reference', 'eV'),
    tables.Field('forward_error', 'Error', 'meV', 1e3),
    tables.Field('reverse', 'Reverse', 'eV'),
    tables.Field('reverse_reference', 'Reference', 'eV'),
    tables.Field('reverse_error', 'Error', 'meV', 1e3),
    tables.Field('span', 'Highest − lowest', 'eV'),
    tables.Field('reaction', 'Reaction', 'eV'),
    tables.Field('forces_rmse', 'Forces RMSE', 'meV/Å', 1e3),
)
ERRORS = (
    tables.Field('potential', 'Potential', is_number=False),
    tables.Field('barrier', 'Barrier', is_number=False),
    tables.Field('n', 'Paths'),
    tables.Field('mean', 'Mean error', 'meV', 1e3),
    tables.Field('mae', 'MAE', 'meV', 1e3),
    tables.Field('largest', 'Largest', 'meV', 1e3),
)


class BarriersKind(OfChain):
    """Pages of validations of barriers."""

    name = 'barriers'
    made_of = 'a validation of barriers'
    process = 'perovmlip.neb_validation'

    @classmethod
    def page(cls, node: Any, created: str) -> Page:
        """Return profiles and barriers of one validation."""
        from aiida_perovmlip.report.barriers import pictures_of, profile_lines
        from aiida_perovmlip.report.profiles import draw_profiles

        comparison = result_of(node, 'comparison')
        methods = methods_of([node])
        paths = comparison['paths']
        uuids = [node.uuid, comparison.uuid, node.outputs.profiles.uuid]
        figure = draw_profiles(list(profile_lines(node)), pictures_of(node))
        caption = (
            f'Energies along {write_number_of(len(paths), "path")} in {comparison["formula"]}, with both '
            'ends and the highest image of the first. Filled: potentials; open: the reference on the same images'
        )
        return Page(
            kind='barriers',
            title=node.label or f'Barriers in {comparison["formula"]}',
            lead=_lead(comparison.get_dict()),
            created=created,
            nodes=(Identity('Validation', node.uuid, node.pk), Identity('Comparison', comparison.uuid, comparison.pk)),
            tiles=tuple(_tiles(comparison.get_dict())),
            sections=(
                Section('profiles', 'Profiles', (Drawing.of('energy-profiles', figure, caption, uuids),)),
                Section('barriers', 'Barriers', tuple(_barriers([node]))),
                Section('images', 'Images', tuple(_images(node))),
                *last_sections(node, comparison, methods, 'validation'),
            ),
            citations=methods.citations,
        )

    @classmethod
    def comparison(cls, nodes: Sequence[Any], created: str) -> Page:
        """Return the barriers of several validations."""
        for node in nodes:
            result_of(node, 'comparison')
        return beside(
            nodes,
            created,
            Section('barriers', 'Barriers', tuple(_barriers(nodes))),
            kind='several validations of barriers',
            title=f'Barriers of {len(nodes)} validations',
            lead='Barriers of potentials beside those of the reference on the same images.',
        )


def _lead(comparison: Mapping[str, Any]) -> str:
    potentials = sorted({name for entry in comparison['paths'].values() for name in entry['potentials']})
    levels = {
        tables.describe_level(entry['reference_level'])
        for entry in comparison['paths'].values()
        if entry['reference_level']
    }
    against = f', against {" and ".join(sorted(levels))}' if levels else ', without a reference'
    kind = (comparison.get('recipe') or {}).get('kind')
    about = f'a path of the kind `{kind}`' if kind else 'a path'
    charge = f' at the charge {comparison["charge"]:+g} e' if comparison.get('charge') else ''
    return f'{about.capitalize()} in {comparison["formula"]}{charge}, by {", ".join(potentials)}{against}.'


def _tiles(comparison: Mapping[str, Any]) -> Iterator[Tile]:
    """Yield the barriers of the first path, as those who relaxed it and the reference see it."""
    entry = next(iter(comparison['paths'].values()))
    for name, found in list(entry['potentials'].items())[:3]:
        yield Tile(f'Forward, {name}', f'{found["profile"]["forward"]:.3f}', 'eV')
    if entry['reference']:
        yield Tile('Forward, reference', f'{entry["reference"]["forward"]:.3f}', 'eV')
        yield Tile('Reverse, reference', f'{entry["reference"]["reverse"]:.3f}', 'eV')


def _barriers(nodes: Sequence[Any]) -> Iterator[Any]:
    """Yield the table of all barriers, their errors and their parity."""
    from aiida_perovmlip.query.paths import barriers_records, errors_of
    from aiida_perovmlip.report.barriers import parity_of
    from aiida_perovmlip.report.profiles import draw_barriers

    records = barriers_records(nodes)
    yield tables.tabulate('table-barriers', 'Barriers, each potential on each path', FIELDS, records)
    errors = [
        {'potential': potential, 'barrier': barrier, **found}
        for potential, entry in errors_of(records).items()
        for barrier, found in entry.items()
    ]
    if not errors:
        yield Text('The reference knows none of these barriers.', 'note')
        return
    barriers, uuids = parity_of(records)
    caption = f'{len(barriers)} barriers of potentials against the reference, forward and reverse'
    yield Row(
        (
            Drawing.of('parity', draw_barriers(barriers), caption, uuids),
            tables.tabulate('table-errors', 'Errors of the barriers, potential minus reference', ERRORS, errors),
        ),
        'pair',
    )


def _images(node: Any) -> Iterator[Any]:
    """Yield the images of each path, to be turned by hand."""
    from aiida_perovmlip.report.barriers import path_of

    for number, (name, entry) in enumerate(node.outputs.comparison['paths'].items(), start=1):
        frames = list(path_of(node, name, entry['relaxed_by']))
        structures = tuple(
            Structure(f'image {index} of {len(frames) - 1}', frame.numbers, frame.positions, frame.cell)
            for index, frame in enumerate(frames)
        )
        yield Viewer(f'images-{number}', f'Images of the path of {entry["relaxed_by"] or "the input"}', structures)
