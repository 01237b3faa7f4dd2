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
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from ase.data import chemical_symbols

from aiida_perovmlip.compute.frame import CATEGORIES, DEFAULTS, DTYPES, PER_ATOM, Array, Frame, FrameError
from aiida_perovmlip.compute.npz import write_arrays

MAXIMUM_ATOMS = 2**18
MAXIMUM_FRAMES = 2**16
"""A shard is closed at the first of these; about 15 MB with labels."""

LARGEST_ENERGY = 1e8
LARGEST_FORCE = 1e6
"""In eV per atom and eV/Å: beyond these a label is the debris of a failed calculation and not physics."""

_NOT_FINITE = 'has a value in `{}` that is not finite.'
_ABSURD = 'has a value in `{}` that is too large to be physics.'

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
        write_arrays(handle, arrays)

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
    per_frame = [
        name for name in ('cells', 'pbc', 'charge', 'spin', *(['energy'] if labels else [])) if name in columns
    ]
    per_atom = [name for name in ('numbers', 'positions', *(['forces'] if labels else [])) if name in columns]
    prefix = ','.join((*per_frame, *per_atom)).encode()
    table = np.concatenate([_bytes_per_row(columns[name]) for name in per_frame], axis=1)
    width, flat = table.shape[1], _flat(table)
    atoms = [(_flat(_bytes_per_row(columns[name])), columns[name][:1].nbytes) for name in per_atom]
    texts = _category_bytes(shard) if labels else [b''] * len(shard)
    stresses = _stress_bytes(shard) if labels else texts
    out = bytearray()
    for index, (text, stress) in enumerate(zip(texts, stresses, strict=True)):
        start, end = offsets[index], offsets[index + 1]
        state = hashlib.blake2b(prefix, digest_size=16)
        state.update(text)
        state.update(flat[index * width : (index + 1) * width])
        for view, size in atoms:
            state.update(view[start * size : end * size])
        state.update(stress)
        out += state.digest()
    return np.frombuffer(bytes(out), np.uint8).reshape(len(shard), 16)


def _stress_bytes(shard: Shard) -> list[bytes]:
    """Return the stress of each frame as bytes; none where it has none, whatever the others have."""
    if 'stress' not in shard.columns:
        return [b''] * len(shard)
    rows = _bytes_per_row(shard.columns['stress'])
    given = np.isfinite(shard.columns['stress'][:, 0]).tolist()
    return [row.tobytes() if has else b'' for row, has in zip(rows, given, strict=True)]


def _bytes_per_row(column: Array) -> Array:
    """Return an array as (rows, bytes of a row); adding zero makes -0.0 equal to 0.0."""
    plain = column + 0.0 if column.dtype.kind == 'f' else column
    return np.ascontiguousarray(plain).reshape(len(column), -1).view(np.uint8)


def _flat(table: Array) -> memoryview:
    """Return all bytes of an array in order, without a copy."""
    return memoryview(np.ascontiguousarray(table).reshape(-1))  # type: ignore[arg-type]


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
        self._frames: list[Frame] = []
        self._counts: list[int] = []
        self.n_atoms = 0

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def is_full(self) -> bool:
        """Whether the shard should be closed."""
        return self.n_atoms >= MAXIMUM_ATOMS or len(self._counts) >= MAXIMUM_FRAMES

    def add(self, frame: Frame) -> None:
        """Add one frame."""
        n_atoms = len(frame.numbers)
        self._frames.append(frame)
        self._counts.append(n_atoms)
        self.n_atoms += n_atoms

    def build(self) -> Shard:
        """Return the checked shard."""
        if not self._counts:
            raise FrameError('there are no frames.')
        frames = self._frames
        columns: Columns = {'offsets': np.concatenate([[0], np.cumsum(np.array(self._counts, dtype=np.int64))])}
        columns['numbers'] = self._column('numbers', [frame.numbers for frame in frames])
        columns['positions'] = self._column('positions', [frame.positions for frame in frames])
        columns['cells'] = self._column('cells', [frame.cell for frame in frames])
        columns['pbc'] = self._column('pbc', [frame.pbc for frame in frames])
        for name in ('energy', 'forces', 'stress', 'charge', 'spin'):
            values = [getattr(frame, name) for frame in frames]
            if any(value is not None for value in values):
                columns[name] = self._column(name, self._fill(name, values))
        if 'stress' in columns:  # NaN in the column means "none", so it may not be given
            given = np.array([frame.stress is not None for frame in frames])
            _refuse(given & ~np.isfinite(columns['stress']).all(axis=1), self._first, _NOT_FINITE.format('stress'))
        names: dict[str, list[str]] = {}
        for category in CATEGORIES:
            names[category], columns[category] = _categorise([str(getattr(frame, category)) for frame in frames])
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


def _categorise(texts: list[str]) -> tuple[list[str], Array]:
    """Return the different texts in order of appearance, and the place of each text among these."""
    names = list(dict.fromkeys(texts))
    places = {name: place for place, name in enumerate(names)}
    return names, np.array([places[text] for text in texts], dtype=np.int32)


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
        _refuse(np.abs(columns['energy']) > LARGEST_ENERGY * counts, first_index, _ABSURD.format('energy'))
    if 'forces' in columns:
        huge = (np.abs(columns['forces']) > LARGEST_FORCE).any(axis=1)
        _refuse(_by_frame(huge, columns), first_index, _ABSURD.format('forces'))
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
    overlaps = units @ units.transpose(0, 2, 1)
    both = columns['pbc'][:, :, None] & columns['pbc'][:, None, :]
    flat |= np.linalg.det(np.where(both, overlaps, np.eye(3))) < 1e-12
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
    """Turn a stream of frames into checked shards that all carry the same; one shard is in memory at a time."""
    builder = ShardBuilder()
    done, carried = 0, None
    for frame in itertools.chain(frames, [None]):
        if frame is not None:
            builder.add(frame)
        if len(builder) and (builder.is_full or frame is None):
            shard = builder.build()
            carried = carried_by(shard) if carried is None else carried
            if carried_by(shard) != carried:
                raise FrameError(differing(carried, carried_by(shard), f'the frames from {done} on', 'those before'))
            yield shard
            done += len(builder)
            builder = ShardBuilder(done)


def carried_by(shard: Shard) -> frozenset[str]:
    """Return what all frames of a dataset have, or none of them."""
    return frozenset(shard.columns) & {'energy', 'forces', 'charge', 'spin'}


def differing(one: frozenset[str], other: frozenset[str], whose: str, others: str) -> str:
    """Return a sentence for frames that do not carry the same as others."""
    more, less = ', '.join(sorted(other - one)), ', '.join(sorted(one - other))
    facts = [
        f'{whose} have {more}, {others} have not' if more else '',
        f'{others} have {less}, {whose} have not' if less else '',
    ]
    return '; '.join(fact for fact in facts if fact) + '. State it for all or for none.'


def join(shards: Sequence[Shard]) -> Shard:
    """Return the frames of all shards, in order, as one shard."""
    if len(shards) == 1:
        return shards[0]
    places: dict[str, dict[str, int]] = {}
    columns: dict[str, list[Array]] = {}
    present = set().union(*(shard.columns for shard in shards))
    for shard in shards:
        for name in present - {'offsets'}:
            if name in CATEGORIES:
                known = places.setdefault(name, {})
                codes = np.array([known.setdefault(text, len(known)) for text in shard.names[name]], dtype=np.int32)
                columns.setdefault(name, []).append(codes[shard.columns[name]])
            elif name == 'stress' and name not in shard.columns:
                columns.setdefault(name, []).append(np.full((len(shard), 6), np.nan))
            else:
                columns.setdefault(name, []).append(shard.columns[name])
    counts = np.concatenate([np.diff(shard.columns['offsets']) for shard in shards])
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Shard(
        {**joined, 'offsets': np.concatenate([[0], np.cumsum(counts)])},
        {name: list(known) for name, known in places.items()},
    )
