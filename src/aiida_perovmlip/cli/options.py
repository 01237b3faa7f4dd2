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


def start_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all verbs have that start a chain: settings, options of jobs, and whether and where to start it."""
    options = (
        click.option(
            '--settings',
            'settings',
            multiple=True,
            metavar='KEY=VALUE',
            help='A setting that differs from the protocol, such as `cutoff=5.5` or `l_max=[4,2,1]`; repeatable.',
        ),
        click.option(
            '--option',
            'options',
            multiple=True,
            metavar='KEY=VALUE',
            help='An option of every job, such as `max_wallclock_seconds=3600`, `queue_name=gpu` or '
            '`resources={"num_machines": 1}`; repeatable.',
        ),
        click.option(
            '--label', 'name', default='', help='What to call the chain and, if it is run here, what it makes.'
        ),
        click.option('--dry-run', is_flag=True, help='Say what would be done; store and start nothing.'),
        click.option('--submit', is_flag=True, help='Leave it to the daemon, and return at once.'),
    )
    for option in reversed(options):
        function = option(function)
    return function
