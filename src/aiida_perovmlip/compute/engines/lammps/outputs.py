"""What LAMMPS writes while it runs, read piece by piece."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engines.lammps.box import Turn
from aiida_perovmlip.compute.engines.lammps.inputs import ROW
from aiida_perovmlip.compute.frame import Array

BAR = 1.6021765e6
"""One eV/Å³ in bar, as LAMMPS has it in `units metal`."""

VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))
"""The rows and columns of xx yy zz yz xz xy."""

HEADER = 9
"""Lines before the atoms in a dump."""

FINISHED = 'Total wall time:'
"""What LAMMPS says last."""

EXPLODED = (
    'Lost atoms',
    'Non-numeric',
    'Out of range atoms',
    'Neighbor list overflow',
    'Too many neighbor bins',
    'box dimensions',
    'simulation unstable',
)
"""Words of errors of LAMMPS by which one knows that the atoms have flown apart."""


@dataclass(frozen=True)
class Row:
    """One row of thermodynamics: temperature in K, energies in eV, volume in Å³, stress (6,) in eV/Å³ as ASE has it."""

    step: int
    temperature: float
    potential: float
    kinetic: float
    conserved: float
    volume: float
    stress: Array


@dataclass(frozen=True)
class Dump:
    """All atoms at one step, in the cell of the run.

    :param positions: (n_atoms, 3) Å, unwrapped, from the origin of the cell.
    :param cell: (3, 3) Å.
    :param forces: (n_atoms, 3) eV/Å.
    :param velocities: (n_atoms, 3) Å/ps; None where they were not written.
    """

    step: int
    positions: Array
    cell: Array
    forces: Array
    velocities: Array | None


class LogReader:
    """Reads the rows of a log that grows."""

    def __init__(self, path: Path, turn: Turn) -> None:
        self.path, self.turn = path, turn
        self._position = 0
        self._rest = b''

    def rows(self) -> list[Row]:
        """Return the rows that are new, without those that are not whole yet."""
        if not self.path.is_file():
            return []
        with self.path.open('rb') as handle:
            handle.seek(self._position)
            text = handle.read()
        self._position += len(text)
        *lines, self._rest = (self._rest + text).split(b'\n')
        found = (row_of(line.decode(errors='replace'), self.turn) for line in lines)
        return [row for row in found if row is not None]


def row_of(line: str, turn: Turn) -> Row | None:
    """Return the row in a line of the log; None where there is none."""
    match = re.fullmatch(r'\s*- \[(.*?),?\s*\]\s*', line)
    if match is None:
        return None
    try:
        values = [float(value) for value in match.group(1).split(',')]
    except ValueError:
        return None
    if len(values) != len(ROW):
        return None
    step, temperature, potential, kinetic, conserved, volume, *pressures = values
    xx, yy, zz, yz, xz, xy = (-pressure / BAR for pressure in pressures)
    tensor = turn.tensor_back(np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]))
    return Row(int(step), temperature, potential, kinetic, conserved, volume, tensor[VOIGT])


def read_dump(path: Path, turn: Turn) -> Dump:
    """Read the dump of one step."""
    try:
        *lines, body = path.read_bytes().split(b'\n', HEADER)
        header = [line.decode() for line in lines]
        step, n_atoms = int(header[1]), int(header[3])
        box, origin = _box_of(header[4], header[5:8])
        columns = header[8].split()[2:]
        table = np.array(body.split(), dtype=float).reshape(n_atoms, len(columns))
    except (OSError, ValueError, IndexError) as error:
        raise JobError(Status.FAILED, f'The dump {path.name} of LAMMPS cannot be read: {error}') from error

    def vectors(*names: str) -> Array:
        return table[:, [columns.index(name) for name in names]]

    return Dump(
        step=step,
        positions=turn.back(vectors('xu', 'yu', 'zu') - origin),
        cell=turn.back(box),
        forces=turn.back(vectors('fx', 'fy', 'fz')),
        velocities=turn.back(vectors('vx', 'vy', 'vz')) if 'vx' in columns else None,
    )


def _box_of(title: str, bounds: list[str]) -> tuple[Array, Array]:
    """Return box (3, 3) and origin (3,) in Å; the bounds of a tilted box are those of what it fits into."""
    values = np.array([[float(value) for value in line.split()] for line in bounds])
    low, high = values[:, 0].copy(), values[:, 1].copy()
    xy, xz, yz = values[:, 2] if 'xy xz yz' in title else (0.0, 0.0, 0.0)
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    box = np.diag(high - low)
    box[1, 0], box[2, 0], box[2, 1] = xy, xz, yz
    return box, low


@dataclass(frozen=True)
class Verdict:
    """What a log says of the run as a whole.

    :param error: the first error; empty where there is none.
    :param is_finished: whether LAMMPS came to its own end.
    """

    error: str
    is_finished: bool
    warnings: list[str]
    about: dict[str, Any]

    @property
    def has_exploded(self) -> bool:
        """Whether the error is one of atoms that have flown apart."""
        return any(word in self.error for word in EXPLODED)


EXPECTED = ('Temperature for thermo pressure is not for group all', 'Triclinic box skew is')
"""Warnings of what is meant."""


def judge(log: str) -> Verdict:
    """Return what a log, and what was printed beside it, says of the run."""
    error = next(iter(re.findall(r'^ERROR.*?:\s*(.*)$', log, flags=re.MULTILINE)), '')
    found = re.findall(r'^WARNING:\s*(.*?)(?:\s*\(src.*)?$', log, flags=re.MULTILINE)
    warnings = [each for each in dict.fromkeys(found) if not each.startswith(EXPECTED)]
    about: dict[str, Any] = {}
    if version := re.search(r'^LAMMPS \((.*?)\)', log, flags=re.MULTILINE):
        about['version'] = version.group(1)
    if plugin := re.search(r'^NEPAdapters (\S+):', log, flags=re.MULTILINE):
        about['nep_adapters'] = plugin.group(1)
    if tasks := re.findall(r'with (\d+) MPI tasks x (\d+) OpenMP threads', log):
        about['processes'], about['threads'] = map(int, tasks[-1])
    if dangerous := re.findall(r'^Dangerous builds = (\d+)', log, flags=re.MULTILINE):
        about['dangerous_builds'] = sum(map(int, dangerous))
    return Verdict(error.strip(), FINISHED in log, warnings, about)
