from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiida_perovmlip.report.contents import Edge, Lineage, NodeMark
from aiida_perovmlip.report.lineage import (
    HEIGHT,
    arrange,
    assign_layers,
    count_crossings,
    draw_lineage,
    order_layers,
    spread,
)

SVG = '{http://www.w3.org/2000/svg}'


def graph(*pairs, alone=()):
    """Return a lineage of these edges; names in capitals are processes."""
    names = dict.fromkeys([*(name for pair in pairs for name in pair), *alone])
    marks = [
        NodeMark(name, number, 'process' if name.isupper() else 'data', name, 'Type')
        for number, name in enumerate(names)
    ]
    return Lineage(tuple(marks), tuple(Edge(*pair, 'link') for pair in pairs), marks[-1].uuid)


def test_a_chain_has_one_node_a_layer():
    assert assign_layers(graph('aB', 'Bc', 'cD')) == {'a': 0, 'B': 1, 'c': 2, 'D': 3}


def test_the_longest_path_decides_and_a_source_stands_beside_its_first_use():
    layers = assign_layers(graph('aB', 'Bc', 'cD', 'aD', 'sD'))
    assert layers == {'a': 0, 'B': 1, 'c': 2, 'D': 3, 's': 2}


def test_a_cycle_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match='provenance cannot contain a cycle'):
        assign_layers(graph('aB', 'Ba'))


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda pair: pair[0] < pair[1]), max_size=40))
def test_every_edge_of_any_graph_leads_to_the_right(pairs):
    lineage = graph(*((chr(97 + low), chr(97 + high)) for low, high in pairs), alone='a')
    layers = assign_layers(lineage)
    layout = arrange(lineage)
    assert all(layers[edge.source_uuid] < layers[edge.target_uuid] for edge in lineage.edges)
    assert min(layers.values()) >= 0
    for route in layout.routes:
        across = [layout.centres[vertex][0] for vertex in route.vertices]
        steps = {round(right - left, 6) for left, right in pairwise(across)}
        assert len(steps) == 1  # one layer at a time, and always forward
        assert steps.pop() > 0


def test_two_crossed_edges_are_one_crossing_and_parallel_ones_are_none():
    assert count_crossings([0, 1], [2, 3], [(0, 3), (1, 2)]) == 1
    assert count_crossings([0, 1], [2, 3], [(0, 2), (1, 3)]) == 0
    assert count_crossings([0, 1], [2, 3], [(0, 2), (1, 2), (0, 3)]) == 1


def test_crossings_that_can_be_avoided_are():
    layers, segments = [[0, 1, 2], [3, 4, 5]], [(0, 5), (1, 4), (2, 3)]
    assert count_crossings(*layers, segments) == 3
    assert count_crossings(*order_layers(layers, segments), segments) == 0


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=12), st.lists(st.floats(1, 100), min_size=12, max_size=12))
def test_spread_keeps_every_distance_and_the_mean(wanted, distances):
    placed = spread(wanted, distances[: len(wanted) - 1])
    assert sum(placed) == pytest.approx(sum(wanted), abs=1e-6)
    assert all(
        second - first >= distance - 1e-6
        for (first, second), distance in zip(pairwise(placed), distances, strict=False)
    )


def test_spread_leaves_alone_what_is_far_enough_apart():
    assert spread([0.0, 50.0, 200.0], [40.0, 40.0]) == [0.0, 50.0, 200.0]


def test_nodes_never_overlap(lineage):
    layout = arrange(lineage(5))
    n_nodes = len(layout.marks)
    for layer in layout.layers:
        heights = [layout.centres[vertex][1] for vertex in layer if vertex < n_nodes]
        assert all(second - first > HEIGHT for first, second in pairwise(heights))
    width, height = layout.size
    assert all(0 < x < width and 0 < y < height for x, y in layout.centres)


def test_data_are_round_processes_are_square_and_the_focus_stands_out():
    root = ElementTree.fromstring(draw_lineage(graph('aB', 'Bc')))
    nodes = {group.get('data-uuid'): group for group in root.iter(f'{SVG}g')}
    corner = {uuid: float(group.find(f'{SVG}rect').get('rx')) for uuid, group in nodes.items()}
    assert corner['a'] == HEIGHT / 2 > corner['B']
    assert [uuid for uuid, group in nodes.items() if 'focus' in group.get('class')] == ['c']


def test_every_node_tells_its_full_uuid_and_its_facts():
    mark = NodeMark('0' * 36, 7, 'process', 'run', 'Train<mace>', 'ran mace@localhost', 'finished with exit code 410')
    root = ElementTree.fromstring(draw_lineage(Lineage((mark,), (), mark.uuid)))
    title = root.find(f'.//{SVG}g/{SVG}title').text
    assert all(fact in title for fact in (mark.uuid, mark.detail, mark.state, mark.label))


def test_links_with_the_same_ends_are_one_line_with_both_names():
    marks = graph('aB').nodes
    edges = (Edge('a', 'B', 'training'), Edge('a', 'B', 'validation'))
    root = ElementTree.fromstring(draw_lineage(Lineage(marks, edges, 'B')))
    labels = [''.join(text.itertext()) for text in root.iter(f'{SVG}text') if text.get('class') == 'edge-label']
    assert len(list(root.iter(f'{SVG}path'))) == 2  # the arrow and one edge
    assert 'training, validation' in labels[0]


def test_hostile_names_are_text_and_nothing_else():
    hostile = '"><script>alert(1)</script>\x00'
    mark = NodeMark(hostile, 7, 'data', hostile, hostile, hostile, hostile)
    svg = draw_lineage(Lineage((mark,), (), hostile))
    assert '<script' not in svg
    assert '\x00' not in ElementTree.fromstring(svg).find(f'.//{SVG}title').text


def test_links_to_nodes_that_are_not_drawn_are_left_out():
    lineage = graph('aB')
    svg = draw_lineage(Lineage(lineage.nodes, (*lineage.edges, Edge('x', 'B', 'unseen')), 'B'))
    assert 'unseen' not in svg


def test_nothing_is_drawn_as_nothing():
    assert draw_lineage(Lineage((), (), '')).startswith('<svg')


def test_the_same_graph_is_drawn_the_same(lineage):
    assert draw_lineage(lineage(4)) == draw_lineage(lineage(4))
