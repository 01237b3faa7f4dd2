"""Train a potential, reopen what was written, and say what really happened."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, Trained, Training
from aiida_perovmlip.compute.contract import JobError, Status, name_non_finite
from aiida_perovmlip.compute.task import Job, Task
from aiida_perovmlip.compute.tasks.evaluate import refuse_unknown_elements

POTENTIAL = 'potential'
CURVE = 'curve.json'


class Train(Task):
    """Train on the input `training`, choose by `validation`, start from `parent` where it is given."""

    def run(self, job: Job) -> dict[str, Any]:
        """Leave the potential in its folder; return its facts, the effective settings and the end of the curve."""
        architecture: Architecture = job.plugin('architecture')
        training = self._prepare(job, architecture)
        trained = architecture.train(training)
        curve = [name_non_finite(step) for step in trained.curve]
        (job.folder / CURVE).write_text(json.dumps(curve))
        facts = self._reopen(job, architecture, training)
        refuse_divergence(trained)
        said = job.request.settings.get(architecture.name, {})
        refuse_ignored_settings(
            asdict(training.settings), said, trained.effective, has_parent=training.parent is not None
        )
        return {
            'facts': asdict(facts),
            'settings': asdict(training.settings),
            'effective': trained.effective,
            'n_steps': len(curve),
            'last': curve[-1] if curve else {},
        }

    def _prepare(self, job: Job, architecture: Architecture) -> Training:
        """Return what the architecture needs, or refuse it before anything runs."""
        frames, validation = job.frames('training'), job.frames('validation')
        if frames is None:
            raise JobError(Status.BAD_INPUT, 'There are no frames to train on.')
        settings = job.settings_of(architecture)
        problem = architecture.check(settings, frames, validation)
        if problem:
            raise JobError(Status.BAD_INPUT, problem)
        parent = job.path('parent')
        if parent is not None:
            refuse_unknown_elements(architecture.facts(parent), frames)
        (job.folder / POTENTIAL).mkdir(exist_ok=True)
        return Training(
            folder=job.folder,
            training=frames,
            validation=validation,
            settings=settings,
            seed=job.request.seed,
            device=architecture.device(job.request.device),
            cores=job.request.cores,
            parent=parent,
            report=lambda state: job.progress(what='training', **state),
            seconds_left=job.seconds_left,
        )

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
    different = [name for name in asked if name in effective and not _equal(settings[name], effective[name])]
    facts = [f'`{name}`: asked {settings[name]!r}, done {effective[name]!r}' for name in sorted(different)]
    problems = [f'The trainer did not do what was asked. {"; ".join(facts)}.'] if facts else []
    unknown = sorted(set(given) - set(effective))
    problems += [f'It is not known whether `{name}` had an effect.' for name in unknown]
    if problems:
        raise JobError(Status.SETTINGS_IGNORED, ' '.join(problems))


def _equal(asked: Any, effective: Any) -> bool:
    """Whether two values are the same up to rounding."""
    if isinstance(asked, (int, float)) and isinstance(effective, (int, float)):
        return math.isclose(asked, effective, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(asked, dict) and isinstance(effective, dict):
        return asked.keys() == effective.keys() and all(_equal(asked[key], effective[key]) for key in asked)
    if isinstance(asked, (list, tuple)) and isinstance(effective, (list, tuple)):
        return len(asked) == len(effective) and all(map(_equal, asked, effective))
    return bool(asked == effective)
