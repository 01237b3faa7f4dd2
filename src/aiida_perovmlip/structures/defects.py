"""A crystal with one point defect: an ion less, an ion more, or another one in its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from aiida_perovmlip.structures.bonds import Indices, centre_of_mass, molecules_by_bonds
from aiida_perovmlip.structures.hops import InterstitialHop, interstitial_places
from aiida_perovmlip.structures.molecules import MOLECULES, molecule


def ions_of(host: Atoms, ion: str) -> list[Indices]:
    """Return the atoms of each ion: of an element those that are in no molecule, of `MA` or `FA` whole molecules."""
    molecules = molecules_by_bonds(host)
    if ion in MOLECULES:
        wanted = sorted(molecule(ion).symbols)
        return [part for part in molecules if sorted(host.symbols[part]) == wanted]
    bound = {int(atom) for part in molecules for atom in part}
    symbols = list(host.symbols)
    return [np.array([atom]) for atom in range(len(host)) if symbols[atom] == ion and atom not in bound]


def with_vacancy(host: Atoms, ion: str, which: int = 0, charge: int | None = None) -> Atoms:
    """Return a crystal without one ion.

    :param ion: an element, `MA` or `FA`.
    :param which: which of the ions of this kind, counted from 0.
    :param charge: of the cell, kept in `info['charge']`; None for none.
    """
    chosen = _chosen(host, ion, which)
    left = _prepared(host, charge)
    del left[chosen.tolist()]
    return left


def with_substitution(host: Atoms, ion: str, by: str, which: int = 0, charge: int | None = None) -> Atoms:
    """Return a crystal in which an atom of another element, its last atom, has the place of one ion.

    :param ion: an element, `MA` or `FA`, in whose centre of mass the atom is put.
    :param by: the element.
    :param which: which of the ions of this kind, counted from 0.
    :param charge: of the cell, kept in `info['charge']`; None for none.
    """
    if by not in atomic_numbers or by == 'X':
        raise ValueError(f'there is no element {by!r} to put in the place of {ion}.')
    if by == ion:
        raise ValueError(f'{ion} cannot be substituted by itself: name another element.')
    place = centre_of_mass(host, _chosen(host, ion, which))
    changed = with_vacancy(host, ion, which, charge)
    changed.extend(Atoms(by, positions=[place]))
    if 'molecule' in host.arrays:
        changed.arrays['molecule'][-1] = -1
    return changed


def lowest_spin(atoms: Atoms) -> int:
    """Return the lowest multiplicity by the charge in `info`: 1 where the number of electrons is even, else 2."""
    return 1 + (int(atoms.numbers.sum()) - int(atoms.info.get('charge', 0))) % 2


def _chosen(host: Atoms, ion: str, which: int) -> Indices:
    """Return the atoms of one of the ions of a kind."""
    ions = ions_of(host, ion)
    if not 0 <= which < len(ions):
        raise ValueError(f'there is no {ion} number {which}: the crystal has {len(ions)}, counted from 0.')
    return ions[which]


def with_interstitial(host: Atoms, ion: str, place: Sequence[float] | None = None, charge: int | None = None) -> Atoms:
    """Return a crystal with one ion more, as its last atoms; it has to be relaxed.

    :param ion: an element, `MA` or `FA`.
    :param place: where its centre of mass is, (3,) in Å; None for the place with the most room.
    :param charge: of the cell, kept in `info['charge']`; None for none.
    """
    if place is not None and len(place) != 3:
        raise ValueError(f'the place is {list(place)} but has to be three coordinates in Å.')
    chosen = interstitial_places(host, 0.0)[0] if place is None else np.asarray(place, dtype=float)
    x, y, z = (float(value) for value in chosen)
    stays = InterstitialHop(ion, (0.0, 0.0, 0.0), multiplicity=1, has_equivalent_ends=True, place=(x, y, z))
    added, _ = stays.ends(host, charge)
    return added


def _prepared(host: Atoms, charge: int | None) -> Atoms:
    """Return a copy of the host whose `info` knows the charge of the cell alone."""
    copy = host.copy()
    copy.info = {} if charge is None else {'charge': charge}
    return copy
