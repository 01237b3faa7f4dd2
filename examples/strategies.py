"""What a potential forgets when it learns something new: all strategies of fine-tuning, in one table.

A parent is trained on one set of frames and then on another, by every strategy that its architecture has; the table
shows the errors of all potentials on frames of both sets that none of them has seen. The replay frames of `multihead`
are chosen beforehand: those that are farthest from each other in what the parent sees of them.

    verdi run examples/strategies.py --first cubic.extxyz --second tetragonal.extxyz [--architecture mace] [--cores N]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.manage.caching import enable_caching

from aiida_perovmlip.calculations.embed import EmbedCalculation
from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.functions.choose import choose_frames
from aiida_perovmlip.calculations.functions.dataset import split_dataset
from aiida_perovmlip.compute import registry
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.launch import run_job, table
from aiida_perovmlip.query import compare_strategies
from aiida_perovmlip.workflows.train import TrainWorkChain

LEVEL = {'labeller': 'vasp', 'functional': 'r2SCAN', 'cutoff': '700 eV'}
N_REPLAY = 20
NEAR_A_MINIMUM = {'loss': 'squared', 'batch_size': 10}
"""Few frames of a relaxation have large forces, and they alone tell how stiff bonds are."""

SETTINGS: dict[str, dict[str, Any]] = {
    'scratch': {'epochs': 150, 'learning_rate': 0.01, 'r_max': 4.5},
    'naive': {'epochs': 50, 'learning_rate': 0.003},
    'freeze': {'epochs': 50, 'learning_rate': 0.003},
    'lora': {'epochs': 50, 'learning_rate': 0.005},
    'multihead': {'epochs': 50, 'learning_rate': 0.003, 'loss': 'universal'},  # mace-torch knows no other there
}


def parts_of(path: Path, count: int) -> dict[str, DatasetData]:
    """Return the parts of a file: frames to train on, to choose by, and to test with."""
    frames = DatasetData.from_extxyz(path, LEVEL).store()
    parts = orm.Dict({'training': count, 'validation': 20, 'test': 40, 'rest': -1})
    return split_dataset(frames, parts, orm.Str('random'), orm.Int(1))


def train(arguments: argparse.Namespace, strategy: str, parts: dict[str, DatasetData], **inputs: Any) -> PotentialData:
    """Train by a strategy and return the potential."""
    resources = {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': arguments.cores}
    builder = TrainWorkChain.get_builder_from_protocol(
        arguments.architecture,
        orm.load_code(f'{arguments.architecture}@localhost'),
        parts['training'],
        parts['validation'],
        strategy=strategy,
        settings=NEAR_A_MINIMUM | SETTINGS[strategy] if arguments.architecture == 'mace' else None,
        options={'resources': resources},
        **inputs,
    )
    return run_job(builder, f'Training: {strategy}').outputs.potential


def choose_replay(code: orm.AbstractCode, parent: PotentialData, frames: DatasetData) -> DatasetData:
    """Return frames that cover what the parent has seen."""
    builder = EmbedCalculation.get_builder()
    builder.code, builder.potential, builder.dataset = code, parent, frames
    descriptors = run_job(builder, 'Describing frames').outputs.descriptors
    return choose_frames(frames, descriptors, orm.Int(N_REPLAY), orm.Int(0))


def potentials(arguments: argparse.Namespace, first: dict[str, DatasetData], second: dict[str, DatasetData]) -> Any:
    """Yield name and potential of the parent, and of every way to go on from it."""
    code = orm.load_code(f'{arguments.architecture}@localhost')
    known = registry.load('architectures', arguments.architecture).strategies
    parent = train(arguments, 'scratch', first)
    yield 'parent, zero-shot', parent
    yield 'scratch on the second', train(arguments, 'scratch', second)
    for strategy in known:
        if strategy == 'scratch':
            continue
        replay = {'replay': choose_replay(code, parent, first['training'])} if strategy == 'multihead' else {}
        yield strategy, train(arguments, strategy, second, parent=parent, **replay)


def evaluate(code: orm.AbstractCode, potential: PotentialData, dataset: DatasetData, head: str) -> dict[str, Any]:
    """Return the errors of a potential."""
    builder = EvaluateCalculation.get_builder()
    builder.code, builder.potential, builder.dataset, builder.head = code, potential, dataset, head
    return dict(run_job(builder, 'Evaluating').outputs.metrics.get_dict())


def rows(named: Any, code: orm.AbstractCode, tests: dict[str, DatasetData]) -> Iterator[tuple[str, ...]]:
    """Yield the errors of each potential on both sets of test frames; one line a head."""
    for name, potential in named:
        for head in potential.heads:
            errors = [evaluate(code, potential, dataset, head) for dataset in tests.values()]
            cells = [
                f'{1e3 * error[quantity]["rmse"]:.1f}' for error in errors for quantity in ('forces', 'energy_per_atom')
            ]
            yield (f'{name} ({head})' if len(potential.heads) > 1 else name, *cells)


def main() -> None:
    """Train all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--first', type=Path, required=True, help='labelled frames of the parent, extended XYZ')
    parser.add_argument('--second', type=Path, required=True, help='labelled frames to learn next')
    parser.add_argument('--architecture', default='mace')
    parser.add_argument('--count', type=int, default=100, help='frames to train on, of each')
    parser.add_argument('--cores', type=int, default=1)
    arguments = parser.parse_args()
    code = orm.load_code(f'{arguments.architecture}@localhost')
    with enable_caching(identifier='aiida.calculations:perovmlip.*'):
        first, second = parts_of(arguments.first, arguments.count), parts_of(arguments.second, arguments.count)
        tests = {'first': first['test'], 'second': second['test']}
        lines = list(rows(potentials(arguments, first, second), code, tests))
    head = ['potential', *(f'{name}, {what}' for name in tests for what in ('forces meV/Å', 'energy meV/atom'))]
    print(table(head, lines))
    print(compare_strategies(list(tests.values())))


if __name__ == '__main__':
    main()
