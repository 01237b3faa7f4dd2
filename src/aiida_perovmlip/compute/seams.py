"""The seams between parts of one run: what both sides have counts once, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import numpy as np

from aiida_perovmlip.compute.chunk import ChunkEntry, Steps, TrajectoryError
from aiida_perovmlip.compute.trajectory import Trajectory

SAME_PLACE = 0.01
"""In Å: two frames of one step are one where no atom is farther apart; a restart by text rounds positions."""


def join(parts: Sequence[Trajectory]) -> list[ChunkEntry]:
    """Return the chunks of parts that follow each other in one run, in order.

    A frame or row that both sides of a seam have counts once, in the earlier part. Raises TrajectoryError where the
    parts are no one run: other atoms, another timestep, steps that go back, or a gap.
    """
    _refuse_another_run(parts)
    _refuse_gaps([part.span for part in parts], 'frames')
    _refuse_gaps([part.thermo_span for part in parts], 'thermodynamic rows')
    entries: list[ChunkEntry] = []
    with_frames: Trajectory | None = None
    with_thermo: Trajectory | None = None
    for part in parts:
        own = part
        if with_frames is not None and part.span.count and with_frames.span.last == part.span.first:
            _refuse_other_frame(with_frames, part)
            own = _without_first(own, 'frames')
        if (
            with_thermo is not None
            and part.thermo_span.count
            and with_thermo.thermo_span.last == part.thermo_span.first
        ):
            own = _without_first(own, 'thermo')
        entries += own.entries
        with_frames = part if part.span.count else with_frames
        with_thermo = part if part.thermo_span.count else with_thermo
    return entries


def _refuse_another_run(parts: Sequence[Trajectory]) -> None:
    """Refuse parts that cannot be of one run."""
    first = parts[0]
    for later in parts[1:]:
        difference = first.atoms.difference(later.atoms)
        if difference is not None:
            raise TrajectoryError(f'the parts are of other atoms: their {difference} differ.')
        if first.timestep != later.timestep:
            raise TrajectoryError(f'the timesteps of the parts differ: {first.timestep} fs and {later.timestep} fs.')
    for axis, what in (('frames', 'frames'), ('thermo', 'thermodynamic rows')):
        columns = [{name for name in part.columns if _axis_of(name) == axis} for part in parts]
        present = [names for names in columns if names]
        for one, other in pairwise(present):
            if one != other:
                differing = ', '.join(f'`{name.removeprefix("thermo_")}`' for name in sorted(one ^ other))
                raise TrajectoryError(f'the {what} of the parts differ in {differing}: all parts or none can have it.')


def _axis_of(name: str) -> str:
    """Return what the rows of a column are: `frames` or `thermo`."""
    return 'thermo' if name.startswith('thermo_') else 'frames'


def _refuse_gaps(spans: Sequence[Steps], what: str) -> None:
    """Refuse parts whose steps go back, or leave out more than there is between any two rows of one part."""
    present = [span for span in spans if span.count]
    longest = max((span.longest for span in present), default=0)
    for earlier, later in pairwise(present):
        if later.first < earlier.last:
            raise TrajectoryError(
                f'the {what} overlap: one part ends at step {earlier.last}, the next one starts at step '
                f'{later.first}. Join the parts of one run, each from the state in which the one before ended.'
            )
        if longest and later.first - earlier.last > longest:
            raise TrajectoryError(
                f'there is a gap in the {what}: one part ends at step {earlier.last}, the next one starts at step '
                f'{later.first}, and rows are at most {longest} steps apart. A part is missing.'
            )


def _refuse_other_frame(earlier: Trajectory, later: Trajectory) -> None:
    """Refuse parts whose frames of one step are of different runs."""
    one, other = earlier.frame(-1), later.frame(0)
    apart = max(float(np.abs(one.positions - other.positions).max()), float(np.abs(one.cell - other.cell).max()))
    if apart > SAME_PLACE:
        raise TrajectoryError(
            f'the parts are of different runs: their frames of step {later.span.first} differ by up to {apart:.3g} Å.'
        )


def _without_first(part: Trajectory, axis: Literal['frames', 'thermo']) -> Trajectory:
    """Return a part without its first frame or thermodynamic row; no file is written for it."""
    number = next(number for number, entry in enumerate(part.entries) if getattr(entry, axis).count)
    entry, chunk = part.entries[number], part.chunk(number)
    frames, thermo = (1, 0) if axis == 'frames' else (0, 1)
    rest = chunk.drop(frames, thermo)
    shorter = replace(
        entry,
        digest=rest.digest,
        frames=Steps.of(rest.steps),
        thermo=Steps.of(rest.columns['thermo_steps']),
        skipped_frames=entry.skipped_frames + frames,
        skipped_thermo=entry.skipped_thermo + thermo,
    )
    kept = [shorter] if shorter.frames.count or shorter.thermo.count else []
    return part.of_chunks([*part.entries[:number], *kept, *part.entries[number + 1 :]])
