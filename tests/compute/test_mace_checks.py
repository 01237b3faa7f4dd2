"""What is refused before MACE is trained; no MACE is needed here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.compute.architecture import Plan, PotentialFacts
from aiida_perovmlip.compute.architectures.mace import Mace, MaceSettings
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards

KNOWN = PotentialFacts(elements=('Cs', 'I', 'Pb'), cutoff=5.0, heads=('Default',))


@pytest.fixture
def frames_of(tmp_path):
    def write(frames, name='training'):
        return write_folder(build_shards(frames), tmp_path / name)

    return write


@pytest.fixture
def problem(frames_of, make_frames):
    """Return a function that checks a plan on made-up frames."""

    def check(strategy='scratch', training=None, validation=None, replay=None, known=None, **settings):
        frames = training or make_frames(4)
        plan = Plan(
            strategy=strategy,
            settings=MaceSettings(**settings),
            training=frames_of(frames),
            validation=frames_of(validation or frames, 'validation'),
            replay=frames_of(replay, 'replay') if replay else None,
            known=known or (KNOWN if strategy != 'scratch' else None),
        )
        return Mace().check(plan)

    return check


def atom(number, energy, **fields):
    numbers = np.array([number], dtype=np.uint8)
    return Frame(numbers, np.zeros((1, 3)), energy=energy, forces=np.zeros((1, 3)), **fields)


def test_energies_of_atoms_have_to_be_complete_and_may_be_more(problem):
    assert 'has no I, Pb' in problem(atomic_energies={'Cs': -1.0})
    assert problem(atomic_energies={'Cs': -1.0, 'Pb': -2.0, 'I': -3.0, 'Br': -4.0}) is None
    assert 'has to be one of' in problem(atomic_energies='mean')


@pytest.mark.parametrize(
    ('strategy', 'way', 'words'),
    [
        ('naive', 'average', 'would shift all energies'),
        ('scratch', 'parent', 'needs a parent'),
        ('scratch', 'estimated', 'needs a parent'),
    ],
)
def test_energies_of_atoms_that_would_spoil_the_rest_are_refused(problem, strategy, way, words):
    assert words in problem(strategy, atomic_energies=way)


def test_energies_of_atoms_by_head_name_the_heads(problem, make_frames):
    frames = [replace(frame, head=name) for name in ('a', 'b') for frame in make_frames(4)]
    each = {'Cs': -1.0, 'Pb': -2.0, 'I': -3.0}
    assert problem(training=frames, atomic_energies={'a': each, 'b': each}) is None
    assert 'the heads of the frames are a, b' in problem(training=frames, atomic_energies={'a': each})


def test_isolated_atoms_are_needed_of_each_element_and_have_one_energy(problem, make_frames):
    atoms = [atom(55, -1.0), atom(82, -2.0), atom(53, -3.0)]
    assert problem(training=[*make_frames(4), *atoms], atomic_energies='isolated') is None
    found = problem(training=[*make_frames(4), *atoms[:2]], atomic_energies='isolated')
    assert 'no single atom of I' in found
    twice = problem(training=[*make_frames(4), *atoms, atom(53, -3.5)], atomic_energies='isolated')
    assert 'single atoms of I have energies from -3.5000 to -3.0000 eV' in twice
    few = problem(training=[*make_frames(3), *atoms], validation=make_frames(1), atomic_energies='isolated')
    assert 'only 3 training frames' in few


def test_a_stress_weight_without_any_stress_is_refused(problem, make_frames):
    frames = [replace(frame, stress=None) for frame in make_frames(4)]
    assert 'no training frame has a stress' in problem(training=frames, stress_weight=1.0)
    assert problem(training=frames) is None


def test_a_learning_rate_of_zero_is_refused(problem):
    assert '`learning_rate` is 0, by which nothing is learned' in problem(learning_rate=0.0)
    assert '`stage_two_learning_rate` is 0' in problem(stage_two_epochs=2, stage_two_learning_rate=0.0)


@pytest.mark.parametrize(
    'irreps', ['fooxbar', '', '32x0e+', '32x', '0x0e', '16x0e 16x1o', '16x0y', '1x00e', '-4x0e', '8x1.0e']
)
@pytest.mark.parametrize('name', ['hidden_irreps', 'readout_irreps'])
def test_features_that_cannot_be_read_are_refused_in_words(problem, name, irreps):
    for strategy in ('scratch', 'naive'):
        assert f'`{name}` is {irreps!r}, but has to be channels and their symmetry' in problem(
            strategy, **{name: irreps}
        )


def test_features_that_mace_does_not_make_are_refused(problem):
    for irreps in ('16x0e + 8x1o', '16x1o', '16x0e + 16x0e'):
        assert 'as many channels of each symmetry' in problem(hidden_irreps=irreps)
    assert 'MACE reads scalars alone' in problem(readout_irreps='8x0e + 8x1o')
    for irreps in ('128 x 0e', ' 32x0e + 32x1o ', '0e', '4x0e+4x1o+4x2e'):
        assert problem(hidden_irreps=irreps) is None


def test_features_of_a_readout_that_is_not_there_are_refused(problem):
    """The only readout of a single layer is linear; MACE would train and pass over them."""
    assert 'no meaning with `num_interactions: 1`' in problem(num_interactions=1, readout_irreps='4x0e')
    assert problem(num_interactions=1) is None
    assert problem(num_interactions=2, readout_irreps='4x0e') is None


def test_a_batch_has_to_fit_into_the_frames_of_each_head(problem, make_frames):
    assert 'only 4 training frames.' in problem(batch_size=5)
    frames = [replace(frame, head='a') for frame in make_frames(4)]
    frames += [replace(frame, head='b') for frame in make_frames(2)]
    assert 'only 2 training frames of the head `b`' in problem(training=frames, batch_size=3)
    assert problem(training=frames, batch_size=2) is None
    missing = problem(training=frames, validation=frames[:2], batch_size=2)
    assert 'no validation frames of the head `b`' in missing


def test_multihead_without_anything_to_replay_is_refused(problem, make_frames):
    assert 'give a dataset as `replay`' in problem('multihead')
    assert problem('multihead', replay=make_frames(4)) is None
    assert problem('multihead', replay_labels='parent') is None
    assert 'there is 1 frame to replay' in problem('multihead', replay=make_frames(1))
    bromine = [replace(frame, numbers=np.where(frame.numbers == 53, 35, frame.numbers)) for frame in make_frames(4)]
    assert 'hold Br, which the parent does not know' in problem('multihead', replay=bromine)
    bare = [replace(frame, energy=None, forces=None, stress=None) for frame in make_frames(4)]
    assert 'have no labels; take `replay_labels: parent`' in problem('multihead', replay=bare)
    assert problem('multihead', replay=bare, replay_labels='parent') is None


def test_a_loss_that_the_trainer_would_replace_is_refused(problem, make_frames):
    said = problem('multihead', replay=make_frames(4), loss='squared')
    assert said == "mace-torch trains `multihead` with the loss `universal` whatever it is asked; `loss` is 'squared'."
    assert problem('naive', loss='squared') is None


def test_the_head_of_a_parent_with_several_has_to_be_said(problem):
    several = replace(KNOWN, heads=('pbe', 'r2scan'))
    assert 'say by `parent_head` which' in problem('naive', known=several)
    assert 'no head `typo`' in problem('naive', known=several, parent_head='typo')
    assert problem('naive', known=several, parent_head='pbe') is None


@pytest.mark.parametrize(
    ('strategy', 'settings'),
    [
        ('naive', {'lora_rank': 4}),
        ('lora', {'freeze_layers': 'products'}),
        ('freeze', {'replay_weight': 2.0}),
        ('scratch', {'keep_elements': True}),
    ],
)
def test_a_setting_without_a_meaning_for_the_strategy_is_refused(problem, strategy, settings):
    assert f'`{next(iter(settings))}` has a meaning with' in problem(strategy, **settings)


def test_settings_of_a_stage_that_is_not_there_are_refused(problem):
    assert '`stage_two_learning_rate` has no meaning' in problem(stage_two_learning_rate=1.0)
    assert problem(stage_two_learning_rate=1.0, stage_two_epochs=1) is None


def test_single_precision_is_refused_where_it_rounds_total_energies_away(problem, make_frames):
    all_electrons = [replace(frame, energy=frame.energy - 278858.0 * len(frame)) for frame in make_frames(4)]
    assert 'float32 rounds to 25 meV/atom' in problem(training=all_electrons, dtype='float32')
    assert problem(training=all_electrons) is None
    assert problem(dtype='float32') is None
