"""What the pages say of commands, exit codes and files is true."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import click
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted(path for path in (ROOT / 'docs').rglob('*.md') if not {'_build', 'generated'} & set(path.parts)),
]
POINTS = distribution('aiida-perovmlip').entry_points
CALCULATIONS = [point for point in POINTS if point.group == 'aiida.calculations']
CHAINS = [point for point in POINTS if point.group == 'aiida.workflows']


@pytest.fixture(scope='module')
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location('generate', ROOT / 'docs' / 'generate.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules['generate'] = module
    spec.loader.exec_module(module)
    return module


def commands(text: str) -> list[str]:
    """Return what a page shows as commands: lines of shell blocks and code within lines."""
    blocks = re.findall(r'^```bash\n(.*?)^```', text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.split('#')[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r'`([^`\n]+)`', re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL))
    return [line for line in lines + inline if line]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_of_make_exist(page):
    makefile = (ROOT / 'Makefile').read_text()
    targets = set(re.findall(r'^([\w-]+):', makefile, flags=re.MULTILINE))
    variables = set(re.findall(r'^(\w+) \?=', makefile, flags=re.MULTILINE))
    for command in commands(page.read_text(encoding='utf-8')):
        words = command.split()
        if words[0] == 'make':
            named = [word for word in words[1:] if word != '…']
            assert {word for word in named if '=' not in word} <= targets, command
            assert {word.split('=')[0] for word in named if '=' in word} <= variables, command


def test_the_readme_names_the_two_commands():
    assert {'make demo', 'make test'} <= set(commands((ROOT / 'README.md').read_text(encoding='utf-8')))


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_ours_have_the_options_that_are_shown(page):
    from aiida_perovmlip.cli import main

    for command in commands(page.read_text(encoding='utf-8')):
        words = shlex.split(command)
        if words[:3] == ['verdi', 'data', 'perovmlip']:
            words = ['aiida-perovmlip', *words[3:]]
        if words[0] != 'aiida-perovmlip' or len(words) == 1 or words[1] == '…':
            continue
        verb: click.Command | None = main
        rest = words[1:]
        while isinstance(verb, click.Group) and rest and not rest[0].startswith('-'):
            verb, rest = verb.get_command(click.Context(verb), rest[0]), rest[1:]
        assert verb is not None, command
        known = {name for parameter in verb.params for name in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition('=')[0] for word in rest if word.startswith('-')}
        assert given <= known | {'-h', '--help', '--version'}, command


def test_every_exit_code_is_explained_and_no_other():
    text = (ROOT / 'docs' / 'how-to' / 'mend.md').read_text(encoding='utf-8')
    explained = set(re.findall(r'^(?:### |\| )(\d+) (?:\| )?`(\w+)`', text, flags=re.MULTILINE))
    known = {code for point in CALCULATIONS + CHAINS for code in own_codes(point.load())}
    assert explained == known


def own_codes(kind):
    """Return the exit codes of a process, without those that it has from a calculation of another plug-in."""
    codes = {(str(code.status), label) for label, code in kind.spec().exit_codes.items()}
    foreign = [base for base in kind.__mro__[1:] if base.__module__.startswith(('aiida_cp2k', 'aiida_vasp.'))]
    return codes - (own_codes(foreign[0]) if foreign else set())


def test_the_states_of_doctor_are_explained():
    text = (ROOT / 'docs' / 'how-to' / 'mend.md').read_text(encoding='utf-8')
    source = (ROOT / 'src' / 'aiida_perovmlip' / 'installation' / 'checks.py').read_text()
    assert all(f'`{status}`' in text for status in re.findall(r"'status': '(\w+)'", source))


def test_the_reference_has_every_port_and_exit_code(generate, tmp_path):
    pages = {path.stem: path.read_text() for path in generate.write(tmp_path)}
    assert CALCULATIONS
    assert CHAINS
    for point in CALCULATIONS + CHAINS:
        kind = 'calculation' if point in CALCULATIONS else 'chain'
        text = pages[f'{kind}-{point.name.removeprefix("perovmlip.").replace(".", "-")}']
        spec = point.load().spec()
        ports = [name for inputs in (spec.inputs, spec.outputs) for name, _ in generate.flat_ports(inputs)]
        assert [name for name in ports if f'| `{name}` |' not in text] == []
        assert [label for label in spec.exit_codes if f'`{label}`' not in text] == []


def test_the_reference_has_every_setting(generate, tmp_path):
    from aiida_perovmlip.compute import registry
    from aiida_perovmlip.compute.settings import describe_settings

    pages = {path.stem: path.read_text() for path in generate.write(tmp_path)}
    for group, name in (('architectures', 'mace'), ('architectures', 'reference'), ('labellers', 'tblite')):
        for row in describe_settings(registry.load(group, name).Settings):
            assert f'| `{row["name"]}` |' in pages[group]


def test_the_reference_is_written_only_where_it_changed(generate, tmp_path):
    first = {path: path.stat().st_mtime_ns for path in generate.write(tmp_path)}
    (tmp_path / 'of-yesterday.md').write_text('gone')
    assert {path: path.stat().st_mtime_ns for path in generate.write(tmp_path)} == first
    assert not (tmp_path / 'of-yesterday.md').exists()


@pytest.mark.parametrize('name', ['README.md', 'CONTRIBUTING.md'])
def test_links_to_files_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding='utf-8')
    targets = [target for target in re.findall(r'\]\(([^)#]+)', text) if '://' not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_versions_agree():
    from aiida_perovmlip import __version__

    assert f'\nversion: {__version__}\n' in (ROOT / 'CITATION.cff').read_text()
    assert f'\n## {__version__} ' in (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
