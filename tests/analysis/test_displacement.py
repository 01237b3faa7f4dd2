"""Displacements of walks whose mean squares are known in closed form."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from aiida_perovmlip.analysis.displacement import (
    Particles,
    WrappedError,
    average_of_elements,
    collective_msd,
    displacements,
    sum_msd,
    survey,
    tracer_msd,
    unwrapped,
)

SIDE = 100.0


def blocks(positions, cells=None, interval=0.5, size=77):
    """Return a trajectory as blocks of unequal size."""
    n_frames = len(positions)
    cells = np.tile(SIDE * np.eye(3), (n_frames, 1, 1)) if cells is None else cells
    times = interval * np.arange(n_frames)
    return [tuple(each[at : at + size] for each in (times, positions, cells)) for at in range(0, n_frames, size)]


def walk(n_frames=2000, n=50, step=0.1, seed=0):
    """Return a random walk (n_frames, n, 3) in Å, each component of a step of which has the width `step`."""
    return np.cumsum(np.random.default_rng(seed).normal(0, step, (n_frames, n, 3)), axis=0)


def all_of(positions):
    return Particles.of_atoms(np.arange(positions.shape[1]))


def by_hand(positions, lag):
    """Return Σᵢ|Δrᵢ|² and |ΣᵢΔrᵢ|² in Å² at a lag, averaged over all moments."""
    moved = positions[lag:] - positions[:-lag]
    return (moved**2).sum((1, 2)).mean(), (moved.sum(1) ** 2).sum(1).mean()


def test_transforms_give_the_mean_over_all_moments():
    positions = walk(300, 7)
    found = displacements(blocks(positions), all_of(positions))
    for lag in (1, 2, 17, 149):
        total, lone = by_hand(positions, lag)
        assert found.sum.values[lag] == pytest.approx(total, rel=1e-5)
        assert found.collective.values[lag] == pytest.approx(lone, rel=1e-5)
        assert found.tracer.values[lag] == pytest.approx(total / 7, rel=1e-5)
        assert found.sum.lags[lag] == pytest.approx(0.5 * lag)
    assert found.sum.values[0] == 0.0


def test_parts_are_those_of_shorter_runs():
    positions = walk(403, 5)
    found = displacements(blocks(positions), all_of(positions), n_parts=4).sum
    assert found.parts.shape == (4, 51)
    for part in range(4):
        assert found.parts[part, 9] == pytest.approx(by_hand(positions[100 * part : 100 * part + 100], 9)[0], rel=1e-5)


def test_a_random_walk_spreads_as_its_steps_say():
    positions = walk(4000, 200)
    values = tracer_msd(blocks(positions), all_of(positions)).values
    assert values[100] == pytest.approx(3 * 0.1**2 * 100, rel=0.02)


def test_a_sum_of_independent_walkers_is_as_large_as_their_collective_displacement():
    positions = walk(20000, 10, seed=1)
    found = displacements(blocks(positions, size=5000), all_of(positions))
    assert found.collective.values[20] == pytest.approx(found.sum.values[20], rel=0.08)


def test_memory_changes_nothing_but_how_often_the_trajectory_is_read():
    positions, read = walk(200, 30), []

    def opened():
        read.append(1)
        return blocks(positions)

    whole = displacements(opened, all_of(positions))
    assert len(read) == 2
    read.clear()
    pieces = displacements(opened, all_of(positions), most_bytes=200 * 12 * 4)
    assert len(read) == 1 + 8
    assert pieces.sum.values == pytest.approx(whole.sum.values, rel=1e-9)
    assert pieces.collective.values == pytest.approx(whole.collective.values, rel=1e-9)


def test_memory_does_not_grow_with_the_number_of_atoms():
    n_frames = 2000

    def peak(n_atoms):
        def opened():
            for first in range(0, n_frames, 20):
                positions = np.ones((20, n_atoms, 3), dtype=np.float32)
                yield 0.1 * np.arange(first, first + 20), positions, np.tile(SIDE * np.eye(3), (20, 1, 1))

        tracemalloc.start()
        displacements(opened, Particles.of_atoms(np.arange(n_atoms)), most_bytes=4_000_000)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(400), peak(1600)
    assert many < 1.2 * few
    assert many < 1600 * n_frames * 3 * 8


def test_drift_of_the_host_is_no_diffusion():
    n_frames, drift = 1000, np.array([0.02, 0.0, -0.01])
    still = np.random.default_rng(0).normal(0, 0.05, (n_frames, 60, 3))
    positions = still + drift * np.arange(n_frames)[:, None, None]
    species, host = Particles.of_atoms(np.arange(40)), np.arange(40, 60)
    faked = sum_msd(blocks(positions), species).values
    assert faked[400] == pytest.approx(40 * (drift @ drift) * 400**2, rel=0.01)
    found = sum_msd(blocks(positions), species, host)
    assert found.values[400] == pytest.approx(40 * 6 * 0.05**2, rel=0.1)
    assert (found.n_host, displacements(blocks(positions), species).sum.n_host) == (20, 0)


def test_the_collective_displacement_lives_in_the_frame_of_the_host():
    """In a run at rest as a whole the host goes backward: what the ions carry shows only against the host."""
    ions, n = walk(500, 1), 4
    host = np.repeat(-ions / n, n, axis=1)  # equal masses, one ion, n atoms of the host
    positions = np.concatenate([ions, host], axis=1)
    found = collective_msd(blocks(positions), Particles.of_atoms([0]), np.arange(1, n + 1))
    assert found.values[50] == pytest.approx((1 + 1 / n) ** 2 * by_hand(ions, 50)[1], rel=1e-4)


def test_a_cell_that_breathes_moves_nothing():
    n_frames = 400
    places = np.random.default_rng(0).uniform(0, 1, (30, 3))
    sides = SIDE * (1 + 0.05 * np.sin(0.1 * np.arange(n_frames)))
    cells = sides[:, None, None] * np.array([[1, 0, 0], [0.1, 1, 0], [0, 0.2, 1]])
    found = sum_msd(blocks(places @ cells, cells), Particles.of_atoms(np.arange(30)))
    assert np.abs(found.values).max() < 1e-6
    assert not found.is_cell_fixed


def test_in_a_cell_that_breathes_a_walk_spreads_as_in_the_mean_cell():
    n_frames = 1000
    fractions = walk(n_frames, 20, step=1e-3)
    sides = SIDE * (1 + 0.02 * np.sin(0.37 * np.arange(n_frames)))
    cells = sides[:, None, None] * np.eye(3)
    found = sum_msd(blocks(fractions @ cells, cells), Particles.of_atoms(np.arange(20)))
    assert found.values[40] == pytest.approx(by_hand(fractions * sides.mean(), 40)[0], rel=1e-4)


def test_a_molecule_that_only_turns_goes_nowhere():
    n_frames = 400
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, n_frames)
    around = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    positions = np.stack([around, -around / 3], axis=1)
    molecules = Particles.of_molecules([[0, 1]], np.array([1.0, 3.0]))
    assert np.abs(sum_msd(blocks(positions), molecules).values).max() < 1e-6
    assert sum_msd(blocks(positions), Particles.of_atoms([0])).values[100] > 1.0


def test_molecules_of_different_sizes_are_followed_by_their_centres():
    positions = walk(200, 6)
    masses = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    molecules = Particles.of_molecules([[4, 0], [1, 2, 5]], masses)
    centres = np.stack(
        [
            np.average(positions[:, [4, 0]], axis=1, weights=masses[[4, 0]]),
            np.average(positions[:, [1, 2, 5]], axis=1, weights=masses[[1, 2, 5]]),
        ],
        axis=1,
    )
    assert molecules.centres(positions) == pytest.approx(centres)
    assert molecules[1:2].centres(positions) == pytest.approx(centres[:, 1:])
    assert sum_msd(blocks(positions), molecules).values[20] == pytest.approx(by_hand(centres, 20)[0], rel=1e-5)


def test_elements_of_a_molecule_tell_its_motion_by_one_convention_and_more_by_the_other():
    n_molecules, centres = 5, walk(600, 5)
    rigid = {name: np.repeat(centres, count, axis=1) for name, count in {'C': 1, 'N': 1, 'H': 6}.items()}
    msds = {name: sum_msd(blocks(positions), all_of(positions)) for name, positions in rigid.items()}
    centre = sum_msd(blocks(centres), all_of(centres)).values
    counts = {'C': 1, 'N': 1, 'H': 6}
    molecule = average_of_elements(msds, counts, 'molecule')
    assert molecule.values == pytest.approx(centre)
    assert molecule.n_particles == n_molecules
    assert average_of_elements(msds, counts, 'literal').values == pytest.approx(8 / 3 * centre)


def test_elements_of_other_molecules_have_no_average():
    few, many = walk(100, 2), walk(100, 5)
    msds = {'C': sum_msd(blocks(few), all_of(few)), 'N': sum_msd(blocks(many), all_of(many))}
    with pytest.raises(ValueError, match=r'make \[2, 5\] molecules'):
        average_of_elements(msds, {'C': 1, 'N': 1}, 'molecule')
    with pytest.raises(ValueError, match='sums over the atoms'):
        average_of_elements({'C': tracer_msd(blocks(few), all_of(few))}, {'C': 1}, 'molecule')
    short = walk(60, 2)
    with pytest.raises(ValueError, match='same time'):
        average_of_elements({'C': msds['C'], 'N': sum_msd(blocks(short), all_of(short))}, {'C': 1, 'N': 1}, 'molecule')


def test_wrapped_positions_are_refused_and_mended():
    positions = walk(3000, 20, step=1.0) + SIDE / 2
    wrapped = blocks(positions % SIDE)
    with pytest.raises(WrappedError, match=r'goes 0\.9\d of a cell vector .* are wrapped'):
        sum_msd(wrapped, all_of(positions))
    found = sum_msd(unwrapped(wrapped), all_of(positions)).values
    assert found == pytest.approx(sum_msd(blocks(positions), all_of(positions)).values, rel=1e-4)


def test_an_atom_that_jumps_between_two_blocks_is_seen():
    positions = np.zeros((60, 1, 3))
    positions[20:] = 0.6 * SIDE
    with pytest.raises(WrappedError, match=r'atom 0 goes 0\.60'):
        survey(blocks(positions, size=20))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (iter, 'only once'),
        (lambda b: b[:0], '0 frames'),
        (lambda b: [tuple(each[:9] for each in b[0])], '9 frames'),
        (lambda b: [b[0], *b[2:]], 'evenly spaced'),
        (lambda b: [(t, p[:, :, :2], c) for t, p, c in b], r'\(F, N, 3\)'),
        (lambda b: [(t, p, 0 * c) for t, p, c in b], 'no cell'),
        (lambda b: [(t, p * np.nan, c) for t, p, c in b], 'not finite'),
        (lambda b: [(t, p[:, :3], c) for t, p, c in b], 'has 3 atoms'),
    ],
)
def test_what_cannot_be_followed_is_refused(change, words):
    positions = walk(300, 5)
    with pytest.raises(ValueError, match=words):
        sum_msd(change(blocks(positions)), all_of(positions))


def test_a_trajectory_that_changes_while_it_is_read_is_refused():
    positions, read = walk(300, 5), []

    def opened():
        read.append(1)
        return blocks(positions[: 300 - 50 * (len(read) > 1)])

    with pytest.raises(ValueError, match='300 frames when it was first read'):
        sum_msd(opened, all_of(positions))


def test_particles_that_are_none_are_refused():
    with pytest.raises(ValueError, match='no atoms'):
        Particles.of_atoms([])
    with pytest.raises(ValueError, match='named twice'):
        Particles.of_molecules([[0, 1], [1, 2]], np.ones(3))
    with pytest.raises(ValueError, match='no atom'):
        Particles.of_molecules([[0, 1], []], np.ones(3))
