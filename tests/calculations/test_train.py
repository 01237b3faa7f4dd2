"""Training jobs."""

from __future__ import annotations

import json
from zipfile import ZipFile

import numpy as np
import pytest
from aiida import orm
from aiida.manage.caching import enable_caching

from aiida_perovmlip.calculations.feasibility import problem_of_levels
from aiida_perovmlip.calculations.train import TrainCalculation, TrainMaceCalculation, _curve, reported_curve
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


@pytest.fixture
def train(run_job, training, validation):
    def run(architecture='reference', settings=None, options=None, **inputs):
        known = {
            'training': training,
            'validation': validation,
            'architecture': architecture,
            'settings': settings or {},
        }
        return run_job(TrainCalculation, options, **{**known, **inputs})

    return run


def test_a_training_gives_a_potential_a_curve_and_what_was_really_done(train, training):
    outputs, node = train(settings={'cutoff': 4.5})
    assert node.is_finished_ok, node.exit_message
    potential = outputs['potential']
    assert isinstance(potential, PotentialData)
    assert potential.elements == ['Cs', 'I', 'Pb']
    assert potential.cutoff == 4.5
    assert potential.levels['default'].fingerprint == training.level.fingerprint
    assert outputs['results']['effective']['cutoff'] == 4.5
    assert outputs['results']['settings']['basis_size'] == 8
    assert outputs['curve'].get_array('validation_forces_rmse').shape == (1,)
    assert node.process_label == 'Train<reference>'
    names = outputs['retrieved'].base.repository.list_object_names()
    assert {'response.json', 'progress.jsonl', 'job.log'} <= set(names)
    assert 'potential' not in names


def test_the_same_inputs_give_the_same_potential(train):
    runs = [train() for _ in range(2)]
    first, second = (outputs['potential'] for outputs, _ in runs)
    assert first.uuid != second.uuid
    assert first.content_hash == second.content_hash
    assert first.base.caching.compute_hash() == second.base.caching.compute_hash()
    sources = {node.base.repository.get_object('sources.zip').key for _, node in runs}
    assert len(sources) == 1  # the repository has one copy of them


def test_what_ran_can_be_read_in_the_job(train):
    _, node = train()
    repository = node.base.repository
    assert sorted(repository.list_object_names()) == ['.aiida', '_aiidasubmit.sh', 'request.json', 'sources.zip']
    assert '"seed": 0' in repository.get_object_content('request.json')
    with repository.open('sources.zip', 'rb') as handle, ZipFile(handle) as packed:
        assert b'class Reference' in packed.read('aiida_perovmlip/compute/architectures/reference.py')


@pytest.mark.parametrize(
    ('way', 'status', 'words'),
    [
        ('kill', 310, 'no response'),
        ('memory', 410, 'out of memory'),
        ('raise', 420, 'a fault of the program'),
        ('import', 320, 'package_that_does_not_exist'),
        ('converge', 500, 'did not converge'),
        ('diverge', 510, 'not a finite number'),
        ('ignore', 520, 'asked 3, done 4'),
        ('forgets', 210, 'knows only Cs'),
    ],
)
def test_every_failure_has_its_exit_code_and_keeps_the_log(train, way, status, words):
    outputs, node = train('unruly', {'way': way})
    assert node.exit_status == status
    assert words in node.exit_message
    assert 'potential' not in outputs
    assert 'progress.jsonl' in outputs['retrieved'].base.repository.list_object_names()
    if way == 'diverge':
        assert np.isnan(outputs['curve'].get_array('loss')).all()
    if way == 'kill':
        assert outputs['curve'].get_array('step').tolist() == [1, 2, 3]


def test_the_wall_time_is_passed_into_the_program(train):
    _, node = train('unruly', {'way': 'slow', 'steps': 200}, {'max_wallclock_seconds': 2})
    assert node.exit_status == 400
    assert 'stopped at step' in node.exit_message


def test_an_environment_that_is_not_there_is_said_so(train, make_code):
    _, node = train(code=make_code('nowhere', '/no/such/python'))
    assert node.exit_status == 310
    assert '/no/such/python' in node.exit_message


def test_a_missing_package_comes_with_advice(train, training, validation, run_job):
    _, node = run_job(TrainMaceCalculation, None, training=training, validation=validation, settings={'batch_size': 1})
    assert node.exit_status == 320
    assert 'has no mace-torch' in node.exit_message
    assert 'aiida-perovmlip setup --with mace' in node.exit_message


@pytest.mark.parametrize(
    ('inputs', 'words'),
    [
        ({'architecture': 'nothing'}, 'no architecture `nothing`; installed are'),
        ({'settings': {'cutof': 3.0}}, "unknown setting 'cutof'"),
        ({'settings': {'cutoff': 0.1}}, 'at least 1.0 Å'),
        ({'architecture': 'mace', 'settings': {'batch_size': 99}}, 'only 8 training frames'),
    ],
)
def test_what_no_job_could_do_is_refused_before_it_starts(train, inputs, words):
    with pytest.raises(ValueError, match=words):
        train(**inputs)


def test_mace_is_not_trained_without_a_validation_set(run_job, training):
    with pytest.raises(ValueError, match='validation set'):
        run_job(TrainMaceCalculation, None, training=training)


def test_a_class_of_one_architecture_trains_no_other(run_job, training):
    with pytest.raises(ValueError, match='this class trains `mace`'):
        run_job(TrainMaceCalculation, None, training=training, architecture='reference')


def test_unlabelled_frames_are_refused(train, make_frames):
    from aiida_perovmlip.data.dataset import DatasetData

    with pytest.raises(ValueError, match='no energy and no forces'):
        train(training=DatasetData.from_frames(make_frames(2, labels=False)).store())


def test_levels_are_not_mixed(train, make_frames):
    from aiida_perovmlip.data.dataset import DatasetData

    other = DatasetData.from_frames(make_frames(2), {'labeller': 'test', 'functional': 'other'}).store()
    with pytest.raises(ValueError, match='mix 2 levels of theory'):
        train(validation=other)


def test_a_parent_has_to_be_of_the_same_architecture_and_know_the_elements(train, tmp_path):
    (tmp_path / 'a').write_text('a')
    facts = {'cutoff': 5.0, 'n_parameters': 1}
    springs = PotentialData(tmp_path, architecture='springs', elements=['Cs', 'Pb', 'I'], **facts).store()
    with pytest.raises(ValueError, match='a potential of `springs`'):
        train(parent=springs)
    small = PotentialData(tmp_path, architecture='reference', elements=['Cs'], **facts).store()
    with pytest.raises(ValueError, match='does not know I, Pb'):
        train(parent=small)


def test_identical_inputs_hit_the_cache(train):
    first, _ = train()
    with enable_caching(identifier='aiida.calculations:perovmlip.train'):
        again, node = train()
    assert node.base.caching.is_created_from_cache
    assert again['potential'].content_hash == first['potential'].content_hash


def test_an_edited_task_is_never_served_an_old_result(train, monkeypatch, tmp_path):
    from aiida_perovmlip.calculations import base

    train()
    sources = base.job_sources

    def edited(task, plugins):
        found = sources(task, plugins)
        path = 'aiida_perovmlip/compute/tasks/train.py'
        if path in found:
            (tmp_path / 'train.py').write_text(found[path].read_text() + '\n# edited\n')
            found[path] = tmp_path / 'train.py'
        return found

    monkeypatch.setattr(base, 'job_sources', edited)
    with enable_caching(identifier='aiida.calculations:perovmlip.train'):
        _, node = train()
        assert not node.base.caching.is_created_from_cache
        _, node = train()
        assert node.base.caching.is_created_from_cache


def test_another_architecture_may_change_without_touching_the_cache():
    from aiida_perovmlip.calculations.sources import job_sources
    from aiida_perovmlip.compute import registry

    task = registry.reference('tasks', 'train')
    assert not any('mace' in path for path in job_sources(task, [registry.reference('architectures', 'reference')]))


def test_failed_jobs_are_not_served_from_the_cache(train):
    train('unruly', {'way': 'raise'})
    with enable_caching(identifier='aiida.calculations:perovmlip.train'):
        _, node = train('unruly', {'way': 'raise'})
    assert not node.base.caching.is_created_from_cache


def test_the_number_of_cores_comes_from_the_resources(train):
    resources = {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': 2}
    _, node = train(options={'resources': resources})
    assert '"cores": 2' in node.base.repository.get_object_content('request.json')


def test_a_fourth_architecture_from_elsewhere_trains_like_our_own(train):
    outputs, node = train('springs')
    assert node.is_finished_ok, node.exit_message
    assert outputs['potential'].architecture == 'springs'
    assert isinstance(orm.load_node(outputs['potential'].pk), PotentialData)


def test_a_run_that_ran_out_of_time_is_taken_up_once_and_no_finished_one(train):
    settings = {'way': 'slow', 'steps': 30}
    outputs, node = train('unruly', settings, options={'max_wallclock_seconds': 3})
    assert node.exit_status == 400
    stopped = outputs['results']['checkpoint_step']
    assert 0 < stopped < 30
    assert len(outputs['curve'].get_array('loss')) == stopped
    outputs, node = train('unruly', settings, restart=outputs['remote_folder'])
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['resumed_from_step'] == stopped
    assert outputs['curve'].get_array('step').tolist() == list(range(1, 31))
    outputs, node = train('unruly', settings, restart=outputs['remote_folder'])
    assert node.exit_status == 210
    assert 'there is nothing to take up' in node.exit_message


def test_the_checkpoint_of_another_training_is_refused(train, make_dataset):
    outputs, _ = train('unruly', {'way': 'slow', 'steps': 30}, options={'max_wallclock_seconds': 3})
    other = make_dataset(8, seed=5).store()
    _, node = train('unruly', {'steps': 2}, restart=outputs['remote_folder'], training=other)
    assert node.exit_status == 210
    assert 'is of another training' in node.exit_message


def test_a_strategy_that_does_not_fit_is_refused_before_submission(train):
    with pytest.raises(ValueError, match='needs a `parent`'):
        train(strategy='naive')
    with pytest.raises(ValueError, match='there is no strategy `wild`'):
        train(strategy='wild')


def test_a_parent_is_trained_on_by_default(train):
    parent = train()[0]['potential']
    outputs, node = train(parent=parent)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['strategy'] == 'naive'
    assert outputs['potential'].content_hash != ''
    request = json.loads(node.base.repository.get_object_content('request.json'))
    assert request['settings']['has_level_of_parent'] is True


def test_a_head_of_any_name_has_its_column_in_the_curve():
    curve = _curve([{'step': 1, 'validation_forces_rmse__PBE-D3': 0.1}])
    assert curve.get_array('validation_forces_rmse__PBE_D3').tolist() == [0.1]


def test_steps_that_a_job_did_again_after_its_scheduler_had_put_it_back_count_once():
    states = [
        {'step': step, 'loss': loss, 'of': 4} for step, loss in [(1, 3.0), (2, 2.0), (3, 1.9), (3, 1.0), (4, 0.5)]
    ]
    states.insert(3, {'what': 'starting'})
    assert reported_curve(states) == [
        {'step': step, 'loss': loss} for step, loss in [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.5)]
    ]


def test_validation_frames_of_another_level_are_refused_before_submission(train, training, make_frames):
    other = DatasetData.from_frames(make_frames(3, seed=1), {'labeller': 'vasp', 'functional': 'HSE06'}).store()
    with pytest.raises(ValueError, match='mix 2 levels of theory'):
        train(validation=other)
    assert 'that the training dataset has not' in problem_of_levels(training, other)
