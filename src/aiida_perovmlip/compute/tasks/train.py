"""Train a potential, reopen what was written, and say what really happened."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from aiida_perovmlip.compute.architecture import (
    Architecture,
    PotentialFacts,
    Trained,
    Training,
    common_problem,
    problem_of_shape,
)
from aiida_perovmlip.compute.checkpoint import FOLDER, Checkpoint, State
from aiida_perovmlip.compute.contract import JobError, Status, name_non_finite
from aiida_perovmlip.compute.frames import sha256_of
from aiida_perovmlip.compute.settings import are_same
from aiida_perovmlip.compute.task import Job, Task
from aiida_perovmlip.compute.tasks.evaluate import refuse_unknown_elements

POTENTIAL = 'potential'
CURVE = 'curve.json'
ENDED = 'ended.json'
"""What a training that reached its end has to say. It lies where it was trained and is in no copy of its checkpoint: a
job that finds it was put back into its queue, and is not one that was asked to take up what has ended."""

TWICE = 'The job was started once more after its training had ended; nothing was trained again.'


class Train(Task):
    """Train on `training`, choose by `validation`, start from `parent`, rehearse `replay`: each where it is given.

    Where a checkpoint of an earlier run of the same training lies in the folder, the training goes on from there.
    """

    def run(self, job: Job) -> dict[str, Any]:
        """Leave the potential in its folder; return its facts, the effective settings and the end of the curve."""
        architecture: Architecture = job.plugin('architecture')
        training = self._prepare(job, architecture)
        ended = _results_of_end(job, training)
        if ended is not None and self._is_as_it_was(job, architecture, training, ended['facts']):
            training.checkpoint.finish()
            return {**ended, 'notes': [*ended['notes'], TWICE]}
        resumed, notes = self._resumed(job, architecture, training)
        try:
            trained = architecture.train(training)
        except Exception as error:
            results = _keep_curve(job, training, error)
            if isinstance(error, JobError):
                error.results |= results
            raise
        curve = _write_curve(job, trained.curve)
        facts = self._reopen(job, architecture, training)
        refuse_divergence(trained)
        said = job.request.settings.get(architecture.name, {})
        refuse_ignored_settings(
            asdict(training.settings), said, trained.effective, has_parent=training.parent is not None
        )
        dropped = sorted(set(training.known.elements) - set(facts.elements)) if training.known else []
        if dropped:
            notes.append(f'The parent knew {", ".join(dropped)}, which the potential no longer does.')
        results = {
            'facts': asdict(facts),
            'strategy': training.strategy,
            'settings': asdict(training.settings),
            'effective': trained.effective,
            'resumed_from_step': resumed,
            'dropped_elements': dropped,
            'notes': [*notes, *trained.notes],
            'n_steps': len(curve),
            'last': curve[-1] if curve else {},
        }
        _write_end(job, training, results)
        training.checkpoint.finish()
        return results

    def _prepare(self, job: Job, architecture: Architecture) -> Training:
        """Return what the architecture needs, or refuse it before anything runs."""
        frames = job.frames('training')
        if frames is None:
            raise JobError(Status.BAD_INPUT, 'There are no frames to train on.')
        parent, settings = job.path('parent'), job.settings_of(architecture)
        strategy = job.request.settings.get('strategy') or ('scratch' if parent is None else 'naive')
        training = Training(
            strategy=strategy,
            settings=settings,
            training=frames,
            validation=job.frames('validation'),
            replay=job.frames('replay'),
            known=None if parent is None else architecture.facts(parent),
            said=frozenset(job.request.settings.get(architecture.name, {})),
            has_level_of_parent=job.request.settings.get('has_level_of_parent'),
            folder=job.folder,
            checkpoint=Checkpoint(job.folder / FOLDER, _identity(job, architecture, strategy), asdict(settings)),
            seed=job.request.seed,
            device=architecture.device(job.request.device),
            cores=job.request.cores,
            parent=parent,
            report=lambda state: job.progress(what='training', **state),
            seconds_left=job.seconds_left,
        )
        problem = common_problem(architecture, training)
        if parent is not None and not problem:
            problem = problem_of_shape(training, architecture.shape_of(parent, settings))
        if problem:
            raise JobError(Status.BAD_INPUT, problem)
        (job.folder / POTENTIAL).mkdir(exist_ok=True)
        return training

    def _resumed(self, job: Job, architecture: Architecture, training: Training) -> tuple[int | None, list[str]]:
        """Return the step from which an earlier run is taken up, and what is to be said of its checkpoint."""
        state = training.checkpoint.state()
        damaged = '; '.join(training.checkpoint.damaged)
        notes = [f'States of the checkpoint that could not be used were passed over: {damaged}.'] if damaged else []
        if not job.request.settings.get('restart'):
            return (None, notes) if state is None else (state.step, notes)
        if training.checkpoint.finished:
            raise JobError(
                Status.BAD_INPUT,
                'The earlier run had reached its end: there is nothing to take up. Training it on would spoil its '
                'result; start a new training with its potential as parent.',
            )
        if state is None and training.checkpoint.is_foreign:
            raise JobError(
                Status.BAD_INPUT,
                'The earlier run is of another training: its frames, parent, strategy or seed differ from what is '
                'asked for now. Give the `remote_folder` of a run of this one, or train anew without `restart`.',
            )
        if state is None:
            notes.append('The earlier run had left no state that could be used; the training began anew.')
            return None, notes
        notes += _changes(architecture, training.settings, state)
        for step in state.curve:
            job.progress(what='training', **step)
        return state.step, notes

    def _is_as_it_was(self, job: Job, architecture: Architecture, training: Training, facts: dict[str, Any]) -> bool:
        """Whether the potential of a training that has ended is there; if not, it is made again from the last state."""
        try:
            found = self._reopen(job, architecture, training)
        except Exception:  # a damaged file can raise anything
            return False
        return bool(json.loads(json.dumps(name_non_finite(asdict(found)))) == facts)

    def _reopen(self, job: Job, architecture: Architecture, training: Training) -> PotentialFacts:
        """Read the facts of the potential from its files; it has to know all that it was trained on."""
        folder = job.folder / POTENTIAL
        if not any(path.is_file() for path in folder.rglob('*')):
            raise JobError(Status.FAILED, 'The training ended without an error, but left no potential.')
        facts = architecture.facts(folder)
        refuse_unknown_elements(facts, training.training)
        if not facts.n_parameters:
            raise JobError(Status.FAILED, f'The potential has {facts.n_parameters} parameters.')
        return facts


def _identity(job: Job, architecture: Architecture, strategy: str) -> str:
    """Return what an earlier run must have in common with this one; settings may differ, as after a repair."""
    parts = [architecture.name, strategy, str(job.request.seed)]
    for name in ('training', 'validation', 'replay', 'parent'):
        folder = job.path(name)
        files = sorted(path for path in folder.rglob('*') if path.is_file()) if folder else []
        parts += [f'{name}/{path.relative_to(folder)} {sha256_of(path)}' for path in files if folder]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def _results_of_end(job: Job, training: Training) -> dict[str, Any] | None:
    """Return what this training has said at its end; None where it has not ended in this folder."""
    try:
        content = json.loads((job.folder / ENDED).read_text())
        known = [content[name] for name in ('identity', 'settings')]
        results: dict[str, Any] = content['results']
    except (OSError, ValueError, KeyError, TypeError):
        return None
    asked = [training.checkpoint.identity, name_non_finite(training.checkpoint.settings)]
    return results if known == json.loads(json.dumps(asked)) else None


def _write_end(job: Job, training: Training, results: dict[str, Any]) -> None:
    """Write what is to be said of a training that has ended: its job may be started again before it is read."""
    content = {'identity': training.checkpoint.identity, 'settings': training.checkpoint.settings, 'results': results}
    partial = job.folder / f'{ENDED}.partial'
    partial.write_text(json.dumps(name_non_finite(content)))
    partial.replace(job.folder / ENDED)


def _changes(architecture: Architecture, settings: Any, state: State) -> list[str]:
    """Return what changes on the way, as a note; raise where that would have no effect."""
    now, before = name_non_finite(asdict(settings)), state.settings
    changed = sorted(name for name in now if name in before and now[name] != before[name])
    words = [f'`{name}`: {before[name]!r} before, {now[name]!r} now' for name in changed]
    fixed = sorted(set(changed) - architecture.may_change(settings, state))
    if fixed:
        facts = '; '.join(text for name, text in zip(changed, words, strict=True) if name in fixed)
        raise JobError(
            Status.BAD_INPUT,
            f'A training that is taken up keeps settings in its state, so that these would have no effect: {facts}. '
            'Leave them as they were, or train anew without `restart`.',
        )
    return [f'Settings changed at step {state.step}: {"; ".join(words)}.'] if words else []


def _write_curve(job: Job, curve: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the training curve; return it with numbers that JSON can hold."""
    steps = [name_non_finite(step) for step in curve]
    (job.folder / CURVE).write_text(json.dumps(steps))
    return steps


def _keep_curve(job: Job, training: Training, error: Exception) -> dict[str, Any]:
    """Keep what a training that failed has learned of itself: its curve, and the step from which it can go on."""
    state = training.checkpoint.state()
    told = error.results.pop('curve', None) if isinstance(error, JobError) else None
    curve = told or (state.curve if state else [])
    if curve:
        _write_curve(job, curve)
    return {'n_steps': len(curve), 'checkpoint_step': state.step if state else None}


def refuse_divergence(trained: Trained) -> None:
    """Raise where the last step of the curve holds a number that is not finite."""
    last = trained.curve[-1] if trained.curve else {}
    bad = sorted(name for name, value in last.items() if isinstance(value, float) and not math.isfinite(value))
    if bad:
        raise JobError(
            Status.DIVERGED,
            f'The training diverged: {", ".join(bad)} of the last step is not a finite number. '
            'Lower the learning rate, or look for frames with very large forces.',
        )


def refuse_ignored_settings(
    settings: dict[str, Any], said: Iterable[str], effective: dict[str, Any], has_parent: bool = False
) -> None:
    """Raise where the trainer did something else than it was asked to, or does not tell what it did.

    :param said: names of the settings that the user gave; None as a value leaves the choice to the architecture.
    :param has_parent: whether a parent has the last word on what was not said.
    """
    given = [name for name in said if settings[name] is not None]
    asked = given if has_parent else [name for name, value in settings.items() if value is not None]
    different = [name for name in asked if name in effective and not are_same(settings[name], effective[name])]
    facts = [f'`{name}`: asked {settings[name]!r}, done {effective[name]!r}' for name in sorted(different)]
    problems = [f'The trainer did not do what was asked. {"; ".join(facts)}.'] if facts else []
    unknown = sorted(set(given) - set(effective))
    problems += [f'It is not known whether `{name}` had an effect.' for name in unknown]
    if problems:
        raise JobError(Status.SETTINGS_IGNORED, ' '.join(problems))
