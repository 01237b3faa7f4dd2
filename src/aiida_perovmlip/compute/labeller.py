"""A labeller that runs inside a job: an ASE calculator with a level of theory and the frames it refuses."""

from __future__ import annotations

from abc import abstractmethod
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.plugin import Plugin


@dataclass(frozen=True)
class Teacher:
    """A potential whose predictions are labels.

    :param architecture: name of its architecture.
    :param content_hash: hash of its files.
    :param elements: chemical symbols that it knows.
    :param heads: names of the levels of theory that it predicts.
    :param plugin: `module:Class` of its architecture; only inside a job.
    :param folder: where its files are; only inside a job.
    :param device: where it computes.
    """

    architecture: str
    content_hash: str
    elements: tuple[str, ...]
    heads: tuple[str, ...]
    plugin: str = ''
    folder: Path | None = None
    device: str = 'cpu'

    def choose_head(self, wanted: str | None) -> str:
        """Return the head to use; raises ValueError where it is not there, or is one of several and not named."""
        known = ', '.join(self.heads)
        if wanted is None and len(self.heads) == 1:
            return self.heads[0]
        if wanted is None:
            raise ValueError(f'the potential has several heads, {known}; say which by the setting `head`.')
        if wanted not in self.heads:
            raise ValueError(f'the potential has no head `{wanted}`; it has {known}.')
        return wanted


@dataclass(frozen=True)
class Repair:
    """Another try at the same level of theory for frames that failed.

    :param name: stored with each label that was made this way.
    :param sees: the kinds of failures that it is for.
    :param does: one sentence for the documentation.
    :param changes: settings that it changes; none of these may be part of the level.
    """

    name: str
    sees: frozenset[str]
    does: str
    changes: dict[str, Any] = field(default_factory=dict)


class AseLabeller(Plugin):
    """Base of the labellers that compute with an ASE calculator; one file and one entry point add another."""

    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {'balanced': ('The defaults.', {})}
    """What each protocol is for, one sentence, and its settings, by name."""

    repairs: ClassVar[tuple[Repair, ...]] = ()
    """What is tried on frames that failed, in this order; each changes settings that the level does not know."""

    teacher: Teacher | None = None
    """The potential whose predictions are the labels; only where this labeller `needs_potential`."""

    def taught_by(self, teacher: Teacher) -> Self:
        """Return this labeller with a potential to label with."""
        if not self.needs_potential:
            raise ValueError(f'the labeller `{self.name}` computes by itself and takes no potential.')
        taught = copy(self)
        taught.teacher = teacher
        return taught

    @abstractmethod
    def level(self, settings: Any) -> Level:
        """Return the level of theory of labels made with these settings; needs no package of the calculator."""

    @abstractmethod
    def calculator(self, settings: Any, frame: Frame) -> Any:
        """Return an ASE calculator for this frame, with its charge and spin."""

    def refusal(self, settings: Any, frame: Frame) -> str | None:
        """Return a sentence where this calculator is known to be wrong for the frame; None where it may run."""
        return None


def refuse_small_cell(frame: Frame, smallest: float, why: str) -> str | None:
    """Return a sentence where a periodic frame is lower than this along a periodic direction.

    :param smallest: in Å.
    """
    if not frame.pbc.any():
        return None
    heights = 1 / np.linalg.norm(np.linalg.pinv(frame.cell), axis=0)
    shortest = float(heights[frame.pbc].min())
    if shortest >= smallest:
        return None
    return (
        f'the cell is {shortest:.2f} Å high along a periodic direction, less than {smallest:g} Å, and {why}. '
        'Label a supercell, or set `smallest_cell` to 0.'
    )


def refuse_odd_electrons(frame: Frame) -> str | None:
    """Return a sentence where the electrons of a frame cannot have its spin; closed cores do not matter here."""
    electrons = int(frame.numbers.sum()) - (frame.charge or 0)
    multiplicity = frame.spin or 1
    if (electrons - (multiplicity - 1)) % 2 == 0:
        return None
    number = 'odd' if electrons % 2 else 'even'
    return f'an {number} number of electrons cannot have the multiplicity {multiplicity}; state `charge` and `spin`.'
