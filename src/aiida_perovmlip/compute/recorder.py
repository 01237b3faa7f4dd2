"""The recorder of a run: it keeps what an engine gives, so that a kill at any moment costs no frame."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.chunk import Chunk, TrajectoryError
from aiida_perovmlip.compute.chunk_writer import ChunkWriter
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.md import MdSettings
from aiida_perovmlip.compute.moving_atoms import MovingAtoms
from aiida_perovmlip.compute.npz import read_arrays, write_arrays
from aiida_perovmlip.compute.rows import Rows
from aiida_perovmlip.compute.shard import build_shards, join

ARRAYS = 'state.npz'
"""The file of a state with the arrays of the engine."""

ABOUT = 'about.json'
"""The file of a state, as it goes from job to job, with its step, its run and what the engine remembers."""

OPEN = 'open.npz'
"""The file of a state with the frames since the last chunk that is closed."""

ROWS = 'rows.npz'
"""The file of a state with all rows of thermodynamics of the job, where its frames will stay on the computer."""

CANDIDATES = 'candidates.npz'
"""The frames before an explosion, in one shard."""

SAVE_EVERY = 60.0
"""Seconds between two states, where the settings name no steps."""

SHOW_EVERY = 5.0
"""Seconds between two lines of progress."""

SPACING = 20.0
"""Time in fs between two frames that may become candidates: nearer ones are alike."""


class Exploded(JobError):  # noqa: N818 - what it is, not what went wrong in the program
    """A run in which the potential has lost the atoms."""

    def __init__(self, message: str, results: Mapping[str, Any] | None = None) -> None:
        super().__init__(Status.EXPLODED, message, results)


@dataclass(frozen=True)
class MdState:
    """All that an engine needs to go on as if it had never stopped.

    :param step: the steps that were done, since the start of the whole run.
    :param arrays: the arrays that the engine saved.
    :param about: what else it wants to remember, as plain JSON.
    :param folder: where its further files lie.
    :param spread: the spread of the committee as it was last found, in eV/Å.
    """

    step: int
    arrays: dict[str, Array]
    about: dict[str, Any]
    folder: Path
    spread: float | None = None

    def file(self, name: str) -> Path:
        """Return where a file of this state lies."""
        return self.folder / name


def read_state(folder: Path, identity: str) -> MdState:
    """Read a state that an earlier job has left; refuse that of another run."""
    try:
        content = json.loads((folder / ABOUT).read_text())
        with (folder / ARRAYS).open('rb') as handle:
            arrays = read_arrays(handle)
        found = MdState(int(content['step']), arrays, dict(content['engine']), folder, content['spread'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(Status.BAD_INPUT, f'The state cannot be read: {error}') from error
    if content['identity'] != identity:
        raise JobError(
            Status.BAD_INPUT,
            'The state is of another run: its atoms, potential, engine, ensemble, time step or schedule differ from '
            'what is asked for now. Start a new run without `state`.',
        )
    return found


@dataclass(frozen=True)
class Snapshot:
    """A frame that may become a candidate: positions (n_atoms, 3) and cell (3, 3) in Å, and what was said of it."""

    step: int
    positions: Array
    cell: Array
    told: dict[str, float] = field(default_factory=dict)


class Recorder:
    """Takes frames and rows of thermodynamics from an engine, saves states, and watches for explosions.

    `step` is that which was looked at last, `saved_step` that of the newest state.

    :param frame: the structure that the run starts from.
    :param checkpoint: where states are saved, and where that of an earlier run in the same folder is found.
    :param folder: the folder of the job, in which the trajectory is left.
    :param begun: the state of an earlier job, from which this one goes on where its own folder holds none.
    :param keeps_rows: whether states hold all rows of thermodynamics too.
    :param report: makes a state of progress visible from outside.
    """

    def __init__(
        self,
        settings: MdSettings,
        frame: Frame,
        checkpoint: Checkpoint,
        folder: Path,
        *,
        begun: MdState | None = None,
        keeps_rows: bool = False,
        report: Callable[..., None] = lambda **state: None,
    ) -> None:
        self.settings, self.start, self.checkpoint, self.folder, self.report = (
            settings,
            frame,
            checkpoint,
            folder,
            report,
        )
        self._own = checkpoint.state()
        self._begun = begun
        self._writer = self._open_writer()
        self._rows = self._open_rows() if keeps_rows else None
        self._saved = self._shown = time.monotonic()
        self._spacing = max(1, round(SPACING / settings.timestep))
        self._snapshots: deque[Snapshot] = deque(maxlen=settings.n_candidates)
        self._limits = {'temperature': settings.limit_of_temperature, 'force': settings.max_force}
        self.step, self._spread = self._begin()
        self.saved_step = self.step
        self._first: tuple[int, float] | None = None

    def _open_writer(self) -> ChunkWriter:
        """Return what writes the trajectory, behind the frames that the state in this folder knows of."""
        atoms = MovingAtoms.of(self.start, self.settings.masses_of(self.start))
        if self._own is None:
            return ChunkWriter(self.folder, atoms)
        with self._own.file(OPEN).open('rb') as handle:
            rest = Chunk.read(handle)
        try:
            return ChunkWriter(self.folder, atoms, closed=self._own.about['n_closed'], rest=rest)
        except TrajectoryError as error:
            raise JobError(Status.FAILED, f'The run in this folder cannot be gone on with: {error}') from error

    def _open_rows(self) -> Rows:
        """Return what collects the rows of this job, behind those that the state in this folder has."""
        if self._own is None:
            return Rows(len(self.start))
        with self._own.file(ROWS).open('rb') as handle:
            return Rows(len(self.start), Chunk.read(handle))

    def _begin(self) -> tuple[int, float | None]:
        """Return the step that has been reached before, and the spread of the committee there."""
        if self._own is not None:
            return self._own.step, self._own.about['spread']
        return (0, None) if self._begun is None else (self._begun.step, self._begun.spread)

    # ------------------------------------------------------------------ what an engine asks for

    def state(self) -> MdState | None:
        """Return the state to go on from; None where the run begins. An exploded run is not gone on with."""
        if self._own is None:
            return self._begun
        if 'exploded' in self._own.about:
            raise Exploded(self._own.about['exploded'], self._own.about['results'])
        with self._own.file(ARRAYS).open('rb') as handle:
            arrays = read_arrays(handle)
        return MdState(self._own.step, arrays, self._own.about['engine'], self._own.folder)

    def wants_frame(self, step: int) -> bool:
        """Whether a frame of this step is due."""
        return step % self.settings.frames_every == 0

    def wants_thermo(self, step: int) -> bool:
        """Whether a row of thermodynamics of this step is due."""
        return step % self.settings.thermo_every == 0

    def frame(self, step: int, positions: Array, cell: Array, velocities: Array | None = None) -> None:
        """Keep a frame: positions (n_atoms, 3) in Å, unwrapped, cell (3, 3) in Å, velocities (n_atoms, 3) in Å/ps."""
        self._writer.frame(step, positions, cell, velocities if self.settings.velocities else None)

    def thermo(self, step: int, **values: Any) -> None:
        """Keep a row of thermodynamics, with what the schedule asks for at this step.

        Names and units are those of `trajectory.THERMO`; a row has those of the rows before it.
        """
        temperature, pressure = self.settings.target_at(step)
        targets: dict[str, float] = {}
        if self.settings.ensemble != 'nve':
            targets['target_temperature'] = temperature
        if self.settings.ensemble == 'npt':
            targets['target_pressure'] = pressure
        spread = {} if self._spread is None else {'spread': self._spread}
        row = {**targets, **spread, **values}
        self._writer.thermo(step, **row)
        if self._rows is not None:
            self._rows.add(step, row)

    def watch(
        self,
        step: int,
        positions: Array,
        cell: Array,
        *,
        energy: float | None = None,
        forces: Array | None = None,
        temperature: float | None = None,
    ) -> None:
        """Look at a step, the oftener the better; end the run where it has exploded, before anything of it is kept.

        :param positions: (n_atoms, 3) Å.
        :param cell: (3, 3) Å.
        :param energy: potential energy in eV.
        :param forces: (n_atoms, 3) eV/Å.
        :param temperature: K.
        """
        self.step = step
        if self._first is None:  # what comes before it is opening and warming up
            self._first = step, time.monotonic()
        told = {} if energy is None else {'energy': energy}
        if forces is not None:
            told['force'] = float(np.sqrt(np.einsum('ij,ij->i', forces, forces).max()))
        if temperature is not None:
            told['temperature'] = temperature
        reason = self._reason(told)
        if reason is not None:
            self.explode(step, reason)
        last = self._snapshots[-1].step if self._snapshots else None
        if last is None or step - last >= self._spacing:
            self._snapshots.append(Snapshot(step, positions.copy(), np.array(cell, dtype=float), told))
        if time.monotonic() - self._shown > SHOW_EVERY:
            self._show(told)

    def spread(self, step: int, forces: Array, positions: Array, cell: Array) -> None:
        """Look at the forces of a committee on one frame; end the run where its members are too far apart.

        :param forces: (n_members, n_atoms, 3) eV/Å, of at least two members.
        """
        spread, limit = spread_of(forces), self.settings.max_spread
        if not np.isfinite(spread):
            self.explode(step, 'a force on an atom of the potential or its committee was no number')
        self._spread = spread
        if limit is not None and spread > limit:
            if self._snapshots and self._snapshots[-1].step == step:
                self._snapshots.pop()
            self._snapshots.append(Snapshot(step, positions.copy(), np.array(cell), {'spread': spread}))
            self.explode(
                step,
                f'the spread of the force on an atom over the committee was {spread:.3g} eV/Å, above `max_spread` of '
                f'{limit:g} eV/Å',
            )

    @property
    def knows_spread(self) -> bool:
        """Whether the spread of a committee is known, from this job or from the state that it went on from."""
        return self._spread is not None

    def forget_spread(self) -> None:
        """Take it that there is no committee: what an earlier one said is not true of later steps."""
        self._spread = None

    def is_due(self, step: int) -> bool:
        """Whether the state is to be saved at this step."""
        if self.settings.save_every is not None:
            return step % self.settings.save_every == 0
        return time.monotonic() - self._saved > SAVE_EVERY

    def save(
        self,
        step: int,
        arrays: Mapping[str, Array],
        about: Mapping[str, Any] | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        """Save the state of a step, from which the run can go on exactly, with all frames up to it.

        :param about: what else the engine wants to remember, as plain JSON; integers of any size stay exact.
        :param files: further files of the engine by their names in the state.
        """
        path = self.folder / ARRAYS
        with path.open('wb') as handle:
            write_arrays(handle, arrays)
        self._save(step, {'engine': dict(about or {})}, {ARRAYS: path, **(files or {})})
        path.unlink()

    def out_of_time(self, step: int, effective: Mapping[str, Any] | None = None) -> JobError:
        """Return what to raise where there is no time left; the state of this step has been saved.

        :param effective: what the engine says that it did.
        """
        left = self.settings.n_steps - step
        return JobError(
            Status.OUT_OF_WALLTIME,
            f'{left} of {self.settings.n_steps} steps were left. Go on from the output `state` as input `state`.',
            {} if effective is None else {'effective': dict(effective)},
        )

    def steps_per_second(self) -> float | None:
        """Return how fast the run went on from the first step that was looked at; None where there was no other."""
        if self._first is None or self.step <= self._first[0]:
            return None
        step, began = self._first
        return (self.step - step) / max(time.monotonic() - began, 1e-9)

    # ------------------------------------------------------------------ what these are made of

    def close(self) -> None:
        """Close the last chunk of the trajectory, once the run has ended, so that the folder holds all of it."""
        self._writer.close()

    def _save(self, step: int, about: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        """Save a state with the frames since the last closed chunk."""
        chunks = {OPEN: self._writer.open_chunk()}
        if self._rows is not None:
            chunks[ROWS] = self._rows.chunk()
        paths = {name: self.folder / name for name in chunks}
        for name, chunk in chunks.items():
            with paths[name].open('wb') as handle:
                chunk.write(handle)
        known = {'n_closed': self._writer.n_closed, 'spread': self._spread}
        self.checkpoint.save(step, {**paths, **files}, [], {**known, **about})
        for path in paths.values():
            path.unlink()
        self.step, self.saved_step, self._saved = step, step, time.monotonic()

    def _reason(self, told: Mapping[str, float]) -> str | None:
        """Return why a step is one of an explosion; None where it is not."""
        words = {'temperature': ('the temperature was', 'K', 'max_temperature'),
                 'force': ('the largest force on an atom was', 'eV/Å', 'max_force')}  # fmt: skip
        if 'energy' in told and not np.isfinite(told['energy']):
            return f'the potential energy was {told["energy"]} eV'
        for name, (text, unit, setting) in words.items():
            if name in told and not told[name] <= self._limits[name]:
                return f'{text} {told[name]:.4g} {unit}, above `{setting}` of {self._limits[name]:g} {unit}'
        return None

    def explode(self, step: int, reason: str) -> None:
        """Keep the frames before the explosion, and raise."""
        where = f'at step {step} of {self.settings.n_steps}'
        kept = [snapshot for snapshot in self._snapshots if np.isfinite(snapshot.positions).all()]
        results = {'exploded_at_step': step, 'candidates': [{'step': each.step, **each.told} for each in kept]}
        advice = (
            f'The last {len(kept)} frames before it are in the output `candidates`: label them and train on. '
            if kept
            else 'There was no frame before it: relax the start. '
        )
        message = f'The run exploded {where}: {reason}. {advice}Where this is no explosion, raise the limit.'
        if kept:
            write_candidates(self.folder / CANDIDATES, self.start, kept)
        self._save(step, {'exploded': message, 'results': results}, {})
        raise Exploded(message, results)

    def _show(self, told: Mapping[str, float]) -> None:
        """Make visible how far the run has come."""
        self._shown = time.monotonic()
        self.report(what='dynamics', step=self.step, of=self.settings.n_steps, **told)


def write_candidates(path: Path, start: Frame, kept: list[Snapshot]) -> None:
    """Write frames without labels into one shard: what the potential says of them is not to be trusted."""
    fields = {'charge': start.charge, 'spin': start.spin, 'group': start.group, 'trajectory': start.trajectory}
    frames = [
        Frame(start.numbers, each.positions, each.cell, start.pbc, **fields)  # type: ignore[arg-type]
        for each in kept
    ]
    partial = path.with_name(f'{path.name}.partial')
    with partial.open('wb') as handle:
        join(list(build_shards(frames))).write(handle)
    partial.replace(path)


def spread_of(forces: Array) -> float:
    """Return the largest spread of the force on an atom over members, eV/Å.

    It is the root mean square over x, y, z of the standard deviation over the members, with n - 1 in the denominator.

    :param forces: (n_members, n_atoms, 3) eV/Å.
    """
    variance = forces.var(axis=0, ddof=1).mean(axis=1)
    return float(np.sqrt(variance.max()))
