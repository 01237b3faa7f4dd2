"""What is judged of a training before it is submitted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aiida_perovmlip.calculations.feasibility import DescribedFrames, NotToldError, has_level_of_parent, parent_to_be
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.data.dataset import DatasetData


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


def test_a_charge_that_mace_does_not_see_is_refused_before_submission(charged, python_code, run_job):
    with pytest.raises(ValueError, match='charges -1, 0'):
        run_job(TrainCalculation, None, architecture='mace', training=charged, validation=charged,
                settings={'batch_size': 2})  # fmt: skip


def test_of_a_potential_that_is_not_trained_yet_the_elements_are_known_and_nothing_else(make_dataset):
    facts = parent_to_be('scratch', make_dataset(2).store(), None).facts
    assert facts.elements == ('Cs', 'I', 'Pb')
    assert not any((facts.heads, facts.cutoff, facts.dtype, facts.n_parameters, facts.energies_of_atoms))
    with pytest.raises(NotToldError):
        facts.heads[0]


def test_whether_labels_are_of_the_level_of_the_parent_is_known_by_the_nodes_alone(make_dataset, make_frames):
    known = make_dataset(2).store()
    other = DatasetData.from_frames(make_frames(2), {'labeller': 'test', 'functional': 'other'}).store()
    bare = DatasetData.from_frames(make_frames(2, labels=False)).store()
    parent = parent_to_be('scratch', known, None)
    assert [has_level_of_parent(each, parent) for each in (known, other, bare)] == [True, False, None]
    assert has_level_of_parent(known, None) is None
