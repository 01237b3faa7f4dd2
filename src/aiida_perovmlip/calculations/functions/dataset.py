"""From one dataset to another, with provenance."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_perovmlip.calculations.feasibility import VALUES
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.calculations.functions.hashes import hash_of
from aiida_perovmlip.data.dataset import DatasetData, LevelError


@recorded
def split_dataset(dataset: DatasetData, parts: orm.Dict, by: orm.Str, seed: orm.Int) -> dict[str, DatasetData]:
    """Split a dataset into parts that share its frames among them.

    :param parts: fraction (adding up to 1) or number of frames of each part, by name.
    :param by: `random`, `stratified`, `trajectory` or `group`; see `DatasetData.split`.
    """
    return dataset.split(parts.get_dict(), by.value, seed.value)


@recorded
def join_datasets(heads: orm.Dict | None = None, **datasets: DatasetData) -> DatasetData:
    """Join datasets in the order of their names; see `DatasetData.concatenate`.

    :param heads: the head of each dataset by the name that it is passed under; without it all must have one level.
    """
    names = sorted(datasets)
    if heads is not None and set(heads.get_dict()) != set(names):
        raise LevelError(f'the datasets are {", ".join(names)}, but there are heads for {", ".join(heads.get_dict())}.')
    ordered = [heads.get_dict()[name] for name in names] if heads is not None else None
    return DatasetData.concatenate([datasets[name] for name in names], ordered)


@recorded
def drop_duplicates(dataset: DatasetData, tolerance: orm.Float) -> DatasetData:
    """Drop frames that repeat an earlier one; see `DatasetData.without_duplicates`."""
    return dataset.without_duplicates(tolerance.value)


@recorded
def select_frames(dataset: DatasetData, indices: orm.List) -> DatasetData:
    """Take some frames of a dataset, in the order in which they are named; no frame is copied.

    :param indices: positions of the frames, from 0 on.
    """
    return dataset.select(indices.get_list())


@recorded
def select_groups(dataset: DatasetData, groups: orm.List) -> DatasetData:
    """Take the frames of some groups."""
    import numpy as np

    return dataset.select(np.isin(dataset.frames.column('group'), groups.get_list()))


@recorded
def name_group(dataset: DatasetData, group: orm.Str) -> DatasetData:
    """Put all frames of a dataset into one group, under whose name its errors are told."""
    return _with_fields(dataset, group=group.value)


@recorded
def state_cell(dataset: DatasetData, fields: orm.Dict) -> DatasetData:
    """Say `charge` or `spin` of the cells of frames that do not say it: those of a crystal that joins its defects."""
    stated = fields.get_dict()
    if wrong := sorted(set(stated) - set(VALUES)):
        raise ValueError(f'{", ".join(wrong)}: only `charge` and `spin` can be stated.')
    for name, value in stated.items():
        told = set(dataset.base.attributes.get(VALUES[name])) - {value}
        if told:
            raise ValueError(f'there are frames with the {name} {", ".join(map(str, told))}, and not {value}.')
    return _with_fields(dataset, **stated)


def _with_fields(dataset: DatasetData, **fields: Any) -> DatasetData:
    """Return the frames with other values of some fields, which are the same for all."""
    from dataclasses import replace

    return DatasetData.from_frames((replace(frame, **fields) for frame in dataset), dataset.levels or None)


@recorded
def import_extxyz(file: orm.SinglefileData, level: orm.Dict) -> DatasetData:
    """Read an extended XYZ file whose labels are of one level of theory; its hash is the source of each frame."""
    import gzip
    import io
    from dataclasses import replace

    from aiida_perovmlip.compute.extxyz import read_extxyz

    source = hash_of(file)
    with file.open(mode='rb') as handle:
        plain = gzip.GzipFile(fileobj=handle) if file.filename.endswith('.gz') else handle
        text = io.TextIOWrapper(plain, encoding='utf-8')
        frames = (replace(frame, source=source) for frame in read_extxyz(text, file.filename))
        return DatasetData.from_frames(frames, level.get_dict() or None)
