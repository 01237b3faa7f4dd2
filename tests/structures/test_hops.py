"""Distinct hops under the space group of the host, and their two ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from ase.neighborlist import neighbor_list

from aiida_perovmlip.structures.bonds import molecules_by_bonds, whole
from aiida_perovmlip.structures.hops import interstitial_hops, interstitial_places, vacancy_hops
from aiida_perovmlip.structures.pairs import distinct_pairs, space_group
from aiida_perovmlip.structures.paths import linear, problem_of_path
from aiida_perovmlip.structures.perovskite import cubic, tilted


def summary(hops) -> list[tuple[float, int]]:
    """Return distance in Å and multiplicity of each hop."""
    return [(round(hop.distance, 3), hop.multiplicity) for hop in hops]


@pytest.fixture
def host():
    return cubic('Cs', 'Pb', 'I', 6.3, (2, 2, 2))


@pytest.mark.parametrize('repeat', [(1, 1, 1), (2, 2, 2), (3, 3, 3), (2, 2, 1)])
def test_an_iodide_hops_to_8_neighbours_along_edges_of_the_octahedra_in_any_supercell(repeat):
    (hop,) = vacancy_hops(cubic('Cs', 'Pb', 'I', 6.3, repeat), 'I', 5.0)
    assert hop.distance == pytest.approx(6.3 / np.sqrt(2))
    assert hop.multiplicity == 8
    assert hop.has_equivalent_ends


@pytest.mark.parametrize('repeat', [(2, 2, 2), (3, 3, 3)])
def test_longer_hops_of_iodide_along_the_cell_are_through_lead_or_not(repeat):
    # Of the 6 neighbours at one lattice constant, 2 lie behind lead.
    hops = vacancy_hops(cubic('Cs', 'Pb', 'I', 6.3, repeat), 'I', 6.5)
    assert sorted(summary(hops)) == [(4.455, 8), (6.3, 2), (6.3, 4)]


@pytest.mark.parametrize('repeat', [(2, 2, 2), (3, 3, 3)])
def test_caesium_hops_to_6_neighbours(repeat):
    assert summary(vacancy_hops(cubic('Cs', 'Pb', 'I', 6.3, repeat), 'Cs', 6.5)) == [(6.3, 6)]


@pytest.mark.parametrize(
    ('ion', 'longest', 'expected'),
    [('I', 5.0, [4.411, 4.456, 4.469, 4.488, 4.519, 4.616, 4.912]), ('Cs', 7.0, [6.104, 6.225, 6.277])],
)
def test_hops_of_the_orthorhombic_phase_are_those_of_an_independent_path_finder(ion, longest, expected, shared_data):
    # The distances are those of DistinctPathFinder of pymatgen-analysis-diffusion 2026.9.23.
    atoms = read(shared_data / 'structures' / 'paramvir3' / 'CsPbI3_ortho_unit_cell.vasp')
    assert [round(hop.distance, 3) for hop in vacancy_hops(atoms, ion, longest, symprec=0.01)] == expected


def test_hops_do_not_depend_on_order_origin_and_orientation_of_the_host():
    rng = np.random.default_rng(5)
    atoms = tilted('Cs', 'Pb', 'I', 6.3, (2, 2, 2), 'a0a0c+', 9.0)
    expected = summary(vacancy_hops(atoms, 'I', 5.5))
    assert len(expected) >= 3, 'the tilts split the hops of the cubic phase'
    other = atoms[rng.permutation(len(atoms))]
    other.translate([1.0, 2.0, 3.0])
    other.wrap()
    other.rotate(37, [1, 2, 3], rotate_cell=True)
    # Which end of a hop between different places comes first depends on the order, and so does its multiplicity.
    found = vacancy_hops(other, 'I', 5.5)
    assert [hop.distance for hop in found] == pytest.approx([distance for distance, _ in expected], abs=1e-3)
    same = [(round(hop.distance, 3), hop.multiplicity) for hop in found if hop.has_equivalent_ends]
    before = [hop for hop in vacancy_hops(atoms, 'I', 5.5) if hop.has_equivalent_ends]
    assert sorted(same) == sorted(summary(before))


@pytest.mark.parametrize('glazer', ['a0a0c+', 'a0a0c-', 'a-a-c+'])
def test_there_are_as_many_hops_as_orbits_of_pairs_under_all_operations(glazer):
    import spglib

    atoms = tilted('Cs', 'Pb', 'I', 6.3, (2, 2, 2), glazer, 9.0)
    iodides = atoms[atoms.symbols == 'I']
    first, vectors = neighbor_list('iD', iodides, 5.5)
    middles = (iodides.positions[first] + vectors / 2) / 12.6
    found = spglib.get_symmetry((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=1e-3)
    orbits = np.arange(len(first))  # each pair takes the lowest number of its equivalents
    for rotation, translation in zip(found['rotations'], found['translations'], strict=True):
        misses = (middles @ rotation.T + translation)[:, None] - middles[None]
        turned = vectors @ rotation.T  # the cell is a cube
        same = np.linalg.norm(misses - np.round(misses), axis=2) < 1e-3
        along = np.abs(turned[:, None] - vectors[None]).max(axis=2) < 1e-3
        against = np.abs(turned[:, None] + vectors[None]).max(axis=2) < 1e-3
        for one, other in np.argwhere(same & (along | against)):
            lower, higher = sorted((orbits[one], orbits[other]))
            orbits[orbits == higher] = lower
    assert len(vacancy_hops(atoms, 'I', 5.5)) == len(set(orbits.tolist()))


def test_multiplicities_add_up_to_the_number_of_neighbours():
    atoms = tilted('Cs', 'Pb', 'I', 6.3, (2, 2, 2), 'a-a-c+', 8.0)
    hops = vacancy_hops(atoms, 'I', 5.5)
    group = space_group(atoms, 1e-3)
    iodides = np.flatnonzero(atoms.symbols == 'I')
    sites = group.sites(atoms.positions[iodides])
    lowest = group.images(atoms.positions[iodides][np.unique(sites, return_index=True)[1]]).min(axis=0)[sites]
    sizes = dict(zip(*np.unique(lowest, return_counts=True), strict=True))
    # Each hop stands for (size of the orbit) × multiplicity neighbours, both directions if its ends are not equivalent.
    counted = sum(
        int(sizes[lowest[np.searchsorted(iodides, hop.emptied[0])]])
        * hop.multiplicity
        * (1 if hop.has_equivalent_ends else 2)
        for hop in hops
    )
    distances = atoms[iodides].get_all_distances(mic=True)
    assert counted == np.count_nonzero((distances > 0.1) & (distances < 5.5))


def test_ends_without_equivalence_have_other_neighbourhoods():
    atoms = tilted('Cs', 'Pb', 'I', 6.3, (2, 2, 2), 'a0a0c+', 9.0)
    for hop in vacancy_hops(atoms, 'I', 5.5):
        surroundings = [
            np.sort(np.delete(atoms.get_distances(place[0], range(len(atoms)), mic=True), place[0]))
            for place in (hop.emptied, hop.moved)
        ]
        assert np.allclose(*surroundings, atol=1e-6) == hop.has_equivalent_ends


def test_a_rattled_host_has_the_hops_of_the_ideal_one_within_a_tolerance(host):
    host.rattle(0.02, seed=1)
    assert len(vacancy_hops(host, 'I', 5.0)) > 10
    assert [hop.multiplicity for hop in vacancy_hops(host, 'I', 5.2, symprec=0.2)] == [8]


def test_random_molecules_hide_the_symmetry_unless_they_count_as_points():
    atoms = cubic('MA', 'Pb', 'I', 6.33, (2, 2, 2), np.random.default_rng(2))
    assert len(vacancy_hops(atoms, 'I', 5.0)) == 24 * 8 / 2
    assert summary(vacancy_hops(atoms, 'I', 5.0, molecules_as_points=True)) == [(4.476, 8)]
    assert summary(vacancy_hops(atoms, 'MA', 6.5, molecules_as_points=True)) == [(6.33, 6)]


def test_the_ends_of_a_hop_lack_one_atom_and_differ_by_the_way_of_the_other(host):
    (hop,) = vacancy_hops(host, 'I', 5.0)
    start, end = hop.ends(host, charge=1)
    assert start.info == end.info == {'charge': 1}
    assert len(start) == len(end) == 39
    assert list(start.symbols) == list(end.symbols) == [*host.symbols][:2] + [*host.symbols][3:]
    moved = np.linalg.norm(end.positions - start.positions, axis=1)
    assert np.flatnonzero(moved > 1e-9).tolist() == [hop.moved[0] - 1]
    assert moved.max() == pytest.approx(hop.distance)
    filled = end.positions[hop.moved[0] - 1] - host.positions[hop.emptied[0]]
    assert filled @ np.linalg.inv(host.cell) == pytest.approx(np.round(filled @ np.linalg.inv(host.cell)), abs=1e-9)
    assert problem_of_path(linear(start, end, 5)) is None


def test_the_hops_of_an_ideal_host_lead_to_the_places_of_a_relaxed_one(host):
    relaxed = host.copy()
    relaxed.set_cell(1.02 * host.cell.array, scale_atoms=True)
    relaxed.rattle(0.2, seed=3)
    for hop in vacancy_hops(host, 'I', 6.5):
        start, end = hop.ends(relaxed)
        moved = int(np.linalg.norm(end.positions - start.positions, axis=1).argmax())
        way = end.positions[moved] - start.positions[moved]
        assert way == pytest.approx(np.array(hop.vector), abs=1.0)
        misses = host.cell.scaled_positions((end.positions[moved] - relaxed.positions[hop.emptied[0]])[None] / 1.02)[0]
        assert misses == pytest.approx(np.round(misses), abs=1e-9)


def test_hops_across_the_boundary_are_not_wrapped(host):
    host.translate([-3.0, -3.0, -3.0])
    host.wrap()
    for hop in vacancy_hops(host, 'I', 6.5):
        start, end = hop.ends(host)
        assert 'charge' not in start.info
        assert np.abs(end.positions - start.positions).max() <= hop.distance + 1e-9
        assert np.ptp([np.linalg.norm(image.positions - start.positions) for image in linear(start, end, 1)]) > 4


def test_a_molecule_hops_as_a_whole_also_where_the_boundary_cuts_it():
    atoms = cubic('MA', 'Pb', 'I', 6.33, (2, 2, 2))
    atoms.translate([3.0, 3.0, 3.0])
    atoms.wrap()
    hop = vacancy_hops(atoms, 'MA', 6.5)[0]
    start, end = hop.ends(atoms)
    assert len(start) == 96 - 8
    assert len(molecules_by_bonds(start)) == len(molecules_by_bonds(end)) == 7
    way = end.positions - start.positions
    moved = np.linalg.norm(way, axis=1) > 1e-9
    assert moved.sum() == 8
    assert way[moved] == pytest.approx(np.tile(hop.vector, (8, 1)))
    assert sorted(set(start.arrays['molecule'].tolist())) == sorted(
        {-1, *range(8)} - {int(atoms.arrays['molecule'][hop.emptied[0]])}
    )


def test_a_formula_names_a_molecule_as_well():
    atoms = cubic('FA', 'Pb', 'I', 6.36, (2, 2, 2))
    assert [hop.moved for hop in vacancy_hops(atoms, 'CH5N2', 6.5)] == [
        hop.moved for hop in vacancy_hops(atoms, 'FA', 6.5)
    ]
    assert vacancy_hops(atoms, 'CH5N2', 6.5)[0].ends(atoms)[0].symbols.count('C') == 7


def test_the_voids_of_copper_are_its_octahedra_and_tetrahedra():
    copper = bulk('Cu', a=3.6, cubic=True)
    places = interstitial_places(copper, 1.0)
    room = [np.linalg.norm(copper.positions - place, axis=1).min() for place in places]
    nearest = [
        min(
            np.linalg.norm(
                copper.cell.array.T @ (copper.cell.scaled_positions(copper.positions - place) % 1 - np.array(corner)).T,
                axis=0,
            ).min()
            for corner in itertools.product((0, 1), repeat=3)
        )
        for place in places
    ]
    assert nearest == pytest.approx([1.8, 3.6 * np.sqrt(3) / 4])
    assert min(room) >= 1.5
    assert len(interstitial_places(copper, 1.7)) == 1


def test_octahedral_interstitials_of_copper_have_12_hops():
    copper = bulk('Cu', a=3.6, cubic=True) * (2, 2, 2)
    (hop,) = interstitial_hops(copper, 'H', [[1.8, 1.8, 1.8]], 3.0)
    assert (round(hop.distance, 3), hop.multiplicity) == (2.546, 12)
    octahedra, tetrahedra = interstitial_places(copper, 1.0)
    both = interstitial_hops(copper, 'H', [octahedra, tetrahedra], 1.7)
    # Each octahedron has 8 tetrahedra at its faces, and they are not equivalent.
    assert [(hop.multiplicity, hop.has_equivalent_ends) for hop in both] == [(8, False)]


def test_the_ends_of_an_interstitial_hop_have_one_ion_more(host):
    (hop,) = interstitial_hops(host, 'I', [[3.15, 3.15, 0.0]], 4.5)
    start, end = hop.ends(host, charge=-1)
    assert start.info == {'charge': -1}
    assert len(start) == 41
    assert np.array_equal(start.positions[:40], host.positions)
    assert start.symbols[40] == 'I'
    assert end.positions[40] - start.positions[40] == pytest.approx(np.array(hop.vector))
    assert start.arrays['molecule'][40] == -1


def test_an_added_molecule_has_a_number_of_its_own():
    host = cubic('MA', 'Pb', 'I', 6.33, (2, 2, 2))
    hop = interstitial_hops(host, 'MA', [[3.165, 3.165, 0.0]], 6.5, molecules_as_points=True)[0]
    start, end = hop.ends(host)
    assert start.arrays['molecule'][96:].tolist() == [8] * 8
    assert len(molecules_by_bonds(end)) == 9
    assert np.ptp(whole(end, range(96, 104)), axis=0) == pytest.approx(np.ptp(start.positions[96:], axis=0))


def test_a_hop_to_the_periodic_image_of_its_own_ion_is_refused():
    with pytest.raises(ValueError, match=r'repeats a place after 6\.30 Å.*repeat the host'):
        vacancy_hops(cubic('Cs', 'Pb', 'I', 6.3), 'Cs', 6.5)


def test_there_is_no_hop_shorter_than_the_nearest_neighbours(host):
    assert vacancy_hops(host, 'I', 4.0) == []
    assert interstitial_hops(host, 'I', [[3.15, 3.15, 0.0]], 1.0) == []


def test_an_ion_that_is_not_in_the_host_is_refused(host):
    with pytest.raises(ValueError, match='holds no Br'):
        vacancy_hops(host, 'Br', 5.0)
    with pytest.raises(ValueError, match='holds no MA'):
        vacancy_hops(host, 'MA', 5.0)


def test_hydrogen_of_a_molecule_is_no_ion():
    with pytest.raises(ValueError, match='holds no H '):
        vacancy_hops(cubic('MA', 'Pb', 'I', 6.33, (2, 2, 2)), 'H', 5.0)


def test_the_ends_in_another_host_are_refused(host):
    (hop,) = vacancy_hops(host, 'I', 5.0)
    with pytest.raises(ValueError, match=r'no I at \(3,\).*the host that the hop was found in'):
        hop.ends(host[::-1])
    with pytest.raises(ValueError, match='the host that the hop was found in'):
        hop.ends(host[:2])


@pytest.mark.parametrize('longest', [0.0, -1.0, float('nan'), float('inf')])
def test_a_distance_that_is_no_length_is_refused(longest, host):
    with pytest.raises(ValueError, match='has to be positive'):
        vacancy_hops(host, 'I', longest)


def test_places_that_are_no_points_are_refused(host):
    with pytest.raises(ValueError, match='three coordinates'):
        interstitial_hops(host, 'I', [1.0, 2.0, 3.0], 5.0)


def test_voids_of_a_slab_are_refused(host):
    host.pbc = [True, True, False]
    with pytest.raises(ValueError, match='not periodic in all three'):
        interstitial_places(host, 2.0)


def test_places_that_lack_their_equivalents_are_refused(host):
    with pytest.raises(ValueError, match='give all equivalents'):
        distinct_pairs(host, space_group(host, 1e-3), host.positions[2:4], 5.0)


def test_atoms_at_one_place_have_no_space_group(host):
    host.positions[2] = host.positions[3]
    with pytest.raises(ValueError, match='do two of its atoms coincide'):
        space_group(host, 1e-3)
