"""The command `aiida-perovmlip`: one file for each verb, loaded when it is used."""

from __future__ import annotations

import importlib
from typing import Any

import click

from aiida_perovmlip import __version__

VERBS = ('compare', 'doctor', 'report', 'setup', 'watch')
"""Each is a module of this package that holds a command of the same name."""


class LazyGroup(click.Group):
    """A group that imports a verb when somebody asks for it, and says failures that have a name in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        command = getattr(importlib.import_module(f'{__name__}.{cmd_name}'), cmd_name)
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; what the user can mend is printed without a traceback."""
        from aiida_perovmlip.installation.outcome import SetupFailure

        try:
            return super().invoke(ctx)
        except SetupFailure as failure:
            raise click.ClickException(str(failure)) from failure


@click.group(cls=LazyGroup, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='aiida-perovmlip')
@click.option('-p', '--profile', metavar='NAME', help='The AiiDA profile; the default one if left out.')
@click.pass_context
def main(ctx: click.Context, profile: str | None) -> None:
    """Machine-learned interatomic potentials for halide perovskites with AiiDA.

    A machine that was just installed needs `setup` once; `doctor` tells whether it works.
    """
    ctx.obj = profile
