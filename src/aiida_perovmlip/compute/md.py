"""Settings of molecular dynamics: what is simulated, for how long, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.settings import SettingsError, option, read_settings

GPA = 160.21766208
"""One eV/Å³ in GPa."""

Ramp = float | list[float]

THERMOSTATS = ('langevin', 'bussi', 'nose-hoover')
BAROSTATS = ('baoab', 'mtk', 'scr')
CELLS = ('isotropic', 'orthogonal', 'flexible')


@dataclass(frozen=True)
class Stage:
    """A piece of the schedule: so many steps, from one temperature (K) and pressure (GPa) linearly to another."""

    steps: int
    temperature: tuple[float, float]
    pressure: tuple[float, float]

    @property
    def is_constant(self) -> bool:
        """Whether nothing is ramped."""
        return self.temperature[0] == self.temperature[1] and self.pressure[0] == self.pressure[1]


@dataclass(frozen=True)
class MdSettings:
    """Settings of a run of molecular dynamics."""

    ensemble: str = option('nvt', 'What is kept constant.', choices=('nve', 'nvt', 'npt'))
    thermostat: str | None = option(
        None,
        'What keeps the temperature: None takes the first that the engine has.',
        choices=(None, *THERMOSTATS),
    )
    barostat: str | None = option(
        None, 'What keeps the pressure: None takes the first that the engine has.', choices=(None, *BAROSTATS)
    )
    cell: str = option(
        'flexible',
        'What a barostat moves: the volume alone, the lengths along x, y and z, or all of the cell.',
        choices=CELLS,
    )
    timestep: float = option(1.0, 'Time step.', unit='fs', minimum=1e-3, maximum=100.0)
    steps: int = option(10_000, 'Steps of the whole run, over all its jobs.', minimum=1)
    temperature: float | list[float] = option(
        300.0, 'Temperature, or two of them: where a ramp begins and where it ends.', unit='K'
    )
    pressure: float | list[float] = option(
        0.0, 'Pressure, or two of them: where a ramp begins and where it ends.', unit='GPa'
    )
    stages: list[dict[str, Any]] = option(
        [],
        'Pieces that follow each other, each with `steps`, `temperature` and `pressure`, in place of these three; what '
        'a piece leaves out is as these say.',
    )
    temperature_time: float = option(100.0, 'Relaxation time of the thermostat.', unit='fs', minimum=1e-3)
    pressure_time: float = option(1000.0, 'Relaxation time of the barostat.', unit='fs', minimum=1e-3)
    bulk_modulus: float = option(
        15.0, 'Bulk modulus, by which a barostat that rescales knows how far.', unit='GPa', minimum=1e-3
    )
    masses: dict[str, float] = option({}, 'Masses by element that differ from the natural ones.', unit='amu')
    initial_temperature: float | None = option(
        None,
        'Temperature of the first velocities, which are drawn; None takes that at which the schedule begins, and 0 '
        'lets the atoms start at rest.',
        unit='K',
        minimum=0,
    )
    frames_every: int = option(100, 'Steps between two frames of the trajectory.', minimum=1)
    thermo_every: int = option(10, 'Steps between two rows of temperature, energies, stress and volume.', minimum=1)
    velocities: bool = option(False, 'Whether frames keep the velocities.')
    frozen: list[int | str] = option([], 'Atoms that do not move: indices, or elements.')
    groups: dict[str, list[int]] = option(
        {}, 'Indices of atoms by the name of a group, for an analysis of your own: no engine looks at them.'
    )
    max_temperature: float | None = option(
        None,
        'Temperature beyond which the run has exploded; None is three times the highest that is asked for, and 500 K.',
        unit='K',
        minimum=0,
    )
    max_force: float = option(50.0, 'Force on an atom beyond which the run has exploded.', unit='eV/Å', minimum=0)
    max_spread: float | None = option(
        None,
        'Spread of the force on an atom, over a committee, beyond which the run ends; None watches none.',
        unit='eV/Å',
        minimum=0,
    )
    n_candidates: int = option(10, 'Frames before an explosion that are kept for labelling.', minimum=1, maximum=1000)
    save_every: int | None = option(
        None, 'Steps between two states from which a killed run goes on; None saves about once a minute.', minimum=1
    )

    # ------------------------------------------------------------------ the schedule

    @cached_property
    def schedule(self) -> tuple[Stage, ...]:
        """The pieces of the schedule, in order; raises SettingsError where one cannot be read."""
        pieces = self.stages or [{}]
        return tuple(self._stage(number, piece) for number, piece in enumerate(pieces, 1))

    def _stage(self, number: int, piece: Mapping[str, Any]) -> Stage:
        """Return one piece of the schedule, which has from the settings what it leaves out."""
        unknown = sorted(set(piece) - {'steps', 'temperature', 'pressure'})
        if unknown:
            raise SettingsError(f'stage {number} has {", ".join(map(repr, unknown))}; it can have steps, temperature '
                                'and pressure.')  # fmt: skip
        if self.stages and 'steps' not in piece:
            raise SettingsError(f'stage {number} has no `steps`.')
        steps = piece.get('steps', self.steps)
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise SettingsError(f'`steps` of stage {number} is {steps!r} but has to be a whole number above 0.')
        return Stage(
            steps,
            _ramp('temperature', piece.get('temperature', self.temperature)),
            _ramp('pressure', piece.get('pressure', self.pressure)),
        )

    @cached_property
    def n_steps(self) -> int:
        """The number of steps of the whole run."""
        return sum(stage.steps for stage in self.schedule)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """The steps at which the pieces of the schedule end."""
        return tuple(int(end) for end in np.cumsum([stage.steps for stage in self.schedule]))

    def target_at(self, step: int) -> tuple[float, float]:
        """Return temperature in K and pressure in GPa that are asked for at a step; beyond the end, those of the end.

        Where two pieces meet, the step is the last of the first one.
        """
        number = min(bisect_left(self._ends, step), len(self.schedule) - 1)
        stage = self.schedule[number]
        part = min(max((step - self._ends[number]) / stage.steps + 1.0, 0.0), 1.0)
        temperature, pressure = (low + part * (high - low) for low, high in (stage.temperature, stage.pressure))
        return temperature, pressure

    @property
    def is_constant(self) -> bool:
        """Whether temperature and pressure stay as they are over the whole run."""
        targets = {(stage.temperature, stage.pressure) for stage in self.schedule}
        return len(targets) == 1 and self.schedule[0].is_constant

    @property
    def highest_temperature(self) -> float:
        """The highest temperature in K that is asked for."""
        return max(*(max(stage.temperature) for stage in self.schedule), self.initial_temperature or 0.0)

    @property
    def limit_of_temperature(self) -> float:
        """The temperature in K beyond which the run has exploded."""
        return self.max_temperature if self.max_temperature is not None else 3 * self.highest_temperature + 500.0

    @property
    def first_temperature(self) -> float:
        """The temperature in K of the first velocities."""
        return self.initial_temperature if self.initial_temperature is not None else self.target_at(0)[0]

    # ------------------------------------------------------------------ what is wrong with it

    def problem(self) -> str | None:
        """Return a sentence where these settings make no run, whatever the atoms are."""
        try:
            schedule = self.schedule
        except SettingsError as error:
            return str(error)
        if self.ensemble != 'nve' and min(min(stage.temperature) for stage in schedule) <= 0:
            return f'a temperature is 0 K, but `{self.ensemble}` needs one above that.'
        if min(min(stage.temperature) for stage in schedule) < 0:
            return 'a temperature is below 0 K.'
        if self.ensemble == 'nve' and len({kelvin for stage in schedule for kelvin in stage.temperature}) > 1:
            return (
                '`nve` keeps the energy, so that a `temperature` that changes has no effect; give the one at which the '
                'first velocities are drawn, or take `nvt`.'
            )
        if self.ensemble == 'nve' and self.thermostat is not None:
            return f'`nve` has no thermostat, but `thermostat` is {self.thermostat!r}; leave it out.'
        if self.ensemble != 'npt' and self.barostat is not None:
            return f'`{self.ensemble}` has no barostat, but `barostat` is {self.barostat!r}; leave it out.'
        if self.ensemble != 'npt' and any(stage.pressure != (0.0, 0.0) for stage in schedule):
            return f'`{self.ensemble}` keeps the cell, so that `pressure` has no effect; leave it out, or take `npt`.'
        if self.ensemble == 'npt' and self.frozen:
            return '`npt` moves all atoms with the cell; atoms can only be frozen with `nve` or `nvt`.'
        wrong = [f'{symbol} {mass:g}' for symbol, mass in self.masses.items() if not mass > 0]
        if wrong:
            return f'masses have to be above 0 amu, but `masses` has {", ".join(wrong)}.'
        return _unknown_elements('masses', self.masses) or _unknown_elements('frozen', self._frozen_elements)

    @property
    def _frozen_elements(self) -> list[str]:
        return [entry for entry in self.frozen if isinstance(entry, str)]

    def problem_with(self, frame: Frame) -> str | None:
        """Return a sentence where these settings make no run of this frame."""
        problem = self.problem()
        if problem:
            return problem
        if self.ensemble == 'npt' and not frame.has_volume:
            return '`npt` needs a cell that is periodic in all three directions.'
        if self.ensemble == 'npt' and self.cell == 'orthogonal' and np.abs(_off_diagonal(frame.cell)).max() > 1e-6:
            return (
                "`cell` is 'orthogonal', but the cell vectors do not lie along x, y and z: turn the cell, or take "
                "'flexible'."
            )
        present = set(frame.symbols)
        absent = sorted({*self.masses, *self._frozen_elements} - present)
        if absent:
            return f'`masses` or `frozen` names {", ".join(absent)}, which the frame does not hold.'
        named = {'frozen': [entry for entry in self.frozen if isinstance(entry, int)], **self.groups}
        for name, indices in named.items():
            outside = [index for index in indices if not 0 <= index < len(frame)]
            if outside:
                what = '`frozen`' if name == 'frozen' else f'the group `{name}`'
                return f'{what} names the atom {outside[0]}, but the frame has {len(frame)} atoms, the first being 0.'
        if len(self.frozen_indices(frame)) == len(frame):
            return 'all atoms are frozen.'
        return None

    # ------------------------------------------------------------------ the atoms

    def masses_of(self, frame: Frame) -> Array:
        """Return the masses of all atoms, (n_atoms,) in amu."""
        masses = np.array(atomic_masses[frame.numbers], dtype=float)
        for symbol, mass in self.masses.items():
            masses[frame.numbers == atomic_numbers[symbol]] = mass
        return masses

    def frozen_indices(self, frame: Frame) -> Array:
        """Return the indices of the atoms that do not move, (n,), in order."""
        chosen = np.zeros(len(frame), dtype=bool)
        for entry in self.frozen:
            if isinstance(entry, str):
                chosen |= frame.numbers == atomic_numbers[entry]
            else:
                chosen[entry] = True
        return np.flatnonzero(chosen)

    def physics(self) -> dict[str, Any]:
        """Return what two jobs have to agree on to be parts of one run.

        Where nothing is ramped, a run may be made longer; what is written, and when a run counts as exploded, may
        change on the way.
        """
        stages = [[stage.steps, *stage.temperature, *stage.pressure] for stage in self.schedule]
        names = ('ensemble', 'thermostat', 'barostat', 'cell', 'timestep', 'temperature_time', 'pressure_time')
        return {
            **{name: getattr(self, name) for name in names},
            'bulk_modulus': self.bulk_modulus,
            'masses': dict(sorted(self.masses.items())),
            'frozen': [str(entry) for entry in self.frozen],
            'schedule': stages[0][1:] if self.is_constant else stages,
        }


def read_md_settings(given: Mapping[str, Any]) -> MdSettings:
    """Build settings from plain values; raises SettingsError where they make no run."""
    settings = read_settings(MdSettings, given)
    problem = settings.problem()
    if problem:
        raise SettingsError(problem)
    return settings


def identity_of(settings: MdSettings, frame: Frame, engine: str, potential: str) -> str:
    """Return what all jobs of a run have in common, as a hash.

    :param potential: what tells one potential and its head from another.
    """
    state = hashlib.sha256()
    content = {'settings': settings.physics(), 'engine': engine, 'potential': potential}
    state.update(json.dumps(content, sort_keys=True).encode())
    for array in (frame.numbers.astype(np.uint8), frame.pbc.astype(np.uint8)):
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _ramp(name: str, given: Any) -> tuple[float, float]:
    """Return where a ramp begins and where it ends."""
    values = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given, given]
    numbers = [float(value) for value in values if isinstance(value, (int, float)) and np.isfinite(value)]
    if len(values) != 2 or len(numbers) != 2:
        raise SettingsError(f'`{name}` is {given!r} but has to be a number, or the two between which it is ramped.')
    return numbers[0], numbers[1]


def _unknown_elements(name: str, symbols: Any) -> str | None:
    unknown = sorted(set(symbols) - set(chemical_symbols[1:]))
    return f'`{name}` has {", ".join(unknown)}, which is no element.' if unknown else None


def _off_diagonal(cell: Array) -> Array:
    off: Array = cell - np.diag(np.diag(cell))
    return off
