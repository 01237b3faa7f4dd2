"""Real NEP trainings by neppo, as small as they can be, and the frame around GPUMD, which needs a GPU."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.train import TrainNepCalculation
from aiida_perovmlip.compute.architectures.nep.potential_file import FILENAME, Header, read_nep
from aiida_perovmlip.compute.extxyz import read_extxyz
from aiida_perovmlip.data.potential import PotentialData

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / 'tests' / 'stand_ins' / 'gpumd_nep_stand_in.py'
TINY = {
    'radial_cutoff': 5.0,
    'angular_cutoff': 4.0,
    'n_max': [2, 2],
    'basis_size': [4, 4],
    'l_max': [2, 0, 0],
    'neurons': 5,
}
QUICK = {**TINY, 'steps': 40, 'batch_size': 2}


@pytest.fixture
def train(plugin_code, make_dataset):
    code = plugin_code('nep')
    training, validation = make_dataset(6, seed=10).store(), make_dataset(2, seed=11).store()

    def run(settings=None, options=None, **inputs):
        builder = TrainNepCalculation.get_builder()
        builder.code, builder.training, builder.validation = code, training, validation
        builder.settings = QUICK if settings is None else settings
        for name, value in inputs.items():
            setattr(builder, name, value)
        for name, value in (options or {}).items():
            setattr(builder.metadata.options, name, value)
        return run_get_node(builder)

    return run


@pytest.fixture
def predict(plugin_code):
    def run(potential, dataset):
        builder = EvaluateCalculation.get_builder()
        builder.code, builder.potential, builder.dataset = plugin_code('nep'), potential, dataset
        outputs, node = run_get_node(builder)
        assert node.is_finished_ok, node.exit_message
        return outputs['predictions'], outputs['metrics'].get_dict()

    return run


@pytest.fixture
def bare(plugin_code, tmp_path):
    """Return a function that runs a piece of Python in the environment of NEP and returns what it printed as JSON."""
    python = plugin_code('nep').get_executable()

    def run(code, *arguments):
        path = os.pathsep.join((str(ROOT / 'src'), str(ROOT / 'tests')))
        found = subprocess.run(
            [str(python), '-c', textwrap.dedent(code), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
        )
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope='module')
def kept():
    """Keep what later tests need."""
    return {}


def potential_bytes(potential):
    return potential.base.repository.get_object_content(FILENAME, mode='rb')


def test_equal_trainings_give_equal_bytes_and_tell_what_was_done(train, kept):
    first, node = train()
    assert node.is_finished_ok, node.exit_message
    second, _ = train()
    assert potential_bytes(first['potential']) == potential_bytes(second['potential'])
    other, _ = train(seed=1)
    assert potential_bytes(first['potential']) != potential_bytes(other['potential'])
    results = first['results'].get_dict()
    effective = results['effective']
    assert {**effective, **QUICK} == effective
    assert (effective['learning_rate'], effective['final_learning_rate']) == (0.05, 1e-4)
    assert (effective['lambda_f'], effective['lambda_v'], effective['loss_form']) == (1.0, 0.1, 'mse')
    assert effective['atomic_energies'] == 'average'
    assert results['facts']['cutoff'] == 5.0
    assert {'nep.in', 'loss.out', 'training.jsonl', 'trainer.log'} <= set(
        first['retrieved'].base.repository.list_object_names()
    )
    curve = first['curve']
    assert curve.get_array('step')[-1] == 40
    assert np.isfinite(curve.get_array('validation_stress_rmse')).all()
    kept['first'] = first['potential'].uuid


def test_its_predictions_are_those_that_the_trainer_saw_and_the_best(kept, predict):
    """Energies, with what was taken off them, forces, and stresses in eV/Å³ with the sign of the labels."""
    potential = orm.load_node(kept['first'])
    training, curve = potential.creator, potential.creator.outputs.curve
    _, metrics = predict(potential, training.inputs.validation)
    best = int(np.argmin(curve.get_array('validation_loss')))
    for quantity in ('energy_per_atom', 'forces', 'stress'):
        seen = curve.get_array(f'validation_{quantity}_rmse')[best]
        assert metrics[quantity]['rmse'] == pytest.approx(seen, rel=2e-3), quantity


def test_a_potential_that_learns_from_stresses_alone_gets_their_sign_right(train, predict):
    """A potential of the wrong sign would be wrong by twice the labels."""
    outputs, node = train({**QUICK, 'steps': 250, 'lambda_e': 0.0, 'lambda_f': 0.0, 'lambda_v': 1.0})
    assert node.is_finished_ok, node.exit_message
    predictions, metrics = predict(outputs['potential'], node.inputs.validation)
    labels = np.concatenate([frame.stress for frame in node.inputs.validation.frames])
    assert metrics['stress']['rmse'] < 0.5 * np.sqrt(np.mean(labels**2))
    assert np.corrcoef(predictions.get_array('stress').ravel(), labels)[0, 1] > 0.9


def kill_trainer(when, number=signal.SIGKILL):
    """Signal the trainer of the newest job once `when` says so of its progress; returns the thread that does."""

    def kill():
        for _ in range(1200):
            time.sleep(0.05)
            query = orm.QueryBuilder().append(TrainNepCalculation, project='attributes.remote_workdir')
            found = query.order_by({TrainNepCalculation: {'id': 'desc'}}).first()
            folder = Path(found[0]) if found and found[0] else None
            if folder is None or not when(folder):
                continue
            for process in Path('/proc').glob('[0-9]*'):
                try:
                    line, where = (process / 'cmdline').read_bytes(), str((process / 'cwd').readlink())
                except OSError:
                    continue
                if b'neppo_program' in line and where == str(folder):
                    os.kill(int(process.name), number)
                    return

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


LONG = {**TINY, 'steps': 500, 'batch_size': 2}


def states_of(folder):
    return [path for path in (folder / 'checkpoint').glob('0*') if (path / 'state.json').is_file()]


def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(train, kept):
    """Not only within a few per cent: the bytes are those of the training that was never interrupted."""
    whole, node = train(LONG)
    assert node.is_finished_ok, node.exit_message
    thread = kill_trainer(lambda folder: len(states_of(folder)) > 1)
    outputs, broken = train(LONG)
    thread.join()
    assert broken.exit_status == 410  # as the system does where memory runs out
    assert 'killed by SIGKILL' in broken.exit_message
    assert 'potential' not in outputs
    resumed, node = train(LONG, restart=outputs['remote_folder'])
    assert node.is_finished_ok, node.exit_message
    start = resumed['results'].get_dict()['resumed_from_step']
    assert 0 < start < 500
    steps, errors = (resumed['curve'].get_array(name) for name in ('step', 'validation_forces_rmse'))
    assert steps.tolist() == whole['curve'].get_array('step').tolist()
    assert errors[-1] == pytest.approx(whole['curve'].get_array('validation_forces_rmse')[-1], rel=0.05)
    rates = resumed['curve'].get_array('learning_rate')
    assert np.allclose(rates, whole['curve'].get_array('learning_rate'))
    assert potential_bytes(resumed['potential']) == potential_bytes(whole['potential'])
    kept['folder'], kept['whole'] = outputs['remote_folder'].uuid, potential_bytes(whole['potential'])


@pytest.mark.long
def test_a_training_that_was_asked_to_stop_goes_on_as_if_it_had_not_been(train, kept):
    """Its state is of the middle between two reports, as after a signal of the scheduler."""
    thread = kill_trainer(lambda folder: len(states_of(folder)) > 1, signal.SIGTERM)
    outputs, stopped = train(LONG)
    thread.join()
    assert stopped.exit_status == 400
    resumed, node = train(LONG, restart=outputs['remote_folder'])
    assert node.is_finished_ok, node.exit_message
    assert 0 < resumed['results']['resumed_from_step'] < 500
    assert resumed['results']['resumed_from_step'] not in outputs['curve'].get_array('step')
    assert potential_bytes(resumed['potential']) == kept['whole']


@pytest.mark.long
def test_a_damaged_state_costs_one_state_and_not_the_training(train, kept):
    folder = orm.load_node(kept['folder'])
    states = sorted(states_of(Path(folder.get_remote_path())))
    assert len(states) == 2
    with (states[-1] / 'state.npz').open('r+b') as handle:
        handle.truncate(100)
    outputs, node = train(LONG, restart=folder)
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    before = json.loads((states[-2] / 'state.json').read_text().partition('\n')[2])
    assert results['resumed_from_step'] == before['step']
    assert any('could not be used' in note for note in results['notes'])


def test_other_settings_that_change_the_potential_are_refused_on_the_way(train, kept):
    _, node = train({**LONG, 'neurons': 6}, restart=orm.load_node(kept['folder']))
    assert node.exit_status == 210
    assert '`neurons`' in node.exit_message


def test_the_wall_time_ends_the_trainer_and_a_state_is_kept(train):
    outputs, node = train({**LONG, 'steps': 2_000_000}, {'max_wallclock_seconds': 25})
    assert node.exit_status == 400
    assert 'was saved' in node.exit_message
    assert states_of(Path(outputs['remote_folder'].get_remote_path()))


def test_a_second_run_in_the_same_folder_never_puts_a_worse_potential_over_the_best(bare, tmp_path):
    """What neppo itself does: a second run starts anew, and its first report is the best it knows of."""
    found = bare(
        """
        import json, logging, warnings
        import numpy as np
        from ase.build import bulk
        from ase.calculators.emt import EMT
        from ase.io import write
        from pathlib import Path
        from neppo.nep_in import run
        frames = []
        for seed in range(6):
            atoms = bulk('Cu', cubic=True).repeat(2)
            atoms.rattle(0.1, seed=seed)
            atoms.calc = EMT()
            atoms.get_stress()
            frames.append(atoms)
        write('train.xyz', frames[:4], format='extxyz'); write('test.xyz', frames[4:], format='extxyz')
        text = 'type 1 Cu\\ncutoff 4 4\\nn_max 2 2\\nbasis_size 4 4\\nneuron 5\\nbatch 2\\noutput_interval 20\\n'
        best = []
        for steps in (400, 20):
            Path('nep.in').write_text(text + f'generation {steps}\\n')
            best.append(float(run('.', device='cpu').history['loss_test'].min()))
        print(json.dumps(best))
        """
    )
    assert found[1] > 2 * found[0]  # and nep_best.txt is now that of the second run


def test_the_best_potential_of_all_runs_is_delivered_though_the_last_run_spoiled_it(bare, make_frames, tmp_path):
    from aiida_perovmlip.compute.frames import write_folder
    from aiida_perovmlip.compute.shard import build_shards

    write_folder(build_shards(make_frames(4)), tmp_path / 'frames')
    found = bare(
        f"""
        import json
        from pathlib import Path
        from aiida_perovmlip.compute.architecture import Training
        from aiida_perovmlip.compute.architectures.nep import Nep
        from aiida_perovmlip.compute.checkpoint import Checkpoint
        from aiida_perovmlip.compute.frames import Frames
        here = Path.cwd(); frames = Frames.open_folder(here / 'frames'); nep = Nep()
        runs = []
        for name, rates in (('one', {{'steps': 100}}), ('two', {{'steps': 200, 'learning_rate': 5.0,
                                                                'final_learning_rate': 4.0}})):
            folder = here / name
            (folder / 'potential').mkdir(parents=True)
            settings = nep.Settings(**({QUICK!r} | rates))
            done = nep.train(Training(settings=settings, training=frames, validation=frames, folder=folder,
                                      checkpoint=Checkpoint(here / 'checkpoint', 'the same')))
            text = (folder / 'potential' / 'nep.txt').read_text()
            runs.append((text, [(step['step'], step['validation_loss']) for step in done.curve]))
        print(json.dumps(runs))
        """
    )
    (first, _), (second, curve) = found
    losses = dict(curve)
    assert max(losses) == 200
    assert losses[200] > 2 * losses[100]
    assert first == second


def test_a_lattice_in_small_letters_is_no_lattice_for_the_trainer(bare):
    """The trap that our own writer avoids."""
    found = bare(
        """
        import json
        from ase.io import read
        import io
        rest = '="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3:force:R:3 energy=1.0 pbc="T T T"'
        texts = [f'1\\n{name}{rest}\\nCu 0 0 0 0 0 0\\n' for name in ('Lattice', 'lattice')]
        print(json.dumps([int(read(io.StringIO(text), format='extxyz').cell.rank) for text in texts]))
        """
    )
    assert found == [3, 0]


def test_an_unknown_keyword_ends_the_program_with_its_name(bare, tmp_path):
    (tmp_path / 'nep.in').write_text('type 1 Cu\nno_such_keyword 1\n')
    (tmp_path / 'neppo.json').write_text(json.dumps({'checkpoint': 'c', 'identity': 'x', 'settings': {}, 'cores': 1}))
    found = bare(
        """
        import json
        from aiida_perovmlip.compute.architectures.nep.neppo_program import main
        try:
            main('neppo.json')
        except ValueError as error:
            print(json.dumps(str(error)))
        """
    )
    assert 'no_such_keyword' in found


def test_a_learning_rate_out_of_all_bounds_ends_in_divergence_and_delivers_nothing(train):
    outputs, node = train({**QUICK, 'learning_rate': 1e30})
    assert node.exit_status == 510, node.exit_message
    assert 'not a finite number at step' in node.exit_message
    assert 'potential' not in outputs


@pytest.fixture
def nep89(store_nep):
    """Return NEP89 with more elements than the frames have, as a stored potential."""
    return store_nep('nep89_HCNIPbCs.txt')


def test_a_parent_that_is_slimmed_predicts_exactly_what_it_did(bare, nep89, tmp_path, make_frames):
    """Whatever order the frames list the elements in; a trainer would take a scrambled order without a word."""
    from aiida_perovmlip.compute.frames import write_folder
    from aiida_perovmlip.compute.shard import build_shards

    frames = make_frames(3)
    order = np.argsort(-frames[1].numbers.astype(int), kind='stable')
    ordered = {name: getattr(frames[1], name)[order] for name in ('numbers', 'positions', 'forces')}
    turned = replace(frames[1], **ordered)
    write_folder(build_shards([turned, frames[0]]), tmp_path / 'frames')
    nep89.export(tmp_path / 'parent')
    found = bare(
        """
        import json, shutil
        from pathlib import Path
        import numpy as np
        from aiida_perovmlip.compute.architecture import Training
        from aiida_perovmlip.compute.architectures.nep import Nep
        from aiida_perovmlip.compute.checkpoint import Checkpoint
        from aiida_perovmlip.compute.frames import Frames
        here = Path.cwd(); nep = Nep(); frames = Frames.open_folder(here / 'frames')
        training = Training(settings=nep.Settings(), training=frames, folder=here, parent=here / 'parent',
                            checkpoint=Checkpoint(here / 'checkpoint', 'x'), strategy='naive')
        header = nep._slimmed_parent(training)
        (here / 'slim').mkdir(); shutil.copyfile('parent.txt', 'slim/nep.txt')
        import neppo
        model = neppo.read_model('parent.txt')
        pairs = zip(nep.predict(here / 'parent', frames), nep.predict(here / 'slim', frames))
        worst = [[abs(a.energy - b.energy), abs(a.forces - b.forces).max(), abs(a.forces).max()] for a, b in pairs]
        print(json.dumps({'elements': header.elements, 'neppo': model.types, 'worst': np.max(worst, 0).tolist()}))
        """
    )
    assert found['elements'] == found['neppo'] == ['I', 'Cs', 'Pb']  # the order of the file
    assert found['worst'][0] == 0.0
    assert found['worst'][1] == 0.0
    assert found['worst'][2] > 0.1


CUTOFFS = {'H': (4.0, 3.0), 'I': (5.5, 4.5), 'Cs': (6.0, 3.5), 'C': (4.5, 4.0), 'Pb': (5.0, 4.0)}
"""Radial and angular cutoff of each element in Å, in an order of elements that is not that of the alphabet."""


@pytest.fixture
def several_cutoffs(tmp_path):
    """Return a potential of made-up parameters whose elements have cutoffs of their own."""
    folder = tmp_path / 'several'
    folder.mkdir()
    pairs = ' '.join(f'{radial:g} {angular:g}' for radial, angular in CUTOFFS.values())
    lines = [f'nep4 {len(CUTOFFS)} {" ".join(CUTOFFS)}', f'cutoff {pairs} 200 100', 'n_max 2 2', 'basis_size 4 4']
    lines += ['l_max 2 0 0', 'ANN 5 0']
    header = Header(tuple(CUTOFFS), (6.0, 4.5), (2, 2), (4, 4), (2, 0, 0), 5, None, tuple(CUTOFFS.values()))
    values = np.random.default_rng(0).normal(0, 0.3, header.n_values)
    (folder / FILENAME).write_text('\n'.join([*lines, *(f'{value:.7e}' for value in values)]) + '\n')
    assert read_nep(folder / FILENAME).header == header
    return PotentialData(
        folder,
        architecture='nep',
        elements=sorted(CUTOFFS),
        cutoff=6.0,
        dtype='float32',
        n_parameters=header.n_parameters,
    ).store()


def test_the_elements_that_are_kept_keep_their_own_cutoffs(train, several_cutoffs, predict, bare, tmp_path):
    still = {'steps': 1, 'learning_rate': 1e-12, 'final_learning_rate': 1e-12, 'batch_size': 2}
    outputs, node = train({**still, 'atomic_energies': 'parent'}, parent=several_cutoffs)
    assert node.is_finished_ok, node.exit_message
    kept = {symbol: CUTOFFS[symbol] for symbol in ('I', 'Cs', 'Pb')}  # in the order of the file
    (tmp_path / 'nep.txt').write_bytes(potential_bytes(outputs['potential']))
    folder = outputs['remote_folder'].get_remote_path()
    found = bare(
        """
        import json, sys
        from calorine.nep import read_model
        models = [read_model(path) for path in sys.argv[1:]]
        print(json.dumps([[model.types, model.radial_cutoff, model.angular_cutoff] for model in models]))
        """,
        tmp_path / 'nep.txt',
        f'{folder}/parent.txt',
    )
    radial, angular = ([pair[kind] for pair in kept.values()] for kind in (0, 1))
    assert found == [[list(kept), radial, angular]] * 2
    effective = outputs['results']['effective']
    assert effective['radial_cutoff'] == {symbol: pair[0] for symbol, pair in kept.items()}
    before, _ = predict(several_cutoffs, node.inputs.validation)
    after, _ = predict(outputs['potential'], node.inputs.validation)
    size = np.abs(before.get_array('forces')).max()
    assert size > 1e-3
    assert np.abs(after.get_array('forces') - before.get_array('forces')).max() < 1e-4 * size


def test_one_cutoff_for_all_is_not_asked_of_a_parent_with_several(train, several_cutoffs):
    _, node = train({'radial_cutoff': 6.0, 'steps': 1, 'batch_size': 2}, parent=several_cutoffs)
    assert node.exit_status == 210
    assert '`radial_cutoff`: asked 6.0, the parent has {' in node.exit_message


@pytest.mark.long
def test_the_cutoffs_of_the_parent_can_be_said_again(train, nep89):
    settings = {'radial_cutoff': 6.0, 'angular_cutoff': 5.0, 'steps': 1, 'batch_size': 2}
    for left_out in ('angular_cutoff', None):
        given = {name: value for name, value in settings.items() if name != left_out}
        outputs, node = train(given, parent=nep89)
        assert node.is_finished_ok, node.exit_message
        assert outputs['results']['effective']['angular_cutoff'] == 5.0


def test_fine_tuning_starts_where_the_parent_is_and_names_what_it_forgets(train, nep89, predict):
    still = {'steps': 1, 'learning_rate': 1e-12, 'final_learning_rate': 1e-12, 'batch_size': 2}
    outputs, node = train({**still, 'atomic_energies': 'parent'}, parent=nep89)
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert results['dropped_elements'] == ['C', 'H', 'N']
    assert (results['effective']['neurons'], results['effective']['zbl']) == (80, 2.0)
    before, _ = predict(nep89, node.inputs.validation)
    after, _ = predict(outputs['potential'], node.inputs.validation)
    size = np.abs(before.get_array('forces')).max()
    assert np.abs(after.get_array('forces') - before.get_array('forces')).max() < 1e-5 * size
    # the trainer shifts all energies by their mean error, and does nothing else to them
    shift = (after.get_array('energy') - before.get_array('energy')) / 40
    assert np.ptp(shift) < 1e-5


def test_fine_tuning_finds_the_energies_of_another_level_and_lowers_the_error(train, nep89, predict):
    outputs, node = train({'steps': 100, 'batch_size': 2}, parent=nep89)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results'].get_dict()['effective']['atomic_energies'] == 'estimated'
    _, before = predict(nep89, node.inputs.validation)
    _, after = predict(outputs['potential'], node.inputs.validation)
    assert after['forces']['rmse'] < 0.5 * before['forces']['rmse']
    assert after['energy_per_atom']['rmse'] < 0.05


def test_settings_that_the_parent_fixes_are_not_passed_over(train, nep89):
    _, node = train({'neurons': 30, 'steps': 1, 'batch_size': 2}, parent=nep89)
    assert node.exit_status == 210
    assert '`neurons`: asked 30, the parent has 80' in node.exit_message
    assert 'curve' not in node.outputs


@pytest.fixture
def stand_in(plugin_code, tmp_path):
    path = tmp_path / 'nep-stand-in'
    path.write_text(f'#!/bin/sh\nexec {plugin_code("nep").get_executable()} {STAND_IN}\n')
    path.chmod(0o755)
    return str(path)


def test_the_frame_around_gpumd_delivers_a_potential_and_checks_its_forces(train, stand_in, predict):
    outputs, node = train({**TINY, 'trainer': 'gpumd', 'executable': stand_in, 'generations': 300})
    assert node.is_finished_ok, node.exit_message
    results = outputs['results'].get_dict()
    assert results['effective']['generations'] == 300
    assert results['effective']['frames_per_generation'] == 6
    assert any('random numbers from the clock' in note for note in results['notes'])
    assert outputs['curve'].get_array('step').tolist() == [100, 200, 300]
    predict(outputs['potential'], node.inputs.validation)


def test_gpumd_starts_from_a_parent_with_its_parameters_and_its_scales(train, stand_in, nep89, predict):
    settings = {'trainer': 'gpumd', 'executable': stand_in, 'generations': 100, 'atomic_energies': 'parent'}
    outputs, node = train(settings, parent=nep89)
    assert node.is_finished_ok, node.exit_message
    written = outputs['retrieved'].base.repository.get_object_content('nep.in')
    assert 'import_q_scaler  1' in written
    assert 'fine_tune' not in written  # which reads files with 89 elements alone
    before, _ = predict(nep89, node.inputs.validation)
    after, _ = predict(outputs['potential'], node.inputs.validation)
    # the stand-in learns nothing
    assert np.abs(after.get_array('forces') - before.get_array('forces')).max() < 1e-5


def test_gpumd_that_is_not_there_is_named_with_advice(train):
    _, node = train({**TINY, 'trainer': 'gpumd', 'generations': 100})
    assert node.exit_status == 320
    assert 'take the trainer `neppo`' in node.exit_message


def test_a_molecule_is_predicted_in_vacuum_and_has_no_stress(bare, shared_data, tmp_path):
    (tmp_path / 'p').mkdir()
    shutil.copyfile(shared_data / 'nep89' / 'nep89_HCNIPbCs.txt', tmp_path / 'p' / FILENAME)
    found = bare(
        """
        import json
        from dataclasses import replace
        from pathlib import Path
        import numpy as np
        from ase.build import molecule
        from aiida_perovmlip.compute.architectures.nep import Nep
        from aiida_perovmlip.compute.frame import Frame
        nep, here = Nep(), Path('p')
        atoms = molecule('NH3')
        bare = Frame.from_atoms(atoms)
        atoms.set_cell(np.eye(3) * 40); atoms.center(); atoms.pbc = True
        wide = Frame.from_atoms(atoms)
        slab = replace(wide, cell=np.diag([40.0, 40.0, 5.0]), pbc=np.array([True, True, False]))
        a, b, c = nep.predict(here, [bare, wide, slab])
        lone = Frame(np.array([53]), np.zeros((1, 3)))
        (atom,) = nep.predict(here, [lone])
        (seen,) = nep.descriptors(here, [wide])
        print(json.dumps({
            'energy': [a.energy, b.energy, c.energy], 'stress': [a.stress is None, b.stress is None, c.stress is None],
            'forces': float(np.abs(a.forces - b.forces).max()), 'size': float(np.abs(a.forces).max()),
            'atom': [atom.energy, nep.facts(here).energies_of_atoms['default']['I']], 'seen': seen.shape}))
        """
    )
    assert found['energy'] == pytest.approx([found['energy'][0]] * 3, abs=1e-8)
    assert found['stress'] == [True, False, True]
    assert found['forces'] < 1e-8 < found['size']
    assert found['atom'][0] == pytest.approx(found['atom'][1], abs=1e-6)
    assert found['seen'] == [4, 35]


def test_a_potential_that_gpumd_trained_predicts_what_gpumd_wrote(bare, shared_data, tmp_path):
    """Recorded outputs of a real run: energies per atom of 25 frames of PbTe."""
    (tmp_path / 'p').mkdir()
    shutil.copyfile(shared_data / 'gpumd_fixtures' / 'PbTe_nep.txt', tmp_path / 'p' / FILENAME)
    text = gzip.decompress((shared_data / 'gpumd_fixtures' / 'PbTe_train.xyz.gz').read_bytes()).decode()
    (tmp_path / 'train.xyz').write_text(text)
    written = np.loadtxt(shared_data / 'gpumd_fixtures' / 'PbTe_energy_train.out')
    n_frames = sum(1 for _ in read_extxyz(io.StringIO(text)))
    assert len(written) == n_frames
    found = bare(
        """
        import json
        from pathlib import Path
        import numpy as np
        from aiida_perovmlip.compute.architectures.nep import Nep
        from aiida_perovmlip.compute.extxyz import read_extxyz
        frames = list(read_extxyz(open('train.xyz')))
        found = [p.energy / len(f) for f, p in zip(frames, Nep().predict(Path('p'), frames))]
        print(json.dumps(found))
        """
    )
    assert np.allclose(found, written[:, 0], atol=2e-5)
