"""Processes as a daemon leaves them in the database, made by hand, and ended when a test is over."""

from __future__ import annotations

from itertools import count

import pytest
from aiida import orm
from aiida.common.links import LinkType
from plumpy.process_states import ProcessState

NUMBERS = count(1)


@pytest.fixture
def computer(tmp_path):
    """Return a computer of its own: this machine, with folders of jobs that no other test has."""
    computer = orm.Computer(
        label=f'operation-{next(NUMBERS)}-{tmp_path.name}'[:200],
        hostname='localhost',
        transport_type='core.local',
        scheduler_type='core.direct',
        workdir=str(tmp_path / 'work'),
    ).store()
    computer.configure(safe_interval=0, use_login_shell=False)
    return computer


@pytest.fixture
def make_process(computer, tmp_path):
    """Return a function that stores a job or a chain in some state; what is still active is killed after the test."""
    made = []

    def make(kind=orm.CalcJobNode, stage='finished', exit_status=0, caller=None, folder=None, **attributes):
        node = kind(computer=computer) if kind is orm.CalcJobNode else kind()
        node.set_process_label(attributes.pop('process_label', 'SomeCalculation'))
        node.label = attributes.pop('label', '')
        node.set_process_state(ProcessState(stage))
        if stage == 'finished':
            node.set_exit_status(exit_status)
        for name, value in attributes.items():
            node.base.attributes.set(name, value)
        if caller is not None:
            kind_of_link = LinkType.CALL_CALC if kind is orm.CalcJobNode else LinkType.CALL_WORK
            node.base.links.add_incoming(caller, kind_of_link, f'job_{next(NUMBERS)}')
        node.store()
        made.append(node)
        if folder is not None:
            path = tmp_path / 'work' / folder
            path.mkdir(parents=True, exist_ok=True)
            (path / 'big').write_bytes(b'x' * 10_000)
            node.set_remote_workdir(str(path))
            remote = orm.RemoteData(remote_path=str(path), computer=computer)
            remote.base.links.add_incoming(node, LinkType.CREATE, 'remote_folder')
            remote.store()
        return node

    yield make
    for node in made:
        if not node.is_terminated:
            node.set_process_state(ProcessState.KILLED)
