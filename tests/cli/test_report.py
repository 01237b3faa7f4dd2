from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiida_perovmlip.cli import main


def report(*arguments: str):
    return CliRunner().invoke(main, ['report', *arguments])


@pytest.mark.parametrize('identifier', ['123456789', 'no-such-uuid'])
def test_a_node_that_does_not_exist_is_a_sentence(identifier):
    answer = report(identifier)
    assert answer.exit_code == 1
    assert answer.output.startswith(f'Error: there is no node `{identifier}`; give its PK, its UUID or its label')


def test_a_node_that_is_no_potential_is_a_sentence():
    from aiida.orm import Int

    answer = report(Int(1).store().uuid)
    assert answer.exit_code == 1
    assert 'is a Int; a page is made of a potential, a dataset' in answer.output


def test_a_missing_profile_is_a_sentence():
    answer = report('1', '--profile', 'nobody')
    assert answer.exit_code == 1
    assert '`aiida-perovmlip setup --profile nobody`' in answer.output


def test_a_page_its_figures_and_its_works_are_written_and_told(make_dataset, tmp_path):
    dataset = make_dataset(3, seed=611).store()
    dataset.label = 'three frames'
    arguments = ('three frames', '-o', str(tmp_path / 'x.html'), '--figures', str(tmp_path / 'figures'), '--json')
    answer = report(*arguments)
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told['page'] == str(tmp_path / 'x.html')
    assert dataset.uuid in (tmp_path / 'x.html').read_text(encoding='utf-8')
    assert '@article{huber2020aiida' in (tmp_path / 'x.bib').read_text(encoding='utf-8')
    names = {Path(file).name for file in told['figures']}
    assert {'distribution-forces.csv', 'distribution-forces.pdf', 'lineage.svg'} <= names
    rows = list(csv.DictReader((tmp_path / 'figures' / 'distribution-forces.csv').open(encoding='utf-8')))
    assert sum(int(row['default']) for row in rows) == dataset.base.attributes.get('n_atoms')
