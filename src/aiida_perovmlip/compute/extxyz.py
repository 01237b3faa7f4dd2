"""Extended XYZ, the text in which frames travel between codes."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TextIO, get_args

import numpy as np
from ase.data import chemical_symbols

from aiida_perovmlip.compute.frame import DEFAULTS, Array, Frame, FrameError, atomic_number, from_voigt, to_voigt

Dialect = Literal['mace', 'gpumd', 'nequip', 'ase']
Token = tuple[str, ...]

PLAIN_COLUMNS = 'species:S:1:pos:R:3'
STRUCTURAL_KEYS = {'lattice': 'Lattice', 'properties': 'Properties', 'pbc': 'pbc'}
ENERGY_KEYS = ('REF_energy', 'energy')
FORCES_COLUMNS = ('REF_forces', 'forces', 'force')
STRESS_KEYS = ('REF_stress', 'stress')
VIRIAL_KEYS = ('REF_virial', 'virial', 'virials')
NUMBER_COLUMNS = ('Z', 'numbers')
INTEGER_KEYS = {'charge': ('charge', 'total_charge'), 'spin': ('spin', 'multiplicity')}
TEXT_KEYS = {'group': ('group', 'config_type'), 'trajectory': ('trajectory',), 'head': ('head',), 'source': ('source',)}
TRUE, FALSE = frozenset({'T', 'True', 'true', 'TRUE', '1'}), frozenset({'F', 'False', 'false', 'FALSE', '0'})
NUMBERS = {symbol: number for number, symbol in enumerate(chemical_symbols) if number}
SEPARATORS = str.maketrans(',[]', '   ')
LINES_AT_ONCE = 4096
UNDECODABLE = (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile)

# Two spellings of one label agree when they differ by the rounding in a text: relative and absolute, eV, eV/Å, eV/Å³.
TOLERANCES = {'energy': (1e-9, 1e-5), 'forces': (1e-6, 1e-5), 'stress': (1e-3, 1e-6)}

QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
PAIR = re.compile(
    rf"""\s*(?P<key>{QUOTED}|[^\s="'{{}}\[\]]+)
    (?:\s*=\s*(?P<value>
        {QUOTED} | '[^'\\]*(?:\\.[^'\\]*)*'
        | \{{[^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*\}} | \[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]
        | [^\s"'{{}}\[\]=][^\s"']*
    ))?(?=\s|$)""",
    re.VERBOSE | re.DOTALL,
)
ESCAPED = re.compile(r'\\(.)', re.DOTALL)
WORD = re.compile(r'[A-Za-z_][\w.:/+@-]*', re.ASCII)


@dataclass(frozen=True)
class Labels:
    """Names of the keys (of `forces`: the column) that hold the labels; None means one of the usual spellings.

    Naming the stress or the virial makes the reader ignore the other.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None


def open_text(path: Path) -> TextIO:
    """Open a text file for reading, whether it is compressed with gzip or not."""
    if path.suffix == '.gz':
        return gzip.open(path, 'rt', encoding='utf-8')
    return path.open(encoding='utf-8')


def read_extxyz(handle: TextIO, name: str = '', labels: Labels | None = None) -> Iterator[Frame]:
    """Yield the frames of a file one after the other; every fault is a FrameError that says where it is.

    :param name: what to call the file in messages.
    :param labels: which keys hold the labels, where the usual spellings are absent or contradict each other.
    """
    source = _Source(handle, name)
    while (n_atoms := source.number_of_atoms()) is not None:
        yield _Block(source, n_atoms, labels or Labels()).frame()
        source.frame += 1


class _Source:
    """The lines of a file together with the place that was reached."""

    def __init__(self, handle: TextIO, name: str) -> None:
        self.handle = handle
        self.name = name
        self.frame = 0
        self.line = 0

    def take(self, count: int) -> list[str]:
        """Return the next lines; fewer at the end of the file."""
        try:
            lines = list(islice(self.handle, count))
        except UNDECODABLE as error:
            self.fail(f'the file cannot be read on from here ({error}).', self.line + 1)
        self.line += len(lines)
        return lines

    def fail(self, what: str, line: int | None = None) -> NoReturn:
        """Raise what is wrong, with the place where it is."""
        place = f'{self.name}, ' if self.name else ''
        raise FrameError(f'{place}frame {self.frame}, line {self.line if line is None else line}: {what}')

    def number_of_atoms(self) -> int | None:
        """Return the number of atoms of the next frame; None at the end of the file."""
        lines = self.take(1)
        if not lines:
            return None
        text = lines[0].strip()
        if not text:
            self._end()
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            self.fail(f'{_short(text)} is not a number of atoms.')
        if int(text) == 0:
            self.fail('the frame has no atoms.')
        return int(text)

    def _end(self) -> None:
        """Refuse anything but blank lines."""
        blank = self.line
        while lines := self.take(1):
            if lines[0].strip():
                self.fail('the line is blank, but the file goes on; only its end may be blank.', blank)


class _Column(NamedTuple):
    """A property of the atoms: its name, kind of value and place in the line."""

    name: str
    kind: str
    start: int
    stop: int


@lru_cache(maxsize=64)
def _parse_columns(spec: str) -> tuple[_Column, ...]:
    """Return the columns that `Properties` names; raises ValueError with the reason."""
    parts = spec.split(':')
    columns: list[_Column] = []
    for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        start = columns[-1].stop if columns else 0
        if not name or kind not in ('R', 'I', 'S', 'L') or not re.fullmatch(r'[1-9][0-9]{0,5}', width):
            raise ValueError(f'`{name}:{kind}:{width}` is not a name, one of R, I, S and L, and a width')
        if name in [column.name for column in columns]:
            raise ValueError(f'`{name}` is there twice')
        columns.append(_Column(name, kind, start, start + int(width)))
    if len(parts) % 3:
        raise ValueError('it is no sequence of name, kind and width')
    return tuple(columns)


def _parse_comment(text: str) -> dict[str, str | None]:
    """Return the keys with their values as text, None for a bare key; raises ValueError with the reason."""
    values: dict[str, str | None] = {}
    position, end = 0, len(text.rstrip())
    while position < end:
        match = PAIR.match(text, position, end)
        if match is None:
            raise ValueError(f'no key with a value can be read from {_short(text[position:end].strip())}')
        key = _unquoted(match['key'])
        key = STRUCTURAL_KEYS.get(key.lower(), key)
        if key in values:
            raise ValueError(f'`{key}` is there twice')
        values[key] = _unquoted(match['value']) if match['value'] is not None else None
        position = match.end()
    return values


def _unquoted(text: str) -> str:
    """Return what quotes or brackets enclose, without the backslashes that protect characters."""
    inner = text[1:-1] if text[0] in '"\'{[' else text
    return ESCAPED.sub(lambda match: match[1], inner) if '\\' in inner else inner


def _short(text: str) -> str:
    """Return a piece of the file for a message."""
    return repr(text if len(text) <= 60 else f'{text[:60]}…')


def _is_plain(text: str) -> bool:
    """Whether Python finds no number where others would not: it reads 1_000 and the digits of all scripts."""
    return '_' not in text and text.isascii()


def _real(text: str) -> float:
    """Return a real number."""
    if not _is_plain(text):
        raise ValueError
    return float(text)


def _integer(text: str) -> int:
    """Return an integer."""
    if not _is_plain(text):
        raise ValueError
    return int(text)


def _logical(text: str) -> bool:
    """Return a truth value."""
    if text not in TRUE and text not in FALSE:
        raise ValueError
    return text in TRUE


# What a kind of column holds, its converter, and one that is faster where the text is plain.
CONVERTERS: dict[str, tuple[str, Callable[[str], Any], Callable[[str], Any]]] = {
    'R': ('a number', _real, float),
    'I': ('an integer', _integer, int),
    'L': ('T or F', _logical, _logical),
}


class _Block:
    """The text of one frame, which its methods turn into values."""

    def __init__(self, source: _Source, n_atoms: int, labels: Labels) -> None:
        self.source = source
        self.labels = labels
        self.n_atoms = n_atoms
        self.keys = self._read_keys()
        self.comment_line = source.line
        self.columns = self._read_columns()

    def frame(self) -> Frame:
        """Return the frame."""
        cell, pbc = self._cell_and_pbc()
        return Frame(
            self._numbers(),
            self._vectors(self._required('pos')),
            cell,
            pbc,
            energy=self._energy(),
            forces=self._forces(),
            stress=self._stress(cell, pbc),
            **{name: self._small_integer(name, spellings) for name, spellings in INTEGER_KEYS.items()},  # type: ignore[arg-type]
            **{name: self._text(name, spellings) for name, spellings in TEXT_KEYS.items()},  # type: ignore[arg-type]
        )

    def _fail(self, what: str) -> NoReturn:
        """Raise what is wrong with the comment line."""
        self.source.fail(what, self.comment_line)

    def _read_keys(self) -> dict[str, str | None]:
        """Read the comment line."""
        lines = self.source.take(1)
        if not lines:
            self.source.fail('the file ends where the comment line of the frame has to be.')
        try:
            return _parse_comment(lines[0])
        except ValueError as error:
            self.source.fail(f'the comment line cannot be understood: {error}.')

    def _read_columns(self) -> dict[str, tuple[_Column, Any]]:
        """Read the lines of the atoms: arrays of reals, (atoms, width), and lists of tokens or integers."""
        spec = self.keys.get('Properties', PLAIN_COLUMNS)
        try:
            columns = _parse_columns(spec or '')
        except ValueError as error:
            self._fail(f'`Properties` cannot be understood: {error}.')
        rows, plain = self._read_rows(columns[-1].stop)
        tokens = list(zip(*rows, strict=True))
        return {column.name: (column, self._values(column, tokens, plain)) for column in columns}

    def _read_rows(self, width: int) -> tuple[list[list[str]], bool]:
        """Return the tokens of all atoms, and whether the text is plain."""
        rows: list[list[str]] = []
        plain = True
        # A part at a time: what a wrong number of atoms swallows is noticed before the whole file is in memory.
        while missing := self.n_atoms - len(rows):
            lines = self.source.take(min(missing, LINES_AT_ONCE))
            part = [line.split() for line in lines]
            self._check_widths(part, width)
            if not lines:
                self.source.fail(f'the file ends after {len(rows)} of {self.n_atoms} atoms.')
            plain = plain and _is_plain(''.join(lines))
            rows += part
        return rows, plain

    def _check_widths(self, rows: list[list[str]], width: int) -> None:
        """Refuse an atom that has another number of columns than `Properties` says."""
        if set(map(len, rows)) == {width}:
            return
        for index, row in enumerate(rows):
            if len(row) != width:
                self.source.fail(
                    f'there are {len(row)} columns instead of the {width} of `Properties` '
                    f'(in a frame that should have {self.n_atoms} atoms).',
                    self.source.line - len(rows) + 1 + index,
                )

    def _values(self, column: _Column, tokens: list[Token], plain: bool) -> Any:
        """Return the values of one column."""
        chosen = tokens[column.start : column.stop]
        if column.kind == 'S':
            return chosen
        expected, careful, fast = CONVERTERS[column.kind]
        convert = fast if plain else careful
        try:
            if column.kind == 'R':
                flat = np.fromiter(map(convert, chain.from_iterable(chosen)), float, len(chosen) * self.n_atoms)
                return np.ascontiguousarray(flat.reshape(len(chosen), self.n_atoms).T)
            return [list(map(convert, values)) for values in chosen]
        except ValueError:
            self._fail_at_token(column, chosen, expected, careful)

    def _fail_at_token(
        self, column: _Column, tokens: list[Token], expected: str, convert: Callable[[str], Any]
    ) -> NoReturn:
        """Raise for the first value that cannot be converted."""
        for index, values in enumerate(zip(*tokens, strict=True)):
            for text in values:
                try:
                    convert(text)
                except ValueError:
                    self._fail_at_atom(index, f'`{column.name}` holds {_short(text)}, which is not {expected}.')
        raise AssertionError('some value could not be converted.')

    def _fail_at_atom(self, index: int, what: str) -> NoReturn:
        """Raise what is wrong with one atom."""
        self.source.fail(what, self.comment_line + 1 + index)

    def _required(self, name: str) -> str:
        """Return the name of a column that has to be there."""
        if name not in self.columns:
            self._fail(f'`Properties` has no column `{name}`; it has {_listed(self.columns)}.')
        return name

    def _vectors(self, name: str) -> Array:
        """Return a column of three finite numbers for each atom, (atoms, 3)."""
        column, values = self.columns[name]
        if column.kind != 'R' or column.stop - column.start != 3:
            self._fail(f'the column `{name}` has to be R:3, three real numbers.')
        finite = np.isfinite(values)
        if not finite.all():
            self._fail_at_atom(int(np.argmin(finite.all(axis=1))), f'`{name}` is not finite.')
        vectors: Array = values
        return vectors

    def _numbers(self) -> Array:
        """Return the atomic numbers, from symbols or as numbers."""
        found = {name: self._column_of_numbers(name) for name in ('species', *NUMBER_COLUMNS) if name in self.columns}
        if not found:
            self._required('species')
        first, *others = found.items()
        for name, numbers in others:
            if numbers != first[1]:
                self._fail(f'the columns `{first[0]}` and `{name}` disagree.')
        return np.array(first[1], dtype=np.uint8)

    def _column_of_numbers(self, name: str) -> list[int]:
        """Return the atomic numbers that one column holds."""
        column, values = self.columns[name]
        expected = 'S' if name == 'species' else 'I'
        if column.kind != expected or len(values) != 1:
            self._fail(f'the column `{name}` has to be {expected}:1.')
        if name == 'species':
            return self._numbers_of_symbols(values[0])
        numbers: list[int] = values[0]
        for index, number in enumerate(numbers):
            if not 0 < number < len(chemical_symbols):
                self._fail_at_atom(index, f'`{name}` is {number}, which is not the number of an element.')
        return numbers

    def _numbers_of_symbols(self, symbols: Token) -> list[int]:
        """Return the atomic numbers of chemical symbols."""
        try:
            return [NUMBERS[symbol] for symbol in symbols]
        except KeyError as error:
            index = symbols.index(error.args[0])
        try:
            atomic_number(symbols[index])
        except FrameError as error:
            self._fail_at_atom(index, f'`species`: {error}')
        raise AssertionError(f'{symbols[index]} is an element after all.')

    def _reals_of(self, key: str, counts: tuple[int, ...]) -> Array:
        """Return the numbers that a key holds, flat, of which there have to be as many as one of the counts."""
        numbers = self._floats(key)
        expected = ' or '.join(map(str, counts))
        if numbers is None or numbers.size not in counts:
            many = 'no number' if numbers is None else str(numbers.size)
            noun = 'number' if expected == '1' else 'numbers'
            self._fail(f'`{key}` has to be {expected} {noun}, not {many}: {_short(self.keys[key] or "")}.')
        if not np.isfinite(numbers).all():
            self._fail(f'`{key}` is not finite.')
        return numbers

    def _floats(self, key: str) -> Array | None:
        """Return the numbers that a key holds, flat; None where there is something else."""
        text = self.keys[key] or ''
        try:
            if text.startswith('_JSON '):
                return np.array(list(_flattened(json.loads(text[6:]))))
            return np.array([_real(token) for token in _tokens(text)])
        except (ValueError, OverflowError, RecursionError):
            return None

    def _cell_and_pbc(self) -> tuple[Array, Array]:
        """Return the cell in Å with the lattice vectors as rows, and the periodic directions."""
        has_lattice = 'Lattice' in self.keys
        cell = self._reals_of('Lattice', (9,)).reshape(3, 3) if has_lattice else np.zeros((3, 3))
        pbc = self._pbc() if 'pbc' in self.keys else np.full(3, has_lattice)
        if pbc.any() and not has_lattice:
            self._fail('`pbc` says that the frame is periodic, but there is no `Lattice`.')
        if _is_flat(cell[pbc].tolist()):
            self._fail('`Lattice` spans no volume along the periodic directions.')
        return cell, pbc

    def _pbc(self) -> Array:
        """Return the periodic directions."""
        text = (self.keys['pbc'] or '').removeprefix('_JSON ')
        tokens = _tokens(text)
        if len(tokens) != 3 or not all(token in TRUE | FALSE for token in tokens):
            self._fail(f'`pbc` has to be three times T or F, not {_short(text)}.')
        return np.array([token in TRUE for token in tokens])

    def _chosen(self, label: str, spellings: tuple[str, ...], present: Mapping[str, object], kind: str) -> list[str]:
        """Return the spellings of a label that the frame has, or the one that was asked for."""
        asked = getattr(self.labels, label)
        if asked is not None and asked not in present:
            self._fail(f'there is no {kind} `{asked}` for the {label}; there are {_listed(present)}.')
        return [name for name in spellings if name in present] if asked is None else [asked]

    def _agreed(self, label: str, found: Mapping[str, Any]) -> Any:
        """Return the value that all spellings of a label share; None without any."""
        if not found:
            return None
        (first, value), *others = found.items()
        rtol, atol = TOLERANCES.get(label, (0.0, 0.0))
        for name, other in others:
            if not (np.abs(np.subtract(value, other)) <= atol + rtol * np.abs(other)).all():
                hint = f'; say which one is meant with Labels({label}=…)' if label in TOLERANCES else ''
                self._fail(f'`{first}` and `{name}` disagree about the {label}{hint}.')
        return value

    def _energy(self) -> float | None:
        """Return the energy in eV."""
        chosen = self._chosen('energy', ENERGY_KEYS, self.keys, 'key')
        return self._agreed('energy', {key: float(self._reals_of(key, (1,))[0]) for key in chosen})  # type: ignore[no-any-return]

    def _forces(self) -> Array | None:
        """Return the forces in eV/Å, (atoms, 3)."""
        chosen = self._chosen('forces', FORCES_COLUMNS, self.columns, 'column')
        return self._agreed('forces', {name: self._vectors(name) for name in chosen})  # type: ignore[no-any-return]

    def _stress(self, cell: Array, pbc: Array) -> Array | None:
        """Return the stress in eV/Å³ in Voigt order, from a stress or a virial."""
        labels = self.labels
        stresses = self._chosen('stress', () if labels.virial else STRESS_KEYS, self.keys, 'key')
        virials = self._chosen('virial', () if labels.stress else VIRIAL_KEYS, self.keys, 'key')
        if (stresses or virials) and not pbc.all():
            key = (*stresses, *virials)[0]
            self._fail(f'there is a `{key}`, but `pbc` is not periodic in all three directions.')
        found = {key: self._symmetric(key, self._reals_of(key, (6, 9))) for key in stresses}
        # The virial is -V times the stress in the convention of both GPUMD and ASE.
        factor = -1.0 / _volume(cell.tolist()) if virials else 0.0
        found |= {key: self._symmetric(key, self._reals_of(key, (9,)) * factor) for key in virials}
        return self._agreed('stress', found)  # type: ignore[no-any-return]

    def _symmetric(self, key: str, stress: Array) -> Array:
        """Return six or nine numbers in Voigt order."""
        if stress.size == 6:
            return stress
        matrix = stress.reshape(3, 3)
        if (matrix == matrix.T).all():
            return stress[[0, 4, 8, 5, 2, 1]]
        try:
            return to_voigt(matrix)
        except FrameError as error:
            self._fail(f'`{key}`: {error}')

    def _small_integer(self, name: str, spellings: tuple[str, ...]) -> int | None:
        """Return the charge or the spin multiplicity."""
        found = {key: float(self._reals_of(key, (1,))[0]) for key in spellings if key in self.keys}
        value: float | None = self._agreed(name, found)
        if value is None:
            return None
        if not value.is_integer() or abs(value) >= 2**15:
            self._fail(f'`{next(iter(found))}` is {value!r}, which is not a small integer.')
        if name == 'spin' and value < 1:
            self._fail(f'`{next(iter(found))}` is {value:.0f}, but the spin is the multiplicity 2S + 1, at least 1.')
        return int(value)

    def _text(self, name: str, spellings: tuple[str, ...]) -> str:
        """Return a text, by the first spelling that is there."""
        key = next((key for key in spellings if key in self.keys), None)
        if key is None:
            return DEFAULTS[name]
        text = self.keys[key]
        if text is None:
            self._fail(f'`{key}` has no value.')
        if not text.startswith('_JSON '):
            return text
        try:
            value = json.loads(text[6:])
        except (ValueError, RecursionError):
            self._fail(f'`{key}` is not valid JSON: {_short(text)}.')
        return value if isinstance(value, str) else text[6:]


def _is_flat(vectors: list[list[float]]) -> bool:
    """Whether the periodic lattice vectors, in Å, span no length, area or volume."""
    lengths = [math.hypot(*vector) for vector in vectors]
    if not all(1e-3 <= length < 1e100 for length in lengths):  # beyond, the volume is no number either
        return True
    units = [[x / length for x in vector] for vector, length in zip(vectors, lengths, strict=True)]
    if len(units) < 2:
        return False
    extent = math.hypot(*_normal(*units)) if len(units) == 2 else _volume(units)
    # Somewhat more than a stored frame needs, so that rounding decides nothing.
    return extent < 2e-6


def _normal(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Return the product of two vectors; numpy needs ten times as long for so few numbers."""
    (a, b, c), (d, e, f) = one, other
    return b * f - c * e, c * d - a * f, a * e - b * d


def _volume(cell: list[list[float]]) -> float:
    """Return the volume that three vectors span."""
    x, y, z = _normal(cell[0], cell[1])
    return abs(x * cell[2][0] + y * cell[2][1] + z * cell[2][2])


def _tokens(text: str) -> list[str]:
    """Return what spaces, commas and brackets separate."""
    return text.translate(SEPARATORS).split()


def _flattened(value: object) -> Iterator[float]:
    """Yield the numbers of nested lists."""
    if isinstance(value, list):
        for item in value:
            yield from _flattened(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
    else:
        raise ValueError


def _listed(names: Iterable[str]) -> str:
    """Return names for a message."""
    return ', '.join(f'`{name}`' for name in names) or 'none'


class _Names(NamedTuple):
    """What a dialect calls the labels and the group."""

    energy: str
    forces: str
    stress: str
    group: str


# MACE distrusts `energy` and `forces`, which ASE's reader moves into a calculator; GPUMD knows virials alone.
DIALECTS: dict[Dialect, _Names] = {
    'mace': _Names('REF_energy', 'REF_forces', 'REF_stress', 'config_type'),
    'gpumd': _Names('energy', 'force', 'virial', 'config_type'),
    'nequip': _Names('energy', 'forces', 'stress', 'group'),
    'ase': _Names('energy', 'forces', 'stress', 'group'),
}


def write_extxyz(frames: Iterable[Frame], handle: TextIO, dialect: Dialect) -> None:
    """Write frames as one code expects them; every number is read back exactly, but for the virial of GPUMD.

    :param handle: a text file in UTF-8.
    """
    if dialect not in DIALECTS:
        raise ValueError(f'{dialect!r} is not a dialect of extended XYZ; there are {", ".join(get_args(Dialect))}.')
    names = DIALECTS[dialect]
    for index, frame in enumerate(frames):
        if dialect == 'gpumd' and not frame.cell.any():
            raise FrameError(f'frame {index} has no cell, without which GPUMD does not read it.')
        handle.write(f'{len(frame)}\n{_comment(frame, names)}\n{_atom_lines(frame)}\n')


def _comment(frame: Frame, names: _Names) -> str:
    """Return the comment line of a frame."""
    pairs = {'Lattice': _row(frame.cell.ravel())} if frame.cell.any() else {}
    pairs['Properties'] = PLAIN_COLUMNS + (f':{names.forces}:R:3' if frame.forces is not None else '')
    pairs[names.group] = _encoded(frame.group)
    for name in ('trajectory', 'head', 'source'):
        if getattr(frame, name) != DEFAULTS[name]:
            pairs[name] = _encoded(getattr(frame, name))
    for name in ('charge', 'spin'):
        if getattr(frame, name) is not None:
            pairs[name] = str(int(getattr(frame, name)))
    if frame.energy is not None:
        pairs[names.energy] = repr(float(frame.energy))
    if frame.stress is not None:
        scale = -_volume(frame.cell.tolist()) if names.stress == 'virial' else 1.0
        pairs[names.stress] = _row(scale * from_voigt(frame.stress).ravel() + 0.0)
    pairs['pbc'] = '"{} {} {}"'.format(*('T' if periodic else 'F' for periodic in frame.pbc))
    return ' '.join(f'{key}={value}' for key, value in pairs.items())


def _row(values: Array) -> str:
    """Return numbers in quotes."""
    return f'"{" ".join(map(repr, values.tolist()))}"'


def _atom_lines(frame: Frame) -> str:
    """Return the lines of all atoms."""
    parts = [frame.positions] if frame.forces is None else [frame.positions, frame.forces]
    table = np.concatenate(parts, axis=1, dtype=np.float64).tolist()
    return '\n'.join(
        f'{symbol:<2} {" ".join(map(repr, row))}' for symbol, row in zip(frame.symbols, table, strict=True)
    )


def _encoded(text: str) -> str:
    """Return text such that every reader gives back the same text, and none takes part of it for a key.

    ASE turns what looks like numbers or truth values into these; JSON, which it understands, keeps them text.
    """
    is_plain = text.isprintable() and '=' not in text and not text.startswith('_JSON ') and not _is_literal(text)
    if is_plain and WORD.fullmatch(text):
        return text
    written = text if is_plain else '_JSON ' + json.dumps(text).replace('=', '\\u003d')
    escaped = written.replace('\\', '\\\\').replace('"', '\\"')
    return f'"{escaped}"'


def _is_literal(text: str) -> bool:
    """Whether all words of a text are numbers, or all are truth values."""
    words = re.findall(r'[^\s,]+', text)
    return all(word in TRUE | FALSE for word in words) or all(map(_is_number, words))


def _is_number(word: str) -> bool:
    """Whether Python reads a word as a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True
