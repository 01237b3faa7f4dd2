"""Plots of barriers: energies along paths with their structures, and the parity of many barriers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiida_perovmlip.report.contents import Array
from aiida_perovmlip.report.style import INK, MARKERS, MUTED, RULE, SERIES, SETTINGS, SURFACE

SHARE = 0.42
"""Radius of a drawn atom over the covalent radius: atoms do not hide each other, bonds are left to the eye."""

PALE = 0.5
"""How much of the colour of the paper an atom has that rests."""

ON_THE_BORDER = 0.5
"""Distance in Å from the border of the cell within which an atom is drawn on its other side too."""


@dataclass(frozen=True)
class Line:
    """The energy along a path as one method sees it.

    :param places: (n_images,) in Å.
    :param energies: (n_images,) in eV.
    :param curve: places in Å and energies in eV, (2, n), between the images.
    :param colour: which of the colours; lines on one path by the potential that relaxed it have the same.
    """

    label: str
    places: Array
    energies: Array
    curve: Array
    colour: int = 0
    is_reference: bool = False


@dataclass(frozen=True)
class Picture:
    """A structure of a path, drawn seen along one direction.

    :param positions: (n_atoms, 3) in Å, in the cell or beside it.
    :param cell: (3, 3) in Å; of zeros where there is none.
    :param moves: (n_atoms,), whether an atom moves on the path; the others are drawn pale.
    :param track: (n_images, n_moving, 3) in Å, where those that move are in all images.
    """

    title: str
    numbers: Array
    positions: Array
    cell: Array
    moves: Array
    track: Array


@dataclass(frozen=True)
class Barrier:
    """One barrier as a potential and the reference see it, in eV."""

    potential: str
    reference: float
    predicted: float
    name: str = ''


def draw_profiles(lines: Sequence[Line], pictures: Sequence[Picture] = ()) -> Any:
    """Return a figure of energies along a path, each line a method, with structures of the path above it."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(6.0, 5.6 if pictures else 3.6), layout='constrained')
        heights = [1.0, 0.1, 1.6] if pictures else [1.0]
        grid = figure.add_gridspec(len(heights), max(len(pictures), 1), height_ratios=heights)
        for number, picture in enumerate(pictures):
            _draw_structure(figure.add_subplot(grid[0, number]), picture)
        if pictures:
            _name_elements(figure.add_subplot(grid[1, :]), pictures[0].numbers)
        _draw_lines(figure.add_subplot(grid[-1, :]), lines)
        return figure


def _draw_lines(axes: Any, lines: Sequence[Line]) -> None:
    """Draw energies above the first end against the way, which is 1 at the last end of each path."""
    for line in lines:
        colour = INK if line.is_reference and line.colour < 0 else SERIES[line.colour % len(SERIES)]
        marker = 's' if line.is_reference else MARKERS[line.colour % len(MARKERS)]
        style = (0, (4, 1.6)) if line.is_reference else '-'
        length = float(line.places[-1]) or 1.0
        axes.plot(line.curve[0] / length, line.curve[1], linestyle=style, color=colour, linewidth=1.4, zorder=2)
        face = SURFACE if line.is_reference else colour
        axes.plot(line.places / length, line.energies, marker, mfc=face, mec=colour, mew=1.2, markersize=5.0, zorder=3)
        label = f' {line.label}, {line.energies.max():.2f} eV'
        axes.plot([], [], marker=marker, mfc=face, mec=colour, color=colour, linestyle=style, label=label)
    axes.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1)
    axes.set(xlim=(-0.02, 1.02))
    axes.set_xlabel('Way along the path')
    axes.set_ylabel('Energy above the first end (eV)')
    axes.legend(loc='best')


def _draw_structure(axes: Any, picture: Picture) -> None:
    """Draw atoms as discs, the nearest last, those that move above all others, with their tracks."""
    from ase.data import covalent_radii
    from matplotlib.patches import Circle

    view = _view(picture)
    corners = _corners(picture.cell) @ view.T
    for edge in _edges():
        axes.plot(*corners[list(edge), :2].T, color=RULE, linewidth=0.8, zorder=0)
    atoms, positions = _with_border(picture, view[2])
    points = positions @ view.T
    for order, place in enumerate(np.lexsort((points[:, 2], picture.moves[atoms]))):
        number, moves = int(picture.numbers[atoms[place]]), bool(picture.moves[atoms[place]])
        axes.add_patch(
            Circle(
                (float(points[place, 0]), float(points[place, 1])),
                SHARE * covalent_radii[number],
                facecolor=_colour(number, pale=not moves),
                edgecolor=INK if moves else MUTED,
                linewidth=0.9 if moves else 0.4,
                zorder=1 + order,
            )
        )
    for track in np.moveaxis(picture.track @ view.T, 1, 0):
        axes.plot(*track[:, :2].T, color=INK, linewidth=0.8, zorder=2 + len(points))
    axes.set_aspect('equal')
    axes.autoscale_view()
    axes.axis('off')
    axes.set_title(picture.title, fontsize=9, loc='center', fontweight='normal')


def _name_elements(axes: Any, numbers: Array) -> None:
    """Write which colour is which element."""
    from ase.data import chemical_symbols
    from matplotlib.lines import Line2D

    known = sorted(set(numbers.tolist()), reverse=True)
    marks = [Line2D([], [], marker='o', linestyle='', mfc=_colour(each), mec=MUTED, mew=0.4, ms=6.0) for each in known]
    names = [chemical_symbols[number] for number in known]
    axes.legend(marks, names, loc='center', ncols=len(names), handletextpad=0.1, borderpad=0.0)
    axes.axis('off')


def _colour(number: int, pale: bool = False) -> tuple[float, ...]:
    """Return the colour of an element, or a pale one."""
    from ase.data.colors import jmol_colors
    from matplotlib.colors import to_rgb

    share = PALE if pale else 0.0
    return tuple((1 - share) * jmol_colors[number] + share * np.array(to_rgb(SURFACE)))


def _with_border(picture: Picture, look: Array) -> tuple[Array, Array]:
    """Return the index (n,) and the position (n, 3) of each atom, those on the border on both of its sides.

    :param look: direction (3,) of the view, in which nothing is repeated: one would not see it.
    """
    atoms, positions = [np.arange(len(picture.numbers))], [picture.positions]
    lengths = np.linalg.norm(picture.cell, axis=1)
    if lengths.min() > 0:
        scaled = picture.positions @ np.linalg.inv(picture.cell)
        seen = [each for each in range(3) if abs(picture.cell[each] @ look) < 0.99 * lengths[each]]
        margin = ON_THE_BORDER / lengths
        for shift in (
            np.array(np.meshgrid(*[(-1, 0, 1) if each in seen else (0,) for each in range(3)])).reshape(3, -1).T
        ):
            there = scaled + shift
            inside = np.all(((there > -margin) & (there < 1 + margin))[:, seen], axis=1) & ~picture.moves
            if shift.any() and inside.any():
                atoms.append(np.flatnonzero(inside))
                positions.append(there[inside] @ picture.cell)
    return np.concatenate(atoms), np.concatenate(positions)


def _view(picture: Picture) -> Array:
    """Return the axes (3, 3) of the view: right, up, and the vector of the cell along which one looks.

    This is the one along which the least moves; of those along which as little does, the shortest.
    """
    lengths = np.linalg.norm(picture.cell, axis=1)
    directions = picture.cell / lengths[:, None] if lengths.min() > 0 else np.eye(3)
    steps = np.abs((picture.track - picture.track[:1]) @ directions.T).max(axis=(0, 1), initial=0.0)
    look = min(range(3), key=lambda each: (round(float(steps[each]), 0), lengths[each], -each))
    right = directions[(look + 1) % 3] - (directions[(look + 1) % 3] @ directions[look]) * directions[look]
    right /= np.linalg.norm(right)
    return np.array([right, np.cross(directions[look], right), directions[look]])


def _corners(cell: Array) -> Array:
    """Return the corners (8, 3) of a cell in Å."""
    return np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) @ cell


def _edges() -> list[tuple[int, int]]:
    """Return the pairs of corners that an edge joins: those that differ in one index."""
    return [(one, one | bit) for one in range(8) for bit in (1, 2, 4) if not one & bit]


def draw_barriers(barriers: Sequence[Barrier]) -> Any:
    """Return a figure of predicted against reference barriers, a colour and a marker for each potential."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(4.2, 4.0), layout='constrained')
        axes = figure.add_subplot()
        values = [value for each in barriers for value in (each.reference, each.predicted)]
        low, high = min([0.0, *values]), max([0.1, *values])
        margin = 0.06 * (high - low)
        limits = (low - margin, high + margin)
        axes.plot(limits, limits, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        for number, (potential, ours) in enumerate(_by_potential(barriers).items()):
            errors = np.array([each.predicted - each.reference for each in ours])
            axes.plot(
                [each.reference for each in ours],
                [each.predicted for each in ours],
                MARKERS[number % len(MARKERS)],
                color=SERIES[number % len(SERIES)],
                markersize=5.5,
                label=f' {potential}: MAE {1e3 * np.abs(errors).mean():.0f} meV, n = {len(errors)}',
            )
        axes.set(xlim=limits, ylim=limits, aspect='equal')
        axes.set_xlabel('Barrier by the reference (eV)')
        axes.set_ylabel('Barrier by the potential (eV)')
        axes.legend(loc='upper left')
        return figure


def _by_potential(barriers: Sequence[Barrier]) -> Mapping[str, list[Barrier]]:
    found: dict[str, list[Barrier]] = {}
    for barrier in barriers:
        found.setdefault(barrier.potential, []).append(barrier)
    return found


def draw_phases(reference: Mapping[str, float] | None, potentials: Mapping[str, Mapping[str, float]]) -> Any:
    """Return a figure of the energies of phases, a column for each phase and a marker for each potential.

    Phases are in the order of their energies by the reference; where it does not know one, a potential says where.

    :param reference: energies by the reference in eV per formula unit, by phase; None where there is none.
    :param potentials: the same of each potential, by its name.
    """
    import matplotlib
    from matplotlib.figure import Figure

    known: dict[str, float] = {}
    for energies in (reference or {}, *potentials.values()):
        known = {**energies, **known}
    order = sorted(known, key=known.__getitem__)
    with matplotlib.rc_context(dict(SETTINGS)):
        figure = Figure(figsize=(1.6 + 0.9 * len(order), 3.4), layout='constrained')
        axes = figure.add_subplot()
        for column, phase in enumerate(order):
            if reference is not None and phase in reference:
                axes.hlines(1e3 * reference[phase], column - 0.32, column + 0.32, color=INK, linewidth=1.8, zorder=2)
        shifts = np.linspace(-0.2, 0.2, len(potentials)) if len(potentials) > 1 else np.zeros(1)
        for number, (name, energies) in enumerate(potentials.items()):
            shown = [(column, energies[phase]) for column, phase in enumerate(order) if phase in energies]
            axes.plot(
                [column + shifts[number] for column, _ in shown],
                [1e3 * energy for _, energy in shown],
                MARKERS[number % len(MARKERS)],
                color=SERIES[number % len(SERIES)],
                markersize=6.0,
                label=f' {name}',
                zorder=3,
            )
        if reference is not None:
            axes.plot([], [], color=INK, linewidth=1.8, label=' reference')
        axes.set_xticks(range(len(order)), order)
        axes.set_xlim(-0.6, len(order) - 0.4)
        axes.set_ylabel('Energy (meV per formula unit)')
        axes.legend(loc='upper left')
        return figure


def save_figure(figure: Any, path: Any, description: str, uuids: Sequence[str] = ()) -> None:
    """Write a figure as SVG, PDF or PNG, by the end of its name, with the nodes that it shows in its metadata."""
    import matplotlib

    kind = str(path).rpartition('.')[2].lower()
    nodes = ' '.join(uuids)
    known = {
        'svg': {'Title': description, 'Source': nodes, 'Date': None, 'Creator': None},
        'pdf': {'Title': description, 'Keywords': nodes, 'CreationDate': None},
        'png': {'Title': description, 'Source': nodes, 'Software': None},
    }
    if kind not in known:
        raise ValueError(f'a figure is written as {", ".join(known)}, not as {kind!r}.')
    with matplotlib.rc_context({**SETTINGS, 'savefig.facecolor': SURFACE}):
        figure.savefig(path, metadata=known[kind], dpi=200)
