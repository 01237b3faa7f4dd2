"""A training by mace-torch's command line: followed, saved, taken up, and ended where it should end."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.architectures.mace.arguments import NAME, command_of
from aiida_perovmlip.compute.architectures.mace.heads import Head
from aiida_perovmlip.compute.architectures.mace.network import preload, set_rates
from aiida_perovmlip.compute.architectures.mace.results import Results, States
from aiida_perovmlip.compute.architectures.mace.settings import MaceSettings, rate_of
from aiida_perovmlip.compute.checkpoint import State
from aiida_perovmlip.compute.children import failure_of, last_lines_of, python_path, start_child
from aiida_perovmlip.compute.contract import JobError, Status

LOG = 'trainer.log'
BEST = 'best.pt'
NEWEST = 'newest.pt'
POLL = 0.5
"""Seconds between two looks at the trainer's results."""

PATIENCE = 20.0
"""Seconds that a trainer which was asked to end may take."""

SAVE_EVERY = 15.0
"""Seconds between two states of the checkpoint: what a job that is killed loses at most, and what it costs others."""

STAGE_TWO = ('stage_two', 'start_stage_two')
"""Arguments that make a second stage."""


class Run:
    """A training in legs: one where nothing interrupts it; another begins where stage one ends early.

    The trainer saves a state of each epoch, of which this keeps the newest and the best. After its last epoch the
    trainer writes a network, of which the shape is used: the parameters are those of the best epoch over all legs.

    :param about: what is kept with the states, as plain JSON.
    """

    def __init__(
        self,
        training: Training,
        heads: Sequence[Head],
        arguments: Mapping[str, Any],
        about: Mapping[str, Any],
        state: State | None,
    ) -> None:
        self.training, self.arguments, self.about = training, dict(arguments), dict(about)
        self.settings: MaceSettings = training.settings
        tag = f'{NAME}_run-{training.seed}'
        self.results = Results(training.folder / 'results' / f'{tag}_train.txt', heads)
        self.states = States(training.folder / 'checkpoints', tag)
        self.curve: list[dict[str, Any]] = []
        self.asked_rate = self.rate = rate_of(self.settings, training.known is not None)
        self.newest = training.folder / NEWEST
        self.saved = -math.inf  # the first epoch is saved at once
        self.was_running = False
        if state is not None:
            self._take_up(state)

    @property
    def best(self) -> Path:
        """Where the state of the best epoch lies."""
        return self.training.folder / BEST

    @property
    def shell(self) -> Path:
        """Where the trainer writes a network."""
        return self.training.folder / f'{NAME}.model'

    @property
    def done(self) -> int:
        """The number of epochs that were done."""
        return int(self.curve[-1]['step']) if self.curve else 0

    @property
    def stage_one(self) -> int:
        """The number of epochs of stage one: fewer than asked where it ended early."""
        steps = [step for step in self.curve if step.get('stage', 1) == 1]
        is_over = len(steps) < len(self.curve) or self._ran_out_of_patience(steps)
        return len(steps) if is_over else self.settings.epochs

    @property
    def total(self) -> int:
        """The number of epochs of all stages, as far as is known now."""
        steps = [step for step in self.curve if step.get('stage') == 2]
        if self._ran_out_of_patience(steps):
            return self.done
        return self.stage_one + self.settings.stage_two_epochs

    def run(self) -> None:
        """Train to the end."""
        while self.done < self.total:
            self._leg(self.total)
        if not self.shell.is_file():
            self._close()
        if not self.shell.is_file() or not self.best.is_file():
            raise JobError(Status.FAILED, f'The trainer ended without a potential. {last_lines(self.training.folder)}')

    # ------------------------------------------------------------------ states

    def _take_up(self, state: State) -> None:
        """Take what an earlier run left."""
        self.curve = list(state.curve)
        self.rate = float(state.told('learning_rate')['learning_rate'])
        shutil.copyfile(state.file(NEWEST), self.newest)
        shutil.copyfile(state.file(BEST), self.best)

    def save(self) -> None:
        """Add the newest and the best state to the checkpoint."""
        if not self.curve or not self.newest.is_file():
            return
        about = {**self.about, 'learning_rate': self.rate}
        files = {NEWEST: self.newest, BEST: self.best}
        self.training.checkpoint.save(self.done, files, self.curve, about)
        self.saved = time.monotonic()

    def _put_back(self) -> None:
        """Give the trainer the newest state as that of the epoch to come, which it repeats."""
        kept = self._keep_newest()
        self.states.clear()
        if not self.curve:
            return
        self.states.folder.mkdir(exist_ok=True)
        target = self.states.path(self.done, self.done > self.stage_one)
        of_stage_two = self.settings.stage_two_learning_rate if self.settings.stage_two_epochs else None
        rate = of_stage_two if self.done >= self.stage_one else None
        factor = self.asked_rate / self.rate if self.rate else 1.0
        if factor == 1.0 and of_stage_two is None:
            shutil.copyfile(kept, target)
        else:
            set_rates(kept, target, factor, rate, of_stage_two)
        if self.done > self.stage_one:  # without a state of stage one the trainer fails at its end
            shutil.copyfile(kept, self.states.path(0))

    def _keep_newest(self) -> Path:
        """Put the newest state where the trainer writes none; return where it lies."""
        kept = self.training.folder / NEWEST
        if self.newest != kept:
            shutil.copyfile(self.newest, kept)
            self.newest = kept
        return kept

    # ------------------------------------------------------------------ legs

    def _leg(self, total: int) -> None:
        """Train until all epochs are done, or until a stage ends early."""
        self._put_back()
        changed = {'max_num_epochs': total}
        if self.settings.stage_two_epochs:
            changed['start_stage_two'] = self.stage_one
        is_enough, process = self._follow_trainer(self.arguments | changed)
        if is_enough:
            return
        self._refuse_failure(process)
        if self.done < total:
            raise JobError(
                Status.FAILED,
                f'The trainer ended after {self.done} of {total} epochs. {last_lines(self.training.folder)}',
                {'curve': self.curve},
            )

    def _close(self) -> None:
        """Let the trainer write a network without any further epoch."""
        self.save()
        self._keep_newest()
        self.states.clear()
        self.states.folder.mkdir(exist_ok=True)
        shutil.copyfile(self.best, self.states.path(self.done))
        arguments = {name: value for name, value in self.arguments.items() if name not in STAGE_TWO}
        _, process = self._follow_trainer(arguments | {'max_num_epochs': self.done})
        self._refuse_failure(process)

    def _follow_trainer(self, arguments: Mapping[str, Any]) -> tuple[bool, subprocess.Popen[bytes]]:
        """Run the trainer while there is time; return whether what it did is enough, and its process."""
        folder, gpus = self.training.folder, self.settings.gpus
        threads = str(max(self.training.cores // gpus, 1))
        environment = {**os.environ, 'PYTHONPATH': python_path(), 'OMP_NUM_THREADS': threads}
        self.shell.unlink(missing_ok=True)
        self.results.skip()
        is_enough, total = False, self.total
        with (folder / LOG).open('a') as log:
            process = start_child(command_of(arguments, gpus), folder, log, environment)
            try:
                preload()
                while process.poll() is None and self.training.seconds_left() > 0 and not is_enough:
                    time.sleep(POLL)
                    is_enough = self._take_new(total, ended=False)
            finally:
                self.was_running = process.poll() is None
                end(process)
        return is_enough or self._take_new(total, ended=True), process

    def _take_new(self, total: int, ended: bool) -> bool:
        """Take the epochs that are new; return whether a stage ends early with one of them."""
        for step in self.results.new_epochs(ended):
            if step['step'] != self.done + 1:
                raise JobError(
                    Status.SETTINGS_IGNORED,
                    f'The trainer reports epoch {step["step"]} where {self.done + 1} was expected: it did not take up '
                    'the state that it was given. Settings of the network cannot change where a training is taken up.',
                    {'curve': self.curve},
                )
            path = self.states.whole(step['step'] - 1)
            if path is None and ended:
                return False  # it was ended while it wrote
            if path is None:
                raise JobError(Status.FAILED, f'The trainer wrote no state of epoch {step["step"]}.')
            self._take(step, path, total)
            if self.settings.patience and self.total != total:
                return True
        return False

    def _take(self, step: dict[str, Any], path: Path, total: int) -> None:
        """Add an epoch to the curve, and keep its state."""
        if self.settings.stage_two_epochs:
            step['stage'] = 2 if step['step'] > self.stage_one else 1
        self._refuse_divergence(step)
        self.curve.append(step)
        self.newest, self.rate = path, self.asked_rate
        self.training.report({**step, 'of': total})
        if best_step(self.curve) == step['step']:
            shutil.copyfile(path, self.best)
        if time.monotonic() - self.saved >= SAVE_EVERY:
            self.save()
        self.states.prune(path)

    # ------------------------------------------------------------------ ends

    def _ran_out_of_patience(self, steps: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the steps of a stage show no improvement for as long as was asked."""
        if not steps or not self.settings.patience:
            return False
        return int(steps[-1]['step']) - best_step(steps) >= self.settings.patience

    def _refuse_divergence(self, step: Mapping[str, Any]) -> None:
        """Raise where a loss is not a finite number; mace-torch would take it for the best."""
        bad = sorted(name for name, value in step.items() if 'loss' in name and not math.isfinite(value))
        if bad:
            raise JobError(
                Status.DIVERGED,
                f'The training diverged: {", ".join(bad)} of epoch {step["step"]} is not a finite number. Lower the '
                'learning rate, or look for frames with very large forces.',
                {'curve': [*self.curve, dict(step)]},
            )

    def _refuse_failure(self, process: subprocess.Popen[bytes]) -> None:
        """Save the newest state and raise where the trainer did not end well."""
        # A scheduler may signal the trainer too, which then ends before it is asked.
        if self.was_running or (process.returncode and self.training.seconds_left() <= 0):
            self.save()
            raise JobError(
                Status.OUT_OF_WALLTIME,
                f'The trainer was stopped after epoch {self.done} of {self.total}. '
                + (
                    'Its state is in the checkpoint: give the working directory as `restart` to go on from there.'
                    if self.done
                    else 'Give it more time.'
                ),
                {'curve': self.curve},
            )
        if process.returncode:
            self.save()
            raise failure(self.training.folder, process.returncode, self.curve)


def best_step(curve: Sequence[Mapping[str, Any]]) -> int:
    """Return the step of the last stage with the smallest validation loss; losses of two stages do not compare."""
    stage = [step for step in curve if step.get('stage') == curve[-1].get('stage')]
    return int(min(stage, key=lambda step: float(step['validation_loss']))['step'])


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and make it end where it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def failure(folder: Path, code: int, curve: list[dict[str, Any]]) -> JobError:
    """Return what went wrong when the trainer failed."""
    log = (folder / LOG).read_text(errors='replace')
    return failure_of(code, log, f'after {len(curve)} epochs', 'lower `batch_size`', {'curve': curve})


def last_lines(folder: Path) -> str:
    """Return the end of the trainer's log."""
    path = folder / LOG
    return last_lines_of(path.read_text(errors='replace') if path.is_file() else '')
