"""Slabs of perovskites, and molecules on them."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.structures.distort import is_too_close
from aiida_perovmlip.structures.passivators import PASSIVATORS, passivator
from aiida_perovmlip.structures.surfaces import adsorbed, motifs, slab, top_atoms


@pytest.mark.parametrize(
    ('termination', 'planes', 'formula'),
    [
        ('AX', 1, {'Cs': 4, 'I': 4}),
        ('BX', 1, {'Pb': 4, 'I': 8}),
        ('AX', 3, {'Cs': 8, 'Pb': 4, 'I': 16}),
        ('BX', 3, {'Cs': 4, 'Pb': 8, 'I': 20}),
        ('BX', 4, {'Cs': 8, 'Pb': 8, 'I': 24}),
    ],
)
def test_a_slab_holds_its_planes_and_is_neutral(termination, planes, formula):
    found = slab('Cs', 'Pb', 'I', 6.0, (2, 2), planes, termination, vacuum=14.0)
    counts = {symbol: list(found.symbols).count(symbol) for symbol in set(found.symbols)}
    assert counts == formula
    assert counts.get('Cs', 0) + 2 * counts.get('Pb', 0) == counts['I']
    assert np.unique(np.round(found.positions[:, 2], 6)) == pytest.approx(7.0 + 3.0 * np.arange(planes))
    assert found.cell.lengths() == pytest.approx([12.0, 12.0, 3.0 * (planes - 1) + 14.0])


def test_without_vacuum_an_even_number_of_planes_is_the_crystal_but_for_a_plane_of_room():
    found = slab('Cs', 'Pb', 'I', 6.0, (1, 1), 4, 'BX', vacuum=3.0)
    assert found.get_chemical_formula() == 'Cs2I6Pb2'
    assert found.cell.lengths() == pytest.approx([6.0, 6.0, 12.0])


def test_molecules_of_a_slab_are_whole_and_clear_of_the_framework():
    found = slab('MA', 'Pb', 'I', 6.33, (2, 2), 3, 'BX', rng=np.random.default_rng(0))
    assert found.get_chemical_formula() == 'C4H24I20N4Pb8'
    assert not is_too_close(found)


def test_the_highest_atoms_are_those_of_the_upper_plane():
    found = slab('Cs', 'Pb', 'I', 6.0, (2, 2), 3, 'BX')
    assert len(top_atoms(found, 'Pb')) == 4
    assert found.positions[top_atoms(found, 'I'), 2] == pytest.approx(found.positions[:, 2].max())
    with pytest.raises(ValueError, match='holds no Br'):
        top_atoms(found, 'Br')


@pytest.mark.parametrize('name', PASSIVATORS)
def test_a_molecule_sits_by_its_anchor_and_above_the_surface(name):
    surface, guest = slab('Cs', 'Pb', 'I', 6.3, (2, 2)), passivator(name)
    anchor = [index for index, symbol in enumerate(guest.symbols) if symbol == 'N'][-1]
    site = int(top_atoms(surface, 'Pb')[0])
    both = adsorbed(surface, guest, anchor, site, 2.6)
    assert both.positions[: len(surface)] == pytest.approx(surface.positions)
    assert both.positions[len(surface) + anchor] - both.positions[site] == pytest.approx([0, 0, 2.6])
    assert both[len(surface) :].get_all_distances() == pytest.approx(guest.get_all_distances())
    assert both.positions[len(surface) :, 2].min() > surface.positions[:, 2].max() + 2.0
    assert not is_too_close(both)


def test_motifs_count_the_atoms_that_touch_also_across_the_boundary():
    surface, guest = slab('Cs', 'Pb', 'I', 6.3, (2, 2)), passivator('CN')
    anchor = list(guest.symbols).index('N')
    both = adsorbed(surface, guest, anchor, int(top_atoms(surface, 'Pb')[0]), 2.6)
    both.positions[:, :2] += 6.0
    both.wrap()
    own = range(len(surface), len(both))
    assert motifs(both, own, {('N', 'Pb'): 2.7, ('N', 'I'): 1.0, ('Si', 'I'): 9.0}) == {
        'N-Pb': 1,
        'N-I': 0,
        'Si-I': 0,
    }


def test_what_is_no_slab_is_refused():
    with pytest.raises(ValueError, match='AX, BX'):
        slab('Cs', 'Pb', 'I', 6.3, termination='XX')
    with pytest.raises(ValueError, match='along x and y'):
        slab('Cs', 'Pb', 'I', 6.3, (2, 2, 2))
    with pytest.raises(ValueError, match='at least one plane'):
        slab('Cs', 'Pb', 'I', 6.3, planes=0)
    with pytest.raises(ValueError, match='no atom 99'):
        adsorbed(slab('Cs', 'Pb', 'I', 6.3), passivator('CN'), 99, 0, 2.6)
