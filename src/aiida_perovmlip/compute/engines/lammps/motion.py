"""A run of LAMMPS as it goes on: started, followed by what it writes, and ended."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.compute.children import start_child
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import MdRun
from aiida_perovmlip.compute.engines.following import LOOK, end_child, ends_of, failure
from aiida_perovmlip.compute.engines.lammps.box import Turn
from aiida_perovmlip.compute.engines.lammps.inputs import (
    FRAMES,
    INPUT,
    LAST,
    LOG,
    STATES,
    STOP,
    Plan,
    Rhythm,
    types_of,
    write_inputs,
)
from aiida_perovmlip.compute.engines.lammps.outputs import Dump, LogReader, Row, Verdict, judge, read_dump
from aiida_perovmlip.compute.engines.lammps.program import Program
from aiida_perovmlip.compute.engines.starting import degrees_of_freedom, first_velocities

FOLDER = 'lammps'
"""The folder that LAMMPS runs in."""

PRINTED = 'printed.log'
"""What LAMMPS and what starts it print, beside its own log."""

RESTART = 'lammps.restart'
"""The file of a state."""

POLL = 0.1
"""Seconds between two looks at what LAMMPS has written."""

PATIENCE = 60.0
"""Seconds that LAMMPS may take to stop when it is asked to."""


class Motion:
    """One job of a run with LAMMPS.

    Rows of thermodynamics are its clock. LAMMPS writes the dump of a step and its restart file before or after its row,
    as the version is; so a row is only taken once there is another one, as all of its step is on the disk then.

    :param style: the pair style that reads the potential.
    """

    def __init__(self, run: MdRun, program: Program, style: str, thermostat: str | None) -> None:
        self.run, self.settings, self.recorder, self.program = run, run.settings, run.recorder, program
        self.style, self.thermostat = style, thermostat
        self.folder = run.folder / FOLDER
        self.state = state = self.recorder.state()
        self.turn = Turn.of(run.frame.cell) if state is None else Turn(state.arrays['turn'])
        self.first = 0 if state is None else state.step
        self.step = -1 if state is None else state.step
        self.conserved = math.nan if state is None else float(state.about['conserved'])
        self.offset = 0.0
        self.left_out = 0.0
        self.saved: int | None = None
        self.n_degrees = degrees_of_freedom(self.settings, run.frame, keeps_momentum=thermostat != 'langevin')
        self.rhythm = Rhythm.of(self.settings, len(run.frame))
        self.reader = LogReader(self.folder / LOG, self.turn)
        self.waiting: deque[Row] = deque()

    def go(self) -> dict[str, Any]:
        """Run LAMMPS to the end of the schedule; return what it says that it did."""
        if self.first >= self.settings.n_steps:
            return {}
        self._prepare()
        code = self._follow()
        log = self._log()
        verdict = judge(log)
        about = self._about(verdict, log)
        self._settle(code, verdict, about)
        return about

    # ------------------------------------------------------------------ before

    def _prepare(self) -> None:
        """Write the input of LAMMPS."""
        run = self.run
        self.folder.mkdir(exist_ok=True)
        if self.state is not None:
            shutil.copyfile(self.state.file(RESTART), self.folder / RESTART)
        form = run.architecture.lammps(
            self.style, run.potential, types_of(run.frame), self.folder, run.device, run.head
        )
        self.left_out = self.offset = form.offset_of(run.frame)
        plan = Plan(
            settings=self.settings,
            frame=run.frame,
            turn=self.turn,
            rhythm=self.rhythm,
            style=form.lines,
            thermostat=self.thermostat,
            n_degrees=self.n_degrees,
            frozen=self.settings.frozen_indices(run.frame),
            seed=run.seed,
            first=self.first,
            restart=None if self.state is None else RESTART,
        )
        write_inputs(plan, self.folder, first_velocities(self.settings, run.frame, run.seed, self.n_degrees))

    # ------------------------------------------------------------------ meanwhile

    def _follow(self) -> int:
        """Start LAMMPS and follow it to its end; return its exit status."""
        command = [*self.program.command, '-in', INPUT, '-log', LOG, '-screen', 'none', '-nocite']
        threads = {'OMP_NUM_THREADS': str(self.run.cores), 'OMP_WAIT_POLICY': 'PASSIVE'}
        environment = {**threads, **self.program.environment}
        asked: float | None = None
        with (self.folder / PRINTED).open('w') as log:
            process = start_child(command, self.folder, log, environment)
            try:
                has_more = False
                while process.poll() is None:
                    if not has_more:
                        time.sleep(POLL)
                    has_more = self._look()
                    if asked is None and self.run.seconds_left() <= 0:
                        (self.folder / STOP).touch()
                        asked = time.monotonic()
                    if asked is not None and time.monotonic() - asked > PATIENCE:
                        break
            finally:
                end_child(process)
        is_finished = judge(self._log()).is_finished
        while self._look(is_finished):
            pass
        return process.returncode

    def _look(self, is_over: bool = False) -> bool:
        """Take what LAMMPS has written since the last look; whether more waits.

        The last row waits for another one where there may come more of it.
        """
        self.waiting.extend(self.reader.rows())
        end = time.monotonic() + LOOK
        while len(self.waiting) > (0 if is_over else 1):
            if time.monotonic() > end:
                return True
            row = self.waiting.popleft()
            if row.step > self.step:
                self._take(row)
            elif row.step == self.step:  # another stage or job begins here: its fixes count energy from zero
                self.offset = self.conserved - row.conserved
        return False

    def _take(self, row: Row) -> None:
        """Give the recorder what it wants of a step."""
        recorder = self.recorder
        self._refuse_nonsense(row)
        energy, self.step = row.potential + self.left_out, row.step
        self.conserved = row.conserved + self.offset
        dump = self._dump(row.step)
        if dump is not None:
            recorder.watch(
                row.step,
                dump.positions,
                dump.cell,
                energy=energy,
                forces=dump.forces,
                temperature=row.temperature,
            )
        elif row.temperature > self.settings.limit_of_temperature:
            limit = self.settings.limit_of_temperature
            self._explode(f'the temperature was {row.temperature:.4g} K, above `max_temperature` of {limit:g} K')
        if recorder.wants_thermo(row.step):
            recorder.thermo(
                row.step,
                temperature=row.temperature,
                potential_energy=energy,
                kinetic_energy=row.kinetic,
                conserved=self.conserved,
                stress=row.stress,
                volume=row.volume,
            )
        if dump is not None and recorder.wants_frame(row.step):
            recorder.frame(row.step, dump.positions, dump.cell, dump.velocities)
        if row.step % self.rhythm.states == 0 and row.step > self.first:
            self._save_if_due(row.step)

    def _refuse_nonsense(self, row: Row) -> None:
        """End the run where LAMMPS says what is no number."""
        numbers = [row.temperature, row.potential, row.kinetic, row.conserved, row.volume, *row.stress]
        if not np.isfinite(numbers).all():
            self.step = row.step
            self._explode('LAMMPS says of it what is no number')

    def _dump(self, step: int) -> Dump | None:
        """Return all atoms at a step; None where LAMMPS does not dump them then."""
        if step % self.rhythm.frames:
            return None
        path = self.folder / FRAMES / f'{step}.txt'
        dump = read_dump(path, self.turn)
        path.unlink()
        return dump

    def _save_if_due(self, step: int) -> None:
        """Save the state of a step from its restart file, which is not needed any more then."""
        path = self.folder / STATES / str(step)
        if self.recorder.is_due(step):
            self._save(path)
        path.unlink(missing_ok=True)

    def _save(self, path: Path) -> None:
        """Save the state of the present step."""
        if not path.is_file():
            raise JobError(Status.FAILED, f'LAMMPS left no restart file {path.name} at step {self.step}.')
        about = {'conserved': self.conserved}
        self.recorder.save(self.step, {'turn': self.turn.matrix}, about, {RESTART: path})
        self.saved = self.step

    def _explode(self, reason: str) -> None:
        """End the run: the atoms have flown apart."""
        self.recorder.explode(max(self.step, 0), reason)

    # ------------------------------------------------------------------ after

    def _log(self) -> str:
        """Return what LAMMPS and what started it have said, without the middle of it."""
        return '\n'.join(ends_of(self.folder / name) for name in (PRINTED, LOG))

    def _settle(self, code: int, verdict: Verdict, about: dict[str, Any]) -> None:
        """Save the state in which LAMMPS has ended; raise where that is not the end of the schedule."""
        is_stopped = (self.folder / STOP).exists() or self.run.seconds_left() <= 0
        if verdict.error and verdict.has_exploded:
            self._explode(f'LAMMPS ended with `{verdict.error}`')
        if verdict.is_finished and not verdict.error:
            self._save(self.folder / LAST)
            if self.step == self.settings.n_steps:
                return
        if is_stopped and not verdict.error:
            raise self.recorder.out_of_time(self.first if self.saved is None else self.saved, about)
        where = f'at step {max(self.step, 0)} of {self.settings.n_steps}'
        raise failure('LAMMPS', code, verdict.error, ends_of(self.folder / PRINTED), where)

    def _about(self, verdict: Verdict, log: str) -> dict[str, Any]:
        """Return what was really done, as the log shows it."""
        fixes = re.findall(r'^fix (?:motion|heat) .*$', log, flags=re.MULTILINE)
        return {
            'program': 'LAMMPS',
            **verdict.about,
            'command': shlex.join(self.program.command),
            'pair_style': self.style,
            'integrator': list(dict.fromkeys(fixes)),
            'degrees_of_freedom': self.n_degrees,
            'warnings': verdict.warnings,
        }
