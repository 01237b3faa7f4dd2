"""What is judged of a training before it is submitted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.calculations.feasibility import (
    DescribedFrames,
    NotToldError,
    Parent,
    has_level_of_parent,
    parent_to_be,
    problem_of_training,
)
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


@pytest.fixture
def charged(make_frames):
    frames = [
        replace(frame, charge=-1 if number == 2 else 0) for number, frame in enumerate(make_frames(5, group='cubic'))
    ]
    return DatasetData.from_frames(frames, {'labeller': 'test'}).store()


def test_attributes_say_the_same_as_the_frames(charged, make_frames):
    bare = DatasetData.from_frames(make_frames(3, labels=False)).store()
    for dataset in (charged, bare):
        told, read = DescribedFrames(dataset), dataset.frames
        assert len(told) == len(read)
        assert told.elements() == read.elements()
        assert [told.has(name) for name in ('energy', 'forces', 'stress')] == [
            read.has(name) for name in ('energy', 'forces', 'stress')
        ]
        assert [told.categories(name) for name in ('group', 'head')] == [
            read.categories(name) for name in ('group', 'head')
        ]
        for name in ('charge', 'spin'):
            mine, theirs = ({value for part in each.chunks((name,)) for value in part.columns.get(name, [])}
                            for each in (told, read))  # fmt: skip
            assert mine == theirs


@pytest.mark.parametrize(
    'ask',
    [list, lambda each: each[0], lambda each: each.take([0]), lambda each: each.column('energy'),
     lambda each: each.categories('source'), lambda each: list(each.chunks(('charge', 'energy')))],
)  # fmt: skip
def test_what_only_the_frames_can_tell_is_not_told(charged, ask):
    with pytest.raises(NotToldError, match='without reading'):
        ask(DescribedFrames(charged))


@pytest.mark.parametrize('architecture', ['reference', 'mace', 'nep', 'allegro'])
def test_no_column_is_read_before_a_training_is_submitted(architecture, make_dataset, monkeypatch, python_code):
    """A dataset may hold a million frames, and the daemon serves other processes."""
    training, validation = make_dataset(8).store(), make_dataset(3, seed=1).store()

    def refuse(*_):
        raise AssertionError('the files of the dataset were opened.')

    monkeypatch.setattr(DatasetData, '_open', refuse)
    builder = TrainCalculation.get_builder()
    for name, value in {
        'architecture': architecture,
        'code': python_code,
        'training': training,
        'validation': validation,
        'settings': {'batch_size': 4} if architecture in ('mace', 'allegro') else {},
    }.items():
        setattr(builder, name, value)
    assert TrainCalculation._check_inputs(builder._inputs(prune=True), None) is None
    with pytest.raises(AssertionError, match='were opened'):
        len(training.frames)


def test_a_charge_that_nobody_sees_is_refused_by_the_job_as_only_frames_tell_of_which_atoms_it_is(charged, run_job):
    """Charges that differ are allowed where the atoms do; attributes do not tell which frame has which."""
    inputs = {'training': charged, 'validation': charged}
    assert problem_of_training('mace', {'batch_size': 2}, inputs, 'scratch', None) is None
    _, node = run_job(TrainCalculation, None, architecture='unruly', **inputs)
    assert node.exit_status == 210
    assert 'frames of the same atoms have the charges -1, 0, but unruly does not see' in node.exit_message


def test_what_attributes_tell_is_judged_although_they_do_not_tell_all(charged, make_dataset):
    """Of the energies, by which single precision is judged, they do not tell; of the charges not whose they are."""
    for training, settings in ((make_dataset(5).store(), {'dtype': 'float32'}), (charged, {})):
        inputs = {'training': training, 'validation': training}
        problem = problem_of_training('mace', {'batch_size': 99, **settings}, inputs, 'scratch', None)
        assert 'only 5 training frames' in problem


# ---------------------------------------------------------------------- levels of theory, by head


@pytest.fixture
def levels(make_frames):
    """Return a dataset for each of two levels of theory, and one without labels."""
    known = {name: {'labeller': 'test', 'functional': name} for name in ('PBE', 'r2SCAN')}
    sets = {name: DatasetData.from_frames(make_frames(4), level).store() for name, level in known.items()}
    return {**sets, 'none': DatasetData.from_frames(make_frames(4, labels=False)).store()}


@pytest.fixture
def of_two_levels(levels, tmp_path):
    """Return a potential with a head for each of two levels of theory."""
    (tmp_path / 'mace.model').write_text('a network')
    heads = {name.lower(): levels[name].level for name in ('PBE', 'r2SCAN')}
    facts = {'elements': ['Cs', 'I', 'Pb'], 'cutoff': 5.0, 'dtype': 'float64', 'n_parameters': 3}
    return PotentialData(tmp_path, architecture='mace', heads=tuple(heads), levels=heads, **facts).store()


@pytest.mark.parametrize(
    ('head', 'frames', 'is_same'),
    [('pbe', 'PBE', True), ('pbe', 'r2SCAN', False), ('r2scan', 'r2SCAN', True), ('pbe', 'none', None),
     (None, 'PBE', None)],
)  # fmt: skip
def test_frames_are_compared_with_the_level_of_the_head_that_is_trained_on(
    of_two_levels, levels, head, frames, is_same
):
    settings = {'parent_head': head} if head else {}
    assert has_level_of_parent('mace', settings, levels[frames], Parent.of(of_two_levels)) is is_same
    assert has_level_of_parent('mace', settings, levels[frames], None) is None


def test_a_job_is_told_whether_its_frames_are_of_the_level_of_that_head(of_two_levels, levels, python_code, run_job):
    """So that energies of atoms are found anew where they are not; the environment of this test has no MACE."""
    frames = levels['r2SCAN']
    inputs = {'training': frames, 'validation': frames, 'parent': of_two_levels, 'architecture': 'mace'}
    for head, is_same in (('pbe', False), ('r2scan', True)):
        _, node = run_job(TrainCalculation, None, settings={'parent_head': head, 'batch_size': 2}, **inputs)
        request = json.loads(node.base.repository.get_object_content('request.json'))
        assert request['settings']['has_level_of_parent'] is is_same


def test_frames_are_replayed_at_the_level_of_the_head_that_is_trained_on(of_two_levels, levels):
    def problem(replay, **settings):
        inputs = {'training': levels['PBE'], 'validation': levels['PBE'], 'replay': replay}
        given = {'batch_size': 2, 'parent_head': 'pbe', **settings}
        return problem_of_training('mace', given, inputs, 'multihead', Parent.of(of_two_levels))

    assert problem(levels['PBE']) is None
    assert 'the replayed frames are of another level of theory than the parent' in problem(levels['r2SCAN'])
    assert problem(levels['r2SCAN'], parent_head='r2scan') is None
    assert problem(levels['r2SCAN'], replay_labels='parent') is None


# ---------------------------------------------------------------------- potentials that are not there yet


def test_of_a_potential_that_is_not_trained_yet_is_known_what_the_architecture_tells(make_dataset):
    training = make_dataset(2).store()
    for name, settings, cutoff, dtype, head in [
        ('mace', {'r_max': 4.5}, 4.5, '', 'Default'),
        ('allegro', {'r_max': 4.5}, 4.5, 'float32', 'default'),
        ('nep', {}, 0.0, '', 'default'),  # it is the trainer that has a default
        ('unruly', {}, 0.0, '', 'default'),
    ]:
        parent = parent_to_be(name, settings, {'training': training}, 'scratch', None)
        facts = parent.facts
        assert (facts.elements, facts.heads, facts.cutoff) == (('Cs', 'I', 'Pb'), (head,), cutoff)
        assert facts.dtype == (dtype if name != 'allegro' else parent.first.dtype)
        assert not any((facts.n_parameters, facts.energies_of_atoms))
        assert parent.level(head) == training.level.fingerprint
        assert has_level_of_parent(name, {}, training, parent) is True


def test_the_heads_of_a_potential_that_is_not_trained_yet_have_their_levels(levels):
    def made(training, strategy, parent, **settings):
        return parent_to_be('mace', settings, {'training': levels[training]}, strategy, parent)

    first = made('PBE', 'scratch', None)
    second = made('r2SCAN', 'multihead', first, replay_labels='parent')
    of = {name: levels[name].level.fingerprint for name in ('PBE', 'r2SCAN')}
    assert second.fingerprints == {'parent': of['PBE'], 'default': of['r2SCAN']}  # `Default` is taken
    assert second.facts.heads == ('parent', 'default')
    third = made('r2SCAN', 'naive', second, parent_head='default')
    assert third.fingerprints == {'Default': of['r2SCAN']}
    assert made('r2SCAN', 'scratch', third).first.r_max == 5.0


def test_nep_forgets_elements_that_the_frames_do_not_hold_and_the_others_do_not(make_dataset, make_frames):
    whole = make_dataset(4).store()
    lead = [replace(frame, numbers=np.where(frame.numbers == 55, 82, frame.numbers)) for frame in make_frames(4)]
    lead = DatasetData.from_frames(lead, {'labeller': 'test', 'functional': 'pairs'}).store()
    for name, elements in (('mace', ('Cs', 'I', 'Pb')), ('allegro', ('Cs', 'I', 'Pb')), ('nep', ('I', 'Pb'))):
        first = parent_to_be(name, {}, {'training': whole}, 'scratch', None)
        assert parent_to_be(name, {}, {'training': lead}, 'naive', first).facts.elements == elements
