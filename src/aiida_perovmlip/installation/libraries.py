"""Libraries of foreign source that are compiled into an environment where there is a compiler.

There is one: the plugin by which LAMMPS reads NEP potentials. The package on the index holds its source and no library
for LAMMPS. As it is under the GPL, it is a library of its own, which LAMMPS loads and nothing of ours does.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aiida_perovmlip.compute.contract import JobError
from aiida_perovmlip.compute.engines.lammps import program
from aiida_perovmlip.installation.running import run_logged

COMPILERS = ('c++', 'g++', 'clang++')
STYLE = 'nep/cpu'
"""The pair style that LAMMPS has by the plugin."""

SOURCES = (
    'src/registry.cpp',
    'engines/cpu/cpu_engine.cpp',
    'engines/cpu/native/nep.cpp',
    'engines/cpu/native/neighbor_nep.cpp',
    'engines/cpu/native/ewald_nep.cpp',
    'frontends/lammps/nepadaptersplugin.cpp',
    'frontends/lammps/pair_nep_adapters_common.cpp',
    'frontends/lammps/pair_nep_adapters_cpu.cpp',
)
INCLUDES = ('include', 'engines/cpu', 'engines/cpu/native', 'frontends/lammps')
DEFINITIONS = (
    'NDEBUG',
    'NEP_ADAPTERS_LAMMPS_ENABLE_CPU=1',
    'USE_TABLE_FOR_RADIAL_FUNCTIONS',
    # As its own build has it, so that what else is loaded may have these names too.
    'NEP=NEPAdaptersCpuNativeNEP',
    'EwaldNep=NEPAdaptersCpuNativeEwaldNep',
    'find_neighbor_list_small_box=nep_adapters_cpu_find_neighbor_list_small_box',
)
FLAGS = ('-std=c++17', '-O3', '-fPIC', '-shared', '-fopenmp', '-fno-math-errno')

PLUGIN_HEADER = """\
// What a plugin tells LAMMPS of itself, as the manual of LAMMPS describes it; the package `lammps` has no such file.
#pragma once

extern "C" {

using lammpsplugin_factory1 = void *(void *);               // makes what acts on pairs, bonds, angles and so on
using lammpsplugin_factory2 = void *(void *, int, char **);  // makes computes, fixes and regions
using lammpsplugin_factory3 = void(void *, int, char **);    // runs a command

struct lammpsplugin_t {
  const char *version;
  const char *style;
  const char *name;
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory1 *v1;
    lammpsplugin_factory2 *v2;
    lammpsplugin_factory3 *v3;
  } creator;
  void *handle;
};

using lammpsplugin_regfunc = void (*)(lammpsplugin_t *, void *);

}
"""


class LibraryFailure(Exception):  # noqa: N818 - a noun says it better
    """A library that cannot be compiled here; the message says why, and what to do next."""


@dataclass(frozen=True)
class Library:
    """A library that an environment is better with.

    :param path: where in the environment it lies.
    :param package: whose source distribution holds its source.
    :param host: the package that it is compiled for.
    """

    name: str
    path: Path
    package: str
    host: str

    def recipe(self, constraints: Mapping[str, str]) -> str:
        """Return a digest of all that decides what is in the library, but the compiler."""
        parts = (constraints[self.package], constraints[self.host], SOURCES, INCLUDES, DEFINITIONS, FLAGS)
        text = json.dumps([*parts, PLUGIN_HEADER])
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def build(self, root: Path, constraints: Mapping[str, str], pip: Sequence[str], log: Path) -> None:
        """Load the source and compile it into the environment at `root`; what fails leaves nothing behind."""
        if platform.system() != 'Linux':
            raise LibraryFailure(f'{self.name} is only compiled on Linux; the rest of the environment works without.')
        compiler = find_compiler()
        with tempfile.TemporaryDirectory(prefix='perovmlip-') as name:
            source = self._source(Path(name), constraints[self.package], pip, log)
            write_headers(Path(name) / 'headers', constraints[self.package], constraints[self.host])
            built = Path(name) / self.path.name
            command = [compiler, *shlex.split(os.environ.get('CXXFLAGS', '')), *arguments(source, root, built)]
            if run_logged(command, log, f'{self.host}: compiling {self.name}') != 0:
                raise LibraryFailure(f'{self.name} could not be compiled; {log} says why. The rest works without it.')
            target = root / self.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(built, target.with_suffix('.partial'))
            target.with_suffix('.partial').replace(target)
        self._try(root)

    def _source(self, folder: Path, requirement: str, pip: Sequence[str], log: Path) -> Path:
        """Return the folder of the source, loaded from the package index."""
        command = [*pip, 'download', '--no-deps', '--no-binary', self.package, '-d', str(folder), requirement]
        if run_logged(command, log, f'{self.host}: source of {self.name}') != 0:
            raise LibraryFailure(f'the source of {self.name} could not be loaded; {log} says why. The rest works '
                                 'without it; run the same command again once the index can be reached.')  # fmt: skip
        archive = next(folder.glob('*.tar.gz'), None)
        if archive is None:
            raise LibraryFailure(f'pip loaded no source of {requirement}, so {self.name} was left out.')
        with tarfile.open(archive) as handle:
            handle.extraction_filter = getattr(tarfile, 'data_filter', None)  # the first releases of 3.11 have none
            handle.extractall(folder / 'source')
        return next((folder / 'source').iterdir())

    def _try(self, root: Path) -> None:
        """Let LAMMPS load the library; one that it does not load is taken away again."""
        command = ['lmp']
        try:
            found = program.ask(command, program.environment_of(command, root / 'bin' / 'python'))
            reason = '' if found.has(STYLE) else f'it has no pair style `{STYLE}` with it'
        except JobError as error:
            reason = error.message
        if reason:
            (root / self.path).unlink()
            raise LibraryFailure(f'{self.name} was compiled, but LAMMPS does not load it: {reason}.')


def find_compiler() -> str:
    """Return a C++ compiler of this machine: the one in CXX, or the first that is found."""
    named = os.environ.get('CXX')
    found = next(filter(None, map(shutil.which, (named,) if named else COMPILERS)), None)
    if found is None:
        what = f'`{named}`, which CXX names, is not there' if named else f'there is no {", ".join(COMPILERS)}'
        raise LibraryFailure(
            f'{what}. Install a C++ compiler (Debian and Ubuntu: `apt-get install g++`) and run the same command '
            'again; the rest of the environment works without it.'
        )
    return found


def write_headers(folder: Path, package: str, host: str) -> None:
    """Write the headers that are in neither package.

    :param package: `name==version` of the source.
    :param host: `name==version` of LAMMPS.
    """
    version = package.partition('==')[2]
    major, minor, patch, *_ = [*version.split('.'), '0', '0']
    texts = {
        'lammpsplugin.h': PLUGIN_HEADER,
        'version.h': f'#define LAMMPS_VERSION "{date_of(host)}"\n',
        'nep_adapters/version.h': (
            '#pragma once\n'
            f'#define NEP_ADAPTERS_API_VERSION_MAJOR {major}\n'
            f'#define NEP_ADAPTERS_API_VERSION_MINOR {minor}\n'
            f'#define NEP_ADAPTERS_API_VERSION_PATCH {patch}\n'
            f'#define NEP_ADAPTERS_VERSION_STRING "{version}"\n'
        ),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def date_of(requirement: str) -> str:
    """Return the version of LAMMPS as it says it, such as 22 Jul 2025, from that of the package."""
    year, month, day, *_ = map(int, requirement.partition('==')[2].split('.'))
    return f'{day} {datetime(year, month, day):%b} {year}'


def arguments(source: Path, root: Path, target: Path) -> list[str]:
    """Return the arguments of the compiler.

    :param source: folder of the source; the headers of ours lie in `headers` beside its parent.
    :param root: the environment with LAMMPS.
    """
    headers = [
        source.parent.parent / 'headers',
        *(source / name for name in INCLUDES),
        *sorted(root.glob('lib/python*/site-packages/lammps/include/lammps')),
        root / 'include',
    ]
    return [
        *FLAGS,
        *(f'-D{name}' for name in DEFINITIONS),
        *(f'-I{folder}' for folder in headers),
        *(str(source / name) for name in SOURCES),
        '-o',
        str(target),
    ]


LIBRARIES: dict[str, Library] = {
    'lammps': Library(
        name='pair_style nep/cpu',
        path=program.PLUGINS / 'nepplugin.so',
        package='nep-adapters',
        host='lammps',
    )
}
"""The library of an environment, by the name of its plug-in."""
