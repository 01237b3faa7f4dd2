"""How fast trainings and evaluations are on a GPU, beside the cores of the same machine.

Needs no AiiDA: it writes the request of a job into a folder and runs the job there with the Python of an architecture's
environment, once on each device. Prints device, versions, seconds, and errors after the same number of steps.

    python benchmarks/gpu_training.py --frames FILE --architecture mace [--python PYTHON] [--devices cuda cpu]
        [--settings '{"epochs": 20}'] [--cores N]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

SOURCES = Path(__file__).resolve().parents[1] / 'src'
sys.path.insert(0, str(SOURCES))

ARCHITECTURES = {
    'mace': 'aiida_perovmlip.compute.architectures.mace:Mace',
    'nep': 'aiida_perovmlip.compute.architectures.nep:Nep',
    'allegro': 'aiida_perovmlip.compute.architectures.allegro:Allegro',
}


def write_frames(path: Path, folder: Path) -> None:
    """Write the frames to train on and 20 to validate by."""
    from aiida_perovmlip.compute.extxyz import open_text, read_extxyz
    from aiida_perovmlip.compute.frames import write_folder
    from aiida_perovmlip.compute.shard import build_shards

    with open_text(path) as handle:
        frames = [replace(frame, head='default') for frame in read_extxyz(handle, path.name)]
    order = np.random.default_rng(0).permutation(len(frames))
    for name, part in (('training', order[20:]), ('validation', order[:20])):
        write_folder(build_shards([frames[index] for index in part]), folder / name)


def run(task: str, folder: Path, arguments: argparse.Namespace, device: str, inputs: dict[str, str]) -> dict[str, Any]:
    """Run one job in a folder and return its response."""
    from aiida_perovmlip.compute.contract import REQUEST, RESPONSE, Request

    name = arguments.architecture
    request = Request(
        task=f'aiida_perovmlip.compute.tasks.{task}:{task.capitalize()}',
        plugins={'architecture': ARCHITECTURES[name]},
        inputs=inputs,
        settings={name: json.loads(arguments.settings)} if task == 'train' else {'head': None},
        cores=arguments.cores,
        device=device,
    )
    (folder / REQUEST).write_text(request.dump())
    command = [arguments.python, '-m', 'aiida_perovmlip.compute.harness']
    environment = {**os.environ, 'PYTHONPATH': str(SOURCES)}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr.decode()[-2000:])
    response: dict[str, Any] = json.loads((folder / RESPONSE).read_text())
    return response


def main() -> None:
    """Train and evaluate on each device and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=Path, help='extended XYZ with labels')
    parser.add_argument('--architecture', default='mace', choices=list(ARCHITECTURES))
    parser.add_argument('--python', default=sys.executable, help="Python of the architecture's environment")
    parser.add_argument('--devices', nargs='+', default=['cuda', 'cpu'])
    parser.add_argument('--settings', default='{}', help='settings of the architecture as JSON')
    parser.add_argument('--cores', type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.frames is None:
        sys.exit('Name labelled frames: --frames FILE.')
    for device in arguments.devices:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_frames(arguments.frames, folder)
            trained = run('train', folder, arguments, device, {'training': 'training', 'validation': 'validation'})
            used = run('evaluate', folder, arguments, device, {'potential': 'potential', 'dataset': 'validation'})
        last = trained['results']['last']
        errors = ', '.join(f'{key} {value:.4g}' for key, value in last.items() if key.startswith('validation_'))
        print(f'{date.today()} {arguments.architecture} on {trained["device"]}, {arguments.cores} cores: training')
        print(
            f'    {trained["seconds"]["task"]:.1f} s, {used["results"]["microseconds_per_atom"]:.1f} µs/atom; {errors}'
        )
        print(f'    {trained["versions"]}')


if __name__ == '__main__':
    main()
