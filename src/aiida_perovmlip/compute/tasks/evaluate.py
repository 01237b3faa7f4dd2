"""Evaluate a potential: its energy, forces and stress of every frame, and how fast it gives these."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, missing_elements
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.task import Job, Task

PREDICTIONS = 'predictions.npz'
SHOW_EVERY = 20
"""Frames between two lines of progress."""


class Evaluate(Task):
    """Predict all frames of the input `dataset` with the input `potential`."""

    def run(self, job: Job) -> dict[str, Any]:
        """Write the predictions and return the speed and what is in the potential."""
        architecture: Architecture = job.plugin('architecture')
        potential, frames = job.path('potential'), job.frames('dataset')
        if potential is None or frames is None:
            raise JobError(Status.BAD_INPUT, 'An evaluation needs a potential and a dataset.')
        facts = architecture.facts(potential)
        head = choose_head(facts, job.request.settings.get('head'))
        refuse_unknown_elements(facts, frames)
        columns, speed = self._predict(job, architecture, potential, frames, head)
        np.savez(job.folder / PREDICTIONS, **columns)
        n_atoms = len(columns['forces'])
        return {
            'facts': asdict(facts),
            'head': head,
            'n_frames': len(frames),
            'n_atoms': n_atoms,
            'microseconds_per_atom': speed,
        }

    def _predict(
        self, job: Job, architecture: Architecture, potential: Any, frames: Frames, head: str
    ) -> tuple[dict[str, Array], float]:
        """Return the predictions of all frames as columns, and µs per atom once the potential was loaded.

        A frame without a stress has a row of NaN.
        """
        device = architecture.device(job.request.device)
        energy, forces, stress = [], [], []
        predictions = architecture.predict(potential, frames, device, head)
        started, counted = time.monotonic(), 0
        for index, prediction in enumerate(predictions, 1):
            if index == 1 < len(frames):
                started = time.monotonic()  # what comes before is loading and warming up
            else:
                counted += len(prediction.forces)
            energy.append(prediction.energy)
            forces.append(prediction.forces)
            stress.append(np.full(6, np.nan) if prediction.stress is None else prediction.stress)
            if index % SHOW_EVERY == 0 or index == len(frames):
                job.progress(step=index, of=len(frames), what='frames evaluated')
            if job.seconds_left() <= 0 and index < len(frames):
                message = f'{len(frames) - index} of {len(frames)} frames are left when the wall time ran out.'
                raise JobError(Status.OUT_OF_WALLTIME, message)
        if len(energy) != len(frames):
            raise JobError(Status.FAILED, f'The potential predicted {len(energy)} of {len(frames)} frames.')
        speed = 1e6 * (time.monotonic() - started) / counted
        return {'energy': np.array(energy), 'forces': np.concatenate(forces), 'stress': np.array(stress)}, speed


def choose_head(facts: PotentialFacts, wanted: str | None) -> str:
    """Return the head to use; a potential with several heads is never asked without saying which."""
    if wanted is None and len(facts.heads) == 1:
        return facts.heads[0]
    if wanted not in facts.heads:
        said = 'names no head' if wanted is None else f'names the head `{wanted}`'
        raise JobError(Status.BAD_INPUT, f'The request {said}; this potential has {", ".join(facts.heads)}.')
    return wanted


def refuse_unknown_elements(facts: PotentialFacts, frames: Frames) -> None:
    """Raise where the frames hold elements that the potential does not know."""
    unknown = missing_elements(frames.elements(), facts.elements)
    if unknown:
        raise JobError(
            Status.BAD_INPUT,
            f'The dataset holds {", ".join(unknown)}, but the potential knows only {", ".join(facts.elements)}. '
            'Take these frames out, or train a potential that has seen them.',
        )
