"""What stops a job that diverges while it runs, and what it reads for that."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.datastructures import CalcJobState
from aiida.plugins.factories import BaseFactory
from aiida.schedulers import JobState

from aiida_perovmlip.calculations.monitors import _read, divergence, thinned
from aiida_perovmlip.calculations.progress import describe, read_last_states, seconds_left
from aiida_perovmlip.compute.contract import PROGRESS, RESPONSE
from aiida_perovmlip.compute.divergence import sign_of_divergence


@pytest.fixture
def job(localhost, tmp_path):
    """Return a job with the scheduler, whose working directory is there."""
    node = orm.CalcJobNode(computer=localhost)
    folder = tmp_path / "it's (a) folder"
    folder.mkdir()
    node.set_remote_workdir(str(folder))
    node.set_state(CalcJobState.WITHSCHEDULER)
    return node.store()


@pytest.fixture
def report(job):
    """Return a function that lets the job report losses, as the program of a job does."""

    def append(*losses: Any, first: int = 1) -> None:
        with (Path(job.get_remote_workdir()) / PROGRESS).open('a') as handle:
            for step, loss in enumerate(losses, first):
                handle.write(json.dumps({'what': 'training', 'step': step, 'loss': loss, 'seconds': step}) + '\n')

    return append


@pytest.fixture
def ask(job):
    """Return a function that lets the monitor look at the job."""

    def look(**options: Any) -> str | None:
        with job.computer.get_transport() as transport:
            return divergence(job, transport, **options)

    return look


def test_it_is_found_by_its_entry_point():
    assert BaseFactory('aiida.calculations.monitors', 'perovmlip.divergence') is divergence


def test_it_is_silent_while_there_is_nothing_to_read_and_while_all_is_well(ask, report):
    assert ask() is None
    report(3.0, 2.0, 1.0)
    assert ask() is None


def test_a_loss_that_is_no_number_is_said_with_its_step(ask, report):
    report(1.0, 'nan')
    assert ask() == 'The training diverges: `loss` is nan at step 2. The job was stopped.'


def test_growth_is_seen_over_many_looks_though_each_reads_only_what_is_new(ask, report, job):
    report(*(1.0 / step for step in range(1, 101)))
    assert ask() is None
    end = _read[job.uuid][0]
    assert len(_read[job.uuid][1]) <= 6
    report(0.5, 0.5, first=101)
    assert ask() is None
    assert _read[job.uuid][0] > end
    report(0.5, first=103)
    assert '`loss` was 0.0102 and is 0.5' in ask()


def test_its_patience_is_an_option(ask, report):
    report(1.0, 1.0, 1.0, 3.0, 3.0)
    assert ask() is None
    report(3.0, first=6)
    assert ask(growth=2.0, window=3) is not None


def test_a_line_that_is_being_written_is_read_when_it_is_whole(ask, report, job):
    report(1.0)
    file = Path(job.get_remote_workdir()) / PROGRESS
    line = json.dumps({'step': 2, 'loss': 'nan'}) + '\n'
    with file.open('a') as handle:
        handle.write(line[:10])
    assert ask() is None
    with file.open('a') as handle:
        handle.write(line[10:])
    assert 'nan at step 2' in ask()


def test_a_job_that_has_ended_is_left_alone(ask, report, job):
    report(1.0, 'nan')
    response = Path(job.get_remote_workdir()) / RESPONSE
    response.write_text('{}')
    assert ask() is None
    response.unlink()
    job.set_scheduler_state(JobState.DONE)
    assert ask() is None


def test_what_is_kept_of_a_curve_tells_as_much_as_the_whole():
    rng = random.Random(0)
    for _ in range(300):
        curve, kept, found = [], [], []
        for step in range(1, 40):
            entry = {'step': step, 'loss': 10 ** rng.uniform(-2, 2), 'stage': step // 25}
            if step % 3 == 0:
                entry['validation_forces_rmse'] = 10 ** rng.uniform(-2, 2)
            curve.append(entry)
            kept = thinned([*kept, entry])
            found.append((sign_of_divergence(curve), sign_of_divergence(kept)))
            assert len(kept) <= 13
        assert all(whole == part for whole, part in found)


def test_the_time_that_is_left_follows_from_the_pace_and_not_from_steps_that_were_only_repeated(job, report):
    repeated = [{'step': step, 'of': 100, 'seconds': 0.01} for step in range(1, 51)]
    real = [{'step': 50 + step, 'of': 100, 'seconds': 0.01 + 4 * step} for step in (1, 2, 3)]
    assert seconds_left(repeated) is None
    assert seconds_left([*repeated, *real]) == pytest.approx(4 * 47)
    assert seconds_left([{'step': 1, 'of': 3, 'seconds': 2.0}]) == pytest.approx(4.0)
    state = {'what': 'training', 'loss': 0.1, 'validation_forces_rmse': 0.0456, **real[-1]}
    assert describe(state, real[:-1]) == 'training, 53 of 100, loss 0.1, forces RMSE 45.6 meV/Å, about 3 min left'
    assert describe({'step': 2, 'loss': 'nan'}) == 'at work, 2, loss is nan'
    report(3.0, 2.0)
    assert [state['loss'] for state in read_last_states(job)] == [3.0, 2.0]
