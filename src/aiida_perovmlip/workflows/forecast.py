"""A dry run: how many jobs a labelling needs, and what it will cost by the jobs that have been done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from aiida import orm
from ase.formula import Formula

from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.workflows.labelling import Known, Labelling

GROWTH = 2.0
"""Cost is taken to grow with this power of the number of atoms, between frames of different size."""


@dataclass(frozen=True)
class Forecast:
    """What would be done.

    :param n_jobs: jobs of the first round; repairs come on top.
    :param formulas: frames to run of each composition.
    :param refused: positions of the frames that would not be run, by the reason.
    :param core_hours: estimate for the frames to run; None where no job of this level has been done yet.
    :param n_measured: how many finished jobs the estimate is from.
    """

    level: str
    n_frames: int
    n_todo: int
    n_known: int
    n_repeated: int
    n_jobs: int
    formulas: dict[str, int]
    refused: dict[str, list[int]]
    core_hours: float | None
    n_measured: int

    def __str__(self) -> str:
        lines = [
            f'{self.n_frames} frames at {self.level}:',
            f'  {self.n_todo} to be labelled in {self.n_jobs} jobs, {self.n_known} known, {self.n_repeated} repeated, '
            f'{sum(map(len, self.refused.values()))} refused',
        ]
        lines += [f'  {count:6d} x {formula}' for formula, count in self.formulas.items()]
        lines += [f'  {len(frames)} refused: {reason}' for reason, frames in list(self.refused.items())[:5]]
        return '\n'.join([*lines, f'  {self._cost()}'])

    def _cost(self) -> str:
        if self.core_hours is None:
            return 'cost: unknown, as no job of this level has been done here; label a few frames first.'
        return f'cost: about {self.core_hours:.3g} core-hours, by {self.n_measured} jobs that have been done'


def forecast(labelling: Labelling, reuse: bool = True) -> Forecast:
    """Return what a labelling would do; nothing is run or stored."""
    survey = labelling.survey(labelling.look_up() if reuse else Known())
    formulas: Counter[str] = Counter()
    sizes = []
    if len(survey.todo):
        for chunk in labelling.frames.frames.take(survey.todo).chunks():
            for frame in chunk:
                formulas[Formula.from_list(frame.symbols).format('metal')] += 1
                sizes.append(len(frame))
    costs = measured_costs(labelling.level, labelling.labeller.process.build_process_type())
    return Forecast(
        level=str(labelling.level),
        n_frames=len(labelling.frames),
        n_todo=len(survey.todo),
        n_known=survey.n_known,
        n_repeated=survey.n_repeated,
        n_jobs=len(labelling.batches(survey.todo)),
        formulas=dict(formulas.most_common()),
        refused=survey.refused,
        core_hours=estimate(sizes, costs) if costs else None,
        n_measured=len(costs),
    )


def measured_costs(level: Level, process: str) -> list[tuple[float, float]]:
    """Return atoms and core-seconds of a frame, as the mean of each finished job of a level."""
    query = orm.QueryBuilder()
    query.append(orm.CalcJobNode, filters={'process_type': process}, tag='job')
    query.append(
        orm.Dict,
        with_incoming='job',
        edge_filters={'label': 'results'},
        filters={'attributes.level.fingerprint': level.fingerprint},
        project=['attributes.n_frames', 'attributes.n_remaining', 'attributes.seconds_of_labels'],
    )
    sizes = ['attributes.n_atoms', 'attributes.n_frames']
    query.append(DatasetData, with_outgoing='job', edge_filters={'label': 'frames'}, project=sizes)
    return [
        (n_atoms / n_given, seconds / (n_frames - n_left))
        for n_frames, n_left, seconds, n_atoms, n_given in query.iterall()
        if seconds and n_frames > (n_left or 0)
    ]


def estimate(sizes: Sequence[int], costs: Sequence[tuple[float, float]]) -> float:
    """Return the core-hours of frames of these sizes, each as the median of the jobs whose frames are the nearest."""
    if not sizes:
        return 0.0
    known = np.array(costs)
    seconds = 0.0
    for size, count in Counter(sizes).items():
        distance = np.abs(np.log(known[:, 0]) - log(size))
        nearest = known[distance <= distance.min() + 0.05]
        seconds += count * float(np.median(nearest[:, 1] * (size / nearest[:, 0]) ** GROWTH))
    return seconds / 3600


def describe_left(n_left: int, n_done: int, core_seconds: float) -> str:
    """Return a sentence on what is left, by what has been done."""
    hours: Any = n_left * core_seconds / n_done / 3600
    return f'{n_done} labels took {core_seconds / 3600:.3g} core-hours; about {hours:.3g} more for {n_left} frames.'
