"""Label frames with an ASE calculator: many in one job, each by itself, none able to stop the others."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aiida_perovmlip.compute.children import end_with_parent
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller
from aiida_perovmlip.compute.plugin import load_object
from aiida_perovmlip.compute.shard import digests
from aiida_perovmlip.compute.task import Job, Task

JOURNAL = 'labels.jsonl'
"""One line for each frame that is done, written at once: what was finished survives any end of the job."""


class Label(Task):
    """Compute energy, forces and stress of every frame of the input `frames`."""

    def run(self, job: Job) -> dict[str, Any]:
        """Label all frames; those that fail are listed with the reason."""
        labeller: AseLabeller = job.plugin('labeller')
        settings = job.settings_of(labeller)
        frames = job.frames('frames')
        if frames is None:
            raise JobError(Status.BAD_INPUT, 'There are no frames to label.')
        run = _Run(job, len(frames))
        with (job.folder / JOURNAL).open('w') as journal:
            for entry in _label_all(job, settings, _with_digests(frames)):
                journal.write(json.dumps(entry, allow_nan=False) + '\n')
                journal.flush()
                run.count(entry)
        return run.results(labeller.level(settings).to_dict())


@dataclass
class _Run:
    """What has been done so far."""

    job: Job
    n_frames: int
    n_labelled: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, entry: dict[str, Any]) -> None:
        """Count one finished frame and show the progress."""
        if 'failure' in entry:
            self.failed.append({'frame': entry['frame'], 'reason': entry['failure']})
        else:
            self.n_labelled += 1
        self.seconds += entry['seconds']
        done = self.n_labelled + len(self.failed)
        self.job.progress(step=done, of=self.n_frames, what='frames labelled', failed=len(self.failed))

    def results(self, level: dict[str, Any]) -> dict[str, Any]:
        """Return the results; raise where no frame has a label or time ran out."""
        remaining = self.n_frames - self.n_labelled - len(self.failed)
        results = {
            'level': level,
            'n_frames': self.n_frames,
            'n_labelled': self.n_labelled,
            'n_remaining': remaining,
            'failed': sorted(self.failed, key=lambda entry: int(entry['frame'])),
            'seconds_of_labels': round(self.seconds, 3),
        }
        if remaining:
            message = f'{remaining} of {self.n_frames} frames are left; the job ran out of wall time or was stopped.'
            raise JobError(Status.OUT_OF_WALLTIME, message, results)
        if not self.n_labelled:
            first = results['failed'][0]  # type: ignore[index]
            message = f'None of {self.n_frames} frames could be labelled; frame {first["frame"]}: {first["reason"]}'
            raise JobError(Status.NOT_CONVERGED, message, results)
        return results


def _with_digests(frames: Any) -> Iterator[tuple[int, str, Frame]]:
    """Yield position, hash of what is labelled, and frame."""
    index = 0
    for chunk in frames.chunks():
        for digest, frame in zip(digests(chunk, labels=False), chunk, strict=True):
            yield index, digest.tobytes().hex(), frame
            index += 1


Item = tuple[int, str, Frame]
"""Position, hash of what is labelled, and frame."""


def _label_all(job: Job, settings: Any, frames: Iterator[Item]) -> Iterator[dict[str, Any]]:
    """Yield the entry of each frame as it is finished, until all are or time runs out."""
    pool = _Pool(job, settings, frames)
    try:
        while pool.fill():
            yield from pool.collect()
    finally:
        pool.stop()  # what is being computed now is given up; all that is finished is in the journal


class _Pool:
    """Processes that label frames side by side.

    A calculator that crashes takes all processes with it. The frames that were being labelled are then suspects, which
    are tried again one by one: only the guilty one is lost.
    """

    def __init__(self, job: Job, settings: Any, frames: Iterator[Item]) -> None:
        self.job, self.settings, self.frames = job, settings, frames
        self.suspects: deque[Item] = deque()
        self.on_trial = False
        self.running: dict[Future[dict[str, Any]], Item] = {}
        os.environ.update(dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1'))
        self.executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=max(1, self.job.request.cores),
            mp_context=multiprocessing.get_context('spawn'),
            initializer=_prepare,
            initargs=(self.job.request.plugins['labeller'], self.settings),
        )

    def fill(self) -> bool:
        """Give every free process a frame; return whether one is at work that may still be waited for."""
        while len(self.running) < self._limit() and self.job.seconds_left() > 0:
            self.on_trial = bool(self.suspects)
            item = self.suspects.popleft() if self.suspects else next(self.frames, None)
            if item is None:
                break
            self.running[self.executor.submit(_label_one, *item)] = item
        return bool(self.running) and self.job.seconds_left() > 0

    def _limit(self) -> int:
        """Return how many frames may be at work at once."""
        alone = bool(self.suspects) or (self.on_trial and bool(self.running))
        return 1 if alone else max(1, self.job.request.cores)

    def collect(self) -> Iterator[dict[str, Any]]:
        """Yield what was finished within a second."""
        done, _ = wait(self.running, timeout=1.0, return_when=FIRST_COMPLETED)
        lost = []
        for future in done:
            item = self.running.pop(future)
            try:
                yield future.result()
            except BrokenProcessPool:
                lost.append(item)
        if lost:
            yield from self._blame([*lost, *self.running.values()])

    def _blame(self, lost: list[Item]) -> Iterator[dict[str, Any]]:
        """Yield the entry of the frame that made its process crash, or put those that may have done it on trial."""
        self.running.clear()
        self.executor.shutdown(wait=False)
        self.executor = self._start()
        if len(lost) == 1:
            index, digest, _ = lost[0]
            yield _entry(index, digest, 0.0, failure='the calculator crashed and took its process with it.')
        else:
            self.suspects.extend(sorted(lost, key=lambda item: item[0]))

    def stop(self) -> None:
        """End all processes, also those at work."""
        processes = list((getattr(self.executor, '_processes', None) or {}).values())
        self.executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


_worker: dict[str, Any] = {}


def _prepare(reference: str, settings: Any) -> None:
    """Load the labeller once in each process."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    end_with_parent()
    _worker['labeller'], _worker['settings'] = load_object(reference)(), settings


def _label_one(index: int, digest: str, frame: Frame) -> dict[str, Any]:
    """Label one frame; a failure is an entry like any other."""
    labeller, settings = _worker['labeller'], _worker['settings']
    started = time.monotonic()
    try:
        refusal = labeller.refusal(settings, frame)
        if refusal:
            return _entry(index, digest, 0.0, failure=refusal)
        labels = compute_labels(labeller.calculator(settings, frame), frame)
    except Exception as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        return _entry(index, digest, time.monotonic() - started, failure=f'{type(error).__name__}: {reason}'[:500])
    return _entry(index, digest, time.monotonic() - started, **labels)


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
    return labels


def _entry(index: int, digest: str, seconds: float, **content: Any) -> dict[str, Any]:
    """Return a line of the journal."""
    return {'frame': index, 'digest': digest, 'seconds': round(seconds, 4), **content}
