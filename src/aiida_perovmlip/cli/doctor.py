"""The verb `doctor`: find what is broken, and say how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, prefix_option, profile_option

if TYPE_CHECKING:
    from aiida_perovmlip.installation.checks import CodeFinding, Finding


@click.command(epilog=examples('aiida-perovmlip doctor', 'aiida-perovmlip doctor --code mace@cluster'))
@click.option('--code', metavar='NAME[@COMPUTER]', help='Test this code alone.')
@prefix_option
@json_option
@profile_option
@click.pass_context
def doctor(ctx: click.Context, code: str | None, prefix: Path, as_json: bool, profile: str | None) -> None:
    """Look at AiiDA and the environments, and run the self-test of every code on its computer.

    The self-test runs where a job would be submitted, not inside the queue; on a cluster this is the login node. The
    exit code is 1 if anything is broken.
    """
    from aiida_perovmlip.installation.checks import check_codes, check_prefix, check_profile

    findings, codes = [], []
    for finding in chain(check_prefix(prefix), check_profile(profile)):
        findings.append(finding)
        if not as_json:
            _show(finding)
    broken = any(finding.state == 'broken' for finding in findings)
    if not broken:
        for tested in check_codes(code):
            codes.append(tested)
            broken |= tested.is_broken
            if not as_json:
                show_code(tested)
    if as_json:
        display.show_json({'findings': list(map(asdict, findings)), 'codes': list(map(asdict, codes))})
    ctx.exit(1 if broken else 0)


def _show(finding: Finding) -> None:
    click.echo(f'{finding.subject:<22} {finding.state:<16} {finding.detail}')
    if finding.advice:
        click.echo(f'{"":<22} {"→":<16} {finding.advice}')


def show_code(finding: CodeFinding) -> None:
    """Print what the self-test of a code found."""
    versions = ', '.join(f'{name} {version}' for name, version in sorted(finding.versions.items()))
    facts = [versions, finding.device, f'{finding.seconds:.1f} s']
    click.echo(f'{finding.code:<22} {finding.status:<16} {" · ".join(fact for fact in facts if fact)}')
    for mark, line in (('', finding.message), ('→', finding.advice)):
        if line:
            click.echo(f'{"":<22} {mark:<16} {line}')
