"""What VASP learned on the fly, as a dataset with provenance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.vasp.ml_ab import read_ml_ab
from aiida_perovmlip.labellers.vasp.reading import digest_of


@recorded
def import_ml_ab(file: orm.SinglefileData, level: orm.Dict) -> DatasetData:
    """Read a file ML_AB or ML_ABN whose labels are of one level of theory; each frame names the file as its source.

    Neighbours in the file that have the same atoms become one trajectory, as they come from one simulation.
    """
    with file.open(mode='r') as handle:
        frames = _in_trajectories(read_ml_ab(handle, file.filename))
        return DatasetData.from_frames((replace(frame, source=file.uuid) for frame in frames), level.get_dict())


def _in_trajectories(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield frames with the name of their trajectory."""
    numbers, name = b'', ''
    for frame in frames:
        if not name or frame.numbers.tobytes() != numbers:
            numbers, name = frame.numbers.tobytes(), digest_of(frame)
        yield replace(frame, trajectory=name)
