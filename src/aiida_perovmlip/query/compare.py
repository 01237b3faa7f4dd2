"""Which potential has which errors on which test set, asked of the database without loading a node."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.filters import Record, among, level_in_words, listed, time_of
from aiida_perovmlip.query.nodes import potentials_records, trained_query
from aiida_perovmlip.query.stages import EVALUATE, lineage_records

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

UNITS = {'energy_per_atom': 'eV/atom', 'forces': 'eV/Å', 'stress': 'eV/Å³'}
"""Unit of the errors of each quantity."""

ERRORS = ('mae', 'rmse')
METRICS = (
    *UNITS,
    'per_head',
    'head',
    'same_level',
    'same_level_per_head',
    'state',
    'microseconds_per_atom',
    'peak_memory_mb',
    'device',
)
"""What is asked of the metrics; all of them, with every group and element, would take a hundred times as long."""

EXIT_CODES = (0, 530)
"""Evaluations that came to their end: those that succeeded, and those that met predictions which are not finite."""

COLUMNS = {
    'potential': '',
    'potential_label': '',
    'architecture': '',
    'dataset': '',
    'dataset_label': '',
    'n_frames': '',
    'head': '',
    'level': '',
    **{f'{quantity}_{error}': unit for quantity, unit in UNITS.items() for error in ERRORS},
    'state': '',
    'not_finite': '',
    'same_level': '',
    'speed': 'µs/atom',
    'peak_memory': 'MB',
    'device': '',
    'evaluation': '',
    'evaluated': '',
    'potential_uuid': '',
    'potential_content': '',
    'content': '',
}
"""The columns of the table of evaluations with their units."""


def evaluations_query(
    potentials: Iterable[Any] | None = None, datasets: Iterable[Any] | None = None, newest: bool = True
) -> QueryBuilder:
    """Return the query beneath `evaluations`: an evaluation with its potential, its dataset and its metrics a row.

    It can be narrowed further: its tags are `potential`, `evaluation`, `dataset` and `metrics`. What the attributes
    hold is described in the topic on metrics.

    :param potentials: nodes, PKs or UUIDs; None for all.
    :param datasets: nodes, PKs or UUIDs; None for all. Datasets of the same content count as one.
    :param newest: order by age, the newest first, as `evaluations` needs it.
    """
    from aiida import orm

    from aiida_perovmlip.data.dataset import DatasetData
    from aiida_perovmlip.data.potential import PotentialData

    query = orm.QueryBuilder()
    query.append(
        PotentialData,
        tag='potential',
        filters=among(potentials),
        project=['id', 'uuid', 'label', 'attributes.architecture', 'attributes.heads', 'attributes.content_hash'],
    )
    query.append(
        orm.CalcJobNode,
        tag='evaluation',
        with_incoming='potential',
        edge_filters={'label': 'potential'},
        filters={'process_type': EVALUATE, 'attributes.exit_status': {'in': list(EXIT_CODES)}},
        project=['id', 'uuid', 'ctime', 'extras._aiida_cached_from'],
    )
    query.append(
        DatasetData,
        tag='dataset',
        with_outgoing='evaluation',
        edge_filters={'label': 'dataset'},
        filters=_of_content(datasets),
        project=['id', 'uuid', 'label', 'attributes.content_hash', 'attributes.n_frames', 'attributes.levels'],
    )
    query.append(
        orm.Dict,
        tag='metrics',
        with_incoming='evaluation',
        edge_filters={'label': 'metrics'},
        project=[f'attributes.{name}' for name in METRICS],
    )
    return query.order_by({'evaluation': {'id': 'desc'}}) if newest else query


def evaluations_records(
    potentials: Iterable[Any] | None = None, datasets: Iterable[Any] | None = None, newest: bool = True
) -> list[Record]:
    """Return a record for each potential, test set and head, as plain values; see `evaluations`."""
    seen: set[tuple[Any, ...]] = set()
    names: dict[str, tuple[int, str]] = {}
    rows = evaluations_query(potentials, datasets).all()
    evaluated = {row[7]: row[0] for row in rows}
    records = []
    for row in rows:
        original = evaluated.get(row[9])  # the potential of the evaluation that caching has copied, if that is here
        is_copy = original is not None and (not newest if original == row[0] else potentials is None)
        for record in _records_of(row):
            key = (record['potential'], record['content'], record['head'])
            if not (is_copy or (newest and key in seen)):
                records.append(record)
                seen.add(key)
            known = names.get(record['content'], (record['dataset'], ''))
            # Of datasets with the same content the oldest gives the number, and the oldest that has a label the name.
            names[record['content']] = (min(known[0], record['dataset']), record['dataset_label'] or known[1])
    for record in records:
        record['dataset'], record['dataset_label'] = names[record['content']]
    return sorted(records, key=lambda record: (record['dataset'], record['head'], record['potential']))


def evaluations(
    potentials: Iterable[Any] | None = None, datasets: Iterable[Any] | None = None, newest: bool = True
) -> Table:
    """Return the errors of potentials on the test sets that they were evaluated on.

    A row is a potential, a test set and a head. Test sets of the same content count as one, under the smallest PK, and
    an evaluation that caching has copied counts once; that of an equal potential has a row of its own where both
    potentials are named. A row whose predictions are not finite has `not_finite` as its
    `state`, and NaN for the errors of the quantities that `not_finite` names. Of an evaluation with several
    heads, frames and state are those of the head.

    :param potentials: nodes, PKs or UUIDs; None for all.
    :param datasets: nodes, PKs or UUIDs; None for all.
    :param newest: keep the newest evaluation alone where there are several of one potential, test set and head.
    """
    from aiida_perovmlip.query.table import table_of

    wanted, sets = listed(potentials), listed(datasets)
    return table_of(evaluations_records(wanted, sets, newest), COLUMNS, [evaluations_query(wanted, sets)])


def forgetting_records(potential: Any, datasets: Iterable[Any] | None = None) -> tuple[list[Record], list[Record]]:
    """Return the stages of a potential's lineage, the oldest first, and the records of their evaluations.

    :param datasets: nodes, PKs or UUIDs; None for all.
    """
    stages = lineage_records(potential)
    return stages, evaluations_records([stage['potential'] for stage in stages], datasets)


def forgetting_matrix(
    potential: Any, quantity: str = 'forces', error: str = 'rmse', datasets: Iterable[Any] | None = None
) -> Table:
    """Return what each stage of a potential's lineage knows of each test set: a row a stage, a column a test set.

    A test set with labels of several levels of theory has a column for each level. A column whose errors grow
    downwards is forgotten. Infinity is what was evaluated and met predictions that are not
    finite; NaN is what nobody evaluated, or what has no label. The unit is in `attrs['unit']`.

    :param potential: the last stage, as node, PK or UUID.
    :param quantity: `energy_per_atom`, `forces` or `stress`.
    :param error: `mae` or `rmse`.
    :param datasets: nodes, PKs or UUIDs; None for all.
    """
    error_name(quantity, error)
    stages, records = forgetting_records(potential, datasets)
    queries = [evaluations_query([stage['potential'] for stage in stages], datasets)]
    table = _matrix(stages, records, quantity, error, queries)
    table.index = table.index.get_level_values('potential')
    return table


def compare_strategies(
    datasets: Iterable[Any] | None = None,
    quantity: str = 'forces',
    error: str = 'rmse',
    potentials: Iterable[Any] | None = None,
) -> Table:
    """Return the errors of potentials by the strategy that they were trained with: a column is a test set.

    The rows are strategies, and the potentials of each; a potential that no training made has none. Cells and `attrs`
    are those of `forgetting_matrix`.

    :param datasets: nodes, PKs or UUIDs; None for all.
    :param quantity: `energy_per_atom`, `forces` or `stress`.
    :param error: `mae` or `rmse`.
    :param potentials: nodes, PKs or UUIDs; None for all that were evaluated.
    """
    error_name(quantity, error)
    wanted, sets = listed(potentials), listed(datasets)
    records = evaluations_records(wanted, sets)
    evaluated = {record['potential'] for record in records}
    known = [record for record in potentials_records(wanted) if record['potential'] in evaluated]
    known.sort(key=lambda record: (record['strategy'] or '', record['potential']))
    return _matrix(known, records, quantity, error, [trained_query(wanted), evaluations_query(wanted, sets)])


def _matrix(
    potentials: Sequence[Record],
    records: Sequence[Record],
    quantity: str,
    error: str,
    queries: Iterable[QueryBuilder],
) -> Table:
    """Return a table of errors: a row is a potential, a column a test set."""
    from pandas import DataFrame, Index, MultiIndex

    from aiida_perovmlip.query.table import with_queries

    columns, rows = forgetting_cells(potentials, records, quantity, error)
    names = ['strategy', 'potential', 'potential_label']
    index = MultiIndex.from_tuples([tuple(record[name] for name in names) for record in potentials], names=names)
    frame = DataFrame(rows, index=index, columns=Index(columns, name='test set'), dtype=float)
    frame.attrs |= {'quantity': quantity, 'error': error, 'unit': UNITS[quantity]}
    return with_queries(frame, queries)


def forgetting_cells(
    stages: Sequence[Record], records: Sequence[Record], quantity: str, error: str
) -> tuple[list[str], list[list[float | None]]]:
    """Return the names of the columns of a matrix of errors, and a row for each stage or potential."""
    columns = level_columns(records)
    cells = {
        (record['potential_content'], column): cell_value(record, quantity, error)
        for record, column in zip(records, columns, strict=True)
    }
    names = list(dict.fromkeys(columns))
    return names, [[cells.get((stage['potential_content'], name)) for name in names] for stage in stages]


def level_columns(records: Sequence[Record]) -> list[str]:
    """Return what to call the test set and the level of theory of each record, whatever its head is called.

    One level may be a head of one name in one stage and of another in the next. The level is said where a test set has
    several, and the head where one potential predicts one level by several.
    """
    levels: dict[Any, set[str]] = {}
    for record in records:
        levels.setdefault(record['content'], set()).add(record['level'])
    names = [
        f'{dataset_name(record)} {record["level"]}'.rstrip() if len(levels[record['content']]) > 1
        else dataset_name(record)
        for record in records
    ]  # fmt: skip
    count = Counter((record['potential_content'], name) for record, name in zip(records, names, strict=True))
    crowded = {name for (_, name), n in count.items() if n > 1}
    return [
        f'{name} {record["head"]}' if name in crowded else name for record, name in zip(records, names, strict=True)
    ]


def error_name(quantity: str, error: str) -> str:
    """Return the name of an error in records; refuse what is none."""
    if quantity not in UNITS or error not in ERRORS:
        raise ValueError(
            f'there is no {error!r} of {quantity!r}; the quantities are {", ".join(UNITS)}, the errors '
            f'{", ".join(ERRORS)}.'
        )
    return f'{quantity}_{error}'


def cell_value(record: Mapping[str, Any], quantity: str, error: str) -> float | None:
    """Return an error in its unit; infinity where predictions are not finite, None where nothing was compared."""
    value: float | None = record[error_name(quantity, error)]
    return math.inf if value is None and quantity in record['not_finite'].split() else value


def column_name(record: Mapping[str, Any]) -> str:
    """Return what to call a test set and a head in one word."""
    name = dataset_name(record)
    return name if record['head'] in ('default', 'Default') else f'{name} {record["head"]}'


def dataset_name(record: Mapping[str, Any]) -> str:
    """Return what to call a test set."""
    return f'{record["dataset_label"]} ({record["dataset"]})' if record['dataset_label'] else str(record['dataset'])


def _records_of(row: Sequence[Any]) -> list[Record]:
    """Return a record for each head of an evaluation."""
    metrics = dict(zip(METRICS, row[-len(METRICS) :], strict=True))
    per_head = metrics.get('per_head') or {}
    if len(per_head) > 1:
        same = metrics.get('same_level_per_head') or {}
        return [
            _record_of(row, metrics, head, {**errors, **_frames_and_state(errors), 'same_level': same.get(head)})
            for head, errors in per_head.items()
        ]
    heads = row[4] or []
    head = metrics.get('head') or next(iter(per_head), heads[0] if len(heads) == 1 else '')
    return [_record_of(row, metrics, head, {**metrics, 'n_frames': row[14]})]


def _frames_and_state(errors: Mapping[str, Any]) -> Record:
    """Return how many frames a head has, one energy each, and whether all its predictions are finite."""
    frames = (errors.get('energy_per_atom') or {}).get('n')
    return {'n_frames': frames, 'state': 'not_finite' if _not_finite(errors) else 'finite'}


def _not_finite(errors: Mapping[str, Any]) -> list[str]:
    """Return the quantities of which some prediction is not finite."""
    return [quantity for quantity in UNITS if (errors.get(quantity) or {}).get('n_not_finite')]


def _record_of(row: Sequence[Any], metrics: Mapping[str, Any], head: str, errors: Mapping[str, Any]) -> Record:
    """Return one record; an error that is not there is None."""
    same_level = errors.get('same_level')
    return {
        'potential': row[0],
        'potential_label': row[2],
        'architecture': row[3],
        'dataset': row[10],
        'dataset_label': row[12],
        'n_frames': errors.get('n_frames'),
        'head': head,
        'level': _level_of(row[15] or {}, head),
        **{f'{quantity}_{error}': (errors.get(quantity) or {}).get(error) for quantity in UNITS for error in ERRORS},
        'state': errors.get('state'),
        'not_finite': ' '.join(_not_finite(errors)),
        'same_level': None if same_level is None else bool(same_level),
        'speed': metrics.get('microseconds_per_atom'),
        'peak_memory': metrics.get('peak_memory_mb'),
        'device': metrics.get('device'),
        'evaluation': row[6],
        'evaluated': time_of(row[8]),
        'potential_uuid': row[1],
        'potential_content': row[5],
        'content': row[13],
    }


def _level_of(levels: Mapping[str, Any], head: str) -> str:
    """Return the level of theory of the labels that a head was compared with, in words; nothing where none is known."""
    named = {name.replace('.', '_'): level for name, level in levels.items()}
    found = next(iter(levels.values())) if len(levels) == 1 else named.get(head.replace('.', '_'))
    return level_in_words(found) if found else ''


def _of_content(datasets: Iterable[Any] | None) -> dict[str, Any]:
    """Return a filter for datasets of the same content as these."""
    from aiida import orm

    from aiida_perovmlip.data.dataset import DatasetData

    if datasets is None:
        return {}
    query = orm.QueryBuilder().append(DatasetData, filters=among(datasets), project='attributes.content_hash')
    return {'attributes.content_hash': {'in': query.all(flat=True) or ['none']}}
