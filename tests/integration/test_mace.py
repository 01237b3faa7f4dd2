"""Real MACE trainings, as small as they can be."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.train import TrainMaceCalculation
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData

pytestmark = pytest.mark.slow

TINY = {
    'hidden_irreps': '4x0e',
    'max_ell': 1,
    'correlation': 1,
    'readout_irreps': '4x0e',
    'radial_mlp': [8],
    'epochs': 3,
}


@pytest.fixture
def train(plugin_code, make_dataset):
    code = plugin_code('mace')
    training, validation = make_dataset(6, seed=10).store(), make_dataset(2, seed=11).store()

    def run(settings=None, options=None, **inputs):
        builder = TrainMaceCalculation.get_builder()
        builder.code, builder.training, builder.validation = code, training, validation
        builder.settings = {**TINY, 'batch_size': 2, **(settings or {})}
        for name, value in inputs.items():
            setattr(builder, name, value)
        for name, value in (options or {}).items():
            setattr(builder.metadata.options, name, value)
        return run_get_node(builder)

    return run


@pytest.fixture(scope='module')
def kept():
    """Keep a trained potential for the tests that need one."""
    return {}


@pytest.fixture
def predict(plugin_code):
    def run(potential, dataset):
        builder = EvaluateCalculation.get_builder()
        builder.code, builder.potential, builder.dataset = plugin_code('mace'), potential, dataset.store()
        outputs, node = run_get_node(builder)
        assert node.is_finished_ok, node.exit_message
        return outputs['predictions'], outputs['metrics'].get_dict()

    return run


@pytest.fixture
def parent(kept):
    if 'potential' not in kept:
        pytest.skip('the training of the test before failed')
    return orm.load_node(kept['potential'])


def test_equal_trainings_give_equal_bytes_and_tell_what_was_done(train, kept):
    first, node = train(seed=3)
    assert node.is_finished_ok, node.exit_message
    second, _ = train(seed=3)
    assert first['potential'].content_hash == second['potential'].content_hash
    effective = first['results']['effective']
    assert effective['epochs'] == 3
    assert effective['r_max'] == 5.0
    assert {**effective, **TINY, 'batch_size': 2} == effective
    unsaid = {name for name, value in first['results']['settings'].items() if value is None}
    assert set(first['results']['settings']) - set(effective) <= unsaid
    assert (effective['strategy'], effective['best_step']) == ('scratch', 3)
    assert (effective['atomic_energies'], effective['stress_weight']) == ('average', 10.0)
    assert effective['learning_rate'] == 0.01
    assert first['potential'].heads == ['Default']
    assert np.isfinite(first['curve'].get_array('validation_forces_rmse')).all()
    assert 'trainer.log' in first['retrieved'].base.repository.list_object_names()
    kept['potential'] = first['potential'].uuid


def test_its_predictions_are_those_that_the_trainer_saw(parent, predict):
    training = parent.creator
    _, metrics = predict(parent, training.inputs.validation)
    best = np.nanmin(training.outputs.curve.get_array('validation_loss'))
    step = training.outputs.curve.get_array('validation_loss').tolist().index(best)
    seen = training.outputs.curve.get_array('validation_forces_rmse')[step]
    assert metrics['forces']['rmse'] == pytest.approx(seen, rel=1e-3)


def test_forces_and_stress_are_slopes_of_the_energy_which_a_rotation_leaves(parent, predict, make_frames, level):
    frame, step = make_frames(1, seed=20)[0], 1e-3
    atom, axis = 7, 1
    moved = [frame.positions + sign * step * np.eye(3)[axis] * (np.arange(40) == atom)[:, None] for sign in (1, -1)]
    shear = [np.eye(3) + sign * step * np.array([[0, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]) for sign in (1, -1)]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    copies = [frame, *(replace(frame, positions=positions) for positions in moved)]
    copies += [
        replace(frame, positions=frame.positions @ matrix, cell=frame.cell @ matrix) for matrix in (*shear, rotation)
    ]
    predictions, _ = predict(parent, DatasetData.from_frames(copies, level))
    energy, stress = predictions.get_array('energy'), predictions.get_array('stress')
    forces = predictions.get_array('forces').reshape(6, 40, 3)
    assert np.abs(forces[0]).max() > 1e-3
    assert np.abs(stress[0]).max() > 1e-5
    assert forces[0, atom, axis] == pytest.approx(-(energy[1] - energy[2]) / (2 * step), rel=1e-3, abs=1e-6)
    # The strain has yy = 1 and xy = 1/2, of which the slope counts two.
    slope = (energy[3] - energy[4]) / (2 * step * abs(np.linalg.det(frame.cell)))
    assert stress[0, 1] + stress[0, 5] == pytest.approx(slope, rel=1e-3, abs=1e-8)
    assert energy[5] == pytest.approx(energy[0], abs=1e-6)
    assert np.abs(forces[5] - forces[0] @ rotation).max() < 1e-6


def test_given_atomic_energies_are_those_of_the_potential(train):
    energies = {'Cs': -90.0, 'Pb': -110.0, 'I': -100.0}
    outputs, node = train({'atomic_energies': energies, 'loss': 'squared'})
    assert node.is_finished_ok, node.exit_message
    effective = outputs['results']['effective']
    assert (effective['atomic_energies'], effective['loss']) == (energies, 'squared')


def test_atomic_energies_without_an_element_are_refused(train):
    with pytest.raises(ValueError, match='has no I, which the training frames hold'):
        train({'atomic_energies': {'Cs': -90.0, 'Pb': -110.0}})


def test_fine_tuning_starts_from_its_parent(train, parent, predict, make_dataset):
    still = {'epochs': 1, 'learning_rate': 1e-8}
    tuned, node = train({**still, 'hidden_irreps': '4x0e'}, parent=parent)
    assert node.is_finished_ok, node.exit_message
    assert tuned['results']['effective']['atomic_energies'] == 'parent'
    fresh, _ = train(still, seed=4)
    of_parent, of_tuned, of_fresh = (
        predict(potential, make_dataset(2, seed=21))[0].get_array('forces')
        for potential in (parent, tuned['potential'], fresh['potential'])
    )
    size = np.abs(of_parent).max()
    assert np.abs(of_tuned - of_parent).max() < 1e-3 * size
    assert np.abs(of_fresh - of_parent).max() > 1e-1 * size


def test_an_architecture_other_than_that_of_the_parent_is_not_passed_over(train, parent):
    other = {
        'hidden_irreps': '8x0e + 8x1o',
        'correlation': 2,
        'max_ell': 2,
        'readout_irreps': '8x0e',
        'radial_mlp': [9],
    }
    _, node = train({**other, 'epochs': 1}, parent=parent)
    assert node.exit_status == 210
    for name in other:
        assert f'`{name}`: asked' in node.exit_message
    assert 'curve' not in node.outputs
    with pytest.raises(ValueError, match=r'`r_max`: asked 6\.5, the parent has 5\.0'):
        train({'r_max': 6.5}, parent=parent)


def test_a_parent_gets_the_atomic_energies_that_are_given(train, parent):
    energies = {'Cs': -90.0, 'Pb': -110.0, 'I': -100.0}
    outputs, node = train({'epochs': 1, 'atomic_energies': energies}, parent=parent)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['facts']['energies_of_atoms']['Default'] == pytest.approx(energies)
    with pytest.raises(ValueError, match='would shift all energies'):
        train({'epochs': 1, 'atomic_energies': 'average'}, parent=parent)


def test_atomic_energies_are_estimated_and_elements_of_the_parent_are_kept(train, parent, make_frames, level):
    lead = [replace(frame, numbers=np.where(frame.numbers == 55, 82, frame.numbers)) for frame in make_frames(4)]
    frames = [replace(frame, energy=frame.energy + 5.0 * len(frame)) for frame in lead]
    given = DatasetData.from_frames(frames, level).store()
    settings = {'epochs': 1, 'atomic_energies': 'estimated'}
    outputs, node = train(settings, parent=parent, training=given, validation=given)
    assert node.is_finished_ok, node.exit_message
    assert outputs['potential'].elements == ['Cs', 'I', 'Pb']
    before = parent.creator.outputs.results['facts']['energies_of_atoms']['Default']
    after = outputs['results']['facts']['energies_of_atoms']['Default']
    assert abs(after['Pb'] - before['Pb']) > 1.0
    assert after['Cs'] == pytest.approx(before['Cs'])
    notes = outputs['results']['notes']
    assert 'estimated for 2 elements from frames that determine 1 combinations' in notes[0]
    assert 'was given no energy of Cs' in notes[1]


def test_a_molecule_among_crystals_does_not_take_their_stress_from_them(train, make_frames, level):
    rng = np.random.default_rng(0)
    positions = np.array([[0, 0, 0], [2.9, 0, 0], [0, 3.1, 0]])
    forces = rng.normal(0, 0.1, (3, 3))
    molecule = Frame(np.array([55, 82, 53], dtype=np.uint8), positions, energy=-300.0, forces=forces)
    atom = Frame(np.array([55]), np.zeros((1, 3)), energy=-100.0, forces=np.zeros((1, 3)), group='IsolatedAtom')
    mixed = DatasetData.from_frames([*make_frames(4, seed=10), molecule, atom], level).store()
    curves = []
    for weight in (0.0, 1e4):
        outputs, node = train({'stress_weight': weight}, training=mixed, validation=mixed)
        assert node.is_finished_ok, node.exit_message
        assert outputs['results']['effective']['stress_weight'] == weight
        curves.append(outputs['curve'])
    without, with_stress = (curve.get_array('validation_stress_rmse') for curve in curves)
    assert np.isfinite(with_stress).all()
    assert with_stress[-1] < without[-1]


@pytest.mark.long
def test_the_wall_time_ends_the_trainer_and_another_job_goes_on(train):
    outputs, node = train({'epochs': 5000}, {'max_wallclock_seconds': 90})
    assert node.exit_status == 400
    assert 'give the working directory as `restart`' in node.exit_message
    assert 'potential' not in outputs
    done = outputs['results']['checkpoint_step']
    assert len(list((Path(outputs['remote_folder'].get_remote_path()) / 'checkpoints').glob('*.pt'))) <= 2
    again, node = train({'epochs': done + 2}, restart=outputs['remote_folder'])
    assert node.is_finished_ok, node.exit_message
    assert again['results']['resumed_from_step'] == done
    assert again['results']['n_steps'] == done + 2
    before, after = (each['curve'].get_array('validation_loss') for each in (outputs, again))
    assert after[:done].tolist() == before[:done].tolist()


def test_a_trainer_that_is_killed_keeps_its_log_and_says_so(train):
    def kill_trainer():
        for _ in range(600):
            time.sleep(0.1)
            found = (
                orm.QueryBuilder()
                .append(TrainMaceCalculation, project='attributes.remote_workdir')
                .order_by({TrainMaceCalculation: {'id': 'desc'}})
                .first()
            )
            progress = Path(found[0] or '/nonexistent') / 'progress.jsonl' if found else None
            if progress is None or not progress.is_file():
                continue
            for process in Path('/proc').glob('[0-9]*'):
                try:
                    line = (process / 'cmdline').read_bytes()
                    where = str((process / 'cwd').readlink())
                except OSError:
                    continue
                if b'mace.cli.run_train' in line and where == str(progress.parent):
                    os.kill(int(process.name), signal.SIGKILL)
                    return

    thread = threading.Thread(target=kill_trainer, daemon=True)
    thread.start()
    outputs, node = train({'epochs': 5000}, {'max_wallclock_seconds': 120})
    thread.join(timeout=5)
    assert node.exit_status == 410  # as the system does where memory runs out
    assert 'killed by SIGKILL' in node.exit_message
    assert 'trainer.log' in outputs['retrieved'].base.repository.list_object_names()
    assert 'potential' not in outputs
