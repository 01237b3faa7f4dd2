"""Which runs a study of diffusion is made of, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from math import log
from typing import Any, Literal

import numpy as np
import yaml
from aiida import orm

from aiida_perovmlip.analysis.lattice import LEAST_FRAMES, LEFT_OUT
from aiida_perovmlip.calculations.functions.diffusion import CONVENTIONS, Following
from aiida_perovmlip.compute.settings import SettingsError, option, read_settings
from aiida_perovmlip.data.potential import PotentialData

Kind = Literal['lattice', 'equilibration', 'production']

FRAMES_FOR_A_WINDOW = 30
"""Frames that a production needs, or no window can be chosen in it."""


OWN = {
    'timestep': '`timestep`',
    'steps': '`lattice`, `equilibration` and `production`',
    'stages': '`lattice`, `equilibration` and `production`',
    'frames_every': '`frames_every`',
    'thermo_every': '`thermo_every`',
    'temperature': '`temperatures` and `lattice_temperatures`',
    'pressure': '`pressure`',
    'cell': '`lattice_cell`',
    'thermostat': '`equilibration_thermostat` and `production_thermostat`',
    'temperature_time': '`equilibration_time` and `production_time`',
}
"""Settings of a run that a study makes itself, and those of the study that it makes them of."""


@dataclass(frozen=True)
class DiffusionSettings:
    """Settings of a study of diffusion."""

    temperatures: list[float] = option([500.0, 525.0, 550.0, 575.0, 600.0], 'Temperatures of the runs.', unit='K')
    n_runs: int = option(3, 'Independent runs at each temperature; they differ by their seeds.', minimum=1)
    followed: list[str] = option(['I'], 'What diffuses: elements, or the molecules `MA` and `FA`.')
    host: str = option('Pb', 'Element that stays: its mean displacement is the drift, and it makes the sites.')
    molecules: str = option('centre', 'How a molecule is followed; see `Following`.', choices=CONVENTIONS)
    timestep: float = option(1.0, 'Time step of all runs.', unit='fs', minimum=1e-3, maximum=100.0)
    equilibration: float = option(
        100.0, 'Length of the run before each production; 0 for none.', unit='ps', minimum=0.0
    )
    equilibration_thermostat: str | None = option('langevin', 'Its thermostat; None takes the first of the engine.')
    equilibration_time: float = option(330.0, 'Relaxation time of that thermostat.', unit='fs', minimum=1e-3)
    production: float = option(2000.0, 'Length of the run in which displacements are measured.', unit='ps', minimum=0.0)
    production_thermostat: str | None = option('nose-hoover', 'Its thermostat; None takes the first of the engine.')
    production_time: float = option(100.0, 'Relaxation time of that thermostat.', unit='fs', minimum=1e-3)
    frames_every: float = option(0.1, 'Time between two frames.', unit='ps', minimum=1e-6)
    thermo_every: float = option(
        0.1, 'Time between two rows of temperature, energies and stress.', unit='ps', minimum=0
    )
    lattice_temperatures: list[float] = option(
        [300.0, 350.0, 400.0, 450.0],
        'Temperatures of the runs at constant pressure from which lattice constants are extrapolated; none keeps the '
        'cell of the start, unless `lattice_constants` are given.',
        unit='K',
    )
    lattice: float = option(100.0, 'Length of these runs.', unit='ps', minimum=0.0)
    lattice_cell: str = option(
        'orthogonal', 'What of the cell they move.', choices=('isotropic', 'orthogonal', 'flexible')
    )
    lattice_constants: dict[str, float] = option(
        {}, 'Lattice constants by temperature that are known already, such as `{"500": 6.354}`.', unit='Å'
    )
    pressure: float = option(0.0, 'Pressure of the runs at constant pressure.', unit='GPa')
    repeat: list[int] | None = option(
        None, 'Pseudo-cubic cells along each vector of start and crystal; None finds it by the host.'
    )
    window: list[float] | None = option(
        None, 'Begin and end of the fit; None chooses them by the rule of the analysis.', unit='ps'
    )
    hop_window: float | None = option(
        1.0, 'Over so much time positions are averaged before hops are counted; None counts none.', unit='ps', minimum=0
    )
    attempt_frequency: float = option(
        0.5, 'Attempts to hop by which the bound of an immobile species is told.', unit='THz', minimum=1e-6
    )
    bayesian: bool = option(False, 'Whether kinisi checks the fit; it has to be installed beside AiiDA.')
    md: dict[str, Any] = option({}, 'Further settings of all runs, such as `{"masses": {"H": 4.0}}`.')

    @property
    def needs_lattice_runs(self) -> bool:
        """Whether lattice constants are still to be found."""
        return bool(self.lattice_temperatures) and not self.lattice_constants

    @property
    def scales_cell(self) -> bool:
        """Whether the cell of the start is scaled for each temperature."""
        return bool(self.lattice_temperatures or self.lattice_constants)

    def following(self) -> dict[str, Any]:
        """Return what the analysis of one run is told."""
        return {each.name: getattr(self, each.name) for each in fields(Following) if hasattr(self, each.name)}

    def problem(self) -> str | None:
        """Return a sentence where these settings make no study."""
        if not self.temperatures or min(self.temperatures) <= 0:
            return '`temperatures` has to hold a temperature above 0 K.'
        if len(set(self.temperatures)) < len(self.temperatures):
            return '`temperatures` names one twice; for more runs at one temperature raise `n_runs`.'
        if not self.followed:
            return '`followed` names nothing that could diffuse.'
        n_frames = self.production / self.frames_every
        if n_frames < FRAMES_FOR_A_WINDOW:
            return f'a production of {self.production:g} ps has {n_frames:.0f} frames, but {FRAMES_FOR_A_WINDOW} are ' \
                   'the least that can be analysed; make `production` longer or `frames_every` shorter.'  # fmt: skip
        if self.needs_lattice_runs and len(set(self.lattice_temperatures)) < 2:
            return '`lattice_temperatures` has to name two temperatures, or none.'
        n_averaged = (1 - LEFT_OUT) * self.lattice / self.frames_every
        if self.needs_lattice_runs and n_averaged < LEAST_FRAMES:
            return f'a run for the lattice of {self.lattice:g} ps has {n_averaged:.0f} frames that are averaged, but ' \
                   f'{LEAST_FRAMES} are the least; make `lattice` longer or `frames_every` shorter.'  # fmt: skip
        if self.window is not None and (len(self.window) != 2 or not 0 <= self.window[0] < self.window[1]):
            return f'`window` is {self.window} but has to be the begin and the end of the fit in ps.'
        return problem_of_further(self.md, OWN) or self._problem_of_constants()

    def _problem_of_constants(self) -> str | None:
        """Return a sentence where a lattice constant is missing."""
        try:
            known = {float(kelvin) for kelvin in self.lattice_constants}
        except ValueError:
            return f'`lattice_constants` has the keys {", ".join(self.lattice_constants)}, which are no temperatures.'
        missing = [f'{kelvin:g}' for kelvin in self.temperatures if kelvin not in known]
        return f'`lattice_constants` has none at {", ".join(missing)} K.' if known and missing else None


@dataclass(frozen=True)
class PlannedRun:
    """A run that the study is made of.

    :param label: what it is called among the tasks of the chain.
    :param seed: that of the study plus a number.
    :param settings: those of the run; see `MdSettings`.
    """

    label: str
    kind: Kind
    temperature: float
    seed: int
    settings: dict[str, Any]

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return int(self.settings['steps'])


def problem_of_further(md: Mapping[str, Any], own: Mapping[str, str]) -> str | None:
    """Return a sentence where further settings of all runs name one that the study makes itself.

    :param own: those settings of runs, and by which of the study they are said.
    """
    taken = next((name for name in own if name in md), None)
    if taken is None:
        return None
    return f'`md` has `{taken}`, of which the study makes each of its runs itself: say it by {own[taken]}.'


def read_diffusion_settings(given: Mapping[str, Any]) -> DiffusionSettings:
    """Build settings from plain values; raises SettingsError where they make no study."""
    settings = read_settings(DiffusionSettings, given)
    problem = settings.problem()
    if problem:
        raise SettingsError(problem)
    return settings


def protocols() -> dict[str, dict[str, Any]]:
    """Return the protocols by name: what each is for, where it is from, and its settings."""
    text = (files('aiida_perovmlip.workflows') / 'protocols' / 'diffusion.yaml').read_text(encoding='utf-8')
    known: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return known


def settings_of_protocol(protocol: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a protocol with what differs from it; a protocol that is not there is refused."""
    known = protocols()
    if protocol not in known:
        raise ValueError(f'diffusion has no protocol `{protocol}`; there are {", ".join(known)}.')
    return {**known[protocol]['settings'], **(settings or {})}


def lattice_runs(settings: DiffusionSettings, seed: int) -> Iterator[PlannedRun]:
    """Yield the runs at constant pressure."""
    if not settings.needs_lattice_runs:
        return
    for number, kelvin in enumerate(settings.lattice_temperatures):
        told = {
            **_common(settings, settings.lattice, settings.frames_every),
            'ensemble': 'npt',
            'cell': settings.lattice_cell,
            'temperature': kelvin,
            'pressure': settings.pressure,
        }
        yield PlannedRun(f'lattice_{_at(kelvin)}', 'lattice', kelvin, seed + number, told)


def diffusion_runs(settings: DiffusionSettings, seed: int) -> Iterator[tuple[PlannedRun | None, PlannedRun]]:
    """Yield the equilibration, where there is one, and the production of each run.

    Each has a seed of its own, behind those of the runs at constant pressure: else a production would begin with the
    velocities, and feel the random forces, of its equilibration.
    """
    number = seed + (len(settings.lattice_temperatures) if settings.needs_lattice_runs else 0)
    for kelvin in settings.temperatures:
        for count in range(1, settings.n_runs + 1):
            place = f'{_at(kelvin)}_run_{count}'
            before = {
                **_common(settings, settings.equilibration, settings.equilibration),
                'thermostat': settings.equilibration_thermostat,
                'temperature_time': settings.equilibration_time,
                'temperature': kelvin,
            }
            told = {
                **_common(settings, settings.production, settings.frames_every),
                'thermostat': settings.production_thermostat,
                'temperature_time': settings.production_time,
                'temperature': kelvin,
            }
            first = PlannedRun(f'equilibrate_{place}', 'equilibration', kelvin, number, before)
            yield (
                first if settings.equilibration > 0 else None,
                PlannedRun(f'produce_{place}', 'production', kelvin, number + 1, told),
            )
            number += 2


def _common(settings: DiffusionSettings, length: float, frames_every: float) -> dict[str, Any]:
    """Return what all runs have, of a length in ps; the last step has a frame."""
    each = max(1, round(1000 * frames_every / settings.timestep))
    steps = max(1, round(1000 * length / settings.timestep / each)) * each
    return {
        'ensemble': 'nvt',
        'timestep': settings.timestep,
        'steps': steps,
        'frames_every': each,
        'thermo_every': min(steps, max(1, round(1000 * settings.thermo_every / settings.timestep))),
        **settings.md,
    }


def _at(kelvin: float) -> str:
    """Return a temperature as part of a label."""
    return f'{kelvin:g}K'.replace('.', '_')


# ---------------------------------------------------------------------- what it costs


@dataclass(frozen=True)
class Forecast:
    """What would be run.

    :param runs: label, temperature in K, steps and atoms of each run.
    :param speed: atoms times steps in a second of one job; None where nothing is known of it.
    :param speed_of: where that is from.
    :param cores: of one job.
    """

    runs: tuple[tuple[str, str, float, int, int], ...]
    timestep: float
    speed: float | None
    speed_of: str
    cores: int

    @property
    def hours(self) -> float | None:
        """Hours of all jobs one after the other: GPU hours, where each has one GPU."""
        if self.speed is None:
            return None
        return sum(steps * atoms for *_, steps, atoms in self.runs) / self.speed / 3600

    def __str__(self) -> str:
        lines = [f'{len(self.runs)} runs, {self._length():.4g} ns in steps of {self.timestep:g} fs:']
        lines += [f'  {self._row(run)}' for run in self.runs]
        return '\n'.join([*lines, self._cost()])

    def _row(self, run: tuple[str, str, float, int, int]) -> str:
        label, kind, kelvin, steps, atoms = run
        hours = '' if self.speed is None else f'{steps * atoms / self.speed / 3600:9.3g} h'
        length = steps * self.timestep / 1000
        return f'{label:28s} {kind:13s} {kelvin:6.4g} K {atoms:7d} atoms {length:9.4g} ps {steps:10d} steps{hours}'

    def _length(self) -> float:
        return sum(steps for *_, steps, _ in self.runs) * self.timestep / 1e6

    def _cost(self) -> str:
        if self.hours is None:
            return 'cost: unknown, as nothing like it has been run here; give the `speed` of a job in atom·steps/s.'
        return (
            f'cost: about {self.hours:.3g} hours of jobs at {self.speed:.3g} atom·steps/s ({self.speed_of}): so many '
            f'GPU hours where a job has one GPU, or {self.hours * self.cores:.3g} core-hours by {self.cores} each'
        )


def forecast(builder: Any, speed: float | None = None) -> Forecast:
    """Return which jobs a builder would run, and for how long; nothing is run or stored.

    :param builder: of a `DiffusionWorkChain`.
    :param speed: atoms times steps in a second of one job; None asks what jobs of this potential took before.
    """
    settings = read_diffusion_settings(plain(builder.settings))
    atoms = len(builder.start.frames[0])
    runs = [(run, len(builder.crystal.frames[0])) for run in lattice_runs(settings, 0)]
    for pair in diffusion_runs(settings, 0):
        runs += [(run, atoms) for run in pair if run is not None]
    found, where = speed, 'as given'
    if found is None:
        found, where = measured_speed(builder.potential, plain(builder.engine), atoms)
    rows = tuple((run.label, run.kind, run.temperature, run.steps, size) for run, size in runs)
    return Forecast(rows, settings.timestep, found, where, _cores(plain(builder.options) or {}))


def plain(value: Any) -> Any:
    """Return a value of a builder that may be a node already, or what makes its default."""
    value = value() if callable(value) else value
    if isinstance(value, orm.Dict):
        return value.get_dict()
    return value.value if isinstance(value, (orm.Str, orm.Int, orm.Float)) else value


def measured_speed(potential: PotentialData, engine: str | None, n_atoms: int) -> tuple[float | None, str]:
    """Return atom·steps/s of the finished jobs of a potential whose size is the nearest, and how many these are."""
    query = orm.QueryBuilder()
    query.append(
        PotentialData, filters={'attributes.content_hash': potential.content_hash}, tag='potential', project=[]
    )
    job = {'process_type': 'aiida.calculations:perovmlip.md'}
    query.append(orm.CalcJobNode, with_incoming='potential', filters=job, tag='job', project=[])
    query.append(
        orm.Dict,
        with_incoming='job',
        edge_filters={'label': 'results'},
        filters={'attributes.engine': engine or 'ase'},
        project=['attributes.n_atoms', 'attributes.atom_steps_per_second'],
    )
    known = [(size, speed) for size, speed in query.all() if size and isinstance(speed, (int, float))]
    if not known:
        return None, ''
    away = np.array([abs(log(size / n_atoms)) for size, _ in known])
    near = [speed for (_, speed), distance in zip(known, away, strict=True) if distance <= away.min() + 0.05]
    return float(np.median(near)), f'the median of {len(near)} jobs that have been done'


def _cores(options: Mapping[str, Any]) -> int:
    """Return the cores of one job."""
    resources = options.get('resources', {})
    processes = int(resources.get('tot_num_mpiprocs', 0) or resources.get('num_mpiprocs_per_machine', 1))
    return max(1, processes) * int(resources.get('num_cores_per_mpiproc', 1) or 1)
