"""Geometry of saturated molecules that are made from a line of SMILES."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.structures.bonds import molecules_by_bonds
from aiida_perovmlip.structures.passivators import BONDS, PASSIVATORS, VALENCES, passivator, read_smiles


@pytest.mark.parametrize(
    ('name', 'formula'),
    [
        ('AEAPTMS', 'C8H22N2O3Si'),
        ('aminomethylsilane', 'CH7NSi'),
        ('CN', 'CH5N'),
        ('CC(C)(C)C', 'C5H12'),
        ('O', 'H2O'),
        ('C[Si](C)(C)C', 'C4H12Si'),
    ],
)
def test_a_molecule_has_the_hydrogens_that_its_valences_ask_for(name, formula):
    atoms = passivator(name)
    assert atoms.get_chemical_formula() == formula
    assert atoms.get_center_of_mass() == pytest.approx(np.zeros(3), abs=1e-10)


@pytest.mark.parametrize('name', PASSIVATORS)
def test_bonds_are_as_long_as_chemistry_says_and_angles_are_tetrahedral(name):
    atoms, tree = passivator(name), read_smiles(PASSIVATORS[name])
    for atom, symbol in enumerate(tree.symbols):
        around = tree.neighbours(atom)
        assert len(around) == VALENCES[symbol]
        vectors = atoms.positions[around] - atoms.positions[atom]
        lengths = np.linalg.norm(vectors, axis=1)
        assert lengths == pytest.approx([BONDS[frozenset((symbol, tree.symbols[each]))] for each in around])
        cosines = (vectors @ vectors.T) / np.outer(lengths, lengths)
        assert cosines[np.triu_indices(len(around), 1)] == pytest.approx(-1 / 3)


@pytest.mark.parametrize('name', [*PASSIVATORS, 'CCCCCC', 'CC(C)(C)C', 'CO[Si](OC)(OC)OC'])
def test_atoms_that_are_not_bonded_keep_apart_and_all_are_one_molecule(name):
    atoms = passivator(name)
    hydrogens = atoms[atoms.symbols == 'H'].get_all_distances()
    assert hydrogens[hydrogens > 0].min() > 1.6
    assert [len(part) for part in molecules_by_bonds(atoms)] == [len(atoms)]


def test_a_free_chain_is_zigzag():
    atoms = passivator('CCCCCC')
    carbons = atoms.positions[atoms.symbols == 'C']
    assert np.linalg.norm(carbons[-1] - carbons[0]) == pytest.approx(max(np.linalg.norm(carbons - carbons[0], axis=1)))
    assert np.linalg.svd(carbons - carbons.mean(axis=0))[1][2] == pytest.approx(0.0, abs=1e-6)  # in one plane


@pytest.mark.parametrize('text', ['', 'C(', 'C)', 'C=C', 'c1ccccc1', 'CCl', 'C.C', '(C)C('])
def test_what_is_no_saturated_molecule_is_refused(text):
    with pytest.raises(ValueError, match=r'saturated molecule|closes a branch'):
        passivator(text)


@pytest.mark.parametrize('text', ['CN(C)(C)C', '[SiH2]C', '[Si]'])
def test_a_wrong_number_of_bonds_is_refused(text):
    with pytest.raises(ValueError, match='single bonds'):
        passivator(text)
