"""The Python blocks of README and documentation: all of them run, page by page, as a reader would run them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted(path for path in (ROOT / 'docs').rglob('*.md') if not {'_build', 'generated'} & set(path.parts)),
]

FENCE = re.compile(r'^(?P<indent> *)(?P<marks>`{3,})(?P<language>[\w{}-]*)')
EXEMPT = re.compile(r'<!-- no-test: (?P<reason>\S.*) -->')
HIDDEN = '<!-- test-setup'
"""Starts a comment with code that a page takes for granted, such as a job of the reader's own."""

CODE = re.compile(r"load_code\('(\w+)@localhost'\)")
QUICK = ('reference', 'emt', 'springs')
"""Plug-ins that run in milliseconds with the Python of the tests."""


class Block(NamedTuple):
    """A piece of Python on a page; `line` is that of its first statement."""

    text: str
    line: int
    exempt: bool = False


def blocks_of(text: str, languages: tuple[str, ...] = ('python',)) -> Iterator[Block]:
    """Yield the blocks of a page in order, those of Python unless others are asked for, and the hidden ones."""
    lines = text.splitlines()
    index, before = 0, ''
    while index < len(lines):
        fence = FENCE.match(lines[index])
        hidden = lines[index].strip() == HIDDEN
        if not fence and not hidden:
            before = lines[index].strip() or before
            index += 1
            continue
        end = '-->' if hidden else fence['marks']
        start = index + 1
        index = next(i for i in range(start, len(lines)) if lines[i].strip() == end)
        if hidden or fence['language'] in languages:
            yield Block('\n'.join(lines[start:index]), start + 1, bool(EXEMPT.fullmatch(before)) and not hidden)
        before = ''
        index += 1


def code_names(page: Path) -> list[str]:
    """Return the plug-ins whose codes the blocks of a page load."""
    text = '\n'.join(block.text for block in blocks_of(page.read_text(encoding='utf-8')) if not block.exempt)
    return sorted(set(CODE.findall(text)))


def page_parameter(page: Path) -> Any:
    """Return a page as a parameter of a test; one with a real code is slow."""
    slow = set(code_names(page)) - set(QUICK)
    return pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] if slow else [])


RUN = [page for page in PAGES if any(not block.exempt for block in blocks_of(page.read_text(encoding='utf-8')))]


@pytest.mark.parametrize('page', [page_parameter(page) for page in RUN])
def test_the_blocks_of_a_page_run_one_after_the_other(
    page, localhost, plugin_code, make_dataset, tmp_path, monkeypatch, request
):
    for name in code_names(page):
        plugin_code(name)
    dataset = make_dataset(24, seed=len(page.name))
    monkeypatch.chdir(tmp_path)
    dataset.to_extxyz('my_frames.xyz', 'ase')  # the file that a reader is said to have
    if "'my_run'" in page.read_text(encoding='utf-8'):  # and the run of VASP
        run = request.getfixturevalue('shared_data') / 'fasni3_r2scan_vasp' / 'cubic.vasprun.xml.gz'
        Path('my_run').mkdir()
        shutil.copy(run, 'my_run/vasprun.xml.gz')
    namespace: dict[str, Any] = {'__name__': '__main__'}
    for block in blocks_of(page.read_text(encoding='utf-8')):
        if not block.exempt:
            padded = '\n' * (block.line - 1) + block.text  # so that a traceback names the line of the page
            exec(compile(padded, str(page), 'exec'), namespace)


def test_blocks_are_found_with_their_lines_and_markers():
    text = 'a\n\n```python\nx = 1\n```\n\n<!-- no-test: a reason -->\n```python\ny\n```\n```bash\nls\n```\n'
    text += '<!-- test-setup\nz = 2\n-->\n\n````markdown\n```python\nno\n```\n````\n'
    assert list(blocks_of(text)) == [Block('x = 1', 4), Block('y', 9, True), Block('z = 2', 15)]


def test_every_exemption_has_a_reason_and_a_block():
    for page in PAGES:
        text = page.read_text(encoding='utf-8')
        exempt = sum(block.exempt for block in blocks_of(text, ('python', 'bash')))  # shell runs too, on one page
        marked = [line for line in text.splitlines() if 'no-test' in line and line.startswith('<!--')]
        assert exempt == len(marked), page


def test_pages_that_run_are_not_few():
    assert len(RUN) >= 9
