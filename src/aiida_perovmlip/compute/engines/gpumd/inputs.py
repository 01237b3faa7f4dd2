"""The input of GPUMD for one job of a run: the structure that it starts from, and what it is to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from aiida_perovmlip.compute.engines.following import steps_between_states
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.md import MdSettings

MODEL, INPUT = 'model.xyz', 'run.in'
THERMO = 'thermo.out'
FRAMES, STATES = 'frames', 'states'
"""Folders of dumps, one file for each step, which are removed when they have been read."""

STEPS_OF_STATES = (1000, 10_000)
"""Steps between two dumps with velocities, at least and about at most, where nobody says how many."""

NO_TIME = 1e-6
"""A time step in fs in which nothing moves: GPUMD says nothing of the start itself."""

FEMTOSECONDS = 1000.0
"""One ps in fs; GPUMD has velocities in Å/fs."""

FROZEN = 1
"""The label of the group that does not move."""

Dialect = Literal['new', 'old']
"""How `dump_xyz` is written: as since the end of 2026 (new), or as in GPUMD 4 and 5 until then (old)."""

MTTK_STEPS = 200
"""The least period in steps of GPUMD's barostat after Martyna, Tobias, Tuckerman and Klein."""


@dataclass(frozen=True)
class Piece:
    """One `run` of GPUMD.

    :param begin: the step of the whole run at which it begins.
    :param frames: steps between two dumps of all atoms, counted from its own begin, as are the others.
    :param rows: between two rows of thermodynamics.
    :param states: between two dumps with velocities.
    :param temperature: in K, at its begin and its end.
    :param pressure: in GPa, at its begin and its end.
    """

    begin: int
    steps: int
    frames: int
    rows: int
    states: int
    temperature: tuple[float, float]
    pressure: tuple[float, float]

    @property
    def end(self) -> int:
        """The step of the whole run at which it ends."""
        return self.begin + self.steps


def pieces_of(settings: MdSettings, first: int) -> list[Piece]:
    """Return what is left of the schedule from a step on.

    GPUMD counts the steps of each `run` from zero, so that intervals have to fit the step at which it begins, for what
    is kept to fall on the steps on which it is due.
    """
    found, begin = [], 0
    states = steps_between_states(settings, settings.frames_every, *STEPS_OF_STATES)
    for stage in settings.schedule:
        start, end = max(begin, first), begin + stage.steps
        if end > start:
            part = (start - begin) / stage.steps
            temperature, pressure = (
                (low + part * (high - low), high) for low, high in (stage.temperature, stage.pressure)
            )
            frames, saved = math.gcd(settings.frames_every, start), math.gcd(states, start)
            found.append(
                Piece(
                    begin=start,
                    steps=end - start,
                    frames=frames,
                    rows=math.gcd(settings.thermo_every, frames, saved),
                    states=saved,
                    temperature=temperature,
                    pressure=pressure,
                )
            )
        begin = end
    return found


def rows_of(pieces: list[Piece], has_start: bool) -> Iterator[int]:
    """Yield the steps of all rows of thermodynamics that GPUMD will write, in order."""
    if has_start:
        yield 0
    for piece in pieces:
        yield from range(piece.begin + piece.rows, piece.end + 1, piece.rows)


@dataclass(frozen=True)
class Plan:
    """All that the input of one job says.

    :param positions: (n_atoms, 3) Å, unwrapped.
    :param cell: (3, 3) Å.
    :param velocities: (n_atoms, 3) Å/ps.
    :param potential: the lines that name it.
    :param has_start: whether GPUMD is to say what is known of the first step.
    """

    settings: MdSettings
    frame: Frame
    positions: Array
    cell: Array
    velocities: Array
    frozen: Array
    potential: tuple[str, ...]
    thermostat: str | None
    barostat: str | None
    pieces: list[Piece]
    has_start: bool


def model_file(plan: Plan) -> str:
    """Return the structure as GPUMD reads it."""
    masses = plan.settings.masses_of(plan.frame)
    label = np.zeros(len(plan.frame), dtype=int)
    label[plan.frozen] = FROZEN
    lattice = ' '.join(map(_number, plan.cell.reshape(-1)))
    properties = 'species:S:1:pos:R:3:mass:R:1:vel:R:3' + (':group:I:1' if len(plan.frozen) else '')
    lines = [str(len(plan.frame)), f'pbc="T T T" Lattice="{lattice}" Properties={properties}']
    velocities = plan.velocities / FEMTOSECONDS
    for index, symbol in enumerate(plan.frame.symbols):
        numbers = [*plan.positions[index], masses[index], *velocities[index]]
        group = f' {label[index]}' if len(plan.frozen) else ''
        lines.append(f'{symbol} {" ".join(map(_number, numbers))}{group}')
    return '\n'.join(lines) + '\n'


def input_file(plan: Plan, dialect: Dialect) -> str:
    """Return what GPUMD is to do."""
    # GPUMD wants a temperature above zero here, and does not use it where the structure comes with velocities.
    lines = [*plan.potential, f'velocity {_number(max(plan.settings.first_temperature, 1.0))}']
    if plan.has_start:
        lines += [f'time_step {_number(NO_TIME)}', 'ensemble nve', 'dump_thermo 1', 'run 1']
    lines.append(f'time_step {_number(plan.settings.timestep)}')
    for piece in plan.pieces:
        lines += [f'ensemble {ensemble_of(plan, piece)}']
        lines += [f'fix {FROZEN}'] if len(plan.frozen) else []
        lines.append(f'dump_thermo {piece.rows}')
        lines += _dumps(plan, piece, dialect)
        lines.append(f'run {piece.steps}')
    return '\n'.join(lines) + '\n'


def _dumps(plan: Plan, piece: Piece, dialect: Dialect) -> Iterator[str]:
    """Yield what writes atoms, each step into a file of its own: frames, states, and the state at the end."""
    with_velocities = ' velocity' if plan.settings.velocities else ''
    whole = {
        (FRAMES, piece.frames): with_velocities,
        (STATES, piece.states): ' velocity',
        **({(STATES, piece.steps): ' velocity'} if piece.steps % piece.states else {}),
    }
    for (folder, interval), what in whole.items():
        if interval <= piece.steps:
            name = f'{folder}/{name_of(piece, "*")}'
            yield (
                f'dump_xyz {interval} {name} precision double{what}'
                if dialect == 'new'
                else f'dump_xyz -1 0 {interval} {name}{what}'
            )


def name_of(piece: Piece, step: int | str) -> str:
    """Return the name of a dump: GPUMD puts the steps since the begin of the piece where there is a star."""
    return f'{piece.begin}_{step if isinstance(step, str) else step - piece.begin}'


def ensemble_of(plan: Plan, piece: Piece) -> str:
    """Return what follows the keyword `ensemble`; times are in steps there."""
    settings = plan.settings
    low, high = map(_number, piece.temperature)
    slow = _number(settings.temperature_time / settings.timestep)
    if settings.ensemble == 'nve':
        return 'nve'
    if settings.ensemble == 'nvt':
        kind = {'langevin': 'nvt_lan', 'nose-hoover': 'nvt_nhc', 'bussi': 'nvt_bdp'}[plan.thermostat or '']
        return f'{kind} {low} {high} {slow}'
    period = _number(settings.pressure_time / settings.timestep)
    pressures = [_number(pressure) for pressure in piece.pressure]
    if plan.barostat == 'mtk':
        moved = {'isotropic': 'iso', 'orthogonal': 'aniso', 'flexible': 'tri'}[settings.cell]
        return f'npt_mttk temp {low} {high} {moved} {" ".join(pressures)} tperiod {slow} pperiod {period}'
    count = {'isotropic': 1, 'orthogonal': 3, 'flexible': 6}[settings.cell]
    targets = [_number(piece.pressure[0] if axis < 3 else 0.0) for axis in range(count)]
    moduli = [_number(settings.bulk_modulus)] * count
    return ' '.join(['npt_scr', low, high, slow, *targets, *moduli, period])


def problem_of(settings: MdSettings, thermostat: str | None, barostat: str | None) -> str | None:
    """Return a sentence where GPUMD would refuse the settings, or do something else without a word."""
    if thermostat is not None and settings.temperature_time < settings.timestep:
        return 'GPUMD wants a `temperature_time` of one step at least.'
    if barostat == 'mtk' and settings.pressure_time < MTTK_STEPS * settings.timestep:
        return (
            f'GPUMD wants a `pressure_time` of {MTTK_STEPS} steps at least for the barostat `mtk`, which are '
            f'{MTTK_STEPS * settings.timestep:g} fs here.'
        )
    if barostat == 'scr' and settings.pressure_time < settings.timestep:
        return 'GPUMD wants a `pressure_time` of one step at least.'
    if barostat == 'scr' and any(stage.pressure[0] != stage.pressure[1] for stage in settings.schedule):
        return 'the barostat `scr` of GPUMD keeps one pressure in each stage; take `mtk` for a ramp of the pressure.'
    return None


def problem_of_cell(settings: MdSettings, cell: Array, barostat: str | None) -> str | None:
    """Return a sentence where a barostat of GPUMD cannot move this cell."""
    if barostat != 'scr' or settings.cell == 'flexible' or not (cell - np.diag(np.diag(cell))).any():
        return None
    return (
        f"the barostat `scr` of GPUMD moves a cell that is '{settings.cell}' only where its vectors lie along x, y and "
        "z: turn the cell, take 'flexible', or the barostat `mtk`."
    )


def write_inputs(plan: Plan, dialect: Dialect, folder: Path) -> None:
    """Write the input of a job into the folder that GPUMD runs in; nothing of an earlier one is left there."""
    for name in (FRAMES, STATES):
        (folder / name).mkdir(exist_ok=True)
        for path in (folder / name).iterdir():
            path.unlink()
    (folder / THERMO).unlink(missing_ok=True)
    (folder / MODEL).write_text(model_file(plan))
    (folder / INPUT).write_text(input_file(plan, dialect))


def _number(value: float) -> str:
    """Return a number in as many digits as it takes to have it exactly."""
    return repr(float(value))
