"""A shard: flat columns of many frames, which numpy alone reads from an uncompressed `.npz`.

Columns, for F frames with A atoms in all (units: Å, eV, eV/Å, eV/Å³ with ASE's sign of the stress):

=============== ============= ==========================================================================
numbers         (A,) uint8    atomic numbers
positions       (A, 3)        Å
cells           (F, 3, 3)     Å, rows are the lattice vectors
pbc             (F, 3) bool   periodic directions
offsets         (F + 1,)      frame i owns the atoms offsets[i] to offsets[i + 1]
energy          (F,)          eV, optional
forces          (A, 3)        eV/Å, optional
stress          (F, 6)        eV/Å³, Voigt order xx yy zz yz xz xy, optional; a row of NaN means "none"
charge, spin    (F,) int16    charge in e and spin multiplicity, optional
group           (F,) int32    position in `group_names`: the structure family
trajectory      (F,) int32    position in `trajectory_names`: frames that belong together; '' stands alone
head            (F,) int32    position in `head_names`: which level of theory
source          (F,) int32    position in `source_names`: what made the label (UUID of a process, hash of a file)
digest          (F, 16) uint8 hash of everything above but `head` and `source`
=============== ============= ==========================================================================
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

import numpy as np
from ase.data import chemical_symbols

from aiida_perovmlip.compute.frame import CATEGORIES, DEFAULTS, DTYPES, PER_ATOM, Array, Frame, FrameError

MAXIMUM_ATOMS = 2**18
MAXIMUM_FRAMES = 2**16
"""A shard is closed at the first of these; about 15 MB with labels."""

_NOT_FINITE = 'has a value in `{}` that is not finite.'

Columns = dict[str, Array]


class Shard:
    """Columns in memory."""

    def __init__(self, columns: Columns, names: Mapping[str, Sequence[str]]) -> None:
        self.columns = columns
        self.names = {category: list(names.get(category, [DEFAULTS[category]])) for category in CATEGORIES}

    def __len__(self) -> int:
        return len(self.columns['offsets']) - 1

    @property
    def n_atoms(self) -> int:
        """Number of atoms of all frames."""
        return int(self.columns['offsets'][-1])

    def text(self, category: str, index: int) -> str:
        """Return a category of one frame as text."""
        return str(self.names[category][self.columns[category][index]])

    def rename(self, category: str, name: str) -> None:
        """Give all frames the same name in a category."""
        self.names[category] = [name]
        if category in self.columns:
            self.columns[category] = np.zeros(len(self), dtype=np.int32)

    def frame(self, index: int) -> Frame:
        """Return one frame; its arrays are views."""
        columns = self.columns
        start, end = columns['offsets'][index], columns['offsets'][index + 1]
        optional: dict[str, Any] = {}
        if 'energy' in columns:
            optional['energy'] = float(columns['energy'][index])
        if 'forces' in columns:
            optional['forces'] = columns['forces'][start:end]
        if 'stress' in columns and not np.isnan(columns['stress'][index, 0]):
            optional['stress'] = columns['stress'][index]
        for name in ('charge', 'spin'):
            if name in columns:
                optional[name] = int(columns[name][index])
        categories: dict[str, Any] = {category: self.text(category, index) for category in CATEGORIES}
        return Frame(
            columns['numbers'][start:end],
            columns['positions'][start:end],
            columns['cells'][index],
            columns['pbc'][index],
            **optional,
            **categories,
        )

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(index) for index in range(len(self)))

    def take(self, indices: Array) -> Shard:
        """Return the frames at these positions as a shard of their own."""
        offsets = self.columns['offsets']
        counts = np.diff(offsets)[indices]
        new_offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        atoms = np.arange(new_offsets[-1]) + np.repeat(offsets[:-1][indices] - new_offsets[:-1], counts)
        columns = {
            name: column[atoms] if name in PER_ATOM else column[indices]
            for name, column in self.columns.items()
            if name != 'offsets'
        }
        return Shard({**columns, 'offsets': new_offsets}, self.names)

    def write(self, handle: BinaryIO) -> None:
        """Write the shard as `.npz`: the same columns always give the same bytes."""
        arrays = dict(self.columns)
        for category in CATEGORIES:
            arrays[f'{category}_names'] = np.array(self.names[category], dtype=np.str_)
        with zipfile.ZipFile(handle, 'w', zipfile.ZIP_STORED) as archive:
            for name in sorted(arrays):
                with archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as member:
                    write_array(cast(BinaryIO, member), arrays[name])

    @classmethod
    def read(cls, handle: BinaryIO, wanted: Iterable[str] | None = None) -> Shard:
        """Read all columns, or only these (with `offsets`), of a `.npz`."""
        with np.load(handle, allow_pickle=False) as archive:
            present = {name for name in archive.files if not name.endswith('_names')}
            chosen = present if wanted is None else {'offsets', *wanted} & present
            columns = {name: archive[name] for name in sorted(chosen)}
            names = {name: archive[f'{name}_names'].tolist() for name in CATEGORIES if f'{name}_names' in archive.files}
        return cls(columns, names)


def digests(shard: Shard, labels: bool = True) -> Array:
    """Return a hash of each frame, (F, 16) uint8: equal for equal frames, whatever shard they are in.

    Without labels only what a labeller is given enters: atoms, positions, cell, periodicity, charge and spin.
    """
    columns, offsets = shard.columns, shard.columns['offsets'].tolist()
    n_frames = len(shard)
    per_frame = ['cells', 'pbc', 'charge', 'spin', *(['energy', 'stress'] if labels else [])]
    per_atom = ['numbers', 'positions', *(['forces'] if labels else [])]
    rows = [_bytes_per_row(columns[name]) for name in per_frame if name in columns]
    table = np.concatenate(rows, axis=1) if rows else np.zeros((n_frames, 0), np.uint8)
    width, flat = table.shape[1], _flat(table)
    atoms = [(_flat(_bytes_per_row(columns[name])), columns[name][:1].nbytes) for name in per_atom if name in columns]
    prefix = ','.join(name for name in (*per_frame, *per_atom) if name in columns).encode()
    texts = _category_bytes(shard) if labels else [b''] * n_frames
    out = bytearray()
    for index in range(n_frames):
        start, end = offsets[index], offsets[index + 1]
        state = hashlib.blake2b(prefix, digest_size=16)
        state.update(texts[index])
        state.update(flat[index * width : (index + 1) * width])
        for view, size in atoms:
            state.update(view[start * size : end * size])
        out += state.digest()
    return np.frombuffer(bytes(out), np.uint8).reshape(n_frames, 16)


def _bytes_per_row(column: Array) -> Array:
    """Return an array as (rows, bytes of a row); adding zero makes -0.0 equal to 0.0."""
    plain = column + 0.0 if column.dtype.kind == 'f' else column
    return np.ascontiguousarray(plain).reshape(len(column), -1).view(np.uint8)


def _flat(table: Array) -> memoryview:
    """Return all bytes of an array in order, without a copy."""
    return memoryview(np.ascontiguousarray(table).reshape(-1))  # type: ignore[arg-type]


def write_array(handle: BinaryIO, array: Array) -> None:
    """Write one array in numpy's own format, never as a pickle."""
    np.lib.format.write_array(handle, np.ascontiguousarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]


def _category_bytes(shard: Shard) -> list[bytes]:
    """Return group and trajectory of each frame as bytes; who made a label and its head are not content of a frame."""
    categories = ('group', 'trajectory')
    encoded = [[json.dumps(name).encode() for name in shard.names[category]] for category in categories]
    codes = [shard.columns[category].tolist() for category in categories]
    return [
        b'\0'.join(names[code] for names, code in zip(encoded, row, strict=True)) for row in zip(*codes, strict=True)
    ]


class ShardBuilder:
    """Collects frames into columns and says of a bad one which frame and which field it is."""

    def __init__(self, first_index: int = 0) -> None:
        self._first = first_index
        self._lists: dict[str, list[Any]] = {name: [] for name in ('numbers', 'positions', 'cells', 'pbc')}
        self._optional: dict[str, list[Any]] = {}
        self._codes: dict[str, dict[str, int]] = {category: {} for category in CATEGORIES}
        self._category: dict[str, list[int]] = {category: [] for category in CATEGORIES}
        self._counts: list[int] = []
        self.n_atoms = 0

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def is_full(self) -> bool:
        """Whether the shard should be closed."""
        return self.n_atoms >= MAXIMUM_ATOMS or len(self) >= MAXIMUM_FRAMES

    def add(self, frame: Frame) -> None:
        """Add one frame."""
        n_atoms, index = len(frame.numbers), len(self._counts)
        lists = self._lists
        lists['numbers'].append(frame.numbers)
        lists['positions'].append(frame.positions)
        lists['cells'].append(frame.cell)
        lists['pbc'].append(frame.pbc)
        for name in ('energy', 'forces', 'stress', 'charge', 'spin'):
            value = getattr(frame, name)
            if value is not None:
                self._optional.setdefault(name, [None] * index).append(value)
            elif name in self._optional:
                self._optional[name].append(None)
        for category, codes in self._codes.items():
            text = getattr(frame, category)
            self._category[category].append(codes.setdefault(text, len(codes)))
        self._counts.append(n_atoms)
        self.n_atoms += n_atoms

    def build(self) -> Shard:
        """Return the checked shard."""
        if not self._counts:
            raise FrameError('there are no frames.')
        counts = np.array(self._counts, dtype=np.int64)
        columns: Columns = {'offsets': np.concatenate([[0], np.cumsum(counts)])}
        for name, values in self._lists.items():
            columns[name] = self._column(name, values)
        for name, values in self._optional.items():
            columns[name] = self._column(name, self._fill(name, values))
            if name == 'stress':  # NaN in the column means "none", so it may not be given
                given = np.array([value is not None for value in values])
                _refuse(given & ~np.isfinite(columns[name]).all(axis=1), self._first, _NOT_FINITE.format('stress'))
        for category, codes in self._category.items():
            columns[category] = np.array(codes, dtype=np.int32)
        names = {category: [str(text) for text in codes] for category, codes in self._codes.items()}
        shard = Shard(columns, names)
        check(shard, self._first)
        columns['digest'] = digests(shard)
        return shard

    def _fill(self, name: str, values: list[Any]) -> list[Any]:
        """Replace absent values where absence has a meaning; refuse the frame where it has none."""
        if not any(value is None for value in values):
            return values
        index = next(index for index, value in enumerate(values) if value is None)
        if name == 'stress':
            return [np.full(6, np.nan) if value is None else value for value in values]
        if name in ('charge', 'spin'):
            raise FrameError(
                f'frame {self._first + index} has no `{name}`, but others have; state it for all or for none.'
            )
        raise FrameError(f'frame {self._first + index} has no `{name}`, but others have; drop it or label it first.')

    def _column(self, name: str, values: list[Any]) -> Array:
        """Return a column in its type and shape."""
        dtype, inner = DTYPES[name]
        per_atom = name in PER_ATOM
        try:
            column = np.concatenate(values) if per_atom else np.asarray(values)
            expected = (self.n_atoms if per_atom else len(self), *inner)
            fits = column.shape == expected and column.dtype.kind in 'fiub' and self._lengths_fit(per_atom, values)
        except ValueError:
            fits = False
        if not fits:
            raise FrameError(self._misshapen(name, values))
        if np.issubdtype(dtype, np.integer):
            self._check_integers(name, column, dtype)
        return column.astype(dtype, copy=False)

    def _lengths_fit(self, per_atom: bool, values: list[Any]) -> bool:
        """Whether each per-atom value has as many rows as its frame has atoms."""
        return not per_atom or [len(value) for value in values] == self._counts

    def _check_integers(self, name: str, column: Array, dtype: Any) -> None:
        """Refuse what a conversion to integers would change."""
        limits = np.iinfo(dtype)
        bad = ~np.isfinite(column) | (column != np.round(column)) | (column < limits.min) | (column > limits.max)
        if bad.any():
            position = int(np.argmax(bad))
            index = int(np.searchsorted(np.cumsum(self._counts), position, 'right')) if name in PER_ATOM else position
            what = 'an unknown element' if name == 'numbers' else 'not a small integer'
            raise FrameError(f'frame {self._first + index}: `{name}` holds {column[position]!r}, which is {what}.')

    def _misshapen(self, name: str, values: list[Any]) -> str:
        """Find the frame whose value has the wrong shape and say so."""
        inner = DTYPES[name][1]
        for index, value in enumerate(values):
            expected = (self._counts[index], *inner) if name in PER_ATOM else inner
            try:
                array = np.asarray(value)
            except ValueError:
                return f'frame {self._first + index}: `{name}` is ragged, but its shape has to be {expected}.'
            if array.shape != expected:
                return f'frame {self._first + index}: `{name}` has shape {array.shape} instead of {expected}.'
            if array.dtype.kind not in 'fiub':
                return f'frame {self._first + index}: `{name}` is not numeric but {array.dtype}.'
        return f'`{name}` has values of different kinds.'


def check(shard: Shard, first_index: int = 0) -> None:
    """Refuse what no frame may hold; the message names the first such frame, counted from `first_index`."""
    columns = shard.columns
    counts = np.diff(columns['offsets'])
    _refuse(counts == 0, first_index, 'has no atoms.')
    numbers = columns['numbers']
    _refuse(
        _by_frame((numbers == 0) | (numbers >= len(chemical_symbols)), columns),
        first_index,
        'has an unknown element in `numbers`.',
    )
    for name in ('positions', 'forces'):
        if name in columns:
            _refuse(
                _by_frame(~np.isfinite(columns[name]).all(axis=1), columns),
                first_index,
                _NOT_FINITE.format(name),
            )
    _refuse(~np.isfinite(columns['cells']).all(axis=(1, 2)), first_index, _NOT_FINITE.format('cell'))
    if 'energy' in columns:
        _refuse(~np.isfinite(columns['energy']), first_index, 'has an `energy` that is not finite.')
    if 'stress' in columns:
        finite = np.isfinite(columns['stress'])
        _refuse(finite.any(axis=1) & ~finite.all(axis=1), first_index, _NOT_FINITE.format('stress'))
        _refuse(
            finite.all(axis=1) & ~columns['pbc'].all(axis=1),
            first_index,
            'has a `stress`, but its `pbc` is not periodic in all three directions.',
        )
    if 'spin' in columns:
        _refuse(columns['spin'] < 1, first_index, 'has a `spin` below 1; it is the multiplicity 2S + 1.')
    _refuse(_flat_cells(columns), first_index, 'has a `cell` without extent along a periodic direction.')


def _flat_cells(columns: Columns) -> Array:
    """Return which frames are periodic along vectors that span no length, area or volume."""
    lengths = np.linalg.norm(columns['cells'], axis=2)
    flat: Array = ((lengths < 1e-3) & columns['pbc']).any(axis=1)
    units = columns['cells'] / np.where(lengths > 0, lengths, 1.0)[:, :, None]
    flat |= columns['pbc'].all(axis=1) & (np.abs(np.linalg.det(units)) < 1e-6)
    return flat


def _by_frame(bad_atoms: Array, columns: Columns) -> Array:
    """Return which frames hold a bad atom."""
    bad: Array = np.add.reduceat(bad_atoms, columns['offsets'][:-1], dtype=np.int64) > 0
    return bad


def _refuse(bad: Array, first_index: int, what: str) -> None:
    """Raise for the first bad frame."""
    if bad.any():
        raise FrameError(f'frame {first_index + int(np.argmax(bad))} {what}')


def build_shards(frames: Iterable[Frame]) -> Iterator[Shard]:
    """Turn a stream of frames into checked shards; only one shard is in memory at a time."""
    builder = ShardBuilder()
    done = 0
    for frame in frames:
        builder.add(frame)
        if builder.is_full:
            yield builder.build()
            done += len(builder)
            builder = ShardBuilder(done)
    if len(builder):
        yield builder.build()
