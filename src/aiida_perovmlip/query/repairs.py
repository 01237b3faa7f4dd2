"""Which labels came from calculations that had failed and were repaired, asked of the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.chains import found_query
from aiida_perovmlip.query.filters import Record, among, level_in_words, listed

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

LABELLING = 'aiida.workflows:perovmlip.label'
"""The process type of the chain that labels."""

COLUMNS = {
    'chain': '',
    'name': '',
    'frame': '',
    'repair': '',
    'kind': '',
    'reason': '',
    'n_failed': '',
    'failed_job': '',
    'job': '',
    'level': '',
    'chain_uuid': '',
}
"""The columns of the table."""


def repaired_query(chains: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query beneath `repaired_labels`: a labelling and its results a row; tags `chain` and `results`.

    :param chains: nodes, PKs or UUIDs; None for all.
    """
    return found_query(LABELLING, 'chain', 'results', ('repaired', 'level'), chains)


def attempts_query(chains: Sequence[int]) -> QueryBuilder:
    """Return the query for what jobs of chains tell of their frames; its tags are `chain`, `job` and `results`."""
    from aiida import orm

    query = orm.QueryBuilder().append(orm.WorkChainNode, tag='chain', filters=among(chains), project='id')
    query.append(orm.CalcJobNode, tag='job', with_incoming='chain', project='id')
    query.append(
        orm.Dict, tag='results', with_incoming='job', edge_filters={'label': 'results'}, project='attributes.failed'
    )
    return query.order_by({'job': {'id': 'asc'}})


def cuts_query(chains: Sequence[int]) -> QueryBuilder:
    """Return the query for how frames were cut for jobs; its tags are `chain`, `cut` and `parts`."""
    from aiida import orm

    query = _cuts(chains)
    return query.append(
        orm.Dict, tag='parts', with_outgoing='cut', edge_filters={'label': 'parts'}, project='attributes'
    )


def parts_query(chains: Sequence[int]) -> QueryBuilder:
    """Return the query for which part of a cut each job was given; its tags are `chain`, `cut`, `frames` and `job`.

    A job that was given all frames is no row.
    """
    from aiida import orm

    query = _cuts(chains)
    query.append(orm.Data, tag='frames', with_incoming='cut', edge_project='label')
    query.append(orm.CalcJobNode, tag='job', with_incoming='frames', edge_filters={'label': 'frames'}, project='id')
    return query


def _cuts(chains: Sequence[int]) -> QueryBuilder:
    from aiida import orm

    query = orm.QueryBuilder().append(orm.WorkChainNode, tag='chain', filters=among(chains), project='id')
    return query.append(orm.CalcFunctionNode, tag='cut', with_incoming='chain', project='id')


def repaired_records(chains: Iterable[Any] | None = None) -> list[Record]:
    """Return a record for each repaired label, as plain values; see `repaired_labels`."""
    rows = [row for row in repaired_query(chains).all() if row[4]]
    attempts = _attempts([row[0] for row in rows])
    return [
        {
            'chain': pk,
            'name': label,
            'frame': int(frame),
            'repair': repair,
            **_told(int(frame), attempts.get(pk, [])),
            'level': level_in_words(level),
            'chain_uuid': uuid,
        }
        for pk, uuid, label, _, repaired, level in rows
        for frame, repair in sorted(repaired.items(), key=lambda entry: int(entry[0]))
    ]


def repaired_labels(chains: Iterable[Any] | None = None) -> Table:
    """Return the labels that came from calculations which had failed: a row is a frame of a labelling.

    `frame` is its position in the input of the chain, `repair` the way by which it got its label, from the `job`;
    `kind` and `reason` say why the first job that failed on it did so, `n_failed` how many did. A job that was killed
    tells nothing; what nobody told is None.

    :param chains: nodes, PKs or UUIDs of labellings; None for all.
    """
    from aiida_perovmlip.query.table import table_of

    wanted = listed(chains)
    records = repaired_records(wanted)
    found = sorted({record['chain'] for record in records})
    return table_of(
        records, COLUMNS, [repaired_query(wanted), attempts_query(found), cuts_query(found), parts_query(found)]
    )


@dataclass(frozen=True)
class _Attempt:
    """A job with its frames.

    :param frames: positions in the input of the chain; None for all.
    :param failed: what is said of those that failed, by their positions in the job.
    """

    job: int
    frames: Sequence[int] | None
    failed: Mapping[int, Mapping[str, Any]]

    def place_of(self, frame: int) -> int | None:
        """Return where in the job a frame of the chain is; None where it is not in it."""
        if self.frames is None:
            return frame
        return self.frames.index(frame) if frame in self.frames else None


def _attempts(chains: Sequence[int]) -> dict[int, list[_Attempt]]:
    """Return the jobs of each chain, the oldest first."""
    cuts = {cut: parts for _, cut, parts in cuts_query(chains).all()}
    given = {(chain, job): cuts[cut][name] for chain, cut, job, name in parts_query(chains).all() if cut in cuts}
    found: dict[int, list[_Attempt]] = {}
    for chain, job, failed in attempts_query(chains).all():
        reasons = {entry['frame']: entry for entry in failed or ()}
        found.setdefault(chain, []).append(_Attempt(job, given.get((chain, job)), reasons))
    return found


def _told(frame: int, attempts: Sequence[_Attempt]) -> Record:
    """Return why a frame failed first, and which job labelled it in the end; None where nobody told."""
    places = [(each, each.place_of(frame)) for each in attempts]
    mine = [(each, place) for each, place in places if place is not None]
    failed = [(each.job, each.failed[place]) for each, place in mine if place in each.failed]
    job, why = failed[0] if failed else (None, {})
    labelled = [each.job for each, place in mine if place not in each.failed]
    return {
        'kind': why.get('kind'),
        'reason': why.get('reason'),
        'n_failed': len(failed),
        'failed_job': job,
        'job': labelled[-1] if labelled else None,
    }
