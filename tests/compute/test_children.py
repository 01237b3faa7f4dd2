"""No process of a job outlives it."""

from __future__ import annotations

import os
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
from aiida_perovmlip.compute.children import Worker
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.shard import build_shards

pytestmark = pytest.mark.skipif(not Path('/proc').is_dir(), reason='processes are found in /proc, which is of Linux')


def processes_in(folder):
    """Return the ids of all processes that work in a folder."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if (process / 'cwd').readlink() == folder and (process / 'stat').read_text().split()[2] != 'Z':
                found.append(int(process.name))
        except OSError:
            continue
    return found


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_processes_of_a_labelling_end_with_it(tmp_path, make_frames):
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


def test_a_trainer_ends_with_the_job(tmp_path):
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
