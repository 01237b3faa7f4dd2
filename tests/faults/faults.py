"""Faults on purpose: chains are at work, something is killed, and in the end nothing is lost, doubled or wrong.

    python tests/faults/faults.py --stack laptop [--fault kill_worker …]
    python tests/faults/faults.py --stack cluster

Each fault strikes a labelling and a training that run side by side. Where `aiida-perovmlip status` says that a person
has to act, `aiida-perovmlip status --mend` is all that is done. A line is printed for each fault; the last one is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from external_package import install_external_package
from stacks import BIN, STACKS, Cluster, Laptop, Stack, run

from aiida_perovmlip.compute.checkpoint import FOLDER as CHECKPOINT
from aiida_perovmlip.compute.checkpoint import STATE
from aiida_perovmlip.compute.tasks.label import JOURNAL

PATIENCE = 900.0
"""Seconds after which a fault counts as not survived."""

LOOK = 10.0
"""Seconds between two looks of `status`, as somebody would take who waits."""

N_FRAMES, BATCH, STEPS = 16, 4, 12


@dataclass
class Work:
    """A labelling and a training at work, and what was done about them."""

    stack: Stack
    frames: list[Any]
    label: int
    train: int
    begin: float = field(default_factory=time.monotonic)
    mended: list[str] = field(default_factory=list)

    @property
    def pks(self) -> tuple[int, int]:
        """The PKs of the two chains."""
        return self.label, self.train

    def jobs(self) -> list[Any]:
        """Return all jobs of both."""
        from aiida import orm

        query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': {'in': list(self.pks)}}, tag='chain')
        return list(query.append(orm.CalcJobNode, with_incoming='chain').all(flat=True))

    def is_over(self) -> bool:
        """Whether both have ended."""
        from aiida import orm

        query = orm.QueryBuilder().append(
            orm.WorkChainNode, filters={'id': {'in': list(self.pks)}}, project='attributes.process_state'
        )
        return all(state in ('finished', 'excepted', 'killed') for state in query.all(flat=True))

    def wait_for_jobs(self) -> None:
        """Wait until jobs of both are at work on the computer."""
        deadline = time.monotonic() + PATIENCE
        while len(self.stack.job_pids()) < 2:
            if self.is_over() or time.monotonic() > deadline:
                raise RuntimeError('its jobs were never seen at work')
            time.sleep(0.1)

    def wait(self) -> None:
        """Wait for the end as a person would: look at `status` now and then, and mend where it says so."""
        looked = time.monotonic()
        while not self.is_over():
            if time.monotonic() - self.begin > PATIENCE:
                raise TimeoutError(f'not over after {PATIENCE:.0f} s: {json.dumps(status())[:3000]}')
            if time.monotonic() - looked > LOOK:
                told = status()
                if told['needs_a_person']:
                    self.mended += [_why(told)]
                    self.mended += status('--mend')['mended']
                looked = time.monotonic()
            time.sleep(0.5)


def status(*options: str) -> dict[str, Any]:
    """Return what `status` tells."""
    done = run('aiida-perovmlip', 'status', '--json', *options, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f'status ended with {done.returncode}: {done.stderr[-2000:]}')
    return dict(json.loads(done.stdout))


def _why(told: dict[str, Any]) -> str:
    """Return for what `status` wants a person."""
    services = [f'{each["subject"]}: {each["detail"]}' for each in told['services'] if each['state'] == 'broken']
    stuck = [f'{each["process"]} {each["state"]}: {each["why"]}' for each in told['processes'] if each['why']]
    return 'status: ' + '; '.join(entry[:160] for entry in (*services, *stuck))


def frames(seed: int) -> list[Any]:
    """Return crystals of argon that are labelled slowly; labels of others are never those of these."""
    import numpy as np
    from ase.build import bulk

    rng = np.random.default_rng(seed)
    found = []
    for _ in range(N_FRAMES):
        atoms = bulk('Ar', 'fcc', a=5.3, cubic=True)
        atoms.positions += rng.normal(0.0, 0.1, atoms.positions.shape)
        atoms.info['group'] = 'slow'
        found.append(atoms)
    return found


def start_work(stack: Stack, **training: Any) -> Work:
    """Submit both chains."""
    from aiida import orm

    from aiida_perovmlip.data.dataset import DatasetData
    from aiida_perovmlip.workflows.label import LabelWorkChain
    from aiida_perovmlip.workflows.train import TrainWorkChain

    code = orm.load_code(f'unruly@{stack.computer}')
    wanted = frames(time.monotonic_ns())
    label = LabelWorkChain.get_builder_from_protocol(
        'unruly', code, DatasetData.from_ase(wanted), batch_size=BATCH, max_concurrent=2
    )
    settings = {'steps': STEPS, 'pause': 0.3} | training.pop('settings', {})
    train = TrainWorkChain.get_builder_from_protocol(
        'unruly', code, crystals('train'), crystals('valid'), settings=settings, **training
    )
    return Work(stack, wanted, stack.submit(label).pk, stack.submit(train).pk)


def crystals(kind: str) -> Any:
    """Return a small labelled dataset."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    from aiida_perovmlip.data.dataset import DatasetData

    found = []
    for number in range(4):
        shift = 0.01 * number + (0.1 if kind == 'valid' else 0.0)
        atoms = Atoms('CsPbI3', [[0, 0, 0], [3, 3, 3], [0, 3, 3 + shift], [3, 0, 3], [3, 3, 0]], cell=[6] * 3, pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - shift, forces=atoms.positions * 0.0)
        found.append(atoms)
    return DatasetData.from_ase(found, level={'labeller': 'none'})


# ---------------------------------------------------------------------- faults


def nothing(work: Work) -> None:
    """Let it be: what all others are compared with."""


def kill_worker(work: Work) -> None:
    """Kill one worker of the daemon."""
    work.wait_for_jobs()
    os.kill(work.stack.workers()[0], signal.SIGKILL)


def kill_workers(work: Work) -> None:
    """Kill all workers of the daemon at once."""
    work.wait_for_jobs()
    for pid in work.stack.workers():
        os.kill(pid, signal.SIGKILL)


def kill_daemon(work: Work) -> None:
    """Kill the daemon with all that it started; `status` tells to start it."""
    work.wait_for_jobs()
    work.stack.kill_daemon()


def kill_broker(work: Work) -> None:
    """Kill the broker; where a supervisor starts it again, it does so."""
    work.wait_for_jobs()
    work.stack.kill_broker()


def kill_job(work: Work) -> None:
    """Kill the programs of the jobs that are at work."""
    work.wait_for_jobs()
    for pid in work.stack.job_pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cancel_job(work: Work) -> None:
    """Cancel the jobs in the queue behind the back of AiiDA."""
    work.wait_for_jobs()
    slurm = work.stack.slurm
    slurm.call('scancel', '--state=RUNNING', '--user=root', **slurm.environment)


def stop_ssh(work: Work) -> None:
    """Close the door to the computer until AiiDA has given up."""
    work.wait_for_jobs()
    sshd = work.stack.sshd
    sshd.stop()
    time.sleep(45.0)
    told = status()
    work.mended.append(_why(told))
    sshd.start()


def restart_controller(work: Work) -> None:
    """Stop the controller of the queue, and start it again a little later."""
    work.wait_for_jobs()
    work.stack.slurm.stop_controller()
    time.sleep(10.0)
    work.stack.slurm.start_controller()


def damage_files(work: Work) -> None:
    """Kill the jobs at work, and leave garbage in the files that they were writing."""
    work.wait_for_jobs()
    folders = {pid: Path(f'/proc/{pid}/cwd').readlink() for pid in work.stack.job_pids()}
    deadline = time.monotonic() + 60.0
    while not all(_files_of(folder) for folder in folders.values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in folders:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    damaged = [path for folder in folders.values() for path in _files_of(folder)]
    if not damaged:
        raise RuntimeError('the jobs had written nothing that could be damaged')
    for path in damaged:
        with path.open('r+b') as handle:
            handle.seek(path.stat().st_size // 2)
            handle.write(b'\xff' * 16)
    for pid in folders:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _files_of(folder: Path) -> list[Path]:
    """Return what a job has written so far that another one may read: labels, and the newest state of a training."""
    states = sorted((folder / CHECKPOINT).glob(f'0*/{STATE}'))
    return [path for path in (folder / JOURNAL, *states[-1:]) if path.is_file() and path.stat().st_size > 32]


@dataclass(frozen=True)
class Fault:
    """What happens, on which stacks, and to which work, whose training then needs at least so many legs."""

    strike: Callable[[Work], None]
    stacks: tuple[type[Stack], ...] = (Laptop, Cluster)
    training: dict[str, Any] = field(default_factory=dict)
    legs: int = 1
    prepare: Callable[[Stack], contextlib.AbstractContextManager[None]] | None = None


@contextlib.contextmanager
def full_disk(stack: Stack) -> Iterator[None]:
    """Let the computer have no room where jobs run; somebody makes some once AiiDA has given up."""
    work = stack.folder / 'work'
    work.mkdir(exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', work], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(['umount', '-l', work], check=False, capture_output=True)


def make_room(work: Work) -> None:
    """Wait until `status` names the full disk, and make room."""
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        told = status()
        if 'the disk is full' in json.dumps(told['processes']):
            work.mended.append(_why(told))
            break
        time.sleep(2.0)
    else:
        raise RuntimeError(f'status never named the full disk: {json.dumps(told)[:2000]}')
    while any(each['state'] == 'trying again' for each in status()['processes']):
        time.sleep(2.0)
    subprocess.run(['mount', '-o', 'remount,size=200m', work.stack.folder / 'work'], check=True, capture_output=True)


FAULTS: dict[str, Fault] = {
    'nothing': Fault(nothing),
    'kill_worker': Fault(kill_worker),
    'kill_workers': Fault(kill_workers),
    'kill_daemon': Fault(kill_daemon),
    'kill_broker': Fault(kill_broker),
    'kill_job': Fault(kill_job),
    'cancel_job': Fault(cancel_job, (Cluster,)),
    'stop_ssh': Fault(stop_ssh, (Cluster,)),
    'restart_controller': Fault(restart_controller, (Cluster,)),
    'damage_files': Fault(damage_files),
    'full_disk': Fault(make_room, prepare=full_disk),
    'time_limit': Fault(nothing, training={'settings': {'pause': 7.0}, 'options': {'walltime': '60 s'}}, legs=2),
    'out_of_memory': Fault(nothing, training={'settings': {'fits': 2, 'at': 5}}, legs=2),
    'killed_for_memory': Fault(nothing, training={'settings': {'way': 'die once', 'at': 5}}, legs=2),
}


def judge(work: Work, legs: int) -> list[str]:
    """Return what was lost, doubled or wrong."""
    import numpy as np
    from aiida import orm
    from ase.calculators.lj import LennardJones

    from aiida_perovmlip.workflows.pool import has_lived

    faults = []
    label, train = (orm.load_node(pk) for pk in work.pks)
    for node in (label, train):
        if not node.is_finished_ok:
            faults.append(
                f'{node.process_label} ended {node.process_state.value} [{node.exit_status}]: {node.exit_message}'
            )
        jobs = node.base.links.get_outgoing(orm.CalcJobNode).all()
        links = [link.link_label for link in jobs if has_lived(link.node)]
        if len(links) != len(set(links)):
            faults.append(f'{node.process_label} has started jobs twice: {sorted(links)}')
    if faults:
        return faults
    found = {frame.positions.tobytes(): frame for frame in label.outputs.dataset}
    if len(label.outputs.dataset) != N_FRAMES:
        faults.append(f'{len(label.outputs.dataset)} of {N_FRAMES} frames are labelled')
    for number, atoms in enumerate(work.frames):
        frame = found.get(np.asarray(atoms.positions).tobytes())
        atoms.calc = LennardJones()
        if frame is None or abs(frame.energy - atoms.get_potential_energy()) > 1e-9:
            faults.append(f'frame {number} is lost or wrong')
        elif not np.allclose(frame.forces, atoms.get_forces(), atol=1e-9):
            faults.append(f'the forces of frame {number} are wrong')
    jobs = [child for child in label.called if isinstance(child, orm.CalcJobNode) and 'dataset' in child.outputs]
    made = [digest for job in jobs for _, digest, _ in job.outputs.dataset.frames.with_digests()]
    if len(made) != len(set(made)):
        faults.append(f'{len(made) - len(set(made))} labels were computed twice')
    n_legs = sum(isinstance(child, orm.CalcJobNode) for child in train.called)
    if n_legs < legs:
        faults.append(f'the training had {n_legs} legs: the fault has not struck')
    steps = [int(step) for step in train.outputs.curve.get_array('step')] if 'curve' in train.outputs else []
    if steps != list(range(1, STEPS + 1)):
        faults.append(f'the steps of the training are {steps}')
    return faults


def strike(stack: Stack, name: str) -> dict[str, Any]:
    """Let one fault happen; return what came of it."""
    fault = FAULTS[name]
    prepared = fault.prepare(stack) if fault.prepare else contextlib.nullcontext()
    if status()['needs_a_person']:  # the fault before was not survived
        status('--mend')
    begin = time.monotonic()
    with prepared:
        work = start_work(stack, **fault.training)
        try:
            fault.strike(work)
            work.wait()
            faults = judge(work, fault.legs)
        except Exception as error:
            faults = [f'{type(error).__name__}: {error}', traceback.format_exc()]
    return {
        'fault': name,
        'stack': stack.name,
        'faults': faults,
        'mended': work.mended,
        'n_jobs': len(work.jobs()),
        'seconds': round(time.monotonic() - begin, 1),
    }


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--stack', choices=list(STACKS), default='laptop')
    parser.add_argument('--fault', action='append', choices=list(FAULTS), help='all by default; repeatable')
    arguments = parser.parse_args()
    kind = STACKS[arguments.stack]
    if lack := kind.lack():
        parser.error(lack)
    os.environ['PATH'] = f'{BIN}:{os.environ["PATH"]}'
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped then, too
    found = []
    with tempfile.TemporaryDirectory(prefix='perovmlip-faults-', ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        paths = [*install_external_package(folder / 'site'), *filter(None, [os.environ.get('PYTHONPATH')])]
        os.environ['PYTHONPATH'] = os.pathsep.join(paths)  # the daemon and its jobs know these plug-ins, too
        os.environ |= {'AIIDA_PATH': str(folder), 'HOME': str(folder / 'home')}
        (folder / 'home').mkdir()
        stack = kind(folder)
        try:
            stack.start()
            for fault in arguments.fault or FAULTS:
                if kind in FAULTS[fault].stacks:
                    found.append(strike(stack, fault))
                    print(_line(found[-1]), flush=True)
        finally:
            stack.stop()
    print(json.dumps(found))
    sys.exit(1 if any(each['faults'] for each in found) else 0)


def _line(told: dict[str, Any]) -> str:
    state = 'survived' if not told['faults'] else 'FAILED'
    lines = [f'{told["stack"]:<8} {told["fault"]:<20} {state:<9} {told["seconds"]:6.1f} s, {told["n_jobs"]} jobs']
    lines += [f'    {entry}' for entry in (*told['mended'], *told['faults'])]
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
