"""Rigid rotations of molecules: closed forms, senses, matching of hydrogens, and energies on the way."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
from ase.io import write
from scipy.spatial.transform import Rotation

from aiida_perovmlip.structures import rotations
from aiida_perovmlip.structures.bonds import bonds, centre_of_mass, molecules_by_bonds, whole
from aiida_perovmlip.structures.molecules import molecule
from aiida_perovmlip.structures.paths import linear, path_length, problem_of_path, rmsd_between
from aiida_perovmlip.structures.perovskite import cubic
from aiida_perovmlip.structures.rotations import axis_of, between, matched, rotated

FA_AXES = ('normal', 'C-H', 'N-N')


@pytest.fixture(scope='module')
def host():
    """Return cubic FAPbI3 of 96 atoms."""
    return cubic('FA', 'Pb', 'I', 6.36, (2, 2, 2))


@pytest.fixture(scope='module')
def cation(host):
    return molecules_by_bonds(host)[0]


@pytest.fixture
def boxed():
    """Return a function that puts a cation into a periodic box."""

    def make(name: str, middle: float = 6.0):
        atoms = molecule(name)
        atoms.set_cell([12.0, 12.0, 12.0])
        atoms.pbc = True
        atoms.translate([middle, middle, middle])
        atoms.wrap()
        return atoms

    return make


def inner_distances(atoms, members) -> np.ndarray:
    """Return the distances in Å between all atoms of a molecule."""
    positions = whole(atoms, members)
    return np.linalg.norm(positions[:, None] - positions[None], axis=2)


@pytest.mark.parametrize('axis', FA_AXES)
def test_a_rotation_keeps_the_molecule_rigid_its_centre_and_all_else_at_rest(axis, host, cation):
    path = rotated(host, cation, axis, 180, 7)
    assert len(path) == 9
    assert problem_of_path(path) is None
    rest = np.setdiff1d(np.arange(len(host)), cation)
    for image in path:
        assert inner_distances(image, cation) == pytest.approx(inner_distances(host, cation), abs=1e-8)
        assert centre_of_mass(image, cation) == pytest.approx(centre_of_mass(host, cation), abs=1e-10)
        assert np.array_equal(image.positions[rest], host.positions[rest])
    assert path[0].positions == pytest.approx(host.positions, abs=1e-10)


@pytest.mark.parametrize('axis', FA_AXES)
def test_the_straight_path_of_half_a_turn_is_refused_with_image_and_atoms(axis, host, cation):
    ends = rotated(host, cation, axis, 180, 7)
    problem = problem_of_path(linear(ends[0], ends[-1], 7))
    assert problem is not None
    assert re.match(r'image [1-7] of 0 to 8: [CHN]\d and [CHN]\d are \d\.\d+ Å apart', problem)


def test_each_image_is_turned_by_its_share(boxed):
    atoms = boxed('FA')
    path = rotated(atoms, range(8), [0.0, 0.0, 2.0], 80, 3)
    bond = [image.positions[2] - image.positions[0] for image in path]
    angles = np.degrees(np.unwrap([np.arctan2(*vector[[1, 0]]) for vector in bond]))
    assert np.diff(angles) == pytest.approx(20)


def test_the_length_of_a_rotation_is_that_of_its_chords(boxed):
    atoms = boxed('FA')
    distances = np.linalg.norm((atoms.positions - centre_of_mass(atoms, range(8)))[:, :2], axis=1)
    chords = 2 * np.sin(np.radians(180) / 8 / 2) * np.sqrt(np.sum(distances**2))
    assert path_length(rotated(atoms, range(8), 'normal', 180, 7)) == pytest.approx(8 * chords)


def test_half_a_turn_of_fa_about_its_twofold_axis_is_a_symmetry(boxed):
    atoms = boxed('FA')
    end = rotated(atoms, range(8), 'C-H', 180, 3)[-1]
    # Both NH2 change places.
    assert end.positions[[0, 1, 5, 2]] == pytest.approx(atoms.positions[[0, 1, 2, 5]], abs=1e-9)


def test_a_third_of_a_turn_of_ma_about_c_n_is_a_symmetry(boxed):
    atoms = boxed('MA')
    end = rotated(atoms, range(8), 'C-N', 120, 3)[-1]
    assert end.positions[[0, 1]] == pytest.approx(atoms.positions[[0, 1]], abs=1e-9)
    gaps = np.linalg.norm(end.positions[:, None] - atoms.positions[None], axis=2)
    assert gaps.min(axis=1) == pytest.approx(np.zeros(8), abs=1e-9)
    assert gaps.argmin(axis=1).tolist() != list(range(8))


def test_a_molecule_across_the_boundary_turns_as_one_inside(boxed):
    inside, cut = boxed('FA'), boxed('FA', middle=12.0)
    assert np.ptp(cut.positions, axis=0).max() > 6, 'the molecule was not cut, so this tests nothing'
    for one, other in zip(*[rotated(atoms, range(8), 'normal', 90, 3) for atoms in (inside, cut)], strict=True):
        assert inner_distances(other, range(8)) == pytest.approx(inner_distances(one, range(8)), abs=1e-9)
        assert np.ptp(other.positions, axis=0).max() < 6
    assert problem_of_path(rotated(cut, range(8), 'normal', 90, 3)) is None


def test_the_centre_may_be_that_of_geometry(boxed):
    atoms = boxed('FA')
    path = rotated(atoms, range(8), 'normal', 180, 3, centre='geometry')
    assert path[2].positions.mean(axis=0) == pytest.approx(atoms.positions.mean(axis=0))
    assert np.linalg.norm(centre_of_mass(path[-1], range(8)) - centre_of_mass(atoms, range(8))) > 0.02
    with pytest.raises(ValueError, match="'mass' or 'geometry'"):
        rotated(atoms, range(8), 'normal', 180, 3, centre='C')


def test_axes_of_fa_are_a_right_angled_frame(boxed):
    atoms = boxed('FA')
    frame = np.array([axis_of(atoms, range(8), name) for name in FA_AXES])
    assert frame @ frame.T == pytest.approx(np.eye(3), abs=1e-9)
    # As built: planar in xy, the hydrogen of carbon along -y, the nitrogens along x.
    assert np.abs(frame) == pytest.approx(np.eye(3)[[2, 1, 0]], abs=1e-9)
    assert frame[1, 1] == pytest.approx(-1)


def test_axes_turn_with_the_molecule_whatever_the_order_of_its_atoms(boxed):
    atoms = boxed('FA', middle=12.0)
    turn = Rotation.from_rotvec([0.3, -1.1, 0.7])
    other = atoms.copy()
    other.positions = 12.0 + turn.apply(whole(atoms, range(8)) - 12.0)
    other = other[::-1]
    for name in FA_AXES:
        found, expected = axis_of(other, range(8), name), turn.apply(axis_of(atoms, range(8), name))
        assert abs(found @ expected) == pytest.approx(1)
    assert axis_of(other, range(8), 'C-H') == pytest.approx(turn.apply(axis_of(atoms, range(8), 'C-H')))


def test_the_axis_of_ma_goes_from_carbon_to_nitrogen(boxed):
    assert axis_of(boxed('MA'), range(8), 'C-N') == pytest.approx([0, 0, 1])


@pytest.mark.parametrize(('name', 'axis'), [('FA', 'C-N'), ('MA', 'normal'), ('MA', 'z')])
def test_an_axis_that_a_molecule_has_not_is_refused(name, axis, boxed):
    with pytest.raises(ValueError, match=f"no axis named '{axis}'.*normal, C-H, N-N of FA; C-N of MA"):
        axis_of(boxed(name), range(8), axis)


@pytest.mark.parametrize('axis', [[0.0, 0.0, 0.0], [1.0, 0.0], [np.nan, 0.0, 0.0]])
def test_an_axis_that_is_no_direction_is_refused(axis, boxed):
    with pytest.raises(ValueError, match='three numbers that are not all zero'):
        rotated(boxed('FA'), range(8), axis, 90, 3)


@pytest.mark.parametrize('degrees', [0, float('nan'), float('inf')])
def test_no_rotation_is_refused(degrees, boxed):
    with pytest.raises(ValueError, match='finite and not zero'):
        rotated(boxed('FA'), range(8), 'normal', degrees, 3)


@pytest.mark.parametrize('members', [[0], [0, 0, 1], [0, 99], [-1, 0]])
def test_indices_that_are_no_molecule_are_refused(members, boxed):
    with pytest.raises(ValueError, match='the molecule is'):
        rotated(boxed('FA'), members, 'normal', 90, 3)


@pytest.mark.parametrize('axis', FA_AXES)
@pytest.mark.parametrize('degrees', [180, -180])
def test_half_a_turn_between_ends_goes_in_the_sense_of_the_axis_that_is_passed(axis, degrees, host, cation):
    expected = rotated(host, cation, axis, degrees, 7)
    direction = np.sign(degrees) * axis_of(host, cation, axis)
    assert rmsd_between(between(expected[0], expected[-1], cation, 7, direction), expected) < 1e-7
    assert rmsd_between(between(expected[0], expected[-1], cation, 7, -direction), expected) > 0.1


@pytest.mark.parametrize('degrees', [170, 190])
def test_ends_that_miss_half_a_turn_go_in_the_sense_of_the_axis_as_well(degrees, host, cation):
    expected = rotated(host, cation, 'normal', degrees, 7)
    assert rmsd_between(between(expected[0], expected[-1], cation, 7, 'normal'), expected) < 1e-7


@pytest.mark.parametrize('axis', [None, 'normal'])
def test_less_than_half_a_turn_goes_the_shorter_way(axis, host, cation):
    for degrees in (120, -120, 15):
        expected = rotated(host, cation, 'normal', degrees, 5)
        assert rmsd_between(between(expected[0], expected[-1], cation, 5, axis), expected) < 1e-7


def test_an_axis_does_not_matter_where_the_molecule_hardly_turns(host, cation):
    # Relaxed ends of a shift turn by a few degrees about any axis.
    expected = rotated(host, cation, 'normal', 10, 3)
    assert rmsd_between(between(expected[0], expected[-1], cation, 3, 'C-H'), expected) < 1e-7


def test_half_a_turn_without_an_axis_is_refused(host, cation):
    for degrees in (165, 180, 195):
        ends = rotated(host, cation, 'N-N', degrees, 1)
        with pytest.raises(ValueError, match=r'where both senses are as short: pass the axis'):
            between(ends[0], ends[-1], cation, 7)


def test_another_axis_than_the_one_turned_about_is_refused(host, cation):
    ends = rotated(host, cation, 'normal', 180, 1)
    with pytest.raises(ValueError, match=r'turns by 180\.0° about .* but the axis passed is'):
        between(ends[0], ends[-1], cation, 7, 'C-H')


def test_the_shape_and_all_around_change_in_even_steps(host, cation):
    start = host.copy()
    end = rotated(host, cation, 'C-H', 90, 1)[-1]
    end.rattle(0.03, seed=8)
    end.wrap()
    path = between(start, end, cation, 3)
    assert problem_of_path(path) is None
    rest = np.setdiff1d(np.arange(len(host)), cation)
    steps = np.diff([image.positions[rest] for image in path], axis=0)
    assert steps == pytest.approx(np.broadcast_to(steps[0], steps.shape))
    lengths = np.array([inner_distances(image, cation)[tuple(bonds(host)[:7].T)] for image in path])
    straight = lengths[0] + np.linspace(0, 1, 5)[:, None] * (lengths[-1] - lengths[0])
    assert np.abs(lengths[-1] - lengths[0]).max() > 0.03
    assert lengths == pytest.approx(straight, abs=5e-3)
    gaps = path[-1].positions - end.positions
    assert gaps @ np.linalg.inv(host.cell) == pytest.approx(np.round(gaps @ np.linalg.inv(host.cell)), abs=1e-9)


def test_hydrogens_that_changed_places_are_matched_before_the_molecule_turns(boxed):
    atoms = boxed('MA')
    expected = rotated(atoms, range(8), [1.0, 0.0, 0.0], 70, 3)
    end = expected[-1].copy()
    shuffled = [0, 1, 3, 2, 4, 6, 5, 7]  # two hydrogens of C, and two of N, change places
    end.positions = end.positions[shuffled]
    assert matched(atoms, end, range(8)).tolist() == shuffled
    path = between(atoms, end, range(8), 3)
    assert problem_of_path(path) is None
    assert rmsd_between(path, expected) < 1e-6


def test_the_order_that_is_given_is_kept_where_it_fits(boxed):
    # After a third of a turn, another order of the hydrogens would fit without any turn.
    for seed in range(5):
        start = boxed('MA')
        start.rattle(0.02, seed=seed)
        expected = rotated(start, range(8), 'C-N', 120, 3)
        end = expected[-1].copy()
        end.rattle(0.02, seed=seed + 10)
        assert matched(start, end, range(8)).tolist() == list(range(8))
        assert rmsd_between(between(start, end, range(8), 3)[:-1], expected[:-1]) < 0.05


def test_a_turn_into_the_same_structure_under_other_names_of_hydrogens_is_a_turn(boxed):
    # As in a crystal, whose field fixes the shape: both ends look the same, and the order tells that MA has turned.
    start = boxed('MA')
    start.rattle(0.02, seed=6)
    end = start.copy()
    end.positions = start.positions[[0, 1, 3, 4, 2, 6, 7, 5]]
    assert matched(start, end, range(8)).tolist() == list(range(8))
    moved = np.linalg.norm(between(start, end, range(8), 1)[1].positions - start.positions, axis=1)
    assert moved[2:].min() > 0.7
    assert moved[:2].max() < 0.05


def test_hydrogens_of_other_atoms_are_told_apart_by_their_bonds(boxed):
    atoms = boxed('FA')
    end = atoms.copy()
    end.translate([0.5, 0.0, 0.0])
    end.positions = end.positions[[0, 3, 2, 4, 6, 5, 7, 1]]  # the hydrogens in a circle, over C and both N
    assert problem_of_path(between(atoms, end, range(8), 1)) is None
    assert rmsd_between(between(atoms, end, range(8), 1), linear(atoms, _moved(atoms), 1)) < 1e-6


def _moved(atoms):
    """Return a copy that is moved by half an ångström."""
    copy = atoms.copy()
    copy.translate([0.5, 0.0, 0.0])
    return copy


def test_a_proton_that_changed_its_atom_is_refused_by_name(boxed):
    atoms = boxed('FA')
    end = atoms.copy()
    end.positions[3] = end.positions[0] + 1.1 * np.array([0.0, 0.0, 1.0])  # from N2 to C0
    with pytest.raises(ValueError, match='C0 has 1 hydrogens in one end and 2 in the other'):
        between(atoms, end, range(8), 3)


def test_too_many_orders_of_hydrogens_are_refused(boxed, monkeypatch):
    monkeypatch.setattr(rotations, 'MAX_ORDERS', 35)
    with pytest.raises(ValueError, match='matched in 36 ways, more than 35'):
        matched(boxed('MA'), boxed('MA'), range(8))


EVALUATE = """
import json, sys
from ase.io import read
from calorine.calculators import CPUNEP
images = read(sys.argv[1], ':')
atoms = images[0].copy()
atoms.calc = CPUNEP(sys.argv[2])
energies = []
for image in images:
    atoms.positions = image.positions
    energies.append(float(atoms.get_potential_energy()))
print(json.dumps(energies))
"""


def test_initial_paths_of_rigid_rotations_are_low_in_energy(host, cation, shared_data, tmp_path):
    from aiida_perovmlip.installation import environments

    python = environments.python_of('nep')
    potential = shared_data / 'nep89' / 'nep89_HCNIPbCs.txt'
    if python is None or not potential.is_file():
        pytest.skip('this needs the environment of nep and the potential NEP89.')
    images = [image for axis in FA_AXES for image in rotated(host, cation, axis, 180, 7)]
    write(tmp_path / 'paths.xyz', images, format='extxyz')
    command = [str(python), '-c', EVALUATE, str(tmp_path / 'paths.xyz'), str(potential)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    energies = np.reshape(json.loads(finished.stdout.splitlines()[-1]), (3, 9))
    assert np.ptp(energies, axis=1).max() < 0.5  # in eV; straight paths reach 10⁴ eV and more
    assert energies[1, -1] == pytest.approx(energies[1, 0], abs=1e-4)  # half a turn about C–H is a symmetry of FA
