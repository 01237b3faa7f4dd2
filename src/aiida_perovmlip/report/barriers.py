"""From validated paths and phases in the provenance graph to their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.analysis.barriers import LABELS, by_potential
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.report.profiles import (
    Barrier,
    Line,
    Picture,
    draw_barriers,
    draw_phases,
    draw_profiles,
    save_figure,
)
from aiida_perovmlip.structures.bonds import molecules_by_bonds
from aiida_perovmlip.workflows.training import how_it_ended

ROUNDING = 1e-6
"""How far below a border of the cell an atom counts as on it, as part of a vector of the cell."""

MOVES = 0.5
"""An atom moves where it goes this part of the longest way of an atom, from any image to the first."""


def write_profiles(node: Any, path: str | Path) -> Path:
    """Write the picture of a validation (SVG, PDF or PNG): energies of all methods, with the ends and the saddle.

    :param node: the node of a `NebValidationWorkChain`.
    """
    comparison = comparison_of(node)
    lines = list(profile_lines(node))
    uuids = [node.uuid, comparison.uuid, node.outputs.profiles.uuid]
    description = f'Energies along {len(comparison["paths"])} paths in {comparison["formula"]}'
    save_figure(draw_profiles(lines, pictures_of(node)), path, description, uuids)
    return Path(path)


def comparison_of(node: Any) -> Any:
    """Return what a validation compared; raise a ValueError where it came to no comparison."""
    if 'comparison' in node.outputs:
        return node.outputs.comparison
    ended = how_it_ended(node) if node.is_terminated else f'{node.process_label} (PK {node.pk}) has not ended.'
    raise ValueError(f'there is nothing to draw, as nothing was compared. {ended}')


def profile_lines(node: Any) -> Iterable[Line]:
    """Yield the lines of a validation: of each path those of the potential that relaxed it and of the reference.

    Of a path that went in and was not relaxed, those of all potentials; of that of the reference, its own alone.
    """
    comparison, arrays = node.outputs.comparison.get_dict(), node.outputs.profiles
    reference = _name_of_level(comparison)
    for number, (path, entry) in enumerate(comparison['paths'].items()):
        own = entry['relaxed_by']
        shown = [name for name in entry['potentials'] if own in (name, None)]
        for count, potential in enumerate(shown):
            yield _line(arrays, path, potential, potential, number + count)
        if entry['reference'] is not None:
            whose = 'its own path' if own == LABELS else f'on the path of {own}'
            label = f'{reference}, {whose}' if own and len(comparison['paths']) > 1 else reference
            alone = len(comparison['paths']) == 1
            yield _line(arrays, path, LABELS, label, -1 if alone else number, is_reference=True)


def _line(arrays: Any, path: str, method: str, label: str, colour: int, is_reference: bool = False) -> Line:
    places, energies, curve = (
        arrays.get_array(f'{path}__{method}__{what}') for what in ('places', 'energies', 'curve')
    )
    return Line(label, places, energies, curve, colour, is_reference)


def _name_of_level(comparison: Mapping[str, Any]) -> str:
    """Return what to call the reference."""
    levels = [entry['reference_level'] for entry in comparison['paths'].values() if entry['reference_level']]
    if not levels:
        return 'reference'
    return ' '.join(part for part in (levels[0]['functional'], f'({levels[0]["labeller"]})') if part)


def pictures_of(node: Any) -> list[Picture]:
    """Return the ends and the top of the first path of a validation."""
    name, entry = next(iter(node.outputs.comparison['paths'].items()))
    frames = list(path_of(node, name, entry['relaxed_by']))
    potentials = entry['potentials']
    profile = potentials.get(entry['relaxed_by'], next(iter(potentials.values())))['profile']
    places = np.array([frame.positions for frame in frames]) + _into_cell(frames[0])
    moves = _moving(frames[0], np.linalg.norm(places - places[0], axis=2).max(axis=0))
    top = int(profile['top'])
    shown = {'first end': 0, f'top (image {top})': top, 'last end': len(frames) - 1}
    cell = frames[0].cell if frames[0].pbc.all() else np.zeros((3, 3))
    return [
        Picture(title, frames[image].numbers, places[image], cell, moves, places[:, moves])
        for title, image in shown.items()
    ]


def _moving(frame: Frame, moved: Array) -> Array:
    """Return whether each atom (n_atoms,) moves; a molecule moves as a whole.

    :param moved: how far each atom goes (n_atoms,) in Å.
    """
    moves: Array = moved >= MOVES * moved.max()
    for part in molecules_by_bonds(frame.to_atoms(labels=False)):
        moves[part] = moves[part].any()
    return moves


def _into_cell(frame: Frame) -> Array:
    """Return by what vectors of the cell (n_atoms, 3) in Å each atom has to be shifted to lie in it."""
    if not frame.pbc.all():
        return np.zeros_like(frame.positions)
    scaled = frame.positions @ np.linalg.inv(frame.cell)
    shifts: Array = -np.floor(scaled + ROUNDING) @ frame.cell
    return shifts


def path_of(node: Any, name: str, relaxed_by: str | None) -> Any:
    """Return a path of a validation: a relaxed one, or the one that went in or was made by a recipe."""
    if relaxed_by is not None:
        return node.outputs.paths[name]
    if 'path' in node.inputs:
        return node.inputs.path
    return node.base.links.get_outgoing(link_label_filter='first_path').one().node.outputs.result


def write_parity(records: Iterable[Mapping[str, Any]], path: str | Path) -> Path:
    """Write the picture of many barriers, forward and reverse, of potentials against their reference.

    Those of a potential are of the paths that it relaxed, or of all where it relaxed none, as the errors of the table.

    :param records: what `query.paths.barriers_records` returns.
    """
    known = list(records)
    barriers, uuids = parity_of(known)
    if not barriers:
        raise ValueError(f'there is nothing to draw: of {len(known)} paths the reference knows no barrier.')
    save_figure(draw_barriers(barriers), path, f'{len(barriers)} barriers of potentials against the reference', uuids)
    return Path(path)


def parity_of(records: Iterable[Mapping[str, Any]]) -> tuple[list[Barrier], list[str]]:
    """Return the barriers that potentials and the reference know, and the UUIDs of the comparisons they are from."""
    known = [record for rows in by_potential(list(records)).values() for record in rows]
    barriers = [
        Barrier(record['potential'], record[f'{way}_reference'], record[way], record['name'])
        for record in known
        for way in ('forward', 'reverse')
        if record[f'{way}_reference'] is not None
    ]
    return barriers, sorted({record['comparison_uuid'] for record in known})


def write_phases(node: Any, path: str | Path) -> Path:
    """Write the picture of a validation of phases: their energies by all potentials and the reference.

    :param node: the node of a `PhaseValidationWorkChain`.
    """
    comparison = comparison_of(node).get_dict()
    potentials = {name: found['energies'] for name, found in comparison['potentials'].items()}
    figure = draw_phases(comparison['reference'] or None, potentials)
    description = f'Energies of {len(comparison["formula_units"])} phases of {comparison["formula"]}'
    save_figure(figure, path, description, [node.uuid, node.outputs.comparison.uuid])
    return Path(path)
