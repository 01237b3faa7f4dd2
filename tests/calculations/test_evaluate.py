"""Evaluation jobs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


@pytest.fixture
def potential(run_job, training):
    outputs, _ = run_job(TrainCalculation, None, training=training, architecture='reference')
    return outputs['potential']


def test_metrics_are_the_errors_of_the_predictions(run_job, potential, validation):
    outputs, node = run_job(EvaluateCalculation, None, potential=potential, dataset=validation)
    assert node.is_finished_ok, node.exit_message
    metrics, predictions = outputs['metrics'].get_dict(), outputs['predictions']
    error = predictions.get_array('forces') - validation.frames.column('forces')
    assert metrics['forces']['rmse'] == pytest.approx(np.sqrt(np.mean(error**2)))
    assert metrics['forces']['mae'] == pytest.approx(np.mean(np.abs(error)))
    energy = (predictions.get_array('energy') - validation.frames.column('energy')) / 40
    assert metrics['energy_per_atom']['rmse'] == pytest.approx(np.sqrt(np.mean(energy**2)))
    stress = predictions.get_array('stress') - validation.frames.column('stress')
    assert metrics['stress']['mae'] == pytest.approx(np.mean(np.abs(stress)))
    assert set(metrics['per_element']) == {'Cs', 'Pb', 'I'}
    assert metrics['same_level'] is True
    assert metrics['microseconds_per_atom'] > 0


def test_the_predictions_are_those_of_the_potential_itself(run_job, potential, validation):
    outputs, _ = run_job(EvaluateCalculation, None, potential=potential, dataset=validation)
    atoms = validation[1].to_atoms(labels=False)
    atoms.calc = potential.calculator()
    assert outputs['predictions'].get_array('energy')[1] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert np.allclose(outputs['predictions'].get_array('forces')[40:80], atoms.get_forces(), atol=1e-9)


def test_metrics_are_found_by_queries(run_job, potential, validation):
    outputs, _ = run_job(EvaluateCalculation, None, potential=potential, dataset=validation)
    rmse = outputs['metrics']['forces']['rmse']
    query = orm.QueryBuilder()
    query.append(PotentialData, filters={'uuid': potential.uuid}, tag='potential', project='attributes.architecture')
    query.append(EvaluateCalculation, with_incoming='potential', tag='evaluation')
    filters = {'and': [{'attributes.forces.rmse': {'>': 0.99 * rmse}}, {'attributes.forces.rmse': {'<': 1.01 * rmse}}]}
    query.append(
        orm.Dict,
        with_incoming='evaluation',
        edge_filters={'label': 'metrics'},
        filters=filters,
        project='attributes.per_element.Pb.forces.mae',
    )
    assert query.all() == [['reference', outputs['metrics']['per_element']['Pb']['forces']['mae']]]


def test_a_stress_that_a_frame_does_not_have_is_no_error(run_job, potential, make_frames, level):
    from dataclasses import replace

    frames = make_frames(3, seed=4)
    frames[1] = replace(frames[1], stress=None)
    dataset = DatasetData.from_frames(frames, level).store()
    outputs, node = run_job(EvaluateCalculation, None, potential=potential, dataset=dataset)
    assert node.is_finished_ok, node.exit_message
    assert outputs['metrics']['stress']['n'] == 12


def test_a_selection_is_evaluated_in_its_own_order(run_job, potential, validation):
    picked = validation.select([2, 0]).store()
    whole, _ = run_job(EvaluateCalculation, None, potential=potential, dataset=validation)
    part, _ = run_job(EvaluateCalculation, None, potential=potential, dataset=picked)
    expected = whole['predictions'].get_array('energy')[[2, 0]]
    assert np.array_equal(part['predictions'].get_array('energy'), expected)


def unruly(tmp_path, way, elements=('Cs', 'Pb', 'I'), heads=('default',), levels=None):
    content = {'way': way, 'elements': list(elements), 'heads': list(heads) if len(heads) > 1 else []}
    (tmp_path / 'unruly.json').write_text(json.dumps({key: value for key, value in content.items() if value}))
    kind = {'architecture': 'unruly', 'elements': elements, 'cutoff': 5.0, 'heads': heads, 'levels': levels}
    return PotentialData(tmp_path, **kind).store()


def test_predictions_that_are_not_finite_have_their_own_exit_code(run_job, validation, tmp_path):
    outputs, node = run_job(EvaluateCalculation, None, potential=unruly(tmp_path, 'nan'), dataset=validation)
    assert node.exit_status == 530
    assert outputs['metrics']['state'] == 'not_finite'
    assert 'predictions' in outputs


def test_elements_are_checked_in_the_files_and_not_only_in_the_attributes(run_job, validation, tmp_path):
    potential = unruly(tmp_path, 'none')
    (tmp_path / 'unruly.json').write_text(json.dumps({'way': 'none', 'elements': ['Cs']}))
    lying = PotentialData(tmp_path, architecture='unruly', elements=['Cs', 'Pb', 'I'], cutoff=5.0).store()
    assert run_job(EvaluateCalculation, None, potential=potential, dataset=validation)[1].is_finished_ok
    _, node = run_job(EvaluateCalculation, None, potential=lying, dataset=validation)
    assert node.exit_status == 210
    assert 'knows only Cs' in node.exit_message


def test_elements_that_a_potential_does_not_know_are_refused_before_it_starts(run_job, validation, tmp_path):
    with pytest.raises(ValueError, match='the dataset holds I, Pb'):
        run_job(EvaluateCalculation, None, potential=unruly(tmp_path, 'none', ('Cs',)), dataset=validation)


def test_a_head_is_never_guessed(run_job, validation, tmp_path):
    potential = unruly(tmp_path, 'none', heads=('pbe', 'scan'))
    with pytest.raises(ValueError, match='several heads, pbe, scan'):
        run_job(EvaluateCalculation, None, potential=potential, dataset=validation)
    with pytest.raises(ValueError, match='no head `hse`'):
        run_job(EvaluateCalculation, None, potential=potential, dataset=validation, head='hse')


def test_frames_without_labels_are_refused(run_job, potential, make_frames):
    bare = DatasetData.from_frames(make_frames(1, labels=False)).store()
    with pytest.raises(ValueError, match='label it first'):
        run_job(EvaluateCalculation, None, potential=potential, dataset=bare)


def test_levels_are_not_mixed_into_one_number(run_job, potential, make_dataset, make_frames):
    other = DatasetData.from_frames(make_frames(1), {'labeller': 'test', 'functional': 'other'}).store()
    joined = DatasetData.concatenate([make_dataset(1).store(), other], heads=['pairs', 'other']).store()
    with pytest.raises(ValueError, match=r'mixes the levels.*select_head'):
        run_job(EvaluateCalculation, None, potential=potential, dataset=joined)


@pytest.fixture
def mixed(make_dataset, make_frames):
    """Return frames of two levels, in turns."""
    other = DatasetData.from_frames(make_frames(2, seed=5), OTHER).store()
    joined = DatasetData.concatenate([make_dataset(2).store(), other], heads=['pairs', 'other']).store()
    return joined.select([0, 2, 1, 3]).store()


OTHER = {'labeller': 'test', 'functional': 'other'}


def test_each_frame_is_predicted_by_the_head_that_it_carries(run_job, mixed, tmp_path):
    potential = unruly(tmp_path, 'none', heads=('pairs', 'other'), levels=mixed.levels)
    outputs, node = run_job(EvaluateCalculation, None, potential=potential, dataset=mixed)
    assert node.is_finished_ok, node.exit_message
    assert outputs['predictions'].get_array('energy').tolist() == [1.0, 2.0, 1.0, 2.0]
    assert (outputs['predictions'].get_array('forces').reshape(4, -1)[:, 0] == [1.0, 2.0, 1.0, 2.0]).all()
    assert outputs['results']['heads'] == {'pairs': 2, 'other': 2}
    metrics = outputs['metrics'].get_dict()
    assert (metrics['head'], metrics['same_level']) == (None, True)
    reference = mixed.frames.column('energy')[[1, 3]]
    assert metrics['per_head']['other']['energy_per_atom']['bias'] == pytest.approx(np.mean(2.0 - reference) / 40)


def test_a_head_that_the_potential_has_not_is_refused_before_it_starts(run_job, mixed, tmp_path):
    potential = unruly(tmp_path, 'none', heads=('pairs', 'third'))
    with pytest.raises(ValueError, match='none for the frames of other'):
        run_job(EvaluateCalculation, None, potential=potential, dataset=mixed)
    with pytest.raises(ValueError, match='which one head cannot all predict'):
        run_job(EvaluateCalculation, None, potential=potential, dataset=mixed, head='pairs')


def test_heads_of_one_name_but_another_level_are_refused_unless_they_are_meant(run_job, mixed, validation, tmp_path):
    potential = unruly(tmp_path, 'none', heads=('default', 'other'), levels={'default': Level.from_dict(OTHER)})
    with pytest.raises(ValueError, match=r"not of one level of theory.*with `head='default'`"):
        run_job(EvaluateCalculation, None, potential=potential, dataset=validation)
    outputs, node = run_job(EvaluateCalculation, None, potential=potential, dataset=validation, head='default')
    assert node.is_finished_ok, node.exit_message
    assert outputs['metrics']['same_level'] is False


def test_what_was_predicted_before_the_wall_time_ran_out_is_kept(run_job, make_dataset, tmp_path):
    dataset = make_dataset(60).store()
    options = {'max_wallclock_seconds': 2}
    outputs, node = run_job(EvaluateCalculation, options, potential=unruly(tmp_path, 'sluggish'), dataset=dataset)
    assert node.exit_status == 400
    done = outputs['results']['n_frames_done']
    assert 1 < done < 60
    assert f'{60 - done} of 60 frames were left' in node.exit_message
    assert f'dataset.select(slice({done}, None))' in node.exit_message
    assert np.isfinite(outputs['predictions'].get_array('energy')).sum() == done
    assert np.isfinite(outputs['predictions'].get_array('forces')[:, 0]).sum() == 40 * done
    assert 'metrics' not in outputs
    assert len(dataset.select(slice(done, None))) == 60 - done


def test_the_speed_is_measured_when_the_potential_is_warm(run_job, make_dataset, tmp_path):
    potential = unruly(tmp_path, 'sluggish')
    outputs, _ = run_job(EvaluateCalculation, None, potential=potential, dataset=make_dataset(4).store())
    assert outputs['metrics']['microseconds_per_atom'] == pytest.approx(0.1 / 40 * 1e6, rel=0.5)
    assert outputs['metrics']['speed_is_warm'] is True
    assert outputs['metrics']['peak_memory_mb'] > 10
    assert outputs['metrics']['device'] == 'cpu'
