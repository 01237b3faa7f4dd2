"""Frames on their way to a labeller and back, with provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import STRUCTURE
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.shard import digests
from aiida_perovmlip.data.dataset import DatasetData, LevelError


@recorded
def cut_frames(frames: DatasetData, parts: orm.Dict) -> dict[str, DatasetData]:
    """Copy some frames, without their labels, into a dataset for each job, which so takes no other frame along.

    :param parts: positions of the frames of each part, by name.
    """
    return {name: _bare(frames, indices) for name, indices in parts.get_dict().items()}


def _bare(frames: DatasetData, indices: list[int]) -> DatasetData:
    chosen = (frame for chunk in frames.frames.take(indices).chunks() for frame in chunk)
    return DatasetData.from_frames(replace(frame, energy=None, forces=None, stress=None, source='') for frame in chosen)


@recorded
def collect_labels(
    frames: DatasetData, level: orm.Dict, report: orm.Dict, **labelled: DatasetData
) -> dict[str, orm.Data]:
    """Put labels to the frames that they were made of, in the order of the frames.

    :param report: what the chain says of itself; see `_Told`.
    :param labelled: what the jobs returned; a frame is recognised by its content, never by its position.
    """
    theory = Level.from_dict(level.get_dict())
    for name, dataset in labelled.items():
        if dataset.level is None or dataset.level.fingerprint != theory.fingerprint:
            raise LevelError(f'the labels of {name} are of another level: {dataset.level} instead of {theory}.')
    told = _Told(report.get_dict(), labelled)
    outputs: dict[str, orm.Data] = {}
    found = told.collect(frames)
    first = next(found, None)
    if first is not None:
        outputs['dataset'] = DatasetData.from_frames(chain([first], found), theory)
    outputs['failures'] = orm.Dict({'n_failed': len(told.rows), 'frames': told.rows, 'asked': told.asked})
    counts = {'n_frames': len(frames), 'n_labelled': told.n_labelled, 'n_failed': len(told.rows)}
    outputs['results'] = orm.Dict({'level': theory.to_dict(), **counts, **told.rest})
    return outputs


class _Told:
    """What the chain says, and what becomes of each frame by that.

    The report holds `failed` (kind and reason by position), `refused` (positions by reason), `trajectories` (where
    atoms moved: the name of the dataset that a frame was turned into, by position), `asked`, and more to pass on.
    """

    def __init__(self, report: dict[str, Any], labelled: dict[str, DatasetData]) -> None:
        self.labelled = labelled
        self.failed = {int(position): entry for position, entry in report.pop('failed').items()}
        for reason, positions in report.pop('refused').items():
            self.failed |= {frame: {'kind': 'refused', 'reason': reason, **NOBODY} for frame in positions}
        self.trajectories = {int(position): name for position, name in report.pop('trajectories').items()}
        self.asked, self.rest = report.pop('asked'), report
        self.rows: list[dict[str, Any]] = []
        self.n_labelled = 0
        self._failed_before: dict[bytes, dict[str, Any]] = {}

    def collect(self, frames: DatasetData) -> Iterator[Frame]:
        """Yield the labelled frames, in the order of the frames; list those without a label in `rows`."""
        places = _places(self.labelled)
        start = 0
        for chunk in frames.frames.chunks():
            marks = [digest.tobytes() for digest in digests(chunk, labels=False)]
            labels = _labels_of(marks, places, self.labelled)
            for position, (mark, frame) in enumerate(zip(marks, chunk, strict=True), start):
                made = self._of(position, frame, labels.get(mark))
                if not made:
                    self._list(position, mark, frame)
                self.n_labelled += bool(made)
                yield from made
            start += len(chunk)

    def _of(self, position: int, frame: Frame, label: Frame | None) -> list[Frame]:
        if position in self.trajectories:
            return list(self.labelled[self.trajectories[position]])
        return [_with_label(frame, label)] if label is not None and position not in self.failed else []

    def _list(self, position: int, mark: bytes, frame: Frame) -> None:
        """List a frame without a label; what failed once has failed for all frames that are identical."""
        why = self.failed.get(position) or self._failed_before.get(mark)
        if why is None and self.rest.get('n_left_out'):
            return
        why = why or {'kind': 'stopped', 'reason': 'no job returned it.', **NOBODY}
        self._failed_before.setdefault(mark, why)
        self.rows.append({'frame': position, 'group': frame.group, 'digest': mark.hex(), **why})


NOBODY = {'repairs': [], 'process': ''}
"""What is said of a frame that was in no job."""


def _with_label(frame: Frame, label: Frame) -> Frame:
    """Return a frame with the label of an identical one."""
    known = {name: getattr(label, name) for name in ('energy', 'forces', 'stress', 'source')}
    return replace(frame, head='default', **known)


Places = dict[bytes, tuple[str, int, int]]
"""Dataset, number of its chunk and position therein of each labelled frame, by its digest."""


def _places(datasets: dict[str, DatasetData]) -> Places:
    """Return where the label of each frame is."""
    places: Places = {}
    for name, dataset in datasets.items():
        for number, chunk in enumerate(dataset.frames.chunks(STRUCTURE)):
            for index, digest in enumerate(digests(chunk, labels=False)):
                places.setdefault(digest.tobytes(), (name, number, index))
    return places


def _labels_of(marks: list[bytes], places: Places, datasets: dict[str, DatasetData]) -> dict[bytes, Frame]:
    """Return the labelled frames of some digests; each chunk of each dataset is read once."""
    wanted: dict[str, dict[int, list[tuple[int, bytes]]]] = {}
    for mark in set(marks) & places.keys():
        name, number, index = places[mark]
        wanted.setdefault(name, {}).setdefault(number, []).append((index, mark))
    found: dict[bytes, Frame] = {}
    for name, numbers in wanted.items():
        for number, chunk in enumerate(datasets[name].frames.chunks()):
            rows = numbers.get(number, [])
            taken = chunk.take(np.array([index for index, _ in rows])) if rows else ()
            found |= {mark: frame for (_, mark), frame in zip(rows, taken, strict=True)}
    return found
