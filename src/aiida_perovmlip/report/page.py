"""A page as a tree of plain values, and the single HTML file that it becomes, which needs nothing but a browser."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, ClassVar

from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.report.quantities import write_count
from aiida_perovmlip.report.readout import Readout, readout_of
from aiida_perovmlip.report.style import DARK, LIGHT, SETTINGS, css_variables
from aiida_perovmlip.report.svg import write_svg

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Tile:
    """A number that a reader looks for first."""

    title: str
    value: str
    unit: str = ''


@dataclass(frozen=True)
class Text:
    """A paragraph.

    :param tone: `muted` for what explains, `note` for what limits the meaning of what follows; empty for the rest.
    """

    template: ClassVar[str] = 'text'

    text: str
    tone: str = ''


@dataclass(frozen=True)
class Fact:
    """A name and what it stands for; `code` follows it as an identifier."""

    title: str
    text: str = ''
    code: str = ''
    is_wide: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and values side by side."""

    template: ClassVar[str] = 'facts'

    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Identity:
    """A node that can be asked for: what it is, its UUID and its PK."""

    template: ClassVar[str] = 'identity'

    title: str
    uuid: str
    pk: int = 0
    aside: str = ''


@dataclass(frozen=True)
class Folded:
    """Parts that a reader opens."""

    template: ClassVar[str] = 'folded'

    title: str
    parts: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Drawing:
    """An SVG with its caption and the nodes that it shows.

    :param readout: what the pointer finds in it, and the numbers that are saved with it.
    :param columns: all numbers that it shows, where it draws only some of them.
    :param figure: the matplotlib figure; None where it was drawn otherwise.
    :param has_graph: whether it is a provenance graph, which scrolls.
    """

    template: ClassVar[str] = 'drawing'

    name: str
    svg: str
    caption: str
    uuids: tuple[str, ...]
    readout: Readout = ()
    columns: Columns = field(default_factory=dict)
    figure: Any = None
    has_graph: bool = False

    @classmethod
    def of(
        cls, name: str, figure: Any, caption: str, uuids: Iterable[str] = (), columns: Columns | None = None
    ) -> Drawing:
        """Return a matplotlib figure as a part of a page; its caption is what a reader who cannot see it is told."""
        import matplotlib

        nodes = tuple(dict.fromkeys(uuid for uuid in uuids if uuid))
        with matplotlib.rc_context(dict(SETTINGS)):
            readout = readout_of(figure)
        svg = write_svg(figure, f'plot-{name}', caption, nodes)
        return cls(name, svg, caption, nodes, readout, columns or {}, figure)

    @property
    def pointer(self) -> str:
        """What the script of the page reads, as JSON that cannot end the element it is in."""
        return json.dumps(self.readout, ensure_ascii=True, separators=(',', ':')).replace('<', '\\u003c')


@dataclass(frozen=True)
class Structure:
    """Atoms to be turned by hand.

    :param numbers: atomic numbers (n_atoms,).
    :param positions: (n_atoms, 3) in Å.
    :param cell: (3, 3) in Å; of zeros where there is none.
    """

    title: str
    numbers: Any
    positions: Any
    cell: Any


@dataclass(frozen=True, eq=False)
class Viewer:
    """Structures that are shown one at a time, to be turned and compared."""

    template: ClassVar[str] = 'viewer'

    name: str
    caption: str
    structures: tuple[Structure, ...]

    @property
    def scene(self) -> str:
        """What the script of the page draws, as JSON that cannot end the element it is in."""
        from ase.data import chemical_symbols, covalent_radii
        from ase.data.colors import jmol_colors

        known = sorted({int(number) for each in self.structures for number in each.numbers})
        elements = {
            number: [
                chemical_symbols[number],
                f'#{"".join(f"{round(255 * float(part)):02x}" for part in jmol_colors[number])}',
                round(float(covalent_radii[number]), 2),
            ]
            for number in known
        }
        frames = [
            {
                'title': each.title,
                'numbers': [int(number) for number in each.numbers],
                'positions': [[round(float(part), 3) for part in row] for row in each.positions],
                'cell': [[round(float(part), 3) for part in row] for row in each.cell],
            }
            for each in self.structures
        ]
        scene = {'elements': elements, 'frames': frames}
        return json.dumps(scene, ensure_ascii=True, separators=(',', ':')).replace('<', '\\u003c')


@dataclass(frozen=True)
class Row:
    """Parts beside each other where there is room: drawings of one size, or tables."""

    template: ClassVar[str] = 'row'

    parts: tuple[Any, ...]
    layout: str = 'plots'


@dataclass(frozen=True)
class Article:
    """A part of a section with a head of its own.

    :param aside: what stands behind the head in small letters.
    :param badge: a word that must not be overlooked.
    """

    template: ClassVar[str] = 'article'

    name: str
    title: str
    parts: tuple[Any, ...]
    aside: str = ''
    badge: str = ''
    is_warning: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page that the contents at its side lead to."""

    name: str
    title: str
    parts: tuple[Any, ...]

    @property
    def articles(self) -> tuple[Article, ...]:
        """Those of its parts that have a head of their own, also where they stand beside each other."""
        return tuple(part for part in walk(self.parts, within=(Row,)) if isinstance(part, Article))


@dataclass(frozen=True)
class Page:
    """All that a page shows.

    :param kind: what the page is about, such as `potential`.
    :param lead: one sentence that tells a reader what this is.
    :param created: when the page was made, in ISO 8601.
    :param nodes: the nodes that the page is about.
    :param citations: the works that whoever publishes this has to cite.
    """

    kind: str
    title: str
    lead: str
    created: str
    nodes: tuple[Identity, ...]
    sections: tuple[Section, ...]
    tiles: tuple[Tile, ...] = ()
    aside: str = ''
    citations: tuple[Citation, ...] = ()

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """All drawings, in the order of the page."""
        parts = (part for section in self.sections for part in walk(section.parts))
        return tuple(part for part in parts if isinstance(part, Drawing))


def walk(parts: Iterable[Any], within: tuple[type[Any], ...] = (Row, Article, Folded)) -> Iterator[Any]:
    """Yield parts and the parts that are in them."""
    for part in parts:
        yield part
        if isinstance(part, within):
            yield from walk(part.parts, within)


def render(page: Page) -> str:
    """Return a page as HTML; equal pages give equal bytes."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('aiida_perovmlip.report', 'templates'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {'count': write_count, 'as_markup': Markup}
    folder = resources.files('aiida_perovmlip.report') / 'templates'
    style, *scripts = (
        Markup((folder / name).read_text(encoding='utf-8')) for name in ('page.css', 'page.js', 'plots.js', 'viewer.js')
    )
    return environment.get_template('page.html.j2').render(
        page=page,
        style=style,
        script=Markup('\n').join(scripts),
        light=Markup(css_variables(LIGHT)),
        dark=Markup(css_variables(DARK)),
    )
