"""Programs that come by their own means are found, or named with how to get them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aiida_perovmlip.installation.machine import set_up
from aiida_perovmlip.installation.outcome import SetupFailure
from aiida_perovmlip.installation.programs import find_executable, program_of
from aiida_perovmlip.labellers.base import Program

PROGRAM = Program(('frobnicate.psmp', 'frobnicate'), 'Ask its authors.', 'cp2k', 'export A=1', ('--version',))


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    def put(name, says='frobnicate 7.0', status=0):
        file = tmp_path / name
        file.write_text(f'#!/bin/sh\necho "${{A}}{says}"\nexit {status}\n')
        file.chmod(0o755)
        monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
        return file

    return put


def test_the_first_of_its_names_that_is_there_is_taken(on_path):
    second = on_path('frobnicate')
    assert find_executable('frob', PROGRAM) == second
    first = on_path('frobnicate.psmp')
    assert find_executable('frob', PROGRAM) == first


def test_one_that_is_not_there_is_named_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(SetupFailure, match=r'there is no frobnicate.psmp or frobnicate .* Ask its authors'):
        find_executable('frob', PROGRAM)


def test_only_labellers_that_run_one_have_a_program():
    assert program_of('cp2k').plugin == 'cp2k'
    assert program_of('tblite') is None
    assert program_of('mace') is None
    assert program_of('no such') is None


def test_who_asks_for_a_program_that_is_not_there_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('AIIDA_PATH', str(tmp_path / 'aiida'))
    with pytest.raises(SetupFailure, match='apt-get install'):
        list(set_up(('tblite', 'cp2k'), tmp_path / 'prefix', environments_only=True))
    assert not (tmp_path / 'prefix').exists()
    assert not (tmp_path / 'aiida').exists()


def test_looking_for_programs_leaves_aiida_alone():
    code = 'import sys; from aiida_perovmlip.installation.programs import program_of; program_of("cp2k"); '
    code += 'program_of("vasp"); sys.exit("aiida" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.parametrize(
    ('says', 'status', 'expected'),
    [('frobnicate 7.0', 0, ('ok', '1frobnicate 7.0')), ('Segmentation fault', 139, ('failed', '1Segmentation fault'))],
)
def test_a_program_is_asked_for_its_version(localhost, on_path, says, status, expected):
    from aiida import orm

    from aiida_perovmlip.installation.checks import try_program

    file = on_path('frobnicate', says, status)
    about = {'prepend_text': PROGRAM.prepend, 'default_calc_job_plugin': 'core.arithmetic.add'}
    code = orm.InstalledCode(label='frob', computer=localhost, filepath_executable=str(file), **about)
    finding = try_program(code, PROGRAM)
    assert (finding.status, finding.message) == expected
    gone = orm.InstalledCode(label='frob', computer=localhost, filepath_executable='/no/such/frob')
    finding = try_program(gone, PROGRAM)
    assert (finding.status, finding.advice) == ('no_executable', 'Ask its authors.')
