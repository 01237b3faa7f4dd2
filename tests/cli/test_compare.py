"""The verb `compare`."""

from __future__ import annotations

import csv
import json

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.manage import get_manager
from click.testing import CliRunner

from aiida_perovmlip.cli import main
from aiida_perovmlip.data.potential import PotentialData


def compare(*arguments: object):
    return CliRunner().invoke(main, ['compare', *map(str, arguments)])


def job(kind, **inputs):
    node = orm.CalcJobNode(process_type=f'aiida.calculations:perovmlip.{kind}')
    for label, data in inputs.items():
        node.base.links.add_incoming(data, LinkType.INPUT_CALC, label)
    node.set_exit_status(0)
    return node.store()


def put(node, label, data):
    data.base.links.add_incoming(node, LinkType.CREATE, label)
    return data.store()


@pytest.fixture
def history(make_dataset, tmp_path):
    """Return two test sets, and two potentials of which the second was trained from the first."""
    sets = [make_dataset(2, seed=seed) for seed in (31, 32)]
    for node, label in zip(sets, ('bulk', 'slab'), strict=True):
        node.label = label
        node.store()
    (tmp_path / 'a').write_text('a')
    kind = {'architecture': 'reference', 'elements': ['Cs', 'I', 'Pb'], 'cutoff': 5.0}
    first = PotentialData(tmp_path, **kind).store()
    (tmp_path / 'a').write_text('b')
    second = PotentialData(tmp_path, **kind)
    second.label = 'tuned'
    training = job('train', training=sets[1], parent=first)
    put(training, 'results', orm.Dict({'strategy': 'naive'}))
    put(training, 'potential', second)
    for potential, dataset, forces in ((first, sets[0], 0.01), (second, sets[0], 0.2), (second, sets[1], 0.03)):
        metrics = {'state': 'finite', 'same_level': True, 'microseconds_per_atom': 12.0, 'head': 'default'}
        metrics |= {'forces': {'rmse': forces, 'mae': forces / 2}, 'energy_per_atom': {'rmse': 0.001, 'mae': 0.0005}}
        put(job('evaluate', potential=potential, dataset=dataset), 'metrics', orm.Dict(metrics))
    return (first, second), sets


def test_a_table_has_units(history):
    (first, second), sets = history
    answer = compare(first.pk, second.uuid)
    assert answer.exit_code == 0, answer.output
    lines = answer.output.splitlines()
    assert 'forces RMSE (meV/Å)' in lines[0]
    assert lines[2].split() == ['bulk', f'({sets[0].pk})', '2', str(first.pk), 'reference', '10', '12']
    assert lines[3].split()[3:] == ['tuned', f'({second.pk})', 'reference', '200', '12']
    assert len(lines) == 5


def test_quantity_error_and_test_set_can_be_chosen(history):
    (_, second), sets = history
    answer = compare(second.pk, '--dataset', sets[1].pk, '--quantity', 'energy_per_atom', '--error', 'mae')
    lines = answer.output.splitlines()
    assert 'energy_per_atom MAE (meV/atom)' in lines[0]
    assert lines[2].split()[-2:] == ['0.5', '12']
    assert len(lines) == 3


def test_forgetting_is_a_table_of_stages(history):
    (first, second), _ = history
    answer = compare('--forgetting', second.pk)
    assert answer.exit_code == 0, answer.output
    lines = answer.output.splitlines()
    assert lines[0] == 'forces RMSE in meV/Å of each stage, the oldest first, on each test set'
    assert lines[4].split() == [str(first.pk), 'imported', '10', '–']
    assert lines[5].split() == ['tuned', f'({second.pk})', 'naive', '200', '30']


def test_damaged_links_are_a_sentence_and_an_exit_code(history):
    (first, second), sets = history
    training = job('train', training=sets[0])
    link = training.backend_entity
    first.backend_entity.add_incoming(link, LinkType.CREATE, 'potential')
    link.add_incoming(second.backend_entity, LinkType.INPUT_CALC, 'parent')  # only a damaged database holds it
    try:
        answer = compare('--forgetting', second.pk)
    finally:
        session = get_manager().get_profile_storage().get_session()
        session.query(link.LINK_CLASS).filter_by(output_id=training.pk, label='parent').delete()
        session.commit()
    assert answer.exit_code == 1
    assert answer.output.startswith(f'Error: the potential {second.pk} descends from itself')
    assert 'restore the profile' in answer.output


def test_forgetting_of_one_test_set_has_one_column(history):
    (first, second), sets = history
    answer = compare('--forgetting', second.pk, '--dataset', sets[1].pk)
    assert answer.exit_code == 0, answer.output
    lines = answer.output.splitlines()
    assert 'slab' in lines[2]
    assert 'bulk' not in lines[2]
    assert lines[4].split() == [str(first.pk), 'imported', '–']
    assert lines[5].split()[2:] == ['naive', '30']


def test_forgetting_tells_not_finite_from_not_evaluated(history):
    (_, second), sets = history
    metrics = {'state': 'not_finite', 'head': 'default', 'forces': {'n': 9, 'n_not_finite': 9}}
    put(job('evaluate', potential=second, dataset=sets[1]), 'metrics', orm.Dict(metrics))
    lines = compare('--forgetting', second.pk).output.splitlines()
    assert lines[4].split()[-2:] == ['10', '–']
    assert lines[5].split()[-3:] == ['200', 'not', 'finite']


def test_json_and_csv_hold_all_that_is_known(history, tmp_path):
    (first, _), sets = history
    path = tmp_path / 'table.csv'
    answer = compare(first.pk, '--json', '--csv', path)
    (record,) = json.loads(answer.output)
    assert (record['forces_rmse'], record['dataset'], record['same_level']) == (0.01, sets[0].pk, True)
    (row,) = csv.DictReader(path.read_text(encoding='utf-8').splitlines())
    assert (row['forces_rmse [eV/Å]'], row['stress_rmse [eV/Å³]'], row['head']) == ('0.01', '', 'default')


@pytest.mark.parametrize('arguments', [['99999999'], ['--forgetting', 'no-such-uuid'], ['--dataset', '99999999']])
def test_what_does_not_exist_is_a_sentence_and_no_empty_table(arguments):
    answer = compare(*arguments)
    assert answer.exit_code == 1
    assert answer.output.startswith('Error: there is no ')


def test_a_potential_that_nobody_evaluated_is_a_sentence(tmp_path):
    (tmp_path / 'a').write_text('lonely')
    kind = {'architecture': 'reference', 'elements': ['Cs'], 'cutoff': 5.0}
    answer = compare(PotentialData(tmp_path, **kind).store().pk)
    assert answer.exit_code == 0
    assert answer.output.startswith('No evaluation was found.')
