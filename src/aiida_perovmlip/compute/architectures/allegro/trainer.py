"""A run of nequip's trainer: it is started, followed, stopped, and its states are saved."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.architectures.allegro.config import BEST, CONFIG, MONITORED, RESUMED, STATE, rate_of
from aiida_perovmlip.compute.checkpoint import State
from aiida_perovmlip.compute.children import failure_of, last_lines_of, python_path, start_child
from aiida_perovmlip.compute.contract import JobError, Status

LOG = 'trainer.log'
POLL = 0.5
"""Seconds between two looks at the trainer's curve."""

SAVE_EVERY = 60.0
"""Seconds between two states of the checkpoint."""

BEST_FILE, STATE_FILE = f'{BEST}.ckpt', f'{STATE}.ckpt'
"""The names of the two files of a state: the network with the least validation error, and what a run goes on from."""

TOLD = ('atomic_energies', 'best_loss', 'best_step', 'run')
"""What a state has to tell for a run to go on from it."""

QUANTITIES = {'per_atom_energy': 'energy_per_atom', 'forces': 'forces', 'stress': 'stress'}
TRAINED = 'train_loss_epoch/weighted_sum'


@dataclass
class Result:
    """What a training has reached so far, over all of its runs.

    :param curve: one entry an epoch.
    :param state: the checkpoint that the training goes on from, with all that was trained; None before there is one.
    :param best: the checkpoint with the least validation error.
    :param best_loss: that error, as the trainer weighs it.
    :param best_step: the epoch of that, counted from 1; 0 before there is one.
    """

    curve: list[dict[str, Any]]
    state: Path | None = None
    best: Path | None = None
    best_loss: float = math.inf
    best_step: int = 0

    @classmethod
    def of(cls, state: State | None) -> Result:
        """Return what an earlier run has reached."""
        if state is None:
            return cls([])
        best, about = state.file(BEST_FILE), state.about
        return cls(list(state.curve), state.file(STATE_FILE), best, about['best_loss'], about['best_step'])

    @property
    def step(self) -> int:
        """The number of epochs that are done."""
        return int(self.curve[-1]['step']) if self.curve else 0


def output_of(state: State | None) -> str:
    """Return the folder of the run that follows a state; that of the earlier run keeps its curve."""
    return 'run-1' if state is None else f'run-{state.about["run"] + 1}'


def write_resumed(state: State, settings: Any, has_parent: bool, target: Path) -> None:
    """Write the checkpoint that the trainer goes on from, with the learning rate that is asked for now.

    nequip takes the rate from the checkpoint and nothing else, in four places: that of the optimiser, those that the
    schedule remembers, and two copies of the configuration.
    """
    shutil.copyfile(state.file(STATE_FILE), target)
    before, now = (rate_of(rate, has_parent) for rate in (state.settings['learning_rate'], settings.learning_rate))
    if before == now:
        return
    import torch

    content = torch.load(target, map_location='cpu', weights_only=False)
    for optimizer in content['optimizer_states']:
        for group in optimizer['param_groups']:
            group |= {name: group[name] * now / before for name in ('lr', 'initial_lr') if name in group}
    for schedule in content['lr_schedulers']:
        for name in ('base_lrs', '_last_lr'):
            if name in schedule:
                schedule[name] = [rate * now / before for rate in schedule[name]]
    parameters = content['hyper_parameters']
    for module in (parameters, parameters['info_dict']['training_module']):
        module['optimizer']['lr'] = now
    torch.save(content, target)


def train(
    training: Training, config: Mapping[str, Any], earlier: State | None, about: Mapping[str, Any] | None = None
) -> Result:
    """Run the trainer to its end and return what it reached; whatever happens, its newest state is saved first.

    :param about: what else is kept with each state.
    :raises JobError: where it failed, where it diverged, or where the wall time ran out.
    """
    output = training.folder / config['trainer']['logger']['save_dir']
    shutil.rmtree(output, ignore_errors=True)  # of a run in the same place that left no state
    (training.folder / CONFIG).write_text(json.dumps(config, indent=1))
    run = _Run(training, output, earlier, about)
    if earlier is not None:
        write_resumed(earlier, training.settings, training.parent is not None, training.folder / RESUMED)
    command = [sys.executable, '-m', 'nequip.scripts.train', '-cn', CONFIG]
    with (training.folder / LOG).open('a') as log:
        process = start_child(command, training.folder, log, environment_of(training))
        try:
            while process.poll() is None and training.seconds_left() > 0:
                time.sleep(POLL)
                run.follow()
        finally:
            was_running = process.poll() is None
            end(process)
    run.follow()
    run.save()
    # A scheduler may signal the trainer too, which then ends before it is asked.
    if was_running or (process.returncode and training.seconds_left() <= 0):
        raise JobError(
            Status.OUT_OF_WALLTIME,
            f'The trainer was stopped at epoch {run.result.step} of {training.settings.epochs}; the training goes on '
            f'from epoch {run.saved_step} where it is taken up.',
            {'curve': run.result.curve},
        )
    if process.returncode:
        raise failure(training.folder, process.returncode, run.result.curve)
    if run.result.state is None or run.result.best is None:
        raise JobError(Status.FAILED, f'The trainer ended without a checkpoint. {last_lines(training.folder)}')
    return run.result


def environment_of(training: Training) -> dict[str, str]:
    """Return the environment of a program of nequip.

    Lightning would take a job of Slurm for its own: it counts tasks, and queues the job anew at a signal. Without a
    fixed seed of hashes, the order of what is packaged is another one each time.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith('SLURM_')}
    paths = python_path()  # the configuration names a function of ours
    return {**inherited, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': str(training.cores), 'PYTHONHASHSEED': '0'}


class _Run:
    """What is known of a run of the trainer while it works."""

    def __init__(
        self, training: Training, output: Path, earlier: State | None, about: Mapping[str, Any] | None = None
    ) -> None:
        self.training, self.output, self.about = training, output, dict(about or {})
        self.result = Result.of(earlier)
        if self.result.best is not None:  # the states that it lies in now are replaced by newer ones
            self.result.best = Path(shutil.copyfile(self.result.best, training.folder / BEST_FILE))
        self.number = 1 if earlier is None else earlier.about['run'] + 1
        self.saved_step = earlier.step if earlier else 0
        self.saved_at = -math.inf
        self.text = ''

    def follow(self) -> None:
        """Report the epochs that were finished since the last call, and save where it is time."""
        path = self.output / 'csv' / 'version_0' / 'metrics.csv'
        text = path.read_text(errors='replace') if path.is_file() else ''
        if text == self.text:
            return
        self.text = text
        for step in steps_of(text, after=self.result.step):
            self.result.curve.append(step)
            self.training.report({**step, 'of': self.training.settings.epochs})
            self._refuse_divergence(step)
        self._keep_best()
        if time.monotonic() - self.saved_at > SAVE_EVERY:
            self.save()

    def _refuse_divergence(self, step: Mapping[str, Any]) -> None:
        bad = sorted(name for name, value in step.items() if not math.isfinite(value))
        if not bad:
            return
        raise JobError(
            Status.DIVERGED,
            f'{", ".join(bad)} of epoch {step["step"]} is not a finite number. The state of epoch {self.saved_step} is '
            'saved. Lower `learning_rate`, or look for frames with very large forces.',
            {'curve': self.result.curve},
        )

    def _keep_best(self) -> None:
        """Copy the best network of all epochs in the curve, before the trainer deletes it in favour of better ones."""
        losses = {int(step['step']): float(step['validation_loss']) for step in self.result.curve}
        found = sorted((losses[step], step) for step in self._checkpoints(BEST) if step in losses)
        for loss, step in found:
            if loss >= self.result.best_loss:
                return
            target = self.training.folder / f'new-{BEST_FILE}'
            if self._copy(BEST, step, target):
                self.result.best = target.replace(self.training.folder / BEST_FILE)
                self.result.best_loss, self.result.best_step = loss, step
                return

    def save(self) -> None:
        """Add the newest state of the trainer to the checkpoint, with the best network of all runs.

        The trainer may be writing just now: what is not whole, or not in the curve yet, is left for the next time; so
        is a state whose best network is not there, as the run that took it up would not find it again.
        """
        state = self._newest(newer_than=self.saved_step)
        if state is None or state > self.result.step:
            return
        self._keep_best()
        least = min(float(step['validation_loss']) for step in self.result.curve[:state])
        if self.result.best is None or self.result.best_loss > least:
            return
        self.result.state = (self.training.folder / f'new-{STATE_FILE}').replace(self.training.folder / STATE_FILE)
        about = {'best_loss': self.result.best_loss, 'best_step': self.result.best_step, 'run': self.number}
        files = {STATE_FILE: self.result.state, BEST_FILE: self.result.best}
        self.training.checkpoint.save(state, files, self.result.curve[:state], {**self.about, **about})
        self.saved_at, self.saved_step = time.monotonic(), state

    def _newest(self, newer_than: int) -> int | None:
        """Copy the newest state that is whole; return the epochs that it has seen."""
        for step in sorted(self._checkpoints(STATE), reverse=True):
            if step <= newer_than:
                return None
            if self._copy(STATE, step, self.training.folder / f'new-{STATE_FILE}'):
                return step
        return None

    def _checkpoints(self, stem: str) -> dict[int, Path]:
        """Return the trainer's checkpoints of a kind by the number of epochs that each has seen."""
        found = {path.stem.partition('-')[2]: path for path in self.output.glob(f'{stem}-*.ckpt')}
        return {int(epoch) + 1: path for epoch, path in found.items() if epoch.isdigit()}

    def _copy(self, stem: str, step: int, target: Path) -> bool:
        """Copy a checkpoint; return whether it was there, and whole."""
        try:
            shutil.copyfile(self._checkpoints(stem)[step], target)
        except (KeyError, FileNotFoundError):  # a newer one has taken its place
            return False
        return is_whole(target)


def steps_of(text: str, after: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the epochs of the trainer's curve that are complete, in the words of a training curve.

    The file has a row for each kind of event; that of an epoch are the row of the training and that of the validation.
    The stress error is the trainer's: over nine components, so that shear counts twice.

    :param after: epochs that are known already.
    """
    lines = text.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith('\n')]  # the trainer is writing the last one right now
    epochs: dict[int, dict[str, str]] = {}
    for row in csv.DictReader(io.StringIO(''.join(whole))):
        if row.get('epoch'):
            entries = {name: value for name, value in row.items() if name and value}
            epochs.setdefault(int(row['epoch']), {}).update(entries)
    for epoch in sorted(epochs):
        row = epochs[epoch]
        if epoch + 1 <= after or TRAINED not in row or MONITORED not in row:
            continue
        step = {'step': epoch + 1, 'loss': float(row[TRAINED]), 'validation_loss': float(row[MONITORED])}
        for theirs, ours in QUANTITIES.items():
            if value := row.get(f'val0_epoch/{theirs}_rmse'):
                step[f'validation_{ours}_rmse'] = float(value)
        yield step


def is_whole(path: Path) -> bool:
    """Whether a checkpoint was written to its end; it is an archive whose parts have checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def run_to_end(training: Training, command: Sequence[str], folder: Path, what: str) -> None:
    """Run a program of nequip that is no training; raise where it fails or where time runs out."""
    with (training.folder / LOG).open('a') as log:
        process = start_child(list(command), folder, log, environment_of(training))
        try:
            while process.poll() is None and training.seconds_left() > 0:
                time.sleep(POLL / 5)
        finally:
            was_running = process.poll() is None
            end(process)
    if was_running:
        raise JobError(
            Status.OUT_OF_WALLTIME, f'The wall time ran out while {what}. Take the run up: nothing is trained again.'
        )
    if process.returncode:
        raise JobError(
            Status.FAILED, f'nequip failed while {what} (exit {process.returncode}). {last_lines(training.folder)}'
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Make a program end; asking first would gain nothing, as whole states of it lie on disk all the time."""
    if process.poll() is None:
        process.kill()
        process.wait()


def failure(folder: Path, code: int, curve: list[dict[str, Any]]) -> JobError:
    """Return what went wrong when the trainer failed."""
    log = (folder / LOG).read_text(errors='replace')
    advice = 'halve `batch_size` and double `accumulate`'
    return failure_of(code, log, f'after {len(curve)} epochs', advice, {'curve': curve})


def last_lines(folder: Path) -> str:
    """Return the end of the trainer's log."""
    return last_lines_of((folder / LOG).read_text(errors='replace'))
