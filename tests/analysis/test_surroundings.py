"""Atoms near point defects that are put into a perovskite by hand."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.metrics import ErrorSum
from aiida_perovmlip.analysis.surroundings import centres_of, neighbour_counts, surroundings_of

A = 6.3
N = 3


def crystal(swing=0.0, n=N, seed=0):
    """Return positions of metals, cations and halides of n³ cells in Å, and the cell."""
    corners = A * np.array([(i, j, k) for i in range(n) for j in range(n) for k in range(n)], dtype=float)
    halves = A * 0.5 * np.eye(3)
    halides = (corners[:, None] + halves[None]).reshape(-1, 3)
    rng = np.random.default_rng(seed)
    shaken = [each + rng.normal(0, swing, each.shape) for each in (corners, corners + 0.5 * A, halides)]
    return (*shaken, n * A * np.eye(3))


def looked_at(metals, cations, halides, cell, sublattice, **how):
    positions = np.concatenate([metals, cations, halides])
    centres = cations if sublattice == 'A' else halides
    return surroundings_of(positions, cell, np.arange(len(metals)), centres, sublattice, **how)


@pytest.mark.parametrize('sublattice', ['A', 'X'])
@pytest.mark.parametrize('n', [2, 3])
def test_a_whole_crystal_has_no_defect_however_it_vibrates(sublattice, n):
    for seed in range(5):
        found = looked_at(*crystal(0.25, n, seed), sublattice)
        assert found.deviations() == {}
        assert not found.atoms.any()
        assert set(found.counts) == {8 if sublattice == 'A' else 6}


def test_a_vacancy_of_a_cation_is_marked_by_eight_metals_with_seven():
    metals, cations, halides, cell = crystal(0.2)
    found = looked_at(metals, cations[1:], halides, cell, 'A')
    assert found.deviations() == {-1: 8}
    away = np.linalg.norm(metals[found.metals] - cations[0], axis=1)
    assert len(found.metals) == 8
    assert (np.sort(away)[0], found.expected) == (pytest.approx(np.sqrt(0.75) * A, abs=1.5), 8)


def test_an_interstitial_of_a_cation_is_marked_by_eight_metals_with_nine():
    metals, cations, halides, cell = crystal(0.1)
    extra = np.concatenate([cations, cations[:1] + np.array([0.8, 0.8, 0.0])])
    assert looked_at(metals, extra, halides, cell, 'A').deviations() == {1: 8}


def test_a_vacancy_of_a_halide_is_marked_by_the_two_metals_beside_it():
    metals, cations, halides, cell = crystal(0.25)
    found = looked_at(metals, cations, halides[1:], cell, 'X')
    assert found.deviations() == {-1: 2}
    bridge = np.concatenate([halides, halides[:1] + np.array([0.0, 1.5, 1.5])])
    assert looked_at(metals, cations, bridge, cell, 'X').deviations() == {1: 2}


def test_the_selection_holds_what_is_near_and_no_more():
    metals, cations, halides, cell = crystal()
    found = looked_at(metals, cations, halides[1:], cell, 'X', reach=0.6 * A)
    assert found.atoms.sum() == 2 + 10  # both metals and what is left of their octahedra
    assert looked_at(metals, cations, halides[1:], cell, 'X', reach=0.0).atoms.sum() == 2
    wide = looked_at(metals, cations, halides[1:], cell, 'X')
    assert wide.reach == wide.cutoff == pytest.approx(0.81 * A)
    wrapped = looked_at(metals % (N * A), (cations + N * A), halides[1:], cell, 'X')
    assert np.array_equal(wrapped.atoms, wide.atoms)


def test_forces_near_a_defect_have_errors_of_their_own():
    metals, cations, halides, cell = crystal()
    found = looked_at(metals, cations, halides[1:], cell, 'X')
    forces = np.random.default_rng(0).normal(size=(len(found.atoms), 3))
    errors = ErrorSum()
    errors.add(forces[found.atoms], (forces + 0.1 * found.atoms[:, None])[found.atoms])
    assert errors.errors('eV/Å').mae == pytest.approx(0.1)
    assert errors.n == 3 * found.atoms.sum()


def test_molecules_across_the_border_have_one_centre():
    cell = 10 * np.eye(3)
    positions = np.array([[0.2, 5.0, 5.0], [9.8, 5.0, 5.0], [3.0, 3.0, 3.0]])
    found = centres_of(positions, cell, [[0, 1], [2]], np.array([1.0, 3.0, 1.0]))
    assert found == pytest.approx(np.array([[-0.1, 5.0, 5.0], [3.0, 3.0, 3.0]]))


def test_neighbours_in_other_cells_count():
    alone = np.zeros((1, 3))
    assert neighbour_counts(alone, alone, A * np.eye(3), 1.1 * A).tolist() == [6]
    assert neighbour_counts(alone, alone, A * np.eye(3), 1.5 * A).tolist() == [18]
    assert neighbour_counts(alone, alone, A * np.eye(3), 2.1 * A).tolist() == [32]


def test_what_has_no_surroundings_is_refused():
    metals, _, halides, cell = crystal()
    with pytest.raises(ValueError, match='no metal'):
        surroundings_of(metals, cell, [], halides, 'X')
    with pytest.raises(ValueError, match="'B' but has to be A or X"):
        surroundings_of(metals, cell, [0], halides, 'B')
