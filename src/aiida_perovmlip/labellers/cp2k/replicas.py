"""What a band of CP2K left: the steps of each image, and what became of the band."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase import units

from aiida_perovmlip.compute.band import BandSettings, largest_force, residual_of
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.labellers.base import Outcome
from aiida_perovmlip.labellers.cp2k.effective import mismatches
from aiida_perovmlip.labellers.cp2k.inputs import Sections, shift_of
from aiida_perovmlip.labellers.cp2k.output import Cp2kOutput, Ending, Header
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings
from aiida_perovmlip.labellers.cp2k.trajectory import Step, matched
from aiida_perovmlip.labellers.cp2k.verdict import SAME_POSITION, Batch, failure_of, outcome_of

SAME_SPRING = 0.02
"""Share by which the stiffness of the springs may differ from the one that was asked for, as far as it can be told."""

UNEVEN = 1e-4
"""In bohr²: sum of squares by which distances have to differ from their mean for springs to show their stiffness."""


@dataclass(frozen=True)
class Asked:
    """What one job was asked to do."""

    settings: Cp2kSettings
    band: BandSettings
    frames: Sequence[Frame]
    sections: Sections
    steps_before_climb: int = 0


@dataclass
class Replica:
    """One image on its way.

    :param done: what it was at each step at which its SCF cycle converged, with labels.
    :param first: what CP2K wrote of its positions in Å before the first step, shape (atoms, 3).
    :param failures: at steps at which there is no label, by the number of the step.
    :param last: number of the last step that was begun.
    """

    done: dict[int, Frame] = field(default_factory=dict)
    first: Array | None = None
    failures: dict[int, Outcome] = field(default_factory=dict)
    last: int = -1
    ending: Ending = field(default_factory=Ending)


@dataclass
class BandLog:
    """What the text of the run says of the band, with its springs in atomic units.

    :param total: energy of images and springs in hartree, by the number of the step.
    """

    kind: str = ''
    n_replicas: int | None = None
    total: dict[int, float] = field(default_factory=dict)


@dataclass
class Relaxed:
    """What became of a band.

    :param images: at the last step at which all of them have labels; empty where there is none.
    :param failures: of images behind that step, by the number of the image.
    :param wrong: what ran otherwise than asked.
    """

    ending: Ending
    images: list[Frame] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    failures: dict[int, Outcome] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    is_last: bool = False


def read_replica(asked: Asked, index: int, output: Cp2kOutput, steps: Iterable[Step]) -> Replica:
    """Read one image: its SCF cycles, and the positions of these."""
    frame, replica = asked.frames[index], Replica()
    batch, shift = Batch(asked.settings, [frame], ['']), shift_of(asked.frames[0])
    for number, (step, snapshot) in enumerate(matched(steps, output.snapshots())):
        replica.last = number
        place = frame if step is None else replace(frame, positions=step.rows - shift)
        if number == 0 and step is not None:
            replica.first = place.positions
        outcome = outcome_of(batch, place, snapshot, None)
        if outcome.frames and step is not None:
            replica.done[number] = outcome.frames[0]
        elif outcome.kind:
            replica.failures[number] = outcome
    replica.ending = output.ending
    return replica


def read_log(lines: Iterable[str]) -> BandLog:
    """Read what is printed after each step of the band."""
    log, step = BandLog(), 0
    for line in lines:
        name, is_pair, value = (part.strip() for part in line.partition('='))
        if not is_pair or not value:
            continue
        if name == 'BAND TYPE':
            log.kind = value
        elif name == 'NUMBER OF NEB REPLICA':
            log.n_replicas = int(value)
        elif name == 'STEP NUMBER':
            step = int(value)
        elif name == 'BAND TOTAL ENERGY [au]':
            log.total[step] = float(value)
    return log


def read_distances(lines: Iterable[str]) -> Iterator[tuple[int, Array, Array]]:
    """Yield of each step its number, energies (n,) in hartree and distances (n - 1,) in bohr of neighbours."""
    for line in lines:
        words = line.split()
        if len(words) > 3 and len(words) % 2 == 0 and line.endswith('\n'):
            numbers = np.array([float(word) for word in words[1:]])
            yield int(words[0]), numbers[: len(words) // 2], numbers[len(words) // 2 :]


def spring_of(log: BandLog, rows: Iterable[tuple[int, Array, Array]], climb_after: int | None) -> float | None:
    """Return the stiffness of the springs in eV/Å² that their energy shows; None where it shows none.

    CP2K adds up ½ k (d - d̄)² of all distances but the last one, where d̄ is their root mean square, and of a climbing
    band twice for each image that does not climb.

    :param climb_after: number of the step after which the highest image climbs; None where none ever does.
    """
    best, stiffness = UNEVEN, None
    for step, energies, distances in rows:
        weights = np.ones(len(distances) - 1)
        if climb_after is not None:
            weights[:] = 2.0
            if step > climb_after:
                weights[int(np.argmax(energies[1:-1]))] = 1.0
        strain = float(weights @ (distances[:-1] - np.sqrt(np.mean(distances**2))) ** 2)
        if step in log.total and strain > best:
            best, stiffness = strain, 2 * (log.total[step] - float(energies.sum())) / strain
    return None if stiffness is None else stiffness * units.Hartree / units.Bohr**2


def judge_band(
    asked: Asked, header: Header, log: BandLog, spring: float | None, ending: Ending, replicas: Sequence[Replica]
) -> Relaxed:
    """Decide on a band: which step is its last one with all labels, and whether it ran, and came, as asked."""
    reached = [set(replica.done) for replica in replicas]
    common = set.intersection(*reached) if len(reached) == len(asked.frames) else set()
    relaxed = Relaxed(_whole(ending, replicas), wrong=_wrong(asked, header, log, spring, replicas))
    step = max(common, default=-1)
    for index, replica in enumerate(replicas):
        late = {number: failure for number, failure in replica.failures.items() if number > step}
        if late:
            relaxed.failures[index] = late[min(late)]
    if common:
        relaxed.images = [replica.done[step] for replica in replicas]
        relaxed.is_last = step == max(replica.last for replica in replicas)
        relaxed.about = _about(asked, header, replicas, relaxed, step)
    return relaxed


def _whole(ending: Ending, replicas: Sequence[Replica]) -> Ending:
    """Return how the run ended, with what single images say of it."""
    for replica in replicas:
        said = replica.ending
        ending.out_of_time |= said.out_of_time
        ending.abort = ending.abort or said.abort
        ending.trouble += said.trouble
    return ending


def _about(asked: Asked, header: Header, replicas: Sequence[Replica], relaxed: Relaxed, step: int) -> dict[str, Any]:
    """Return how far the band came; the residual is that of what was read, whatever CP2K thinks of it."""
    band, images = asked.band, relaxed.images
    residual = residual_of(images, band.spring, band.climb)
    ends = [largest_force(images[end]) for end in (0, -1)]
    rests = residual <= band.fmax and (not band.relax_ends or max(ends) <= band.fmax)
    ending = relaxed.ending
    seconds = {} if ending.seconds is None else {'seconds': ending.seconds * header.processes * header.threads}
    return {
        'n_steps': step,
        'residual': residual,
        'forces_of_ends': ends,
        'is_climbing': band.climb and (step > asked.steps_before_climb or rests),
        'is_converged': rests and relaxed.is_last,
        'n_not_converged': sum(len(replica.failures) for replica in replicas),
        'version': header.version,
        **seconds,
    }


def _wrong(asked: Asked, header: Header, log: BandLog, spring: float | None, replicas: Sequence[Replica]) -> list[str]:
    """Return what ran otherwise than asked, as clauses."""
    if not header.version:
        return []  # it never came that far
    clauses = mismatches(header, asked.sections, asked.settings, asked.frames[0])
    kind = asked.sections['MOTION']['BAND']['BAND_TYPE']
    if log.kind and log.kind != kind:
        clauses.append(f'the band was of the kind {log.kind} instead of {kind}')
    if log.n_replicas not in (None, len(asked.frames)):
        clauses.append(f'there were {log.n_replicas} replicas instead of {len(asked.frames)}')
    if spring is not None and abs(spring - asked.band.spring) > SAME_SPRING * max(asked.band.spring, 0.1):
        clauses.append(f'the springs had {spring:.3g} eV/Å² instead of {asked.band.spring:g}')
    for index, (replica, frame) in enumerate(zip(replicas, asked.frames, strict=False)):
        if replica.first is not None and np.abs(replica.first - frame.positions).max() > SAME_POSITION:
            clauses.append(f'image {index} began at other positions')
    return clauses


def failure_of_band(relaxed: Relaxed) -> tuple[str, str] | None:
    """Return kind and reason where CP2K, or an image, failed; None where it did not."""
    failure = failure_of(relaxed.ending)
    if failure is not None:
        return failure.kind, failure.reason
    if not relaxed.failures:
        return None
    index, outcome = min(relaxed.failures.items())
    more = len(relaxed.failures) - 1
    others = f' (and {more} more)' if more else ''
    return outcome.kind, f'image {index}{others}: {outcome.reason}'
