"""A matplotlib figure as SVG that can live inside a page: themed, self-contained and with the nodes it shows."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from aiida_perovmlip.report.quantities import shorten
from aiida_perovmlip.report.style import SETTINGS, themed

SVG = 'http://www.w3.org/2000/svg'
XLINK = 'http://www.w3.org/1999/xlink'
NAMESPACES = {
    '': SVG,
    'xlink': XLINK,
    'dc': 'http://purl.org/dc/elements/1.1/',
    'cc': 'http://creativecommons.org/ns#',
    'rdf': 'http://www.w3.org/1999/02/22-rdf-syntax-ns#',
}
PIXELS_PER_POINT = 1.28
"""Size on the page at which the smallest text is still read with ease."""

_REFERENCE = re.compile(r'url\(#([^)]+)\)')
_VARIABLE = re.compile(r'var\(--[a-z0-9-]+, (#[0-9a-f]{6})\)')
_COLOUR = re.compile(r'#[0-9a-f]{6}\b')


def write_svg(figure: Any, name: str, description: str, uuids: Sequence[str] = ()) -> str:
    """Return a figure as an SVG element.

    :param name: prefix of all ids, unique on the page.
    :param description: what a reader who cannot see the figure is told.
    :param uuids: the nodes that the figure shows; they go into its Dublin Core metadata.
    """
    buffer = io.BytesIO()
    metadata = {
        'Title': description,
        'Source': ' '.join(shorten(uuid, 64) for uuid in uuids),
        'Date': None,
        'Creator': None,
        'Type': None,
    }
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context(dict(SETTINGS)):
        # Only the width of a missing glyph is guessed; the reader's font draws it.
        warnings.filterwarnings('ignore', message='.*[Gg]lyph.*missing')
        figure.savefig(buffer, format='svg', metadata=metadata)
    return adapt_svg(buffer.getvalue(), name, description)


def adapt_svg(content: bytes, name: str, description: str) -> str:
    """Return the SVG without what belongs to a file of its own, with ids of its own and in the colours of the page."""
    root = ElementTree.fromstring(content)
    _clean(root)
    _label(root, description)
    for element in root.iter():
        _prefix_references(element, name)
        _theme(element)
    _merge_styles_of_markers(root)
    for prefix, uri in NAMESPACES.items():
        ElementTree.register_namespace(prefix, uri)
    return ElementTree.tostring(root, encoding='unicode')


def stand_alone(svg: str) -> str:
    """Return an SVG of a page as one of its own: with a size, and in the colours of light paper."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = root.get('viewBox', '0 0 1 1').split()
    root.set('width', width)
    root.set('height', height)
    for prefix, uri in NAMESPACES.items():
        ElementTree.register_namespace(prefix, uri)
    return _VARIABLE.sub(r'\1', ElementTree.tostring(root, encoding='unicode'))


def _clean(root: ElementTree.Element) -> None:
    """Remove the tooltip over the whole figure, and the style sheet, which would act on the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            is_title_of_figure = parent is root and child.tag == f'{{{SVG}}}title'
            if is_title_of_figure or child.find(f'{{{SVG}}}style') is not None:
                parent.remove(child)


def _label(root: ElementTree.Element, description: str) -> None:
    """Let the figure scale with the page and say what it is."""
    width, height = (float(root.attrib.pop(side).removesuffix('pt')) for side in ('width', 'height'))
    root.set('viewBox', f'0 0 {width:g} {height:g}')
    root.set('role', 'img')
    root.set('aria-label', description)
    root.set('style', f'stroke-linejoin: round; stroke-linecap: butt; max-width: {width * PIXELS_PER_POINT:.0f}px')


def _prefix_references(element: ElementTree.Element, name: str) -> None:
    """Make ids, and what refers to them, unique on the page."""
    link = f'{{{XLINK}}}href'
    if 'id' in element.attrib:
        element.set('id', f'{name}-{element.get("id")}')
    if element.get(link, '').startswith('#'):
        element.set(link, f'#{name}-{element.get(link, "")[1:]}')
    for key in ('clip-path', 'style', 'fill'):
        if 'url(#' in element.get(key, ''):
            element.set(key, _REFERENCE.sub(rf'url(#{name}-\1)', element.get(key, '')))


def _theme(element: ElementTree.Element) -> None:
    """Replace fixed colours by those of the page."""
    if 'style' in element.attrib:
        element.set('style', _COLOUR.sub(lambda match: themed(match.group()), element.get('style', '')))


def _merge_styles_of_markers(root: ElementTree.Element) -> None:
    """Write the style of equal markers once; thousands of points are most of a page's size."""
    for group in root.iter(f'{{{SVG}}}g'):
        markers = [child for child in group if child.tag == f'{{{SVG}}}use']
        styles = {marker.get('style') for marker in markers}
        for marker in markers:
            for key in ('x', 'y'):
                marker.set(key, f'{float(marker.get(key, "0")):.2f}')
        if len(markers) > 1 and len(markers) == len(group) and len(styles) == 1:
            group.set('style', styles.pop() or '')
            for marker in markers:
                marker.attrib.pop('style', None)
                marker.tail = ''
