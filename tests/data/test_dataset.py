"""The dataset node."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ModificationNotAllowed, StoringNotAllowed

from aiida_perovmlip.compute.frame import Frame, FrameError
from aiida_perovmlip.data.dataset import DatasetData, LevelError


def energies(dataset):
    return [frame.energy for frame in dataset]


def object_count():
    from aiida.manage import get_manager

    return sum(1 for _ in get_manager().get_profile_storage().get_repository().list_objects())


def test_a_stored_dataset_reads_back(make_dataset, make_frames):
    dataset = orm.load_node(make_dataset(5).store().pk)
    assert isinstance(dataset, DatasetData)
    assert len(dataset) == 5
    assert energies(dataset) == energies(make_frames(5))
    atoms = next(dataset.iter_atoms())
    assert atoms.get_potential_energy() == dataset[0].energy
    assert np.array_equal(atoms.get_stress(), dataset[0].stress)


def test_attributes_answer_questions(make_dataset):
    dataset = make_dataset(4, group='cubic').store()
    known = dataset.base.attributes.all
    assert known['n_frames'] == 4
    assert known['n_atoms'] == 160
    assert known['elements'] == ['Cs', 'I', 'Pb']
    assert known['groups'] == {'cubic': 4}
    assert known['labels'] == ['energy', 'forces', 'stress']
    assert known['fingerprints'] == [dataset.level.fingerprint]
    assert known['energy_per_atom_range'][0] < known['energy_per_atom_range'][1]


def test_typed_fields_find_datasets(make_dataset):
    dataset = make_dataset(3, seed=77, group='needle').store()
    fields = DatasetData.fields
    query = orm.QueryBuilder().append(
        DatasetData,
        filters=(fields.n_frames == 3) & fields.elements.contains(['Pb']) & fields.groups.has_key('needle'),
        project=[fields.uuid, fields.content_hash],
    )
    assert [dataset.uuid, dataset.content_hash] in query.all()


def test_the_content_hash_does_not_depend_on_shards_or_sources(make_dataset, make_frames, level, monkeypatch):
    whole = make_dataset(6)
    monkeypatch.setattr('aiida_perovmlip.compute.shard.MAXIMUM_FRAMES', 4)
    cut = DatasetData.from_frames((replace(f, source='another') for f in make_frames(6)), level)
    assert len(cut.frames.shards) == 2
    assert cut.content_hash == whole.content_hash
    assert cut.store().base.caching.compute_hash() == whole.store().base.caching.compute_hash()
    assert make_dataset(5).content_hash != whole.content_hash


def test_the_level_is_part_of_the_content(make_frames, level):
    one = DatasetData.from_frames(make_frames(2), level)
    other = DatasetData.from_frames(make_frames(2), {**level, 'cutoff': '500 Ry'})
    assert one.content_hash != other.content_hash


def test_labels_without_a_level_are_refused(make_frames):
    with pytest.raises(LevelError, match="level=\\{'labeller'"):
        DatasetData.from_frames(make_frames(2))
    assert DatasetData.from_frames(make_frames(2, labels=False)).level is None


def test_a_level_with_unknown_keys_is_refused(make_frames):
    with pytest.raises(ValueError, match="no 'xc'"):
        DatasetData.from_frames(make_frames(1), {'labeller': 'vasp', 'xc': 'PBE'})


def test_appending_keeps_the_old_shard_once(make_dataset, make_frames):
    dataset = make_dataset(20, seed=5).store()
    before = object_count()
    longer = dataset.append(make_frames(2, seed=6)).store()
    assert object_count() - before <= 2  # the new shard and the list of shards
    assert energies(longer) == energies(dataset) + energies(make_frames(2, seed=6))
    assert longer.base.attributes.get('n_frames') == 22


def test_an_appended_dataset_equals_one_made_at_once(make_frames, level):
    frames = make_frames(6)
    at_once = DatasetData.from_frames(frames, level)
    appended = DatasetData.from_frames(frames[:4], level).store().append(frames[4:])
    assert appended.content_hash == at_once.content_hash
    known, expected = appended.base.attributes.all, at_once.base.attributes.all
    assert known == expected


@pytest.mark.parametrize('by', ['random', 'stratified', 'trajectory', 'group'])
def test_a_split_shares_frames_among_parts(make_frames, level, by):
    frames = [
        replace(frame, group=f'g{index % 4}', trajectory=f't{index // 2}')
        for index, frame in enumerate(make_frames(24))
    ]
    dataset = DatasetData.from_frames(frames, level).store()
    before = object_count()
    wanted = {'training': 0.5, 'validation': 0.25, 'test': 0.25}
    parts = {name: part.store() for name, part in dataset.split(wanted, by, 3).items()}
    assert object_count() - before <= 6  # a list of shards and a selection each
    found = sorted(energy for part in parts.values() for energy in energies(part))
    assert found == sorted(energies(dataset))
    assert parts['training'].content_hash == dataset.split(wanted, by, 3)['training'].content_hash
    if by in ('trajectory', 'group'):
        keys = [set(part.frames.column(by)) for part in parts.values()]
        assert len(set.union(*keys)) == sum(map(len, keys))
    if by == 'stratified':
        assert set(parts['test'].base.attributes.get('groups')) == {'g0', 'g1', 'g2', 'g3'}


def test_splits_can_be_split_and_joined_again(make_dataset):
    dataset = make_dataset(12).store()
    parts = dataset.split({'a': 6, 'b': 6}, seed=1)
    again = parts['a'].store().split({'c': 3, 'd': 3}, seed=2)
    joined = DatasetData.concatenate([again['c'].store(), again['d'].store(), parts['b'].store()])
    assert sorted(energies(joined)) == sorted(energies(dataset))
    assert joined.store().base.attributes.get('n_frames') == 12


def test_a_mask_and_positions_select_the_same(make_dataset):
    dataset = make_dataset(5)
    mask = np.array([True, False, True, False, False])
    assert dataset.select(mask).content_hash == dataset.select([0, 2]).content_hash
    with pytest.raises(IndexError):
        dataset.select([5])
    with pytest.raises(FrameError, match='empty'):
        dataset.select([])


def test_levels_are_never_mixed_silently(make_dataset, make_frames):
    pairs = make_dataset(2).store()
    other = DatasetData.from_frames(make_frames(2, seed=1), {'labeller': 'test', 'functional': 'other'}).store()
    with pytest.raises(LevelError, match='would mix two levels'):
        DatasetData.concatenate([pairs, other])
    joined = DatasetData.concatenate([pairs, other], heads=['pairs', 'other']).store()
    assert joined.levels['other'].functional == 'other'
    assert [frame.head for frame in joined] == ['pairs', 'pairs', 'other', 'other']
    assert joined[3].head == 'other'
    with pytest.raises(LevelError, match='2 levels'):
        _ = joined.level
    assert set(joined.select([0, 1]).levels) == {'pairs'}


def test_heads_are_part_of_the_content_only_where_there_are_several(make_dataset, make_frames, level):
    pairs = make_dataset(2).store()
    other = DatasetData.from_frames(make_frames(2, seed=1), {'labeller': 'test', 'functional': 'other'}).store()
    one = DatasetData.concatenate([pairs, other], heads=['a', 'b'])
    swapped = DatasetData.concatenate([pairs, other], heads=['b', 'a'])
    assert one.content_hash != swapped.content_hash


def test_different_labels_are_not_joined(make_frames, level):
    bare = DatasetData.from_frames(make_frames(1, labels=False)).store()
    labelled = DatasetData.from_frames(make_frames(1), level).store()
    with pytest.raises(FrameError, match='do not carry the same'):
        DatasetData.concatenate([labelled, bare])


def test_duplicates_are_dropped(make_frames, level):
    frames = make_frames(4)
    moved = replace(frames[1], positions=frames[1].positions + 0.7)
    dataset = DatasetData.from_frames([*frames, moved, frames[0]], level)
    assert energies(dataset.without_duplicates()) == energies(frames)


def test_frames_of_another_charge_are_no_duplicates(make_frames, level):
    frame = make_frames(1)[0]
    dataset = DatasetData.from_frames([replace(frame, charge=charge) for charge in (0, 1, 0)], level)
    assert dataset.distinct().tolist() == [True, True, False]


def test_an_empty_or_forged_dataset_is_not_stored(make_dataset):
    with pytest.raises(StoringNotAllowed, match='not a complete dataset'):
        DatasetData().store()
    forged = make_dataset(2)
    forged.base.attributes.set('content_hash', 'f' * 64)
    with pytest.raises(StoringNotAllowed, match='content_hash'):
        forged.store()


def test_a_shard_that_was_tampered_with_is_not_stored(make_dataset):
    dataset = make_dataset(2)
    path = dataset.frames.shards[0].path
    content = bytearray(dataset.base.repository.get_object_content(path, 'rb'))
    content[len(content) // 2] ^= 1
    dataset.base.repository.put_object_from_filelike(io.BytesIO(bytes(content)), path)
    dataset._sealed = None
    with pytest.raises(StoringNotAllowed):
        dataset.store()


def test_a_stored_dataset_cannot_be_changed(make_dataset):
    dataset = make_dataset(1).store()
    with pytest.raises(ModificationNotAllowed):
        dataset.base.attributes.set('n_frames', 7)


def test_nothing_is_stored_when_a_frame_is_bad(make_frames, level):
    frames = make_frames(3)
    frames[2] = Frame(frames[2].numbers, frames[2].positions, np.zeros((3, 3)), frames[2].pbc, 0.0, frames[2].forces)
    before = orm.QueryBuilder().append(DatasetData).count(), object_count()
    with pytest.raises(FrameError, match='frame 2'):
        DatasetData.from_frames(frames, level).store()
    assert (orm.QueryBuilder().append(DatasetData).count(), object_count()) == before


@pytest.mark.parametrize('dialect', ['mace', 'gpumd', 'nequip', 'ase'])
def test_extxyz_out_and_in_gives_the_same_dataset(make_dataset, level, tmp_path, dialect):
    dataset = make_dataset(3)
    back = DatasetData.from_extxyz(dataset.to_extxyz(tmp_path / 'a.xyz', dialect), level)
    assert energies(back) == energies(dataset)
    assert np.allclose(back.frames.column('forces'), dataset.frames.column('forces'), rtol=0, atol=1e-12)
    assert np.allclose(back.frames.column('stress'), dataset.frames.column('stress'), rtol=1e-12)


def test_a_clone_stores_as_the_same_dataset(make_dataset):
    dataset = make_dataset(2).store()
    clone = dataset.clone().store()
    assert clone.content_hash == dataset.content_hash
    assert energies(clone) == energies(dataset)


def test_the_list_of_shards_is_plain_json(make_dataset):
    content = json.loads(make_dataset(1).base.repository.get_object_content('frames.json'))
    assert content['format'] == 1
    assert content['shards'][0]['n_frames'] == 1


def test_a_calculator_that_went_on_is_not_asked_for_old_labels():
    from ase.build import bulk
    from ase.calculators.emt import EMT

    frames, shared = [bulk('Cu', cubic=True) for _ in range(3)], EMT()
    for seed, atoms in enumerate(frames):
        atoms.rattle(0.1, seed=seed)
        atoms.calc = shared
        atoms.get_forces()
    with pytest.raises(FrameError, match='frame 0: its calculator holds the results of another structure'):
        DatasetData.from_ase(frames, {'labeller': 'emt'})
    moved = bulk('Cu', cubic=True)
    moved.calc = EMT()
    moved.get_forces()
    moved.rattle(0.1)
    with pytest.raises(FrameError, match='another structure'):
        DatasetData.from_ase([moved], {'labeller': 'emt'})


def test_atoms_that_move_on_do_not_change_a_frame():
    from ase.build import bulk
    from ase.calculators.emt import EMT

    def simulate():
        atoms = bulk('Cu', cubic=True)
        atoms.calc = EMT()
        for _ in range(4):
            atoms.positions[0, 0] += 0.1
            atoms.get_forces()
            yield atoms

    dataset = DatasetData.from_ase(simulate(), {'labeller': 'emt'})
    assert [round(frame.positions[0, 0], 6) for frame in dataset] == [0.1, 0.2, 0.3, 0.4]
    assert len(set(energies(dataset))) == 4


@pytest.fixture
def bulk_and_molecule(make_frames):
    molecule = Frame(np.array([1, 1]), np.eye(3)[:2], energy=-1.0, forces=np.zeros((2, 3)))
    return [*make_frames(2), molecule, *make_frames(2, seed=9)]


def test_a_stress_that_is_absent_does_not_depend_on_the_neighbours(bulk_and_molecule, level, monkeypatch):
    whole = DatasetData.from_frames(bulk_and_molecule, level)
    alone = DatasetData.from_frames(bulk_and_molecule[2:3], level)
    assert whole.select([2]).content_hash == alone.content_hash
    joined = DatasetData.concatenate([whole.select([0, 1]).store(), alone.store(), whole.select([3, 4]).store()])
    assert joined.content_hash == whole.content_hash
    assert joined.labels == whole.labels == ['energy', 'forces', 'stress']
    assert np.isnan(joined.frames.column('stress')).any(axis=1).tolist() == [False, False, True, False, False]
    monkeypatch.setattr('aiida_perovmlip.compute.shard.MAXIMUM_FRAMES', 1)
    assert DatasetData.from_frames(bulk_and_molecule, level).content_hash == whole.content_hash


@pytest.mark.parametrize('field', ['energy', 'charge'])
def test_what_some_frames_carry_all_must_also_across_shards(make_frames, level, monkeypatch, field):
    monkeypatch.setattr('aiida_perovmlip.compute.shard.MAXIMUM_FRAMES', 2)
    frames = [replace(frame, charge=1) for frame in make_frames(4)]
    frames[2:] = [replace(frame, **{field: None}) for frame in frames[2:]]
    with pytest.raises(FrameError, match=f'the frames from 2 on have not|those before have {field}'):
        DatasetData.from_frames(frames, level)


def test_charged_and_uncharged_datasets_are_not_joined(make_dataset, make_frames, level):
    charged = DatasetData.from_frames([replace(frame, charge=1) for frame in make_frames(1)], level)
    with pytest.raises(FrameError, match='a later one have charge'):
        DatasetData.concatenate([make_dataset(1).store(), charged.store()])


@pytest.mark.parametrize('change', [{'n_frames': 99}, {'elements': ['H']}, {'levels': {}}])
def test_no_attribute_can_be_forged(make_dataset, change):
    dataset = make_dataset(1)
    dataset.base.attributes.set_many(change)
    with pytest.raises(StoringNotAllowed):
        dataset.store()


@pytest.mark.parametrize('value', [1 / 3, 0.1 + 0.2, 1e22, 300, [1, {'deep': 2.5}]])
def test_a_level_is_readable_after_it_was_stored(make_frames, value):
    level = {'labeller': 'test', 'details': {'x': value}}
    dataset = DatasetData.from_frames(make_frames(1), level).store()
    again = orm.load_node(dataset.pk)
    again._attributes_cache = None
    assert again.level.fingerprint == dataset.level.fingerprint


def test_heads_of_one_level_are_selected_for_evaluation(make_dataset, make_frames):
    other = DatasetData.from_frames(make_frames(2, seed=1), {'labeller': 'test', 'functional': 'other'}).store()
    joined = DatasetData.concatenate([make_dataset(1).store(), other], heads=['pairs', 'other'])
    assert len(joined.select_head('other')) == 2
    with pytest.raises(LevelError, match='no head `hse`'):
        joined.select_head('hse')


@pytest.mark.parametrize('indices', [[0.9], ['0'], [[0, 1]]])
def test_frames_are_selected_by_whole_numbers_alone(make_dataset, indices):
    with pytest.raises(IndexError, match='list of positions or a mask'):
        make_dataset(2).select(indices)
    assert len(make_dataset(3).select(slice(1, None))) == 2


def test_a_shuffled_selection_reads_every_shard_once(make_frames, level, monkeypatch):
    monkeypatch.setattr('aiida_perovmlip.compute.shard.MAXIMUM_FRAMES', 3)
    dataset = DatasetData.from_frames([replace(f, group=f'g{i}') for i, f in enumerate(make_frames(12))], level).store()
    order = np.random.default_rng(0).permutation(12)
    shuffled, opened = dataset.select(order), []
    opener = shuffled.frames.opener
    shuffled.frames.opener = lambda path: opened.append(path) or opener(path)
    assert [frame.group for frame in shuffled] == [f'g{index}' for index in order]
    assert len(opened) == 4
