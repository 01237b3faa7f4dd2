"""The folder in which a run leaves its trajectory, whole at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aiida_perovmlip.compute.chunk import THERMO, Chunk, ChunkEntry, Steps, TrajectoryError, joined_steps, kind_of
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.frames import sha256_of
from aiida_perovmlip.compute.moving_atoms import MovingAtoms

FOLDER = 'trajectory'
ATOMS = 'atoms.npz'
MANIFEST = 'chunks.json'
FORMAT = 1
MOST_BYTES = 8_000_000
"""A chunk is closed when it holds as much: memory never has to hold more of a trajectory than this."""


class ChunkWriter:
    """Writes a trajectory into a folder, whole at any moment.

    A chunk is written under another name, brought to the disk, renamed, and then named in the list of chunks. Where
    chunks end depends on the frames and rows alone, never on the clock or on how often the run was taken up.

    :param folder: gets the folder `trajectory`.
    :param closed: go on behind so many closed chunks, as `n_closed` said when the state was saved; files of later
        ones go, since the run will write their frames again.
    :param rest: what `open_chunk` gave when the state was saved.
    """

    def __init__(
        self,
        folder: Path,
        atoms: MovingAtoms,
        most_bytes: int = MOST_BYTES,
        closed: int = 0,
        rest: Chunk | None = None,
    ) -> None:
        self.place, self.atoms, self.most_bytes = folder / FOLDER, atoms, most_bytes
        self.place.mkdir(parents=True, exist_ok=True)
        self._columns: set[str] = set()
        self.entries: list[ChunkEntry] = []
        self._rows: dict[str, list[Array]] = {}
        if closed:
            self._take_up(closed)
        else:
            _write_whole(self.place / ATOMS, self.atoms.write)
        self._list()
        for path in self.place.iterdir():
            if path.name not in {ATOMS, MANIFEST, *(entry.path for entry in self.entries)}:
                path.unlink()
        self._last = {
            'steps': joined_steps(entry.frames for entry in self.entries),
            'thermo_steps': joined_steps(entry.thermo for entry in self.entries),
        }
        if rest is not None:
            self._refill(rest)

    def _take_up(self, closed: int) -> None:
        """Read what is there of an earlier run of this one."""
        columns, entries = read_manifest(self.place)
        difference = MovingAtoms.read_file(self.place / ATOMS).difference(self.atoms)
        if difference is not None:
            raise TrajectoryError(f'the trajectory in the folder is of other atoms: their {difference} differ.')
        missing = [entry.path for entry in entries[:closed] if not (self.place / entry.path).is_file()]
        if len(entries) < closed or missing:
            lacking = ', '.join(missing) or f'only {len(entries)} were written'
            raise TrajectoryError(f'of the {closed} chunks that the state knows of, not all are there: {lacking}.')
        self.entries, self._columns = entries[:closed], set(columns)

    def _refill(self, rest: Chunk) -> None:
        """Take the rows of a chunk that was open when the state was saved."""
        problem = rest.problem(len(self.atoms))
        if problem is not None:
            raise TrajectoryError(f'the chunk that was open when the state was saved is none: {problem}')
        for name, column in rest.columns.items():
            self._rows[name] = list(column)
            if name in self._last:
                self._last[name] = self._last[name].then(Steps.of(column))
        self._columns |= {name for name in rest.columns if len(rest.columns[name])}

    @property
    def n_closed(self) -> int:
        """Number of chunks that are closed."""
        return len(self.entries)

    def frame(self, step: int, positions: Array, cell: Array, velocities: Array | None = None) -> None:
        """Add a frame.

        :param positions: (N, 3) Å, unwrapped.
        :param cell: (3, 3) Å.
        :param velocities: (N, 3) Å/ps, for all frames or for none.
        """
        row = {'positions': positions, 'cells': cell, **({} if velocities is None else {'velocities': velocities})}
        self._add('steps', step, row)

    def thermo(self, step: int, **values: Any) -> None:
        """Add a thermodynamic row; names, units and shapes are those of `THERMO`, the same in each row."""
        self._add('thermo_steps', step, {f'thermo_{name}': value for name, value in values.items()})

    def _add(self, axis: str, step: int, row: Mapping[str, Any]) -> None:
        """Add a checked row, and close the chunk where it is full."""
        what = 'the frame' if axis == 'steps' else 'the thermodynamic row'
        last = self._last[axis]
        if step < 0 or (last.count and step <= last.last):
            raise TrajectoryError(
                f'{what} of step {step} comes after that of step {last.last}; steps have to increase.'
            )
        known = {name for name in self._columns if name.startswith('thermo_') == (axis == 'thermo_steps')} - {axis}
        if axis in self._columns and known != set(row):
            differing = ', '.join(f'`{name.removeprefix("thermo_")}`' for name in sorted(known ^ set(row)))
            raise TrajectoryError(
                f'{what} of step {step} differs from those before in {differing}: all or none has it.'
            )
        rows = {name: self._value(name, value, f'{what} of step {step}') for name, value in row.items()}
        for name, value in {axis: np.array(step, np.int64), **rows}.items():
            self._rows.setdefault(name, []).append(value)
        self._columns |= {axis, *rows}
        self._last[axis] = last.then(Steps(1, step, step))
        if sum(len(column) * column[0].nbytes for column in self._rows.values() if column) >= self.most_bytes:
            self.close()

    def _value(self, name: str, value: Any, whose: str) -> Array:
        """Return a value in its type; refuse one that is unknown, misshapen or not finite."""
        kind = kind_of(name, len(self.atoms))
        if kind is None:
            raise TrajectoryError(f'{whose} has `{name.removeprefix("thermo_")}`; known are {", ".join(THERMO)}.')
        array = np.array(value, dtype=np.float64)
        if array.shape != kind[1]:
            raise TrajectoryError(f'{whose}: `{name}` has shape {array.shape} instead of {kind[1]}.')
        with np.errstate(over='ignore'):
            cast = array.astype(kind[0])
        if not np.isfinite(cast).all():
            raise TrajectoryError(f'{whose}: `{name}` has a value that is not finite.')
        return cast

    def open_chunk(self) -> Chunk:
        """Return what was added since the last chunk was closed; it may be empty."""
        always = {'steps', 'positions', 'cells', 'thermo_steps'}
        columns = {}
        for name in sorted(always | {name for name, column in self._rows.items() if column}):
            dtype, inner = kind_of(name, len(self.atoms)) or (np.dtype(np.float64), ())
            rows = self._rows.get(name) or np.zeros((0, *inner))
            columns[name] = np.asarray(rows, dtype=dtype)
        return Chunk(columns)

    def close(self) -> None:
        """Close the chunk with what there is: when it is full, and at the end of a run."""
        chunk = self.open_chunk()
        if not len(chunk) and not len(chunk.columns['thermo_steps']):
            return
        path = self.place / f'{self.n_closed + 1:06d}.npz'
        _write_whole(path, chunk.write)
        self.entries.append(ChunkEntry.of(chunk, sha256_of(path), path.stat().st_size, path.name))
        self._list()
        self._rows = {}

    def _list(self) -> None:
        """Write the list of chunks."""
        text = manifest(self._columns, self.entries)
        _write_whole(self.place / MANIFEST, lambda handle: handle.write(text.encode()))


def read_manifest(place: Path) -> tuple[tuple[str, ...], list[ChunkEntry]]:
    """Return the columns and the list of chunks in the folder of a trajectory."""
    try:
        return parse_manifest((place / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise TrajectoryError(f'there is no trajectory in {place}: `{MANIFEST}` is missing.') from error


def parse_manifest(text: str) -> tuple[tuple[str, ...], list[ChunkEntry]]:
    """Return the columns and the list of chunks of the text of a list."""
    try:
        content = json.loads(text)
        if content['format'] == FORMAT:
            return tuple(content['columns']), [ChunkEntry.from_dict(entry) for entry in content['chunks']]
    except (KeyError, TypeError, ValueError) as error:
        raise TrajectoryError(f'`{MANIFEST}` is no list of chunks ({error}).') from error
    raise TrajectoryError(f'the trajectory is written in format {content["format"]}; this version reads {FORMAT}.')


def manifest(columns: Iterable[str], entries: Iterable[ChunkEntry]) -> str:
    """Return the list of chunks as JSON text."""
    content = {'format': FORMAT, 'columns': sorted(columns), 'chunks': [entry.to_dict() for entry in entries]}
    return json.dumps(content, sort_keys=True)


def _write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file that gets its name when it is complete and on the disk."""
    partial = path.with_name(f'{path.name}.partial')
    with partial.open('wb') as handle:
        write(handle)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # a name that is lost with the power is worth nothing either
    finally:
        os.close(folder)
