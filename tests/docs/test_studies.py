"""What the scripts of published studies would run, and what they say where something is not there."""

from __future__ import annotations

import sys

import pytest
from aiida import orm

STUDIES = {
    'study_1_passivation': ('AEAPTMS', 'label the curated dataset by cp2k', '500 crystalline', 'dispersion D3BJ'),
    'study_2_forgetting': (
        '440 defective cells',
        'label defects by cp2k',
        'cutoff 500.0',
        '10000 farthest',
        'learning_rate 1e-05',
    ),
    'study_3_phases': ('generations 1000000', 'train 5 members, 4 times: 20 jobs', 'as published'),
    'study_4_migration': ('1328 to 1818', 'train allegro', '324 jobs', 'SCAN'),
}
"""What the plan of each study has to say with the protocol `paper`."""


@pytest.fixture
def run(monkeypatch, tmp_path, capsys, script):
    """Return a function that runs a script with some words and returns what it printed."""

    def start(name: str, *words: str) -> str:
        monkeypatch.setattr(sys, 'argv', [name, '--output', str(tmp_path / 'out'), *words])
        script(name).main()
        return capsys.readouterr().out

    return start


def n_jobs() -> int:
    return orm.QueryBuilder().append((orm.CalcJobNode, orm.WorkChainNode)).count()


@pytest.mark.usefixtures('without_codes')
@pytest.mark.parametrize('name', STUDIES)
def test_a_dry_run_says_what_would_be_run_and_runs_nothing(name, run):
    before = n_jobs()
    text = run(name, '--dry-run')
    assert 'tblite' in text
    assert text.rstrip().endswith('Nothing was run.')
    assert n_jobs() == before


@pytest.mark.usefixtures('without_codes')
@pytest.mark.parametrize('name', STUDIES)
def test_a_dry_run_of_the_published_settings_names_them(name, run):
    text = run(name, '--protocol', 'paper', '--dry-run')
    for words in STUDIES[name]:
        assert words in text


@pytest.mark.usefixtures('without_codes')
@pytest.mark.parametrize('name', STUDIES)
def test_a_study_without_its_codes_ends_with_a_sentence(name, run):
    with pytest.raises(SystemExit) as caught:
        run(name)
    assert '`aiida-perovmlip setup --with' in str(caught.value.code)
