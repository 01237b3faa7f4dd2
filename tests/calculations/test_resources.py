"""What jobs ask of a computer, in words that do not depend on its scheduler."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.common.exceptions import InputValidationError

from aiida_perovmlip.calculations.embed import EmbedCalculation
from aiida_perovmlip.calculations.resources import OF_CODE, OF_NODE, Resources, translated
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData


@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        ({'memory': '32 GB'}, Resources(memory=32_000)),
        ({'memory': 500}, Resources(memory=500)),
        ({'memory': '1.5TB'}, Resources(memory=1_500_000)),
        ({'walltime': '12 h'}, Resources(walltime=43_200)),
        ({'walltime': '2 d', 'gpus': 0}, Resources(walltime=172_800, gpus=0)),
        ({'walltime': 90.4, 'tasks': None}, Resources(walltime=90)),
        ({'tasks': 4, 'cores': 2, 'gpus': 1}, Resources(gpus=1, tasks=4, cores=2)),
    ],
)
def test_words_are_read_with_their_units(words, expected):
    assert Resources.read(words) == expected


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ({'memory': '32 gigs'}, "`memory` is '32 gigs', but has to be such as `32 GB`; units are MB, GB, TB."),
        ({'memory': '1.2.3 GB'}, '`memory`'),
        ({'walltime': '0 h'}, '`walltime`'),
        ({'walltime': '1:00:00'}, 'units are s, min, h, d'),
        ({'gpus': -1}, '`gpus` is -1, but has to be a whole number, at least 0.'),
        ({'gpus': True}, '`gpus` is True'),
        ({'tasks': 0}, 'at least 1'),
        ({'cores': 1.5}, '`cores`'),
        ({'gpu': 1}, '`gpu` is no resource; there are gpus, tasks, cores, memory, walltime.'),
    ],
)
def test_what_is_no_resource_is_refused_by_its_name(words, said):
    with pytest.raises(ValueError, match='`') as caught:
        Resources.read(words)
    assert said in str(caught.value)


def test_each_scheduler_gets_its_own_line_for_gpus():
    wanted = Resources(gpus=2)
    assert wanted.options('core.slurm') == {'custom_scheduler_commands': '#SBATCH --gres=gpu:2'}
    assert wanted.options('core.torque') == {'custom_scheduler_commands': '#PBS -l gpus=2'}
    assert wanted.options('core.sge') == {'custom_scheduler_commands': '#$ -l gpu=2'}
    with pytest.raises(ValueError, match=r'cannot be translated for the scheduler core\.pbspro: AiiDA writes'):
        wanted.options('core.pbspro')
    with pytest.raises(ValueError, match=r'`tasks` and `cores` cannot be translated for the scheduler core\.sge'):
        Resources(tasks=2).options('core.sge')


def test_threads_are_as_many_as_cores_and_do_not_spin():
    found = Resources(tasks=2, cores=8, memory=1000, walltime=60, gpus=0).options('core.slurm')
    assert found == {
        'resources': {'num_machines': 1, 'num_mpiprocs_per_machine': 2, 'num_cores_per_mpiproc': 8},
        'withmpi': True,
        'max_memory_kb': 1_000_000,
        'max_wallclock_seconds': 60,
        'environment_variables': {
            'OMP_NUM_THREADS': '8', 'OMP_WAIT_POLICY': 'PASSIVE', 'CUDA_VISIBLE_DEVICES': '',
        },
    }  # fmt: skip
    assert Resources().options('core.slurm') == {}


def test_what_no_node_can_start_is_told():
    node = {'gpus': 4, 'cores': 64, 'memory': 240_000, 'walltime': 3600}
    assert Resources(gpus=4, tasks=8, cores=8).lack(node) is None
    assert Resources(gpus=5).lack(node) == 'the job asks for 5 of `gpus`, but a node has 4: ask for less.'
    assert '128 of `cores`' in Resources(tasks=16, cores=8).lack(node)
    assert '300000 MB of `memory`' in Resources(memory=300_000).lack(node)
    assert '7200 s of `walltime`' in Resources(walltime=7200).lack(node)
    assert Resources(gpus=5, memory=10**9).lack({}) is None


@pytest.fixture
def cluster(tmp_path):
    """Return a computer with Slurm, of which a node is known, and a code on it."""
    try:
        computer = orm.load_computer('made-up-cluster')
    except Exception:
        computer = orm.Computer(
            'made-up-cluster', 'cluster.example.org', transport_type='core.local', scheduler_type='core.slurm',
            workdir=str(tmp_path),
        )  # fmt: skip
        computer.set_property(OF_NODE, {'gpus': 2, 'cores': 16})
        computer.store()
    code = orm.InstalledCode(label='mace', computer=computer, filepath_executable='/usr/bin/python3').store()
    code.base.extras.set(OF_CODE, {'gpus': 1, 'cores': 4, 'memory': '8 GB', 'queue_name': 'gpu', 'account': 'p1'})
    yield code
    code.label, code.is_hidden = f'mace-{code.pk}', True  # other tests name the only code of a plug-in


def options_of(code, **options):
    return translated({'code': code, 'metadata': {'options': options}})['metadata']['options']


def test_a_job_asks_for_what_its_code_needs_where_it_says_nothing(cluster):
    found = options_of(cluster)
    assert found['custom_scheduler_commands'] == '#SBATCH --gres=gpu:1'
    assert (found['queue_name'], found['account'], found['max_memory_kb']) == ('gpu', 'p1', 8_000_000)
    assert found['resources']['num_cores_per_mpiproc'] == 4
    assert (found['gpus'], found['cores'], found['memory']) == (1, 4, '8 GB')


def test_what_a_job_says_goes_before_what_its_code_says(cluster):
    found = options_of(cluster, gpus=2, queue_name='fast', custom_scheduler_commands='#SBATCH --exclusive')
    assert found['custom_scheduler_commands'] == '#SBATCH --gres=gpu:2\n#SBATCH --exclusive'
    assert (found['queue_name'], found['account']) == ('fast', 'p1')
    plain = {'num_machines': 2, 'num_mpiprocs_per_machine': 8}
    assert options_of(cluster, resources=plain)['resources'] == plain
    assert options_of(cluster, resources=plain, cores=2)['resources']['num_cores_per_mpiproc'] == 2
    variables = options_of(cluster, environment_variables={'OMP_NUM_THREADS': '1'})['environment_variables']
    assert variables == {'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}


def test_a_request_that_no_node_can_meet_never_reaches_the_queue(cluster):
    with pytest.raises(InputValidationError, match='made-up-cluster: the job asks for 3 of `gpus`, but a node has 2'):
        options_of(cluster, gpus=3)
    with pytest.raises(InputValidationError, match='`walltime` is'):
        options_of(cluster, walltime='soon')


def test_a_job_on_this_machine_is_as_it_was(python_code):
    inputs = {'code': python_code, 'metadata': {'options': {'queue_name': 'x'}}}
    assert translated(inputs) == inputs


def test_the_script_of_a_job_has_the_lines_of_its_scheduler(cluster, copper_potential, copper, tmp_path, monkeypatch):
    """AiiDA writes the script of a dry run; nothing is submitted."""
    from pathlib import Path

    from aiida.engine import run_get_node

    monkeypatch.chdir(tmp_path)  # where AiiDA leaves what it would have submitted
    builder = EmbedCalculation.get_builder()
    builder.code, builder.potential = cluster, copper_potential()
    builder.dataset = DatasetData.from_frames([Frame.from_atoms(copper)])
    builder.metadata.options.walltime = '30 min'
    builder.metadata.dry_run = True
    _, node = run_get_node(builder)
    script = Path(node.dry_run_info['folder'], node.dry_run_info['script_filename']).read_text()
    for line in (
        '#SBATCH --gres=gpu:1',
        '#SBATCH --partition=gpu',
        '#SBATCH --account=p1',
        '#SBATCH --time=00:30:00',
        '#SBATCH --mem=7812',
        '#SBATCH --cpus-per-task=4',
    ):
        assert line in script, script
    assert "export OMP_NUM_THREADS='4'" in script or 'export OMP_NUM_THREADS=4' in script
    assert node.get_option('gpus') == 1
