"""Density-functional labels in plane waves: PBE and others with PAW data sets, by GPAW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller, refuse_odd_electrons
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import option


@dataclass(frozen=True)
class GpawSettings:
    """Settings of GPAW."""

    functional: str = option('PBE', 'Density functional.', choices=('LDA', 'PBE', 'PBEsol', 'RPBE', 'revPBE'))
    cutoff: float = option(
        400.0, 'Plane-wave cutoff. Stresses converge slowly: take 600 where these matter.', unit='eV', minimum=100.0
    )
    kpoint_density: float = option(
        2.0, 'Γ-centred k-points along a reciprocal vector of 1/Å; 0 takes Γ alone.', unit='Å', minimum=0.0
    )
    smearing: float = option(0.05, 'Width of the Fermi smearing.', unit='eV', minimum=0.0)
    convergence: float = option(
        1e-6, 'Change of the energy over the last SCF cycles, per valence electron.', unit='eV', minimum=1e-12
    )
    max_cycles: int = option(200, 'Largest number of SCF cycles.', minimum=1)


class Gpaw(AseLabeller):
    """Plane waves and PAW; GPAW is compiled while it is installed, which needs a C compiler, libxc and a BLAS library.

    It is licensed under the GPL, so it lives in an environment of its own and nothing here imports it but a job.
    """

    name: ClassVar[str] = 'gpaw'
    summary: ClassVar[str] = 'Plane-wave density functionals with PAW (GPAW); its installation compiles C'
    citations = (
        Citation(
            'mortensen2024gpaw',
            ('Mortensen, Jens Jørgen', 'others'),
            'GPAW: An open Python package for electronic structure calculations',
            'The Journal of Chemical Physics 160, 092503',
            2024,
            '10.1063/5.0182685',
        ),
    )
    requirements: ClassVar[tuple[str, ...]] = ('gpaw', 'gpaw-data')
    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        'fast': ('A low cutoff and few k-points, for first tries.', {'cutoff': 300.0, 'kpoint_density': 1.0}),
        'balanced': ('PBE with forces that are converged to some meV/Å; the stress is not.', {}),
    }
    Settings = GpawSettings

    def level(self, settings: GpawSettings) -> Level:
        """Return the level of theory."""
        density = settings.kpoint_density
        return Level(
            labeller='gpaw',
            functional=settings.functional,
            cutoff=f'{settings.cutoff:g} eV',
            basis='plane waves, PAW data sets of GPAW',
            kpoints=f'Gamma-centred, {density:g} along 1/Å' if density else 'Gamma',
            charge='total charge of the cell',
            spin='unpolarised, or polarised with the multiplicity of the frame held fixed',
            details={'smearing_eV': settings.smearing, 'convergence_eV_per_electron': settings.convergence},
        )

    def calculator(self, settings: GpawSettings, frame: Frame) -> Any:
        """Return a calculator with the charge and spin of the frame."""
        return GpawCalculator(settings, frame.charge or 0, frame.spin or 1)

    def refusal(self, settings: GpawSettings, frame: Frame) -> str | None:
        """Refuse what is not periodic in all directions, and electrons that cannot have the spin."""
        if not frame.has_volume:
            return 'the frame is not periodic in all three directions.'
        return refuse_odd_electrons(frame)

    def self_test(self) -> str:
        """Compute a hydrogen molecule in a box."""
        from ase import Atoms

        atoms = Atoms('H2', positions=[(0, 0, 0), (0.74, 0, 0)], cell=[5.0] * 3, pbc=True)
        atoms.calc = self.calculator(GpawSettings(cutoff=300.0, kpoint_density=0.0), Frame.from_atoms(atoms))
        energy = float(atoms.get_potential_energy())
        if not -7.0 < energy < -6.2:
            raise ArithmeticError(f'the energy of H2 is {energy:.3f} eV instead of about -6.6 eV.')
        return f'H2 has {energy:.4f} eV'


class GpawCalculator(Calculator):
    """GPAW, with the energy that the forces are derivatives of: the free energy; raises where the SCF fails."""

    implemented_properties: ClassVar[list[str]] = ['energy', 'forces', 'stress']

    def __init__(self, settings: GpawSettings, charge: int, multiplicity: int) -> None:
        super().__init__()
        self.settings, self.charge, self.multiplicity = settings, charge, multiplicity

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Compute all properties at once."""
        from gpaw import GPAW

        super().calculate(atoms, properties, system_changes)
        copy = self.atoms.copy()
        unpaired = self.multiplicity - 1
        if unpaired:
            copy.set_initial_magnetic_moments(np.full(len(copy), unpaired / len(copy)))
        copy.calc = GPAW(**self._parameters())
        self.results = {
            'energy': float(copy.get_potential_energy(force_consistent=True)),
            'forces': np.array(copy.get_forces(), dtype=float),
            'stress': np.array(copy.get_stress(voigt=True), dtype=float),
        }

    def _parameters(self) -> dict[str, Any]:
        """Return what GPAW is asked for."""
        settings, polarised = self.settings, self.multiplicity > 1
        density = settings.kpoint_density
        return {
            'mode': {'name': 'pw', 'ecut': settings.cutoff},
            'xc': settings.functional,
            'kpts': {'density': density, 'gamma': True} if density else {'size': (1, 1, 1), 'gamma': True},
            'charge': self.charge,
            'spinpol': polarised,
            'occupations': {'name': 'fermi-dirac', 'width': settings.smearing, 'fixmagmom': polarised},
            'convergence': {'energy': settings.convergence, 'density': 1e-5},
            'maxiter': settings.max_cycles,
            'txt': None,
        }
