"""Simulate molecular dynamics: a trajectory, and the state from which the run goes on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.checkpoint import FOLDER, Checkpoint
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import Engine, MdRun
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import MdSettings, read_md_settings
from aiida_perovmlip.compute.recorder import Recorder, read_state
from aiida_perovmlip.compute.settings import SettingsError
from aiida_perovmlip.compute.task import GRACE, Job, Task
from aiida_perovmlip.compute.tasks.evaluate import choose_head, gpu_memory, refuse_unknown_elements

COMMITTEE = 'committee_'
"""Beginning of the names of the inputs that are further potentials."""


MOST_KEPT_BACK = 300.0
"""Seconds of the wall time that are kept back at most: a step and its state take less, and a day has many steps."""


class Md(Task):
    """Move the atoms of the input `start` with the input `potential`, from the input `state` where there is one.

    Where a state of the same run lies in the folder of the job, which was killed and started again, it goes on from
    there.
    """

    def run(self, job: Job) -> dict[str, Any]:
        """Leave trajectory and states in the folder; return what was done."""
        engine: Engine = job.plugin('engine')
        architecture: Architecture = job.plugin('architecture')
        settings, frame = _settings(job), _start(job)
        problem = settings.problem_with(frame) or engine.refusal(settings, architecture)
        if problem:
            raise JobError(Status.BAD_INPUT, problem)
        recorder = _recorder(job, settings, frame)
        segment = Segment(job, recorder)
        run = _run(job, engine, architecture, settings, frame, recorder, segment)
        results: dict[str, Any] = {'engine': engine.name, 'n_atoms': len(frame), 'settings': asdict(settings)}
        results |= {'n_steps': settings.n_steps, 'begun_at_step': segment.begun_at}
        try:
            results['effective'] = engine.run(run)
        except JobError as error:
            results |= error.results
            if not (error.status is Status.OUT_OF_WALLTIME and segment.is_done):
                error.results = {**results, **segment.reached()}
                raise
        finally:
            recorder.close()
        return {**results, **segment.reached(), 'peak_gpu_memory_mb': gpu_memory()}


class Segment:
    """The part of a run that one job is to do: to its end, or so many steps."""

    def __init__(self, job: Job, recorder: Recorder) -> None:
        self.job, self.recorder, self.begun_at = job, recorder, recorder.step
        most = job.request.settings.get('segment_steps')
        self.end = recorder.settings.n_steps if most is None else self.begun_at + int(most)

    @property
    def is_done(self) -> bool:
        """Whether all steps of this job are done."""
        return self.recorder.step >= self.end

    def seconds_left(self) -> float:
        """Return how long the engine may still work; zero once the steps of this job are done."""
        if self.is_done or self.job.stopping:
            return 0.0
        kept_back = GRACE * (self.job.request.walltime or 0.0)
        return self.job.seconds_left() + max(0.0, kept_back - MOST_KEPT_BACK)

    def reached(self) -> dict[str, Any]:
        """Return how far the run has come, and how fast: what comes after the newest state is lost."""
        speed = self.recorder.steps_per_second()
        told = {} if speed is None else {'atom_steps_per_second': speed * len(self.recorder.start)}
        return {'step': self.recorder.saved_step, **told}


def _settings(job: Job) -> MdSettings:
    """Return the settings of the run."""
    try:
        return read_md_settings(job.request.settings.get('md', {}))
    except SettingsError as error:
        raise JobError(Status.BAD_INPUT, f'Settings of the run: {error}') from error


def _start(job: Job) -> Frame:
    """Return the structure to start from."""
    frames = job.frames('start')
    if frames is None or len(frames) != 1:
        found = 'none' if frames is None else len(frames)
        raise JobError(Status.BAD_INPUT, f'A run starts from one structure, but there are {found}.')
    return frames[0]


def _recorder(job: Job, settings: MdSettings, frame: Frame) -> Recorder:
    """Return what records the run, from the state to go on from."""
    identity = str(job.request.settings.get('identity', ''))
    folder = job.path('state')
    begun = None if folder is None else read_state(folder, identity)
    checkpoint = Checkpoint(job.folder / FOLDER, identity, asdict(settings))
    keeps_rows = bool(job.request.settings.get('keep_remote'))
    return Recorder(settings, frame, checkpoint, job.folder, begun=begun, keeps_rows=keeps_rows, report=job.progress)


def _run(
    job: Job,
    engine: Engine,
    architecture: Architecture,
    settings: MdSettings,
    frame: Frame,
    recorder: Recorder,
    segment: Segment,
) -> MdRun:
    """Return all that the engine needs."""
    potential, head = job.path('potential'), job.request.settings.get('head')
    if potential is None:
        raise JobError(Status.BAD_INPUT, 'A run needs a potential.')
    if engine.uses_calculator:
        facts, frames = architecture.facts(potential), job.frames('start')
        assert frames is not None
        refuse_unknown_elements(facts, frames)
        head = choose_head(facts, head)
    owner = architecture if engine.uses_calculator else engine
    return MdRun(
        settings=settings,
        frame=frame,
        architecture=architecture,
        potential=potential,
        recorder=recorder,
        folder=job.folder,
        head=head,
        device=owner.device(job.request.device),
        cores=job.request.cores,
        seed=job.request.seed,
        committee=tuple(job.folder / name for name in sorted(job.request.inputs) if name.startswith(COMMITTEE)),
        seconds_left=segment.seconds_left,
    )
