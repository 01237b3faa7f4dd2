"""NEP as an ASE calculator: calorine's, with the energies that `nep.txt` does not hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.calculators.calculator import all_changes
from calorine.calculators import CPUNEP

from aiida_perovmlip.compute.frame import Array

MARGIN = 1.0
"""Å by which the vacuum is wider than the cutoff."""


class NepCalculator(CPUNEP):
    """calorine's calculator, which knows periodic cells alone, for any structure.

    Where a structure is not periodic, it is put into a cell in which it does not see its images.

    :param energies: energy in eV that each atom has by its element, on top of what the potential gives.
    :param cutoff: cutoff of the potential in Å.
    """

    def __init__(self, filename: str, energies: dict[str, float], cutoff: float) -> None:
        super().__init__(filename)
        self.atoms: Any
        self.offsets, self.cutoff = energies, cutoff
        self.implemented_properties.append('free_energy')

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Compute energy, forces and stress, or the descriptors where these are asked for."""
        given: Any = self.atoms if atoms is None else atoms
        whole = bool(given.pbc.all())
        super().calculate(given if whole else boxed(given, self.cutoff), properties, system_changes)
        if not whole:
            self.atoms = given.copy()
            self.results.pop('stress', None)
            self.results.pop('stresses', None)
        if properties is None or 'descriptors' not in properties:
            offsets = np.array([self.offsets.get(symbol, 0.0) for symbol in given.get_chemical_symbols()])
            self.results['energies'] = self.results['energies'] + offsets
            self.results['energy'] = self.results['free_energy'] = float(self.results['energies'].sum())


def boxed(atoms: Any, cutoff: float) -> Any:
    """Return atoms in a cell that is periodic, with vacuum along the directions in which they are not."""
    cell = _completed(atoms)
    for axis in range(3):
        if not atoms.pbc[axis]:
            normal = np.cross(cell[axis - 2], cell[axis - 1])
            normal /= np.linalg.norm(normal)
            heights = atoms.positions @ normal
            cell[axis] = normal * (np.ptp(heights) + cutoff + MARGIN)
    copy = atoms.copy()
    copy.set_cell(cell, scale_atoms=False)
    copy.pbc = True
    return copy


def _completed(atoms: Any) -> Array:
    """Return the cell (3, 3) in Å with a vector along every direction."""
    cell = atoms.cell.array.copy()
    cell[~atoms.pbc] = 0.0
    whole: Array = atoms.cell.new(cell).complete().array
    return whole
