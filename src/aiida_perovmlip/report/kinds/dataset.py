"""The page of a dataset: what is in it, how its labels are distributed, and what it was used for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from aiida_perovmlip.report import tables
from aiida_perovmlip.report.histograms import Histogram, draw_histogram
from aiida_perovmlip.report.kinds.base import Kind
from aiida_perovmlip.report.methods import methods_of
from aiida_perovmlip.report.page import Drawing, Identity, Page, Row, Section, Structure, Text, Tile, Viewer
from aiida_perovmlip.report.quantities import write_count, write_number_of, write_range
from aiida_perovmlip.report.sections import dataset_facts, last_sections

MOST_STRUCTURES = 8
MOST_ATOMS = 1500
"""Atoms of a structure that a page shows."""


class DatasetKind(Kind):
    """Pages of datasets."""

    name = 'dataset'
    made_of = 'a dataset'

    @classmethod
    def fits(cls, node: Any) -> bool:
        """Return whether a node is a dataset."""
        from aiida_perovmlip.data.dataset import DatasetData

        return isinstance(node, DatasetData)

    @classmethod
    def page(cls, node: Any, created: str) -> Page:
        """Return what is in a dataset and what it was used for; its frames are read shard by shard."""
        from aiida_perovmlip.report.collect import describe_dataset

        card = describe_dataset(node)
        methods = methods_of([node])
        return Page(
            kind='a dataset',
            title=card.label or f'{"–".join(card.elements)}, {write_count(card.n_frames)} frames',
            lead=f'{write_count(card.n_frames)} frames with {write_count(card.n_atoms)} atoms of '
            f'{", ".join(card.elements)}, of {write_number_of(len(card.groups), "group")}.',
            created=created,
            nodes=(Identity('', card.uuid, card.pk),),
            tiles=(
                Tile('Frames', write_count(card.n_frames)),
                Tile('Atoms', write_count(card.n_atoms)),
                Tile('Structure families', write_count(len(card.groups))),
                *([Tile('Largest force', f'{card.force_range[1]:.2f}', 'eV/Å')] if card.force_range else []),
            ),
            sections=(
                Section('contents', 'Contents', (dataset_facts(card), *_groups(node))),
                Section('labels', 'Labels', tuple(_labels(node, card.uuid))),
                Section('structures', 'Structures', tuple(_structures(node))),
                Section('uses', 'Uses', tuple(_uses(node))),
                *last_sections(node, node, methods, 'dataset'),
            ),
            citations=methods.citations,
        )


def _groups(node: Any) -> Iterator[Any]:
    """Yield a row of numbers for each structure family."""
    from aiida_perovmlip.query.statistics import dataset_statistics

    fields = (
        tables.Field('name', 'Structure family', is_number=False),
        tables.Field('n_frames', 'Frames'),
        tables.Field('n_atoms', 'Atoms'),
        tables.Field('energy', 'Energy', 'eV/atom', is_number=False),
        tables.Field('forces_rms', 'Force RMS', 'eV/Å'),
        tables.Field('largest', 'Largest force', 'eV/Å'),
        tables.Field('pressure', 'Pressure', 'GPa', is_number=False),
        tables.Field('volume', 'Volume', 'Å³/atom', is_number=False),
    )
    rows = [
        {
            **{key: found[key] for key in ('n_frames', 'n_atoms', 'forces_rms')},
            'name': name,
            'largest': found['forces'] and found['forces']['highest'],
            **{key: _spread(found[key]) for key in ('energy', 'pressure', 'volume')},
        }
        for name, found in dataset_statistics(node).items()
    ]
    yield tables.tabulate('table-groups', 'Numbers by structure family; mean ± standard deviation', fields, rows)


def _spread(found: dict[str, float] | None) -> str:
    return '' if found is None else f'{found["mean"]:.5g} ± {found["std"]:.2g}'


def _labels(node: Any, uuid: str) -> Iterator[Any]:
    """Yield how energies and forces are distributed."""
    facts = node.base.attributes
    energies, forces = (facts.get(name, None) for name in ('energy_per_atom_range', 'force_range'))
    wanted = {
        'energy': Histogram('Energy per atom (eV/atom)', tuple(energies)) if energies else None,
        'forces': Histogram('Norm of a force (eV/Å)', tuple(forces)) if forces else None,
    }
    known = {name: histogram for name, histogram in wanted.items() if histogram is not None}
    if not known:
        yield Text('No frame has a label.', 'muted')
        return
    for chunk in node.frames.chunks():
        sizes, names = np.diff(chunk.columns['offsets']), chunk.names['group']
        for code in np.unique(chunk.columns['group']):
            mine = chunk.columns['group'] == code
            if 'energy' in known:
                known['energy'].add(names[code], (chunk.columns['energy'] / sizes)[mine])
            if 'forces' in known:
                known['forces'].add(
                    names[code], np.linalg.norm(chunk.columns['forces'][np.repeat(mine, sizes)], axis=1)
                )
    captions = {
        'energy': f'Energies per atom, from {write_range(energies, 3)} eV/atom',
        'forces': f'Norms of the forces on all atoms, from {write_range(forces, 2)} eV/Å',
    }
    yield Row(
        tuple(
            Drawing.of(f'distribution-{name}', draw_histogram(found), captions[name], [uuid], found.columns())
            for name, found in known.items()
        )
    )


def _structures(node: Any) -> Iterable[Any]:
    """Yield the first structure of each family, to be turned by hand."""
    shown: dict[str, Structure] = {}
    left = set(list(node.base.attributes.get('groups', {}))[:MOST_STRUCTURES])
    for index, frame in enumerate(node):
        if frame.group in left and len(frame) <= MOST_ATOMS:
            left.discard(frame.group)
            title = f'{frame.group}: frame {index}, {len(frame)} atoms'
            shown[frame.group] = Structure(title, frame.numbers, frame.positions, frame.cell)
        if not left:
            break
    if not shown:
        yield Text(f'All structures have more than {write_count(MOST_ATOMS)} atoms, too many to be shown.', 'muted')
        return
    yield Viewer('structure', 'The first structure of each family', tuple(shown.values()))


def _uses(node: Any) -> Iterator[Any]:
    """Yield the processes that the dataset went into."""
    from aiida.common.links import LinkType

    links = node.base.links.get_outgoing(link_type=(LinkType.INPUT_CALC, LinkType.INPUT_WORK)).all()
    fields = (
        tables.Field('pk', 'PK'),
        tables.Field('process', 'Process', is_number=False),
        tables.Field('role', 'As', is_number=False),
        tables.Field('state', 'State', is_number=False),
        tables.Field('uuid', 'UUID', is_number=False),
    )
    from aiida_perovmlip.report.collect import mark_of

    rows = [
        {
            'pk': link.node.pk,
            'process': link.node.process_label or type(link.node).__name__,
            'role': link.link_label,
            'state': mark_of(link.node).state,
            'uuid': link.node.uuid,
        }
        for link in sorted(links, key=lambda link: link.node.pk)
    ]
    if rows:
        yield tables.tabulate('table-uses', 'Processes that took this dataset', fields, rows)
    else:
        yield Text('Nothing has used this dataset yet.', 'muted')
