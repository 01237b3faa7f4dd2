"""What a committee of potentials predicts, how far its members are apart, and how wrong they are, with provenance."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.analysis.committee import CalibrationSum, mean_and_spread
from aiida_perovmlip.analysis.metrics import UNITS, MetricsAccumulator
from aiida_perovmlip.calculations.evaluate import same_levels
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.shard import Shard
from aiida_perovmlip.compute.tasks.evaluate import QUANTITIES, new_array
from aiida_perovmlip.data.dataset import DatasetData


@recorded
def committee_metrics(dataset: DatasetData, **members: orm.ArrayData) -> dict[str, orm.Data]:
    """Compare the mean of a committee with the labels, and its spread with the errors.

    :param members: the output `predictions` of an evaluation on this dataset for each member, at least two.

    Returns `metrics`: the errors of the mean, as those of an evaluation, with `head`, `same_level` and
    `same_level_per_head` (whether all members and the labels are known to be of one level), `spread` (calibration of
    energy per atom and of forces, these per element too; see `analysis.committee`) and `members` (errors of each); and
    `committee`: the mean `energy` (n_frames,) in eV, `forces` (n_atoms, 3) in eV/Å and `stress` (n_frames, 6) in eV/Å³,
    with `energy_spread` (n_frames,) in eV/atom, `forces_spread` (n_atoms,) and `largest_forces_spread` (n_frames,) in
    eV/Å.
    """
    _refuse_members(dataset, members)
    n_frames, n_atoms = len(dataset), int(dataset.base.attributes.get('n_atoms'))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        readers = {name: _Member(node, stack, n_frames, n_atoms) for name, node in members.items()}
        written = _open_arrays(Path(scratch), n_frames, n_atoms)
        heads = {name: _head_of(node) for name, node in members.items()}
        total = _Total(heads)
        frame = atom = 0
        for chunk in dataset.frames.chunks():
            frames, atoms = slice(frame, frame + len(chunk)), slice(atom, atom + chunk.n_atoms)
            found = total.add(chunk, {name: reader.next(chunk) for name, reader in readers.items()})
            for name, values in found.items():
                written[name][atoms if name in ('forces', 'forces_spread') else frames] = values
            frame, atom = frames.stop, atoms.stop
        metrics = {**total.metrics(), **_levels_of(dataset, members, heads)}
        return {'metrics': orm.Dict(metrics), 'committee': orm.ArrayData(dict(written))}


class _Total:
    """Errors of the mean and of each member, and spreads against errors, added up chunk by chunk."""

    def __init__(self, heads: dict[str, str | None]) -> None:
        self._heads = heads
        self._mean = MetricsAccumulator()
        self._members = {name: MetricsAccumulator() for name in heads}
        self._energy, self._forces = CalibrationSum(), CalibrationSum()
        self._elements: dict[int, CalibrationSum] = {}

    def add(self, chunk: Shard, members: dict[str, dict[str, Array]]) -> dict[str, Array]:
        """Add the frames of a chunk; return what the committee says of them."""
        columns, sizes = chunk.columns, np.diff(chunk.columns['offsets'])
        for name, values in members.items():
            self._compare(self._members[name], chunk, values, self._heads[name])
        stacked = {name: np.stack([values[name] for values in members.values()]) for name in QUANTITIES}
        mean = {name: values.mean(axis=0) for name, values in stacked.items()}
        self._compare(self._mean, chunk, mean, _common(self._heads))
        energy_spread = mean_and_spread(stacked['energy'] / sizes)[1]
        forces_spread = np.sqrt((mean_and_spread(stacked['forces'])[1] ** 2).mean(axis=1))
        self._energy.add(energy_spread, (mean['energy'] - columns['energy']) / sizes)
        error = mean['forces'] - columns['forces']
        self._forces.add(forces_spread, error)
        for number in np.unique(columns['numbers']).tolist():
            mine = columns['numbers'] == number
            self._elements.setdefault(number, CalibrationSum()).add(forces_spread[mine], error[mine])
        largest = np.maximum.reduceat(forces_spread, columns['offsets'][:-1])
        spreads = {'energy_spread': energy_spread, 'forces_spread': forces_spread, 'largest_forces_spread': largest}
        return {**mean, **spreads}

    @staticmethod
    def _compare(accumulator: MetricsAccumulator, chunk: Shard, values: dict[str, Array], head: str | None) -> None:
        columns = chunk.columns
        accumulator.add_frames(
            columns['numbers'],
            columns['offsets'],
            [chunk.names['group'][code] for code in columns['group']],
            columns['energy'],
            values['energy'],
            columns['forces'],
            values['forces'],
            columns.get('stress'),
            values['stress'],
            heads=[chunk.names['head'][code] for code in columns['head']] if head is None else [head] * len(chunk),
        )

    def metrics(self) -> dict[str, Any]:
        """Return all as plain JSON."""
        from ase.data import chemical_symbols

        energy, forces = ({'unit': UNITS[name]} for name in ('energy_per_atom', 'forces'))
        per_element = {
            chemical_symbols[number]: {**forces, **self._elements[number].result().to_dict()}
            for number in sorted(self._elements)
        }
        members = {name: accumulator.metrics() for name, accumulator in self._members.items()}
        return {
            **self._mean.metrics(),
            'n_members': len(members),
            'members': {name: {key: found[key] for key in UNITS if key in found} for name, found in members.items()},
            'spread': {
                'energy_per_atom': {**energy, **self._energy.result().to_dict()},
                'forces': {**forces, **self._forces.result().to_dict(), 'per_element': per_element},
            },
        }


class _Member:
    """The predictions of one member, read from the repository as far as they are needed."""

    def __init__(self, node: orm.ArrayData, stack: ExitStack, n_frames: int, n_atoms: int) -> None:
        shapes = {'energy': (n_frames,), 'forces': (n_atoms, 3), 'stress': (n_frames, 6)}
        self._rows: dict[str, _Rows] = {}
        for name, shape in shapes.items():
            rows = _Rows(stack.enter_context(node.base.repository.open(f'{name}.npy', 'rb')))
            if rows.shape != shape:
                raise ValueError(
                    f'the predictions {node.pk} have {name} of the shape {rows.shape}, but this dataset needs {shape}.'
                )
            self._rows[name] = rows

    def next(self, chunk: Shard) -> dict[str, Array]:
        """Return the predictions of the next frames, as many as there are in a chunk."""
        counts = {'energy': len(chunk), 'forces': chunk.n_atoms, 'stress': len(chunk)}
        found = {name: rows.take(counts[name]) for name, rows in self._rows.items()}
        if not (np.isfinite(found['energy']).all() and np.isfinite(found['forces']).all()):
            raise ValueError(
                'the predictions of a member are not finite, or its evaluation was stopped before its end; a committee '
                'is made of evaluations that succeeded.'
            )
        return found


class _Rows:
    """The rows of an array in a `.npy` file, one after the other."""

    def __init__(self, handle: Any) -> None:
        files: Any = np.lib.format  # without types in numpy 1
        is_first = files.read_magic(handle) == (1, 0)
        read = files.read_array_header_1_0 if is_first else files.read_array_header_2_0
        self.shape, is_fortran, self._dtype = read(handle)
        if is_fortran and len(self.shape) > 1:
            raise ValueError('the array is stored column by column, as no evaluation does it.')
        self._handle = handle

    def take(self, count: int) -> Array:
        """Return the next rows."""
        inner = self.shape[1:]
        data = self._handle.read(count * self._dtype.itemsize * int(np.prod(inner, dtype=int)))
        return np.frombuffer(data, dtype=self._dtype).reshape(count, *inner)


def _head_of(predictions: orm.ArrayData) -> str | None:
    """Return the head that predicted all frames; None where each was predicted by its own."""
    evaluation = predictions.creator
    assert evaluation is not None  # what nobody evaluated was refused
    return evaluation.outputs.results.get_dict()['head'] if 'results' in evaluation.outputs else None


def _common(heads: dict[str, str | None]) -> str | None:
    """Return the head of all members; None where they differ, so that frames count under their own."""
    found = set(heads.values())
    return found.pop() if len(found) == 1 else None


def _levels_of(dataset: DatasetData, members: dict[str, orm.ArrayData], heads: dict[str, str | None]) -> dict[str, Any]:
    """Return which head predicted, and whether it and the labels are known to be of one level in all members."""
    own = {
        name: same_levels(node.creator.inputs.potential, dataset, heads[name])
        for name, node in members.items()
        if node.creator is not None
    }
    common: set[str] = set.intersection(*(set(levels) for levels in own.values()))
    return {
        'head': _common(heads),
        'same_level': all(bool(levels) and all(levels.values()) for levels in own.values()),
        'same_level_per_head': {
            head.replace('.', '_'): all(levels[head] for levels in own.values()) for head in sorted(common)
        },
    }


def _open_arrays(folder: Path, n_frames: int, n_atoms: int) -> dict[str, Any]:
    """Return the arrays that the committee fills, mapped from files."""
    shapes: dict[str, tuple[int, ...]] = {
        'energy': (n_frames,),
        'forces': (n_atoms, 3),
        'stress': (n_frames, 6),
        'energy_spread': (n_frames,),
        'forces_spread': (n_atoms,),
        'largest_forces_spread': (n_frames,),
    }
    return {name: new_array(folder / f'{name}.npy', shape) for name, shape in shapes.items()}


def _refuse_members(dataset: DatasetData, members: dict[str, orm.ArrayData]) -> None:
    """Refuse what is no committee: too few, one twice, or evaluated on other frames."""
    if len(members) < 2:
        raise ValueError(f'a committee has at least two members, not {len(members)}.')
    missing = sorted({'energy', 'forces'} - set(dataset.labels))
    if missing:
        raise ValueError(f'the dataset has no {" and no ".join(missing)} to compare with; label it first.')
    potentials: dict[Any, str] = {}
    for name, node in members.items():
        evaluation = node.creator
        if evaluation is None or 'potential' not in evaluation.inputs:
            raise ValueError(f'`{name}` is not the output `predictions` of an evaluation.')
        if evaluation.inputs.dataset.content_hash != dataset.content_hash:
            raise ValueError(f'`{name}` was evaluated on the dataset {evaluation.inputs.dataset.pk}, not on this one.')
        head = evaluation.inputs.head.value if 'head' in evaluation.inputs else None
        key = (evaluation.inputs.potential.content_hash, head)
        if key in potentials:
            raise ValueError(
                f'`{potentials[key]}` and `{name}` are predictions of one potential, which always agrees with itself.'
            )
        potentials[key] = name
