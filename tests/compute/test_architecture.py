"""What is judged for every architecture before anything runs: states, the shape of a parent, its level of theory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import (
    Plan,
    PotentialFacts,
    common_problem,
    default_way,
    problem_of_shape,
    problem_of_states,
)
from aiida_perovmlip.compute.architectures.mace.energies import way_of
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


def test_a_set_that_tells_no_spin_agrees_with_any_but_one_without_a_charge_is_neutral(tmp_path, make_frames):
    plain = write_folder(build_shards(make_frames(2)), tmp_path / 'plain')
    stated = [replace(frame, charge=1, spin=2) for frame in make_frames(2)]
    charged = write_folder(build_shards(stated), tmp_path / 'charged')
    triplets = write_folder(build_shards([replace(frame, charge=None) for frame in stated]), tmp_path / 'triplets')
    assert 'the charges 0, +1, but X' in problem_of_states('X', plain, charged)
    assert problem_of_states('X', plain, triplets) is None
    assert problem_of_states('X', None, charged) is None


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


def test_values_are_the_same_up_to_rounding_and_down_to_their_parts():
    assert are_same({'Cs': [1.0, 2.0]}, {'Cs': (1.0 + 1e-12, 2)})
    assert not are_same({'Cs': 1.0}, {'Cs': 1.0, 'I': 2.0})
    assert not are_same([1.0], [1.0, 2.0])
    assert not are_same('4x0e', '8x0e')
