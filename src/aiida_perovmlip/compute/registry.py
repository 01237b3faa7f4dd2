"""Which plug-ins are installed: the entry points of architectures, labellers, engines and tasks."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Group = Literal['architectures', 'labellers', 'engines', 'tasks']

ROLES: dict[str, Group] = {'architecture': 'architectures', 'labeller': 'labellers', 'engine': 'engines'}
"""The roles in which a job uses a plug-in that runs inside it, and the group of entry points of each."""


class UnknownPlugin(ValueError):  # noqa: N818 - a noun says it better
    """No plug-in of this name is installed."""


def names(group: Group) -> tuple[str, ...]:
    """Return the names of all plug-ins of a group in alphabetical order."""
    return tuple(sorted(point.name for point in _points(group, tuple(sys.path))))


def reference(group: Group, name: str) -> str:
    """Return `module:Class` of a plug-in."""
    return _find(group, name).value


def load(group: Group, name: str) -> Any:
    """Return the class of a plug-in."""
    return _find(group, name).load()


@lru_cache
def _points(group: Group, where: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group.

    :param where: the folders that packages are imported from: each of all that are installed is looked at, once.
    """
    return tuple(entry_points(group=f'aiida_perovmlip.{group}'))


def _find(group: Group, name: str) -> EntryPoint:
    found = [point for point in _points(group, tuple(sys.path)) if point.name == name]
    if not found:
        kind = group[:-1]
        raise UnknownPlugin(
            f'there is no {kind} `{name}`; installed are {", ".join(names(group))}. '
            f'A package adds one by an entry point in the group `aiida_perovmlip.{group}`.'
        )
    return found[0]
