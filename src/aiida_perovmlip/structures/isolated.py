"""Single atoms, from whose energies those of crystals are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ase import Atoms
from ase.data import atomic_numbers, ground_state_magnetic_moments

GROUP = 'IsolatedAtom'
"""The group of single atoms."""


def isolated_atoms(elements: Sequence[str], box: float | None = None) -> Iterator[Atoms]:
    """Yield a neutral atom of each element with the spin of its ground state, in the order that is given.

    :param box: edge in Å of the cube around each, for programs that need one; it is not periodic. None for no cell.
    """
    unknown = [element for element in elements if element == 'X' or element not in atomic_numbers]
    if unknown:
        raise ValueError(f'there is no element {unknown[0]!r}.')
    for element in elements:
        atom = Atoms(element, cell=None if box is None else [box] * 3)
        if box is not None:
            atom.center()
        unpaired = round(float(ground_state_magnetic_moments[atomic_numbers[element]]))
        atom.info = {'group': GROUP, 'charge': 0, 'spin': unpaired + 1}
        yield atom
