"""One training to the end: what is repaired, what is not, and what the user is told."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from plumpy.process_states import Kill

from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.workflows.train import TrainWorkChain, reached_before


@pytest.fixture
def build(python_code, make_dataset):
    """Return a function that makes the builder of a chain."""

    def make(architecture='unruly', **inputs: Any) -> Any:
        training = inputs.pop('training', None) or make_dataset(4).store()
        return TrainWorkChain.get_builder_from_protocol(architecture, python_code, training, **inputs)

    return make


@pytest.fixture
def train(build):
    """Return a function that runs a chain and returns its outputs and its node."""

    def run(*arguments: Any, **inputs: Any) -> tuple[Any, Any]:
        return run_get_node(build(*arguments, **inputs))

    return run


def report_of(node: Any) -> str:
    return '\n'.join(log.message for log in orm.Log.collection.get_logs_for(node))


def test_a_training_without_trouble_is_one_leg(train, make_dataset):
    outputs, node = train('reference', validation=make_dataset(2, seed=1).store(), seed=3)
    assert node.is_finished_ok, node.exit_message
    (leg,) = outputs['results']['legs']
    assert leg['uuid'] == node.called[0].uuid
    assert outputs['potential'].creator.uuid == leg['uuid']
    assert outputs['results']['seconds_of_all_legs'] == pytest.approx(leg['seconds'], abs=0.01)
    assert outputs['results']['effective']['basis_size'] == 8
    job = next(child for child in node.called if isinstance(child, orm.CalcJobNode))
    assert job.inputs.seed == 3
    assert job.inputs.monitors.divergence['entry_point'] == 'perovmlip.divergence'


def test_a_training_out_of_wall_time_goes_on_where_it_stopped(train):
    options = {'max_wallclock_seconds': 4}
    outputs, node = train(settings={'way': 'slow', 'steps': 20}, options=options)
    assert node.is_finished_ok, node.exit_message
    legs = outputs['results']['legs']
    assert [leg['exit_status'] for leg in legs] == [400] * (len(legs) - 1) + [0]
    assert len(legs) > 1
    assert [leg['resumed'] for leg in legs] == [False] + [True] * (len(legs) - 1)
    reached = [leg['reached'] for leg in legs]
    assert reached == sorted(set(reached))
    assert outputs['curve'].get_array('step').tolist() == list(range(1, 21))
    assert f'goes on from step {reached[0]}' in report_of(node)
    assert outputs['results']['seconds_of_all_legs'] > 4


def test_a_job_that_was_killed_once_is_taken_up(train):
    outputs, node = train(settings={'way': 'die once', 'at': 3, 'steps': 4})
    assert node.is_finished_ok, node.exit_message
    assert [leg['exit_status'] for leg in outputs['results']['legs']] == [310, 0]
    assert outputs['results']['resumed_from_step'] == 2


def test_legs_that_get_nowhere_are_not_repeated_for_ever(train):
    outputs, node = train(settings={'way': 'kill', 'steps': 2})
    assert node.exit_status == 440
    assert 'no further than step 2' in node.exit_message
    assert 'Tried in 3 legs: taken up; taken up' in node.exit_message
    assert [leg['reached'] for leg in outputs['results']['legs']] == [2, 2, 2]
    assert 'potential' not in outputs
    assert 'remote_folder' in outputs


def test_progress_is_measured_from_where_the_training_was_last_begun_anew():
    def reached(*legs: tuple[int, bool]) -> int:
        return reached_before([{'reached': step, 'resumed': resumed} for step, resumed in legs])

    assert reached((5, False)) == 0
    assert reached((5, False), (9, True)) == 5
    assert reached((9, False), (5, True), (7, True)) == 9
    assert reached((80, False), (30, False)) == 0
    assert reached((80, False), (30, False), (60, True)) == 30


def test_batches_shrink_until_they_fit_and_steps_that_were_done_are_kept(train):
    outputs, node = train(settings={'batch_size': 8, 'fits': 2, 'at': 3, 'steps': 4})
    assert node.is_finished_ok, node.exit_message
    legs = outputs['results']['legs']
    assert [leg['changed'] for leg in legs] == [{}, {'batch_size': 4}, {'batch_size': 2}]
    assert outputs['results']['settings']['batch_size'] == 2
    assert outputs['results']['resumed_from_step'] == 2
    assert 'with `batch_size` 4' in report_of(node)


def test_a_checkpoint_that_takes_no_other_settings_is_left_behind(train):
    outputs, node = train(settings={'way': 'stubborn', 'batch_size': 2, 'fits': 1, 'at': 2})
    assert node.is_finished_ok, node.exit_message
    legs = outputs['results']['legs']
    assert [(leg['exit_status'], leg['resumed']) for leg in legs] == [(410, False), (210, True), (0, False)]
    assert outputs['results']['settings']['batch_size'] == 1


def test_memory_that_runs_out_at_once_begins_anew_and_at_last_is_said(train):
    _, node = train(settings={'way': 'memory', 'batch_size': 2, 'steps': 1})
    assert node.exit_status == 410
    assert 'There is no smaller batch. Tried in 2 legs: taken up with batch_size = 1.' in node.exit_message
    _, node = train(settings={'batch_size': 2, 'fits': 1})
    assert node.is_finished_ok
    assert [job.inputs.settings['batch_size'] for job in node.called if 'settings' in job.inputs] == [2, 1]
    assert not any('restart' in job.inputs for job in node.called)


def test_a_diverged_training_begins_anew_with_a_lower_rate_until_it_cannot_be_lowered(train):
    outputs, node = train(settings={'way': 'diverge', 'rate': 0.002})
    assert node.exit_status == 510
    assert 'begun anew with rate = 0.0002' in node.exit_message
    assert 'wrong labels' in node.exit_message
    assert not any('restart' in job.inputs for job in node.called)
    assert len(outputs['results']['legs']) == 2


def test_a_training_that_diverges_while_it_runs_is_stopped_early_and_succeeds_with_a_lower_rate(train):
    settings = {'rate': 0.1, 'stable': 0.05, 'steps': 12, 'pause': 1.0}
    outputs, node = train(settings=settings, monitor={'minimum_poll_interval': 1})
    assert node.is_finished_ok, node.exit_message
    first, second = outputs['results']['legs']
    assert first['exit_status'] == TrainCalculation.exit_codes.STOPPED_BY_MONITOR.status
    assert 'The training diverges: `loss` was' in first['message']
    assert first['reached'] < 12
    assert second['changed'] == {'rate': pytest.approx(0.01)}
    assert not second['resumed']


@pytest.mark.parametrize(
    ('way', 'status', 'words'),
    [
        ('import', 320, 'package_that_does_not_exist'),
        ('ignore', 520, 'asked 3, done 4'),
        ('forgets', 210, 'knows only Cs'),
        ('raise', 402, 'a fault of the program'),
    ],
)
def test_what_no_repair_can_help_stops_at_once(train, way, status, words):
    outputs, node = train(settings={'way': way, 'steps': 3})
    assert node.exit_status == status
    assert words in node.exit_message
    assert len(outputs['results']['legs']) == 1


def test_a_job_that_another_monitor_stopped_is_not_repaired(build):
    builder = build(settings={'steps': 20, 'pause': 1.0})
    builder.monitors = {'impatience': orm.Dict({'entry_point': 'unruly'})}
    _, node = run_get_node(builder)
    assert node.exit_status == 450
    assert 'It takes too long.' in node.exit_message


def test_a_leg_that_raised_in_the_daemon_ends_the_chain_with_the_reason(train, monkeypatch):
    def fail(self, folder):
        raise OSError('the disk is full')

    monkeypatch.setattr(TrainCalculation, 'prepare_for_submission', fail)
    _, node = train()
    assert node.exit_status == 301
    assert 'the disk is full' in node.exit_message


def test_a_leg_that_somebody_killed_is_not_started_again(train, monkeypatch):
    monkeypatch.setattr(TrainCalculation, 'run', lambda self: Kill())
    _, node = train()
    assert node.exit_status == 302
    assert 'was killed' in node.exit_message


def test_a_repair_that_spoils_the_settings_is_said(train):
    _, node = train(settings={'way': 'careless', 'fits': 1})
    assert node.exit_status == 210
    assert 'at least 1' in node.exit_message


def test_a_chain_that_cannot_submit_its_next_leg_leaves_what_it_has(train):
    outputs, node = train(settings={'way': 'careless', 'batch_size': 2, 'fits': 1, 'at': 3})
    assert node.exit_status == 210
    assert [leg['exit_status'] for leg in outputs['results']['legs']] == [410]
    assert outputs['curve'].get_array('step').tolist() == [1, 2]
    assert outputs['remote_folder'].uuid == node.called[0].outputs.remote_folder.uuid


def test_what_an_earlier_leg_has_left_stays_where_the_last_left_nothing(train, monkeypatch):
    prepare = TrainCalculation.prepare_for_submission

    def fail(self, folder):
        if 'restart' in self.inputs:
            raise OSError('the disk is full')
        return prepare(self, folder)

    monkeypatch.setattr(TrainCalculation, 'prepare_for_submission', fail)
    outputs, node = train(settings={'way': 'die once', 'at': 3, 'steps': 4})
    assert node.exit_status == 301
    first = min(child.pk for child in node.called if isinstance(child, orm.CalcJobNode))
    assert outputs['remote_folder'].uuid == orm.load_node(first).outputs.remote_folder.uuid
    assert outputs['curve'].get_array('step').tolist() == [1, 2]


def test_a_failure_that_nobody_knows_goes_on_from_the_newest_state_where_another_leg_is_wanted(train):
    outputs, node = train(settings={'way': 'raise', 'steps': 3}, on_unhandled_failure=orm.Str('restart_once'))
    assert node.exit_status == 402
    first, second = sorted((job for job in node.called if isinstance(job, orm.CalcJobNode)), key=lambda job: job.pk)
    assert 'restart' not in first.inputs
    assert second.inputs.restart.uuid == first.outputs.remote_folder.uuid
    assert [leg['resumed'] for leg in outputs['results']['legs']] == [False, True]
    assert 'goes on from step 3' in report_of(node)


def files_of(job: orm.CalcJobNode) -> list[str]:
    return orm.load_node(job.pk).outputs.remote_folder.listdir()


def test_folders_are_cleaned_where_the_potential_is_made_and_kept_where_somebody_may_go_on(train):
    _, node = train(settings={'steps': 2}, clean_workdir=orm.Bool(True))
    assert node.is_finished_ok
    assert next(job for job in node.called if isinstance(job, orm.CalcJobNode)).outputs.remote_folder.is_empty
    _, node = train(settings={'way': 'raise', 'steps': 2}, clean_workdir=orm.Bool(True))
    assert node.exit_status == 402
    assert 'checkpoint' in files_of(next(job for job in node.called if isinstance(job, orm.CalcJobNode)))
    assert 'the training can go on from these' in report_of(node)


def test_the_folder_of_a_leg_that_came_from_the_cache_is_left_to_the_job_that_ran(train):
    training = {'settings': {'steps': 2, 'rate': 0.07}}
    _, ran = train(**training)
    with enable_caching(identifier='aiida.calculations:perovmlip.train'):
        _, node = train(**training, clean_workdir=orm.Bool(True))
    job, clone = (next(job for job in each.called if isinstance(job, orm.CalcJobNode)) for each in (ran, node))
    assert clone.base.caching.is_created_from_cache
    assert 'checkpoint' in files_of(job)


def test_no_more_legs_are_run_than_allowed(train):
    settings = {'batch_size': 8, 'fits': 1}
    outputs, node = train(settings=settings, max_iterations=orm.Int(2))
    assert node.exit_status == 401
    assert 'not done after 2 legs' in node.exit_message
    assert 'begun anew with batch_size = 4' in node.exit_message
    assert len(outputs['results']['legs']) == 2


def test_a_leg_is_not_started_twice_where_its_step_is_repeated(train, monkeypatch):
    """As where the daemon is killed behind the submission: the step runs again with the context of before."""
    run = TrainWorkChain.run_process

    def twice(self):
        before = {name: self.ctx.get(name) for name in ('iteration', 'children')}
        run(self)
        self.ctx.iteration, self.ctx.children = before['iteration'], list(before['children'] or [])
        self._awaitables.clear()
        return run(self)

    monkeypatch.setattr(TrainWorkChain, 'run_process', twice)
    outputs, node = train(settings={'way': 'die once', 'at': 2, 'steps': 3})
    assert node.is_finished_ok, node.exit_message
    jobs = [child for child in node.called if isinstance(child, orm.CalcJobNode)]
    assert len(jobs) == len(outputs['results']['legs']) == 2


def test_a_protocol_that_is_not_there_is_refused_with_a_list(build):
    with pytest.raises(ValueError, match='unruly has no protocol `paper`; there are fast, long'):
        build(protocol='paper')
    assert build(protocol='long', settings={'way': 'slow'}).settings.get_dict() == {'steps': 5, 'way': 'slow'}
    assert build(protocol='long').settings.get_dict() == {'steps': 5}


@pytest.mark.parametrize(
    ('inputs', 'words'),
    [
        ({'options': {'queue': 'fast'}}, "jobs have no option 'queue'"),
        ({'settings': {'way': 7}}, 'has to be of type str'),
        ({'strategy': 'naive'}, 'needs a `parent`'),
    ],
)
def test_what_no_job_could_do_is_refused_before_anything_runs(train, inputs, words):
    with pytest.raises(ValueError, match=words):
        train(**inputs)
