"""The verb `setup`: make this machine ready for the first job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, prefix_option, profile_option

if TYPE_CHECKING:
    from aiida_perovmlip.installation.environments import Torch
    from aiida_perovmlip.installation.outcome import Done


@click.command(
    epilog=examples(
        'aiida-perovmlip setup --with mace --with tblite',
        'aiida-perovmlip setup --with mace --torch gpu --dry-run',
        'aiida-perovmlip setup --template gpu > cluster.yaml',
        'aiida-perovmlip setup --computer cluster.yaml --check',
    )
)
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
@click.option(
    '--computer',
    'cluster_file',
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help='A YAML file with a cluster and its codes, which are registered; see --template.',
)
@click.option('--check', is_flag=True, help='With --computer: submit a self-test for each code, and wait for it.')
@click.option(
    '--template', type=click.Choice(['cpu', 'gpu', 'multi-gpu']), help='Print a file for --computer, and do nothing.'
)
@json_option
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
    cluster_file: Path | None,
    check: bool,
    template: str | None,
    as_json: bool,
) -> None:
    """Make environments, an AiiDA profile, the computer `localhost` and codes.

    What exists is used as it is, so the command can be repeated at any time. Without `--with` only plug-ins are set up
    that need no environment of their own.

    With `--computer` a cluster is registered instead, with its codes and what their jobs ask for, from one file.
    """
    if template is not None:
        from aiida_perovmlip.installation.cluster import template as content_of

        click.echo(content_of(template), nl=False)
        return
    if check and cluster_file is None:
        raise click.UsageError('--check needs the file of a cluster: --computer FILE.')
    if cluster_file is not None:
        _set_up_cluster(cluster_file, profile, check, dry_run, as_json)
        return
    from aiida_perovmlip.installation.machine import set_up

    steps = _told(set_up(plugins, prefix, torch, profile, environments_only, dry_run), as_json)
    if as_json:
        display.show_json(steps)


def _told(steps: Iterable[Done], as_json: bool) -> list[dict[str, Any]]:
    """Return all steps as plain values, each of which is printed as soon as it is done unless JSON is wanted."""
    found = []
    for done in steps:
        found.append({**asdict(done), 'says': done.says})
        if not as_json:
            click.echo(f'{done.kind:<12} {done.name:<22} {done.says:<18} {done.detail}'.rstrip())
    return found


def _set_up_cluster(path: Path, profile: str | None, check: bool, dry_run: bool, as_json: bool) -> None:
    """Register a cluster, and try its codes."""
    from aiida_perovmlip.cli.doctor import show_code
    from aiida_perovmlip.installation import cluster
    from aiida_perovmlip.installation.profile import load_profile
    from aiida_perovmlip.installation.trial import try_cluster

    read = cluster.read(path)
    load_profile(profile)
    steps = _told(cluster.register(read, dry_run), as_json)
    findings = []
    for finding in try_cluster(read) if check and not dry_run else ():
        findings.append(finding)
        if not as_json:
            show_code(finding)
    if as_json:
        display.show_json({'steps': steps, 'codes': list(map(asdict, findings))})
    if any(finding.is_broken for finding in findings):
        raise click.exceptions.Exit(1)
