"""Labels by a teacher: the predictions of a stored potential of any architecture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller, Teacher
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.plugin import load_object
from aiida_perovmlip.compute.settings import option


@dataclass(frozen=True)
class PotentialSettings:
    """Settings of a teacher."""

    head: str | None = option(None, 'The level of theory to predict; needed where the potential has several.')


class Potential(AseLabeller):
    """A potential as teacher of others; it runs in the environment of its architecture."""

    name: ClassVar[str] = 'potential'
    summary: ClassVar[str] = 'Predictions of a stored potential, of any architecture'
    needs_potential: ClassVar[bool] = True
    Settings = PotentialSettings

    def level(self, settings: PotentialSettings) -> Level:
        """Return the level of theory: the files of the potential and the head say it all."""
        teacher = self._taught()
        details = {'content_hash': teacher.content_hash, 'head': teacher.choose_head(settings.head)}
        return Level(labeller='potential', functional=teacher.architecture, details=details)

    def calculator(self, settings: PotentialSettings, frame: Frame) -> Any:
        """Return the calculator of the potential, which is opened once in each process."""
        teacher = self._taught()
        calculator = _open(teacher, teacher.choose_head(settings.head))
        calculator.reset()  # ASE would not see that another charge or spin of the same atoms is another frame
        return calculator

    def refusal(self, settings: PotentialSettings, frame: Frame) -> str | None:
        """Refuse elements that the potential has never seen, once it is known which potential it is."""
        if self.teacher is None:
            return None
        known = self.teacher.elements
        unknown = missing_elements(frame.symbols, known)
        if unknown:
            return f'the frame holds {", ".join(unknown)}, but the potential knows only {", ".join(known)}.'
        return None

    def self_test(self) -> str:
        """Refuse what a potential does not know; the potential itself is tested by its architecture."""
        import numpy as np

        taught = self.taught_by(Teacher('none', '0', ('H',), ('default',)))
        frames = {symbol: Frame(np.array([number]), np.zeros((1, 3))) for symbol, number in (('H', 1), ('He', 2))}
        refused = [symbol for symbol, frame in frames.items() if taught.refusal(PotentialSettings(), frame)]
        if refused != ['He']:
            raise ArithmeticError(f'a potential of hydrogen refuses {refused} instead of helium.')
        return 'a potential of hydrogen refuses helium'

    def _taught(self) -> Teacher:
        """Return the potential; raises ValueError where there is none."""
        if self.teacher is None:
            raise ValueError('the labeller `potential` labels with a potential; pass one as `potential`.')
        return self.teacher


@cache
def _open(teacher: Teacher, head: str) -> Any:
    """Open the files of a potential as an ASE calculator."""
    return load_object(teacher.plugin)().calculator(teacher.folder, teacher.device, head)
