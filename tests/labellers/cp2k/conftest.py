"""Recorded outputs of CP2K 2023.1 and the structures that they are of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.labellers.cp2k.output import Cp2kOutput, Snapshot
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings
from aiida_perovmlip.labellers.cp2k.trajectory import read_cells, read_steps
from aiida_perovmlip.labellers.cp2k.verdict import Batch, Files, Verdict, judge

RECORDED = Path(__file__).parent / 'recorded'
SITES = ((0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0))
FAST = {
    'basis': 'SZV',
    'cutoff': 150.0,
    'rel_cutoff': 30.0,
    'eps_default': 1e-10,
    'eps_scf': 1e-5,
    'smallest_cell': 0.0,
}
MESH = {**FAST, 'kpoints': [2, 2, 2]}


def make_cspbi3(length: float = 6.3, variant: int = 0, size: float = 0.1, **fields: Any) -> Frame:
    """Return the cubic cell of five atoms with the atoms moved by up to `size` Å; each variant is another one."""
    atoms = Atoms('CsPbI3', scaled_positions=SITES, cell=length * np.eye(3), pbc=True)
    places = np.arange(15).reshape(5, 3)
    positions = atoms.positions + size * np.sin(places * (variant + 1.3) + variant)
    return Frame(atoms.numbers, positions, atoms.cell.array, atoms.pbc, **fields)


def make_lead() -> Frame:
    """Return a metal: one atom of lead in its face-centred cell."""
    cell = 2.47 * (np.ones((3, 3)) - np.eye(3))
    return Frame(np.array([82], np.uint8), np.zeros((1, 3)), cell, np.ones(3, bool))


def make_water(box: float = 10.0, shift: float = 0.0) -> Frame:
    """Return a molecule in the corner of a box, not periodic."""
    positions = np.array([(0, 0, 0), (0.76, 0.59, 0), (-0.76, 0.59, 0)]) + shift
    return Frame(np.array([8, 1, 1], np.uint8), positions, box * np.eye(3), np.zeros(3, bool))


@pytest.fixture(scope='session')
def cspbi3() -> Callable[..., Frame]:
    """Return a function that makes small cells of CsPbI3."""
    return make_cspbi3


@pytest.fixture(scope='session')
def water() -> Callable[..., Frame]:
    """Return a function that makes an isolated molecule."""
    return make_water


@pytest.fixture(scope='session')
def fast() -> dict[str, Any]:
    """Return settings with which CP2K takes seconds."""
    return dict(FAST)


@pytest.fixture(scope='session')
def mesh() -> dict[str, Any]:
    """Return the same settings with k-points."""
    return dict(MESH)


@dataclass
class Record:
    """A recorded run: what was asked, and the files that CP2K left."""

    name: str
    settings: dict[str, Any]
    frames: list[Frame]
    repair: str | None = None

    @property
    def text(self) -> str:
        return (RECORDED / f'{self.name}.out').read_text()

    def read(self, text: str | None = None) -> tuple[list[Snapshot], Cp2kOutput]:
        output = Cp2kOutput((self.text if text is None else text).splitlines(keepends=True))
        return list(output.snapshots()), output

    def judge(self, text: str | None = None, steps: list[Any] | None = None, **changes: Any) -> Verdict:
        settings = read_settings(Cp2kSettings, {**self.settings, **changes.pop('settings', {})})
        frames = changes.pop('frames', self.frames)
        batch = Batch(settings, frames, [f'digest{index}' for index in range(len(frames))], self.repair)
        output = Cp2kOutput((self.text if text is None else text).splitlines(keepends=True))
        found = self.steps() if steps is None else steps
        return judge(batch, output, Files(found, list(read_cells(self._lines('-1.cell')))))

    def steps(self) -> list[Any]:
        return list(read_steps(self._lines('-pos-1.xyz')))

    def path(self, ending: str) -> Path:
        return RECORDED / f'{self.name}{ending}'

    def _lines(self, ending: str) -> list[str]:
        path = self.path(ending)
        return path.read_text().splitlines(keepends=True) if path.is_file() else []


def _records() -> dict[str, Record]:
    one = [make_cspbi3()]
    three = [make_cspbi3(6.0), make_cspbi3(6.6, 1), make_cspbi3(6.2, 2)]
    moving = [make_cspbi3(size=0.02)]
    records = [
        Record('ot', {**FAST, 'band_edges': True}, one),
        Record('kpoints', {**MESH, 'band_edges': True, 'gamma_centred': True}, one),
        Record('unconverged', {**FAST, 'max_scf': 3, 'outer_scf': 0}, one),
        Record('batch', MESH, three),
        Record('batch_out_of_time', FAST, three),
        Record('dynamics', {**MESH, 'run': 'md', 'steps': 3}, one),
        Record('relaxation', {**MESH, 'run': 'relax', 'steps': 20, 'max_force': 0.05}, moving),
        Record('relaxation_stopped', {**MESH, 'run': 'relax', 'steps': 2, 'max_force': 0.001}, moving),
        Record('cell_relaxation', FAST, one),  # with RUN_TYPE CELL_OPT
        Record('anion', {**FAST, 'band_edges': True}, [make_cspbi3(charge=-1)]),
        Record('smearing', MESH, one, 'diagonalisation'),
        Record('metal', {**FAST, 'kpoints': [3, 3, 3]}, [make_lead()], 'diagonalisation'),
        Record('isolated', FAST, [make_water()]),
        Record('no_basis', {**FAST, 'basis_sets': {'Pb': 'NOSUCH-GTH-q4'}}, one),
        Record('bad_keyword', {**FAST, 'sections': {'FORCE_EVAL': {'DFT': {'NO_SUCH_KEY': 1}}}}, one),
    ]
    return {record.name: record for record in records}


@pytest.fixture(scope='session')
def recorded() -> Callable[[str], Record]:
    """Return a function that gives a recorded run by its name."""
    return _records().__getitem__
