"""Evaluate a potential: its energy, forces and stress of every frame, and how fast it gives these."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, Prediction, missing_elements
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.task import Job, Task

PREDICTIONS = 'predictions'
"""The folder with one `.npy` for each quantity."""

QUANTITIES = ('energy', 'forces', 'stress')
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
        settings = job.request.settings
        positions = choose_heads(facts, frames, settings.get('head'), settings.get('own_heads', False))
        refuse_unknown_elements(facts, frames)
        written = PredictionFiles(job.folder / PREDICTIONS, sizes_of(frames))
        clock = Clock()
        for head, chosen in positions.items():
            some = frames if len(positions) == 1 else frames.take(chosen)
            device = architecture.device(job.request.device)
            clock.restart()
            predictions = architecture.predict(potential, clock.given(some), device, head)
            self._keep(job, clock.taken(predictions), written, chosen)
        written.flush()
        heads = {head: len(chosen) for head, chosen in positions.items()}
        return {
            'facts': asdict(facts),
            'head': next(iter(heads)) if len(heads) == 1 else None,
            'heads': heads,
            'n_frames': len(frames),
            'n_atoms': int(written.offsets[-1]),
            **clock.speed(),
            'peak_gpu_memory_mb': gpu_memory(),
        }

    def _keep(self, job: Job, predictions: Iterable[Prediction], written: PredictionFiles, chosen: Array) -> None:
        """Write predictions of the frames at these positions as they come."""
        total = len(written)
        done = 0
        for done, prediction in enumerate(predictions, 1):
            if done > len(chosen):
                break
            written.put(int(chosen[done - 1]), prediction)
            if written.n_done % SHOW_EVERY == 0 or written.n_done == total:
                job.progress(step=written.n_done, of=total, what='frames evaluated')
            if job.seconds_left() <= 0 and written.n_done < total:
                written.flush()
                raise JobError(Status.OUT_OF_WALLTIME, *out_of_time(written))
        if done != len(chosen):
            said = f'more than the {len(chosen)}' if done > len(chosen) else f'{done} of {len(chosen)}'
            raise JobError(Status.FAILED, f'The potential predicted {said} frames.')


class PredictionFiles:
    """The predictions of all frames, in files that numpy maps: memory does not grow with the dataset.

    What was not predicted is NaN, and so is the stress of a frame that has none.

    :param sizes: (n_frames,) number of atoms of each frame.
    """

    def __init__(self, folder: Path, sizes: Array) -> None:
        folder.mkdir(exist_ok=True)
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.done = np.zeros(len(sizes), dtype=bool)
        self.n_done = 0
        n_frames, n_atoms = len(sizes), int(self.offsets[-1])
        shapes: tuple[tuple[int, ...], ...] = ((n_frames,), (n_atoms, 3), (n_frames, 6))
        self.arrays = {
            name: new_array(folder / f'{name}.npy', shape) for name, shape in zip(QUANTITIES, shapes, strict=True)
        }
        for array in self.arrays.values():
            array.fill(np.nan)

    def __len__(self) -> int:
        return len(self.done)

    def put(self, position: int, prediction: Prediction) -> None:
        """Write what is predicted of one frame; an array of another size than the frame's is refused."""
        start, end = self.offsets[position], self.offsets[position + 1]
        if prediction.forces.shape != (end - start, 3):
            raise JobError(
                Status.FAILED,
                f'The potential predicted forces of the shape {prediction.forces.shape} for frame {position}, which '
                f'has {end - start} atoms.',
            )
        self.arrays['energy'][position] = prediction.energy
        self.arrays['forces'][start:end] = prediction.forces
        if prediction.stress is not None:
            self.arrays['stress'][position] = prediction.stress
        self.done[position] = True
        self.n_done += 1

    def flush(self) -> None:
        """Bring all to the disk."""
        for array in self.arrays.values():
            array.flush()


def new_array(path: Path, shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
    """Return an array that is mapped from a new `.npy` file."""
    files: Any = np.lib.format  # without types in numpy 1
    return files.open_memmap(path, mode='w+', dtype=dtype, shape=shape)


class Clock:
    """How long predictions take once the potential is loaded and warm.

    An architecture may take many frames before it gives the first prediction; these, and the time until then, count
    as warming up. Where it takes all frames at once there is nothing else to count, and the speed is said to be cold.
    """

    def __init__(self) -> None:
        self.seconds = self.cold_seconds = 0.0
        self.n_atoms = self.cold_atoms = 0
        self._warm = False

    def restart(self) -> None:
        """Begin to warm up, as each loading of the potential does."""
        self._warm = False

    def given(self, frames: Frames) -> Iterator[Frame]:
        """Yield frames and count their atoms."""
        for frame in frames:
            if self._warm:
                self.n_atoms += len(frame)
            else:
                self.cold_atoms += len(frame)
            yield frame

    def taken(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        """Yield predictions and count the time that each of them takes."""
        while True:
            started = time.perf_counter()
            prediction = next(predictions, None)
            passed = time.perf_counter() - started
            if self._warm:
                self.seconds += passed
            else:
                self.cold_seconds += passed
            self._warm = True
            if prediction is None:
                return
            yield prediction

    def speed(self) -> dict[str, Any]:
        """Return µs per atom, and whether all of it was measured after warming up."""
        if self.n_atoms:
            return {'microseconds_per_atom': 1e6 * self.seconds / self.n_atoms, 'speed_is_warm': True}
        total = self.seconds + self.cold_seconds
        return {'microseconds_per_atom': 1e6 * total / max(1, self.cold_atoms), 'speed_is_warm': False}


def choose_heads(facts: PotentialFacts, frames: Frames, wanted: str | None, own_heads: bool) -> dict[str, Array]:
    """Return the positions of the frames that each head is to predict.

    :param own_heads: let every frame be predicted by the head that it carries itself.
    """
    if not own_heads:
        return {choose_head(facts, wanted): np.arange(len(frames))}
    own = heads_of(frames)
    for head in np.unique(own).tolist():
        choose_head(facts, head)
    return {head: np.flatnonzero(own == head) for head in np.unique(own).tolist()}


def choose_head(facts: PotentialFacts, wanted: str | None) -> str:
    """Return the head to use; a potential with several heads is never asked without saying which."""
    if wanted is None and len(facts.heads) == 1:
        return facts.heads[0]
    if wanted not in facts.heads:
        said = 'names no head' if wanted is None else f'names the head `{wanted}`'
        raise JobError(Status.BAD_INPUT, f'The request {said}; this potential has {", ".join(facts.heads)}.')
    return wanted


def heads_of(frames: Frames) -> Array:
    """Return the name of the head of each frame, (n_frames,)."""
    chunks = list(frames.chunks(('head',)))
    return np.concatenate([np.array(chunk.names['head'])[chunk.columns['head']] for chunk in chunks])


def sizes_of(frames: Frames) -> Array:
    """Return the number of atoms of each frame, (n_frames,)."""
    return np.concatenate([np.diff(chunk.columns['offsets']) for chunk in frames.chunks(())])


def out_of_time(written: PredictionFiles) -> tuple[str, dict[str, Any]]:
    """Return what to say, and the results, where the wall time ran out before the last frame."""
    n_left = len(written) - written.n_done
    if written.done[: written.n_done].all():
        rest = f'the rest alone: `dataset.select(slice({written.n_done}, None))`'
    else:
        rest = 'those alone whose energy is NaN in `predictions`'
    message = (
        f'{n_left} of {len(written)} frames were left. What was predicted is kept in the output `predictions`, with '
        f'NaN for the others. Give the job {len(written) / max(1, written.n_done):.1f} times as long, or evaluate '
        f'{rest}.'
    )
    return message, {'n_frames': len(written), 'n_frames_done': written.n_done}


def gpu_memory() -> float | None:
    """Return the most memory in MB that PyTorch had on its GPU at a time; None where it used none."""
    torch = sys.modules.get('torch')  # the architecture has imported it, or it is of no use here
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return float(round(torch.cuda.max_memory_allocated() / 1024**2, 1))


def refuse_unknown_elements(facts: PotentialFacts, frames: Frames) -> None:
    """Raise where the frames hold elements that the potential does not know."""
    unknown = missing_elements(frames.elements(), facts.elements)
    if unknown:
        raise JobError(
            Status.BAD_INPUT,
            f'The dataset holds {", ".join(unknown)}, but the potential knows only {", ".join(facts.elements)}. '
            'Take these frames out, or train a potential that has seen them.',
        )
