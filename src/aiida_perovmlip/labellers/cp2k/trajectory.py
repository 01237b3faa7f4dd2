"""Trajectory files of CP2K: positions (or forces) as XYZ, and cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from aiida_perovmlip.compute.frame import Array


@dataclass(frozen=True)
class Step:
    """One step of an XYZ file.

    :param energy: in hartree, as it is printed; None where the comment does not tell.
    :param rows: shape (atoms, 3), in the unit of the file: Å for positions, hartree/bohr for forces.
    """

    index: int
    energy: float | None
    symbols: tuple[str, ...]
    rows: Array


def read_steps(lines: Iterable[str]) -> Iterator[Step]:
    """Yield the steps; one at the end that was cut off is left out."""
    stream = iter(lines)
    for line in stream:
        if not line.strip():
            continue
        count = int(line.split()[0])
        comment = next(stream, '')
        texts = [text for _, text in zip(range(count), stream, strict=False)]
        if len(texts) < count or not texts[-1].endswith('\n'):  # cut off, maybe in the middle of a number
            return
        yield _step(comment, [text.split() for text in texts])


def _step(comment: str, atoms: list[list[str]]) -> Step:
    """Read ` i = 3, time = 1.500, E = -58.2006639414`."""
    known = {key.strip(): value.strip() for key, _, value in (part.partition('=') for part in comment.split(','))}
    rows = np.array([[float(word) for word in words[1:4]] for words in atoms])
    energy = float(known['E']) if known.get('E') else None
    return Step(int(known.get('i', 0)), energy, tuple(words[0] for words in atoms), rows)


def read_cells(lines: Iterable[str]) -> Iterator[tuple[int, Array]]:
    """Yield step and cell vectors in Å, shape (3, 3); a line that was cut off is left out."""
    for line in lines:
        words = line.split()
        if len(words) >= 11 and line.endswith('\n') and not line.lstrip().startswith('#'):
            yield int(words[0]), np.array([float(word) for word in words[2:11]]).reshape(3, 3)
