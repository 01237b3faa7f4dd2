"""The commands of the page on the command line: all of them run, one after the other, as a reader would run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiida_perovmlip.cli import main

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'how-to' / 'command-line.md'
BLOCK = re.compile(r'(<!-- no-test: [^\n]* -->\n)?^```bash\n(.*?)^```', flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the commands of all blocks that are not exempt."""
    blocks = BLOCK.findall(PAGE.read_text(encoding='utf-8'))
    return [line for exempt, block in blocks if not exempt for line in block.splitlines() if line.strip()]


@pytest.fixture
def reader(make_dataset, make_code, tmp_path, monkeypatch):
    """Put a reader into a folder with the files that the page takes for granted."""
    import sys

    make_code('reference', sys.executable)
    monkeypatch.chdir(tmp_path)
    make_dataset(20, seed=101).to_extxyz('my_frames.xyz', 'ase')
    setup = re.search(r'<!-- test-setup\n(.*?)^-->', PAGE.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL)
    exec(compile(setup[1], str(PAGE), 'exec'), {})


def test_the_commands_of_the_page_run_one_after_the_other(reader):
    known = commands()
    assert len(known) >= 20
    for line in known:
        words = shlex.split(line)
        assert words[0] in ('aiida-perovmlip', 'verdi'), line
        answer = CliRunner().invoke(main, words[1:] if words[0] == 'aiida-perovmlip' else words[3:])
        assert answer.exit_code == 0, f'{line}\n{answer.output}'
