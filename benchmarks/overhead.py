"""What AiiDA adds to one compute job, beside a bare job of AiiDA and the bare task in the same run.

Prints, for the fastest of some runs, the wall time from submission to parsed outputs minus the seconds of the task
itself, and the wall and CPU time of AiiDA's own `core.arithmetic.add`. Works in a temporary profile of its own.

    python benchmarks/overhead.py [--runs N]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def fastest(work: Callable[[], Any], runs: int) -> tuple[float, float, Any]:
    """Return wall and CPU seconds of the fastest of some runs, and what it returned."""
    results = []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        value = work()
        results.append((time.perf_counter() - wall, time.process_time() - cpu, value))
    return min(results, key=lambda entry: entry[0])


def frames(count: int) -> list[Any]:
    """Return labelled frames of 40 atoms."""
    from aiida_perovmlip.compute.frame import Frame

    rng = np.random.default_rng(0)
    numbers = np.array([55, 82, 53, 53, 53] * 8)
    cell, pbc = 12.6 * np.eye(3), np.ones(3, dtype=bool)
    values = [rng.random((80, 3)) for _ in range(count)]
    return [Frame(numbers, 12.6 * value[:40], cell, pbc, 0.0, value[40:], np.zeros(6)) for value in values]


def main() -> None:
    """Run in a temporary profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--runs', type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        os.environ['AIIDA_PATH'] = folder
        from aiida import load_profile
        from aiida.engine import run_get_node

        from aiida_perovmlip.calculations.train import TrainCalculation
        from aiida_perovmlip.data.dataset import DatasetData
        from aiida_perovmlip.installation import profile

        profile.ensure_profile()
        load_profile()
        profile.ensure_localhost()
        profile.ensure_code('reference', sys.executable)
        from aiida import orm

        computer = orm.load_computer('localhost')
        add = orm.InstalledCode(
            label='add',
            computer=computer,
            filepath_executable='/bin/bash',
            default_calc_job_plugin='core.arithmetic.add',
        ).store()
        sum_builder = add.get_builder()
        sum_builder.x, sum_builder.y = orm.Int(1), orm.Int(2)
        builder = TrainCalculation.get_builder()
        builder.code = orm.load_code('reference@localhost')
        builder.architecture = 'reference'
        builder.training = DatasetData.from_frames(frames(10), {'labeller': 'benchmark'}).store()

        bare = fastest(lambda: run_get_node(sum_builder), runs)
        ours = fastest(lambda: run_get_node(builder), runs)
        seconds = ours[2][1].outputs.results['seconds']
        print(f'fastest of {runs} runs                               wall s   CPU s of AiiDA')
        print(f'  core.arithmetic.add                         {bare[0]:8.2f} {bare[1]:8.2f}')
        print(f'  training job, submission to parsed outputs  {ours[0]:8.2f} {ours[1]:8.2f}')
        print(f'    the task itself                           {seconds["task"]:8.2f}')
        print(f'    overhead                                  {ours[0] - seconds["task"]:8.2f}')
        print(f'      of it in the job (imports, request, response) {seconds["total"] - seconds["task"]:.2f}')
        print(f'      ratio to a bare AiiDA job               {(ours[0] - seconds["task"]) / bare[0]:8.2f}')


if __name__ == '__main__':
    main()
