"""No process of a job outlives it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_harness import ask, start

from aiida_perovmlip.calculations.sources import job_sources
from aiida_perovmlip.compute import contract, registry
from aiida_perovmlip.compute.children import START, Worker, failure_of, start_child
from aiida_perovmlip.compute.contract import Status
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards

pytestmark = pytest.mark.skipif(not Path('/proc').is_dir(), reason='processes are found in /proc, which is of Linux')


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_processes_of_a_labelling_end_with_it(tmp_path, make_frames, processes_in):
    frames = [replace(frame, group='slow') for frame in make_frames(100, labels=False)]
    write_folder(build_shards(frames), tmp_path / 'frames')
    ask(tmp_path, 'label', {'labeller': 'unruly'}, inputs={'frames': 'frames'}, cores=2)
    sources = job_sources(registry.reference('tasks', 'label'), [registry.reference('labellers', 'unruly')])
    job = start(tmp_path, sources)
    wait_until((tmp_path / contract.PROGRESS).exists)
    assert len(processes_in(tmp_path)) >= 3
    job.send_signal(signal.SIGKILL)
    job.wait()
    wait_until(lambda: not processes_in(tmp_path))


def test_a_trainer_ends_with_the_job(tmp_path, processes_in):
    code = """
import os, sys, time
from pathlib import Path
from aiida_perovmlip.compute.children import start_child

start_child([sys.executable, '-c', 'import time; time.sleep(60)'], Path('.'), open('log', 'w'), dict(os.environ))
Path('started').touch()
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path)
    wait_until((tmp_path / 'started').exists)
    assert len(processes_in(tmp_path)) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not processes_in(tmp_path))


def test_a_program_that_another_one_starts_ends_with_that(tmp_path, processes_in):
    """As the processes of a training on several GPUs, which are children of a program that is killed with the job."""
    (tmp_path / 'sleeper.py').write_text(
        'import sys, time\nfrom pathlib import Path\n'
        "Path('started').write_text(' '.join([__name__, *sys.argv[1:]]))\ntime.sleep(60)\n"
    )
    code = """
import subprocess, sys
subprocess.run([sys.executable, '-m', 'aiida_perovmlip.compute.children', 'sleeper', '--one', 'two'])
"""
    middle = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path)
    wait_until(lambda: (tmp_path / 'started').exists() and (tmp_path / 'started').read_text())
    assert (tmp_path / 'started').read_text() == '__main__ --one two'
    assert len(processes_in(tmp_path)) == 2
    os.kill(middle.pid, signal.SIGKILL)
    middle.wait()
    wait_until(lambda: not processes_in(tmp_path))


@pytest.mark.parametrize(
    ('code', 'log', 'status', 'words'),
    [
        (-9, '', Status.OUT_OF_MEMORY, r'killed by SIGKILL \(signal 9\) after 3 epochs, which is what the system does'),
        (137, '', Status.OUT_OF_MEMORY, 'killed by SIGKILL'),
        (1, 'Signal 9 (SIGKILL) received by PID 7', Status.OUT_OF_MEMORY, 'ran out of memory after 3 epochs; halve it'),
        (1, 'torch.OutOfMemoryError: CUDA', Status.OUT_OF_MEMORY, 'ran out of memory'),
        (1, 'OSError: Cannot allocate memory', Status.OUT_OF_MEMORY, 'ran out of memory'),
        (-11, 'some words', Status.FAILED, 'killed by SIGSEGV after 3 epochs'),
        (-40, '', Status.FAILED, 'killed by signal 40'),
        (-99, '', Status.FAILED, 'killed by signal 99'),
        (2, 'one\n\ntwo\n', Status.FAILED, r'exit status 2 after 3 epochs. The log ends: one \| two'),
    ],
)
def test_each_end_of_a_trainer_has_a_name(code, log, status, words):
    error = failure_of(code, log, 'after 3 epochs', 'halve it', {'curve': []})
    assert error.status is status
    assert re.search(words, error.message)
    assert error.results == {'curve': []}


def test_what_an_earlier_program_wrote_into_the_same_log_is_no_reason_of_a_failure(tmp_path):
    """As where a scheduler puts a job back into its queue: its second run goes on in the same folder."""
    path = tmp_path / 'log'
    for code in ('print("torch.OutOfMemoryError: CUDA out of memory")', 'raise KeyError("number_of_layers")'):
        with path.open('a') as log:
            status = start_child([sys.executable, '-c', code], tmp_path, log, dict(os.environ)).wait()
    text = path.read_text()
    assert 'out of memory' in text
    assert text.count(START) == 2
    error = failure_of(status, text, 'after 3 epochs', 'halve it', {})
    assert error.status is Status.FAILED
    assert "KeyError: 'number_of_layers'" in error.message
    assert 'out of memory' not in error.message
    again = failure_of(1, f'{text}{START}\nCUDA out of memory', 'after 3 epochs', 'halve it', {})
    assert again.status is Status.OUT_OF_MEMORY
    assert 'nothing was printed' in failure_of(1, f'{text}{START}\n', 'after 3 epochs', 'halve it', {}).message


def slow_square(number):
    time.sleep(0.2)
    return number * number


def test_a_worker_answers_what_it_is_given_until_it_is_killed():
    worker = Worker(slow_square)
    try:
        worker.give((3,))
        answers = []
        wait_until(lambda: answers.append(worker.answer()) or answers[-1] is not None)
        assert answers[-1] == 9
        assert worker.item is None
        os.kill(worker.process.pid, signal.SIGTERM)  # that is for the job to decide
        worker.give((4,))
        wait_until(lambda: answers.append(worker.answer()) or answers[-1] == 16)
        os.kill(worker.process.pid, signal.SIGKILL)
        wait_until(lambda: worker.answer() is None and worker.lost)
    finally:
        worker.kill()
    assert not worker.process.is_alive()
