"""Chunks of a trajectory: columns, bytes, digests, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest

from aiida_perovmlip.compute.chunk import Chunk, ChunkEntry, Steps, TrajectoryError, joined_steps, sum_of_digests


@pytest.fixture
def chunk():
    rng = np.random.default_rng(0)
    return Chunk(
        {
            'steps': np.array([0, 10, 20]),
            'positions': rng.normal(size=(3, 2, 3)).astype(np.float32),
            'cells': np.tile(9 * np.eye(3), (3, 1, 1)),
            'velocities': rng.normal(size=(3, 2, 3)).astype(np.float32),
            'thermo_steps': np.array([0, 5, 10, 15]),
            'thermo_temperature': np.array([300.0, 310, 290, 305]),
            'thermo_stress': rng.normal(size=(4, 6)),
        }
    )


def bytes_of(chunk):
    buffer = io.BytesIO()
    chunk.write(buffer)
    return buffer.getvalue()


def test_a_chunk_is_read_back_whole_and_in_part(chunk):
    data = bytes_of(chunk)
    whole = Chunk.read(io.BytesIO(data))
    assert set(whole.columns) == set(chunk.columns)
    assert all(np.array_equal(whole.columns[name], chunk.columns[name]) for name in chunk.columns)
    assert set(Chunk.read(io.BytesIO(data), ['steps', 'cells', 'absent']).columns) == {'steps', 'cells'}
    assert whole.thermo_names == ('temperature', 'stress')
    assert whole.problem(2) is None


def test_equal_chunks_give_equal_bytes_whatever_the_order_of_their_columns(chunk):
    assert bytes_of(chunk) == bytes_of(Chunk(dict(reversed(chunk.columns.items()))))


def test_numpy_alone_reads_a_chunk(chunk, tmp_path):
    (tmp_path / 'a.npz').write_bytes(bytes_of(chunk))
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as archive:
        assert archive['positions'].dtype == np.float32
        assert archive['thermo_stress'].shape == (4, 6)


@pytest.mark.parametrize('kept', [0, 30, 500, -1])
def test_a_truncated_chunk_is_refused(chunk, kept):
    with pytest.raises(TrajectoryError, match='truncated or damaged'):
        Chunk.read(io.BytesIO(bytes_of(chunk)[:kept]))


def test_a_flipped_bit_is_noticed(chunk):
    data = bytearray(bytes_of(chunk))
    data[data.index(chunk.positions.tobytes()) + 5] ^= 4
    with pytest.raises(TrajectoryError, match='truncated or damaged'):
        Chunk.read(io.BytesIO(bytes(data)))


@pytest.mark.parametrize(
    ('name', 'column', 'what'),
    [
        ('steps', None, 'has no `steps`'),
        ('steps', np.array([0, 20, 10]), '`steps` do not increase'),
        ('steps', np.array([-10, 0, 10]), '`steps` do not increase'),
        ('thermo_steps', np.array([0, 5, 5, 15]), '`thermo_steps` do not increase'),
        ('positions', np.zeros((3, 2, 3)), '`positions` is float64'),
        ('positions', np.zeros((3, 1, 3), np.float32), r'instead of float32 \(3, 2, 3\)'),
        ('positions', np.full((3, 2, 3), np.nan, np.float32), '`positions` has a value that is not finite'),
        ('cells', np.full((3, 3, 3), np.inf), '`cells` has a value that is not finite'),
        ('velocities', np.zeros((2, 2, 3), np.float32), '`velocities`'),
        ('thermo_temperature', np.zeros(3), '`thermo_temperature`'),
        ('thermo_stress', np.zeros((4, 3, 3)), '`thermo_stress`'),
        ('thermo_mood', np.zeros(4), 'column `thermo_mood`, which no trajectory has'),
        ('charges', np.zeros((3, 2)), 'column `charges`'),
    ],
)
def test_a_column_that_is_wrong_is_named(chunk, name, column, what):
    import re

    columns = {key: value for key, value in chunk.columns.items() if key != name}
    found = Chunk(columns if column is None else {**columns, name: column}).problem(2)
    assert re.search(what, found)


def test_digests_add_up_wherever_the_rows_are_cut(chunk):
    first, second = (
        Chunk({name: column[rows] for name, column in chunk.columns.items()}) for rows in (slice(2), slice(2, None))
    )
    assert sum_of_digests([first.digest, second.digest]) == chunk.digest
    assert chunk.drop(2, 2).digest == second.digest
    assert first.digest != second.digest


@pytest.mark.parametrize('name', ['steps', 'positions', 'cells', 'velocities', 'thermo_steps', 'thermo_temperature'])
def test_every_column_is_in_the_digest(chunk, name):
    changed = chunk.columns[name].copy()
    changed.reshape(-1)[-1] += 1
    assert Chunk({**chunk.columns, name: changed}).digest != chunk.digest


def test_two_swapped_frames_change_the_digest(chunk):
    assert Chunk({**chunk.columns, 'positions': chunk.positions[[1, 0, 2]]}).digest != chunk.digest


def test_steps_know_where_rows_lie():
    assert Steps.of(np.array([0, 10, 20])) == Steps(3, 0, 20, 10, 10)
    assert Steps.of(np.array([0, 10, 30])).every is None
    assert Steps.of(np.array([7])).every is None
    assert Steps.of(np.array([])) == Steps()


@pytest.mark.parametrize('cut', range(6))
def test_steps_of_parts_are_those_of_the_whole(cut):
    steps = np.array([0, 10, 20, 50, 55])
    assert joined_steps([Steps.of(steps[:cut]), Steps(), Steps.of(steps[cut:])]) == Steps.of(steps)


def test_steps_that_go_back_are_refused():
    with pytest.raises(TrajectoryError, match='step 10 comes after step 20'):
        Steps(2, 10, 20, 10, 10).then(Steps(1, 10, 10))


def test_an_entry_survives_as_plain_values(chunk):
    entry = ChunkEntry.of(chunk, 'a' * 64, 1234, '000001.npz')
    assert ChunkEntry.from_dict(entry.to_dict()) == entry
    assert entry.thermo == Steps(4, 0, 15, 5, 5)
