"""Services that a group runs on its machines, started by hand in a folder of their own: database, broker, queue, SSH.

Each has `lack`, which says why it cannot run here, `start`, `stop`, and `kill`, as a power cut would end it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STARTING = 90.0
"""Seconds in which a service has to answer."""


def free_port() -> int:
    """Return a port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether somebody listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def wait_until(claim: Any, what: str, seconds: float = STARTING) -> None:
    """Wait until a claim is true."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            raise TimeoutError(f'{what} did not happen within {seconds:.0f} s')
        time.sleep(0.2)


def pids_of(program: str, mark: str = '') -> list[int]:
    """Return the processes of a program whose command line has a mark in it."""
    found = []
    for entry in Path('/proc').iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                words = (entry / 'cmdline').read_bytes().split(b'\0')
                if Path(words[0].decode()).name == program and mark.encode() in b' '.join(words):
                    found.append(int(entry.name))
    return found


class Service:
    """A service in a folder of its own."""

    user: str | None = None
    """Who runs it where we are root, since it refuses to be run by root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        if self.user and os.getuid() == 0:
            shutil.chown(folder, self.user)

    @classmethod
    def lack(cls) -> str:
        """Return why it cannot run here; empty where it can."""
        raise NotImplementedError

    @classmethod
    def as_user(cls) -> list[str]:
        """Return what stands before its commands."""
        return ['runuser', '-u', cls.user, '--'] if cls.user and os.getuid() == 0 else []

    @classmethod
    def lacks_user(cls) -> str:
        """Return what is wrong where its user cannot be taken on."""
        as_user = cls.as_user()
        if as_user and subprocess.run([*as_user, 'true'], capture_output=True, check=False).returncode:
            return f'there is no user `{cls.user}` whom root could be'
        return ''

    def call(self, *command: object, **environment: str) -> str:
        """Run a command as the user of the service; what it says is in its log, and returned."""
        log = self.folder / 'calls.log'
        begin = log.stat().st_size if log.exists() else 0
        with log.open('ab') as said:  # a pipe would be held open by what goes on behind
            done = subprocess.run(
                [*self.as_user(), *map(str, command)],
                cwd=self.folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
                timeout=STARTING,
            )
        text = log.read_bytes()[begin:].decode(errors='replace')
        if done.returncode:
            raise RuntimeError(f'{command[0]} ended with {done.returncode}: {text[-2000:]}')
        return text


class Postgres(Service):
    """A PostgreSQL whose databases are as fast as those of tests may be."""

    user = 'postgres'

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self._made = free_port(), 0

    @staticmethod
    def program(name: str) -> Path | None:
        """Return one of its programs."""
        found = [shutil.which(name), *map(str, sorted(Path('/usr/lib/postgresql').glob(f'*/bin/{name}')))]
        return next((Path(path).resolve() for path in reversed(found) if path), None)

    @classmethod
    def lack(cls) -> str:
        """Return why it cannot run here."""
        if cls.program('initdb') is None:
            return 'there is no PostgreSQL (initdb); on Debian: apt-get install postgresql'
        return cls.lacks_user()

    def start(self) -> None:
        """Start it, with an empty cluster the first time."""
        data, password = self.folder / 'data', self.folder / 'password'
        if not data.exists():
            password.write_text('secret')
            password.chmod(0o644)
            how = ('-U', 'aiida', '-A', 'scram-sha-256', '--pwfile', password, '-E', 'UTF8', '--locale=C')
            self.call(self.program('initdb'), '-D', data, *how)
        server = f'-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200'
        log = self.folder / 'server.log'
        self.call(self.program('pg_ctl'), '-D', data, '-w', '-l', log, '-o', server, 'start')

    def stop(self) -> None:
        """Stop it."""
        self.call(self.program('pg_ctl'), '-D', self.folder / 'data', '-m', 'fast', 'stop')

    def database(self) -> dict[str, Any]:
        """Make a database; return how AiiDA reaches it."""
        self._made += 1
        name = f'tests_{self._made}'
        where = ('-h', '127.0.0.1', '-p', self.port, '-U', 'aiida')
        self.call(self.program('createdb'), *where, name, PGPASSWORD='secret')
        return {
            'database_engine': 'postgresql_psycopg',
            'database_hostname': '127.0.0.1',
            'database_port': self.port,
            'database_username': 'aiida',
            'database_password': 'secret',
            'database_name': name,
        }


class RabbitMq(Service):
    """A RabbitMQ that lets tasks run as long as they need."""

    user = 'rabbitmq'
    SERVER = Path('/usr/lib/rabbitmq/bin')

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.environment = {
            'HOME': str(folder),
            'RABBITMQ_NODENAME': f'perovmlip{self.port}@localhost',
            'RABBITMQ_NODE_PORT': str(self.port),
            'RABBITMQ_NODE_IP_ADDRESS': '127.0.0.1',
            'RABBITMQ_DIST_PORT': str(free_port()),
            'RABBITMQ_ADVANCED_CONFIG_FILE': str(folder / 'advanced.config'),
            'RABBITMQ_MNESIA_BASE': str(folder / 'mnesia'),
            'RABBITMQ_LOG_BASE': str(folder / 'log'),
            'RABBITMQ_PID_FILE': str(folder / 'pid'),
            'RABBITMQ_ENABLED_PLUGINS_FILE': str(folder / 'plugins'),
            'ERL_EPMD_ADDRESS': '127.0.0.1',
            'ERL_EPMD_PORT': str(free_port()),
        }
        (folder / 'advanced.config').write_text('[{rabbit, [{consumer_timeout, undefined}]}].\n')

    @classmethod
    def lack(cls) -> str:
        """Return why it cannot run here."""
        if not (cls.SERVER / 'rabbitmq-server').exists():
            return 'there is no RabbitMQ; on Debian: apt-get install rabbitmq-server'
        if os.getuid() != 0:
            return 'RabbitMQ of Debian can only be started by root or its own user'
        return cls.lacks_user()

    def start(self) -> None:
        """Start it."""
        with (self.folder / 'server.log').open('ab') as log:
            subprocess.Popen(
                [*self.as_user(), str(self.SERVER / 'rabbitmq-server')],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, 'the start of RabbitMQ')

    def _answers(self) -> bool:
        try:
            self.call(self.SERVER / 'rabbitmqctl', '-q', 'await_startup', '--timeout', '60', **self.environment)
        except RuntimeError:
            return False
        return answers(self.port)

    def stop(self) -> None:
        """Stop it, with the mapper of ports that it started."""
        with contextlib.suppress(RuntimeError):
            self.call(self.SERVER / 'rabbitmqctl', '-q', 'shutdown', '--wait', **self.environment)
        epmd = next(iter(Path('/usr/lib/erlang').glob('erts-*/bin/epmd')), 'epmd')
        with contextlib.suppress(RuntimeError):
            self.call(epmd, '-kill', **self.environment)

    def kill(self) -> None:
        """End it at once; tasks that are on the disk outlive it."""
        for pid in pids_of('beam.smp', str(self.folder)):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not pids_of('beam.smp', str(self.folder)), 'the end of RabbitMQ')


class Slurm(Service):
    """A Slurm of one node, with four cores and two GPUs that it takes for real; nothing is confined."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = folder / 'slurm.conf'
        self.host = socket.gethostname().partition('.')[0]

    @classmethod
    def lack(cls) -> str:
        """Return why it cannot run here."""
        if not (shutil.which('slurmctld') and shutil.which('sbatch') and shutil.which('munged')):
            return 'there is no Slurm; on Debian: apt-get install slurm-wlm munge'
        if os.getuid() != 0:
            return 'only root can start Slurm'
        return ''

    @property
    def environment(self) -> dict[str, str]:
        """Where its programs find it."""
        return {'SLURM_CONF': str(self.config)}

    def start(self) -> None:
        """Start authentication, controller and node."""
        self._start_munge()
        for name in ('state', 'spool', 'log'):
            (self.folder / name).mkdir(exist_ok=True)
        for number in range(2):
            device = self.folder / f'gpu{number}'
            if not device.exists():
                os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))  # another /dev/null
        (self.folder / 'gres.conf').write_text(f'Name=gpu Type=fake File={self.folder}/gpu[0-1]\n')
        (self.folder / 'cgroup.conf').write_text('CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n')
        if not self.config.exists():
            self.config.write_text(self._settings())
        self.start_controller()
        self.call('slurmd', '-f', self.config, '-N', self.host, **self.environment)
        wait_until(self._is_idle, 'the start of the node of Slurm')

    def start_controller(self) -> None:
        """Start what takes jobs and gives them to nodes."""
        self.call('slurmctld', '-f', self.config, **self.environment)

    def stop_controller(self) -> None:
        """End it as the system does that starts it again; jobs go on.

        Killed at once it would forget what it was given last, give the numbers of these jobs away again, and drain the
        node where they run: that is for the people who run it.
        """
        self._kill('slurmctld', signal.SIGTERM)

    def stop(self) -> None:
        """Cancel all jobs, and stop what was started."""
        with contextlib.suppress(Exception):
            self.call('scancel', '--state=RUNNING', '--state=PENDING', '--user=root', **self.environment)
            time.sleep(1.0)
        for name in ('slurmd', 'slurmctld'):
            self._kill(name)
        if not pids_of('slurmctld'):  # another one that was started meanwhile uses the same munge
            for pid in pids_of('munged', str(self.folder.parent)):
                os.kill(pid, signal.SIGTERM)

    def _kill(self, name: str, number: int = signal.SIGKILL) -> None:
        pids = pids_of(name, str(self.config))
        for pid in pids:
            os.kill(pid, number)
        wait_until(lambda: not any(Path(f'/proc/{pid}/cmdline').exists() for pid in pids), f'the end of {name}', 20.0)

    def _start_munge(self) -> None:
        if subprocess.run(['munge', '-n'], capture_output=True, check=False).returncode == 0:
            return
        own = self.folder / 'munge'
        own.mkdir(exist_ok=True)
        key = own / 'key'
        if not key.exists():
            key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        for path in (own, key):
            shutil.chown(path, 'munge', 'munge')
        own.chmod(0o700)
        socket_folder = Path('/run/munge')
        socket_folder.mkdir(exist_ok=True)
        shutil.chown(socket_folder, 'munge', 'munge')
        socket_folder.chmod(0o755)
        files = {'key-file': key, 'pid-file': own / 'pid', 'log-file': own / 'log', 'seed-file': own / 'seed'}
        options = [f'--{name}={path}' for name, path in files.items()]
        self.call('runuser', '-u', 'munge', '--', shutil.which('munged') or 'munged', '--force', *options)

    def _is_idle(self) -> bool:
        told = subprocess.run(
            ['sinfo', '-h', '-o', '%T'],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return 'idle' in told.stdout

    def _settings(self) -> str:
        own, memory = self.folder, os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') * 9 // 10 // 2**20
        controller, node = free_port(), free_port()
        lines = (
            'ClusterName=perovmlip',
            f'SlurmctldHost={self.host}(127.0.0.1)',
            'SlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\nCryptoType=crypto/munge',
            f'SlurmctldPort={controller}\nSlurmdPort={node}',
            f'SlurmctldPidFile={own}/slurmctld.pid\nSlurmdPidFile={own}/slurmd.pid',
            f'StateSaveLocation={own}/state\nSlurmdSpoolDir={own}/spool',
            f'SlurmctldLogFile={own}/log/slurmctld.log\nSlurmdLogFile={own}/log/slurmd.log',
            'SwitchType=switch/none\nMpiDefault=none\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none',
            'JobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none',
            'ReturnToService=2\nSchedulerType=sched/backfill\nSchedulerParameters=sched_interval=2,bf_interval=5',
            'SelectType=select/cons_tres\nSelectTypeParameters=CR_Core_Memory\nDefMemPerCPU=512',
            'MinJobAge=300\nKillWait=5\nInactiveLimit=0\nGresTypes=gpu\nSlurmdParameters=config_overrides',
            f'NodeName={self.host} NodeAddr=127.0.0.1 CPUs=4 RealMemory={memory} Gres=gpu:fake:2 State=UNKNOWN',
            f'PartitionName=main Nodes={self.host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO',
        )
        return '\n'.join(lines) + '\n'


class Sshd(Service):
    """A door to this machine under the name `cluster`, with a key of its own, for a home of its own."""

    def __init__(self, folder: Path, home: Path, environment: dict[str, str]) -> None:
        super().__init__(folder)
        self.home, self.passed_on, self.port = home, environment, free_port()

    @classmethod
    def lack(cls) -> str:
        """Return why it cannot run here."""
        if not Path('/usr/sbin/sshd').exists():
            return 'there is no sshd; on Debian: apt-get install openssh-server'
        return '' if os.getuid() == 0 else 'only root can start sshd'

    def start(self) -> None:
        """Start it, with new keys the first time."""
        ssh = self.home / '.ssh'
        ssh.mkdir(parents=True, exist_ok=True)
        ssh.chmod(0o700)
        Path('/run/sshd').mkdir(exist_ok=True)
        host, key = self.folder / 'host', ssh / 'id_ed25519'
        for path in (host, key):
            if not path.exists():
                self.call('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', path)
        shutil.copy(key.with_suffix('.pub'), self.folder / 'authorized')
        environment = {'HOME': self.home, **self.passed_on}  # the shell of the user's own home may be slow to start
        passed_on = ' '.join(f'{name}={value}' for name, value in environment.items())
        (self.folder / 'config').write_text(
            f'Port {self.port}\nListenAddress 127.0.0.1\nHostKey {host}\nPidFile {self.folder}/pid\n'
            f'AuthorizedKeysFile {self.folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n'
            'PermitRootLogin prohibit-password\nSubsystem sftp /usr/lib/openssh/sftp-server\nMaxSessions 200\n'
            f'MaxStartups 200:30:400\nSetEnv {passed_on}\n'
        )
        public = host.with_suffix('.pub').read_text().split()
        (ssh / 'known_hosts').write_text(f'[127.0.0.1]:{self.port} {public[0]} {public[1]}\n')
        (ssh / 'config').write_text(
            f'Host cluster\n  HostName 127.0.0.1\n  Port {self.port}\n  User root\n  IdentityFile {key}\n'
            f'  UserKnownHostsFile {ssh}/known_hosts\n'
        )
        self.call('/usr/sbin/sshd', '-f', self.folder / 'config', '-E', self.folder / 'log')
        wait_until(lambda: answers(self.port), 'the start of sshd')

    def stop(self) -> None:
        """Stop it, and close all connections."""
        for pid in self._own():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _own(self) -> set[int]:
        """Return its process and those of its connections."""
        pid_file = self.folder / 'pid'
        if not pid_file.exists():
            return set()
        first = int(pid_file.read_text())
        found, more = {first}, True
        while more:
            children = {pid for pid in _all_pids() if _parent(pid) in found} - found
            found |= children
            more = bool(children)
        return found


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path('/proc').iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])
    except OSError:
        return -1


def what_lacks(services: Sequence[type[Service]]) -> str:
    """Return why services cannot run here; empty where all can."""
    return '; '.join(dict.fromkeys(why for service in services if (why := service.lack())))
