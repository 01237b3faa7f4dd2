"""Label frames with an ASE calculator: many in one job, each by itself, none able to stop the others."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.children import Worker
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.labeller import AseLabeller, Teacher
from aiida_perovmlip.compute.shard import LARGEST_ENERGY, LARGEST_FORCE
from aiida_perovmlip.compute.task import Job, Task

JOURNAL = 'labels.jsonl'
"""One line for each frame that is done, written at once: what was finished survives any end of the job."""

PASSING = frozenset({'crashed', 'timeout', 'memory', 'environment'})
"""Kinds of failures that say something of the machine; the others, `refused` and `failed`, are of the frame."""

MOST_POSITIONS = 1000
"""How many positions of remaining frames the results list."""


class Label(Task):
    """Compute energy, forces and stress of every frame of the input `frames`."""

    def run(self, job: Job) -> dict[str, Any]:
        """Label all frames; those that fail are listed with the reason."""
        labeller = _labeller_of(job)
        settings = job.settings_of(labeller)
        frames = job.frames('frames')
        if frames is None:
            raise JobError(Status.BAD_INPUT, 'There are no frames to label.')
        try:
            level = labeller.level(settings)
        except ValueError as error:
            raise JobError(Status.BAD_INPUT, f'Settings of {labeller.name}: {error}') from error
        run = _Run(job, len(frames))
        with (job.folder / JOURNAL).open('w') as journal:
            for entry in _label_all(job, partial(_label_one, labeller, settings), _items(frames)):
                journal.write(json.dumps(entry, allow_nan=False) + '\n')
                journal.flush()
                run.count(entry)
        return run.results(level.to_dict())


def _labeller_of(job: Job) -> AseLabeller:
    """Return the labeller, with the potential that it labels with; what this knows is read from its files."""
    labeller: AseLabeller = job.plugin('labeller')
    folder = job.path('potential')
    if folder is None:
        return labeller
    architecture: Architecture = job.plugin('architecture')
    facts = architecture.facts(folder)
    teacher = Teacher(
        architecture=architecture.name,
        content_hash=job.request.settings['content_hash'],
        elements=facts.elements,
        heads=facts.heads,
        plugin=job.request.plugins['architecture'],
        folder=folder,
        device=architecture.device(job.request.device),
    )
    return labeller.taught_by(teacher)


@dataclass
class _Run:
    """What has been done so far."""

    job: Job
    n_frames: int
    n_labelled: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.done = np.zeros(self.n_frames, bool)

    def count(self, entry: dict[str, Any]) -> None:
        """Count one finished frame and show the progress."""
        self.done[entry['frame']] = True
        if 'failure' in entry:
            self.failed.append(describe_failure(entry))
        else:
            self.n_labelled += 1
        self.seconds += entry['seconds']
        done = self.n_labelled + len(self.failed)
        self.job.progress(step=done, of=self.n_frames, what='frames labelled', failed=len(self.failed))

    def results(self, level: dict[str, Any]) -> dict[str, Any]:
        """Return the results; raise where no frame has a label or time ran out."""
        counts = count_frames(self.done, self.failed)
        results = {'level': level, **counts, 'seconds_of_labels': round(self.seconds, 3)}
        if counts['n_remaining']:
            message = f'{counts["n_remaining"]} of {self.n_frames} frames are left; '
            message += 'the job ran out of wall time or was stopped.'
            raise JobError(Status.OUT_OF_WALLTIME, message, results)
        if self.failed and not self.n_labelled:
            first = counts['failed'][0]
            message = f'None of {self.n_frames} frames could be labelled; frame {first["frame"]}: {first["reason"]}'
            raise JobError(_status_of({entry['kind'] for entry in self.failed}), message, results)
        return results


def describe_failure(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what the results say of a line of the journal that is a failure."""
    return {'frame': entry['frame'], 'reason': entry['failure'], 'kind': entry.get('kind', 'failed')}


def count_frames(done: Array, failed: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many frames are labelled, failed and remaining, and which.

    :param done: whether there is a line of the journal for each frame, shape (frames,).
    """
    remaining = np.flatnonzero(~done)
    return {
        'n_frames': len(done),
        'n_labelled': len(done) - len(remaining) - len(failed),
        'n_remaining': len(remaining),
        'remaining': remaining[:MOST_POSITIONS].tolist(),
        'failed': sorted(failed, key=lambda entry: int(entry['frame'])),
    }


def _status_of(kinds: set[str]) -> Status:
    """Return how a job ended of whose frames not one has a label."""
    if kinds == {'environment'}:
        return Status.MISSING_PACKAGE
    if kinds == {'memory'}:
        return Status.OUT_OF_MEMORY
    return Status.FAILED if kinds <= PASSING else Status.NOT_CONVERGED


Item = tuple[int, str, Frame]
"""Position, hash of what is labelled, and frame."""


def _items(frames: Frames) -> Iterator[Item]:
    """Yield what the workers are given."""
    return ((position, digest.hex(), frame) for position, digest, frame in frames.with_digests())


def _label_all(job: Job, work: Callable[..., Any], frames: Iterator[Item]) -> Iterator[dict[str, Any]]:
    """Yield the entry of each frame as it is finished, until all are or time runs out."""
    crew = _Crew(job, work, frames)
    try:
        while crew.fill():
            yield from crew.collect()
        yield from crew.collect()  # what was finished at the last moment
    finally:
        crew.stop()  # what is being computed now is given up; all that is finished is in the journal


class _Crew:
    """Processes that label frames side by side, each one frame at a time."""

    def __init__(self, job: Job, work: Callable[..., Any], frames: Iterator[Item]) -> None:
        self.job, self.work, self.frames = job, work, frames
        self.limit = float(job.request.settings.get('seconds_per_frame') or math.inf)
        self.workers: list[Worker] = []
        os.environ.update(dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1'))

    def fill(self) -> bool:
        """Give every worker without a frame the next one; return whether one is at work that may be waited for."""
        idle = [worker for worker in self.workers if worker.item is None]
        while self.job.seconds_left() > 0 and (idle or len(self.workers) < max(1, self.job.request.cores)):
            item = next(self.frames, None)
            if item is None:
                break
            if not idle:
                idle.append(Worker(self.work))
                self.workers.append(idle[-1])
            idle.pop().give(item)
        return any(worker.item for worker in self.workers) and self.job.seconds_left() > 0

    def collect(self) -> Iterator[dict[str, Any]]:
        """Yield what was finished within a second."""
        busy = [worker for worker in self.workers if worker.item]
        if not busy:
            return
        patience = [1.0, self.job.seconds_left(), *(self.limit - worker.seconds() for worker in busy)]
        wait([end for worker in busy for end in (worker.pipe, worker.process.sentinel)], max(0.0, min(patience)))
        for worker in busy:
            entry = worker.answer()
            if entry is None:
                entry = self._loss(worker)
            if entry is not None:
                yield entry

    def _loss(self, worker: Worker) -> dict[str, Any] | None:
        """Return the entry of a frame that took its worker down or is too slow; None where there is no such thing.

        A job that is stopping blames nobody: what killed the worker may be what stops the job.
        """
        late = worker.seconds() > self.limit
        if not (worker.lost or late) or self.job.seconds_left() <= 0:
            return None
        index, digest, _ = worker.item or (-1, '', None)
        seconds = worker.seconds()
        worker.kill()
        self.workers.remove(worker)
        if worker.lost:
            failure = 'the calculator crashed and took its process with it.'
            return _entry(index, digest, seconds, failure=failure, kind='crashed')
        failure = f'it took longer than {self.limit:g} s, the time limit of a frame.'
        return _entry(index, digest, seconds, failure=failure, kind='timeout')

    def stop(self) -> None:
        """End all processes, also those at work."""
        for worker in self.workers:
            worker.kill()


def _label_one(labeller: AseLabeller, settings: Any, index: int, digest: str, frame: Frame) -> dict[str, Any]:
    """Label one frame; a failure is an entry like any other."""
    started = time.monotonic()
    try:
        refusal = labeller.refusal(settings, frame)
        if refusal:
            return _entry(index, digest, 0.0, failure=refusal, kind='refused')
        labels = compute_labels(labeller.calculator(settings, frame), frame)
    except BaseException as error:  # a calculator that calls `sys.exit` fails like any other
        reason = f'{type(error).__name__}: {" ".join(str(error).split()) or type(error).__name__}'[:500]
        return _entry(index, digest, time.monotonic() - started, failure=reason, kind=_kind(error))
    return _entry(index, digest, time.monotonic() - started, **labels)


def _kind(error: BaseException) -> str:
    """Return whether the machine or the calculation is at fault: what the machine did may go well elsewhere."""
    if isinstance(error, MemoryError) or 'out of memory' in str(error).lower():
        return 'memory'
    return 'environment' if isinstance(error, (ImportError, OSError)) else 'failed'


def compute_labels(calculator: Any, frame: Frame) -> dict[str, Any]:
    """Return energy, forces and, for a periodic frame, stress; raise where one is not finite."""
    atoms = frame.to_atoms(labels=False)
    atoms.calc = calculator
    labels: dict[str, Any] = {'energy': float(atoms.get_potential_energy()), 'forces': atoms.get_forces().tolist()}
    if frame.has_volume and 'stress' in calculator.implemented_properties:
        labels['stress'] = atoms.get_stress(voigt=True).tolist()
    for name, value in labels.items():
        if not np.isfinite(np.asarray(value)).all():
            raise ArithmeticError(f'the calculator gave a value of `{name}` that is not finite.')
    largest = float(np.abs(labels['forces']).max())
    if largest > LARGEST_FORCE or abs(labels['energy']) > LARGEST_ENERGY * len(frame):
        raise ArithmeticError(f'the calculator gave numbers too large to be physics: a force of {largest:.3g} eV/Å.')
    return labels


def _entry(index: int, digest: str, seconds: float, **content: Any) -> dict[str, Any]:
    """Return a line of the journal."""
    return {'frame': index, 'digest': digest, 'seconds': round(seconds, 4), **content}
