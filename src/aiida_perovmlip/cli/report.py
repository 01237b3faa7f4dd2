"""The verb `report`: one page that shows what is known of a node, or several nodes side by side."""

from __future__ import annotations

from pathlib import Path

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, profile_option


@click.command(
    epilog=examples(
        'aiida-perovmlip report 1234',
        'aiida-perovmlip report 1234 1240 1251 --output potentials.html',
        'aiida-perovmlip report 1234 --figures figures',
    )
)
@click.argument('nodes', nargs=-1, required=True)
@click.option(
    '-o',
    '--output',
    type=click.Path(dir_okay=False, path_type=Path),
    help='The page; its kind and the PK in this folder if left out, such as potential-1234.html.',
)
@click.option(
    '--figures',
    type=click.Path(file_okay=False, path_type=Path),
    help='A folder for each figure as PDF, SVG and PNG, with its numbers as CSV.',
)
@json_option
@profile_option
def report(
    nodes: tuple[str, ...], output: Path | None, figures: Path | None, as_json: bool, profile: str | None
) -> None:
    """Write the page of NODES, given by PK, UUID or label; several of one kind are shown side by side.

    There are pages of a potential, a dataset, a validation of barriers or of phases, a study of diffusion, and a phase
    map. The page is one file that needs nothing but a browser. The works to cite lie beside it as BibTeX.
    """
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.query.describe import load_any
    from aiida_perovmlip.report.kinds import has_page, kind_of
    from aiida_perovmlip.report.writing import write_report

    known = [load_any(each, has_page) for each in nodes]
    try:
        path = output or Path(f'{kind_of(known).name}-{"-".join(str(node.pk) for node in known[:4])}.html')
        with display.patience(f'writing {path.name}'):
            page = write_report(known, path, figures)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        display.show_json(
            {
                'page': str(page),
                'citations': str(page.with_suffix('.bib')) if page.with_suffix('.bib').exists() else None,
                'figures': sorted(map(str, figures.iterdir())) if figures is not None else [],
            }
        )
    else:
        click.echo(page)
