"""Datasets from calculations that were not run by AiiDA, with the files as their origin."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.calculations.functions.hashes import hash_of
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.frame import Array, Frame, FrameError
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.base import Labeller, labeller_named

MOST_SENTENCES = 1000
"""How many of the frames that were left out a report tells of."""

COMPARED = ('labeller', 'functional', 'cutoff', 'dispersion', 'kpoints')
"""What a level of theory that is stated may not say otherwise than the output; the rest is worded freely."""

PAGE = 1000
"""Rows of a database in memory at a time."""

_FOLDER: ContextVar[Path] = ContextVar('folder')


@recorded
def import_run(
    labeller: orm.Str, folder: orm.FolderData | orm.SinglefileData, level: orm.Dict | None = None
) -> dict[str, orm.Data]:
    """Read the output files of a finished calculation, whoever ran it.

    Returns the `dataset` and a `report`: counts, frames that were left out and why, files with their hashes.

    :param labeller: name of the labeller that understands the files, such as `vasp`.
    :param folder: the output files, or the only one.
    :param level: level of theory, in place of the one that is read from the files; it may not contradict that.
    """
    with TemporaryDirectory(prefix='import-') as scratch:
        if isinstance(folder, orm.SinglefileData):
            path = _write(folder, Path(scratch))
        else:
            path = Path(scratch)
            folder.base.repository.copy_tree(path)
        return _read_run(labeller.value, path, level)


@recorded
def import_listed_files(labeller: orm.Str, files: orm.List, level: orm.Dict | None = None) -> dict[str, orm.Data]:
    """Read the output files of a finished calculation without keeping them; see `dataset_from_run`.

    :param files: `name` and `hash` of each file. What is read are files of this content and no others.
    """
    path = _FOLDER.get(None)
    if path is None:
        raise ValueError('the files are not part of the graph; import them again by `dataset_from_run`.')
    return _read_run(labeller.value, path, level, files.get_list())


def dataset_from_run(
    path: str | Path,
    labeller: str | None = None,
    level: Mapping[str, Any] | None = None,
    keep_files: bool = True,
) -> DatasetData:
    """Return a stored dataset of the frames of a finished calculation, whoever ran it.

    The files that were read become a node before it; `dataset.creator.outputs.report` tells of frames that were left
    out.

    :param path: folder with the output, or the output file itself.
    :param labeller: name of the labeller that understands it; by default the one that finds its files there.
    :param level: level of theory, in place of the one that is read from the files; it may not contradict that.
    :param keep_files: store the files; without them only their hashes are stored.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist.')
    name = labeller or guess_labeller(path)
    files = labeller_named(name).read_run(path).files
    if not files:
        raise ValueError(f'the labeller `{name}` finds nothing to read in {path}.')
    stated: dict[str, Any] = {'level': orm.Dict(dict(level))} if level else {}
    if not keep_files:
        listed = orm.List(_listed(_hashes(path, files)))
        token = _FOLDER.set(path)
        try:
            outputs = import_listed_files(orm.Str(name), listed, **stated)
        finally:
            _FOLDER.reset(token)
    else:
        outputs = import_run(orm.Str(name), _node_of(path, files), **stated)
    dataset: DatasetData = outputs['dataset']
    return dataset


def guess_labeller(path: Path) -> str:
    """Return the name of the only labeller that finds its output in a folder or file; raises ValueError otherwise."""
    able, refusals = [], []
    for name in registry.names('labellers'):
        try:
            labeller = labeller_named(name)
            if type(labeller).read_run is Labeller.read_run:
                continue  # it can read no output at all
            files = labeller.read_run(path).files
        except (OSError, ValueError, ImportError, NotImplementedError) as error:
            refusals.append(f'{name}: {error}')
        else:
            able += [name] if files else []
    if len(able) == 1:
        return able[0]
    said = f'; these can: {", ".join(able)}. Say which by `labeller`.' if able else ''
    raise ValueError(f'no labeller is the only one that can read {path}{said or ". " + " ".join(refusals)}')


def _node_of(path: Path, files: list[Path]) -> orm.FolderData | orm.SinglefileData:
    """Return an unstored node of these files; a program may have written several beside the one that is named."""
    if files == [path]:
        return orm.SinglefileData(path)
    node = orm.FolderData()
    for file in files:
        node.base.repository.put_object_from_file(str(file), file.relative_to(_root(path)).as_posix())
    return node


def _write(file: orm.SinglefileData, folder: Path) -> Path:
    """Write the file of a node into a folder."""
    path: Path = folder / file.filename
    with file.open(mode='rb') as source, path.open('wb') as target:
        shutil.copyfileobj(source, target)
    return path


def _root(path: Path) -> Path:
    return path.parent if path.is_file() else path


def _hashes(path: Path, files: list[Path]) -> dict[str, str]:
    """Return the hash of each file by its name below the folder."""
    return {file.relative_to(_root(path)).as_posix(): hash_of(file) for file in files}


def _listed(hashes: dict[str, str]) -> list[dict[str, str]]:
    """Return hashes as a list: AiiDA allows no dot, and so no name of a file, as a key."""
    return [{'name': name, 'hash': value} for name, value in hashes.items()]


def _read_run(
    name: str, path: Path, level: orm.Dict | None, expected: list[dict[str, str]] | None = None
) -> dict[str, orm.Data]:
    """Return dataset and report of the output in a folder or file.

    :param expected: the files that have to be there, where these are not part of the graph.
    """
    run = labeller_named(name).read_run(path)
    hashes = _hashes(path, run.files)
    if expected is not None and expected != _listed(hashes):
        raise ValueError('the files changed while they were read; import them again.')
    first = next(iter(hashes.values()), '')
    found: Level = run.level
    stated = _stated(level, found)
    frames = (replace(frame, source=hashes.get(frame.source, first)) for frame in run.frames)
    dataset = _dataset(frames, stated or found, run.skipped, ', '.join(hashes))
    report = {
        'labeller': name,
        'n_frames': len(dataset),
        **_told(run.skipped),
        'files': _listed(hashes),
        'level_of_files': found.to_dict(),
    }
    return {'dataset': dataset, 'report': orm.Dict(report)}


def _dataset(frames: Iterator[Frame], level: Level | dict[str, Any], skipped: list[str], names: str) -> DatasetData:
    """Return the dataset, or say why there is none."""
    first = next(frames, None)
    if first is None:
        why = f' {skipped[0]}' if skipped else ''
        raise ValueError(f'not one frame of {names} can be used.{why}')

    def all_frames() -> Iterator[Frame]:
        yield first
        yield from frames

    try:
        return DatasetData.from_frames(all_frames(), level)
    except FrameError as error:
        raise FrameError(f'{names}: {error}') from error


def _told(skipped: list[str]) -> dict[str, Any]:
    return {'n_skipped': len(skipped), 'skipped': skipped[:MOST_SENTENCES]}


def _stated(level: orm.Dict | None, found: Level) -> Level | None:
    """Return the level that a user states; raises ValueError where the output says otherwise."""
    if level is None:
        return None
    stated = Level.from_dict(level.get_dict())
    pairs = {name: (getattr(stated, name), getattr(found, name)) for name in COMPARED}
    wrong = [
        f'`{name}` is {mine!r} in the level that you state and {theirs!r} in the output'
        for name, (mine, theirs) in pairs.items()
        if mine and theirs and _words(mine) != _words(theirs)
    ]
    if wrong:
        raise ValueError(f'{"; ".join(wrong)}. Correct the level, or leave out what the output knows better.')
    return stated


def _words(text: str) -> list[str | float]:
    """Return a text as words and numbers, so that `520 eV` equals `520.0 ev`."""
    found: list[str | float] = []
    for word in re.findall(r'[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|[^\W\d]+|[^\s\w]', text):
        try:
            found.append(float(word))
        except ValueError:
            found.append(word.casefold())
    return found


# ---------------------------------------------------------------------- databases of ASE


@recorded
def import_ase_db(file: orm.SinglefileData, level: orm.Dict, options: orm.Dict | None = None) -> dict[str, orm.Data]:
    """Read a database of ASE (SQLite or JSON) whose labels are of one level of theory.

    Returns the `dataset` and a `report`. Rows without energy or forces are left out and told of.

    :param options: `selection`, as ASE has it (`natoms>10,family=cubic`), and the names of the columns, keys or entries
        of `data` that hold `energy`, `forces`, `stress`, `group`, `trajectory`, `charge` and `spin`.
    """
    columns = _columns(options.get_dict() if options is not None else {})
    source = hash_of(file)
    with TemporaryDirectory(prefix='import-') as scratch:
        table = _Table(_write(file, Path(scratch)), columns)
        frames = (replace(frame, source=source) for frame in table.frames())
        dataset = _dataset(frames, level.get_dict(), table.skipped, file.filename)
    files = _listed({file.filename: source})
    report = {'n_frames': len(dataset), **_told(table.skipped), 'files': files, 'notes': table.notes()}
    return {'dataset': dataset, 'report': orm.Dict(report)}


@dataclass(frozen=True)
class _Columns:
    """Where a database has what a frame needs; what is empty is not read."""

    selection: str = ''
    energy: str = 'energy'
    forces: str = 'forces'
    stress: str = 'stress'
    group: str = ''
    trajectory: str = ''
    charge: str = ''
    spin: str = ''


def _columns(options: Mapping[str, Any]) -> _Columns:
    """Return checked options."""
    known = set(_Columns.__dataclass_fields__)
    wrong = sorted(name for name, value in options.items() if name not in known or not isinstance(value, str))
    if wrong:
        raise ValueError(
            f'the options {", ".join(wrong)} are unknown or not text; known are {", ".join(sorted(known))}.'
        )
    columns = _Columns(**options)
    if re.search(r'\bage\b', columns.selection):
        raise ValueError('a selection by `age` would find other rows tomorrow; select by a key of your own.')
    return columns


@dataclass
class _Table:
    """A database of ASE.

    :param skipped: a sentence for each row that was left out.
    """

    path: Path
    columns: _Columns
    skipped: list[str] = field(default_factory=list)
    calculators: set[str] = field(default_factory=set)
    free_energy_gap: float = 0.0

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of all rows with labels, in the order of their `id`."""
        for row in self._rows():
            energy, forces = self._value(row, 'energy'), self._value(row, 'forces')
            if energy is None or forces is None:
                missing = [name for name, value in (('energy', energy), ('forces', forces)) if value is None]
                names = ' and no '.join(f'`{getattr(self.columns, name)}`' for name in missing)
                self.skipped.append(f'row {row.id} has no {names}.')
                continue
            self._look(row, float(energy))
            yield self._frame(row, float(energy), np.array(forces, dtype=float))

    def _frame(self, row: Any, energy: float, forces: Array) -> Frame:
        """Return the frame of a row."""
        stress = self._value(row, 'stress') if np.all(row.pbc) else None
        names = ('group', 'trajectory', 'charge', 'spin')
        known: dict[str, Any] = {name: value for name in names if (value := self._value(row, name)) is not None}
        known |= {name: str(known[name]) for name in ('group', 'trajectory') if name in known}
        return Frame(
            np.array(row.numbers),
            np.array(row.positions),
            np.array(row.cell, dtype=float),
            np.array(row.pbc, dtype=bool),
            energy=energy,
            forces=forces,
            stress=None if stress is None else np.array(stress, dtype=float),
            **known,
        )

    def _rows(self) -> Iterator[Any]:
        """Yield the selected rows; those of an SQLite file come page by page."""
        from ase.db import connect

        with self.path.open('rb') as handle:
            is_sqlite = handle.read(16).startswith(b'SQLite format 3')
        database = connect(self.path, type='db' if is_sqlite else 'json', use_lock_file=False)
        wanted: list[Any] = [part.strip() for part in self.columns.selection.split(',') if part.strip()]
        last, limit = 0, PAGE if is_sqlite else None
        while True:
            page = None
            for page in database.select([*wanted, ('id', '>', last)], sort='id', limit=limit):
                yield page
            if page is None or limit is None:
                return
            last = page.id

    def _value(self, row: Any, what: str) -> Any:
        """Return a column, key or entry of `data` of a row; None where there is none, or none is wanted."""
        name = getattr(self.columns, what)
        if not name:
            return None
        value = row.get(name)
        return row.data.get(name) if value is None else value

    def _look(self, row: Any, energy: float) -> None:
        """Note what may speak against one level of theory."""
        self.calculators.add(f'{row.get("calculator", "unknown")} {row.get("calculator_parameters", {})}')
        free = row.get('free_energy')
        if self.columns.energy == 'energy' and free is not None:
            self.free_energy_gap = max(self.free_energy_gap, abs(float(free) - energy))

    def notes(self) -> list[str]:
        """Return sentences for what a careful reader would ask about."""
        found = []
        if len(self.calculators) > 1:
            found.append(f'the rows name {len(self.calculators)} different calculators or sets of parameters.')
        if self.free_energy_gap > 1e-6:
            found.append(
                f'`free_energy` differs from `energy` by up to {self.free_energy_gap:.6f} eV; where the forces are '
                "derivatives of the free energy, import with the option energy='free_energy'."
            )
        return found
