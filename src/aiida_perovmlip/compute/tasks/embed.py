"""Embed frames: the mean over the atoms of each frame of what a potential sees of them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.task import Job, Task
from aiida_perovmlip.compute.tasks.evaluate import SHOW_EVERY, gpu_memory, new_array, refuse_unknown_elements

EMBEDDING = 'embedding'
"""The folder with `mean.npy` and, where elements are told apart, `mean_<symbol>.npy`."""

MEAN = 'mean'


class Embed(Task):
    """Describe all frames of the input `dataset` with the input `potential`."""

    def run(self, job: Job) -> dict[str, Any]:
        """Write the descriptors and return what they are of."""
        architecture: Architecture = job.plugin('architecture')
        potential, frames = job.path('potential'), job.frames('dataset')
        if potential is None or frames is None:
            raise JobError(Status.BAD_INPUT, 'An embedding needs a potential and a dataset.')
        facts = architecture.facts(potential)
        refuse_unknown_elements(facts, frames)
        elements = frames.elements() if job.request.settings.get('per_element') else ()
        means = Means(job.folder / EMBEDDING, len(frames), elements)
        device = architecture.device(job.request.device)
        self._write(job, means, frames, architecture.descriptors(potential, frames, device))
        return {
            'facts': asdict(facts),
            'n_frames': len(frames),
            'n_descriptors': means.width,
            'elements': list(elements),
            'peak_gpu_memory_mb': gpu_memory(),
        }

    def _write(self, job: Job, means: Means, frames: Frames, descriptors: Any) -> None:
        """Write the means of frame after frame."""
        rows = iter(descriptors)
        for done, frame in enumerate(frames, 1):
            described = next(rows, None)
            if described is None:
                raise JobError(Status.FAILED, f'The potential described {done - 1} of {len(frames)} frames.')
            means.put(done - 1, frame, np.asarray(described))
            if done % SHOW_EVERY == 0 or done == len(frames):
                job.progress(step=done, of=len(frames), what='frames described')
            if job.seconds_left() <= 0 and done < len(frames):
                raise JobError(
                    Status.OUT_OF_WALLTIME,
                    f'{len(frames) - done} of {len(frames)} frames were left; give the job '
                    f'{len(frames) / done:.1f} times as long, or describe the frames in parts.',
                )
        if next(rows, None) is not None:
            raise JobError(Status.FAILED, f'The potential described more than the {len(frames)} frames.')
        means.flush()


class Means:
    """Mean descriptors of all frames, (n_frames, n) float32, in files that numpy maps.

    A frame without an element has NaN in the file of this element.
    """

    def __init__(self, folder: Path, n_frames: int, elements: tuple[str, ...]) -> None:
        self.folder, self.n_frames, self.elements = folder, n_frames, elements
        self.width = 0
        self._arrays: dict[str, Any] = {}
        folder.mkdir(exist_ok=True)

    def put(self, position: int, frame: Frame, descriptors: Array) -> None:
        """Write the means of one frame.

        :param descriptors: (n_atoms, n).
        """
        if descriptors.ndim != 2 or len(descriptors) != len(frame):
            raise JobError(
                Status.FAILED,
                f'The descriptors of frame {position} have the shape {descriptors.shape}, but it has {len(frame)} '
                'atoms.',
            )
        if not np.isfinite(descriptors).all():
            raise JobError(Status.FAILED, f'The descriptors of frame {position} are not finite; is its geometry sound?')
        if not self._arrays:
            self._open(descriptors.shape[1])
        self._arrays[MEAN][position] = descriptors.mean(axis=0)
        for symbol in self.elements:
            mine = descriptors[frame.numbers == atomic_numbers[symbol]]
            self._arrays[f'{MEAN}_{symbol}'][position] = mine.mean(axis=0) if len(mine) else np.nan

    def _open(self, width: int) -> None:
        """Open the files, once it is known how many descriptors there are."""
        self.width = width
        for name in (MEAN, *(f'{MEAN}_{symbol}' for symbol in self.elements)):
            path, shape = self.folder / f'{name}.npy', (self.n_frames, width)
            self._arrays[name] = new_array(path, shape, np.float32)

    def flush(self) -> None:
        """Bring all to the disk."""
        for array in self._arrays.values():
            array.flush()
