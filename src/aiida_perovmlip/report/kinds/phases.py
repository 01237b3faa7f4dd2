"""The page of a validation of phases: their energies by potentials and by the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida_perovmlip.report import tables
from aiida_perovmlip.report.kinds.base import OfChain, result_of
from aiida_perovmlip.report.methods import methods_of
from aiida_perovmlip.report.page import Drawing, Identity, Page, Section, Structure, Viewer
from aiida_perovmlip.report.sections import last_sections


class PhasesKind(OfChain):
    """Pages of validations of phases."""

    name = 'phases'
    made_of = 'a validation of phases'
    process = 'perovmlip.phase_validation'

    @classmethod
    def page(cls, node: Any, created: str) -> Page:
        """Return the energies of all phases."""
        from aiida_perovmlip.report.profiles import draw_phases

        node_of_comparison = result_of(node, 'comparison')
        comparison = node_of_comparison.get_dict()
        potentials = {name: found['energies'] for name, found in comparison['potentials'].items()}
        figure = draw_phases(comparison['reference'] or None, potentials)
        count = len(comparison['formula_units'])
        caption = f'Energies of {count} phases of {comparison["formula"]}, that of {node.inputs.zero.value} is zero'
        methods = methods_of([node])
        against = ' and of the reference' if comparison['reference'] else ''
        return Page(
            kind='phases',
            title=node.label or f'Phases of {comparison["formula"]}',
            lead=f'Energies of {count} phases of {comparison["formula"]}, those of {", ".join(potentials)}{against}.',
            created=created,
            nodes=(
                Identity('Validation', node.uuid, node.pk),
                Identity('Comparison', node_of_comparison.uuid, node_of_comparison.pk),
            ),
            sections=(
                Section(
                    'energies',
                    'Energies',
                    (
                        Drawing.of('phases', figure, caption, [node.uuid, node_of_comparison.uuid]),
                        _table(comparison, potentials),
                    ),
                ),
                Section('structures', 'Structures', (_viewer(node.inputs.structures),)),
                *last_sections(node, node_of_comparison, methods, 'validation'),
            ),
            citations=methods.citations,
        )


def _table(comparison: Mapping[str, Any], potentials: Mapping[str, Mapping[str, float]]) -> tables.Table:
    """Return a row for each phase."""
    unit = 'meV/f.u.'
    fields = [tables.Field('phase', 'Phase', is_number=False), tables.Field('reference', 'Reference', unit, 1e3)]
    fields += [tables.Field(name, name, unit, 1e3) for name in potentials]
    reference = comparison['reference'] or {}
    rows = [
        {'phase': phase, **{name: found.get(phase) for name, found in {'reference': reference, **potentials}.items()}}
        for phase in comparison['formula_units']
    ]
    return tables.tabulate('table-phases', 'Energies per formula unit', fields, rows)


def _viewer(structures: Any) -> Viewer:
    """Return the structures of the phases."""
    shown = tuple(
        Structure(f'{frame.group}, {len(frame)} atoms', frame.numbers, frame.positions, frame.cell)
        for frame in structures
    )
    return Viewer('structure', 'The structures whose energies are compared', shown)
