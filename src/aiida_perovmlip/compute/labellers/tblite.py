"""Tight-binding labels: GFN2-xTB and GFN1-xTB by tblite, at the Γ point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller, Repair, refuse_small_cell
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import option


@dataclass(frozen=True)
class TbliteSettings:
    """Settings of tblite."""

    method: str = option('GFN2-xTB', 'Hamiltonian.', choices=('GFN2-xTB', 'GFN1-xTB'))
    accuracy: float = option(1.0, 'Numerical accuracy; smaller is tighter.', minimum=1e-4, maximum=1000.0)
    electronic_temperature: float = option(300.0, 'Temperature of the Fermi smearing.', unit='K', minimum=1.0)
    max_iterations: int = option(250, 'Largest number of SCF cycles.', minimum=1)
    damping: float = option(0.4, 'Part of the new density that each SCF cycle takes over.', minimum=0.001, maximum=1.0)
    smallest_cell: float = option(
        10.0,
        'Shortest height of a periodic cell. tblite samples Γ only, so energies of small cells are not comparable '
        'with those of large ones; 0 allows any cell.',
        unit='Å',
        minimum=0.0,
    )


class Tblite(AseLabeller):
    """Extended tight binding: a quick, real electronic structure for tests, tutorials and first tries."""

    name: ClassVar[str] = 'tblite'
    summary: ClassVar[str] = 'Extended tight binding (GFN2-xTB), Γ point only'
    requirements: ClassVar[tuple[str, ...]] = ('tblite',)
    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        'fast': (
            'GFN2-xTB converged loosely: for first tries, with noise of some meV/Å in the forces.',
            {'accuracy': 10.0},
        ),
        'balanced': ('GFN2-xTB as tblite has it by default.', {}),
    }
    Settings = TbliteSettings
    repairs: ClassVar[tuple[Repair, ...]] = (
        Repair(
            'more_damping',
            frozenset({'failed'}),
            'Takes over less of each new density (0.1) and allows 1000 cycles.',
            {'damping': 0.1, 'max_iterations': 1000},
        ),
    )

    def level(self, settings: TbliteSettings) -> Level:
        """Return the level of theory."""
        return Level(
            labeller='tblite',
            functional=settings.method,
            kpoints='Gamma',
            charge='total charge of the cell',
            spin='closed shell or multiplicity of the frame',
            details={'accuracy': settings.accuracy, 'electronic_temperature_K': settings.electronic_temperature},
        )

    def calculator(self, settings: TbliteSettings, frame: Frame) -> Any:
        """Return the calculator with the charge and spin of the frame."""
        from tblite.ase import TBLite

        return TBLite(
            method=settings.method,
            accuracy=settings.accuracy,
            electronic_temperature=settings.electronic_temperature,
            max_iterations=settings.max_iterations,
            mixer_damping=settings.damping,
            charge=float(frame.charge or 0),
            multiplicity=frame.spin,
            verbosity=0,
        )

    def refusal(self, settings: TbliteSettings, frame: Frame) -> str | None:
        """Refuse small periodic cells, and what GFN1-xTB gets wrong in periodic cells."""
        elements = set(frame.symbols)
        acceptors = elements & {'N', 'O', 'S', 'P'}
        halogens = elements & {'Br', 'I', 'At'}
        if settings.method == 'GFN1-xTB' and frame.pbc.any() and halogens and acceptors:
            return (
                'GFN1-xTB of tblite mishandles the halogen bond of periodic images: forces of a halide with '
                f'{", ".join(sorted(acceptors))} explode. Use GFN2-xTB.'
            )
        return refuse_small_cell(frame, settings.smallest_cell, 'tblite samples Γ only')

    def self_test(self) -> str:
        """Compute a hydrogen molecule."""
        from ase import Atoms

        atoms = Atoms('H2', positions=[(0, 0, 0), (0, 0, 0.74)])
        atoms.calc = self.calculator(TbliteSettings(), Frame.from_atoms(atoms))
        energy = float(atoms.get_potential_energy())
        if not -28.0 < energy < -25.0:
            raise ArithmeticError(f'the energy of H2 is {energy:.3f} eV instead of about -26.7 eV.')
        return f'H2 has {energy:.4f} eV'
