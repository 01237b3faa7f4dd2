"""What all chains of trainings share: protocols, the divergence monitor, and how a chain is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict

from aiida_perovmlip.compute import registry

MONITOR = {'entry_point': 'perovmlip.divergence', 'minimum_poll_interval': 30}
"""The monitor of every training; its poll interval is in seconds."""


def settings_of_protocol(
    architecture: str, protocol: str, settings: Mapping[str, Any] | None = None, has_parent: bool = False
) -> dict[str, Any]:
    """Return the settings of a protocol with what differs from it; a protocol that is not there is refused.

    :param has_parent: whether there is a parent: what a protocol says of new potentials alone is left out then.
    """
    kind = registry.load('architectures', architecture)
    if protocol not in kind.protocols:
        raise ValueError(f'{architecture} has no protocol `{protocol}`; there are {", ".join(kind.protocols)}.')
    _, known = kind.protocols[protocol]
    left = {*kind.shape, *kind.for_new} if has_parent else set()
    known = {name: value for name, value in known.items() if name not in left}
    return {**known, **(settings or {})}


def monitors_of(monitor: bool | Mapping[str, Any]) -> dict[str, orm.Dict]:
    """Return the divergence monitor as an input; a mapping changes it: `{'minimum_poll_interval': 300}`."""
    if monitor is False:
        return {}
    return {'divergence': orm.Dict({**MONITOR, **(monitor if isinstance(monitor, Mapping) else {})})}


def fill(builder: Any, inputs: Mapping[str, Any]) -> Any:
    """Set the inputs that were given, and leave the others out."""
    for name, value in inputs.items():
        if value is not None:
            setattr(builder, name, value)
    return builder


def given(inputs: Mapping[str, Any], *names: str) -> AttributeDict:
    """Return those of the named inputs that there are."""
    return AttributeDict({name: inputs[name] for name in names if name in inputs})


def how_it_ended(node: Any) -> str:
    """Return how a process ended, in one line that names it."""
    name = f'{node.process_label} (PK {node.pk})'
    if node.is_excepted:
        return f'{name} excepted: {" ".join((node.exception or "no reason was given.").split())}'
    if node.is_killed:
        return f'{name} was killed.'
    return f'{name} ended with exit code {node.exit_status}: {node.exit_message or "all went well."}'


def unknown_options(options: Mapping[str, Any], process: Any) -> str | None:
    """Return a sentence where jobs have no such options."""
    unknown = sorted(set(options) - set(process.spec().inputs['metadata']['options']))
    return f'jobs have no option {", ".join(map(repr, unknown))}.' if unknown else None


def problem_of_legs(inputs: Mapping[str, Any], process: Any) -> str | None:
    """Return a sentence where a chain of jobs of one kind would start what no job can do; the job looks at the rest."""
    if inputs['max_iterations'].value < 1:
        return f'`max_iterations` is {inputs["max_iterations"].value} but has to be at least 1.'
    unknown = unknown_options(inputs['options'].get_dict(), process)
    if unknown:
        return unknown
    validate = process.spec().inputs.validator
    return validate(inputs, None) if validate is not None else None
