"""Clusters from one file: what is wrong in it is named, what is right becomes a computer with codes."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from aiida import orm
from aiida.engine import run_get_node
from click.testing import CliRunner
from services import Slurm

from aiida_perovmlip.calculations.resources import OF_CODE, OF_NODE
from aiida_perovmlip.calculations.selftest import SelftestCalculation
from aiida_perovmlip.cli import main
from aiida_perovmlip.installation import cluster
from aiida_perovmlip.installation.outcome import SetupFailure


@pytest.fixture
def content(tmp_path):
    """Return what a file of a small cluster holds, with a label that no other test has; hide its codes after it."""
    label = f'cluster-{tmp_path.name}'
    yield {
        'computer': {
            'label': label,
            'hostname': 'localhost',
            'transport': 'core.local',
            'scheduler': 'core.direct',
            'work_directory': str(tmp_path / 'work'),
            'poll_interval': 0,
            'modules': ['base'],
            'environment': {'SCRATCH': '/a b'},
            'node': {'cores': 4, 'memory': '8 GB'},
        },
        'defaults': {'queue': 'main', 'cores': 1, 'walltime': '10 min'},
        'codes': {
            'reference': {'executable': sys.executable},
            'quick': {
                'plugin': 'reference',
                'executable': sys.executable,
                'cores': 2,
                'prepend': 'ulimit -s unlimited',
            },
        },
    }
    query = orm.QueryBuilder().append(orm.Computer, filters={'label': label}, tag='computer')
    for code in query.append((orm.InstalledCode, orm.ContainerizedCode), with_computer='computer').all(flat=True):
        code.is_hidden = True  # other tests name the only code of a plug-in


@pytest.fixture
def write(tmp_path):
    def save(content):
        path = tmp_path / 'cluster.yaml'
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding='utf-8')
        return path

    return save


def call(*arguments):
    return CliRunner().invoke(main, ['setup', *map(str, arguments)])


@pytest.mark.parametrize('name', cluster.TEMPLATES)
def test_every_template_can_be_read_as_it_is(name, tmp_path):
    shown = call('--template', name)
    assert shown.exit_code == 0
    (tmp_path / 'cluster.yaml').write_text(shown.output, encoding='utf-8')
    read = cluster.read(tmp_path / 'cluster.yaml')
    assert read.label == 'cluster'
    assert len(read.codes) >= 2
    assert all(code.options['account'] == 'p1234' for code in read.codes)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda c: c.pop('codes'), '`codes` has to be a list of names with values'),
        (lambda c: c.update(codes={}), '`codes` is empty'),
        (lambda c: c.update(machine={}), 'the file has no entry `machine`; there are computer, defaults, codes'),
        (lambda c: c['computer'].pop('hostname'), '`computer` needs a `hostname`'),
        (lambda c: c['computer'].update(cores=4), '`computer` has no entry `cores`'),
        (lambda c: c['computer'].update(node={'cores': '4'}), "`cores` is '4', but has to be a whole number"),
        (lambda c: c['computer'].update(modules='base'), '`modules` has to be a list'),
        (lambda c: c['defaults'].update(executable='x'), '`defaults` has no entry `executable`'),
        (lambda c: c['codes'].update(mase={'executable': 'x'}), '`mase` is no plug-in; say which one it is for'),
        (lambda c: c['codes'].update(mace={}), '`mace` needs an `executable`'),
        (lambda c: c['codes']['quick'].update(cores=8), '`quick`: the job asks for 8 of `cores`, but a node has 4'),
        (lambda c: c['codes']['quick'].update(walltime='soon'), "`walltime` is 'soon'"),
        (lambda c: c['codes']['quick'].update(gpus=1), 'cannot be translated for the scheduler core.direct'),
    ],
)
def test_what_is_wrong_in_a_file_is_named_and_nothing_is_made(content, write, change, said):
    change(content)
    path = write(content)
    with pytest.raises(SetupFailure) as caught:
        cluster.read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_yaml_is_a_sentence(tmp_path):
    (tmp_path / 'x').write_text('a: [', encoding='utf-8')
    with pytest.raises(SetupFailure, match='setup --template gpu'):
        cluster.read(tmp_path / 'x')
    (tmp_path / 'x').write_text('text', encoding='utf-8')
    with pytest.raises(SetupFailure, match='it has to have the parts'):
        cluster.read(tmp_path / 'x')


def test_a_cluster_is_registered_once_and_its_codes_are_replaced_and_never_changed(content, write):
    label = content['computer']['label']
    planned = call('--computer', write(content), '--dry-run')
    assert 'would be created' in planned.output
    assert not orm.QueryBuilder().append(orm.Computer, filters={'label': label}).count()
    made = call('--computer', write(content))
    assert made.exit_code == 0, made.output
    computer = orm.load_computer(label)
    assert computer.get_property(OF_NODE) == {'cores': 4, 'memory': 8000}
    assert computer.get_prepend_text() == "module load base\nexport SCRATCH='/a b'"
    assert computer.is_configured
    quick = orm.load_code(f'quick@{label}')
    assert quick.base.extras.get(OF_CODE) == {'queue_name': 'main', 'cores': 2, 'walltime': '10 min'}
    assert quick.prepend_text == 'ulimit -s unlimited'
    again = call('--computer', write(content))
    assert [line.split()[2] for line in again.output.splitlines()] == ['found'] * 3
    content['codes']['quick']['executable'] = '/usr/bin/python3'
    content['codes']['reference']['cores'] = 3
    changed = call('--computer', write(content))
    assert [line.split()[2] for line in changed.output.splitlines()] == ['found', 'found', 'replaced']
    assert orm.load_code(f'quick@{label}').uuid != quick.uuid
    assert orm.load_node(quick.pk).is_hidden
    assert orm.load_code(f'reference@{label}').base.extras.get(OF_CODE)['cores'] == 3


def test_a_computer_that_is_another_already_is_refused(content, write):
    assert call('--computer', write(content)).exit_code == 0
    content['computer']['scheduler'] = 'core.slurm'
    answer = call('--computer', write(content))
    assert answer.exit_code == 1
    assert 'is there already, with the scheduler core.direct and not core.slurm' in answer.output
    content['computer'] |= {'scheduler': 'core.direct', 'connect': {'host': 'x'}}
    answer = call('--computer', write(content))
    assert '`connect` has no entry `host` for the transport core.local' in answer.output


def test_a_check_runs_each_code_as_a_job_and_says_which_is_broken(content, write):
    content['computer']['modules'] = []
    content['codes']['quick']['executable'] = '/nowhere/python'
    answer = call('--computer', write(content), '--check')
    assert answer.exit_code == 1
    lines = {line.split()[0]: line for line in answer.output.splitlines() if '@' in line.split()[0]}
    label = content['computer']['label']
    assert ' ok ' in lines[f'reference@{label}']
    assert 'exit code 310' in lines[f'quick@{label}']
    assert '/nowhere/python: No such file or directory' in answer.output
    told = json.loads(call('--computer', write(content), '--check', '--json').stdout)
    assert [step['outcome'] for step in told['steps']] == ['found'] * 3
    assert [code['status'] for code in told['codes']] == ['ok', 'exit code 310']


def test_a_code_in_a_container_is_run_by_its_engine(content, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a dry run of AiiDA writes where it is called
    content['codes'] = {
        'reference': {'executable': 'python3', 'image': '/images/numpy.sif'},
        'emt': {'executable': 'python3', 'image': 'docker://ase', 'engine': 'singularity exec --nv {image_name}'},
    }
    path = write(content)
    assert call('--computer', path).exit_code == 0
    code = orm.load_code(f'reference@{content["computer"]["label"]}')
    assert isinstance(code, orm.ContainerizedCode)
    builder = SelftestCalculation.get_builder()
    builder.code, builder.plugin, builder.role = code, 'reference', 'architecture'
    builder.metadata.dry_run, builder.metadata.store_provenance = True, False
    script = Path(run_get_node(builder)[1].dry_run_info['folder'], '_aiidasubmit.sh').read_text()
    assert "'apptainer' 'exec' '--nv' '/images/numpy.sif' 'python3' '-m' 'aiida_perovmlip.compute.harness'" in script
    again = call('--computer', path)
    assert 'created' not in again.output
    assert 'replaced' not in again.output
    content['codes']['reference']['image'] = '/images/newer.sif'
    assert 'replaced' in call('--computer', write(content)).output
    del content['codes']['reference']['image']
    assert 'replaced' in call('--computer', write(content)).output
    assert type(orm.load_code(code.full_label.replace(f'-{code.pk}', ''))) is orm.InstalledCode


@pytest.mark.parametrize(
    ('entry', 'words'),
    [
        ({'engine': 'apptainer exec {image_name}'}, 'no `image` that it would run'),
        ({'image': 'x.sif', 'engine': 'apptainer exec'}, 'has to say where the image goes'),
    ],
)
def test_half_a_container_is_refused(content, write, entry, words):
    content['codes'] = {'reference': {'executable': 'python3', **entry}}
    answer = call('--computer', write(content))
    assert answer.exit_code == 1
    assert words in answer.output


def test_a_check_needs_a_file():
    answer = call('--check')
    assert answer.exit_code == 2
    assert '--check needs the file of a cluster' in answer.output


@pytest.fixture(scope='module')
def slurm():
    """Start Slurm with two GPUs that are none on this machine, and stop it in the end."""
    if lack := Slurm.lack():
        pytest.skip(lack)
    folder = Path(tempfile.mkdtemp(prefix='perovmlip-slurm-'))
    service = Slurm(folder)
    service.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in service.environment.items():
            patch.setenv(name, value)
        yield folder
    service.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_slurm_gives_a_job_what_it_asks_for(slurm, content, write):
    content['computer'] |= {'scheduler': 'core.slurm', 'modules': [], 'node': {'gpus': 2, 'cores': 4}}
    del content['defaults']['queue']
    content['codes'] = {
        'reference': {'executable': sys.executable},
        'quick': {'plugin': 'reference', 'executable': sys.executable, 'gpus': 1, 'memory': '500 MB'},
    }
    answer = call('--computer', write(content), '--check')
    assert answer.exit_code == 0, answer.output
    label = content['computer']['label']
    asked = {}
    for name in content['codes']:
        query = orm.QueryBuilder().append(orm.Code, filters={'id': orm.load_code(f'{name}@{label}').pk}, tag='code')
        (node,) = query.append(orm.CalcJobNode, with_incoming='code').all(flat=True)
        script = Path(node.get_remote_workdir(), '_aiidasubmit.sh').read_text(encoding='utf-8')
        asked[name] = [line for line in script.splitlines() if 'gres' in line or 'mem=' in line or '--time' in line]
        assert node.is_finished_ok
    assert asked['reference'] == ['#SBATCH --time=00:05:00']
    assert sorted(asked['quick']) == ['#SBATCH --gres=gpu:1', '#SBATCH --mem=488', '#SBATCH --time=00:05:00']
