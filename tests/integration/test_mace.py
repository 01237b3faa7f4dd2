"""Real MACE trainings, as small as they can be."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.train import TrainMaceCalculation

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


def test_equal_trainings_give_equal_bytes_and_tell_what_was_done(train, kept):
    first, node = train(seed=3)
    assert node.is_finished_ok, node.exit_message
    second, _ = train(seed=3)
    assert first['potential'].content_hash == second['potential'].content_hash
    effective = first['results']['effective']
    assert effective['epochs'] == 3
    assert effective['r_max'] == 5.0
    assert effective['learning_rate'] == 0.01
    assert first['potential'].heads == ['Default']
    assert np.isfinite(first['curve'].get_array('validation_forces_rmse')).all()
    assert 'trainer.log' in first['retrieved'].base.repository.list_object_names()
    kept['potential'] = first['potential'].uuid


def test_its_predictions_are_those_that_the_trainer_saw(kept, plugin_code, make_dataset):
    if 'potential' not in kept:
        pytest.skip('the training of the test before failed')
    potential = orm.load_node(kept['potential'])
    training = potential.creator
    builder = EvaluateCalculation.get_builder()
    builder.code, builder.potential = plugin_code('mace'), potential
    builder.dataset = training.inputs.validation
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    best = np.nanmin(training.outputs.curve.get_array('validation_loss'))
    step = training.outputs.curve.get_array('validation_loss').tolist().index(best)
    seen = training.outputs.curve.get_array('validation_forces_rmse')[step]
    assert outputs['metrics']['forces']['rmse'] == pytest.approx(seen, rel=1e-3)


def test_given_atomic_energies_are_those_of_the_potential(train):
    energies = {'Cs': -90.0, 'Pb': -110.0, 'I': -100.0}
    outputs, node = train({'atomic_energies': energies})
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['effective']['atomic_energies'] == energies


def test_atomic_energies_without_an_element_fail_with_the_trainers_words(train):
    _, node = train({'atomic_energies': {'Cs': -90.0, 'Pb': -110.0}})
    assert node.exit_status == 420
    assert '53' in node.exit_message


def test_fine_tuning_starts_from_its_parent(train, kept):
    if 'potential' not in kept:
        pytest.skip('the training of the test before failed')
    outputs, node = train({'epochs': 1, 'learning_rate': 1e-8}, parent=orm.load_node(kept['potential']))
    assert node.is_finished_ok, node.exit_message
    parent = orm.load_node(kept['potential']).creator.outputs.curve.get_array('validation_forces_rmse')[-1]
    tuned = outputs['curve'].get_array('validation_forces_rmse')[-1]
    assert tuned == pytest.approx(parent, rel=0.05)


def test_the_wall_time_ends_the_trainer_and_says_where_its_checkpoint_is(train):
    outputs, node = train({'epochs': 5000}, {'max_wallclock_seconds': 25})
    assert node.exit_status == 400
    assert 'checkpoints' in node.exit_message
    assert 'potential' not in outputs
    folder = Path(node.outputs.remote_folder.get_remote_path())
    assert list((folder / 'checkpoints').glob('*.pt'))


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
    assert node.exit_status == 420
    assert 'killed by SIGKILL' in node.exit_message
    assert 'trainer.log' in outputs['retrieved'].base.repository.list_object_names()
    assert 'potential' not in outputs
