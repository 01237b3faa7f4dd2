"""The labelling chain, with real jobs of a labeller that misbehaves on request."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.calculations.functions.labels import cut_frames
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.query import repaired_labels


def jobs_of(node):
    return [child for child in node.called if isinstance(child, orm.CalcJobNode)]


def test_every_frame_gets_its_label_and_names_the_job_that_made_it(label, bare_frames):
    frames = bare_frames('a', 'b', 'c', 'd', 'e', seed=1)
    node = label(frames, batch_size=2, max_concurrent=2)
    assert node.is_finished_ok, node.exit_message
    dataset = node.outputs.dataset
    assert np.array_equal(dataset.frames.column('positions'), frames.frames.column('positions'))
    assert dataset.frames.column('group').tolist() == ['a', 'b', 'c', 'd', 'e']
    assert set(dataset.frames.column('source')) == {job.uuid for job in jobs_of(node)}
    assert len(jobs_of(node)) == 3
    assert node.outputs.failures['n_failed'] == 0
    assert node.outputs.results['n_labelled'] == 5


def test_one_bad_frame_never_stops_the_rest(label, bare_frames):
    frames = bare_frames('a', 'raise', 'b', 'refuse', 'c', seed=2)
    node = label(frames, batch_size=5, repair=False)
    assert node.is_finished_ok
    assert node.outputs.dataset.frames.column('group').tolist() == ['a', 'b', 'c']
    failures = node.outputs.failures['frames']
    assert [(row['frame'], row['kind'], row['group']) for row in failures] == [
        (1, 'failed', 'raise'),
        (3, 'refused', 'refuse'),
    ]
    assert 'SCF not converged' in failures[0]['reason']
    assert orm.load_node(failures[0]['process']).process_label == 'LabelCalculation'


def test_frames_that_fail_are_repaired_together_and_in_order(label, bare_frames):
    frames = bare_frames('a', 'sulk', 'sulk twice', 'b', 'raise', seed=3)
    node = label(frames, batch_size=5)
    assert node.outputs.dataset.frames.column('group').tolist() == ['a', 'sulk', 'sulk twice', 'b']
    assert node.outputs.results['repaired'] == {'1': 'soothe', '2': 'tame'}
    assert [row['repairs'] for row in node.outputs.failures['frames']] == [['soothe', 'tame']]
    first, *_, last = jobs = jobs_of(node)
    assert len(jobs) == 3
    told = repaired_labels([node])
    assert told[['frame', 'repair', 'n_failed']].values.tolist() == [[1, 'soothe', 1], [2, 'tame', 2]]
    assert told['failed_job'].tolist() == [first.pk] * 2
    assert told['job'].tolist() == [jobs[1].pk, last.pk]
    assert set(told['kind']) == {'failed'}
    assert all('SCF not converged' in reason for reason in told['reason'])


def test_a_repair_is_told_also_where_the_frames_had_been_cut_out_of_others(label, bare_frames):
    whole = bare_frames('b', 'a', 'sulk', seed=23).store()
    parts = cut_frames(whole, orm.Dict({'some': [1, 2]}))
    told = repaired_labels([label(parts['some'], batch_size=2)])
    assert told[['frame', 'repair', 'n_failed', 'kind']].values.tolist() == [[1, 'soothe', 1, 'failed']]


def test_identical_frames_at_an_identical_level_are_not_computed_again(label, bare_frames):
    first = label(bare_frames('a', 'b', seed=4), max_concurrent=1)
    node = label(bare_frames('b', 'a', 'c', 'x', seed=4), max_concurrent=1)
    assert len(jobs_of(node)) == 1
    assert len(jobs_of(node)[0].inputs.frames) == 2
    results = node.outputs.results.get_dict()
    assert (results['n_known'], results['n_labelled'], results['n_jobs']) == (2, 4, 1)
    sources = node.outputs.dataset.frames.column('source').tolist()
    assert sources[0] == sources[1] == jobs_of(first)[0].uuid
    assert node.outputs.dataset.frames.column('group').tolist() == ['b', 'a', 'c', 'x']


def test_a_frame_that_is_there_twice_is_computed_once(label, bare_frames):
    frames = bare_frames('a', 'b', seed=5)
    twice = DatasetData.from_frames([frames[0], frames[1], frames[0]])
    node = label(twice, max_concurrent=1)
    assert len(node.outputs.dataset) == 3
    assert len(jobs_of(node)[0].inputs.frames) == 2
    assert node.outputs.results['n_repeated'] == 1


def test_a_job_that_is_killed_gives_what_it_has_and_the_rest_goes_on(label, bare_frames):
    frames = bare_frames('a', 'killjob', 'b', 'c', seed=6)
    node = label(frames, batch_size=4)
    assert node.is_finished_ok
    assert node.outputs.dataset.frames.column('group').tolist() == ['a', 'b', 'c']
    (row,) = node.outputs.failures['frames']
    assert row['frame'] == 1
    assert row['kind'] == 'stopped'
    assert 'left no response' in row['reason']


def test_failures_that_are_of_the_machine_are_tried_again_alone(label, bare_frames):
    node = label(bare_frames('a', 'crash', 'b', seed=7), batch_size=3)
    assert len(node.outputs.dataset) == 2
    assert node.outputs.failures['frames'][0]['kind'] == 'crashed'
    assert len(jobs_of(node)) == 3


def test_a_broken_code_costs_a_few_jobs_and_no_frame(label, bare_frames, make_code, python_code):
    broken = make_code('broken', '/no/such/python')
    frames = bare_frames(*'abcdefghijkl', seed=8)
    node = label(frames, batch_size=1, max_concurrent=4, codes={'broken': broken, 'here': python_code})
    assert node.is_finished_ok
    assert len(node.outputs.dataset) == 12
    assert 2 <= len([job for job in jobs_of(node) if job.inputs.code.pk == broken.pk]) <= 4


def test_without_any_code_that_works_the_chain_says_so(label, bare_frames, make_code):
    frames = bare_frames(*'abcdef', seed=9)
    node = label(frames, batch_size=1, codes={'broken': make_code('broken', '/no/such/python')})
    assert node.exit_status == 430
    assert 'No such file' in node.exit_message
    assert {row['kind'] for row in node.outputs.failures['frames']} <= {'environment', 'stopped'}
    assert node.outputs.failures['n_failed'] == 6
    assert len(jobs_of(node)) <= 8


def test_without_any_label_the_chain_says_why(label, bare_frames):
    node = label(bare_frames('raise', 'refuse', seed=10))
    assert node.exit_status == 540
    assert 'SCF not converged' in node.exit_message
    assert 'dataset' not in node.outputs


def test_failed_frames_can_be_taken_up_with_the_next_repair(label, bare_frames):
    from aiida.engine import run_get_node

    from aiida_perovmlip.workflows.label import LabelWorkChain

    first = label(bare_frames('a', 'sulk twice', 'raise', 'refuse', seed=11), repair=False, max_concurrent=1)
    assert first.outputs.failures['n_failed'] == 3
    _, node = run_get_node(LabelWorkChain.retry_failed(first, repair=True))
    assert node.outputs.dataset.frames.column('group').tolist() == ['a', 'sulk twice']
    assert node.outputs.results['repaired'] == {'1': 'tame'}
    assert [len(job.inputs.frames) for job in jobs_of(node)] == [2, 2]
    rows = {row['group']: row for row in node.outputs.failures['frames']}
    assert rows['raise']['repairs'] == ['soothe', 'tame']
    _, last = run_get_node(LabelWorkChain.retry_failed(node))
    assert not jobs_of(last)
    assert 'There is no further repair' in last.outputs.failures['frames'][0]['reason']


@pytest.mark.parametrize(
    ('inputs', 'sentence'),
    [
        ({'labeller': 'no_such'}, 'there is no labeller'),
        ({'settings': {'no_such': 1}}, 'unknown setting'),
        ({'codes': {}}, 'there is no code'),
        ({'options_of': {'elsewhere': {}}}, 'elsewhere'),
        ({'max_concurrent': 0}, 'at least 1'),
        ({'batch_size': 0}, 'at least 1'),
    ],
)
def test_what_no_job_could_do_is_refused_at_once(label, bare_frames, inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        label(bare_frames('a'), **inputs)


def test_a_dry_run_counts_jobs_and_estimates_the_cost_from_those_that_were_done(bare_frames, python_code, make_frames):
    from aiida.engine import run_get_node

    from aiida_perovmlip.workflows.label import LabelWorkChain

    frames = bare_frames('a', 'slow', 'refuse', seed=12)
    inputs = {'batch_size': 2, 'settings': {'steps': 7}}
    builder = LabelWorkChain.get_builder_from_protocol('unruly', python_code, frames, **inputs)
    dry = LabelWorkChain.forecast(builder)
    assert (dry.n_frames, dry.n_todo, dry.n_jobs, dry.refused) == (3, 2, 1, {'it is marked so.': [2]})
    assert dry.formulas == {'Cs8Pb8I24': 2}
    assert dry.core_hours is None
    assert not frames.is_stored
    run_get_node(builder)
    again = LabelWorkChain.forecast(builder)
    assert (again.n_todo, again.n_known, again.core_hours) == (0, 2, 0.0)
    more = bare_frames('b', 'c', 'd', seed=13)
    later = LabelWorkChain.forecast(LabelWorkChain.get_builder_from_protocol('unruly', python_code, more, **inputs))
    assert later.n_jobs == 2
    assert later.n_measured == 1
    assert 0.5 / 2 * 3 / 3600 < later.core_hours < 10 / 3600
    assert 'core-hours' in str(later)
    with pytest.raises(ValueError, match='no protocol `paper`'):
        LabelWorkChain.get_builder_from_protocol('unruly', python_code, frames, protocol='paper')


def test_a_step_that_is_repeated_after_a_kill_does_not_mix_up_jobs(label, bare_frames, monkeypatch):
    """The book of before the launch is what AiiDA has stored; launching by it once more starts nothing new."""
    from aiida_perovmlip.workflows.label import LabelWorkChain

    launch = LabelWorkChain.launch

    def twice(self):
        before = self.ctx.ledger
        launch(self)
        after, self.ctx.ledger = self.ctx.ledger, before
        launch(self)
        assert self.ctx.ledger == after

    monkeypatch.setattr(LabelWorkChain, 'launch', twice)
    node = label(bare_frames('a', 'sulk', 'b', 'sulk twice', seed=16), batch_size=2, max_concurrent=2)
    assert node.outputs.dataset.frames.column('group').tolist() == ['a', 'sulk', 'b', 'sulk twice']
    assert node.outputs.results['repaired'] == {'1': 'soothe', '3': 'tame'}
    assert len(jobs_of(node)) == node.outputs.results['n_jobs'] == 4


def test_frames_that_crash_at_the_beginning_stop_no_others(label, bare_frames):
    groups = ['crash'] * 4 + ['a', 'b', 'c']
    node = label(bare_frames(*groups, seed=17), batch_size=1, max_concurrent=2)
    assert node.is_finished_ok
    assert node.outputs.dataset.frames.column('group').tolist() == ['a', 'b', 'c']
    assert [row['kind'] for row in node.outputs.failures['frames']] == ['crashed'] * 4


def test_identical_frames_fail_for_the_same_reason(label, bare_frames):
    frames = bare_frames('a', 'raise', seed=18)
    node = label(DatasetData.from_frames([frames[0], frames[1], frames[1]]), max_concurrent=1)
    rows = node.outputs.failures['frames']
    assert [row['frame'] for row in rows] == [1, 2]
    assert rows[0]['reason'] == rows[1]['reason']
    assert rows[0]['repairs'] == rows[1]['repairs'] == ['soothe', 'tame']


def test_what_has_a_label_keeps_it_in_a_retry_that_may_not_look_around(label, bare_frames):
    from aiida.engine import run_get_node

    from aiida_perovmlip.workflows.label import LabelWorkChain

    first = label(bare_frames('a', 'sulk', 'b', seed=19), repair=False, reuse=False, max_concurrent=1)
    _, node = run_get_node(LabelWorkChain.retry_failed(first, repair=True))
    assert len(node.outputs.dataset) == 3
    assert [len(job.inputs.frames) for job in jobs_of(node)] == [1]


def test_with_other_settings_everything_that_failed_is_tried_again(label, bare_frames):
    from aiida.engine import run_get_node

    from aiida_perovmlip.workflows.label import LabelWorkChain

    first = label(bare_frames('a', 'sulk', seed=20), repair=False)
    _, node = run_get_node(LabelWorkChain.retry_failed(first, settings={'steps': 5}, repair=True))
    assert [len(job.inputs.frames) for job in jobs_of(node)] == [1, 1]
    assert node.outputs.dataset.frames.column('group').tolist() == ['sulk']  # the other label is of another level
    assert node.outputs.failures['n_failed'] == 0


def test_a_frame_that_would_be_refused_does_not_come_in_by_reuse(label, bare_frames, monkeypatch):
    label(bare_frames('a', seed=21))
    frames = bare_frames('refuse', seed=21)
    node = label(frames)
    assert node.outputs.failures['frames'][0]['kind'] == 'refused'


def test_numbers_that_are_no_physics_fail_one_frame_and_not_its_job(label, bare_frames):
    node = label(bare_frames('a', 'huge', 'b', seed=22), batch_size=3, repair=False)
    assert len(node.outputs.dataset) == 2
    assert 'too large' in node.outputs.failures['frames'][0]['reason']
    assert len(jobs_of(node)) == 1


def test_a_job_that_cannot_be_submitted_is_a_failure_of_its_frames(label, bare_frames):
    node = label(bare_frames('a', 'b', seed=14), options={'seconds_per_frame': -1.0})
    assert node.exit_status == 540
    assert {row['kind'] for row in node.outputs.failures['frames']} == {'failed'}
    assert 'could not be submitted' in node.exit_message
    assert 'above 0' in node.exit_message


def test_a_frame_that_outlives_the_wall_time_is_listed_and_not_tried_forever(label, bare_frames):
    options = {'max_wallclock_seconds': 4}
    node = label(bare_frames('a', 'hang', seed=15), batch_size=2, options=options)
    assert node.outputs.dataset.frames.column('group').tolist() == ['a']
    assert node.outputs.failures['frames'][0]['kind'] == 'timeout'
    assert len(jobs_of(node)) == 2


def test_inputs_and_options_that_no_job_has_are_refused_at_once(label, bare_frames):
    with pytest.raises(ValueError, match="no input 'nonsense'"):
        label(bare_frames('a'), job={'nonsense': orm.Int(1)})
    with pytest.raises(ValueError, match='may not hold settings'):
        label(bare_frames('a'), job={'settings': orm.Dict({'steps': 9})})
    with pytest.raises(ValueError, match="no option 'no_such'"):
        label(bare_frames('a'), options={'no_such': 1})


def test_labels_of_another_level_are_never_collected(bare_frames, make_dataset):
    from aiida_perovmlip.calculations.functions.labels import collect_labels
    from aiida_perovmlip.data.dataset import LevelError

    with pytest.raises(LevelError, match='another level'):
        collect_labels(bare_frames('a'), orm.Dict({'labeller': 'x'}), orm.Dict({}), job_00001=make_dataset(1))
