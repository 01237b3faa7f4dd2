"""The file OUTCAR of one image of a band, as VASP with VTST writes it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.labellers.vasp.vasprun import Step

TOLERANCE = 2e-6
"""Absolute; VTST prints six decimals."""


@dataclass
class ImageStep(Step):
    """One step of an image.

    Its forces are those of the potential energy surface, its positions have five decimals.

    :param residual: largest force on an atom of the band in eV/Å, springs included.
    """

    residual: float = math.nan


class Outcar:
    """An OUTCAR, which is read line by line; what it tells is known after the last step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, str] = {}
        """What VTST says that it does: `vtst` (its version), `iopt` (the name of its optimiser), and its tags."""
        self.has_begun = False
        """Whether VASP got as far as the first step."""
        self.is_finished = False

    def steps(self) -> Iterator[ImageStep]:
        """Yield all steps that are complete."""
        step = ImageStep()
        with self.path.open(encoding='utf-8', errors='replace') as lines:
            for line in lines:
                if match := _ITERATION.search(line):
                    self.has_begun = True
                    step = ImageStep() if match[2] == '1' else step
                    step.n_scf = int(match[2])
                elif not self.has_begun:
                    self._listen(line)
                elif found := _KNOWN.search(line):
                    self._take(step, found[0], line, lines)
                    if found[0] == _LAST:
                        yield step
                elif 'General timing and accounting' in line:
                    self.is_finished = True

    def _listen(self, line: str) -> None:
        """Note what VTST tells of itself."""
        for name, pattern in _TOLD.items():
            if match := pattern.search(line):
                self.told[name] = match[1]
        if match := _TAG.match(line):
            self.told[match[1].lower()] = match[2]

    def _take(self, step: ImageStep, what: str, line: str, lines: Iterator[str]) -> None:
        """Take one thing of a step."""
        try:
            _PARTS[what](step, line, lines)
        except (ValueError, IndexError) as error:  # stars where a number did not fit, or the end of the file
            step.problem = step.problem or f'`{what}` cannot be read: {error}'

    def differences(self, tags: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each thing that VTST does otherwise than INCAR asks; without VTST there is one."""
        if 'vtst' not in self.told:
            return ['this VASP was built without VTST, and passes over what makes it climb (LCLIMB, IOPT)']
        found = [
            f'{tag.upper()} is {self.told.get(name, "not there")} instead of {asked}'
            for name, tag, asked in (('images', 'images', tags['images']), ('iopt', 'iopt', 'LBFGS'))
            if self.told.get(name) != str(asked)
        ]
        for tag in ('ichain', 'spring', 'lclimb', 'efirst', 'elast'):
            used = self.told.get(tag)
            if not (_agree(tags[tag], used) or (used is None and tag in ('efirst', 'elast'))):
                found.append(f'{tag.upper()} is {used or "not there"} instead of {tags[tag]}')
        return found


def _agree(asked: Any, used: str | None) -> bool:
    """Whether a tag of VTST is what was asked."""
    if used is None:
        return False
    if isinstance(asked, bool):
        return used == ('T' if asked else 'F')
    try:
        return bool(abs(float(used) - asked) <= TOLERANCE)
    except ValueError:
        return False


# ---------------------------------------------------------------------- what is looked for

_ITERATION = re.compile(r'-- Iteration\s+(\d+)\(\s*(\d+)\)')
_TAG = re.compile(r'\s*NEB:\s+([A-Z]+)\s+(\S+)\s*$')
_TOLD = {
    'vtst': re.compile(r'VTST: version\s+(\S+?),'),
    'ichain': re.compile(r'CHAIN: Read ICHAIN\s+(\S+)'),
    'iopt': re.compile(r'OPT: Using (\S+) optimizer'),
    'images': re.compile(r'OPT: LBFGS, IMAGES\s+(\S+)'),
}
_LAST = 'FORCES: max atom, RMS'


def _energy(step: ImageStep, line: str, _: Iterator[str]) -> None:
    step.energy = float(line.split()[-2])


def _cell(step: ImageStep, _: str, lines: Iterator[str]) -> None:
    step.cell = np.array([[float(part) for part in row.split()[:3]] for row in islice(lines, 3)]).reshape(3, 3)


def _forces(step: ImageStep, _: str, lines: Iterator[str]) -> None:
    if step.cell is None:
        raise ValueError('there is no cell.')
    rows = np.array(list(_rows(lines))).reshape(-1, 6)
    step.fractions, step.forces = rows[:, :3] @ np.linalg.inv(step.cell), rows[:, 3:]


def _rows(lines: Iterator[str]) -> Iterator[list[float]]:
    """Yield the numbers between two rules."""
    next(lines, '')
    for line in lines:
        if line.startswith(' ---'):
            return
        yield [float(part) for part in line.split()]
    raise ValueError('the file ends here.')


def _residual(step: ImageStep, line: str, _: Iterator[str]) -> None:
    step.residual = float(line.split()[-2])


_PARTS: dict[str, Callable[[ImageStep, str, Iterator[str]], None]] = {
    'direct lattice vectors': _cell,
    'TOTAL-FORCE (eV/Angst)': _forces,
    'free  energy   TOTEN': _energy,
    _LAST: _residual,
}
_KNOWN = re.compile('|'.join(map(re.escape, _PARTS)))
