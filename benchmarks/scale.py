"""What a label costs when there are many: with some numbers of workers, on a laptop's stack and on that of a group.

Prints for each number of workers the rate of AiiDA's own `core.arithmetic.add`, that of jobs with one label each, and
the time of a labelling in batches beside a bare loop over the same calculator; the CPU seconds of the workers, their
largest memory, and how much database and repository grow. Works in profiles and with services of its own.

    python benchmarks/scale.py [--labels N] [--batch N] [--jobs N] [--workers 1,2,4] [--stack laptop,cluster]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / 'tests' / 'faults'), str(ROOT / 'benchmarks')]

PATIENCE = 3000.0


class Meter:
    """CPU seconds, memory, and bytes on the disk of a daemon and its profile."""

    def __init__(self, stack: Any) -> None:
        import psutil

        self.stack, self.peak = stack, 0
        self.processes = [psutil.Process(pid) for pid in stack.workers()]
        self.cpu, self.disk = self._cpu(), self._disk()

    def look(self) -> None:
        """Note the memory of the largest worker."""
        self.peak = max(self.peak, *(process.memory_info().rss for process in self.processes))

    def read(self) -> dict[str, float]:
        """Return what was used since the beginning."""
        self.look()
        return {'cpu': self._cpu() - self.cpu, 'memory': self.peak / 1e6, 'disk': (self._disk() - self.disk) / 1e3}

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)

    def _disk(self) -> int:
        from aiida.manage import get_manager
        from sqlalchemy import text

        profile = get_manager().get_profile()
        config = profile.storage_config
        if 'database_name' in config:
            session = get_manager().get_profile_storage().get_session()
            size = int(session.execute(text('select pg_database_size(current_database())')).scalar())
            folder = Path(config['repository_uri'].removeprefix('file://'))
        else:
            size, folder = 0, Path(config['filepath'])
        return size + sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def wait(pks: list[int], meter: Meter) -> None:
    """Wait until all processes have ended well."""
    from aiida import orm

    deadline = time.monotonic() + PATIENCE
    while True:
        filters = {'id': {'in': pks}, 'attributes.process_state': {'in': ['finished', 'excepted', 'killed']}}
        query = orm.QueryBuilder().append(orm.ProcessNode, filters=filters, project='attributes.exit_status')
        ended = query.all(flat=True)
        if len(ended) == len(pks):
            if any(ended):
                raise SystemExit(f'{sum(map(bool, ended))} of {len(ended)} failed')
            return
        if time.monotonic() > deadline:
            raise SystemExit(f'{len(ended)} of {len(pks)} have ended after {PATIENCE:.0f} s')
        meter.look()
        time.sleep(0.2)


def measure(stack: Any, number: int, work: Any) -> dict[str, float]:
    """Return seconds and what else it takes to do a piece of work, by each of so many things that it makes."""
    meter, begin = Meter(stack), time.perf_counter()
    pks = work()
    wait(pks, meter)
    seconds = time.perf_counter() - begin
    used = meter.read()
    return {
        'seconds': seconds,
        'rate': number / seconds,
        'cpu_each': used['cpu'] / number,
        'memory': used['memory'],
        'disk_each': used['disk'] / number,
    }


def additions(stack: Any, number: int) -> list[int]:
    """Submit so many additions."""
    from aiida import orm
    from aiida.engine import submit
    from aiida.plugins import CalculationFactory

    code = orm.load_code(f'bash@{stack.computer}')
    pks = []
    for value in range(number):
        builder = CalculationFactory('core.arithmetic.add').get_builder()
        builder.code, builder.x, builder.y = code, orm.Int(value), orm.Int(1)
        builder.metadata.options.resources = {'num_machines': 1, 'num_mpiprocs_per_machine': 1}
        pks.append(submit(builder).pk)
    return pks


def label_jobs(stack: Any, number: int, labeller: str) -> list[int]:
    """Submit so many jobs of one label each."""
    from aiida import orm
    from aiida.engine import submit
    from labelling import make_frames

    from aiida_perovmlip.calculations.label import LabelCalculation
    from aiida_perovmlip.data.dataset import DatasetData

    code, pks = orm.load_code(f'{labeller}@{stack.computer}'), []
    for seed in range(number):
        builder = LabelCalculation.get_builder()
        builder.code, builder.labeller = code, labeller
        builder.frames = DatasetData.from_ase(make_frames(1, seed))
        builder.settings = {'smallest_cell': 0.0}
        pks.append(submit(builder).pk)
    return pks


def labelling(stack: Any, number: int, batch: int, at_once: int, labeller: str) -> list[int]:
    """Submit one labelling in batches."""
    from aiida import orm
    from aiida.engine import submit
    from labelling import make_frames

    from aiida_perovmlip.data.dataset import DatasetData
    from aiida_perovmlip.workflows.label import LabelWorkChain

    code = orm.load_code(f'{labeller}@{stack.computer}')
    builder = LabelWorkChain.get_builder_from_protocol(
        labeller,
        code,
        DatasetData.from_ase(make_frames(number, number + batch)),
        settings={'smallest_cell': 0.0},
        batch_size=batch,
        max_concurrent=at_once,
    )
    return [submit(builder).pk]


def workers_of(stack: Any, number: int) -> None:
    """Give the daemon so many workers."""
    more = number - len(stack.workers())
    if more > 0:
        stack.daemon.increase_workers(more, timeout=60)
    elif more < 0:
        stack.daemon.decrease_workers(-more, timeout=60)
    deadline = time.monotonic() + 60.0
    while len(stack.workers()) != number:
        if time.monotonic() > deadline:
            raise SystemExit(f'the daemon has {len(stack.workers())} workers, not {number}')
        time.sleep(0.5)
    time.sleep(5.0)  # they load AiiDA


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--labels', type=int, default=2000)
    parser.add_argument('--batch', type=int, default=50)
    parser.add_argument('--jobs', type=int, default=40, help='jobs of one label each, and additions')
    parser.add_argument('--workers', default='1,2,4')
    parser.add_argument('--stack', default='laptop,cluster')
    arguments = parser.parse_args()
    for name in arguments.stack.split(','):
        # A profile cannot be left for another one in the same process, so each stack has its own.
        child = os.fork()
        if child == 0:
            try:
                one_stack(name, arguments)
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(child, 0)


def one_stack(name: str, arguments: argparse.Namespace) -> None:
    """Measure on one stack, and print a table."""
    from stacks import BIN, STACKS, run

    if lack := STACKS[name].lack():
        print(f'{name}: {lack}')
        return
    os.environ['PATH'] = f'{BIN}:{os.environ["PATH"]}'
    from aiida_perovmlip.installation import environments

    python = environments.python_of('tblite')
    if python is None:
        print('there is no environment of tblite: `aiida-perovmlip setup --environments-only --with tblite`')
        return
    from labelling import bare_loop, make_frames

    with tempfile.TemporaryDirectory(prefix='perovmlip-scale-', ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        os.environ |= {'AIIDA_PATH': folder, 'HOME': f'{folder}/home'}
        Path(folder, 'home').mkdir()
        stack = STACKS[name](Path(folder), codes={'tblite': python})
        try:
            stack.start()
            bash = ['-L', 'bash', '-Y', stack.computer, '-X', '/bin/bash', '-P', 'core.arithmetic.add']
            run('verdi', 'code', 'create', 'core.code.installed', '-n', *bash)
            bare = bare_loop(python, make_frames(100, 1)) / 100
            print(f'{name}: a bare label takes {bare:.3f} s', flush=True)
            print('workers  what                      seconds   per s   CPU s each   memory MB   disk kB each')
            found = []
            for workers in map(int, arguments.workers.split(',')):
                workers_of(stack, workers)
                found += _measured(stack, workers, arguments)
            print(json.dumps({'stack': name, 'bare': bare, 'found': found}))
        finally:
            stack.stop()


def _measured(stack: Any, workers: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure with a number of workers."""
    jobs, labels, batch = arguments.jobs, arguments.labels, arguments.batch
    pieces = {
        f'{jobs} additions': (jobs, lambda: additions(stack, jobs)),
        f'{jobs} jobs of a label': (jobs, lambda: label_jobs(stack, jobs, 'tblite')),
        f'{labels} labels by {batch}': (labels, lambda: labelling(stack, labels, batch, 2, 'tblite')),
    }
    found = []
    for what, (number, work) in pieces.items():
        told = measure(stack, number, work)
        found.append({'workers': workers, 'what': what, **told})
        print(
            f'{workers:>7}  {what:<24} {told["seconds"]:8.1f} {told["rate"]:7.2f} {told["cpu_each"]:12.3f} '
            f'{told["memory"]:11.0f} {told["disk_each"]:14.1f}',
            flush=True,
        )
    return found


if __name__ == '__main__':
    main()
