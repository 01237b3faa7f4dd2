"""A labelling under fire: workers of the daemon and a job are killed, a frame diverges, a code is broken.

    python tests/faults/labelling_campaign.py --frames 100 --kills 3

makes a profile of its own in a temporary folder, starts a daemon there, labels frames with GFN2-xTB, and does all of
the above meanwhile. In the end it computes every label once more, by itself, and compares. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PATIENCE = 1200.0
"""Seconds after which the campaign counts as stuck."""

STALLED = 45.0
"""Seconds without any progress after which the daemon is started anew, as a user would.

The broker of AiiDA 2.9 looks once whether a worker that went away is dead; where it looks too early, the tasks of that
worker stay with it until a restart, while everything looks healthy.
"""

LABEL_IT = """
import json, sys
from ase.io import read
from tblite.ase import TBLite
for atoms in read(sys.argv[1], ':'):
    atoms.calc = TBLite(method='GFN2-xTB', verbosity=0)
    try:
        print(json.dumps([atoms.get_potential_energy(), atoms.get_forces().tolist()]), flush=True)
    except Exception:
        print('null', flush=True)
"""


def make_frames(count: int, bad: int) -> list[Any]:
    """Return rattled cubic CsPbI3 cells of five atoms; in one of them two atoms lie on each other."""
    import numpy as np
    from ase import Atoms

    rng = np.random.default_rng(7)
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    frames = []
    for number in range(count):
        atoms = Atoms('CsPbI3', scaled_positions=sites, cell=[rng.uniform(6.1, 6.5)] * 3, pbc=True)
        atoms.positions += rng.normal(0, 0.05, (5, 3))
        if number == bad:
            atoms.positions[1] = atoms.positions[0]
        atoms.info['group'] = f'frame {number}'
        frames.append(atoms)
    return frames


class Daemon:
    """The daemon of the profile, and its workers as processes of this machine."""

    def __init__(self) -> None:
        from aiida.engine.daemon.client import get_daemon_client

        self.client = get_daemon_client()

    def start(self, workers: int) -> None:
        """Start it."""
        self.client.start_daemon(number_workers=workers)

    def stop(self) -> None:
        """Stop it and all that it started."""
        with contextlib.suppress(Exception):
            self.client.stop_daemon(wait=True, timeout=60)

    def restart(self) -> None:
        """Do what `verdi daemon restart` does."""
        self.stop()
        self.start(2)

    def kill_worker(self) -> int:
        """Kill one worker with signal 9; the daemon starts another one."""
        workers = self.client.get_worker_info()['info']
        pid = random.choice([int(pid) for pid in workers])
        os.kill(pid, signal.SIGKILL)
        return pid


def kill_a_job(work: Path) -> int | None:
    """Kill the process of a job that is at work with signal 9."""
    for entry in Path('/proc').iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = (entry / 'cmdline').read_bytes().replace(b'\0', b' ').decode()
            if 'aiida_perovmlip.compute.harness' in command and str(work) in str((entry / 'cwd').readlink()):
                os.kill(int(entry.name), signal.SIGKILL)
                return int(entry.name)
    return None


def progress_of(node: Any) -> int:
    """Return how many jobs of a chain have ended."""
    from aiida import orm

    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': node.pk}, tag='chain')
    ended = {'attributes.process_state': {'in': ['finished', 'excepted', 'killed']}}
    return int(query.append(orm.CalcJobNode, with_incoming='chain', filters=ended).count())


def campaign(python: Path, n_frames: int, kills: int, batch: int, seed: int) -> dict[str, Any]:
    """Run it all; return what happened."""
    from aiida import orm
    from aiida.engine import submit

    from aiida_perovmlip.data.dataset import DatasetData
    from aiida_perovmlip.installation import profile
    from aiida_perovmlip.workflows.label import LabelWorkChain

    random.seed(seed)
    profile.ensure_profile()
    profile.ensure_localhost()
    profile.ensure_code('tblite', python)
    profile.ensure_code('broken', Path('/no/such/python'))
    bad = n_frames // 2
    frames = make_frames(n_frames, bad)
    builder = LabelWorkChain.get_builder_from_protocol(
        'tblite',
        {'works': orm.load_code('tblite@localhost'), 'broken': orm.load_code('broken@localhost')},
        DatasetData.from_ase(frames),
        settings={'smallest_cell': 0.0},
        batch_size=batch,
        max_concurrent=3,
    )
    daemon = Daemon()
    daemon.start(2)
    events: list[str] = []
    try:
        node = submit(builder)
        watch_and_kill(node, daemon, kills, -(-n_frames // batch), profile.work_folder(), events)
        daemon_survived = daemon.client.is_daemon_running
    finally:
        daemon.stop()
    return judge(orm.load_node(node.pk), frames, bad, python) | {'events': events, 'daemon': daemon_survived}


def watch_and_kill(node: Any, daemon: Daemon, kills: int, n_jobs: int, work: Path, events: list[str]) -> None:
    """Kill workers, spread over the campaign, and one job, until the chain has ended."""
    from aiida import orm

    deadline, moved, last = time.monotonic() + PATIENCE, time.monotonic(), -1
    workers = jobs = 0
    while not orm.load_node(node.pk).is_terminated:
        done = progress_of(node)
        if done != last:
            moved, last = time.monotonic(), done
        if workers < kills and done >= (workers + 1) * n_jobs // (kills + 2):
            workers += 1
            events.append(f'worker {daemon.kill_worker()} killed after {done} jobs')
        if not jobs and done >= 1 and (pid := kill_a_job(work)) is not None:
            jobs = 1
            events.append(f'job process {pid} killed after {done} jobs')
        if time.monotonic() - moved > STALLED:
            moved = time.monotonic()
            events.append(f'daemon restarted, as it stood still after {done} jobs')
            daemon.restart()
        if time.monotonic() > deadline:
            raise TimeoutError(f'stuck after {PATIENCE:.0f} s: {events}')
        time.sleep(0.2)


def judge(node: Any, frames: list[Any], bad: int, python: Path) -> dict[str, Any]:
    """Compare with labels computed by a bare loop, and look for what was lost or done twice."""
    import numpy as np
    from aiida import orm
    from ase.io import write

    from aiida_perovmlip.workflows.pool import has_lived

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'frames.extxyz'
        plain = [atoms.copy() for atoms in frames]
        write(path, plain, format='extxyz')
        told = subprocess.run([python, '-c', LABEL_IT, str(path)], capture_output=True, text=True, check=True)
    expected = [json.loads(line) for line in told.stdout.splitlines()]
    wrong, sources = [], set()
    dataset = node.outputs.dataset
    for frame in dataset:
        number = int(frame.group.split()[1])
        energy, forces = expected[number]
        same = np.allclose(frame.positions, frames[number].positions, atol=0)
        sources.add(frame.source)
        if not same or abs(frame.energy - energy) > 1e-6 or np.abs(frame.forces - np.array(forces)).max() > 1e-5:
            wrong.append(number)
    jobs = [child for child in node.called if isinstance(child, orm.CalcJobNode)]
    lived = [link for link in node.base.links.get_outgoing(orm.CalcJobNode).all() if has_lived(link.node)]
    labels_made = [
        digest for job in jobs if 'dataset' in job.outputs for _, digest, _ in job.outputs.dataset.frames.with_digests()
    ]
    return {
        'exit_status': node.exit_status,
        'n_frames': len(frames),
        'n_labelled': len(dataset),
        'n_wrong': len(wrong),
        'n_computed_twice': len(labels_made) - len(set(labels_made)),
        'sources_are_jobs': sources <= {job.uuid for job in jobs},
        'failures': [[row['frame'], row['kind'], row['reason']] for row in node.outputs.failures['frames']],
        'bad_frame': bad,
        'n_jobs': len(jobs),
        'n_jobs_of_broken_code': sum(job.inputs.code.label == 'broken' for job in jobs),
        'n_duplicate_links': len(lived) - len({link.link_label for link in lived}),
    }


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--frames', type=int, default=100)
    parser.add_argument('--kills', type=int, default=3, help='workers of the daemon that are killed')
    parser.add_argument('--batch', type=int, default=4, help='frames of a job')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--python', type=Path, help='Python with tblite; by default that of its environment')
    arguments = parser.parse_args()
    os.environ['PATH'] = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'  # AiiDA looks for `verdi` when imported
    from aiida_perovmlip.installation import environments

    python = arguments.python or environments.python_of('tblite')
    if python is None:
        parser.error('there is no environment of tblite: aiida-perovmlip setup --environments-only --with tblite')
    with tempfile.TemporaryDirectory(prefix='perovmlip-faults-', ignore_cleanup_errors=True) as folder:
        os.environ['AIIDA_PATH'] = folder
        found = campaign(python, arguments.frames, arguments.kills, arguments.batch, arguments.seed)
    print(json.dumps(found))


if __name__ == '__main__':
    main()
