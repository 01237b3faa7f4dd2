"""The verb `export`: an archive for others, with hashes of all that it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, profile_option

OPTIONAL = ('potcars', 'scratch', 'trajectories')


@click.command(
    epilog=examples(
        'aiida-perovmlip export --potential 1234 -o paper.aiida',
        'aiida-perovmlip export --potential 1234 --potential 1240 --dataset 77 -o paper.aiida --dry-run',
        'aiida-perovmlip export --potential 1234 -o all.aiida --with trajectories',
    )
)
@click.option('--potential', 'potentials', multiple=True, metavar='POTENTIAL', help='A potential; repeatable.')
@click.option('--dataset', 'datasets', multiple=True, metavar='DATASET', help='A dataset; repeatable.')
@click.option('-o', '--output', type=click.Path(dir_okay=False, path_type=Path), required=True, help='The archive.')
@click.option('--with', 'asked', multiple=True, type=click.Choice(OPTIONAL), help='What else goes in; repeatable.')
@click.option('--figures/--no-figures', default=True, show_default=True, help='Whether pages of potentials go in.')
@click.option('--overwrite', is_flag=True, help='Replace an archive of this name.')
@click.option('--dry-run', is_flag=True, help='Say what would go in; store and write nothing.')
@json_option
@profile_option
def export(
    potentials: tuple[str, ...],
    datasets: tuple[str, ...],
    output: Path,
    asked: tuple[str, ...],
    figures: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    profile: str | None,
) -> None:
    """Write potentials and datasets into an archive, with all that led to them and was measured of them.

    A potential takes the potentials along from which it was trained. POTCAR files, the addresses of folders in which
    jobs ran, and trajectories stay at home unless they are asked for. The name and the e-mail address of your AiiDA
    user go along, and so do names of computers and paths of executables.
    """
    from aiida_perovmlip.installation.profile import load_profile

    if not potentials and not datasets:
        raise click.UsageError('say what to export by --potential or --dataset.')
    if output.exists() and not overwrite and not dry_run:
        raise click.ClickException(f'{output} is there already; take another name, or pass --overwrite.')
    load_profile(profile)
    from aiida_perovmlip.archiving.contents import plan
    from aiida_perovmlip.archiving.writing import pages_of, write
    from aiida_perovmlip.query.describe import find

    named = {
        kind: [find(name, kind)['id'] for name in names]
        for kind, names in (('potential', potentials), ('dataset', datasets))
    }
    wanted = plan([*named['potential'], *named['dataset']], asked)
    if not as_json:
        click.echo(_table(wanted.parts))
    told: dict[str, Any] = {'parts': [part.__dict__ for part in wanted.parts]}
    if not dry_run:
        with display.patience(f'writing {output.name}'):
            told |= write(wanted, output, pages_of(named['potential']) if figures else None)
    if as_json:
        display.show_json(told)
    elif not dry_run:
        click.echo(f'\n{told["n_nodes"]} nodes, {display.size(told["n_bytes"])}, written to {output}')
        click.echo(f'SHA-256 of the manifest, to be published beside it: {told["manifest"]}')


def _table(parts: list[Any]) -> str:
    from aiida_perovmlip.launch import table

    rows = [(part.name, str(part.n_nodes), display.size(part.n_bytes), _fate(part)) for part in parts]
    return table(('what', 'nodes', 'files', ''), rows)


def _fate(part: Any) -> str:
    return '' if part.goes_in else f'stays at home; --with {part.name} takes it along'
