"""Files for programs that know nothing of nodes, with provenance."""

from __future__ import annotations

import tempfile
from pathlib import Path

from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData

DIALECTS = ('mace', 'gpumd', 'nequip', 'ase')


@recorded
def potential_folder(potential: PotentialData) -> orm.FolderData:
    """Take all files of a potential as a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        return orm.FolderData(tree=str(potential.export(Path(scratch) / 'potential')))


@recorded
def potential_file(potential: PotentialData, name: orm.Str) -> orm.SinglefileData:
    """Take one file of a potential under its own name."""
    names = potential.file_names()
    if name.value not in names:
        raise ValueError(f'the potential has no file `{name.value}`; it has {", ".join(names)}.')
    with potential.base.repository.open(name.value, 'rb') as handle:
        return orm.SinglefileData(handle, filename=Path(name.value).name)


@recorded
def dataset_file(dataset: DatasetData, dialect: orm.Str) -> orm.SinglefileData:
    """Write the frames of a dataset as extended XYZ in the dialect of a trainer; see `DatasetData.to_extxyz`."""
    if dialect.value not in DIALECTS:
        raise ValueError(f'there is no dialect `{dialect.value}`; there are {", ".join(DIALECTS)}.')
    with tempfile.TemporaryDirectory() as scratch:
        return orm.SinglefileData(dataset.to_extxyz(Path(scratch) / 'dataset.xyz', dialect.value))
