"""A trajectory: an ordered list of chunks, opened one after the other, of atoms that stay the same.

The columns of a chunk stand in `compute.chunk`. Beside the chunks lie `atoms.npz`, with numbers (N,), masses (N,) in
amu and pbc (3,), and the list `chunks.json`; a file that it does not name is none of the trajectory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from aiida_perovmlip.compute.chunk import THERMO, Chunk, ChunkEntry, Steps, TrajectoryError, joined_steps
from aiida_perovmlip.compute.chunk_writer import ATOMS, FOLDER, ChunkWriter, read_manifest
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.moving_atoms import MovingAtoms

__all__ = ['THERMO', 'Block', 'Chunk', 'ChunkEntry', 'ChunkWriter', 'MovingAtoms', 'Trajectory', 'TrajectoryError']

PLACES = ('positions', 'cells')

Opener = Callable[[ChunkEntry], AbstractContextManager[BinaryIO]]


class Block(NamedTuple):
    """Some consecutive frames: times (F,) in ps, unwrapped positions (F, N, 3) in Å, cells (F, 3, 3) in Å."""

    times: Array
    positions: Array
    cells: Array


class Trajectory:
    """Frames and thermodynamic rows over chunks that are opened when they are needed, one in memory at a time.

    :param timestep: fs.
    :param columns: the columns that the chunks have.
    :param opening: gives what opens a chunk, for as long as chunks are read one after the other.
    """

    def __init__(
        self,
        atoms: MovingAtoms,
        timestep: float,
        entries: Sequence[ChunkEntry],
        columns: Iterable[str],
        opening: Callable[[], AbstractContextManager[Opener]],
    ) -> None:
        if not timestep > 0:
            raise TrajectoryError(f'the timestep is {timestep} fs; it has to be positive.')
        self.atoms, self.timestep, self.entries = atoms, float(timestep), tuple(entries)
        self.columns = tuple(sorted(columns))
        self._opening = opening
        self._last: tuple[int, Chunk] | None = None  # asking for one frame after the other reads a chunk once

    @classmethod
    def open_folder(cls, folder: Path, timestep: float) -> Trajectory:
        """Open what a `ChunkWriter` wrote into a folder, as far as it has closed its chunks."""
        place = folder / FOLDER
        columns, entries = read_manifest(place)
        atoms = MovingAtoms.read_file(place / ATOMS)
        return cls(
            atoms, timestep, entries, columns, lambda: nullcontext(lambda entry: (place / entry.path).open('rb'))
        )

    def of_chunks(self, entries: Sequence[ChunkEntry]) -> Trajectory:
        """Return the trajectory of these chunks, which are of this one."""
        return Trajectory(self.atoms, self.timestep, entries, self.columns, self._opening)

    def __len__(self) -> int:
        return self.span.count

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atoms)

    @cached_property
    def span(self) -> Steps:
        """Where the frames lie along the run."""
        return joined_steps(entry.frames for entry in self.entries)

    @cached_property
    def thermo_span(self) -> Steps:
        """Where the thermodynamic rows lie along the run."""
        return joined_steps(entry.thermo for entry in self.entries)

    @cached_property
    def _ends(self) -> list[int]:
        """Return the number of frames up to the end of each chunk."""
        return list(accumulate(entry.frames.count for entry in self.entries))

    @property
    def has_velocities(self) -> bool:
        """Whether the frames have velocities."""
        return 'velocities' in self.columns

    @property
    def thermo_names(self) -> tuple[str, ...]:
        """Names of the thermodynamic columns; their units are in `THERMO`."""
        return tuple(name for name in THERMO if f'thermo_{name}' in self.columns)

    def chunks(self, wanted: Iterable[str] | None = None) -> Iterator[Chunk]:
        """Yield the chunks in order; only these columns, and `steps` and `thermo_steps`, where they are given."""
        columns = None if wanted is None else tuple(wanted)
        with self._opening() as opener:
            for number in range(len(self.entries)):
                yield self._read(opener, number, columns)

    def _having(self, axis: str) -> Trajectory:
        """Return the chunks that have frames, or rows; the others may lie elsewhere and need not be opened."""
        return self.of_chunks([entry for entry in self.entries if getattr(entry, axis).count])

    def chunk(self, number: int, wanted: Iterable[str] | None = None) -> Chunk:
        """Return one chunk; see `chunks`."""
        with self._opening() as opener:
            return self._read(opener, number, wanted)

    def _read(self, opener: Opener, number: int, wanted: Iterable[str] | None) -> Chunk:
        """Read the rows of a chunk that count."""
        entry = self.entries[number]
        place = f'chunk {number} ({entry.path or entry.name[:12]})'
        try:
            with opener(entry) as handle:
                chunk = Chunk.read(handle, None if wanted is None else {'steps', 'thermo_steps', *wanted})
            found = chunk.drop(entry.skipped_frames, entry.skipped_thermo)
            if (Steps.of(found.steps), Steps.of(found.columns['thermo_steps'])) != (entry.frames, entry.thermo):
                raise TrajectoryError('its steps are not those of the list of chunks.')
        except TrajectoryError as error:
            raise type(error)(f'{place}: {error}') from error
        except (OSError, KeyError) as error:
            raise TrajectoryError(f'{place}: it cannot be read ({error}).') from error
        return found

    def blocks(self, every: int = 1, atoms: Any = None) -> Iterator[Block]:
        """Yield times, positions and cells chunk by chunk.

        :param every: take each such frame, the first one included, counted over the whole trajectory.
        :param atoms: positions of the wanted atoms in the order of the trajectory, or a mask; None takes all.
        """
        if every < 1:
            raise TrajectoryError(f'every {every}th frame cannot be taken; `every` counts from 1.')
        seen = 0
        for chunk in self._having('frames').chunks(('positions', 'cells')):
            rows = slice(-seen % every, None, every)
            seen += len(chunk)
            steps = chunk.steps[rows]
            if len(steps):
                positions = chunk.positions[rows] if atoms is None else chunk.positions[rows][:, atoms]
                yield Block(self.times(steps), positions.astype(np.float64), chunk.cells[rows])

    def times(self, steps: Array) -> Array:
        """Return times in ps of steps."""
        return np.asarray(steps) * (self.timestep / 1000)

    def steps(self) -> Array:
        """Return the (F,) steps of all frames; positions are not read."""
        return np.concatenate([np.zeros(0, np.int64), *(chunk.steps for chunk in self._having('frames').chunks(()))])

    def cells(self) -> Array:
        """Return the (F, 3, 3) cells of all frames in Å; positions are not read."""
        return np.concatenate(
            [np.zeros((0, 3, 3)), *(chunk.cells for chunk in self._having('frames').chunks(('cells',)))]
        )

    def thermo(self, name: str) -> tuple[Array, Array]:
        """Return (T,) times in ps and (T, …) values of a thermodynamic column; positions are not read."""
        if name not in self.thermo_names:
            known = ', '.join(self.thermo_names) or 'nothing'
            raise TrajectoryError(f'this trajectory has no `{name}`; its thermodynamic rows hold {known}.')
        column = f'thermo_{name}'
        parts = [(np.zeros(0, np.int64), np.zeros((0, *THERMO[name][1])))]
        parts += [chunk.thermo(name) for chunk in self._having('thermo').chunks((column,))]
        return self.times(np.concatenate([steps for steps, _ in parts])), np.concatenate([part for _, part in parts])

    def frame(self, index: int, **fields: Any) -> Frame:
        """Return one frame with unwrapped positions.

        :param fields: further fields of the frame, such as `charge`.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f'there is no frame {index} among {len(self)}.')
        position = index % len(self)
        number = bisect_right(self._ends, position)
        if self._last is None or self._last[0] != number:
            self._last = number, self.chunk(number, PLACES)
        chunk = self._last[1]
        row = position - self._ends[number] + len(chunk)
        positions = chunk.positions[row].astype(np.float64)
        return Frame(self.atoms.numbers, positions, chunk.cells[row], self.atoms.pbc, **fields)
