from __future__ import annotations

import ast
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP = ROOT / 'tools' / 'bootstrap.py'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the little of a checkout that bootstrap reads before it calls pip."""
    for name in ('tools/bootstrap.py', 'pyproject.toml', 'src/aiida_perovmlip/installation/constraints.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_any_python_from_3_6_on_can_read_it():
    ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 6))


def test_nothing_but_the_standard_library_is_imported_at_once():
    tree = ast.parse(BOOTSTRAP.read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_a_python_that_is_too_old_gets_a_sentence(checkout):
    script = str(checkout / 'tools' / 'bootstrap.py')
    code = f"""
import runpy, sys
sys.version_info, sys.version = (3, 9, 18), '3.9.18 (main)'
sys.argv = ['bootstrap.py', '--python', 'python3', '--goal', 'demo']
runpy.run_path({script!r}, run_name='__main__')
"""
    answer = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stderr.startswith('aiida-perovmlip needs Python 3.11 or newer, but `python3` is Python 3.9.18')
    assert '`make demo PYTHON=python3.' in answer.stderr
    assert not (checkout / '.venv').exists()


def test_a_venv_that_somebody_else_made_is_left_alone(checkout):
    (checkout / '.venv').mkdir()
    (checkout / '.venv' / 'precious').touch()
    command = [sys.executable, str(checkout / 'tools' / 'bootstrap.py'), '--goal', 'test']
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert 'was not made by make' in answer.stderr
    assert [path.name for path in (checkout / '.venv').iterdir()] == ['precious']


def test_the_digest_follows_the_versions(checkout):
    def digest() -> str:
        return runpy.run_path(str(checkout / 'tools' / 'bootstrap.py'))['digest']()

    before = digest()
    assert digest() == before
    with (checkout / 'src/aiida_perovmlip/installation/constraints.txt').open('a') as handle:
        handle.write('another==1\n')
    assert digest() != before


@pytest.mark.parametrize(
    ('known', 'dev', 'enough'),
    [
        ({}, False, False),
        ({'python': '3.12.1', 'content': 'a', 'dev': True}, False, True),
        ({'python': '3.12.1', 'content': 'a', 'dev': False}, True, False),
        ({'python': '3.12.1', 'content': 'b', 'dev': True}, True, False),
        ({'python': '3.11.7', 'content': 'a', 'dev': True}, True, False),
    ],
)
def test_a_venv_is_enough_where_nothing_is_missing_or_stale(checkout, known, dev, enough):
    (checkout / '.venv' / 'bin').mkdir(parents=True)
    (checkout / '.venv' / 'bin' / 'python').touch()
    is_enough = runpy.run_path(str(checkout / 'tools' / 'bootstrap.py'))['is_enough']
    assert is_enough(known, {'python': '3.12.1', 'content': 'a', 'dev': dev}) is enough
