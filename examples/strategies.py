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

from aiida_perovmlip.calculations.functions.choose import choose_frames
from aiida_perovmlip.calculations.functions.dataset import split_dataset
from aiida_perovmlip.compute import registry
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.launch import table
from aiida_perovmlip.query import compare_strategies
from aiida_perovmlip.steps import Workbench, run_study

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


def train(
    bench: Workbench, architecture: str, strategy: str, parts: dict[str, DatasetData], **inputs: Any
) -> PotentialData:
    """Train by a strategy and return the potential."""
    settings = NEAR_A_MINIMUM | SETTINGS[strategy] if architecture == 'mace' else None
    return bench.train(architecture, parts, strategy, settings=settings, seed=0, strategy=strategy, **inputs)


def choose_replay(bench: Workbench, parent: PotentialData, frames: DatasetData) -> DatasetData:
    """Return frames that cover what the parent has seen."""
    return choose_frames(frames, bench.describe(parent, frames, 'Replay'), orm.Int(N_REPLAY), orm.Int(0))


def potentials(
    bench: Workbench, architecture: str, first: dict[str, DatasetData], second: dict[str, DatasetData]
) -> Iterator[tuple[str, PotentialData]]:
    """Yield name and potential of the parent, and of every way to go on from it."""
    parent = train(bench, architecture, 'scratch', first)
    yield 'parent, zero-shot', parent
    yield 'scratch on the second', train(bench, architecture, 'scratch', second)
    for strategy in registry.load('architectures', architecture).strategies:
        if strategy == 'scratch':
            continue
        replay = {'replay': choose_replay(bench, parent, first['training'])} if strategy == 'multihead' else {}
        yield strategy, train(bench, architecture, strategy, second, parent=parent, **replay)


def rows(
    bench: Workbench, named: Iterator[tuple[str, PotentialData]], tests: dict[str, DatasetData]
) -> Iterator[tuple[str, ...]]:
    """Yield the errors of each potential on both sets of test frames; one line a head."""
    for name, potential in named:
        for head in potential.heads:
            label = f'{name} ({head})' if len(potential.heads) > 1 else name
            errors = [
                bench.evaluate(potential, dataset, f'{label} on {test}', head).outputs.metrics
                for test, dataset in tests.items()
            ]
            cells = [
                f'{1e3 * error[quantity]["rmse"]:.1f}' for error in errors for quantity in ('forces', 'energy_per_atom')
            ]
            yield label, *cells


def study(arguments: argparse.Namespace) -> None:
    """Train all and print the table."""
    bench = Workbench(cores=arguments.cores)
    first, second = parts_of(arguments.first, arguments.count), parts_of(arguments.second, arguments.count)
    tests = {'first': first['test'], 'second': second['test']}
    lines = list(rows(bench, potentials(bench, arguments.architecture, first, second), tests))
    head = ['potential', *(f'{name}, {what}' for name in tests for what in ('forces meV/Å', 'energy meV/atom'))]
    print(table(head, lines))
    print(compare_strategies(list(tests.values())))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--first', type=Path, required=True, help='labelled frames of the parent, extended XYZ')
    parser.add_argument('--second', type=Path, required=True, help='labelled frames to learn next')
    parser.add_argument('--architecture', default='mace')
    parser.add_argument('--count', type=int, default=100, help='frames to train on, of each')
    parser.add_argument('--cores', type=int, default=1)
    arguments = parser.parse_args()
    run_study(lambda: study(arguments))


if __name__ == '__main__':
    main()
