"""GPUMD's trainer, the executable `nep`: an evolution strategy on a GPU."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.architectures.nep.following import LOG, failure, follow, last_lines
from aiida_perovmlip.compute.architectures.nep.loss_file import read_loss
from aiida_perovmlip.compute.architectures.nep.potential_file import FILENAME, Header, read_nep
from aiida_perovmlip.compute.contract import JobError, Status

LOSS, RESTART, FORCES = 'loss.out', 'nep.restart', 'force_test.out'
FINISHED = 'Finished running nep.'
"""What GPUMD prints at its end."""

FOUNDATION = 89
"""Elements of the only potential that GPUMD's keyword `fine_tune` reads."""

SIGMA = 0.1
"""How far the search goes at first from a parameter of the parent, as a part of its size."""

SAVE_EVERY = 60.0
"""Seconds between two states of the checkpoint."""


def executable_of(name: str) -> str:
    """Return where GPUMD's trainer is, or raise."""
    found = shutil.which(name)
    if found is None:
        raise JobError(
            Status.MISSING_PACKAGE,
            f"GPUMD's trainer `{name}` was not found. Load it where the job starts (for example `module load gpumd` in "
            'the `prepend_text` of the code), name its file by the setting `executable`, or take the trainer `neppo`.',
        )
    return found


def keywords_of_parent(parent: Path, header: Header, is_foundation: bool) -> dict[str, Any]:
    """Write what GPUMD needs to start from a parent; return the keywords of `nep.in` that say so.

    GPUMD's `fine_tune` counts lines for the 89 elements of NEP89 and reads rubbish from any other file. Any other
    parent is put where an earlier run would have left it, with the scales of its descriptors.
    """
    from calorine.nep import read_model

    model = read_model(str(parent)).set_restart_sigma('scale_mu', factor=SIGMA)
    folder = parent.parent
    if is_foundation:
        model.write_restart(str(folder / 'parent.restart'))
        return {'fine_tune': [parent.name, 'parent.restart']}
    shutil.copyfile(parent, folder / FILENAME)
    model.write_restart(str(folder / RESTART))
    return {'import_q_scaler': 1}


def train_with_gpumd(
    training: Training, wanted: dict[str, Any], about: dict[str, Any], header: Header
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the executable in the folder of the training; return the curve and the settings that it says it used."""
    command = [executable_of(wanted['executable'])]
    run = _Run(training, wanted, about, header)
    if run.done < wanted['generations']:
        end = follow(command, training, run.look)
        if end.out_of_time:
            run.save()
            raise JobError(
                Status.OUT_OF_WALLTIME,
                f'The trainer was stopped at generation {run.reached} of {wanted["generations"]}; the state of '
                f'generation {run.saved} was saved.',
                {'curve': run.curve},
            )
        if end.code:
            raise failure(training, end.code, run.curve, 'frames_per_generation')
        log = (training.folder / LOG).read_text(errors='replace')
        if FINISHED not in log:
            raise JobError(
                Status.FAILED,
                f'The trainer ended without `{FINISHED}` {last_lines(training.folder)}',
                {'curve': run.curve},
            )
        run.save()
    if run.reached != wanted['generations']:
        asked = wanted['generations']
        raise JobError(Status.SETTINGS_IGNORED, f'The trainer did {run.reached} of {asked} `generations`.')
    return run.curve, {'generations': run.reached, 'executable': wanted['executable'], **run.effective()}


class _Run:
    """One run of the executable, which may take up an earlier one."""

    def __init__(self, training: Training, wanted: dict[str, Any], about: dict[str, Any], header: Header) -> None:
        self.training, self.wanted, self.about, self.header = training, wanted, about, header
        self.folder, self.last_save = training.folder, time.monotonic()
        self.state = state = training.checkpoint.state()
        self.done = self.saved = state.step if state else 0
        self.earlier = list(state.curve) if state else []
        self.steps: list[dict[str, Any]] = []
        (self.folder / LOSS).unlink(missing_ok=True)
        if state is not None:
            for path in (state.file(name) for name in (RESTART, FILENAME, FORCES)):
                if path.is_file():
                    shutil.copyfile(path, self.folder / path.name)

    @property
    def curve(self) -> list[dict[str, Any]]:
        """All generations that were reported, over all runs."""
        return [*self.earlier, *self.steps]

    @property
    def reached(self) -> int:
        """The last generation that was reported."""
        return int(self.curve[-1]['step']) if self.curve else 0

    def look(self) -> None:
        """Report what is new, and save a state every now and then."""
        steps = read_loss(self.folder / LOSS, self.done, self.training.validation is not None)
        for step in steps[len(self.steps) :]:
            self.training.report({**step, 'of': self.wanted['generations']})
            if not abs(step['loss']) < float('inf'):
                message = f'The loss is {step["loss"]} at generation {step["step"]}; look for frames with large forces.'
                raise JobError(Status.DIVERGED, message, {'curve': [*self.curve, step]})
        self.steps = steps
        if time.monotonic() - self.last_save > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Save the state, where the trainer is not writing it just now."""
        files = {name: self.folder / name for name in (RESTART, FILENAME)}
        if self.reached > self.saved and all(map(self._is_whole, files)):
            if (self.folder / FORCES).is_file():
                files[FORCES] = self.folder / FORCES
            about = {**self.about, 'effective': self.effective()}
            self.training.checkpoint.save(self.reached, files, self.curve, about)
            self.saved, self.last_save = self.reached, time.monotonic()

    def _is_whole(self, name: str) -> bool:
        """Whether a file has all its lines."""
        path = self.folder / name
        if name == RESTART:
            return path.is_file() and path.read_bytes().count(b'\n') == self.header.n_parameters
        try:
            return bool(read_nep(path).header.elements)
        except JobError:
            return False

    def effective(self) -> dict[str, Any]:
        """Return the settings that the trainer printed in this run, or in the one before where nothing was left."""
        path = self.folder / LOG
        found = effective_of_log(path.read_text(errors='replace')) if path.is_file() else {}
        return found or dict(self.state.about['effective'] if self.state else {})


PRINTED = {
    'population size': 'population',
    'batch size': 'frames_per_generation',
    **{f'lambda_{name}': f'lambda_{name}' for name in '12efv'},
}


def effective_of_log(log: str) -> dict[str, Any]:
    """Return the settings that GPUMD printed as those it uses."""
    found: dict[str, Any] = {}
    for name, value in re.findall(r'^ +\((?:input|default)\) +(.+?) = (.+?)\.?\s*$', log, flags=re.MULTILINE):
        if name in PRINTED:
            found[PRINTED[name]] = float(value) if name.startswith('lambda') else int(value)
    changed = re.search(r'changed the batch_size from (\d+) to (\d+)', log)
    frames = [int(count) for count in re.findall(r'Number of configurations = (\d+)', log)]
    if changed and len(frames) != 1:
        found['frames_per_generation'] = int(changed.group(2))
    return found
