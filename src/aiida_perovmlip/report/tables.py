"""Metrics, settings and nodes as rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aiida_perovmlip.report.contents import DatasetCard, NodeMark
from aiida_perovmlip.report.quantities import MISSING, milli_of, shorten, to_number, write_count, write_number

QUANTITIES = {'energy_per_atom': 'Energy', 'forces': 'Forces', 'stress': 'Stress'}
UNITS = {'energy_per_atom': 'eV/atom', 'forces': 'eV/Å', 'stress': 'eV/Å³'}


@dataclass(frozen=True)
class Column:
    """The head of a column; `unit` belongs to all of its numbers."""

    title: str
    unit: str = ''
    is_number: bool = True


@dataclass(frozen=True)
class Cell:
    """One entry.

    :param key: what the column is sorted by; the text where this is None.
    :param share: length of a bar behind the number, between 0 and 1; None for no bar.
    :param is_code: whether it is an identifier rather than prose.
    """

    text: str
    key: float | None = None
    share: float | None = None
    is_code: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a caption; `is_sortable` where its order says nothing."""

    template: ClassVar[str] = 'table'

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    is_sortable: bool = True


@dataclass(frozen=True)
class Field:
    """How an entry of a record becomes a cell: its name, the head of its column, and what its number is times."""

    name: str
    title: str
    unit: str = ''
    factor: float = 1.0
    is_number: bool = True

    def cell(self, record: Mapping[str, Any]) -> Cell:
        """Return the cell of a record; a dash where it has no such entry."""
        value = record.get(self.name)
        if not self.is_number:
            return Cell(shorten(MISSING if value in (None, '') else str(value), 200), is_code=self.name == 'uuid')
        if isinstance(value, int) and not isinstance(value, bool) and self.factor == 1.0:
            return Cell(write_count(value) if self.name != 'pk' else str(value), float(value))
        number = to_number(value)
        return Cell(write_number(None if number is None else number * self.factor), number)


def tabulate(name: str, caption: str, fields: Sequence[Field], records: Iterable[Mapping[str, Any]]) -> Table:
    """Return a row for each record."""
    columns = tuple(Column(field.title, field.unit, field.is_number) for field in fields)
    return Table(name, caption, columns, tuple(tuple(field.cell(record) for field in fields) for record in records))


def count_cell(value: Any, share: float | None = None) -> Cell:
    """Return a cell with a whole number."""
    return Cell(write_count(value), to_number(value), share)


def error_cell(block: Mapping[str, Any], name: str, share: float | None = None) -> Cell:
    """Return a cell with an error in thousandths of the unit of its block."""
    if block.get('n_not_finite'):
        return Cell('not finite')
    number = to_number(block.get(name))
    factor, _ = milli_of(str(block.get('unit', '')))
    return Cell(write_number(None if number is None else number * factor), number, share)


def tabulate_errors(metrics: Mapping[str, Any], name: str) -> Table:
    """Return the overall errors, a row a quantity."""
    rows = []
    for key, title in QUANTITIES.items():
        block = metrics.get(key)
        if isinstance(block, Mapping) and block.get('n'):
            errors = (error_cell(block, error) for error in ('mae', 'rmse', 'bias', 'largest'))
            r2 = to_number(block.get('r2'))
            unit = Cell(milli_of(str(block.get('unit', UNITS[key])))[1])
            fit = Cell('–' if r2 is None else f'{r2:.5f}', r2)
            rows.append((Cell(title), count_cell(block['n']), *errors, unit, fit))
    columns = tuple(Column(title) for title in ('Values', 'MAE', 'RMSE', 'Bias', 'Largest'))
    head = (Column('Quantity', is_number=False), *columns, Column('Unit', is_number=False), Column('R²'))
    return Table(name, 'Errors of all values; error means predicted minus reference', head, tuple(rows), False)


def tabulate_elements(metrics: Mapping[str, Any], name: str) -> Table:
    """Return the errors of force components, a row an element."""
    blocks = {symbol: entry.get('forces', {}) for symbol, entry in (metrics.get('per_element') or {}).items()}
    shares = _shares(blocks)
    rows = tuple(
        (
            Cell(symbol),
            count_cell(block.get('n')),
            error_cell(block, 'mae'),
            error_cell(block, 'rmse', shares[symbol]),
            error_cell(block, 'bias'),
            error_cell(block, 'largest'),
        )
        for symbol, block in blocks.items()
    )
    unit = milli_of(UNITS['forces'])[1]
    errors = tuple(Column(title, unit) for title in ('MAE', 'RMSE', 'Bias', 'Largest'))
    return Table(name, 'Force errors by element', (Column('Element', is_number=False), Column('Values'), *errors), rows)


def tabulate_groups(metrics: Mapping[str, Any], dataset: DatasetCard, name: str) -> Table:
    """Return the errors of all quantities, a row a structure family."""
    groups = metrics.get('per_group') or {}
    present = [key for key in QUANTITIES if any(entry.get(key, {}).get('n') for entry in groups.values())]
    shares = {key: _shares({group: entry.get(key, {}) for group, entry in groups.items()}) for key in present}
    # In metrics a dot in the name of a group is an underscore.
    frames = {group.replace('.', '_'): count for group, count in dataset.groups.items()}
    rows = []
    for group, entry in groups.items():
        cells = [Cell(str(group)), count_cell(frames.get(group))]
        for key in present:
            block = entry.get(key, {})
            cells += [error_cell(block, 'mae'), error_cell(block, 'rmse', shares[key][group])]
        rows.append(tuple(cells))
    head = [Column('Structure family', is_number=False), Column('Frames')]
    for key in present:
        unit = milli_of(UNITS[key])[1]
        head += [Column(f'{QUANTITIES[key]} MAE', unit), Column(f'{QUANTITIES[key]} RMSE', unit)]
    return Table(name, 'Errors by structure family', tuple(head), tuple(rows))


def _shares(blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the RMSE of each block as a share of the largest."""
    errors = {name: to_number(block.get('rmse')) for name, block in blocks.items()}
    largest = max((error for error in errors.values() if error is not None), default=0.0)
    return {name: error / largest if error is not None and largest > 0 else None for name, error in errors.items()}


def tabulate_composition(dataset: DatasetCard, name: str) -> Table:
    """Return the number of frames, a row a structure family."""
    total, largest = sum(dataset.groups.values()), max(dataset.groups.values(), default=1)
    rows = tuple(
        (Cell(group), count_cell(count), Cell(f'{100 * count / total:.1f}', count / total, count / largest))
        for group, count in sorted(dataset.groups.items(), key=lambda entry: (-entry[1], entry[0]))
    )
    columns = (Column('Structure family', is_number=False), Column('Frames'), Column('Share', '%'))
    return Table(name, 'Frames by structure family', columns, rows)


def tabulate_settings(settings: Mapping[str, Any], name: str) -> Table:
    """Return nested settings as flat rows."""
    rows = tuple((Cell(key, is_code=True), Cell(value, is_code=True)) for key, value in flatten(settings))
    columns = (Column('Setting', is_number=False), Column('Value', is_number=False))
    return Table(name, 'Settings that the trainer really used', columns, rows)


def flatten(content: Mapping[str, Any], prefix: str = '') -> Iterable[tuple[str, str]]:
    """Yield each entry of nested dictionaries as a dotted name and text."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', shorten('–' if value is None else str(value), 400)


def tabulate_versions(versions: Mapping[str, str], name: str) -> Table:
    """Return the version of each package."""
    rows = tuple((Cell(package), Cell(version, is_code=True)) for package, version in sorted(versions.items()))
    columns = (Column('Package', is_number=False), Column('Version', is_number=False))
    return Table(name, 'Software that took part', columns, rows)


def tabulate_nodes(marks: Iterable[NodeMark], name: str) -> Table:
    """Return the nodes of a lineage with their identifiers."""
    rows = tuple(
        (
            Cell(str(mark.pk), float(mark.pk)),
            Cell(mark.type_name),
            Cell(shorten(mark.label, 80)),
            Cell(mark.state),
            Cell(shorten(mark.detail, 200)),
            Cell(mark.uuid, is_code=True),
        )
        for mark in sorted(marks, key=lambda mark: mark.pk)
    )
    titles = ('Node', 'Label', 'State', 'Facts', 'UUID')
    columns = (Column('PK'), *(Column(title, is_number=False) for title in titles))
    return Table(name, 'All nodes of the graph above', columns, rows)


def describe_level(level: Mapping[str, Any] | None) -> str:
    """Return a level of theory in one line."""
    if not level:
        return 'unknown'
    keys = ('labeller', 'functional', 'dispersion', 'cutoff', 'basis', 'kpoints', 'charge', 'spin')
    return ' / '.join(str(level[key]) for key in keys if level.get(key)) or 'unknown'
