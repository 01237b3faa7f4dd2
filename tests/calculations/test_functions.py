"""Steps with provenance between the jobs."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.calculations.functions.dataset import (
    drop_duplicates,
    import_extxyz,
    join_datasets,
    select_frames,
    select_groups,
    split_dataset,
)
from aiida_perovmlip.calculations.functions.structures import build_frames, distort_frames
from aiida_perovmlip.data.dataset import DatasetData, LevelError

RECIPE = {'families': [{'formula': 'CsPbI3', 'count': 2, 'rattle': 0.05}, {'formula': 'MAPbI3', 'count': 1}]}


def test_a_recipe_and_a_seed_make_the_same_frames_again():
    first, second = (build_frames(orm.Dict(RECIPE), orm.Int(7)) for _ in range(2))
    assert first.content_hash == second.content_hash
    assert first.base.attributes.get('groups') == {'CsPbI3': 2, 'MAPbI3': 1}
    assert build_frames(orm.Dict(RECIPE), orm.Int(8)).content_hash != first.content_hash


def test_a_recipe_with_a_mistake_is_refused():
    with pytest.raises(ValueError, match='formul'):
        build_frames(orm.Dict({'families': [{'formul': 'CsPbI3', 'count': 2}]}), orm.Int(7))


def test_each_part_of_a_split_knows_where_it_is_from(make_dataset):
    dataset = make_dataset(6).store()
    parts = split_dataset(dataset, orm.Dict({'a': 4, 'b': 2}), orm.Str('random'), orm.Int(0))
    assert parts['a'].creator.inputs.dataset.uuid == dataset.uuid
    joined = join_datasets(x=parts['a'], y=parts['b'])
    assert len(joined) == 6


def test_joining_levels_takes_heads(make_dataset, make_frames):
    other = DatasetData.from_frames(make_frames(1), {'labeller': 'test', 'functional': 'other'}).store()
    datasets = {'d2': make_dataset(1).store(), 'd10': other}
    joined = join_datasets(heads=orm.Dict({'d2': 'pairs', 'd10': 'other'}), **datasets)
    assert {head: level.functional for head, level in joined.levels.items()} == {'pairs': 'pairs', 'other': 'other'}
    with pytest.raises(LevelError, match='heads for d2'):
        join_datasets(heads=orm.Dict({'d2': 'pairs'}), **datasets)


def test_groups_are_selected_and_duplicates_dropped(make_frames, level):
    from dataclasses import replace

    frames = [replace(frame, group=group) for frame, group in zip(make_frames(3), 'aba', strict=True)]
    dataset = DatasetData.from_frames([*frames, frames[0]], level).store()
    assert len(select_groups(dataset, orm.List(['a']))) == 3
    assert len(drop_duplicates(dataset, orm.Float(0.01))) == 3


@pytest.mark.parametrize('compressed', [False, True])
def test_an_imported_frame_names_its_file(make_dataset, level, tmp_path, compressed):
    path = make_dataset(3).to_extxyz(tmp_path / 'frames.xyz')
    if compressed:
        text, path = path.read_bytes(), tmp_path / 'frames.xyz.gz'
        path.write_bytes(gzip.compress(text))
    file = orm.SinglefileData(path).store()
    dataset = import_extxyz(file, orm.Dict(level))
    assert {frame.source for frame in dataset} == {f'sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}'}
    assert dataset.content_hash == make_dataset(3).content_hash


def test_distorted_copies_keep_molecules_group_and_charge_and_lose_labels(make_frames):
    recipe = {'families': [{'formula': 'MAPbI3', 'count': 1, 'repeat': [2, 1, 1], 'group': 'host'}]}
    host = next(iter(build_frames(orm.Dict(recipe), orm.Int(0))))
    labelled = replace(host, charge=1, energy=-1.0, forces=np.zeros((len(host.numbers), 3)), source='somebody')
    frames = DatasetData.from_frames([labelled], {'labeller': 'test'}).store()
    found = distort_frames(frames, orm.Dict({'count': 3, 'rattle': 0.1}), orm.Int(1))
    assert len(found) == 3
    assert found.labels == []
    assert (found.frames[0].charge, found.frames[0].group, found.frames[0].source) == (1, 'host', '')
    shifts = [frame.positions - host.positions for frame in found]
    assert 0.05 < np.std(shifts) < 0.2
    assert np.abs(shifts[0] - shifts[1]).max() > 0.05
    bonds = host.positions[host.numbers == 6] - host.positions[host.numbers == 7]
    for frame in found:  # C–N of methylammonium: moved as a whole, and little in itself
        moved = frame.positions[frame.numbers == 6] - frame.positions[frame.numbers == 7]
        assert np.abs(np.linalg.norm(moved, axis=1) - np.linalg.norm(bonds, axis=1)).max() < 0.15
    again = distort_frames(frames, orm.Dict({'count': 3, 'rattle': 0.1}), orm.Int(1))
    assert again.content_hash == found.content_hash
    with pytest.raises(ValueError, match='rattle'):
        distort_frames(frames, orm.Dict({'rattle': -1.0}), orm.Int(1))


def test_frames_are_taken_in_the_order_in_which_they_are_named(make_dataset):
    dataset = make_dataset(5, seed=77).store()
    some = select_frames(dataset, orm.List([4, 0]))
    assert [frame.energy for frame in some] == [dataset[4].energy, dataset[0].energy]
    assert some.creator.inputs.dataset.uuid == dataset.uuid
    for wrong in ([5], [0.5], []):
        with pytest.raises((IndexError, ValueError)):
            select_frames(dataset, orm.List(wrong))
