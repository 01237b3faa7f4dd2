"""From trajectories to others, and to datasets, with provenance."""

from __future__ import annotations

from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.chunk import TrajectoryError
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.trajectory import TrajectoryData


@recorded
def join_trajectories(**parts: TrajectoryData) -> TrajectoryData:
    """Join the legs of one run in the order of their steps, whatever their names; see `TrajectoryData.join`."""
    return TrajectoryData.join(parts.values())


@recorded
def select_frames(
    trajectory: TrajectoryData, every: orm.Int | None = None, indices: orm.List | None = None
) -> DatasetData:
    """Take frames of a trajectory as a dataset without labels, such as candidates for labelling.

    Their `trajectory` is the beginning of the content hash of the one that they are from, so that no split puts
    frames of one run on two sides; their `group` is that of the run.

    :param every: take each such frame, the first one included.
    :param indices: or take these, counted from 0 (from the end where negative), in this order.
    """
    if indices is not None and every is None:
        return trajectory.to_dataset(indices.get_list())
    if every is None or indices is not None:
        raise TrajectoryError('frames are selected either by `every` or by `indices`; give one of them.')
    if every.value < 1:
        raise TrajectoryError(f'every {every.value}th frame cannot be taken; `every` counts from 1.')
    return trajectory.to_dataset(range(0, len(trajectory), every.value))
