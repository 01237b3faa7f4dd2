"""The page of one potential: a single HTML file that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from aiida_perovmlip.report import tables
from aiida_perovmlip.report.contents import METRIC_OF, DatasetCard, EvaluationSection, PotentialReport
from aiida_perovmlip.report.figures import plot_curve, plot_parity
from aiida_perovmlip.report.lineage import draw_lineage
from aiida_perovmlip.report.quantities import (
    milli_of,
    to_number,
    write_count,
    write_duration,
    write_number,
    write_range,
)
from aiida_perovmlip.report.style import DARK, LIGHT, css_variables
from aiida_perovmlip.report.tables import Table

CAPTIONS = {'energy': 'Energy per atom', 'forces': 'Components of the forces', 'stress': 'Components of the stress'}
SEEN = {'training': 'seen in training', 'validation': 'used to choose the state'}
"""What it means for an evaluation that its dataset was an input of the training."""


@dataclass(frozen=True)
class Tile:
    """A number that a reader looks for first."""

    title: str
    value: str
    unit: str = ''


@dataclass(frozen=True)
class Drawing:
    """An SVG with its caption and the nodes that it shows."""

    name: str
    svg: str
    caption: str
    uuids: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation as the page shows it.

    :param speed: µs per atom; None where it was not measured.
    :param notes: what a reader has to know before reading the numbers.
    """

    name: str
    dataset: DatasetCard
    uuid: str
    pk: int
    role: str
    speed: float | None
    notes: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    errors: Table
    breakdowns: tuple[Table, ...]


def render(report: PotentialReport) -> str:
    """Return the page as HTML; equal reports give equal pages."""
    import jinja2
    from markupsafe import Markup

    folder = resources.files('aiida_perovmlip.report')
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        'count': write_count,
        'number': write_number,
        'range': write_range,
        'duration': write_duration,
        'level': tables.describe_level,
        'safe_svg': Markup,
    }
    template = environment.from_string(folder.joinpath('page.html.j2').read_text(encoding='utf-8'))
    return template.render(
        css=Markup(folder.joinpath('page.css').read_text(encoding='utf-8')),
        script=Markup(folder.joinpath('page.js').read_text(encoding='utf-8')),
        light=Markup(css_variables(LIGHT)),
        dark=Markup(css_variables(DARK)),
        **contents_of(report),
    )


def contents_of(report: PotentialReport) -> dict[str, Any]:
    """Return all that the template shows, by name."""
    return {
        'report': report,
        'tiles': select_tiles(report),
        'headline': choose_headline(report),
        'settings': tables.tabulate_settings(report.potential.settings, 'table-settings'),
        'compositions': [
            tables.tabulate_composition(card, f'table-composition-{number}')
            for number, card in enumerate(report.datasets, start=1)
        ],
        'evaluations': [
            present_evaluation(report, section, number) for number, section in enumerate(report.evaluations, start=1)
        ],
        'curve': draw_training(report),
        'lineage': draw_provenance(report),
        'nodes': tables.tabulate_nodes(report.lineage.nodes if report.lineage else (), 'table-nodes'),
        'versions': tables.tabulate_versions(report.versions, 'table-versions'),
    }


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


def present_evaluation(report: PotentialReport, section: EvaluationSection, number: int) -> Evaluation:
    """Return figures and tables of one evaluation; the first has the plain names."""
    suffix = '' if number == 1 else f'-{number}'
    breakdowns = (
        tables.tabulate_groups(section.metrics, section.dataset, f'table-groups{suffix}'),
        tables.tabulate_elements(section.metrics, f'table-elements{suffix}'),
    )
    return Evaluation(
        name=f'evaluation-{number}',
        dataset=section.dataset,
        uuid=section.uuid,
        pk=section.pk,
        role=SEEN.get(role_of(report, section.dataset), ''),
        speed=to_number(section.metrics.get('microseconds_per_atom')),
        notes=tuple(describe_limits(report, section)),
        drawings=tuple(_draw_parities(report, section, suffix)),
        errors=tables.tabulate_errors(section.metrics, f'table-errors{suffix}'),
        breakdowns=tuple(table for table in breakdowns if len(table.rows) > 1),
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


def _draw_parities(report: PotentialReport, section: EvaluationSection, suffix: str) -> list[Drawing]:
    uuids = tuple(uuid for uuid in (report.potential.uuid, section.dataset.uuid, section.uuid) if uuid)
    drawings = []
    for parity in section.parities:
        name = f'parity-{parity.quantity}{suffix}'
        metrics = section.metrics.get(METRIC_OF[parity.quantity]) or {}
        caption = CAPTIONS[parity.quantity]
        if parity.n_total > len(parity.reference):
            drawn, total = write_count(len(parity.reference)), write_count(parity.n_total)
            caption += f'; {drawn} of {total} values are drawn, the errors are those of all'
        svg = plot_parity(parity, metrics, name=f'plot-{name}', uuids=uuids)
        drawings.append(Drawing(name, svg, caption, uuids))
    return drawings


def draw_training(report: PotentialReport) -> Drawing | None:
    """Return the training curve; None where no step was recorded."""
    if not report.curve.steps:
        return None
    uuids = tuple(uuid for uuid in (report.potential.uuid, report.training.uuid if report.training else '') if uuid)
    svg = plot_curve(report.curve, name='plot-training-curve', uuids=uuids)
    caption = 'Course of the training. Logarithmic axes; the ring marks the smallest validation error'
    return Drawing('training-curve', svg, caption, uuids)


def draw_provenance(report: PotentialReport) -> Drawing | None:
    """Return the lineage; None where it was not collected."""
    if report.lineage is None or not report.lineage.nodes:
        return None
    caption = 'From inputs on the left to results on the right. Point at a node for its UUID'
    if not report.lineage.is_complete:
        caption += '; earlier ancestors are left out'
    uuids = (report.potential.uuid,)
    return Drawing('lineage', draw_lineage(report.lineage, name='plot-lineage'), caption, uuids)
