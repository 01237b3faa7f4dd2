"""The verb `compare`: the errors of potentials on test sets, side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from aiida_perovmlip.cli.options import examples, profile_option

QUANTITIES = ('energy_per_atom', 'forces', 'stress')

Record = Mapping[str, Any]


@click.command(
    epilog=examples(
        'aiida-perovmlip compare',
        'aiida-perovmlip compare 1234 1240 --dataset 77 --quantity energy_per_atom',
        'aiida-perovmlip compare --forgetting 1240',
    )
)
@click.argument('potentials', nargs=-1, metavar='[POTENTIAL]...')
@click.option('--dataset', 'datasets', multiple=True, metavar='PK', help='Only this test set; may be repeated.')
@click.option('--quantity', type=click.Choice(QUANTITIES), default='forces', show_default=True)
@click.option('--error', type=click.Choice(('mae', 'rmse')), default='rmse', show_default=True)
@click.option('--forgetting', metavar='PK', help='What each stage of the lineage of this potential knows.')
@click.option('--json', 'as_json', is_flag=True, help='Print all that is known as JSON, in eV and Å.')
@click.option('--csv', type=click.Path(dir_okay=False, path_type=Path), help='Write all that is known into a file.')
@profile_option
def compare(
    potentials: tuple[str, ...],
    datasets: tuple[str, ...],
    quantity: str,
    error: str,
    forgetting: str | None,
    as_json: bool,
    csv: Path | None,
    profile: str | None,
) -> None:
    """Compare potentials, given by PK, UUID or label (all if none is), on the test sets that they were evaluated on.

    The newest evaluation of each potential on each test set counts. The exit code is 0, and 1 where something that was
    named does not exist or where the links between trainings are damaged.
    """
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.query.compare import evaluations_records, forgetting_records
    from aiida_perovmlip.query.describe import find

    if forgetting is not None and potentials:
        raise click.UsageError('--forgetting names the potential itself; leave the others out.')
    test_sets = [find(text, 'dataset')['id'] for text in datasets] or None
    if forgetting is not None:
        last = find(forgetting, 'potential')['id']
        try:
            stages, records = forgetting_records(last, test_sets)
        except ValueError as damaged:
            raise click.ClickException(str(damaged)) from damaged
    else:
        chosen = [find(text, 'potential')['id'] for text in potentials] or None
        stages, records = [], evaluations_records(chosen, test_sets)
    if csv is not None:
        _write_csv(csv, records)
    if as_json:
        click.echo(json.dumps({'stages': stages, 'rows': records} if stages else records, indent=1, allow_nan=False))
        return
    click.echo(_matrix(stages, records, quantity, error) if stages else _table(records, quantity, error))
    if csv is not None:
        click.echo(f'{len(records)} rows written to {csv}')


def _table(records: Sequence[Record], quantity: str, error: str) -> str:
    """Return a line for each potential and test set, in meV."""
    from aiida_perovmlip.launch import table

    if not records:
        return 'No evaluation was found. Evaluate a potential first: EvaluateCalculation makes one.'
    unit = _unit(quantity)
    head = ('test set', 'frames', 'potential', 'architecture', f'{quantity} {error.upper()} ({unit})', 'µs/atom', '')
    name = f'{quantity}_{error}'
    rows = [
        (
            _test_set(record),
            str(record['n_frames']),
            _name(record, 'potential'),
            str(record['architecture']),
            _number(record[name], 1e3),
            _number(record['speed'], 1),
            _remark(record),
        )
        for record in records
    ]
    return table(head, rows)


def _matrix(stages: Sequence[Record], records: Sequence[Record], quantity: str, error: str) -> str:
    """Return a line for each stage of a lineage and a column for each test set, in meV."""
    from aiida_perovmlip.launch import table
    from aiida_perovmlip.query.compare import forgetting_cells

    columns, found = forgetting_cells(list(map(dict, stages)), list(map(dict, records)), quantity, error)
    rows = [
        (
            _name(stage, 'potential'),
            stage['strategy'] or ('imported' if stage['training'] is None else '–'),
            *(_number(value, 1e3) for value in values),
        )
        for stage, values in zip(stages, found, strict=True)
    ]
    text = f'{quantity} {error.upper()} in {_unit(quantity)} of each stage, the oldest first, on each test set\n\n'
    return text + table(('potential', 'strategy', *columns), rows)


def _unit(quantity: str) -> str:
    from aiida_perovmlip.query.compare import UNITS

    return 'm' + UNITS[quantity]


def _test_set(record: Record) -> str:
    """Return the name of a test set, with the head where it has a name of its own."""
    from aiida_perovmlip.query.compare import column_name

    return column_name(record)


def _name(record: Record, kind: str) -> str:
    label = record[f'{kind}_label']
    return f'{label} ({record[kind]})' if label else str(record[kind])


def _number(value: Any, factor: float) -> str:
    """Return a number, or in words why there is none."""
    if value is None:
        return '–'
    return 'not finite' if math.isinf(value) else f'{factor * value:.4g}'


def _remark(record: Record) -> str:
    """Return what has to be known before two numbers are compared."""
    if record['state'] != 'finite':
        return 'not finite'
    return '' if record['same_level'] else 'not known to be of the level of the labels'


def _write_csv(path: Path, records: Sequence[Record]) -> None:
    """Write records with their units in the heading."""
    import csv

    from aiida_perovmlip.query.compare import COLUMNS
    from aiida_perovmlip.query.filters import headings

    with path.open('w', newline='', encoding='utf-8') as handle:
        writer = csv.writer(handle)
        writer.writerow(headings(COLUMNS).values())
        writer.writerows([record[name] for name in COLUMNS] for record in records)
