"""Tilts of crystals whose tilts are known in closed form, in cells of every kind."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from aiida_perovmlip.analysis.tilts import (
    NUMBERS_AT_ONCE,
    TiltSeries,
    angle_of,
    displacements,
    octahedra_of,
    rotations,
    tilt_series,
)
from aiida_perovmlip.structures.perovskite import cubic, tilted

A = 6.3
ANGLE = 8.0
D = A / 2 * np.tan(np.radians(ANGLE))
"""What a tilt moves a halide by."""


def layered(pattern, repeat=(4, 4, 4), axis=2, angle=ANGLE):
    """Return a crystal whose layers across an axis turn by the signs of a pattern."""
    atoms = tilted('Cs', 'Pb', 'I', A, repeat, 'a0a0c+', angle)
    ideal = cubic('Cs', 'Pb', 'I', A, repeat)
    shifts = (atoms.positions - ideal.positions).reshape(*repeat, 5, 3)
    shifts *= np.asarray(pattern, dtype=float)[None, None, :, None, None]
    ideal.positions += shifts.reshape(-1, 3)
    if axis != 2:  # turn the crystal so that its z becomes the axis
        order = [(each - axis + 2) % 3 for each in range(3)]
        ideal.positions = ideal.positions[:, order]
        ideal.set_cell(np.diag(np.asarray(ideal.cell.lengths())[order]))
    return ideal


def strained(atoms, strain=((0.02, 0, 0.01), (0, -0.03, 0), (0, 0.015, 0.01)), turn=(0.3, -0.5, 0.7)):
    """Return positions and cell under a strain that also turns the crystal."""
    deformation = (np.eye(3) + np.asarray(strain)) @ Rotation.from_rotvec(turn).as_matrix()
    return atoms.positions @ deformation, atoms.cell.array @ deformation


def wrapped(positions, cell):
    return (positions @ np.linalg.inv(cell) % 1.0) @ cell


def one_frame(positions, cell, time=0.0):
    return [(np.array([time]), positions[None], cell[None])]


def series_of(atoms, positions=None, cell=None, window=None):
    positions = atoms.positions if positions is None else positions
    cell = atoms.cell.array if cell is None else cell
    octahedra = octahedra_of(atoms.numbers, positions, cell)
    return tilt_series(one_frame(positions, cell), octahedra, window)


# ---------------------------------------------------------------------- frozen tilts


@pytest.mark.parametrize(
    ('glazer', 'm', 'r'),
    [
        ('a0a0a0', (0, 0, 0), (0, 0, 0)),
        ('a0a0c-', (0, 0, 0), (0, 0, 1)),
        ('a0a0c+', (0, 0, 1), (0, 0, 0)),
        ('a-a-c+', (0, 0, 1), (1, 1, 0)),
    ],
)
@pytest.mark.parametrize('a_site', ['Cs', 'MA'])
def test_a_frozen_tilt_is_two_thirds_of_what_its_halides_move_by(glazer, m, r, a_site):
    atoms = tilted(a_site, 'Pb', 'I', A, (2, 4, 2), glazer, ANGLE, np.random.default_rng(0))
    series = series_of(atoms)
    assert np.abs(series.m[0]) == pytest.approx(2 * D / 3 * np.array(m), abs=1e-9)
    assert np.abs(series.r[0]) == pytest.approx(2 * D / 3 * np.array(r), abs=1e-9)
    assert series.local[0] == pytest.approx(2 * D / 3 * (np.array(m) + r), abs=1e-9)


@pytest.mark.parametrize('glazer', ['a0a0a0', 'a0a0c-', 'a0a0c+', 'a-a-c+'])
def test_drift_and_wrapping_change_nothing(glazer):
    atoms = tilted('Cs', 'Pb', 'I', A, (4, 2, 4), glazer, ANGLE)
    positions, cell = strained(atoms)
    known = series_of(atoms, positions, cell)
    moved = wrapped(positions + np.array([7.0, -6.3, 3.1]), cell)
    again = series_of(atoms, moved, cell)
    assert np.abs(again.m) == pytest.approx(np.abs(known.m), abs=1e-9)
    assert np.abs(again.r) == pytest.approx(np.abs(known.r), abs=1e-9)
    assert again.n_away.tolist() == [0]


def test_strain_scales_a_tilt_by_the_sides_that_its_halides_move_along():
    atoms = tilted('Cs', 'Pb', 'I', A, (2, 2, 2), 'a0a0c-', ANGLE)
    positions, cell = strained(atoms, np.diag([0.05, -0.03, 0.1]))
    series = series_of(atoms, positions, cell)
    assert np.abs(series.r[0]) == pytest.approx([0, 0, 2 * D / 3 * 1.01], abs=1e-9)  # the mean of 1.05 and 0.97
    assert series.lengths[0] == pytest.approx(A * np.array([1.05, 0.97, 1.1]))
    assert series.angles[0] == pytest.approx([90, 90, 90])


def test_shear_is_no_tilt():
    atoms = cubic('Cs', 'Pb', 'I', A, (2, 4, 2))
    positions, cell = strained(atoms)
    series = series_of(atoms, positions, cell)
    assert series.local == pytest.approx(0.0, abs=1e-9)
    assert series.angles[0] != pytest.approx([90, 90, 90])


def test_a_rotated_cell_gives_the_same():
    atoms = tilted('Cs', 'Pb', 'I', A, (2, 2, 4), 'a-a-c+', ANGLE)
    positions, cell = strained(atoms, np.zeros((3, 3)))
    known, again = series_of(atoms), series_of(atoms, positions, cell)
    assert again.r == pytest.approx(known.r)
    assert again.m == pytest.approx(known.m)


@pytest.mark.parametrize('repeat', [(2, 2, 2), (4, 4, 4), (2, 4, 6)])
def test_amplitudes_do_not_depend_on_the_size_of_the_cell(repeat):
    series = series_of(tilted('Cs', 'Pb', 'Br', A, repeat, 'a-a-c+', ANGLE))
    assert np.abs(series.r[0]) == pytest.approx([2 * D / 3, 2 * D / 3, 0])
    assert np.abs(series.m[0]) == pytest.approx([0, 0, 2 * D / 3], abs=1e-9)


def test_an_amplitude_is_turned_into_the_angle_of_the_tilt():
    assert angle_of(2 * D / 3, A) == pytest.approx(ANGLE)


def test_amplitudes_are_the_projection_on_eigenvectors_divided_by_the_halides():
    """The formula of the study, with vectors of unit displacement that are written down by hand."""
    atoms = cubic('Cs', 'Pb', 'I', A, (4, 4, 2))
    noise = np.random.default_rng(1).normal(0, 0.2, atoms.positions.shape)
    cells = np.array(list(np.ndindex(4, 4, 2)))
    sign = (-1.0) ** (cells[:, 0] + cells[:, 1])
    vector = np.zeros((32, 5, 3))
    vector[:, 2, 1], vector[:, 3, 0] = sign, -sign  # halides on x move along y, those on y against x
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    series = tilt_series(one_frame(atoms.positions + noise, atoms.cell.array), octahedra)
    n_halides = 3 * 32
    assert series.m[0, 2] == pytest.approx(np.sum(vector.reshape(-1, 3) * noise) / n_halides)
    vector *= ((-1.0) ** cells[:, 2])[:, None, None]
    assert series.r[0, 2] == pytest.approx(np.sum(vector.reshape(-1, 3) * noise) / n_halides)


# ---------------------------------------------------------------------- layers and octahedra


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_layers_that_turn_in_pairs_have_no_global_tilt_but_a_local_one(axis):
    series = series_of(layered([1, 1, -1, -1], axis=axis))
    assert series.m == pytest.approx(0.0, abs=1e-9)
    assert series.r == pytest.approx(0.0, abs=1e-9)
    layers = series.layers[axis][0]
    assert layers * np.sign(layers[0]) == pytest.approx(2 * D / 3 * np.array([1, 1, -1, -1]))
    others = [each for each in range(3) if each != axis]
    assert series.local[0, axis] == pytest.approx(2 * D / 3)
    assert series.local[0, others] == pytest.approx(0.0, abs=1e-9)
    # Every second pair of neighbours is in phase, every second out of phase.
    assert series.local_m[0, axis] == pytest.approx(2 * D / 3 / np.sqrt(2))
    assert series.local_r[0, axis] == pytest.approx(2 * D / 3 / np.sqrt(2))


def test_domains_that_cancel_in_each_layer_are_seen_octahedron_by_octahedron():
    atoms, ideal = tilted('Cs', 'Pb', 'I', A, (8, 4, 4), 'a0a0c+', ANGLE), cubic('Cs', 'Pb', 'I', A, (8, 4, 4))
    shifts = (atoms.positions - ideal.positions).reshape(8, 4, 4, 5, 3)
    shifts[4:] *= -1
    ideal.positions += shifts.reshape(-1, 3)
    series = series_of(ideal)
    assert series.layers[2] == pytest.approx(0.0, abs=1e-9)
    assert series.local[0, 2] > 0.8 * 2 * D / 3
    assert series.local_r[0, 2] == pytest.approx(0.0, abs=1e-9)


def test_squares_of_in_phase_and_out_of_phase_add_up():
    rng = np.random.default_rng(3)
    atoms = cubic('Cs', 'Pb', 'I', A, (4, 4, 4))
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    positions = atoms.positions + rng.normal(0, 0.2, (5, *atoms.positions.shape))
    series = tilt_series([(np.arange(5.0), positions, np.repeat(atoms.cell.array[None], 5, axis=0))], octahedra)
    assert series.local_m**2 + series.local_r**2 == pytest.approx(series.local**2)


def test_the_signed_mean_of_a_flipping_tilt_vanishes_and_the_absolute_one_does_not():
    atoms, ideal = tilted('Cs', 'Pb', 'I', A, (2, 2, 2), 'a0a0c-', ANGLE), cubic('Cs', 'Pb', 'I', A, (2, 2, 2))
    shift = atoms.positions - ideal.positions
    positions = ideal.positions + np.array([1, -1, 1, -1])[:, None, None] * shift
    octahedra = octahedra_of(ideal.numbers, ideal.positions, ideal.cell.array)
    cells = np.repeat(ideal.cell.array[None], 4, axis=0)
    series = tilt_series([(np.arange(4.0), positions, cells)], octahedra, window=4.0)
    assert series.r.mean(axis=0) == pytest.approx(0.0, abs=1e-9)
    assert np.abs(series.r[:, 2]).mean() == pytest.approx(2 * D / 3)
    assert series.frozen == pytest.approx(0.0, abs=1e-9)


# ---------------------------------------------------------------------- what is frozen in a window


def ramp(n_frames, atoms, noise, tilt_from, seed=0):
    """Return a block of noise, on which a tilt is frozen in from a frame on."""
    rng = np.random.default_rng(seed)
    ideal = cubic('Cs', 'Pb', 'I', A, atoms)
    shift = tilted('Cs', 'Pb', 'I', A, atoms, 'a0a0c-', ANGLE).positions - ideal.positions
    frozen = (np.arange(n_frames) >= tilt_from)[:, None, None] * shift
    positions = ideal.positions + frozen + rng.normal(0, noise, (n_frames, *ideal.positions.shape))
    return ideal, (np.arange(n_frames) * 0.1, positions, np.repeat(ideal.cell.array[None], n_frames, axis=0))


def test_noise_is_not_frozen_and_a_tilt_under_it_is():
    ideal, block = ramp(400, (4, 4, 4), 0.3, 200)
    octahedra = octahedra_of(ideal.numbers, ideal.positions, ideal.cell.array)
    series = tilt_series([block], octahedra, window=10.0)
    assert series.edges == pytest.approx([0, 10, 20, 30, 39.9])
    assert np.all(series.frozen[:2] < 0.03)
    assert series.frozen[2:, 2] == pytest.approx(2 * D / 3, abs=0.02)
    assert series.frozen_r[2:, 2] == pytest.approx(2 * D / 3, abs=0.02)
    assert np.all(series.frozen_m[2:, 2] < 0.03)
    # Between the windows, and not within them, the tilt sets in; each is held against its own side.
    alone = tilt_series([tuple(part[:100] for part in block)], octahedra, window=10.0)
    assert np.all(alone.frozen < 0.05)
    assert np.all(series.local.mean(axis=0) > 0.09)  # at one moment noise is as large as a tilt


def test_a_rest_shorter_than_half_a_window_is_no_window():
    ideal, block = ramp(104, (2, 2, 2), 0.1, 0)
    octahedra = octahedra_of(ideal.numbers, ideal.positions, ideal.cell.array)
    assert len(tilt_series([block], octahedra, window=5.0).frozen) == 2
    assert len(tilt_series([block], octahedra, window=7.0).frozen) == 1
    assert len(tilt_series([block], octahedra, window=6.0).frozen) == 2
    assert tilt_series([block], octahedra, window=50.0).edges == pytest.approx([0, 10.3])
    assert tilt_series([block], octahedra).edges == pytest.approx([0, 10.3])


def test_blocks_of_any_length_give_the_same(monkeypatch):
    ideal, (times, positions, cells) = ramp(30, (2, 2, 2), 0.2, 10)
    octahedra = octahedra_of(ideal.numbers, ideal.positions, ideal.cell.array)
    whole = tilt_series([(times, positions, cells)], octahedra, window=1.0)
    monkeypatch.setattr('aiida_perovmlip.analysis.tilts.NUMBERS_AT_ONCE', 9 * 8 * 4)
    parts = [(times[part], positions[part], cells[part]) for part in (slice(0, 7), slice(7, 8), slice(8, 30))]
    pieces = tilt_series(parts, octahedra, window=1.0)
    for name, values in whole.arrays().items():
        assert pieces.arrays()[name] == pytest.approx(values, abs=1e-12), name


def test_blocks_of_halides_alone_give_the_same():
    ideal, (times, positions, cells) = ramp(3, (2, 2, 2), 0.2, 1)
    octahedra = octahedra_of(ideal.numbers, ideal.positions, ideal.cell.array)
    known = tilt_series([(times, positions, cells)], octahedra)
    alone = positions[:, octahedra.halides.ravel()]
    again = tilt_series([(times, alone, cells)], octahedra.of_halides_alone())
    assert again.r == pytest.approx(known.r)


def test_a_series_survives_being_stored_as_arrays():
    ideal, block = ramp(5, (2, 4, 2), 0.2, 1)
    series = tilt_series([block], octahedra_of(ideal.numbers, ideal.positions, ideal.cell.array), 0.2)
    again = TiltSeries.from_arrays(series.arrays(), series.window)
    assert again.repeat == (2, 4, 2)
    for name, values in series.arrays().items():
        assert again.arrays()[name] == pytest.approx(values), name


def test_memory_does_not_grow_with_the_number_of_frames():
    """20 000 halides in blocks of two frames: what is held is a block, whatever the number of them."""
    repeat = (20, 20, 16)
    ideal = cubic('Cs', 'Pb', 'I', A, repeat)
    octahedra = octahedra_of(ideal.numbers, ideal.positions, ideal.cell.array)
    cells = np.repeat(ideal.cell.array[None], 2, axis=0)

    def peak(n_blocks):
        def blocks():
            for number in range(n_blocks):
                yield np.array([2.0 * number, 2.0 * number + 1]), np.repeat(ideal.positions[None], 2, axis=0), cells

        tracemalloc.start()
        tilt_series(blocks(), octahedra, window=5.0)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(3), peak(24)
    assert many < few + 1_000_000
    assert many < 20 * NUMBERS_AT_ONCE * 8


# ---------------------------------------------------------------------- what is refused, and what is told


def test_halides_that_left_their_sites_are_counted():
    atoms = cubic('Cs', 'Pb', 'I', A, (2, 2, 2))
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    atoms.positions[2] += [0.0, 3.0, 0.0]
    assert tilt_series(one_frame(atoms.positions, atoms.cell.array), octahedra).n_away.tolist() == [1]


def test_a_warm_mixed_crystal_finds_its_sites():
    rng = np.random.default_rng(5)
    atoms = tilted('FA', 'Pb', 'I', A, (4, 2, 2), 'a-a-c+', 10.0, rng)
    halides = np.flatnonzero(atoms.numbers == 53)
    atoms.numbers[halides[::3]] = 35
    atoms.positions += rng.normal(0, 0.2, atoms.positions.shape)
    order = rng.permutation(len(atoms))
    shuffled = atoms[order]
    octahedra = octahedra_of(shuffled.numbers, shuffled.positions, shuffled.cell.array)
    known = octahedra_of(atoms.numbers, cubic('FA', 'Pb', 'I', A, (4, 2, 2)).positions, atoms.cell.array)
    places = np.argsort(order)
    assert np.array_equal(octahedra.halides, places[known.halides])


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda atoms: atoms[:-1], '8 metals and 23 halides'),
        (lambda atoms: atoms[[0]], '0 metals and 0 halides'),
    ],
)
def test_what_is_no_whole_perovskite_is_refused(change, sentence):
    atoms = change(cubic('Cs', 'Pb', 'I', A, (2, 2, 2)))
    with pytest.raises(ValueError, match=sentence):
        octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)


def test_an_odd_number_of_cells_is_refused():
    atoms = cubic('Cs', 'Pb', 'I', A, (2, 3, 2))
    with pytest.raises(ValueError, match='2×3×2 cubic cells; M and R need an even number'):
        octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)


def test_a_cell_along_diagonals_is_refused():
    from ase.build import make_supercell

    atoms = make_supercell(cubic('Cs', 'Pb', 'I', A), [[1, 1, 0], [-1, 1, 0], [0, 0, 2]])
    with pytest.raises(ValueError, match='do not form a grid along the vectors of the cell'):
        octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)


def test_two_halides_on_one_site_are_refused():
    atoms = cubic('Cs', 'Pb', 'I', A, (2, 2, 2))
    atoms.positions[2] = atoms.positions[3] + 0.1
    with pytest.raises(ValueError, match='1 halides share their site'):
        octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)


@pytest.mark.parametrize(
    ('blocks', 'window', 'sentence'),
    [
        ([], None, 'has no frame'),
        ([0, 0], None, 'the times do not grow'),
        ([0], -1.0, 'the window is -1.0 ps'),
    ],
)
def test_trajectories_that_are_none_are_refused(blocks, window, sentence):
    atoms = cubic('Cs', 'Pb', 'I', A, (2, 2, 2))
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    given = [one_frame(atoms.positions, atoms.cell.array, time)[0] for time in blocks]
    with pytest.raises(ValueError, match=sentence):
        tilt_series(given, octahedra, window)


def test_blocks_of_too_few_atoms_are_refused():
    atoms = cubic('Cs', 'Pb', 'I', A, (2, 2, 2))
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    with pytest.raises(ValueError, match='the halides go up to atom 39'):
        tilt_series(one_frame(atoms.positions[:20], atoms.cell.array), octahedra)


def test_a_uniform_rotation_of_octahedra_is_neither_m_nor_r():
    """Turning all octahedra alike is no mode of corner-sharing octahedra, but displacements may hold it."""
    atoms = cubic('Cs', 'Pb', 'I', A, (2, 2, 2))
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    moved = displacements(octahedra, atoms.positions[None], atoms.cell.array[None])
    moved[..., 0, 1] += 0.3
    moved[..., 1, 0] -= 0.3
    assert rotations(octahedra, moved) == pytest.approx(0.0, abs=1e-9)
