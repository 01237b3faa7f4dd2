from __future__ import annotations

import pytest
from click.testing import CliRunner

from aiida_perovmlip.cli import main


def doctor(*arguments: str):
    return CliRunner().invoke(main, ['doctor', *arguments])


def test_doctor_finds_a_code_that_works(make_code, tmp_path):
    import sys

    make_code('reference', sys.executable)
    answer = doctor('--code', 'reference', '--prefix', str(tmp_path))
    assert answer.exit_code == 0, answer.output
    row = next(line for line in answer.output.splitlines() if line.startswith('reference@localhost'))
    assert row.split()[1] == 'ok'
    assert 'numpy' in row


@pytest.mark.usefixtures('without_codes')
def test_doctor_fails_where_a_code_is_broken(localhost, tmp_path):
    from aiida.orm import InstalledCode

    code = InstalledCode(label='mace', computer=localhost, filepath_executable='/nowhere/python').store()
    try:
        answer = doctor('--code', f'mace@{localhost.label}', '--prefix', str(tmp_path))
    finally:
        code.is_hidden = True
        code.label = 'mace-gone'
    assert answer.exit_code == 1
    assert 'no_executable' in answer.output
    assert '`aiida-perovmlip setup --with mace`' in answer.output


def test_doctor_of_a_code_that_does_not_exist_is_a_sentence(tmp_path):
    answer = doctor('--code', 'nowhere', '--prefix', str(tmp_path))
    assert answer.exit_code == 1
    assert 'Error: there is no code `nowhere`' in answer.output


def test_doctor_without_the_profile_says_how_to_make_it(tmp_path):
    answer = doctor('--profile', 'nobody', '--prefix', str(tmp_path))
    assert answer.exit_code == 1
    assert 'there is no AiiDA profile `nobody`. Make one: `aiida-perovmlip setup --profile nobody`.' in answer.output


def test_findings_are_told_as_json_too(make_code, tmp_path):
    import json
    import sys

    make_code('reference', sys.executable)
    answer = doctor('--code', 'reference@localhost', '--prefix', str(tmp_path), '--json')
    assert answer.exit_code == 0
    told = json.loads(answer.stdout)
    assert {finding['subject'] for finding in told['findings']} >= {'AiiDA', 'profile', 'storage'}
    (code,) = (found for found in told['codes'] if found['role'] == 'architecture')
    assert (code['status'], code['code'].partition('@')[0]) == ('ok', 'reference')
    assert 'numpy' in code['versions']
