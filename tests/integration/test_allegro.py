"""Real Allegro trainings, as small as they can be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.train import TrainAllegroCalculation
from aiida_perovmlip.compute.architectures.allegro import config
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.installation import environments

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).resolve().parents[2] / 'src'
TINY = {
    'r_max': 4.0,
    'l_max': 1,
    'num_scalar_features': 4,
    'num_tensor_features': 4,
    'scalar_embed_mlp_hidden_layers_width': 8,
    'allegro_mlp_hidden_layers_width': 8,
    'readout_mlp_hidden_layers_width': 8,
    'batch_size': 2,
}
EPOCHS = 40
"""Epochs of the training that is killed on its way and of that which is not."""


@pytest.fixture
def train(plugin_code, make_dataset):
    code = plugin_code('allegro')
    training, validation = make_dataset(6, seed=10).store(), make_dataset(2, seed=11).store()

    def run(settings=None, options=None, **inputs):
        builder = TrainAllegroCalculation.get_builder()
        builder.code, builder.training, builder.validation = code, training, validation
        merged = {**TINY, 'epochs': 2, **(settings or {})}
        builder.settings = {name: value for name, value in merged.items() if value is not None}
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
def parent(kept):
    if 'potential' not in kept:
        pytest.skip('the training of the test before failed')
    return orm.load_node(kept['potential'])


@pytest.fixture
def predict(plugin_code):
    def run(potential, dataset):
        builder = EvaluateCalculation.get_builder()
        builder.code, builder.potential, builder.dataset = plugin_code('allegro'), potential, dataset.store()
        outputs, node = run_get_node(builder)
        assert node.is_finished_ok, node.exit_message
        return outputs['predictions'], outputs['metrics'].get_dict()

    return run


@pytest.fixture
def run_inside(plugin_code, tmp_path):
    """Return a function that runs Python in the environment of Allegro and returns what it printed last, as JSON."""
    plugin_code('allegro')
    python = environments.python_of('allegro')

    def run(script, *arguments, folder=None):
        found = subprocess.run(
            [str(python), '-c', script, *map(str, arguments)],
            check=True,
            capture_output=True,
            text=True,
            cwd=folder or tmp_path,
            env={**os.environ, 'PYTHONPATH': str(SOURCE), 'OMP_NUM_THREADS': '1'},
        )
        return json.loads(found.stdout.splitlines()[-1])

    return run


def files_of(potential, folder):
    """Write the files of a potential into a folder."""
    folder.mkdir()
    for name in potential.base.repository.list_object_names():
        (folder / name).write_bytes(potential.base.repository.get_object_content(name, mode='rb'))
    return folder


def test_equal_trainings_give_equal_bytes_and_tell_what_was_done(train, kept):
    first, node = train({'learning_rate': 1e-3}, seed=3)
    assert node.is_finished_ok, node.exit_message
    second, _ = train({'learning_rate': 1e-3}, seed=3)
    assert second['potential'].uuid != first['potential'].uuid
    assert first['potential'].content_hash == second['potential'].content_hash
    results = first['results'].get_dict()
    best = results['effective'].pop('best_step')
    assert best == 1 + int(first['curve'].get_array('validation_loss').argmin())
    assert set(results['effective']) == set(results['settings'])
    asked = {name: value for name, value in results['settings'].items() if value is not None}
    assert results['effective'] == {**asked, 'stress_weight': 100.0, 'atomic_energies': 'average', 'patience': None}
    assert first['potential'].elements == ['Cs', 'I', 'Pb']
    assert first['potential'].heads == ['default']
    assert first['potential'].cutoff == 4.0
    assert first['curve'].get_array('step').tolist() == [1.0, 2.0]
    assert np.isfinite(first['curve'].get_array('validation_stress_rmse')).all()
    assert 'trainer.log' in first['retrieved'].base.repository.list_object_names()
    kept['potential'] = first['potential'].uuid


def test_the_package_gives_the_numbers_of_the_best_checkpoint_and_names_no_place(parent, run_inside, tmp_path):
    folder = Path(parent.creator.outputs.remote_folder.get_remote_path())
    script = """
import json, sys
from ase.build import bulk
from nequip.integrations.ase import NequIPCalculator
found = []
for path in sys.argv[1:]:
    atoms = bulk('CsI', 'cesiumchloride', 4.4).repeat(2)
    atoms.rattle(0.1, seed=1)
    atoms.calc = NequIPCalculator._from_saved_model(path, chemical_species_to_atom_type_map=True)
    found.append([float(atoms.get_potential_energy()), atoms.get_forces().tolist()])
print(json.dumps(found))
"""
    package = files_of(parent, tmp_path / 'potential') / 'allegro.nequip.zip'
    of_package, of_checkpoint = run_inside(script, package, folder / 'best.ckpt', folder=folder)
    assert of_package[0] == pytest.approx(of_checkpoint[0], abs=1e-9)
    assert np.allclose(of_package[1], of_checkpoint[1], atol=1e-9)
    assert str(folder).encode() not in package.read_bytes()
    assert os.environ['HOME'].encode() not in package.read_bytes()


def test_its_predictions_are_those_that_the_trainer_saw(parent, predict):
    training = parent.creator
    _, metrics = predict(parent, training.inputs.validation)
    errors = training.outputs.curve.get_array('validation_loss').tolist()
    seen = training.outputs.curve.get_array('validation_forces_rmse')[errors.index(min(errors))]
    assert metrics['forces']['rmse'] == pytest.approx(seen, rel=1e-3)


def test_forces_and_stress_are_slopes_of_the_energy_and_atoms_alone_have_their_own(parent, predict, make_frames, level):
    frame, step = make_frames(1, seed=20)[0], 2e-2
    atom, axis = 7, 1
    moved = [frame.positions + sign * step * np.eye(3)[axis] * (np.arange(40) == atom)[:, None] for sign in (1, -1)]
    shear = [np.eye(3) + sign * step / 10 * np.array([[0, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]) for sign in (1, -1)]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    copies = [frame, *(replace(frame, positions=positions) for positions in moved)]
    copies += [
        replace(frame, positions=frame.positions @ matrix, cell=frame.cell @ matrix) for matrix in (*shear, rotation)
    ]
    alone = [
        Frame(np.array([number]), np.zeros((1, 3)), energy=0.0, forces=np.zeros((1, 3))) for number in (53, 55, 82)
    ]
    predictions, _ = predict(parent, DatasetData.from_frames([*copies, *alone], level))
    energy, stress = predictions.get_array('energy'), predictions.get_array('stress')
    forces = predictions.get_array('forces')[:240].reshape(6, 40, 3)
    assert np.abs(forces[0]).max() > 1e-2
    assert forces[0, atom, axis] == pytest.approx(-(energy[1] - energy[2]) / (2 * step), rel=2e-2, abs=1e-3)
    # The strain has yy = 1 and xy = 1/2, of which the slope counts two.
    slope = (energy[3] - energy[4]) / (2 * step / 10 * abs(np.linalg.det(frame.cell)))
    assert stress[0, 1] + stress[0, 5] == pytest.approx(slope, rel=2e-2, abs=1e-6)
    assert energy[5] == pytest.approx(energy[0], abs=1e-4)
    assert np.abs(forces[5] - forces[0] @ rotation).max() < 1e-4
    atoms = parent.creator.outputs.results['facts']['energies_of_atoms']['default']
    assert energy[6:] == pytest.approx([atoms['I'], atoms['Cs'], atoms['Pb']], abs=1e-6)
    assert np.isnan(stress[6:]).all()


def test_fine_tuning_starts_from_its_parent_of_more_elements_with_the_energies_that_are_given(
    train, parent, predict, make_frames, level
):
    """The frames lack Cs, which the potential still knows; only the energy of Pb is given."""
    frames = [replace(frame, numbers=np.where(frame.numbers == 55, 82, frame.numbers)) for frame in make_frames(4)]
    lead = DatasetData.from_frames(frames, level).store()
    before = parent.creator.outputs.results['facts']['energies_of_atoms']['default']
    settings = {name: TINY[name] for name in ('r_max', 'num_scalar_features')}
    settings |= {'epochs': 1, 'learning_rate': 1e-9, 'batch_size': 2, 'atomic_energies': {'Pb': before['Pb'] - 1.0}}
    tuned, node = train(settings, parent=parent, training=lead, validation=lead)
    assert node.is_finished_ok, node.exit_message
    assert tuned['potential'].elements == ['Cs', 'I', 'Pb']
    after = tuned['results']['facts']['energies_of_atoms']['default']
    assert after == pytest.approx({**before, 'Pb': before['Pb'] - 1.0})
    one, other = (predict(potential, lead)[0] for potential in (parent, tuned['potential']))
    assert np.allclose(one.get_array('forces'), other.get_array('forces'), atol=1e-5)
    assert np.allclose(one.get_array('energy') - other.get_array('energy'), 16.0, atol=1e-3)


def test_a_network_other_than_that_of_the_parent_is_not_passed_over(train, parent):
    _, node = train({'l_max': 2, 'zbl': True, 'epochs': 1, 'atomic_energies': 'estimated'}, parent=parent)
    assert node.exit_status == 210
    assert '`l_max`: asked 2, the parent has 1' in node.exit_message
    assert '`zbl`: asked True, the parent has False' in node.exit_message
    assert 'curve' not in node.outputs
    assert '`r_max`' not in node.exit_message


@pytest.mark.long
def test_layers_that_are_not_there_are_no_settings_that_were_ignored(train):
    settings = {}
    for name in ('scalar_embed', 'readout'):
        settings |= {f'{name}_mlp_hidden_layers_depth': 0, f'{name}_mlp_hidden_layers_width': None}
    outputs, node = train({**settings, 'epochs': 1})
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['effective']['readout_mlp_hidden_layers_depth'] == 0


@pytest.mark.long
def test_a_parent_of_nequip_is_judged_by_what_its_network_shows(run_inside, tmp_path, make_frames):
    """A network of another kind, trained here for an epoch, as a parent that was found somewhere."""
    script = """
import json, sys
from pathlib import Path
from aiida_perovmlip.compute.architecture import Training, problem_of_shape
from aiida_perovmlip.compute.architectures import allegro
from aiida_perovmlip.compute.architectures.allegro import Allegro
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError
from aiida_perovmlip.compute.frames import Frames
folder = Path(sys.argv[1])
names = ('seed', 'model_dtype', 'type_names', 'r_max', 'l_max', 'parity', 'avg_num_neighbors', 'compile_mode',
         'per_type_energy_shifts', 'per_type_energy_scales')
build = allegro.new_network
allegro.new_network = lambda *arguments: {
    **{name: value for name, value in build(*arguments).items() if name in names},
    '_target_': 'nequip.model.NequIPGNNModel', 'num_layers': 2, 'num_features': 4, 'num_bessels': 6}
frames = Frames.open_folder(folder / 'frames')

def training(name, parent=None, **said):
    here = folder / name
    (here / 'potential').mkdir(parents=True)
    known = None if parent is None else Allegro().facts(parent)
    settings = Allegro.Settings(batch_size=2, epochs=1, **said)
    return Training(folder=here, training=frames, validation=frames, settings=settings, parent=parent, known=known,
                    strategy='naive' if parent else 'scratch', checkpoint=Checkpoint(here / 'checkpoint', 'test'),
                    said=frozenset({'batch_size', 'epochs', *said}))

Allegro().train(training('one', r_max=4.0, l_max=1, parity=False))
parent = folder / 'one' / 'potential'
asked = training('two', parent, l_max=2, num_bessels=6)
shown = Allegro().shape_of(parent, asked.settings)
problem = problem_of_shape(asked, shown)
try:
    Allegro().train(training('three', parent, l_max=1, num_tensor_features=16))
except JobError as error:
    refusal = [error.status.value, error.message]
done = Allegro().train(training('four', parent, r_max=4.0, l_max=1, num_layers=2))
print(json.dumps([shown, problem, refusal, done.effective]))
"""
    from aiida_perovmlip.compute.frames import write_folder
    from aiida_perovmlip.compute.shard import build_shards

    write_folder(build_shards(make_frames(2)), tmp_path / 'frames')
    shown, problem, refusal, effective = run_inside(script, tmp_path)
    expected = {'r_max': 4.0, 'l_max': 1, 'parity': False, 'num_layers': 2, 'num_bessels': 6, 'dtype': 'float32'}
    assert {name: shown[name] for name in expected} == expected
    assert not [name for name in shown if 'tensor_features' in name or 'embed' in name]
    assert problem.startswith('the parent decides what the potential is made of. `l_max`: asked 2, the parent has 1.')
    assert refusal[0] == 'bad_input'
    assert 'shows nothing like `num_tensor_features`' in refusal[1]
    assert effective['learning_rate'] == config.TUNING_RATE
    assert {name: effective[name] for name in shown} == shown


def test_frames_without_a_stress_in_a_batch_of_their_own_spoil_nothing(train, make_frames, level):
    rng = np.random.default_rng(0)
    positions = np.array([[0, 0, 0], [2.9, 0, 0], [0, 3.1, 0]])
    forces = rng.normal(0, 0.1, (3, 3))
    molecule = Frame(np.array([55, 82, 53], dtype=np.uint8), positions, energy=-300.0, forces=forces)
    mixed = DatasetData.from_frames([*make_frames(3, seed=10), molecule, molecule], level).store()
    settings = {'batch_size': 1, 'accumulate': 2, 'zbl': True, 'patience': 1000}
    outputs, node = train(settings, training=mixed, validation=mixed)
    assert node.is_finished_ok, node.exit_message
    assert np.isfinite(outputs['curve'].get_array('loss')).all()
    assert np.isfinite(outputs['curve'].get_array('validation_stress_rmse')).all()
    effective = outputs['results']['effective']
    assert (effective['accumulate'], effective['zbl'], effective['patience']) == (2, True, 1000)


def test_a_rate_that_is_far_too_high_is_a_divergence(train):
    outputs, node = train({'learning_rate': 1e30, 'epochs': 50, 'lr_schedule': 'constant'})
    assert node.exit_status == 510
    assert 'Lower `learning_rate`' in node.exit_message
    assert 'potential' not in outputs


def kill_trainer_at(step):
    """Kill the trainer of the newest job once it has reported some epochs."""
    for _ in range(3000):
        time.sleep(0.05)
        query = orm.QueryBuilder().append(TrainAllegroCalculation, project='attributes.remote_workdir')
        found = query.order_by({TrainAllegroCalculation: {'id': 'desc'}}).first()
        folder = Path(found[0]) if found and found[0] else None
        progress = folder / 'progress.jsonl' if folder else None
        if progress is None or not progress.is_file() or len(progress.read_text().splitlines()) < step:
            continue
        for process in Path('/proc').glob('[0-9]*'):
            try:
                line, where = (process / 'cmdline').read_bytes(), str((process / 'cwd').readlink())
            except OSError:
                continue
            if b'nequip.scripts.train' in line and where == str(folder):
                os.kill(int(process.name), signal.SIGKILL)
                return


@pytest.mark.long
def test_a_training_that_was_killed_goes_on_to_what_it_would_have_reached(train, kept):
    """The curve is that of both runs, though the trainer's own begins anew, and the best of both is delivered."""
    settings = {'epochs': EPOCHS, 'learning_rate': 0.01}
    whole, _ = train(settings)
    thread = threading.Thread(target=kill_trainer_at, args=(8,), daemon=True)
    thread.start()
    broken, node = train({**settings, 'batch_size': 1, 'accumulate': 2})
    thread.join(timeout=5)
    assert node.exit_status == 410  # as the system does where memory runs out
    assert 'killed by SIGKILL' in node.exit_message
    saved = broken['results']['checkpoint_step']
    assert 0 < saved < EPOCHS
    resumed, again = train(settings, restart=broken['remote_folder'])
    assert again.is_finished_ok, again.exit_message
    assert resumed['results']['resumed_from_step'] == saved
    curve = resumed['curve'].get_array('validation_loss')
    assert resumed['curve'].get_array('step').tolist() == list(range(1, EPOCHS + 1))
    before = broken['curve'].get_array('validation_loss')
    assert curve[:saved] == pytest.approx(before[:saved])
    assert resumed['results']['effective']['batch_size'] == 2
    uninterrupted = whole['curve'].get_array('validation_loss')
    assert curve.min() == pytest.approx(uninterrupted.min(), rel=0.05)
    kept['finished'] = again.uuid


@pytest.mark.long
def test_a_finished_training_is_not_taken_up_again(train, kept):
    if 'finished' not in kept:
        pytest.skip('the training of the test before failed')
    node = orm.load_node(kept['finished'])
    _, again = train({'epochs': EPOCHS, 'learning_rate': 0.01}, restart=node.outputs.remote_folder)
    assert again.exit_status == 210
    assert 'reached its end' in again.exit_message


@pytest.mark.long
def test_the_wall_time_ends_a_training_whose_best_epoch_outlives_a_worse_second_run(train):
    """The second run has so high a rate that it gets worse: what is delivered is the best of the first."""
    settings = {'epochs': 20000, 'lr_schedule': 'constant', 'learning_rate': 0.01}
    outputs, node = train(settings, {'max_wallclock_seconds': 60})
    assert node.exit_status == 400
    saved = outputs['results']['checkpoint_step']
    assert f'goes on from epoch {saved}' in node.exit_message
    best = float(outputs['curve'].get_array('validation_loss')[:saved].min())
    second = {**settings, 'epochs': saved + 2, 'learning_rate': 0.5}
    resumed, again = train(second, restart=outputs['remote_folder'])
    assert again.is_finished_ok, again.exit_message
    assert resumed['results']['effective']['learning_rate'] == 0.5
    curve = resumed['curve'].get_array('validation_loss')
    assert len(curve) == saved + 2
    assert curve[saved:].min() > best
    folder = Path(again.outputs.remote_folder.get_remote_path())
    newest = sorted(path for path in (folder / 'checkpoint').iterdir() if path.is_dir())[-1]
    about = json.loads((newest / 'state.json').read_text().partition('\n')[2])['about']
    assert about['best_loss'] == pytest.approx(best)
    assert about['best_step'] == resumed['results']['effective']['best_step'] == curve.argmin() + 1
    energies = resumed['results']['facts']['energies_of_atoms']['default']
    assert about['atomic_energies'] == pytest.approx(energies)
    error = run_evaluation(again, resumed['potential'])
    assert error == pytest.approx(outputs['curve'].get_array('validation_forces_rmse')[curve.argmin()], rel=1e-3)
    _, other = train({**second, 'l_max': 2}, restart=outputs['remote_folder'])
    assert other.exit_status == 210
    assert '`l_max`: 1 before, 2 now' in other.exit_message


def run_evaluation(node, potential):
    """Return the force error of a potential on the validation frames of its training."""
    builder = EvaluateCalculation.get_builder()
    builder.code, builder.potential, builder.dataset = node.inputs.code, potential, node.inputs.validation
    return run_get_node(builder)[0]['metrics']['forces']['rmse']


def test_a_key_that_nequip_does_not_know_is_told_by_name(run_inside, tmp_path, make_frames):
    script = """
import json, sys
from pathlib import Path
from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.architectures.allegro import Allegro
from aiida_perovmlip.compute.architectures import allegro
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError
from aiida_perovmlip.compute.frames import Frames
folder = Path(sys.argv[1])
build = allegro.new_network
allegro.new_network = lambda *arguments: {**build(*arguments), 'number_of_layers': 2}
frames = Frames.open_folder(folder / 'frames')
training = Training(folder=folder, training=frames, validation=frames, settings=Allegro.Settings(batch_size=2),
                    checkpoint=Checkpoint(folder / 'checkpoint', 'test'))
try:
    Allegro().train(training)
except JobError as error:
    print(json.dumps([error.status.value, error.message]))
"""
    from aiida_perovmlip.compute.frames import write_folder
    from aiida_perovmlip.compute.shard import build_shards

    write_folder(build_shards(make_frames(2)), tmp_path / 'frames')
    status, message = run_inside(script, tmp_path)
    assert status == 'failed'
    assert 'number_of_layers' in message


def test_parameters_that_are_not_numbers_are_a_divergence(parent, run_inside, tmp_path):
    script = """
import json, sys
from pathlib import Path
from aiida_perovmlip.compute.architectures import allegro
from aiida_perovmlip.compute.contract import JobError
read = allegro.open_package
def spoil(potential):
    network, *others = read(potential)
    next(network.parameters()).data[0] = float('nan')
    return network, *others
allegro.open_package = spoil
try:
    allegro.Allegro().facts(Path(sys.argv[1]))
except JobError as error:
    print(json.dumps([error.status.value, error.message]))
"""
    status, message = run_inside(script, files_of(parent, tmp_path / 'potential'))
    assert status == 'diverged'
    assert 'not finite' in message


@pytest.mark.skipif(shutil.which('g++') is None, reason='there is no C++ compiler')
@pytest.mark.long
def test_a_compiled_potential_gives_the_same_numbers(parent, run_inside, tmp_path):
    """Takes a minute or two, and all of it in the compiler."""
    script = """
import json, sys
from pathlib import Path
from ase.build import bulk
from aiida_perovmlip.compute.architectures.allegro import Allegro
potential = Path(sys.argv[1])
compiled = Allegro().compile(potential, 'ase', 'cpu', Path.cwd())
found = []
for path in (None, compiled):
    atoms = bulk('CsI', 'cesiumchloride', 4.4).repeat(3)
    atoms.rattle(0.1, seed=1)
    atoms.calc = Allegro().calculator(potential, compiled=path)
    found.append([float(atoms.get_potential_energy()), atoms.get_forces().tolist(), atoms.get_stress().tolist()])
print(json.dumps([compiled.name, *found]))
"""
    name, eager, compiled = run_inside(script, files_of(parent, tmp_path / 'potential'))
    assert name == 'allegro-ase.nequip.pt2'
    assert compiled[0] == pytest.approx(eager[0], abs=1e-4)
    assert np.allclose(compiled[1], eager[1], atol=1e-5)
    assert np.allclose(compiled[2], eager[2], atol=1e-7)
