"""The steps of studies, and what a dry run says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiida.manage.caching import get_use_cache

from aiida_perovmlip.steps import (
    Planned,
    describe_plan,
    heads_of_level,
    joined,
    planned_labels,
    run_study,
    study_parser,
)


def test_a_plan_counts_jobs_and_says_their_settings():
    text = describe_plan('A study:', [Planned('train', 2, {'epochs': 20, 'loss': 'squared'}), Planned('label', None)])
    assert ' 1. train: 2 jobs\n    epochs 20, loss squared\n 2. label: some jobs' in text
    assert text.endswith('Nothing was run.')


def test_planned_labels_say_their_level_and_that_nothing_is_known_of_their_cost():
    planned = planned_labels('crystals', ('cp2k', 'paper', {'cutoff': 555.0}), [40, 96], 'two kinds')
    assert planned.settings['cutoff'] == 555.0
    assert planned.about.startswith('two kinds\n2 frames of 40 to 96 atoms; cost')
    assert 'no job of this level has been done here' in planned.about


def test_an_error_of_a_study_ends_it_with_its_sentence():
    def study():
        raise ValueError('there is nothing to study.')

    with pytest.raises(SystemExit, match=r'^there is nothing to study\.$'):
        run_study(study)
    assert not get_use_cache(identifier='aiida.calculations:perovmlip.label')  # as before it


def test_options_that_are_no_json_are_refused(capsys):
    parser = study_parser('A study.', 'out')
    assert parser.parse_args(['--options', '{"gpus": 1}']).options == {'gpus': 1}
    with pytest.raises(SystemExit):
        parser.parse_args(['--options', 'gpus'])
    assert 'no JSON object' in capsys.readouterr().err


def test_heads_are_found_by_the_level_of_the_labels(make_dataset):
    dataset = make_dataset(2)
    (own,) = dataset.levels.values()
    other = replace(own, functional='another')
    potential = SimpleNamespace(heads=['old', 'new'], levels={'old': other, 'new': own})
    assert heads_of_level(potential, dataset) == ['new']
    potential.levels = {'old': own, 'new': own}
    assert heads_of_level(potential, dataset) == ['old', 'new']
    potential.levels = {}
    assert heads_of_level(potential, dataset) == ['old', 'new']  # where nothing is known of the levels


def test_datasets_are_joined_in_their_order(make_dataset):
    parts = [make_dataset(1, seed=number).store() for number in range(11)]
    whole = joined(parts)
    assert [frame.energy for frame in whole] == [part[0].energy for part in parts]
