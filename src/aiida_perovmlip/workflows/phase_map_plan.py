"""Which runs a phase map is made of, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import yaml

from aiida_perovmlip.analysis.glazer import PURITY, SMALLEST
from aiida_perovmlip.calculations.functions.phase_map import LEAST_ATOMS
from aiida_perovmlip.compute.settings import SettingsError, option, read_settings
from aiida_perovmlip.structures.mixing import ARRANGEMENTS, counts_of, fractions_of
from aiida_perovmlip.structures.molecules import MOLECULES, molecule
from aiida_perovmlip.structures.perovskite import GLAZER, LATTICE_CONSTANTS
from aiida_perovmlip.workflows.diffusion_plan import measured_speed, plain, problem_of_further

DIRECTIONS = ('heating', 'cooling')

WINDOWS_FOR_A_CUT = 6
"""Windows that a ramp needs, or no transition can be found in it."""

BYTES = 12
"""Bytes of an atom in a frame."""

FRAMES_OF_A_MODE = 160
"""Frames that a run for the modes needs, or no oscillator can be fitted to it."""


OWN = {
    'timestep': '`timestep`',
    'steps': '`rate`, `equilibration` and `modes_length`',
    'stages': '`rate`, `equilibration` and `modes_length`',
    'frames_every': '`frames_every` and `modes_every`',
    'thermo_every': '`thermo_every`',
    'temperature': '`temperatures` and `modes`',
    'pressure': '`pressure`',
}
"""Settings of a run that a map makes itself, and those of the map that it makes them of."""


@dataclass(frozen=True)
class PhaseMapSettings:
    """Settings of a phase map."""

    compositions: list[str] = option(['MAPbI3', 'FAPbI3'], 'Perovskites, such as `CsPbBr3` or `MA0.73FA0.27PbI3`.')
    axis: str | None = option(
        None, 'What on the A site has the fraction x; None takes what the last composition names last.'
    )
    repeat: list[int] | None = option(
        None, 'Cells along each vector, even numbers; None takes the smallest cube of 10 000 atoms or more.'
    )
    arrangement: str = option('random', 'How kinds are spread over the A sites.', choices=ARRANGEMENTS)
    lattice_constants: dict[str, float] = option(
        {}, 'Lattice constants of pure crystals to start from, where they differ from the typical ones.', unit='Å'
    )
    directions: list[str] = option(list(DIRECTIONS), 'Which ramps are run.')
    temperatures: list[float] = option([50.0, 450.0], 'Lowest and highest temperature of the ramps.', unit='K')
    rate: float = option(15.0, 'How fast the temperature changes.', unit='K/ns', minimum=1e-6)
    heating_start: str = option('a-a-c+', 'Tilts that heating starts from.', choices=GLAZER)
    tilt_degrees: float = option(8.0, 'Angle of these tilts.', unit='degrees', minimum=0.0, maximum=30.0)
    cooling_start: str = option(
        'heating',
        'What cooling starts from: the end of heating, or a cubic crystal of its own, which need not wait.',
        choices=('heating', 'cubic'),
    )
    equilibration: float = option(
        20.0, 'Time at the first temperature of each ramp, which is not looked at.', unit='ps', minimum=0.0
    )
    timestep: float = option(0.5, 'Time step of all runs.', unit='fs', minimum=1e-3, maximum=100.0)
    pressure: float = option(0.0, 'Pressure.', unit='GPa')
    cell: str = option('flexible', 'What of the cell moves.', choices=('isotropic', 'orthogonal', 'flexible'))
    thermostat: str | None = option(None, 'Thermostat of the ramps; None takes the first of the engine.')
    barostat: str | None = option(None, 'Barostat of the ramps; None takes the first of the engine.')
    frames_every: float = option(1.0, 'Time between two frames of a ramp.', unit='ps', minimum=1e-6)
    thermo_every: float = option(0.1, 'Time between two rows of temperature and energies.', unit='ps', minimum=1e-6)
    window: float = option(5.0, 'Temperatures that are looked at together.', unit='K', minimum=1e-6)
    smallest: float = option(SMALLEST, 'Smallest tilt that gets a name.', unit='Å per halide', minimum=0.0)
    purity: float = option(PURITY, 'Share of M or R from which on a tilt is not mixed.', minimum=0.5, maximum=1.0)
    penalty: float = option(1.0, 'What a change costs that becomes a transition, over its Bayesian price.', minimum=0.0)
    boundary_temperature: float | None = option(
        250.0, 'Where the boundary between M and R over x is looked for; None looks for none.', unit='K'
    )
    boundary_width: float = option(10.0, 'So far from there windows count.', unit='K', minimum=0.0)
    modes: list[float] = option([], 'Temperatures at which the motion of the modes is followed.', unit='K')
    modes_equilibration: float = option(
        20.0,
        'Time at constant pressure before each of these runs, from the frame of a ramp whose temperature is the '
        'nearest; 0 for none.',
        unit='ps',
        minimum=0.0,
    )
    modes_ensemble: str = option('nve', 'Ensemble of these runs; a thermostat may damp.', choices=('nve', 'nvt'))
    modes_length: float = option(100.0, 'Length of each of these runs.', unit='ps', minimum=0.0)
    modes_every: float = option(0.05, 'Time between two of their frames.', unit='ps', minimum=1e-6)
    md: dict[str, Any] = option({}, 'Further settings of all runs, such as `{"masses": {"H": 4.0}}`.')

    @cached_property
    def parts(self) -> dict[str, tuple[dict[str, float], str, str]]:
        """Return of each composition what is on A with its fractions, on B, and on X."""
        return {formula: fractions_of(formula) for formula in self.compositions}

    def x_of(self, formula: str) -> float:
        """Return the composition as a number."""
        axis = self.axis or list(self.parts[self.compositions[-1]][0])[-1]
        return self.parts[formula][0].get(axis, 0.0)

    def repeat_of(self, formula: str) -> list[int]:
        """Return the number of cells along each vector."""
        if self.repeat is not None:
            return self.repeat
        count = 2
        while self._n_atoms(formula, 3 * [count]) < LEAST_ATOMS:
            count += 2
        return 3 * [count]

    def n_atoms(self, formula: str) -> int:
        """Return the number of atoms of the cell."""
        return self._n_atoms(formula, self.repeat_of(formula))

    def _n_atoms(self, formula: str, repeat: list[int]) -> int:
        counts = counts_of(self.parts[formula][0], math.prod(repeat))
        return 4 * math.prod(repeat) + sum(_size(kind) * count for kind, count in counts.items())

    def elements_of(self, formula: str) -> list[str]:
        """Return the elements of a composition."""
        fractions, b_site, x_site = self.parts[formula]
        organic = [str(symbol) for kind in fractions if kind in MOLECULES for symbol in molecule(kind).symbols]
        return sorted({b_site, x_site, *organic, *(kind for kind in fractions if kind not in MOLECULES)})

    @property
    def duration(self) -> float:
        """Return how long a ramp takes without its equilibration, in ps."""
        return 1000 * (self.temperatures[1] - self.temperatures[0]) / self.rate

    @property
    def window_ps(self) -> float:
        """Return how long a window takes in ps."""
        return 1000 * self.window / self.rate

    def problem(self) -> str | None:
        """Return a sentence where these settings make no map."""
        return (
            self._problem_of_compositions()
            or self._problem_of_ramps()
            or self._problem_of_modes()
            or problem_of_further(self.md, OWN)
        )

    def _problem_of_compositions(self) -> str | None:
        if not self.compositions or len(set(self.compositions)) < len(self.compositions):
            return '`compositions` has to name at least one, and each of them once.'
        try:
            known, needed = {*LATTICE_CONSTANTS, *self.lattice_constants}, set()
            for formula in self.compositions:
                fractions, b_site, x_site = fractions_of(formula)
                absent = [f'{kind}{b_site}{x_site}3' for kind in fractions if f'{kind}{b_site}{x_site}3' not in known]
                if absent:
                    return f'no lattice constant of {absent[0]} is known: give it in Å by `lattice_constants`.'
                needed |= {f'{kind}{b_site}{x_site}3' for kind in fractions}
        except ValueError as error:
            return str(error)
        idle = sorted(set(self.lattice_constants) - needed)
        if idle:
            made = ', '.join(sorted(needed))
            return f'`lattice_constants` names {idle[0]}, of which no composition is made; they are made of {made}.'
        if self.repeat is not None and (len(self.repeat) != 3 or any(n < 2 or n % 2 for n in self.repeat)):
            return f'`repeat` is {self.repeat} but has to be three even numbers: M and R alternate from cell to cell.'
        if len({self.x_of(formula) for formula in self.compositions}) < len(self.compositions):
            return 'two compositions have the same x; name what varies by `axis`.'
        return None

    def _problem_of_ramps(self) -> str | None:
        strange = [each for each in self.directions if each not in DIRECTIONS]
        if strange or not self.directions or len(set(self.directions)) < len(self.directions):
            return f'`directions` is {self.directions} but has to name heating, cooling, or both.'
        if 'heating' not in self.directions and self.cooling_start == 'heating':
            return "cooling cannot start from a heating that is not run; set `cooling_start` to 'cubic'."
        if len(self.temperatures) != 2 or not 0 < self.temperatures[0] < self.temperatures[1]:
            return f'`temperatures` is {self.temperatures} but has to be the lowest and the highest, above 0 K.'
        count = (self.temperatures[1] - self.temperatures[0]) / self.window
        if count < WINDOWS_FOR_A_CUT:
            return f'there are {count:.3g} windows of {self.window:g} K, but {WINDOWS_FOR_A_CUT} are the least.'
        if self.window_ps < 2 * self.frames_every:
            return (
                f'a window of {self.window:g} K takes {self.window_ps:.3g} ps, in which there have to be two frames at '
                f'least; now there is one each {self.frames_every:g} ps.'
            )
        if self.purity <= 0.5:
            return f'`purity` is {self.purity:g}, at which a tilt could be M and R; take more than one half.'
        if self.window_ps < 2 * self.thermo_every:
            return (
                f'a window of {self.window:g} K takes {self.window_ps:.3g} ps, and `thermo_every` is '
                f'{self.thermo_every:g} ps: each window needs two rows, which say its temperature.'
            )
        return None

    def _problem_of_modes(self) -> str | None:
        low, high = self.temperatures
        outside = [kelvin for kelvin in self.modes if not low <= kelvin <= high]
        if outside and self.modes_equilibration == 0:
            return (
                f'`modes` has {outside[0]:g} K, but a run for the modes starts from a frame of a ramp, and these go '
                f'from {low:g} to {high:g} K; give it time by `modes_equilibration`.'
            )
        count = self.modes_length / self.modes_every
        if self.modes and count < FRAMES_OF_A_MODE:
            return f'a run for the modes has {count:.0f} frames, but {FRAMES_OF_A_MODE} are the least.'
        return None


@dataclass(frozen=True)
class PlannedRun:
    """A run that the map is made of.

    :param label: what it is called among the tasks of the chain.
    :param kind: `heating`, `cooling`, `settling` before the modes, or `modes`.
    :param kelvin: from which temperature to which.
    :param seed: that of the map plus a number.
    :param settings: those of the run; see `MdSettings`.
    :param steps: how many steps it has.
    """

    label: str
    kind: str
    formula: str
    kelvin: tuple[float, float]
    seed: int
    settings: dict[str, Any]
    steps: int


def read_phase_map_settings(given: Mapping[str, Any]) -> PhaseMapSettings:
    """Build settings from plain values; raises SettingsError where they make no map."""
    settings = read_settings(PhaseMapSettings, given)
    problem = settings.problem()
    if problem:
        raise SettingsError(problem)
    return settings


def protocols() -> dict[str, dict[str, Any]]:
    """Return the protocols by name: what each is for, where it is from, its engine, and its settings."""
    text = (files('aiida_perovmlip.workflows') / 'protocols' / 'phase_map.yaml').read_text(encoding='utf-8')
    known: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return known


def protocol_of(name: str) -> dict[str, Any]:
    """Return a protocol; one that is not there is refused."""
    known = protocols()
    if name not in known:
        raise ValueError(f'phase maps have no protocol `{name}`; there are {", ".join(known)}.')
    return known[name]


def planned_runs(settings: PhaseMapSettings, seed: int) -> Iterator[PlannedRun]:
    """Yield all runs, those of one composition after the other."""
    number = seed
    for formula in settings.compositions:
        name = formula.replace('.', '_')
        for direction in DIRECTIONS:
            if direction in settings.directions:
                yield _ramp(settings, formula, f'{direction}_{name}', direction, number)
            number += 1
        for kelvin in settings.modes:
            place = f'{kelvin:g}K'.replace('.', '_')
            if settings.modes_equilibration > 0:
                yield _settling(settings, formula, f'settling_{name}_{place}', kelvin, number + 1)
            yield _motion(settings, formula, f'modes_{name}_{place}', kelvin, number)
            number += 2


def _ramp(settings: PhaseMapSettings, formula: str, label: str, direction: str, seed: int) -> PlannedRun:
    """Return a ramp, and the time at its first temperature before."""
    low, high = settings.temperatures
    first, last = (low, high) if direction == 'heating' else (high, low)
    each = steps_of(settings.frames_every, settings)
    stages: list[dict[str, Any]] = [{'steps': steps_of(settings.duration, settings), 'temperature': [first, last]}]
    if settings.equilibration > 0:
        stages.insert(0, {'steps': steps_of(settings.equilibration, settings), 'temperature': first})
    told = {**_at_constant_pressure(settings), 'stages': stages, 'frames_every': each, **_common(settings)}
    steps = sum(stage['steps'] for stage in stages)
    return PlannedRun(label, direction, formula, (first, last), seed, told, steps)


def _settling(settings: PhaseMapSettings, formula: str, label: str, kelvin: float, seed: int) -> PlannedRun:
    """Return a run at one temperature and constant pressure, whose last frame alone matters."""
    steps = steps_of(settings.modes_equilibration, settings)
    told = {
        **_at_constant_pressure(settings),
        'temperature': kelvin,
        'steps': steps,
        'frames_every': steps,
        **_common(settings),
    }
    return PlannedRun(label, 'settling', formula, (kelvin, kelvin), seed, told, steps)


def _at_constant_pressure(settings: PhaseMapSettings) -> dict[str, Any]:
    return {
        'ensemble': 'npt',
        'thermostat': settings.thermostat,
        'barostat': settings.barostat,
        'cell': settings.cell,
        'pressure': settings.pressure,
    }


def _motion(settings: PhaseMapSettings, formula: str, label: str, kelvin: float, seed: int) -> PlannedRun:
    """Return a run at one temperature."""
    steps = steps_of(settings.modes_length, settings)
    told = {
        'ensemble': settings.modes_ensemble,
        'temperature': kelvin,
        'steps': steps,
        'frames_every': steps_of(settings.modes_every, settings),
        **_common(settings),
    }
    return PlannedRun(label, 'modes', formula, (kelvin, kelvin), seed, told, steps)


def _common(settings: PhaseMapSettings) -> dict[str, Any]:
    return {
        'timestep': settings.timestep,
        'thermo_every': steps_of(settings.thermo_every, settings),
        **settings.md,
    }


def steps_of(length: float, settings: PhaseMapSettings) -> int:
    """Return the number of steps of a time in ps, one at least."""
    return max(1, round(1000 * length / settings.timestep))


def _size(kind: str) -> int:
    return len(molecule(kind)) if kind in MOLECULES else 1


# ---------------------------------------------------------------------- what it costs


@dataclass(frozen=True)
class MapForecast:
    """What would be run.

    :param runs: the runs, each with its number of atoms.
    :param speed: atoms times steps in a second of one job; None where nothing is known of it.
    :param speed_of: where that is from.
    """

    runs: tuple[tuple[PlannedRun, int], ...]
    timestep: float
    engine: str
    speed: float | None
    speed_of: str

    @property
    def hours(self) -> float | None:
        """Hours of all jobs one after the other: GPU hours, where each has one GPU."""
        if self.speed is None:
            return None
        return sum(run.steps * atoms for run, atoms in self.runs) / self.speed / 3600

    @property
    def gigabytes(self) -> float:
        """Size of all trajectories."""
        frames = [(run.steps / int(run.settings['frames_every']), atoms) for run, atoms in self.runs]
        return BYTES * sum(count * atoms for count, atoms in frames) / 1e9

    def __str__(self) -> str:
        total = sum(run.steps for run, _ in self.runs) * self.timestep / 1e6
        lines = [f'{len(self.runs)} runs by {self.engine}, {total:.4g} ns in steps of {self.timestep:g} fs:']
        size = f'trajectories: about {self.gigabytes:.3g} GB; the option `keep_remote` leaves them where they are made'
        return '\n'.join([*lines, *(f'  {self._row(run, atoms)}' for run, atoms in self.runs), size, self._cost()])

    def _row(self, run: PlannedRun, atoms: int) -> str:
        hours = '' if self.speed is None else f'{run.steps * atoms / self.speed / 3600:9.3g} h'
        low, high = run.kelvin
        kelvin = f'{low:g} K' if low == high else f'{low:g} to {high:g} K'
        length = run.steps * self.timestep / 1e6
        return f'{run.label:34s} {kelvin:>12s} {atoms:8d} atoms {length:9.4g} ns {run.steps:11d} steps{hours}'

    def _cost(self) -> str:
        if self.hours is None:
            return 'cost: unknown, as nothing like it has been run here; give the `speed` of a job in atom·steps/s.'
        return (
            f'cost: about {self.hours:.4g} hours of jobs, which are GPU hours where each has one GPU, at '
            f'{self.speed:.3g} atom·steps/s ({self.speed_of})'
        )


def forecast(builder: Any, speed: float | None = None, speed_of: str = 'as given') -> MapForecast:
    """Return which jobs a builder would run, and for how long; nothing is run or stored.

    :param builder: of a `PhaseMapWorkChain`.
    :param speed: atoms times steps in a second of one job; None asks what jobs of this potential took before.
    :param speed_of: where it is from.
    """
    settings = read_phase_map_settings(plain(builder.settings) or {})
    runs = tuple((run, settings.n_atoms(run.formula)) for run in planned_runs(settings, 0))
    engine = plain(builder.engine) or 'ase'
    if speed is None:
        speed, speed_of = measured_speed(builder.potential, engine, max(atoms for _, atoms in runs))
    return MapForecast(runs, settings.timestep, engine, speed, speed_of)
