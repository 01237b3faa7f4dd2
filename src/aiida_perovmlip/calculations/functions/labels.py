"""Frames on their way to a labeller and back, with provenance."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.shard import Shard, digests
from aiida_perovmlip.data.dataset import DatasetData

OPEN_SHARDS = 64
"""How many shards of labels are held in memory while they are put in order."""


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

    :param report: what the chain says of itself; `failed` and `repaired` by position of the frame, and `trajectories`:
        the name of the dataset that a frame was turned into, by its position, where its atoms moved.
    :param labelled: what the jobs returned; a frame is recognised by its content, never by its position.
    """
    told = report.get_dict()
    failed = {int(position): entry for position, entry in told.pop('failed').items()}
    trajectories = {int(position): name for position, name in told.pop('trajectories').items()}
    book = _Labels(labelled)
    theory = Level.from_dict(level.get_dict())
    counts = {'n_labelled': 0}
    rows: list[dict[str, Any]] = []

    def found() -> Iterator[Frame]:
        for position, digest, frame in frames.frames.with_digests():
            if position in trajectories:
                made = list(labelled[trajectories[position]])
            else:
                label = book.find(digest)
                made = [_with_label(frame, label)] if label is not None else []
            if made:
                counts['n_labelled'] += 1
                yield from made
            else:
                why = failed.get(position, {'kind': 'stopped', 'reason': 'no job returned it.'})
                rows.append({'frame': position, 'group': frame.group, 'digest': digest.hex(), **why})

    outputs: dict[str, orm.Data] = {}
    if labelled:
        outputs['dataset'] = DatasetData.from_frames(found(), theory)
    else:
        list(found())
    outputs['failures'] = orm.Dict({'n_failed': len(rows), 'frames': rows})
    summary = {'level': theory.to_dict(), 'n_frames': len(frames), **counts, 'n_failed': len(rows), **told}
    outputs['results'] = orm.Dict(summary)
    return outputs


def _with_label(frame: Frame, label: Frame) -> Frame:
    """Return a frame with the label of an identical one."""
    return replace(
        frame,
        energy=label.energy,
        forces=label.forces,
        stress=label.stress,
        head='default',
        source=label.source,
    )


class _Labels:
    """Labelled frames of many datasets by their content; a bounded number of shards is in memory."""

    def __init__(self, datasets: dict[str, DatasetData]) -> None:
        self._places: dict[bytes, tuple[str, int, int]] = {}
        self._datasets = datasets
        self._open: OrderedDict[tuple[str, int], Shard] = OrderedDict()
        for name, dataset in datasets.items():
            for number, chunk in enumerate(dataset.frames.chunks()):
                for index, digest in enumerate(digests(chunk, labels=False)):
                    self._places.setdefault(digest.tobytes(), (name, number, index))

    def find(self, digest: bytes) -> Frame | None:
        """Return the labelled frame of this content; None where there is none."""
        place = self._places.get(digest)
        if place is None:
            return None
        name, number, index = place
        return self._chunk(name, number).frame(index)

    def _chunk(self, name: str, number: int) -> Shard:
        key = (name, number)
        if key not in self._open:
            for position, chunk in enumerate(self._datasets[name].frames.chunks()):
                if position == number:
                    self._open[key] = chunk
                    break
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]
