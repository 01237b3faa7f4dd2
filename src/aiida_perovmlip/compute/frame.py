"""One frame: a structure with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from ase.data import atomic_numbers, chemical_symbols

Array = npt.NDArray[Any]

PER_ATOM = ('numbers', 'positions', 'forces')
LABELS = ('energy', 'forces', 'stress')
CATEGORIES = ('group', 'trajectory', 'head', 'source')
DTYPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    'numbers': (np.uint8, ()),
    'positions': (np.float64, (3,)),
    'cells': (np.float64, (3, 3)),
    'pbc': (np.bool_, (3,)),
    'energy': (np.float64, ()),
    'forces': (np.float64, (3,)),
    'stress': (np.float64, (6,)),
    'charge': (np.int16, ()),
    'spin': (np.int16, ()),
    **dict.fromkeys(CATEGORIES, (np.int32, ())),
}
DEFAULTS = {'group': 'default', 'trajectory': '', 'head': 'default', 'source': ''}


class FrameError(ValueError):
    """A frame that cannot be stored; the message names the frame and the field."""


@dataclass(frozen=True)
class Frame:
    """One structure with what is known of it; arrays as in the columns, without the leading frame axis."""

    numbers: Array
    positions: Array
    cell: Array = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: Array = field(default_factory=lambda: np.zeros(3, dtype=bool))
    energy: float | None = None
    forces: Array | None = None
    stress: Array | None = None
    charge: int | None = None
    spin: int | None = None
    group: str = 'default'
    trajectory: str = ''
    head: str = 'default'
    source: str = ''

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols of all atoms in order."""
        return [chemical_symbols[number] for number in self.numbers]

    @property
    def has_volume(self) -> bool:
        """Whether a stress makes sense: periodic in all three directions."""
        return bool(self.pbc.all())

    def to_atoms(self, labels: bool = True) -> Any:
        """Return ASE atoms; with labels these carry a calculator that knows energy, forces and stress."""
        from ase import Atoms

        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        atoms.info['group'] = self.group
        for name in ('charge', 'spin'):
            if getattr(self, name) is not None:
                atoms.info[name] = getattr(self, name)
        for name in ('trajectory', 'head', 'source'):
            if getattr(self, name) != DEFAULTS[name]:
                atoms.info[name] = getattr(self, name)
        known = {name: getattr(self, name) for name in LABELS if getattr(self, name) is not None}
        if labels and known:
            from ase.calculators.singlepoint import SinglePointCalculator

            atoms.calc = SinglePointCalculator(atoms, **known)
        return atoms

    @classmethod
    def from_atoms(cls, atoms: Any, **fields: Any) -> Frame:
        """Read ASE atoms: labels from an attached calculator, group, charge and so on from `atoms.info`.

        Everything is copied, so that atoms which move on (in a loop, in a simulation) do not change the frame. Labels
        that the calculator computed for another structure are refused.
        """
        results = atoms.calc.results if atoms.calc is not None else {}
        values: dict[str, Any] = {name: results[name] for name in LABELS if results.get(name) is not None}
        if values and _is_of_another(atoms):
            raise FrameError(
                'its calculator holds the results of another structure. Keep the results of each frame: '
                '`atoms.calc = SinglePointCalculator(atoms, energy=…, forces=…)` before you go on.'
            )
        if 'forces' in values:
            values['forces'] = np.array(values['forces'])
        if 'stress' in values:
            stress = np.array(values['stress'])
            values['stress'] = to_voigt(stress) if stress.shape == (3, 3) else stress
        known = atoms.info
        values |= {name: known[name] for name in ('charge', 'spin', *CATEGORIES) if name in known}
        if 'group' not in known and 'config_type' in known:
            values['group'] = str(known['config_type'])
        values |= fields
        return cls(atoms.numbers.copy(), atoms.positions.copy(), atoms.cell.array.copy(), atoms.pbc.copy(), **values)


def _is_of_another(atoms: Any) -> bool:
    """Whether the calculator of these atoms last computed another structure."""
    computed = getattr(atoms.calc, 'atoms', None)
    if computed is None or computed is atoms:
        return False
    theirs, ours = computed.arrays, atoms.arrays
    return bool(
        theirs['positions'].tobytes() != ours['positions'].tobytes()
        or theirs['numbers'].tobytes() != ours['numbers'].tobytes()
        or computed.cell.array.tobytes() != atoms.cell.array.tobytes()
    )


def to_voigt(stress: Array) -> Array:
    """Return xx yy zz yz xz xy of a symmetric (3, 3) stress."""
    if not np.allclose(stress, stress.T, rtol=1e-3, atol=1e-6):
        raise FrameError(f'the stress is not symmetric: {stress.tolist()}')
    mean: Array = 0.5 * (stress + stress.T)
    return np.array([mean[0, 0], mean[1, 1], mean[2, 2], mean[1, 2], mean[0, 2], mean[0, 1]])


def from_voigt(stress: Array) -> Array:
    """Return the (3, 3) stress of xx yy zz yz xz xy."""
    matrix: Array = stress[np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])]
    return matrix


def atomic_number(symbol: str) -> int:
    """Return the atomic number of a chemical symbol; raises FrameError for what is not an element."""
    try:
        number: int = atomic_numbers[symbol]
    except KeyError:
        raise FrameError(f'{symbol!r} is not a chemical element.') from None
    if number == 0:
        raise FrameError(f'{symbol!r} is not a chemical element.')
    return number
