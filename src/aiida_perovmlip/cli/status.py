"""The verb `status`: what runs, waits and is stuck, and how it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, profile_option

if TYPE_CHECKING:
    from aiida_perovmlip.installation.checks import Finding
    from aiida_perovmlip.operation.activity import Activity

SHOWN = 20
"""Processes that are named; the rest is counted."""


@click.command(
    epilog=examples('aiida-perovmlip status', 'aiida-perovmlip status --computers', 'aiida-perovmlip status --mend')
)
@click.option('--computers', is_flag=True, help='Connect to every computer that has jobs: reachable, and with room?')
@click.option('--mend', is_flag=True, help='Do what lets stuck processes go on, and look again.')
@json_option
@profile_option
@click.pass_context
def status(ctx: click.Context, computers: bool, mend: bool, as_json: bool, profile: str | None) -> None:
    """Tell what runs, waits, failed, is paused or lost and why, with the command that mends it.

    The exit code is 0 where all goes on by itself, and 1 where a person has to act.

    --mend starts a daemon that is not there or has lost its broker, gives lost processes their tasks back, and plays
    jobs that AiiDA has paused since their computer could not be reached, if it can be now.
    """
    from aiida_perovmlip.installation.profile import load_profile

    loaded = load_profile(profile)
    from aiida_perovmlip.operation.mending import mend as let_go_on

    found, processes = _look(loaded, computers)
    steps: list[str] = []
    if mend:
        broken = any(finding.subject in ('broker', 'daemon', 'workers') and finding.advice for finding in found)
        for step in let_go_on(loaded, processes, broken):
            steps.append(step)
            if not as_json:
                click.echo(f'mended: {step}')
        found, processes = _look(loaded, computers)
    if as_json:
        display.show_json(_plain(found, processes, steps))
    else:
        _show(found, processes)
    ctx.exit(1 if _needs_a_person(found, processes) else 0)


def _look(loaded: Any, computers: bool) -> tuple[list[Finding], list[Activity]]:
    from aiida_perovmlip.operation.activity import activities
    from aiida_perovmlip.operation.services import look_at_computers, look_at_services

    with display.patience('asking services and workers'):
        found = list(look_at_services(loaded))
        answers = not any(each.subject in ('storage', 'broker') and each.state == 'broken' for each in found)
        runs = any(each.subject == 'workers' and each.state == 'ok' for each in found)
        processes = activities(reachable=runs and answers)
        stuck = {each.computer for each in processes if each.computer and (computers or each.why)}
        found += look_at_computers(stuck)
    if processes and not runs:
        found = [_daemon_is_wanted(each, len(processes)) for each in found]
    return found, processes


def _daemon_is_wanted(finding: Finding, number: int) -> Finding:
    """Return the finding of the daemon where processes wait for it; others as they are."""
    from dataclasses import replace

    if finding.subject != 'daemon' or finding.state == 'broken':
        return finding
    return replace(
        finding,
        state='broken',
        detail=f'{finding.detail}, and {number} processes wait for it',
        advice='`aiida-perovmlip status --mend`',
    )


def _needs_a_person(found: Sequence[Finding], processes: Sequence[Activity]) -> bool:
    return any(each.state == 'broken' for each in found) or any(each.needs_a_person for each in processes)


def _plain(found: Sequence[Finding], processes: Sequence[Activity], steps: Sequence[str]) -> dict[str, Any]:
    """Return all of it as plain values."""
    from aiida_perovmlip.operation.activity import counts, recent_failures
    from aiida_perovmlip.operation.campaign import campaigns

    return {
        'needs_a_person': _needs_a_person(found, processes),
        'mended': list(steps),
        'services': [asdict(each) for each in found],
        'jobs': counts(processes),
        'processes': [asdict(each) for each in processes],
        'failed': [asdict(each) for each in recent_failures()],
        'campaigns': [asdict(each) for each in campaigns()],
    }


def _show(found: Sequence[Finding], processes: Sequence[Activity]) -> None:
    from aiida_perovmlip.operation.activity import counts, recent_failures
    from aiida_perovmlip.operation.campaign import campaigns

    for finding in found:
        click.echo(f'{finding.subject:<14} {finding.state:<8} {finding.detail}')
        if finding.advice:
            click.echo(f'{"":<14} {"→":<8} {finding.advice}')
    click.echo()
    if not processes:
        click.echo('Nothing is at work.')
    for computer, states in sorted(counts(processes).items()):
        told = ', '.join(f'{number} {state}' for state, number in sorted(states.items()))
        click.echo(f'{computer or "chains":<14} {told}')
    for campaign in campaigns():
        click.echo(f'campaign       {campaign}')
    _show_stuck([each for each in processes if each.why])
    _show_failed(list(recent_failures()))


def _show_stuck(stuck: Sequence[Activity]) -> None:
    for each in stuck[:SHOWN]:
        of = f' of {each.chain}' if each.chain != each.pk else ''
        where = f' on {each.computer}' if each.computer else ''
        click.echo(f'\n{each.process} (PK {each.pk}){of}{where} is {each.state}: {each.why}')
        if each.advice:
            click.echo(f'  → {each.advice}')
    if len(stuck) > SHOWN:
        kinds = Counter(each.state for each in stuck[SHOWN:])
        click.echo(f'\nand {", ".join(f"{number} more {state}" for state, number in kinds.items())}')


def _show_failed(failed: Sequence[Any]) -> None:
    if failed:
        click.echo('\nFailed within a day:')
    for each in failed[:SHOWN]:
        click.echo(f'  {each.number} × {each.process} [{each.exit_status}], last PK {each.last}: {each.message}')
    if failed:
        click.echo('  → `aiida-perovmlip watch PK` or `verdi process report PK` says more of one')
