"""From which potentials a potential was trained, stage by stage, asked of the database without loading a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder
    from pandas import DataFrame

EVALUATE = 'aiida.calculations:perovmlip.evaluate'
"""The process type of an evaluation."""

TRAIN = 'aiida.calculations:perovmlip.%train%'
"""Pattern of the process types of trainings."""

Record = dict[str, Any]


def trainings_query(potential: Any) -> QueryBuilder:
    """Return the query beneath `lineage`: a training a row, of all from which a potential descends.

    These are more than its lineage: the training of a potential that labelled its frames is one of them. Tags:
    `training`, `child`, `results`.
    """
    from aiida import orm

    from aiida_perovmlip.data.potential import PotentialData

    query = _above(potential)
    query.append(
        orm.CalcJobNode,
        tag='training',
        with_descendants='focus',
        filters={'process_type': {'like': TRAIN}},
        project=['id', 'ctime', 'attributes.exit_status'],
    )
    child = ['id', 'uuid', 'label', 'attributes.architecture']
    query.append(
        PotentialData, tag='child', with_incoming='training', edge_filters={'label': 'potential'}, project=child
    )
    query.append(
        orm.Dict,
        tag='results',
        with_incoming='training',
        edge_filters={'label': 'results'},
        project=['attributes.strategy'],
    )
    return query


def inputs_query(potential: Any) -> QueryBuilder:
    """Return the query for what those trainings had: an input a row, with the label of its link; tag `input`."""
    from aiida import orm

    query = _above(potential)
    query.append(
        orm.CalcJobNode,
        tag='training',
        with_descendants='focus',
        filters={'process_type': {'like': TRAIN}},
        project='id',
    )
    query.append(
        orm.Data,
        tag='input',
        with_outgoing='training',
        edge_filters={'label': {'in': ['parent', 'training', 'replay']}},
        edge_project='label',
        project=['id', 'uuid', 'label', 'attributes.architecture', 'attributes.n_frames'],
    )
    return query


def lineage_records(potential: Any) -> list[Record]:
    """Return the stages of a potential as plain values, the oldest first; see `lineage`."""
    node = _focus(potential)
    inputs: dict[int, dict[str, list[Any]]] = {}
    for training, *given, label in inputs_query(potential).distinct().all():
        inputs.setdefault(training, {})[label] = given
    trainings = {row[3]: row for row in trainings_query(potential).distinct().all()}
    stages = []
    while node:
        training = trainings.get(node[0])
        had = inputs.get(training[0], {}) if training is not None else {}
        stages.append(_stage(node, training, had))
        node = had.get('parent', [])
    return [{'stage': stage, **record} for stage, record in enumerate(reversed(stages))]


def lineage(potential: Any) -> DataFrame:
    """Return the stages from which a potential comes, the oldest first: a potential, and the training that made it.

    The first has no training where it was imported. Chains in between do not matter.

    :param potential: node, PK or UUID.
    """
    import pandas

    return pandas.DataFrame(lineage_records(potential)).set_index('stage')


def _stage(node: list[Any], training: Any, had: dict[str, list[Any]]) -> Record:
    """Return the record of one stage."""
    frames, replay = had.get('training'), had.get('replay')
    return {
        'potential': node[0],
        'potential_label': node[2],
        'architecture': node[3],
        'training': training[0] if training is not None else None,
        'strategy': training[7] if training is not None else None,
        'trained': training[1].isoformat(timespec='seconds') if training is not None else None,
        'dataset': frames[0] if frames else None,
        'dataset_label': frames[2] if frames else None,
        'n_frames': frames[4] if frames else None,
        'replay': replay[0] if replay else None,
        'n_replay': replay[4] if replay else None,
        'potential_uuid': node[1],
    }


def _above(potential: Any) -> QueryBuilder:
    """Return a query that begins with a potential, under the tag `focus`."""
    from aiida import orm

    from aiida_perovmlip.data.potential import PotentialData

    return orm.QueryBuilder().append(PotentialData, tag='focus', filters=_is(potential))


def _focus(potential: Any) -> list[Any]:
    """Return what is asked of every potential, of this one; raises ValueError where there is none."""
    from aiida import orm

    from aiida_perovmlip.data.potential import PotentialData

    project = ['id', 'uuid', 'label', 'attributes.architecture']
    found = orm.QueryBuilder().append(PotentialData, filters=_is(potential), project=project).first()
    if found is None:
        raise ValueError(f'there is no potential {getattr(potential, "pk", potential)} in this profile.')
    return list(found)


def _is(potential: Any) -> dict[str, Any]:
    """Return the filter for a node, PK or UUID."""
    identifier = getattr(potential, 'pk', potential)
    return {'id' if isinstance(identifier, int) else 'uuid': identifier}
