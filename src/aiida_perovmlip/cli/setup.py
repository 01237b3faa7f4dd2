"""The verb `setup`: make this machine ready for the first job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiida_perovmlip.cli.options import prefix_option, profile_option

if TYPE_CHECKING:
    from aiida_perovmlip.installation.environments import Torch


@click.command()
@click.option(
    '--with', 'plugins', multiple=True, metavar='NAME', help='A plug-in that needs an environment; repeatable.'
)
@prefix_option
@click.option(
    '--torch',
    type=click.Choice(['cpu', 'gpu', 'as-is']),
    default='cpu',
    show_default=True,
    help='cpu: only a build for CPUs; gpu: the newest that pip has; as-is: our version in whatever build.',
)
@profile_option
@click.option('--environments-only', is_flag=True, help='Leave AiiDA alone.')
@click.option('--dry-run', is_flag=True, help='Say what would be done; change nothing.')
def setup(
    plugins: tuple[str, ...],
    prefix: Path,
    torch: Torch,
    profile: str | None,
    environments_only: bool,
    dry_run: bool,
) -> None:
    """Make environments, an AiiDA profile, the computer `localhost` and codes.

    What exists is used as it is, so the command can be repeated at any time. Without `--with` only plug-ins are set up
    that need no environment of their own.
    """
    from aiida_perovmlip.installation.machine import set_up

    for done in set_up(plugins, prefix, torch, profile, environments_only, dry_run):
        click.echo(f'{done.kind:<12} {done.name:<22} {done.says:<18} {done.detail}'.rstrip())
