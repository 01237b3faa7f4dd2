"""From one dataset to another, with provenance."""

from __future__ import annotations

from aiida import orm
from aiida.engine import calcfunction

from aiida_perovmlip.data.dataset import DatasetData


@calcfunction
def split_dataset(dataset: DatasetData, parts: orm.Dict, by: orm.Str, seed: orm.Int) -> dict[str, DatasetData]:
    """Split a dataset into parts that share its frames among them.

    :param parts: fraction (adding up to 1) or number of frames of each part, by name.
    :param by: `random`, `stratified`, `trajectory` or `group`; see `DatasetData.split`.
    """
    return dataset.split(parts.get_dict(), by.value, seed.value)


@calcfunction
def join_datasets(heads: orm.List | None = None, **datasets: DatasetData) -> DatasetData:
    """Join datasets in the order of their names; see `DatasetData.concatenate`.

    :param heads: a head for each dataset in that order; without it all must have one level of theory.
    """
    ordered = [datasets[name] for name in sorted(datasets)]
    return DatasetData.concatenate(ordered, heads.get_list() if heads is not None else None)


@calcfunction
def drop_duplicates(dataset: DatasetData, tolerance: orm.Float) -> DatasetData:
    """Drop frames that repeat an earlier one; see `DatasetData.without_duplicates`."""
    return dataset.without_duplicates(tolerance.value)


@calcfunction
def select_groups(dataset: DatasetData, groups: orm.List) -> DatasetData:
    """Take the frames of some groups."""
    import numpy as np

    return dataset.select(np.isin(dataset.frames.column('group'), groups.get_list()))


@calcfunction
def import_extxyz(file: orm.SinglefileData, level: orm.Dict) -> DatasetData:
    """Read an extended XYZ file whose labels are of one level of theory; each frame names the file as its source."""
    import gzip
    import io
    from dataclasses import replace

    from aiida_perovmlip.compute.extxyz import read_extxyz

    with file.open(mode='rb') as handle:
        plain = gzip.GzipFile(fileobj=handle) if file.filename.endswith('.gz') else handle
        text = io.TextIOWrapper(plain, encoding='utf-8')
        frames = (replace(frame, source=file.uuid) for frame in read_extxyz(text, file.filename))
        return DatasetData.from_frames(frames, level.get_dict() or None)
