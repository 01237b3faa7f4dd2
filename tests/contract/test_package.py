"""What the package promises as a whole."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

GROUPS = (
    'aiida.data',
    'aiida.calculations',
    'aiida.parsers',
    'aiida_perovmlip.architectures',
    'aiida_perovmlip.labellers',
    'aiida_perovmlip.engines',
    'aiida_perovmlip.tasks',
)
POINTS = [point for group in GROUPS for point in entry_points(group=group) if point.value.startswith('aiida_perovmlip')]


@pytest.mark.parametrize('point', POINTS, ids=lambda point: f'{point.group}:{point.name}')
def test_every_entry_point_loads(point):
    assert point.load().__name__ == point.value.partition(':')[2]


def test_there_are_entry_points_of_every_group():
    assert {point.group for point in POINTS} == set(GROUPS)


@pytest.mark.parametrize('module', ['aiida_perovmlip', 'aiida_perovmlip.compute.harness', 'aiida_perovmlip.cli'])
def test_importing_is_free(module):
    code = f'import sys, {module}; print([m for m in ("aiida", "torch", "numpy", "matplotlib") if m in sys.modules])'
    found = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == '[]'
