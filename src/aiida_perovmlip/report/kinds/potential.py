"""The page of a potential: what it is, what it was trained on, how good it is and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiida_perovmlip.query.compare import dataset_name
from aiida_perovmlip.report import tables
from aiida_perovmlip.report.contents import (
    METRIC_OF,
    DatasetCard,
    EvaluationSection,
    Parity,
    PotentialCard,
    PotentialReport,
)
from aiida_perovmlip.report.errors import draw_errors, named
from aiida_perovmlip.report.figures import describe_curve, describe_parity, draw_curve, draw_parity
from aiida_perovmlip.report.kinds.base import Kind
from aiida_perovmlip.report.methods import Methods, methods_of, methods_section
from aiida_perovmlip.report.page import Article, Drawing, Fact, Facts, Folded, Identity, Page, Row, Section, Text, Tile
from aiida_perovmlip.report.quantities import (
    milli_of,
    to_number,
    write_count,
    write_duration,
    write_number,
    write_number_of,
)
from aiida_perovmlip.report.sections import (
    dataset_article,
    name_of,
    provenance_section,
    software_section,
    title_of,
)
from aiida_perovmlip.report.tables import Table

CAPTIONS = {'energy': 'Energy per atom', 'forces': 'Components of the forces', 'stress': 'Components of the stress'}
SEEN = {'training': 'seen in training', 'validation': 'used to choose the state'}
"""What it means for an evaluation that its dataset was an input of the training."""

PARITY = (
    'Dashed line: perfect agreement. Inset: distribution of the errors (predicted − reference), the central 68 % and '
    '95 % of the values shaded.'
)


def potential_page(report: PotentialReport, methods: Methods | None = None) -> Page:
    """Return the page of a potential."""
    potential, headline = report.potential, choose_headline(report)
    return Page(
        kind='a potential',
        title=report.title,
        lead=describe(report),
        created=report.created,
        nodes=(Identity('', potential.uuid, potential.pk),),
        tiles=tuple(select_tiles(report)),
        aside=(
            f'Errors are those on {name_of(headline.dataset)} ({write_count(headline.dataset.n_frames)} frames); '
            'see Accuracy for all.'
            if headline
            else ''
        ),
        sections=(
            Section('potential', 'Potential', tuple(_about(report))),
            Section('datasets', 'Training data', tuple(_training_data(report))),
            Section('accuracy', 'Accuracy', tuple(_accuracy(report))),
            Section('training', 'Training', tuple(_training(report))),
            provenance_section(report.lineage, 'this potential'),
            *([methods_section(methods)] if methods else []),
            software_section(report.versions, potential.uuid, 'the potential'),
        ),
        citations=methods.citations if methods else (),
    )


def describe(report: PotentialReport) -> str:
    """Return in a sentence what a potential is."""
    potential = report.potential
    parts = [f'A {potential.architecture} potential for {", ".join(potential.elements)}']
    trained = [card for card in report.datasets if card.role == 'training']
    if trained:
        frames, atoms = (write_count(sum(getattr(card, name) for card in trained)) for name in ('n_frames', 'n_atoms'))
        parts.append(f'trained on {frames} frames with {atoms} atoms')
    if potential.level:
        parts.append(f'at the level of theory {tables.describe_level(potential.level)}')
    return f'{", ".join(parts)}.'


def role_of(report: PotentialReport, dataset: DatasetCard) -> str:
    """Return what the training used these frames for; empty where they were none of its inputs."""
    for card in report.datasets:
        is_same = card.uuid == dataset.uuid or (card.content_hash != '' and card.content_hash == dataset.content_hash)
        if is_same:
            return card.role
    return ''


def choose_headline(report: PotentialReport) -> EvaluationSection | None:
    """Return the evaluation that says most: the first on frames that the training did not use, or else the first."""
    unused = [section for section in report.evaluations if not role_of(report, section.dataset)]
    return next(iter([*unused, *report.evaluations]), None)


def select_tiles(report: PotentialReport) -> list[Tile]:
    """Return the numbers at the top of the page."""
    headline = choose_headline(report)
    tiles = [_error_tile(key, headline.metrics) for key in tables.QUANTITIES] if headline else []
    trained = [card for card in report.datasets if card.role == 'training']
    if trained:
        tiles.append(Tile('Training frames', write_count(sum(card.n_frames for card in trained))))
    tiles.append(Tile('Parameters', write_count(report.potential.n_parameters)))
    tiles.append(Tile('Cutoff', write_number(report.potential.cutoff), 'Å'))
    return [tile for tile in tiles if tile.value]


def _error_tile(key: str, metrics: Mapping[str, Any]) -> Tile:
    """Return the RMSE of a quantity; an empty value where it was not compared."""
    block = metrics.get(key) or {}
    factor, unit = milli_of(str(block.get('unit', tables.UNITS[key])))
    title = f'{tables.QUANTITIES[key]} RMSE'
    if block.get('n_not_finite'):
        return Tile(title, 'not finite')
    rmse = to_number(block.get('rmse'))
    return Tile(title, '' if rmse is None else write_number(rmse * factor), unit)


def _about(report: PotentialReport) -> Iterable[Any]:
    """Yield what a potential is."""
    potential = report.potential
    parameters = write_count(potential.n_parameters)
    level = potential.level or {}
    yield Facts(
        (
            Fact('Architecture', potential.architecture),
            Fact('Elements', ', '.join(potential.elements)),
            Fact('Cutoff', f'{write_number(potential.cutoff)} Å'),
            Fact('Parameters', f'{parameters}, {potential.dtype}' if potential.dtype else parameters),
            Fact('Heads', ', '.join(potential.heads)),
            Fact('Level of theory', tables.describe_level(level), str(level.get('fingerprint') or '')),
            Fact('Content hash', '' if potential.content_hash else '–', potential.content_hash, is_wide=True),
        )
    )
    settings = tables.tabulate_settings(potential.settings, 'table-settings')
    if settings.rows:
        yield Folded(f'Effective settings ({len(settings.rows)})', (settings,))
    else:
        yield Text('No settings are known: the potential was not trained here.', 'muted')


def _training_data(report: PotentialReport) -> Iterable[Any]:
    """Yield the datasets of the training beside each other."""
    if not report.datasets:
        yield Text('No dataset is known: the potential was not trained here.', 'muted')
        return
    yield Row(
        tuple(
            dataset_article(card, f'dataset-{number}', f'table-composition-{number}')
            for number, card in enumerate(report.datasets, start=1)
        ),
        'cards',
    )


def _accuracy(report: PotentialReport) -> Iterable[Any]:
    """Yield all evaluations; the figures and tables of the first have the plain names."""
    if not report.evaluations:
        yield Text('The potential has not been evaluated yet.', 'muted')
        return
    yield Text(PARITY, 'muted')
    for number, section in enumerate(report.evaluations, start=1):
        yield _evaluation(report, section, number)


def _evaluation(report: PotentialReport, section: EvaluationSection, number: int) -> Article:
    """Return figures and tables of one evaluation."""
    suffix = '' if number == 1 else f'-{number}'
    dataset, metrics = section.dataset, section.metrics
    breakdowns = (
        tables.tabulate_groups(metrics, dataset, f'table-groups{suffix}'),
        tables.tabulate_elements(metrics, f'table-elements{suffix}'),
    )
    speed = to_number(metrics.get('microseconds_per_atom'))
    counts = f'{write_count(dataset.n_frames)} frames, {write_count(dataset.n_atoms)} atoms'
    return Article(
        name=f'evaluation-{number}',
        title=title_of(dataset),
        parts=(
            *(Text(note, 'note') for note in describe_limits(report, section)),
            Row(tuple(_parities(report, section, suffix))),
            tables.tabulate_errors(metrics, f'table-errors{suffix}'),
            Row(tuple(table for table in breakdowns if len(table.rows) > 1), 'pair'),
            Identity('Dataset', dataset.uuid, dataset.pk),
            *([Identity('Evaluation', section.uuid, section.pk)] if section.uuid else []),
        ),
        aside=counts if speed is None else f'{counts}, {write_number(speed)} µs per atom',
        badge=SEEN.get(role_of(report, dataset), ''),
        is_warning=True,
    )


def describe_limits(report: PotentialReport, section: EvaluationSection) -> list[str]:
    """Return what limits the meaning of an evaluation."""
    notes = []
    if section.metrics.get('state', 'finite') != 'finite':
        notes.append('The potential predicts values that are not finite for some of these frames.')
    if section.metrics.get('same_level') is False:
        notes.append('The labels are not known to be of the level of theory that the potential predicts.')
    role = role_of(report, section.dataset)
    if role == 'training':
        notes.append('The potential was trained on these frames: the errors say how well it remembers.')
    elif role == 'validation':
        notes.append('The state of the potential was chosen by these frames: the errors are too small to be a test.')
    return notes


def _parities(report: PotentialReport, section: EvaluationSection, suffix: str) -> Iterable[Drawing]:
    uuids = (report.potential.uuid, section.dataset.uuid, section.uuid)
    for parity in section.parities:
        metrics = section.metrics.get(METRIC_OF[parity.quantity]) or {}
        caption = f'{CAPTIONS[parity.quantity]}. {describe_parity(parity, metrics)}'
        if parity.n_total > len(parity.reference):
            drawn, total = write_count(len(parity.reference)), write_count(parity.n_total)
            caption += f'; {drawn} of {total} values are drawn, the errors are those of all'
        name = f'parity-{parity.quantity}{suffix}'
        yield Drawing.of(name, draw_parity(parity, metrics), caption, uuids, _columns_of(parity))


def _columns_of(parity: Parity) -> dict[str, Any]:
    """Return the points of a parity plot as columns with units."""
    columns = {f'{name} ({parity.unit})': getattr(parity, name).tolist() for name in ('reference', 'predicted')}
    return {**columns, **({parity.category: list(parity.categories)} if parity.categories is not None else {})}


def _training(report: PotentialReport) -> Iterable[Any]:
    """Yield how the training went."""
    record = report.training
    if record is not None:
        strategy = record.strategy or ('from a parent' if record.parent_uuid else 'from scratch')
        yield Facts(
            (
                Fact('Strategy', strategy),
                Fact('Seed', '–' if record.seed is None else str(record.seed)),
                *(
                    Fact('Time' if stage == 'total' else f'Time, {stage}', write_duration(seconds))
                    for stage, seconds in record.seconds.items()
                ),
                *([Fact('Parent', code=record.parent_uuid, is_wide=True)] if record.parent_uuid else []),
            )
        )
        yield Identity(record.label or 'Process', record.uuid, record.pk)
    if not report.curve.steps:
        yield Text('No training curve was recorded.', 'muted')
        return
    uuids = (report.potential.uuid, record.uuid if record else '')
    caption = f'{describe_curve(report.curve)}. The ring marks the smallest validation error'
    names = sorted({name for step in report.curve.steps for name in step})
    columns = {name: [step.get(name, '') for step in report.curve.steps] for name in names}
    yield Drawing.of('training-curve', draw_curve(report.curve), caption, uuids, columns)


class PotentialKind(Kind):
    """Pages of potentials."""

    name = 'potential'
    made_of = 'a potential'

    @classmethod
    def fits(cls, node: Any) -> bool:
        """Return whether a node is a potential."""
        from aiida_perovmlip.data.potential import PotentialData

        return isinstance(node, PotentialData)

    @classmethod
    def page(cls, node: Any, created: str) -> Page:
        """Return what a potential is, what it was trained on, how good it is and where it comes from."""
        from aiida_perovmlip.report.collect import find_evaluations, potential_report

        return potential_page(potential_report(node, created), methods_of([node, *find_evaluations(node)]))

    @classmethod
    def comparison(cls, nodes: Sequence[Any], created: str) -> Page:
        """Return the errors of several potentials on all test sets on which any of them was evaluated."""
        from aiida_perovmlip.query.compare import evaluations_records
        from aiida_perovmlip.report.collect import describe_potential, find_evaluations

        records = evaluations_records(nodes)
        cards = [describe_potential(node, {}) for node in nodes]
        evaluations = [process for node in nodes for process in find_evaluations(node)]
        methods = methods_of([*nodes, *evaluations])
        uuids = [node.uuid for node in nodes]
        return Page(
            kind='several potentials',
            title=f'{len(nodes)} potentials side by side',
            lead=f'{len(nodes)} potentials ({", ".join(sorted({card.architecture for card in cards}))}), compared on '
            f'{write_number_of(len({record["dataset"] for record in records}), "test set")}.',
            created=created,
            nodes=tuple(Identity(card.label or card.architecture, card.uuid, card.pk) for card in cards),
            sections=(
                Section('potentials', 'Potentials', (_potentials_table(cards),)),
                Section('accuracy', 'Accuracy', tuple(_compared(records, uuids))),
                methods_section(methods),
            ),
            citations=methods.citations,
        )


def _potentials_table(cards: Sequence[PotentialCard]) -> Table:
    """Return a row for each potential."""
    columns = (
        tables.Field('pk', 'PK'),
        tables.Field('label', 'Label', is_number=False),
        tables.Field('architecture', 'Architecture', is_number=False),
        tables.Field('elements', 'Elements', is_number=False),
        tables.Field('cutoff', 'Cutoff', 'Å'),
        tables.Field('n_parameters', 'Parameters'),
        tables.Field('level', 'Level of theory', is_number=False),
        tables.Field('uuid', 'UUID', is_number=False),
    )
    rows = [
        {
            **{name: getattr(card, name) for name in ('pk', 'label', 'architecture', 'cutoff', 'n_parameters', 'uuid')},
            'elements': ' '.join(card.elements),
            'level': tables.describe_level(card.level),
        }
        for card in cards
    ]
    return tables.tabulate('table-potentials', 'Potentials that are compared', columns, rows)


def _compared(records: Sequence[Mapping[str, Any]], uuids: Sequence[str]) -> Iterable[Any]:
    """Yield a plot and a table of all errors."""
    if not records:
        yield Text('None of these potentials has been evaluated yet.', 'muted')
        return
    figure = draw_errors(records)
    caption = 'RMSE of each potential on each test set; logarithmic axes, smaller is better'
    yield Drawing.of('errors', figure, caption, [*uuids, *(record['potential_uuid'] for record in records)])
    notes = [record for record in records if record['same_level'] is False]
    if notes:
        yield Text(
            f'In {len(notes)} rows the labels are not known to be of the level of theory that the potential predicts.',
            'note',
        )
    columns = (
        tables.Field('name', 'Potential', is_number=False),
        tables.Field('dataset_name', 'Test set', is_number=False),
        tables.Field('head', 'Head', is_number=False),
        tables.Field('n_frames', 'Frames'),
        tables.Field('energy_per_atom_rmse', 'Energy RMSE', 'meV/atom', 1e3),
        tables.Field('energy_per_atom_mae', 'Energy MAE', 'meV/atom', 1e3),
        tables.Field('forces_rmse', 'Forces RMSE', 'meV/Å', 1e3),
        tables.Field('forces_mae', 'Forces MAE', 'meV/Å', 1e3),
        tables.Field('stress_rmse', 'Stress RMSE', 'meV/Å³', 1e3),
        tables.Field('speed', 'Speed', 'µs/atom'),
        tables.Field('state', 'State', is_number=False),
    )
    rows = [{**record, 'name': named(record), 'dataset_name': dataset_name(record)} for record in records]
    yield tables.tabulate('table-compared', 'Errors of all potentials on all test sets', columns, rows)
