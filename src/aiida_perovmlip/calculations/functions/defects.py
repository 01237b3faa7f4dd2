"""Point defects put into a crystal, with provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiida import orm
from ase import Atoms

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.settings import option, read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.defects import lowest_spin, with_interstitial, with_substitution, with_vacancy


@dataclass(frozen=True)
class Defect:
    """A point defect."""

    kind: str = option(
        'vacancy',
        'An ion less, an ion more, or another one in its place.',
        choices=('vacancy', 'interstitial', 'substitution'),
    )
    ion: str = option('I', 'The ion: an element, `MA` or `FA`.')
    by: str = option('', 'Of a substitution: the element that comes.')
    which: int = option(0, 'Of a vacancy or substitution: which of the ions of this kind, counted from 0.', minimum=0)
    place: list[float] | None = option(
        None, 'Of an interstitial: where it is; None for the place with the most room.', unit='Å'
    )
    charge: int | None = option(None, 'Charge of the cell; not stated if nothing is said.')

    def put_into(self, host: Atoms) -> Atoms:
        """Return the crystal with the defect."""
        if self.kind == 'vacancy':
            return with_vacancy(host, self.ion, self.which, self.charge)
        if self.kind == 'substitution':
            return with_substitution(host, self.ion, self.by, self.which, self.charge)
        return with_interstitial(host, self.ion, self.place, self.charge)

    @property
    def name(self) -> str:
        """What is where: `v_I` a vacancy of iodine, `I_i` an interstitial, `Sn_Pb` tin in the place of lead."""
        return {'vacancy': f'v_{self.ion}', 'interstitial': f'{self.ion}_i'}.get(self.kind, f'{self.by}_{self.ion}')


@recorded
def make_defect(crystal: DatasetData, recipe: orm.Dict) -> DatasetData:
    """Put a point defect into a crystal.

    :param crystal: one frame; its labels are not read.
    :param recipe: see :class:`Defect`.
    """
    defect: Defect = read_settings(Defect, recipe.get_dict())
    if len(crystal) != 1:
        raise ValueError(f'a defect is put into one crystal, but there are {len(crystal)} frames.')
    return DatasetData.from_ase([defect.put_into(crystal.frames[0].to_atoms(labels=False))])


@recorded
def make_defects(crystals: DatasetData, recipes: orm.List) -> DatasetData:
    """Put each of several point defects into each of several crystals, one at a time.

    The group of a frame is that of its crystal and the name of the defect, `CsPbI3 Sn_Pb`; its spin is the lowest that
    its number of electrons allows.

    :param crystals: their labels are not read.
    :param recipes: see :class:`Defect`.
    """
    defects: list[Defect] = [read_settings(Defect, recipe) for recipe in recipes.get_list()]
    return DatasetData.from_ase(_defective(crystals, defects))


def _defective(crystals: DatasetData, defects: list[Defect]) -> Iterator[Atoms]:
    """Yield the crystals with each of the defects."""
    for crystal in crystals:
        for defect in defects:
            atoms = defect.put_into(crystal.to_atoms(labels=False))
            atoms.info['group'] = f'{crystal.group} {defect.name}'
            atoms.info['spin'] = lowest_spin(atoms)
            yield atoms
