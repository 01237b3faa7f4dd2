"""Concerted moves: who takes whose place, in which order of atoms."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.structures.bonds import centre_of_mass, molecules_by_bonds
from aiida_perovmlip.structures.exchange import Move, moved_together, pushed
from aiida_perovmlip.structures.molecules import molecule
from aiida_perovmlip.structures.paths import linear, problem_of_path
from aiida_perovmlip.structures.perovskite import cubic

LENGTH = 6.33


@pytest.fixture
def crowded():
    """Return MAPbI3 with one MA more, between two of its cells along x."""
    host = cubic('MA', 'Pb', 'I', LENGTH, (2, 2, 2))
    added = molecule('MA')
    added.translate([0.0, LENGTH / 2, LENGTH / 2])
    host.extend(added)
    return host


def gap(atoms, first, second) -> float:
    """Return the distance in Å of two points by the nearest image."""
    scaled = atoms.cell.scaled_positions(np.array([first]) - np.array([second]))
    return float(np.linalg.norm((scaled - np.round(scaled)) @ atoms.cell.array))


def test_an_interstitial_takes_the_place_of_its_neighbour_which_becomes_the_interstitial(crowded):
    neighbour, *_, interstitial = molecules_by_bonds(crowded)
    last_place = centre_of_mass(crowded, interstitial) + np.array([LENGTH, 0.0, 0.0])
    start, end = moved_together(crowded, pushed(crowded, [interstitial, neighbour], last_place), charge=1)
    assert start.info == end.info == {'charge': 1}
    assert list(start.symbols) == list(end.symbols) == list(crowded.symbols)
    assert gap(end, centre_of_mass(end, interstitial), centre_of_mass(start, neighbour)) < 1e-9
    assert gap(end, centre_of_mass(end, neighbour), last_place) < 1e-9
    at_rest = np.setdiff1d(np.arange(len(start)), [*interstitial, *neighbour])
    assert end.positions[at_rest] == pytest.approx(start.positions[at_rest])
    # Both move by half a cell side by side, so nothing meets.
    path = linear(start, end, 5)
    assert problem_of_path(path) is None
    assert np.linalg.norm(path[-1].positions - path[0].positions, axis=1).max() == pytest.approx(LENGTH / 2)


def test_molecules_move_whole_across_the_boundary(crowded):
    crowded.translate([0.0, 0.0, 1.5 * LENGTH])
    crowded.wrap()
    neighbour, *_, interstitial = molecules_by_bonds(crowded)
    assert np.ptp(crowded.positions[neighbour], axis=0).max() > LENGTH, 'no molecule was cut, so this tests nothing'
    last_place = centre_of_mass(crowded, neighbour) + np.array([LENGTH / 2, 0.0, 0.0])
    start, end = moved_together(crowded, pushed(crowded, [interstitial, neighbour], last_place))
    assert len(molecules_by_bonds(end)) == len(molecules_by_bonds(start)) == 9
    assert np.ptp(start.positions[neighbour], axis=0).max() < LENGTH
    assert 'charge' not in start.info
    assert problem_of_path(linear(start, end, 5)) is None


def test_a_chain_of_one_pushes_nothing(crowded):
    with pytest.raises(ValueError, match='at least one that it pushes'):
        pushed(crowded, [range(8)], [0.0, 0.0, 0.0])


@pytest.mark.parametrize('moves', [[], [Move((0,), (1.0, 0.0, 0.0)), Move((0,), (0.0, 1.0, 0.0))]])
def test_moves_of_no_atom_or_of_one_twice_are_refused(moves, crowded):
    with pytest.raises(ValueError, match='each of them once'):
        moved_together(crowded, moves)
