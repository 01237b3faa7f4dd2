"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def examples(*lines: str) -> str:
    """Return commands as the end of a help text, as they are and not in a paragraph."""
    return '\b\nExamples:\n' + '\n'.join(f'  {line}' for line in lines)


def profile_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--profile`, which may stand before the verb or after it."""
    return click.option(
        '-p',
        '--profile',
        metavar='NAME',
        callback=lambda ctx, _, value: value or ctx.obj,
        help='The AiiDA profile; the default one if left out.',
    )(function)


def prefix_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--prefix`."""
    return click.option(
        '--prefix',
        type=click.Path(file_okay=False, path_type=Path),
        callback=lambda _ctx, _, value: _prefix(value),
        help='Folder that holds the environments; else AIIDA_PEROVMLIP_PREFIX, else ~/.local/share/aiida-perovmlip.',
    )(function)


def _prefix(named: Path | None) -> Path:
    from aiida_perovmlip.installation.environments import default_prefix

    return default_prefix() if named is None else named.expanduser().absolute()


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option('--json', 'as_json', is_flag=True, help='Print JSON, in eV and Å, for programs.')(function)


def level_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--level`."""
    return click.option(
        '--level',
        'level',
        multiple=True,
        metavar='KEY=VALUE',
        help='The level of theory of the labels, such as `labeller=vasp`, `functional=PBE`, `cutoff=520 eV`; '
        'repeatable. Or once the name of a JSON file.',
    )(function)
