"""What it is worth to predict all images of a band in one call.

Relaxes the hop of an iodine vacancy in CsPbI3 (39 atoms) with a potential in both ways: all images at once, and image
after image with one ASE calculator each, as a band of ASE does it. Prints steps, barriers, seconds and their ratio; on
a machine that has other work too, that of the processor's seconds is the one to look at. Run it with the Python of the
architecture's environment; the ends are built by hand, as that has no AiiDA.

    PYTHONPATH=src PYTHON_OF_ENVIRONMENT benchmarks/neb.py --architecture nep --potential FOLDER [--images 7]
    PYTHONPATH=src PYTHON_OF_ENVIRONMENT benchmarks/neb.py --architecture mace --frames FILE [--settings '{}']

Without a potential a small one is trained first, by the settings `fast` of the architecture and those of `--settings`
on labelled frames (extended XYZ). Its barrier is worth nothing; the seconds of a step are those of its size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_perovmlip.compute.architecture import Prediction, Predictor, prediction_of
from aiida_perovmlip.compute.band import BandSettings, relax_band
from aiida_perovmlip.compute.contract import RESPONSE, Request, Response, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.plugin import load_object
from aiida_perovmlip.compute.shard import build_shards

PLACES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
EMPTIED, MOVED = 2, 3


def first_path(n_images: int) -> list[Frame]:
    """Return the straight path of an iodide into the vacancy beside it, in a cell that is slightly distorted."""
    start = Atoms('PbCsI3', scaled_positions=PLACES, cell=3 * [6.29], pbc=True).repeat(2)
    way = start.get_distance(MOVED, EMPTIED, mic=True, vector=True)
    shake = np.random.default_rng(0).normal(0, 0.05, (len(start) - 1, 3))  # so that the octahedra can tilt
    frames = []
    for part in np.linspace(0, 1, n_images + 2):
        image = start.copy()
        # A detour round the lead keeps the images of the straight way apart from it.
        image.positions[MOVED] += part * way + np.sin(np.pi * part) * np.array([0.7, 0.7, 0.0])
        del image[EMPTIED]
        image.positions += shake
        frames.append(Frame.from_atoms(image))
    return frames


def one_by_one(architecture: Any, potential: Path, n_images: int) -> Predictor:
    """Return what predicts each image with a calculator of its own."""
    calculators = [architecture.calculator(potential, 'cpu') for _ in range(n_images + 2)]

    def predict(frames: Iterable[Frame]) -> Iterator[Prediction]:
        for calculator, frame in zip(calculators, frames, strict=False):
            yield prediction_of(calculator, frame)

    return predict


def trained(architecture: Any, frames: Path, settings: dict[str, Any], folder: Path) -> Path:
    """Return the folder of a small potential that is trained here: on an untrained surface a band gets nowhere."""
    from ase.io import read

    known = [Frame.from_atoms(atoms) for atoms in read(frames, ':')]
    n_validation = max(1, len(known) // 10)
    write_folder(build_shards(known[n_validation:]), folder / 'training')
    write_folder(build_shards(known[:n_validation]), folder / 'validation')
    name = architecture.name
    request = Request(
        task='aiida_perovmlip.compute.tasks.train:Train',
        plugins={'architecture': f'{type(architecture).__module__}:{type(architecture).__name__}'},
        inputs={'training': 'training', 'validation': 'validation'},
        settings={name: {**architecture.protocols['fast'][1], **settings}, 'strategy': 'scratch'},
    )
    (folder / 'request.json').write_text(request.dump())
    paths = {**os.environ, 'PYTHONPATH': str(Path(__file__).resolve().parents[1] / 'src')}
    started = time.perf_counter()
    command = [sys.executable, '-m', 'aiida_perovmlip.compute.harness']
    subprocess.run(command, cwd=folder, env=paths, stdout=subprocess.DEVNULL, check=False)
    response = Response.load((folder / RESPONSE).read_text())
    if response.status is not Status.OK:
        sys.exit(f'The training ended with {response.status}: {response.message}')
    print(f'trained on {len(known) - n_validation} frames in {time.perf_counter() - started:.0f} s', flush=True)
    return folder / 'potential'


def compare(architecture: Any, potential: Path, n_images: int, max_steps: int) -> None:
    """Relax in both ways and print."""
    frames = first_path(n_images)
    seconds, busy = {}, {}
    ways = {
        'image after image': one_by_one(architecture, potential, n_images),
        'all at once': architecture.predictor(potential),
    }
    for name, predictor in ways.items():
        list(predictor(frames))  # what is opened and compiled once is not counted
        started, worked = time.perf_counter(), time.process_time()
        settings = BandSettings(max_steps=max_steps, max_steps_ends=max_steps)
        band = relax_band(frames, predictor, settings, lambda band: True)
        seconds[name], busy[name] = time.perf_counter() - started, time.process_time() - worked
        energies = np.array([frame.energy for frame in band.frames], dtype=float)
        up, down = energies.max() - energies[0], energies.max() - energies[-1]
        took = f'{seconds[name]:7.1f} s, {busy[name]:7.1f} s of processors'
        end = '' if band.is_converged else '  (not converged)'
        print(f'{name:20s} {band.steps:5d} steps  {up:.3f} and {down:.3f} eV  {took}{end}', flush=True)
    ratios = [each['image after image'] / each['all at once'] for each in (seconds, busy)]
    print(f'{"ratio":20s} {ratios[0]:.2f}, of processors {ratios[1]:.2f}')


def main() -> None:
    """Train where that is asked for, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--architecture', required=True)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('--potential', type=Path, help='folder with the files of the potential')
    which.add_argument('--frames', type=Path, help='extended XYZ with labels, to train a small potential on')
    parser.add_argument('--settings', default='{}', help='settings of that training as JSON')
    parser.add_argument('--images', type=int, default=7)
    parser.add_argument('--max-steps', type=int, default=1000, help='of the band and of each end')
    arguments = parser.parse_args()
    name = arguments.architecture
    architecture = load_object(f'aiida_perovmlip.compute.architectures.{name}:{name.capitalize()}')()
    with tempfile.TemporaryDirectory() as folder:
        potential = arguments.potential or trained(
            architecture, arguments.frames, json.loads(arguments.settings), Path(folder)
        )
        compare(architecture, potential, arguments.images, arguments.max_steps)


if __name__ == '__main__':
    main()
