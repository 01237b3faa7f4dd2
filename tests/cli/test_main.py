from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aiida_perovmlip import __version__
from aiida_perovmlip.cli import TRACEBACK, VERBS, failure_of, main

HEAVY = ('aiida', 'numpy', 'ase', 'scipy', 'matplotlib', 'torch')


def all_commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the words and the command of each verb, those below a verb too."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*words, name))


COMMANDS = dict(all_commands(main))


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


@pytest.mark.parametrize(
    'words', [words for words, command in COMMANDS.items() if not isinstance(command, click.Group)]
)
def test_the_help_of_every_verb_has_examples_that_have_its_options(words):
    text = CliRunner().invoke(main, [*words, '--help']).output
    examples = [line.split() for line in text.partition('Examples:')[2].splitlines() if line.strip()]
    assert examples
    known = {name for parameter in COMMANDS[words].params for name in (*parameter.opts, *parameter.secondary_opts)}
    for example in examples:
        assert tuple(example[: len(words) + 1]) == ('aiida-perovmlip', *words)
        assert {word for word in example if word.startswith('-')} <= known


def test_every_verb_that_tells_something_tells_it_to_programs_too():
    silent = {('doctor',), ('setup',), ('report',)}
    for words, command in COMMANDS.items():
        if not isinstance(command, click.Group) and words not in silent:
            assert '--json' in {name for parameter in command.params for name in parameter.opts}, words


@pytest.mark.parametrize(
    ('typed', 'offered'),
    [('da', ['dataset']), ('dataset s', ['show', 'split', 'stats']), ('dataset split x --by tr', ['trajectory'])],
)
def test_a_shell_completes_verbs_and_choices(typed, offered):
    words = typed.split()
    environment = {
        **os.environ,
        '_AIIDA_PEROVMLIP_COMPLETE': 'bash_complete',
        'COMP_WORDS': f'aiida-perovmlip {typed}',
        'COMP_CWORD': str(len(words)),
    }
    command = [str(Path(sys.executable).with_name('aiida-perovmlip'))]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert [line.partition(',')[2] for line in answer.stdout.splitlines()] == offered


def test_a_fault_of_the_program_says_so_and_how_to_report_it(monkeypatch):
    failure = failure_of(TypeError('None has no len'))
    assert failure.exit_code == 1
    assert failure.message.startswith('TypeError: None has no len. This is a fault of the program.')
    assert f'`{TRACEBACK}=1 aiida-perovmlip …`' in failure.message
    assert failure_of(KeyError('no `x`')).message == 'no `x`'
    monkeypatch.setenv(TRACEBACK, '1')
    answer = CliRunner().invoke(main, ['potential', 'show', 'no-such-label'])
    assert isinstance(answer.exception, LookupError)


def test_the_verbs_are_below_verdi_data_with_the_profile_of_verdi(aiida_profile):
    verdi = str(Path(sys.executable).with_name('verdi'))
    command = [verdi, '-p', aiida_profile.name, 'data', 'perovmlip', 'dataset', 'show', '987654321']
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert 'there is no dataset `987654321`' in answer.stderr
    assert 'Traceback' not in answer.stderr
