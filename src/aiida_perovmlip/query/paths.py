"""Barriers of all validated paths, asked of the database without loading a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.analysis.barriers import BARRIERS, by_potential
from aiida_perovmlip.query.chains import found_query
from aiida_perovmlip.query.filters import Record, listed

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

VALIDATION = 'aiida.workflows:perovmlip.neb_validation'
"""The process type of the chain that compares barriers."""

COLUMNS = {
    'validation': '',
    'name': '',
    'formula': '',
    'charge': '',
    'path': '',
    'potential': '',
    'architecture': '',
    'is_own': '',
    'n_images': '1',
    **{f'{name}{what}': 'eV' for name in BARRIERS for what in ('', '_reference', '_error')},
    'top': '1',
    'is_interior': '',
    'n_minima': '1',
    'forces_rmse': 'eV/Å',
    'potential_content': '',
    'validation_uuid': '',
    'comparison_uuid': '',
}
"""The columns of the table with their units."""


def barriers_query(chains: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query beneath `barriers`: a validation and its comparison a row.

    It can be narrowed further: its tags are `validation` and `comparison`.

    :param chains: nodes, PKs or UUIDs; None for all.
    """
    return found_query(VALIDATION, 'validation', 'comparison', ('formula', 'charge', 'recipe', 'paths'), chains)


def barriers_records(chains: Iterable[Any] | None = None) -> list[Record]:
    """Return a record for each path and potential, as plain values; see `barriers`."""
    records = []
    for pk, uuid, label, comparison, formula, charge, recipe, paths in barriers_query(chains).all():
        about = {
            'validation': pk,
            'name': label or (recipe or {}).get('kind') or formula,
            'formula': formula,
            'charge': charge,
        }
        marks = {'validation_uuid': uuid, 'comparison_uuid': comparison}
        for path, entry in sorted(paths.items()):
            records += [
                {**about, 'path': path, 'potential': potential, **_numbers(entry, found, potential), **marks}
                for potential, found in sorted(entry['potentials'].items())
            ]
    return records


def barriers(chains: Iterable[Any] | None = None) -> Table:
    """Return the barriers of all validations: a row is a path and a potential.

    `forward`, `reverse`, `span` and `reaction` are those of the potential, `…_reference` those of the reference on the
    same images, `…_error` the first less the second; NaN where the reference does not know them. `is_own` tells whether
    the path is the one that this potential relaxed, `is_interior` whether its top lies between the ends.
    `attrs['errors']` has errors in eV by potential, over its own paths alone or, where it relaxed none, over all.

    The name of a row is the label of the chain, or the kind of its recipe. `potential` is what the chain calls it.

    :param chains: nodes, PKs or UUIDs; None for all.
    """
    from aiida_perovmlip.query.table import table_of

    wanted = listed(chains)
    records = barriers_records(wanted)
    table = table_of(records, COLUMNS, [barriers_query(wanted)])
    table.attrs['errors'] = errors_of(records)
    return table


def errors_of(records: Sequence[Record]) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean, mean absolute and largest absolute error in eV of each barrier, and how many, by potential."""
    import numpy as np

    found: dict[str, dict[str, dict[str, float]]] = {}
    for potential, rows in by_potential(records).items():
        for name in BARRIERS:
            values = np.array([row[f'{name}_error'] for row in rows if row[f'{name}_error'] is not None], dtype=float)
            if len(values):
                found.setdefault(potential, {})[name] = {
                    'n': len(values),
                    'mean': float(values.mean()),
                    'mae': float(np.abs(values).mean()),
                    'largest': float(np.abs(values).max()),
                }
    return found


def _numbers(entry: Record, found: Record, potential: str) -> Record:
    """Return the columns of one potential on one path; None where nothing is known."""
    own, reference, difference = (
        found.get('profile') or {},
        entry.get('reference') or {},
        found.get('difference') or {},
    )
    barriers: Record = {}
    for name in BARRIERS:
        barriers[name] = own.get(name)
        barriers[f'{name}_reference'] = reference.get(name)
        barriers[f'{name}_error'] = difference.get(name)
    return {
        'architecture': found.get('architecture'),
        'is_own': entry.get('relaxed_by') == potential,
        'n_images': entry.get('n_images'),
        **barriers,
        'top': own.get('top'),
        'is_interior': own.get('is_interior'),
        'n_minima': len(own['minima']) if own else None,
        'forces_rmse': difference.get('forces_rmse'),
        'potential_content': found.get('potential'),
    }
