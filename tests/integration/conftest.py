"""Fixtures of the tests with real codes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def store_nep(shared_data: Path, tmp_path: Path) -> Callable[[str], Any]:
    """Return a function that stores a NEP of the shared data as a potential."""
    from aiida_perovmlip.compute.architectures.nep.potential_file import FILENAME, read_nep
    from aiida_perovmlip.data.potential import PotentialData

    def store(name: str) -> Any:
        folder = tmp_path / Path(name).stem
        folder.mkdir()
        shutil.copyfile(shared_data / 'nep89' / name, folder / FILENAME)
        header = read_nep(folder / FILENAME).header
        return PotentialData(
            folder,
            architecture='nep',
            elements=sorted(header.elements),
            cutoff=6.0,
            dtype='float32',
            n_parameters=header.n_parameters,
        ).store()

    return store
