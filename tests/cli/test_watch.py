"""Looking at jobs and chains while they work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from aiida import orm
from aiida.common.datastructures import CalcJobState
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from aiida.schedulers import JobState
from click.testing import CliRunner
from plumpy.process_states import ProcessState

from aiida_perovmlip.cli import main
from aiida_perovmlip.compute.contract import PROGRESS
from aiida_perovmlip.watching import _interval, look
from aiida_perovmlip.workflows.train import TrainWorkChain


def ask(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ['watch', *map(str, arguments)])


@pytest.fixture
def chain(python_code, make_dataset):
    """Return a function that makes the builder of a short chain."""

    def make(**settings: Any) -> Any:
        return TrainWorkChain.get_builder_from_protocol(
            'unruly', python_code, make_dataset(4).store(), settings=settings, monitor=False
        )

    return make


@pytest.fixture
def job(localhost, tmp_path):
    """Return a function that makes the node of a job in a state."""

    def make(state: CalcJobState | None, process_state: ProcessState = ProcessState.WAITING, **about: Any) -> Any:
        node = orm.CalcJobNode(computer=localhost)
        node.set_process_label('Train<mace>')
        node.set_process_state(process_state)
        node.set_remote_workdir(str(tmp_path))
        if state is not None:
            node.set_state(state)
        if 'scheduler' in about:
            node.set_scheduler_state(about['scheduler'])
        return node.store()

    return make


def test_a_process_that_has_ended_is_said_at_once_and_decides_the_exit_code(chain):
    _, good = run_get_node(chain(steps=1))
    _, bad = run_get_node(chain(way='raise', steps=1))
    answer = ask(good.pk)
    assert answer.exit_code == 0
    assert answer.output.strip() == f'TrainWorkChain (PK {good.pk}) ended with exit code 0: all went well.'
    answer = ask(bad.uuid)
    assert answer.exit_code == 1
    assert 'ended with exit code 402' in answer.output
    assert 'a fault of the program' in answer.output
    last = json.loads(ask(bad.pk, '--json').output)
    assert (last['state'], last['exit_status'], last['pk']) == ('finished', 402, bad.pk)


def watch_from_elsewhere(profile: str, pk: int, *options: str, **how: Any) -> subprocess.Popen[bytes]:
    """Start the real command in a process of its own, as on a user's second terminal."""
    program = 'from aiida_perovmlip.cli import main; main()'
    command = [sys.executable, '-c', program, '-p', profile, 'watch', str(pk), '--every', '0.3', *options]
    return subprocess.Popen(command, **how)


def test_the_leg_below_a_chain_is_followed_to_its_end_on_a_terminal_and_by_a_program(chain, aiida_profile):
    builder, reader, terminal = chain(steps=8, pause=1.0), *os.openpty()
    last = orm.QueryBuilder().append(orm.Node, project='id').order_by({orm.Node: {'id': 'desc'}}).first(flat=True)
    watchers: list[subprocess.Popen[bytes]] = []

    def watch() -> None:
        mine = {'id': {'>': last}, 'attributes.process_label': 'TrainWorkChain'}
        pk = None
        while pk is None:
            time.sleep(0.2)
            pk = orm.QueryBuilder().append(orm.WorkChainNode, filters=mine, project='id').first(flat=True)
        watchers.append(watch_from_elsewhere(aiida_profile.name, pk, '--json', stdout=subprocess.PIPE))
        watchers.append(watch_from_elsewhere(aiida_profile.name, pk, stdout=terminal))

    starter = threading.Thread(target=watch, daemon=True)
    starter.start()
    _, node = run_get_node(builder)
    starter.join(timeout=30)
    output = watchers[0].communicate(timeout=60)[0]
    assert [each.wait(60) for each in watchers] == [0, 0]
    looks = [json.loads(line) for line in output.splitlines()]
    assert looks[-1]['state'] == 'finished'
    leg = next(child for child in node.called if isinstance(child, orm.CalcJobNode))
    seen = [job for each in looks for job in each['jobs'] if job['progress']]
    assert {(job['pk'], job['where'], job['process']) for job in seen} == {(leg.pk, 'leg_01', 'Train<unruly>')}
    steps = [job['progress']['step'] for job in seen]
    assert steps == sorted(steps)
    assert len(set(steps)) > 2
    assert all(0 <= job['seconds_left'] < 12 for job in seen if job['seconds_left'] is not None)
    shown = os.read(reader, 1 << 16).decode()
    assert re.search(r'\x1b\[1F\x1b\[Jleg_01: Train<unruly> \(PK \d+\): training, \d of 8, loss', shown), shown
    assert shown.rstrip().endswith('ended with exit code 0: all went well.')


def test_a_running_job_tells_step_errors_and_time_left(job, tmp_path):
    node = job(CalcJobState.WITHSCHEDULER, scheduler=JobState.RUNNING)
    assert 'it runs, and has reported nothing yet' in ask(node.pk, '--once').output
    states = [
        {'what': 'training', 'step': step, 'of': 100, 'loss': 0.5, 'validation_forces_rmse': 0.05, 'seconds': 2 * step}
        for step in (1, 2)
    ]
    (tmp_path / PROGRESS).write_text('\n'.join(map(json.dumps, states)) + '\n')
    answer = ask(node.pk, '--once')
    assert answer.exit_code == 3
    told = 'training, 2 of 100, loss 0.5, forces RMSE 50 meV/Å, about 3 min left'
    assert answer.output.strip() == f'Train<mace> (PK {node.pk}): {told}'


@pytest.mark.parametrize(
    ('state', 'about', 'words'),
    [
        (None, {'process_state': ProcessState.CREATED}, 'not started yet, and no daemon runs that could'),
        (CalcJobState.UPLOADING, {}, 'it is submitted'),
        (CalcJobState.WITHSCHEDULER, {'scheduler': JobState.QUEUED}, 'it waits in the queue'),
        (CalcJobState.RETRIEVING, {}, 'its files are brought back'),
    ],
)
def test_what_does_not_work_yet_or_any_more_is_said_so(job, state, about, words):
    node = job(state, **about)
    answer = ask(node.pk, '--once')
    assert answer.exit_code == 3
    assert words in answer.output


def test_a_paused_process_comes_with_what_to_do(job):
    node = job(CalcJobState.UPLOADING)
    node.pause()
    assert f'let it go on: `verdi process play {node.pk}`' in ask(node.pk, '--once').output


def test_the_jobs_of_a_chain_of_chains_are_found_with_the_way_to_them(job):
    top, middle = (orm.WorkChainNode() for _ in range(2))
    for node in (top, middle):
        node.set_process_label('Chain')
        node.set_process_state(ProcessState.WAITING)
    top.store()
    middle.base.links.add_incoming(top, LinkType.CALL_WORK, 'stage_02')
    middle.store()
    assert ask(top.pk, '--once').output.strip() == f'Chain (PK {top.pk}): no job of it runs just now'
    leg = orm.CalcJobNode(computer=orm.load_computer('localhost'))
    leg.base.links.add_incoming(middle, LinkType.CALL_CALC, 'leg_03')
    leg.set_process_label('Train<nep>')
    leg.set_process_state(ProcessState.WAITING)
    leg.set_state(CalcJobState.SUBMITTING)
    leg.store()
    assert ask(top.pk, '--once').output.startswith(f'stage_02/leg_03: Train<nep> (PK {leg.pk}): ')


@pytest.fixture
def chain_of(localhost, tmp_path):
    """Return a function that makes a chain with a running job on each of some computers."""

    def make(*computers: Any) -> Any:
        top = orm.WorkChainNode()
        top.set_process_label('Chain')
        top.set_process_state(ProcessState.WAITING)
        top.store()
        for number, computer in enumerate(computers, 1):
            leg = orm.CalcJobNode(computer=computer)
            leg.base.links.add_incoming(top, LinkType.CALL_CALC, f'member_{number:02d}')
            leg.set_process_label('Train<nep>')
            leg.set_process_state(ProcessState.WAITING)
            leg.set_state(CalcJobState.WITHSCHEDULER)
            leg.set_scheduler_state(JobState.RUNNING)
            leg.set_remote_workdir(str(tmp_path))
            leg.store()
        (tmp_path / PROGRESS).write_text(json.dumps({'what': 'training', 'step': 2, 'of': 4, 'seconds': 1.0}) + '\n')
        return top

    return make


def make_computer(label: str, transport: str) -> Any:
    about = {'hostname': 'no-such-host.invalid', 'scheduler_type': 'core.direct', 'workdir': '/tmp'}
    return orm.Computer(label=label, transport_type=transport, **about).store()


@pytest.fixture
def far_away():
    """Return a computer whose host nobody knows, and one that nobody has configured."""
    ssh = make_computer('far-away', 'core.ssh')
    ssh.configure(
        username='nobody', port=22, look_for_keys=False, timeout=2, safe_interval=0.0, key_policy='AutoAddPolicy'
    )
    return ssh, make_computer('not-configured', 'core.ssh')


def test_a_computer_that_cannot_be_asked_is_said_and_the_others_are_shown(chain_of, localhost, far_away):
    top = chain_of(far_away[0], localhost, far_away[1])
    answer = ask(top.pk, '--once')
    assert answer.exit_code == 3, answer.output
    first, second, third = answer.output.splitlines()
    assert 'it runs on `far-away`, which cannot be asked just now: ' in first
    assert first.endswith('look what is wrong: `verdi computer test far-away`')
    assert 'training, 2 of 4' in second
    assert 'it runs on `not-configured`, which cannot be asked just now: ' in third
    looks = json.loads(ask(top.pk, '--once', '--json').output)
    assert [each['state'] for each in looks['jobs']] == ['unreachable', 'running', 'unreachable']
    assert _interval(look(top.pk)) == 2.0


def test_a_look_opens_one_connection_to_a_computer_however_many_jobs_run_there(chain_of, localhost, monkeypatch):
    from aiida.transports.plugins.local import LocalTransport

    opened: list[Any] = []
    enter = LocalTransport.open
    monkeypatch.setattr(LocalTransport, 'open', lambda self: opened.append(self) or enter(self))
    seen = look(chain_of(localhost, localhost, localhost).pk)
    assert [each.progress['step'] for each in seen.jobs] == [2, 2, 2]
    assert len(opened) == 1


def test_what_is_no_process_is_refused_in_a_sentence(make_dataset):
    answer = ask(10**9)
    assert answer.exit_code == 2
    assert 'there is no one node' in answer.output
    answer = ask(make_dataset(1).store().pk)
    assert answer.exit_code == 2
    assert 'only jobs and chains can be watched' in answer.output
