"""The verb `status`: nothing to do, something to do, and the command that does it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from aiida import orm
from click.testing import CliRunner
from plumpy.process_states import ProcessState

from aiida_perovmlip.cli import main
from aiida_perovmlip.watching import ACTIVE


def status(*words):
    return CliRunner().invoke(main, ['status', *words])


@pytest.fixture
def stuck(localhost):
    """Return a job that AiiDA has paused."""
    node = orm.CalcJobNode(computer=localhost)
    node.set_process_label('LabelCalculation')
    node.set_process_state(ProcessState.WAITING)
    node.base.attributes.set('paused', True)
    node.base.attributes.set('process_status', 'Pausing after failed transport task: upload_calculation failed')
    node.store()
    trace = 'Traceback (most recent call last):\nOSError: [Errno 28] No space left on device'
    orm.Log(datetime.now(tz=UTC), 'aiida.engine', 'ERROR', node.pk, trace).store()
    yield node
    node.set_process_state(ProcessState.KILLED)


@pytest.fixture
def at_rest():
    """End the processes that other tests have stored and never run."""
    query = orm.QueryBuilder().append(orm.ProcessNode, filters={'attributes.process_state': {'in': list(ACTIVE)}})
    for node in query.all(flat=True):
        node.set_process_state(ProcessState.KILLED)


def test_where_nothing_is_at_work_nobody_has_to_act(at_rest):
    answer = status()
    assert answer.exit_code == 0, answer.output
    assert 'Nothing is at work.' in answer.output
    assert 'storage' in answer.output


def test_a_stuck_job_is_named_with_its_reason_and_the_command(stuck):
    answer = status()
    assert answer.exit_code == 1
    assert f'LabelCalculation (PK {stuck.pk}) on localhost is paused: the disk is full' in answer.output
    assert f'→ make room there, then `verdi process play {stuck.pk}`' in answer.output
    assert 'wait for it' in answer.output  # no daemon runs here
    assert '`aiida-perovmlip status --mend`' in answer.output


def test_programs_get_all_of_it_as_json(stuck):
    answer = status('--json')
    assert answer.exit_code == 1
    told = json.loads(answer.stdout)
    assert told['needs_a_person']
    assert {'storage', 'disk', 'daemon', 'localhost'} <= {each['subject'] for each in told['services']}
    mine = next(each for each in told['processes'] if each['pk'] == stuck.pk)
    assert (mine['state'], mine['gave_up']) == ('paused', True)
    assert told['jobs']['localhost']['paused'] >= 1


@pytest.mark.parametrize(('bounds', 'state'), [((1e9, 0.0), 'note'), ((1e9, 1e9), 'broken')])
def test_a_scarce_and_a_full_disk_of_a_computer_are_told(stuck, monkeypatch, bounds, state):
    for name, bound in zip(('SCARCE_GB', 'FULL_GB'), bounds, strict=True):
        monkeypatch.setattr(f'aiida_perovmlip.operation.services.{name}', bound)
    answer = status()
    assert f'localhost      {state}' in answer.output
    assert '`aiida-perovmlip clean --computer localhost`' in answer.output


def test_a_computer_that_cannot_be_reached_is_told(stuck, monkeypatch):
    def refuse(*_):
        raise ConnectionError('no route')

    monkeypatch.setattr(orm.Computer, 'get_transport', refuse)
    assert 'cannot be reached: no route' in status().output
