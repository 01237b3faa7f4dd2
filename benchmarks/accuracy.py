"""How accurate a training with the protocols is, and how long it takes, beside what the bare trainers reach.

Trains each architecture on a set of labelled CsPbI3 frames (a seeded split with 20 validation frames, random or by
group), and prints errors on the validation frames, seconds and speed. The figures of the bare trainers were measured
on a random split of the same frames; pass `--frames` for a file of your own. Works in a profile of its own, which is
temporary where no folder is given: a second run in the same folder trains nothing again.

    python benchmarks/accuracy.py --frames FILE [--protocols fast balanced] [--architectures nep mace allegro]
        [--by group] [--parent FILE] [--cores N] [--profile FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BARE = (
    ('neppo from scratch, 6000 steps', 54.0, 1.8, 216),
    ('neppo from NEP89', 61.0, None, 150),
    ('NEP89 as it is', 139.0, None, 0),
    ('mace-torch, 32x0e, 60 epochs', 31.0, 2.0, 480),
)
"""The bare trainers on a random split of the 213 CsPbI3 frames: forces meV/Å, energy meV/atom (RMSE), seconds."""

LEFT_OUT = 'pbe_delta'
"""A group of one frame that another functional labelled."""


def parts_of(path: Path, by: str, seed: int) -> tuple[Any, Any]:
    """Return stored datasets to train on and to validate by."""
    import numpy as np

    from aiida_perovmlip.compute.level import Level
    from aiida_perovmlip.data.dataset import DatasetData

    frames = DatasetData.from_extxyz(path, Level('unknown', functional='as in the file'))
    frames = frames.select(np.flatnonzero(frames.frames.column('group') != LEFT_OUT))
    parts = frames.split({'training': len(frames) - 20, 'validation': 20}, by=by, seed=seed)
    return parts['training'].store(), parts['validation'].store()


def train(name: str, protocol: str, parts: tuple[Any, Any], cores: int, **inputs: Any) -> tuple[Any, float]:
    """Return the node of a training chain and its seconds."""
    from aiida import orm
    from aiida.engine import run_get_node

    from aiida_perovmlip.workflows.train import TrainWorkChain

    code = orm.load_code(f'{name}@localhost')
    builder = TrainWorkChain.get_builder_from_protocol(
        name, code, *parts, protocol=protocol, options=options(cores), **inputs
    )
    started = time.perf_counter()
    node = run_get_node(builder)[1]
    if not node.is_finished_ok:
        raise SystemExit(f'{name} {protocol}: {node.exit_message}')
    return node, time.perf_counter() - started


def options(cores: int) -> dict[str, Any]:
    """Return options of a job with some cores."""
    return {'resources': {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': cores}}


def evaluate(potential: Any, dataset: Any) -> dict[str, Any]:
    """Return the metrics of a potential."""
    from aiida import orm
    from aiida.engine import run_get_node

    from aiida_perovmlip.calculations.evaluate import EvaluateCalculation

    builder = EvaluateCalculation.get_builder()
    builder.code = orm.load_code(f'{potential.architecture}@localhost')
    builder.potential, builder.dataset = potential, dataset
    node = run_get_node(builder)[1]
    if not node.is_finished_ok:
        raise SystemExit(node.exit_message)
    return dict(node.outputs.metrics.get_dict())


def rows(arguments: argparse.Namespace, parts: tuple[Any, Any]) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Yield a name, metrics and seconds of each potential."""
    for name in arguments.architectures:
        for protocol in arguments.protocols:
            node, seconds = train(name, protocol, parts, arguments.cores)
            yield f'{name}, {protocol}', evaluate(node.outputs.potential, parts[1]), seconds
    if arguments.parent:
        parent = foreign(arguments.parent)
        yield 'parent as it is', evaluate(parent, parts[1]), 0.0
        node, seconds = train('nep', 'fast', parts, arguments.cores, parent=parent)
        yield 'nep, fast, from the parent', evaluate(node.outputs.potential, parts[1]), seconds


def foreign(path: Path) -> Any:
    """Return a NEP potential of a file as a stored node."""
    import shutil

    from aiida_perovmlip.compute.architectures.nep import Nep
    from aiida_perovmlip.data.potential import PotentialData

    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(path, Path(folder) / 'nep.txt')
        facts = Nep().facts(Path(folder))
        return PotentialData(
            folder,
            architecture='nep',
            elements=facts.elements,
            cutoff=facts.cutoff,
            heads=facts.heads,
            dtype=facts.dtype,
            n_parameters=facts.n_parameters,
        ).store()


def show(name: str, forces: float, energy: float | None, seconds: float, speed: float | None = None) -> None:
    """Print one line."""
    parts = [f'{name:36s} {forces:7.1f} meV/Å']
    parts.append(f'{energy:7.2f} meV/atom' if energy is not None else ' ' * 16)
    parts.append(f'{seconds:7.0f} s' if seconds else ' ' * 9)
    parts.append(f'{speed:8.1f} µs/atom' if speed is not None else '')
    print(' '.join(parts).rstrip(), flush=True)


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=Path, help='extended XYZ with labels')
    parser.add_argument('--protocols', nargs='+', default=['fast'])
    parser.add_argument('--architectures', nargs='+', default=['nep', 'mace', 'allegro'])
    parser.add_argument('--by', default='random', choices=['random', 'group', 'stratified'])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cores', type=int, default=2)
    parser.add_argument('--parent', type=Path, help='a nep.txt to evaluate and to start from')
    parser.add_argument('--profile', type=Path, help='folder of the profile; else a temporary one')
    arguments = parser.parse_args()
    if arguments.frames is None:
        sys.exit('Name labelled frames: --frames FILE.')
    with tempfile.TemporaryDirectory() as folder:
        os.environ['AIIDA_PATH'] = str(arguments.profile or folder)
        from aiida import load_profile

        from aiida_perovmlip.installation import environments, profile

        profile.ensure_profile()
        load_profile()
        profile.ensure_localhost()
        for name in arguments.architectures:
            python = environments.python_of(name)
            if python is None:
                sys.exit(f'There is no environment of {name}: aiida-perovmlip setup --environments-only --with {name}')
            profile.ensure_code(name, python)
        parts = parts_of(arguments.frames, arguments.by, arguments.seed)
        print(f'{len(parts[0])} frames to train on, {len(parts[1])} to validate by; root mean square errors of these')
        for name, forces, energy, seconds in BARE:
            show(f'bare: {name}', forces, energy, seconds)
        for name, metrics, seconds in rows(arguments, parts):
            overall = metrics
            show(
                name,
                1e3 * overall['forces']['rmse'],
                1e3 * overall['energy_per_atom']['rmse'],
                seconds,
                metrics['microseconds_per_atom'],
            )


if __name__ == '__main__':
    main()
