"""All potentials with what made them, and all datasets, asked of the database without loading a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.filters import Record, among, levels_in_words, listed, time_of
from aiida_perovmlip.query.stages import with_training

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

ABOUT = ('architecture', 'elements', 'cutoff', 'heads', 'levels', 'dtype', 'n_parameters', 'content_hash')
"""What is asked of a potential."""

TOLD = ('strategy', 'effective', 'dropped_elements', 'notes')
"""What is asked of the results of its training."""

LINKS = ('parent', 'training', 'validation', 'replay', 'seed')
"""What is asked of the inputs of its training."""

POTENTIALS = {
    'potential': '',
    'potential_label': '',
    'architecture': '',
    'elements': '',
    'cutoff': 'Å',
    'heads': '',
    'levels': '',
    'dtype': '',
    'n_parameters': '',
    'stage': '',
    'lineage': '',
    'strategy': '',
    'seed': '',
    'parent': '',
    'dataset': '',
    'n_frames': '1',
    'validation': '',
    'replay': '',
    'n_replay': '1',
    'settings': '',
    'dropped_elements': '',
    'notes': '',
    'training': '',
    'created': '',
    'potential_uuid': '',
    'potential_content': '',
}
"""The columns of the table of potentials with their units."""

DATASETS = {
    'dataset': '',
    'dataset_label': '',
    'n_frames': '',
    'n_atoms': '',
    'n_stress': '',
    'elements': '',
    'groups': '',
    'heads': '',
    'levels': '',
    'labels': '',
    'charges': '',
    'energy_lowest': 'eV/atom',
    'energy_highest': 'eV/atom',
    'force_smallest': 'eV/Å',
    'force_largest': 'eV/Å',
    'created': '',
    'dataset_uuid': '',
    'content': '',
}
"""The columns of the table of datasets with their units."""


def potentials_query(potentials: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query for potentials, the oldest first; its tag is `potential`.

    :param potentials: nodes, PKs or UUIDs; None for all.
    """
    from aiida import orm

    from aiida_perovmlip.data.potential import PotentialData

    project = ['id', 'uuid', 'label', 'ctime', *(f'attributes.{name}' for name in ABOUT)]
    query = orm.QueryBuilder().append(PotentialData, tag='potential', filters=among(potentials), project=project)
    return query.order_by({'potential': {'id': 'asc'}})


def trained_query(potentials: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query for what trainings tell: a potential with its training and the results of it a row.

    Its tags are `potential`, `training` and `results`.
    """
    from aiida import orm

    query = _trainings(potentials)
    query.append(
        orm.Dict,
        tag='results',
        with_incoming='training',
        edge_filters={'label': 'results'},
        project=[f'attributes.{name}' for name in TOLD],
    )
    return query


def given_query(potentials: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query for what trainings were given: a potential with its training and an input of it a row.

    Its tags are `potential`, `training` and `input`.
    """
    from aiida import orm

    query = _trainings(potentials)
    query.append(
        orm.Data,
        tag='input',
        with_outgoing='training',
        edge_filters={'label': {'in': list(LINKS)}},
        edge_project='label',
        project=['id', 'attributes.n_frames', 'attributes.value'],
    )
    return query


def _trainings(potentials: Iterable[Any] | None) -> QueryBuilder:
    from aiida import orm

    from aiida_perovmlip.data.potential import PotentialData

    query = orm.QueryBuilder()
    query.append(PotentialData, tag='potential', filters=among(potentials), project='id')
    return with_training(query, 'potential', ['id'])


def potentials_records(potentials: Iterable[Any] | None = None) -> list[Record]:
    """Return a record for each potential, as plain values; see `potentials`."""
    wanted = listed(potentials)
    told = {pk: dict(zip(TOLD, values, strict=True)) for pk, _, *values in trained_query(wanted).all()}
    given: dict[int, dict[str, Any]] = {}
    for pk, training, node, n_frames, value, label in given_query(wanted).all():
        given.setdefault(pk, {'job': training})[label] = (node, n_frames, value)
    found = [_potential(row, told.get(row[0], {}), given.get(row[0], {})) for row in potentials_query(wanted).all()]
    ancestry = {record['potential']: record['parent'] for record in found}
    if wanted is not None:  # a parent may be none of those that were asked for
        ancestry |= {pk: parent for pk, _, parent in _parents_query().all()}
    for record in found:
        record['lineage'] = _lineage(record['potential'], ancestry)
        record['stage'] = len(record['lineage']) - 1
    return found


def potentials(potentials: Iterable[Any] | None = None) -> Table:
    """Return what is known of potentials, the oldest first: what each is, its lineage, and how it was trained.

    `lineage` lists the PKs of the stages that it comes from, the oldest first and itself last, by the input `parent`
    of trainings alone. `settings` are those that had an effect, read back from the trainer. A potential that was
    imported has no training.

    :param potentials: nodes, PKs or UUIDs; None for all.
    """
    from aiida_perovmlip.query.table import table_of

    wanted = listed(potentials)
    queries = [potentials_query(wanted), trained_query(wanted), given_query(wanted)]
    return table_of(potentials_records(wanted), POTENTIALS, queries)


def datasets_query(datasets: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query beneath `datasets`, the oldest first; its tag is `dataset`.

    :param datasets: nodes, PKs or UUIDs; None for all.
    """
    from aiida import orm

    from aiida_perovmlip.data.dataset import DatasetData

    names = ('n_frames', 'n_atoms', 'n_stress', 'elements', 'groups', 'heads', 'levels', 'labels', 'charges')
    ranges = ('energy_per_atom_range', 'force_range', 'content_hash')
    project = ['id', 'label', 'uuid', 'ctime', *(f'attributes.{name}' for name in (*names, *ranges))]
    query = orm.QueryBuilder().append(DatasetData, tag='dataset', filters=among(datasets), project=project)
    return query.order_by({'dataset': {'id': 'asc'}})


def datasets_records(datasets: Iterable[Any] | None = None) -> list[Record]:
    """Return a record for each dataset, as plain values; see `datasets`."""
    return [_dataset(row) for row in datasets_query(datasets).all()]


def datasets(datasets: Iterable[Any] | None = None) -> Table:
    """Return what is known of datasets, the oldest first: frames, groups and level of theory by head.

    :param datasets: nodes, PKs or UUIDs; None for all.
    """
    from aiida_perovmlip.query.table import table_of

    wanted = listed(datasets)
    return table_of(datasets_records(wanted), DATASETS, [datasets_query(wanted)])


def _potential(row: list[Any], told: Mapping[str, Any], given: Mapping[str, Any]) -> Record:
    """Return the record of a potential; what is not stored is None."""
    pk, uuid, label, created, *values = row
    about = dict(zip(ABOUT, values, strict=True))
    nobody = (None, None, None)
    frames, replay = given.get('training', nobody), given.get('replay', nobody)
    return {
        'potential': pk,
        'potential_label': label,
        **{name: about[name] for name in ('architecture', 'elements', 'cutoff', 'heads')},
        'levels': levels_in_words(about['levels']),
        'dtype': about['dtype'] or None,
        'n_parameters': about['n_parameters'] or None,
        'strategy': told.get('strategy'),
        'seed': given.get('seed', nobody)[2],
        'parent': given.get('parent', nobody)[0],
        'dataset': frames[0],
        'n_frames': frames[1],
        'validation': given.get('validation', nobody)[0],
        'replay': replay[0],
        'n_replay': replay[1],
        'settings': told.get('effective'),
        'dropped_elements': told.get('dropped_elements'),
        'notes': told.get('notes'),
        'training': given.get('job'),
        'created': time_of(created),
        'potential_uuid': uuid,
        'potential_content': about['content_hash'],
    }


def _dataset(row: list[Any]) -> Record:
    """Return the record of a dataset."""
    pk, label, uuid, created, *values = row
    n_frames, n_atoms, n_stress, elements, groups, heads, levels, labels, charges, energies, forces, content = values
    lowest, highest = energies or (None, None)
    smallest, largest = forces or (None, None)
    return {
        'dataset': pk,
        'dataset_label': label,
        'n_frames': n_frames,
        'n_atoms': n_atoms,
        'n_stress': n_stress,
        'elements': elements,
        'groups': groups,
        'heads': heads,
        'levels': levels_in_words(levels),
        'labels': labels,
        'charges': charges,
        'energy_lowest': lowest,
        'energy_highest': highest,
        'force_smallest': smallest,
        'force_largest': largest,
        'created': time_of(created),
        'dataset_uuid': uuid,
        'content': content,
    }


def _parents_query() -> QueryBuilder:
    """Return the query for the PK of every trained potential and of the parent that its training began with."""
    from aiida_perovmlip.data.potential import PotentialData

    query = _trainings(None)
    query.append(PotentialData, tag='parent', with_outgoing='training', edge_filters={'label': 'parent'}, project='id')
    return query


def _lineage(potential: int, parents: Mapping[int, int | None]) -> list[int]:
    """Return the stages of a potential, the oldest first; damaged links that go round end where they meet."""
    stages = [potential]
    while (parent := parents.get(stages[-1])) is not None and parent not in stages:
        stages.append(parent)
    return stages[::-1]
