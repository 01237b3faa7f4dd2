"""A training by neppo: its program is started, followed and read."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.architectures.nep import neppo_program
from aiida_perovmlip.compute.architectures.nep.following import failure, follow
from aiida_perovmlip.compute.contract import JobError, Status

REPORTS = 40
"""About as many reports, and so states of the checkpoint, a training has."""

EPOCHS_BETWEEN = 2
"""Passes over the frames between two reports at least: a report costs a third of one."""

SAVE_EVERY = 2.0
"""Seconds between two states of the checkpoint at least."""


def train_with_neppo(
    training: Training, wanted: dict[str, Any], about: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the program in the folder of the training; return the curve and the settings that the trainer held."""
    _write_request(training, wanted, about)
    state = training.checkpoint.state()
    curve = _Curve(training, wanted['steps'], list(state.curve) if state else [])
    program = f'import sys; from {neppo_program.__name__} import main; sys.exit(main({neppo_program.REQUEST!r}))'
    command = [sys.executable, '-c', program]
    end = follow(command, training, curve.look)
    if end.code == neppo_program.DIVERGED:
        raise JobError(
            Status.DIVERGED,
            f'The loss is not a finite number at step {curve.reached}. Lower `learning_rate`, or look for frames with '
            'very large forces.',
            {'curve': curve.steps},
        )
    if end.out_of_time or end.code == neppo_program.STOPPED:
        saved = training.checkpoint.state()
        where = f'the state of step {saved.step} was saved' if saved else 'no state was saved yet'
        message = f'The trainer was stopped after step {curve.reached} of {wanted["steps"]}; {where}.'
        raise JobError(Status.OUT_OF_WALLTIME, message, {'curve': curve.steps})
    if end.code:
        raise failure(training, end.code, curve.steps, 'batch_size')
    return curve.steps, json.loads((training.folder / neppo_program.EFFECTIVE).read_text())


def report_every(steps: int, batch_size: int, n_frames: int) -> int:
    """Return the steps between two reports."""
    return min(steps, max(steps // REPORTS, EPOCHS_BETWEEN * math.ceil(n_frames / batch_size), 1))


def _write_request(training: Training, wanted: dict[str, Any], about: dict[str, Any]) -> None:
    """Write what the program needs to know beside `nep.in`; remove what an earlier attempt left."""
    for name in (neppo_program.CURVE, neppo_program.EFFECTIVE, neppo_program.LAST, neppo_program.BEST, 'loss.out'):
        (training.folder / name).unlink(missing_ok=True)
    request = {
        'checkpoint': str(training.checkpoint.folder),
        'identity': training.checkpoint.identity,
        'settings': training.checkpoint.settings,
        'about': about,
        'device': training.device,
        'cores': training.cores,
        'report_every': report_every(wanted['steps'], wanted['batch_size'], len(training.training)),
        'save_every': SAVE_EVERY,
    }
    (training.folder / neppo_program.REQUEST).write_text(json.dumps(request))


class _Curve:
    """The training curve, read as it grows."""

    def __init__(self, training: Training, of: int, steps: list[dict[str, Any]]) -> None:
        self.training, self.of, self.steps = training, of, steps
        self.path: Path = training.folder / neppo_program.CURVE
        self.position = 0

    @property
    def reached(self) -> int:
        """The last step that was reported."""
        return int(self.steps[-1]['step']) if self.steps else 0

    def look(self) -> None:
        """Report what is new."""
        if not self.path.is_file():
            return
        with self.path.open() as handle:
            handle.seek(self.position)
            for line in iter(handle.readline, ''):
                if not line.endswith('\n'):
                    return  # the trainer is writing it right now
                self.position = handle.tell()
                self.steps.append(json.loads(line))
                self.training.report({**self.steps[-1], 'of': self.of})
