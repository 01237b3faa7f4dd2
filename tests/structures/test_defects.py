"""Point defects have one ion less, or one more."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from aiida_perovmlip.structures.defects import ions_of, lowest_spin, with_interstitial, with_substitution, with_vacancy
from aiida_perovmlip.structures.perovskite import cubic

HYBRID = cubic('MA', 'Pb', 'I', 6.3, (2, 2, 2))
PLAIN = cubic('Cs', 'Pb', 'I', 6.3, (2, 2, 2))


def difference(one, other):
    found = Counter(one.symbols)
    found.subtract(Counter(other.symbols))
    return {symbol: count for symbol, count in found.items() if count}


def test_ions_are_atoms_or_whole_molecules():
    assert len(ions_of(PLAIN, 'I')) == 24
    assert [len(part) for part in ions_of(HYBRID, 'MA')] == [8] * 8
    assert ions_of(HYBRID, 'N') == []  # it is in molecules
    assert ions_of(HYBRID, 'FA') == []


def test_a_vacancy_has_one_ion_less_and_all_else_stays():
    found = with_vacancy(PLAIN, 'I', 3, charge=1)
    assert difference(found, PLAIN) == {'I': -1}
    gone = ions_of(PLAIN, 'I')[3][0]
    assert np.array_equal(found.positions, np.delete(PLAIN.positions, gone, axis=0))
    assert found.info == {'charge': 1}
    assert with_vacancy(PLAIN, 'I').info == {}


def test_a_vacancy_of_a_molecule_takes_all_of_it():
    assert difference(with_vacancy(HYBRID, 'MA', charge=-1), HYBRID) == {'C': -1, 'N': -1, 'H': -6}


def test_an_interstitial_has_one_ion_more_where_it_was_put():
    found = with_interstitial(PLAIN, 'I', [1.0, 2.0, 3.0], charge=-1)
    assert difference(found, PLAIN) == {'I': 1}
    assert found.positions[-1] == pytest.approx([1.0, 2.0, 3.0])
    more = with_interstitial(HYBRID, 'MA', [1.0, 2.0, 3.0])
    assert difference(more, HYBRID) == {'C': 1, 'N': 1, 'H': 6}
    assert more[-8:].get_center_of_mass() == pytest.approx([1.0, 2.0, 3.0])


def test_without_a_place_an_interstitial_takes_that_with_the_most_room():
    found = with_interstitial(PLAIN, 'I')
    distances = found.get_distances(len(found) - 1, range(len(found) - 1), mic=True)
    assert distances.min() > 2.5


def test_a_substitution_puts_an_atom_in_the_place_of_an_ion():
    found = with_substitution(PLAIN, 'Pb', 'Sn', 3, charge=0)
    assert difference(found, PLAIN) == {'Pb': -1, 'Sn': 1}
    assert found.positions[-1] == pytest.approx(PLAIN.positions[ions_of(PLAIN, 'Pb')[3][0]])
    assert found.info == {'charge': 0}


def test_an_atom_takes_the_centre_of_a_molecule():
    found = with_substitution(HYBRID, 'MA', 'N')
    assert difference(found, HYBRID) == {'C': -1, 'H': -6}  # a nitrogen for a nitrogen
    assert found.positions[-1] == pytest.approx([3.15, 3.15, 3.15])
    assert found.arrays['molecule'][-1] == -1


def test_the_lowest_spin_follows_from_the_number_of_electrons():
    assert lowest_spin(PLAIN) == 1
    assert lowest_spin(with_vacancy(PLAIN, 'Cs')) == 2
    assert lowest_spin(with_vacancy(PLAIN, 'I', charge=1)) == 1
    assert lowest_spin(with_substitution(PLAIN, 'Pb', 'Zn')) == 1


def test_what_cannot_be_substituted_is_refused():
    with pytest.raises(ValueError, match="no element 'Xx'"):
        with_substitution(PLAIN, 'Pb', 'Xx')
    with pytest.raises(ValueError, match='by itself'):
        with_substitution(PLAIN, 'Pb', 'Pb')
    with pytest.raises(ValueError, match='no Pb number 8'):
        with_substitution(PLAIN, 'Pb', 'Sn', 8)


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match='no Br number 0: the crystal has 0'):
        with_vacancy(PLAIN, 'Br')
    with pytest.raises(ValueError, match='no I number 24'):
        with_vacancy(PLAIN, 'I', 24)
    with pytest.raises(ValueError, match='three coordinates'):
        with_interstitial(PLAIN, 'I', [1.0])
