"""Labellers that run inside a job of ours: an ASE calculator, many frames a job, any composition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.labellers.base import Labeller, Protocol

if TYPE_CHECKING:
    from aiida import orm
    from aiida.engine import CalcJob


class AseJobs(Labeller):
    """An `AseLabeller` as the chain sees it."""

    largest_batch = 200

    def __init__(self, plugin: type[AseLabeller]) -> None:
        self.plugin = plugin()
        self.name, self.summary, self.Settings = plugin.name, plugin.summary, plugin.Settings  # type: ignore[misc]
        self.repairs = plugin.repairs

    @property
    def process(self) -> type[CalcJob]:
        """The calculation that runs ASE calculators."""
        from aiida_perovmlip.calculations.label import LabelCalculation

        return LabelCalculation

    @property
    def band(self) -> type[CalcJob] | None:
        """The calculation that runs bands with ASE calculators; a potential has another one."""
        from aiida_perovmlip.calculations.neb import LabelBandCalculation

        return None if self.plugin.needs_potential else LabelBandCalculation

    def problem_of_band(self, settings: dict[str, Any], band: Mapping[str, Any]) -> str | None:
        """Return a sentence where settings cannot be used."""
        from aiida_perovmlip.compute.band import BandSettings

        if self.band is None:
            return f'`{self.name}` relaxes paths by `potentials`, not as a reference.'
        try:
            self.read(settings)
            read_settings(BandSettings, dict(band))
        except SettingsError as error:
            return f'{self.name}: {error}'
        return None

    def level(self, settings: Any) -> Level:
        """Return the level of theory."""
        return self.plugin.level(settings)

    def level_of(self, settings: dict[str, Any], given: Mapping[str, Any]) -> Level:
        """Return the level of theory; where a potential labels, its content is part of it."""
        from aiida_perovmlip.calculations.label import level_of

        self.read(settings)
        return level_of(self.name, settings, given.get('potential'))

    def protocols(self) -> dict[str, Protocol]:
        """Return the protocols of the plug-in."""
        return {name: Protocol(about, dict(settings)) for name, (about, settings) in self.plugin.protocols.items()}

    def refusal(self, settings: Any, frame: Frame) -> str | None:
        """Return what the plug-in says of the frame."""
        return self.plugin.refusal(settings, frame)

    def inputs(self, settings: orm.Dict, repair: str) -> dict[str, Any]:
        """Return the name of the plug-in and its settings, with what the repair changes."""
        from aiida import orm

        changes = next((known.changes for known in self.repairs if known.name == repair), {})
        changed = orm.Dict({**settings.get_dict(), **changes}) if changes else settings
        return {'labeller': orm.Str(self.name), 'settings': changed}
