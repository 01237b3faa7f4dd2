"""Lists of shards."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.compute.frame import FrameError
from aiida_perovmlip.compute.frames import Frames, selection_bytes, write_folder
from aiida_perovmlip.compute.shard import build_shards
from aiida_perovmlip.compute.summary import Summary


@pytest.fixture
def folder(make_frames, tmp_path, monkeypatch):
    monkeypatch.setattr('aiida_perovmlip.compute.shard.MAXIMUM_FRAMES', 4)
    write_folder(build_shards(make_frames(10)), tmp_path)
    return tmp_path


def energies(frames):
    return [frame.energy for frame in frames]


def test_frames_of_several_shards_are_one_sequence(folder, make_frames):
    frames = Frames.open_folder(folder)
    assert [entry.n_frames for entry in frames.shards] == [4, 4, 2]
    assert len(frames) == 10
    assert energies(frames) == energies(make_frames(10))
    assert frames[7].energy == frames[-3].energy == make_frames(10)[7].energy
    with pytest.raises(IndexError):
        frames[10]


@pytest.mark.parametrize('wanted', [[0], [9, 0], [3, 4, 5], [5, 5, 1], list(range(10)), [8, 9], []])
def test_a_selection_keeps_its_order_however_often_it_is_narrowed(folder, make_frames, wanted):
    expected = energies(make_frames(10))
    frames = Frames.open_folder(folder).take(wanted)
    assert energies(frames) == [expected[index] for index in wanted]
    assert frames.column('energy').tolist() == energies(frames)
    half = frames.take(range(0, len(wanted), 2))
    assert energies(half) == energies(frames)[::2]
    assert len(frames.column('offsets')) == len(wanted) + 1


def test_shards_without_a_selected_frame_are_dropped(folder):
    assert len(Frames.open_folder(folder).take([8, 9]).shards) == 1


def test_a_selection_of_everything_is_no_selection(folder):
    assert Frames.open_folder(folder).take(range(10)).selection is None


def test_a_selection_outside_is_refused(folder):
    with pytest.raises(IndexError, match='between 0 and 9'):
        Frames.open_folder(folder).take([10])


def test_all_columns_come_in_one_pass(folder):
    frames = Frames.open_folder(folder)
    columns = frames.columns()
    assert columns['positions'].shape == (400, 3)
    assert columns['offsets'][-1] == 400
    assert np.array_equal(columns['forces'], frames.column('forces'))
    assert columns['group'].tolist() == ['default'] * 10


def test_a_column_that_is_not_there_is_named(folder):
    with pytest.raises(KeyError, match='charge'):
        Frames.open_folder(folder).column('charge')


def test_a_list_of_another_format_is_refused(folder):
    text = (folder / 'frames.json').read_text().replace('"format": 1', '"format": 99')
    (folder / 'frames.json').write_text(text)
    with pytest.raises(FrameError, match='format 99'):
        Frames.open_folder(folder)


def test_a_selection_file_is_small():
    assert len(selection_bytes(np.arange(1000))) < 4 * 1000 + 200


def test_summaries_of_parts_add_up(folder, make_frames):
    frames = Frames.open_folder(folder)
    total = sum((Summary.of(chunk) for chunk in frames.chunks()), Summary())
    all_energies = np.array(energies(make_frames(10))) / 40
    assert total.n_frames == 10
    assert total.n_atoms == 400
    assert total.elements == {'Cs', 'Pb', 'I'}
    assert total.groups == {'default': 10}
    assert total.labels == {'energy', 'forces', 'stress'}
    assert total.energy_per_atom_range == (all_energies.min(), all_energies.max())
