"""Numbers that describe the frames of a dataset, group by group; one shard is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aiida_perovmlip.analysis.statistics import GroupStatistics

ALL = 'all'
"""What the row of all frames is called."""

COLUMNS = ('offsets', 'cells', 'pbc', 'energy', 'forces', 'stress', 'group')

UNITS = {'energy': 'eV/atom', 'forces': 'eV/Å', 'forces_rms': 'eV/Å', 'pressure': 'GPa', 'volume': 'Å³/atom'}


def dataset_statistics(
    dataset: Any, report: Callable[[int], None] = lambda n_frames: None
) -> dict[str, dict[str, Any]]:
    """Return the statistics of all frames and of each group by its name; see `GroupStatistics.to_dict`.

    :param dataset: a `DatasetData`.
    :param report: takes the number of frames that were read just now.
    """
    groups: dict[str, GroupStatistics] = {}
    whole = GroupStatistics()
    for chunk in dataset.frames.chunks():
        whole.add(chunk.columns, np.arange(len(chunk)))
        for code in np.unique(chunk.columns['group']):
            name = chunk.names['group'][code]
            mine = np.flatnonzero(chunk.columns['group'] == code)
            groups.setdefault(name, GroupStatistics()).add(chunk.columns, mine)
        report(len(chunk))
    return {ALL: whole.to_dict(), **{name: groups[name].to_dict() for name in sorted(groups)}}
