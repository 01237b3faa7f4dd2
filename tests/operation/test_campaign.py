"""Many chains: each is submitted once, no more than so many at a time, whatever is stopped meanwhile."""

from __future__ import annotations

from itertools import count

import pytest
from aiida import orm
from plumpy.process_states import ProcessState

from aiida_perovmlip.operation import campaign as module
from aiida_perovmlip.operation.campaign import Campaign, campaigns

NUMBERS = count(1)


@pytest.fixture
def name():
    """Return a name that no other campaign has; two signs in it stand for others in a comparison of text."""
    return f'100 % of_{next(NUMBERS)}'


class Builder:
    """As much of a builder as a campaign touches."""

    class Metadata:
        label = ''

    def __init__(self, ends='finished', exit_status=0):
        self.metadata, self.ends, self.exit_status = self.Metadata(), ends, exit_status


@pytest.fixture
def submitted(monkeypatch, make_process):
    """Stand in for the daemon: what is submitted ends at the next look at the clock; return all labels, in order."""
    labels, active = [], []

    def submit(builder):
        node = make_process(orm.WorkChainNode, 'created', label=builder.metadata.label)
        labels.append(builder.metadata.label)
        active.append((node, builder))
        return node

    def sleep(_):
        for node, builder in active:
            node.set_process_state(ProcessState(builder.ends))
            if builder.ends == 'finished':
                node.set_exit_status(builder.exit_status)
        active.clear()

    monkeypatch.setattr('aiida.engine.submit', submit)
    monkeypatch.setattr(module.time, 'sleep', sleep)
    return labels


def items(number, **how):
    return [(f'item {index}', lambda: Builder(**how)) for index in range(number)]


def test_all_items_are_submitted_once_and_no_more_at_a_time_than_may_be(name, submitted):
    looks = list(Campaign(name, at_once=2).run(items(5)))
    assert submitted == [f'{name}: item {index}' for index in range(5)]
    assert max(look.active for look in looks) == 2
    assert (looks[-1].done, looks[-1].failed, looks[-1].active, looks[-1].waiting) == (5, 0, 0, 0)


def test_a_script_that_runs_again_submits_the_rest(name, submitted):
    campaign = Campaign(name, at_once=1)
    for look in campaign.run(items(4)):
        if look.done == 2:
            break
    again = list(Campaign(name, at_once=1).run(items(4)))
    assert sorted(submitted) == sorted({f'{name}: item {index}' for index in range(4)})
    assert again[-1].done == 4


def test_what_died_between_birth_and_group_is_not_submitted_again(name, submitted, make_process):
    make_process(orm.WorkChainNode, label=f'{name}: item 0')  # submitted, and killed before it was put into the group
    list(Campaign(name).run(items(2)))
    assert submitted == [f'{name}: item 1']


def test_what_failed_is_tried_again_as_often_as_was_said(name, submitted):
    (last,) = [list(Campaign(name, attempts=3).run(items(1, exit_status=410)))[-1]]
    assert submitted == [f'{name}: item 0'] * 3
    assert (last.failed, last.done) == (1, 0)
    assert list(Campaign(name).failed()) == ['item 0']


def test_what_excepted_has_failed(name, submitted):
    assert list(Campaign(name).run(items(1, ends='excepted')))[-1].failed == 1


def test_a_computer_that_is_full_is_given_nothing_more(name, submitted, make_process, computer):
    other = make_process(stage='waiting')
    looks = Campaign(name, max_jobs={computer.label: 1}).run(items(1))
    assert next(looks).waiting == 1
    assert submitted == []
    other.set_process_state(ProcessState.KILLED)
    assert list(looks)[-1].done == 1


def test_two_scripts_do_not_run_one_campaign(name, submitted):
    first = Campaign(name).run(items(2))
    next(first)
    with pytest.raises(RuntimeError, match='another process runs the campaign'):
        next(Campaign(name).run(items(2)))
    first.close()
    assert list(Campaign(name).run(items(2)))[-1].done == 2


def test_an_item_that_cannot_be_made_is_named(name, submitted):
    def make():
        raise ValueError('no such potential')

    with pytest.raises(ValueError, match='no such potential') as caught:
        list(Campaign(name).run([('item x', make)]))
    assert f'This was the item `item x` of the campaign `{name}`' in caught.value.__notes__[0]


def test_names_that_are_alike_are_two_campaigns(name, submitted):
    list(Campaign(name).run(items(1)))
    assert Campaign(name.replace('_', 'x').replace('%', '50')).standing().done == 0


def test_all_campaigns_are_told(name, submitted):
    list(Campaign(name).run(items(3)))
    assert str(next(each for each in campaigns() if each.name == name)) == f'{name}: 3 done, 0 failed, 0 at work'


@pytest.mark.parametrize('wrong', [{'name': ''}, {'at_once': 0}, {'attempts': 0}, {'max_jobs': {'x': 0}}])
def test_a_campaign_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match='each of its numbers is at least 1'):
        Campaign(**({'name': 'x'} | wrong))
