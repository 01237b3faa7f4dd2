"""What is at work, and what is wrong with it, as the database tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from aiida import orm

from aiida_perovmlip.operation.activity import activities, counts, reason_of, recent_failures

GAVE_UP = 'Pausing after failed transport task: upload_calculation failed 5 times consecutively'


def said(node, text, seconds=0.0):
    """Note what a transport has said of a process."""
    when = datetime.now(tz=UTC) - timedelta(seconds=seconds)
    trace = (
        f'Traceback (most recent call last):\n  File "schedulers/transport.py", line 1, in ssh\n    connect()\n{text}\n'
    )
    orm.Log(when, 'aiida.engine', 'ERROR', node.pk, trace).store()


def one(node):
    return next(each for each in activities(reachable=False) if each.pk == node.pk)


@pytest.mark.parametrize(
    ('attributes', 'expected'),
    [
        ({'state': 'uploading'}, 'being submitted'),
        ({'state': 'withscheduler', 'scheduler_state': 'queued'}, 'in the queue'),
        ({'state': 'withscheduler', 'scheduler_state': 'running'}, 'running'),
        ({'state': 'parsing'}, 'coming back'),
    ],
)
def test_a_job_is_where_its_states_say(make_process, computer, attributes, expected):
    found = one(make_process(stage='waiting', **attributes))
    assert (found.state, found.why, found.computer) == (expected, '', computer.label)
    assert not found.needs_a_person


def test_a_job_belongs_to_the_chain_that_nothing_called(make_process):
    top = make_process(orm.WorkChainNode, 'waiting')
    middle = make_process(orm.WorkChainNode, 'waiting', caller=top)
    job = make_process(stage='waiting', caller=middle)
    assert [one(node).chain for node in (top, middle, job)] == [top.pk] * 3
    assert one(top).computer == ''


@pytest.mark.parametrize(
    ('words', 'why', 'first'),
    [
        ('OSError: [Errno 28] No space left on device', 'the disk is full', 'make room'),
        ('OSError: Error while uploading file /tmp/a/sources.zip:', 'the disk is full, or nothing may be', 'make room'),
        ('OSError: Error while uploading file /tmp/a: Connection lost', 'could not be reached', 'verdi computer test'),
        ('asyncssh.misc.ConnectionLost: Connection lost', 'could not be reached', 'verdi computer test'),
        ('ConnectionRefusedError: [Errno 111] Connect call failed', 'could not be reached', 'verdi computer test'),
        ('SchedulerError: sbatch: error: Requested node configuration is not available', 'refuses it', 'ask for less'),
        ('PermissionDenied: Permission denied for user root', 'lets nobody in', 'renew key'),
        ('SchedulerError: Error during submission\nstderr=sbatch: error: QOS limit\n', 'refuses it', 'ask for less'),
        ('ValueError: something else', 'something else', 'play'),
    ],
)
def test_a_job_that_was_given_up_says_why_and_what_to_do(make_process, computer, words, why, first):
    node = make_process(stage='waiting', paused=True, process_status=GAVE_UP)
    said(node, words, seconds=1000.0)
    found = one(node)
    assert (found.state, found.gave_up, found.needs_a_person) == ('paused', True, True)
    assert why in found.why
    assert words.strip().splitlines()[-1] in found.why
    assert first in found.advice
    assert f'`verdi process play {node.pk}`' in found.advice
    assert '{' not in found.advice


def test_a_job_whose_transport_fails_is_tried_again(make_process):
    node = make_process(stage='waiting', state='withscheduler', scheduler_state='running')
    said(node, 'OSError: [Errno 28] No space left on device', seconds=5.0)
    found = one(node)
    assert (found.state, found.needs_a_person) == ('trying again', False)
    assert 'the disk is full' in found.why


def test_words_of_long_ago_are_forgotten(make_process):
    node = make_process(stage='waiting')
    said(node, 'OSError: [Errno 28] No space left on device', seconds=5000.0)
    assert one(node).state == 'running'


def test_what_a_person_has_paused_is_not_called_a_failure(make_process):
    found = one(make_process(stage='waiting', paused=True))
    assert (found.state, found.gave_up, found.why) == ('paused', False, 'somebody paused it')


def test_processes_that_have_ended_are_none(make_process):
    ended = {make_process(stage=state).pk for state in ('finished', 'killed', 'excepted')}
    assert not ended & {each.pk for each in activities(reachable=False)}


def test_jobs_are_counted_by_computer_and_state(make_process, computer):
    make_process(stage='waiting', state='withscheduler', scheduler_state='queued')
    make_process(stage='waiting', state='withscheduler', scheduler_state='queued')
    make_process(stage='waiting', paused=True)
    mine = [each for each in activities(reachable=False) if each.computer == computer.label]
    assert counts(mine)[computer.label] == {'in the queue': 2, 'paused': 1}


def test_failures_are_told_by_kind_the_most_frequent_first(make_process):
    about = {'process_label': 'OftenFails', 'exit_message': 'no good'}
    nodes = [make_process(orm.WorkChainNode, exit_status=410, **about) for _ in range(3)]
    make_process(exit_status=410, caller=nodes[0], **about)  # that of a chain is told by the chain
    found = [each for each in recent_failures() if each.process == 'OftenFails']
    assert [(each.exit_status, each.number, each.last, each.message) for each in found] == [
        (410, 3, nodes[-1].pk, 'no good')
    ]


def test_nothing_said_is_no_reason():
    assert reason_of('') == ('', '')
