"""The provenance graph of a potential, drawn in layers from left to right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from xml.etree import ElementTree

from aiida_perovmlip.report.contents import Lineage, NodeMark
from aiida_perovmlip.report.quantities import shorten
from aiida_perovmlip.report.style import LIGHT

WIDTH, HEIGHT = 168.0, 46.0
"""Size of a node in px."""

GAP = 92.0
"""Room between two layers, in px, for the labels of edges."""

SPACING = 60.0
"""Distance between the centres of two nodes of a layer in px; a passing edge takes less."""

SPACING_OF_EDGE = 26.0
MARGIN = 14.0
_SWEEPS = 12

Point = tuple[float, float]
Segments = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Route:
    """An edge by the vertices that it passes; those between its ends are bends and no nodes."""

    label: str
    vertices: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where everything is.

    :param marks: the nodes; vertex `i` is `marks[i]`, further vertices are bends of long edges.
    :param layers: vertices of each layer from top to bottom.
    :param centres: position of the centre of each vertex in px.
    """

    marks: tuple[NodeMark, ...]
    layers: tuple[tuple[int, ...], ...]
    routes: tuple[Route, ...]
    centres: tuple[Point, ...]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in px."""
        if not self.centres:
            return 2 * MARGIN, 2 * MARGIN
        right, bottom = (max(centre[axis] for centre in self.centres) for axis in (0, 1))
        return right + WIDTH / 2 + MARGIN, bottom + HEIGHT / 2 + MARGIN


def assign_layers(lineage: Lineage) -> dict[str, int]:
    """Return the layer of each node by its UUID: the longest path that leads there.

    A node to which nothing leads stands beside the first that uses it, so that settings do not all pile up at the left.
    """
    sources, targets = defaultdict(set), defaultdict(set)
    for source, target, _ in _merge_edges(lineage):
        sources[target].add(source)
        targets[source].add(target)
    try:
        order = list(TopologicalSorter({mark.uuid: sources[mark.uuid] for mark in lineage.nodes}).static_order())
    except CycleError as error:
        raise ValueError(f'provenance cannot contain a cycle, but these nodes do: {error.args[1]}.') from error
    layers: dict[str, int] = {}
    for uuid in order:
        layers[uuid] = max((layers[source] + 1 for source in sources[uuid]), default=0)
    for uuid in order:
        if not sources[uuid] and targets[uuid]:
            layers[uuid] = min(layers[target] for target in targets[uuid]) - 1
    return layers


def count_crossings(upper: Sequence[int], lower: Sequence[int], segments: Segments) -> int:
    """Count the pairs of segments that cross between two neighbouring layers."""
    above = {vertex: place for place, vertex in enumerate(upper)}
    below = {vertex: place for place, vertex in enumerate(lower)}
    ends = sorted((above[source], below[target]) for source, target in segments if source in above and target in below)
    return sum(
        first[1] > second[1] and first[0] < second[0]
        for index, first in enumerate(ends)
        for second in ends[index + 1 :]
    )


def order_layers(layers: Sequence[Sequence[int]], segments: Segments) -> tuple[tuple[int, ...], ...]:
    """Order each layer by the barycentres of its neighbours, to and fro, and keep the order with fewest crossings."""
    before, after = _neighbours(segments)
    present = [list(layer) for layer in layers]
    best, fewest = [list(layer) for layer in present], _count_all(present, segments)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        indices = range(1, len(present)) if forward else range(len(present) - 2, -1, -1)
        for index in indices:
            fixed = {vertex: place for place, vertex in enumerate(present[index - 1 if forward else index + 1])}
            present[index] = _by_barycentre(present[index], fixed, before if forward else after)
        crossings = _count_all(present, segments)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in present], crossings
    return tuple(tuple(layer) for layer in best)


def _by_barycentre(layer: list[int], fixed: Mapping[int, int], neighbours: Mapping[int, list[int]]) -> list[int]:
    """Sort a layer by the mean place of the neighbours in a fixed layer; those without keep their place."""

    def barycentre(vertex: int) -> float:
        places = [fixed[neighbour] for neighbour in neighbours.get(vertex, []) if neighbour in fixed]
        return sum(places) / len(places) if places else float(layer.index(vertex))

    return sorted(layer, key=barycentre)


def _count_all(layers: Sequence[Sequence[int]], segments: Segments) -> int:
    return sum(count_crossings(upper, lower, segments) for upper, lower in pairwise(layers))


def _neighbours(segments: Segments) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Return the neighbours of each vertex in the layer before and in the layer after."""
    before, after = defaultdict(list), defaultdict(list)
    for source, target in segments:
        after[source].append(target)
        before[target].append(source)
    return before, after


def _merge_edges(lineage: Lineage) -> list[tuple[str, str, str]]:
    """Return source, target and all labels of each pair of nodes that are both drawn."""
    known = {mark.uuid for mark in lineage.nodes}
    labels: dict[tuple[str, str], list[str]] = defaultdict(list)
    for edge in lineage.edges:
        if edge.source_uuid in known and edge.target_uuid in known:
            labels[edge.source_uuid, edge.target_uuid].append(edge.label)
    return [(source, target, ', '.join(dict.fromkeys(names))) for (source, target), names in labels.items()]


def arrange(lineage: Lineage) -> Layout:
    """Return where to draw every node and edge of a lineage."""
    layer_of = assign_layers(lineage)
    vertex_of = {mark.uuid: vertex for vertex, mark in enumerate(lineage.nodes)}
    layers: list[list[int]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for mark in lineage.nodes:
        layers[layer_of[mark.uuid]].append(vertex_of[mark.uuid])
    routes = []
    n_vertices = len(lineage.nodes)
    for source, target, label in _merge_edges(lineage):
        passed = range(layer_of[source] + 1, layer_of[target])
        bends = tuple(range(n_vertices, n_vertices + len(passed)))
        for layer, bend in zip(passed, bends, strict=True):
            layers[layer].append(bend)
        n_vertices += len(bends)
        routes.append(Route(label, (vertex_of[source], *bends, vertex_of[target])))
    segments = [pair for route in routes for pair in pairwise(route.vertices)]
    ordered = order_layers(layers, segments)
    return Layout(lineage.nodes, ordered, tuple(routes), _place(ordered, segments, len(lineage.nodes)))


def _place(layers: Sequence[Sequence[int]], segments: Segments, n_nodes: int) -> tuple[Point, ...]:
    """Return the centre of each vertex: near its neighbours, in the order of its layer, and never too close."""
    before, after = _neighbours(segments)
    height = {vertex: SPACING * place for layer in layers for place, vertex in enumerate(layer)}
    for sweep in range(_SWEEPS):
        near = before if sweep % 2 == 0 else after
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = [_mean([height[other] for other in near.get(vertex, [])], height[vertex]) for vertex in layer]
            height.update(zip(layer, spread(wanted, _distances(layer, n_nodes)), strict=True))
    top = min(height.values(), default=0.0) - HEIGHT / 2 - MARGIN
    column = {vertex: number for number, layer in enumerate(layers) for vertex in layer}
    return tuple(
        (MARGIN + WIDTH / 2 + column[vertex] * (WIDTH + GAP), height[vertex] - top) for vertex in sorted(height)
    )


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _distances(layer: Sequence[int], n_nodes: int) -> list[float]:
    """Return the least distance in px between each two neighbours of a layer."""
    rooms = [SPACING if vertex < n_nodes else SPACING_OF_EDGE for vertex in layer]
    return [(first + second) / 2 for first, second in pairwise(rooms)]


def spread(wanted: Sequence[float], distances: Sequence[float]) -> list[float]:
    """Return the positions nearest to the wanted ones (least squares) that keep their order and these distances.

    Without the distances this is isotonic regression, which pooling adjacent violators solves exactly
    (Barlow et al., Statistical Inference under Order Restrictions, 1972).
    """
    offsets = [0.0]
    for distance in distances:
        offsets.append(offsets[-1] + distance)
    pools: list[list[float]] = []  # sum and number of each pool
    for position, offset in zip(wanted, offsets, strict=True):
        pools.append([position - offset, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] >= pools[-1][0] / pools[-1][1]:
            total, number = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + number]
    levels = [total / number for total, number in pools for _ in range(int(number))]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]


def draw_lineage(lineage: Lineage, *, name: str = 'lineage') -> str:
    """Draw a lineage as an SVG element: data round, processes square, the focus in colour.

    :param name: prefix of all ids in the SVG.
    """
    layout = arrange(lineage)
    width, height = layout.size
    root = ElementTree.Element(
        'svg',
        {
            'xmlns': 'http://www.w3.org/2000/svg',
            'viewBox': f'0 0 {width:.0f} {height:.0f}',
            'width': f'{width:.0f}',
            'height': f'{height:.0f}',
            'role': 'img',
            'aria-label': f'Provenance graph of {len(layout.marks)} nodes and {len(layout.routes)} links',
            'class': 'lineage',
        },
    )
    ElementTree.SubElement(root, 'metadata').text = ' '.join(shorten(mark.uuid, 64) for mark in layout.marks)
    _define_arrow(root, name)
    ports = _ports(layout)
    for index, route in enumerate(layout.routes):
        _draw_edge(root, layout, route, ports[index], name)
    for vertex, mark in enumerate(layout.marks):
        _draw_node(root, mark, layout.centres[vertex], mark.uuid == lineage.focus_uuid)
    return ElementTree.tostring(root, encoding='unicode')


def _style(**properties: str) -> str:
    """Return a CSS style; a name of the palette becomes a colour that follows the theme."""
    written = {key: f'var(--{value}, {LIGHT[value]})' if value in LIGHT else value for key, value in properties.items()}
    return '; '.join(f'{key.replace("_", "-")}: {value}' for key, value in written.items())


def _define_arrow(root: ElementTree.Element, name: str) -> None:
    definitions = ElementTree.SubElement(root, 'defs')
    shape = {'id': f'{name}-arrow', 'viewBox': '0 0 8 8', 'refX': '7.5', 'refY': '4', 'orient': 'auto'}
    marker = ElementTree.SubElement(definitions, 'marker', {**shape, 'markerWidth': '7', 'markerHeight': '7'})
    ElementTree.SubElement(marker, 'path', {'d': 'M0 0.8 L8 4 L0 7.2 z', 'style': _style(fill='muted')})


def _ports(layout: Layout) -> list[tuple[float, float]]:
    """Return how far, in px, each route leaves and arrives off the centre of its nodes, so that edges stay apart."""
    ports = [[0.0, 0.0] for _ in layout.routes]
    for end in (0, 1):
        by_node = defaultdict(list)
        for index, route in enumerate(layout.routes):
            by_node[route.vertices[-end]].append(index)
        for indices in by_node.values():
            inner = 1 if end == 0 else -2
            indices.sort(key=lambda index: layout.centres[layout.routes[index].vertices[inner]][1])
            step = min(8.0, (HEIGHT - 14) / max(1, len(indices) - 1))
            for place, index in enumerate(indices):
                ports[index][end] = (place - (len(indices) - 1) / 2) * step
    return [(leaves, arrives) for leaves, arrives in ports]


def _draw_edge(root: ElementTree.Element, layout: Layout, route: Route, ports: tuple[float, float], name: str) -> None:
    """Draw an edge as a smooth line through its bends, with its label beside the datum that it names."""
    points = _points(layout, route, ports)
    path = f'M{points[0][0]:.1f} {points[0][1]:.1f}'
    for index, (start, end) in enumerate(pairwise(points)):
        middle = (start[0] + end[0]) / 2
        is_gap = index % 2 == 0
        path += (
            f' C{middle:.1f} {start[1]:.1f} {middle:.1f} {end[1]:.1f} {end[0]:.1f} {end[1]:.1f}'
            if is_gap
            else f' H{end[0]:.1f}'
        )
    line = {'d': path, 'class': 'edge', 'marker-end': f'url(#{name}-arrow)'}
    ElementTree.SubElement(root, 'path', {**line, 'style': _style(fill='none', stroke='muted', stroke_width='1.1')})
    _label_edge(root, layout, route, points)


def _points(layout: Layout, route: Route, ports: tuple[float, float]) -> list[Point]:
    """Return where an edge leaves and enters each layer on its way."""
    first, *bends, last = route.vertices
    points = [(layout.centres[first][0] + WIDTH / 2, layout.centres[first][1] + ports[0])]
    for bend in bends:
        x, y = layout.centres[bend]
        points += [(x - WIDTH / 2, y), (x + WIDTH / 2, y)]
    return [*points, (layout.centres[last][0] - WIDTH / 2, layout.centres[last][1] + ports[1])]


def _label_edge(root: ElementTree.Element, layout: Layout, route: Route, points: Sequence[Point]) -> None:
    """Write the label at the end where edges are fewest."""
    n_leaving = sum(other.vertices[0] == route.vertices[0] for other in layout.routes)
    n_arriving = sum(other.vertices[-1] == route.vertices[-1] for other in layout.routes)
    if n_leaving == 1:
        is_rising = points[1][1] < points[0][1] - 1  # then the room is below
        (x, y), anchor = (points[0][0] + 5, points[0][1] + (12 if is_rising else -4)), 'start'
    elif n_arriving == 1:
        is_falling = points[-1][1] > points[-2][1] + 1
        (x, y), anchor = (points[-1][0] - 9, points[-1][1] + (12 if is_falling else -4)), 'end'
    else:
        (x, y), anchor = ((points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2 - 3), 'middle'
    style = _style(fill='muted', stroke='surface', stroke_width='3px', paint_order='stroke', font_size='10.5px')
    place = {'x': f'{x:.1f}', 'y': f'{y:.1f}', 'text-anchor': anchor, 'class': 'edge-label', 'style': style}
    label = ElementTree.SubElement(root, 'text', place)
    label.text = shorten(route.label, 19)
    ElementTree.SubElement(label, 'title').text = shorten(route.label, 200)


def _draw_node(root: ElementTree.Element, mark: NodeMark, centre: Point, is_focus: bool) -> None:
    """Draw a node with its class, its label, and all facts for those who point at it."""
    classes = f'node {mark.kind}{" focus" if is_focus else ""}'
    group = ElementTree.SubElement(root, 'g', {'class': classes, 'data-uuid': shorten(mark.uuid, 64)})
    facts = [f'{mark.type_name} {mark.label}', f'UUID {mark.uuid}, PK {mark.pk}', mark.state, mark.detail]
    ElementTree.SubElement(group, 'title').text = '\n'.join(shorten(fact, 500) for fact in facts if fact)
    _draw_shape(group, mark, centre, is_focus)
    x, y = centre
    place = {'x': f'{x:.1f}', 'text-anchor': 'middle'}
    kind = ElementTree.SubElement(
        group, 'text', {**place, 'y': f'{y - 3:.1f}', 'style': _text_style('ink', '600', '12px')}
    )
    kind.text = shorten(mark.type_name, 22)
    label = ElementTree.SubElement(
        group, 'text', {**place, 'y': f'{y + 13:.1f}', 'style': _text_style('muted', '400', '11px')}
    )
    label.text = f'{shorten(mark.label, 17)} · {mark.pk}' if mark.label else f'PK {mark.pk}'


def _text_style(colour: str, weight: str, size: str) -> str:
    return _style(fill=colour, font_weight=weight, font_size=size)


def _draw_shape(group: ElementTree.Element, mark: NodeMark, centre: Point, is_focus: bool) -> None:
    """Draw the outline of a node, and a sign of how a process ended."""
    x, y = centre[0] - WIDTH / 2, centre[1] - HEIGHT / 2
    colour = 'series-3' if mark.kind == 'data' else 'series-1'
    outline = {'fill': 'surface', 'stroke': 'series-2' if is_focus else colour, 'stroke_width': '1.4'}
    if is_focus:
        outline |= {'stroke_width': '3'}
    box = {'x': f'{x:.1f}', 'y': f'{y:.1f}', 'width': f'{WIDTH:g}', 'height': f'{HEIGHT:g}'}
    radius = f'{HEIGHT / 2:g}' if mark.kind == 'data' else '3'
    ElementTree.SubElement(group, 'rect', {**box, 'rx': radius, 'style': _style(**outline)})
    tint = {'fill': outline['stroke'], 'fill_opacity': '0.16' if is_focus else '0.07'}
    ElementTree.SubElement(group, 'rect', {**box, 'rx': radius, 'style': _style(**tint)})
    if mark.state:
        _draw_state(group, mark.state == 'finished', (x + WIDTH - 11, y + HEIGHT - 11))


def _draw_state(group: ElementTree.Element, has_succeeded: bool, centre: Point) -> None:
    """Draw a dot for a success, a cross for any other end."""
    x, y = centre
    if has_succeeded:
        style = _style(fill='series-3')
        ElementTree.SubElement(group, 'circle', {'cx': f'{x:.1f}', 'cy': f'{y:.1f}', 'r': '3.4', 'style': style})
        return
    cross = f'M{x - 3.5:.1f} {y - 3.5:.1f} l7 7 m0 -7 l-7 7'
    ElementTree.SubElement(group, 'path', {'d': cross, 'style': _style(stroke='series-2', stroke_width='2')})
