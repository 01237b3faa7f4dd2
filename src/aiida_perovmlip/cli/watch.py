"""The verb `watch`: what a job or a chain is doing, until it ends."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import click

from aiida_perovmlip.cli.options import examples, profile_option

if TYPE_CHECKING:
    from aiida_perovmlip.watching import Look

STILL_AT_WORK = 3


@click.command(epilog=examples('aiida-perovmlip watch 1234', 'aiida-perovmlip watch 1234 --once --json'))
@click.argument('process')
@click.option('--json', 'as_json', is_flag=True, help='One JSON object a line, for programs.')
@click.option('--once', is_flag=True, help='Look once, and do not wait for the end.')
@click.option('--every', type=click.FloatRange(min=0.1), metavar='SECONDS', help='Time between two looks.')
@profile_option
@click.pass_context
def watch(
    ctx: click.Context, process: str, as_json: bool, once: bool, every: float | None, profile: str | None
) -> None:
    """Show the progress of PROCESS, a job or a chain, given by its PK or UUID.

    Of a chain the jobs that run below it are shown. The exit code is 0 where the process finished well, 1 where it
    failed, and 3 where it is still at work (only with --once), also where its computer cannot be asked just now:
    then the reason is told, and the next look tries again.
    """
    from aiida_perovmlip.installation.profile import load_profile

    node = _load_process(process, load_profile(profile).name)
    from aiida_perovmlip.watching import follow

    shown, now = 0, None
    try:
        for now in follow(node.pk, every):
            shown = _show(now, as_json, shown)
            if once:
                break
    except KeyboardInterrupt:
        click.echo(f'The process {node.pk} goes on; stop it: `verdi process kill {node.pk}`.', err=True)
        ctx.exit(130)
    if now is not None and not now.is_over:
        ctx.exit(STILL_AT_WORK)
    ctx.exit(0 if now is not None and now.went_well else 1)


def _show(now: Look, as_json: bool, shown: int) -> int:
    """Print a look, on a terminal over the one before; return how many lines can be printed over."""
    if as_json:
        click.echo(json.dumps(now.to_dict()))
        return 0
    if not click.get_text_stream('stdout').isatty():
        click.echo('\n'.join(now.lines))
        return 0
    width = shutil.get_terminal_size().columns - 1
    lines = now.lines if now.is_over else [line[:width] for line in now.lines]
    click.echo((f'\033[{shown}F' if shown else '') + '\033[J' + '\n'.join(lines))
    return len(lines)


def _load_process(identifier: str, profile: str) -> Any:
    from aiida.common.exceptions import MultipleObjectsError, NotExistent
    from aiida.orm import ProcessNode, load_node

    try:
        node = load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise click.UsageError(f'there is no one node `{identifier}` in the profile `{profile}`: {error}') from error
    if not isinstance(node, ProcessNode):
        raise click.UsageError(
            f'the node `{identifier}` is of the type {type(node).__name__}, but only jobs and chains can be watched. '
            '`verdi process list -a` shows these.'
        )
    return node
