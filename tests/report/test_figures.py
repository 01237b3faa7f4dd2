from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from aiida_perovmlip.report.contents import Curve, Parity
from aiida_perovmlip.report.figures import MOST_MARKERS, describe_parity, draw_curve, draw_parity
from aiida_perovmlip.report.svg import write_svg

SVG = '{http://www.w3.org/2000/svg}'
HOSTILE = '</text><script>alert(1)</script> $x_$ "&\x00'


def plot_parity(parity, metrics=None, name='plot', uuids=()):
    return write_svg(draw_parity(parity, metrics), name, describe_parity(parity, metrics), uuids)


def plot_curve(curve):
    return write_svg(draw_curve(curve), 'plot', 'a curve')


def texts(svg):
    return [''.join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f'{SVG}text')]


def count_markers(svg):
    groups = [group for group in ElementTree.fromstring(svg).iter(f'{SVG}g') if group.get('clip-path')]
    return sum(len(group.findall(f'{SVG}use')) for group in groups)


@pytest.mark.parametrize(
    ('quantity', 'axes', 'error'),
    [
        ('energy', ('Reference energy (eV/atom)', 'Predicted energy (eV/atom)'), 'Error (meV/atom)'),
        ('forces', ('Reference force component (eV/Å)', 'Predicted force component (eV/Å)'), 'Error (meV/Å)'),
        ('stress', ('Reference stress component (meV/Å³)', 'Predicted stress component (meV/Å³)'), 'Error (meV/Å³)'),
    ],
)
def test_every_axis_has_a_unit(points, quantity, axes, error):
    assert {*axes, error} <= set(texts(plot_parity(points(quantity, 200))))


def test_equal_contents_give_equal_figures(points, curve):
    assert plot_parity(points('forces', 9000)) == plot_parity(points('forces', 9000))
    assert plot_curve(curve) == plot_curve(curve)


def test_other_contents_give_another_figure(points):
    assert plot_parity(points('forces', 200, seed=0)) != plot_parity(points('forces', 200, seed=1))


def test_every_point_is_drawn_while_they_are_few(points):
    assert count_markers(plot_parity(points('forces', 300))) == 300


def test_many_points_become_a_density_and_stay_small(points):
    few, many = plot_parity(points('forces', MOST_MARKERS)), plot_parity(points('forces', 20_000))
    assert count_markers(many) < 3000
    assert len(many) < 300_000
    assert len(few) < 500_000
    assert 'points per cell (log)' in texts(many)


def test_the_errors_written_are_those_given_and_not_those_of_the_drawn_points(points):
    written = texts(plot_parity(points('forces', 200), {'rmse': 0.0123, 'mae': 0.00456, 'r2': 0.98765}))
    assert 'RMSE 12.3 meV/Å' in written
    assert 'MAE 4.56 meV/Å' in written
    assert 'R² 0.9877, n = 200' in written


def test_the_number_of_all_points_is_told_where_some_are_drawn():
    parity = Parity('energy', 'eV/atom', np.arange(3.0), np.arange(3.0), n_total=70_000)
    assert describe_parity(parity) == 'Predicted against reference energy in eV/atom for 70\u202f000 values'


def test_rare_categories_are_joined_and_none_is_lost():
    categories = tuple(f'group {index % 30}' for index in range(300))
    values = np.linspace(0, 1, 300)
    svg = plot_parity(Parity('energy', 'eV/atom', values, values + 0.01, categories, 'group'))
    assert count_markers(svg) == 300
    assert ' others' in texts(svg)


@pytest.mark.parametrize('label', [HOSTILE, '_hidden', '$\\frac{', '铯', ''])
def test_labels_of_users_are_text_and_nothing_else(label):
    values = np.linspace(0, 1, 4)
    svg = plot_parity(Parity('energy', 'eV/atom', values, values, (label, label, 'a', 'a'), 'group'))
    assert '<script' not in svg
    assert any(label.replace('\x00', ' ')[:10] in text for text in texts(svg))


@pytest.mark.parametrize('values', [[], [1.5], [2.0, 2.0]])
def test_a_degenerate_parity_is_still_a_figure(values):
    svg = plot_parity(Parity('energy', 'eV/atom', np.array(values), np.array(values)))
    assert count_markers(svg) == len(values)


@pytest.mark.parametrize('centre', [-3.9, -99.6, -278_859.15])
def test_no_number_or_label_is_cut_off_however_long_the_energies_are(centre):
    values = centre + np.linspace(0, 0.55, 20)
    root = ElementTree.fromstring(plot_parity(Parity('energy', 'eV/atom', values, values)))
    width = float(root.get('viewBox').split()[2])
    for text in root.iter(f'{SVG}text'):
        style, written = text.get('style'), ''.join(text.itertext())
        if 'text-anchor: end' in style:  # the numbers at the left, about six points a character
            assert float(text.get('x')) - 6.3 * len(written) > 12
        elif 'text-anchor: middle' in style and 'rotate(-90' not in text.get('transform', ''):
            size = float(re.search(r'font-size: ([0-9.]+)px', style).group(1))
            assert float(text.get('x')) + 0.29 * size * len(written) < width
    (label,) = [text for text in root.iter(f'{SVG}text') if 'Predicted' in ''.join(text.itertext())]
    assert float(label.get('x')) > 8


def test_points_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r'must be flat and of one length'):
        Parity('energy', 'eV/atom', np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match='2 categories cannot belong to 3 points'):
        Parity('energy', 'eV/atom', np.zeros(3), np.zeros(3), ('a', 'b'))


def test_nodes_are_named_in_the_metadata(points):
    root = ElementTree.fromstring(plot_parity(points('energy', 20), uuids=['uuid-1', 'uuid-2']))
    sources = [element.text for element in root.iter('{http://purl.org/dc/elements/1.1/}source')]
    assert sources == ['uuid-1 uuid-2']


def test_colours_follow_the_theme_of_the_page(points):
    svg = plot_parity(points('forces', 50))
    naked = re.sub(r'var\(--[a-z0-9-]+, #[0-9a-f]{6}\)', '', svg)
    assert 'var(--series-1, #0072b2)' in svg
    assert not re.findall(r'#[0-9a-f]{6}\b(?=[;"])', naked)


def test_ids_carry_the_name_of_the_figure_and_all_references_resolve(points):
    root = ElementTree.fromstring(plot_parity(points('forces', 50), name='mine'))
    ids = [element.get('id') for element in root.iter() if element.get('id')]
    links = [element.get('{http://www.w3.org/1999/xlink}href') for element in root.iter(f'{SVG}use')]
    clips = [element.get('clip-path')[4:-1] for element in root.iter() if element.get('clip-path')]
    assert len(ids) == len(set(ids))
    assert all(name.startswith('mine-') for name in ids)
    assert {link.removeprefix('#') for link in [*links, *clips]} <= set(ids)


def test_a_figure_brings_no_style_sheet_that_would_act_on_the_page(points):
    assert '<style' not in plot_parity(points('forces', 50))


def test_the_curve_has_a_panel_for_each_quantity_with_its_unit(curve):
    written = set(texts(plot_curve(curve)))
    expected = {
        'Loss (a. u.)',
        'Energy RMSE (meV/atom)',
        'Forces RMSE (meV/Å)',
        'Stress RMSE (meV/Å³)',
        'Training step',
    }
    assert expected <= written


def test_the_best_validation_error_is_told():
    steps = [{'step': step, 'validation_forces_rmse': value} for step, value in enumerate([0.3, 0.04567, 0.2])]
    steps = [{**step, 'training_forces_rmse': 0.1} for step in steps]
    assert 'Validation, best 45.7' in texts(plot_curve(Curve(tuple(steps))))


def test_steps_without_a_value_are_left_out_and_mae_replaces_a_missing_rmse():
    steps = ({'step': 0, 'loss': 1.0}, {'step': 1}, {'step': 2, 'loss': 0.0, 'training_forces_mae': 0.2})
    written = texts(plot_curve(Curve(steps)))
    assert 'Forces MAE (meV/Å)' in written
    assert not any('RMSE' in text for text in written)


def test_a_curve_without_positive_values_says_so():
    assert 'No positive value was recorded.' in texts(plot_curve(Curve(({'step': 0, 'loss': -1.0}, {'loss': 'nan'}))))
