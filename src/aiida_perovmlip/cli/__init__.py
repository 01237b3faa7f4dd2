"""The command `aiida-perovmlip`: one file for each verb, loaded when it is used."""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from aiida_perovmlip import __version__

VERBS = (
    'clean', 'compare', 'dataset', 'doctor', 'export', 'import', 'label', 'md', 'neb', 'potential', 'report', 'setup',
    'status', 'train', 'watch',
)  # fmt: skip
"""Each is a module of this package that holds a command of the same name; that of `import` ends in `_`."""

TRACEBACK = 'AIIDA_PEROVMLIP_TRACEBACK'
"""The variable that makes failures come with their traceback."""


class LazyGroup(click.Group):
    """A group that imports a verb when somebody asks for it, and says failures in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        name = 'import_' if cmd_name == 'import' else cmd_name
        command = getattr(importlib.import_module(f'{__name__}.{name}'), name)
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; what went wrong is a sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            raise failure_of(error) from error


def failure_of(error: Exception) -> click.ClickException:
    """Return what to print where a verb failed: what the user can mend, or that the program is at fault."""
    from aiida_perovmlip.installation.outcome import SetupFailure

    message = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    expected: tuple[type[Exception], ...] = (SetupFailure, ValueError, LookupError, OSError, RuntimeError)
    if not isinstance(error, expected) and not _is_of_aiida(error):
        message = (
            f'{type(error).__name__}: {message}. This is a fault of the program. Please report it with what '
            f'`{TRACEBACK}=1 aiida-perovmlip …` prints.'
        )
    failure = click.ClickException(message or type(error).__name__)
    failure.exit_code = getattr(error, 'exit_code', 1)
    return failure


def _is_of_aiida(error: Exception) -> bool:
    """Whether an error is one by which AiiDA tells that something is not as it has to be."""
    return any(each.__name__ == 'AiidaException' for each in type(error).__mro__)


@click.group(cls=LazyGroup, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='aiida-perovmlip')
@click.option('-p', '--profile', metavar='NAME', help='The AiiDA profile; the default one if left out.')
@click.pass_context
def main(ctx: click.Context, profile: str | None) -> None:
    """Machine-learned interatomic potentials for halide perovskites with AiiDA.

    A machine that was just installed needs `setup` once; `doctor` tells whether it works. What exists already is
    asked for by its PK, its UUID or its label.

    The exit code is 0 where all went well, 1 where something could not be done, and 2 where the command itself is
    wrong; further ones are told by the verbs that have them.
    """
    ctx.obj = profile or _profile_of_verdi(ctx)


def _profile_of_verdi(ctx: click.Context) -> str | None:
    """Return the profile that `verdi` was called for, where this is its `verdi data perovmlip`."""
    given = ctx.parent.obj if ctx.parent is not None else None
    profile = getattr(given, 'profile', None)
    return None if profile is None else str(profile.name)
