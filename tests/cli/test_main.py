from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from aiida_perovmlip import __version__
from aiida_perovmlip.cli import VERBS, main

HEAVY = ('aiida', 'numpy', 'ase', 'scipy', 'matplotlib', 'torch')


@pytest.mark.parametrize('arguments', [('--help',), ('--version',), *((verb, '--help') for verb in VERBS)])
def test_asking_for_help_imports_nothing_heavy(arguments):
    code = f"""
import sys
from aiida_perovmlip.cli import main
try:
    main({list(arguments)!r})
except SystemExit as end:
    assert end.code == 0
print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    answer = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert answer.stderr.strip() == '[]'


def test_the_version_is_that_of_the_package():
    assert __version__ in CliRunner().invoke(main, ['--version']).output


def test_every_verb_is_listed_with_a_sentence():
    listed = CliRunner().invoke(main, ['--help']).output
    for verb in VERBS:
        line = next(line for line in listed.splitlines() if line.split()[:1] == [verb])
        assert len(line.split()) > 3


def test_a_verb_nobody_knows_is_an_error():
    answer = CliRunner().invoke(main, ['dance'])
    assert answer.exit_code == 2
    assert 'dance' in answer.output
