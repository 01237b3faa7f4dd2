"""Activation energies and coefficients of diffusion of all studies, asked of the database without loading a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.chains import found_query
from aiida_perovmlip.query.filters import Record, listed

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

STUDY = 'aiida.workflows:perovmlip.diffusion'
"""The process type of the chain that measures diffusion."""

KEPT = ('formula', 'charge', 'architecture', 'engine', 'potential', 'species')

COLUMNS = {
    'study': '',
    'name': '',
    'formula': '',
    'charge': '',
    'architecture': '',
    'engine': '',
    'species': '',
    'n_temperatures': '',
    'n_runs': '',
    'activation_energy': 'eV',
    'activation_energy_error': 'eV',
    'prefactor': 'cm²/s',
    'prefactor_factor': '1',
    'prefactor_error': 'cm²/s',
    'at_room_temperature': 'cm²/s',
    'at_room_temperature_factor': '1',
    'lower_bound': 'eV',
    'n_hops': '1',
    'ambiguous': '1',
    'lack': '',
    'potential_content': '',
    'study_uuid': '',
    'diffusion_uuid': '',
}
"""The columns of the table with their units."""


def diffusion_query(chains: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query beneath `diffusion`: a study and its result a row; its tags are `study` and `diffusion`.

    :param chains: nodes, PKs or UUIDs; None for all.
    """
    return found_query(STUDY, 'study', 'diffusion', KEPT, chains)


def diffusion_records(chains: Iterable[Any] | None = None, kind: str = 'sum') -> list[Record]:
    """Return a record for each study and species, as plain values; see `diffusion`."""
    records, query = [], diffusion_query(chains)
    for pk, uuid, label, result, formula, charge, architecture, engine, content, species in query.all():
        about = {'study': pk, 'name': label or formula, 'formula': formula, 'charge': charge}
        about |= {'architecture': architecture, 'engine': engine}
        marks = {'potential_content': content, 'study_uuid': uuid, 'diffusion_uuid': result}
        records += [
            {**about, 'species': name, **_numbers(found, kind), **marks}
            for name, found in sorted(species.items())
            if kind in found
        ]
    return records


def diffusion(chains: Iterable[Any] | None = None, kind: str = 'sum') -> Table:
    """Return activation energies, prefactors and coefficients at 300 K of all studies: a row is a study and a species.

    The prefactor lies between itself over and times `prefactor_factor`; `prefactor_error` is the same error as if it
    were added, as papers print it. `at_room_temperature_factor` knows how both are correlated. A species that did not
    move has `lower_bound` in place of all that. `n_hops` are those of all runs, `ambiguous` the largest part of the
    windows of time in which sites could not be told.

    :param chains: nodes, PKs or UUIDs; None for all.
    :param kind: `sum` (all particles of a species, not divided by their number), `tracer` or `collective`.
    """
    from aiida_perovmlip.query.table import table_of

    wanted = listed(chains)
    table = table_of(diffusion_records(wanted, kind), COLUMNS, [diffusion_query(wanted)])
    table.attrs['kind'] = kind
    return table


def _numbers(found: Mapping[str, Any], kind: str) -> Record:
    """Return the columns of one species; None where nothing is known."""
    of_kind = found.get(kind) or {}
    fit, bound = of_kind.get('arrhenius') or {}, found.get('bound') or {}
    rows = [row for row in of_kind.get('temperatures', []) if not row.get('lack')]
    hops = [row for row in found.get('hops', []) if row.get('n_hops') is not None]
    return {
        'n_temperatures': len(rows),
        'n_runs': sum(row['n_runs'] for row in rows),
        'activation_energy': fit.get('activation_energy'),
        'activation_energy_error': fit.get('activation_energy_error'),
        'prefactor': fit.get('prefactor'),
        'prefactor_factor': fit.get('prefactor_factor'),
        'prefactor_error': fit.get('prefactor_error'),
        'at_room_temperature': fit.get('at_room_temperature'),
        'at_room_temperature_factor': fit.get('at_room_temperature_factor'),
        'lower_bound': bound.get('activation_energy'),
        'n_hops': sum(row['n_hops'] for row in hops) if hops else None,
        'ambiguous': max((row['ambiguous'] for row in hops if row['ambiguous'] is not None), default=None),
        'lack': of_kind.get('arrhenius_lack'),
    }
