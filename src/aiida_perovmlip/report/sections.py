"""Sections that pages of several kinds share: datasets, provenance, software."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida_perovmlip import __version__
from aiida_perovmlip.report import tables
from aiida_perovmlip.report.collect import THIS_PAGE, trace
from aiida_perovmlip.report.contents import DatasetCard, Lineage
from aiida_perovmlip.report.lineage import draw_lineage
from aiida_perovmlip.report.methods import Methods, methods_section
from aiida_perovmlip.report.page import Article, Drawing, Fact, Facts, Folded, Identity, Section, Text
from aiida_perovmlip.report.quantities import write_count, write_range


def name_of(card: DatasetCard) -> str:
    """Return what to call a dataset."""
    return card.label or f'dataset {card.pk}'


def title_of(card: DatasetCard) -> str:
    """Return what to call a dataset at the head of an article."""
    return card.label or f'Dataset {card.pk}'


def dataset_article(card: DatasetCard, name: str, table: str) -> Article:
    """Return a dataset in numbers."""
    composition = tables.tabulate_composition(card, table)
    parts = [Identity('', card.uuid, card.pk), dataset_facts(card)]
    return Article(
        name, title_of(card), (*parts, *([composition] if len(composition.rows) > 1 else [])), badge=card.role
    )


def dataset_facts(card: DatasetCard) -> Facts:
    """Return what a dataset holds."""
    levels = [
        Fact(
            'Level' if len(card.levels) == 1 else f'Level of {head}',
            tables.describe_level(level),
            str(level.get('fingerprint') or ''),
            is_wide=True,
        )
        for head, level in card.levels.items()
    ]
    return Facts(
        (
            Fact('Frames', write_count(card.n_frames)),
            Fact('Atoms', write_count(card.n_atoms)),
            Fact('Elements', ', '.join(card.elements)),
            Fact('Labels', ', '.join(card.labels) or 'none'),
            Fact('Energy', f'{write_range(card.energy_per_atom_range, 3)} eV/atom'),
            Fact('Force', f'{write_range(card.force_range, 2)} eV/Å'),
            *levels,
        )
    )


def last_sections(node: Any, result: Any, methods: Methods, subject: str) -> tuple[Section, ...]:
    """Return what the page of a node ends with: where it comes from, what was done, and which software made the page.

    :param result: the datum whose history is drawn.
    :param subject: what the node is, such as `study`.
    """
    return (
        provenance_section(trace(result), f'this {subject}'),
        methods_section(methods),
        software_section({THIS_PAGE: __version__}, node.uuid, f'the {subject}'),
    )


def provenance_section(lineage: Lineage | None, subject: str) -> Section:
    """Return the graph that leads to the subject of a page, with all of its nodes."""
    if lineage is None or not lineage.nodes:
        return Section('provenance', 'Provenance', (Text(f'The provenance of {subject} was not collected.', 'muted'),))
    caption = 'From inputs on the left to results on the right. Point at a node for its UUID'
    if not lineage.is_complete:
        caption += '; earlier ancestors are left out'
    svg = draw_lineage(lineage, name='plot-lineage')
    nodes = tables.tabulate_nodes(lineage.nodes, 'table-nodes')
    return Section(
        'provenance',
        'Provenance',
        (
            Drawing('lineage', svg, caption, (lineage.focus_uuid,), has_graph=True),
            Folded(f'All nodes ({len(nodes.rows)})', (nodes,)),
        ),
    )


def software_section(versions: Mapping[str, str], uuid: str, subject: str) -> Section:
    """Return the versions that took part, and how to get at what the page shows."""
    known = tables.tabulate_versions(versions, 'table-versions')
    return Section(
        'software',
        'Software',
        (
            known if known.rows else Text('No version was recorded.', 'muted'),
            Text('Every number on this page is stored in an AiiDA profile.', 'muted'),
            Facts(
                (
                    Fact(f'To see {subject}', code=f'verdi node show {uuid}', is_wide=True),
                    Fact(
                        'To share it with its history', code=f'verdi archive create -N {uuid} -- x.aiida', is_wide=True
                    ),
                )
            ),
        ),
    )
