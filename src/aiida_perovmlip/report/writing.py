"""Pages as files: one HTML, the works to cite beside it and, where they are wanted, each figure by itself."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from aiida_perovmlip.report.page import Drawing, Page, render
from aiida_perovmlip.report.profiles import save_figure
from aiida_perovmlip.report.readout import rows_of
from aiida_perovmlip.report.svg import stand_alone

FORMATS = ('pdf', 'svg', 'png')


def page_of(nodes: Any, created: str | None = None) -> Page:
    """Return the page of a node, or of several of one kind side by side.

    :param nodes: a potential, a dataset, a validation, a study of diffusion or a phase map, or several of one kind.
    :param created: when the page is made, in ISO 8601; now, where it is left out.
    :raises ValueError: with a sentence, where no page can be made of the nodes.
    """
    from aiida_perovmlip.report.kinds import kind_of

    known = [nodes] if hasattr(nodes, 'uuid') else list({node.pk: node for node in nodes}.values())
    if not known:
        raise ValueError('there is no node to make a page of.')
    kind = kind_of(known)
    made = created or datetime.now(UTC).isoformat(timespec='seconds')
    return kind.page(known[0], made) if len(known) == 1 else kind.comparison(known, made)


def write_report(nodes: Any, path: str | Path, folder: str | Path | None = None) -> Path:
    """Write the page of a node, or of several of one kind side by side, and return where it is.

    A BibTeX file with the works to cite lies beside it.

    :param nodes: see `page_of`.
    :param folder: where each figure goes as PDF, SVG and PNG, with its numbers as CSV; None writes none.
    """
    path = Path(path)
    page = page_of(nodes)
    path.write_text(render(page), encoding='utf-8')
    if page.citations:
        content = '\n'.join(citation.bibtex() for citation in page.citations)
        path.with_suffix('.bib').write_text(content, encoding='utf-8')
    if folder is not None:
        write_figures(page.drawings, folder)
    return path


def write_figures(drawings: Iterable[Drawing], folder: str | Path) -> list[Path]:
    """Write each figure as PDF, SVG and PNG with its numbers as CSV; a provenance graph is an SVG alone."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [file for drawing in drawings for file in _files_of(drawing, folder)]


def _files_of(drawing: Drawing, folder: Path) -> Iterator[Path]:
    if drawing.figure is None:
        file = folder / f'{drawing.name}.svg'
        file.write_text(stand_alone(drawing.svg), encoding='utf-8')
        yield file
        return
    for kind in FORMATS:
        file = folder / f'{drawing.name}.{kind}'
        save_figure(drawing.figure, file, drawing.caption, drawing.uuids)
        yield file
    file = folder / f'{drawing.name}.csv'
    with file.open('w', newline='', encoding='utf-8') as stream:
        names, rows = _numbers_of(drawing)
        writer = csv.writer(stream)
        writer.writerow(names)
        writer.writerows(rows)
    yield file


def _numbers_of(drawing: Drawing) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
    """Return names and rows of all numbers that a figure shows."""
    if drawing.columns:
        return list(drawing.columns), zip_longest(*drawing.columns.values(), fillvalue='')
    rows = list(rows_of(drawing.figure))
    names = list(rows[0]) if rows else ['panel', 'x_label', 'y_label', 'series', 'x', 'y']
    return names, [list(row.values()) for row in rows]
