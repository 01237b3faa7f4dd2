"""What is asked of nequip's trainer and read from its curve; no nequip is needed here."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest

from aiida_perovmlip.calculations.sources import job_sources
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import Plan, PotentialFacts, Training
from aiida_perovmlip.compute.architectures import allegro
from aiida_perovmlip.compute.architectures.allegro import Allegro, config, package, trainer
from aiida_perovmlip.compute.architectures.allegro.config import AllegroSettings
from aiida_perovmlip.compute.checkpoint import Checkpoint, State
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.settings import describe_settings, read_settings
from aiida_perovmlip.compute.shard import build_shards
from aiida_perovmlip.compute.tasks.train import _changes
from aiida_perovmlip.workflows.training import settings_of_protocol

CURVE = """\
epoch,step,train_loss_epoch/weighted_sum,val0_epoch/forces_rmse,val0_epoch/per_atom_energy_rmse,val0_epoch/weighted_sum
0,9,,0.5,0.05,0.275
0,9,0.9,,,
1,19,,0.4,0.04,0.22
1,19,0.8,,,
2,29,,nan,0.03,nan
"""


@pytest.fixture
def frames_of(tmp_path):
    def write(frames, name='training'):
        return write_folder(build_shards(frames), tmp_path / name)

    return write


def training_of(folder, frames, settings=None, **others):
    plan = {'training': frames, 'validation': frames, 'settings': settings or AllegroSettings()}
    (folder / 'potential').mkdir(exist_ok=True)
    return Training(folder=folder, checkpoint=Checkpoint(folder / 'checkpoint', 'test'), **plan, **others)


def problem_of(settings, training, validation, **others):
    plan = Plan(settings=settings, training=training, validation=validation, **others)
    return Allegro().check(plan)


def config_of(settings=None, **others):
    settings = settings or AllegroSettings()
    shifts = {'Cs': -1.0, 'I': -2.0, 'Pb': -3.0}
    about = {
        'model': config.new_network(settings, list(shifts), shifts, 7),
        'types': list(shifts),
        'r_max': settings.r_max,
        'has_stress': True,
        'can_validate_stress': True,
        'has_parent': False,
        'seed': 7,
        'device': 'cpu',
        'output': 'run-1',
        'resumes': False,
    }
    return config.configuration(settings, **(about | others))


def without_stress(frames):
    return [replace(frame, stress=None) for frame in frames]


# ---------------------------------------------------------------------- what is asked


def test_all_that_it_imports_travels_with_a_job():
    paths = job_sources(registry.reference('tasks', 'train'), [registry.reference('architectures', 'allegro')])
    folder = 'aiida_perovmlip/compute/architectures/allegro'
    assert {f'{folder}/{part}.py' for part in ('__init__', 'config', 'loss', 'package', 'trainer')} <= set(paths)


def test_the_configuration_names_functions_of_ours_that_exist():
    metric = config_of()['training_module']['loss']['extra_metrics'][0]['metric']
    module, _, name = metric['_target_'].rpartition('.')
    assert callable(getattr(sys.modules[module], name))


def test_the_configuration_holds_no_absolute_path_and_is_plain_data():
    """The configuration becomes part of the potential, which would otherwise differ from machine to machine."""

    def texts(value):
        if isinstance(value, dict):
            value = list(value.values())
        return [text for entry in value for text in texts(entry)] if isinstance(value, list) else [value]

    config = config_of(AllegroSettings(zbl=True, patience=3))
    assert json.loads(json.dumps(config, allow_nan=False)) == config
    assert not [text for text in texts(config) if isinstance(text, str) and text.startswith('/')]


def test_each_setting_of_the_network_reaches_it():
    plain = config.new_network(AllegroSettings(), ['Cs'], {'Cs': 0.0}, 0)
    other = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 1, str: lambda v: 'gelu'}
    for name in config.NETWORK:
        value = getattr(AllegroSettings(), name)
        changed = replace(AllegroSettings(), **{name: other[type(value)](value)})
        assert config.new_network(changed, ['Cs'], {'Cs': 0.0}, 0) != plain, name


def test_each_setting_is_read_back_from_where_the_trainer_keeps_it():
    settings = AllegroSettings(
        epochs=7,
        accumulate=3,
        batch_size=2,
        learning_rate=0.1,
        betas=[0.8, 0.9],
        lr_schedule='plateau',
        energy_weight=2.0,
        forces_weight=3.0,
        stress_weight=4.0,
        ema_decay=0.5,
        patience=6,
        compile_mode='compile',
    )
    done = config.effective_settings(config_of(settings))
    assert done == {name: value for name, value in asdict(settings).items() if name in done}
    assert set(done) | set(config.NETWORK) | {'atomic_energies'} == set(asdict(settings))
    plain = replace(settings, lr_schedule='constant', ema_decay=0.0, patience=None, stress_weight=None)
    done = config.effective_settings(config_of(plain, has_stress=False))
    assert [done[name] for name in ('lr_schedule', 'ema_decay', 'patience', 'stress_weight')] == [
        'constant',
        0,
        None,
        0,
    ]
    parent = config.network_of_parent(settings, {'Cs': 1.0})
    assert config.effective_settings(config_of(settings, model=parent))['compile_mode'] == 'compile'


def test_the_repulsion_of_nuclei_is_in_electronvolts_and_angstroms():
    network = config.new_network(AllegroSettings(zbl=True), ['Cs', 'I'], {}, 0)
    assert network['pair_potential']['units'] == 'metal'
    assert network['pair_potential']['chemical_species'] == network['type_names'] == ['Cs', 'I']


def test_stress_is_never_turned_into_a_virial():
    assert 'irial' not in json.dumps(config_of())


def test_the_paper_has_the_published_network():
    settings = read_settings(AllegroSettings, Allegro.protocols['paper'][1])
    assert (settings.r_max, settings.l_max, settings.num_layers, settings.num_tensor_features) == (6.5, 2, 2, 32)
    assert (settings.bessel_trainable, settings.parity) == (True, True)
    assert (settings.batch_size, settings.learning_rate, settings.betas) == (5, 1e-3, [0.9, 0.99])
    assert (settings.energy_weight, settings.forces_weight, settings.epochs) == (1.0, 1.0, 970)


def test_slurm_is_not_seen_by_the_trainer(monkeypatch, tmp_path, frames_of, make_frames):
    """Lightning would count the tasks of the job and queue it anew at a signal."""
    monkeypatch.setenv('SLURM_NTASKS', '4')
    monkeypatch.setenv('PYTHONPATH', '/somewhere')
    found = trainer.environment_of(training_of(tmp_path, frames_of(make_frames(2)), cores=3))
    assert 'SLURM_NTASKS' not in found
    assert found['OMP_NUM_THREADS'] == '3'
    assert found['PYTHONPATH'].endswith(':/somewhere')


@pytest.mark.parametrize(
    ('batch_size', 'accumulate', 'expected'),
    [(4, 1, (2, 2)), (2, 2, (1, 4)), (5, 1, (1, 5)), (6, 2, (3, 4)), (1, 8, None)],
)
def test_a_smaller_batch_leaves_the_frames_of_a_step_as_they_were(batch_size, accumulate, expected):
    change = Allegro().smaller_batch(AllegroSettings(batch_size=batch_size, accumulate=accumulate))
    assert (change and (change['batch_size'], change['accumulate'])) == expected
    if change:
        assert change['batch_size'] * change['accumulate'] == batch_size * accumulate


def test_the_rate_is_halved_until_it_is_too_small():
    assert Allegro().lower_rate(AllegroSettings(learning_rate=0.01)) == {'learning_rate': 0.005}
    assert Allegro().lower_rate(AllegroSettings(learning_rate=1e-6)) is None
    assert Allegro().lower_rate(AllegroSettings()) == {'learning_rate': config.RATE / 2}
    assert Allegro().lower_rate(AllegroSettings(), has_parent=True) == {'learning_rate': config.TUNING_RATE / 2}


@pytest.mark.parametrize('protocol', Allegro.protocols)
def test_a_network_that_is_trained_on_has_a_rate_of_its_own_and_not_that_of_a_protocol(protocol):
    rates = []
    for has_parent in (False, True):
        settings = read_settings(AllegroSettings, settings_of_protocol('allegro', protocol, has_parent=has_parent))
        module = config_of(settings, has_parent=has_parent)['training_module']
        rates.append(module['optimizer']['lr'])
    assert rates == [Allegro.protocols[protocol][1]['learning_rate'], config.TUNING_RATE]
    said = settings_of_protocol('allegro', protocol, {'learning_rate': 0.5}, has_parent=True)
    assert said['learning_rate'] == 0.5
    assert config.TUNING_RATE < config.RATE == config_of()['training_module']['optimizer']['lr']


def test_each_stage_has_a_rate_of_its_own_though_the_network_stays():
    first = AllegroSettings(learning_rate=0.03, r_max=8.0)
    shape = Allegro().shape_to_be(first, AllegroSettings())
    assert set(shape) == set(config.NETWORK)
    assert shape['r_max'] == 8.0


# ---------------------------------------------------------------------- what is refused


def test_plans_that_nequip_would_crash_on_are_refused(frames_of, make_frames):
    frames = frames_of(make_frames(4))
    bare = frames_of(without_stress(make_frames(4)), 'bare')
    unlabelled = frames_of(make_frames(4, labels=False), 'unlabelled')
    still = frames_of([replace(frame, forces=np.zeros((40, 3))) for frame in make_frames(4)], 'still')
    assert problem_of(AllegroSettings(), frames, frames) is None
    assert 'validation set' in problem_of(AllegroSettings(), frames, None)
    assert 'only 4 training frames' in problem_of(AllegroSettings(batch_size=5), frames, frames)
    assert 'no training frame has a stress' in problem_of(AllegroSettings(stress_weight=1.0), bare, bare)
    assert 'the validation frames have no energy and no forces' in problem_of(AllegroSettings(), frames, unlabelled)
    assert 'all forces' in problem_of(AllegroSettings(), still, frames)
    assert 'has to be positive' in problem_of(AllegroSettings(energy_weight=0.0, forces_weight=0.0), frames, frames)
    assert '`learning_rate` is 0' in problem_of(AllegroSettings(learning_rate=0.0), frames, frames)
    assert 'two numbers' in problem_of(AllegroSettings(betas=[0.9]), frames, frames)
    assert 'two numbers' in problem_of(AllegroSettings(betas=[0.9, 1.0]), frames, frames)


@pytest.mark.parametrize(
    ('name', 'about'),
    [
        ('scalar_embed', {'scalar_embed_mlp_hidden_layers_width': 128}),
        ('allegro', {'allegro_mlp_hidden_layers_width': 64}),  # also where it is the default
        ('readout', {'readout_mlp_hidden_layers_width': 8}),
        ('readout', {'readout_mlp_nonlinearity': 'none'}),
    ],
)
def test_what_hidden_layers_are_to_be_is_refused_where_there_are_none(frames_of, make_frames, name, about):
    frames = frames_of(make_frames(2))
    depth = f'{name}_mlp_hidden_layers_depth'
    for layers in (0, 1):
        given = {depth: layers, **about}
        problem = problem_of(read_settings(AllegroSettings, given), frames, frames, said=frozenset(given))
        assert (problem is None) == (layers == 1)
    assert f'`{next(iter(about))}` would have no effect, as `{depth}` is 0' in problem_of(
        read_settings(AllegroSettings, {depth: 0, **about}), frames, frames, said=frozenset({depth, *about})
    )
    assert problem_of(AllegroSettings(**{depth: 0}), frames, frames, said=frozenset({depth})) is None


class Bare(Allegro):
    """Allegro whose parents show a part of their network, as those from elsewhere do."""

    def shape_of(self, parent, settings):
        return {'r_max': 4.0, 'l_max': 1}


def test_what_a_parent_does_not_show_cannot_be_asked_of_it(tmp_path, frames_of, make_frames):
    frames = frames_of(make_frames(2))
    for said, words in (
        ({'num_tensor_features'}, r'shows nothing like `num_tensor_features`\. Leave it out'),
        ({'num_bessels', 'r_max', 'zbl', 'epochs'}, r'shows nothing like `num_bessels`, `zbl`\. Leave these out'),
    ):
        training = training_of(tmp_path, frames, said=frozenset(said), strategy='naive', parent=tmp_path)
        with pytest.raises(JobError, match=words) as caught:
            Bare().train(training)
        assert caught.value.status is Status.BAD_INPUT
    Bare()._refuse_unseen(training_of(tmp_path, frames, said=frozenset({'r_max', 'learning_rate'}), parent=tmp_path))


def test_a_single_frame_can_be_trained_on(frames_of, make_frames):
    one = frames_of(make_frames(1))
    assert problem_of(AllegroSettings(batch_size=1), one, one) is None


@pytest.mark.parametrize(
    ('given', 'has_parent', 'words'),
    [
        ({'Cs': -1.0}, False, 'has no I, Pb'),
        ('mean', False, 'has to be one of'),
        ('average', True, 'would shift all energies'),
        ('parent', False, 'needs a parent'),
        ('estimated', False, 'needs a parent'),
        ({'Cs': -1.0}, True, None),
        ('estimated', True, None),
        ('average', False, None),
        (None, True, None),
    ],
)
def test_energies_of_atoms_that_would_be_others_are_refused(frames_of, make_frames, given, has_parent, words):
    frames = frames_of(make_frames(4))
    known = PotentialFacts(('Cs', 'I', 'Pb'), 5.0) if has_parent else None
    problem = problem_of(AllegroSettings(atomic_energies=given), frames, frames, known=known)
    assert problem is None if words is None else words in problem


# ---------------------------------------------------------------------- energies of atoms


def molecule(symbols, energy):
    from ase.data import atomic_numbers

    numbers = np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.uint8)
    return Frame(numbers, np.zeros((len(symbols), 3)), energy=energy)


def test_energies_of_atoms_are_found_to_the_last_digit_in_large_totals():
    atoms = {'Cs': -211862.123456, 'Pb': -568512.654321, 'I': -190123.000001}
    cells = [['Cs', 'Pb', 'I'], ['Cs', 'I'], ['Pb', 'I', 'I'], ['Cs', 'Pb', 'I', 'I', 'I'] * 8]
    frames = [molecule(cell, sum(atoms[symbol] for symbol in cell)) for cell in cells]
    found = allegro.least_squares((frame, frame.energy) for frame in frames)
    assert found == {symbol: pytest.approx(energy, abs=1e-6) for symbol, energy in atoms.items()}


def test_equal_compositions_give_equal_energies_of_atoms():
    cells = [molecule(['Cs', 'Pb', 'I', 'I', 'I'], energy) for energy in (-1394293.0, -1394293.5)]
    found = allegro.least_squares((frame, frame.energy) for frame in cells)
    assert sum(found[symbol] * count for symbol, count in (('Cs', 1), ('Pb', 1), ('I', 3))) == pytest.approx(
        -1394293.25
    )
    assert max(found.values()) - min(found.values()) < 1.0


@pytest.mark.parametrize('done', [{'Cs': -1.0, 'I': -2.001}, {'Cs': -1.0}, {'Cs': -1.0, 'I': -2.0, 'Pb': -3.0}])
def test_a_network_with_other_energies_of_atoms_is_an_error(done):
    asked = {'Cs': -1.0, 'I': -2.0}
    allegro.refuse_other_energies(asked, {'I': -2.0, 'Cs': -1.0})
    with pytest.raises(JobError, match=r'`atomic_energies` are others: (I|Pb): asked') as caught:
        allegro.refuse_other_energies(asked, done)
    assert caught.value.status is Status.SETTINGS_IGNORED


def test_energies_of_atoms_that_follow_another_level_are_told(tmp_path, frames_of, make_frames):
    known = PotentialFacts(elements=('Cs', 'I', 'Pb'), cutoff=6.0)
    done = trainer.Result([{'step': 50}])
    for is_same, given, told in ((False, None, True), (False, 'parent', False), (True, None, False)):
        settings = AllegroSettings(atomic_energies=given)
        frames = frames_of(make_frames(2))
        training = training_of(tmp_path, frames, settings, known=known, has_level_of_parent=is_same)
        assert bool(allegro._notes(done, training)) == told


# ---------------------------------------------------------------------- frames


def test_frames_without_a_stress_say_so_only_where_others_have_one(tmp_path, frames_of, make_frames):
    from ase.io import read

    one, other = make_frames(2)
    mixed = frames_of([one, replace(other, stress=None)])
    allegro._write(mixed, tmp_path / 'mixed.xyz', with_stress=True)
    full, empty = read(tmp_path / 'mixed.xyz', ':')
    assert np.allclose(full.get_stress(), one.stress)
    assert np.isnan(empty.get_stress()).all()
    assert empty.get_potential_energy() == other.energy
    allegro._write(frames_of(without_stress([one, other]), 'bare'), tmp_path / 'bare.xyz', with_stress=False)
    assert 'stress' not in (tmp_path / 'bare.xyz').read_text()


# ---------------------------------------------------------------------- the curve


def test_an_epoch_is_reported_once_both_of_its_rows_are_there():
    steps = list(trainer.steps_of(CURVE))
    assert [step['step'] for step in steps] == [1, 2]
    assert steps[1] == {
        'step': 2,
        'loss': 0.8,
        'validation_loss': 0.22,
        'validation_forces_rmse': 0.4,
        'validation_energy_per_atom_rmse': 0.04,
    }
    assert [step['step'] for step in trainer.steps_of(CURVE, after=1)] == [2]
    assert math.isnan(list(trainer.steps_of(CURVE + '2,29,nan,,,\n'))[2]['loss'])


@pytest.mark.parametrize('length', range(0, len(CURVE), 7))
def test_half_a_curve_is_read_as_far_as_it_goes(length):
    """The trainer writes while we read, and rewrites the whole file when there is a new column."""
    steps = list(trainer.steps_of(CURVE[:length]))
    assert steps == list(trainer.steps_of(CURVE))[: len(steps)]


# ---------------------------------------------------------------------- states


def checkpoint_file(path, word):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('data', word * 1000)


def run_of(tmp_path, training, earlier=None):
    output = tmp_path / trainer.output_of(earlier)
    (output / 'csv' / 'version_0').mkdir(parents=True, exist_ok=True)
    return trainer._Run(training, output, earlier), output


@pytest.fixture
def training(tmp_path, frames_of, make_frames):
    return training_of(tmp_path, frames_of(make_frames(2)))


def write_curve(output, errors, start=0):
    rows = ['epoch,step,train_loss_epoch/weighted_sum,val0_epoch/weighted_sum']
    for epoch, error in enumerate(errors, start):
        rows += [f'{epoch},{epoch},,{error}', f'{epoch},{epoch},1.0,']
    path = output / 'csv' / 'version_0' / 'metrics.csv'
    path.write_text('\n'.join(rows) + '\n')


def test_a_state_that_is_half_written_is_never_saved(tmp_path, training):
    run, output = run_of(tmp_path, training)
    write_curve(output, [0.5])
    checkpoint_file(output / 'best-0.ckpt', 'b')
    checkpoint_file(output / 'state-0.ckpt', 's')
    whole = (output / 'state-0.ckpt').read_bytes()
    (output / 'state-0.ckpt').write_bytes(whole[:-30])
    run.follow()
    assert training.checkpoint.state() is None
    (output / 'state-0.ckpt').write_bytes(whole)
    run.save()
    state = training.checkpoint.state()
    assert (state.step, state.about['best_loss'], state.about['run']) == (1, 0.5, 1)
    assert state.file('state.ckpt').read_bytes() == whole


def test_a_truncated_state_on_disk_is_passed_over_for_the_one_before(tmp_path, training):
    run, output = run_of(tmp_path, training)
    for epoch in range(2):
        write_curve(output, [0.5, 0.4][: epoch + 1])
        checkpoint_file(output / f'best-{epoch}.ckpt', 'b')
        checkpoint_file(output / f'state-{epoch}.ckpt', str(epoch))
        run.follow()
        run.save()
    newest = training.checkpoint.state()
    assert newest.step == 2
    newest.file('state.ckpt').write_bytes(b'')
    assert training.checkpoint.state().step == 1


def test_the_best_of_all_runs_is_kept_and_the_curve_goes_on(tmp_path, training):
    """In a new folder, the trainer's own checkpoints forget what was best before, and its curve begins anew."""
    run, output = run_of(tmp_path, training)
    write_curve(output, [0.5, 0.1, 0.3])
    checkpoint_file(output / 'best-1.ckpt', 'good')
    checkpoint_file(output / 'state-2.ckpt', 'state')
    run.follow()
    good = (output / 'best-1.ckpt').read_bytes()
    earlier = training.checkpoint.state()
    again, second = run_of(tmp_path, training, earlier)
    assert second != output
    write_curve(second, [0.4, 0.2], start=3)
    checkpoint_file(second / 'best-4.ckpt', 'worse')
    checkpoint_file(second / 'state-4.ckpt', 'later')
    again.follow()
    state = training.checkpoint.state()
    assert [step['step'] for step in state.curve] == [1, 2, 3, 4, 5]
    assert (state.about['best_loss'], state.about['run']) == (0.1, 2)
    assert state.file('best.ckpt').read_bytes() == good
    checkpoint_file(second / 'best-5.ckpt', 'better')
    write_curve(second, [0.4, 0.2, 0.05], start=3)
    checkpoint_file(second / 'state-5.ckpt', 'latest')
    again.follow()
    again.save()
    assert training.checkpoint.state().about['best_loss'] == 0.05


def test_the_best_of_an_earlier_run_outlives_the_states_that_it_lay_in(tmp_path, training):
    run, output = run_of(tmp_path, training)
    write_curve(output, [0.1])
    checkpoint_file(output / 'best-0.ckpt', 'good')
    checkpoint_file(output / 'state-0.ckpt', 'state')
    run.follow()
    good = (output / 'best-0.ckpt').read_bytes()
    (tmp_path / 'best.ckpt').unlink()  # a run that takes it up has nothing but the checkpoint
    again, second = run_of(tmp_path, training, training.checkpoint.state())
    for epoch in range(1, 6):
        write_curve(second, [0.9] * epoch, start=1)
        checkpoint_file(second / f'best-{epoch}.ckpt', 'worse')
        checkpoint_file(second / f'state-{epoch}.ckpt', 'later')
        again.follow()
        again.save()
    state = training.checkpoint.state()
    assert state.step == 6
    assert state.file('best.ckpt').read_bytes() == good == again.result.best.read_bytes()


def test_what_is_not_a_number_ends_the_training_and_is_not_saved(tmp_path, training):
    run, output = run_of(tmp_path, training)
    write_curve(output, [0.5])
    checkpoint_file(output / 'best-0.ckpt', 'b')
    checkpoint_file(output / 'state-0.ckpt', 's')
    run.follow()
    write_curve(output, [0.5, 'nan'])
    checkpoint_file(output / 'state-1.ckpt', 'bad')
    with pytest.raises(JobError, match='validation_loss of epoch 2 is not a finite number') as caught:
        run.follow()
    assert caught.value.status is Status.DIVERGED
    assert 'state of epoch 1 is saved' in caught.value.message
    assert training.checkpoint.state().step == 1


def test_settings_that_lie_in_the_state_cannot_be_changed_unnoticed(tmp_path, training):
    before = training.settings
    state = State(tmp_path, 1, [], {'run': 1}, asdict(before))
    assert _changes(Allegro(), before, state) == []
    assert _changes(Allegro(), replace(before, batch_size=2, accumulate=2, learning_rate=1e-3), state)
    for change in ({'l_max': 3}, {'forces_weight': 7.0}, {'ema_decay': 0.5}, {'patience': 3}, {'epochs': 7}):
        name = next(iter(change))
        with pytest.raises(JobError, match=f'`{name}`: .* before, .* now') as caught:
            _changes(Allegro(), replace(before, **change), state)
        assert caught.value.status is Status.BAD_INPUT
    assert trainer.output_of(state) == 'run-2'


@pytest.mark.parametrize('missing', trainer.TOLD)
def test_a_state_of_an_earlier_version_is_refused_in_a_sentence(tmp_path, training, missing):
    (tmp_path / 'state.ckpt').write_bytes(b'')
    about = {'atomic_energies': {}, 'best_loss': 0.1, 'best_step': 1, 'run': 1}
    del about[missing]
    training.checkpoint.save(1, {'state.ckpt': tmp_path / 'state.ckpt'}, [{'step': 1}], about)
    with pytest.raises(JobError, match=f'does not tell `{missing}`.*train anew') as caught:
        Allegro().train(training)
    assert caught.value.status is Status.BAD_INPUT


def test_a_run_that_is_taken_up_at_the_same_rate_takes_its_state_as_it_is(tmp_path):
    """Whether the rate was said or left to be chosen; nothing would be read from this file otherwise."""
    (tmp_path / 'state.ckpt').write_bytes(b'no checkpoint of torch')
    for before, now, has_parent in (
        (None, config.TUNING_RATE, True),
        (config.TUNING_RATE, None, True),
        (None, config.RATE, False),
        (None, None, True),
    ):
        state = State(tmp_path, 1, [], {'run': 1}, asdict(AllegroSettings(learning_rate=before)))
        trainer.write_resumed(state, AllegroSettings(learning_rate=now), has_parent, tmp_path / 'resumed.ckpt')
        assert (tmp_path / 'resumed.ckpt').read_bytes() == b'no checkpoint of torch'


def test_the_best_network_is_kept_as_soon_as_it_is_seen(tmp_path, training):
    """The trainer deletes it for a better one, of an epoch that a run which takes up the state may do otherwise."""
    run, output = run_of(tmp_path, training)
    write_curve(output, [0.5, 0.2])
    checkpoint_file(output / 'best-1.ckpt', 'good')
    good = (output / 'best-1.ckpt').read_bytes()
    run.follow()  # no state has been written yet
    (output / 'best-1.ckpt').unlink()
    checkpoint_file(output / 'best-2.ckpt', 'of an epoch that is not in the curve')
    checkpoint_file(output / 'state-1.ckpt', 'state')
    run.save()
    state = training.checkpoint.state()
    assert (state.step, state.about['best_step'], state.about['best_loss']) == (2, 2, 0.2)
    assert state.file('best.ckpt').read_bytes() == good
    assert trainer.Result.of(state).best_step == 2


def test_a_state_without_its_best_network_is_not_saved(tmp_path, training):
    run, output = run_of(tmp_path, training)
    write_curve(output, [0.5, 0.2])
    checkpoint_file(output / 'best-0.ckpt', 'not the best')
    checkpoint_file(output / 'state-1.ckpt', 'state')
    run.follow()
    run.save()
    assert training.checkpoint.state() is None


def test_of_several_networks_that_the_trainer_keeps_the_best_of_the_curve_is_taken(tmp_path, training):
    run, output = run_of(tmp_path, training)
    write_curve(output, [0.5, 0.2, 0.3])
    for epoch in range(4):  # the last of an epoch that is not in the curve yet
        checkpoint_file(output / f'best-{epoch}.ckpt', str(epoch))
    run.follow()
    assert (run.result.best_step, run.result.best_loss) == (2, 0.2)
    assert run.result.best.read_bytes() == (output / 'best-1.ckpt').read_bytes()


def test_what_else_is_known_is_kept_with_the_state(tmp_path, training):
    output = tmp_path / 'run-1'
    (output / 'csv' / 'version_0').mkdir(parents=True)
    run = trainer._Run(training, output, None, {'atomic_energies': {'Cs': -1.0}})
    write_curve(output, [0.5])
    checkpoint_file(output / 'best-0.ckpt', 'b')
    checkpoint_file(output / 'state-0.ckpt', 's')
    run.follow()
    assert training.checkpoint.state().about['atomic_energies'] == {'Cs': -1.0}


# ---------------------------------------------------------------------- the end of the trainer


def stand_in(monkeypatch, code):
    """Let a small program run instead of the trainer."""

    def start(command, folder, log, environment):
        return subprocess.Popen([sys.executable, '-c', code], cwd=folder, stdout=log, stderr=log)

    monkeypatch.setattr(trainer, 'start_child', start)


def train_with(training):
    return trainer.train(training, config_of(training.settings), None)


def test_the_wall_time_ends_the_trainer(monkeypatch, training):
    stand_in(monkeypatch, 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)')
    deadline = time.monotonic() + 1.0
    short = replace(training, seconds_left=lambda: deadline - time.monotonic())
    with pytest.raises(JobError, match='stopped at epoch 0 of 50') as caught:
        train_with(short)
    assert caught.value.status is Status.OUT_OF_WALLTIME
    assert time.monotonic() < deadline + 10


@pytest.mark.parametrize(
    ('code', 'left', 'status', 'words'),
    [
        ('import os; os.kill(os.getpid(), 15)', 0.0, Status.OUT_OF_WALLTIME, 'stopped at epoch'),
        ('import os; os.kill(os.getpid(), 9)', math.inf, Status.OUT_OF_MEMORY, 'killed by SIGKILL.*more memory'),
        ('import os; os.kill(os.getpid(), 40)', math.inf, Status.FAILED, 'killed by signal 40'),
        ('raise KeyError("no such key")', math.inf, Status.FAILED, 'exit status 1.*no such key'),
        ('raise MemoryError("CUDA out of memory")', math.inf, Status.OUT_OF_MEMORY, 'halve `batch_size`'),
        ('pass', math.inf, Status.FAILED, 'ended without a checkpoint'),
    ],
)
def test_each_end_of_the_trainer_has_a_name(monkeypatch, training, code, left, status, words):
    stand_in(monkeypatch, code)
    ended = []

    def seconds_left():
        ended.append(True)
        return math.inf if len(ended) < 3 and left else left

    with pytest.raises(JobError, match=words) as caught:
        train_with(replace(training, seconds_left=seconds_left))
    assert caught.value.status is status


# ---------------------------------------------------------------------- the package


def test_a_plain_archive_does_not_depend_on_when_and_in_which_order_it_was_written(tmp_path):
    for name, parts in (('one', 'ab'), ('other', 'ba')):
        with zipfile.ZipFile(tmp_path / f'{name}.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
            for part in parts:
                date = (2020 + len(name), 1, 2, 3, 4, 6)
                archive.writestr(zipfile.ZipInfo(f'top/{part}', date), part * 100)
        package.write_plain_archive(tmp_path / f'{name}.zip', tmp_path / f'{name}-plain.zip')
    first, second = ((tmp_path / f'{name}-plain.zip').read_bytes() for name in ('one', 'other'))
    assert first == second
    assert zipfile.ZipFile(io.BytesIO(first)).read('top/b') == b'b' * 100


def test_an_unknown_target_is_refused(tmp_path):
    with pytest.raises(JobError, match='There is no target `torchscript`; there are ase, batch, pair_allegro'):
        Allegro().compile(tmp_path, 'torchscript', 'cpu', tmp_path)


def test_all_settings_say_what_they_are():
    rows = {row['name']: row for row in describe_settings(AllegroSettings)}
    assert rows['r_max']['unit'] == 'Å'
    assert set(config.NETWORK) < set(rows)
