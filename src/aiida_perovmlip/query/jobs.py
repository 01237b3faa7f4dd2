"""What jobs cost and how many labels they gave, asked of the database without loading a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.filters import Record, time_of
from aiida_perovmlip.query.origins import ancestors_of
from aiida_perovmlip.query.stages import TRAIN

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

JOBS = 'aiida.calculations:perovmlip.%'
"""Pattern of the process types of our jobs."""

TRAINING = 'aiida.workflows:perovmlip.train'
"""The process type of the chain whose jobs are the legs of one training."""

TOLD = ('seconds', 'seconds_of_labels', 'device', 'n_labelled', 'effective.gpus')
"""What is asked of the results of a job."""

HOUR = 3600.0

COLUMNS = {
    'job': '',
    'label': '',
    'kind': '',
    'process': '',
    'exit_status': '',
    'from_cache': '',
    'chain': '',
    'device': '',
    'cores': '1',
    'wall_hours': 'h',
    'core_hours': 'h',
    'gpu_hours': 'h',
    'n_labels': '1',
    'created': '',
    'job_uuid': '',
}
"""The columns of the table with their units."""

ADDED = ('core_hours', 'gpu_hours', 'n_labels')


def costs_query(jobs: str = JOBS) -> QueryBuilder:
    """Return the query for jobs, the oldest first; its tag is `job`.

    :param jobs: pattern of their process types.
    """
    told = [f'attributes.{name}' for name in ('process_label', 'exit_status', 'resources', 'gpus')]
    about = ['id', 'uuid', 'label', 'ctime', 'process_type', 'extras._aiida_cached_from']
    query = _jobs(jobs)
    query.add_projection('job', [*about, *told])
    return query.order_by({'job': {'id': 'asc'}})


def results_query(jobs: str = JOBS) -> QueryBuilder:
    """Return the query for what jobs tell of their costs; its tags are `job` and `results`."""
    from aiida import orm

    query = _jobs(jobs)
    project = [f'attributes.{name}' for name in TOLD]
    return query.append(
        orm.Dict, tag='results', with_incoming='job', edge_filters={'label': 'results'}, project=project
    )


def callers_query(jobs: str = JOBS) -> QueryBuilder:
    """Return the query for the chain that ran each job; its tags are `job` and `chain`."""
    from aiida import orm

    return _jobs(jobs).append(orm.WorkChainNode, tag='chain', with_outgoing='job', project=['id', 'process_type'])


def _jobs(pattern: str) -> QueryBuilder:
    from aiida import orm

    return orm.QueryBuilder().append(
        orm.CalcJobNode, tag='job', filters={'process_type': {'like': pattern}}, project='id'
    )


def costs_records(of: Any = None, jobs: str = JOBS) -> list[Record]:
    """Return a record for each job, as plain values; see `costs`.

    :param jobs: pattern of their process types.
    """
    told = {pk: dict(zip(TOLD, values, strict=True)) for pk, *values in results_query(jobs).all()}
    chains = {pk: chain for pk, chain, _ in callers_query(jobs).all()}
    records = [_record(row, told.get(row[0], {}), chains.get(row[0])) for row in costs_query(jobs).all()]
    if of is None:
        return records
    wanted = ancestors_of(of)
    return [record for record in records if record['job'] in wanted or record['chain'] in wanted]


def costs(of: Any = None) -> Table:
    """Return what jobs cost, the oldest first; the sums are in `attrs['total']`.

    Core-hours are the cores that the job had times the wall time of the job, or what a program of DFT told of its
    labels. GPU-hours are the wall time of a job that computed on CUDA, times the GPUs that it asked for or, where it
    did not say, that the trainer told of; one, where nobody did. They are zero on a processor. A job that told nothing
    has NaN, and the total says in `n_unknown` how many did. A copy that caching has made cost nothing: its numbers are
    those of the original, and the total leaves it out.

    :param of: None for all jobs of the profile; else what `ancestors` takes: the jobs that it depends on, with all that
        the chains tried which ran these.
    """
    from aiida_perovmlip.query.table import table_of

    records = costs_records(of)
    table = table_of(records, COLUMNS, [costs_query(), results_query(), callers_query()])
    table.attrs['total'] = total_of(records)
    return table


def total_of(records: Iterable[Mapping[str, Any]]) -> Record:
    """Return what jobs cost together, without copies that caching has made."""
    ran = [record for record in records if not record['from_cache']]
    sums = {name: sum(record[name] or 0 for record in ran) for name in ADDED}
    return {'n_jobs': len(ran), **sums, 'n_unknown': sum(record['core_hours'] is None for record in ran)}


def training_costs() -> dict[int, Record]:
    """Return what the training of each potential cost, with all legs of its chain, by the PK of its last leg."""
    chains = {pk: chain for pk, chain, kind in callers_query(TRAIN).all() if kind == TRAINING}
    records = costs_records(jobs=TRAIN)
    legs: dict[int, list[Record]] = {}
    trainings: dict[int, int] = {record['job']: chains.get(record['job']) or record['job'] for record in records}
    for record in records:
        legs.setdefault(trainings[record['job']], []).append(record)
    return {job: _sum(legs[training]) for job, training in trainings.items()}


def _sum(legs: Sequence[Record]) -> Record:
    """Return the sum over legs; None where one of them told nothing."""
    return {
        name: None if any(leg[name] is None for leg in legs) else sum(leg[name] for leg in legs)
        for name in ('core_hours', 'gpu_hours')
    }


def _record(row: Sequence[Any], told: Mapping[str, Any], chain: int | None) -> Record:
    """Return the record of a job; what is not stored is None."""
    pk, uuid, label, created, process_type, original, process, exit_status, resources, gpus = row
    cores, seconds = cores_of(resources or {}), told.get('seconds')
    wall = seconds.get('total') if isinstance(seconds, dict) else None
    core_seconds = wall * cores if wall is not None and cores else told.get('seconds_of_labels')
    if core_seconds is None and isinstance(seconds, (int, float)):  # CP2K's bands tell core-seconds alone
        core_seconds = seconds
    return {
        'job': pk,
        'label': label,
        'kind': process_type.rpartition(':')[2].removeprefix('perovmlip.'),
        'process': process,
        'exit_status': exit_status,
        'from_cache': original is not None,
        'chain': chain,
        'device': told.get('device'),
        'cores': cores,
        'wall_hours': None if wall is None else wall / HOUR,
        'core_hours': None if core_seconds is None else core_seconds / HOUR,
        'gpu_hours': _gpu_hours(told, gpus, wall),
        'n_labels': told.get('n_labelled'),
        'created': time_of(created),
        'job_uuid': uuid,
    }


def _gpu_hours(told: Mapping[str, Any], asked: int | None, wall: float | None) -> float | None:
    """Return wall time times GPUs in hours; None where the job does not tell on what it ran."""
    if told.get('device') is None or wall is None:
        return None
    return 0.0 if told['device'] == 'cpu' else wall * (asked or told.get('effective.gpus') or 1) / HOUR


def cores_of(resources: Mapping[str, Any]) -> int | None:
    """Return how many cores a job had by the resources that it asked for; None where these do not tell."""
    machines, processes = resources.get('num_machines'), resources.get('num_mpiprocs_per_machine')
    if machines and resources.get('num_cores_per_machine'):
        return int(machines * resources['num_cores_per_machine'])
    total = resources.get('tot_num_mpiprocs') or (machines * processes if machines and processes else None)
    return None if total is None else int(total * (resources.get('num_cores_per_mpiproc') or 1))
