"""What NEP refuses before anything runs, and what it does with what it was told."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.calculations.sources import job_sources
from aiida_perovmlip.compute.architecture import Plan, PotentialFacts, Training, common_problem
from aiida_perovmlip.compute.architectures.nep import Nep
from aiida_perovmlip.compute.architectures.nep.gpumd import effective_of_log
from aiida_perovmlip.compute.architectures.nep.inputs import fitted_energies, problem_of_precision
from aiida_perovmlip.compute.architectures.nep.neppo_program import pieces_of
from aiida_perovmlip.compute.architectures.nep.neppo_run import report_every
from aiida_perovmlip.compute.architectures.nep.potential_file import Header
from aiida_perovmlip.compute.architectures.nep.settings import NepSettings, resolve
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.compute.shard import build_shards
from aiida_perovmlip.workflows.training import settings_of_protocol

PARENT = Header(('I', 'Cs', 'Pb'), (6.0, 5.0), (4, 4), (8, 8), (4, 2, 1), 80, (1.0, 2.0))
KNOWN = PotentialFacts(('Cs', 'I', 'Pb'), 6.0)


@pytest.fixture
def plan(make_frames, tmp_path):
    def make(given=None, frames=None, validation=None, **fields):
        training = write_folder(build_shards(make_frames(6) if frames is None else frames), tmp_path / 'training')
        chosen = make_frames(2, seed=1) if validation is None else validation
        other = write_folder(build_shards(chosen), tmp_path / 'validation')
        return Plan(settings=read_settings(NepSettings, given or {}), training=training, validation=other, **fields)

    return make


def test_a_plan_without_faults_has_no_problem(plan):
    for settings in ({}, {'steps': 10}, {'trainer': 'gpumd', 'generations': 1000}, Nep.protocols['paper'][1]):
        assert common_problem(Nep(), plan(settings)) is None
    assert common_problem(Nep(), plan({}, strategy='naive', known=KNOWN)) is None


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'trainer': 'gpumd', 'steps': 100}, r'`steps` belongs to the trainer `neppo`.*`gpumd` counts `generations`'),
        ({'trainer': 'gpumd', 'batch_size': 2}, r'`batch_size` belongs .*looks at all frames in each generation'),
        ({'generations': 1000}, r'`generations` belongs to the trainer `gpumd`.*some hundred times fewer'),
        ({'population': 50, 'executable': 'x'}, '`executable`, `population` belong|`population`, `executable` belong'),
        ({'trainer': 'gpumd', 'generations': 150}, 'take a multiple'),
        ({'batch_size': 7}, 'there are only 6 training frames'),
        ({'angular_cutoff': 8.0}, 'cannot be larger than `radial_cutoff`, 7 Å'),
        ({'n_max': [4]}, r'`n_max` is \[4\], but has to be \[0 to 12, 0 to 8\]'),
        ({'basis_size': [8, 13]}, '`basis_size`'),
        ({'l_max': [4, 1, 0]}, r'has to be \[2 to 8, 0 or 2, 0 or 1\]'),
        ({'l_max': [4, 2]}, '`l_max`'),
        ({'loss_form': 'mae'}, '`loss_form` is'),
        ({'atomic_energies': 'guess'}, 'has to be average, estimated, parent'),
        ({'atomic_energies': 'parent'}, 'needs a parent'),
        ({'atomic_energies': {'Cs': 1.0, 'I': 1.0}}, 'has no Pb'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(plan, given, message):
    problem = Nep().check(plan(given))
    assert problem is not None
    assert re.search(message, problem)


@pytest.mark.parametrize(
    ('given', 'known', 'message'),
    [
        ({'radial_cutoff': 5.0}, 5.0, None),
        ({'radial_cutoff': 5.0, 'angular_cutoff': 4.0}, 5.0, None),
        ({'angular_cutoff': 7.5}, 8.0, None),
        ({'n_max': [4, 4], 'l_max': [4, 2, 1]}, 6.0, None),
        ({'radial_cutoff': 5.0}, 6.0, 'asked 5.0, the parent has 6.0'),
        ({'radial_cutoff': 5.0, 'angular_cutoff': 5.5}, 5.0, 'cannot be larger than `radial_cutoff`, 5 Å'),
        ({'n_max': [4]}, 6.0, '`n_max` is'),
    ],
)
def test_with_a_parent_what_is_not_said_is_as_in_the_parent_and_not_as_by_default(plan, given, known, message):
    found = PotentialFacts(('Cs', 'I', 'Pb'), known)
    problem = common_problem(Nep(), plan(given, strategy='naive', known=found, said=frozenset(given)))
    assert problem is None if message is None else message in problem


def test_a_protocol_says_nothing_of_the_rates_of_a_potential_that_is_trained_on(monkeypatch):
    rates = {'learning_rate': 0.5, 'final_learning_rate': 0.1, 'steps': 7}
    monkeypatch.setattr(Nep, 'protocols', {'mine': ('A protocol.', rates)})
    assert settings_of_protocol('nep', 'mine') == rates
    assert settings_of_protocol('nep', 'mine', has_parent=True) == {'steps': 7}
    shape = Nep().shape_to_be(NepSettings(**rates, neurons=7), NepSettings())
    assert shape.pop('neurons') == 7
    assert not set(rates) & set(shape)


@pytest.mark.parametrize(('name', 'missing'), [('neppo', 'batches'), ('gpumd', 'effective'), ('gpumd', 'energies')])
def test_a_state_of_an_earlier_version_is_refused_in_a_sentence(plan, tmp_path, name, missing):
    about = {'energies': {}, 'batches': 2, 'effective': {}}
    del about[missing]
    made = plan({'trainer': name})
    checkpoint = Checkpoint(tmp_path / 'checkpoint', 'test')
    checkpoint.save(1, {}, [{'step': 1}], about)
    known = {'settings': made.settings, 'training': made.training, 'validation': made.validation}
    with pytest.raises(JobError, match=f'does not tell `{missing}`') as caught:
        Nep().train(Training(folder=tmp_path, checkpoint=checkpoint, **known))
    assert caught.value.status is Status.BAD_INPUT


def test_a_trainer_that_is_not_there_is_refused():
    with pytest.raises(SettingsError, match="one of 'neppo', 'gpumd'"):
        read_settings(NepSettings, {'trainer': 'torchnep'})


def test_average_energies_with_a_parent_are_refused(plan):
    problem = Nep().check(plan({'atomic_energies': 'average'}, strategy='naive', known=KNOWN))
    assert 'would shift all energies of the parent' in problem


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ([{'energy': None}] * 6, 'some training frames have no energy'),
        ([{'forces': None}] * 6, 'some training frames have no forces'),
        ([{}] * 5 + [{'stress': None, 'pbc': np.array([True, True, False])}], '1 training frames are not periodic'),
    ],
)
def test_frames_that_nep_cannot_learn_from_are_refused(plan, make_frames, changes, message):
    frames = [replace(frame, **change) for frame, change in zip(make_frames(6), changes, strict=True)]
    problem = Nep().check(plan({}, frames))
    assert problem is not None
    assert re.search(message, problem)


def test_a_weight_for_stresses_that_are_not_there_is_refused_and_by_default_zero(plan, make_frames):
    bare = [replace(frame, stress=None) for frame in make_frames(6)]
    assert 'no training frame has a stress' in Nep().check(plan({'lambda_v': 1.0}, bare))
    assert Nep().check(plan({}, bare)) is None
    assert resolve(NepSettings(), None, 6, has_stress=False)['lambda_v'] == 0.0
    assert resolve(NepSettings(), None, 6, has_stress=True)['lambda_v'] == 0.1


def test_a_parent_decides_what_the_potential_is_made_of():
    wanted = resolve(NepSettings(radial_cutoff=6.0), PARENT, 6, has_stress=True)
    assert (wanted['neurons'], wanted['zbl'], wanted['l_max']) == (80, 2.0, [4, 2, 1])
    assert wanted['learning_rate'] == 1e-3


def test_totals_that_single_precision_would_round_are_refused(plan, make_frames):
    """As those of all electrons, where nothing or too little is taken off."""
    atoms = {'Cs': -211862.123456, 'Pb': -568512.654321, 'I': -190123.000001}
    frames = [
        replace(frame, energy=frame.energy + sum(atoms[symbol] for symbol in frame.symbols)) for frame in make_frames(6)
    ]
    half = {symbol: energy / 2 for symbol, energy in atoms.items()}
    assert 'rounds to' in Nep().check(plan({'atomic_energies': half}, frames))
    assert Nep().check(plan({'atomic_energies': atoms}, frames)) is None
    training = plan({}, frames).training
    assert 'Take `average`' in problem_of_precision(training, {})
    fitted = fitted_energies(training, (frame.energy for frame in training), training.elements())
    assert problem_of_precision(training, fitted) is None


def test_less_memory_and_a_lower_rate_are_offered_where_there_are_any():
    nep = Nep()
    assert nep.smaller_batch(NepSettings()) == {'batch_size': 2}
    assert nep.smaller_batch(NepSettings(batch_size=1)) is None
    assert nep.smaller_batch(NepSettings(trainer='gpumd')) is None
    assert nep.smaller_batch(NepSettings(trainer='gpumd', frames_per_generation=50)) == {'frames_per_generation': 25}
    assert nep.lower_rate(NepSettings(trainer='gpumd')) is None
    lower = nep.lower_rate(NepSettings(learning_rate=3e-4, final_learning_rate=2e-4))
    assert lower == pytest.approx({'learning_rate': 1e-4, 'final_learning_rate': 1e-4})


@pytest.mark.parametrize(
    ('done', 'pieces'),
    [(0, [1000]), (300, [700]), (301, [99, 600]), (999, [1]), (1000, []), (950, [50])],
)
def test_a_run_that_is_taken_up_reports_where_one_in_one_piece_would(done, pieces):
    assert pieces_of(done, 1000, 100) == pieces


def test_reports_are_frequent_but_never_cost_more_than_the_training():
    assert report_every(4000, 4, 40) == 100
    assert report_every(4000, 4, 100_000) == 4000
    assert report_every(3, 1, 2) == 3


def test_what_gpumd_printed_is_what_it_did():
    log = (
        '    (input)   lambda_e = 1.\n    (default) lambda_1 = 0.0607618.\n    (input)   lambda_v = 0.1.\n'
        '    (input)   batch size = 50.\n    (default) population size = 52.\n'
        'Hello, I changed the batch_size from 50 to 48.\nNumber of configurations = 48.\n'
        'Number of configurations = 47.\n'
    )
    assert effective_of_log(log) == {
        'lambda_e': 1.0,
        'lambda_1': 0.0607618,
        'lambda_v': 0.1,
        'frames_per_generation': 48,
        'population': 52,
    }


def test_a_job_takes_all_modules_of_nep_along():
    paths = job_sources('aiida_perovmlip.compute.tasks.train:Train', ['aiida_perovmlip.compute.architectures.nep:Nep'])
    names = {path.rpartition('/')[2] for path in paths if '/compute/architectures/nep/' in path}
    assert {'neppo_program.py', 'calculator.py', 'gpumd.py', 'loss_file.py', 'following.py'} <= names
