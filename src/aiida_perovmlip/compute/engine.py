"""An engine of molecular dynamics: what moves the atoms of a run."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import MdSettings
from aiida_perovmlip.compute.plugin import Plugin
from aiida_perovmlip.compute.recorder import Recorder

RESCALES = 'scr'
"""The barostat that has to know the bulk modulus."""


@dataclass(frozen=True, kw_only=True)
class MdRun:
    """All that an engine needs to run.

    :param frame: the structure to start from, in positions that may lie outside of the cell.
    :param potential: folder with the files of the potential.
    :param recorder: takes what the run gives, and has the state to start from.
    :param folder: where the engine may write; `recorder` keeps what matters.
    :param seed: of the first velocities and of the random forces.
    :param committee: folders of further potentials of the architecture, whose forces tell how sure the potential is.
    :param seconds_left: seconds until the job has to be finished; infinite without a limit.
    """

    settings: MdSettings
    frame: Frame
    architecture: Architecture
    potential: Path
    recorder: Recorder
    folder: Path
    head: str | None = None
    device: str = 'cpu'
    cores: int = 1
    seed: int = 0
    committee: tuple[Path, ...] = ()
    seconds_left: Callable[[], float] = field(default=lambda: math.inf)


class Engine(Plugin):
    """Base of all engines; one file and one entry point add another."""

    uses_calculator: ClassVar[bool] = True
    """Whether it runs where the package of the architecture is, by that one's ASE calculator; if not, it is a program
    of its own that reads the potential's files, in an environment of its own."""

    ensembles: ClassVar[tuple[str, ...]] = ('nve', 'nvt', 'npt')
    thermostats: ClassVar[tuple[str, ...]] = ()
    """What it has to keep the temperature of `nvt`; the first is its default."""

    barostats: ClassVar[tuple[str, ...]] = ()
    """What it has to keep the pressure of `npt`; the first is its default."""

    thermostats_of_barostats: ClassVar[dict[str, tuple[str, ...]]] = {}
    """The thermostats that go with each barostat; the first is the default."""

    cells: ClassVar[dict[str, tuple[str, ...]]] = {}
    """What each barostat can move: `isotropic`, `orthogonal`, `flexible`."""

    has_ramps: ClassVar[bool] = True
    has_frozen_atoms: ClassVar[bool] = True
    has_committee: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Run beside the potential where the calculator is used; there is no environment of the engine then."""
        super().__init_subclass__(**kwargs)
        cls.needs_potential = cls.uses_calculator

    @classmethod
    def needs_packages_of(cls, role: str) -> bool:
        """Return whether the packages of another plug-in of the job are needed."""
        return cls.uses_calculator or role != 'architecture'

    def thermostat_of(self, settings: MdSettings) -> str | None:
        """Return the thermostat that a run will have."""
        if settings.ensemble == 'nve' or settings.thermostat is not None:
            return settings.thermostat
        barostat = self.barostat_of(settings)
        known = self.thermostats if barostat is None else self.thermostats_of_barostats.get(barostat, ())
        return known[0] if known else None

    def barostat_of(self, settings: MdSettings) -> str | None:
        """Return the barostat that a run will have."""
        if settings.ensemble != 'npt' or settings.barostat is not None:
            return settings.barostat
        return self.barostats[0] if self.barostats else None

    def refusal(self, settings: MdSettings, architecture: Architecture) -> str | None:
        """Return a sentence where this engine cannot do such a run, with this architecture or with any."""
        return self.lack(settings)

    def lack(self, settings: MdSettings) -> str | None:
        """Return a sentence where this engine has not what the settings ask for."""
        thermostat, barostat = self.thermostat_of(settings), self.barostat_of(settings)
        if settings.ensemble not in self.ensembles:
            return f'{self.name} has no ensemble `{settings.ensemble}`; it has {_listed(self.ensembles)}.'
        if settings.ensemble == 'nvt' and thermostat not in self.thermostats:
            return f'{self.name} has no thermostat `{thermostat}`; it has {_listed(self.thermostats)}.'
        if barostat is not None:
            if barostat not in self.barostats:
                return f'{self.name} has no barostat `{barostat}`; it has {_listed(self.barostats)}.'
            fitting = self.thermostats_of_barostats.get(barostat, ())
            if thermostat not in fitting:
                return f'the barostat `{barostat}` of {self.name} has the thermostat {_listed(fitting)}.'
            if barostat != RESCALES and settings.bulk_modulus != MdSettings().bulk_modulus:
                return f'`bulk_modulus` has no effect on the barostat `{barostat}`; leave it out.'
            movable = self.cells.get(barostat, ())
            if settings.cell not in movable:
                return f'the barostat `{barostat}` of {self.name} cannot move a cell that is {settings.cell}; it can '\
                       f'move one that is {_listed(movable)}.'  # fmt: skip
        if not self.has_ramps and not settings.is_constant:
            return f'{self.name} has no ramps of temperature or pressure.'
        if not self.has_frozen_atoms and settings.frozen:
            return f'{self.name} cannot freeze atoms.'
        if not self.has_committee and settings.max_spread is not None:
            return f'{self.name} cannot watch the spread of a committee.'
        return None

    @abstractmethod
    def run(self, run: MdRun) -> dict[str, Any]:
        """Move the atoms to the end of the schedule; return what was really done.

        It starts from `run.recorder.state()`, where there is one, and else from `run.frame`, whose frame and row of
        thermodynamics at step 0 it records too. Frames and rows go to the recorder when they are due, before the state
        of their step is saved; the recorder raises where the run has exploded. Where `seconds_left` runs out, the
        state is saved and `recorder.out_of_time` raised.
        """


def _listed(names: tuple[str, ...]) -> str:
    return ', '.join(f'`{name}`' for name in names) or 'none'
