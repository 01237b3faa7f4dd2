"""Labelling jobs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from aiida.manage.caching import enable_caching
from ase.build import bulk

from aiida_perovmlip.calculations.label import LabelCalculation
from aiida_perovmlip.data.dataset import DatasetData


def copper(count=3):
    frames = []
    for seed in range(count):
        atoms = bulk('Cu', cubic=True)
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    return frames


@pytest.fixture
def unlabelled(make_frames):
    def make(*groups):
        frames = make_frames(len(groups), labels=False)
        frames = [replace(frame, group=group) for frame, group in zip(frames, groups, strict=True)]
        return DatasetData.from_frames(frames).store()

    return make


def test_a_labeller_from_elsewhere_labels_all_frames_in_order(run_job):
    from ase.calculators.emt import EMT

    frames = DatasetData.from_ase(copper()).store()
    outputs, node = run_job(LabelCalculation, None, frames=frames, labeller='emt')
    assert node.is_finished_ok, node.exit_message
    dataset = outputs['dataset']
    assert dataset.level.labeller == 'emt'
    assert {frame.source for frame in dataset} == {node.uuid}
    for frame, atoms in zip(dataset, copper(), strict=True):
        atoms.calc = EMT()
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        assert np.array_equal(frame.positions, atoms.positions)
        assert np.allclose(frame.stress, atoms.get_stress())


def test_frames_that_fail_are_a_result_and_not_the_end(run_job, unlabelled):
    frames = unlabelled('good', 'raise', 'good', 'crash', 'nan', 'refuse')
    outputs, node = run_job(LabelCalculation, None, frames=frames, labeller='unruly')
    assert node.is_finished_ok, node.exit_message
    assert [entry['frame'] for entry in outputs['results']['failed']] == [1, 3, 4, 5]
    dataset = outputs['dataset']
    assert len(dataset) == 2
    assert np.array_equal(dataset[1].positions, frames[2].positions)


def test_labels_survive_a_job_that_is_killed(run_job, unlabelled):
    frames = unlabelled('slow', 'good', 'killjob', 'good')
    outputs, node = run_job(LabelCalculation, None, frames=frames, labeller='unruly')
    assert node.exit_status == 310
    assert len(outputs['dataset']) == 2
    assert outputs['dataset'].level.labeller == 'unruly'
    assert outputs['results']['n_labelled'] == 2


def test_no_label_at_all_is_a_failure(run_job, unlabelled):
    outputs, node = run_job(LabelCalculation, None, frames=unlabelled('raise'), labeller='unruly')
    assert node.exit_status == 500
    assert 'SCF not converged' in node.exit_message
    assert 'dataset' not in outputs
    assert outputs['results']['failed'][0]['frame'] == 0


def test_the_wall_time_keeps_what_was_labelled(run_job, unlabelled):
    frames = unlabelled(*['slow'] * 30)
    outputs, node = run_job(LabelCalculation, {'max_wallclock_seconds': 5}, frames=frames, labeller='unruly')
    assert node.exit_status == 400
    assert 0 < len(outputs['dataset']) < 30


def test_an_environment_without_the_package_is_no_matter_of_the_frames(run_job, unlabelled):
    _, node = run_job(LabelCalculation, None, frames=unlabelled('import', 'import'), labeller='unruly')
    assert node.exit_status == 320
    assert not node.base.caching.is_valid_cache


@pytest.mark.parametrize(('group', 'served'), [('import', False), ('crash', False), ('raise', True)])
def test_what_the_machine_did_is_never_served_from_the_cache(run_job, unlabelled, group, served):
    frames = unlabelled('good', group)
    outputs, node = run_job(LabelCalculation, None, frames=frames, labeller='unruly')
    assert node.is_finished_ok
    assert len(outputs['dataset']) == 1
    with enable_caching():
        _, again = run_job(LabelCalculation, None, frames=frames, labeller='unruly')
    assert (again.base.caching.get_cache_source() is not None) == served


def test_the_time_limit_of_a_frame_is_an_option(run_job, unlabelled):
    frames = unlabelled('good', 'hang')
    outputs, node = run_job(LabelCalculation, {'seconds_per_frame': 2.0}, frames=frames, labeller='unruly')
    assert node.is_finished_ok
    assert [entry['kind'] for entry in outputs['results']['failed']] == ['timeout']


@pytest.mark.parametrize(
    ('inputs', 'words'),
    [
        ({'labeller': 'gaussian'}, 'no labeller `gaussian`; installed are'),
        ({'settings': {'method': 'GFN3'}}, "one of 'GFN2-xTB', 'GFN1-xTB'"),
    ],
)
def test_what_no_job_could_do_is_refused_before_it_starts(run_job, unlabelled, inputs, words):
    with pytest.raises(ValueError, match=words):
        run_job(LabelCalculation, None, frames=unlabelled('good'), **inputs)
