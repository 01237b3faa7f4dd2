"""The trajectory node."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from aiida import orm
from aiida.common.datastructures import StashMode
from aiida.common.exceptions import StoringNotAllowed
from aiida.tools.archive import create_archive

from aiida_perovmlip.compute.chunk import Chunk, TrajectoryError
from aiida_perovmlip.compute.chunk_writer import FOLDER, MANIFEST, ChunkWriter
from aiida_perovmlip.compute.extxyz import read_extxyz
from aiida_perovmlip.compute.trajectory import Trajectory
from aiida_perovmlip.data.remote_chunks import ChangedChunkError, MissingChunkError, UnreachableComputerError
from aiida_perovmlip.data.trajectory import TrajectoryData

LEVEL = {'labeller': 'potential', 'functional': 'made up'}


@pytest.fixture
def make(write_trajectory, tmp_path):
    """Return a function that makes an unstored trajectory of a made-up run."""

    def make(steps, about=None, **fields):
        folder = tmp_path / f'run {len(list(tmp_path.iterdir()))}'
        write_trajectory(folder, steps, **fields)
        return TrajectoryData.from_folder(folder, fields.get('timestep', 2.0), **(about or {}))

    return make


def object_keys():
    from aiida.manage import get_manager

    return set(get_manager().get_profile_storage().get_repository().list_objects())


def positions_of(node):
    return np.concatenate([block.positions for block in node.trajectory.blocks()])


def test_a_stored_trajectory_reads_back(make, write_trajectory, tmp_path):
    node = orm.load_node(make(range(0, 300, 10), velocities=True).store().pk)
    assert isinstance(node, TrajectoryData)
    assert len(node) == 30
    there = write_trajectory(tmp_path / 'there', range(0, 300, 10), velocities=True)
    assert np.array_equal(positions_of(node), np.concatenate([block.positions for block in there.blocks()]))
    assert np.array_equal(node.trajectory.thermo('stress')[1], there.thermo('stress')[1])
    assert node.trajectory.atoms == there.atoms
    assert node.trajectory.has_velocities


def test_attributes_answer_questions(make):
    about = {'level': LEVEL, 'engine': 'ase', 'ensemble': 'nvt', 'charge': 1, 'spin': 1, 'group': 'cubic'}
    known = make(range(100, 300, 10), about).store().base.attributes.all
    expected = {
        'n_frames': 20,
        'n_atoms': 4,
        'elements': ['Cs', 'I', 'Pb'],
        'formula': 'CsI2Pb',
        'timestep': 2.0,
        'first_step': 100,
        'last_step': 290,
        'every': 10,
        'duration_ps': 0.38,
        'has_velocities': False,
        'thermo': ['temperature', 'stress'],
        'n_thermo': 20,
        'engine': 'ase',
        'ensemble': 'nvt',
        'charge': 1,
        'spin': 1,
        'group': 'cubic',
        'is_remote': False,
    }
    assert {name: known[name] for name in expected} == expected
    assert known['level']['functional'] == 'made up'
    assert known['fingerprint'] == known['level']['fingerprint']
    assert known['n_bytes'] == sum(entry['bytes'] for entry in known['chunks'])


def test_typed_fields_find_trajectories(make):
    node = make(range(0, 70, 10), {'ensemble': 'nvt', 'engine': 'needle'}).store()
    fields = TrajectoryData.fields
    query = orm.QueryBuilder().append(
        TrajectoryData,
        filters=(fields.n_frames == 7)
        & (fields.every == 10)
        & (fields.duration_ps > 0.1)
        & (fields.engine == 'needle'),
        project=[fields.uuid, fields.content_hash],
    )
    assert query.all() == [[node.uuid, node.content_hash]]


def test_uneven_frames_have_no_interval(make):
    known = make([0, 10, 30]).base.attributes.all
    assert known['every'] is None
    assert make([5]).base.attributes.get('duration_ps') == 0


def test_the_hash_does_not_depend_on_how_a_run_was_cut(make):
    whole = make(range(0, 310, 10))
    legs = [make(range(0, 110, 10)), make(range(100, 310, 10), most_bytes=3000)]
    joined = TrajectoryData.join(legs)
    assert joined.content_hash == whole.content_hash == make(range(0, 310, 10), most_bytes=5000).content_hash
    assert joined.store().base.caching.compute_hash() == whole.store().base.caching.compute_hash()
    assert np.array_equal(positions_of(joined), positions_of(whole))
    described = ('n_frames', 'first_step', 'last_step', 'every', 'duration_ps', 'n_thermo', 'thermo', 'formula')
    assert [joined.base.attributes.get(name) for name in described] == [
        whole.base.attributes.get(name) for name in described
    ]


@pytest.mark.parametrize(
    ('fields', 'about'),
    [
        ({'timestep': 1.0}, {}),
        ({'masses': np.ones(4)}, {}),
        ({'velocities': True}, {}),
        ({'thermo': False}, {}),
        ({}, {'ensemble': 'npt'}),
        ({}, {'level': LEVEL}),
        ({}, {'charge': 1}),
    ],
)
def test_whatever_differs_is_another_trajectory_for_the_cache(make, fields, about):
    one, other = make(range(0, 50, 10)).store(), make(range(0, 50, 10), about, **fields).store()
    assert one.base.caching.compute_hash() != other.base.caching.compute_hash()
    assert (one.content_hash != other.content_hash) == bool(fields)


def test_joined_legs_name_their_chunks_and_store_no_second_copy(make, monkeypatch):
    legs = [make(range(0, 110, 10)).store(), make(range(100, 210, 10)).store()]
    before = object_keys()
    opened = []
    monkeypatch.setattr(
        type(legs[0].base.repository), 'put_object_from_filelike', lambda _, handle, path: opened.append(path)
    )
    joined = TrajectoryData.join(legs)
    monkeypatch.undo()
    assert opened == ['atoms.npz']  # nothing else was written, not even for the object store to find it again
    joined = TrajectoryData.join(legs).store()
    assert object_keys() == before
    names = {entry['name'] for entry in joined.base.attributes.get('chunks')}
    assert names <= before
    assert names == {entry['name'] for leg in legs for entry in leg.base.attributes.get('chunks')}
    assert len(joined) == 21


def test_joined_legs_can_be_joined_again_and_in_any_order(make):
    legs = [make(range(start, start + 110, 10)).store() for start in (0, 100, 200, 300)]
    front, back = TrajectoryData.join(legs[:2]).store(), TrajectoryData.join(legs[:1:-1]).store()
    assert TrajectoryData.join([back, front]).content_hash == make(range(0, 410, 10)).content_hash


def test_unstored_parts_are_joined_too(make):
    stored, unstored = make(range(0, 110, 10)).store(), make(range(100, 210, 10))
    for parts in ([stored, unstored], [unstored, stored]):
        joined = orm.load_node(TrajectoryData.join(parts).store().pk)
        assert positions_of(joined).shape == (21, 4, 3)


@pytest.mark.parametrize(
    ('steps', 'about', 'what'),
    [
        (range(150, 210, 10), {}, 'gap in the frames'),
        (range(50, 210, 10), {}, 'the frames overlap'),
        (range(100, 210, 10), {'ensemble': 'npt'}, r'differ in their ensemble \( and npt\)'),
        (range(100, 210, 10), {'level': LEVEL}, 'differ in their level'),
        (range(100, 210, 10), {'charge': 1}, r'differ in their charge \(None and 1\)'),
    ],
)
def test_parts_of_no_one_run_are_refused(make, steps, about, what):
    with pytest.raises(TrajectoryError, match=what):
        TrajectoryData.join([make(range(0, 110, 10)), make(steps, about)])


def test_no_parts_are_refused():
    with pytest.raises(TrajectoryError, match='no trajectories to join'):
        TrajectoryData.join([])


def test_a_run_that_was_killed_is_taken_up_to_the_state_that_was_saved(write_trajectory, add_step, make, tmp_path):
    trajectory = write_trajectory(tmp_path / 'killed', range(0, 300, 10))
    writer = ChunkWriter(tmp_path / 'state', trajectory.atoms, 800)
    for step in range(0, 110, 10):
        add_step(writer, step)
    node = TrajectoryData.from_folder(tmp_path / 'killed', 2.0, writer.n_closed, writer.open_chunk())
    assert node.content_hash == make(range(0, 110, 10)).content_hash
    assert len(orm.load_node(node.store().pk)) == 11
    with pytest.raises(TrajectoryError, match=r'the list has .* chunks, but the state knows of 99'):
        TrajectoryData.from_folder(tmp_path / 'killed', 2.0, 99)
    empty = ChunkWriter(tmp_path / 'empty', trajectory.atoms).open_chunk()
    exact = TrajectoryData.from_folder(tmp_path / 'killed', 2.0, 1, empty)
    assert len(exact.trajectory.entries) == 1


def test_chunks_in_memory_become_a_trajectory(make, write_trajectory, tmp_path):
    trajectory = write_trajectory(tmp_path / 'there', range(0, 110, 10))
    node = TrajectoryData.from_chunks(trajectory.atoms, trajectory.chunks(), 2.0)
    assert node.content_hash == make(range(0, 110, 10)).content_hash
    bad = Chunk({**trajectory.chunk(0).columns, 'cells': np.zeros(3)})
    with pytest.raises(TrajectoryError, match='chunk 1: `cells`'):
        TrajectoryData.from_chunks(trajectory.atoms, [trajectory.chunk(0), bad], 2.0)
    with pytest.raises(TrajectoryError, match='neither frames nor'):
        TrajectoryData.from_chunks(trajectory.atoms, [], 2.0)
    with pytest.raises(TrajectoryError, match='step 0 comes after'):
        TrajectoryData.from_chunks(trajectory.atoms, [trajectory.chunk(0)] * 2, 2.0)
    with pytest.raises(TypeError, match='mood'):
        TrajectoryData.from_chunks(trajectory.atoms, trajectory.chunks(), 2.0, mood='good')


@pytest.mark.parametrize('damage', ['truncated', 'edited', 'gone'])
def test_a_folder_with_a_damaged_chunk_is_refused(write_trajectory, tmp_path, damage):
    write_trajectory(tmp_path, range(0, 300, 10))
    path = tmp_path / FOLDER / '000002.npz'
    data = path.read_bytes()
    if damage == 'gone':
        path.unlink()
    else:
        path.write_bytes(data[:-10] if damage == 'truncated' else data[:-10] + bytes(10))
    with pytest.raises(TrajectoryError, match=r'000002\.npz is (not as it was written|in the list)'):
        TrajectoryData.from_folder(tmp_path, 2.0)


def test_what_this_class_did_not_build_is_not_stored():
    with pytest.raises(StoringNotAllowed, match='not a complete trajectory'):
        TrajectoryData().store()


@pytest.mark.parametrize(
    ('name', 'value', 'what'),
    [
        ('n_frames', 31, 'attributes n_frames'),
        ('timestep', 1.0, 'content_hash'),
        ('ensemble', 'npt', None),
        ('thermo', ['temperature'], 'thermo'),
        ('content_hash', 'a' * 64, 'content_hash'),
        ('has_velocities', True, 'has_velocities'),
        ('chunks', [], 'neither frames'),
    ],
)
def test_attributes_that_do_not_describe_the_frames_are_not_stored(make, name, value, what):
    node = make(range(0, 300, 10))
    node.base.attributes.set(name, value)
    if what is None:  # it is read again, and nothing is wrong with it
        node.store()
        return
    with pytest.raises(StoringNotAllowed, match=what):
        node.store()


@pytest.mark.parametrize('damage', ['another', 'listed', 'digest'])
def test_chunks_that_are_not_as_listed_are_not_stored(make, damage):
    node = make(range(0, 300, 10))
    chunks = [dict(entry) for entry in node.base.attributes.get('chunks')]
    path, other = (f'chunks/{chunks[number]["name"]}.npz' for number in (1, 2))
    if damage == 'another':
        with node.base.repository.open(other, 'rb') as handle:
            node.base.repository.put_object_from_filelike(handle, path)
        node.base.attributes.set('group', 'touched')
    elif damage == 'listed':
        chunks[1]['name'] = chunks[2]['name']
        node.base.attributes.set('chunks', chunks)
    else:
        chunks[1]['digest'] = '0' * 64
        node.base.attributes.set('chunks', chunks)
    expected = {'another': 'not what its name says', 'listed': 'not those of the list', 'digest': 'not those of its'}
    with pytest.raises(StoringNotAllowed, match=expected[damage]):
        node.store()


def test_frames_carry_what_the_run_knows(make, tmp_path):
    node = make(range(0, 110, 10), {'charge': -1, 'spin': 2}).store()
    frame = node.frame(-1)
    assert (frame.charge, frame.spin, frame.group) == (-1, 2, 'CsI2Pb')
    assert frame.trajectory == node.content_hash[:16]
    assert len(node.to_dataset([0, 5]).store()) == 2
    with node.to_extxyz(tmp_path / 'run.xyz', every=5).open() as handle:
        frames = list(read_extxyz(handle))
    assert [one.positions[3, 0] for one in frames] == [node.frame(index).positions[3, 0] for index in (0, 5, 10)]


IMPORT = """
import sys
from aiida import load_profile, orm
from aiida.manage.configuration import create_profile, get_config
from aiida.tools.archive import import_archive

config = get_config(create=True)
create_profile(config, name='other', email='a@b', storage_backend='core.sqlite_dos', storage_config={})
load_profile('other')
import_archive(sys.argv[1])
node = orm.load_node(sys.argv[2])
print(node.content_hash, sum(float(block.positions.sum()) for block in node.trajectory.blocks()))
"""


def test_an_archive_brings_a_trajectory_with_its_chunks(make, tmp_path):
    node = make(range(0, 110, 10)).store()
    create_archive([node], filename=tmp_path / 'archive.aiida')
    child = subprocess.run(
        [sys.executable, '-c', IMPORT, str(tmp_path / 'archive.aiida'), node.uuid],
        env={**os.environ, 'AIIDA_PATH': str(tmp_path / 'elsewhere')},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    content_hash, total = child.stdout.split()[-2:]
    assert content_hash == node.content_hash
    assert float(total) == pytest.approx(positions_of(node).sum())


# ---------------------------------------------------------------------- on another computer


@pytest.fixture
def remote(write_trajectory, localhost, tmp_path):
    """Return a function that makes a trajectory whose chunks stay where the run left them."""

    def make(steps, name='work', **fields):
        trajectory = write_trajectory(tmp_path / name, steps)
        listing = (tmp_path / name / FOLDER / MANIFEST).read_text()
        folder = orm.RemoteData(remote_path=str(tmp_path / name), computer=localhost)
        return TrajectoryData.from_remote(listing, folder, trajectory.atoms, 2.0, **fields)

    return make


def test_chunks_that_stay_away_are_read_as_those_that_are_here(remote, make, tmp_path, monkeypatch):
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    node = orm.load_node(remote(range(0, 300, 10)).store().pk)
    here = make(range(0, 300, 10)).store()
    assert node.is_remote
    assert node.computer.label == 'localhost'
    assert node.base.repository.list_object_names() == ['atoms.npz']
    assert node.content_hash == here.content_hash
    assert np.array_equal(positions_of(node), positions_of(here))
    assert np.array_equal(node.trajectory.thermo('temperature')[1], here.trajectory.thermo('temperature')[1])
    assert node.frame(17).positions.tolist() == here.frame(17).positions.tolist()


def test_one_copy_of_a_chunk_is_here_while_it_is_read_and_none_afterwards(remote, tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'scratch'))
    (tmp_path / 'scratch').mkdir()
    node = remote(range(0, 300, 10))
    with node._opening() as opener:
        for entry in node.trajectory.entries:
            with opener(entry):
                assert len(list((tmp_path / 'scratch').rglob('*.npz'))) == 1
    assert list((tmp_path / 'scratch').glob('chunk-*')) == []


def test_one_connection_serves_all_chunks(remote, monkeypatch):
    from aiida.transports.plugins.local import LocalTransport

    node = remote(range(0, 300, 10))
    opened = []
    plain = LocalTransport.open
    monkeypatch.setattr(LocalTransport, 'open', lambda self: opened.append(1) or plain(self))
    assert len(list(node.trajectory.chunks())) > 3
    assert len(opened) == 1


def test_a_chunk_that_is_gone_is_named(remote, tmp_path):
    node = remote(range(0, 300, 10)).store()
    (tmp_path / 'work' / FOLDER / '000002.npz').unlink()
    assert len(next(node.trajectory.blocks()).times) > 0
    with pytest.raises(
        MissingChunkError, match=r'chunk 1 \(.*work/trajectory/000002.npz\): it is not on localhost any'
    ):
        positions_of(node)


def test_a_chunk_that_has_changed_is_not_used(remote, tmp_path):
    node = remote(range(0, 300, 10)).store()
    folder = tmp_path / 'work' / FOLDER
    (folder / '000002.npz').write_bytes((folder / '000001.npz').read_bytes())
    with pytest.raises(ChangedChunkError, match=r'chunk 1 .* on localhost its SHA-256 is .* but it was'):
        positions_of(node)


def test_a_computer_that_does_not_answer_is_named(write_trajectory, tmp_path):
    computer = orm.Computer('silent', '127.0.0.1', '', 'core.ssh', 'core.direct', str(tmp_path)).store()
    trajectory = write_trajectory(tmp_path / 'work', range(0, 50, 10))
    listing = (tmp_path / 'work' / FOLDER / MANIFEST).read_text()
    folder = orm.RemoteData(remote_path=str(tmp_path / 'work'), computer=computer)
    node = TrajectoryData.from_remote(listing, folder, trajectory.atoms, 2.0).store()
    with pytest.raises(UnreachableComputerError, match=r'silent did not give it \(.*not configured: verdi computer'):
        positions_of(node)
    computer.configure(port=1, username='nobody', look_for_keys=False, allow_agent=False, timeout=5)
    with pytest.raises(UnreachableComputerError, match=r'silent did not give it .* `verdi computer test silent`'):
        positions_of(node)


def test_a_stashed_run_is_read_where_it_was_stashed(write_trajectory, localhost, tmp_path):
    trajectory = write_trajectory(tmp_path, range(0, 50, 10))
    stash = orm.RemoteStashFolderData(StashMode.COPY, str(tmp_path), [FOLDER], computer=localhost)
    listing = (tmp_path / FOLDER / MANIFEST).read_text()
    node = TrajectoryData.from_remote(listing, stash, trajectory.atoms, 2.0)
    assert positions_of(node).shape == (5, 4, 3)
    with pytest.raises(TrajectoryError, match='no list of chunks'):
        TrajectoryData.from_remote('nonsense', stash, trajectory.atoms, 2.0)


def test_legs_here_and_away_are_joined(remote, make, tmp_path):
    whole = make(range(0, 310, 10))
    away = remote(range(100, 210, 10), closed=2).store()
    rest = list(Trajectory.open_folder(tmp_path / 'work', 2.0).chunks())[2:]
    rest = TrajectoryData.from_chunks(away.trajectory.atoms, rest, 2.0)
    joined = TrajectoryData.join([make(range(0, 110, 10)), away, rest, make(range(210, 310, 10))]).store()
    assert joined.is_remote
    assert joined.content_hash == whole.content_hash
    assert np.array_equal(positions_of(orm.load_node(joined.pk)), positions_of(whole))


def test_chunks_on_two_computers_are_not_joined(remote, tmp_path, write_trajectory):
    other = orm.Computer('elsewhere', 'elsewhere', '', 'core.local', 'core.direct', str(tmp_path)).store()
    trajectory = write_trajectory(tmp_path / 'other', range(110, 210, 10))
    listing = (tmp_path / 'other' / FOLDER / MANIFEST).read_text()
    folder = orm.RemoteData(remote_path=str(tmp_path / 'other'), computer=other)
    later = TrajectoryData.from_remote(listing, folder, trajectory.atoms, 2.0)
    with pytest.raises(TrajectoryError, match=r'several computers \(elsewhere, localhost\)'):
        TrajectoryData.join([remote(range(0, 110, 10)), later])


# ---------------------------------------------------------------------- size

LARGE = """
import json, resource, sys
from pathlib import Path
import numpy as np
from aiida import load_profile, orm
from aiida_perovmlip.compute.trajectory import ChunkWriter, MovingAtoms
load_profile(sys.argv[1])
from aiida_perovmlip.data.trajectory import TrajectoryData

N, FRAMES = 1000, 10_000
rng = np.random.default_rng(0)
start = rng.uniform(0, 30, (N, 3))
walk = start.copy()
writer = ChunkWriter(Path(sys.argv[2]), MovingAtoms(np.full(N, 53), np.full(N, 126.9), np.ones(3, bool)))
for step in range(FRAMES):
    writer.thermo(step, temperature=300.0)
    writer.frame(step, walk, 30 * np.eye(3))
    walk += rng.normal(0, 0.05, (N, 3))
writer.close()
node = orm.load_node(TrajectoryData.from_folder(sys.argv[2], 1000.0).store().pk)
msd = []
for times, positions, cells in node.trajectory.blocks():
    msd.append(((positions - start) ** 2).sum(axis=(1, 2)) / N)
msd = np.concatenate(msd)
slope = (msd[1:] / np.arange(1, FRAMES)).mean()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({'frames': len(msd), 'slope': slope, 'peak': peak, 'bytes': node.base.attributes.get('n_bytes')}))
"""


@pytest.mark.slow
def test_ten_thousand_frames_of_a_thousand_atoms_take_less_than_a_gigabyte(tmp_path, aiida_profile):
    child = subprocess.run(
        [sys.executable, '-c', LARGE, aiida_profile.name, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout.splitlines()[-1])
    assert found['frames'] == 10_000
    assert found['bytes'] > 1000 * 10_000 * 12
    assert found['slope'] == pytest.approx(3 * 0.05**2, rel=0.05)  # three directions of a random walk
    assert found['peak'] < 1e9
