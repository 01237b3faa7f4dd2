"""Named arrays in an uncompressed `.npz` without dates and pickles: equal arrays always give equal bytes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from typing import BinaryIO, cast

import numpy as np

from aiida_perovmlip.compute.frame import Array


def write_arrays(handle: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write arrays under their names, in alphabetical order."""
    with zipfile.ZipFile(handle, 'w', zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            with archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as member:
                write_array(cast(BinaryIO, member), arrays[name])


def write_array(handle: BinaryIO, array: Array) -> None:
    """Write one array in numpy's own format, never as a pickle."""
    np.lib.format.write_array(handle, np.ascontiguousarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]


def read_arrays(handle: BinaryIO, wanted: Iterable[str] | None = None) -> dict[str, Array]:
    """Read all arrays, or those of these names that are there; nothing else of the file is read."""
    with np.load(handle, allow_pickle=False) as archive:
        chosen = set(archive.files) if wanted is None else set(wanted) & set(archive.files)
        return {name: archive[name] for name in sorted(chosen)}
