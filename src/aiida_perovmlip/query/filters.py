"""What all questions have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

Record = dict[str, Any]
"""A row of an answer as plain values, by the name of the column."""

UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
"""PostgreSQL refuses to compare a UUID with any other text."""

BATCH = 5000
"""A database takes only so many values in one question."""


def among(nodes: Iterable[Any] | None) -> dict[str, Any]:
    """Return a filter for nodes, PKs and UUIDs; None is all."""
    if nodes is None:
        return {}
    identifiers = [getattr(node, 'pk', node) for node in nodes]
    pks = [entry for entry in identifiers if isinstance(entry, int)]
    uuids = [entry for entry in identifiers if isinstance(entry, str) and UUID.fullmatch(entry)]
    ways = [{name: {'in': values}} for name, values in (('id', pks), ('uuid', uuids)) if values]
    if not ways:
        return {'id': -1}  # nothing
    return ways[0] if len(ways) == 1 else {'or': ways}


def listed(nodes: Iterable[Any] | None) -> list[Any] | None:
    """Return nodes that are asked for more than once; None is all."""
    return None if nodes is None else list(nodes)


def batches(values: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield values a few at a time."""
    for start in range(0, len(values), BATCH):
        yield list(values[start : start + BATCH])


def time_of(moment: Any) -> str | None:
    """Return a moment as text of one second's precision."""
    return moment.isoformat(timespec='seconds') if moment else None


def levels_in_words(levels: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the level of theory of each head in words."""
    return {head: level_in_words(level) for head, level in (levels or {}).items()}


def level_in_words(level: Mapping[str, Any]) -> str:
    """Return a level of theory in words; a profile has thousands of nodes, but few levels."""
    return _words_of(json.dumps(level, sort_keys=True))


@cache
def _words_of(level: str) -> str:
    from aiida_perovmlip.compute.level import Level

    return str(Level.from_dict(json.loads(level)))


def headings(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the names of columns with their units, by their names in records."""
    return {name: name if unit in ('', '1') else f'{name} [{unit}]' for name, unit in columns.items()}
