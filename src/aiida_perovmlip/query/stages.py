"""From which potentials a potential was trained, stage by stage, asked of the database without loading a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.filters import Record, among, time_of

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

EVALUATE = 'aiida.calculations:perovmlip.evaluate'
"""The process type of an evaluation."""

TRAIN = 'aiida.calculations:perovmlip.%train%'
"""Pattern of the process types of trainings."""


def with_training(query: QueryBuilder, potential: str, project: list[str]) -> QueryBuilder:
    """Append the training that made a potential to a query, under the tag `training`.

    :param potential: the tag of the potential.
    :param project: what is asked of the training.
    """
    from aiida import orm

    return query.append(
        orm.CalcJobNode,
        tag='training',
        with_outgoing=potential,
        edge_filters={'label': 'potential'},
        filters={'process_type': {'like': TRAIN}},
        project=project,
    )


def trainings_query(potential: Any) -> QueryBuilder:
    """Return the query for the training that made a potential: a row, or none where it was imported.

    `lineage` asks it of one stage after the other. A query over all ancestors counts the ways that lead to each of
    them, and a training of several legs, of which each has its `parent` and its `restart`, multiplies these. Tags:
    `focus`, `training`, `results`; a training without results, as where these were deleted, is no row.
    """
    from aiida import orm

    query = with_training(_above(potential), 'focus', ['id', 'ctime', 'attributes.exit_status'])
    query.append(
        orm.Dict,
        tag='results',
        with_incoming='training',
        edge_filters={'label': 'results'},
        project=['attributes.strategy'],
    )
    return query


def inputs_query(potential: Any) -> QueryBuilder:
    """Return the query for what that training had: an input a row, with the label of its link; tag `input`."""
    from aiida import orm

    query = with_training(_above(potential), 'focus', ['id', 'ctime'])
    query.append(
        orm.Data,
        tag='input',
        with_outgoing='training',
        edge_filters={'label': {'in': ['parent', 'training', 'replay']}},
        edge_project='label',
        project=[
            'id',
            'uuid',
            'label',
            'attributes.architecture',
            'attributes.content_hash',
            'attributes.n_frames',
        ],
    )
    return query


def lineage_records(potential: Any) -> list[Record]:
    """Return the stages of a potential as plain values, the oldest first; see `lineage`.

    Two small queries a stage. Raises ValueError where a potential is its own ancestor.
    """
    node = _focus(potential)
    stages: dict[int, Record] = {}
    while node:
        if node[0] in stages:
            raise ValueError(
                f'the potential {node[0]} descends from itself by the input `parent`; the links of the trainings '
                f'{", ".join(str(stage["training"]) for stage in stages.values())} are damaged: restore the profile '
                f'from a backup.'
            )
        training, had = _training_of(node[0])
        stages[node[0]] = _stage(node, training, had)
        node = had.get('parent', [])
    return [{'stage': stage, **record} for stage, record in enumerate(reversed(stages.values()))]


def lineage(potential: Any) -> Table:
    """Return the stages from which a potential comes, the oldest first: a potential, and the training that made it.

    The first has no training where it was imported. Chains in between do not matter.

    :param potential: node, PK or UUID.
    """
    from pandas import DataFrame

    from aiida_perovmlip.query.table import with_queries

    stages = lineage_records(potential)
    return with_queries(DataFrame(stages).set_index('stage'), [inputs_query(stage['potential']) for stage in stages])


def _training_of(potential: int) -> tuple[list[Any] | None, dict[str, list[Any]]]:
    """Return PK, time and strategy of the training that made a potential, and what it had by the labels of the links.

    None and nothing where it was imported; a training is one by its links, also where its results are not there.
    """
    rows = inputs_query(potential).all()
    if not rows:
        return None, {}
    told = trainings_query(potential).first()
    return [*rows[0][:2], told[3] if told else None], {label: given for _, _, *given, label in rows}


def _stage(node: list[Any], training: list[Any] | None, had: dict[str, list[Any]]) -> Record:
    """Return the record of one stage."""
    frames, replay = had.get('training'), had.get('replay')
    return {
        'potential': node[0],
        'potential_label': node[2],
        'architecture': node[3],
        'training': training[0] if training is not None else None,
        'strategy': training[2] if training is not None else None,
        'trained': time_of(training[1]) if training is not None else None,
        'dataset': frames[0] if frames else None,
        'dataset_label': frames[2] if frames else None,
        'n_frames': frames[5] if frames else None,
        'replay': replay[0] if replay else None,
        'n_replay': replay[5] if replay else None,
        'potential_uuid': node[1],
        'potential_content': node[4],
    }


def _above(potential: Any) -> QueryBuilder:
    """Return a query that begins with a potential, under the tag `focus`."""
    from aiida import orm

    from aiida_perovmlip.data.potential import PotentialData

    return orm.QueryBuilder().append(PotentialData, tag='focus', filters=among([potential]))


def _focus(potential: Any) -> list[Any]:
    """Return what is asked of every potential, of this one; raises ValueError where there is none."""
    from aiida import orm

    from aiida_perovmlip.data.potential import PotentialData

    project = ['id', 'uuid', 'label', 'attributes.architecture', 'attributes.content_hash']
    found = orm.QueryBuilder().append(PotentialData, filters=among([potential]), project=project).first()
    if found is None:
        raise ValueError(f'there is no potential {getattr(potential, "pk", potential)} in this profile.')
    return list(found)
