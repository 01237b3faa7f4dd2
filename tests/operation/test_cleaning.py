"""Folders of jobs go when nothing needs them, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiida import orm
from aiida.common.links import LinkType
from click.testing import CliRunner
from plumpy.process_states import ProcessState

from aiida_perovmlip.cli import main
from aiida_perovmlip.compute.chunk_writer import FOLDER, MANIFEST
from aiida_perovmlip.data.trajectory import TrajectoryData
from aiida_perovmlip.operation.cleaning import measured, remove, scratch


def kept(computer, **how):
    """Return why each folder of a computer stays, by its name."""
    return {Path(each.path).name: each.kept for each in scratch(computer.label, **how)}


def clean(computer, *words):
    answer = CliRunner().invoke(main, ['clean', '--computer', computer.label, '--older-than', '0', *words])
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_job_that_went_well_leaves_nothing_behind(make_process, computer, tmp_path):
    make_process(folder='done')
    assert kept(computer) == {'done': ''}
    assert '1 folders' in clean(computer, '--dry-run')
    assert (tmp_path / 'work' / 'done').exists()
    assert '1 removed' in clean(computer, '--yes')
    assert not (tmp_path / 'work' / 'done').exists()
    assert kept(computer) == {}
    assert 'nothing to clean' in clean(computer, '--yes')


def test_nothing_goes_without_a_yes(make_process, computer, tmp_path):
    make_process(folder='done')
    answer = CliRunner().invoke(main, ['clean', '--computer', computer.label, '--older-than', '0'], input='n\n')
    assert 'Remove them?' in answer.output
    assert (tmp_path / 'work' / 'done').exists()


def test_what_a_job_or_its_chain_still_works_on_stays(make_process, computer):
    chain = make_process(orm.WorkChainNode, 'waiting')
    make_process(folder='of_chain', caller=make_process(orm.WorkChainNode, caller=chain))
    make_process(stage='waiting', folder='of_job')
    assert all('has not ended' in why for why in kept(computer, failed=True).values())


def test_what_another_process_goes_on_from_stays(make_process, computer):
    first = make_process(folder='first')
    second = make_process(stage='created')
    assert kept(computer) == {'first': ''}
    remote = first.outputs.remote_folder
    third = orm.CalcJobNode(computer=computer)
    third.base.links.add_incoming(remote, LinkType.INPUT_CALC, 'restart')
    third.set_process_state(second.process_state)
    third.store()
    try:
        assert f'process {third.pk}' in kept(computer)['first']
    finally:
        third.set_process_state(first.process_state)
    assert kept(computer) == {'first': ''}


def test_what_failed_stays_unless_it_is_asked_for(make_process, computer):
    make_process(exit_status=410, folder='failed')
    make_process(stage='killed', folder='killed')
    make_process(stage='excepted', folder='unread')
    assert all(kept(computer).values())
    assert kept(computer, failed=True) == {'failed': '', 'killed': '', 'unread': 'its result may not have been read'}


def test_what_ended_not_long_ago_stays(make_process, computer):
    make_process(folder='done')
    assert 'not long ago' in kept(computer, days=1.0)['done']


def test_the_folder_of_a_trajectory_stays(make_process, computer, write_trajectory, tmp_path):
    job, folder = make_process(folder='run'), tmp_path / 'work' / 'run'
    trajectory = write_trajectory(folder, range(0, 30, 10))
    listing = (folder / FOLDER / MANIFEST).read_text()
    node = TrajectoryData.from_remote(listing, job.outputs.remote_folder, trajectory.atoms, 2.0)
    node.base.links.add_incoming(job, LinkType.CREATE, 'trajectory')
    node.store()
    assert 'trajectory' in kept(computer, failed=True)['run']


def test_a_folder_that_a_cached_job_shares_is_one_and_stays_while_one_of_them_needs_it(make_process, computer):
    make_process(folder='shared')
    make_process(folder='shared', exit_status=410)
    assert list(kept(computer)) == ['shared']
    assert 'failed' in kept(computer)['shared']
    assert kept(computer, failed=True) == {'shared': ''}


def test_a_group_takes_along_what_its_processes_called(make_process, computer):
    chain = make_process(orm.WorkChainNode)
    make_process(folder='inside', caller=chain)
    make_process(folder='outside')
    group = orm.Group(label=f'clean {chain.pk}').store()
    group.add_nodes(chain)
    assert list(kept(computer, group=group.label)) == ['inside']
    with pytest.raises(LookupError, match='there is no group'):
        scratch(group='no such group')


def test_what_began_to_be_needed_meanwhile_stays(make_process, computer, tmp_path):
    first = make_process(folder='first')
    with computer.get_transport() as transport:
        found = list(measured(scratch(computer.label), transport))
        assert found[0].n_bytes >= 10_000
        later = orm.CalcJobNode(computer=computer)
        later.base.links.add_incoming(first.outputs.remote_folder, LinkType.INPUT_CALC, 'restart')
        later.set_process_state(ProcessState.WAITING)
        later.store()
        try:
            assert list(remove(found, transport)) == []
        finally:
            later.set_process_state(ProcessState.KILLED)
    assert (tmp_path / 'work' / 'first').exists()


def test_a_computer_that_cannot_be_reached_is_told(make_process, computer, monkeypatch):
    make_process(folder='done')

    def refuse(*_):
        raise ConnectionError('nobody is at home')

    monkeypatch.setattr(orm.Computer, 'get_transport', refuse)
    answer = CliRunner().invoke(main, ['clean', '--computer', computer.label, '--older-than', '0', '--yes'])
    assert answer.exit_code == 1
    assert 'nobody is at home; see `verdi computer test' in answer.output
