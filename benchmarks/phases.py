"""What the analysis of phases costs, beside dynasor and ruptures, and whether they agree.

Projects warm crystals on the tilts M and R: a small one on a fixed cell with dynasor as well, in the same run, and one
of many atoms from a generator that never holds more than a few frames. Cuts ramps at their transitions, with constant
pieces against ruptures. Prints frames per second, the largest memory, and how far the results are apart. Needs an
environment with dynasor, ruptures and ASE; it loads no AiiDA.

    PYTHONPATH=src PYTHON_OF_ENVIRONMENT benchmarks/phases.py [--atoms 96000] [--frames 200]
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from aiida_perovmlip.analysis.tilts import Block, octahedra_of, tilt_series
from aiida_perovmlip.analysis.transitions import cut

A = 6.3
SMALL, SMALL_FRAMES = 6, 400
ROWS = 4
"""Frames of a block, as a chunk of 8 MB holds them for such crystals."""


def crystal(repeat: int) -> Atoms:
    """Return a cubic perovskite."""
    places = [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    return Atoms('CsPbI3', scaled_positions=places, cell=3 * [A], pbc=True).repeat(repeat)


def warm(atoms: Atoms, n_frames: int, rows: int = ROWS) -> Iterator[Block]:
    """Yield blocks of noise on a crystal; the noise is rolled from block to block, as drawing it would be measured."""
    noise = np.random.default_rng(0).normal(0, 0.2, (rows, len(atoms), 3))
    cells = np.repeat(atoms.cell.array[None], rows, axis=0)
    for start in range(0, n_frames, rows):
        count = min(rows, n_frames - start)
        positions = atoms.positions + np.roll(noise, 7 * start, axis=1)
        yield np.arange(start, start + count, dtype=float), positions[:count], cells[:count]


def modes_of(repeat: int) -> Any:
    """Return the vectors of M and R about each axis (6, n_atoms, 3), of unit displacement of each halide that moves."""
    cells = np.array(list(np.ndindex(repeat, repeat, repeat)))
    found = np.zeros((2, 3, len(cells), 5, 3))
    for axis in range(3):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        m = (-1.0) ** (cells[:, one] + cells[:, other])
        for kind, sign in enumerate((m, m * (-1.0) ** cells[:, axis])):
            found[kind, axis, :, 2 + one, other] = sign
            found[kind, axis, :, 2 + other, one] = -sign
    return found.reshape(6, -1, 3)


def beside_dynasor() -> None:
    """Project the same frames with both."""
    from dynasor import Trajectory, project_modes

    logging.getLogger('dynasor').setLevel(logging.ERROR)
    atoms, modes = crystal(SMALL), modes_of(SMALL)
    frames = [position for _, block, _ in warm(atoms, SMALL_FRAMES) for position in block]
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    started = time.perf_counter()
    series = tilt_series(warm(atoms, SMALL_FRAMES), octahedra)
    ours = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'frames.xyz'
        write(path, [Atoms(atoms.numbers, each, cell=atoms.cell, pbc=True) for each in frames], format='extxyz')
        trajectory = Trajectory(str(path), trajectory_format='extxyz')
        started = time.perf_counter()
        for _ in trajectory:
            pass
        reading = time.perf_counter() - started
        trajectory = Trajectory(str(path), trajectory_format='extxyz')
        started = time.perf_counter()
        projected, _ = project_modes(trajectory, modes, atoms)
        theirs = time.perf_counter() - started
    halides = 3 * SMALL**3
    difference = np.abs(np.hstack([series.m, series.r]) - np.real(projected) / halides).max()
    print(f'{len(atoms)} atoms, {SMALL_FRAMES} frames on a fixed cell')
    print(f'  this package       {SMALL_FRAMES / ours:9.0f} frames/s, with layers, octahedra and lattice')
    print(f'  dynasor            {SMALL_FRAMES / theirs:9.0f} frames/s, six global modes')
    print(f'  its reader alone   {SMALL_FRAMES / reading:9.0f} frames/s, which the line above includes')
    print(f'  largest difference {difference:.1e} Å per halide')


def large(n_atoms: int, n_frames: int) -> None:
    """Project a crystal of many atoms frame by frame."""
    repeat = 2 * max(1, round((n_atoms / 5) ** (1 / 3) / 2))
    atoms = crystal(repeat)
    octahedra = octahedra_of(atoms.numbers, atoms.positions, atoms.cell.array)
    tracemalloc.start()
    for _ in warm(atoms, 2 * ROWS):
        pass
    alone = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    tilt_series(warm(atoms, 2 * ROWS), octahedra, window=4.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    started = time.perf_counter()
    for _ in warm(atoms, n_frames):
        pass
    making = time.perf_counter() - started
    started = time.perf_counter()
    tilt_series(warm(atoms, n_frames), octahedra, window=50.0)
    seconds = time.perf_counter() - started - making
    print(f'{len(atoms)} atoms, {n_frames} frames from a generator')
    rate = n_frames / seconds
    print(f'  this package       {rate:9.1f} frames/s, {len(atoms) * rate / 1e6:.1f}e6 atoms/s')
    print(f'  largest memory     {peak / 1e6:9.0f} MB, of which {alone / 1e6:.0f} MB are the frames that it is given')


def change_points() -> None:
    """Cut ramps of many windows."""
    import ruptures

    for n in (100, 400):
        rng = np.random.default_rng(n)
        x = np.linspace(1, 400, n)
        values = np.stack([(x > 225) * 0.4, (x < 385) * 0.3, (x > 225) * 0.1 + (x > 385) * 0.1], axis=1)
        values = np.tile(values, 3) + rng.normal(0, 0.03, (n, 9))
        started = time.perf_counter()
        ours = cut(x, values, n_breaks=2, straight=False)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        found = ruptures.KernelCPD(kernel='linear', min_size=3).fit(values / ours.noise).predict(n_bkps=2)
        theirs = time.perf_counter() - started
        started = time.perf_counter()
        straight = cut(x, values)
        lines = time.perf_counter() - started
        print(f'{n} windows of 9 quantities')
        print(f'  two breaks, constant pieces: {1e3 * seconds:.1f} ms at {list(ours.breaks)}', end='')
        print(f'; ruptures {1e3 * theirs:.1f} ms at {found[:-1]}')
        print(f'  number of breaks found, straight pieces: {1e3 * lines:.1f} ms at {list(straight.breaks)}')
    started = time.perf_counter()
    model = ruptures.Dynp(model='clinear', min_size=3, jump=1)
    model.fit(values[:100, :1]).predict(n_bkps=2)
    print(f'  ruptures, one quantity of 100 windows, straight pieces: {1e3 * (time.perf_counter() - started):.0f} ms')


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--atoms', type=int, default=96_000)
    parser.add_argument('--frames', type=int, default=200)
    arguments = parser.parse_args()
    beside_dynasor()
    large(arguments.atoms, arguments.frames)
    change_points()


if __name__ == '__main__':
    main()
