"""Comparing the labels of two datasets, with provenance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.calculations.functions import difference
from aiida_perovmlip.calculations.functions.difference import compare_labels, label_difference
from aiida_perovmlip.compute import shard
from aiida_perovmlip.data.dataset import DatasetData, LevelError

OTHER = {'labeller': 'test', 'functional': 'other'}
SHIFT = np.array([0.0, 0.3, 0.4])


def shifted(frames, by=SHIFT):
    """Return frames with other labels: a force on lead, another zero of the energy."""
    return [
        replace(
            frame, forces=frame.forces + np.where(frame.numbers[:, None] == 82, by, 0.0), energy=frame.energy + 80.0
        )
        for frame in frames
    ]


def stored(frames, level):
    return DatasetData.from_frames(frames, level).store()


def test_a_shift_of_one_element_is_told_with_both_levels(make_frames, level):
    frames = make_frames(4)
    one, other = stored(shifted(frames), OTHER), stored(frames, level)
    outputs = label_difference(one, other)
    summary = outputs['summary'].get_dict()
    assert summary['forces_per_element']['Pb']['mean_norm'] == pytest.approx(0.5)
    assert summary['forces_per_element']['I']['largest'] == pytest.approx(0.0, abs=1e-12)
    assert summary['energy']['mean'] == pytest.approx(2.0)
    assert summary['energy_aligned']['largest'] == pytest.approx(0.0, abs=1e-9)
    assert summary['stress']['rms'] == 0.0
    assert summary['matching']['n_matched'] == 4
    assert summary['levels']['one']['fingerprint'] == one.level.fingerprint
    assert summary['same_level'] is False
    assert outputs['arrays'].get_array('counts').sum() == 160
    assert outputs['summary'].creator.inputs.one.uuid == one.uuid


def test_the_order_of_the_frames_does_not_matter(make_frames, level):
    frames = make_frames(5)
    mixed = [shifted(frames)[index] for index in (3, 0, 4, 1, 2)]
    straight, _ = compare_labels(stored(frames, level), stored(shifted(frames), OTHER))
    crossed, matching = compare_labels(stored(frames, level), stored(mixed, OTHER))
    assert crossed.to_dict()['forces_per_element'] == straight.to_dict()['forces_per_element']
    assert crossed.frames.other.tolist() == [1, 3, 4, 0, 2]
    assert matching.n_unmatched_one == matching.n_unmatched_other == 0


def test_only_frames_that_are_in_both_are_compared(make_frames, level):
    frames = make_frames(6)
    one, other = stored(frames[:4], level), stored(shifted(frames[2:]), OTHER)
    found, matching = compare_labels(one, other)
    assert found.n_frames == matching.n_matched == 2
    assert (matching.n_unmatched_one, matching.n_unmatched_other) == (2, 2)
    assert found.frames.one.tolist() == [2, 3]
    assert found.frames.other.tolist() == [0, 1]


def test_a_rotated_frame_is_another_one(make_frames, level):
    frames = make_frames(2)
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = replace(frames[1], positions=frames[1].positions @ quarter.T, cell=frames[1].cell @ quarter.T)
    _, matching = compare_labels(stored(frames, level), stored(shifted([frames[0], turned]), OTHER))
    assert (matching.n_matched, matching.n_unmatched_one, matching.n_unmatched_other) == (1, 1, 1)


def test_a_frame_of_another_charge_is_another_one(make_frames, level):
    neutral, charged = make_frames(3, charge=0), make_frames(3, charge=1)
    mixed = [neutral[0], charged[1], neutral[2]]
    found, matching = compare_labels(stored(neutral, level), stored(shifted(mixed), OTHER))
    assert found.frames.one.tolist() == [0, 2]
    assert matching.n_unmatched_one == 1


def test_repeated_frames_count_once(make_frames, level):
    frames = make_frames(3)
    one = stored([frames[0], frames[1], frames[0], frames[2]], level)
    other = stored(shifted([frames[2], frames[2], frames[0], frames[2]], by=SHIFT), OTHER)
    found, matching = compare_labels(one, other)
    assert (matching.n_repeated_one, matching.n_repeated_other) == (1, 2)
    assert found.n_frames == matching.n_matched == 2
    assert (matching.n_unmatched_one, matching.n_unmatched_other) == (1, 0)
    assert list(zip(found.frames.one.tolist(), found.frames.other.tolist(), strict=True)) == [(0, 2), (3, 0)]


def test_labels_group_and_trajectory_do_not_make_a_frame_another_one(make_frames, level):
    frames = make_frames(2)
    renamed = [replace(frame, group='renamed', trajectory='t') for frame in shifted(frames)]
    found, _ = compare_labels(stored(frames, level), stored(renamed, OTHER))
    assert found.n_frames == 2
    assert list(found.forces_per_group) == ['default']


def test_many_shards_in_any_order_are_no_more_than_one(make_frames, level, monkeypatch):
    frames = make_frames(12)
    order = np.random.default_rng(0).permutation(12)
    whole, _ = compare_labels(stored(frames, level), stored(shifted(frames), OTHER))
    monkeypatch.setattr(shard, 'MAXIMUM_ATOMS', 100)
    one = stored(frames, level)
    other = stored([shifted(frames)[index] for index in order], OTHER)
    assert len(one.frames.shards) == 4
    found, _ = compare_labels(one, other.select(np.arange(12)[::-1]).store())
    assert found.forces.rms == pytest.approx(whole.forces.rms)
    assert found.energy.mean == pytest.approx(whole.energy.mean)
    assert np.array_equal(found.histograms.counts, whole.histograms.counts)


def test_a_frame_without_stress_is_compared_in_the_rest(make_frames, level):
    frames = make_frames(3)
    one = [replace(frames[0], stress=None), *frames[1:]]
    found, _ = compare_labels(stored(one, level), stored(shifted(frames), OTHER))
    assert found.n_frames == 3
    assert found.stress.n_frames == 2


def test_without_a_common_frame_the_reason_is_told(make_frames, level):
    frames = make_frames(2)
    plain = stored(frames, level)
    with pytest.raises(ValueError, match='Only one of them states a `charge`'):
        compare_labels(plain, stored(shifted(make_frames(2, charge=0)), OTHER))
    with pytest.raises(ValueError, match='what two labellers made of one dataset'):
        compare_labels(plain, stored(shifted(make_frames(2, seed=9)), OTHER))
    bromine = [replace(frame, numbers=np.full(40, 35)) for frame in frames]
    with pytest.raises(ValueError, match='no element in common'):
        compare_labels(plain, stored(bromine, OTHER))


def test_datasets_that_cannot_be_compared_are_refused(make_frames, level):
    labelled = stored(make_frames(1), level)
    bare = DatasetData.from_frames(make_frames(1, labels=False)).store()
    with pytest.raises(ValueError, match='`other` has no forces to compare; label it first'):
        label_difference(labelled, bare)
    mixed = DatasetData.concatenate([labelled, stored(make_frames(1), OTHER)], heads=['a', 'b']).store()
    with pytest.raises(LevelError, match='mixes the levels of theory of the heads a, b'):
        label_difference(mixed, labelled)


def test_one_chunk_of_each_is_read_at_a_time(make_frames, level, monkeypatch):
    monkeypatch.setattr(shard, 'MAXIMUM_ATOMS', 80)
    frames = make_frames(8)
    one, other = stored(frames, level), stored(shifted(frames), OTHER)
    largest = max(len(mine) for _, mine, _ in difference._pairs(one.frames, other.frames, np.arange(8)))
    assert largest == 2
