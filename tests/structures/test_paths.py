"""Straight and IDPP paths, their measures, and what is refused as a start of a band."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_perovmlip.structures.hops import vacancy_hops
from aiida_perovmlip.structures.molecules import molecule
from aiida_perovmlip.structures.paths import (
    _EvenDistances,
    idpp,
    linear,
    path_length,
    problem_of_path,
    rmsd_between,
)
from aiida_perovmlip.structures.perovskite import cubic


@pytest.fixture
def hop():
    """Return both ends of a hop of iodide into a vacancy of CsPbI3."""
    host = cubic('Cs', 'Pb', 'I', 6.3, (2, 2, 2))
    return vacancy_hops(host, 'I', 5.0)[0].ends(host, charge=1)


@pytest.fixture
def boxed():
    """Return FA in a periodic box."""
    atoms = molecule('FA')
    atoms.set_cell([12.0, 12.0, 12.0])
    atoms.pbc = True
    atoms.center()
    return atoms


@pytest.fixture
def path(boxed):
    """Return FA that goes straight by 1 Å."""
    end = boxed.copy()
    end.translate([1.0, 0.0, 0.0])
    return linear(boxed, end, 3)


def test_a_straight_path_has_its_ends_and_even_steps(hop):
    images = linear(*hop, 3)
    assert len(images) == 5
    assert np.array_equal(images[0].positions, hop[0].positions)
    assert images[-1].positions == pytest.approx(hop[1].positions)
    steps = np.diff([image.positions for image in images], axis=0)
    assert steps == pytest.approx(np.broadcast_to(steps[0], steps.shape))


def test_a_straight_path_takes_the_nearest_image_and_is_not_wrapped():
    start = Atoms('I', positions=[[9.5, 0, 0]], cell=[10, 10, 10], pbc=True)
    end = Atoms('I', positions=[[0.5, 0, 0]], cell=[10, 10, 10], pbc=True)
    assert [image.positions[0, 0] for image in linear(start, end, 1)] == pytest.approx([9.5, 10.0, 10.5])


@pytest.mark.parametrize('way', [5.0, -5.0, 5.2, -5.2])
def test_a_way_of_half_a_cell_goes_where_the_positions_say(way):
    start = Atoms('I', positions=[[5, 0, 0]], cell=[10, 10, 10], pbc=True)
    end = Atoms('I', positions=[[5 + way, 0, 0]], cell=[10, 10, 10], pbc=True)
    assert linear(start, end, 1)[1].positions[0, 0] == pytest.approx(5 + way / 2)


def test_images_know_what_both_ends_agree_on(hop):
    start, end = hop
    start.info |= {'energy': -1.0, 'only': 1, 'field': np.zeros(3)}
    end.info |= {'energy': -2.0, 'field': np.zeros(3)}
    for image in linear(start, end, 2):
        assert set(image.info) == {'charge', 'field'}
    assert start.info['energy'] == -1.0


@pytest.mark.parametrize('number', [0, -1, 1.5, True])
def test_a_path_without_images_between_its_ends_is_refused(number, hop):
    with pytest.raises(ValueError, match='at least 1'):
        linear(*hop, number)


def test_ends_that_are_not_alike_are_refused(hop):
    start, end = hop
    with pytest.raises(ValueError, match=r'the last has 38 atoms and not 39'):
        linear(start, end[1:], 3)
    end.set_cell(1.01 * end.cell.array)
    with pytest.raises(ValueError, match='the last has another cell'):
        linear(start, end, 3)


def test_the_length_of_a_straight_path_is_that_of_its_way(hop):
    assert path_length(linear(*hop, 4)) == pytest.approx(6.3 / np.sqrt(2))
    assert path_length(idpp(*hop, 4)) > 6.3 / np.sqrt(2)


def test_the_distance_of_paths_is_the_shift_between_them(hop):
    path = linear(*hop, 2)
    shifted = [image.copy() for image in path]
    for image in shifted:
        image.translate([0.3, 0.0, 0.4])
        image.wrap()
    assert rmsd_between(path, path) == 0
    assert rmsd_between(path, shifted) == pytest.approx(0.5)
    with pytest.raises(ValueError, match='4 and 5 images'):
        rmsd_between(path, linear(*hop, 3))


def test_idpp_bends_a_hop_around_lead(hop):
    straight, bent = linear(*hop, 3), idpp(*hop, 3)
    assert len(bent) == 5
    nearest = [
        min(image.get_distances(2, np.flatnonzero(image.symbols == 'Pb'), mic=True)) for image in (straight[2], bent[2])
    ]
    assert nearest[0] == pytest.approx(6.3 * np.sqrt(2) / 4)
    assert nearest[1] > nearest[0] + 0.1
    assert bent[0].positions == pytest.approx(straight[0].positions)
    assert bent[-1].positions == pytest.approx(straight[-1].positions)
    assert all(image.calc is None and image.info == {'charge': 1} for image in bent)
    assert problem_of_path(bent) is None


def test_idpp_with_the_limit_of_ase_hardly_leaves_the_straight_path(hop):
    straight = linear(*hop, 3)
    assert rmsd_between(idpp(*hop, 3, fmax=0.1), straight) < 0.2 * rmsd_between(idpp(*hop, 3), straight)


@pytest.mark.parametrize('part', [0.25, 0.5])
def test_the_pair_potential_of_idpp_is_that_of_ase(part, boxed):
    from ase.mep.neb import IDPP

    boxed.translate([6.0, 0.0, 0.0])
    boxed.wrap()  # cuts the molecule
    end = boxed.copy()
    end.rattle(0.5, seed=4)
    middle = linear(boxed, end, 3)[int(4 * part)]
    found, expected = middle.copy(), middle.copy()
    for image in (found, expected):
        image.rattle(0.1, seed=5)
    distances = [image.get_all_distances(mic=True) for image in (boxed, end)]
    found.calc = _EvenDistances(boxed, end, middle, part)
    expected.calc = IDPP((1 - part) * distances[0] + part * distances[1], mic=True)
    assert found.get_potential_energy() == pytest.approx(expected.get_potential_energy())
    assert found.get_forces() == pytest.approx(expected.get_forces())


def test_idpp_that_does_not_converge_is_refused(hop):
    with pytest.raises(ValueError, match=r'after 2 steps, more than 0\.001/Å³: allow more steps'):
        idpp(*hop, 3, steps=2)


def test_idpp_is_refused_where_atoms_meet_on_the_straight_path(boxed):
    end = boxed.copy()
    end.rotate(180, 'z', center='COM')
    with pytest.raises(ValueError, match=r'image 2 of the straight path.* are 0\.000 Å apart.*rotations\.between'):
        idpp(boxed, end, 3)


def test_a_path_that_is_fine_has_no_problem(path):
    assert problem_of_path(path) is None


@pytest.mark.parametrize('count', [0, 1, 2])
def test_a_path_of_its_ends_alone_is_refused(count, path):
    assert problem_of_path(path[:count]) == (
        f'the path has {count} structures: it needs its two ends and at least one image between them.'
    )


def test_another_order_of_atoms_is_refused_by_name(path):
    path[2] = path[2][[0, 2, 1, 3, 4, 5, 6, 7]]
    assert problem_of_path(path) == 'image 2 of 0 to 4 has N1 where the first has H1.'


def test_another_cell_number_of_atoms_or_no_positions_are_refused(path):
    path[1].set_cell([12.0, 12.0, 12.1])
    assert 'image 1 of 0 to 4 has another cell' in problem_of_path(path)
    path[1] = path[1][:-1]
    assert 'image 1 of 0 to 4 has 7 atoms and not 8' in problem_of_path(path)
    path[1] = path[0].copy()
    path[1].positions[3] = np.nan
    assert 'image 1 of 0 to 4 has positions that are no numbers' in problem_of_path(path)


@pytest.mark.parametrize(
    ('states', 'words'),
    [
        (({'charge': 1}, {'charge': 0}), 'has the charge 0 and not 1 as the first'),
        (({'charge': 1}, {}), 'has the charge 0 and not 1 as the first'),
        (({'spin': 1}, {'spin': 3}), 'has the spin multiplicity 3 and not 1 as the first'),
        (({'charge': 0, 'spin': 1}, {}), None),
    ],
)
def test_a_charge_or_a_spin_that_is_lost_on_the_way_is_refused(states, words, path):
    for number, image in enumerate(path):
        image.info |= states[number > 1]
    expected = None if words is None else f'image 2 of 0 to 4 {words}.'
    assert problem_of_path(path) == expected
    if words:
        with pytest.raises(ValueError, match=words):
            linear(path[0], path[-1], 3)


def test_an_image_that_repeats_its_neighbour_is_refused(path):
    path[3] = path[2].copy()
    assert problem_of_path(path).startswith('images 2 and 3 are the same structure')


def test_a_wrapped_atom_is_refused_by_name(path):
    path[2].positions[5, 1] += 12.0
    assert problem_of_path(path) == (
        'N5 jumps by a cell vector (12.00 Å) between images 1 and 2: do not wrap the images.'
    )


def test_equal_ends_are_refused(path):
    path[-1] = path[0].copy()
    assert 'both ends are the same structure' in problem_of_path(path)
    assert problem_of_path(path, may_return=True) is None
    assert 'images 3 and 4 are the same structure' in problem_of_path([*path[:3], path[0], path[0]], may_return=True)


def test_atoms_that_come_too_close_are_refused_by_name(hop):
    path = linear(*hop, 3)
    path[3].positions[0] = path[3].positions[1] + [0.0, 0.0, 1.5]
    assert problem_of_path(path) == 'image 3 of 0 to 4: Cs0 and Pb1 are 1.500 Å apart, less than 2.730 Å.'
    assert problem_of_path(path, closest=0.3) is None


def test_hydrogens_have_an_absolute_distance_to_keep():
    images = [Atoms('H2', positions=[[0, 0, 0], [0, 0, length]]) for length in (0.9, 0.5, 0.95)]
    # 0.7 of the covalent radii is 0.43 Å.
    assert problem_of_path(images) == 'image 1 of 0 to 2: H0 and H1 are 0.500 Å apart, less than 0.600 Å.'


def test_the_limit_of_unlike_atoms_is_that_of_their_radii():
    # Half of the absolute limit for H and 0.7 of the radius of N would forbid 0.75 Å; 0.7 of both radii allows it.
    images = [Atoms('NH', positions=[[shift, 0, 0], [shift, 0, 0.75]]) for shift in (0.0, 0.1, 0.2)]
    assert problem_of_path(images) is None


def test_a_broken_bond_is_refused_by_name(path):
    path[2].positions[2:5] += [-1.5, 0.0, 0.0]  # an NH2 leaves
    problem = problem_of_path(path)
    assert problem.startswith('image 2 of 0 to 4: the bond C0–N2 is broken: it is 2.7')
    assert problem_of_path(path, reference_bonds=[]) is None
    assert problem_of_path(path, reference_bonds=[(0, 5)]) is None


def test_named_bonds_have_to_stay(hop):
    start, end = hop
    images = linear(start, end, 3)
    assert problem_of_path(images, reference_bonds=[(1, 22)]) is not None
    assert 'Pb1' in problem_of_path(images, reference_bonds=[(1, 22)])


def test_a_bond_in_one_end_only_is_refused_by_name(boxed):
    end = boxed.copy()
    end.positions[[3, 6]] = end.positions[[6, 3]]  # hydrogens of two nitrogens change places
    problem = problem_of_path(linear(boxed, end, 1))
    assert problem is not None
    assert 'N2–H3 is 1.03 Å in image 0' in problem
    assert 'bonded in one end only' in problem
