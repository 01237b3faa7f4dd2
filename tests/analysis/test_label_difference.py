"""Differences of labels: closed forms first."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_perovmlip.analysis.force_difference import EDGES, QUANTILES, RESOLUTION, SIGNED_EDGES, quantiles_of
from aiida_perovmlip.analysis.label_difference import DifferenceAccumulator
from aiida_perovmlip.analysis.matching import DigestIndex

CS, PB, IO, BR = 55, 82, 53, 35
CSPBI3 = [CS, PB, IO, IO, IO]
CSPBBR3 = [CS, PB, BR, BR, BR]
CS4PBI6 = [CS] * 4 + [PB] + [IO] * 6


def compare(compositions, *, shift=None, energies=None, groups=None, stresses=None, charges=None, seed=0, parts=1):
    """Compare random forces with the same plus a shift (eV/Å by atomic number), added in so many parts."""
    rng = np.random.default_rng(seed)
    accumulator = DifferenceAccumulator()
    groups = groups or ['all'] * len(compositions)
    for part in np.array_split(np.arange(len(compositions)), parts):
        chosen = [compositions[index] for index in part]
        numbers = np.array([number for one in chosen for number in one], dtype=int)
        forces = rng.normal(size=(len(numbers), 3))
        shifts = np.array([(shift or {}).get(number, np.zeros(3)) for number in numbers]).reshape(-1, 3)
        accumulator.add(
            (part, part),
            numbers,
            np.concatenate([[0], np.cumsum([len(one) for one in chosen])]),
            [groups[index] for index in part],
            (forces + shifts, forces),
            None if energies is None else (np.asarray(energies)[part], np.zeros(len(part))),
            None if stresses is None else tuple(np.asarray(each)[part] for each in stresses),
            None if charges is None else np.asarray(charges)[part],
        )
    return accumulator.result()


def test_a_shift_on_one_element_is_found_there_and_nowhere_else():
    found = compare([CSPBI3, CSPBBR3, CSPBI3], shift={PB: (0.3, 0.4, 0.0)}, groups=['x', 'y', 'x'])
    lead = found.forces_per_element['Pb']
    assert (lead.n_atoms, lead.n_frames) == (3, 3)
    assert lead.mean_norm == pytest.approx(0.5)
    assert lead.largest == pytest.approx(0.5)
    assert lead.mean_absolute == pytest.approx(0.7 / 3)
    assert lead.rms == pytest.approx(0.5 / np.sqrt(3))
    assert {name: each.largest for name, each in found.forces_per_element.items() if name != 'Pb'} == pytest.approx(
        {'Br': 0.0, 'I': 0.0, 'Cs': 0.0}, abs=1e-12
    )
    assert (found.forces_per_element['Br'].n_atoms, found.forces_per_element['Br'].n_frames) == (3, 1)
    assert found.forces.mean_norm == pytest.approx(0.1)
    assert (found.forces_per_group['x'].n_atoms, found.forces_per_group['x'].n_frames) == (10, 2)
    both = found.forces_per_element_and_group
    assert both['Pb']['x'].mean_norm == pytest.approx(0.5)
    assert (both['Pb']['x'].n_atoms, both['Pb']['x'].n_frames) == (2, 2)
    assert set(both['Br']) == {'y'}


def test_elements_come_in_the_order_of_atomic_numbers_and_so_do_the_counts():
    found = compare([CSPBI3, CSPBBR3], shift={PB: (0.0, 0.0, 0.012)})
    assert list(found.forces_per_element) == ['Br', 'I', 'Cs', 'Pb']
    assert found.histograms.counts_per_element.sum(axis=1).tolist() == [3, 3, 2, 2]
    assert found.histograms.signed_counts_per_element.sum(axis=1).tolist() == [9, 9, 6, 6]
    (place,) = np.flatnonzero(found.histograms.counts_per_element[3])
    assert EDGES[place - 1] < 0.012 < EDGES[place]


def test_the_sign_of_a_component_is_kept():
    found = compare([CSPBI3], shift={CS: (-0.5, 0.0, 0.25)})
    cesium = found.histograms.signed_counts_per_element[1]
    middle = len(cesium) // 2
    assert cesium[middle] == 1
    low, high = np.flatnonzero(cesium[:middle])[0], middle + 1 + np.flatnonzero(cesium[middle + 1 :])[0]
    assert SIGNED_EDGES[low - 1] <= -0.5 <= SIGNED_EDGES[low]
    assert SIGNED_EDGES[high - 1] <= 0.25 <= SIGNED_EDGES[high]


def test_what_is_beyond_all_bins_is_counted_too():
    found = compare([CSPBI3], shift={CS: (2e3, 0, 0), PB: (1e-8, 0, 0)})
    assert found.histograms.counts[-1] == 1
    assert found.histograms.counts[0] == 4
    assert found.forces.quantiles['p99'] == pytest.approx(2e3)
    assert found.forces.quantiles['p50'] == 0.0


def test_the_mean_over_all_atoms_is_that_of_all_elements_and_of_all_groups():
    found = compare([CSPBI3, CSPBBR3, CS4PBI6] * 3, shift={PB: (0.1, 0, 0), IO: (0, 0.2, 0)}, groups=list('abcabcabc'))
    for parts in (found.forces_per_element, found.forces_per_group):
        assert sum(each.n_atoms for each in parts.values()) == found.n_atoms == 63
        total = sum(each.mean_norm * each.n_atoms for each in parts.values()) / found.n_atoms
        assert total == pytest.approx(found.forces.mean_norm)
    assert found.forces.n_frames == 9


def test_the_forces_to_compare_with_are_those_of_other():
    accumulator = DifferenceAccumulator()
    accumulator.add(([0], [0]), [1], [0, 1], ['a'], ([[4.0, 0, 0]], [[3.0, 0, 0]]))
    found = accumulator.result().forces
    assert found.other_rms == pytest.approx(np.sqrt(3))
    assert found.rms == pytest.approx(1 / np.sqrt(3))


def test_another_zero_of_every_element_leaves_no_energy_difference():
    zeros = {CS: 1.5, PB: -3.25, IO: 0.125, BR: 278858.0}
    compositions = [CSPBI3, CSPBBR3, CS4PBI6, [*CSPBI3, IO], [*CSPBBR3, BR, CS]] * 2
    energies = [sum(zeros[number] for number in one) for one in compositions]
    found = compare(compositions, energies=energies)
    assert found.energy.mean_absolute > 1e4
    assert found.energy_aligned.largest < 1e-8
    assert found.reference.per_element == pytest.approx({'Cs': 1.5, 'Pb': -3.25, 'I': 0.125, 'Br': 278858.0}, rel=1e-7)
    assert (found.reference.rank, found.reference.n_unknowns, found.reference.warning) == (4, 4, '')


def test_one_composition_determines_one_number_and_says_so():
    noise = np.array([-0.05, 0.1, -0.05, 0.0])
    found = compare([CSPBI3] * 4, energies=10.0 + noise)
    assert found.energy.mean == pytest.approx(2.0)
    assert found.energy.spread == pytest.approx(np.sqrt(np.mean((noise / 5) ** 2)))
    assert found.energy_aligned.mean == pytest.approx(0.0, abs=1e-12)
    assert found.energy_aligned.rms == pytest.approx(found.energy.spread)
    assert (found.reference.rank, found.reference.n_unknowns) == (1, 3)
    assert 'determine only 1 of 3' in found.reference.warning
    assert sum(found.reference.per_element[name] * n for name, n in (('Cs', 1), ('Pb', 1), ('I', 3))) == pytest.approx(
        10.0
    )


def test_as_many_numbers_as_frames_are_a_warning():
    found = compare([CSPBI3, CSPBBR3], energies=[3.0, 7.0])
    assert found.energy_aligned.largest < 1e-12
    assert 'zero by construction' in found.reference.warning


def test_the_zero_of_charged_cells_is_a_number_of_its_own():
    charges = [0, 1, -1, 0, 1, -1]
    energies = [5.0 + 0.7 * charge for charge in charges]
    found = compare([CSPBI3] * 6, energies=energies, charges=charges)
    assert found.reference.per_charge == pytest.approx(0.7)
    assert found.energy_aligned.largest < 1e-12
    assert compare([CSPBI3] * 3, energies=[1, 1, 1], charges=[0, 0, 0]).reference.per_charge is None


def test_what_is_left_of_the_energy_is_told_per_group():
    noise = np.array([0.1, -0.1, 0.0, 0.0])
    found = compare([CSPBI3] * 4, energies=noise, groups=['a', 'a', 'b.c', 'b.c'])
    assert found.energy_aligned_per_group['a'].rms == pytest.approx(0.02)
    assert found.energy_aligned_per_group['b_c'].rms == pytest.approx(0.0, abs=1e-12)


def test_without_energies_only_forces_are_compared():
    content = compare([CSPBI3]).to_dict()
    assert not {'energy', 'energy_aligned', 'reference', 'stress'} & set(content)


def test_stresses_are_compared_where_both_are():
    one = np.array([[1, 1, 1, 0, 0, 0], [5, 5, 5, 5, 5, 5], [np.nan] * 6, [np.nan] * 6]) * 1e-3
    other = np.array([[0, 0, 0, 0, 0, 0], [np.nan] * 6, [5, 5, 5, 5, 5, 5], [np.nan] * 6]) * 1e-3
    found = compare([CSPBI3] * 4, stresses=(one, other)).stress
    assert found.n_frames == 1
    assert found.rms == pytest.approx(1e-3 / np.sqrt(2))
    assert found.mean_absolute == pytest.approx(5e-4)
    assert found.mean_pressure == pytest.approx(-1e-3)


def test_the_worst_frames_are_named_with_their_places():
    shifts = np.linspace(0.0, 1.0, 30)
    accumulator = DifferenceAccumulator()
    for index, shift in enumerate(shifts):
        accumulator.add(([index], [100 - index]), [PB], [0, 1], ['a'], ([[shift, 0, 0]], [[0, 0, 0]]))
    worst = accumulator.result().worst
    assert [(each.one, each.other) for each in worst[:3]] == [(29, 71), (28, 72), (27, 73)]
    assert len(worst) == 20


@pytest.mark.parametrize('name', ['forces', 'energy', 'stress'])
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_nothing_that_is_not_finite_gets_in(name, value):
    forces, energy, stress = np.zeros((1, 3)), np.zeros(1), np.zeros((1, 6))
    {'forces': forces, 'energy': energy, 'stress': stress}[name].flat[0] = value
    with pytest.raises(ValueError, match=f'`{name}` has values that are not finite'):
        DifferenceAccumulator().add(
            ([0], [0]), [PB], [0, 1], ['a'], (np.zeros((1, 3)), forces), (energy, [0.0]), (np.zeros((1, 6)), stress)
        )


def test_nothing_in_nothing_out():
    with pytest.raises(ValueError, match='no frame to compare'):
        DifferenceAccumulator().result()


def test_arrays_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match='do not fit together'):
        DifferenceAccumulator().add(([0], [0]), [PB, PB], [0, 1], ['a'], (np.zeros((2, 3)), np.zeros((2, 3))))


def test_the_result_is_plain_json_without_nan():
    found = compare(
        [CSPBI3, CSPBBR3] * 2, shift={PB: (0.1, 0, 0)}, energies=[1, 2, 3, 4], stresses=[np.ones((4, 6))] * 2
    )
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
    assert all(np.isfinite(array).all() for array in found.arrays().values())


@settings(max_examples=25, deadline=None)
@given(parts=st.integers(1, 7), seed=st.integers(0, 100))
def test_it_does_not_matter_how_the_frames_are_cut_into_chunks(parts, seed):
    rng = np.random.default_rng(seed)
    compositions = [[CSPBI3, CSPBBR3, CS4PBI6][kind] for kind in rng.integers(0, 3, 7)]
    inputs = {
        'shift': {IO: rng.normal(size=3)},
        'energies': rng.normal(size=7),
        'groups': list('aabbcca'),
        'seed': seed,
    }
    whole, cut = compare(compositions, **inputs), compare(compositions, **inputs, parts=parts)
    assert cut.forces_per_element['I'].rms == pytest.approx(whole.forces_per_element['I'].rms)
    assert cut.forces_per_group['a'].n_frames == whole.forces_per_group['a'].n_frames == 3
    assert cut.energy_aligned.rms == pytest.approx(whole.energy_aligned.rms)
    counts = (each.histograms.counts_per_element for each in (cut, whole))
    assert np.array_equal(*[array.sum(axis=1) for array in counts])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-5, 1e2), min_size=1, max_size=300))
def test_quantiles_are_those_of_the_values_to_the_stated_resolution(values):
    counts = np.bincount(np.searchsorted(EDGES, values, side='right'), minlength=len(EDGES) + 1)
    found = quantiles_of(counts, max(values))
    for name, part in QUANTILES.items():
        exact = np.quantile(values, part, method='inverted_cdf')
        assert found[name] == pytest.approx(exact, rel=1.01 * RESOLUTION)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 7), min_size=1, max_size=30))
def test_a_digest_is_found_where_it_first_stands(known, wanted):
    def digests(values):
        rows = np.zeros((len(values), 16), np.uint8)
        rows[:, 3] = values  # zeros behind and in front of what differs
        return rows

    index = DigestIndex(digests(known))
    assert index.find(digests(wanted)).tolist() == [known.index(value) if value in known else -1 for value in wanted]
    assert index.n_repeated == len(known) - len(set(known))
