"""Errors of forces near point defects, with provenance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from aiida import orm
from ase.data import atomic_numbers

from aiida_perovmlip.analysis.metrics import ErrorSum
from aiida_perovmlip.analysis.surroundings import Sublattice, centres_of, surroundings_of
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.settings import option, read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.defects import ions_of
from aiida_perovmlip.structures.molecules import MOLECULES

UNIT = 'eV/Å'
SCOPES = ('all', 'near', 'rest')


@dataclass(frozen=True)
class Nearness:
    """What is near to a defect of a perovskite; see `analysis.surroundings`."""

    sublattice: str = option('X', 'Of which ions there are too few or too many.', choices=('A', 'X'))
    metal: str = option('Pb', 'Element whose neighbours are counted.')
    ions: list[str] = option(['I'], 'What is on this sublattice: elements, or the molecules `MA` and `FA`.')
    cutoff: float | None = option(
        None, 'Up to which neighbours count; None for halfway between the shells.', unit='Å', minimum=0.0
    )
    reach: float | None = option(
        None,
        'How near to a marked metal an atom is near; None for the cutoff, 0 for the metals.',
        unit='Å',
        minimum=0.0,
    )


@recorded
def errors_near_defects(dataset: DatasetData, predictions: orm.ArrayData, settings: orm.Dict) -> orm.Dict:
    """Return the errors of forces of all atoms, of those near a defect, and of the rest.

    :param dataset: frames with forces.
    :param predictions: what an `EvaluateCalculation` predicted of this dataset.
    :param settings: see :class:`Nearness`.

    Returns `forces`, errors of components of `all`, `near` and `rest` (None where there is no such atom), and how many
    frames were looked at: without a marked metal a frame shows no defect.
    """
    how: Nearness = read_settings(Nearness, settings.get_dict())
    forces = predictions.get_array('forces')
    sums = {scope: ErrorSum() for scope in SCOPES}
    seen: Counter[str] = Counter()
    deviations: Counter[int] = Counter()
    begin = 0
    for frame in dataset.frames:
        own, begin = forces[begin : begin + len(frame)], begin + len(frame)
        if frame.forces is None or len(own) < len(frame) or not np.isfinite(own).all():
            seen['left_out'] += 1
            continue
        near, marked = _near(frame, how)
        seen['looked_at'] += 1
        seen['without_defect'] += not marked
        deviations.update(marked)
        for scope, chosen in zip(SCOPES, (np.ones(len(frame), dtype=bool), near, ~near), strict=True):
            if chosen.any():
                sums[scope].add(frame.forces[chosen], own[chosen])
    if begin != len(forces):
        raise ValueError(f'the dataset has {begin} atoms, but there are predictions of {len(forces)}: of another one.')
    if not seen['looked_at']:
        raise ValueError('no frame has both forces and finite predictions.')
    told: dict[str, Any] = {scope: each.errors(UNIT).to_dict() if each.n else None for scope, each in sums.items()}
    return orm.Dict(
        {
            'forces': told,
            'n_frames': seen['looked_at'],
            'n_left_out': seen['left_out'],
            'n_without_defect': seen['without_defect'],
            'marked': {f'{value:+d}': count for value, count in sorted(deviations.items())},
            'settings': settings.get_dict(),
        }
    )


def _near(frame: Frame, how: Nearness) -> tuple[Array, dict[int, int]]:
    """Return which atoms (N,) of a frame are near a defect, and how many metals have how many neighbours too many."""
    metals = np.flatnonzero(frame.numbers == atomic_numbers.get(how.metal, 0))
    found = surroundings_of(
        frame.positions,
        frame.cell,
        metals,
        np.concatenate([_centres(frame, ion) for ion in how.ions]),
        cast(Sublattice, how.sublattice),
        how.cutoff,
        how.reach,
    )
    return found.atoms, found.deviations()


def _centres(frame: Frame, ion: str) -> Array:
    """Return where ions of a kind are, (n, 3) in Å: molecules by their centres of mass."""
    if ion not in MOLECULES:
        return np.asarray(frame.positions[frame.numbers == atomic_numbers.get(ion, 0)])
    atoms = frame.to_atoms(labels=False)
    return centres_of(frame.positions, frame.cell, [part.tolist() for part in ions_of(atoms, ion)], atoms.get_masses())
