"""Every message here was said by a real pip, venv or compiler; machine paths and index hosts were taken out."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiida_perovmlip.installation.diagnosis import ADVICE, Cause, diagnose, last_lines

MESSAGES = sorted(Path(__file__).with_name('pip_messages').glob('*.txt'))


@pytest.mark.parametrize('message', MESSAGES, ids=lambda path: path.stem)
def test_what_pip_says_is_understood(message):
    assert diagnose(message.read_text()) == message.name.partition('.')[0]


def test_every_cause_that_can_be_diagnosed_was_heard_once():
    heard = {message.name.partition('.')[0] for message in MESSAGES}
    assert set(Cause) - heard == {Cause.UNKNOWN, Cause.CUDA_BUILD, Cause.NOT_ALLOWED}


def test_a_message_that_nobody_knows_is_not_guessed_at():
    assert diagnose('it rains') is Cause.UNKNOWN
    assert diagnose('') is Cause.UNKNOWN


def test_one_silent_index_beside_a_missing_compiler_is_a_missing_compiler():
    folder = Path(__file__).with_name('pip_messages')
    both = (folder / 'unreachable.pip26.txt').read_text() + (folder / 'no_compiler.pip26.txt').read_text()
    assert diagnose(both) is Cause.NO_COMPILER


def test_every_diagnosis_has_advice():
    assert set(Cause) - set(ADVICE) == {Cause.CUDA_BUILD}
    assert all(advice.endswith(('.', '.)')) for advice in ADVICE.values())


def test_last_lines_leave_out_what_helps_nobody():
    text = 'first\n\nERROR: second\n  note: This error originates from a subprocess\n[notice] A new release of pip\n'
    assert last_lines(text, 2) == '    first\n    ERROR: second'


def test_an_index_without_our_build_tool_is_no_index():
    said = 'ERROR: Could not find a version that satisfies the requirement hatchling>=1.24 (from versions: none)\n'
    assert diagnose(said) is Cause.UNREACHABLE
    assert diagnose(said.replace('hatchling', 'another')) is Cause.NO_MATCH
