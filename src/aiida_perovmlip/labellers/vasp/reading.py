"""From the output of VASP to labelled frames, in the order of the frame that it started from."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.shard import build_shards, digests
from aiida_perovmlip.labellers.vasp.agreement import moved_by
from aiida_perovmlip.labellers.vasp.inputs import order_of
from aiida_perovmlip.labellers.vasp.ml_ab import MlAbError
from aiida_perovmlip.labellers.vasp.vasprun import Header, Step

MOST_SENTENCES = 20
"""How many steps without a label are told of one by one."""


CLOSEST = 1e-5
"""In Å: structures that differ by less are one."""


def digest_of(frame: Frame) -> str:
    """Return a name for a structure, equal for equal structures: 32 hexadecimal digits."""
    shard = next(build_shards([replace(frame, energy=None, forces=None, stress=None)]))
    return bytes(digests(shard, labels=False)[0]).hex()


DOUBTS = re.compile(r'BRMIX: very serious problems|highest band is occupied', re.IGNORECASE)
"""What VASP prints where its numbers cannot be trusted, and goes on."""

STEP_DONE = re.compile(r'\s*\d+\s+[TF]=')
"""What it prints behind each ionic step."""


FLAT, HUGE = 1e-3, 1e9
"""Volumes in Å³ below and above which a cell is none; positions beyond the second, in cells, are none either."""


def doubts_in(lines: Iterable[str]) -> dict[int, str]:
    """Return the doubts that VASP prints, by the number of the ionic step from 1 on."""
    found: dict[int, str] = {}
    done = 0
    for line in lines:
        if STEP_DONE.match(line):
            done += 1
        elif DOUBTS.search(line):
            found.setdefault(done + 1, ' '.join(line.strip(' |\n').split()))
    if done and done + 1 in found:  # printed behind the last step
        found.setdefault(done, found[done + 1])
    return found


def unlabelled_because(header: Header, step: Step) -> str | None:
    """Return why the step of a run gives no label; None where it does."""
    if step.problem:
        return step.problem
    if not step.is_complete:
        return 'energy, forces, cell or positions are missing'
    assert step.fractions is not None
    assert step.forces is not None
    assert step.cell is not None
    n_atoms, found = len(header.elements), (len(step.fractions), len(step.forces))
    if found != (n_atoms, n_atoms):
        return f'it has positions of {found[0]} and forces of {found[1]} atoms, but the run has {n_atoms}'
    if step.cell.shape != (3, 3) or not FLAT < abs(np.linalg.det(step.cell)) < HUGE:
        return 'its cell is none'
    if not np.abs(step.fractions).max() < HUGE:
        return 'its positions are none'
    if step.n_scf == 0:
        return 'it was not computed from first principles'
    limit = abs(int(header.value('nelm') or 60))
    if step.n_scf >= limit:
        return f'the SCF cycle took all of its {limit} steps (NELM)'
    return None


@dataclass
class Trajectory:
    """Turns steps into frames that follow each other without jumps through the cell.

    :param start: the frame before the first step.
    :param order: positions of its atoms in the order of VASP.
    """

    start: Frame
    order: Array
    name: str = ''
    _fractions: Array = field(init=False)

    def __post_init__(self) -> None:
        self._fractions = self.start.positions[self.order] @ np.linalg.inv(self.start.cell)

    def frame(self, step: Step, is_start: bool = False) -> Frame:
        """Return the frame of a complete step; the first has the very positions that VASP was given."""
        assert step.cell is not None
        assert step.fractions is not None
        jump = step.fractions - self._fractions
        self._fractions = self._fractions + jump - np.round(jump)
        positions = self.start.positions if is_start else self._unsorted(self._fractions @ step.cell)
        return replace(
            self.start,
            positions=positions,
            cell=self.start.cell if is_start else step.cell,
            energy=step.energy,
            forces=self._unsorted(step.forces),
            stress=step.stress if self.start.has_volume else None,
            trajectory=self.name or self.start.trajectory,
        )

    def _unsorted(self, rows: Any) -> Array:
        """Return rows in the order of VASP in the order of the frame."""
        result: Array = np.empty_like(rows)
        result[self.order] = rows
        return result


@dataclass
class Counts:
    """What became of the steps of a run.

    :param n_predicted: steps that VASP predicted by what it had learned.
    :param unlabelled: the last steps whose SCF cycle did not converge.
    """

    n_steps: int = 0
    n_predicted: int = 0
    n_skipped: int = 0
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    edges: tuple[float, float] | None = None
    unlabelled: deque[Step] = field(default_factory=lambda: deque(maxlen=1000))

    def count(self, step: Step, reason: str | None, learns: bool = False) -> None:
        """Count a step, and why it has no label; while VASP learns, steps are predicted and nobody wonders."""
        self.n_steps += 1
        self.seconds += step.seconds
        self.edges = step.edges or self.edges
        if reason is None:
            return
        if learns and step.n_scf == 0:
            self.n_predicted += 1
            return
        self.unlabelled.append(step)
        self.n_skipped += 1
        if len(self.skipped) < MOST_SENTENCES:
            self.skipped.append(f'step {self.n_steps}: {reason}.')


def learned_frames(
    found: Iterable[Frame], start: Frame, known: set[str], unlabelled: Iterable[Step], name: str
) -> Iterator[Frame]:
    """Yield the frames that VASP collected while it learned, in the order of atoms of the frame that it started from.

    :param known: structures that it had been given, by `digest_of`.
    :param unlabelled: steps whose SCF cycle did not converge; VASP learns from these too.
    """
    theirs, order = list(unlabelled), order_of(start)
    for frame in found:
        if digest_of(frame) in known:
            continue
        if not np.array_equal(np.sort(frame.numbers), np.sort(start.numbers)):
            raise MlAbError('ML_ABN has a configuration of other atoms than those of the frame and of ML_AB.')
        placed = _as_in(start, frame, name)
        if not any(moved_by(placed, order, step) < CLOSEST for step in theirs):
            yield placed


def _as_in(start: Frame, frame: Frame, name: str) -> Frame:
    """Return a frame with its atoms in the order of another one: the n-th of an element is the n-th of it there."""
    places = np.empty(len(start), dtype=int)
    for number in np.unique(start.numbers):
        places[start.numbers == number] = np.flatnonzero(frame.numbers == number)
    return replace(
        start,
        positions=frame.positions[places],
        cell=frame.cell,
        energy=frame.energy,
        forces=frame.forces[places] if frame.forces is not None else None,
        stress=frame.stress if start.has_volume else None,
        trajectory=name,
    )
