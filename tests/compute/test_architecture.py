"""What is judged for every architecture before anything runs: states, the shape of a parent, its level of theory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import (
    OTHER_LEVEL,
    UNKNOWN_LEVEL,
    Plan,
    PotentialFacts,
    Prediction,
    common_problem,
    default_way,
    in_batches,
    notes_of_way,
    problem_of_shape,
    problem_of_states,
)
from aiida_perovmlip.compute.architectures.mace.energies import way_of
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.settings import are_same
from aiida_perovmlip.compute.shard import build_shards

KNOWN = PotentialFacts(elements=('Cs', 'I', 'Pb'), cutoff=4.5, dtype='float32')
CUTOFF = {'mace': 'r_max', 'allegro': 'r_max', 'nep': 'radial_cutoff', 'reference': 'cutoff'}
LEARNED = ('mace', 'allegro', 'nep')


@pytest.fixture
def plan_of(tmp_path, make_frames):
    """Return a function that makes a plan for an architecture of this name."""

    def make(name, frames=None, settings=None, **fields):
        given = write_folder(build_shards(make_frames(4) if frames is None else frames), tmp_path / 'frames')
        kind = registry.load('architectures', name).Settings
        return Plan(settings=kind(**(settings or {})), training=given, validation=given, **fields)

    return make


@pytest.mark.parametrize('name', LEARNED)
@pytest.mark.parametrize(
    ('column', 'values', 'words'),
    [
        ('charge', (0, 1), 'the charges 0, +1, but'),
        ('charge', (-2, 0), 'the charges -2, 0, but'),
        ('spin', (1, 3), 'the spin multiplicities 1, 3, but'),
    ],
)
def test_frames_that_differ_in_what_nobody_sees_are_refused(plan_of, make_frames, name, column, values, words):
    frames = [replace(frame, **{column: values[index % 2]}) for index, frame in enumerate(make_frames(4))]
    architecture = registry.load('architectures', name)()
    assert words in common_problem(architecture, plan_of(name, frames))
    same = [replace(frame, **{column: values[1]}) for frame in frames]
    assert common_problem(architecture, plan_of(name, same)) is None


@pytest.fixture
def clash(tmp_path):
    """Return a function that says what of the states of frames would not be seen."""

    def check(training, validation=None, replay=None, name='mace', strategy='scratch'):
        sets = {
            key: write_folder(build_shards(frames), tmp_path / key) if frames else None
            for key, frames in {'training': training, 'validation': validation, 'replay': replay}.items()
        }
        architecture = registry.load('architectures', name)()
        return problem_of_states(architecture, Plan(settings=architecture.Settings(), strategy=strategy, **sets))

    return check


def test_a_set_that_tells_no_spin_agrees_with_any_but_one_without_a_charge_is_neutral(clash, make_frames):
    plain = make_frames(2)
    charged = [replace(frame, charge=1, spin=2) for frame in plain]
    assert 'the charges 0, +1, but mace does not see' in clash(plain, charged)
    assert clash(plain, [replace(frame, spin=3) for frame in plain]) is None
    assert clash(charged) is None


def atom(number, **fields):
    numbers = np.array([number], dtype=np.uint8)
    return Frame(numbers, np.zeros((1, 3)), energy=-1.0, forces=np.zeros((1, 3)), **fields)


@pytest.mark.parametrize('name', LEARNED)
def test_frames_of_other_atoms_may_have_a_state_of_their_own(clash, make_frames, name):
    """Atoms by themselves have a spin, and a vacancy a charge that its composition tells."""
    cells = [replace(frame, charge=0, spin=1) for frame in make_frames(2)]
    atoms = [atom(55, charge=0, spin=2), atom(82, charge=0, spin=3)]
    few = {name: getattr(cells[0], name)[1:] for name in ('numbers', 'positions', 'forces')}
    vacancy = replace(cells[0], charge=1, **few)
    assert clash([*cells, *atoms], name=name) is None
    assert 'the spin multiplicities 1, 3, but' in clash([*cells, *atoms, atom(55, charge=0, spin=2)],
                                                        [replace(cells[1], spin=3)], name=name)  # fmt: skip
    assert clash([*cells, vacancy], name=name) is None
    turned = replace(cells[0], numbers=cells[0].numbers[::-1].copy(), charge=1)
    assert 'the charges 0, +1, but' in clash([*cells, turned], name=name)  # the same atoms in another order


def test_each_head_of_several_may_have_a_charge_of_its_own(clash, make_frames):
    neutral = [replace(frame, head='n', charge=0) for frame in make_frames(2)]
    charged = [replace(frame, head='c', charge=1) for frame in make_frames(2)]
    assert clash([*neutral, *charged]) is None
    assert clash(charged, replay=neutral, strategy='multihead') is None
    assert 'the charges 0, +1' in clash([*neutral, *charged, replace(charged[0], charge=0)])
    assert 'the charges 0, +1' in clash([*neutral, *charged], strategy='naive')
    assert 'the charges 0, +1' in clash([*neutral, *charged], name='nep')
    mixed = [*neutral, replace(charged[0], head='n')]
    assert 'the charges 0, +1' in clash(charged, replay=mixed, strategy='multihead')


def test_an_architecture_that_sees_the_charge_may_have_any(plan_of, make_frames, monkeypatch):
    charged = [replace(frame, charge=index % 2) for index, frame in enumerate(make_frames(4))]
    architecture = registry.load('architectures', 'reference')()
    assert 'reference does not see the charge' in common_problem(architecture, plan_of('reference', charged))
    monkeypatch.setattr(type(architecture), 'sees', ('charge',))
    assert common_problem(architecture, plan_of('reference', charged)) is None


@pytest.mark.parametrize(('name', 'is_kept'), [('mace', True), ('allegro', True), ('nep', False)])
def test_validation_frames_hold_what_the_potential_will_have_learned_or_its_parent_had(
    plan_of, make_frames, tmp_path, name, is_kept
):
    """NEP goes on with the elements of the training frames alone; the others keep those of the parent."""
    architecture = registry.load('architectures', name)()
    lead = [replace(frame, numbers=np.where(frame.numbers == 55, 82, frame.numbers)) for frame in make_frames(4)]
    validation = write_folder(build_shards(make_frames(2)), tmp_path / 'validation')
    scratch = replace(plan_of(name, lead), validation=validation)
    assert 'the validation dataset holds Cs, which the potential will not know: it learns I, Pb' in common_problem(
        architecture, scratch
    )
    tuned = replace(scratch, strategy='naive', known=KNOWN, said=frozenset())
    problem = common_problem(architecture, tuned)
    assert problem is None if is_kept else 'holds Cs, which the potential will not know' in problem
    assert architecture.elements_to_be(tuned) == ({'Cs', 'I', 'Pb'} if is_kept else {'I', 'Pb'})
    stranger = replace(tuned, known=replace(KNOWN, elements=('I', 'Pb')))
    assert 'holds Cs, which the potential will not know' in common_problem(architecture, stranger)


def test_elements_that_mace_is_told_to_drop_are_those_of_no_frame(plan_of, make_frames):
    lead = [replace(frame, numbers=np.where(frame.numbers == 55, 82, frame.numbers)) for frame in make_frames(4)]
    mace = registry.load('architectures', 'mace')()
    plan = plan_of('mace', lead, {'keep_elements': False}, strategy='naive', known=KNOWN)
    assert mace.elements_to_be(plan) == {'I', 'Pb'}


def test_the_shape_of_a_parent_to_come_is_that_of_the_settings_that_make_it():
    mace = registry.load('architectures', 'mace')()
    first = mace.Settings(hidden_irreps='16x0e+16x1o', r_max=6.0, dtype='float32')
    shown = mace.shape_to_be(first, mace.Settings(hidden_irreps='16x0e + 16x1o'))
    assert (shown['hidden_irreps'], shown['r_max']) == ('16x0e + 16x1o', 6.0)
    assert 'dtype' not in shown  # a training may have another
    assert mace.shape_to_be(mace.Settings(num_interactions=1), first)['readout_irreps'] is None
    nep = registry.load('architectures', 'nep')()
    assert nep.shape_to_be(nep.Settings(neurons=7), nep.Settings()) == {'neurons': 7}  # of the others nobody knows


@pytest.mark.parametrize(('name', 'setting'), CUTOFF.items())
def test_a_cutoff_that_the_parent_does_not_have_is_refused_without_its_files(plan_of, name, setting):
    architecture = registry.load('architectures', name)()
    for said in (None, frozenset({setting})):
        plan = plan_of(name, settings={setting: 7.5}, strategy='naive', known=KNOWN, said=said)
        assert f'`{setting}`: asked 7.5, the parent has 4.5' in common_problem(architecture, plan)
    unsaid = plan_of(name, settings={setting: 7.5}, strategy='naive', known=KNOWN, said=frozenset())
    assert common_problem(architecture, unsaid) is None
    assert common_problem(architecture, plan_of(name, strategy='naive', known=KNOWN)) is None


def test_a_default_that_was_said_is_compared_with_the_parent_too(plan_of):
    plan = plan_of('mace', settings={'max_ell': 2}, strategy='naive', known=KNOWN, said=frozenset({'max_ell'}))
    assert '`max_ell`: asked 2, the parent has 3' in problem_of_shape(plan, {'max_ell': 3, 'correlation': 3})
    assert problem_of_shape(plan, {'max_ell': 2, 'correlation': 3}) is None


def test_energies_of_atoms_follow_the_level_of_theory_unless_something_is_said(plan_of):
    ways = {True: 'parent', None: 'parent', False: 'estimated'}
    for is_same, way in ways.items():
        plan = plan_of('mace', strategy='naive', known=KNOWN, has_level_of_parent=is_same)
        assert default_way(plan) == way_of(plan) == way
    kept = plan_of('mace', settings={'atomic_energies': 'parent'}, known=KNOWN, has_level_of_parent=False)
    assert way_of(kept) == 'parent'
    assert default_way(plan_of('mace', has_level_of_parent=None)) == 'average'
    said = {is_same: notes_of_way(plan_of('mace', strategy='naive', known=KNOWN, has_level_of_parent=is_same))
            for is_same in ways}  # fmt: skip
    assert said == {True: [], None: [UNKNOWN_LEVEL], False: [OTHER_LEVEL]}
    assert notes_of_way(plan_of('mace')) == []


def test_values_are_the_same_up_to_rounding_and_down_to_their_parts():
    assert are_same({'Cs': [1.0, 2.0]}, {'Cs': (1.0 + 1e-12, 2)})
    assert not are_same({'Cs': 1.0}, {'Cs': 1.0, 'I': 2.0})
    assert not are_same([1.0], [1.0, 2.0])
    assert not are_same('4x0e', '8x0e')


def test_frames_are_predicted_at_once_up_to_so_many_atoms_the_very_first_alone(make_frames):
    taken = []

    def predict(frames):
        taken.append(len(frames))
        return (Prediction(float(len(frame)), np.zeros((len(frame), 3))) for frame in frames)

    predictor = in_batches(predict, 80)
    assert [each.energy for each in predictor(make_frames(6))] == [40.0] * 6
    assert taken == [1, 2, 2, 1]
    list(predictor(make_frames(3)))  # warm by now
    assert taken[4:] == [2, 1]
    assert list(in_batches(predict, 10)([])) == []
    assert [each.energy for each in in_batches(predict, 10)(make_frames(2))] == [40.0] * 2
    assert taken[6:] == [1, 1]
