"""What it is worth to predict all images of a band in one call.

Relaxes the hop of an iodine vacancy in CsPbI3 (39 atoms) with a potential in both ways: all images at once, and image
after image with one ASE calculator each, as a band of ASE does it. Prints steps, barriers, seconds and their ratio. Run
it with the Python of the architecture's environment; the ends are built by hand, as that has no AiiDA.

    PYTHONPATH=src PYTHON_OF_ENVIRONMENT benchmarks/neb.py --architecture nep --potential FOLDER [--images 7]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_perovmlip.compute.architecture import Prediction, Predictor, prediction_of
from aiida_perovmlip.compute.band import BandSettings, relax_band
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.plugin import load_object

PLACES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
EMPTIED, MOVED = 2, 3


def first_path(n_images: int) -> list[Frame]:
    """Return the straight path of an iodide into the vacancy beside it, in a cell that is slightly distorted."""
    start = Atoms('PbCsI3', scaled_positions=PLACES, cell=3 * [6.29], pbc=True).repeat(2)
    start.positions += np.random.default_rng(0).normal(0, 0.05, start.positions.shape)
    way = start.get_distance(MOVED, EMPTIED, mic=True, vector=True)
    frames = []
    for part in np.linspace(0, 1, n_images + 2):
        image = start.copy()
        # A detour round the lead keeps the images of the straight way apart from it.
        image.positions[MOVED] += part * way + np.sin(np.pi * part) * np.array([0.7, 0.7, 0.0])
        del image[EMPTIED]
        frames.append(Frame.from_atoms(image))
    return frames


def one_by_one(architecture: Any, potential: Path, n_images: int) -> Predictor:
    """Return what predicts each image with a calculator of its own."""
    calculators = [architecture.calculator(potential, 'cpu') for _ in range(n_images + 2)]

    def predict(frames: Iterable[Frame]) -> Iterator[Prediction]:
        for calculator, frame in zip(calculators, frames, strict=False):
            yield prediction_of(calculator, frame)

    return predict


def main() -> None:
    """Relax twice and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--architecture', required=True)
    parser.add_argument('--potential', type=Path, required=True, help='folder with the files of the potential')
    parser.add_argument('--images', type=int, default=7)
    arguments = parser.parse_args()
    name = arguments.architecture
    architecture = load_object(f'aiida_perovmlip.compute.architectures.{name}:{name.capitalize()}')()
    frames = first_path(arguments.images)
    seconds = {}
    ways = {
        'image after image': one_by_one(architecture, arguments.potential, arguments.images),
        'all at once': architecture.predictor(arguments.potential),
    }
    for name, predictor in ways.items():
        list(predictor(frames))  # what is opened and compiled once is not counted
        started = time.perf_counter()
        band = relax_band(frames, predictor, BandSettings(), lambda band: True)
        seconds[name] = time.perf_counter() - started
        energies = np.array([frame.energy for frame in band.frames], dtype=float)
        up, down = energies.max() - energies[0], energies.max() - energies[-1]
        print(
            f'{name:20s} {band.steps:5d} steps  {up:.3f} and {down:.3f} eV  {seconds[name]:7.1f} s'
            + ('' if band.is_converged else '  (not converged)'),
            flush=True,
        )
    print(f'{"ratio":20s} {seconds["image after image"] / seconds["all at once"]:.2f}')


if __name__ == '__main__':
    main()
