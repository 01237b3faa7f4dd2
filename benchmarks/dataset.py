"""What a dataset node costs, beside plain ASE extxyz and plain npz in the same run.

Prints CPU seconds for 5 000 frames of 40 atoms with energy, forces and stress, and the memory that 1 000 000 frames
of 5 atoms need to be split and iterated. Works in a temporary profile of its own.

    python benchmarks/dataset.py [--million]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LEVEL = {'labeller': 'benchmark', 'functional': 'random numbers'}


def timed(work: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Return the least CPU time of some runs, in s, and what the last one returned."""
    best = float('inf')
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def random_atoms(count: int, n_atoms: int, seed: int = 0) -> list[Any]:
    """Return ASE atoms with random labels."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    rng = np.random.default_rng(seed)
    numbers = ([55, 82, 53, 53, 53] * n_atoms)[:n_atoms]
    frames = []
    for _ in range(count):
        atoms = Atoms(numbers=numbers, positions=12 * rng.random((n_atoms, 3)), cell=12.6 * np.eye(3), pbc=True)
        atoms.calc = SinglePointCalculator(
            atoms, energy=rng.normal(), forces=rng.normal(size=(n_atoms, 3)), stress=rng.normal(size=6)
        )
        frames.append(atoms)
    return frames


def repository_bytes() -> int:
    """Return the size of all files in the profile's object store."""
    from aiida.manage import get_manager

    folder = Path(get_manager().get_profile_storage().profile.storage_config['filepath'])
    return sum(
        path.stat().st_size
        for path in folder.rglob('*')
        if path.is_file() and not path.suffix.startswith(('.sqlite', '.idx'))
    )


def node_against_plain_files(folder: Path) -> None:
    """Print the costs of 5 000 frames as a node, as extxyz and as npz."""
    import ase.io

    from aiida_perovmlip.compute.frame import Frame
    from aiida_perovmlip.data.dataset import DatasetData

    frames = random_atoms(5000, 40)
    more = [Frame.from_atoms(atoms) for atoms in random_atoms(10, 40, seed=1)]
    build, node = timed(lambda: DatasetData.from_ase(frames, LEVEL).store())
    before = repository_bytes()
    read, _ = timed(lambda: DatasetData.frames.func(node).columns())
    append, _ = timed(lambda: node.append(more).store())
    grown = repository_bytes() - before
    iterate, _ = timed(lambda: sum(1 for _ in node.iter_atoms()), 1)

    write_xyz, _ = timed(lambda: ase.io.write(folder / 'a.xyz', frames, format='extxyz'), 1)
    read_xyz, _ = timed(lambda: ase.io.read(folder / 'a.xyz', ':'), 1)
    own_xyz, _ = timed(lambda: DatasetData.from_extxyz(folder / 'a.xyz', LEVEL), 1)
    columns = node.frames.columns(('positions', 'forces', 'energy', 'stress', 'cells', 'numbers'))
    write_npz, _ = timed(lambda: np.savez(folder / 'a.npz', **columns))
    read_npz, _ = timed(lambda: {key: value for key, value in np.load(folder / 'a.npz').items()})  # noqa: C416

    print('5 000 frames x 40 atoms, energy, forces, stress                 CPU s   target')
    print(f'  DatasetData  build + store                                  {build:7.3f}   0.2')
    print(f'  DatasetData  read all columns                               {read:7.3f}   0.1')
    print(f'  DatasetData  append 10 frames + store                       {append:7.3f}   0.05')
    print(f'  DatasetData  iterate as ASE atoms                           {iterate:7.3f}')
    print(f'  DatasetData  build from extxyz                              {own_xyz:7.3f}')
    print(f'  ASE extxyz   write                                          {write_xyz:7.3f}')
    print(f'  ASE extxyz   read                                           {read_xyz:7.3f}')
    print(f'  numpy npz    write columns                                  {write_npz:7.3f}')
    print(f'  numpy npz    read columns                                   {read_npz:7.3f}')
    extxyz = (folder / 'a.xyz').stat().st_size
    print(f'  size of the node {before / 1e6:.2f} MB (target 11), of the extxyz {extxyz / 1e6:.2f} MB')
    print(f'  three appended nodes made the object store larger by {grown / 1e6:.3f} MB')


def million_frames(count: int) -> None:
    """Print time and memory of splitting and iterating very many frames."""
    from aiida_perovmlip.compute.frame import Frame
    from aiida_perovmlip.data.dataset import DatasetData

    def generate() -> Iterator[Frame]:
        rng = np.random.default_rng(0)
        numbers = np.array([55, 82, 53, 53, 53], dtype=np.uint8)
        cell, pbc = 6.3 * np.eye(3), np.ones(3, dtype=bool)
        for index in range(count):
            values = rng.random((10, 3))
            yield Frame(numbers, values[:5], cell, pbc, float(index), values[5:], trajectory=str(index // 1000))

    start = time.process_time()
    node = DatasetData.from_frames(generate(), LEVEL).store()
    built = time.process_time()
    parts = node.split({'training': 0.8, 'validation': 0.1, 'test': 0.1}, seed=0)
    for part in parts.values():
        part.store()
    split = time.process_time()
    total = sum(frame.energy or 0.0 for part in parts.values() for frame in part)
    assert total == sum(range(count))
    iterated = time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f'{count} frames x 5 atoms: build {built - start:.1f}, split into three {split - built:.1f}, '
        f'iterate all {iterated - split:.1f} CPU s; largest memory {memory:.0f} MB (target 1500)'
    )


def main() -> None:
    """Run in a temporary profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--million', action='store_true', help='also split and iterate 1 000 000 frames')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ['AIIDA_PATH'] = folder
        from aiida import load_profile
        from aiida.manage.configuration import create_profile, get_config

        config = get_config(create=True)
        create_profile(
            config, name='benchmark', email='benchmark@localhost', storage_backend='core.sqlite_dos', storage_config={}
        )
        load_profile('benchmark')
        node_against_plain_files(Path(folder))
        if arguments.million:
            million_frames(1_000_000)


if __name__ == '__main__':
    main()
