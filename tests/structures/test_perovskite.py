"""Perovskites: stoichiometry, symmetry, and the wave vectors of octahedral tilts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aiida_perovmlip.structures.distort import is_too_close, shortest_distance
from aiida_perovmlip.structures.perovskite import (
    GLAZER,
    LATTICE_CONSTANTS,
    cubic,
    lattice_constant_of,
    sites_of,
    tilted,
)

M_POINT, R_POINT = (1, 1, 0), (1, 1, 1)


def halide_pattern(glazer: str, angle: float = 7.0) -> dict[tuple[int, ...], float]:
    """Return the weight of the halides' displacement at each wave vector of a 2x2x2 supercell, in units of π/a."""
    ideal, atoms = (tilted('Cs', 'Pb', 'I', 6.0, (2, 2, 2), glazer, value) for value in (0.0, angle))
    shifts = (atoms.positions - ideal.positions).reshape(2, 2, 2, 5, 3)
    weights = np.abs(np.fft.fftn(shifts, axes=(0, 1, 2))) ** 2
    return {q: float(weights[q].sum()) for q in itertools.product((0, 1), repeat=3) if weights[q].sum() > 1e-20}


def octahedral_angle(atoms) -> float:
    """Return the smallest B–X–B angle in degrees."""
    angles = []
    for halide in np.flatnonzero(atoms.symbols == 'I'):
        vectors = atoms.get_distances(halide, np.flatnonzero(atoms.symbols == 'Pb'), mic=True, vector=True)
        first, second = vectors[np.argsort(np.linalg.norm(vectors, axis=1))[:2]]
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return min(angles)


@pytest.mark.parametrize(
    ('formula', 'expected'),
    [('CsPbI3', ('Cs', 'Pb', 'I')), ('MAPbBr3', ('MA', 'Pb', 'Br')), ('FASnCl3', ('FA', 'Sn', 'Cl'))],
)
def test_a_formula_names_its_sites(formula, expected):
    assert sites_of(formula) == expected


@pytest.mark.parametrize('formula', ['CsPbI', 'PbI2', 'CsPbO3', 'CsXxI3', 'QqPbI3', '', 'Cs2AgBiBr6'])
def test_what_is_no_halide_perovskite_is_refused(formula):
    with pytest.raises(ValueError, match=r'such as CsPbI3|has to be'):
        sites_of(formula)


def test_lattice_constants_grow_from_chlorine_to_iodine_and_from_caesium_to_formamidinium():
    for a_site in ('Cs', 'MA'):
        chloride, bromide, iodide = (lattice_constant_of(f'{a_site}Pb{x}3') for x in ('Cl', 'Br', 'I'))
        assert chloride < bromide < iodide
    assert lattice_constant_of('CsPbI3') < lattice_constant_of('MAPbI3') < lattice_constant_of('FAPbI3')


def test_an_unknown_lattice_constant_says_which_are_known():
    with pytest.raises(ValueError, match=r'RbPbI3.*give it in Å.*CsPbI3'):
        lattice_constant_of('RbPbI3')


@pytest.mark.parametrize('formula', sorted(LATTICE_CONSTANTS))
def test_every_tabulated_perovskite_has_its_stoichiometry_and_no_close_contact(formula):
    sites = sites_of(formula)
    atoms = cubic(*sites, lattice_constant_of(formula), (2, 2, 1), np.random.default_rng(0))
    count = {symbol: atoms.symbols.formula.count().get(symbol, 0) for symbol in (sites.b_site, sites.x_site)}
    assert count == {sites.b_site: 4, sites.x_site: 12}
    assert len(atoms) == 4 * (4 + {'Cs': 1, 'MA': 8, 'FA': 8}[sites.a_site])
    assert not is_too_close(atoms, 0.89)


def test_the_cubic_cell_has_the_distances_of_the_ideal_perovskite():
    atoms = cubic('Cs', 'Pb', 'I', 6.0, (2, 2, 2))
    distances = atoms.get_all_distances(mic=True)
    caesium, lead, iodine = (np.flatnonzero(atoms.symbols == symbol) for symbol in ('Cs', 'Pb', 'I'))
    assert np.sum(np.isclose(distances[np.ix_(lead, iodine)], 3.0), axis=1).tolist() == [6] * 8
    assert np.sum(np.isclose(distances[np.ix_(caesium, iodine)], 6.0 / np.sqrt(2)), axis=1).tolist() == [12] * 8
    assert shortest_distance(atoms) == pytest.approx(3.0)


def test_molecules_are_numbered_and_the_framework_is_not():
    numbers = cubic('MA', 'Pb', 'I', 6.3, (2, 1, 1)).arrays['molecule']
    assert numbers.tolist() == [*[0] * 8, *[-1] * 4, *[1] * 8, *[-1] * 4]
    assert set(cubic('Cs', 'Pb', 'I', 6.3).arrays['molecule']) == {-1}


@pytest.mark.parametrize('name', ['MA', 'FA'])
def test_molecules_sit_on_the_a_site_whatever_their_orientation(name):
    atoms = cubic(name, 'Pb', 'I', 6.4, (2, 2, 2), np.random.default_rng(3))
    for number in range(8):
        members = atoms[atoms.arrays['molecule'] == number]
        corner = atoms.positions[np.flatnonzero(atoms.symbols == 'Pb')[number]]
        assert members.get_center_of_mass() - corner == pytest.approx([3.2] * 3)


def test_orientations_are_random_with_a_generator_and_parallel_without():
    def carbon_to_nitrogen(rng):
        atoms = cubic('MA', 'Pb', 'I', 6.33, (3, 3, 3), rng)
        return atoms.positions[atoms.symbols == 'N'] - atoms.positions[atoms.symbols == 'C']

    assert np.ptp(carbon_to_nitrogen(None), axis=0) == pytest.approx(np.zeros(3), abs=1e-10)
    axes = carbon_to_nitrogen(np.random.default_rng(1))
    assert np.linalg.norm(axes, axis=1) == pytest.approx(np.full(27, 1.49))
    # 27 independent directions add up to about √27 lengths, not to 27.
    assert np.linalg.norm(axes.sum(axis=0)) < 0.5 * 27 * 1.49
    assert np.array_equal(axes, carbon_to_nitrogen(np.random.default_rng(1)))


@pytest.mark.parametrize(
    ('glazer', 'expected'),
    [('a0a0a0', set()), ('a0a0c+', {M_POINT}), ('a0a0c-', {R_POINT}), ('a-a-c+', {M_POINT, R_POINT})],
)
def test_each_tilt_system_has_its_wave_vectors_and_no_other(glazer, expected):
    assert set(halide_pattern(glazer)) == expected


def test_two_antiphase_tilts_weigh_twice_one_in_phase_tilt():
    pattern = halide_pattern('a-a-c+')
    assert pattern[R_POINT] == pytest.approx(2 * pattern[M_POINT])


@pytest.mark.parametrize('glazer', ['a0a0c+', 'a0a0c-'])
def test_a_single_tilt_bends_the_bridges_by_twice_its_angle(glazer):
    atoms = tilted('Cs', 'Pb', 'I', 6.3, (2, 2, 2), glazer, 9.0)
    assert octahedral_angle(atoms) == pytest.approx(180 - 2 * 9.0)


@pytest.mark.parametrize('glazer', GLAZER)
def test_octahedra_turn_without_deforming_to_first_order(glazer):
    angle = 0.1
    atoms = tilted('Cs', 'Pb', 'I', 6.0, (2, 2, 2), glazer, angle)
    distances = atoms.get_all_distances(mic=True)
    bonds = distances[np.ix_(atoms.symbols == 'Pb', atoms.symbols == 'I')]
    halides = distances[np.ix_(atoms.symbols == 'I', atoms.symbols == 'I')]
    tolerance = 20 * np.radians(angle) ** 2
    assert np.sort(bonds, axis=1)[:, :6] == pytest.approx(np.full((8, 6), 3.0), abs=tolerance)
    # Of its eight nearest halides, four in each of two octahedra, none comes nearer to first order.
    assert np.sort(halides, axis=1)[:, 1:9] == pytest.approx(np.full((24, 8), 3 * np.sqrt(2)), abs=tolerance)


def test_only_halides_move_when_octahedra_tilt():
    ideal, atoms = cubic('Cs', 'Pb', 'I', 6.0, (2, 2, 2)), tilted('Cs', 'Pb', 'I', 6.0, (2, 2, 2), 'a-a-c+', 10.0)
    moved = np.linalg.norm(atoms.positions - ideal.positions, axis=1) > 1e-9
    assert np.array_equal(moved, atoms.symbols == 'I')


@pytest.mark.parametrize(('glazer', 'repeat'), [('a0a0c-', (2, 2, 1)), ('a0a0c+', (1, 2, 2)), ('a-a-c+', (2, 3, 2))])
def test_an_odd_supercell_that_cannot_hold_the_tilts_is_refused(glazer, repeat):
    with pytest.raises(ValueError, match='need an even number of cells'):
        tilted('Cs', 'Pb', 'I', 6.0, repeat, glazer, 5.0)


def test_an_in_phase_tilt_needs_one_cell_only_along_its_axis():
    thin = tilted('Cs', 'Pb', 'I', 6.0, (2, 2, 1), 'a0a0c+', 8.0)
    thick = tilted('Cs', 'Pb', 'I', 6.0, (2, 2, 2), 'a0a0c+', 8.0)
    doubled = thin.repeat((1, 1, 2))
    gaps = np.linalg.norm(thick.positions[:, None] - doubled.positions[None], axis=2).min(axis=1)
    assert gaps == pytest.approx(np.zeros(40), abs=1e-10)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (('Zz', 'Pb', 'I', 6.0), 'A site'),
        (('Cs', 'MA', 'I', 6.0), 'B site'),
        (('Cs', 'Pb', 'O', 6.0), 'X site'),
        (('Cs', 'Pb', 'I', -6.0), 'has to be positive'),
        (('Cs', 'Pb', 'I', float('nan')), 'has to be positive'),
        (('Cs', 'Pb', 'I', 6.0, (2, 0, 2)), 'three whole numbers'),
        (('Cs', 'Pb', 'I', 6.0, (2, 2)), 'three whole numbers'),
        (('Cs', 'Pb', 'I', 6.0, (2, 2, 1.5)), 'three whole numbers'),
    ],
)
def test_arguments_that_make_no_crystal_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        cubic(*arguments)


@pytest.mark.parametrize(
    ('glazer', 'angle', 'sentence'), [('a+a+a+', 5.0, 'tilt system'), ('a0a0c+', 50.0, 'less than 45')]
)
def test_tilts_that_are_unknown_or_too_large_are_refused(glazer, angle, sentence):
    with pytest.raises(ValueError, match=sentence):
        tilted('Cs', 'Pb', 'I', 6.0, (2, 2, 2), glazer, angle)
