"""Fixtures of the tests of what runs beside the potential."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope='session')
def copper_files(tmp_path_factory: pytest.TempPathFactory, copper: Any) -> Path:
    """Return the folder of a pair potential that was trained on EMT, at temperatures up to melting."""
    from ase.calculators.emt import EMT

    from aiida_perovmlip.compute.architecture import Training
    from aiida_perovmlip.compute.architectures.reference import Reference, ReferenceSettings
    from aiida_perovmlip.compute.checkpoint import Checkpoint
    from aiida_perovmlip.compute.frame import Frame
    from aiida_perovmlip.compute.frames import write_folder
    from aiida_perovmlip.compute.shard import build_shards

    folder, random, frames = tmp_path_factory.mktemp('copper'), np.random.default_rng(0), []
    for _ in range(15):
        atoms = copper.copy()
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(0, 0.03, (3, 3))), scale_atoms=True)
        atoms.positions += random.normal(0, random.uniform(0.05, 0.3), atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_stress()
        frames.append(Frame.from_atoms(atoms))
    (folder / 'potential').mkdir()
    Reference().train(
        Training(
            folder=folder,
            checkpoint=Checkpoint(folder / 'checkpoint', 'copper'),
            training=write_folder(build_shards(frames), folder / 'frames'),
            settings=ReferenceSettings(cutoff=4.0, basis_size=8),
        )
    )
    return folder / 'potential'
