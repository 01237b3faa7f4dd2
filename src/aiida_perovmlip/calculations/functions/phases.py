"""What potentials and a reference say of the energies of phases, with provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.analysis.barriers import LABELS
from aiida_perovmlip.analysis.phases import (
    Phase,
    errors_of,
    formula_of,
    formula_units_of,
    phases_of,
    ranks_alike,
)
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData


@recorded
def compare_phases(report: orm.Dict, structures: DatasetData, **labelled: DatasetData) -> orm.Dict:
    """Compare energies of phases, which are the groups of the structures, by potentials and a reference.

    :param report: `zero`, the phase whose energy is zero, `unlabelled`, the structures without a label of the
        reference, counted from 0, and what to pass on.
    :param labelled: `labels` by the reference, if there is one, and the predictions of each potential by its name.

    Energies are in eV per formula unit. The keys of what is returned are described in the topic on paths.
    """
    told = report.get_dict()
    zero, unlabelled = told['zero'], {int(each) for each in told.get('unlabelled') or []}
    frames = list(structures.frames)
    refuse_other_formulas(frames)
    sets = {name: list(dataset) for name, dataset in labelled.items()}
    known = [frame for at, frame in enumerate(frames) if at not in unlabelled]
    groups = {name: frames if name != LABELS else known for name in sets}
    phases = {name: _phases(groups[name], sets[name], zero) for name in sets}
    reference = phases.pop(LABELS, None)
    level = labelled[LABELS].level if LABELS in labelled else None
    found = {name: _described(phase, reference, zero) for name, phase in phases.items()}
    if reference is not None:
        for name in phases:
            own = [frame for at, frame in enumerate(sets[name]) if at not in unlabelled]
            found[name]['forces_rmse'] = _forces_rmse(own, sets[LABELS])
    units = {frame.group: formula_units_of(frame.symbols) for frame in frames}
    formula = ''.join(f'{symbol}{count if count > 1 else ""}' for symbol, count in formula_of(frames[0].symbols))
    return orm.Dict(
        {
            **told,
            'formula': formula,
            'formula_units': units,
            'n_structures': len(frames),
            'reference': _energies(reference) if reference is not None else None,
            'reference_level': level.to_dict() if level is not None else None,
            'potentials': found,
        }
    )


def refuse_other_formulas(frames: list[Frame]) -> None:
    """Refuse structures that are no phases of one substance."""
    formulas = {formula_of(frame.symbols): frame.group for frame in frames}
    if len(formulas) > 1:
        written = {group: ' '.join(f'{symbol}{count}' for symbol, count in each) for each, group in formulas.items()}
        shown = '; '.join(f'{group}: {formula}' for group, formula in written.items())
        raise ValueError(f'the structures are of several substances, whose energies do not compare: {shown}.')


def _phases(frames: list[Frame], labelled: list[Frame], zero: str) -> dict[str, Phase]:
    """Return the phases as one method sees them; those that it knows nothing of are left out."""
    names = [frame.group for frame in frames]
    if zero not in names:
        return {}
    units = [formula_units_of(frame.symbols) for frame in frames]
    return phases_of(names, [float(frame.energy or 0.0) for frame in labelled], units, zero)


def _described(phases: Mapping[str, Phase], reference: Mapping[str, Phase] | None, zero: str) -> dict[str, Any]:
    """Return what a potential says, and how wrong it is."""
    found: dict[str, Any] = {'energies': _energies(phases)}
    if reference:
        errors = errors_of(phases, reference, zero)
        values = np.array(list(errors.values()))
        found |= {'errors': errors, 'ranks_alike': ranks_alike(phases, reference)}
        found |= {'mae': float(np.abs(values).mean()), 'largest': float(np.abs(values).max())} if len(values) else {}
    return found


def _energies(phases: Mapping[str, Phase]) -> dict[str, float]:
    return {name: phase.energy for name, phase in phases.items()}


def _forces_rmse(own: list[Frame], labels: list[Frame]) -> float:
    """Return the root mean square error of all force components in eV/Å."""
    errors = [np.asarray(one.forces) - np.asarray(other.forces) for one, other in zip(own, labels, strict=True)]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
