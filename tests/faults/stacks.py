"""What AiiDA runs on: the defaults of a laptop, or what a group with a cluster has. Each can break in its own ways."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from services import Postgres, RabbitMq, Slurm, Sshd, pids_of, what_lacks

BIN = Path(sys.executable).parent
OPTIONS = {
    'runner.poll.interval': 1,
    'daemon.timeout': 20,
    'daemon.default_workers': 2,
    'transport.task_retry_initial_interval': 2,
    'transport.task_maximum_attempts': 4,
    'warnings.rabbitmq_version': False,
}
"""Options of the profile: a job whose computer is away is paused after 14 s, not after five minutes."""


def run(*command: object, check: bool = True, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment."""
    name, *rest = map(str, command)
    return subprocess.run(
        [BIN / name, *rest], capture_output=True, text=True, check=check, timeout=seconds, stdin=subprocess.DEVNULL
    )


class Stack:
    """A profile with a daemon, and a computer."""

    name: str
    computer: str

    def __init__(self, folder: Path, codes: dict[str, object] | None = None) -> None:
        self.folder, self.codes = folder, codes or {'unruly': sys.executable}

    @classmethod
    def lack(cls) -> str:
        """Return why it cannot be started here."""
        return ''

    def start(self) -> None:
        """Start all of it; the profile is loaded then."""
        self.start_services()
        for name, value in OPTIONS.items():
            run('verdi', 'config', 'set', name, value)
        from aiida import load_profile

        load_profile()
        self.start_daemon()
        from aiida_perovmlip.operation.connection import Connection

        self.submit = Connection().submit

    def start_services(self) -> None:
        """Start what the profile needs, and make profile, computer and code."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop all that was started."""
        from aiida.manage import get_manager

        with contextlib.suppress(Exception):
            self.stop_daemon()
        get_manager().reset_broker()
        self.stop_services()

    def stop_services(self) -> None:
        """Stop what the profile needed."""

    @property
    def daemon(self) -> Any:
        """The client of the daemon."""
        from aiida.engine.daemon.client import get_daemon_client

        return get_daemon_client()

    def start_daemon(self) -> None:
        """Start it with two workers."""
        self.daemon.start_daemon(number_workers=2, timeout=60)

    def stop_daemon(self) -> None:
        """Stop it."""
        self.daemon.stop_daemon(wait=True, timeout=60)

    def workers(self) -> list[int]:
        """Return the processes that do the work of AiiDA."""
        return [int(pid) for pid in self.daemon.get_worker_info()['info']]

    def kill_daemon(self) -> None:
        """End the daemon with all that it started, as a power cut does."""
        import psutil

        daemon = psutil.Process(self.daemon.get_daemon_pid())
        for process in [daemon, *daemon.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def kill_broker(self) -> None:
        """End the broker; what starts it again does so."""
        raise NotImplementedError

    def job_pids(self) -> list[int]:
        """Return the processes of jobs of this stack that are at work."""
        found = []
        for pid in pids_of('python', 'aiida_perovmlip.compute.harness') + pids_of(
            'python3', 'aiida_perovmlip.compute.harness'
        ):
            with contextlib.suppress(OSError):
                if str(self.folder) in str(Path(f'/proc/{pid}/cwd').readlink()):
                    found.append(pid)
        return found


class Laptop(Stack):
    """SQLite, the broker that AiiDA brings, and jobs that this machine runs at once."""

    name = 'laptop'
    computer = 'laptop'

    def start_services(self) -> None:
        """Make what `setup` makes."""
        run('aiida-perovmlip', 'setup')
        run('aiida-perovmlip', 'setup', '--computer', self._cluster())

    def _cluster(self) -> Path:
        how = {'hostname': 'localhost', 'transport': 'core.local', 'scheduler': 'core.direct'}
        return cluster_file(self.folder, self.computer, self.codes, **how)

    def kill_broker(self) -> None:
        """End it; the daemon starts another one, which the workers do not know."""
        from aiida.manage import get_manager

        told = get_manager().get_broker().probe_service_status()
        os.kill(told['pid'], signal.SIGKILL)


class Cluster(Stack):
    """PostgreSQL, RabbitMQ, and a Slurm that is reached by SSH."""

    name = 'cluster'
    computer = 'cluster'

    def __init__(self, folder: Path, codes: dict[str, object] | None = None) -> None:
        super().__init__(folder, codes)
        self.postgres, self.rabbitmq = Postgres(folder / 'postgres'), RabbitMq(folder / 'rabbitmq')
        self.slurm = Slurm(folder / 'slurm')
        self.sshd = Sshd(folder / 'sshd', Path(os.environ['HOME']), self.slurm.environment)

    @classmethod
    def lack(cls) -> str:
        """Return why it cannot be started here."""
        return what_lacks([Postgres, RabbitMq, Slurm, Sshd])

    def start_services(self) -> None:
        """Start the services, and register the cluster from one file."""
        for service in (self.postgres, self.rabbitmq, self.slurm, self.sshd):
            service.start()
        database = self.postgres.database()
        profile = ['-n', '-p', 'group', '--email', 'group@example.org', '--first-name', 'A', '--last-name', 'G']
        profile += ['--institution', 'none', '--broker', 'none']
        for name, value in database.items():
            if name != 'database_engine':
                profile += [f'--{name.replace("_", "-")}', str(value)]
        repository = self.folder / 'repository'
        run('verdi', 'profile', 'setup', 'core.psql_dos', *profile, '--repository-uri', f'file://{repository}')
        broker = ['--broker-protocol', 'amqp', '--broker-username', 'guest', '--broker-password', 'guest']
        broker += ['--broker-host', '127.0.0.1', '--broker-port', self.rabbitmq.port, '--broker-virtual-host', '']
        run('verdi', 'profile', 'configure-broker', 'core.rabbitmq', '-n', '-f', *broker, 'group')
        run('verdi', 'profile', 'set-default', 'group')
        run('aiida-perovmlip', 'setup', '--computer', self._cluster())

    def _cluster(self) -> Path:
        how = {'hostname': 'cluster', 'transport': 'core.ssh_async', 'scheduler': 'core.slurm'}
        return cluster_file(self.folder, self.computer, self.codes, connect='{host: cluster, safe_interval: 0}', **how)

    def stop_services(self) -> None:
        """Stop the services, the last that was started first."""
        for service in (self.sshd, self.slurm, self.rabbitmq, self.postgres):
            with contextlib.suppress(Exception):
                service.stop()

    def kill_broker(self) -> None:
        """End it, and start it again as its supervisor would."""
        self.rabbitmq.kill()
        time.sleep(2.0)
        self.rabbitmq.start()


STACKS: dict[str, type[Stack]] = {'laptop': Laptop, 'cluster': Cluster}


def words_of(code: object) -> dict[str, object]:
    """Return what the file says of a code: a mapping is that already, all else is its executable."""
    return code if isinstance(code, dict) else {'executable': str(code)}


def cluster_file(folder: Path, label: str, codes: dict[str, object], connect: str = '{}', **computer: str) -> Path:
    """Write the file of a computer and its codes."""
    lines = (
        'computer:',
        f'  label: {label}',
        *(f'  {name}: {value}' for name, value in computer.items()),
        f'  connect: {connect}',
        f'  work_directory: {folder}/work',
        '  poll_interval: 1',
        '  node: {cores: 4, gpus: 2, walltime: 1 h}',
        'codes:',
        *(f'  {name}: {json.dumps(words_of(code))}' for name, code in codes.items()),
    )
    path = folder / f'{label}.yaml'
    path.write_text('\n'.join(lines) + '\n')
    return path
