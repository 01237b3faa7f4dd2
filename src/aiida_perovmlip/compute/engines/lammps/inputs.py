"""The input of LAMMPS for one job of a run: the structure that it starts from, and what it is to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from aiida_perovmlip.compute.engines.following import steps_between_states
from aiida_perovmlip.compute.engines.lammps.box import Turn, is_orthogonal
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.md import MdSettings, Stage

START, INPUT, LOG = 'start.data', 'in.lammps', 'log.lammps'
FRAMES, STATES = 'frames', 'states'
"""Folders of dumps and of restart files, one for each step, which are removed when they have been read."""

LAST = 'last.restart'
"""The restart file that is written when the run ends, or is stopped."""

STOP = 'stop'
"""The file by which LAMMPS is asked to stop."""

WATCHED = 50.0
"""Time in fs between two looks at all atoms, at least."""

MOST_WATCHED = 4000
"""Atoms above which one only looks at frames that are kept anyway: writing more would cost too much."""

STEPS_OF_STATES = (100, 1000)
"""Steps between two restart files, at least and about at most, where nobody says how many."""

GPA_IN_BAR = 1e4
SKIN = 1.0
"""How much farther than its cutoff, in Å, LAMMPS looks for neighbours, so that a list lasts for some steps."""

ROW = ('step', 'temp', 'pe', 'ke', 'econserve', 'vol', 'pxx', 'pyy', 'pzz', 'pyz', 'pxz', 'pxy')
"""What LAMMPS says every now and then, by its own keywords."""

MOST_SEEDS = 900_000_000
IDS_OF_A_LINE = 20


@dataclass(frozen=True)
class Rhythm:
    """The steps between two events of each kind.

    :param frames: between two dumps of all atoms; frames that are kept are some of these.
    :param states: between two restart files.
    :param rows: between two rows of thermodynamics; all other events fall on one of these.
    """

    frames: int
    states: int
    rows: int

    @classmethod
    def of(cls, settings: MdSettings, n_atoms: int) -> Rhythm:
        """Return the rhythm of a run."""
        frames = settings.frames_every
        if n_atoms <= MOST_WATCHED:
            apart, row = round(WATCHED / settings.timestep), math.gcd(frames, settings.thermo_every)
            fitting = (each for each in range(row, frames + 1, row) if frames % each == 0 and each >= apart)
            frames = next(fitting, frames)
        states = steps_between_states(settings, frames, *STEPS_OF_STATES)
        return cls(frames, states, math.gcd(settings.thermo_every, frames, states))


@dataclass(frozen=True)
class Plan:
    """All that the input of one job says.

    :param first: the step that the job starts from.
    :param restart: name of the restart file to start from; None where the run begins.
    :param style: lines that define the potential.
    :param n_degrees: degrees of freedom that the temperature counts.
    :param frozen: indices of the atoms that do not move.
    :param seed: of random forces.
    """

    settings: MdSettings
    frame: Frame
    turn: Turn
    rhythm: Rhythm
    style: tuple[str, ...]
    thermostat: str | None
    n_degrees: int
    frozen: Array
    seed: int
    first: int = 0
    restart: str | None = None

    @property
    def moving(self) -> str:
        """The group of LAMMPS that moves."""
        return 'moving' if len(self.frozen) else 'all'


def types_of(frame: Frame) -> list[str]:
    """Return the chemical symbols of the atom types, in their order."""
    return sorted(set(frame.symbols), key=atomic_numbers.__getitem__)


def data_file(plan: Plan, velocities: Array) -> str:
    """Return the structure as LAMMPS reads it.

    :param velocities: (n_atoms, 3) Å/ps, as they lie in the cell of the run.
    """
    frame, types = plan.frame, {symbol: number for number, symbol in enumerate(types_of(plan.frame), 1)}
    box = plan.turn.box_of(frame.cell)
    masses = dict(zip(frame.symbols, plan.settings.masses_of(frame), strict=True))
    lines = ['', '', f'{len(frame)} atoms', f'{len(types)} atom types', '']
    lines += [f'0.0 {_number(box[axis, axis])} {name}lo {name}hi' for axis, name in enumerate('xyz')]
    if not is_orthogonal(box) or (plan.settings.ensemble == 'npt' and plan.settings.cell == 'flexible'):
        lines.append(f'{_number(box[1, 0])} {_number(box[2, 0])} {_number(box[2, 1])} xy xz yz')
    lines += ['', 'Masses', '', *(f'{number} {_number(masses[symbol])}' for symbol, number in types.items())]
    places = plan.turn.to_lammps(frame.positions)
    lines += ['', 'Atoms # atomic', '']
    lines += [
        f'{index} {types[symbol]} {_numbers(place)}'
        for index, (symbol, place) in enumerate(zip(frame.symbols, places, strict=True), 1)
    ]
    lines += ['', 'Velocities', '']
    lines += [f'{index} {_numbers(row)}' for index, row in enumerate(plan.turn.to_lammps(velocities), 1)]
    return '\n'.join(lines) + '\n'


def input_file(plan: Plan) -> str:
    """Return what LAMMPS is to do: to go on to the end of the schedule, and to write the state in which it ends."""
    return '\n'.join([*_system(plan), *_output(plan), *_stages(plan), f'write_restart {LAST}']) + '\n'


def _system(plan: Plan) -> Iterator[str]:
    """Yield what defines atoms and forces."""
    yield from ('units metal', 'atom_style atomic', 'atom_modify map yes', 'newton on', 'boundary p p p')
    yield 'box tilt large'
    yield f'read_data {START}' if plan.restart is None else f'read_restart {plan.restart}'
    yield from plan.style
    yield from (f'neighbor {SKIN} bin', 'neigh_modify every 1 delay 0 check yes')
    yield f'timestep {_number(plan.settings.timestep / 1000)}'
    ids = [str(index + 1) for index in plan.frozen]
    for begin in range(0, len(ids), IDS_OF_A_LINE):
        yield f'group frozen id {" ".join(ids[begin : begin + IDS_OF_A_LINE])}'
    if ids:
        yield 'group moving subtract all frozen'


def _output(plan: Plan) -> Iterator[str]:
    """Yield what is written, and how LAMMPS is stopped."""
    rhythm = plan.rhythm
    n_moving = len(plan.frame) - len(plan.frozen)
    yield f'compute warmth {plan.moving} temp'
    yield f'compute_modify warmth extra/dof {3 * n_moving - plan.n_degrees}'
    yield f'thermo_style custom {" ".join(ROW)}'
    yield 'thermo_modify temp warmth line yaml format float %.16g flush yes lost error norm no'
    yield f'thermo {rhythm.rows}'
    columns = 'id xu yu zu fx fy fz' + (' vx vy vz' if plan.settings.velocities else '')
    yield f'dump frames all custom {rhythm.frames} {FRAMES}/*.txt {columns}'
    yield 'dump_modify frames sort id format float %.12g'
    yield f'restart {rhythm.states} {STATES}/*'
    # Each process looks for the file by itself; the maximum over all makes them agree on the step at which it is there.
    yield f'variable asked atom is_file({STOP})'
    yield 'compute asked all reduce max v_asked'
    yield 'variable asked_all equal c_asked'
    yield f'fix halting all halt {rhythm.rows} v_asked_all != 0 error soft'


def _stages(plan: Plan) -> Iterator[str]:
    """Yield the rest of the schedule; each ramp runs over the whole of its stage, wherever the job begins."""
    begin = 0
    for number, stage in enumerate(plan.settings.schedule):
        end = begin + stage.steps
        if end > plan.first:
            yield from _motion(plan, stage, number)
            yield f'run {end} upto start {begin} stop {end}'
        begin = end


def _motion(plan: Plan, stage: Stage, number: int) -> Iterator[str]:
    """Yield what moves atoms and cell in a stage."""
    settings, group = plan.settings, plan.moving
    low, high = stage.temperature
    warm = f'{_number(low)} {_number(high)} {_number(settings.temperature_time / 1000)}'
    seed = seed_of(plan.seed, plan.first, number)
    if settings.ensemble == 'npt':
        yield f'fix motion all npt temp {warm} {_pressure(settings, stage)} flip no fixedpoint 0 0 0'
        yield 'fix_modify motion temp warmth'
    elif plan.thermostat == 'nose-hoover':
        yield f'fix motion {group} nvt temp {warm}'
        yield 'fix_modify motion temp warmth'
    else:
        yield f'fix motion {group} nve'
    if plan.thermostat == 'langevin':
        yield f'fix heat {group} langevin {warm} {seed} tally yes'
    if plan.thermostat == 'bussi':
        yield f'fix heat {group} temp/csvr {warm} {seed}'
        yield 'fix_modify heat temp warmth'


def _pressure(settings: MdSettings, stage: Stage) -> str:
    """Return what the barostat is told: what it moves, and the pressures in bar."""
    moved = {'isotropic': 'iso', 'orthogonal': 'aniso', 'flexible': 'tri'}[settings.cell]
    low, high = (GPA_IN_BAR * pressure for pressure in stage.pressure)
    return f'{moved} {_number(low)} {_number(high)} {_number(settings.pressure_time / 1000)}'


def seed_of(seed: int, *more: int) -> int:
    """Return a seed for LAMMPS, another one for each job and stage: no random force comes twice."""
    return 1 + int(np.random.SeedSequence([abs(seed), *more]).generate_state(1)[0]) % MOST_SEEDS


def write_inputs(plan: Plan, folder: Path, velocities: Array) -> None:
    """Write the input of a job into the folder that LAMMPS runs in."""
    for name in (FRAMES, STATES):
        (folder / name).mkdir(exist_ok=True)
        for path in (folder / name).iterdir():
            path.unlink()
    for name in (STOP, LAST, LOG):
        (folder / name).unlink(missing_ok=True)
    if plan.restart is None:
        (folder / START).write_text(data_file(plan, velocities))
    (folder / INPUT).write_text(input_file(plan))


def _numbers(values: Sequence[float] | Array) -> str:
    return ' '.join(map(_number, values))


def _number(value: float) -> str:
    """Return a number in as many digits as it takes to have it exactly."""
    return repr(float(value))
