"""Single atoms have the spin of their ground state."""

from __future__ import annotations

import pytest

from aiida_perovmlip.structures.isolated import GROUP, isolated_atoms


def test_an_atom_has_the_spin_of_its_ground_state():
    atoms = list(isolated_atoms(['Cs', 'Pb', 'I', 'N', 'Mn']))
    assert [atom.info['spin'] for atom in atoms] == [2, 3, 2, 4, 6]  # doublet, Hund's triplet, … , sextet
    assert all(atom.info['group'] == GROUP and len(atom) == 1 and not atom.pbc.any() for atom in atoms)


def test_an_atom_may_be_in_the_middle_of_a_box():
    (atom,) = isolated_atoms(['I'], box=12.0)
    assert atom.cell.lengths() == pytest.approx([12.0] * 3)
    assert atom.positions[0] == pytest.approx([6.0] * 3)


def test_what_is_no_element_is_refused():
    with pytest.raises(ValueError, match="no element 'Xx'"):
        list(isolated_atoms(['Cs', 'Xx']))
