"""Fixtures of the installation: packages made on the spot, plug-ins that need these, and a home of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGINS = '''
from aiida_perovmlip.compute.plugin import Plugin


class Tiny(Plugin):
    """Needs a package."""

    name = 'tiny'
    requirements = ('tinypackage',)

    def self_test(self):
        import tinypackage

        return 'tiny works'


class Free(Plugin):
    """Needs nothing."""

    name = 'free'

    def self_test(self):
        return 'free works'
'''

ENTRY_POINTS = """
[aiida_perovmlip.architectures]
free = tiny_plugins:Free
[aiida_perovmlip.labellers]
tiny = tiny_plugins:Tiny
broken = tiny_plugins:Missing
"""


@pytest.fixture
def make_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a package; pip knows these packages and no others, and needs no network."""
    house = tmp_path / 'wheels'
    house.mkdir()
    for name in [name for name in os.environ if name.startswith('PIP_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(house))

    def make(name: str, version: str = '1.0') -> Path:
        path = house / f'{name}-{version}-py3-none-any.whl'
        info = f'{name}-{version}.dist-info'
        files = {
            f'{name}.py': f'version = {version!r}\n',
            f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
            f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        }
        record = ''.join(f'{file},,\n' for file in [*files, f'{info}/RECORD'])
        with zipfile.ZipFile(path, 'w') as archive:
            for file, content in {**files, f'{info}/RECORD': record}.items():
                archive.writestr(file, content)
        return path

    return make


@pytest.fixture(scope='session')
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that, on the path of Python, is an installed package with two plug-ins and a broken one."""
    folder = tmp_path_factory.mktemp('plugins')
    (folder / 'tiny_plugins.py').write_text(PLUGINS)
    info = folder / 'tiny_plugins-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: tiny-plugins\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text(ENTRY_POINTS)
    return folder


@pytest.fixture
def tiny_plugins(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the plug-ins into this process."""
    monkeypatch.syspath_prepend(str(plugin_folder))
    return plugin_folder


Run = Callable[..., 'subprocess.CompletedProcess[str]']


def command_line(home: Path, *, paths: tuple[Path, ...] = ()) -> Run:
    """Return a function that runs `aiida-perovmlip`, or Python code, for a user who owns nothing but this home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(('AIIDA', 'XDG_'))}
    environ = {**kept, 'HOME': str(home), 'PYTHONPATH': os.pathsep.join(map(str, paths))}

    def run(*arguments: str, code: str = 'from aiida_perovmlip.cli import main; main()', **extra: str):
        command = [sys.executable, '-c', code, *arguments]
        return subprocess.run(command, env={**environ, **extra}, cwd=home, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def new_user(tmp_path: Path, plugin_folder: Path) -> Run:
    """Return the command line of a user who never started AiiDA; their home is `tmp_path / 'home'`."""
    home = tmp_path / 'home'
    home.mkdir()
    return command_line(home, paths=(plugin_folder,))


@pytest.fixture(scope='module')
def user(tmp_path_factory: pytest.TempPathFactory, plugin_folder: Path) -> Run:
    """Return the command line of a user whose machine is set up."""
    run = command_line(tmp_path_factory.mktemp('home'), paths=(plugin_folder,))
    assert run('setup').returncode == 0
    return run
