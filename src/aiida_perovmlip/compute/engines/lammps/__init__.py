"""LAMMPS: molecular dynamics by a program of its own, on one processor or on many."""

from __future__ import annotations

import shlex
from typing import Any, ClassVar

from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import Engine, MdRun
from aiida_perovmlip.compute.engines.lammps import program
from aiida_perovmlip.compute.engines.lammps.motion import Motion
from aiida_perovmlip.compute.md import CELLS, MdSettings

OF_NETWORKS = ('allegro', 'mace', 'mliap', 'nep/cpu', 'nep/gpu/kk')
"""The pair styles that a self-test looks for."""


class Lammps(Engine):
    """LAMMPS as a child process of the job, followed while it runs."""

    name: ClassVar[str] = 'lammps'
    summary: ClassVar[str] = 'LAMMPS, with the pair style of the potential'
    citations = (
        Citation(
            'thompson2022lammps',
            ('Thompson, Aidan P.', 'others'),
            'LAMMPS - a flexible simulation tool for particle-based materials modeling at the atomic, meso, and '
            'continuum scales',
            'Computer Physics Communications 271, 108171',
            2022,
            '10.1016/j.cpc.2021.108171',
        ),
    )
    requirements: ClassVar[tuple[str, ...]] = ('lammps', 'mpich')
    uses_calculator: ClassVar[bool] = False
    thermostats: ClassVar[tuple[str, ...]] = ('langevin', 'bussi', 'nose-hoover')
    barostats: ClassVar[tuple[str, ...]] = ('mtk',)
    thermostats_of_barostats: ClassVar[dict[str, tuple[str, ...]]] = {'mtk': ('nose-hoover',)}
    cells: ClassVar[dict[str, tuple[str, ...]]] = {'mtk': CELLS}

    @classmethod
    def packages(cls) -> tuple[str, ...]:
        """Return none: a LAMMPS that pip has not installed is as good, and says its version itself."""
        return ()

    def device(self, wanted: str) -> str:
        """Return what was asked for; where LAMMPS computes is decided by its command."""
        return 'cuda' if wanted == 'cuda' else 'cpu'

    def refusal(self, settings: MdSettings, architecture: Architecture) -> str | None:
        """Return a sentence where LAMMPS cannot do such a run, or has nothing that reads such a potential."""
        if not architecture.lammps_styles:
            return (
                f'LAMMPS has nothing that reads potentials of {architecture.name}; the engine `ase` runs any '
                'architecture.'
            )
        lacking = self.lack(settings)
        if lacking is None and self.thermostat_of(settings) == 'bussi' and settings.first_temperature == 0:
            return 'the thermostat `bussi` scales velocities and cannot start from atoms at rest; take `langevin`.'
        return lacking

    def run(self, run: MdRun) -> dict[str, Any]:
        """Run LAMMPS to the end of the schedule."""
        if not run.frame.has_volume:
            raise JobError(
                Status.BAD_INPUT,
                'The engine `lammps` needs a cell that is periodic in all three directions: put the structure into one '
                'with vacuum around it and make it periodic, or take the engine `ase`.',
            )
        found = program.find()
        return Motion(run, found, self._style(run, found), self.thermostat_of(run.settings)).go()

    @staticmethod
    def _style(run: MdRun, found: program.Program) -> str:
        """Return the pair style that is to read the potential."""
        styles = run.architecture.lammps_styles
        usable = next((style for style in styles if found.has(style)), None)
        if usable is None:
            ways = '; '.join(f'`{style}`: {how}' for style, how in styles.items())
            raise JobError(
                Status.MISSING_PACKAGE,
                f'`{shlex.join(found.command)}` (LAMMPS {found.version}) has no pair style that reads potentials of '
                f'{run.architecture.name}. {ways}. The engine `ase` needs none.',
            )
        return usable

    def self_test(self) -> str:
        """Start LAMMPS and ask which potentials it can use."""
        found = program.find()
        styles = [style for style in OF_NETWORKS if found.has(style)]
        return f'LAMMPS {found.version} has {", ".join(styles) or "no pair style of a potential that we know"}'
