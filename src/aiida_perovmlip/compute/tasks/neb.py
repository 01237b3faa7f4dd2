"""Relax a path between two structures: its ends, and the band of images between them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.architecture import Architecture, Prediction, Predictor, prediction_of
from aiida_perovmlip.compute.band import Band, BandSettings, EndsMeetError, NotFiniteError, relax_band
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.labeller import AseLabeller
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.compute.shard import Shard, build_shards, join
from aiida_perovmlip.compute.task import Job, Task
from aiida_perovmlip.compute.tasks.evaluate import choose_head, gpu_memory, refuse_unknown_elements

PATH = 'path.npz'
"""The images as they are now, in order; where the job is killed, as they were some seconds before."""

HISTORY = 'history.json'
"""A list of the residual in eV/Å and the highest energy in eV, before each step and after the last one."""

SAVE_EVERY = 10.0
"""Seconds between two times that the path is saved."""

SHOW_EVERY = 10
"""Steps between two lines of progress."""


class Neb(Task):
    """Relax the images of the input `path`, with the input `potential` or with a labeller."""

    def run(self, job: Job) -> dict[str, Any]:
        """Leave the path in its folder, converged or not, and return how far it came."""
        frames = job.frames('path')
        if frames is None:
            raise JobError(Status.BAD_INPUT, 'A band needs a path.')
        settings = _settings(job)
        about, predictor = (
            _by_labeller(job, frames) if 'labeller' in job.request.plugins else _by_potential(job, frames)
        )
        follower = Follower(job)
        try:
            band = relax_band(list(frames), predictor, settings, follower.look)
        except EndsMeetError as error:
            raise JobError(Status.ENDS_MEET, str(error)) from error
        except NotFiniteError as error:
            raise JobError(Status.NOT_FINITE, f'{error} {follower.where()}') from error
        follower.save(band)
        results = {**about, **_results(band), 'settings': asdict(settings)}
        results['peak_gpu_memory_mb'] = gpu_memory()
        _refuse_unfinished(band, settings, results, job.seconds_left())
        return results


def _by_potential(job: Job, frames: Frames) -> tuple[dict[str, Any], Predictor]:
    """Return what is told of the potential, and what predicts with it."""
    architecture: Architecture = job.plugin('architecture')
    potential = job.path('potential')
    if potential is None:
        raise JobError(Status.BAD_INPUT, 'A band needs a potential.')
    facts = architecture.facts(potential)
    refuse_unknown_elements(facts, frames)
    head = choose_head(facts, job.request.settings.get('head'))
    predictor = architecture.predictor(potential, architecture.device(job.request.device), head)
    return {'facts': asdict(facts), 'head': head}, predictor


def _by_labeller(job: Job, frames: Frames) -> tuple[dict[str, Any], Predictor]:
    """Return the level of theory, and what labels one image after the other."""
    labeller: AseLabeller = job.plugin('labeller')
    settings = job.settings_of(labeller)
    refused = next(filter(None, (labeller.refusal(settings, frame) for frame in frames)), None)
    if refused:
        raise JobError(Status.BAD_INPUT, refused)

    def predictor(images: Iterable[Frame]) -> Iterator[Prediction]:
        for image in images:
            try:
                yield prediction_of(labeller.calculator(settings, image), image)
            except Exception as error:  # whatever a calculator raises of a frame that it cannot do
                message = f'{labeller.name} gives no label for an image: {" ".join(str(error).split())} '
                raise JobError(
                    Status.FAILED, f'{message}Go on from the output `path`, or from other images.'
                ) from error

    return {'level': labeller.level(settings).to_dict()}, predictor


class Follower:
    """Shows how a band comes on, saves it, and stops it in time."""

    def __init__(self, job: Job) -> None:
        self.job, self.saved = job, -math.inf  # the first look is saved at once
        self.looks = 0
        self.last: Band | None = None

    def look(self, band: Band) -> bool:
        """Look at a band after a step; return whether there is time to go on."""
        self.last = band
        if self.looks % SHOW_EVERY == 0:
            state = {'residual': band.residual, 'climbing': band.is_climbing} if band.history else {'ends': band.ends}
            self.job.progress(what='path' if band.history else 'ends of the path', step=self.looks, **state)
        self.looks += 1
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save(band)
        return self.job.seconds_left() > 0

    def save(self, band: Band) -> None:
        """Write path and history, each in one step: whoever comes after a kill never finds half of it."""
        write_path(band.frames, self.job.folder / PATH)
        partial = self.job.folder / f'{HISTORY}.partial'
        partial.write_text(json.dumps(band.history))
        partial.replace(self.job.folder / HISTORY)
        self.saved = time.monotonic()

    def where(self) -> str:
        """Return how far the band had come."""
        steps = self.last.steps if self.last is not None else 0
        return f'It was after {steps} steps of the band; are atoms too near each other on the path?'


def write_path(frames: Sequence[Frame], path: Path) -> None:
    """Write images into one file, in one step."""
    partial = path.with_name(f'{path.name}.partial')
    with partial.open('wb') as handle:
        join(list(build_shards(frames))).write(handle)
    partial.replace(path)


def read_path(path: Path) -> list[Frame]:
    """Return the images of a file, in order."""
    with path.open('rb') as handle:
        return list(Shard.read(handle))


def _settings(job: Job) -> BandSettings:
    """Return the settings of the band."""
    try:
        return read_settings(BandSettings, job.request.settings.get('band', {}))
    except SettingsError as error:
        raise JobError(Status.BAD_INPUT, f'Settings of the band: {error}') from error


def _results(band: Band) -> dict[str, Any]:
    """Return what there is to say of a band in numbers."""
    return {
        'n_images': len(band.frames) - 2,
        'n_steps': band.steps,
        'residual': band.residual,
        'forces_of_ends': band.ends,
        'is_climbing': band.is_climbing,
        'is_converged': band.is_converged,
    }


def _state_of(band: Band) -> str:
    """Return how far a band has come, in words."""
    if not band.history:
        start, end = (f'{force:.3g}' if math.isfinite(force) else 'unknown' for force in band.ends)
        return f'the ends were still relaxing, with largest forces {start} and {end} in eV/Å'
    return f'after {band.steps} steps the largest force on the band is {band.residual:.3g} eV/Å'


def _refuse_unfinished(band: Band, settings: BandSettings, results: dict[str, Any], seconds_left: float) -> None:
    """Raise where the band did not converge: there is a path, but it is not the one that was asked for."""
    if band.is_converged:
        return
    state = _state_of(band)
    if seconds_left <= 0:
        raise JobError(
            Status.OUT_OF_WALLTIME,
            f'{state}; {settings.fmax:g} eV/Å was asked. Go on from the output `path` as input `path`.',
            results,
        )
    worst = max(band.ends)
    if settings.relax_ends and worst > settings.fmax_ends:
        state += f', and that on an end {worst:.3g} eV/Å'
    raise JobError(
        Status.NOT_CONVERGED,
        f'{state}; {settings.fmax:g} and {settings.fmax_ends:g} eV/Å were asked. Go on from the output `path` as input '
        '`path`, with more images if energies between two of them jump.',
        results,
    )
