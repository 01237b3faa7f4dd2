"""The plug-ins that run inside a job, and so need an environment and a code."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.plugin import Plugin
from aiida_perovmlip.installation.outcome import SetupFailure


@dataclass(frozen=True)
class JobPlugin:
    """One plug-in that runs inside a job.

    :param role: `architecture`, `labeller` or `engine`.
    :param reference: `module:Class`.
    """

    name: str
    role: str
    reference: str
    requirements: tuple[str, ...]


def names() -> tuple[str, ...]:
    """Return the names of all plug-ins that may run inside a job, without loading these."""
    return tuple(sorted({name for group in registry.ROLES.values() for name in registry.names(group)}))


def find(name: str) -> tuple[JobPlugin, ...]:
    """Return the plug-ins of a name: one for each role, none where it has no environment of its own.

    Such a plug-in runs inside AiiDA, or in the environment of another one.
    """
    if name not in names():
        raise SetupFailure(f'there is no plug-in `{name}`; installed are {", ".join(names())}.')
    return tuple(
        JobPlugin(name, role, registry.reference(group, name), tuple(kind.requirements))
        for role, group in registry.ROLES.items()
        if name in registry.names(group) and issubclass(kind := _load(group, name), Plugin) and not kind.needs_potential
    )


def requirements_of(name: str) -> tuple[str, ...]:
    """Return what pip must install for a plug-in, in the order in which it asks for it."""
    return tuple(dict.fromkeys(requirement for plugin in find(name) for requirement in plugin.requirements))


def without_requirements() -> tuple[str, ...]:
    """Return the plug-ins that run with nothing but numpy and ase; one that cannot be loaded is left out."""
    found = []
    for name in names():
        with contextlib.suppress(SetupFailure):
            plugins = find(name)
            if plugins and not any(plugin.requirements for plugin in plugins):
                found.append(name)
    return tuple(found)


def _load(group: registry.Group, name: str) -> type[object]:
    try:
        kind = registry.load(group, name)
    except (ImportError, AttributeError) as error:
        raise SetupFailure(f'the plug-in `{name}` cannot be loaded: {error}.') from error
    if not isinstance(kind, type):
        raise SetupFailure(f'the plug-in `{name}` has to be a class but is {kind!r}.')
    return kind
