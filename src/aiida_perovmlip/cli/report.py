"""The verb `report`: one page that shows where a potential comes from and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_perovmlip.cli.options import profile_option


@click.command()
@click.argument('potential')
@click.option(
    '-o',
    '--output',
    type=click.Path(dir_okay=False, path_type=Path),
    help='The page; potential-PK.html in this folder if left out.',
)
@profile_option
def report(potential: str, output: Path | None, profile: str | None) -> None:
    """Write the page of POTENTIAL, given by its PK or UUID."""
    from aiida_perovmlip.installation.profile import load_profile

    name = load_profile(profile).name
    node = _load_potential(potential, name)
    from aiida_perovmlip.report.collect import write_report

    page = write_report(node, output or Path(f'potential-{node.pk}.html'))
    click.echo(page)


def _load_potential(identifier: str, profile: str) -> Any:
    from aiida.common.exceptions import MultipleObjectsError, NotExistent
    from aiida.orm import load_node

    from aiida_perovmlip.data.potential import PotentialData

    try:
        node = load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise click.ClickException(
            f'there is no one node `{identifier}` in the profile `{profile}`: {error}'
        ) from error
    if not isinstance(node, PotentialData):
        raise click.ClickException(
            f'the node `{identifier}` is of the type {type(node).__name__}, but a report is made of a potential. '
            'A training returns one as its output `potential`.'
        )
    return node
