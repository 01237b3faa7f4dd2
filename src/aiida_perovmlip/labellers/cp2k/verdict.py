"""What became of each frame of a batch: a label, frames along a trajectory, or a failure with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.shard import LARGEST_FORCE
from aiida_perovmlip.labellers.base import NOT_REACHED, Outcome
from aiida_perovmlip.labellers.cp2k.effective import mismatches
from aiida_perovmlip.labellers.cp2k.inputs import Cycle, repaired, sections_of, shift_of
from aiida_perovmlip.labellers.cp2k.output import Cp2kOutput, Ending, Snapshot
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings
from aiida_perovmlip.labellers.cp2k.trajectory import Step, is_of, matched

LARGEST_ENTROPY = 1e-3
"""In eV per cell: with more of it, a label made with smearing is not at the level that was asked for. A few states at
a defect have the same entropy in a cell of any size."""

LARGEST_CONTAMINATION = (0.1, 0.1)
"""How much the ⟨S²⟩ found may exceed the ideal one: by so much and by so large a share of it."""

SAME_POSITION = 1e-6
"""In Å: between what was written for CP2K and what it wrote back."""

CRASH = ('SIGSEGV', 'SIGBUS', 'SIGFPE', 'SIGILL', 'egmentation fault')
MEMORY = ('ut of memory', 'bad_alloc', 'annot allocate', 'oom-kill')
ENVIRONMENT = (
    'not found',
    'No such file',
    'shared libraries',
    'ermission denied',
    'format error',
    'cannot be opened',
)
"""Words in what CP2K or the operating system said at the end, and what kind of failure it is."""

DISK = ('No space left', 'isk quota', 'nput/output error', 'tale file handle')
"""What the operating system says of a disk; no fault of a frame."""


@dataclass(frozen=True)
class Batch:
    """What one job was asked to do.

    :param digests: of the frames without their labels, as hexadecimal text: names of their trajectories.
    """

    settings: Cp2kSettings
    frames: Sequence[Frame]
    digests: Sequence[str]
    repair: str | None = None

    @property
    def moves(self) -> bool:
        """Whether the atoms move."""
        return self.settings.run != 'energy'

    @property
    def is_replayed(self) -> bool:
        """Whether the frames went through CP2K one after the other as a trajectory."""
        return not self.moves and len(self.frames) > 1


@dataclass
class Files:
    """What CP2K wrote beside its text; empty where it wrote nothing.

    :param steps: positions in Å of each step.
    :param cells: step and cell in Å, shape (3, 3).
    """

    steps: Iterable[Step] = ()
    cells: Iterable[tuple[int, Array]] = ()


@dataclass
class Verdict:
    """What became of a batch."""

    outcomes: list[Outcome]
    ending: Ending
    about: dict[str, Any] = field(default_factory=dict)


def judge(batch: Batch, output: Cp2kOutput, files: Files) -> Verdict:
    """Read everything and decide on each frame."""
    snapshots = output.snapshots()
    first = next(snapshots, None)
    if first is None:
        return Verdict(_nothing_ran(batch, output.ending), output.ending)
    everything = _chain(first, snapshots)
    sections = sections_of(batch.settings, batch.frames, batch.repair)
    wrong = mismatches(output.header, sections, batch.settings, batch.frames[0])
    outcomes = [_moved(batch, output, everything, files)] if batch.moves else _still(batch, output, everything, files)
    if wrong:
        reason = f'CP2K did not do what it was asked: {"; ".join(wrong)}.'
        outcomes = [_misled(outcome, reason) for outcome in outcomes]
    return Verdict(outcomes, output.ending, _about(batch, output, outcomes))


def _misled(outcome: Outcome, reason: str) -> Outcome:
    """Return the outcome of a frame in a run that ran at other settings than asked."""
    if outcome.kind == 'inconsistent':
        return replace(outcome, reason=f'{reason} {outcome.reason}')
    return Outcome(kind='inconsistent', reason=reason) if outcome.frames else outcome


def _chain(first: Snapshot, rest: Iterator[Snapshot]) -> Iterator[Snapshot]:
    yield first
    yield from rest


def _about(batch: Batch, output: Cp2kOutput, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return what the results say of the run as a whole."""
    header, ending = output.header, output.ending
    about: dict[str, Any] = {'version': header.version, 'repair': batch.repair or ''}
    if ending.seconds is not None:
        about['seconds_of_labels'] = ending.seconds * header.processes * header.threads
    if batch.settings.run == 'relax':
        about['relaxed'] = bool(outcomes[0].facts.get('relaxed'))
    return about


# ---------------------------------------------------------------------- frames that stay as they are


def _still(batch: Batch, output: Cp2kOutput, snapshots: Iterator[Snapshot], files: Files) -> list[Outcome]:
    """Return the outcome of each frame; the ones behind the end of the run were not reached."""
    steps = iter(files.steps)
    cells = iter(files.cells)
    outcomes: list[Outcome] = []
    for frame, snapshot in zip(batch.frames, snapshots, strict=False):
        step = next(steps, None) if batch.is_replayed else None
        cell = next(cells, (0, None))[1] if batch.is_replayed else None
        problem = _replayed_wrongly(frame, snapshot, step, cell) if batch.is_replayed else None
        outcomes.append(outcome_of(batch, frame, snapshot, problem))
    surplus = next(snapshots, None)  # reads the text to its end, too
    if surplus is not None:
        reason = f'CP2K computed more than the {len(batch.frames)} frames it was given.'
        return [Outcome(kind='inconsistent', reason=reason)] * len(batch.frames)
    return _with_ending(batch, outcomes, output.ending)


def _replayed_wrongly(frame: Frame, snapshot: Snapshot, step: Step | None, cell: Array | None) -> str | None:
    """Return a sentence where the trajectory that CP2K wrote back is not the one it was given."""
    if snapshot.energy is None or snapshot.out_of_time or snapshot.converged is False:
        return None
    if step is None or cell is None:
        return 'CP2K wrote no positions or no cell for it, so that nobody knows what was computed.'
    if list(step.symbols) != frame.symbols:
        return 'CP2K computed other elements.'
    if np.abs(step.rows - frame.positions - shift_of(frame)).max() > SAME_POSITION:
        return 'CP2K computed other positions.'
    if np.abs(cell - frame.cell).max() > SAME_POSITION:
        return 'CP2K computed another cell.'
    if not is_of(step, snapshot):
        return 'the energy of the trajectory file is not that of the text.'
    return None


def outcome_of(batch: Batch, frame: Frame, snapshot: Snapshot, problem: str | None) -> Outcome:
    """Return the outcome of one SCF cycle for one frame."""
    if snapshot.out_of_time:
        return NOT_REACHED
    if snapshot.converged is False:
        return Outcome(kind='not_converged', reason=_unconverged(batch, snapshot))
    if not _is_complete(frame, snapshot):
        return NOT_REACHED  # the text ends here; why, the ending tells
    if problem is not None:
        return Outcome(kind='inconsistent', reason=problem)
    return _unusable(batch, frame, snapshot) or Outcome(frames=(_labelled(frame, snapshot),), facts=_facts(snapshot))


def _is_complete(frame: Frame, snapshot: Snapshot) -> bool:
    """Whether everything that makes a label was printed."""
    has_stress = snapshot.stress is not None or not frame.has_volume
    return bool(snapshot.converged and snapshot.energy is not None and snapshot.forces is not None and has_stress)


def _unconverged(batch: Batch, snapshot: Snapshot) -> str:
    cycle = repaired(Cycle.of(batch.settings, batch.frames[0]), batch.repair)
    how = 'orbital transformation' if cycle.ot else 'diagonalisation'
    return (
        f'the SCF cycle with {how} did not converge to {batch.settings.eps_scf:g}; '
        f'{snapshot.cycles} steps of its last try were not enough.'
    )


def _unusable(batch: Batch, frame: Frame, snapshot: Snapshot) -> Outcome | None:
    """Return the failure where a complete and converged result is no label."""
    forces, stress = np.asarray(snapshot.forces), snapshot.stress
    if len(forces) != len(frame):
        reason = f'CP2K printed forces of {len(forces)} atoms for a frame of {len(frame)}.'
        return Outcome(kind='inconsistent', reason=reason)
    if snapshot.elements and list(snapshot.elements) != frame.symbols:
        return Outcome(kind='inconsistent', reason='CP2K printed forces of other elements.')
    numbers = np.concatenate([[snapshot.energy], forces.ravel(), np.zeros(0) if stress is None else stress])
    if not np.isfinite(numbers).all() or np.abs(forces).max() > LARGEST_FORCE:
        return Outcome(kind='failed', reason='CP2K printed numbers that are not finite or too large to be physics.')
    return _smeared(batch, snapshot) or _contaminated(snapshot)


def _smeared(batch: Batch, snapshot: Snapshot) -> Outcome | None:
    """Return the failure where smearing that the level does not have changed the energy, or may have."""
    if not repaired(Cycle.of(batch.settings, batch.frames[0]), batch.repair).smearing:
        return None
    if snapshot.entropy is None:
        return Outcome(kind='inconsistent', reason='CP2K printed no electronic entropy, although there was smearing.')
    entropy = abs(snapshot.entropy)
    if batch.settings.electronic_temperature == 0 and not entropy <= LARGEST_ENTROPY:
        reason = (
            f'it converged only with smearing that matters: {1000 * entropy:.3g} meV of electronic entropy in the '
            f'cell, more than {1000 * LARGEST_ENTROPY:g} meV. It has no gap at this level.'
        )
        return Outcome(kind='not_converged', reason=reason)
    return None


def _contaminated(snapshot: Snapshot) -> Outcome | None:
    """Return the failure where the state is not the one of the multiplicity that was asked for."""
    if snapshot.spin_square is None:
        return None
    ideal, found = snapshot.spin_square
    absolute, share = LARGEST_CONTAMINATION
    if found - ideal <= absolute + share * ideal:
        return None
    reason = f'the state that was found mixes spins: its ⟨S²⟩ is {found:.3f} where {ideal:.3f} was asked for.'
    return Outcome(kind='not_converged', reason=reason)


def _labelled(frame: Frame, snapshot: Snapshot, **fields: Any) -> Frame:
    stress = snapshot.stress if frame.has_volume else None
    return replace(frame, energy=snapshot.energy, forces=snapshot.forces, stress=stress, **fields)


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    """Return what is kept with the results beside the label."""
    facts: dict[str, Any] = {}
    if snapshot.channels:
        facts['band_edges'] = [channel.edges() for channel in snapshot.channels]
    if snapshot.spin_square:
        facts['spin_square'] = {'ideal': snapshot.spin_square[0], 'found': snapshot.spin_square[1]}
    return facts


# ---------------------------------------------------------------------- atoms that move


def _moved(batch: Batch, output: Cp2kOutput, snapshots: Iterator[Snapshot], files: Files) -> Outcome:
    """Return the labelled frames along a relaxation or a simulation, each of which converged by itself."""
    start = batch.frames[0]
    if not all(np.abs(cell - start.cell).max() < SAME_POSITION for _, cell in files.cells):
        return Outcome(kind='inconsistent', reason='the cell changed, although the atoms alone should move.')
    motion = Motion()
    for index, (step, snapshot) in enumerate(matched(files.steps, snapshots)):
        motion.add(batch, _placed(start, step, is_first=index == 0), snapshot)
    if not motion.done:
        return motion.failures[0] if motion.failures else _with_ending(batch, [], output.ending)[0]
    return Outcome(
        frames=tuple(frame for outcome in motion.done for frame in outcome.frames),
        facts=_facts_of_motion(batch, output.ending, motion),
    )


@dataclass
class Motion:
    """What became of the SCF cycles of a run in which atoms move.

    :param ends_on_label: whether the last cycle that has forces became a label.
    :param n_lost: cycles with forces whose positions are in no file, such as trial steps of an optimiser.
    """

    done: list[Outcome] = field(default_factory=list)
    failures: list[Outcome] = field(default_factory=list)
    ends_on_label: bool = False
    n_lost: int = 0

    def add(self, batch: Batch, frame: Frame | None, snapshot: Snapshot) -> None:
        """Judge one more SCF cycle."""
        outcome = outcome_of(batch, frame or batch.frames[0], snapshot, None)
        is_label = bool(outcome.frames) and frame is not None
        if is_label:
            named = replace(outcome.frames[0], trajectory=batch.digests[0])
            self.done.append(replace(outcome, frames=(named,)))
        elif outcome.kind:
            self.failures.append(outcome)
        self.n_lost += bool(outcome.frames) and not is_label
        if snapshot.forces is not None:
            self.ends_on_label = is_label


def _placed(start: Frame, step: Step | None, is_first: bool) -> Frame | None:
    """Return the frame that an SCF cycle was done at; None where nobody knows."""
    if step is not None and list(step.symbols) == start.symbols:
        return replace(start, positions=step.rows - shift_of(start))
    return start if is_first else None


def _facts_of_motion(batch: Batch, ending: Ending, motion: Motion) -> dict[str, Any]:
    """Return how far it went, and the band edges of each labelled frame."""
    done = motion.done
    facts: dict[str, Any] = {'n_steps': len(done), 'n_not_converged': len(motion.failures), 'n_lost': motion.n_lost}
    facts['complete'] = ending.ended and not ending.out_of_time
    if batch.settings.run == 'relax':
        largest = float(np.abs(np.asarray(done[-1].frames[0].forces)).max())  # component, as CP2K counts it
        relaxed = ending.relaxed and not ending.steps_exhausted and motion.ends_on_label
        facts |= {'relaxed': relaxed, 'largest_force': largest}
    edges = [outcome.facts['band_edges'] for outcome in done if 'band_edges' in outcome.facts]
    return facts | ({'band_edges': edges} if edges else {})


# ---------------------------------------------------------------------- runs that broke off


def _with_ending(batch: Batch, outcomes: list[Outcome], ending: Ending) -> list[Outcome]:
    """Add what the end of the run says of the frame that was computed then; those behind it were not reached."""
    missing = [NOT_REACHED] * (len(batch.frames) - len(outcomes))
    outcomes = [*outcomes, *missing]
    last = len(outcomes) - len(missing) - 1
    if last >= 0 and outcomes[last].kind in _kinds_of_haste(ending):
        outcomes[last] = NOT_REACHED
    failure = failure_of(ending)
    if failure is not None and NOT_REACHED in outcomes:
        outcomes[outcomes.index(NOT_REACHED)] = failure
    elif ending.ended and not ending.out_of_time:
        reason = 'CP2K came to its end without energy, forces and stress of this frame, and without saying why.'
        lacking = Outcome(kind='inconsistent', reason=reason)
        outcomes = [lacking if outcome == NOT_REACHED else outcome for outcome in outcomes]
    return outcomes


def _kinds_of_haste(ending: Ending) -> tuple[str, ...]:
    """Return the failures that the last frame may have only because the run broke off in the middle of it.

    CP2K may leave the cycle for want of time without saying so there, and writes positions and cells at the end.
    """
    if ending.out_of_time:
        return ('not_converged', 'inconsistent')
    return () if ending.ended else ('inconsistent',)


def _nothing_ran(batch: Batch, ending: Ending) -> list[Outcome]:
    """Return the outcomes where not one SCF cycle began: what stopped CP2K stops it for every frame."""
    failure = failure_of(ending)
    return [failure or NOT_REACHED] * len(batch.frames)


def failure_of(ending: Ending) -> Outcome | None:
    """Return what stopped CP2K; None where it was stopped from outside, or ran out of time, or came to its end."""
    said = ending.abort or ' '.join(ending.trouble[:2])
    if ending.out_of_time or not said:
        return None
    reason = f'CP2K stopped: {said[:400]}'
    system = ' '.join([said, *ending.trouble])
    if any(word in system for word in DISK):  # whatever CP2K made of it
        return Outcome(kind='environment', reason=f'CP2K stopped: {system[:400]}')
    for kind, words in (('crashed', CRASH), ('memory', MEMORY), ('environment', ENVIRONMENT)):
        if any(word in said for word in words):
            return Outcome(kind=kind, reason=reason)
    return Outcome(kind='failed', reason=reason)
