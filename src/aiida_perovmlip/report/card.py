"""The model card of a potential: what whoever is given it has to know, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiida_perovmlip.report import tables
from aiida_perovmlip.report.contents import DatasetCard, EvaluationSection, PotentialReport
from aiida_perovmlip.report.kinds.potential import describe, describe_limits, role_of
from aiida_perovmlip.report.methods import Methods
from aiida_perovmlip.report.quantities import (
    milli_of,
    to_number,
    write_count,
    write_duration,
    write_number,
    write_range,
)
from aiida_perovmlip.report.sections import title_of

WORST = 3
"""Structure families that the card names for their errors."""


def card_of(node: Any) -> str:
    """Return the model card of a stored potential; it is made of attributes, and its files stay shut."""
    from aiida_perovmlip.report.collect import find_evaluations, potential_report
    from aiida_perovmlip.report.methods import methods_of

    return write_card(potential_report(node), methods_of([node, *find_evaluations(node)]))


def write_card(report: PotentialReport, methods: Methods | None = None) -> str:
    """Return the model card of a potential; equal contents give equal cards."""
    parts = [
        f'# {_plain(report.title)}',
        _plain(describe(report)),
        *_section('Identity', _table(('', ''), _identity(report))),
        *_section('Data', *_data(report)),
        *_section('Training', *_training(report)),
        *_section('Errors', *_errors(report)),
        *_section('Known limits', '\n'.join(f'* {_plain(limit)}' for limit in limits_of(report))),
        *_section('To run it again', *_rerun(report)),
    ]
    if methods is not None:
        references = '\n'.join(
            f'* {_plain(f"{work.short}: {work.title}. {work.place}")}{f", doi:{work.doi}" if work.doi else ""}'
            for work in methods.citations
        )
        parts += _section('Methods', _plain(methods.paragraph), references)
    return '\n\n'.join(part for part in parts if part) + '\n'


def _section(title: str, *parts: str) -> list[str]:
    return [f'## {title}', *parts]


def _plain(text: Any) -> str:
    """Return text that Markdown and HTML take for nothing but text."""
    escaped = ''.join(f'\\{character}' if character in '\\`*_[]|~' else character for character in str(text))
    return escaped.replace('&', '&amp;').replace('<', '&lt;').replace('\n', ' ')


def _code(text: Any) -> str:
    return f'`{str(text).replace("`", "").replace("|", "/")}`' if str(text) else '–'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are written already."""
    lines = [f'| {" | ".join(head)} |', f'|{"|".join(["---"] * len(head))}|']
    return '\n'.join([*lines, *(f'| {" | ".join(row)} |' for row in rows)])


def _identity(report: PotentialReport) -> Iterator[tuple[str, str]]:
    potential = report.potential
    level = potential.level or {}
    yield 'Architecture', _plain(potential.architecture)
    yield 'Elements', _plain(', '.join(potential.elements))
    yield 'Cutoff', f'{write_number(potential.cutoff)} Å'
    yield 'Parameters', f'{write_count(potential.n_parameters)} ({_plain(potential.dtype or "precision unknown")})'
    yield 'Heads', _plain(', '.join(potential.heads))
    yield 'Level of theory', f'{_plain(tables.describe_level(level))} {_code(level.get("fingerprint") or "")}'
    yield 'Content (SHA-256)', _code(potential.content_hash)
    yield 'Node', _code(potential.uuid)


def _data(report: PotentialReport) -> Iterator[str]:
    """Yield the datasets of the training."""
    if not report.datasets:
        yield 'The data of this potential are not known: it was not trained here.'
        return
    yield _table(
        ('Dataset', 'For', 'Frames', 'Atoms', 'Groups', 'Energies (eV/atom)', 'Largest force (eV/Å)', 'Content'),
        [
            (
                _plain(title_of(card)),
                _plain(card.role),
                write_count(card.n_frames),
                write_count(card.n_atoms),
                _plain(', '.join(f'{name} ({count})' for name, count in card.groups.items())),
                write_range(card.energy_per_atom_range, 3),
                f'{card.force_range[1]:.2f}' if card.force_range else '–',
                _code(card.content_hash[:16]),
            )
            for card in report.datasets
        ],
    )


def _training(report: PotentialReport) -> Iterator[str]:
    record = report.training
    if record is None:
        yield 'The potential was imported.'
        return
    rows = [('Strategy', _plain(record.strategy or 'scratch')), ('Seed', _plain(record.seed))]
    rows += [('Parent', _code(record.parent_uuid))] if record.parent_uuid else []
    rows += [(f'Time ({_plain(stage)})', write_duration(seconds)) for stage, seconds in record.seconds.items()]
    yield _table(('', ''), [*rows, ('Process', _code(record.uuid))])
    settings = [(_code(name), _code(value)) for name, value in tables.flatten(report.potential.settings)]
    if settings:
        yield 'Settings that the trainer really used:'
        yield _table(('Setting', 'Value'), settings)
    if report.versions:
        yield _table(('Package', 'Version'), [(_plain(name), _code(each)) for name, each in report.versions.items()])


def _errors(report: PotentialReport) -> Iterator[str]:
    """Yield a row for each quantity on each dataset that the potential was evaluated on."""
    if not report.evaluations:
        yield 'The potential has not been evaluated.'
        return
    rows = [
        (_plain(title_of(section.dataset)), _plain(role_of(report, section.dataset) or 'test'), *cells)
        for section in report.evaluations
        for cells in _cells(section)
    ]
    yield _table(('Dataset', 'Seen as', 'Quantity', 'RMSE', 'MAE', 'Largest', 'Unit', 'Values'), rows)


def _cells(section: EvaluationSection) -> Iterator[tuple[str, ...]]:
    for key, title in tables.QUANTITIES.items():
        block = section.metrics.get(key)
        if isinstance(block, Mapping) and block.get('n'):
            unit = milli_of(str(block.get('unit', tables.UNITS[key])))[1]
            errors = (tables.error_cell(block, name).text for name in ('rmse', 'mae', 'largest'))
            yield (title, *errors, unit, write_count(block['n']))


def limits_of(report: PotentialReport) -> list[str]:
    """Return what the potential is not known to be good for, as far as attributes tell."""
    potential = report.potential
    limits = [f'It knows the elements {", ".join(potential.elements)} and no others.']
    trained = [card for card in report.datasets if card.role == 'training']
    if trained:
        groups = sorted({name for card in trained for name in card.groups})
        limits.append(f'It was trained on {", ".join(groups)}; anything else is extrapolation.')
        limits += _reach(trained)
    unseen = [section for section in report.evaluations if not role_of(report, section.dataset)]
    if not unseen:
        limits.append('It was not evaluated on frames that its training had not seen: how good it is, is not known.')
    for section in report.evaluations:
        limits += [f'{title_of(section.dataset)}: {note}' for note in describe_limits(report, section)]
    for section in unseen[:1]:
        if worst := _worst(section):
            limits.append(f'On {title_of(section.dataset)} its forces are worst for {worst}.')
    if potential.level is None and len(potential.heads) == 1:
        limits.append('The level of theory that it predicts is not known.')
    return limits


def _reach(cards: Sequence[DatasetCard]) -> list[str]:
    forces = [card.force_range[1] for card in cards if card.force_range]
    return [f'No force that it has learned is larger than {max(forces):.2f} eV/Å.'] if forces else []


def _worst(section: EvaluationSection) -> str:
    """Return the structure families with the largest errors of forces, the worst first; nothing where there are few."""
    errors = {
        name: rmse
        for name, entry in (section.metrics.get('per_group') or {}).items()
        if (rmse := to_number((entry.get('forces') or {}).get('rmse'))) is not None
    }
    if len(errors) < 2:
        return ''
    worst = sorted(errors, key=lambda name: -errors[name])[:WORST]
    return ', '.join(f'{name} ({write_number(1e3 * errors[name])} meV/Å)' for name in worst)


def _rerun(report: PotentialReport) -> Iterator[str]:
    if report.training is None:
        yield 'There is nothing to run: the potential was imported.'
        return
    yield 'With the archive imported (`aiida-perovmlip import ARCHIVE`), the same training starts again by'
    yield (
        '```python\nfrom aiida import orm\nfrom aiida.engine import submit\n\n'
        f"builder = orm.load_node('{report.training.uuid}').get_builder_restart()\nsubmit(builder)\n```"
    )
    yield 'On the same machine, and on a CPU, it gives the same bytes; compare the hash of the content above.'
