"""Labelling with a stored potential as teacher."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.calculations.label import LabelCalculation, level_of
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


@pytest.fixture
def potential(run_job, training):
    outputs, _ = run_job(TrainCalculation, None, training=training, architecture='reference')
    return outputs['potential']


@pytest.fixture
def unlabelled(make_frames):
    return DatasetData.from_frames(make_frames(4, seed=5, labels=False)).store()


def unruly(tmp_path, elements=('Cs', 'Pb', 'I'), heads=('default',), way='none'):
    (tmp_path / 'unruly.json').write_text(json.dumps({'way': way, 'elements': ['Cs', 'Pb', 'I']}))
    return PotentialData(tmp_path, architecture='unruly', elements=elements, cutoff=5.0, heads=heads).store()


def test_labels_are_the_predictions_of_the_potential(run_job, potential, unlabelled):
    outputs, node = run_job(LabelCalculation, None, frames=unlabelled, labeller='potential', potential=potential)
    assert node.is_finished_ok, node.exit_message
    assert len(outputs['dataset']) == 4
    for frame in outputs['dataset']:
        atoms = frame.to_atoms(labels=False)
        atoms.calc = potential.calculator()
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert np.allclose(frame.forces, atoms.get_forces(), atol=1e-9)
        assert np.allclose(frame.stress, atoms.get_stress(), atol=1e-9)


def test_the_level_is_the_files_of_the_potential_and_the_head(run_job, potential, unlabelled):
    outputs, _ = run_job(LabelCalculation, None, frames=unlabelled, labeller='potential', potential=potential)
    level = outputs['dataset'].level
    assert (level.labeller, level.functional) == ('potential', 'reference')
    assert level.details == {'content_hash': potential.content_hash, 'head': 'default'}
    assert outputs['results']['level']['fingerprint'] == level.fingerprint
    assert level == level_of('potential', {'head': 'default'}, potential)


def test_a_frame_with_an_element_that_the_potential_does_not_know_is_refused_alone(run_job, potential, make_frames):
    frames = make_frames(3, labels=False)
    numbers = frames[1].numbers.copy()
    numbers[2] = 35
    frames[1] = replace(frames[1], numbers=numbers)
    dataset = DatasetData.from_frames(frames).store()
    outputs, node = run_job(LabelCalculation, None, frames=dataset, labeller='potential', potential=potential)
    assert node.is_finished_ok
    assert len(outputs['dataset']) == 2
    (failed,) = outputs['results']['failed']
    assert (failed['frame'], failed['kind']) == (1, 'refused')
    assert failed['reason'] == 'the frame holds Br, but the potential knows only Cs, I, Pb.'


def test_the_elements_are_those_in_the_files_whatever_the_attributes_say(run_job, make_frames, tmp_path):
    frame = make_frames(1, labels=False)[0]
    dataset = DatasetData.from_frames([replace(frame, numbers=np.full(40, 35))]).store()
    lying = unruly(tmp_path, elements=('Br', 'Cs'))
    outputs, node = run_job(LabelCalculation, None, frames=dataset, labeller='potential', potential=lying)
    assert node.exit_status == 500
    assert 'knows only Cs, Pb, I' in outputs['results']['failed'][0]['reason']


def test_heads_that_are_not_in_the_files_are_a_bad_input(run_job, unlabelled, tmp_path):
    lying = unruly(tmp_path, heads=('pbe', 'scan'))
    inputs = {'labeller': 'potential', 'potential': lying, 'settings': {'head': 'scan'}}
    _, node = run_job(LabelCalculation, None, frames=unlabelled, **inputs)
    assert node.exit_status == 210
    assert 'no head `scan`; it has default' in node.exit_message


def test_predictions_that_are_not_finite_are_no_labels(run_job, unlabelled, tmp_path):
    inputs = {'labeller': 'potential', 'potential': unruly(tmp_path, way='nan')}
    outputs, node = run_job(LabelCalculation, None, frames=unlabelled, **inputs)
    assert node.exit_status == 500
    assert 'dataset' not in outputs
    assert 'not finite' in node.exit_message


def test_a_potential_that_cannot_be_opened_fails_with_its_own_words(run_job, unlabelled, tmp_path):
    (tmp_path / 'unruly.json').write_text('not json')
    broken = PotentialData(tmp_path, architecture='unruly', elements=['Cs', 'Pb', 'I'], cutoff=5.0).store()
    outputs, node = run_job(LabelCalculation, None, frames=unlabelled, labeller='potential', potential=broken)
    assert node.exit_status == 420
    assert 'JSONDecodeError' in node.exit_message
    assert 'dataset' not in outputs


def test_what_no_job_could_do_is_refused_before_it_starts(run_job, unlabelled, potential, tmp_path):
    def refusal(**inputs):
        with pytest.raises(ValueError, match=r'.') as error:
            run_job(LabelCalculation, None, frames=unlabelled, **inputs)
        return str(error.value)

    assert 'pass one as `potential`' in refusal(labeller='potential')
    assert 'tblite` computes by itself' in refusal(labeller='tblite', potential=potential)
    assert 'no head `scan`' in refusal(labeller='potential', potential=potential, settings={'head': 'scan'})
    two = unruly(tmp_path, heads=('pbe', 'scan'))
    assert 'several heads, pbe, scan' in refusal(labeller='potential', potential=two)


def test_a_potential_of_an_architecture_that_is_not_installed_is_refused(run_job, unlabelled, tmp_path):
    (tmp_path / 'file').write_text('x')
    strange = PotentialData(tmp_path, architecture='strange', elements=['Cs', 'Pb', 'I'], cutoff=5.0).store()
    with pytest.raises(ValueError, match='no architecture `strange`'):
        run_job(LabelCalculation, None, frames=unlabelled, labeller='potential', potential=strange)
