"""The verb `clean`: scratch folders that nothing needs any more go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, profile_option

if TYPE_CHECKING:
    from aiida_perovmlip.operation.cleaning import Scratch


@click.command(
    epilog=examples(
        'aiida-perovmlip clean --dry-run',
        'aiida-perovmlip clean --computer cluster --older-than 7',
        'aiida-perovmlip clean --group campaign/doping --failed --yes',
    )
)
@click.option('--computer', metavar='NAME', help='Clean this computer alone.')
@click.option('--group', metavar='LABEL', help='Clean after the processes of this group alone.')
@click.option('--older-than', 'days', type=click.FloatRange(min=0), default=1.0, show_default=True, metavar='DAYS')
@click.option('--failed', is_flag=True, help='Those of failed jobs too, from which another run could go on.')
@click.option('--dry-run', is_flag=True, help='Say what would go; remove nothing.')
@click.option('--yes', is_flag=True, help='Do not ask.')
@json_option
@profile_option
@click.pass_context
def clean(
    ctx: click.Context,
    computer: str | None,
    group: str | None,
    days: float,
    failed: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    profile: str | None,
) -> None:
    """Remove the folders in which jobs ran, once nothing needs them any more.

    What AiiDA has stored stays. A folder stays too if its job or the chain of its job has not ended, if a process goes
    on from it, if a trajectory lies in it, if its result may not have been read, and, without --failed, if its job
    failed. The exit code is 1 where a computer could not be reached.
    """
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.operation.cleaning import scratch

    found = scratch(computer, days, failed, group)
    told: dict[str, Any] = {'kept': dict(Counter(each.kept for each in found if each.kept)), 'computers': []}
    for label in sorted({each.computer for each in found}):
        mine = [each for each in found if each.computer == label and not each.kept]
        told['computers'].append(_clean_one(label, mine, dry_run, yes or as_json, as_json))
    if as_json:
        display.show_json(told)
    else:
        _show_kept(found)
    ctx.exit(1 if any(each['error'] for each in told['computers']) else 0)


def _clean_one(label: str, found: Sequence[Scratch], dry_run: bool, sure: bool, quiet: bool) -> dict[str, Any]:
    """Clean one computer; return what went."""
    from aiida import orm

    from aiida_perovmlip.operation.cleaning import measured, remove

    told: dict[str, Any] = {'computer': label, 'n_folders': 0, 'n_bytes': 0, 'removed': [], 'error': ''}
    if not found:
        return told
    try:
        with orm.load_computer(label).get_transport() as transport:
            with display.patience(f'measuring {len(found)} folders of {label}'):
                sized = list(measured(found, transport))
            told |= {'n_folders': len(sized), 'n_bytes': sum(each.n_bytes or 0 for each in sized)}
            question = f'{label}: {len(sized)} folders, {display.size(told["n_bytes"])}'
            if not quiet:
                click.echo(question)
            if not dry_run and (sure or click.confirm('Remove them?', default=False)):
                with display.patience(f'removing {len(sized)} folders of {label}'):
                    told['removed'] = [asdict(each) for each in remove(sized, transport)]
                if not quiet:
                    click.echo(f'{label}: {len(told["removed"])} removed')
    except click.Abort:
        raise
    except Exception as error:  # transports raise whatever their library raises
        told['error'] = ' '.join(str(error).split()) or type(error).__name__
        click.echo(f'{label} cannot be cleaned: {told["error"]}; see `verdi computer test {label}`.', err=True)
    return told


def _show_kept(found: Sequence[Scratch]) -> None:
    for why, number in Counter(each.kept for each in found if each.kept).most_common(10):
        click.echo(f'{number} stay: {why}')
    if not found:
        click.echo('There is nothing to clean.')
