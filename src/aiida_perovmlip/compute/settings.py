"""Settings of plug-ins: a frozen dataclass that checks what it is given and documents itself."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

S = TypeVar('S')


class SettingsError(ValueError):
    """A setting that cannot be used; the message says how to mend it."""


def option(
    default: Any,
    help: str,
    *,
    unit: str = '',
    choices: tuple[Any, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Return a dataclass field with what a user, a validator and the documentation need to know."""
    metadata = {'help': help, 'unit': unit, 'choices': choices, 'minimum': minimum, 'maximum': maximum}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_settings(kind: type[S], given: Mapping[str, Any]) -> S:
    """Build settings of this kind from plain values; refuse unknown names, wrong types and values out of range."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise SettingsError(f'unknown setting {", ".join(map(repr, unknown))}; known are {", ".join(sorted(fields))}.')
    hints = typing.get_type_hints(kind)
    return kind(**{name: _check(name, value, hints[name], fields[name].metadata) for name, value in given.items()})


def describe_settings(kind: type[Any]) -> list[dict[str, Any]]:
    """Return name, type, default, unit and help of each setting, for documentation."""
    hints = typing.get_type_hints(kind)
    rows = []
    for field in dataclasses.fields(kind):
        factory: Any = field.default_factory
        default = factory() if field.default is dataclasses.MISSING else field.default
        rows.append({'name': field.name, 'type': _name(hints[field.name]), 'default': default, **field.metadata})
    return rows


def are_same(one: Any, other: Any) -> bool:
    """Whether two values of a setting are the same up to rounding."""
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-15)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(are_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(are_same, one, other))
    return bool(one == other)


def _check(name: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    """Return the value as the type of the hint, or raise a sentence."""
    value = _convert(name, value, hint)
    if metadata.get('choices') and value not in metadata['choices']:
        raise SettingsError(f'`{name}` is {value!r} but has to be one of {", ".join(map(repr, metadata["choices"]))}.')
    unit = f' {metadata["unit"]}' if metadata.get('unit') else ''
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if metadata.get('minimum') is not None and not value >= metadata['minimum']:
            raise SettingsError(f'`{name}` is {value}{unit} but has to be at least {metadata["minimum"]}{unit}.')
        if metadata.get('maximum') is not None and not value <= metadata['maximum']:
            raise SettingsError(f'`{name}` is {value}{unit} but has to be at most {metadata["maximum"]}{unit}.')
    return value


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Return the value if it is of the hinted type (an integer counts as a float), or raise a sentence."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for alternative in arguments:
            try:
                return _convert(name, value, alternative)
            except SettingsError:
                continue
    elif hint is type(None):
        if value is None:
            return None
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif origin in (list, tuple) and isinstance(value, (list, tuple)):
        return origin(_convert(name, entry, arguments[0]) for entry in value)
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(f'{name}.{key}', entry, arguments[1]) for key, entry in value.items()}
    elif hint is Any or _is_instance(value, hint):
        return value
    raise SettingsError(f'`{name}` is {value!r} but has to be of type {_name(hint)}.')


def _is_instance(value: Any, hint: Any) -> bool:
    """Whether a value is of a plain type; a boolean is not an integer."""
    return isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _name(hint: Any) -> str:
    """Return a readable name of a type."""
    return 'None' if hint is type(None) else str(getattr(hint, '__name__', hint) if not typing.get_args(hint) else hint)
