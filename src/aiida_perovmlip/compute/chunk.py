"""A chunk: columns of consecutive frames and thermodynamic rows of a run, which numpy alone reads from a `.npz`.

For F frames and T rows of N atoms (F or T may be 0):

=================== ============ ======= =======================================================================
steps               (F,) int64           strictly increasing; 0 is the start of the whole run
positions           (F, N, 3)    Å       float32, unwrapped: an atom that leaves the cell goes on
cells               (F, 3, 3)    Å       rows are the lattice vectors
velocities          (F, N, 3)    Å/ps    float32, optional
thermo_steps        (T,) int64           strictly increasing
thermo_<name>       (T, …)               float64; names, units and shapes are those of `THERMO`
=================== ============ ======= =======================================================================
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np

from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.npz import read_arrays, write_arrays

THERMO: dict[str, tuple[str, tuple[int, ...]]] = {
    'temperature': ('K', ()),
    'potential_energy': ('eV', ()),
    'kinetic_energy': ('eV', ()),
    'conserved': ('eV', ()),
    'stress': ('eV/Å³', (6,)),
    'volume': ('Å³', ()),
    'target_temperature': ('K', ()),
    'target_pressure': ('GPa', ()),
    'spread': ('eV/Å', ()),
}
"""Unit and shape of what a thermodynamic row may hold.

`conserved` is what the equations of motion conserve; `stress` has its kinetic part, ASE's sign and Voigt order;
`spread` is the largest standard deviation of a force over a committee.
"""

MODULUS = 2**256


class TrajectoryError(ValueError):
    """A trajectory that is not whole, or pieces that do not belong together; the message says which and why."""


@dataclass(frozen=True)
class Steps:
    """Where rows lie along a run: number, first and last step, shortest and longest interval (0: there is none)."""

    count: int = 0
    first: int = 0
    last: int = 0
    shortest: int = 0
    longest: int = 0

    @classmethod
    def of(cls, steps: Array) -> Steps:
        """Return where these (F,) increasing steps lie."""
        if not len(steps):
            return cls()
        intervals = np.diff(steps) if len(steps) > 1 else np.zeros(1, np.int64)
        return cls(len(steps), int(steps[0]), int(steps[-1]), int(intervals.min()), int(intervals.max()))

    def then(self, later: Steps) -> Steps:
        """Return where these rows and later ones lie together."""
        if not self.count or not later.count:
            return self if self.count else later
        between = later.first - self.last
        if between <= 0:
            raise TrajectoryError(f'step {later.first} comes after step {self.last}; steps have to increase.')
        known = [between, *(part.shortest for part in (self, later) if part.count > 1)]
        longest = max(between, self.longest, later.longest)
        return Steps(self.count + later.count, self.first, later.last, min(known), longest)

    @property
    def every(self) -> int | None:
        """The interval of all rows; None where it is uneven or there are fewer than two."""
        return self.shortest if self.count > 1 and self.shortest == self.longest else None


def joined_steps(parts: Iterable[Steps]) -> Steps:
    """Return where the rows of parts that follow each other lie together."""
    total = Steps()
    for part in parts:
        total = total.then(part)
    return total


class Chunk:
    """Columns of consecutive frames and thermodynamic rows in memory."""

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(self.columns['steps'])

    @property
    def steps(self) -> Array:
        """(F,) steps of the frames."""
        return self.columns['steps']

    @property
    def positions(self) -> Array:
        """(F, N, 3) float32 unwrapped positions in Å."""
        return self.columns['positions']

    @property
    def cells(self) -> Array:
        """(F, 3, 3) cells in Å."""
        return self.columns['cells']

    @property
    def velocities(self) -> Array | None:
        """(F, N, 3) float32 velocities in Å/ps; None where they were not kept."""
        return self.columns.get('velocities')

    @property
    def thermo_names(self) -> tuple[str, ...]:
        """Names of the thermodynamic columns."""
        return tuple(name for name in THERMO if f'thermo_{name}' in self.columns)

    def thermo(self, name: str) -> tuple[Array, Array]:
        """Return (T,) steps and (T, …) values of a thermodynamic column."""
        return self.columns['thermo_steps'], self.columns[f'thermo_{name}']

    def drop(self, frames: int, thermo: int = 0) -> Chunk:
        """Return the chunk without its first frames and rows."""
        return Chunk(
            {name: column[thermo if name.startswith('thermo_') else frames :] for name, column in self.columns.items()}
        )

    def write(self, handle: BinaryIO) -> None:
        """Write the chunk as `.npz`: the same columns always give the same bytes."""
        write_arrays(handle, self.columns)

    @classmethod
    def read(cls, handle: BinaryIO, wanted: Iterable[str] | None = None) -> Chunk:
        """Read all columns, or only these, of a `.npz`; raises TrajectoryError where it is damaged."""
        try:
            return cls(read_arrays(handle, wanted))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise TrajectoryError(f'it is truncated or damaged ({error}).') from error

    @classmethod
    def join(cls, chunks: Sequence[Chunk]) -> Chunk:
        """Return all rows of chunks that carry the same, as one chunk."""
        return cls({name: np.concatenate([chunk.columns[name] for chunk in chunks]) for name in chunks[0].columns})

    def problem(self, n_atoms: int) -> str | None:
        """Return what is wrong with the columns of a chunk of so many atoms; None where nothing is."""
        missing = {'steps', 'positions', 'cells', 'thermo_steps'} - set(self.columns)
        if missing:
            return f'it has no {", ".join(f"`{name}`" for name in sorted(missing))}.'
        for name, column in self.columns.items():
            dtype, inner = kind_of(name, n_atoms) or (None, ())
            if dtype is None:
                return f'it has a column `{name}`, which no trajectory has.'
            rows = len(self.columns['thermo_steps' if name.startswith('thermo_') else 'steps'])
            if column.dtype != dtype or column.shape != (rows, *inner):
                return f'`{name}` is {column.dtype} {column.shape} instead of {dtype} {(rows, *inner)}.'
            if not np.isfinite(column).all():
                return f'`{name}` has a value that is not finite.'
            if name in ('steps', 'thermo_steps') and (np.diff(column, prepend=-1) <= 0).any():
                return f'`{name}` do not increase from 0 on.'
        return None

    @property
    def digest(self) -> str:
        """Sum of the hashes of all frames and rows, as 64 hexadecimal digits.

        Each hash has the step in it, so the sum says what the chunk holds, and sums of chunks add up to the same
        number wherever a trajectory is cut.
        """
        names = sorted(set(self.columns) - {'steps', 'thermo_steps'})
        frames = [name for name in names if not name.startswith('thermo_')]
        thermo = [name for name in names if name.startswith('thermo_')]
        total = _sum_of_rows(self.columns, 'steps', frames) + _sum_of_rows(self.columns, 'thermo_steps', thermo)
        return f'{total % MODULUS:064x}'


def kind_of(name: str, n_atoms: int) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Return type and shape of a row of a column; None where there is no such column."""
    known: dict[str, tuple[Any, tuple[int, ...]]] = {
        'steps': (np.int64, ()),
        'positions': (np.float32, (n_atoms, 3)),
        'cells': (np.float64, (3, 3)),
        'velocities': (np.float32, (n_atoms, 3)),
        'thermo_steps': (np.int64, ()),
        **{f'thermo_{name}': (np.float64, shape) for name, (_, shape) in THERMO.items()},
    }
    return (np.dtype(known[name][0]), known[name][1]) if name in known else None


def _sum_of_rows(columns: Mapping[str, Array], steps: str, names: Sequence[str]) -> int:
    """Return the sum of the hashes of all rows of some columns."""
    prefix, total = ','.join((steps, *names)).encode(), 0
    for index, step in enumerate(columns[steps].tolist()):
        state = hashlib.blake2b(prefix, digest_size=32)
        state.update(step.to_bytes(8, 'little'))
        for name in names:
            state.update(np.ascontiguousarray(columns[name][index]).tobytes())
        total += int.from_bytes(state.digest(), 'little')
    return total


def sum_of_digests(digests: Iterable[str]) -> str:
    """Return the digest of the rows of several chunks together."""
    return f'{sum(int(digest, 16) for digest in digests) % MODULUS:064x}'


@dataclass(frozen=True)
class ChunkEntry:
    """A chunk in the list of a trajectory.

    :param name: SHA-256 of its file.
    :param bytes: size of its file.
    :param digest: `Chunk.digest` of the rows that count.
    :param frames: where the frames that count lie along the run.
    :param thermo: the same of the thermodynamic rows.
    :param skipped_frames: frames at the beginning of the file that do not count: an earlier chunk has them too.
    :param skipped_thermo: the same of the thermodynamic rows.
    :param path: where it lies in the folder of a run, or on a computer; empty in the repository of a node.
    """

    name: str
    bytes: int
    digest: str
    frames: Steps
    thermo: Steps
    skipped_frames: int = 0
    skipped_thermo: int = 0
    path: str = ''

    @classmethod
    def of(cls, chunk: Chunk, name: str, size: int, path: str = '') -> ChunkEntry:
        """Return the entry of a chunk whose file has this SHA-256 and size."""
        return cls(name, size, chunk.digest, Steps.of(chunk.steps), Steps.of(chunk.columns['thermo_steps']), path=path)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ChunkEntry:
        """Read what `to_dict` returned."""
        steps = {name: Steps(**content[name]) for name in ('frames', 'thermo')}
        return cls(**{**content, **steps})
