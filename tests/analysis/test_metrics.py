"""Errors of predictions: closed forms, numerical stability, and NaN that never reaches JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aiida_perovmlip.analysis.metrics import COLUMNS, ErrorSum, MetricsAccumulator, flat_rows

NUMBERS = st.floats(-1e3, 1e3, allow_nan=False, width=32)


def summed(reference, prediction) -> ErrorSum:
    """Return the sum of two arrays."""
    total = ErrorSum()
    total.add(reference, prediction)
    return total


def dataset(n_frames: int = 12, seed: int = 0) -> dict:
    """Return frames of different sizes as flat columns, some without stress."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, size=n_frames)
    n_atoms = int(sizes.sum())
    stress = rng.normal(size=(n_frames, 6))
    stress[::3] = np.nan
    return {
        'numbers': rng.choice([1, 53, 55, 82], size=n_atoms),
        'offsets': np.concatenate([[0], np.cumsum(sizes)]),
        'groups': [str(name) for name in rng.choice(['CsPbI3', 'MAPbI3', 'slab'], size=n_frames)],
        'energy_reference': (energy := rng.normal(size=n_frames) - 1000 * sizes),
        'energy_predicted': energy + rng.normal(scale=0.1, size=n_frames),
        'forces_reference': (forces := rng.normal(size=(n_atoms, 3))),
        'forces_predicted': forces + rng.normal(scale=0.05, size=(n_atoms, 3)),
        'stress_reference': stress,
        'stress_predicted': stress + rng.normal(scale=0.01, size=(n_frames, 6)),
    }


def accumulated(columns: dict, chunks: int = 1) -> dict:
    """Return the metrics of the columns, streamed in chunks of frames."""
    accumulator = MetricsAccumulator()
    offsets = columns['offsets']
    for frames in np.array_split(np.arange(len(offsets) - 1), chunks):
        atoms = slice(offsets[frames[0]], offsets[frames[-1] + 1])
        per_frame = slice(frames[0], frames[-1] + 1)
        chunk = {key: values[per_frame] for key, values in columns.items()}
        chunk.update({key: columns[key][atoms] for key in ('numbers', 'forces_reference', 'forces_predicted')})
        chunk['offsets'] = offsets[frames[0] : frames[-1] + 2] - offsets[frames[0]]
        accumulator.add_frames(**chunk)
    return accumulator.metrics()


def assert_same(first, second):
    """Compare nested metrics up to rounding."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert list(first) == list(second)
        for key, value in first.items():
            assert_same(value, second[key])
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=1e-9, abs=1e-12)
    else:
        assert first == second


def plain(value) -> bool:
    """Say whether a value holds plain Python objects alone, all numbers finite."""
    if type(value) is dict:
        return all(type(key) is str and plain(entry) for key, entry in value.items())
    return type(value) in (str, int) or (type(value) is float and math.isfinite(value))


def test_known_errors_give_their_closed_forms():
    errors = summed([0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 0.0, 3.0]).errors('eV')
    # Errors 1, 0, -2, 0; the reference deviates from its mean by 5 in squares.
    assert (errors.n, errors.mae, errors.bias, errors.largest, errors.unit) == (4, 0.75, -0.25, 2.0, 'eV')
    assert errors.rmse == pytest.approx(math.sqrt(5 / 4))
    assert errors.r2 == pytest.approx(1 - 5 / 5)


def test_a_perfect_prediction_has_no_error_and_r2_of_one():
    reference = np.random.default_rng(0).normal(size=(50, 3))
    errors = summed(reference, reference).errors('eV/Å')
    assert (errors.mae, errors.rmse, errors.bias, errors.largest, errors.r2) == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_predicting_the_mean_has_r2_of_zero():
    reference = np.random.default_rng(0).normal(size=1000)
    errors = summed(reference, np.full(1000, reference.mean())).errors('eV')
    assert errors.r2 == pytest.approx(0.0, abs=1e-12)
    assert errors.rmse == pytest.approx(reference.std())


def test_a_worse_prediction_than_the_mean_has_negative_r2():
    assert summed([0.0, 1.0], [1.0, 0.0]).errors('eV').r2 == pytest.approx(-3.0)


@pytest.mark.parametrize('value', [0.1, -278858.123, 0.0])
def test_r2_of_a_constant_reference_is_undefined_whatever_rounding_does(value):
    total = ErrorSum()
    for size in (1, 3, 10):
        total.add(np.full(size, value), np.full(size, value + 0.5))
    errors = total.errors('eV')
    assert errors.r2 is None
    assert 'r2' not in errors.to_dict()
    assert errors.mae == pytest.approx(0.5)


def test_r2_of_one_component_is_undefined():
    assert summed([3.0], [3.5]).errors('eV').r2 is None


def test_a_spread_of_meV_on_energies_of_a_deep_core_keeps_its_digits():
    rng = np.random.default_rng(0)
    spread = rng.normal(scale=1e-3, size=30_000)
    error = rng.normal(scale=1e-4, size=30_000)
    reference = -278_858.0 + spread
    total = ErrorSum()
    for chunk in np.array_split(np.arange(30_000), 7):
        total.add(reference[chunk], reference[chunk] + error[chunk])
    expected = 1 - np.sum(error**2) / np.sum((spread - spread.mean()) ** 2)
    assert total.errors('eV/atom').r2 == pytest.approx(expected, abs=1e-6)
    # What the sums of squares alone would say: noise larger than the spread itself.
    naive = np.sum(reference**2) - np.sum(reference) ** 2 / 30_000
    assert abs(naive / np.sum((spread - spread.mean()) ** 2) - 1) > 0.1


@settings(deadline=None)
@given(arrays(np.float64, st.tuples(st.just(2), st.integers(2, 40)), elements=NUMBERS), st.integers(0, 40))
def test_any_split_of_any_numbers_agrees_with_numpy(pair, cut):
    reference, prediction = pair
    total, rest = summed(reference[:cut], prediction[:cut]), summed(reference[cut:], prediction[cut:])
    total.merge(rest)
    errors, error = total.errors('eV'), prediction - reference
    assert errors.n == len(error)
    assert errors.mae == pytest.approx(np.abs(error).mean(), abs=1e-9)
    assert errors.rmse == pytest.approx(np.sqrt((error**2).mean()), abs=1e-9)
    assert errors.bias == pytest.approx(error.mean(), abs=1e-9)
    assert errors.largest == np.abs(error).max()
    assert total.spread == pytest.approx(np.sum((reference - reference.mean()) ** 2), rel=1e-9, abs=1e-6)


def test_sums_are_independent_of_the_order_of_merging():
    rng = np.random.default_rng(2)
    parts = [summed(reference, reference + rng.normal(size=5)) for reference in rng.normal(size=(6, 5)) * 1e4]
    results = []
    for order in (range(6), reversed(range(6)), [3, 0, 5, 1, 4, 2]):
        total = ErrorSum()
        for number in order:
            total.merge(parts[number])
        results.append(total.errors('eV').to_dict())
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_merging_an_empty_sum_changes_nothing():
    total = summed([1.0, 2.0], [1.5, 2.5])
    before = vars(total).copy()
    total.merge(ErrorSum())
    assert vars(total) == before


def test_arrays_of_different_shape_are_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match=r'shape \(4, 3\) but the prediction \(3,\)'):
        summed(np.zeros((4, 3)), np.zeros(3))


def test_a_reference_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match='leave these frames out'):
        summed([1.0, float('nan')], [1.0, 1.0])


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 1e200])
def test_predictions_that_are_not_finite_are_counted_and_have_no_errors(value):
    total = summed([1.0, 2.0, 3.0], [1.0, value, 3.0])
    assert (total.n, total.n_not_finite) == (2, 1)
    with pytest.raises(ValueError, match='1 of 3 predictions are not finite'):
        total.errors('eV')


def test_nothing_added_has_no_errors():
    with pytest.raises(ValueError, match='nothing was added'):
        ErrorSum().errors('eV')


def test_the_metrics_of_two_frames_are_those_of_a_calculation_by_hand():
    accumulator = MetricsAccumulator()
    accumulator.add_frame(
        [82, 53], 'a', -10.0, -9.8, np.zeros((2, 3)), [[0.3, 0, 0], [0, 0, -0.6]], np.zeros(6), np.full(6, 0.01)
    )
    accumulator.add_frame([53], 'b', -3.0, -3.3, np.ones((1, 3)), np.ones((1, 3)))
    metrics = accumulator.metrics()
    assert (metrics['n_frames'], metrics['n_atoms'], metrics['state']) == (2, 3, 'finite')
    energy = metrics['energy_per_atom']
    # Per atom the errors are 0.1 and -0.3, the references -5 and -3.
    assert energy == {
        'n': 2,
        'mae': pytest.approx(0.2),
        'rmse': pytest.approx(math.sqrt(0.05)),
        'bias': pytest.approx(-0.1),
        'largest': pytest.approx(0.3),
        'r2': pytest.approx(1 - 0.1 / 2),
        'unit': 'eV/atom',
    }
    assert metrics['forces']['n'] == 9
    assert metrics['forces']['mae'] == pytest.approx(0.1)
    assert metrics['forces']['bias'] == pytest.approx(-0.3 / 9)
    assert metrics['stress'] == {
        'n': 6,
        'mae': pytest.approx(0.01),
        'rmse': pytest.approx(0.01),
        'bias': pytest.approx(0.01),
        'largest': pytest.approx(0.01),
        'unit': 'eV/Å³',
    }
    assert list(metrics['per_element']) == ['I', 'Pb']
    assert metrics['per_element']['Pb']['forces']['mae'] == pytest.approx(0.1)
    assert metrics['per_element']['I']['forces']['n'] == 6
    assert metrics['per_element']['I']['forces']['rmse'] == pytest.approx(math.sqrt(0.36 / 6))
    assert set(metrics['per_group']['a']) == {'energy_per_atom', 'forces', 'stress'}
    assert set(metrics['per_group']['b']) == {'energy_per_atom', 'forces'}
    assert metrics['per_group']['b']['energy_per_atom']['bias'] == pytest.approx(-0.3)


def test_frames_one_by_one_and_in_chunks_of_any_size_give_the_same_metrics():
    columns = dataset()
    whole = accumulated(columns)
    for chunks in (2, 5, 12):
        assert_same(accumulated(columns, chunks), whole)
    single = MetricsAccumulator()
    for number, (start, end) in enumerate(zip(columns['offsets'][:-1], columns['offsets'][1:], strict=True)):
        has_stress = not np.isnan(columns['stress_reference'][number]).any()
        single.add_frame(
            columns['numbers'][start:end],
            columns['groups'][number],
            columns['energy_reference'][number],
            columns['energy_predicted'][number],
            columns['forces_reference'][start:end],
            columns['forces_predicted'][start:end],
            columns['stress_reference'][number] if has_stress else None,
            columns['stress_predicted'][number] if has_stress else None,
        )
    assert_same(single.metrics(), whole)


def test_the_parts_add_up_to_the_whole():
    metrics = accumulated(dataset(40, seed=3))
    total = metrics['forces']
    for scope in ('per_element', 'per_group'):
        blocks = [blocks['forces'] for blocks in metrics[scope].values()]
        assert sum(block['n'] for block in blocks) == total['n'] == 3 * metrics['n_atoms']
        assert sum(block['n'] * block['rmse'] ** 2 for block in blocks) == pytest.approx(
            total['n'] * total['rmse'] ** 2
        )
        assert max(block['largest'] for block in blocks) == total['largest']
    assert metrics['stress']['n'] == 6 * (40 - 14)


def test_metrics_agree_with_numpy_on_flat_columns():
    columns = dataset(30, seed=5)
    metrics = accumulated(columns, 4)
    sizes = np.diff(columns['offsets'])
    error = (columns['energy_predicted'] - columns['energy_reference']) / sizes
    assert metrics['energy_per_atom']['rmse'] == pytest.approx(np.sqrt(np.mean(error**2)))
    lead = columns['numbers'] == 82
    difference = (columns['forces_predicted'] - columns['forces_reference'])[lead]
    assert metrics['per_element']['Pb']['forces']['mae'] == pytest.approx(np.abs(difference).mean())
    slab = np.repeat(np.array(columns['groups']) == 'slab', sizes)
    reference, predicted = columns['forces_reference'][slab], columns['forces_predicted'][slab]
    expected = 1 - np.sum((predicted - reference) ** 2) / np.sum((reference - reference.mean()) ** 2)
    assert metrics['per_group']['slab']['forces']['r2'] == pytest.approx(expected)


def test_metrics_are_plain_json():
    metrics = accumulated(dataset())
    assert plain(metrics)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_predictions_in_single_precision_are_compared_in_double():
    columns = dataset()
    columns['forces_predicted'] = columns['forces_predicted'].astype(np.float32)
    assert plain(accumulated(columns))


def test_a_diverged_prediction_is_named_where_it_is_and_nowhere_else():
    columns = dataset()
    columns['groups'] = ['bad', *['good'] * 11]
    columns['forces_predicted'][0] = [np.nan, np.inf, 0.1]
    columns['energy_predicted'][0] = np.nan
    metrics = accumulated(columns, 3)
    assert plain(metrics)
    assert metrics['state'] == 'not_finite'
    assert metrics['energy_per_atom'] == {'n': 12, 'n_not_finite': 1, 'unit': 'eV/atom'}
    assert metrics['forces'] == {'n': 3 * metrics['n_atoms'], 'n_not_finite': 2, 'unit': 'eV/Å'}
    assert set(metrics['per_group']['bad']['forces']) == {'n', 'n_not_finite', 'unit'}
    assert 'rmse' in metrics['per_group']['good']['forces']
    assert 'rmse' in metrics['stress']
    assert sum('n_not_finite' in blocks['forces'] for blocks in metrics['per_element'].values()) == 1


def test_a_missing_prediction_of_a_known_stress_is_a_failure():
    columns = dataset()
    columns['stress_predicted'][1] = np.nan
    metrics = accumulated(columns)
    assert metrics['state'] == 'not_finite'
    assert metrics['stress']['n_not_finite'] == 6


def test_stress_is_left_out_where_there_is_none():
    columns = dataset()
    columns['stress_reference'][:] = np.nan
    assert 'stress' not in accumulated(columns)
    columns = dataset() | {'stress_predicted': None}
    accumulator = MetricsAccumulator()
    accumulator.add_frames(**columns)
    assert 'stress' not in accumulator.metrics()


def test_dots_in_names_of_groups_become_underscores():
    columns = dataset()
    columns['groups'] = ['run.1', 'run_1', 'a.b.c', *['x'] * 9]
    assert set(accumulated(columns)['per_group']) == {'run_1', 'a_b_c', 'x'}


def test_no_frames_have_no_errors_but_a_structure():
    metrics = MetricsAccumulator().metrics()
    assert metrics['forces'] == {'n': 0, 'unit': 'eV/Å'}
    assert (metrics['n_frames'], metrics['state'], metrics['per_group']) == (0, 'finite', {})
    assert len(flat_rows(metrics)) == 2


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'offsets': [0, 1, 3]}, 'do not cut 4 atoms'),
        ({'offsets': [0, 0, 4]}, 'at least one atom'),
        ({'groups': ['a']}, '1 groups for 2 frames'),
        ({'energy_predicted': [1.0]}, 'energies have shape'),
        ({'forces_predicted': np.zeros((3, 3))}, 'forces have shape'),
        ({'stress_reference': np.zeros((2, 3, 3))}, 'a stress has shape'),
        ({'stress_predicted': np.zeros(6)}, 'a stress has shape'),
    ],
)
def test_columns_that_do_not_belong_together_are_refused_and_leave_the_sums_alone(change, sentence):
    columns = {
        'numbers': [82, 53, 53, 55],
        'offsets': [0, 2, 4],
        'groups': ['a', 'b'],
        'energy_reference': [1.0, 2.0],
        'energy_predicted': [1.0, 2.0],
        'forces_reference': np.zeros((4, 3)),
        'forces_predicted': np.zeros((4, 3)),
        'stress_reference': np.zeros((2, 6)),
        'stress_predicted': np.zeros((2, 6)),
    }
    accumulator = MetricsAccumulator()
    with pytest.raises(ValueError, match=sentence):
        accumulator.add_frames(**(columns | change))
    assert accumulator.metrics() == MetricsAccumulator().metrics()


def test_the_table_reads_in_meV_with_one_row_for_each_block():
    accumulator = MetricsAccumulator()
    accumulator.add_frame([82], 'a', 1.0, 1.0125, [[0, 0, 1.0]], [[0, 0, 1.03]])
    accumulator.add_frame([82], 'b', 2.0, 1.9875, [[0, 0, 2.0]], [[0, 0, float('nan')]])
    rows = flat_rows(accumulator.metrics())
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert rows == [
        ('all', 'energy per atom', '2', '12.5', '12.5', 'meV/atom', '0.9994'),
        ('all', 'forces', '6', '1 not finite', '–', 'meV/Å', '–'),
        ('element Pb', 'forces', '6', '1 not finite', '–', 'meV/Å', '–'),
        ('group a', 'energy per atom', '1', '12.5', '12.5', 'meV/atom', '–'),
        ('group a', 'forces', '3', '10', '17.32', 'meV/Å', '0.9987'),
        ('group b', 'energy per atom', '1', '12.5', '12.5', 'meV/atom', '–'),
        ('group b', 'forces', '3', '1 not finite', '–', 'meV/Å', '–'),
    ]


def test_errors_of_a_head_are_those_of_its_frames_alone():
    columns = dataset()
    heads = ['pbe' if index % 2 else 'r2scan.new' for index in range(12)]
    accumulator = MetricsAccumulator()
    accumulator.add_frames(**columns, heads=heads)
    found = accumulator.metrics()
    assert list(found['per_head']) == ['pbe', 'r2scan_new']
    sizes = np.diff(columns['offsets'])
    mine = np.array(heads) == 'pbe'
    error = columns['forces_predicted'] - columns['forces_reference']
    assert found['per_head']['pbe']['forces']['rmse'] == pytest.approx(
        np.sqrt(np.mean(error[np.repeat(mine, sizes)] ** 2))
    )
    energy = (columns['energy_predicted'] - columns['energy_reference']) / sizes
    assert found['per_head']['pbe']['energy_per_atom']['mae'] == pytest.approx(np.abs(energy[mine]).mean())
    assert {row[0] for row in flat_rows(found)} >= {'head pbe', 'head r2scan_new'}


def test_heads_that_are_not_given_are_not_told_apart():
    assert 'per_head' not in accumulated(dataset())
