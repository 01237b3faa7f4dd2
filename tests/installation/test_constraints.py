from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from aiida_perovmlip.installation import catalogue
from aiida_perovmlip.installation.environments import ALWAYS, CONSTRAINTS, constraint_lines, name_of

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
LINES = constraint_lines(CONSTRAINTS.read_text())


def test_every_constraint_is_exact():
    assert [line for line in LINES.values() if not re.fullmatch(r'[A-Za-z0-9._-]+==[0-9][0-9a-z.]*', line)] == []


def test_numpy_is_left_to_each_environment():
    assert 'numpy' not in LINES


def test_every_direct_dependency_has_a_version():
    extras = [entry for entries in PROJECT['optional-dependencies'].values() for entry in entries]
    names = {name_of(entry) for entry in [*PROJECT['dependencies'], *extras]}
    assert names - {'numpy', 'aiida-perovmlip'} - set(LINES) == set()


PLUGINS = ('allegro', 'gpaw', 'gpumd', 'lammps', 'mace', 'nep', 'pyscf', 'reference', 'tblite')


@pytest.mark.parametrize('plugin', PLUGINS)
def test_every_requirement_of_our_plugins_has_a_version(plugin):
    names = {name_of(requirement) for requirement in (*catalogue.requirements_of(plugin), *ALWAYS)}
    assert names - set(LINES) == set()


def test_bootstrap_refuses_the_pythons_that_pip_would_refuse():
    oldest = runpy.run_path(str(ROOT / 'tools' / 'bootstrap.py'))['OLDEST']
    assert PROJECT['requires-python'] == '>=' + '.'.join(map(str, oldest))


@pytest.mark.parametrize(
    ('requirement', 'name'),
    [('torch', 'torch'), ('Mace_Torch==0.3', 'mace-torch'), ('a.b[extra]>=1; python_version<"4"', 'a-b'), ('', '')],
)
def test_the_name_in_a_requirement_is_normalised(requirement, name):
    assert name_of(requirement) == name


def test_comments_in_constraints_are_ignored():
    assert constraint_lines('# all\nTorch==1 # why\n\n') == {'torch': 'Torch==1'}
