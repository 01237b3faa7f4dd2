"""One virtual environment for each plug-in that has requirements, built once and shared by all checkouts."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from aiida_perovmlip.installation.catalogue import requirements_of
from aiida_perovmlip.installation.diagnosis import ADVICE, Cause, diagnose, last_lines
from aiida_perovmlip.installation.libraries import LIBRARIES, Library, LibraryFailure
from aiida_perovmlip.installation.outcome import Done, Outcome, SetupFailure
from aiida_perovmlip.installation.running import Progress, run_logged

Torch = Literal['cpu', 'gpu', 'as-is']
"""Which build of torch may be installed: one for CPUs, whatever pip has newest, whatever pip has of our version."""

CONSTRAINTS = Path(__file__).with_name('constraints.txt')
MARKER = 'environment.json'
PREFIX_VARIABLE = 'AIIDA_PEROVMLIP_PREFIX'
ALWAYS = ('ase',)
"""What every environment holds: all that runs beside a potential speaks of structures as ASE does."""

TORCH_PACKAGES = frozenset({'torch', 'mace-torch', 'nequip', 'nequip-allegro', 'chgnet', 'sevenn'})
"""Packages that bring torch; it has to be there first, or pip takes the build that they happen to find."""


TOLD_BY_PIP = frozenset(Cause) - {Cause.INTERRUPTED}
"""Causes that the last lines of the log explain better than we do."""


class EnvironmentFailure(SetupFailure):
    """An environment that could not be built; `cause` names why."""

    def __init__(self, name: str, cause: Cause, sentence: str, log: Path | None = None) -> None:
        self.cause = cause
        tail = last_lines(log.read_text(errors='replace')) if log is not None and log.exists() else ''
        more = f'\nThe last that was said:\n{tail}\nAll of it is in {log}' if tail else ''
        super().__init__(f'the environment `{name}` could not be built: {sentence}{more}')


def default_prefix() -> Path:
    """Return the folder under which environments lie where nobody names another one."""
    if named := os.environ.get(PREFIX_VARIABLE):
        return Path(named).expanduser().absolute()
    share = os.environ.get('XDG_DATA_HOME') or '~/.local/share'
    return Path(share).expanduser().absolute() / 'aiida-perovmlip'


def name_of(requirement: str) -> str:
    """Return the normalised name of the package in a requirement or constraint."""
    found = re.match(r'\s*([A-Za-z0-9._-]+)', requirement)
    return re.sub(r'[-_.]+', '-', found.group(1)).lower() if found else ''


def constraint_lines(text: str) -> dict[str, str]:
    """Return the lines of a constraints file by name of package."""
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return {name_of(line): line for line in lines if line}


@dataclass(frozen=True)
class Environment:
    """A virtual environment that is complete, or is not there.

    It lies under a name that holds a digest of all that decides what is in it, so a change of a version makes a new one
    and never alters one that a stored code points to.

    :param prefix: folder that holds `environments/`.
    :param always: what is installed whatever the requirements are.
    :param library: what is compiled into it besides, where there is a compiler.
    """

    name: str
    requirements: tuple[str, ...]
    prefix: Path
    torch: Torch = 'cpu'
    always: tuple[str, ...] = ALWAYS
    library: Library | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """Return all that pip is asked for."""
        return tuple(dict.fromkeys((*self.requirements, *self.always)))

    @property
    def needs_torch(self) -> bool:
        """Tell whether torch will be in this environment."""
        return any(name_of(requirement) in TORCH_PACKAGES for requirement in self.wanted)

    @cached_property
    def constraints(self) -> dict[str, str]:
        """Return the constraints in force: all of ours, without torch where pip may choose its build."""
        lines = constraint_lines(CONSTRAINTS.read_text())
        if self.torch == 'gpu':
            lines.pop('torch', None)
        return lines

    @cached_property
    def key(self) -> str:
        """Return a digest of all that decides what is in this environment."""
        names = {name_of(requirement) for requirement in self.wanted} | {'numpy'}
        if self.needs_torch:
            names.add('torch')
        parts = {
            'requirements': sorted(self.wanted),
            'constraints': sorted(line for name, line in self.constraints.items() if name in names),
            'python': f'{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}',
            'machine': f'{platform.system()} {platform.machine()}',
            'torch': self.torch if self.needs_torch else None,
        }
        if self.library is not None:
            parts['library'] = self.library.recipe(self.constraints)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def path(self) -> Path:
        """Return the folder of this environment."""
        return self.prefix / 'environments' / f'{self.name}-{self.key}'

    @property
    def log(self) -> Path:
        """Return the file that holds all that pip said while this environment was built."""
        return self.path.with_name(f'{self.path.name}.log')

    @property
    def python(self) -> Path:
        """Return the interpreter of this environment."""
        return self.path / 'bin' / 'python'

    @property
    def is_complete(self) -> bool:
        """Tell whether this environment was built to its end and its interpreter is still there."""
        return (self.path / MARKER).exists() and self.python.exists()

    def build(self, dry_run: bool = False) -> Done:
        """Build this environment unless it is complete; what is half built is thrown away first."""
        if dry_run:
            return self._done(self._outcome(), dry_run=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked() as lock:
                outcome = self._outcome()
                if outcome != 'found':
                    self._build_anew(lock)
        except KeyboardInterrupt as error:
            raise self._failure(Cause.INTERRUPTED) from error
        except OSError as error:
            cause = diagnose(str(error))
            cause = Cause.NOT_ALLOWED if cause is Cause.UNKNOWN else cause
            raise EnvironmentFailure(self.name, cause, f'{error}: {ADVICE[cause]}') from error
        return self._done(outcome)

    def build_library(self, dry_run: bool = False) -> Done | None:
        """Compile the library of this environment unless it is there; None where it has none.

        It is one that can be done without: where it cannot be compiled, it is left out and the reason told.
        """
        if self.library is None:
            return None
        path = self.path / self.library.path
        if path.is_file():
            return Done('library', self.library.name, 'found', str(path), dry_run)
        try:
            if not dry_run:
                self.library.build(self.path, self.constraints, self._pip_command, self.log)
        except LibraryFailure as failure:
            return Done('library', self.library.name, 'left out', str(failure))
        return Done('library', self.library.name, 'created', str(path), dry_run)

    def _outcome(self) -> Outcome:
        """Return what building would do."""
        if self.is_complete:
            return 'found'
        return 'replaced' if self.path.exists() else 'created'

    def _done(self, outcome: Outcome, dry_run: bool = False) -> Done:
        return Done('environment', self.name, outcome, str(self.path), dry_run)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the lock of this environment, so that two checkouts never build it at once."""
        with self.path.with_name(f'.{self.path.name}.lock').open('w') as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress = Progress(f'{self.name}: waiting for another process that builds this environment')
                progress.show()
                fcntl.flock(handle, fcntl.LOCK_EX)
                progress.finish()
            yield handle.fileno()

    def _build_anew(self, lock: int) -> None:
        """Build in the final place, because virtual environments cannot be moved, and write the marker last."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.log.write_text('')
        try:
            self._make_venv(lock)
            (self.path / 'constraints.txt').write_text('\n'.join(self.constraints.values()) + '\n')
            if self.needs_torch:
                self._check_torch(lock)
                self._pip(lock, 'torch', 'install', self._torch_requirement)
            self._pip(lock, ' '.join(self.requirements or self.always), 'install', *self.wanted)
            self._pip(lock, 'checking', 'check')
            self._mark()
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def _make_venv(self, lock: int) -> None:
        # In two steps, because `venv` by itself hides what `ensurepip` says when this fails.
        self._run(lock, 'virtual environment', sys.executable, '-I', '-m', 'venv', '--without-pip', str(self.path))
        self._run(lock, 'pip', str(self.python), '-I', '-m', 'ensurepip', '--default-pip')

    def _pip(self, lock: int, title: str, verb: str, *arguments: str) -> None:
        """Run pip in this environment, deaf to the PYTHON… variables of the caller but not to pip's own settings."""
        constraints = ('-c', str(self.path / 'constraints.txt')) if verb == 'install' else ()
        self._run(lock, title, *self._pip_command, verb, *arguments, *constraints)

    @property
    def _pip_command(self) -> tuple[str, ...]:
        return (str(self.python), '-I', '-m', 'pip', '--no-input', '--disable-pip-version-check')

    def _run(self, lock: int, title: str, *command: str) -> None:
        if run_logged(command, self.log, f'{self.name}: {title}', keep_open=(lock,)) != 0:
            raise self._failure(diagnose(self.log.read_text(errors='replace')))

    def _check_torch(self, lock: int) -> None:
        """Stop before gigabytes are loaded that nobody asked for."""
        if self.torch != 'cpu':
            return
        report = self.path / 'torch.json'
        asked = ('--dry-run', '--no-deps', '--report', str(report), self._torch_requirement)
        self._pip(lock, 'which torch', 'install', *asked)
        refusal = refuse_torch(torch_version(json.loads(report.read_text())), platform.system(), platform.machine())
        if refusal:
            raise EnvironmentFailure(self.name, Cause.CUDA_BUILD, refusal)

    @property
    def _torch_requirement(self) -> str:
        return next((requirement for requirement in self.wanted if name_of(requirement) == 'torch'), 'torch')

    def _mark(self) -> None:
        """Declare this environment complete, in one step."""
        frozen = subprocess.run([*self._pip_command, 'freeze'], capture_output=True, text=True, check=True).stdout
        content = {
            'name': self.name,
            'requirements': list(self.wanted),
            'torch': self.torch if self.needs_torch else None,
            'packages': frozen.splitlines(),
            'python': platform.python_version(),
            'date': datetime.now(UTC).isoformat(timespec='seconds'),
        }
        partial = self.path / f'{MARKER}.partial'
        partial.write_text(json.dumps(content, indent=2))
        partial.replace(self.path / MARKER)

    def _failure(self, cause: Cause) -> EnvironmentFailure:
        return EnvironmentFailure(self.name, cause, ADVICE[cause], self.log if cause in TOLD_BY_PIP else None)


def own_python() -> Path:
    """Return our interpreter under one name, whichever of its names it was started by."""
    python = Path(sys.prefix) / 'bin' / 'python'
    return python if python.exists() else Path(sys.executable)


def environment_of(plugin: str, prefix: Path, torch: Torch = 'cpu') -> Environment | None:
    """Return the environment of a plug-in; None where it needs none."""
    requirements = requirements_of(plugin)
    return Environment(plugin, requirements, prefix, torch, library=LIBRARIES.get(plugin)) if requirements else None


def python_of(plugin: str, prefix: Path | None = None) -> Path | None:
    """Return the interpreter that runs a plug-in, whichever torch it was built with; None where there is none yet."""
    kinds = [environment_of(plugin, prefix or default_prefix(), torch) for torch in get_args(Torch)]
    if None in kinds:
        return own_python()
    return next((kind.python for kind in kinds if kind is not None and kind.is_complete), None)


def torch_version(report: dict[str, Any]) -> str:
    """Return the version of torch in an installation report of pip."""
    versions = (entry['metadata'] for entry in report['install'])
    return next((str(entry['version']) for entry in versions if entry['name'] == 'torch'), '')


def refuse_torch(version: str, system: str, machine: str) -> str | None:
    """Return a sentence where this build of torch is not the one for CPUs; only Linux on x86-64 has two."""
    if system != 'Linux' or machine not in ('x86_64', 'AMD64') or '+cpu' in version:
        return None
    return (
        f'pip would install torch {version}, which on Linux brings several gigabytes of CUDA libraries. For a build '
        'for CPUs, tell pip where it finds one by its own settings (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS or '
        '`pip config`). For a GPU, use `--torch gpu` (`make … TORCH=gpu`), which takes the newest torch that pip has; '
        f'`--torch as-is` takes {version} as it comes.'
    )


def incomplete(prefix: Path) -> list[Path]:
    """Return the folders of environments whose building never ended."""
    folder = prefix / 'environments'
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not (path / MARKER).exists())
