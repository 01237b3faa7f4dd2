"""Slabs, molecules on these and alone, and single atoms, with provenance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from aiida import orm
from ase import Atoms

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.settings import option, read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.isolated import isolated_atoms
from aiida_perovmlip.structures.passivators import passivator
from aiida_perovmlip.structures.perovskite import lattice_constant_of, sites_of
from aiida_perovmlip.structures.surfaces import TERMINATIONS, adsorbed, slab, top_atoms

SLAB, MOLECULE = 'slab', 'molecule'
"""Groups of the two parts of an adsorption; each way in which both come together is a group of its own."""


@dataclass(frozen=True)
class Surface:
    """A slab of a perovskite, and what sits on it."""

    formula: str = option('CsPbI3', 'The perovskite.')
    lattice_constant: float | None = option(None, 'Of the cubic crystal; the typical one if nothing is said.', unit='Å')
    repeat: list[int] = option([2, 2], 'Cells along x and y.')
    planes: int = option(3, 'Planes of the slab, AX and BX₂ in turn.', minimum=1)
    termination: str = option('BX', 'The lowest plane, and the highest of an odd number.', choices=TERMINATIONS)
    vacuum: float = option(15.0, 'Distance of a slab from its next image.', unit='Å', minimum=0.0)
    molecule: str = option('', 'The molecule: a name or SMILES that `passivator` knows; empty for none.')
    box: float = option(14.0, 'Edge of the periodic cube that holds the molecule alone.', unit='Å', minimum=5.0)
    anchors: list[str] = option(['N'], 'Elements of the molecule by which it may sit; the last atom each.')
    sites: list[str] = option([], 'Elements of the upper plane that it may sit on; that of B if nothing is said.')
    heights: list[float] = option([2.6], 'Heights of the anchor above the site.', unit='Å')

    def slab(self, rng: np.random.Generator) -> Atoms:
        """Return the slab, its molecules at random orientations."""
        edge = self.lattice_constant or lattice_constant_of(self.formula)
        named = {'planes': self.planes, 'termination': self.termination, 'vacuum': self.vacuum, 'rng': rng}
        return slab(*sites_of(self.formula), edge, self.repeat, **named)  # type: ignore[arg-type]

    def parts(self, rng: np.random.Generator) -> list[Atoms]:
        """Return the slab and, where there is a molecule, this alone and all ways in which it sits on the slab."""
        bare = self.slab(rng)
        bare.info['group'] = SLAB
        if not self.molecule:
            return [bare]
        return [bare, in_box(self.molecule, self.box), *self._together(bare, passivator(self.molecule))]

    def _together(self, bare: Atoms, guest: Atoms) -> list[Atoms]:
        """Return the molecule on the slab by each anchor, on each kind of site, at each height."""
        found = []
        for anchor in self.anchors:
            atoms = [index for index, symbol in enumerate(guest.symbols) if symbol == anchor]
            if not atoms:
                raise ValueError(f'the molecule {self.molecule!r} holds no {anchor} that it could sit by.')
            for site in self.sites or [sites_of(self.formula).b_site]:
                place = int(top_atoms(bare, site)[0])
                for height in self.heights:
                    both = adsorbed(bare, guest, atoms[-1], place, height)
                    both.info['group'] = f'{anchor} on {site}'
                    found.append(both)
        return found


def in_box(name: str, box: float) -> Atoms:
    """Return a molecule in the middle of a periodic cube, whose edge is given in Å."""
    alone = passivator(name)
    alone.set_cell([box] * 3)
    alone.center()
    alone.pbc = True
    alone.info['group'] = MOLECULE
    return alone


@recorded
def build_surface(recipe: orm.Dict, seed: orm.Int) -> DatasetData:
    """Build a slab and, where the recipe has a molecule, the molecule alone and all ways in which it sits on the slab.

    The groups are `slab`, `molecule` and, for a nitrogen above a lead, `N on Pb`.

    :param recipe: see :class:`Surface`.
    """
    surface: Surface = read_settings(Surface, recipe.get_dict())
    return DatasetData.from_ase(surface.parts(np.random.default_rng(seed.value)))


@recorded
def build_molecules(names: orm.List, box: orm.Float) -> DatasetData:
    """Build molecules, each alone in a periodic cube; see `structures.passivators` for their names."""
    return DatasetData.from_ase([in_box(name, box.value) for name in names.get_list()])


@recorded
def build_atoms(elements: orm.List, box: orm.Float | None = None) -> DatasetData:
    """Build a single atom of each element with the spin of its ground state; see `structures.isolated`."""
    return DatasetData.from_ase(isolated_atoms(elements.get_list(), None if box is None else box.value))
