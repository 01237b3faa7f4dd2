"""The verb `potential`, and that nothing but a job ever opens the files of one."""

from __future__ import annotations

import hashlib
import json
import pickle

import pytest
from aiida import orm

from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.importing import hash_of_files, trusted_file

SPRINGS = {'constant': 1.0, 'offset': -2.0, 'cutoff': 4.0, 'elements': ['Cs', 'I', 'Pb']}
LEVEL = ('--level', 'labeller=vasp', '--level', 'functional=PBE')


@pytest.fixture
def pickled(tmp_path):
    """Return a function that writes a file which has to be unpickled."""

    def write(content, name='somebodys.model'):
        (tmp_path / name).write_bytes(pickle.dumps(content))
        return tmp_path / name

    yield write
    trusted_file().unlink(missing_ok=True)


@pytest.fixture
def bomb(pickled, make_bomb, tmp_path):
    """Return a file that leaves a mark where it is unpickled, and the mark."""
    return pickled(make_bomb(tmp_path / 'mark')), tmp_path / 'mark'


def nodes() -> int:
    return orm.QueryBuilder().append(orm.Node).count()


def test_text_is_read_at_once_with_the_files_before_it(ask, tmp_path):
    (tmp_path / 'springs.json').write_text(json.dumps(SPRINGS))
    found = ask('potential', 'import', tmp_path, '--architecture', 'springs', *LEVEL, '--label', 'ours')
    node = orm.load_node(found['pk'])
    assert (node.label, node.elements, node.levels['default'].functional) == ('ours', ['Cs', 'I', 'Pb'], 'PBE')
    assert found['made_by']['process'] == 'import_potential'


def test_one_file_gets_the_name_that_its_architecture_looks_for(ask, refused, tmp_path):
    content = {'cutoff': 3.0, 'elements': ['H'], 'weights': [0.0, 1.0], 'basis_size': 1}
    (tmp_path / 'downloaded (1).json').write_text(json.dumps(content))
    found = ask('potential', 'import', tmp_path / 'downloaded (1).json', '--architecture', 'reference')
    assert orm.load_node(found['pk']).file_names() == ['reference.json']
    assert found['levels'] == {}
    (tmp_path / 'springs.json').write_text('{}')
    told = refused('potential', 'import', tmp_path / 'springs.json', '--architecture', 'springs')
    assert told == 'a potential of springs is a folder; give the folder, not one file of it.'


@pytest.mark.parametrize(
    ('name', 'architecture', 'told'),
    [
        ('rubbish', 'nep', 'nep.txt'),
        ('rubbish', 'reference', 'Is it a potential of this architecture?'),
        ('rubbish', 'magic', 'there is no architecture `magic`; installed are'),
        ('nowhere', 'nep', 'there is no file or folder'),
    ],
)
def test_what_is_no_potential_is_a_sentence_and_leaves_nothing(refused, tmp_path, name, architecture, told):
    (tmp_path / 'rubbish').write_text('nep9 3 I wonder\n')
    before = nodes()
    assert told in refused('potential', 'import', tmp_path / name, '--architecture', architecture)
    assert nodes() == before


def test_a_pickle_that_nobody_vouches_for_is_refused_and_stays_shut(refused, python_code, bomb):
    file, mark = bomb
    before = nodes()
    code = ('--code', python_code.full_label)
    told = refused('potential', 'import', file, '--architecture', 'pickled', *code, exit_code=5)
    assert f'(SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}) is not known here' in told
    assert 'pass --trust where you know whom the file is from' in told
    assert nodes() == before
    assert not mark.exists()


def test_a_hash_that_is_not_the_published_one_is_refused(refused, python_code, bomb):
    file, mark = bomb
    told = refused('potential', 'import', file, '--architecture', 'pickled', '--sha256', 'a' * 64, '--trust')
    assert 'it is not the file that was published' in told
    assert not mark.exists()


def test_a_pickle_that_is_vouched_for_once_is_opened_in_a_job_and_known_from_then_on(ask, python_code, pickled):
    file = pickled(SPRINGS)
    words = ('potential', 'import', file, '--architecture', 'pickled', '--code', python_code.full_label)
    first = ask(*words, '--sha256', hash_of_files(file).upper())
    assert first['made_by']['process'] == 'Inspect<pickled>'
    assert (first['cutoff'], first['elements']) == (4.0, ['Cs', 'I', 'Pb'])
    assert trusted_file().read_text() == f'{hash_of_files(file)}  {file.name}\n'
    again = ask(*words)
    assert again['content_hash'] == first['content_hash']
    assert len(trusted_file().read_text().splitlines()) == 1


def test_a_pickle_that_is_trusted_and_explodes_is_a_sentence_and_not_known(refused, python_code, bomb):
    file, mark = bomb
    words = ('potential', 'import', file, '--architecture', 'pickled', '--code', python_code.full_label, '--trust')
    assert 'pickled cannot open springs.pickle' in refused(*words)
    assert mark.exists()  # in the job
    assert not trusted_file().exists()


def test_a_code_that_is_not_there_is_a_sentence(refused, pickled):
    words = ('potential', 'import', pickled(SPRINGS), '--architecture', 'pickled', '--trust')
    assert 'there is no code `pickled`. Make one: `aiida-perovmlip setup --with pickled`' in refused(*words)
    assert 'there is no code `no@where`.' in refused(*words, '--code', 'no@where')


@pytest.fixture(params=['pickled', 'mace', 'allegro'])
def planted(request, make_bomb, tmp_path):
    """Return a stored potential whose file explodes, as it may come out of an archive of somebody else."""
    from aiida_perovmlip.compute import registry

    (tmp_path / 'potential').mkdir()
    file = tmp_path / 'potential' / registry.load('architectures', request.param).filename
    file.write_bytes(pickle.dumps(make_bomb(tmp_path / 'mark')))
    kind = {'architecture': request.param, 'elements': ['Cs', 'I', 'Pb'], 'cutoff': 5.0}
    return PotentialData(tmp_path / 'potential', **kind).store(), tmp_path / 'mark'


def test_a_bomb_in_the_profile_stays_unexploded(call, planted, tmp_path):
    potential, mark = planted
    call('potential', 'show', potential.pk)
    call('potential', 'show', potential.pk, '--json')
    call('potential', 'lineage', potential.pk)
    call('potential', 'export', potential.pk, '-o', tmp_path / 'out')
    call('report', potential.pk, '-o', tmp_path / 'page.html')
    call('compare', potential.pk)
    assert (tmp_path / 'page.html').stat().st_size > 0
    assert not mark.exists()
    exported = (tmp_path / 'out' / potential.file_names()[0]).read_bytes()
    pickle.loads(exported)
    assert mark.exists()  # so it was a bomb


def test_a_potential_is_shown_with_units(call, tmp_path):
    (tmp_path / 'a').write_text('a')
    facts = {'architecture': 'reference', 'elements': ['Cs'], 'cutoff': 5.25, 'n_parameters': 7, 'dtype': 'float64'}
    node = PotentialData(tmp_path, **facts).store()
    lines = call('potential', 'show', node.pk).output.splitlines()
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown['cutoff'] == '5.25 Å'
    assert shown['level'] == 'not known'
    assert shown['parameters'] == '7 (float64)'
    assert shown['made'] == 'by       nobody: it is a beginning'


def test_the_lineage_is_a_line_for_each_stage(ask, call, copper_potential):
    potential = copper_potential()
    (stage,) = ask('potential', 'lineage', potential.uuid)
    assert (stage['potential'], stage['strategy'], stage['n_frames']) == (potential.pk, 'scratch', 32)
    lines = call('potential', 'lineage', potential.pk).output.splitlines()
    assert lines[2].split()[:4] == ['0', str(potential.pk), 'reference', 'scratch']


def test_a_dataset_is_no_potential(refused, make_dataset):
    dataset = make_dataset(1, seed=71).store()
    told = f'`{dataset.pk}` is a node of the type DatasetData, and no potential.'
    for verb in (['show'], ['lineage'], ['export', '-o', 'nowhere']):
        assert refused('potential', verb[0], dataset.pk, *verb[1:]) == told
