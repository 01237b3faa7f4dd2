"""Bonds of molecules, and molecules that the periodic boundary cuts."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from aiida_perovmlip.structures.bonds import bonds, centre_of_mass, molecules_by_bonds, named, whole
from aiida_perovmlip.structures.distort import molecules
from aiida_perovmlip.structures.molecules import molecule
from aiida_perovmlip.structures.perovskite import cubic


def cut(atoms: Atoms) -> Atoms:
    """Return a copy whose molecules lie across the boundary of the cell."""
    shifted = atoms.copy()
    shifted.translate(-atoms.get_center_of_mass()[None] if not atoms.pbc.any() else [6.36 / 2, 6.36 / 2, 6.36 / 2])
    shifted.wrap()
    return shifted


@pytest.mark.parametrize('name', ['MA', 'FA'])
@pytest.mark.parametrize('is_cut', [False, True])
def test_molecules_found_by_bonds_are_those_that_were_built(name, is_cut):
    atoms = cubic(name, 'Pb', 'I', 6.36, (2, 2, 2), np.random.default_rng(3))
    found = molecules_by_bonds(cut(atoms) if is_cut else atoms)
    assert [part.tolist() for part in found] == [part.tolist() for part in molecules(atoms)]


def test_the_bonds_of_a_cation_are_those_of_its_structural_formula():
    # FA is C, H on C, then twice N, H, H.
    assert bonds(molecule('FA')).tolist() == [[0, 1], [0, 2], [0, 5], [2, 3], [2, 4], [5, 6], [5, 7]]
    assert len(bonds(molecule('MA'))) == 7


def test_metals_and_halides_belong_to_no_molecule():
    assert molecules_by_bonds(cubic('Cs', 'Pb', 'I', 6.3, (2, 2, 2))) == []
    assert bonds(Atoms('PbI', positions=[[0, 0, 0], [0, 0, 2.0]])).shape == (0, 2)
    assert bonds(Atoms('PbI', positions=[[0, 0, 0], [0, 0, 2.9]]), elements=('Pb', 'I')).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ('name', 'formula'),
    [
        ('2015_ch3nh3pbi3_phonons_PBEsol_CH3NH3PbI3_orthorhombic', 'CH6N'),
        ('2019_mapi_defect_PBEsol_negative_charge', 'CH6N'),
        ('2015_fapi_PBEsol_FAPbI3_tetragonal_P42mnm', 'CH5N2'),
    ],
)
def test_all_molecules_of_relaxed_structures_are_whole_cations(name, formula, shared_data):
    path = next((shared_data / 'structures' / 'wmd_hybrid_perovskites').glob(f'{name}*'))
    atoms = read(path)
    found = molecules_by_bonds(atoms)
    assert len(found) == atoms.symbols.count('C') > 0
    assert {atoms[part].symbols.formula.format('hill') for part in found} == {formula}


def test_a_cut_molecule_is_made_whole_where_its_first_atom_lies():
    atoms = cubic('FA', 'Pb', 'I', 6.36, (2, 2, 2))
    broken = cut(atoms)
    for part in molecules_by_bonds(broken):
        expected = atoms.positions[part] - atoms.positions[part[0]] + broken.positions[part[0]]
        assert whole(broken, part) == pytest.approx(expected, abs=1e-10)
    extents = [np.ptp(broken.positions[part], axis=0).max() for part in molecules_by_bonds(broken)]
    assert max(extents) > 6.36, 'no molecule was cut, so this tests nothing'


def test_a_molecule_longer_than_half_the_cell_is_made_whole():
    chain = Atoms('C6', positions=[[1.4 * place, 0, 0] for place in range(6)], cell=[9, 9, 9], pbc=True)
    chain.wrap()
    assert np.ptp(whole(chain, range(6))[:, 0]) == pytest.approx(7.0)


def test_the_centre_of_mass_of_a_cut_molecule_is_inside_it():
    atoms = cut(cubic('MA', 'Pb', 'I', 6.36, (2, 2, 2)))
    for part in molecules_by_bonds(atoms):
        centre = centre_of_mass(atoms, part)
        assert np.linalg.norm(whole(atoms, part) - centre, axis=1).max() < 2.0


def test_atoms_of_two_molecules_are_refused_by_name():
    atoms = cubic('FA', 'Pb', 'I', 6.36, (2, 1, 1))
    with pytest.raises(ValueError, match='H13 are bonded to no atom of the molecule of C0'):
        whole(atoms, [0, 1, 13])


def test_atoms_are_named_by_element_and_index():
    assert named(molecule('FA'), [0, 5]) == 'C0, N5'
