"""The book of a labelling: whatever jobs do, each frame is either done or failed in the end, and none is done twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiida_perovmlip.workflows.ledger import ATTEMPTS, PROVEN, STRIKES, Batch, Ended, Ledger, Running

REPAIRS = {'failed': ('first', 'second'), 'not_converged': ('second',)}


def next_repair(kind, tried):
    left = [name for name in REPAIRS.get(kind, ()) if name not in tried]
    return left[0] if left else None


def start(ledger, plan):
    batch = ledger.next_batch(plan)
    ledger.assign(batch)
    (label,) = ledger.starting
    ledger.started(label, 1, f'uuid of {label}')
    return label, batch


def close(ledger, label, *done, **more):
    ledger.close(label, Ended(frozenset(done), **more), next_repair)


def one_job(*frames, **about):
    plan = [Batch(tuple(frames), **about)]
    ledger = Ledger(1, ['here'])
    return ledger, start(ledger, plan)[0]


@st.composite
def behaviours(draw):
    """A way in which jobs behave: for each frame the number of tries until it works, and a fate before that."""
    n_frames = draw(st.integers(1, 12))
    fates = st.sampled_from(['failed', 'not_converged', 'crashed', 'environment', 'lost', 'refuses for ever'])
    frames = [(draw(st.integers(0, 4)), draw(fates)) for _ in range(n_frames)]
    poison = draw(st.sets(st.integers(0, n_frames - 1), max_size=2))
    return (
        frames,
        poison,
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
        draw(st.booleans()),
        draw(st.randoms(use_true_random=False)),
    )


@given(behaviours())
@settings(max_examples=300, deadline=None)
def test_every_frame_is_done_or_failed_in_the_end_and_none_is_done_twice(behaviour):
    frames, poison, size, slots, hold, random = behaviour
    plan = [Batch(tuple(range(s, min(s + size, len(frames))))) for s in range(0, len(frames), size)]
    ledger = Ledger(len(plan), ['here', 'there'])
    tries = [0] * len(frames)
    done: set[int] = set()
    for _ in range(1000):
        ledger = Ledger.load(ledger.dump())  # as after a restart of the daemon
        if not ledger.has_work:
            break
        if not ledger.working_codes:
            ledger.give_up(plan)
        while ledger.n_busy < slots and (batch := ledger.next_batch(plan, hold)) is not None:
            assert not done & set(batch.frames)
            ledger.assign(batch)
        ledger = Ledger.load(ledger.dump())
        for label in list(ledger.starting):
            ledger.started(label, 1, 'uuid')
        if not ledger.running:
            continue
        label = random.choice(sorted(ledger.running))
        batch = ledger.running[label].batch
        finished, failed = set(), {}
        if not poison & set(batch.frames):  # a poisonous frame takes the whole job down
            for frame in batch.frames:
                tries[frame] += 1
                needed, fate = frames[frame]
                if tries[frame] > needed and fate != 'refuses for ever':
                    finished.add(frame)
                elif fate != 'lost':
                    failed[frame] = ('refused' if fate == 'refuses for ever' else fate, 'because')
        done |= finished
        ledger.close(label, Ended(frozenset(finished), failed, 'it ended.'), next_repair)
        if random.random() < 0.3:
            ledger.merge_waiting(lambda frame: frame % 2, lambda count: size)
    assert not ledger.has_work
    assert done | set(ledger.failed) == set(range(len(frames)))
    assert not done & set(ledger.failed)
    assert ledger.n_done == len(done)


def test_a_failure_goes_through_the_repairs_in_order_and_is_then_listed():
    ledger, label = one_job(0)
    for repair in ('first', 'second'):
        close(ledger, label, failed={0: ('failed', 'no')})
        label, batch = start(ledger, [])
        assert batch.repair == repair
    close(ledger, label, failed={0: ('failed', 'still no')})
    assert not ledger.has_work
    assert ledger.failed[0] == {
        'kind': 'failed',
        'reason': 'still no',
        'repairs': ['first', 'second'],
        'process': 'uuid of job_00003',
    }


def test_what_a_repair_has_healed_is_remembered():
    ledger, label = one_job(0, 1)
    close(ledger, label, 0, failed={1: ('not_converged', 'no')})
    label, _ = start(ledger, [])
    close(ledger, label, 1)
    assert ledger.repaired == {1: 'second'}
    assert not ledger.failed


def test_the_rest_of_a_stopped_job_goes_on_as_it_was():
    ledger, label = one_job(0, 1, 2)
    close(ledger, label, 0)
    assert ledger.waiting == [Batch((1, 2))]


def test_a_job_without_any_answer_is_halved_until_the_culprit_is_alone():
    ledger, label = one_job(0, 1, 2)
    close(ledger, label)
    assert [batch.frames for batch in ledger.waiting] == [(0,), (1, 2)]
    ledger.merge_waiting(lambda frame: 0, lambda count: 10)
    assert [batch.frames for batch in ledger.waiting] == [(0,), (1, 2)]  # suspects are never put together again


def test_a_frame_that_nothing_is_heard_of_is_given_up_after_some_attempts():
    ledger, label = one_job(0)
    for _ in range(ATTEMPTS - 1):
        close(ledger, label, message='silence.')
        label, _ = start(ledger, [])
    close(ledger, label, message='silence.')
    assert (ledger.failed[0]['kind'], ledger.failed[0]['reason']) == ('stopped', 'silence.')


def test_a_frame_that_takes_longer_than_a_job_may_is_not_tried_again():
    ledger, label = one_job(0)
    close(ledger, label, message='too long.', kind='timeout')
    assert not ledger.has_work
    assert ledger.failed[0]['kind'] == 'timeout'


def test_what_a_machine_lacks_is_tried_elsewhere_and_together():
    ledger, label = one_job(0, 1, 2)
    close(ledger, label, 1, failed={0: ('environment', 'no numpy'), 2: ('environment', 'no numpy')})
    assert ledger.waiting == [Batch((0, 2), attempt=1)]


def strike(ledger, plan, n_jobs, success=None, **ended):
    for number in range(n_jobs):
        label, batch = start(ledger, plan)
        close(ledger, label, *(batch.frames if number == success else ()), **{'message': 'no such file', **ended})
        if ledger.retired:
            return number + 1
    return n_jobs


def test_a_code_is_retired_after_jobs_in_a_row_that_come_to_nothing_and_not_before():
    plan = [Batch((frame,)) for frame in range(200)]
    ledger = Ledger(200, ['here'])
    assert strike(ledger, plan, 100) == STRIKES
    assert ledger.retired == {'here': 'no such file'}


def test_a_code_that_has_brought_labels_gets_more_patience():
    plan = [Batch((frame,)) for frame in range(200)]
    ledger = Ledger(200, ['here'])
    assert strike(ledger, plan, 100, success=1) == 2 + STRIKES * PROVEN


@pytest.mark.parametrize(
    'ended',
    [
        {'kind': 'memory'},
        {'kind': 'timeout'},
        {'killed': True},
        {'failed': dict.fromkeys(range(200), ('crashed', 'it died'))},
    ],
)
def test_frames_that_are_too_heavy_or_crash_say_nothing_of_the_code(ended):
    plan = [Batch((frame,)) for frame in range(200)]
    ledger = Ledger(200, ['here'])
    strike(ledger, plan, 50, **ended)
    assert not ledger.retired


def test_where_jobs_come_to_nothing_the_plan_goes_on_at_its_end():
    plan = [Batch((frame,)) for frame in range(10)]
    ledger = Ledger(10, ['here'])
    close(ledger, start(ledger, plan)[0])
    label, batch = start(ledger, plan)
    assert batch.frames == (9,)
    close(ledger, label, 9)
    assert start(ledger, plan)[1].frames == (1,)


def test_single_repairs_wait_for_the_first_round_so_that_they_share_jobs():
    plan = [Batch((0,)), Batch((1,))]
    ledger = Ledger(2, ['here'])
    first, _ = start(ledger, plan)
    second, _ = start(ledger, plan)
    close(ledger, first, failed={0: ('failed', 'no')})
    assert ledger.next_batch(plan, hold=True) is None
    close(ledger, second, failed={1: ('failed', 'no')})
    ledger.merge_waiting(lambda frame: 0, lambda count: 10)
    assert ledger.next_batch(plan, hold=True) == Batch((0, 1), 'first')


def test_what_was_last_said_of_a_frame_survives_the_end_of_all_codes():
    plan = [Batch((0,)), Batch((1,))]
    ledger = Ledger(2, ['here'])
    close(ledger, start(ledger, plan)[0], failed={0: ('crashed', 'it died')})
    ledger.retired = {'here': 'no such file'}
    ledger.give_up(plan)
    assert (ledger.failed[0]['kind'], ledger.failed[0]['reason']) == ('crashed', 'it died')
    assert ledger.failed[1]['kind'] == 'environment'


def test_one_frame_that_takes_all_its_jobs_down_does_not_retire_the_code():
    ledger, label = one_job(0)
    for _ in range(ATTEMPTS):
        close(ledger, label, message='silence.')
        if ledger.waiting:
            label, _ = start(ledger, [])
    assert ledger.failed
    assert not ledger.retired


def test_a_code_with_a_failure_is_used_less_and_not_shunned():
    ledger = Ledger(0, ['here', 'there'], strikes={'here': 1})
    assert ledger.next_code() == 'there'
    ledger.running = {str(n): Running(Batch((n,)), 'there', 1, '') for n in range(2)}
    assert ledger.next_code() == 'here'


def test_without_a_code_all_that_waits_is_listed_with_the_reason():
    plan = [Batch((0, 1)), Batch((2,))]
    ledger = Ledger(2, ['here'], retired={'here': 'no such file'})
    ledger.give_up(plan)
    assert not ledger.has_work
    assert {why['reason'] for why in ledger.failed.values()} == {'no code works. here: no such file'}


def test_a_job_killed_by_hand_is_not_started_again():
    ledger, label = one_job(0, 1)
    close(ledger, label, 0, message='killed', killed=True)
    assert not ledger.waiting
    assert 'by hand' in ledger.failed[1]['reason']


def test_repairs_of_one_kind_share_jobs():
    ledger = Ledger(0, ['here'], waiting=[Batch((n,), 'first') for n in range(5)] + [Batch((9,), 'second')])
    ledger.merge_waiting(lambda frame: frame % 2, lambda count: 2)
    assert sorted(batch.frames for batch in ledger.waiting) == [(0, 2), (1, 3), (4,), (9,)]


def test_a_reply_of_a_frame_that_was_not_in_the_batch_is_ignored():
    ledger, label = one_job(0)
    close(ledger, label, 0, failed={7: ('failed', 'not mine')})
    assert not ledger.failed
    assert not ledger.has_work


@pytest.mark.parametrize('n_frames', [0, 100_000])
def test_the_book_stays_small(n_frames):
    ledger = Ledger(10, ['here'], waiting=[Batch(tuple(range(n_frames)))] if n_frames else [])
    assert len(ledger.dump()) < 500_000
    assert Ledger.load(ledger.dump()) == ledger
