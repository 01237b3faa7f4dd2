"""Transitions of phase maps and energies of phases, asked of the database without loading a node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.chains import found_query
from aiida_perovmlip.query.filters import Record, listed

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder

    from aiida_perovmlip.query.table import Table

MAP = 'aiida.workflows:perovmlip.phase_map'
VALIDATION = 'aiida.workflows:perovmlip.phase_validation'

SEEN = ('heating', 'heating_error', 'cooling', 'cooling_error', 'width', 'width_error')
"""What is told of a transition, in K."""

TRANSITIONS = {
    'study': '',
    'name': '',
    'formula': '',
    'x': '1',
    'n_atoms': '',
    'low': '',
    'high': '',
    **dict.fromkeys(SEEN, 'K'),
    'n_warnings': '',
    'engine': '',
    'potential_content': '',
    'study_uuid': '',
    'phases_uuid': '',
}
"""The columns of the table of transitions with their units."""

ENERGIES = {
    'validation': '',
    'name': '',
    'formula': '',
    'potential': '',
    'phase': '',
    'energy': 'eV per formula unit',
    'reference': 'eV per formula unit',
    'error': 'eV per formula unit',
    'ranks_alike': '',
    'forces_rmse': 'eV/Å',
    'validation_uuid': '',
    'comparison_uuid': '',
}
"""The columns of the table of energies with their units."""


def phases_query(chains: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query beneath `phases`: a map and its result a row; its tags are `study` and `phases`.

    :param chains: nodes, PKs or UUIDs; None for all.
    """
    names = ('compositions', 'warnings', 'engine', 'potential')
    return found_query(MAP, 'study', 'phases', names, chains)


def phases_records(chains: Iterable[Any] | None = None) -> list[Record]:
    """Return a record for each transition of each composition, as plain values; see `phases`."""
    records = []
    for pk, uuid, label, phases, compositions, warnings, engine, content in phases_query(chains).all():
        marks = {'n_warnings': len(warnings or ()), 'engine': engine, 'potential_content': content}
        marks |= {'study_uuid': uuid, 'phases_uuid': phases}
        for formula, known in sorted(compositions.items(), key=lambda entry: float(entry[1]['x'])):
            about = {'study': pk, 'name': label or formula, 'formula': formula, 'x': known['x']}
            about['n_atoms'] = known.get('n_atoms')
            for seen in known['transitions'] or [{}]:  # a composition without a transition has a row without numbers
                told = {name: seen.get(name) for name in ('low', 'high', *SEEN)}
                records.append({**about, **told, **marks})
    return records


def phases(chains: Iterable[Any] | None = None) -> Table:
    """Return the transitions of all phase maps: a row is a transition of a composition, by rising temperature.

    `low` and `high` are the labels of the phases below and above it, `heating` and `cooling` the temperatures at which
    each saw it, `width` the difference; NaN where it was not seen. A composition that has none is a row without
    phases. `n_warnings` counts the reasons not to trust the map, which `warnings` of its result tells.

    :param chains: nodes, PKs or UUIDs; None for all.
    """
    from aiida_perovmlip.query.table import table_of

    wanted = listed(chains)
    return table_of(phases_records(wanted), TRANSITIONS, [phases_query(wanted)])


def phase_energies_query(chains: Iterable[Any] | None = None) -> QueryBuilder:
    """Return the query beneath `phase_energies`; its tags are `validation` and `comparison`.

    :param chains: nodes, PKs or UUIDs; None for all.
    """
    names = ('formula', 'reference', 'potentials')
    return found_query(VALIDATION, 'validation', 'comparison', names, chains)


def phase_energies_records(chains: Iterable[Any] | None = None) -> list[Record]:
    """Return a record for each potential and phase, as plain values; see `phase_energies`."""
    records = []
    for pk, uuid, label, comparison, formula, reference, potentials in phase_energies_query(chains).all():
        about = {'validation': pk, 'name': label or formula, 'formula': formula}
        marks = {'validation_uuid': uuid, 'comparison_uuid': comparison}
        for potential, found in sorted(potentials.items()):
            for phase, energy in found['energies'].items():
                numbers = {
                    'energy': energy,
                    'reference': (reference or {}).get(phase),
                    'error': found.get('errors', {}).get(phase),
                    'ranks_alike': found.get('ranks_alike'),
                    'forces_rmse': found.get('forces_rmse'),
                }
                records.append({**about, 'potential': potential, 'phase': phase, **numbers, **marks})
    return records


def phase_energies(chains: Iterable[Any] | None = None) -> Table:
    """Return the energies of phases by potentials and by the reference: a row is a potential and a phase.

    Energies are above those of the phase that the chain was told to count from. `potential` is what it calls it.

    :param chains: nodes, PKs or UUIDs; None for all.
    """
    from aiida_perovmlip.query.table import table_of

    wanted = listed(chains)
    return table_of(phase_energies_records(wanted), ENERGIES, [phase_energies_query(wanted)])
