"""Which sources a job takes along, tried on packages that are written here and imported from what was taken alone."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from aiida_perovmlip.calculations import sources
from aiida_perovmlip.calculations.sources import host_sources, job_sources, pack
from aiida_perovmlip.compute import registry

NUMBER = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that writes modules with `{top}` for a name of their own, and returns that name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(**files: str) -> str:
        top = f'elsewhere{next(NUMBER)}'
        for path, text in files.items():
            file = tmp_path / (path.replace('__', '/').replace('top', top).replace('INIT', '__init__') + '.py')
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text).replace('top', top))
        return top

    return make


def taken(reference: str) -> dict[str, Path | None]:
    """Return the sources of a label job with a plug-in, without ours."""
    found = job_sources(registry.reference('tasks', 'label'), [reference])
    return {path: file for path, file in found.items() if not path.startswith('aiida_perovmlip/')}


def value_in_job(reference: str, folder: Path) -> str:
    """Return `VALUE` of a module, as a Python sees it that has what is taken and nothing else."""
    packed = folder.with_suffix('.zip')
    pack(taken(reference), packed)
    code = f'import sys; sys.path.insert(0, {str(packed)!r}); import {reference.partition(":")[0]} as m; print(m.VALUE)'
    return subprocess.run([sys.executable, '-I', '-c', code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ('module', 'files'),
    [
        pytest.param('top', {'top__INIT': 'from .more import VALUE', 'top__more': 'VALUE = 7'}, id='class in __init__'),
        pytest.param(
            'top.lab',
            {'top__INIT': 'from top.more import VALUE', 'top__more': 'VALUE = 7', 'top__lab': 'from top import VALUE'},
            id='package that holds something',
        ),
        pytest.param('top.lab', {'top__lab': 'from top import other\nVALUE = other.VALUE', 'top__other': 'VALUE = 7'},
                     id='namespace package'),
        pytest.param('top.a.b.lab', {'top__a__b__lab': 'from ...c import VALUE', 'top__c': 'VALUE = 7'},
                     id='nested namespace packages'),
        pytest.param('top', {'top': 'from top_beside import VALUE', 'top_beside': 'VALUE = 7'}, id='sibling module'),
        pytest.param(
            'top.sub.lab',
            {
                'top__INIT': '',
                'top__shared': 'VALUE = 7',
                'top__sub__INIT': 'from .. import shared\nfrom . import tables',
                'top__sub__tables': 'from ..shared import VALUE',
                'top__sub__lab': 'from . import tables\nVALUE = tables.VALUE',
            },
            id='relative imports inside of __init__',
        ),
        pytest.param(
            'top.lab',
            {'top__INIT': '', 'top__lab': 'VALUE = 7\ndef late():\n    from top.heavy.thing import x',
             'top__heavy__INIT': 'import not_installed_here', 'top__heavy__thing': 'x = 1'},
            id='package that needs what is not here',
        ),
    ],
)  # fmt: skip
def test_a_plugin_from_elsewhere_works_from_what_is_taken(write, tmp_path, module, files):
    top = write(**files)
    reference = f'{module.replace("top", top)}:Plugin'
    assert value_in_job(reference, tmp_path / 'job') == '7'
    assert len([file for file in taken(reference).values() if file]) == len(files)


def test_only_our_own_packages_are_empty(write):
    top = write(top__INIT='VALUE = 7')
    found = job_sources(registry.reference('tasks', 'label'), [f'{top}:Plugin'])
    empty = {path for path, file in found.items() if file is None}
    assert empty
    assert all(path.startswith('aiida_perovmlip/') and path.endswith('/__init__.py') for path in empty)


def test_installed_packages_beside_a_plugin_stay_where_they_are(write, tmp_path, monkeypatch):
    installed = tmp_path / 'site-packages'
    installed.mkdir()
    monkeypatch.syspath_prepend(installed)
    top = write(**{'site-packages__top': 'import top_partner, top_other'})
    for name in (f'{top}_partner', f'{top}_other'):
        (installed / f'{name}.py').touch()
    owners = {top: ['mine'], f'{top}_partner': ['mine'], f'{top}_other': ['other']}
    monkeypatch.setattr(sources, '_distributions', lambda: owners)
    assert list(taken(f'{top}:Plugin')) == [f'{top}.py', f'{top}_partner.py']


def test_a_plugin_without_a_source_is_named_in_a_sentence():
    with pytest.raises(ValueError, match='no Python source of the module `not_there`'):
        job_sources(registry.reference('tasks', 'label'), ['not_there:Plugin'])


def test_a_plugin_without_a_source_is_refused_before_submission(monkeypatch):
    from aiida_perovmlip.calculations.base import check_plugin

    loaded = registry.load('labellers', 'tblite')
    module: Any = type(sys)('made_by_hand')
    module.Plugin = loaded
    monkeypatch.setitem(sys.modules, 'made_by_hand', module)
    point = EntryPoint('odd', 'made_by_hand:Plugin', 'aiida_perovmlip.labellers')
    monkeypatch.setattr(registry, '_find', lambda group, name: point)
    assert check_plugin('labellers', 'odd', {}) == (
        'odd: no Python source of the module `made_by_hand` was found, so it cannot be taken along.'
    )


def test_a_source_that_is_no_python_is_named_in_a_sentence(write):
    top = write(top__INIT='', top__lab='from top import broken', top__broken='def (:')
    with pytest.raises(ValueError, match=rf'`{top}\.broken` cannot be read'):
        taken(f'{top}.lab:Plugin')


def test_host_sources_follow_imports_across_our_packages():
    found = host_sources(['aiida_perovmlip.calculations.label'])
    assert {'aiida_perovmlip.data.dataset', 'aiida_perovmlip.calculations.base'} <= set(found)
    assert not any(name.startswith(('aiida.', 'numpy', 'aiida_perovmlip.report')) for name in found)
