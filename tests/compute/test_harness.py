"""The program of a job, run here in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from aiida_perovmlip.calculations.sources import SOURCES, job_sources, pack
from aiida_perovmlip.compute import contract, harness, registry
from aiida_perovmlip.compute.contract import Request, Response, Status, name_non_finite
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards


def ask(folder, task, plugins, **fields):
    roles = {role: registry.reference(f'{role}s', name) for role, name in plugins.items()}
    request = Request(registry.reference('tasks', task), roles, **fields)
    (folder / contract.REQUEST).write_text(request.dump())


def answer(folder):
    return Response.load((folder / contract.RESPONSE).read_text())


def run(folder, *arguments, **fields):
    ask(folder, *arguments, **fields)
    code = harness.main(folder)
    response = answer(folder)
    assert (code == 0) == (response.status is Status.OK)
    return response


@pytest.fixture
def training(tmp_path, make_frames):
    write_folder(build_shards(make_frames(6)), tmp_path / 'training')
    write_folder(build_shards(make_frames(2, seed=1)), tmp_path / 'validation')
    return tmp_path


INPUTS = {'training': 'training', 'validation': 'validation'}


def test_a_training_answers_with_facts_versions_and_seconds(training):
    response = run(training, 'train', {'architecture': 'reference'}, inputs=INPUTS)
    assert response.status is Status.OK
    assert response.results['facts']['elements'] == ['Cs', 'I', 'Pb']
    assert response.results['effective']['cutoff'] == 5.0
    assert response.versions['numpy'] == np.__version__
    assert response.seconds['total'] >= response.seconds['task'] > 0
    assert response.seconds['cpu'] > 0
    assert response.peak_memory_mb > 1


@pytest.mark.parametrize(
    ('way', 'status', 'words'),
    [
        ('diverge', Status.DIVERGED, 'loss of the last step is not a finite number'),
        ('memory', Status.OUT_OF_MEMORY, 'out of memory'),
        ('raise', Status.FAILED, 'ZeroDivisionError: a fault of the program'),
        ('import', Status.MISSING_PACKAGE, 'package_that_does_not_exist'),
        ('converge', Status.NOT_CONVERGED, 'did not converge'),
        ('ignore', Status.SETTINGS_IGNORED, '`steps`: asked 3, done 4'),
        ('nothing', Status.FAILED, 'left no potential'),
        ('forgets', Status.BAD_INPUT, 'holds I, Pb, but the potential knows only Cs'),
    ],
)
def test_every_failure_has_its_status_and_its_sentence(training, way, status, words):
    response = run(training, 'train', {'architecture': 'unruly'}, inputs=INPUTS, settings={'unruly': {'way': way}})
    assert response.status is status
    assert words in response.error['message']


def test_a_fault_of_the_program_comes_with_its_traceback(training):
    response = run(training, 'train', {'architecture': 'unruly'}, inputs=INPUTS, settings={'unruly': {'way': 'raise'}})
    assert 'external_unruly.py' in response.error['traceback']


def test_settings_are_checked_again_inside_the_job(training):
    response = run(
        training, 'train', {'architecture': 'reference'}, inputs=INPUTS, settings={'reference': {'cutoff': -1}}
    )
    assert response.status is Status.BAD_INPUT
    assert 'at least 1.0 Å' in response.error['message']


def test_a_parent_of_another_shape_is_refused_before_anything_is_trained(training):
    assert run(training, 'train', {'architecture': 'reference'}, inputs=INPUTS).status is Status.OK
    (training / 'potential').rename(training / 'parent')
    (training / contract.PROGRESS).unlink()
    inputs = {**INPUTS, 'parent': 'parent'}
    settings = {'reference': {'basis_size': 9}}
    response = run(training, 'train', {'architecture': 'reference'}, inputs=inputs, settings=settings)
    assert response.status is Status.BAD_INPUT
    assert '`basis_size`: asked 9, the parent has 8' in response.error['message']
    assert not (training / contract.PROGRESS).exists()


def test_a_request_of_another_contract_is_refused(tmp_path):
    ask(tmp_path, 'selftest', {})
    content = json.loads((tmp_path / contract.REQUEST).read_text())
    (tmp_path / contract.REQUEST).write_text(json.dumps({**content, 'contract': 99}))
    assert harness.main(tmp_path) == 1
    assert answer(tmp_path).status is Status.BAD_INPUT


def test_an_old_response_never_passes_for_ours(tmp_path):
    Response(Status.OK).write(tmp_path)
    assert harness.main(tmp_path) == 1  # there is no request
    assert answer(tmp_path).status is Status.FAILED


def test_the_wall_time_stops_a_task_before_the_scheduler_does(training):
    settings = {'unruly': {'way': 'slow', 'steps': 1000}}
    response = run(training, 'train', {'architecture': 'unruly'}, inputs=INPUTS, settings=settings, walltime=1.0)
    assert response.status is Status.OUT_OF_WALLTIME
    assert response.results['last']['step'] < 20


def start(folder, sources, **options):
    pack(sources, folder / SOURCES)
    return subprocess.Popen(
        [sys.executable, '-m', 'aiida_perovmlip.compute.harness'],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(folder / SOURCES)},
        **options,
    )


def test_a_thread_that_a_library_left_does_not_keep_the_job(tmp_path):
    code = """
import sys, threading, time
from aiida_perovmlip.compute.harness import leave

threading.Thread(target=time.sleep, args=(600,)).start()
print('said')
leave(3)
"""
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, timeout=30, check=False, text=True)
    assert process.returncode == 3
    assert process.stdout == 'said\n'


@pytest.mark.parametrize('wrong', [{'error': 'text'}, {'error': {'message': 1}}, {'results': []}, {'seconds': None}])
def test_a_response_of_other_types_is_refused(wrong):
    with pytest.raises(ValueError, match='of the response'):
        Response.load(json.dumps({'status': 'ok', **wrong}))


def test_a_signal_ends_a_task_in_an_orderly_way(training):
    plugins = {'architecture': 'unruly'}
    ask(training, 'train', plugins, inputs=INPUTS, settings={'unruly': {'way': 'slow', 'steps': 1000}})
    task, plugin = registry.reference('tasks', 'train'), registry.reference('architectures', 'unruly')
    process = start(training, job_sources(task, [plugin]))
    while not (training / contract.PROGRESS).exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 1
    assert answer(training).status is Status.OUT_OF_WALLTIME


def test_what_json_cannot_hold_goes_by_name():
    given = {'a': float('nan'), 'b': [float('inf'), -np.inf], 'c': np.float64('nan'), 'd': np.arange(2)}
    assert name_non_finite(given) == {'a': 'nan', 'b': ['inf', '-inf'], 'c': 'nan', 'd': [0, 1]}


def test_the_sources_of_a_job_are_complete_and_no_more():
    sources = job_sources(registry.reference('tasks', 'label'), [registry.reference('labellers', 'emt')])
    assert 'external_emt.py' in sources
    assert 'aiida_perovmlip/compute/tasks/label.py' in sources
    assert sources['aiida_perovmlip/__init__.py'] is None
    assert not any('mace' in path or 'train' in path or 'data/' in path for path in sources)


def test_the_sources_of_a_job_import_without_aiida(tmp_path):
    for name in registry.names('architectures'):
        sources = job_sources(registry.reference('tasks', 'train'), [registry.reference('architectures', name)])
        process = start(tmp_path, sources)
        assert process.wait(timeout=60) == 1  # no request: but everything was imported
        module = registry.reference('architectures', name).partition(':')[0]
        code = f'import sys, {module}; assert not any(m.split(".")[0] in ("aiida", "torch") for m in sys.modules)'
        environment = {**os.environ, 'PYTHONPATH': str(tmp_path / SOURCES)}
        subprocess.run([sys.executable, '-c', code], check=True, cwd=tmp_path, env=environment)
