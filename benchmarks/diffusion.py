"""Mean square displacements through the plug-in, beside MDAnalysis and kinisi in the same run.

Writes a made-up trajectory of the size of a published run (6 × 6 × 6 cells of MAPbI3, 2 592 atoms), whose iodides
walk with a known coefficient while all of the crystal drifts. Prints frames per second, peak memory, and how far the
displacements of MDAnalysis and the coefficient of kinisi are from ours. Both come from an environment of their own, as
they ask for numpy 2; AiiDA is not needed in it:

    python -m venv /tmp/diffusion && /tmp/diffusion/bin/pip install MDAnalysis tidynamics kinisi ase
    PYTHONPATH=src /tmp/diffusion/bin/python benchmarks/diffusion.py [--frames 20000] [--atoms 2592]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.analysis.diffusion import choose_window, diffusion_of, posterior_of
from aiida_perovmlip.analysis.displacement import Particles, displacements, survey, tracks_of
from aiida_perovmlip.compute.moving_atoms import MovingAtoms
from aiida_perovmlip.compute.trajectory import ChunkWriter, Trajectory

TIMESTEP = 1.0
EVERY = 100
SIDE = 38.2
WALK = 1e-7
SWING = 0.3
DRIFT = 2e-3
FEW = 1000


def write(folder: Path, n_frames: int, n_atoms: int) -> None:
    """Write the trajectory: a quarter of the atoms is I, a twelfth Pb, and all of them drift in Å per frame."""
    rng, n_iodides = np.random.default_rng(0), n_atoms // 4
    kinds = np.array([53] * n_iodides + [82] * (n_atoms // 12), dtype=np.uint8)
    numbers = np.concatenate([kinds, np.ones(n_atoms - len(kinds), dtype=np.uint8)])
    writer = ChunkWriter(folder, MovingAtoms(numbers, np.ones(n_atoms), np.ones(3, dtype=bool)))
    places = rng.uniform(0, SIDE, (n_atoms, 3))
    width = np.sqrt(2 * WALK * 1e4 * TIMESTEP * EVERY / 1000)
    for frame in range(n_frames):
        places[:n_iodides] += rng.normal(0, width, (n_iodides, 3))
        shaken = places + rng.normal(0, SWING, places.shape) + [DRIFT * frame, 0.0, 0.0]
        writer.frame(frame * EVERY, shaken, SIDE * np.eye(3))
    writer.close()


def ours(folder: Path) -> dict[str, Any]:
    """Read block by block; all three displacements, drift of Pb removed."""
    run = Trajectory.open_folder(folder, TIMESTEP)
    iodides, host = np.flatnonzero(run.atoms.numbers == 53), np.flatnonzero(run.atoms.numbers == 82)
    found = displacements(run.blocks, Particles.of_atoms(iodides), host)
    window = choose_window([found.sum])
    return {'msd': found.sum.values, 'D': diffusion_of([found.sum]).coefficient, 'begin': window.begin}


def mdanalysis(folder: Path) -> dict[str, Any]:
    """Load the iodides into memory, drift removed, and let MDAnalysis do the rest."""
    import MDAnalysis
    from MDAnalysis.analysis.msd import EinsteinMSD
    from MDAnalysis.coordinates.memory import MemoryReader

    positions = loaded(folder)
    universe = MDAnalysis.Universe.empty(positions.shape[1], trajectory=True)
    universe.load_new(positions, format=MemoryReader, order='fac', dt=TIMESTEP * EVERY / 1000)
    found = EinsteinMSD(universe, select='all', msd_type='xyz', fft=True).run()
    return {'msd': found.results.msds_by_particle.sum(axis=1)[: len(positions) // 2 + 1]}


def loaded(folder: Path) -> Any:
    """Return all iodides (F, n, 3) float32 in Å, the drift of Pb removed."""
    run = Trajectory.open_folder(folder, TIMESTEP)
    iodides, host = run.atoms.numbers == 53, run.atoms.numbers == 82
    parts = [
        (block.positions[:, iodides] - block.positions[:, host].mean(axis=1, keepdims=True)).astype(np.float32)
        for block in run.blocks()
    ]
    return np.concatenate(parts)


def bayesian(folder: Path) -> dict[str, Any]:
    """Let kinisi fit the first frames, and least squares the same ones."""
    run = Trajectory.open_folder(folder, TIMESTEP)

    def few() -> Any:
        seen = 0
        for block in run.blocks():
            if seen < FEW:
                yield tuple(each[: FEW - seen] for each in block)
            seen += len(block.times)

    iodides, host = np.flatnonzero(run.atoms.numbers == 53), np.flatnonzero(run.atoms.numbers == 82)
    particles, known = Particles.of_atoms(iodides), survey(few, host, iodides)
    fit = diffusion_of([displacements(few, particles, known=known).sum])
    start = time.process_time()
    found = posterior_of(tracks_of(few, particles, known), known.interval, fit.window.begin)
    seconds = time.process_time() - start
    return {'D': found.coefficient, 'error': found.error, 'fit': fit.coefficient, 'fit error': fit.error, 's': seconds}


WAYS = {'ours': ours, 'MDAnalysis': mdanalysis, 'kinisi': bayesian}


def measured(way: str, folder: Path) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, '--way', way, '--folder', str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f'{way}: {done.stderr.splitlines()[-1]}')
    return {**json.loads(done.stdout.splitlines()[-1]), 'msd': load(folder, way)}


def load(folder: Path, way: str) -> Any:
    place = folder / f'{way}.npy'
    return np.load(place) if place.exists() else None


def child(way: str, folder: Path) -> None:
    """Do the work of one way, and tell what it took."""
    start = time.process_time()
    found = WAYS[way](folder)
    seconds = time.process_time() - start
    if 'msd' in found:
        np.save(folder / f'{way}.npy', found.pop('msd'))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({**found, 'seconds': seconds, 'peak': peak}))


def main() -> None:
    """Measure all ways and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=int, default=20000)
    parser.add_argument('--atoms', type=int, default=2592)
    parser.add_argument('--way', choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        child(arguments.way, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, arguments.frames, arguments.atoms)
        print(f'{arguments.frames} frames of {arguments.atoms} atoms, {arguments.atoms // 4} of them followed\n')
        found = {way: measured(way, folder) for way in WAYS}
    n_iodides = arguments.atoms // 4
    for way in ('ours', 'MDAnalysis'):
        seconds, peak = found[way]['seconds'], found[way]['peak']
        print(f'{way:12s} {arguments.frames / seconds:8.0f} frames/s {seconds:8.1f} s CPU {peak:8.0f} MB at most')
    ratio = found['MDAnalysis']['seconds'] / found['ours']['seconds']
    print(f'{"ratio":12s} {ratio:8.2f} times as fast as MDAnalysis')
    mine, theirs = found['ours']['msd'][1:], found['MDAnalysis']['msd'][1:]
    print(f'{"difference":12s} {np.abs(mine / theirs - 1).max():8.1e} at most, of the sum over all lags')
    print(f'{"D":12s} {found["ours"]["D"]:.3e} cm²/s; the walk was made with {n_iodides * WALK:.3e}')
    kinisi = found['kinisi']
    print(
        f'{"kinisi":12s} {kinisi["D"]:.3e} ± {kinisi["error"]:.1e} cm²/s of the first {FEW} frames in '
        f'{kinisi["s"]:.1f} s CPU; least squares {kinisi["fit"]:.3e} ± {kinisi["fit error"]:.1e}'
    )


if __name__ == '__main__':
    main()
