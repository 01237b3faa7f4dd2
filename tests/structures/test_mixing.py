"""Mixed perovskites: how many of each, where they are, and that nothing overlaps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from aiida_perovmlip.structures.bonds import molecules_by_bonds
from aiida_perovmlip.structures.mixing import (
    _neighbours,
    _Occupied,
    counts_of,
    fractions_of,
    mean_constant,
    mixed,
    quasirandom,
    short_range_order,
    shuffled,
    with_cations,
)
from aiida_perovmlip.structures.perovskite import cubic


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_formula_is_what_was_asked_for():
    atoms = mixed({'MA': 0.73, 'FA': 0.27}, 'Pb', 'I', (4, 4, 4), rng())
    # 64 sites: 47 MA (CNH6) and 17 FA (CN2H5)
    assert Counter(atoms.symbols) == {'Pb': 64, 'I': 192, 'C': 64, 'N': 47 + 34, 'H': 282 + 85}
    sizes = Counter(len(each) for each in molecules_by_bonds(atoms))
    assert sizes == {8: 64}
    assert atoms.cell.lengths() == pytest.approx(3 * [4 * (0.73 * 6.33 + 0.27 * 6.36)])


def test_equal_seeds_give_equal_crystals_and_others_do_not():
    one, same, other = (mixed({'MA': 0.5, 'FA': 0.5}, 'Pb', 'I', (2, 2, 2), rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_molecules_have_room_and_no_common_orientation():
    atoms = mixed({'MA': 0.25, 'FA': 0.5, 'Cs': 0.25}, 'Pb', 'I', (4, 4, 2), rng())
    numbers = atoms.arrays['molecule']
    first, second, distance = neighbor_list('ijd', atoms, 3.0)
    between = (numbers[first] >= 0) & (numbers[second] < 0)
    radii = covalent_radii[atoms.numbers[first]] + covalent_radii[atoms.numbers[second]]
    assert np.all(distance[between] / radii[between] > 1.2)
    across = (numbers[first] >= 0) & (numbers[second] >= 0) & (numbers[first] != numbers[second])
    assert np.all(distance[across] > 1.4)
    axes = []
    for each in range(numbers.max() + 1):
        nitrogen = atoms.positions[(numbers == each) & (atoms.numbers == 7)]
        carbon = atoms.positions[(numbers == each) & (atoms.numbers == 6)]
        axes.append((nitrogen.mean(axis=0) - carbon[0]) / np.linalg.norm(nitrogen.mean(axis=0) - carbon[0]))
    assert np.linalg.norm(np.mean(axes, axis=0)) < 0.5


def test_a_tilted_start_is_tilted():
    from aiida_perovmlip.analysis.tilts import octahedra_of, tilt_series

    atoms = mixed({'MA': 0.5, 'FA': 0.5}, 'Pb', 'I', (2, 2, 2), rng(), glazer='a-a-c+', angle_degrees=8.0)
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    series = tilt_series([(np.zeros(1), atoms.positions[None], atoms.cell.array[None])], octahedra)
    moved = 6.345 / 2 * np.tan(np.radians(8.0)) * 2 / 3
    assert np.abs(series.m[0]) == pytest.approx([0, 0, moved], abs=1e-6)
    assert np.abs(series.r[0]) == pytest.approx([moved, moved, 0], abs=1e-6)


def test_pure_crystals_are_those_of_the_other_builder():
    assert mixed({'Cs': 1.0}, 'Pb', 'Br', (2, 1, 1), rng()) == cubic('Cs', 'Pb', 'Br', 5.87, (2, 1, 1))


@pytest.mark.parametrize(
    ('fractions', 'n', 'counts'),
    [
        ({'MA': 0.73, 'FA': 0.27}, 8, {'MA': 6, 'FA': 2}),
        ({'MA': 1 / 3, 'FA': 1 / 3, 'Cs': 1 / 3}, 8, {'MA': 3, 'FA': 3, 'Cs': 2}),
        ({'MA': 0.1, 'FA': 0.9}, 10, {'MA': 1, 'FA': 9}),
        ({'MA': 1.0, 'FA': 0.0}, 5, {'MA': 5, 'FA': 0}),
        ({'MA': 0.7, 'FA': 0.3}, 8000, {'MA': 5600, 'FA': 2400}),
    ],
)
def test_counts_are_whole_and_add_up(fractions, n, counts):
    assert counts_of(fractions, n) == counts


def test_a_shuffled_crystal_has_no_correlation():
    """Over many crystals the mean is zero but for pairs of a site with itself, which nothing can fill: -1/(n-1)."""
    found = np.array(
        [short_range_order(shuffled({'MA': 64, 'FA': 64}, rng(seed)), (8, 4, 4))['FA-MA'] for seed in range(300)]
    )
    assert found.mean(axis=0) == pytest.approx(-1 / 127, abs=3 * found.std() / np.sqrt(300))


def test_order_is_told_by_its_sign():
    layers = ['MA' if z % 2 else 'FA' for x in range(4) for y in range(4) for z in range(4)]
    checkers = ['MA' if (x + y + z) % 2 else 'FA' for x in range(4) for y in range(4) for z in range(4)]
    assert short_range_order(checkers, (4, 4, 4))['FA-MA'] == pytest.approx([-1, 1, -1])
    assert short_range_order(layers, (4, 4, 4))['FA-MA'][0] == pytest.approx(1 / 3)  # 2 of 6 neighbours are others
    assert short_range_order(['MA'] * 8, (2, 2, 2)) == {}


@pytest.mark.parametrize('counts', [{'MA': 32, 'FA': 32}, {'MA': 47, 'FA': 17}, {'MA': 22, 'FA': 21, 'Cs': 21}])
def test_a_quasirandom_crystal_has_less_correlation_than_a_random_one(counts):
    random = shuffled(counts, rng(3))
    better = quasirandom(random, (4, 4, 4), rng(4))
    assert Counter(better) == counts
    known, found = short_range_order(random, (4, 4, 4)), short_range_order(better, (4, 4, 4))
    assert max(np.abs(each[:2]).max() for each in found.values()) < 0.05
    assert sum(np.abs(each).sum() for each in found.values()) < 0.5 * sum(np.abs(each).sum() for each in known.values())
    assert quasirandom(random, (4, 4, 4), rng(4)) == better


def test_a_pure_crystal_is_quasirandom_as_it_is():
    assert quasirandom(['MA'] * 8, (2, 2, 2), rng()) == ['MA'] * 8


@pytest.mark.parametrize('repeat', [(4, 4, 4), (2, 2, 2), (1, 3, 5)])
def test_the_change_of_an_exchange_is_the_difference_of_all_pairs(repeat):
    n = int(np.prod(repeat))
    neighbours = _neighbours(repeat, 3)
    lattice = _Occupied(rng(1).permutation(np.arange(n) % 3), neighbours, 3)
    for one, other in rng(2).integers(n, size=(40, 2)):
        before, change = lattice.pairs(), lattice.change(one, other)
        lattice.exchange(one, other)
        assert np.array_equal(lattice.pairs(), before + change)
        assert np.array_equal(lattice.pairs(), _Occupied(lattice.codes, neighbours, 3).pairs())


def test_neighbours_of_the_cubic_lattice_are_counted_by_shells():
    assert [shell.shape[1] for shell in _neighbours((5, 5, 5), 5)] == [6, 12, 8, 6, 24]


def test_a_mixed_arrangement_may_be_quasirandom():
    atoms = mixed({'Cs': 0.5, 'Rb': 0.5}, 'Pb', 'I', (4, 4, 2), rng(), 6.3, arrangement='quasirandom')
    kinds = [atoms.symbols[index] for index in range(0, len(atoms), 5)]
    assert np.abs(short_range_order(kinds, (4, 4, 2))['Cs-Rb'][0]) < 0.05


@pytest.mark.parametrize(
    ('formula', 'found'),
    [
        ('CsPbBr3', ({'Cs': 1.0}, 'Pb', 'Br')),
        ('MA0.73FA0.27PbI3', ({'MA': 0.73, 'FA': 0.27}, 'Pb', 'I')),
        ('Cs.1MA.1FA.8SnI3', ({'Cs': 0.1, 'MA': 0.1, 'FA': 0.8}, 'Sn', 'I')),
    ],
)
def test_formulas_are_read(formula, found):
    assert fractions_of(formula) == found


@pytest.mark.parametrize(
    ('formula', 'sentence'),
    [
        ('PbI3', 'is none such as'),
        ('MA0.7FA0.2PbI3', 'have the sum 1'),
        ('MA0.5MA0.5PbI3', 'different ions'),
        ('MA0.5FA0.5PbO3', 'X site'),
    ],
)
def test_formulas_of_nothing_are_refused(formula, sentence):
    with pytest.raises(ValueError, match=sentence):
        fractions_of(formula)


def test_the_lattice_constant_is_that_of_vegard_or_given():
    assert mean_constant({'MA': 0.5, 'FA': 0.5}, 'Pb', 'I') == pytest.approx(6.345)
    with pytest.raises(ValueError, match='no lattice constant of RbPbI3'):
        mean_constant({'Rb': 1.0}, 'Pb', 'I')


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'fractions': {'MA': 0.5, 'FA': 0.4}}, 'the sum 0.9'),
        ({'fractions': {}}, 'the sum 0'),
        ({'fractions': {'MA': 1.5, 'FA': -0.5}}, 'between 0 and 1'),
        ({'fractions': {'Zz': 1.0}, 'lattice_constant': 6.0}, "'Zz' cannot sit"),
        ({'arrangement': 'ordered'}, "is 'ordered' but has to be one of random, quasirandom"),
        ({'lattice_constant': 4.2}, 'are too close at a lattice constant of 4.200'),
    ],
)
def test_what_cannot_be_mixed_is_refused(change, sentence):
    options = {'fractions': {'MA': 0.5, 'FA': 0.5}, 'b_site': 'Pb', 'x_site': 'I', 'repeat': (2, 2, 2), 'rng': rng()}
    with pytest.raises(ValueError, match=sentence):
        mixed(**{**options, **change})


def test_a_framework_of_other_cells_is_refused():
    with pytest.raises(ValueError, match='40 atoms are not the framework of 3 cells'):
        with_cations(cubic('Cs', 'Pb', 'I', 6.3, (2, 2, 2)), ['MA'] * 3)
