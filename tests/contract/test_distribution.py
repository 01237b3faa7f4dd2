"""What is built and installed is whole, and lives in peace with the plug-ins beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, '-m', 'hatchling', 'build', '-t', 'wheel', '-d', str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return next(folder.glob('*.whl'))


def test_a_wheel_holds_what_is_not_python_too(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / 'src'
    ours = {path.relative_to(source).as_posix() for path in (source / 'aiida_perovmlip').rglob('*') if path.is_file()}
    assert {name for name in ours if '__pycache__' not in name} <= names


def test_an_installed_wheel_finds_its_files_and_its_command(wheel, tmp_path):
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', str(tmp_path), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    environment = {'PYTHONPATH': str(tmp_path), 'PATH': str(Path(sys.executable).parent)}
    code = (
        'import aiida_perovmlip; from aiida_perovmlip.report.page import render; '
        'from aiida_perovmlip.compute import registry; print(aiida_perovmlip.__file__, registry.names("architectures"))'
    )
    found = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, env=environment)
    assert found.stdout.startswith(str(tmp_path))
    assert "'mace'" in found.stdout
    says = subprocess.run(
        [sys.executable, str(tmp_path / 'bin' / 'aiida-perovmlip'), '--version'],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert '0.1.0' in says.stdout


def test_all_that_is_installed_fits_together():
    if 'missing' in _versions().values():
        pytest.skip(
            'the plug-ins of CP2K, VASP and the shell are not installed beside the tests: pip install -e .[dev]'
        )
    found = subprocess.run([sys.executable, '-m', 'pip', 'check'], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert _versions() == {'aiida-core': '2.9.4', 'aiida-cp2k': '2.1.1', 'aiida-vasp': '5.1.0', 'aiida-shell': '0.9.0'}


def _versions():
    from importlib.metadata import PackageNotFoundError

    found = {}
    for name in ('aiida-core', 'aiida-cp2k', 'aiida-vasp', 'aiida-shell'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = 'missing'
    return found
