"""The training sets that VASP collects on the fly, ML_AB and ML_ABN, read frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from aiida_perovmlip.compute.frame import Array, Frame, FrameError, atomic_number
from aiida_perovmlip.labellers.vasp.vasprun import KILOBAR

CONFIGURATION = 'Configuration num.'
SHORTEST_RULER = 40


class MlAbError(FrameError):
    """A file that is not what VASP writes; the message has the line."""


@dataclass
class _Block:
    """A title with what stands below it.

    :param number: line of the title.
    :param lines: number and text of each line of the content.
    """

    title: str
    number: int
    lines: list[tuple[int, str]] = field(default_factory=list)


def read_ml_ab(lines: Iterable[str], name: str = 'ML_AB') -> Iterator[Frame]:
    """Yield the frames of a file one after the other; raises `MlAbError` for what is malformed.

    The energy is what VASP learns from, its total (free) energy.

    :param name: what to call the file in messages.
    """
    announced, found = None, 0
    parts: dict[str, _Block] = {}
    last = 0
    for block in _blocks(lines, name):
        last = block.lines[-1][0] if block.lines else block.number
        if block.title == 'The number of configurations':
            announced = _Reader(name, block).integer()
        if block.title.startswith(CONFIGURATION):
            if parts:
                yield _frame(parts, name, last)
            parts, found = {CONFIGURATION: block}, found + 1
        elif parts:
            parts[block.title] = block
    if announced is None:
        raise MlAbError(f'{name}, line {max(last, 1)}: there is no number of configurations; this is no ML_AB file.')
    if parts:
        yield _frame(parts, name, last)
    if found != announced:
        raise MlAbError(f'{name}, line {last}: it has {found} configurations, but its head says {announced}.')


def _blocks(lines: Iterable[str], name: str) -> Iterator[_Block]:
    """Yield what stands between the rulers of stars and of equals signs."""
    block: _Block | None = None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if '\0' in text:
            raise MlAbError(f'{name}, line {number}: it holds bytes that are no text.')
        if _is_ruler(text, '*=') or not text:
            if block is not None and text:
                yield block
                block = None
        elif _is_ruler(text, '-'):
            continue
        elif block is None:
            block = _Block(text, number)
        else:
            block.lines.append((number, text))
    if block is not None:
        yield block


def _is_ruler(text: str, characters: str) -> bool:
    # a number that does not fit its field is a row of stars too, but a short one
    return len(text) >= SHORTEST_RULER and text[0] in characters and text == text[0] * len(text)


@dataclass
class _Reader:
    """Takes the numbers out of a block, or says where they are not."""

    name: str
    block: _Block

    def fail(self, number: int, what: str) -> NoReturn:
        raise MlAbError(f'{self.name}, line {number}: {what}')

    def integer(self) -> int:
        number, text = self._only()
        if not text.isdigit():
            self.fail(number, f'{self.block.title!r} is {text!r}, which is no number.')
        return int(text)

    def number(self) -> float:
        line, text = self._only()
        return self.numbers(line, text, 1)[0]

    def _only(self) -> tuple[int, str]:
        if len(self.block.lines) != 1:
            self.fail(self.block.number, f'{self.block.title!r} has {len(self.block.lines)} lines instead of one.')
        return self.block.lines[0]

    def numbers(self, line: int, text: str, count: int) -> list[float]:
        """Return the numbers of a line; Fortran may write D for E."""
        try:
            values = [float(part.replace('D', 'E').replace('d', 'e')) for part in text.split()]
        except ValueError:
            values = []
        if len(values) != count or not all(map(math.isfinite, values)):
            self.fail(line, f'{self.block.title!r} has {text[:60]!r} instead of {count} numbers.')
        return values

    def rows(self, count: int) -> Array:
        """Return so many lines of three numbers each, shape (count, 3)."""
        lines = self.block.lines
        if len(lines) != count:
            line = lines[-1][0] if lines else self.block.number
            self.fail(line, f'{self.block.title!r} has {len(lines)} lines instead of {count}.')
        return np.array([self.numbers(line, text, 3) for line, text in lines])

    def species(self) -> list[int]:
        """Return the atomic numbers of all atoms from lines of an element and a count."""
        numbers: list[int] = []
        for line, text in self.block.lines:
            element, _, count = text.partition(' ')
            if not count.strip().isdigit():
                self.fail(line, f'{text[:60]!r} is no element with a number of atoms.')
            try:
                numbers += [atomic_number(element)] * int(count)
            except FrameError as error:
                self.fail(line, str(error))
        return numbers

    def stress(self) -> Array:
        """Return xx yy zz yz xz xy in eV/Å³ with the sign of ASE."""
        known: dict[str, float] = {}
        for (_, head), (line, text) in zip(self.block.lines[::2], self.block.lines[1::2], strict=False):
            known |= dict(zip(head.split(), self.numbers(line, text, 3), strict=False))
        if set(known) != {'XX', 'YY', 'ZZ', 'XY', 'YZ', 'ZX'}:
            self.fail(self.block.number, f'the stress has the components {", ".join(sorted(known)) or "none"}.')
        return -KILOBAR * np.array([known[name] for name in ('XX', 'YY', 'ZZ', 'YZ', 'ZX', 'XY')])


def _frame(parts: dict[str, _Block], name: str, last: int) -> Frame:
    """Return the frame of one configuration."""

    def part(title: str) -> _Reader:
        if title not in parts:
            first = parts[CONFIGURATION]
            raise MlAbError(f'{name}, line {last}: {first.title!r} of line {first.number} has no {title!r}.')
        return _Reader(name, parts[title])

    atoms, kinds = part('The number of atoms').integer(), part('Atom types and atom numbers')
    numbers = kinds.species()
    if len(numbers) != atoms:
        kinds.fail(kinds.block.number, f'the elements have {len(numbers)} atoms in all, but there are {atoms}.')
    return Frame(
        np.array(numbers, dtype=np.uint8),
        part('Atomic positions (ang.)').rows(atoms),
        part('Primitive lattice vectors (ang.)').rows(3),
        np.ones(3, dtype=bool),
        energy=part('Total energy (eV)').number(),
        forces=part('Forces (eV ang.^-1)').rows(atoms),
        stress=part('Stress (kbar)').stress(),
    )
