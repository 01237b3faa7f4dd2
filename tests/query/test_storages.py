"""The query layer and QueryBuilders written by hand give the same answers, whatever a profile is stored in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from query_pairs import PAIRS

STORAGES = ('sqlite', 'archive', 'postgresql')
SCRIPT = Path(__file__).with_name('query_pairs.py')


def answers_of(folder, storage, config):
    """Return all answers of a profile; another process gives them, since a switch would close what tests keep."""
    command = [sys.executable, '-W', 'ignore', str(SCRIPT), str(folder), storage, json.dumps(config)]
    environment = {**os.environ, 'AIIDA_PATH': str(folder)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith('ANSWERS'))
    return json.loads(line.removeprefix('ANSWERS '))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('sqlite')


@pytest.fixture(scope='module')
def sqlite(folder):
    return answers_of(folder, 'core.sqlite_dos', {})


@pytest.fixture(scope='module')
def archive(folder, sqlite, tmp_path_factory):
    return answers_of(tmp_path_factory.mktemp('zip'), 'core.sqlite_zip', {'filepath': str(folder / 'world.aiida')})


@pytest.fixture(scope='module')
def postgresql(postgres, tmp_path_factory):
    folder = tmp_path_factory.mktemp('psql')
    return answers_of(folder, 'core.psql_dos', {**postgres(), 'repository_uri': f'file://{folder}/repository'})


@pytest.fixture
def answers(storage, request):
    return request.getfixturevalue(storage)


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('question', PAIRS)
def test_the_answer_is_that_of_a_query_by_hand(answers, question):
    asked, by_hand = answers[question]
    assert asked == by_hand


@pytest.mark.parametrize('storage', STORAGES[1:])
def test_all_storages_give_the_same_answers(answers, sqlite):
    assert answers == sqlite


@pytest.mark.parametrize('storage', STORAGES)
def test_the_code_that_a_table_shows_runs(answers):
    assert answers['code_runs']


def test_the_answers_are_those_of_the_world(sqlite):
    """Two ways may be wrong in one way: some numbers as the world was made with them."""
    answers = {question: answer[0] for question, answer in sqlite.items() if question in PAIRS}
    potentials, _, _, evaluations, forgetting, strategies, barriers, _, _, architectures, repaired, _, costs = (
        answers.values()
    )
    assert potentials['mace multihead'] == [
        'multihead',
        0.003,
        'mace naive',
        9,
        ['foundation', 'mace naive', 'mace multihead'],
    ]
    assert evaluations['mace naive bulk default'][0] == 0.3
    assert evaluations['nep scratch slab default'][:3] == [None, False, 'not_finite']
    assert [row[1] for row in forgetting] == [0.05, 0.15, 0.075]
    assert strategies[0] == [None, 'foundation', 0.01, 0.04]
    assert barriers[1][5:7] == [0.45, pytest.approx(0.15)]
    assert architectures['nep scratch'] == [2.0, pytest.approx(0.15), 0.25, 25.0, 3000, 0.1, 0.0]
    assert architectures['mace naive'][-2:] == [pytest.approx(0.2), 0.0]
    assert architectures['mace multihead'][-2:] == [0.1, 0.05]
    assert repaired == [
        [
            'labelling',
            3,
            'smearing',
            'not_converged',
            'second did not converge.',
            2,
            'second',
            'fourth',
            'vasp / PBE / 500 eV',
        ]
    ]
    assert costs[3:] == [4, 1]
