"""The self-test of codes, through a real transport, and what is said where it cannot run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aiida_perovmlip.compute.contract import Response, Status
from aiida_perovmlip.installation import catalogue, checks
from aiida_perovmlip.installation.environments import MARKER


@pytest.fixture
def free(tiny_plugins):
    (plugin,) = catalogue.find('free')
    return plugin


@pytest.fixture
def tiny(tiny_plugins):
    (plugin,) = catalogue.find('tiny')
    return plugin


@pytest.fixture
def new_code(localhost):
    """Return a function that gives a stored code that runs this."""
    from aiida.orm import InstalledCode

    def make(executable: str | Path, label: str = 'python', **kwargs):
        return InstalledCode(label=label, computer=localhost, filepath_executable=str(executable), **kwargs).store()

    return make


def executable_script(path: Path, text: str) -> Path:
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
    return path


def test_a_code_that_works_says_what_it_found(free, new_code):
    finding = checks.try_code(new_code(sys.executable), free)
    assert finding.status == 'ok', finding
    assert finding.message == 'free works'
    assert {'python', 'numpy', 'ase'} <= set(finding.versions)
    assert not finding.is_broken


def test_the_self_test_cleans_up_behind_itself(free, new_code, localhost):
    checks.try_code(new_code(sys.executable), free)
    assert list(Path(localhost.get_workdir()).glob('doctor-*')) == []


def test_a_missing_package_is_named_with_the_command_that_builds_its_environment(tiny, new_code):
    finding = checks.try_code(new_code(sys.executable), tiny)
    assert finding.status == 'missing_package'
    assert 'tinypackage' in finding.message
    assert finding.advice == '`aiida-perovmlip setup --with tiny`'
    assert finding.is_broken


def test_a_missing_executable_is_named(free, new_code):
    finding = checks.try_code(new_code('/nowhere/bin/python'), free)
    assert finding.status == 'no_executable'
    assert finding.message == '/nowhere/bin/python does not exist'
    assert 'setup --with free' in finding.advice


def test_an_executable_that_is_no_python_is_quoted(free, new_code, tmp_path):
    strange = executable_script(tmp_path / 'strange', 'echo "I am no Python" >&2; exit 3')
    finding = checks.try_code(new_code(strange), free)
    assert finding.status == 'no_response'
    assert finding.message == 'I am no Python'


def test_a_hanging_python_is_ended(free, new_code, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, 'SELF_TEST_LIMIT', 1)
    finding = checks.try_code(new_code(executable_script(tmp_path / 'slow', 'sleep 30')), free)
    assert finding.status == 'no_response'
    assert finding.seconds < 20


def test_what_a_code_prepends_is_run_first(free, new_code, tmp_path):
    picky = executable_script(tmp_path / 'picky', f'test "$MODULE" = loaded && exec {sys.executable} "$@"')
    assert checks.try_code(new_code(picky), free).status == 'no_response'
    assert checks.try_code(new_code(picky, prepend_text='export MODULE=loaded'), free).status == 'ok'


def test_a_computer_that_cannot_be_written_to_is_told_from_a_broken_code(free, aiida_computer_local, tmp_path):
    from aiida.orm import InstalledCode

    (tmp_path / 'file').touch()
    computer = aiida_computer_local(label='unwritable')
    computer.set_workdir(str(tmp_path / 'file' / 'work'))
    code = InstalledCode(label='python', computer=computer, filepath_executable=sys.executable).store()
    finding = checks.try_code(code, free)
    assert finding.status == 'no_connection'
    assert 'verdi computer test unwritable' in finding.advice


@pytest.mark.parametrize('text', ['', 'not json', '{}', '{"status": "unheard of"}'])
def test_a_response_that_cannot_be_read_is_no_response(text):
    assert checks.read_response(text, 'advice')['status'] == 'no_response'


def test_a_failed_self_test_is_quoted(tmp_path):
    Response(Status.FAILED, error={'type': 'ValueError', 'message': 'the slope is wrong'}).write(tmp_path)
    found = checks.read_response((tmp_path / 'response.json').read_text(), 'advice')
    assert (found['status'], found['message'], found['advice']) == ('failed', 'the slope is wrong', '')


def test_half_built_environments_are_named(tmp_path):
    (tmp_path / 'environments' / 'mace-0123').mkdir(parents=True)
    (tmp_path / 'environments' / 'tblite-4567').mkdir()
    (tmp_path / 'environments' / 'tblite-4567' / MARKER).touch()
    disk, *others = checks.check_prefix(tmp_path)
    assert disk.subject == 'disk'
    assert [finding.advice for finding in others] == ['build it again: `aiida-perovmlip setup --with mace`']


def test_too_little_room_is_worth_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, 'ROOM_FOR_AN_ENVIRONMENT_GB', 1e9)
    assert [finding.state for finding in checks.check_prefix(tmp_path / 'not' / 'there')] == ['note']
