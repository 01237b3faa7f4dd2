"""What GPUMD writes while it runs, read piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engines.gpumd.inputs import FEMTOSECONDS
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.md import GPA

FINISHED = 'Finished running GPUMD.'
"""What GPUMD says last."""

SCALARS = ('T', 'KE', 'PE')
STRESSES = ('sxx', 'syy', 'szz', 'syz', 'sxz', 'sxy')
VECTORS = ('ax', 'ay', 'az', 'bx', 'by', 'bz', 'cx', 'cy', 'cz')
OBLIQUE = (*SCALARS, *STRESSES, *VECTORS)
ORTHOGONAL = (*SCALARS, *STRESSES, 'ax', 'by', 'cz')
BARE = {len(OBLIQUE): OBLIQUE, len(ORTHOGONAL): ORTHOGONAL}
"""The columns of a file without a header, by their number."""


@dataclass(frozen=True)
class Row:
    """One row of thermodynamics: temperature in K, energies in eV, volume in Å³, stress (6,) in eV/Å³ as ASE has it."""

    temperature: float
    kinetic: float
    potential: float
    volume: float
    stress: Array


class ThermoReader:
    """Reads the rows of a `thermo.out` that grows, with or without headers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0
        self._rest = b''
        self._columns: tuple[str, ...] | None = None

    def rows(self) -> Iterator[Row]:
        """Yield the rows that are new and whole."""
        if not self.path.is_file():
            return
        with self.path.open('rb') as handle:
            handle.seek(self._position)
            text = handle.read()
        self._position += len(text)
        *lines, self._rest = (self._rest + text).split(b'\n')
        for line in lines:
            words = line.decode(errors='replace').split()
            if words and words[0].startswith('#'):
                self._read_header(' '.join(words).lstrip('#').split())
            elif words:
                yield self._row(words)

    def _read_header(self, words: list[str]) -> None:
        """Take the names of columns from a line of a header."""
        if words[:1] == ['columns']:
            self._columns = tuple(words[1:])

    def _row(self, words: list[str]) -> Row:
        """Return the row of a line."""
        columns = self._columns or BARE.get(len(words))
        try:
            values = dict(zip(columns or (), map(float, words), strict=True))
            temperature, kinetic, potential = (values[name] for name in SCALARS)
            stress = -np.array([values[name] for name in STRESSES]) / GPA
            vectors = np.array([values.get(name, 0.0) for name in VECTORS]).reshape(3, 3)
        except (ValueError, KeyError) as error:
            raise JobError(
                Status.FAILED,
                f'{self.path.name} of GPUMD has a row of {len(words)} columns that cannot be read: {error}.',
            ) from error
        return Row(temperature, kinetic, potential, abs(float(np.linalg.det(vectors))), stress)


@dataclass(frozen=True)
class Dump:
    """All atoms at one step.

    :param positions: (n_atoms, 3) Å, as GPUMD has wrapped them.
    :param cell: (3, 3) Å.
    :param velocities: (n_atoms, 3) Å/ps; None where they were not written.
    :param time: fs since GPUMD was started; None where it does not say.
    """

    symbols: list[str]
    positions: Array
    cell: Array
    velocities: Array | None
    time: float | None


def read_dump(path: Path) -> Dump | None:
    """Read a file with one frame; None where it is not whole yet."""
    if not path.is_file():
        return None
    text = path.read_text()
    lines = text.splitlines()
    if len(lines) < 2 or not text.endswith('\n') or len(lines) < int(lines[0]) + 2:
        return None
    try:
        cell = np.array(_quoted(lines[1], 'lattice').split(), dtype=float).reshape(3, 3)
        places = _places(re.findall(r'properties=(\S+)', lines[1], flags=re.IGNORECASE)[0])
        table = [line.split() for line in lines[2 : int(lines[0]) + 2]]
        positions = _columns(table, places['pos'])
        velocities = FEMTOSECONDS * _columns(table, places['vel']) if 'vel' in places else None
        time = re.search(r'\bTime=(\S+)', lines[1])
        symbols = [words[places['species'].start] for words in table]
        return Dump(symbols, positions, cell, velocities, float(time.group(1)) if time else None)
    except (ValueError, IndexError, KeyError) as error:
        raise JobError(Status.FAILED, f'The dump {path.name} of GPUMD cannot be read: {error}.') from error


def _columns(table: list[list[str]], place: slice) -> Array:
    values: Array = np.array([words[place] for words in table], dtype=float)
    return values


def _quoted(line: str, name: str) -> str:
    """Return the quoted value of a name in a line of extended XYZ."""
    found = re.findall(rf'{name}\s*=\s*"([^"]*)"', line, flags=re.IGNORECASE)
    if not found:
        raise ValueError(f'there is no {name}')
    return str(found[0])


def _places(properties: str) -> dict[str, slice]:
    """Return the columns of each property."""
    words, found, begin = properties.split(':'), {}, 0
    for name, _, count in zip(words[0::3], words[1::3], words[2::3], strict=True):
        found[name] = slice(begin, begin + int(count))
        begin += int(count)
    return found


class Unwrapper:
    """Follows atoms through the periodic boundaries, from frame to frame.

    GPUMD's own unwrapped positions leave out what a barostat moves, so that they are of no use where there is one. An
    atom is taken to be where it is nearest to where it was, relative to the cell.
    """

    MOST = 0.4
    """Part of a cell that an atom may move between two frames."""

    def __init__(self, positions: Array, cell: Array) -> None:
        self.places = positions @ np.linalg.inv(cell)

    def follow(self, positions: Array, cell: Array, step: int) -> Array:
        """Return positions (n_atoms, 3) in Å of the next frame, unwrapped."""
        wrapped = positions @ np.linalg.inv(cell)
        places = wrapped + np.round(self.places - wrapped)
        farthest = float(np.abs(places - self.places).max())
        if not farthest < self.MOST:
            raise JobError(
                Status.FAILED,
                f'An atom moved by {farthest:.2f} of the cell in the steps before step {step}, so that it cannot be '
                'told through which side: take a smaller `frames_every`, or a larger cell.',
            )
        self.places = places
        unwrapped: Array = places @ cell
        return unwrapped


@dataclass(frozen=True)
class Verdict:
    """What GPUMD printed of the run as a whole: its errors, whether it came to its own end, and its version."""

    error: str
    is_finished: bool
    version: str | None

    @property
    def is_of_input(self) -> bool:
        """Whether GPUMD refused its input."""
        return self.error.startswith('Input Error')


def judge(log: str) -> Verdict:
    """Return what the printed text says of the run."""
    error = re.search(r'^\s*(\w+ Error):\s*$(?:.*?)^\s*Error text:\s*(.*?)\s*$', log, flags=re.MULTILINE | re.DOTALL)
    version = re.search(r'[Vv]ersion\s+(\d[\w.]*)', log)
    return Verdict(
        f'{error.group(1)}: {error.group(2)}' if error else '',
        FINISHED in log,
        version.group(1) if version else None,
    )
