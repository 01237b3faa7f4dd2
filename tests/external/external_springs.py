"""An architecture from elsewhere, as somebody outside would write it: a spring between every pair of atoms."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, Trained, Training
from aiida_perovmlip.compute.settings import option


@dataclass(frozen=True)
class SpringSettings:
    """Settings of the springs."""

    cutoff: float = option(4.0, 'Reach of a spring.', unit='Å', minimum=1.0)


class Springs(Architecture):
    """One spring constant for all pairs closer than a cutoff, smoothly switched off."""

    name: ClassVar[str] = 'springs'
    opens_pickles: ClassVar[bool] = False
    Settings = SpringSettings

    def train(self, training: Training) -> Trained:
        """Fit the constant to the forces, and the mean energy of an atom."""
        cutoff = training.settings.cutoff
        top = bottom = energy = atoms = 0.0
        elements: set[str] = set()
        for frame in training.training:
            shape = SpringCalculator(1.0, 0.0, cutoff)
            forces = shape.get_forces(frame.to_atoms(labels=False))
            top += float((forces * frame.forces).sum())
            bottom += float((forces**2).sum())
            energy, atoms = energy + frame.energy, atoms + len(frame)
            elements |= set(frame.symbols)
        constant = top / bottom if bottom else 0.0
        content = {'constant': constant, 'offset': energy / atoms, 'cutoff': cutoff, 'elements': sorted(elements)}
        (training.folder / 'potential' / 'springs.json').write_text(json.dumps(content))
        step = {'step': 1, 'constant': constant}
        training.report(step)
        return Trained([step], asdict(training.settings))

    def facts(self, potential: Path) -> PotentialFacts:
        """Read the file."""
        content = json.loads((potential / 'springs.json').read_text())
        return PotentialFacts(elements=tuple(content['elements']), cutoff=content['cutoff'], n_parameters=2)

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Return the calculator."""
        content = json.loads((Path(potential) / 'springs.json').read_text())
        return SpringCalculator(content['constant'], content['offset'], content['cutoff'])

    def self_test(self) -> str:
        """Nothing can be missing."""
        return 'springs are elastic'


class SpringCalculator(Calculator):
    """Energy ½ k Σ (r_c - r)³ over pairs closer than r_c."""

    implemented_properties: ClassVar[list[str]] = ['energy', 'forces', 'stress']

    def __init__(self, constant: float, offset: float, cutoff: float) -> None:
        super().__init__()
        self.constant, self.offset, self.cutoff = constant, offset, cutoff

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Compute all at once."""
        from ase.neighborlist import neighbor_list

        super().calculate(atoms, properties, system_changes)
        i, d, vectors = neighbor_list('idD', self.atoms, self.cutoff)
        room = self.cutoff - d
        energy = 0.25 * self.constant * (room**3).sum() + self.offset * len(self.atoms)
        slope = -1.5 * self.constant * room**2 / d
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, slope[:, None] * vectors)
        self.results = {'energy': float(energy), 'forces': forces}
        if self.atoms.pbc.all():
            tensor = 0.5 * np.einsum('p,pa,pb->ab', slope, vectors, vectors) / self.atoms.get_volume()
            self.results['stress'] = tensor[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
