"""Random distortions: amplitudes, whole molecules, minimal distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from aiida_perovmlip.structures.distort import (
    distorted,
    is_too_close,
    molecules,
    rattled,
    reoriented,
    shortest_distance,
    strained,
)
from aiida_perovmlip.structures.perovskite import cubic, tilted


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def internal_distances(atoms) -> np.ndarray:
    """Return all distances in Å within each molecule."""
    return np.array([atoms[members].get_all_distances(mic=True) for members in molecules(atoms)])


def test_rattled_atoms_move_by_the_given_standard_deviation(rng):
    atoms = cubic('Cs', 'Pb', 'I', 6.3, (6, 6, 6))
    shifts = rattled(atoms, 0.08, rng).positions - atoms.positions
    assert shifts.std() == pytest.approx(0.08, rel=0.05)
    assert abs(shifts.mean()) < 0.005


@pytest.mark.parametrize('name', ['MA', 'FA'])
def test_bonds_within_molecules_change_less_than_the_molecules_move(name, rng):
    atoms = cubic(name, 'Pb', 'I', 6.36, (3, 3, 3), rng)
    result = rattled(atoms, 0.1, rng)
    moved = (result.positions - atoms.positions)[atoms.arrays['molecule'] >= 0]
    stretched = internal_distances(result) - internal_distances(atoms)
    # An atom moves with its molecule and with the turning of this, so more than 0.1 Å; a distance between two atoms
    # has √2 of the internal amplitude, a quarter of 0.1 Å.
    assert 0.1 < moved.std() < 0.2
    assert stretched[internal_distances(atoms) > 0].std() == pytest.approx(math.sqrt(2) * 0.025, rel=0.15)


def test_molecules_are_rigid_without_internal_amplitude(rng):
    atoms = cubic('FA', 'Sn', 'Br', 6.0, (2, 2, 2), rng)
    result = rattled(atoms, 0.2, rng, internal_amplitude=0.0)
    assert internal_distances(result) == pytest.approx(internal_distances(atoms), abs=1e-10)
    assert not np.allclose(result.positions, atoms.positions, atol=0.05)


def test_molecules_across_the_boundary_stay_whole(rng):
    atoms = cubic('MA', 'Pb', 'I', 6.33, (2, 2, 2))
    before = internal_distances(atoms)
    atoms.translate([6.33 / 2, 0.0, 0.0])
    atoms.wrap()
    extents = [np.ptp(atoms.positions[members], axis=0).max() for members in molecules(atoms)]
    assert max(extents) > 6.33, 'no molecule was cut, so this tests nothing'
    result = rattled(strained(atoms, 0.03, rng), 0.1, rng, internal_amplitude=0.0)
    assert internal_distances(result) == pytest.approx(before, abs=1e-10)


def test_strain_moves_the_centres_of_molecules_and_keeps_their_shape(rng):
    atoms = cubic('MA', 'Pb', 'I', 6.33, (2, 2, 2), rng)
    result = strained(atoms, 0.03, rng)
    assert internal_distances(result) == pytest.approx(internal_distances(atoms), abs=1e-10)
    deformation = np.linalg.solve(atoms.cell.array, result.cell.array)
    for members in molecules(atoms):
        expected = atoms[members].get_center_of_mass() @ deformation
        assert result[members].get_center_of_mass() == pytest.approx(expected)


def test_strain_of_a_framework_is_affine_symmetric_and_bounded(rng):
    atoms = cubic('Cs', 'Pb', 'I', 6.3, (2, 2, 2))
    for _ in range(50):
        result = strained(atoms, 0.03, rng)
        strain = np.linalg.solve(atoms.cell.array, result.cell.array) - np.eye(3)
        assert strain == pytest.approx(strain.T, abs=1e-12)
        assert 0 < np.abs(strain).max() <= 0.03 + 1e-12
        assert result.get_scaled_positions() == pytest.approx(atoms.get_scaled_positions(), abs=1e-10)


def test_no_strain_and_no_rattle_leave_the_structure_as_it_was(rng):
    atoms = cubic('MA', 'Pb', 'I', 6.33, (2, 1, 1), rng)
    result = distorted(atoms, 0.0, 0.0, rng)
    assert result.positions == pytest.approx(atoms.positions, abs=1e-12)
    assert np.array_equal(result.cell.array, atoms.cell.array)


def test_a_distortion_leaves_the_given_structure_alone(rng):
    atoms = cubic('MA', 'Pb', 'I', 6.33)
    positions, cell = atoms.positions.copy(), atoms.cell.array.copy()
    distorted(atoms, 0.03, 0.08, rng)
    reoriented(atoms, rng)
    assert np.array_equal(atoms.positions, positions)
    assert np.array_equal(atoms.cell.array, cell)


def test_structures_without_molecules_are_distorted_atom_by_atom(rng):
    atoms = bulk('Cu', cubic=True)
    assert 'molecule' not in atoms.arrays
    result = distorted(atoms, 0.02, 0.05, rng)
    assert len(result) == 4
    assert not np.allclose(result.positions, atoms.positions)


@pytest.mark.parametrize('formula', [('Cs', 'Pb', 'I', 6.29), ('MA', 'Pb', 'I', 6.33), ('FA', 'Pb', 'Br', 5.99)])
def test_distorted_perovskites_keep_physical_distances(formula, rng):
    ideal = cubic(*formula, (2, 2, 2), rng)
    for _ in range(10):
        atoms = distorted(ideal, 0.03, 0.08, rng)
        hydrogens = 'H' in atoms.symbols
        assert shortest_distance(atoms) > (0.85 if hydrogens else 2.5)
        assert not is_too_close(atoms, 0.8)


def test_a_distortion_that_tears_everything_apart_is_given_up_with_a_sentence(rng):
    atoms = cubic('Cs', 'Pb', 'I', 6.29, (2, 2, 2))
    with pytest.raises(ValueError, match=r'none of 5 distortions of Cs8I24Pb8 kept .* lower the rattle \(3.0 Å\)'):
        distorted(atoms, 0.0, 3.0, rng, attempts=5)


def test_close_draws_are_drawn_again(rng):
    atoms = Atoms('I2', positions=[[0, 0, 0], [0, 0, 2.9]], cell=[20, 20, 20], pbc=True)
    # The limit is 2.5 Å; about a fifth of the draws of 0.3 Å come closer.
    raw = [shortest_distance(rattled(atoms, 0.3, rng)) for _ in range(100)]
    kept = [shortest_distance(distorted(atoms, 0.0, 0.3, rng, closest=0.9)) for _ in range(100)]
    assert min(raw) < 0.9 * 2 * 1.39 < min(kept)


def test_the_shortest_distance_sees_periodic_images():
    assert shortest_distance(Atoms('I', cell=[7, 8, 9], pbc=True)) == pytest.approx(7.0)
    assert shortest_distance(
        Atoms('I2', positions=[[0, 0, 0.5], [0, 0, 8.5]], cell=[9, 9, 9], pbc=True)
    ) == pytest.approx(1.0)
    assert shortest_distance(Atoms('I2', positions=[[0, 0, 0], [0, 0, 50]])) == pytest.approx(50.0)
    assert shortest_distance(Atoms('I')) == math.inf


def test_two_atoms_are_too_close_below_the_fraction_of_their_radii():
    pair = Atoms('PbI', positions=[[0, 0, 0], [0, 0, 2.85]])
    assert is_too_close(pair, 1.01)
    assert not is_too_close(pair, 0.99)


def hydrogen_to_bromine(atoms) -> float:
    """Return the shortest H–Br distance in Å."""
    return float(neighbor_list('d', atoms, {('H', 'Br'): 4.0}).min())


@pytest.mark.parametrize(
    'atoms',
    [
        pytest.param(tilted('FA', 'Pb', 'Br', 5.99, (2, 2, 2), 'a-a-c+', 8.0), id='tilted supercell'),
        # Here each halide has two images equally far from the molecule, and both count.
        pytest.param(cubic('FA', 'Pb', 'Br', 5.6), id='single small cell'),
    ],
)
def test_turned_molecules_keep_clear_of_halides_where_free_ones_would_not(atoms, rng):
    free = [hydrogen_to_bromine(reoriented(atoms, rng, room=0.0)) for _ in range(20)]
    kept = [hydrogen_to_bromine(reoriented(atoms, rng)) for _ in range(20)]
    # 1.3 of the covalent radii of H and Br is 1.96 Å.
    assert min(free) < 1.96 < min(kept)


@pytest.mark.parametrize('amplitude', [-0.1, float('nan'), float('inf')])
def test_an_amplitude_that_is_no_length_is_refused(amplitude, rng):
    with pytest.raises(ValueError, match='finite and not negative'):
        rattled(bulk('Cu'), amplitude, rng)


@pytest.mark.parametrize('strain', [-0.01, 0.5, float('nan')])
def test_a_strain_that_is_negative_or_huge_is_refused(strain, rng):
    with pytest.raises(ValueError, match=r'less than 0\.3'):
        strained(bulk('Cu'), strain, rng)
