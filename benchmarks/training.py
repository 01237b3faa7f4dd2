"""What the plug-in adds to a training, beside the same trainer started by hand in the same run.

Trains by `TrainCalculation`, from submission to stored outputs; then runs the trainer's bare command in a new folder
with the files that the job had written for it. Prints wall and processor times of both, AiiDA's own included, and their
ratios; processor time does not change with what else the machine does. Make the training at least five minutes long by
`--settings`: most of what is added does not grow with it. Works in a temporary profile of its own.

With `--together` both run at the same time, on as many cores each: on a machine that has other work too, this hits both
alike, so that the ratio stays what it is. Both have one thread a core that sleeps where it waits: the trainers' own
default, which spins, is many times slower where other work wants the cores.

    python benchmarks/training.py --frames FILE [--architecture mace] [--settings '{"epochs": 50}'] [--cores N]
        [--together]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.harness import limit_threads, processor_time

COMMAND = 'command.json'


def by_hand(workdir: Path, python: Path, architecture: str, folder: Path) -> tuple[float, float]:
    """Return wall and processor time of the trainer's own command, in a folder with the files that it reads."""
    record = workdir / COMMAND
    for path in workdir.iterdir():
        if path.is_file() and path.stat().st_mtime <= record.stat().st_mtime:
            shutil.copy(path, folder)
    started = json.loads(record.read_text())
    command = started['command']
    if architecture == 'nep':  # our child drives neppo by its Python interface; this is its own command
        command = [str(python.parent / 'neppo'), 'train', '.', '--device', 'cpu']
    begun, used = time.perf_counter(), processor_time()
    with (folder / 'by-hand.log').open('w') as log:
        subprocess.run(
            command, cwd=folder, env={**os.environ, **started['environment']}, stdout=log, stderr=log, check=True
        )
    return time.perf_counter() - begun, processor_time() - used


def beside(root: Path, python: Path, architecture: str, folder: Path) -> tuple[float, float]:
    """Wait for the files of the job to come, and return the times of the trainer's own command beside it."""
    while True:
        found = next(root.rglob(COMMAND), None)
        if found is not None:
            time.sleep(1.0)  # all files are there before the trainer starts
            return by_hand(found.parent, python, architecture, folder)
        time.sleep(0.2)


def by_plugin(arguments: argparse.Namespace) -> tuple[float, float, Any]:
    """Return wall and processor time of a job, from submission to stored outputs, and its node."""
    from aiida import orm
    from aiida.engine import run_get_node

    from aiida_perovmlip.calculations.train import TrainCalculation
    from aiida_perovmlip.compute.level import Level
    from aiida_perovmlip.data.dataset import DatasetData

    frames = DatasetData.from_extxyz(arguments.frames, Level('unknown', functional='as in the file'))
    parts = frames.split({'training': len(frames) - 20, 'validation': 20}, seed=0)
    builder = TrainCalculation.get_builder()
    builder.code = orm.load_code(f'{arguments.architecture}@localhost')
    builder.architecture = arguments.architecture
    builder.training, builder.validation = parts['training'].store(), parts['validation'].store()
    builder.settings = json.loads(arguments.settings)
    resources = {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': arguments.cores}
    builder.metadata.options.resources = resources
    begun, used = time.perf_counter(), time.process_time()
    node = run_get_node(builder)[1]
    if not node.is_finished_ok:
        raise SystemExit(node.exit_message)
    told = node.outputs.results['seconds']
    return time.perf_counter() - begun, time.process_time() - used + told['cpu'], node


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=Path, help='extended XYZ with labels')
    parser.add_argument('--architecture', default='mace')
    parser.add_argument('--settings', default='{}', help='settings of the architecture as JSON')
    parser.add_argument('--cores', type=int, default=2)
    parser.add_argument('--together', action='store_true', help='run both at the same time')
    arguments = parser.parse_args()
    if arguments.frames is None:
        sys.exit('Name labelled frames: --frames FILE.')
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as bare:
        os.environ['AIIDA_PATH'] = folder
        from aiida import load_profile

        from aiida_perovmlip.installation import environments, profile

        limit_threads(arguments.cores)

        name = arguments.architecture
        python = environments.python_of(name)
        if python is None:
            sys.exit(f'There is no environment of {name}: aiida-perovmlip setup --environments-only --with {name}')
        profile.ensure_profile()
        load_profile()
        profile.ensure_localhost()
        profile.ensure_code(name, python)
        with ThreadPoolExecutor() as pool:
            root = Path(folder) / '.aiida' / 'work'
            alongside = pool.submit(beside, root, python, name, Path(bare)) if arguments.together else None
            seconds, used, node = by_plugin(arguments)
            hand = alongside.result() if alongside is not None else None
        if hand is None:
            hand = by_hand(Path(node.get_remote_workdir()), python, name, Path(bare))
        task = node.outputs.results['seconds']['task']
        wall, cpu = hand
        print(f'{name}, {arguments.cores} cores           wall s   CPU s')
        print(f'by hand                {wall:8.1f} {cpu:8.1f}')
        print(f'by the plug-in         {seconds:8.1f} {used:8.1f}')
        print(f'of which its task      {task:8.1f}')
        print(f'ratio                  {seconds / wall:8.3f} {used / cpu:8.3f}')


if __name__ == '__main__':
    main()
