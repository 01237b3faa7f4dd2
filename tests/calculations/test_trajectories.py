"""Trajectories in the provenance graph."""

from __future__ import annotations

import pytest
from aiida import orm

from aiida_perovmlip.calculations.functions.trajectories import join_trajectories, select_frames
from aiida_perovmlip.compute.chunk import TrajectoryError
from aiida_perovmlip.data.trajectory import TrajectoryData


@pytest.fixture
def leg(write_trajectory, tmp_path):
    """Return a function that stores a leg of a made-up run."""

    def make(*steps, **about):
        write_trajectory(tmp_path / str(steps), range(*steps))
        return TrajectoryData.from_folder(tmp_path / str(steps), 2.0, **about).store()

    return make


def test_legs_are_joined_in_the_order_of_their_steps_and_known_as_inputs(leg):
    legs = {'leg_10': leg(100, 210, 10), 'leg_9': leg(0, 110, 10)}
    joined = join_trajectories(**legs)
    assert joined.content_hash == leg(0, 210, 10).content_hash
    inputs = joined.creator.base.links.get_incoming().all_nodes()
    assert {node.uuid for node in inputs} == {node.uuid for node in legs.values()}


def test_legs_that_do_not_follow_each_other_leave_no_trajectory(leg):
    with pytest.raises(TrajectoryError, match='gap in the frames'):
        join_trajectories(a=leg(0, 110, 10), b=leg(200, 310, 10))


def test_frames_become_candidates_that_know_their_run(leg):
    run = leg(0, 210, 10, charge=1, spin=2, group='vacancy')
    dataset = select_frames(run, every=orm.Int(8))
    frames = list(dataset)
    assert [frame.cell[0, 0] for frame in frames] == pytest.approx([12, 12.008, 12.016])
    assert {(frame.charge, frame.spin, frame.group) for frame in frames} == {(1, 2, 'vacancy')}
    assert {frame.trajectory for frame in frames} == {run.content_hash[:16]}
    assert dataset.labels == []
    assert dataset.creator.inputs.trajectory.uuid == run.uuid


def test_frames_are_taken_in_the_order_of_their_indices(leg):
    run = leg(0, 210, 10)
    dataset = select_frames(run, indices=orm.List([-1, 3]))
    assert [frame.cell[0, 0] for frame in dataset] == pytest.approx([12.02, 12.003])
    assert dataset.base.attributes.get('groups') == {'CsI2Pb': 2}
    assert dataset.base.attributes.get('charges') == []


@pytest.mark.parametrize(
    ('how', 'what'),
    [
        ({}, 'either by `every` or by `indices`'),
        ({'every': orm.Int, 'indices': orm.List}, 'either by `every` or by `indices`'),
        ({'every': orm.Int}, 'every 0th frame'),
    ],
)
def test_a_selection_that_is_none_is_refused(leg, how, what):
    with pytest.raises(TrajectoryError, match=what):
        select_frames(leg(0, 50, 10), **{name: kind() for name, kind in how.items()})


def test_an_index_beyond_the_end_is_refused(leg):
    with pytest.raises(IndexError, match='no frame 5 among 5'):
        select_frames(leg(0, 50, 10), indices=orm.List([5]))
