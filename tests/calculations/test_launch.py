"""What a script sees of a job while it runs."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiida import orm
from aiida.engine import WorkChain
from aiida.manage import get_manager

from aiida_perovmlip import launch
from aiida_perovmlip.calculations.progress import read_progress
from aiida_perovmlip.calculations.running import run_here
from aiida_perovmlip.compute.contract import PROGRESS

STATE = {'what': 'labelling', 'step': 1, 'of': 2, 'seconds': 1.0}


@pytest.fixture
def job(localhost: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that makes a job whose working directory holds a state of progress."""

    def make(process_type: str = 'aiida.calculations:perovmlip.label', **state: Any) -> Any:
        folder = tmp_path / f"it's (a) {process_type.rpartition('.')[2]} $HOME"
        folder.mkdir()
        (folder / PROGRESS).write_text(json.dumps({**STATE, **state}) + '\n')
        node = orm.CalcJobNode(computer=localhost, process_type=process_type)
        node.set_remote_workdir(str(folder))
        return node.store()

    return make


def test_progress_is_read_from_folders_of_any_name(job):
    assert read_progress(job()) == STATE


def test_only_jobs_of_ours_are_followed(job):
    before = launch._newest_pk()
    ours = job()
    job('aiida.calculations:core.arithmetic.add')
    storage = launch._open_storage()
    assert launch._newest_job(before, storage).pk == ours.pk
    storage.close()


def test_a_job_that_comes_before_the_thread_is_followed(job, monkeypatch):
    monkeypatch.setattr(launch, 'EVERY', 0.05)
    follow, made = launch._follow_newest, threading.Event()

    def late(*arguments):
        made.wait(10)
        follow(*arguments)

    monkeypatch.setattr(launch, '_follow_newest', late)
    stream = io.StringIO()
    with launch._showing_progress('Label', stream):
        job()
        made.set()
        end = time.monotonic() + 10
        while not stream.getvalue() and time.monotonic() < end:
            time.sleep(0.05)
    assert stream.getvalue().startswith('Label: labelling, 1 of 2')


def test_a_job_and_the_look_at_its_progress_share_no_storage(job, monkeypatch):
    used, read = [], launch._newest_job
    monkeypatch.setattr(launch, 'EVERY', 0.05)

    def spy(before, storage):
        node = read(before, storage)
        if node is not None:
            used.append((node.backend, node.computer.backend, node.user.backend))
        return node

    monkeypatch.setattr(launch, '_newest_job', spy)
    with launch._showing_progress('Label', io.StringIO()):
        mine = job()
        end = time.monotonic() + 10
        while not used and time.monotonic() < end:
            time.sleep(0.05)
    assert used
    assert all(each is not mine.backend for each in used[0])


class Asks(WorkChain):
    """Notes whether the manager knows the runner that it is run by."""

    known: ClassVar[list[bool]] = []

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.outline(cls.ask)

    def ask(self):
        self.known.append(get_manager().get_runner() is self.runner)


def test_the_manager_knows_the_runner_of_a_job_while_it_runs_and_no_longer():
    """Else `core.ssh_async` waits in a loop that nobody runs."""
    Asks.known.clear()
    of_submissions = get_manager().get_runner()
    node = run_here(Asks.get_builder())
    assert node.is_finished_ok
    assert Asks.known == [True]
    assert get_manager().get_runner() is of_submissions
    assert not of_submissions.is_closed()
    assert of_submissions.controller is not None
