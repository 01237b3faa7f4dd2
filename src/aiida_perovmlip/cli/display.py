"""How verbs print: JSON for programs, tables with units for people, and a sign of life where it takes long."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

PATIENCE = 2.0
"""Seconds until somebody who waits is told that it goes on."""


def show_json(content: Any) -> None:
    """Print plain values as JSON."""
    click.echo(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))


def show_fields(rows: Sequence[tuple[str, Any]]) -> None:
    """Print names and values in two columns; what is not known is left out."""
    shown = [(name, str(value)) for name, value in rows if value not in (None, '', [])]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        lines = value.splitlines()
        click.echo(f'{name:<{width}}  {lines[0]}')
        for line in lines[1:]:
            click.echo(f'{"":<{width}}  {line}')


def number(value: Any, digits: int = 4) -> str:
    """Return a number with so many digits, or a dash where there is none."""
    return '–' if value is None else f'{value:.{digits}g}'


def span(values: Sequence[float] | None, unit: str) -> str:
    """Return two limits with their unit."""
    return f'{values[0] + 0.0:.6g} to {values[1] + 0.0:.6g} {unit}' if values else ''  # no negative zero


def counts(numbers: Mapping[str, int] | None) -> str:
    """Return names with how many there are of each."""
    return ', '.join(f'{name} ({count})' for name, count in (numbers or {}).items())


def levels(known: Mapping[str, Mapping[str, Any]] | None) -> str:
    """Return the level of theory of each head, a line each."""
    from aiida_perovmlip.compute.level import Level

    several = len(known or {}) > 1
    lines = [
        f'{f"{head}: " if several else ""}{Level.from_dict(level)} ({level["fingerprint"]})'
        for head, level in (known or {}).items()
    ]
    return '\n'.join(lines)


def maker(made_by: Mapping[str, Any] | None) -> str:
    """Return the process that made a node."""
    return f'{made_by["process"]} (PK {made_by["pk"]})' if made_by else 'nobody: it is a beginning'


def size(n_bytes: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in ('B', 'kB', 'MB'):
        if n_bytes < 1000:
            return f'{n_bytes:.0f} {unit}' if unit == 'B' else f'{n_bytes:.1f} {unit}'
        n_bytes /= 1000
    return f'{n_bytes:.1f} GB'


@contextmanager
def patience(what: str) -> Iterator[None]:
    """Tell on a terminal that something which gives no sign of its own still goes on, and for how long it has."""
    stream = click.get_text_stream('stderr')
    if not stream.isatty():
        yield
        return
    over, started = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(PATIENCE):
            stream.write(f'\r\033[K{what} … {time.monotonic() - started:.0f} s')
            stream.flush()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        stream.write('\r\033[K')
        stream.flush()
