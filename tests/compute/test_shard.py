"""Columns of frames."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from aiida_perovmlip.compute.frame import Frame, FrameError, from_voigt, to_voigt
from aiida_perovmlip.compute.shard import Shard, ShardBuilder, build_shards, check, digests


def build(frames):
    builder = ShardBuilder()
    for frame in frames:
        builder.add(frame)
    return builder.build()


def same(one: Frame, other: Frame) -> bool:
    for name in ('numbers', 'positions', 'cell', 'pbc', 'forces', 'stress'):
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None) or (a is not None and not np.array_equal(a, b)):
            return False
    scalars = ('energy', 'charge', 'spin', 'group', 'trajectory', 'head', 'source')
    return all(getattr(one, name) == getattr(other, name) for name in scalars)


def test_frames_come_back_as_they_went_in(make_frames):
    frames = [
        replace(frame, charge=index - 1, spin=1 + index, group=f'g{index % 2}', trajectory='a "b" é', source='uuid')
        for index, frame in enumerate(make_frames(3))
    ]
    assert all(map(same, build(frames), frames))


def test_a_shard_file_is_read_back_whole_and_in_part(make_frames):
    shard = build(make_frames(4))
    buffer = io.BytesIO()
    shard.write(buffer)
    buffer.seek(0)
    whole = Shard.read(buffer)
    assert set(whole.columns) == set(shard.columns)
    assert all(np.array_equal(whole.columns[name], shard.columns[name]) for name in shard.columns)
    buffer.seek(0)
    assert set(Shard.read(buffer, ['energy']).columns) == {'energy', 'offsets'}


def test_the_same_frames_give_the_same_bytes(make_frames):
    files = []
    for _ in range(2):
        buffer = io.BytesIO()
        build(make_frames(3)).write(buffer)
        files.append(buffer.getvalue())
    assert files[0] == files[1]


def test_numpy_alone_reads_a_shard(make_frames, tmp_path):
    shard = build(make_frames(2))
    with (tmp_path / 'a.npz').open('wb') as handle:
        shard.write(handle)
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as archive:
        assert archive['positions'].shape == (80, 3)
        assert archive['group_names'].tolist() == ['default']


def test_taking_frames_keeps_their_atoms_together(make_frames):
    frames = make_frames(5)
    nothing = np.zeros((1, 3))
    frames[2] = Frame(np.array([1]), nothing, np.eye(3) * 9, np.ones(3, bool), 0.0, nothing, np.zeros(6))
    taken = build(frames).take(np.array([4, 2, 2]))
    assert all(map(same, taken, [frames[4], frames[2], frames[2]]))


@pytest.mark.parametrize(
    ('change', 'field'),
    [
        ({'positions': np.full((40, 3), np.nan)}, 'positions'),
        ({'forces': np.full((40, 3), np.inf)}, 'forces'),
        ({'energy': float('nan')}, 'energy'),
        ({'stress': np.full(6, np.nan)}, 'stress'),
        ({'positions': np.zeros((39, 3))}, 'positions'),
        ({'forces': np.zeros((40, 2))}, 'forces'),
        ({'stress': np.zeros(9)}, 'stress'),
        ({'numbers': np.full(40, 200)}, 'numbers'),
        ({'numbers': np.full(40, 0)}, 'numbers'),
        ({'numbers': np.full(40, 1.5)}, 'numbers'),
        ({'numbers': np.full(40, 300)}, 'numbers'),
        ({'cell': np.zeros((3, 3))}, 'cell'),
        ({'cell': np.ones((3, 3))}, 'cell'),
        ({'cell': np.full((3, 3), np.nan)}, 'cell'),
        ({'cell': np.zeros(6)}, 'cell'),
        ({'energy': 'low'}, 'energy'),
        ({'energy': 1e12}, 'energy'),
        ({'forces': np.full((40, 3), 1e20)}, 'forces'),
        ({'forces': None}, 'forces'),
        ({'energy': None}, 'energy'),
        ({'charge': 0.5}, 'charge'),
        ({'spin': 0}, 'spin'),
        ({'numbers': np.zeros(0), 'positions': np.zeros((0, 3)), 'forces': np.zeros((0, 3))}, 'atoms'),
        ({'pbc': np.array([True, True, False])}, 'stress'),
    ],
)
def test_a_bad_frame_is_refused_by_number_and_field(make_frames, change, field):
    frames = [replace(frame, charge=0, spin=1) for frame in make_frames(5)]
    frames[3] = replace(frames[3], **change)
    with pytest.raises(FrameError, match=rf'frame 3\b.*`?{field}'):
        build(frames)


def test_charge_of_one_frame_alone_is_refused(make_frames):
    frames = make_frames(3)
    frames[1] = replace(frames[1], charge=1)
    with pytest.raises(FrameError, match='frame 0 has no `charge`'):
        build(frames)


def test_the_number_of_a_bad_frame_counts_over_all_shards(make_frames, monkeypatch):
    monkeypatch.setattr('aiida_perovmlip.compute.shard.MAXIMUM_FRAMES', 2)
    frames = make_frames(7)
    frames[5] = replace(frames[5], energy=np.nan)
    with pytest.raises(FrameError, match='frame 5 '):
        list(build_shards(frames))


def test_no_frames_are_refused():
    with pytest.raises(FrameError, match='no frames'):
        ShardBuilder().build()


def test_a_stress_may_be_absent_where_the_cell_is_open(make_frames):
    molecule = Frame(np.array([1, 1]), np.eye(3)[:2], energy=-1.0, forces=np.zeros((2, 3)))
    shard = build([*make_frames(1), molecule])
    assert shard.frame(0).stress is not None
    assert shard.frame(1).stress is None
    check(shard)


def test_a_digest_depends_on_content_alone(make_frames):
    frames = make_frames(3)
    alone = digests(build(frames[1:2]))[0]
    assert np.array_equal(alone, digests(build(frames))[1])
    assert not np.array_equal(alone, digests(build([replace(frames[1], energy=frames[1].energy + 1e-9)]))[0])
    assert np.array_equal(alone, digests(build([replace(frames[1], source='somebody else', head='pbe')]))[0])


def test_without_labels_the_digest_is_that_of_the_structure(make_frames):
    labelled, bare = make_frames(2), make_frames(2, labels=False)
    assert np.array_equal(digests(build(labelled), labels=False), digests(build(bare), labels=False))
    charged = [replace(frame, charge=1) for frame in bare]
    assert not np.array_equal(digests(build(charged), labels=False), digests(build(bare), labels=False))


def test_minus_zero_is_zero(make_frames):
    frame = make_frames(1)[0]
    zero, minus = (replace(frame, forces=np.full((40, 3), value)) for value in (0.0, -0.0))
    assert np.array_equal(digests(build([zero])), digests(build([minus])))


def test_voigt_and_matrix_are_inverse():
    stress = np.arange(6.0)
    assert np.array_equal(to_voigt(from_voigt(stress)), stress)
    with pytest.raises(FrameError, match='not symmetric'):
        to_voigt(np.arange(9.0).reshape(3, 3))


def test_ase_atoms_round_trip(make_frames):
    frame = replace(make_frames(1)[0], group='cubic', charge=1, spin=2, trajectory='t')
    assert same(Frame.from_atoms(frame.to_atoms()), frame)
    assert Frame.from_atoms(Atoms('H', info={'config_type': 'atom'})).group == 'atom'


def test_two_parallel_vectors_span_no_area(make_frames):
    cell = np.array([[5.0, 0, 0], [10.0, 0, 0], [0, 0, 5.0]])
    frame = replace(make_frames(1, labels=False)[0], cell=cell, pbc=np.array([True, True, False]))
    with pytest.raises(FrameError, match='frame 0 has a `cell` without extent'):
        build([frame])
    build([replace(frame, pbc=np.array([True, False, True]))])
