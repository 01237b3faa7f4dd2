"""The verb `dataset`."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.query.describe import KINDS

LEVEL = ('--level', 'labeller=vasp', '--level', 'functional=PBE')


@pytest.fixture
def file(make_dataset, tmp_path):
    return make_dataset(6, seed=61).to_extxyz(tmp_path / 'frames.xyz', 'ase')


@pytest.fixture
def dataset(make_frames):
    frames = [*make_frames(4, seed=62, group='cubic', trajectory='a'), *make_frames(2, seed=63, group='slab')]
    node = DatasetData.from_frames(frames, {'labeller': 'test', 'functional': 'pairs'})
    return node.store()


def test_a_file_becomes_a_dataset_with_the_file_before_it(ask, file):
    found = ask('dataset', 'import', file, *LEVEL)
    node = orm.load_node(found['pk'])
    assert len(node) == found['n_frames'] == 6
    assert node.level.functional == 'PBE'
    assert node.label == 'frames.xyz'
    assert node.creator.inputs.file.filename == 'frames.xyz'
    assert found['made_by']['process'] == 'import_extxyz'


def test_what_was_imported_is_shown_with_units(call, file):
    lines = call('dataset', 'import', file, *LEVEL, '--label', 'mine').output.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
    assert shown['label'] == 'mine'
    assert shown['frames'] == '6, with 240 atoms'
    assert shown['energy'].endswith('eV/atom')
    assert shown['force'].endswith('eV/Å')
    assert shown['level'].startswith('vasp / PBE (')


def test_a_packed_file_and_a_level_in_a_file_are_read(ask, file, tmp_path):
    packed = tmp_path / 'packed.xyz.gz'
    packed.write_bytes(gzip.compress(file.read_bytes()))
    (tmp_path / 'level.json').write_text('{"labeller": "cp2k", "details": {"smearing": 300}}')
    found = ask('dataset', 'import', packed, '--level', tmp_path / 'level.json')
    assert found['levels']['default']['details'] == {'smearing': 300}


def test_a_database_of_ase_is_read(ask, refused, tmp_path):
    import ase.db
    from ase.build import bulk
    from ase.calculators.emt import EMT

    atoms = bulk('Cu', cubic=True)
    atoms.calc = EMT()
    atoms.get_forces()
    with ase.db.connect(tmp_path / 'copper.db') as database:
        database.write(atoms, family='fcc')
    assert 'state it by --level' in refused('dataset', 'import', tmp_path / 'copper.db')
    found = ask('dataset', 'import', tmp_path / 'copper.db', '--level', 'labeller=emt', '--column', 'group=family')
    assert found['groups'] == {'fcc': 1}


def nodes() -> int:
    return orm.QueryBuilder().append(orm.Node).count()


def test_a_file_that_cannot_be_read_is_a_sentence_and_leaves_nothing(refused, file, tmp_path):
    before = nodes()
    broken = tmp_path / 'broken.xyz'
    broken.write_text(file.read_text().replace('Lattice', 'Latice', 1)[:-300])
    assert 'broken.xyz' in refused('dataset', 'import', broken, *LEVEL)
    assert 'state it, for example' in refused('dataset', 'import', file)
    assert nodes() == before


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['nowhere.xyz', *LEVEL], 'there is no file or folder nowhere.xyz'),
        (['{file}', '--level', 'labeller'], 'neither `key=value` nor a JSON file'),
        (['{file}', '--level', 'functional=PBE'], 'a level of theory needs a `labeller`'),
        (['{file}', *LEVEL, '--level', 'functional=LDA'], '`functional` is said twice: PBE and LDA'),
        (['{file}', *LEVEL, '--level', 'fun=more'], "a level of theory has no 'fun'"),
        (['{folder}'], 'no labeller is the only one that can read'),
    ],
)
def test_a_wrong_import_is_a_sentence(refused, file, tmp_path, arguments, told):
    (tmp_path / 'empty').mkdir()
    before = nodes()
    filled = [str(word).format(file=file, folder=tmp_path / 'empty') for word in arguments]
    assert told in refused('dataset', 'import', *filled)
    assert nodes() == before


def test_a_dataset_is_found_by_pk_uuid_and_label(ask, dataset):
    dataset.label = 'found-by-its-label'
    for name in (dataset.pk, dataset.uuid, dataset.uuid[:13], 'found-by-its-label'):
        assert ask('dataset', 'show', name)['uuid'] == dataset.uuid


def test_the_types_by_which_nodes_are_found_are_those_of_their_classes():
    assert {kind: node_type for kind, (node_type, _) in KINDS.items()} == {
        'dataset': DatasetData.class_node_type,
        'potential': PotentialData.class_node_type,
    }
    assert set(KINDS['dataset'][1]) <= set(DatasetData.AttributesModel.model_fields)
    assert set(KINDS['potential'][1]) <= set(PotentialData.AttributesModel.model_fields)


def test_a_label_of_several_is_no_name(refused, make_dataset):
    for seed in (64, 65):
        node = make_dataset(1, seed=seed)
        node.label = 'twins'
        node.store()
    assert '`twins` means 2 datasets' in refused('dataset', 'show', 'twins')


def test_what_is_no_dataset_is_a_sentence(refused):
    number = orm.Int(1).store()
    assert refused('dataset', 'show', number.pk) == f'`{number.pk}` is a node of the type Int, and no dataset.'
    assert 'there is no dataset `99999999`; give its PK' in refused('dataset', 'show', '99999999')


def test_parts_share_the_frames(ask, call, dataset):
    parts = ask('dataset', 'split', dataset.pk, '--part', 'test=2', '--part', 'training=rest', '--seed', 1)
    assert {name: part['n_frames'] for name, part in parts.items()} == {'test': 2, 'training': 4}
    assert parts['test']['made_by']['process'] == 'split_dataset'
    shown = call('dataset', 'split', dataset.pk, '--part', 'a=0.5', '--part', 'b=0.5', '--by', 'stratified').output
    assert 'cubic (2), slab (1)' in shown


@pytest.mark.parametrize(
    ('parts', 'told'),
    [
        (['a=0.5'], 'add up'),
        (['a=lots'], 'no fraction (0.8), no number of frames (200) and not `rest`'),
        (['a=99', 'b=rest'], '99'),
        (['a'], '`a` is not `key=value`'),
    ],
)
def test_a_split_that_cannot_be_leaves_nothing(refused, dataset, parts, told):
    before = nodes()
    assert told in refused('dataset', 'split', dataset.pk, *(word for part in parts for word in ('--part', part)))
    assert nodes() == before


def test_statistics_are_those_of_the_frames(ask, call, dataset):
    found = ask('dataset', 'stats', dataset.pk)
    assert list(found) == ['all', 'cubic', 'slab']
    frames = list(dataset.frames)
    energies = np.array([frame.energy / len(frame) for frame in frames])
    forces = np.concatenate([frame.forces for frame in frames])
    assert found['all']['energy']['mean'] == pytest.approx(energies.mean())
    assert found['all']['energy']['std'] == pytest.approx(energies.std(), rel=1e-6)
    assert found['all']['forces_rms'] == pytest.approx(np.sqrt((forces**2).mean()))
    assert found['slab']['n_frames'] == 2
    assert found['slab']['forces']['highest'] == pytest.approx(
        max(np.linalg.norm(frame.forces, axis=1).max() for frame in frames[4:])
    )
    lines = call('dataset', 'stats', dataset.pk).stdout.splitlines()
    assert 'energy (eV/atom)' in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ['all', 'cubic', 'slab']


def test_frames_are_written_for_another_program(ask, refused, dataset, tmp_path):
    told = ask('dataset', 'export', dataset.pk, '-o', tmp_path / 'out.xyz', '--dialect', 'mace')
    assert told['n_frames'] == 6
    assert 'REF_forces' in (tmp_path / 'out.xyz').read_text()
    assert 'No such file or directory' in refused('dataset', 'export', dataset.pk, '-o', tmp_path / 'no' / 'out.xyz')
