"""The input file of CP2K as nested sections, as far as it can be read without CP2K."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Sections = dict[str, Any]


def read_input(lines: Iterable[str]) -> Sections | None:
    """Return sections and keywords with upper-case names; None where the preprocessor decides what they are.

    A section has `_` for its parameter; what is repeated is a list; values are text.
    """
    whole: Sections = {}
    stack: list[Sections] = [whole]
    for line in lines:
        text = _without_comment(line)
        if text.startswith('@') or '${' in text:
            return None
        if text.upper().startswith('&END'):
            stack.pop()
        elif text.startswith('&'):
            name, _, parameter = text[1:].partition(' ')
            section: Sections = {'_': parameter.strip()}
            _add(stack[-1], name.upper(), section)
            stack.append(section)
        elif text and _is_coordinates(stack):
            _add(stack[-1], 'ATOM', text)
        elif text:
            name, _, value = text.partition(' ')
            _add(stack[-1], name, value.strip())
        if not stack:
            return None
    return whole if len(stack) == 1 else None


def _without_comment(line: str) -> str:
    for mark in ('!', '#'):
        line = line.partition(mark)[0]
    return ' '.join(line.split())


def _is_coordinates(stack: list[Sections]) -> bool:
    """Whether the innermost section is a list of atoms."""
    return len(stack) > 1 and stack[-2].get('COORD') is stack[-1]


def _add(section: Sections, name: str, value: Any) -> None:
    """Add an entry; a second one of the same name makes a list."""
    name = name.upper()
    if name in section:
        known = section[name]
        section[name] = [*known, value] if isinstance(known, list) else [known, value]
    else:
        section[name] = value


def lookup(sections: Sections | None, path: str) -> Any:
    """Return what stands at a path such as `FORCE_EVAL/DFT/CHARGE`; None where there is nothing."""
    found: Any = sections
    for name in path.split('/'):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def every(value: Any) -> list[Any]:
    """Return a list of none, one or several entries."""
    return [] if value is None else value if isinstance(value, list) else [value]
