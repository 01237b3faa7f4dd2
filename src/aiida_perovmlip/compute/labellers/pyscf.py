"""Density-functional labels without a program to install by hand: PBE with GTH pseudopotentials by PySCF, at Γ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.units import Bohr, Hartree

from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.frame import Array, Frame, to_voigt
from aiida_perovmlip.compute.labeller import AseLabeller, Repair, refuse_odd_electrons, refuse_small_cell
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import option


@dataclass(frozen=True)
class PyscfSettings:
    """Settings of PySCF."""

    basis: str = option('DZVP', 'Size of the MOLOPT-SR basis set.', choices=('SZV', 'DZVP'))
    cutoff: float = option(200.0, 'Plane-wave cutoff of the density.', unit='Ry', minimum=50.0)
    convergence: float = option(1e-8, 'Change of the energy in the last SCF cycle.', unit='Ha', minimum=1e-12)
    max_cycles: int = option(60, 'Largest number of SCF cycles.', minimum=1)
    level_shift: float = option(0.0, 'Shift of empty levels while the SCF converges.', unit='Ha', minimum=0.0)
    stress: bool = option(False, 'Compute the stress too, which takes several times as long as energy and forces.')
    smallest_cell: float = option(
        10.0,
        'Shortest height of the cell. Only Γ is sampled, so energies of small cells are not comparable with those of '
        'large ones; 0 allows any cell.',
        unit='Å',
        minimum=0.0,
    )


class Pyscf(AseLabeller):
    """PBE at the Γ point in the basis sets of CP2K, from packages that pip installs; for small cells and few frames.

    Forces are exact derivatives of an energy that depends a little on where atoms lie between the points of the grid:
    shifting all of CsPbI3 changes a force by 0.005 eV/Å (200 Ry), but NH3 by 0.2 eV/Å at 280 Ry and by 0.07 at 600 Ry.
    """

    name: ClassVar[str] = 'pyscf'
    summary: ClassVar[str] = 'PBE with GTH pseudopotentials and MOLOPT basis sets (PySCF), Γ point only'
    citations = (
        Citation(
            'sun2020pyscf',
            ('Sun, Qiming', 'others'),
            'Recent developments in the PySCF program package',
            'The Journal of Chemical Physics 153, 024109',
            2020,
            '10.1063/5.0006074',
        ),
    )
    requirements: ClassVar[tuple[str, ...]] = ('pyscf',)
    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        'fast': (
            'Minimal basis set and a coarse grid: a real density functional for first tries.',
            {'basis': 'SZV', 'cutoff': 150.0},
        ),
        'balanced': ('Double-zeta basis set.', {}),
    }
    repairs: ClassVar[tuple[Repair, ...]] = (
        Repair(
            'level_shift',
            frozenset({'failed'}),
            'Shifts the empty levels by 0.3 Ha and allows 200 SCF cycles.',
            {'level_shift': 0.3, 'max_cycles': 200},
        ),
    )
    Settings = PyscfSettings

    def level(self, settings: PyscfSettings) -> Level:
        """Return the level of theory."""
        return Level(
            labeller='pyscf',
            functional='PBE',
            cutoff=f'{settings.cutoff:g} Ry',
            basis=f'{settings.basis}-MOLOPT-SR-GTH, GTH-PBE',
            kpoints='Gamma',
            charge='total charge of the cell',
            spin='restricted, or unrestricted with the multiplicity of the frame',
            details={'convergence_Ha': settings.convergence},
        )

    def calculator(self, settings: PyscfSettings, frame: Frame) -> Any:
        """Return a calculator with the charge and spin of the frame."""
        return PyscfCalculator(settings, frame.charge or 0, frame.spin or 1)

    def refusal(self, settings: PyscfSettings, frame: Frame) -> str | None:
        """Refuse what is not periodic in all directions, small cells, and electrons that cannot have the spin."""
        if not frame.has_volume:
            return 'the frame is not periodic in all three directions.'
        return refuse_odd_electrons(frame) or refuse_small_cell(frame, settings.smallest_cell, 'only Γ is sampled')

    def self_test(self) -> str:
        """Compare a force on a hydrogen molecule in a box with the slope of the energy."""
        settings = PyscfSettings(basis='SZV', cutoff=100.0)
        energies = [self._hydrogen(settings, distance)[0] for distance in (0.79, 0.81)]
        slope, force = (energies[1] - energies[0]) / 0.02, self._hydrogen(settings, 0.80)[1]
        if abs(slope + force) > 0.02:
            raise ArithmeticError(f'the force {force:.4f} is not minus the slope {slope:.4f} of the energy.')
        return f'force and slope of H2 agree to {abs(slope + force):.1e} eV/Å'

    def _hydrogen(self, settings: PyscfSettings, distance: float) -> tuple[float, float]:
        """Return the energy of H2 in eV, and the force in eV/Å that pushes its atoms apart."""
        from ase import Atoms

        atoms = Atoms('H2', positions=[(0, 0, 0), (distance, 0, 0)], cell=[6.0] * 3, pbc=True)
        atoms.calc = self.calculator(settings, Frame.from_atoms(atoms))
        return float(atoms.get_potential_energy()), float(atoms.get_forces()[1, 0])


class PyscfCalculator(Calculator):
    """One SCF and its derivatives; raises where the SCF did not converge."""

    def __init__(self, settings: PyscfSettings, charge: int, multiplicity: int) -> None:
        super().__init__()
        self.settings, self.charge, self.multiplicity = settings, charge, multiplicity
        self.implemented_properties = ['energy', 'forces', *(['stress'] if settings.stress else [])]

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Compute all properties at once."""
        super().calculate(atoms, properties, system_changes)
        cell = self._cell()
        field = self._field(cell, multigrid=True)
        energy = field.kernel()
        if not field.converged:
            raise CalculationFailed(f'the SCF did not converge in {self.settings.max_cycles} cycles.')
        gradient = np.asarray(field.nuc_grad_method().kernel())
        self.results = {'energy': float(energy) * Hartree, 'forces': -gradient * Hartree / Bohr}
        if self.settings.stress:
            self.results['stress'] = self._stress(cell, field)

    def _cell(self) -> Any:
        """Return the cell with basis set and pseudopotentials."""
        from pyscf.pbc import gto

        cell = gto.Cell()
        cell.atom = list(zip(self.atoms.get_chemical_symbols(), self.atoms.positions.tolist(), strict=True))
        cell.a, cell.unit = self.atoms.cell.array, 'A'
        cell.basis, cell.pseudo = f'gth-{self.settings.basis.lower()}-molopt-sr', 'gth-pbe'
        cell.ke_cutoff = self.settings.cutoff / 2  # Ry to Ha
        cell.charge, cell.spin, cell.verbose = self.charge, self.multiplicity - 1, 0
        cell.build(dump_input=False, parse_arg=False)
        return cell

    def _field(self, cell: Any, multigrid: bool) -> Any:
        """Return the Kohn-Sham object.

        :param multigrid: several grids, without which nothing is quick, but with which PySCF has no stress.
        """
        from pyscf.pbc import dft

        field = dft.UKS(cell) if cell.spin else dft.RKS(cell)
        field.xc = 'pbe'
        field = field.multigrid_numint() if multigrid else field
        field.conv_tol, field.max_cycle = self.settings.convergence, self.settings.max_cycles
        field.level_shift = self.settings.level_shift
        return field

    def _stress(self, cell: Any, field: Any) -> Array:
        """Return the stress of converged orbitals in eV/Å³."""
        from pyscf.pbc.grad import rks, rks_stress, uks, uks_stress

        plain = self._field(cell, multigrid=False)
        plain.mo_coeff, plain.mo_occ, plain.mo_energy = field.mo_coeff, field.mo_occ, field.mo_energy
        module, gradients = (uks_stress, uks.Gradients) if cell.spin else (rks_stress, rks.Gradients)
        tensor = np.asarray(module.kernel(gradients(plain)))
        return to_voigt(0.5 * (tensor + tensor.T) * Hartree / Bohr**3)
