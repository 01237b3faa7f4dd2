"""ASE: molecular dynamics by any potential that has an ASE calculator."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet

from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import Engine, MdRun
from aiida_perovmlip.compute.engines.starting import PER_PICOSECOND, degrees_of_freedom, first_velocities
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.md import GPA, MdSettings
from aiida_perovmlip.compute.recorder import MdState

NEEDED = '3.29'
"""The version of ASE that has all integrators."""


class Ase(Engine):
    """Molecular dynamics of ASE; a run that is taken up has bit by bit the positions of one that never stopped."""

    name: ClassVar[str] = 'ase'
    summary: ClassVar[str] = "Molecular dynamics of ASE, with any architecture's calculator"
    citations = (
        Citation(
            'larsen2017ase',
            ('Larsen, Ask Hjorth', 'others'),
            'The atomic simulation environment—a Python library for working with atoms',
            'Journal of Physics: Condensed Matter 29, 273002',
            2017,
            '10.1088/1361-648X/aa680e',
        ),
    )
    uses_calculator: ClassVar[bool] = True
    thermostats: ClassVar[tuple[str, ...]] = ('langevin', 'bussi', 'nose-hoover')
    barostats: ClassVar[tuple[str, ...]] = ('baoab', 'mtk')
    thermostats_of_barostats: ClassVar[dict[str, tuple[str, ...]]] = {'baoab': ('langevin',), 'mtk': ('nose-hoover',)}
    cells: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(barostats, ('isotropic', 'orthogonal', 'flexible'))
    has_committee: ClassVar[bool] = True

    def refusal(self, settings: MdSettings, architecture: Any) -> str | None:
        """Return a sentence where a thermostat cannot do what the settings ask for."""
        lacking = self.lack(settings)
        if lacking is None and self.thermostat_of(settings) == 'bussi' and settings.first_temperature == 0:
            return 'the thermostat `bussi` scales velocities and cannot start from atoms at rest; take `langevin`.'
        return lacking

    def run(self, run: MdRun) -> dict[str, Any]:
        """Move the atoms, with one call of the calculator a step."""
        return _Motion(self, run).go()

    def self_test(self) -> str:
        """Import all integrators."""
        for kind in (_Langevin, _Bussi, _NoseHoover, _Mtk):
            kind.load()
        return f'all integrators of ASE are there, as it has them from {NEEDED} on'


class _Motion:
    """A run as it goes on."""

    def __init__(self, engine: Ase, run: MdRun) -> None:
        self.run, self.settings, self.recorder = run, run.settings, run.recorder
        state = self.recorder.state()
        self.rng = np.random.default_rng([run.seed, 1])  # not the numbers of the first velocities once more
        self.atoms = _atoms_of(run)
        kind = _integrator(engine, self.settings)
        self.n_degrees = degrees_of_freedom(self.settings, run.frame, kind.keeps_momentum)
        self.inverse_masses = 1.0 / self.atoms.get_masses()
        self._place(state)
        self.atoms.calc = self.calculator = run.architecture.calculator(run.potential, run.device, run.head)
        self.members = [run.architecture.calculator(path, run.device, run.head) for path in run.committee]
        self.step = 0 if state is None else state.step
        self.integrator = kind(self.atoms, self.settings, self.rng, self.n_degrees)
        self.integrator.aim(*self.settings.target_at(self.step))
        if not self.members:
            self.recorder.forget_spread()
        if state is not None:
            self.integrator.restore(state.arrays)
            if self.members and not self.recorder.knows_spread:  # rows come before the first frame
                self._watch_committee(self.atoms.get_forces(apply_constraint=False))
        else:
            self.atoms.get_forces()
            self._keep(0)

    def _place(self, state: MdState | None) -> None:
        """Put the atoms where they were, or draw their first velocities."""
        if state is None:
            velocities = first_velocities(self.settings, self.run.frame, self.run.seed, self.n_degrees)
            self.atoms.set_momenta(self.atoms.get_masses()[:, None] * velocities / PER_PICOSECOND)
            return
        self.atoms.set_cell(state.arrays['cell'], scale_atoms=False)
        self.atoms.positions[:] = state.arrays['positions']
        self.atoms.set_momenta(state.arrays['momenta'], apply_constraint=False)
        self.rng.bit_generator.state = state.about['random']

    def go(self) -> dict[str, Any]:
        """Move the atoms to the end of the schedule."""
        end, is_constant, integrator = self.settings.n_steps, self.settings.is_constant, self.integrator
        while self.step < end:
            if not is_constant:
                integrator.aim(*self.settings.target_at(self.step + 1))
            integrator.move()
            self.step += 1
            self._keep(self.step)
            is_late = self.run.seconds_left() <= 0
            if is_late or self.step == end or self.recorder.is_due(self.step):
                self._save()
            if is_late and self.step < end:
                raise self.recorder.out_of_time(self.step, self._about())
        return self._about()

    def _keep(self, step: int) -> None:
        """Give the recorder what it wants of a step."""
        atoms, recorder = self.atoms, self.recorder
        known = self.calculator.results  # of this structure; asking the atoms would compare it with itself first
        energy, forces = float(known['energy']), known['forces']
        momenta = atoms.arrays['momenta']
        kinetic = 0.5 * float(np.einsum('ij,ij->i', momenta, momenta) @ self.inverse_masses)
        temperature = 2 * kinetic / (self.n_degrees * units.kB)
        positions, cell = atoms.arrays['positions'], atoms.cell.array
        recorder.watch(step, positions, cell, energy=energy, forces=forces, temperature=temperature)
        is_frame = recorder.wants_frame(step)
        if is_frame and self.members:
            self._watch_committee(forces)
        if recorder.wants_thermo(step):
            recorder.thermo(step, **self._thermo(energy, kinetic, temperature))
        if is_frame:
            velocities = momenta * self.inverse_masses[:, None] * PER_PICOSECOND if self.settings.velocities else None
            recorder.frame(step, positions, cell, velocities)

    def _thermo(self, energy: float, kinetic: float, temperature: float) -> dict[str, Any]:
        """Return a row of thermodynamics."""
        row: dict[str, Any] = {'temperature': temperature, 'potential_energy': energy, 'kinetic_energy': kinetic}
        conserved = self.integrator.conserved(energy + kinetic)
        if conserved is not None:
            row['conserved'] = conserved
        if self.run.frame.has_volume:
            row |= {'stress': self.atoms.get_stress(include_ideal_gas=True), 'volume': self.atoms.get_volume()}
        return row

    def _watch_committee(self, forces: Array) -> None:
        """Hold the forces (n_atoms, 3) in eV/Å of the potential against those of all members."""
        every = np.array([forces, *(member.get_forces(self.atoms) for member in self.members)])
        self.recorder.spread(self.step, every, self.atoms.arrays['positions'], self.atoms.cell.array)

    def _save(self) -> None:
        """Save all from which the next step follows."""
        atoms = self.atoms
        arrays = {'positions': atoms.positions, 'momenta': atoms.get_momenta(), 'cell': atoms.cell.array}
        about = {'random': self.rng.bit_generator.state, **self._about()}
        self.recorder.save(self.step, {**arrays, **self.integrator.variables()}, about)

    def _about(self) -> dict[str, Any]:
        """Return what is really done."""
        return {'integrator': self.integrator.about(), 'degrees_of_freedom': self.n_degrees}


def _atoms_of(run: MdRun) -> Atoms:
    """Return the atoms of a run, with their masses and without those that do not move."""
    frame, settings = run.frame, run.settings
    atoms = Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    atoms.info.update({name: getattr(frame, name) for name in ('charge', 'spin') if getattr(frame, name) is not None})
    atoms.set_masses(settings.masses_of(frame))
    frozen = settings.frozen_indices(frame)
    if len(frozen):
        atoms.set_constraint(FixAtoms(indices=frozen))
    return atoms


# ---------------------------------------------------------------------- the integrators


class _Integrator(ABC):
    """One of ASE's integrators, with all its variables in reach."""

    keeps_momentum: ClassVar[bool] = True
    saved: ClassVar[tuple[str, ...]] = ()
    """Where in ASE's object the variables lie that are no atom's."""

    def __init__(self, atoms: Atoms, settings: MdSettings, rng: np.random.Generator, n_degrees: int) -> None:
        self.atoms, self.settings, self.rng, self.n_degrees = atoms, settings, rng, n_degrees
        self.timestep = settings.timestep * units.fs
        self.temperature_time = settings.temperature_time * units.fs
        self.pressure_time = settings.pressure_time * units.fs
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # ASE warns of its own guesses; `about` tells what they were
            self.dynamics = self.make()
        self.move = self.dynamics.step

    @abstractmethod
    def make(self) -> Any:
        """Return ASE's object."""

    def aim(self, temperature: float, pressure: float) -> None:  # noqa: B027 - not every integrator aims at any
        """Take another temperature in K and pressure in GPa from now on."""

    def conserved(self, energy: float) -> float | None:
        """Return what the equations of motion conserve, in eV; None where that is not known.

        :param energy: potential and kinetic energy of the atoms in eV.
        """
        return None

    def variables(self) -> dict[str, Array]:
        """Return all variables that are no atom's."""
        return {name.replace('.', '/'): np.asarray(_get(self.dynamics, name)) for name in self.saved}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take the variables of a state."""
        for name in self.saved:
            value = arrays[name.replace('.', '/')]
            # A number that comes back as an array is raised to a power by other code of numpy, with other last bits.
            _set(self.dynamics, name, value.copy() if value.size > 1 else np.float64(value.item()))

    def about(self) -> dict[str, Any]:
        """Return what it is, and what it took for what was left open."""
        return {'class': type(self.dynamics).__name__.strip('_')}


class _Verlet(_Integrator):
    """Velocity Verlet."""

    def make(self) -> Any:
        return VelocityVerlet(self.atoms, self.timestep)

    def conserved(self, energy: float) -> float | None:
        return energy


class _Langevin(_Integrator):
    """Langevin dynamics, split as BAOAB."""

    keeps_momentum = False

    @staticmethod
    def load() -> Any:
        return _load('langevinbaoab', 'LangevinBAOAB')

    def make(self) -> Any:
        # Without a barostat `hydrostatic` has no meaning but that no exponential of a matrix is taken.
        return self.load()(
            self.atoms,
            self.timestep,
            temperature_K=self.settings.target_at(0)[0],
            T_tau=self.temperature_time,
            hydrostatic=True,
            rng=self.rng,
        )

    def aim(self, temperature: float, pressure: float) -> None:
        self.dynamics.set_temperature(temperature)


class _Bussi(_Integrator):
    """Stochastic rescaling of the velocities of Bussi, Donadio and Parrinello."""

    saved: ClassVar[tuple[str, ...]] = ('transferred_energy',)

    @staticmethod
    def load() -> Any:
        return _load('bussi', 'Bussi')

    def make(self) -> Any:
        dynamics = self.load()(
            self.atoms, self.timestep, self.settings.target_at(0)[0], self.temperature_time, rng=self.rng
        )
        dynamics.ndof = self.n_degrees
        return dynamics

    def aim(self, temperature: float, pressure: float) -> None:
        self.dynamics.temp = temperature * units.kB
        self.dynamics.target_kinetic_energy = 0.5 * self.dynamics.temp * self.n_degrees

    def conserved(self, energy: float) -> float | None:
        return float(energy - self.dynamics.transferred_energy)


class _NoseHoover(_Integrator):
    """A chain of three Nosé–Hoover thermostats, whose masses are those of the highest temperature of the schedule."""

    saved: ClassVar[tuple[str, ...]] = ('_thermostat._eta', '_thermostat._p_eta')

    @staticmethod
    def load() -> Any:
        return _load('nose_hoover_chain', 'NoseHooverChainNVT')

    def make(self) -> Any:
        highest = self.settings.highest_temperature
        dynamics = self.load()(self.atoms, self.timestep, highest, self.temperature_time)
        _count_degrees(dynamics._thermostat, self.n_degrees)
        return dynamics

    def aim(self, temperature: float, pressure: float) -> None:
        self.dynamics._thermostat._kT = temperature * units.kB

    def conserved(self, energy: float) -> float | None:
        return float(energy + self.dynamics._thermostat.get_thermostat_energy())


def _count_degrees(thermostat: Any, n_degrees: int) -> None:
    """Let a thermostat of ASE heat so many degrees of freedom, and not three for each atom."""
    thermostat._Q[0] *= n_degrees / (3 * thermostat._num_atoms_global)
    thermostat._num_atoms_global = n_degrees / 3


class _Baoab(_Integrator):
    """Langevin dynamics of atoms and cell after Quigley and Probert, split as BAOAB."""

    keeps_momentum = False
    saved: ClassVar[tuple[str, ...]] = ('p_eps', 'force_eps')

    def make(self) -> Any:
        temperature, pressure = self.settings.target_at(0)
        return _baoab_of(self.settings.cell)(
            self.atoms,
            self.timestep,
            temperature_K=temperature,
            externalstress=-pressure / GPA,
            hydrostatic=self.settings.cell == 'isotropic',
            T_tau=self.temperature_time,
            P_tau=self.pressure_time,
            rng=self.rng,
        )

    def aim(self, temperature: float, pressure: float) -> None:
        self.dynamics.set_temperature(temperature)
        stress = -pressure / GPA
        self.dynamics.externalstress = stress if self.settings.cell == 'isotropic' else stress * np.eye(3)

    def about(self) -> dict[str, Any]:
        return {**super().about(), 'barostat_mass': float(self.dynamics.barostat_mass)}


def _baoab_of(cell: str) -> Any:
    """Return ASE's integrator for what the barostat is to move."""
    kind: Any = _Langevin.load()
    if cell == 'isotropic':
        return kind

    class _Flexible(kind):
        """ASE's integrator, with the drag of the cell on the atoms as Quigley and Probert have it.

        In Eq. (5b) of J. Chem. Phys. 120, 11432 (2004) the trace multiplies the unit matrix; ASE adds it to the
        elements off the diagonal too.
        """

        def _barostat_BAOAB_OU_gamma_mod(self) -> Array:  # noqa: N802 - a name of ASE
            drag: Array = (self.p_eps + np.trace(self.p_eps * np.eye(3)) / self.Ndof * np.eye(3)) / self.barostat_mass
            return drag

    class _Orthogonal(_Flexible):
        """The same of a cell whose vectors stay along x, y and z."""

        def _update_force_eps(self) -> None:
            super()._update_force_eps()
            self.force_eps: Array = self.force_eps * np.eye(3)

        def _barostat_BAOAB_OU(self) -> None:  # noqa: N802 - a name of ASE
            super()._barostat_BAOAB_OU()
            self.p_eps: Array = self.p_eps * np.eye(3)

    chosen = _Orthogonal if cell == 'orthogonal' else _Flexible
    chosen.__name__ = 'LangevinBAOAB'
    return chosen


class _Mtk(_Integrator):
    """The barostat of Martyna, Tobias and Klein, with Nosé–Hoover chains."""

    saved: ClassVar[tuple[str, ...]] = (
        '_thermostat._eta',
        '_thermostat._p_eta',
        '_barostat._xi',
        '_barostat._p_xi',
        '_p_g',
    )

    @staticmethod
    def load(name: str = 'MTKNPT') -> Any:
        return _load('nose_hoover_chain', name)

    def make(self) -> Any:
        name, more = self.kind()
        dynamics = self.load(name)(
            self.atoms,
            self.timestep,
            temperature_K=self.settings.highest_temperature,
            pressure_au=self.settings.target_at(0)[1] / GPA,
            tdamp=self.temperature_time,
            pdamp=self.pressure_time,
            **more,
        )
        _count_degrees(dynamics._thermostat, self.n_degrees)
        return dynamics

    def kind(self) -> tuple[str, dict[str, Any]]:
        """Return the name of ASE's class and what it is told of the cell."""
        return 'MTKNPT', {}

    def aim(self, temperature: float, pressure: float) -> None:
        energy = temperature * units.kB
        for owner in (self.dynamics, self.dynamics._thermostat, self.dynamics._barostat):
            owner._kT = energy
        self.dynamics._temperature_K, self.dynamics._pressure_au = temperature, pressure / GPA

    def conserved(self, energy: float) -> float | None:
        # ASE's own method asks for a free energy, which not every calculator has.
        work = self.dynamics._pressure_au * self.dynamics._get_volume()
        chains = self.dynamics._thermostat.get_thermostat_energy() + self.dynamics._barostat.get_barostat_energy()
        return float(energy + work + chains + self.energy_of_cell())

    def energy_of_cell(self) -> float:
        """Return the kinetic energy of the cell in eV."""
        return float(self.dynamics._get_cell_kinetic_energy())


class _IsotropicMtk(_Mtk):
    """The same of a cell that only swells and shrinks."""

    saved: ClassVar[tuple[str, ...]] = (*_Mtk.saved[:-1], '_p_eps', '_eps', '_cell0', '_volume0')

    def kind(self) -> tuple[str, dict[str, Any]]:
        return 'IsotropicMTKNPT', {}

    def energy_of_cell(self) -> float:
        return float(self.dynamics._p_eps**2 / (2 * self.dynamics._barostat.W))


class _OrthogonalMtk(_Mtk):
    """The same of a cell whose vectors stay along x, y and z."""

    saved: ClassVar[tuple[str, ...]] = (*_Mtk.saved[:-1], '_p_c')

    def kind(self) -> tuple[str, dict[str, Any]]:
        return 'MaskedMTKNPT', {'mask': (True, True, True)}


def _integrator(engine: Ase, settings: MdSettings) -> type[_Integrator]:
    """Return what integrates these settings."""
    thermostat, barostat = engine.thermostat_of(settings), engine.barostat_of(settings)
    if settings.ensemble == 'nve':
        return _Verlet
    if barostat == 'mtk':
        return {'isotropic': _IsotropicMtk, 'orthogonal': _OrthogonalMtk, 'flexible': _Mtk}[settings.cell]
    if barostat == 'baoab':
        return _Baoab
    kinds: dict[str | None, type[_Integrator]] = {'langevin': _Langevin, 'bussi': _Bussi, 'nose-hoover': _NoseHoover}
    return kinds[thermostat]


def _load(module: str, name: str) -> Any:
    """Return one of ASE's integrators; refuse a version that does not have it yet."""
    import importlib

    import ase

    try:
        return getattr(importlib.import_module(f'ase.md.{module}'), name)
    except (ImportError, AttributeError) as error:
        raise JobError(
            Status.MISSING_PACKAGE,
            f'ASE {ase.__version__} has no {name}; install ASE {NEEDED} or later in this environment.',
        ) from error


def _get(owner: Any, path: str) -> Any:
    """Return what lies at a path of attributes."""
    for name in path.split('.'):
        owner = getattr(owner, name)
    return owner


def _set(owner: Any, path: str, value: Any) -> None:
    """Set what lies at a path of attributes."""
    *around, name = path.split('.')
    setattr(_get(owner, '.'.join(around)) if around else owner, name, value)
