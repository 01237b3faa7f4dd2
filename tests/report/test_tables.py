from __future__ import annotations

from aiida_perovmlip.report import tables
from aiida_perovmlip.report.contents import DatasetCard

BLOCK = {'n': 12, 'mae': 0.002, 'rmse': 0.004, 'bias': -0.001, 'largest': 0.01, 'r2': 0.9, 'unit': 'eV/Å'}


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def card(groups):
    return DatasetCard('uuid', 1, 'test', sum(groups.values()), 10, ('Cs',), groups)


def test_errors_are_converted_once_and_keep_their_sign():
    rows = texts(tables.tabulate_errors({'forces': BLOCK}, 'errors'))
    assert rows == [['Forces', '12', '2.00', '4.00', '−1.00', '10.0', 'meV/Å', '0.90000']]


def test_a_quantity_that_was_not_compared_has_no_row():
    assert texts(tables.tabulate_errors({'forces': BLOCK, 'stress': {'n': 0, 'unit': 'eV/Å³'}}, 'errors')) == texts(
        tables.tabulate_errors({'forces': BLOCK}, 'errors')
    )


def test_predictions_that_are_not_finite_are_named_and_not_hidden():
    rows = texts(tables.tabulate_errors({'forces': {'n': 12, 'n_not_finite': 2, 'unit': 'eV/Å'}}, 'errors'))
    assert rows[0][2:6] == ['not finite'] * 4


def test_the_longest_bar_belongs_to_the_largest_error():
    metrics = {'per_element': {'Cs': {'forces': BLOCK}, 'Pb': {'forces': {**BLOCK, 'rmse': 0.008}}}}
    table = tables.tabulate_elements(metrics, 'elements')
    assert [row[3].share for row in table.rows] == [0.5, 1.0]


def test_a_dot_in_the_name_of_a_group_does_not_lose_its_number_of_frames():
    metrics = {'per_group': {'T_300_5': {'forces': BLOCK}}}
    table = tables.tabulate_groups(metrics, card({'T_300.5': 7}), 'groups')
    assert texts(table)[0][:2] == ['T_300_5', '7']
    assert [column.title for column in table.columns] == ['Structure family', 'Frames', 'Forces MAE', 'Forces RMSE']


def test_shares_of_a_composition_add_up():
    table = tables.tabulate_composition(card({'a': 30, 'b': 10}), 'composition')
    assert texts(table) == [['a', '30', '75.0'], ['b', '10', '25.0']]


def test_nested_settings_become_dotted_names():
    rows = texts(tables.tabulate_settings({'a': {'b': 1, 'c': None}, 'd': [1, 2], 'e': {}}, 'settings'))
    assert rows == [['a.b', '1'], ['a.c', '–'], ['d', '[1, 2]'], ['e', '{}']]


def test_a_level_is_one_line_and_unknown_where_it_is_empty():
    assert tables.describe_level({'labeller': 'cp2k', 'functional': 'PBE', 'details': {'x': 1}}) == 'cp2k / PBE'
    assert tables.describe_level(None) == tables.describe_level({}) == 'unknown'
