"""Trajectory files of CP2K: positions (or forces) as XYZ, and cells."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from ase import units

from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.labellers.cp2k.output import Snapshot

SAME_ENERGY = 1e-9 * units.Hartree
"""In eV: trajectory files print energies to ten digits in hartree."""

LOOK_AHEAD = 50
"""How many steps of a trajectory may be of no SCF cycle, such as those of a run that was continued in its file."""


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


def matched(steps: Iterable[Step], snapshots: Iterable[Snapshot]) -> Iterator[tuple[Step | None, Snapshot]]:
    """Yield each SCF cycle with the step that was done at its energy; None where no step of the file was.

    Positions of trial steps that an optimiser took back are in no file, and a file may have steps of another run.
    """
    rest, ahead = iter(steps), deque[Step]()
    for snapshot in snapshots:
        ahead.extend(islice(rest, LOOK_AHEAD + 1 - len(ahead)))
        place = next((index for index, step in enumerate(ahead) if is_of(step, snapshot)), None)
        for _ in range(place or 0):
            ahead.popleft()
        yield None if place is None else ahead.popleft(), snapshot


def is_of(step: Step, snapshot: Snapshot) -> bool:
    """Whether a step has the energy of an SCF cycle."""
    if step.energy is None or snapshot.energy is None:
        return False
    return bool(abs(step.energy * units.Hartree - snapshot.energy) < SAME_ENERGY)


def read_cells(lines: Iterable[str]) -> Iterator[tuple[int, Array]]:
    """Yield step and cell vectors in Å, shape (3, 3); a line that was cut off is left out."""
    for line in lines:
        words = line.split()
        if len(words) >= 11 and line.endswith('\n') and not line.lstrip().startswith('#'):
            yield int(words[0]), np.array([float(word) for word in words[2:11]]).reshape(3, 3)
