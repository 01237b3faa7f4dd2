"""VASP as a labeller, through aiida-vasp."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import Repair
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.labellers.base import Labeller, Program
from aiida_perovmlip.labellers.vasp import inputs, neb, potentials
from aiida_perovmlip.labellers.vasp.settings import VaspSettings, level_of

if TYPE_CHECKING:  # importing AiiDA makes folders; see `labellers.base`
    from aiida import orm
    from aiida.engine import CalcJob

    from aiida_perovmlip.labellers.vasp.run import VaspRun

_UNCONVERGED = frozenset({'not_converged', 'failed'})


class Vasp(Labeller):
    """VASP (licensed: the program and its POTCAR files are your own)."""

    name = 'vasp'
    summary = 'VASP through aiida-vasp, one frame a job; relaxation, molecular dynamics and on-the-fly learning'
    citations = (
        Citation(
            'kresse1996vasp',
            ('Kresse, Georg', 'Furthmüller, Jürgen'),
            'Efficient iterative schemes for ab initio total-energy calculations using a plane-wave basis set',
            'Physical Review B 54, 11169',
            1996,
            '10.1103/PhysRevB.54.11169',
        ),
        Citation(
            'kresse1999paw',
            ('Kresse, Georg', 'Joubert, Daniel'),
            'From ultrasoft pseudopotentials to the projector augmented-wave method',
            'Physical Review B 59, 1758',
            1999,
            '10.1103/PhysRevB.59.1758',
        ),
    )
    Settings = VaspSettings
    program = Program(
        names=('vasp_std', 'vasp_gam', 'vasp'),
        how_to_get='VASP is licensed: build your own, and put it on the PATH or register it by `verdi code create`.',
        plugin='vasp.vasp',
    )
    repairs = (
        Repair('algo_normal', _UNCONVERGED, 'Minimises by blocked Davidson (ALGO = Normal), twice as many SCF steps.'),
        Repair(
            'algo_all',
            _UNCONVERGED | {'crashed'},
            'Minimises all bands together (ALGO = All), which copes with metaGGAs and hybrids, three times as long.',
        ),
        Repair('smaller_mixing', _UNCONVERGED, 'Mixes little of the new density, four times as long.'),
        Repair(
            'smaller_steps',
            _UNCONVERGED | {'crashed'},
            'Takes smaller steps of the electrons (TIME) and half as large ones of the atoms (POTIM).',
        ),
    )

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, str]]] = {}

    @property
    def process(self) -> type[CalcJob]:
        """The calculation that runs VASP."""
        from aiida_perovmlip.labellers.vasp.calculation import VaspLabelCalculation

        return VaspLabelCalculation

    @property
    def band(self) -> type[CalcJob]:
        """The calculation that relaxes a path with VTST."""
        from aiida_perovmlip.labellers.vasp.band import VaspBandCalculation

        return VaspBandCalculation

    def problem_of_band(self, settings: dict[str, Any], band: Mapping[str, Any]) -> str | None:
        """Return a sentence where VASP cannot relax a band with these settings; None where it can."""
        problem = self.problem(settings, {}) or neb.problem_of_settings(settings, band)
        return problem if problem is None or problem.startswith(f'{self.name}: ') else f'{self.name}: {problem}'

    def level(self, settings: Any) -> Level:
        """Return the level of theory without a look at POTCARs, which are known by their names alone."""
        return level_of(settings)

    def level_of(self, settings: dict[str, Any], given: Mapping[str, Any]) -> Level:
        """Return the level of theory with the POTCARs themselves: those that are given, else those of the family."""
        checked = self.read(settings)
        nodes = given.get('potential') or self._of_family(checked)
        return level_of(checked, potentials.basis_of(nodes))

    def moves_atoms(self, settings: Any) -> bool:
        """Whether each frame becomes a trajectory of labelled frames instead of one."""
        return bool(settings.run != 'energy')

    def refusal(self, settings: Any, frame: Frame) -> str | None:
        """Refuse elements without a POTCAR, spins that do not fit the charge, and cells that VASP does not take."""
        nodes, lacking = self._potentials(settings, frozenset(frame.symbols))
        if lacking:
            return lacking[min(lacking)]
        refusal = inputs.refuse_shape(frame)
        try:
            return refusal or inputs.refuse_spin(settings, frame, potentials.valences_of(nodes))
        except potentials.PotentialError as error:
            return str(error)

    def inputs(self, settings: orm.Dict, repair: str) -> dict[str, Any]:
        """Return the settings, the repair, and the POTCARs of all elements that the family has; raises ValueError."""
        checked = self.read(settings.get_dict())
        nodes, lacking = self._potentials(checked, frozenset(checked.potential_mapping))
        if not nodes:
            raise potentials.PotentialError(next(iter(lacking.values()), '`potential_mapping` is empty.'))
        return {**super().inputs(settings, repair), 'potential': nodes}

    def read_run(self, path: Path) -> VaspRun:
        """Return what a `vasprun.xml`, or a folder with one, holds; see `run.read_run`."""
        from aiida_perovmlip.labellers.vasp.run import read_run

        return read_run(path)

    def problem(self, settings: dict[str, Any], given: Mapping[str, Any]) -> str | None:
        """Return a sentence where the settings, or further inputs of the calculation, cannot be used."""
        if find_spec('aiida_vasp') is None:
            return 'vasp: the package aiida-vasp is not installed beside AiiDA: `pip install "aiida-perovmlip[vasp]"`.'
        problem = super().problem(settings, given)
        if problem is None and 'ml_ab' in given and not self.read(settings).ml:
            return 'vasp: `ml_ab` is for runs that learn on the fly; set `ml`.'
        return problem

    def _of_family(self, settings: Any) -> dict[str, Any]:
        """Return the POTCARs of all elements that the family has; none where there is nothing to look them up in."""
        from aiida.manage import get_manager

        if find_spec('aiida_vasp') is None or get_manager().get_profile() is None:
            return {}
        return self._potentials(settings, frozenset(settings.potential_mapping))[0]

    def _potentials(self, settings: Any, elements: frozenset[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the POTCARs of some elements; the same question is asked for many frames."""
        key = (settings.potential_family, tuple(sorted(settings.potential_mapping.items())), elements)
        if key not in self._found:
            self._found[key] = potentials.find_potentials(settings, sorted(elements))
        return self._found[key]
