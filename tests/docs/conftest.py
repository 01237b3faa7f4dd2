"""Scripts of `examples` as modules, and a profile without codes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from aiida_perovmlip.installation.profile import find_codes

EXAMPLES = Path(__file__).resolve().parents[2] / 'examples'


@pytest.fixture
def script() -> Callable[[str], ModuleType]:
    """Return a function that loads a script by its name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def without_codes() -> Iterator[None]:
    """Hide the codes that other tests have made, for as long as a test runs."""
    hidden = [code for name in ('mace', 'tblite', 'nep', 'cp2k', 'vasp', 'allegro') for code in find_codes(name)]
    for code in hidden:
        code.is_hidden = True
    yield
    for code in hidden:
        code.is_hidden = False
