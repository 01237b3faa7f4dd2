"""Geometry of the organic cations."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.structures.molecules import MOLECULES, molecule


def bonds(name: str, first: str, second: str, longest: float) -> np.ndarray:
    """Return the distances in Å between two elements up to a longest."""
    atoms = molecule(name)
    distances = [
        atoms.get_distance(i, j)
        for i in range(len(atoms))
        for j in range(i)
        if {atoms[i].symbol, atoms[j].symbol} == {first, second}
    ]
    return np.array([distance for distance in distances if distance < longest])


@pytest.mark.parametrize(
    ('name', 'first', 'second', 'count', 'length'),
    [
        ('MA', 'C', 'N', 1, 1.49),
        ('MA', 'C', 'H', 3, 1.09),
        ('MA', 'N', 'H', 3, 1.03),
        ('FA', 'C', 'N', 2, 1.32),
        ('FA', 'C', 'H', 1, 1.09),
        ('FA', 'N', 'H', 4, 1.03),
    ],
)
def test_bonds_are_as_many_and_as_long_as_chemistry_says(name, first, second, count, length):
    assert bonds(name, first, second, 1.7) == pytest.approx([length] * count, abs=1e-10)


@pytest.mark.parametrize(('name', 'formula'), [('MA', 'CH6N'), ('FA', 'CH5N2')])
def test_cations_have_their_formula_and_sit_on_their_centre_of_mass(name, formula):
    atoms = molecule(name)
    assert atoms.get_chemical_formula() == formula
    assert atoms.get_center_of_mass() == pytest.approx(np.zeros(3), abs=1e-12)


def test_formamidinium_is_planar_with_mirror_symmetry():
    atoms = molecule('FA')
    assert np.ptp(atoms.positions[:, 2]) == pytest.approx(0.0, abs=1e-12)
    mirrored = atoms.positions * [-1, 1, 1]
    gaps = np.linalg.norm(mirrored[:, None] - atoms.positions[None], axis=2)
    assert gaps.min(axis=1) == pytest.approx(np.zeros(len(atoms)), abs=1e-10)


def test_methylammonium_is_staggered():
    atoms = molecule('MA')
    hydrogens = atoms.positions[atoms.symbols == 'H']
    azimuth = np.degrees(np.arctan2(hydrogens[:, 1], hydrogens[:, 0]))
    assert sorted(np.round(azimuth) % 360) == [0, 60, 120, 180, 240, 300]


@pytest.mark.parametrize('name', MOLECULES)
def test_hydrogens_of_a_cation_keep_apart(name):
    atoms = molecule(name)
    hydrogens = atoms[atoms.symbols == 'H']
    distances = hydrogens.get_all_distances()
    assert distances[distances > 0].min() > 1.6


def test_an_unknown_cation_is_refused():
    with pytest.raises(ValueError, match='has to be one of MA, FA'):
        molecule('DMA')
