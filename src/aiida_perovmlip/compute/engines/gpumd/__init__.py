"""GPUMD: molecular dynamics with NEP on a GPU, by a program of its own."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import Any, ClassVar

from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import Engine, MdRun
from aiida_perovmlip.compute.engines.gpumd.inputs import problem_of, problem_of_cell
from aiida_perovmlip.compute.engines.gpumd.motion import Motion
from aiida_perovmlip.compute.md import CELLS, MdSettings

COMMAND = 'PEROVMLIP_GPUMD'
"""The variable that holds the whole command."""

HOW_TO_GET = (
    'GPUMD is compiled on a machine with a GPU (https://gpumd.org); load it where the job starts (for example `module '
    f'load gpumd` in the `prepend_text` of the code), or name its file by {COMMAND}. Without a GPU, the engines '
    '`lammps` and `ase` run the same potential.'
)


class Gpumd(Engine):
    """GPUMD as a child process of the job, followed while it runs.

    What its thermostats and barostats remember is lost where a run is taken up, as GPUMD writes none of it.
    """

    name: ClassVar[str] = 'gpumd'
    summary: ClassVar[str] = 'GPUMD, with NEP on a GPU'
    citations = (
        Citation(
            'fan2022gpumd',
            ('Fan, Zheyong', 'others'),
            'GPUMD: A package for constructing accurate machine-learned potentials and performing highly '
            'efficient atomistic simulations',
            'The Journal of Chemical Physics 157, 114801',
            2022,
            '10.1063/5.0106617',
        ),
    )
    requirements: ClassVar[tuple[str, ...]] = ('ase',)  # GPUMD itself is on no index
    uses_calculator: ClassVar[bool] = False
    thermostats: ClassVar[tuple[str, ...]] = ('langevin', 'bussi', 'nose-hoover')
    barostats: ClassVar[tuple[str, ...]] = ('scr', 'mtk')
    thermostats_of_barostats: ClassVar[dict[str, tuple[str, ...]]] = {'scr': ('bussi',), 'mtk': ('nose-hoover',)}
    cells: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(barostats, CELLS)

    def device(self, wanted: str) -> str:
        """Return `cuda`: GPUMD knows nothing else."""
        if wanted == 'cpu':
            raise JobError(Status.BAD_INPUT, f'The device `cpu` was asked for, but GPUMD needs a GPU. {HOW_TO_GET}')
        return 'cuda'

    def refusal(self, settings: MdSettings, architecture: Architecture) -> str | None:
        """Return a sentence where GPUMD cannot do such a run, or does not read such a potential."""
        if not architecture.runs_in_gpumd:
            return f'GPUMD does not read potentials of {architecture.name}; the engine `ase` runs any architecture.'
        thermostat, barostat = self.thermostat_of(settings), self.barostat_of(settings)
        return self.lack(settings) or problem_of(settings, thermostat, barostat)

    def run(self, run: MdRun) -> dict[str, Any]:
        """Run GPUMD to the end of the schedule."""
        barostat = self.barostat_of(run.settings)
        problem = problem_of_cell(run.settings, run.frame.cell, barostat)
        if not run.frame.has_volume:
            problem = (
                'the engine `gpumd` needs a cell that is periodic in all three directions: put the structure into one '
                'with vacuum around it and make it periodic, or take the engine `ase`.'
            )
        if problem:
            raise JobError(Status.BAD_INPUT, problem)
        return Motion(run, command(), self.thermostat_of(run.settings), barostat).go()

    def self_test(self) -> str:
        """Look for the program; it has no way to say its version without a GPU and an input."""
        return f'GPUMD is there: {shlex.join(command())}'


def command() -> list[str]:
    """Return the command that starts GPUMD, or raise."""
    named = shlex.split(os.environ.get(COMMAND, ''))
    found = shutil.which(named[0] if named else 'gpumd')
    if found is None:
        raise JobError(Status.MISSING_PACKAGE, f'There is no `{named[0] if named else "gpumd"}` here. {HOW_TO_GET}')
    return [found, *named[1:]]
