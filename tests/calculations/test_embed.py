"""Embedding jobs, and the choice of frames by them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.analysis.farthest import choose_farthest
from aiida_perovmlip.calculations.embed import EmbedCalculation
from aiida_perovmlip.calculations.functions.choose import choose_frames
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.compute import registry
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


@pytest.fixture(scope='module')
def kept():
    """Keep a potential for all tests."""
    return {}


@pytest.fixture
def potential(run_job, training, kept):
    if not kept:
        outputs, _ = run_job(TrainCalculation, None, training=training, architecture='reference')
        kept['potential'] = outputs['potential']
    return kept['potential']


@pytest.fixture
def embed(run_job, potential):
    def run(dataset, **inputs):
        outputs, node = run_job(EmbedCalculation, None, potential=potential, dataset=dataset, **inputs)
        assert node.is_finished_ok, node.exit_message
        return outputs['descriptors']

    return run


@pytest.fixture
def frames(make_frames):
    """Return four frames without labels, of which the last is the first, turned and in another order."""
    frames = make_frames(3, seed=7, labels=False)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    order = np.random.default_rng(1).permutation(40)
    first = frames[0]
    copy = replace(first, numbers=first.numbers[order], positions=first.positions[order] @ turn, cell=first.cell @ turn)
    return DatasetData.from_frames([*frames, copy]).store()


def test_a_frame_is_the_mean_of_its_atoms(embed, frames, potential, tmp_path):
    found = embed(frames).get_array('mean')
    architecture = registry.load('architectures', 'reference')()
    folder = potential.export(tmp_path / 'potential')
    expected = [atoms.mean(axis=0) for atoms in architecture.descriptors(folder, frames)]
    assert found.dtype == np.float32
    assert found.shape == (4, 3 * (1 + 8))
    assert np.allclose(found, expected, atol=1e-6)


def test_descriptors_know_no_direction_and_no_order(embed, frames):
    found = embed(frames).get_array('mean')
    assert np.allclose(found[0], found[3], atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_elements_are_told_apart_where_it_is_asked_for(embed, make_frames):
    bare = make_frames(2, seed=7, labels=False)
    without = replace(bare[1], numbers=np.where(bare[1].numbers == 55, 82, bare[1].numbers))
    dataset = DatasetData.from_frames([bare[0], without]).store()
    found = embed(dataset, per_element=True)
    assert set(found.get_arraynames()) == {'mean', 'mean_Cs', 'mean_I', 'mean_Pb'}
    weights = {'Cs': 8 / 40, 'Pb': 8 / 40, 'I': 24 / 40}
    together = sum(weight * found.get_array(f'mean_{symbol}')[0] for symbol, weight in weights.items())
    assert np.allclose(together, found.get_array('mean')[0], atol=1e-5)
    assert np.isnan(found.get_array('mean_Cs')[1]).all()
    assert np.isfinite(found.get_array('mean_Pb')).all()


def test_the_chosen_frames_are_the_farthest_and_lead_back_to_the_potential(embed, make_dataset, potential):
    dataset = make_dataset(12, seed=3).store()
    descriptors = embed(dataset)
    chosen = choose_frames(dataset, descriptors, orm.Int(5), orm.Int(2))
    expected = choose_farthest(descriptors.get_array('mean'), 5, seed=2).positions
    assert np.array_equal(chosen.frames.column('energy'), dataset.frames.column('energy')[expected])
    assert chosen.is_stored
    assert chosen.creator.inputs.descriptors.creator.inputs.potential.uuid == potential.uuid


def test_frames_that_one_has_are_not_chosen_again(embed, make_dataset):
    dataset = make_dataset(6, seed=3).store()
    had = dataset.select([0, 1, 2]).store()
    chosen = choose_frames(dataset, embed(dataset), orm.Int(3), known=embed(had))
    assert set(chosen.frames.column('energy')) == set(dataset.frames.column('energy')[3:])


def test_descriptors_are_mapped_and_not_loaded(embed, make_dataset, monkeypatch):
    dataset = make_dataset(6, seed=3).store()
    descriptors, had = embed(dataset), embed(dataset.select([0, 1]).store())

    def refuse(*_):
        raise AssertionError('all descriptors were loaded.')

    monkeypatch.setattr(orm.ArrayData, 'get_array', refuse)
    assert len(choose_frames(dataset, descriptors, orm.Int(3), known=had)) == 3


def test_more_frames_than_differ_are_refused(embed, make_dataset):
    one = make_dataset(2, seed=3).store()
    twice = DatasetData.concatenate([one, one]).store()
    with pytest.raises(ValueError, match='only 2 of the 4 frames differ'):
        choose_frames(twice, embed(twice), orm.Int(3))
    with pytest.raises(ValueError, match='5 points cannot be chosen of 4'):
        choose_frames(twice, embed(twice), orm.Int(5))


def test_descriptors_of_other_frames_are_refused(embed, make_dataset):
    dataset, other = make_dataset(3, seed=3).store(), make_dataset(3, seed=4).store()
    with pytest.raises(ValueError, match='embed this very dataset'):
        choose_frames(dataset, embed(other), orm.Int(2))
    foreign = orm.ArrayData({'mean': np.zeros((2, 4))}).store()
    with pytest.raises(ValueError, match='2 descriptors for 3 frames'):
        choose_frames(dataset, foreign, orm.Int(2))


def test_descriptors_of_two_potentials_are_not_compared(run_job, embed, make_dataset):
    dataset = make_dataset(3, seed=3).store()
    outputs, _ = run_job(TrainCalculation, None, training=dataset, architecture='reference')
    theirs, _ = run_job(EmbedCalculation, None, potential=outputs['potential'], dataset=dataset)
    with pytest.raises(ValueError, match='with one potential'):
        choose_frames(dataset, embed(dataset), orm.Int(2), known=theirs['descriptors'])


def unruly(tmp_path, way):
    (tmp_path / 'unruly.json').write_text(json.dumps({'way': way, 'elements': ['Cs', 'Pb', 'I']}))
    kind = {'architecture': 'unruly', 'elements': ['Cs', 'Pb', 'I'], 'cutoff': 5.0}
    return PotentialData(tmp_path, **kind).store()


@pytest.mark.parametrize(
    ('way', 'sentence'),
    [
        ('nan', 'descriptors of frame 1 are not finite'),
        ('short', 'described 1 of 3'),
        ('long', 'described more than the 3 frames'),
        ('flat', r'shape \(40,\)'),
    ],
)
def test_descriptors_that_cannot_be_used_have_an_exit_code(run_job, validation, tmp_path, way, sentence):
    outputs, node = run_job(EmbedCalculation, None, potential=unruly(tmp_path, way), dataset=validation)
    assert node.exit_status == 420
    assert re.search(sentence, node.exit_message), node.exit_message
    assert 'descriptors' not in outputs


def test_the_wall_time_is_kept(run_job, make_dataset, tmp_path):
    options = {'max_wallclock_seconds': 2}
    _, node = run_job(
        EmbedCalculation, options, potential=unruly(tmp_path, 'sluggish'), dataset=make_dataset(60).store()
    )
    assert node.exit_status == 400
    assert 'of 60 frames were left' in node.exit_message


def test_elements_that_the_potential_does_not_know_are_refused(embed, make_frames):
    gold = [replace(frame, numbers=np.full(40, 79)) for frame in make_frames(1, labels=False)]
    with pytest.raises(ValueError, match='the dataset holds Au'):
        embed(DatasetData.from_frames(gold).store())


def test_an_architecture_without_descriptors_is_refused_before_it_starts(run_job, validation, tmp_path):
    (tmp_path / 'a').write_text('a')
    kind = {'architecture': 'blind', 'elements': ['Cs', 'Pb', 'I'], 'cutoff': 5.0}
    with pytest.raises(ValueError, match='blind'):
        run_job(EmbedCalculation, None, potential=PotentialData(tmp_path, **kind).store(), dataset=validation)
