"""Runs of several jobs: they are the run of one job, whatever ended each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk
from plumpy.process_states import Kill

from aiida_perovmlip.calculations.md import MdCalculation
from aiida_perovmlip.compute.architectures.reference import Reference
from aiida_perovmlip.compute.chunk import TrajectoryError
from aiida_perovmlip.compute.engines.ase import Ase
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import read_md_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.trajectory import TrajectoryData
from aiida_perovmlip.workflows.md import MdWorkChain, protocols

SHORT = {'steps': 60, 'timestep': 2.0, 'frames_every': 5, 'thermo_every': 5, 'temperature': 300.0}


@pytest.fixture
def start() -> DatasetData:
    """Return a small crystal as the dataset of one frame."""
    return DatasetData.from_frames([Frame.from_atoms(bulk('Cu', cubic=True) * (2, 1, 1))])


@pytest.fixture
def simulate(python_code: Any, copper_potential: Any, start: DatasetData) -> Any:
    """Return a function that runs a chain and returns its outputs and its node."""

    def run(settings=None, **inputs: Any) -> tuple[Any, Any]:
        builder = MdWorkChain.get_builder_from_protocol(
            python_code, copper_potential(), start, settings={**SHORT, **(settings or {})}, **inputs
        )
        return run_get_node(builder)

    return run


def legs_of(node: Any) -> list[orm.CalcJobNode]:
    return sorted((job for job in node.called if isinstance(job, orm.CalcJobNode)), key=lambda job: job.pk)


def test_a_run_in_segments_is_the_run_of_one_job(simulate):
    whole, node = simulate()
    assert node.is_finished_ok, node.exit_message
    assert whole['trajectory'].base.attributes.get('last_step') == 60
    assert len(whole['trajectory']) == 13
    parts, node = simulate(segment_steps=25)
    assert node.is_finished_ok, node.exit_message
    assert [leg['step'] for leg in parts['results']['legs']] == [25, 50, 60]
    assert parts['trajectory'].content_hash == whole['trajectory'].content_hash
    for name in ('temperature', 'pressure', 'potential_energy'):
        assert parts['results'][name] == whole['results'][name]
    assert parts['results']['effective'] == whole['results']['effective']
    assert (parts['results']['engine'], parts['results']['n_steps']) == ('ase', 60)
    assert parts['state'].base.attributes.get('step') == 60


def signalled(name: str, where: str, states: int) -> dict[str, Any]:
    """Return options by which a leg gets a signal once it has saved so many states, where a test of the shell holds."""
    return {
        'prepend_text': f"""
if {where}; then
    ( until [ -e checkpoint/{states:06d} ]; do sleep 0.01; done; pkill -{name} -P $$ -f compute.harness ) &
fi"""
    }


@pytest.mark.parametrize('keep_remote', [False, True])
def test_a_leg_that_is_killed_loses_no_frame_and_repeats_none(simulate, keep_remote):
    settings = {'steps': 100, 'ensemble': 'npt', 'save_every': 5}
    whole, node = simulate(settings)
    assert node.is_finished_ok, node.exit_message
    second = 'grep -qs \'"step": 40}\' state/about.json'
    options = {**signalled('KILL', second, 2), 'keep_remote': keep_remote}
    parts, node = simulate(settings, segment_steps=40, options=options)
    assert node.is_finished_ok, node.exit_message
    legs = parts['results']['legs']
    assert [leg['exit_status'] for leg in legs] == [0, 310, *[0] * (len(legs) - 2)]
    assert 45 <= legs[1]['step'] < 80
    assert [leg['begun_at_step'] for leg in legs] == [0, *(leg['step'] for leg in legs[:-1])]
    assert parts['trajectory'].is_remote == keep_remote
    assert parts['trajectory'].trajectory.steps().tolist() == list(range(0, 101, 5))
    assert parts['trajectory'].content_hash == whole['trajectory'].content_hash
    for name in ('temperature', 'pressure', 'volume'):
        assert parts['results'][name] == whole['results'][name]


def test_a_run_out_of_wall_time_goes_on_with_another_leg(simulate):
    first = '! test -e state'
    outputs, node = simulate({'steps': 60, 'save_every': 5}, options=signalled('TERM', first, 1))
    assert node.is_finished_ok, node.exit_message
    legs = outputs['results']['legs']
    assert [leg['exit_status'] for leg in legs] == [400, 0]
    assert 5 <= legs[0]['step'] < 60
    assert outputs['trajectory'].trajectory.steps().tolist() == list(range(0, 61, 5))


def test_a_run_that_ended_can_be_made_longer(simulate):
    whole, _ = simulate({'steps': 30})
    first, _ = simulate({'steps': 20})
    longer, node = simulate({'steps': 30}, state=first['state'])
    assert node.is_finished_ok, node.exit_message
    assert longer['trajectory'].trajectory.steps().tolist() == [25, 30]
    assert np.array_equal(longer['trajectory'].frame(-1).positions, whole['trajectory'].frame(-1).positions)


def test_an_explosion_ends_the_run_with_its_candidates(simulate):
    outputs, node = simulate({'max_force': 0.5, 'temperature': 600.0, 'steps': 1000})
    assert node.exit_status == 535
    assert 'The run exploded at step' in node.exit_message
    assert len(outputs['candidates']) > 0
    assert len(outputs['trajectory']) > 0
    assert len(outputs['results']['legs']) == 1


def test_legs_that_get_nowhere_are_not_repeated_for_ever(simulate):
    outputs, node = simulate(options={'prepend_text': 'exit 0'})
    assert node.exit_status == 440
    assert 'no further than step 0' in node.exit_message
    assert len(legs_of(node)) == 2
    assert 'trajectory' not in outputs


def test_steps_without_a_state_are_no_progress(simulate):
    """Else each leg would begin where the one before has begun, a hundred times."""
    options = {**signalled('TERM', 'true', 1), 'append_text': 'rm -r checkpoint'}
    _, node = simulate({'steps': 10**6, 'save_every': 5}, options=options, max_iterations=3)
    assert node.exit_status == 440, node.exit_message
    assert len(legs_of(node)) == 2


def test_no_more_legs_are_run_than_allowed(simulate):
    outputs, node = simulate(segment_steps=10, max_iterations=2)
    assert node.exit_status == 401
    assert 'The run is at step 20 after 2 legs' in node.exit_message
    assert outputs['trajectory'].base.attributes.get('last_step') == 20
    assert outputs['state'].base.attributes.get('step') == 20


def test_a_leg_that_cannot_start_ends_the_run_with_its_reason(simulate, monkeypatch):
    def fail(self, folder):
        raise OSError('the disk is full')

    monkeypatch.setattr(MdCalculation, 'prepare_for_submission', fail)
    _, node = simulate()
    assert node.exit_status == 301
    assert 'the disk is full' in node.exit_message


def test_a_leg_that_somebody_killed_is_not_started_again(simulate, monkeypatch):
    monkeypatch.setattr(MdCalculation, 'run', lambda self: Kill())
    _, node = simulate()
    assert node.exit_status == 302


def test_protocols_are_settings_that_make_a_run(python_code, copper_potential, start):
    for protocol, told in protocols().items():
        assert told['about'].endswith('.')
        for ensemble in ('nve', 'nvt', 'npt'):
            builder = MdWorkChain.get_builder_from_protocol(
                python_code, copper_potential(), start, protocol=protocol, settings={'ensemble': ensemble}
            )
            assert Ase().refusal(read_md_settings(builder.settings.get_dict()), Reference()) is None
    with pytest.raises(ValueError, match='has no protocol `slow`; there are fast, balanced, paper'):
        MdWorkChain.get_builder_from_protocol(python_code, copper_potential(), start, protocol='slow')


@pytest.mark.parametrize(
    ('inputs', 'words'),
    [
        ({'options': {'queue': 'fast'}}, "jobs have no option 'queue'"),
        ({'max_iterations': 0}, '`max_iterations` is 0'),
        ({'engine': 'abacus'}, 'there is no engine `abacus`'),
    ],
)
def test_what_no_job_could_do_is_refused_before_anything_runs(simulate, inputs, words):
    with pytest.raises(ValueError, match=words):
        simulate(**inputs)


def test_a_leg_is_not_started_twice_where_its_step_is_repeated(simulate, monkeypatch):
    """As where the daemon is killed behind the submission: the step runs again with the context of before."""
    launch = MdWorkChain.launch

    def twice(self):
        jobs, is_running = list(self.ctx.jobs), self.ctx.is_running
        launch(self)
        self.ctx.jobs, self.ctx.is_running = jobs, is_running
        self._awaitables.clear()
        return launch(self)

    monkeypatch.setattr(MdWorkChain, 'launch', twice)
    _, node = simulate(segment_steps=30)
    assert node.is_finished_ok, node.exit_message
    assert len(legs_of(node)) == 2


def test_legs_are_joined_once_where_the_last_step_is_repeated(simulate, monkeypatch):
    collect = MdWorkChain.collect

    def twice(self):
        collect(self)
        return collect(self)

    monkeypatch.setattr(MdWorkChain, 'collect', twice)
    outputs, node = simulate(segment_steps=30)
    assert node.is_finished_ok, node.exit_message
    functions = [each.process_label for each in node.called if isinstance(each, orm.CalcFunctionNode)]
    assert sorted(functions) == ['join_trajectories', 'summarize_run']
    assert outputs['trajectory'].creator.process_label == 'join_trajectories'


def test_legs_that_cannot_be_joined_are_told_and_kept(simulate, monkeypatch):
    def refuse(parts):
        raise TrajectoryError('there is a gap.')

    monkeypatch.setattr(TrajectoryData, 'join', refuse)
    _, node = simulate(segment_steps=30)
    assert node.exit_status == 402
    assert 'cannot be joined: there is a gap.' in node.exit_message
    assert all(len(leg.outputs.trajectory) for leg in legs_of(node))
