"""A run of GPUMD as it goes on: started, followed by what it writes, and ended."""

from __future__ import annotations

import os
import shlex
import time
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np

from aiida_perovmlip.compute.children import start_child
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import MdRun
from aiida_perovmlip.compute.engines.following import LOOK, end_child, ends_of, failure
from aiida_perovmlip.compute.engines.gpumd.inputs import (
    FRAMES,
    STATES,
    THERMO,
    Dialect,
    Piece,
    Plan,
    ensemble_of,
    name_of,
    pieces_of,
    rows_of,
    write_inputs,
)
from aiida_perovmlip.compute.engines.gpumd.outputs import Dump, Row, ThermoReader, Unwrapper, Verdict, judge, read_dump
from aiida_perovmlip.compute.engines.starting import degrees_of_freedom, first_velocities
from aiida_perovmlip.compute.frame import Array

FOLDER = 'gpumd'
"""The folder that GPUMD runs in."""

PRINTED = 'printed.log'
POLL = 0.1
"""Seconds between two looks at what GPUMD has written."""

PATIENCE = 60.0
"""Seconds in which GPUMD may come to the next state once there is no time left."""

CLOCK = 'GPUMD takes its random numbers from the clock: the seed has no effect on random forces.'
UNWATCHED = 'GPUMD is watched by its temperature and its energy; `max_force` has no effect.'


class Motion:
    """One job of a run with GPUMD, whose clock are the rows of thermodynamics.

    :param command: what starts GPUMD.
    """

    def __init__(self, run: MdRun, command: list[str], thermostat: str | None, barostat: str | None) -> None:
        self.run, self.settings, self.recorder, self.command = run, run.settings, run.recorder, command
        self.folder = run.folder / FOLDER
        state = self.recorder.state()
        self.n_degrees = degrees_of_freedom(self.settings, run.frame, keeps_momentum=False)
        self.first = 0 if state is None else state.step
        self.step = -1 if state is None else state.step
        self.saved = self.first
        self.cell: Array = run.frame.cell if state is None else state.arrays['cell']
        self.positions: Array = run.frame.positions if state is None else state.arrays['positions']
        self.velocities: Array = (
            first_velocities(self.settings, run.frame, run.seed, self.n_degrees)
            if state is None
            else state.arrays['velocities']
        )
        self.plan = Plan(
            settings=self.settings,
            frame=run.frame,
            positions=self.positions,
            cell=self.cell,
            velocities=self.velocities,
            frozen=self.settings.frozen_indices(run.frame),
            potential=(),
            thermostat=thermostat,
            barostat=barostat,
            pieces=pieces_of(self.settings, self.first),
            has_start=state is None,
        )
        self.left_out = 0.0

    def go(self) -> dict[str, Any]:
        """Run GPUMD to the end of the schedule; return what it says that it did."""
        if not self.plan.pieces:
            return {}
        self.folder.mkdir(exist_ok=True)
        form = self.run.architecture.gpumd(self.run.potential, self.folder)
        self.left_out = form.offset_of(self.run.frame)
        self.plan = replace(self.plan, potential=form.lines)
        dialects: tuple[Dialect, ...] = ('new', 'old')
        errors: list[str] = []
        for dialect in dialects:
            code = self._follow(dialect)
            verdict = judge(ends_of(self.folder / PRINTED))
            if not verdict.is_of_input or self.step > max(self.first, 0):
                break
            errors.append(verdict.error)  # another version has another `dump_xyz`
        else:
            verdict = replace(verdict, error=errors[0])
        about = self._about(verdict)
        self._settle(code, verdict, about)
        return about

    # ------------------------------------------------------------------ meanwhile

    def _follow(self, dialect: Dialect) -> int:
        """Start GPUMD and follow it to its end; return its exit status."""
        write_inputs(self.plan, dialect, self.folder)
        self.reader = ThermoReader(self.folder / THERMO)
        self.steps = rows_of(self.plan.pieces, self.plan.has_start)
        self.waiting: deque[tuple[int, Row]] = deque()
        self.unwrapper = Unwrapper(self.plan.positions, self.plan.cell)
        self.is_ending = self.is_whole = False
        asked: float | None = None
        with (self.folder / PRINTED).open('w') as log:
            process = start_child(self.command, self.folder, log, dict(os.environ))
            try:
                has_more = False
                while not self.is_whole and not self._has_ended:
                    if not has_more:
                        time.sleep(POLL)
                    is_over = process.poll() is not None  # before the look, which sees all that was written by then
                    has_more = self._look()
                    self.is_whole = is_over and not has_more and not self._has_ended
                    if asked is None and self.run.seconds_left() <= 0:
                        self.is_ending, asked = True, time.monotonic()
                    if asked is not None and time.monotonic() - asked > PATIENCE:
                        break
            finally:
                end_child(process)
        return process.returncode

    @property
    def _has_ended(self) -> bool:
        """Whether the state was saved with which the job ends before the run does."""
        return self.is_ending and self.saved == self.step

    def _look(self) -> bool:
        """Take what GPUMD has written since the last look, as far as all of a step is there; whether more waits."""
        for row in self.reader.rows():
            expected = next(self.steps, None)
            if expected is None:
                raise JobError(Status.FAILED, f'GPUMD wrote more rows into {THERMO} than it was asked for.')
            self.waiting.append((expected, row))
        end = time.monotonic() + LOOK
        while self.waiting and not self._has_ended:
            if time.monotonic() > end:
                return True
            step, row = self.waiting[0]
            piece = self._piece_of(step)
            dump = None if piece is None else self._dump(piece, step)
            if dump is None and piece is not None and self._has_dump(piece, step):
                return False  # it is not whole yet
            self.waiting.popleft()
            if step > self.step:
                self._take(step, row, piece, dump)
        return False

    def _piece_of(self, step: int) -> Piece | None:
        """Return the piece in which a step lies; None for the start of the run."""
        return next((piece for piece in self.plan.pieces if piece.begin < step <= piece.end), None)

    def _has_dump(self, piece: Piece, step: int) -> bool:
        """Whether GPUMD dumps all atoms at a step."""
        return (step - piece.begin) % piece.frames == 0 or self._is_state(piece, step)

    def _is_state(self, piece: Piece, step: int) -> bool:
        """Whether GPUMD dumps velocities too at a step."""
        return (step - piece.begin) % piece.states == 0 or step == piece.end

    def _dump(self, piece: Piece, step: int) -> Dump | None:
        """Return all atoms at a step; None where GPUMD does not dump them then, or has not yet."""
        is_state = self._is_state(piece, step)
        if not is_state and (step - piece.begin) % piece.frames:
            return None
        dump = read_dump(self.folder / (STATES if is_state else FRAMES) / name_of(piece, step))
        if dump is None:
            return None
        is_late = dump.time is not None and abs(dump.time / self.settings.timestep - (step - self.first)) > 0.5
        if dump.symbols != self.run.frame.symbols or is_late:
            what = f'of {dump.time} fs after the start' if is_late else 'of other atoms'
            raise JobError(Status.FAILED, f'The dump of GPUMD that should be that of step {step} is {what}.')
        for folder in (FRAMES, STATES):
            (self.folder / folder / name_of(piece, step)).unlink(missing_ok=True)
        return dump

    def _take(self, step: int, row: Row, piece: Piece | None, dump: Dump | None) -> None:
        """Give the recorder what it wants of a step."""
        self.step, energy = step, row.potential + self.left_out
        self._refuse_nonsense(row)
        if dump is not None:
            self._move(dump, step)
        if dump is not None or piece is None:
            self.recorder.watch(step, self.positions, self.cell, energy=energy, temperature=row.temperature)
        if self.recorder.wants_thermo(step):
            conserved = {'conserved': energy + row.kinetic} if self.settings.ensemble == 'nve' else {}
            self.recorder.thermo(
                step,
                temperature=row.temperature,
                potential_energy=energy,
                kinetic_energy=row.kinetic,
                stress=row.stress,
                volume=row.volume,
                **conserved,
            )
        if (dump is not None or piece is None) and self.recorder.wants_frame(step):
            self.recorder.frame(step, self.positions, self.cell, self.velocities)
        if piece is not None and self._is_state(piece, step) and (self.is_ending or self.recorder.is_due(step)):
            self._save()

    def _move(self, dump: Dump, step: int) -> None:
        """Follow the atoms to where they are now."""
        self.cell, self.positions = dump.cell, self.unwrapper.follow(dump.positions, dump.cell, step)
        if dump.velocities is not None:
            self.velocities = dump.velocities

    def _refuse_nonsense(self, row: Row) -> None:
        """End the run where it has exploded."""
        numbers = [row.temperature, row.potential, row.kinetic, row.volume, *row.stress]
        limit = self.settings.limit_of_temperature
        if not np.isfinite(numbers).all():
            self._explode('GPUMD says of it what is no number')
        if row.temperature > limit:
            self._explode(f'the temperature was {row.temperature:.4g} K, above `max_temperature` of {limit:g} K')

    def _explode(self, reason: str) -> None:
        """End the run: the atoms have flown apart."""
        self.recorder.explode(self.step, reason)

    def _save(self) -> None:
        """Save the state of the present step."""
        arrays = {'positions': self.positions, 'cell': self.cell, 'velocities': self.velocities}
        self.recorder.save(self.step, arrays)
        self.saved = self.step

    # ------------------------------------------------------------------ after

    def _settle(self, code: int, verdict: Verdict, about: dict[str, Any]) -> None:
        """Save the state at the end; raise where GPUMD has not come there."""
        end = self.settings.n_steps
        if verdict.is_finished and not verdict.error and (self.is_whole or self.step == end):
            last = self.plan.pieces[-1]
            dump = self._dump(last, end) if self.step < end else None
            if dump is not None:
                self.step = end
                self._move(dump, end)
            if self.step == end:
                self._save()
                return
        if self.run.seconds_left() <= 0 and not verdict.error:
            raise self.recorder.out_of_time(self.saved, about)
        where = f'at step {max(self.step, 0)} of {end}'
        raise failure('GPUMD', code, verdict.error, ends_of(self.folder / PRINTED), where)

    def _about(self, verdict: Verdict) -> dict[str, Any]:
        """Return what was really done."""
        return {
            'program': 'GPUMD',
            'version': verdict.version,
            'command': shlex.join(self.command),
            'integrator': [ensemble_of(self.plan, piece) for piece in self.plan.pieces],
            'degrees_of_freedom': self.n_degrees,
            'warnings': [UNWATCHED, *([CLOCK] if self.settings.ensemble != 'nve' else [])],
        }
