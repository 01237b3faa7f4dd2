"""Real jobs of MACE without AiiDA: strategies, heads, states, and what the bare trainer does silently."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.contract import PROGRESS, REQUEST, RESPONSE, Request, Response, Status
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).resolve().parents[2] / 'src'
TINY = {
    'hidden_irreps': '4x0e',
    'max_ell': 1,
    'correlation': 1,
    'readout_irreps': '4x0e',
    'radial_mlp': [8],
    'epochs': 3,
    'batch_size': 2,
}
TUNE = {'epochs': 2, 'batch_size': 2}
HARNESS = """
from pathlib import Path
from aiida_perovmlip.compute import harness
from aiida_perovmlip.compute.architectures.mace import run as mace_run
mace_run.SAVE_EVERY = 0.0
harness.leave(harness.main(Path.cwd()))
"""


@pytest.fixture(scope='module')
def python():
    from aiida_perovmlip.installation import environments

    found = environments.python_of('mace')
    if found is None:
        pytest.skip('no environment of mace; build it: aiida-perovmlip setup --environments-only --with mace')
    return str(found)


@pytest.fixture(scope='module')
def environment():
    return {**os.environ, 'PYTHONPATH': str(SOURCES), 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}


@pytest.fixture(scope='module')
def start(python, environment, make_frames):
    """Return a function that starts a job in a folder, as AiiDA would."""

    def job(
        folder,
        settings=None,
        training=None,
        validation=None,
        replay=None,
        parent=None,
        strategy=None,
        same_level=None,
        **request,
    ):
        frames = {
            'training': training or make_frames(6, seed=10),
            'validation': validation or make_frames(2, seed=11),
            'replay': replay,
        }
        inputs = {name: name for name, given in frames.items() if given}
        for name in inputs:
            write_folder(build_shards(frames[name]), folder / name)
        if parent:
            shutil.copytree(parent, folder / 'parent')
            inputs['parent'] = 'parent'
        said = {**(TUNE if parent else TINY), **(settings or {})}
        said = {name: value for name, value in said.items() if value is not None}
        content = Request(
            task=registry.reference('tasks', 'train'),
            plugins={'architecture': registry.reference('architectures', 'mace')},
            inputs=inputs,
            settings={
                'mace': said,
                'strategy': strategy,
                'has_level_of_parent': same_level,
                'restart': (folder / 'checkpoint').is_dir(),
            },
            seed=3,
            **request,
        )
        (folder / REQUEST).write_text(content.dump())
        log = (folder / 'job.log').open('w')
        return subprocess.Popen([python, '-c', HARNESS], cwd=folder, env=environment, stdout=log, stderr=log)

    return job


@pytest.fixture(scope='module')
def train(start):
    """Return a function that runs a job to its end and returns its response."""

    def job(folder, settings=None, **inputs):
        folder.mkdir(exist_ok=True)
        start(folder, settings, **inputs).wait(timeout=600)
        return Response.load((folder / RESPONSE).read_text())

    return job


@pytest.fixture(scope='module')
def ask(python, environment):
    """Return a function that runs a snippet in the environment and returns what it prints last, as JSON."""

    def snippet(code, *arguments):
        command = [python, '-c', f'import sys, json\nfrom pathlib import Path\n{code}', *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return snippet


@pytest.fixture(scope='module')
def bare(python, environment):
    """Return a function that runs the trainer by itself, with the arguments of an earlier job but for some."""

    def run(job, folder, **changed):
        folder.mkdir()
        for path in job.glob('*.xyz'):
            shutil.copy(path, folder)
        if (job / 'parent.model').is_file():
            shutil.copy(job / 'parent.model', folder)
        words = json.loads((job / 'command.json').read_text())['command'][3:]
        names = [word.removeprefix('--').partition('=')[0] for word in words]
        kept = [word for word, name in zip(words, names, strict=True) if name not in changed]
        command = [python, '-m', 'mace.cli.run_train', *kept, *(f'--{name}={value}' for name, value in changed.items())]
        with (folder / 'bare.log').open('w') as log:
            return subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False).returncode

    return run


@pytest.fixture(scope='module')
def parent(train, tmp_path_factory):
    """Return the folder of a job that trained a small potential."""
    folder = tmp_path_factory.mktemp('parent')
    response = train(folder)
    assert response.status is Status.OK, response.error
    return folder


def of_head(frames, name, shift=0.0):
    return [replace(frame, head=name, energy=frame.energy + shift * len(frame)) for frame in frames]


def curve_of(folder):
    return json.loads((folder / 'curve.json').read_text())


PREDICT = """
from aiida_perovmlip.compute.architectures.mace import Mace
from aiida_perovmlip.compute.frames import Frames
head = sys.argv[3] if len(sys.argv) > 3 else None
found = list(Mace().predict(Path(sys.argv[1]), Frames.open_folder(Path(sys.argv[2])), head=head))
print(json.dumps([[each.energy, *each.forces.ravel().tolist()] for each in found]))
"""


@pytest.fixture(scope='module')
def predict(ask):
    def run(job, frames, *head):
        return np.array(ask(PREDICT, job / 'potential', frames, *head))

    return run


# ---------------------------------------------------------------------- strategies and heads


@pytest.mark.long
def test_frozen_layers_are_those_of_the_parent_and_others_are_not(train, parent, tmp_path):
    response = train(tmp_path, strategy='freeze', parent=parent / 'potential')
    assert response.status is Status.OK, response.error
    effective = response.results['effective']
    assert (effective['strategy'], effective['freeze_layers']) == ('freeze', 'interactions')
    assert effective['changed'] == {
        'embedding': 'none',
        'interactions': 'none',
        'products': 'all',
        'readouts': 'all',
        'others': 'none',
    }


@pytest.mark.long
def test_lora_adds_to_linear_layers_alone(train, parent, tmp_path):
    settings = {'lora_rank': 2, 'lora_alpha': 4.0}
    response = train(tmp_path, settings, strategy='lora', parent=parent / 'potential')
    assert response.status is Status.OK, response.error
    effective = response.results['effective']
    assert {**effective, **settings, 'strategy': 'lora'} == effective
    assert effective['changed']['products'] == 'some'  # its contractions are not linear
    assert response.results['facts']['heads'] == ['Default']


TYPO = """
from aiida_perovmlip.compute.architectures.mace import Mace
from aiida_perovmlip.compute.contract import JobError
from mace.calculators import MACECalculator
path = Path(sys.argv[1])
bare = MACECalculator(str(path / 'mace.model'), device='cpu', default_dtype='float64', head='typo').head
said = []
for head in ('typo', None):
    try:
        Mace().calculator(path, head=head)
    except JobError as error:
        said.append(str(error))
named = Mace().calculator(path, head='Default').head
print(json.dumps([bare, said, named]))
"""


def test_multihead_replays_what_the_parent_says_and_keeps_its_head(train, parent, predict, ask, tmp_path, make_frames):
    new = of_head(make_frames(4, seed=10), 'r2scan', shift=5.0)
    settings = {'replay_labels': 'parent', 'replay_weight': 0.5, 'atomic_energies': 'estimated'}
    inputs = {'training': new, 'validation': new[:2], 'replay': make_frames(4, seed=30, labels=False)}
    response = train(tmp_path, settings, strategy='multihead', parent=parent / 'potential', **inputs)
    assert response.status is Status.OK, response.error
    effective = response.results['effective']
    assert effective['strategy'] == 'multihead'
    assert effective['learning_rate'] == 0.001  # that of a potential that is trained on
    assert (effective['replay_labels'], effective['replay_weight']) == ('parent', 0.5)
    assert effective['heads'] == {
        'Default': {'of': 'parent', 'head': 'Default'},
        'r2scan': {'of': 'training', 'head': 'r2scan'},
    }
    facts = response.results['facts']
    assert facts['heads'] == ['Default', 'r2scan']
    energies = facts['energies_of_atoms']
    assert energies['r2scan']['I'] - energies['Default']['I'] > 1.0
    assert 'determine 1 combinations' in response.results['notes'][0]
    text = (tmp_path / 'training_pt_head.xyz').read_text().splitlines()[1]
    assert 'config_energy_weight=0.5' in text
    written = float(text.partition('REF_energy=')[2].split()[0])
    assert written == pytest.approx(predict(parent, tmp_path / 'replay')[0, 0], abs=1e-8)
    step = curve_of(tmp_path)[-1]
    assert step['validation_loss'] == step['validation_loss__r2scan'] != step['validation_loss__Default']
    of_bare, said, named = ask(TYPO, tmp_path / 'potential')
    assert of_bare == 'r2scan'  # silently the last
    assert ['`typo` is none of them' in said[0], 'none was named' in said[1], named] == [True, True, 'Default']


REDUCE = """
from aiida_perovmlip.compute.architectures.mace import network as mace_network
from aiida_perovmlip.compute.frames import Frames
path, frames = Path(sys.argv[1]), Frames.open_folder(Path(sys.argv[2]))
worst = 0.0
for head in ('pbe', 'with space'):
    one, all_heads = mace_network.open_parent(path, head, 'float64'), mace_network.load(path / 'mace.model')
    both = [list(mace_network.predict(each, frames, 'cpu', head)) for each in (one, all_heads)]
    worst = max(worst, *(abs(a.energy - b.energy) for a, b in zip(*both, strict=True)))
print(json.dumps(worst))
"""


@pytest.mark.long
def test_a_potential_from_scratch_has_a_head_for_each_level(train, predict, ask, tmp_path, make_frames):
    frames = make_frames(4, seed=10)
    both = [*of_head(frames, 'pbe'), *of_head(frames, 'with space', shift=5.0)]
    response = train(tmp_path, {'epochs': 4}, training=both, validation=both)
    assert response.status is Status.OK, response.error
    assert response.results['facts']['heads'] == ['pbe', 'with space']
    curve = curve_of(tmp_path)
    means = [0.5 * (step['validation_loss__pbe'] + step['validation_loss__with space']) for step in curve]
    assert [step['validation_loss'] for step in curve] == pytest.approx(means)
    assert response.results['effective']['best_step'] == 1 + int(np.argmin(means))
    one, other = (predict(tmp_path, tmp_path / 'validation', head) for head in ('pbe', 'with space'))
    assert other[0, 0] - one[0, 0] == pytest.approx(5.0 * 40, rel=0.1)
    assert ask(REDUCE, tmp_path / 'potential', tmp_path / 'validation') < 1e-9  # as a parent, of which one head is kept
    settings = {'epochs': 1, 'parent_head': 'with space'}
    tuned = train(tmp_path / 'tuned', settings, parent=tmp_path / 'potential')
    assert tuned.status is Status.OK, tuned.error
    assert tuned.results['effective']['parent_head'] == 'with space'


@pytest.mark.long
def test_frames_of_another_level_than_the_parent_get_energies_of_atoms_anew(train, parent, tmp_path, make_frames):
    shifted = of_head(make_frames(4, seed=10), 'default', shift=5.0)
    inputs = {'training': shifted, 'validation': shifted[:2], 'parent': parent / 'potential'}
    before = json.loads((parent / RESPONSE).read_text())['results']['facts']['energies_of_atoms']['Default']
    for is_same, way, change in ((False, 'estimated', 5.0), (None, 'parent', 0.0)):
        folder = tmp_path / way
        response = train(folder, {'epochs': 1, 'learning_rate': 1e-6}, same_level=is_same, **inputs)
        assert response.status is Status.OK, response.error
        assert response.results['effective']['atomic_energies'] == way
        after = response.results['facts']['energies_of_atoms']['Default']
        of_atom = {symbol: after[symbol] - before[symbol] for symbol in after}
        mean = (of_atom['Cs'] + of_atom['Pb'] + 3 * of_atom['I']) / 5
        assert mean == pytest.approx(change, abs=0.5)
        said = [note for note in response.results['notes'] if 'another level of theory than the parent' in note]
        assert len(said) == (way == 'estimated')


def test_a_network_that_was_asked_for_is_compared_with_the_parent_before_the_training(train, parent, tmp_path):
    response = train(tmp_path, {'max_ell': 2, 'correlation': 1}, parent=parent / 'potential')
    assert response.status is Status.BAD_INPUT
    assert '`max_ell`: asked 2, the parent has 1' in response.error['message']
    assert '`correlation`' not in response.error['message']
    assert not (tmp_path / 'trainer.log').exists()


@pytest.mark.long
def test_elements_that_the_frames_lack_are_still_what_they_were(train, parent, predict, tmp_path, make_frames):
    """At zero distance from the parent; where elements are dropped, this is reported."""
    lead = [replace(frame, numbers=np.where(frame.numbers == 55, 82, frame.numbers)) for frame in make_frames(4)]
    inputs = {'training': lead, 'validation': lead[:2], 'parent': parent / 'potential'}
    with_caesium = {**inputs, 'validation': make_frames(2, seed=11)}
    kept = train(tmp_path / 'kept', {'epochs': 1, 'learning_rate': 1e-12}, **with_caesium)
    assert kept.status is Status.OK, kept.error
    assert kept.results['facts']['elements'] == ['Cs', 'I', 'Pb']
    before, after = (predict(job, parent / 'validation') for job in (parent, tmp_path / 'kept'))
    assert np.abs(after - before).max() < 1e-7
    dropped = train(tmp_path / 'dropped', {'keep_elements': False}, **inputs)
    assert dropped.status is Status.OK, dropped.error
    assert dropped.results['dropped_elements'] == ['Cs']
    needed = train(tmp_path / 'needed', {'keep_elements': False, 'epochs': 1}, **with_caesium)
    assert needed.status is Status.OK, needed.error
    assert needed.results['facts']['elements'] == ['Cs', 'I', 'Pb']  # it is only dropped where no frame holds it


OTHER_NETWORKS = """
import mace.modules.models as models, torch
from aiida_perovmlip.compute.architectures.mace import network as mace_network
folder = Path(sys.argv[2])
network = mace_network.load(Path(sys.argv[1]) / 'mace.model')
network.__class__ = models.MACE
for name, each in {'plain': network, 'linear': torch.nn.Linear(2, 2), 'state': {'model': 1}}.items():
    (folder / name).mkdir()
    torch.save(each, folder / name / 'mace.model')
print(json.dumps(None))
"""


def test_a_parent_that_cannot_be_trained_on_is_told_by_its_kind(train, parent, ask, tmp_path):
    ask(OTHER_NETWORKS, parent / 'potential', tmp_path)
    for name, words in {
        'plain': 'The parent is a network of the kind `MACE`, but only a `ScaleShiftMACE`',
        'linear': 'of the kind `Linear`, which is no MACE potential',
        'state': 'of the kind `dict`, which is no MACE potential',
    }.items():
        response = train(tmp_path / f'with_{name}', parent=tmp_path / name)
        assert (response.status, words in response.error['message']) == (Status.BAD_INPUT, True), response.error


@pytest.mark.long
def test_a_readout_that_the_parent_does_not_have_is_refused_before_the_training(train, tmp_path):
    single = train(tmp_path / 'single', {'num_interactions': 1, 'epochs': 1, 'readout_irreps': None})
    assert single.status is Status.OK, single.error
    again = train(tmp_path / 'again', {'readout_irreps': '4x0e'}, parent=tmp_path / 'single' / 'potential')
    assert again.status is Status.BAD_INPUT
    assert "`readout_irreps`: asked '4x0e', the parent has None" in again.error['message']


def test_predictions_in_batches_are_those_of_the_calculator(parent, ask):
    code = """
import numpy as np
from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.architectures.mace import Mace
from aiida_perovmlip.compute.frames import Frames
mace, path, frames = Mace(), Path(sys.argv[1]), Frames.open_folder(Path(sys.argv[2]))
many, single = list(mace.predict(path, frames)), list(Architecture.predictor(mace, path)(frames))
worst = max(float(np.abs(getattr(a, n) - getattr(b, n)).max())
            for a, b in zip(many, single, strict=True) for n in ('forces', 'stress'))
worst = max(worst, *(abs(a.energy - b.energy) for a, b in zip(many, single, strict=True)))
shape = [list(each.shape) for each in mace.descriptors(path, frames)]
print(json.dumps([worst, len(many), shape[0]]))
"""
    worst, count, shape = ask(code, parent / 'potential', parent / 'training')
    assert worst < 1e-8
    assert (count, shape) == (6, [40, 8])  # two layers of four


# ---------------------------------------------------------------------- states


def wait_for(folder, lines, process):
    while process.poll() is None:
        path = folder / PROGRESS
        if path.is_file() and len(path.read_text().splitlines()) >= lines and (folder / 'checkpoint').is_dir():
            return
        time.sleep(0.1)
    pytest.fail((folder / 'job.log').read_text())


@pytest.fixture(scope='module')
def killed(start, tmp_path_factory):
    """Return the folder of a job that was killed on its way."""
    folder = tmp_path_factory.mktemp('killed')
    process = start(folder, {'epochs': 400})
    wait_for(folder, 6, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return folder


def go_on(killed, folder):
    shutil.copytree(killed / 'checkpoint', folder / 'checkpoint')
    newest = sorted((folder / 'checkpoint').glob('0*'))[-1]
    return newest, json.loads((newest / 'state.json').read_text().partition('\n')[2])['step']


def test_a_training_that_was_killed_reaches_the_error_of_one_that_was_not(train, killed, tmp_path):
    _, step = go_on(killed, tmp_path)
    assert step >= 4
    epochs = {'epochs': step + 12}
    resumed, whole = train(tmp_path, epochs), train(tmp_path / 'whole', epochs)
    assert (resumed.status, whole.status) == (Status.OK, Status.OK)
    assert resumed.results['resumed_from_step'] == step
    curves = curve_of(tmp_path), curve_of(tmp_path / 'whole')
    assert [entry['step'] for entry in curves[0]] == list(range(1, step + 13))
    assert curves[0][:step] == curves[1][:step]
    for name in ('validation_loss', 'validation_forces_rmse'):
        assert curves[0][-1][name] == pytest.approx(curves[1][-1][name], rel=0.05)
    assert len(list((tmp_path / 'checkpoints').glob('*.pt'))) == 1  # the trainer's folder does not fill the disk


RATES = """
import torch
found = torch.load(sys.argv[1], weights_only=True)['optimizer']['param_groups']
print(json.dumps(sorted({group['lr'] for group in found})))
"""


@pytest.mark.long
def test_stage_two_is_taken_up_with_its_own_learning_rate(start, train, ask, tmp_path):
    """The rate of its schedule lies in the state, and would go before one that is asked for now."""
    settings = {'epochs': 3, 'stage_two_epochs': 25, 'stage_two_learning_rate': 0.002, 'ema_decay': 0.0}
    first = tmp_path / 'first'
    first.mkdir()
    process = start(first, settings)
    wait_for(first, 8, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for rate in (0.002, 0.0005, 20.0):
        folder = tmp_path / str(rate)
        folder.mkdir()
        _, step = go_on(first, folder)
        assert 3 < step < 28
        response = train(folder, settings | {'stage_two_learning_rate': rate})
        assert response.status is Status.OK, response.error
        assert response.results['resumed_from_step'] == step
        effective = response.results['effective']
        assert effective['stage_two_learning_rate'] == rate
        assert effective['epochs_done'] + effective['stage_two_epochs_done'] == len(curve_of(folder)) == 28
        assert (effective['best_step'] <= step) == (rate > 1.0)  # which spoils what was learned: the best is older
        newest = max((folder / 'checkpoints').glob('*_swa.pt'), key=lambda path: int(path.stem.split('-')[-1][:-4]))
        assert ask(RATES, newest) == [rate]


SLEEPER = """
import os, sys, time
from pathlib import Path
import torch
torch.distributed.init_process_group('gloo')
torch.distributed.barrier()
Path(f'ready-{torch.distributed.get_rank()}').write_text(' '.join(sys.argv[1:]))
time.sleep(100)
"""

JOB = """
import os, time
from pathlib import Path
from aiida_perovmlip.compute.architectures.mace import arguments
from aiida_perovmlip.compute.children import start_child
command = [word.replace('mace.cli.run_train', 'sleeper') for word in arguments.command_of({'seed': 3}, gpus=2)]
start_child(command, Path('.'), open('log', 'w'), dict(os.environ))
time.sleep(100)
"""


@pytest.mark.long
def test_the_processes_of_several_gpus_end_with_a_job_that_is_killed(python, environment, tmp_path, processes_in):
    (tmp_path / 'sleeper.py').write_text(SLEEPER)
    job = subprocess.Popen([python, '-c', JOB], cwd=tmp_path, env=environment)
    try:
        end = time.monotonic() + 120
        while len(list(tmp_path.glob('ready-*'))) < 2:
            assert time.monotonic() < end, (tmp_path / 'log').read_text()
            time.sleep(0.2)
        assert (tmp_path / 'ready-1').read_text() == '--seed=3'
        assert len(processes_in(tmp_path)) == 4  # the job, torchrun and two workers
    finally:
        job.kill()
        job.wait()
    end = time.monotonic() + 10
    while processes_in(tmp_path):
        assert time.monotonic() < end, processes_in(tmp_path)
        time.sleep(0.2)


def test_a_state_that_was_cut_off_gives_way_to_the_one_before(train, killed, ask, tmp_path):
    newest, step = go_on(killed, tmp_path)
    path = newest / 'newest.pt'
    path.write_bytes(path.read_bytes()[:1000])
    response = train(tmp_path, {'epochs': step + 1, 'learning_rate': 0.005})  # a repair may have lowered the rate
    assert response.status is Status.OK, response.error
    assert response.results['resumed_from_step'] == step - 1
    assert 'newest.pt is not as it was written' in response.results['notes'][0]
    found = ask(RATES, next((tmp_path / 'checkpoints').glob('*.pt')))
    assert found == [0.005]


@pytest.mark.long
def test_a_run_that_is_taken_up_says_of_the_energies_of_atoms_what_the_first_did(
    start, train, parent, tmp_path, make_frames
):
    """Also where nobody would choose the same any more, as the level of the parent is known by now."""
    shifted = of_head(make_frames(4, seed=10), 'default', shift=5.0)
    inputs = {'training': shifted, 'validation': shifted[:2], 'parent': parent / 'potential'}
    first, second = tmp_path / 'first', tmp_path / 'second'
    first.mkdir()
    process = start(first, {'epochs': 400}, same_level=False, **inputs)
    wait_for(first, 4, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    second.mkdir()
    _, step = go_on(first, second)
    response = train(second, {'epochs': step + 1}, same_level=True, **inputs)
    assert response.status is Status.OK, response.error
    assert response.results['resumed_from_step'] == step
    assert response.results['effective']['atomic_energies'] == 'estimated'
    for words in ('another level of theory than the parent', 'determine 1 combinations'):
        assert [words in note for note in response.results['notes']].count(True) == 1


@pytest.mark.long
def test_a_patience_that_is_shorter_than_before_counts_from_where_a_run_is_taken_up(start, train, tmp_path):
    settings = {'epochs': 400, 'learning_rate': 0.3, 'ema_decay': 0.0}
    first, second = tmp_path / 'first', tmp_path / 'second'
    first.mkdir()
    process = start(first, settings)
    wait_for(first, 16, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    second.mkdir()
    _, step = go_on(first, second)
    response = train(second, {**settings, 'epochs': 400, 'patience': 2})
    assert response.status is Status.OK, response.error
    assert response.results['effective']['patience'] == 2
    assert step <= response.results['effective']['epochs_done'] < 400


def test_another_network_cannot_take_up_a_state(train, killed, tmp_path):
    go_on(killed, tmp_path)
    response = train(tmp_path, {'epochs': 500, 'hidden_irreps': '8x0e'})
    assert response.status is Status.BAD_INPUT
    assert '`hidden_irreps`' in response.error['message']


@pytest.mark.long
def test_a_stage_that_does_not_improve_gives_way_to_the_next(train, tmp_path):
    settings = {'epochs': 40, 'patience': 2, 'learning_rate': 0.3, 'stage_two_epochs': 3, 'ema_decay': 0.0}
    response = train(tmp_path, settings)
    assert response.status is Status.OK, response.error
    curve = curve_of(tmp_path)
    first, second = ([entry for entry in curve if entry['stage'] == stage] for stage in (1, 2))
    assert len(first) < 40
    assert [entry['step'] for entry in curve] == list(range(1, len(curve) + 1))
    losses = [entry['validation_loss'] for entry in first]
    assert losses.index(min(losses)) == len(losses) - 3
    effective = response.results['effective']
    assert effective['best_step'] > len(first)
    assert (effective['epochs'], effective['epochs_done']) == (40, len(first))
    assert response.results['notes'][0].startswith('Stage 1 ended after')
    assert second[0]['validation_loss'] > 5 * losses[-1]  # other weights


# ---------------------------------------------------------------------- traps of the bare trainer


def test_the_bare_trainer_ignores_energies_of_atoms_and_switches_multihead_off(
    train, parent, bare, ask, tmp_path, make_frames
):
    energies = {'Cs': -90.0, 'Pb': -110.0, 'I': -100.0}
    response = train(tmp_path / 'ours', {'atomic_energies': energies}, parent=parent / 'potential')
    assert response.status is Status.OK, response.error
    assert response.results['facts']['energies_of_atoms']['Default'] == pytest.approx(energies)
    shutil.copy(parent / 'potential' / 'mace.model', tmp_path / 'ours' / 'parent.model')
    code = bare(tmp_path / 'ours', tmp_path / 'bare', multiheads_finetuning='True', max_num_epochs='1')
    assert code == 0
    assert '82: -110.0' in (tmp_path / 'bare' / 'bare.log').read_text()  # what it says
    shutil.copy(tmp_path / 'bare' / 'mace.model', tmp_path)
    facts = """
from dataclasses import asdict
from aiida_perovmlip.compute.architectures.mace import Mace
print(json.dumps(asdict(Mace().facts(Path(sys.argv[1])))))
"""
    found = ask(facts, tmp_path)
    assert found['heads'] == ['Default']  # one head
    before = json.loads((parent / RESPONSE).read_text())['results']['facts']['energies_of_atoms']
    assert found['energies_of_atoms'] == before  # of the parent


def test_the_bare_trainer_makes_a_potential_of_nan_and_we_call_that_divergence(parent, bare, train, ask, tmp_path):
    code = bare(parent, tmp_path / 'bare', energy_key='typo', E0s='average', max_num_epochs='1')
    assert code == 0
    shutil.copy(tmp_path / 'bare' / 'mace.model', tmp_path)
    opened = """
from aiida_perovmlip.compute.architectures.mace import Mace
from aiida_perovmlip.compute.contract import JobError
try:
    said = str(Mace().facts(Path(sys.argv[1])))
except JobError as error:
    said = f'{error.status}: {error}'
print(json.dumps(said))
"""
    assert ask(opened, tmp_path).startswith('diverged')
    response = train(tmp_path / 'ours', {'learning_rate': 1e200, 'clip_grad': 0.0})
    assert response.status is Status.DIVERGED
    assert 'is not a finite number' in response.error['message']


@pytest.mark.long
def test_the_bare_trainer_has_no_patience(bare, train, tmp_path):
    settings = {'epochs': 12, 'patience': 2, 'learning_rate': 0.3}
    response = train(tmp_path / 'ours', settings)
    assert response.status is Status.OK, response.error
    done = response.results['n_steps']
    assert done < 12
    assert bare(tmp_path / 'ours', tmp_path / 'bare', patience='2', max_num_epochs='12') == 0
    log = (tmp_path / 'bare' / 'bare.log').read_text()
    assert 'Stopping optimization after 2 epochs without improvement' in log
    assert 'Epoch 11' in log  # it goes on all the same


def test_the_loss_looks_at_weights_of_labels_but_not_at_those_of_frames(parent, ask, tmp_path):
    code = """
import mace, torch
from mace import data
from mace.data import KeySpecification
from mace.modules import UniversalLoss
from mace.tools import torch_geometric
from ase.io import read
torch.set_default_dtype(torch.float64)
keys = KeySpecification({'energy': 'REF_energy', 'stress': 'REF_stress'}, {'forces': 'REF_forces'})
network = torch.load(sys.argv[1], weights_only=False)
found = []
for info in ({}, {'config_weight': 0.0}, {f'config_{n}_weight': 0.0 for n in ('energy', 'forces', 'stress')}):
    atoms = read(sys.argv[2], index=0)
    atoms.info.update(info)
    table = mace.tools.AtomicNumberTable([int(z) for z in network.atomic_numbers])
    configuration = data.config_from_atoms(atoms, key_specification=keys)
    graph = data.AtomicData.from_config(configuration, z_table=table, cutoff=5.0)
    batch = torch_geometric.Batch.from_data_list([graph])
    output = network(batch.to_dict(), compute_stress=True)
    found.append(float(UniversalLoss(1.0, 10.0, 10.0)(pred=output, ref=batch)))
print(json.dumps(found))
"""
    plain, of_frame, of_labels = ask(code, parent / 'potential' / 'mace.model', parent / 'training_Default.xyz')
    assert of_frame == plain > 0.0
    assert of_labels == 0.0
