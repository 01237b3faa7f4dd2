"""A labeller from elsewhere, as somebody outside would write it: ASE's effective-medium theory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import option


@dataclass(frozen=True)
class EmtSettings:
    """Settings of EMT."""

    asap_cutoff: bool = option(False, 'Use the cutoff of ASAP.')


class Emt(AseLabeller):
    """Effective-medium theory for a few metals."""

    name: ClassVar[str] = 'emt'
    Settings = EmtSettings

    def level(self, settings: EmtSettings) -> Level:
        """Return the level of theory."""
        return Level(labeller='emt', functional='EMT', details={'asap_cutoff': settings.asap_cutoff})

    def calculator(self, settings: EmtSettings, frame: Frame) -> Any:
        """Return the calculator."""
        from ase.calculators.emt import EMT

        return EMT(asap_cutoff=settings.asap_cutoff)

    def self_test(self) -> str:
        """Compute a copper atom in bulk."""
        from ase.build import bulk

        atoms = bulk('Cu')
        atoms.calc = self.calculator(EmtSettings(), Frame.from_atoms(atoms))
        return f'bulk Cu has {atoms.get_potential_energy():.4f} eV'
