"""Labels from CP2K: density-functional theory with Gaussians and plane waves."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import Repair
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.labellers.base import Labeller, Program, Run
from aiida_perovmlip.labellers.cp2k import settings as asked
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings

if TYPE_CHECKING:
    from aiida.engine import CalcJob

_UNCONVERGED = frozenset({'not_converged'})


class Cp2k(Labeller):
    """CP2K/Quickstep through aiida-cp2k: single points in batches of one composition, relaxations, dynamics.

    The frames of a batch are computed one after the other in one run, each from a fresh guess and on the grid of its
    own cell, so that a label does not depend on its neighbours.
    """

    name: ClassVar[str] = 'cp2k'
    summary: ClassVar[str] = 'CP2K/Quickstep: GGA and meta-GGA with Gaussians and plane waves, Γ or k-points'
    citations = (
        Citation(
            'kuehne2020cp2k',
            ('Kühne, Thomas D.', 'others'),
            'CP2K: An electronic structure and molecular dynamics software package - Quickstep: Efficient and '
            'accurate electronic structure calculations',
            'The Journal of Chemical Physics 152, 194103',
            2020,
            '10.1063/5.0007045',
        ),
    )
    Settings = Cp2kSettings
    program: ClassVar[Program | None] = Program(
        names=('cp2k.psmp', 'cp2k.popt', 'cp2k.ssmp', 'cp2k.sopt', 'cp2k'),
        how_to_get='Debian and Ubuntu have it: `apt-get install cp2k libopenblas0-pthread`; conda-forge too: `cp2k`.',
        plugin='cp2k',
        prepend='export OMP_NUM_THREADS=1\nexport OPENBLAS_NUM_THREADS=1',
        version=('--version',),
    )
    largest_batch: ClassVar[int] = 20
    repairs: tuple[Repair, ...] = (
        Repair(
            'tighter_ot',
            _UNCONVERGED,
            'More cycles, and a better preconditioner of OT (FULL_ALL); with k-points, less mixing and more memory.',
        ),
        Repair(
            'other_minimiser',
            _UNCONVERGED,
            'Conjugate gradients instead of DIIS, or the other way round; with k-points, Pulay instead of Broyden '
            'mixing.',
        ),
        Repair(
            'diagonalisation',
            _UNCONVERGED,
            'Diagonalisation with mixing and smearing of 150 K; only a label where entropy times temperature is at '
            'most 1 meV in the whole cell.',
        ),
        Repair(
            'smaller_step',
            _UNCONVERGED,
            'Small steps with the most careful line search of OT; with k-points, 3 % of mixing and many cycles.',
        ),
    )

    @property
    def process(self) -> type[CalcJob]:
        """The calculation of a batch."""
        from aiida_perovmlip.labellers.cp2k.calculation import Cp2kLabelCalculation

        return Cp2kLabelCalculation

    @property
    def band(self) -> type[CalcJob] | None:
        """The calculation that relaxes a path by CP2K's BAND."""
        from aiida_perovmlip.labellers.cp2k.band import Cp2kBandCalculation

        return Cp2kBandCalculation

    def problem_of_band(self, settings: dict[str, Any], band: Mapping[str, Any]) -> str | None:
        """Return a sentence where aiida-cp2k is missing, or CP2K cannot relax a band with these settings."""
        if problem := self.problem(settings, {}):
            return problem
        from aiida_perovmlip.labellers.cp2k.band import problem_of_settings

        return problem_of_settings(settings, band)

    def level(self, settings: Cp2kSettings) -> Level:
        """Return the level of theory."""
        return asked.level(settings)

    def refusal(self, settings: Cp2kSettings, frame: Frame) -> str | None:
        """Refuse elements without basis set, impossible spins, mixed periodicity, and cells that Γ cannot describe."""
        return asked.refusal(settings, frame)

    def kind_of(self, settings: Cp2kSettings, frame: Frame) -> tuple[Any, ...]:
        """Return what one input says for all frames: atoms in order, charge, multiplicity, boundary and mesh.

        Cells may differ: the density grid is made anew for each, so that even cells that differ by 10 % have the
        energies of single points to the last digit. Isolated systems share their box, for which the Poisson solver
        was chosen.
        """
        box = () if frame.pbc.all() else tuple(frame.cell.ravel().tolist())
        multiplicity = asked.multiplicity_of(settings, frame)
        mesh = asked.mesh_of(settings, frame)
        return (tuple(frame.numbers.tolist()), frame.charge or 0, multiplicity, tuple(frame.pbc.tolist()), mesh, box)

    def moves_atoms(self, settings: Cp2kSettings) -> bool:
        """Whether frames are relaxed or simulated."""
        return bool(settings.run != 'energy')

    def read_run(self, path: Path) -> Run:
        """Return what an output of CP2K holds; see `run.read_run`."""
        from aiida_perovmlip.labellers.cp2k.run import read_run

        return read_run(path)

    def problem(self, settings: dict[str, Any], given: Mapping[str, Any]) -> str | None:
        """Return a sentence where aiida-cp2k is missing or the settings cannot be used."""
        if find_spec('aiida_cp2k') is None:
            return 'cp2k: the package aiida-cp2k is not installed beside AiiDA: `pip install "aiida-perovmlip[cp2k]"`.'
        return super().problem(settings, given)
