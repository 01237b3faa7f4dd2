"""Frames that repeat earlier ones."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from ase.geometry import get_distances
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from aiida_perovmlip.analysis import duplicates
from aiida_perovmlip.analysis.duplicates import DuplicateFinder, structure_vector

TOLERANCE = 0.005


def perovskite(
    repeat: int = 2, length: float = 6.25, symbols: str = 'CsPbI3', rattle: float = 0.1, seed: int = 0
) -> Atoms:
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    atoms = Atoms(symbols, scaled_positions=sites, cell=length * np.eye(3), pbc=True).repeat(repeat)
    atoms.positions += np.random.default_rng(seed).normal(0, rattle, (len(atoms), 3))
    return atoms


def vector(atoms: Atoms, **options: Any) -> np.ndarray:
    return structure_vector(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, **options)


def kept(frames: list[Atoms], scratch: Path, tolerance: float = TOLERANCE) -> list[bool]:
    finder = DuplicateFinder(tolerance, scratch)
    for atoms in frames:
        finder.add(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    return finder.keep().tolist()


def disguised(atoms: Atoms, seed: int) -> Atoms:
    """Return the same structure: renumbered, rotated, mirrored, moved, and with every atom in another image."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    same = atoms[rng.permutation(len(atoms))]
    same.positions += rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc @ atoms.cell.array
    same.positions = (same.positions + rng.normal(0, 5, 3)) @ turn
    same.set_cell(atoms.cell.array @ turn)
    return same


def slab() -> Atoms:
    atoms = perovskite(2)
    atoms.pbc = (True, True, False)
    atoms.cell[2] = 0.0
    return atoms


CASES = {
    'bulk': perovskite(2),
    'small cell': perovskite(1),
    'skewed': make_supercell(perovskite(1), [[1, 0, 0], [1, 1, 0], [2, 1, 1]]),
    'primitive': bulk('CsCl', 'cesiumchloride', a=4.1),
    'slab': slab(),
    'molecule': molecule('CH3CH2NH2'),
    'atom': Atoms('Pb'),
}


@pytest.mark.parametrize('case', CASES)
@settings(max_examples=15, derandomize=True, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_disguised_copy_has_the_same_vector(case: str, seed: int) -> None:
    np.testing.assert_allclose(vector(disguised(CASES[case], seed)), vector(CASES[case]), atol=1e-9)


@pytest.mark.parametrize('case', CASES)
def test_distances_are_those_of_a_cluster_large_enough(case: str) -> None:
    atoms, cutoff, k = CASES[case], 5.0, 4
    shifts = [np.arange(-6, 7) if periodic else np.zeros(1) for periodic in atoms.pbc]
    grid = np.stack(np.meshgrid(*shifts, indexing='ij'), -1).reshape(-1, 3) @ atoms.cell.array
    expected = []
    elements = sorted(set(atoms.numbers))
    for one in elements:
        columns = []
        for other in elements:
            cluster = (atoms.positions[atoms.numbers == other][:, None] + grid).reshape(-1, 3)
            _, distances = get_distances(atoms.positions[atoms.numbers == one], cluster)
            rows = [[*sorted(row[row > 1e-9])[:k], *[cutoff] * k][:k] for row in distances]
            columns.append(np.sort(np.minimum(rows, cutoff), axis=0))
        expected.append(np.concatenate(columns, axis=1).ravel())
    np.testing.assert_allclose(vector(atoms, cutoff=cutoff, neighbours=k), np.concatenate(expected), atol=1e-9)


def test_splitting_the_work_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = vector(CASES['bulk'])
    monkeypatch.setattr(duplicates, 'PAIRS_AT_ONCE', 100)
    np.testing.assert_array_equal(vector(CASES['bulk']), expected)


def test_copies_are_found_and_the_first_of_them_is_kept(tmp_path: Path) -> None:
    one, other = perovskite(seed=1), perovskite(seed=2)
    frames = [one, other, disguised(one, 3), disguised(other, 4), one, perovskite(seed=5)]
    assert kept(frames, tmp_path) == [True, True, False, False, False, True]
    assert kept(frames[::-1], tmp_path) == [True, True, True, False, False, False]


@pytest.mark.parametrize('case', ['bulk', 'skewed', 'slab', 'molecule'])
def test_a_shift_of_half_the_tolerance_per_atom_makes_no_new_frame(case: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    moved = CASES[case].copy()
    steps = rng.normal(size=(len(moved), 3))
    moved.positions += 0.5 * TOLERANCE * steps / np.linalg.norm(steps, axis=1)[:, None]
    assert kept([CASES[case], moved], tmp_path) == [True, False]


def test_independent_rattles_of_one_structure_are_kept(tmp_path: Path) -> None:
    assert all(kept([perovskite(rattle=0.05, seed=seed) for seed in range(100)], tmp_path))


def test_snapshots_of_a_large_cell_are_kept_though_their_sorted_distances_agree(tmp_path: Path) -> None:
    frames = [perovskite(5, rattle=0.015, seed=seed) for seed in range(3)]
    one, other = map(vector, frames[:2])
    assert np.sqrt(np.mean((one - other) ** 2)) < 0.6 * TOLERANCE
    again = disguised(frames[1], 7)
    again.positions += np.random.default_rng(3).uniform(-1, 1, again.positions.shape) * TOLERANCE / 4
    assert kept([*frames, again], tmp_path) == [True, True, True, False]


def test_the_difference_of_vectors_is_a_lower_bound() -> None:
    base = perovskite(2, seed=9)
    for seed in range(20):
        other = base.copy()
        other.positions += np.random.default_rng(seed).normal(0, 0.02, other.positions.shape)
        bound = np.sqrt(np.mean((vector(base) - vector(other)) ** 2))
        assert 0 < bound <= mismatch(base, other) * (1 + 1e-12)


def test_what_differs_in_more_than_positions_is_kept(tmp_path: Path) -> None:
    atoms = perovskite(1)
    doped = atoms.copy()
    doped.symbols[4] = 'Br'
    strained = atoms.copy()
    strained.set_cell(1.005 * atoms.cell.array, scale_atoms=True)
    sheet = atoms.copy()
    sheet.pbc = (True, True, False)
    assert all(kept([atoms, doped, strained, sheet, atoms.repeat((2, 1, 1))], tmp_path))


def test_a_box_around_a_molecule_counts_where_it_is_periodic(tmp_path: Path) -> None:
    boxes = [molecule('CH4', cell=[length] * 3, pbc=pbc) for pbc in (True, False) for length in (20, 25)]
    assert kept(boxes, tmp_path) == [True, True, True, False]


def test_a_layer_is_no_molecule_even_where_its_images_are_out_of_sight(tmp_path: Path) -> None:
    assert all(kept([molecule('CH4', cell=[20] * 3, pbc=pbc) for pbc in ((True, True, False), False)], tmp_path))


def test_arrangements_of_a_mixed_crystal_on_ideal_sites_are_told_apart(tmp_path: Path) -> None:
    base = perovskite(2, rattle=0)
    halides = np.flatnonzero(base.numbers == 53)
    frames = []
    for chosen in ([0, 1, 2], [0, 3, 6], [0, 1, 6]):
        atoms = base.copy()
        atoms.symbols[halides[chosen]] = 'Br'
        frames.append(atoms)
    assert all(kept(frames, tmp_path))
    turned = frames[0].copy()
    turned.positions = turned.positions[:, [1, 2, 0]]
    assert kept([frames[0], turned], tmp_path) == [True, False]


def test_kinds_are_never_merged(tmp_path: Path) -> None:
    atoms = perovskite(1)
    finder = DuplicateFinder(TOLERANCE, tmp_path)
    for charge in (0, 1, 0):
        finder.add(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, kind=(charge, 1))
    assert finder.keep().tolist() == [True, True, False]


def mismatch(one: Atoms, other: Atoms) -> float:
    """Return the root mean square difference of the distances to neighbours, with atoms paired in the best way."""
    tables = [duplicates._surroundings(a.numbers, a.positions, a.cell.array, a.pbc) for a in (one, other)]
    total, (first, counts), (second, _) = 0.0, *tables
    for a, b in zip(np.split(first, np.cumsum(counts)), np.split(second, np.cumsum(counts)), strict=True):
        cost = ((a[:, None] - b[None]) ** 2).sum(-1)
        total += cost[linear_sum_assignment(cost)].sum()
    return float(np.sqrt(total / first.size))


def chain_mask(frames: list[Atoms], tolerance: float) -> list[bool]:
    """Return what a comparison of every frame with every kept one before gives."""
    mask: list[bool] = []
    for index, one in enumerate(frames):
        mask.append(all(mismatch(one, frames[other]) > tolerance for other in range(index) if mask[other]))
    return mask


@pytest.mark.parametrize('tolerance', [0.005, 0.02, 0.04, 0.06])
def test_the_search_misses_no_pair(tolerance: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frames = [perovskite(rattle=0.1, seed=0)]
    for _ in range(120):  # a walk, in which each frame is close to some before it
        atoms = frames[rng.integers(len(frames))].copy()
        atoms.positions += rng.normal(0, rng.choice([0.005, 0.02, 0.05]), (len(atoms), 3))
        frames.append(atoms)
    mask = kept(frames, tmp_path, tolerance)
    assert mask == chain_mask(frames, tolerance)
    assert 0 < sum(mask) < len(mask)


def test_results_do_not_depend_on_what_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [disguised(perovskite(1 + seed % 2, seed=seed % 7), seed) for seed in range(40)]
    expected = kept(frames, tmp_path)
    monkeypatch.setattr(duplicates, 'BYTES_AT_ONCE', 3000)
    (tmp_path / 'other').mkdir()
    assert kept(frames, tmp_path / 'other') == expected
    assert sum(expected) == 14


def test_nothing_and_one_frame_are_no_special_cases(tmp_path: Path) -> None:
    assert kept([], tmp_path) == []
    assert kept([Atoms('H')], tmp_path) == [True]
    assert kept([Atoms('H'), Atoms('H'), Atoms('H')], tmp_path) == [True, False, False]


@pytest.mark.parametrize('tolerance', [0.0, -1.0, 1e-9, float('nan'), float('inf')])
def test_a_tolerance_without_meaning_is_refused(tolerance: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='the tolerance is'):
        DuplicateFinder(tolerance, tmp_path)


def test_a_flat_cell_is_refused() -> None:
    with pytest.raises(ValueError, match=r'the cell is only 0\.01 Å high'):
        structure_vector(np.array([1]), np.zeros((1, 3)), np.diag([0.01, 0.02, 5.0]), np.ones(3, bool))


def test_two_thousand_atoms_need_little_memory() -> None:
    atoms = perovskite(8)[:2000]
    tracemalloc.start()
    vector(atoms)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


def test_twenty_thousand_frames_are_compared_in_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = perovskite(2, rattle=0)
    finder = DuplicateFinder(TOLERANCE, tmp_path)
    start = time.perf_counter()
    for index in range(20_000):
        positions = base.positions + np.random.default_rng(index % 15_000).normal(0, 0.15, base.positions.shape)
        finder.add(base.numbers, positions + rng.normal(0, 5, 3), base.cell.array, base.pbc)
    added = time.perf_counter()
    mask = finder.keep()
    seconds = time.perf_counter() - added
    print(f'\nvectors {added - start:.1f} s, comparisons {seconds:.1f} s')
    assert mask.tolist() == [True] * 15_000 + [False] * 5_000
    assert seconds < 30


def test_many_equal_frames_are_compared_in_seconds(tmp_path: Path) -> None:
    finder = DuplicateFinder(TOLERANCE, tmp_path)
    atoms = perovskite(1)
    for _ in range(5_000):
        finder.add(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    start = time.perf_counter()
    assert finder.keep().sum() == 1
    assert time.perf_counter() - start < 10
