"""The thermodynamic rows of a trajectory by themselves, so that what they tell needs no frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from aiida_perovmlip.compute.chunk import MODULUS, Chunk, ChunkEntry, Steps, TrajectoryError, kind_of


class Rows:
    """Collects rows; they are few bytes each, so that those of a job fit into memory.

    :param begun: a chunk of rows to go on behind.
    """

    def __init__(self, n_atoms: int, begun: Chunk | None = None) -> None:
        self.n_atoms = n_atoms
        self._columns: dict[str, list[Any]] = {'thermo_steps': []}
        if begun is not None:
            self._columns = {name: list(column) for name, column in begun.columns.items() if name.startswith('thermo_')}

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add the row of a step."""
        for name, value in {'steps': step, **values}.items():
            self._columns.setdefault(f'thermo_{name}', []).append(value)

    def chunk(self) -> Chunk:
        """Return all rows as a chunk without frames."""
        columns = {'steps': [], 'positions': [], 'cells': [], **self._columns}
        return Chunk({name: _column(name, rows, self.n_atoms) for name, rows in columns.items()})


def _column(name: str, rows: list[Any], n_atoms: int) -> np.ndarray[Any, Any]:
    """Return a column in its type and shape, also where it is empty."""
    kind = kind_of(name, n_atoms)
    if kind is None:
        raise TrajectoryError(f'there is no column `{name}`.')
    return np.array(rows, dtype=kind[0]).reshape(len(rows), *kind[1])


def without_rows(entries: Iterable[ChunkEntry], rows: Chunk) -> list[ChunkEntry]:
    """Return chunks of which the frames alone count, as all their rows are elsewhere.

    No file is read: a digest is the sum over frames and rows, so that of the rows is taken from it.

    :param rows: the rows of all these chunks in order, and perhaps more behind these.
    """
    left, begin = [], 0
    for entry in entries:
        end = begin + entry.thermo.count
        theirs = Chunk(
            {
                name: column[begin:end] if name.startswith('thermo_') else column[:0]
                for name, column in rows.columns.items()
            }
        )
        if Steps.of(theirs.columns['thermo_steps']) != entry.thermo:
            raise TrajectoryError(f'the rows are not those of the chunk {entry.path or entry.name[:12]}.')
        begin = end
        digest = f'{(int(entry.digest, 16) - int(theirs.digest, 16)) % MODULUS:064x}'
        alone = replace(entry, digest=digest, thermo=Steps(), skipped_thermo=entry.skipped_thermo + entry.thermo.count)
        left += [alone] if alone.frames.count else []
    return left
