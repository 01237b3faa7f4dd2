"""The verbs `export` and `import`."""

from __future__ import annotations

import json
import os
import site
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from aiida.storage.sqlite_zip.backend import SqliteZipBackend

from aiida_perovmlip.archiving.contents import class_of, plan
from aiida_perovmlip.archiving.manifest import files_of, hash_of_node
from aiida_perovmlip.archiving.reading import differs_here, verify
from aiida_perovmlip.archiving.writing import leave_out
from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.functions.dataset import split_dataset
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.query.compare import evaluations_records

KEPT: dict[str, tuple[str, str, str]] = {}
WRITTEN: dict[str, Any] = {}
"""The nodes and the archive that all tests share; both are made once."""


@pytest.fixture
def history(python_code, make_dataset):
    """Return a potential, the one it was trained from, and a test set on which both were evaluated."""
    if not KEPT:
        parts = split_dataset(
            make_dataset(12, seed=81).store(), orm.Dict({'training': 9, 'test': 3}), orm.Str('random'), orm.Int(0)
        )
        first = train(python_code, parts['training'])
        second = train(python_code, parts['training'], parent=first, strategy='naive')
        for potential in (first, second):
            builder = EvaluateCalculation.get_builder()
            builder.code, builder.potential, builder.dataset = python_code, potential, parts['test']
            assert run_get_node(builder)[1].is_finished_ok
        KEPT['history'] = first.uuid, second.uuid, parts['test'].uuid
    return [orm.load_node(uuid) for uuid in KEPT['history']]


def train(code, dataset, **inputs):
    builder = TrainCalculation.get_builder()
    builder.code, builder.training, builder.architecture = code, dataset, 'reference'
    for name, value in inputs.items():
        setattr(builder, name, value)
    return run_get_node(builder)[0]['potential']


@pytest.fixture
def archive(ask, history, tmp_path):
    """Return an archive of the second potential, and what `export` said of it."""
    path = tmp_path / 'x.aiida'
    if not WRITTEN:
        WRITTEN['told'] = ask('export', '--potential', history[1].pk, '-o', path)
        WRITTEN['content'] = path.read_bytes()
    path.write_bytes(WRITTEN['content'])
    return path, WRITTEN['told']


def uuids_in(path: Path) -> set[str]:
    storage = SqliteZipBackend(SqliteZipBackend.create_profile(path))
    try:
        return set(orm.QueryBuilder(backend=storage).append(orm.Node, project='uuid').all(flat=True))
    finally:
        storage.close()


def test_an_archive_holds_lineage_and_metrics_and_leaves_scratch_at_home(history, archive):
    path, told = archive
    first, second, test = history
    inside = uuids_in(path)
    assert {first.uuid, second.uuid, test.uuid} <= inside
    evaluations = [link.node for each in (first, second) for link in each.base.links.get_outgoing(
        link_label_filter='potential').all()]  # fmt: skip
    assert {node.outputs.metrics.uuid for node in evaluations} <= inside
    assert second.creator.outputs.remote_folder.uuid not in inside
    parts = {part['name']: part for part in told['parts']}
    assert parts['scratch']['goes_in'] is False
    assert parts['scratch']['n_nodes'] == 4
    assert parts['potentials'] == {
        'name': 'potentials', 'n_nodes': 2, 'n_bytes': parts['potentials']['n_bytes'], 'goes_in': True
    }  # fmt: skip
    assert parts['potentials']['n_bytes'] > 100
    assert told['n_nodes'] == len(inside)


def test_what_is_asked_for_goes_in(ask, history, tmp_path):
    told = ask('export', '--potential', history[1].pk, '-o', tmp_path / 'x.aiida', '--with', 'scratch')
    assert all(part['goes_in'] for part in told['parts'])
    assert history[1].creator.outputs.remote_folder.uuid in uuids_in(tmp_path / 'x.aiida')
    assert verify(tmp_path / 'x.aiida').is_good


def test_sizes_come_first_and_a_dry_run_stores_nothing(call, history, tmp_path):
    before = orm.QueryBuilder().append(orm.Node).count()
    lines = call('export', '--potential', history[0].pk, '-o', tmp_path / 'x.aiida', '--dry-run').stdout.splitlines()
    assert lines[0].split() == ['what', 'nodes', 'files']
    assert lines[-1].endswith('stays at home; --with scratch takes it along')
    assert orm.QueryBuilder().append(orm.Node).count() == before
    assert not (tmp_path / 'x.aiida').exists()


def test_a_page_of_each_potential_goes_along(archive, history):
    path, told = archive
    storage = SqliteZipBackend(SqliteZipBackend.create_profile(path))
    query = orm.QueryBuilder(backend=storage).append(orm.Group, filters={'label': told['group']}, tag='group')
    query.append(orm.FolderData, with_group='group', filters={'label': 'figures'})
    (figures,) = query.all(flat=True)
    (name,) = figures.base.repository.list_object_names()
    page = figures.base.repository.get_object_content(name)
    storage.close()
    assert name == f'potential-{history[1].uuid}.html'
    assert '<svg' in page


def test_the_second_export_is_the_first(ask, archive, history):
    path, told = archive
    before = orm.QueryBuilder().append(orm.Node).count()
    again = ask('export', '--potential', history[1].uuid, '-o', path, '--overwrite')
    assert again['manifest'] == told['manifest']
    assert orm.QueryBuilder().append(orm.Node).count() == before


def test_the_archive_is_a_profile_with_the_same_tables(archive, history, in_archive):
    names = [node.uuid for node in history[:2]]
    code = f'from aiida_perovmlip.query.compare import evaluations_records\nanswer = evaluations_records({names})'
    here, there = json.loads(json.dumps(evaluations_records(names))), in_archive(archive[0], code)
    for row in (*here, *there):
        for own in ('potential', 'dataset', 'evaluation'):
            del row[own]  # the number of a node, which is another one there
    assert len(here) == 2
    assert there == here


def test_an_archive_is_verified_by_each_byte(call, ask, archive, history):
    path, told = archive
    findings = verify(path)
    assert findings.sentences() == []
    assert findings.manifest == told['manifest']
    assert findings.n_nodes == told['n_nodes']
    checked = ask('import', path, '--check', '--manifest', told['manifest'])
    assert checked == {'archive': str(path), 'manifest': told['manifest'], 'n_nodes': told['n_nodes']}
    shown = call('import', path).output
    assert '0 of them are new in this profile.' in shown
    assert 'differs' not in shown


def rewrite(path: Path, change=lambda name, content: content, sql: str = '') -> Path:
    """Write an archive once more with something changed in it."""
    target = path.with_name('changed.aiida')
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, 'w') as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == 'db.sqlite3' and sql:
                copy = path.with_name('copy.sqlite3')
                copy.write_bytes(content)
                with closing(sqlite3.connect(copy)) as connection:
                    connection.executescript(sql)
                    connection.commit()
                content = copy.read_bytes()
            content = change(entry.filename, content)
            if content is not None:
                new.writestr(entry.filename, content)
    return target


def test_a_byte_of_a_potential_that_was_changed_is_found(refused, archive, history):
    path, _ = archive
    ((_, key),) = files_of(history[1].base.repository.metadata)
    changed = rewrite(path, lambda name, content: content[:-2] + b'9}' if name == f'repo/{key}' else content)
    told = refused('import', changed, exit_code=4)
    assert f'{history[1].uuid} (PotentialData) holds something else' in told
    assert told.startswith(f'{changed} is not imported: ')


def test_a_file_that_is_missing_is_found(refused, archive, history):
    ((_, key),) = files_of(history[0].base.repository.metadata)
    changed = rewrite(archive[0], lambda name, content: None if name == f'repo/{key}' else content)
    assert f'{history[0].uuid} (PotentialData) holds something else' in refused('import', changed, exit_code=4)


@pytest.mark.parametrize(
    ('sql', 'told'),
    [
        ("UPDATE db_dbnode SET attributes = json_set(attributes, '$.cutoff', 9.0) WHERE uuid = '{potential}'",
         '{potential} (PotentialData) holds something else'),
        ("DELETE FROM db_dblink WHERE label = 'parent'", 'nodes are linked in another way'),
        ("DELETE FROM db_dblink WHERE output_id IN (SELECT id FROM db_dbnode WHERE uuid = '{metrics}');"
         "DELETE FROM db_dbnode WHERE uuid = '{metrics}'", '{metrics} is missing'),
        ("INSERT INTO db_dbnode SELECT 99999, '11111111-2222-3333-4444-555555555555', node_type, process_type, label,"
         'description, ctime, mtime, attributes, extras, repository_metadata, dbcomputer_id, user_id FROM db_dbnode '
         "WHERE uuid = '{potential}'", '11111111-2222-3333-4444-555555555555 (PotentialData) is not listed'),
    ],
)  # fmt: skip
def test_what_was_changed_in_the_database_is_found(refused, archive, history, sql, told):
    link = history[1].base.links.get_outgoing(link_label_filter='potential').all()[0]
    names = {'potential': history[1].uuid, 'metrics': link.node.outputs.metrics.uuid}
    changed = rewrite(archive[0], sql=sql.format(**names))
    assert told.format(**names) in refused('import', changed, exit_code=4)


def test_another_manifest_than_the_published_one_is_refused(refused, archive):
    assert f'and not {"a" * 64}' in refused('import', archive[0], '--manifest', 'a' * 64, exit_code=4)


def test_an_archive_without_a_manifest_is_imported_where_that_is_asked_for(call, refused, tmp_path):
    from aiida.tools.archive import create_archive

    create_archive([orm.Int(5).store()], filename=tmp_path / 'plain.aiida')
    assert 'there is no manifest in it' in refused('import', tmp_path / 'plain.aiida', exit_code=4)
    assert 'differs: there is no manifest' in call('import', tmp_path / 'plain.aiida', '--unverified').output


def test_what_is_no_archive_is_a_sentence(refused, archive, tmp_path):
    (tmp_path / 'rubbish.aiida').write_bytes(b'PK\3\4' + bytes(1000))
    half = tmp_path / 'half.aiida'
    half.write_bytes(archive[0].read_bytes()[:-5000])
    assert 'cannot be opened as an archive' in refused('import', tmp_path / 'rubbish.aiida', exit_code=4)
    assert 'cannot be opened as an archive' in refused('import', half, exit_code=4)
    assert 'there is no archive' in refused('import', tmp_path / 'nowhere.aiida')


def test_a_node_that_the_profile_has_otherwise_is_told(call, archive, history):
    node = history[0]
    attributes = dict(node.base.attributes.all)
    node.backend_entity.set_attribute('cutoff', 7.75)  # only a damaged database holds it
    node.backend_entity.store() if not node.is_stored else None
    try:
        told = differs_here(archive[0])
        shown = call('import', archive[0], exit_code=4).output
    finally:
        node.backend_entity.set_attribute('cutoff', attributes['cutoff'])
    assert told == [f'{node.uuid} (PotentialData)']
    assert f'this profile has {node.uuid} (PotentialData) with another content, and keeps its own' in shown


def test_a_running_process_and_a_name_that_is_taken_are_sentences(refused, history, make_dataset, tmp_path):
    (tmp_path / 'x.aiida').write_text('mine')
    words = ('export', '--potential', history[1].pk, '-o')
    assert 'take another name, or pass --overwrite' in refused(*words, tmp_path / 'x.aiida')
    assert (tmp_path / 'x.aiida').read_text() == 'mine'
    assert 'the folder around it is missing' in refused(*words, tmp_path / 'no' / 'x.aiida')
    dataset = make_dataset(1, seed=82)
    running = orm.CalcJobNode(process_type='aiida.calculations:perovmlip.label').store()
    dataset.base.links.add_incoming(running, LinkType.CREATE, 'dataset')
    dataset.store()
    assert 'sealed' in refused('export', '--dataset', dataset.pk, '-o', tmp_path / 'y.aiida')
    assert not (tmp_path / 'y.aiida').exists()


def test_no_potcar_leaves_by_whatever_name_of_a_folder(archive, tmp_path):
    from aiida.tools.archive import create_archive

    folder = orm.FolderData()
    folder.base.repository.put_object_from_bytes(b'PAW_PBE I', 'run/POTCAR.gz')
    folder.base.repository.put_object_from_bytes(b'INCAR', 'run/INCAR')
    create_archive([folder.store()], filename=tmp_path / 'whole.aiida')
    slim = leave_out(tmp_path / 'whole.aiida', tmp_path / 'slim.aiida', [], with_potcars=False)
    with zipfile.ZipFile(slim) as content:
        texts = [content.read(name) for name in content.namelist() if name.startswith('repo/')]
    assert texts == [b'INCAR']
    whole = leave_out(tmp_path / 'whole.aiida', tmp_path / 'again.aiida', [], with_potcars=True)
    assert whole == tmp_path / 'whole.aiida'


def test_classes_of_nodes_are_told_by_their_types():
    assert class_of('data.vasp.potcar_file.PotcarFileData.') == 'potcars'
    assert class_of('data.core.array.trajectory.TrajectoryData.') == 'trajectories'
    assert class_of('data.core.array.ArrayData.') == 'predictions and curves'
    assert class_of('data.strange.thing.') == 'other data'


def test_trajectories_stay_at_home(ask, tmp_path):
    import numpy as np

    job = orm.CalcJobNode(process_type='aiida.calculations:perovmlip.md')
    trajectory = orm.TrajectoryData()
    trajectory.set_trajectory(symbols=['H'], positions=np.zeros((2, 1, 3)))
    job.set_process_state('finished')
    job.store()
    trajectory.base.links.add_incoming(job, LinkType.CREATE, 'trajectory')
    trajectory.store()
    job.seal()
    wanted = plan([job.pk])
    assert wanted.left_out == {trajectory.pk}
    assert plan([job.pk], ['trajectories']).left_out == frozenset()


def test_a_hash_is_that_of_the_content_whoever_writes_it():
    one = hash_of_node('data.x.', {'a': 1.0, 'b': [0.1, -0.0, True], 'sealed': True}, [('f', 'k')])
    other = hash_of_node('data.x.', {'b': [0.1, 0, True], 'a': 1, 'checkpoints': '…'}, [('f', 'k')])
    assert one == other
    assert hash_of_node('data.x.', {'a': '1', 'b': [0.1, 0, True]}, [('f', 'k')]) != one


STRANGER = """
import json, sys
from aiida import load_profile, orm
from aiida.manage.configuration import create_profile, get_config
from aiida.tools.archive import import_archive

try:
    import aiida_perovmlip
except ImportError:
    pass
else:
    raise SystemExit('the package is there')
config = get_config(create=True)
create_profile(config, name='stranger', email='a@b', storage_backend='core.sqlite_dos', storage_config={})
load_profile('stranger')
import_archive(sys.argv[1])
potential = orm.load_node(sys.argv[2])
group = orm.QueryBuilder().append(orm.Group, filters={'label': {'like': 'perovmlip archive %'}}).first(flat=True)
manifest = next(node for node in group.nodes if node.label == 'manifest')
listed = json.loads(manifest.base.repository.get_object_content('manifest.json'))['nodes']
print('ANSWER', json.dumps([type(potential).__name__, potential.base.attributes.get('cutoff'), len(listed)]))
"""


def test_without_this_package_an_archive_imports_and_keeps_its_manifest(archive, history, tmp_path):
    path, told = archive
    packages = tmp_path / 'packages'
    packages.mkdir()
    for folder in map(Path, site.getsitepackages()):
        for entry in folder.iterdir():
            if 'perovmlip' not in entry.name and not entry.name.endswith('.pth'):
                (packages / entry.name).symlink_to(entry)
    environment = {**os.environ, 'AIIDA_PATH': str(tmp_path), 'PYTHONPATH': str(packages)}
    command = [sys.executable, '-S', '-W', 'ignore', '-c', STRANGER, str(path), history[1].uuid]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    line = next(line for line in answer.stdout.splitlines() if line.startswith('ANSWER'))
    assert json.loads(line.removeprefix('ANSWER ')) == ['Data', 5.0, told['n_nodes'] - 1]
