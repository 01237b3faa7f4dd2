from __future__ import annotations

import pytest
from click.testing import CliRunner

from aiida_perovmlip.cli import main


def report(*arguments: str):
    return CliRunner().invoke(main, ['report', *arguments])


@pytest.mark.parametrize('identifier', ['123456789', 'no-such-uuid'])
def test_a_node_that_does_not_exist_is_a_sentence(identifier):
    answer = report(identifier)
    assert answer.exit_code == 1
    assert answer.output.startswith(f'Error: there is no one node `{identifier}` in the profile')


def test_a_node_that_is_no_potential_is_a_sentence():
    from aiida.orm import Int

    answer = report(Int(1).store().uuid)
    assert answer.exit_code == 1
    assert 'is of the type Int, but a report is made of a potential' in answer.output


def test_a_missing_profile_is_a_sentence():
    answer = report('1', '--profile', 'nobody')
    assert answer.exit_code == 1
    assert '`aiida-perovmlip setup --profile nobody`' in answer.output
