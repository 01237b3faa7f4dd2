"""A checkpoint: what a training needs to go on where an earlier run of it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.contract import JobError, Status, name_non_finite

FOLDER = 'checkpoint'
"""The folder of the job that holds it; a run that goes on with the training finds a copy of it there."""

STATE = 'state.json'
FINISHED = 'finished'
KEPT = 2
"""States that are kept: where the newest is damaged, the one before it serves."""


class ForeignStateError(ValueError):
    """A state that another training has left."""


@dataclass(frozen=True)
class State:
    """One state of a training.

    :param folder: where its files lie.
    :param step: the steps (epochs, generations) that were done.
    :param curve: the training curve up to here, over all runs.
    :param about: what the architecture wants to remember, as plain JSON.
    :param settings: the settings of the run that left it.
    """

    folder: Path
    step: int
    curve: list[dict[str, Any]]
    about: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """Return where a file of this state lies."""
        return self.folder / name

    def told(self, *names: str) -> dict[str, Any]:
        """Return entries of `about`; a state that lacks one of them cannot be gone on from."""
        missing = ', '.join(f'`{name}`' for name in names if name not in self.about)
        if missing:
            raise JobError(
                Status.BAD_INPUT,
                f'The state of step {self.step} does not tell {missing}: an earlier version of this package left it. '
                'It cannot be gone on from; train anew, without `restart`.',
            )
        return {name: self.about[name] for name in names}


class Checkpoint:
    """The states of one training on disk, whole at any moment.

    A state is written into a folder of its own, which gets its name when it is complete; its list of files with their
    SHA-256 tells a damaged one.

    :param identity: what a training has to have in common with the one that left the states: the architecture, the
        strategy, the frames, the parent, the seed. States of another training are refused.
    :param settings: the settings of this run, which its states remember.
    """

    def __init__(self, folder: Path, identity: str, settings: Mapping[str, Any] | None = None) -> None:
        self.folder, self.identity, self.settings = folder, identity, dict(settings or {})
        self.damaged: list[str] = []
        self.is_foreign = False

    def save(
        self,
        step: int,
        files: Mapping[str, Path],
        curve: Sequence[Mapping[str, Any]],
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a state; the files are copied. The oldest states go once the new one is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / 'partial'
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        hashes = {}
        for name, path in files.items():
            shutil.copyfile(path, partial / name)
            hashes[name] = _sha256(partial / name)
        content = {
            'identity': self.identity,
            'step': step,
            'files': hashes,
            'about': dict(about or {}),
            'settings': name_non_finite(self.settings),
            'curve': [name_non_finite(entry) for entry in curve],
        }
        text = json.dumps(content, allow_nan=False)
        (partial / STATE).write_text(json.dumps({'sha256': hashlib.sha256(text.encode()).hexdigest()}) + '\n' + text)
        for path in partial.iterdir():
            _sync(path)
        present = self._folders()
        partial.replace(self.folder / f'{self._number(present[-1]) + 1 if present else 1:06d}')
        for old in present[: -KEPT + 1]:
            shutil.rmtree(old, ignore_errors=True)

    def state(self) -> State | None:
        """Return the newest state that is whole; those that are not are named in `damaged`.

        `is_foreign` tells whether there was one of another training.
        """
        self.damaged, self.is_foreign = [], False
        for folder in reversed(self._folders()):
            try:
                return self._read(folder)
            except ForeignStateError as error:
                self.is_foreign = True
                self.damaged.append(f'{folder.name}: {error}')
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.damaged.append(f'{folder.name}: {error}')
        return None

    def finish(self) -> None:
        """Remember that the training has reached its end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / FINISHED).write_text(self.identity)

    @property
    def finished(self) -> bool:
        """Whether this training has reached its end already."""
        path = self.folder / FINISHED
        return path.is_file() and path.read_text() == self.identity

    def _read(self, folder: Path) -> State:
        """Read one state; raises where it is damaged or of another training."""
        first, _, text = (folder / STATE).read_text().partition('\n')
        if json.loads(first)['sha256'] != hashlib.sha256(text.encode()).hexdigest():
            raise ValueError(f'{STATE} is not as it was written')
        content = json.loads(text)
        if content['identity'] != self.identity:
            raise ForeignStateError('it belongs to another training')
        for name, sha256 in content['files'].items():
            if _sha256(folder / name) != sha256:
                raise ValueError(f'{name} is not as it was written')
        return State(folder, content['step'], content['curve'], content['about'], content['settings'])

    def _folders(self) -> list[Path]:
        """Return the folders of all states, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if path.name.isdigit()), key=self._number)

    @staticmethod
    def _number(folder: Path) -> int:
        return int(folder.name)


def _sha256(path: Path) -> str:
    with path.open('rb') as handle:
        return hashlib.file_digest(handle, 'sha256').hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file is on the disk: a name that points to nothing is worth nothing."""
    with path.open('rb') as handle:
        os.fsync(handle.fileno())
