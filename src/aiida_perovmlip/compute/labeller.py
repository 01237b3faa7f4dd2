"""A labeller that runs inside a job: an ASE calculator with a level of theory and the frames it refuses."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.plugin import Plugin


class AseLabeller(Plugin):
    """Base of the labellers that compute with an ASE calculator; one file and one entry point add another."""

    @abstractmethod
    def level(self, settings: Any) -> Level:
        """Return the level of theory of labels made with these settings; needs no package of the calculator."""

    @abstractmethod
    def calculator(self, settings: Any, frame: Frame) -> Any:
        """Return an ASE calculator for this frame, with its charge and spin."""

    def refusal(self, settings: Any, frame: Frame) -> str | None:
        """Return a sentence where this calculator is known to be wrong for the frame; None where it may run."""
        return None
