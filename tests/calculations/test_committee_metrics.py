"""Committees of real evaluations."""

from __future__ import annotations

import json

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.analysis.committee import calibrate
from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.functions.committee import committee_metrics
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


@pytest.fixture(scope='module')
def kept():
    """Keep the evaluations for all tests."""
    return {}


@pytest.fixture
def committee(run_job, make_dataset, kept):
    """Return a test set and the predictions of three potentials that were trained on other frames each."""
    if not kept:
        dataset, members = make_dataset(3, seed=1).store(), {}
        for seed in (20, 21, 22):
            training = make_dataset(2, seed=seed).store()
            outputs, _ = run_job(TrainCalculation, None, training=training, architecture='reference')
            found, node = run_job(EvaluateCalculation, None, potential=outputs['potential'], dataset=dataset)
            assert node.is_finished_ok, node.exit_message
            members[f'seed_{seed}'] = found['predictions']
        kept |= {'dataset': dataset, 'members': members}
    return kept['dataset'], kept['members']


def test_mean_spread_and_errors_are_those_of_the_arrays(committee):
    dataset, members = committee
    found = committee_metrics(dataset, **members)
    energies = np.stack([node.get_array('energy') for node in members.values()])
    forces = np.stack([node.get_array('forces') for node in members.values()])
    arrays, metrics = found['committee'], found['metrics'].get_dict()
    assert np.allclose(arrays.get_array('energy'), energies.mean(axis=0))
    assert np.allclose(arrays.get_array('energy_spread'), energies.std(axis=0, ddof=1) / 40)
    spread = np.sqrt(forces.var(axis=0, ddof=1).mean(axis=1))
    assert np.allclose(arrays.get_array('forces_spread'), spread)
    assert np.allclose(arrays.get_array('largest_forces_spread'), spread.reshape(3, 40).max(axis=1))
    error = forces.mean(axis=0) - dataset.frames.column('forces')
    assert metrics['forces']['rmse'] == pytest.approx(np.sqrt(np.mean(error**2)))
    expected = calibrate(spread, error)
    assert metrics['spread']['forces']['scale'] == pytest.approx(expected.scale)
    assert metrics['spread']['forces']['spearman'] == pytest.approx(expected.spearman)
    iodine = dataset.frames.column('numbers') == 53
    assert metrics['spread']['forces']['per_element']['I']['rmse'] == pytest.approx(
        np.sqrt(np.mean(error[iodine] ** 2))
    )
    assert metrics['n_members'] == 3
    own = members['seed_21'].creator.outputs.metrics['forces']['rmse']
    assert metrics['members']['seed_21']['forces']['rmse'] == pytest.approx(own)
    assert found['metrics'].creator.inputs['seed_20'].creator.inputs.dataset.uuid == dataset.uuid


def test_a_committee_tells_heads_groups_and_levels_as_an_evaluation_does(committee):
    dataset, members = committee
    found = committee_metrics(dataset, **members)['metrics'].get_dict()
    one = members['seed_20'].creator.outputs.metrics.get_dict()
    of_the_machine = {'microseconds_per_atom', 'speed_is_warm', 'device', 'peak_memory_mb', 'peak_gpu_memory_mb'}
    assert set(one) - set(found) == of_the_machine
    for name in ('head', 'same_level', 'same_level_per_head'):
        assert found[name] == one[name]
    for name in ('per_head', 'per_group', 'per_element'):
        assert {key: set(block) for key, block in found[name].items()} == {
            key: set(block) for key, block in one[name].items()
        }
    assert found['same_level'] is True


def test_a_committee_of_another_level_than_the_labels_says_so(committee, make_frames, run_job):
    _, members = committee
    other = DatasetData.from_frames(make_frames(3, seed=1), {'labeller': 'test', 'functional': 'other'}).store()
    predictions = {
        name: run_job(EvaluateCalculation, None, potential=node.creator.inputs.potential, dataset=other)[0][
            'predictions'
        ]
        for name, node in list(members.items())[:2]
    }
    found = committee_metrics(other, **predictions)['metrics'].get_dict()
    assert found['same_level'] is False
    assert set(found['same_level_per_head'].values()) == {False}


def test_a_dataset_in_many_shards_is_read_bit_by_bit(committee):
    dataset, members = committee
    pieces = DatasetData.concatenate([dataset.select([index]).store() for index in range(3)]).store()
    assert pieces.content_hash == dataset.content_hash
    one, other = committee_metrics(dataset, **members), committee_metrics(pieces, **members)
    assert one['metrics']['spread']['forces']['scale'] == pytest.approx(other['metrics']['spread']['forces']['scale'])
    assert np.array_equal(one['committee'].get_array('forces'), other['committee'].get_array('forces'))


def test_what_is_no_committee_is_refused(committee, run_job, make_dataset):
    dataset, members = committee
    first, second, _ = members.values()
    with pytest.raises(ValueError, match='at least two members'):
        committee_metrics(dataset, one=first)
    again, _ = run_job(EvaluateCalculation, None, potential=first.creator.inputs.potential, dataset=dataset)
    with pytest.raises(ValueError, match='predictions of one potential'):
        committee_metrics(dataset, one=first, again=again['predictions'])
    with pytest.raises(ValueError, match='was evaluated on the dataset'):
        committee_metrics(make_dataset(3, seed=2).store(), one=first, two=second)
    with pytest.raises(ValueError, match='not the output `predictions`'):
        committee_metrics(dataset, one=first, two=orm.ArrayData({'energy': np.zeros(3)}))


def test_a_member_that_predicts_nan_is_refused(committee, run_job, tmp_path):
    dataset, members = committee
    (tmp_path / 'unruly.json').write_text(json.dumps({'way': 'nan', 'elements': ['Cs', 'Pb', 'I']}))
    kind = {'architecture': 'unruly', 'elements': ['Cs', 'Pb', 'I'], 'cutoff': 5.0}
    outputs, node = run_job(
        EvaluateCalculation, None, potential=PotentialData(tmp_path, **kind).store(), dataset=dataset
    )
    assert node.exit_status == 530
    with pytest.raises(ValueError, match='not finite'):
        committee_metrics(dataset, one=members['seed_20'], two=outputs['predictions'])
