"""What potentials of different architectures are good for and what they cost, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.compare import evaluations_query, evaluations_records
from aiida_perovmlip.query.filters import Record, listed
from aiida_perovmlip.query.jobs import costs_query, training_costs
from aiida_perovmlip.query.motion import diffusion_query, diffusion_records
from aiida_perovmlip.query.nodes import potentials_query, potentials_records
from aiida_perovmlip.query.paths import barriers_query, barriers_records, errors_of

if TYPE_CHECKING:
    from aiida_perovmlip.query.table import Table

ERRORS = ('forces_rmse', 'energy_per_atom_rmse', 'state', 'same_level', 'speed', 'device')
"""What is taken over from an evaluation."""

COLUMNS = {
    'architecture': '',
    'potential': '',
    'potential_label': '',
    'dataset': '',
    'dataset_label': '',
    'head': '',
    'forces_rmse': 'eV/Å',
    'energy_per_atom_rmse': 'eV/atom',
    'state': '',
    'same_level': '',
    'barrier_mae': 'eV',
    'n_barriers': '',
    'species': '',
    'activation_energy': 'eV',
    'activation_energy_error': 'eV',
    'study': '',
    'speed': 'µs/atom',
    'device': '',
    'n_parameters': '',
    'training_core_hours': 'h',
    'training_gpu_hours': 'h',
    'potential_uuid': '',
}
"""The columns of the table with their units."""

Contents = Mapping[str, Sequence[Record]]


def architectures_records(
    potentials: Iterable[Any] | None = None, datasets: Iterable[Any] | None = None
) -> list[Record]:
    """Return a record for each potential, test set, head and species, as plain values; see `compare_architectures`."""
    known = {record['potential']: record for record in potentials_records(potentials)}
    evaluations = evaluations_records(potentials, datasets)
    own, equal = _by('potential', evaluations), _by('potential_content', evaluations)
    barriers = _barrier_errors()
    studies = _by('potential_content', diffusion_records())
    costs = training_costs()
    records = []
    for pk, about in known.items():
        cost = costs.get(about['training'], {})
        of_potential = {
            **{name: about[name] for name in ('architecture', 'potential', 'potential_label', 'n_parameters')},
            **barriers.get(about['potential_content'], {'barrier_mae': None, 'n_barriers': None}),
            'training_core_hours': cost.get('core_hours'),
            'training_gpu_hours': cost.get('gpu_hours'),
            'potential_uuid': about['potential_uuid'],
        }
        motions = [_motion(record) for record in _newest(studies.get(about['potential_content'], []))]
        records += [
            {**of_potential, **_errors(evaluation), **motion}
            for evaluation in own.get(pk) or equal.get(about['potential_content'], [{}])
            for motion in motions or [_motion({})]
        ]
    return sorted(records, key=lambda record: (record['architecture'], record['potential']))


def compare_architectures(potentials: Iterable[Any] | None = None, datasets: Iterable[Any] | None = None) -> Table:
    """Return errors, errors of barriers, diffusion, speed, size and training cost of potentials, by architecture.

    A row is a potential and a test set with its head; and a species, where its diffusion was studied. Numbers of
    different test sets are never averaged: name one by `datasets`. `barrier_mae` is that of the forward barriers of
    all validations, on the potential's own paths where it relaxed some. Of several studies of diffusion the newest
    counts. The speed is that of the evaluation, on its `device`. The cost is that of all legs of the training. What
    nobody has measured is None or NaN.

    :param potentials: nodes, PKs or UUIDs; None for all.
    :param datasets: nodes, PKs or UUIDs of test sets; None for all.
    """
    from aiida_perovmlip.query.table import table_of

    wanted, sets = listed(potentials), listed(datasets)
    queries = [potentials_query(wanted), evaluations_query(wanted, sets), barriers_query(), diffusion_query()]
    return table_of(architectures_records(wanted, sets), COLUMNS, [*queries, costs_query()])


def _errors(evaluation: Mapping[str, Any]) -> Record:
    """Return what an evaluation says; None where there is none."""
    return {name: evaluation.get(name) for name in ('dataset', 'dataset_label', 'head', *ERRORS)}


def _motion(study: Mapping[str, Any]) -> Record:
    """Return what a study of diffusion says of a species; None where there is none."""
    return {name: study.get(name) for name in ('species', 'activation_energy', 'activation_energy_error', 'study')}


def _newest(studies: Sequence[Record]) -> list[Record]:
    newest = max((record['study'] for record in studies), default=None)
    return [record for record in studies if record['study'] == newest]


def _barrier_errors() -> dict[str, Record]:
    """Return the error of forward barriers, by the content of potentials."""
    records = [{**record, 'potential': record['potential_content']} for record in barriers_records()]
    errors = errors_of([record for record in records if record['potential']])
    return {
        content: {'barrier_mae': found['forward']['mae'], 'n_barriers': found['forward']['n']}
        for content, found in errors.items()
        if 'forward' in found
    }


def _by(name: str, records: Iterable[Record]) -> dict[Any, list[Record]]:
    """Return records by the value of a column."""
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(record[name], []).append(record)
    return found
