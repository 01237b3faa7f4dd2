"""The verb `import`: an archive of somebody else, once it is what its manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, profile_option


@click.command(
    'import',
    epilog=examples(
        'aiida-perovmlip import paper.aiida',
        'aiida-perovmlip import paper.aiida --manifest 5f9c…',
        'aiida-perovmlip import paper.aiida --check',
    ),
)
@click.argument('archive', type=click.Path(path_type=Path))
@click.option('--manifest', metavar='HASH', help='The SHA-256 of the manifest that its author has published.')
@click.option('--check', is_flag=True, help='Compare it with its manifest; import nothing.')
@click.option('--unverified', is_flag=True, help='Import it although it differs, or has no manifest.')
@json_option
@profile_option
@click.pass_context
def import_(
    ctx: click.Context,
    archive: Path,
    manifest: str | None,
    check: bool,
    unverified: bool,
    as_json: bool,
    profile: str | None,
) -> None:
    """Verify ARCHIVE by the hashes in it, and import it into the profile.

    Each node and each byte of each file is compared. Where something differs, nothing is imported, it is said what
    differs, and the exit code is 4. The hashes lie in the archive itself: they find damage. Against whoever would
    change both, compare that of the manifest with the one that was published.
    """
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.archiving.reading import read, refuse_different, verify

    told: dict[str, Any]
    with display.patience(f'checking {archive.name}'):
        if check:
            findings = verify(archive)
            refuse_different(archive, findings, manifest)
            told = {'archive': str(archive), 'manifest': findings.manifest, 'n_nodes': findings.n_nodes}
        else:
            told = read(archive, manifest, unverified)
    if as_json:
        display.show_json(told)
        return
    click.echo(f'{archive}: {told["n_nodes"]} nodes; SHA-256 of the manifest: {told["manifest"] or "there is none"}')
    for problem in told.get('problems', ()):
        click.echo(f'differs: {problem}')
    if not check:
        click.echo(f'{told["n_new"]} of them are new in this profile.')
    for node in told.get('differs_here', ()):
        click.echo(f'differs: this profile has {node} with another content, and keeps its own.')
    if told.get('differs_here'):
        ctx.exit(4)
