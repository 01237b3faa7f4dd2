"""Labels through the chain beside a bare Python loop over the same calculator, in the same run.

Prints the wall time of GFN2-xTB labels of rattled CsPbI3 cells: by a bare loop, by the labelling chain in batches as it
chooses these, and by the chain with one job for each frame. One core each. Works in a temporary profile of its own.

    python benchmarks/labelling.py [--frames N] [--single N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

BARE = """
import sys, time
from ase.io import read
from tblite.ase import TBLite
started = time.perf_counter()
for atoms in read(sys.argv[1], ':'):
    atoms.calc = TBLite(method='GFN2-xTB', verbosity=0)
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
print(time.perf_counter() - started)
"""


def make_frames(count: int, seed: int) -> list[Any]:
    """Return rattled cubic CsPbI3 cells of five atoms."""
    from ase import Atoms

    rng = np.random.default_rng(seed)
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    frames = []
    for _ in range(count):
        atoms = Atoms('CsPbI3', scaled_positions=sites, cell=[rng.uniform(6.1, 6.5)] * 3, pbc=True)
        atoms.positions += rng.normal(0, 0.05, (5, 3))
        frames.append(atoms)
    return frames


def bare_loop(python: Path, frames: list[Any]) -> float:
    """Return the seconds of a bare loop, the start of Python not counted."""
    from ase.io import write

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'frames.extxyz'
        write(path, frames, format='extxyz')
        one = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
        ran = subprocess.run(
            [python, '-c', BARE, str(path)], capture_output=True, text=True, check=True, env={**os.environ, **one}
        )
    return float(ran.stdout)


def chain(frames: list[Any], **inputs: Any) -> tuple[float, Any]:
    """Return the seconds of the whole chain, from submission to the collected dataset, and its node."""
    from aiida import orm
    from aiida.engine import run_get_node

    from aiida_perovmlip.data.dataset import DatasetData
    from aiida_perovmlip.workflows.label import LabelWorkChain

    code, settings = orm.load_code('tblite@localhost'), {'smallest_cell': 0.0}
    started = time.perf_counter()
    builder = LabelWorkChain.get_builder_from_protocol(
        'tblite', code, DatasetData.from_ase(frames), settings=settings, max_concurrent=1, **inputs
    )
    node = run_get_node(builder)[1]
    seconds = time.perf_counter() - started
    if len(node.outputs.dataset) != len(frames):
        raise SystemExit(f'{len(frames) - len(node.outputs.dataset)} frames have no label: {node.exit_message}')
    return seconds, node


def show(what: str, seconds: float, count: int, bare: float, jobs: str = '') -> None:
    """Print one line; `bare` is the time of the bare loop for one frame."""
    print(
        f'{what:34s} {seconds:8.1f} s  {count / seconds:6.2f} labels/s  throughput {bare * count / seconds:5.2f} {jobs}'
    )


def main() -> None:
    """Run in a temporary profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=500, help='frames of the comparison with the bare loop')
    parser.add_argument('--single', type=int, default=200, help='frames of the comparison of one job each with batches')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ['AIIDA_PATH'] = folder
        from aiida_perovmlip.installation import environments, profile

        python = environments.python_of('tblite')
        if python is None:
            sys.exit('There is no environment of tblite: aiida-perovmlip setup --environments-only --with tblite')
        profile.ensure_profile()
        profile.ensure_localhost()
        profile.ensure_code('tblite', python)
        many, few = make_frames(arguments.frames, seed=1), make_frames(arguments.single, seed=2)
        bare = bare_loop(python, many)
        batches, node = chain(many)
        again = bare_loop(python, many)  # the machine may have changed meanwhile
        each = (bare + again) / 2 / len(many)
        show(f'{len(many)} frames, bare loop', each * len(many), len(many), each)
        show(f'{len(many)} frames, chain', batches, len(many), each, f'in {node.outputs.results["n_jobs"]} jobs')
        seconds, node = chain(few, batch_size=200)
        show(f'{len(few)} frames, chain', seconds, len(few), each, f'in {node.outputs.results["n_jobs"]} jobs')
        few = make_frames(arguments.single, seed=3)
        seconds, node = chain(few, batch_size=1)
        show(f'{len(few)} frames, one job each', seconds, len(few), each, f'in {node.outputs.results["n_jobs"]} jobs')


if __name__ == '__main__':
    main()
