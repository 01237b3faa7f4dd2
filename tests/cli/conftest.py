"""The command as a program and as a person calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aiida_perovmlip.cli import main


@pytest.fixture
def call() -> Callable[..., Any]:
    """Return a function that calls a verb and returns how it ended; a traceback is no answer."""

    def run(*arguments: object, exit_code: int = 0) -> Any:
        answer = CliRunner().invoke(main, list(map(str, arguments)))
        assert answer.exit_code == exit_code, answer.output
        assert 'Traceback' not in answer.output
        return answer

    return run


@pytest.fixture
def ask(call: Any) -> Callable[..., Any]:
    """Return a function that calls a verb with `--json` and returns what it says."""
    return lambda *arguments: json.loads(call(*arguments, '--json').stdout)


@pytest.fixture
def refused(call: Any) -> Callable[..., str]:
    """Return a function that calls a verb which fails, and returns its one sentence."""

    def run(*arguments: object, exit_code: int = 1) -> str:
        text = call(*arguments, exit_code=exit_code).output.strip()
        assert text.splitlines()[-1].startswith('Error: '), text
        return text.splitlines()[-1].removeprefix('Error: ')

    return run


@pytest.fixture
def make_bomb() -> Callable[[Path], Any]:
    """Return a function that makes what leaves a mark where somebody unpickles it."""
    return Bomb


class Bomb:
    """What leaves a mark where somebody unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, 'exploded')
