"""What MACE's trainer is asked: files, arguments and commands; no MACE is needed here."""

from __future__ import annotations

import ast
from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.calculations.sources import job_sources
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import PotentialFacts, Training
from aiida_perovmlip.compute.architectures.mace import Mace, MaceSettings
from aiida_perovmlip.compute.architectures.mace import arguments as mace_arguments
from aiida_perovmlip.compute.architectures.mace import settings as mace_settings
from aiida_perovmlip.compute.architectures.mace.arguments import arguments_of, command_of, write_frames
from aiida_perovmlip.compute.architectures.mace.energies import find_energies
from aiida_perovmlip.compute.architectures.mace.heads import heads_of
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.compute.shard import build_shards

KNOWN = PotentialFacts(
    elements=('Br', 'Cs', 'I', 'Pb'),
    cutoff=5.0,
    heads=('Default',),
    energies_of_atoms={'Default': {'Br': -4.0, 'Cs': -1.0, 'I': -3.0, 'Pb': -2.0}},
)


@pytest.fixture
def ask(tmp_path, make_frames):
    """Return a function that gives the arguments of a training on made-up frames."""

    def arguments(strategy='scratch', frames=None, replay=None, parent=None, seed=5, **settings):
        given = write_folder(build_shards(frames or make_frames(4)), tmp_path / 'training')
        training = Training(
            strategy=strategy,
            settings=MaceSettings(**settings),
            training=given,
            validation=given,
            replay=write_folder(build_shards(replay), tmp_path / 'replay') if replay else None,
            known=KNOWN if strategy != 'scratch' else None,
            folder=tmp_path,
            checkpoint=Checkpoint(tmp_path / 'checkpoint', 'test'),
            parent=tmp_path if strategy != 'scratch' else None,
            seed=seed,
        )
        heads = heads_of(training)
        return arguments_of(training, heads, find_energies(training, heads).by_head)

    return arguments


def with_head(frames, name):
    return [replace(frame, head=name) for frame in frames]


def without_stress(frames):
    return [replace(frame, stress=None) for frame in frames]


def test_all_its_modules_travel_with_a_job():
    sources = job_sources(registry.reference('tasks', 'train'), [registry.reference('architectures', 'mace')])
    names = {path.partition('/architectures/')[2] for path in sources}
    modules = ('arguments', 'checks', 'effective', 'energies', 'heads', 'network', 'results', 'run', 'settings')
    assert {'mace/__init__.py', *(f'mace/{name}.py' for name in modules)} <= names


def test_every_element_of_a_potential_is_told_its_energy_as_a_number(ask):
    arguments = ask(atomic_energies={'Cs': -1.0, 'Pb': -2.0, 'I': -3.0, 'Br': -4.0})
    assert ast.literal_eval(arguments['E0s']) == {53: -3.0, 55: -1.0, 82: -2.0}  # no bromine in the frames
    assert set(ast.literal_eval(ask()['E0s'])) == {53, 55, 82}
    tuned = ask('naive')
    assert ast.literal_eval(tuned['E0s']) == {35: -4.0, 53: -3.0, 55: -1.0, 82: -2.0}
    assert tuned['foundation_model_elements'] is True
    assert 'hidden_irreps' not in tuned


def test_what_mace_would_choose_by_itself_is_always_said(ask, make_frames):
    for strategy in ('scratch', 'naive', 'freeze', 'lora'):
        assert ask(strategy)['multiheads_finetuning'] is False
    arguments = ask('multihead', replay=make_frames(4, seed=1))
    assert arguments['multiheads_finetuning'] is True
    assert arguments['force_mh_ft_lr'] is True
    assert arguments['real_pt_data_ratio_threshold'] == 0.0
    assert not {'num_samples_pt', 'subselect_pt', 'filter_type_pt', 'weight_pt_head'} & set(arguments)


def test_each_head_has_files_and_energies_of_its_own(ask, make_frames):
    frames = [*with_head(make_frames(3), 'pbe'), *with_head(make_frames(2, seed=1), 'r2 SCAN')]
    arguments = ask(frames=frames)
    heads = ast.literal_eval(arguments['heads'])
    assert list(heads) == ['pbe', 'head_1']
    assert heads['pbe']['train_file'] == 'training_pbe.xyz'
    assert heads['pbe']['E0s'] != heads['head_1']['E0s']
    assert not {'train_file', 'E0s'} & set(arguments)


def test_the_replay_head_keeps_the_name_that_it_has_in_the_parent(tmp_path, make_frames):
    def names(heads, known):
        frames = write_folder(build_shards([f for h in heads for f in with_head(make_frames(2), h)]), tmp_path / 'f')
        facts = replace(KNOWN, heads=(known,))
        plan = Training(
            strategy='multihead',
            settings=MaceSettings(),
            training=frames,
            validation=frames,
            replay=frames,
            known=facts,
            folder=tmp_path,
            checkpoint=Checkpoint(tmp_path, 'test'),
        )
        return [(head.name, head.alias, head.origin) for head in heads_of(plan)]

    found = names(['r2scan'], 'pbe')
    assert found == [('pbe', 'pt_head', ('parent', 'pbe')), ('r2scan', 'r2scan', ('training', 'r2scan'))]
    assert [name for name, _, _ in names(['default'], 'Default')] == ['parent', 'default']
    assert [name for name, _, _ in names(['default', 'parent'], 'Default')] == ['parent_', 'default', 'parent']
    assert names(['pt_head'], 'pbe')[1][:2] == ('pt_head', 'head_0')


def test_replayed_frames_are_split_and_weighed_by_label(tmp_path, make_frames):
    frames = write_folder(build_shards(make_frames(12)), tmp_path / 'frames')
    plan = Training(
        strategy='multihead',
        settings=MaceSettings(),
        training=frames,
        validation=frames,
        replay=frames,
        known=KNOWN,
        folder=tmp_path,
        checkpoint=Checkpoint(tmp_path, 'test'),
    )
    head = heads_of(plan)[0]
    assert (len(head.training), len(head.validation)) == (11, 1)
    write_frames(make_frames(1), tmp_path / 'replay.xyz', weight=0.25)
    comment = (tmp_path / 'replay.xyz').read_text().splitlines()[1]
    assert 'config_energy_weight=0.25 config_forces_weight=0.25 config_stress_weight=0.25' in comment
    assert 'config_weight' not in comment


def test_strategies_say_what_stays_and_what_is_added(ask):
    assert ask('freeze')['freeze'] == 5
    assert ask('freeze', freeze_layers='products')['freeze'] == 6
    found = ask('lora', lora_rank=2)
    assert (found['lora'], found['lora_rank'], found['lora_alpha']) == (True, 2, 8.0)
    assert not {'freeze', 'lora'} & set(ask('naive'))


def test_one_frame_without_a_stress_does_not_take_it_from_the_others(ask, make_frames):
    one, *others = make_frames(4)
    arguments = ask(frames=[*without_stress([one]), *others], stress_weight=7.0)
    assert (arguments['stress_weight'], arguments['compute_stress']) == (7.0, True)


def test_the_default_weight_of_stresses_is_zero_where_there_are_none(ask, make_frames):
    assert ask(frames=without_stress(make_frames(4)))['stress_weight'] == 0.0
    assert ask()['stress_weight'] == 10.0


def test_squared_errors_have_another_name_where_there_are_stresses(ask, make_frames):
    bare = without_stress(make_frames(4))
    assert [ask()['loss'], ask(frames=bare)['loss']] == ['universal', 'universal']
    assert [ask(loss='squared')['loss'], ask(frames=bare, loss='squared')['loss']] == ['stress', 'weighted']


def test_no_group_of_frames_means_anything_to_the_trainer(tmp_path, make_frames):
    frames = [replace(frame, group='IsolatedAtom', head='pbe') for frame in make_frames(2)]
    write_frames(frames, tmp_path / 'training.xyz')
    text = (tmp_path / 'training.xyz').read_text()
    assert text.count('config_type=frames') == 2
    assert 'IsolatedAtom' not in text
    assert 'pbe' not in text


def test_all_states_are_saved_and_the_trainer_decides_on_no_end(ask):
    arguments = ask(patience=3, epochs=7, stage_two_epochs=2)
    command = command_of(arguments)
    assert {'--save_all_checkpoints', '--restart_latest', '--ema', '--stage_two', '--start_stage_two=7'} <= set(command)
    assert f'--patience={mace_arguments.NEVER}' in command
    assert '--max_num_epochs=9' in command
    assert '--stage_two_energy_weight=1000.0' in command
    without = command_of(ask(ema_decay=0.0, clip_grad=0.0))
    assert not [word for word in without if word.startswith(('--ema', '--stage_two', '--distributed'))]
    assert '--clip_grad=None' in without


def test_several_gpus_are_several_processes_of_one_machine(ask):
    command = command_of(ask(gpus=4), gpus=4)
    assert command[1:7] == ['-m', 'torch.distributed.run', '--standalone', '--nnodes=1', '--nproc_per_node=4', '-m']
    assert command[7:9] == ['aiida_perovmlip.compute.children', 'mace.cli.run_train']  # they end with the job
    assert {'--distributed', '--launcher=torchrun'} <= set(command)
    assert '--launcher=none' in command_of(ask())


def test_schedule_and_limits_are_handed_over(ask):
    words = command_of(ask(scheduler='ExponentialLR', lr_scheduler_gamma=0.9, clip_grad=1.0, valid_batch_size=3))
    assert {'--scheduler=ExponentialLR', '--lr_scheduler_gamma=0.9', '--clip_grad=1.0'} <= set(words)
    assert {'--valid_batch_size=3', '--batch_size=4', '--enable_cueq=False'} <= set(words)


def test_a_smaller_batch_keeps_the_noise_of_the_steps():
    found = Mace().smaller_batch(MaceSettings(batch_size=8, learning_rate=0.01))
    assert found == {'batch_size': 4, 'learning_rate': pytest.approx(0.01 / np.sqrt(2))}
    assert Mace().smaller_batch(MaceSettings(batch_size=1)) is None
    assert Mace().smaller_batch(MaceSettings(batch_size=1, valid_batch_size=8)) == {'valid_batch_size': 4}
    read_settings(MaceSettings, found)


def test_the_rate_falls_to_a_limit():
    assert Mace().lower_rate(MaceSettings(learning_rate=0.03)) == {'learning_rate': pytest.approx(0.01)}
    both = Mace().lower_rate(MaceSettings(stage_two_epochs=1))
    assert set(both) == {'learning_rate', 'stage_two_learning_rate'}
    assert Mace().lower_rate(MaceSettings(learning_rate=mace_settings.LOWEST_RATE)) is None


def test_the_paper_leaves_the_network_to_the_parent():
    shape = {'hidden_irreps', 'r_max', 'num_interactions', 'correlation', 'max_ell', 'readout_irreps', 'radial_mlp'}
    assert not shape & set(Mace.protocols['paper'][1])
    assert {'fast', 'balanced', 'paper'} <= set(Mace.protocols)
