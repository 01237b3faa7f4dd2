"""A pandas frame that tells by which queries it was made, and how its columns are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pprint import pformat
from textwrap import indent
from typing import Any, ClassVar

from aiida import orm
from pandas import DataFrame, Index

from aiida_perovmlip.query.filters import Record, headings

WIDTH = 100
"""Characters of a line of code, where a value does not need more."""


class Table(DataFrame):
    """A pandas frame whose `query` shows the QueryBuilder beneath: `print(table.query)`."""

    _metadata: ClassVar[list[str]] = ['asked']
    asked: tuple[Mapping[str, Any], ...] = ()
    """What each query is as plain values, as `QueryBuilder.as_dict` tells it."""

    @property
    def _constructor(self) -> type[Table]:
        return Table

    @property
    def query(self) -> Beneath:  # type: ignore[override, unused-ignore]
        """The QueryBuilder beneath as Python that runs; called with an expression, it is pandas' own `query`."""
        return Beneath(self)


class Beneath:
    """The queries beneath a table: printed they are Python code, and `builders` has them to narrow and to run."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __str__(self) -> str:
        return '\n\n'.join(code_of(builder) for builder in self.builders)

    __repr__ = __str__

    def __call__(self, expression: str, **options: Any) -> Any:
        """Return the rows for which an expression holds, as pandas does it."""
        return DataFrame.query(self._table, expression, **options)

    @property
    def builders(self) -> list[orm.QueryBuilder]:
        """The queries, made anew."""
        return [orm.QueryBuilder(**content) for content in self._table.asked]


def table_of(records: Sequence[Record], columns: Mapping[str, str], queries: Iterable[orm.QueryBuilder]) -> Table:
    """Return records as a table.

    :param columns: the unit of each column by its name, in order: `1` for pure numbers, empty for what is kept as it
        is. A unit stands in the heading; a number that is not known is NaN.
    :param queries: what was asked.
    """
    numbers = {name: float for name, unit in columns.items() if unit}
    table = Table(DataFrame(records, columns=Index(columns)).astype(numbers).rename(columns=headings(columns)))
    return with_queries(table, queries)


def with_queries(frame: DataFrame, queries: Iterable[orm.QueryBuilder]) -> Table:
    """Return a frame as a table that tells what was asked."""
    table = Table(frame)
    table.attrs = frame.attrs
    table.asked = tuple(query.as_dict() for query in queries)
    return table


def code_of(query: orm.QueryBuilder) -> str:
    """Return a query as Python code that makes it anew under the name `query`."""
    content = query.as_dict()
    lines = ['from aiida import orm, plugins', '', 'query = orm.QueryBuilder()']
    for vertex in content['path']:
        lines.append(_append(vertex, content))
    if content['order_by']:
        lines.append(f'query.order_by({content["order_by"]!r})')
    lines += [f'query.{name}({content[name]!r})' for name in ('limit', 'offset') if content[name] is not None]
    return '\n'.join([*lines, 'query.distinct()'] if content['distinct'] else lines)


def _append(vertex: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return the line that appends one kind of node."""
    tag, edge = vertex['tag'], vertex['edge_tag']
    told = {'tag': tag, 'filters': _without_type(content['filters'][tag]), 'project': _names(content['project'][tag])}
    if vertex['joining_keyword']:
        told = {vertex['joining_keyword']: vertex['joining_value'], **told}
        told |= {'edge_filters': content['filters'][edge], 'edge_project': _names(content['project'][edge])}
    words = [_class(vertex['entity_type']), *(f'{name}={_value(value)}' for name, value in told.items() if value)]
    line = f'query.append({", ".join(words)})'
    if len(line) <= WIDTH and '\n' not in line:
        return line
    return f'query.append(\n{_indented(words)})'


def _value(value: Any) -> str:
    """Return a plain value as code; a long dictionary has a line for each entry."""
    if len(repr(value)) <= WIDTH:
        return repr(value)
    if isinstance(value, Mapping):
        return f'{{\n{_indented(f"{name!r}: {_value(entry)}" for name, entry in value.items())}}}'
    return pformat(value, width=WIDTH, compact=True)


def _indented(parts: Iterable[str]) -> str:
    """Return parts of a call or dictionary on lines of their own."""
    return indent(''.join(f'{part},\n' for part in parts), '    ')


def _without_type(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return filters without that of the class, which `append` makes itself."""
    return {name: value for name, value in filters.items() if name != 'node_type'}


def _names(projections: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for projection in projections for name in projection]


def _class(entity_type: str) -> str:
    """Return how a class of nodes is written."""
    *_, name = entity_type.strip('.').split('.')
    if not name:
        return 'orm.Node'
    known = getattr(orm, name, None)
    if known is not None and known.class_node_type == entity_type:
        return f'orm.{name}'
    return f'plugins.DataFactory({entity_type.removeprefix("data.").removesuffix(f".{name}.")!r})'
