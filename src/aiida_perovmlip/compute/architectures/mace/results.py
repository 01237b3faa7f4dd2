"""What MACE's trainer writes while it trains: its results as steps of a training curve, and its states."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.architectures.mace.heads import Head

QUANTITIES = (('rmse_e_per_atom', 'energy_per_atom'), ('rmse_f', 'forces'), ('rmse_stress', 'stress'))
"""Their names of errors, and ours."""


class Results:
    """The trainer's results file, read as it grows.

    The errors of one head have plain names. Where there are several, each has errors of its own, `…__<head>`; plain are
    those of the first head of the training frames, and `validation_loss`, the mean over all heads of the training
    frames, by which the best epoch is chosen. (mace-torch chooses by its last head.)
    """

    def __init__(self, path: Path, heads: Sequence[Head]) -> None:
        self.path, self.position = path, 0
        self.names = {head.alias: head.name for head in heads}
        self.targets = [head.alias for head in heads if not head.is_replay]
        self.losses: list[float] = []
        self.epoch: int | None = None
        self.errors: dict[str, Mapping[str, Any]] = {}

    def new_epochs(self, ended: bool) -> Iterator[dict[str, Any]]:
        """Yield the epochs that were finished since the last call, in words of a training curve.

        An epoch is finished when the trainer has gone on to the next one, or has ended: it writes the state of an epoch
        after the errors of it.

        :param ended: whether the trainer has.
        """
        for entry in self._new_entries():
            if entry.get('epoch') is None:
                continue
            if entry['epoch'] != self.epoch:
                yield from self._finished()
                self.epoch = entry['epoch']
            if entry['mode'] == 'opt':
                self.losses.append(entry['loss'])
            else:
                self.errors[entry['head']] = entry
        if ended:
            yield from self._finished()

    def skip(self) -> None:
        """Forget what is in the file until now: epochs of a trainer that was ended after it had done enough."""
        self.position = self.path.stat().st_size if self.path.is_file() else 0
        self.epoch, self.losses, self.errors = None, [], {}

    def _new_entries(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that were added."""
        if not self.path.is_file():
            return
        with self.path.open() as handle:
            handle.seek(self.position)
            for line in iter(handle.readline, ''):
                if not line.endswith('\n'):
                    return  # the trainer is writing it right now
                self.position = handle.tell()
                yield json.loads(line)

    def _finished(self) -> Iterator[dict[str, Any]]:
        """Yield the epoch whose errors of all heads are known; one that is not finished is forgotten."""
        if self.epoch is not None and set(self.errors) == set(self.names):
            yield self._step(self.epoch)
        self.epoch, self.losses, self.errors = None, [], {}

    def _step(self, epoch: int) -> dict[str, Any]:
        """Return one epoch."""
        losses = [float(self.errors[alias]['loss']) for alias in self.targets]
        step: dict[str, Any] = {'step': epoch + 1, 'loss': sum(self.losses) / max(len(self.losses), 1)}
        step |= _errors(self.errors[self.targets[0]])
        step['validation_loss'] = sum(losses) / len(losses)
        if len(self.names) > 1:
            for alias, name in self.names.items():
                step |= {f'{key}__{name}': value for key, value in _errors(self.errors[alias]).items()}
        return step


def _errors(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the errors of one head in our words."""
    known = {f'validation_{ours}_rmse': entry[theirs] for theirs, ours in QUANTITIES if entry.get(theirs) is not None}
    return {'validation_loss': entry['loss'], **known}


class States:
    """The folder in which the trainer keeps a state of each epoch.

    :param tag: name and seed, by which it knows its files.
    """

    def __init__(self, folder: Path, tag: str) -> None:
        self.folder, self.tag = folder, tag

    def path(self, epoch: int, is_stage_two: bool = False) -> Path:
        """Return where the state of an epoch lies; the first epoch is number 0."""
        return self.folder / f'{self.tag}_epoch-{epoch}{"_swa" if is_stage_two else ""}.pt'

    def whole(self, epoch: int) -> Path | None:
        """Return the state of an epoch; None where there is none, or where its file is not whole."""
        for path in (self.path(epoch, True), self.path(epoch)):
            if path.is_file() and is_whole(path):
                return path
        return None

    def prune(self, newest: Path) -> None:
        """Delete all but the newest state, and one of stage one, without which the trainer fails at its end."""
        number = _epoch(newest)
        older = sorted((path for path in self.folder.glob('*.pt') if _epoch(path) < number), key=_epoch)
        of_stage_one = [path for path in older if '_swa' not in path.name]
        kept = of_stage_one[-1:] if '_swa' in newest.name else []
        for path in older:
            if path not in kept:
                path.unlink()

    def clear(self) -> None:
        """Delete all states."""
        for path in self.folder.glob('*.pt'):
            path.unlink()


def _epoch(path: Path) -> int:
    """Return the number of the epoch of a state."""
    return int(path.stem.removesuffix('_swa').rpartition('-')[2])


def is_whole(path: Path) -> bool:
    """Whether a torch file, an archive with checksums, is complete."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
