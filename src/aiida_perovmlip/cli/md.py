"""The verb `md`: molecular dynamics with a potential."""

from __future__ import annotations

from typing import Any

import click

from aiida_perovmlip.cli.options import examples
from aiida_perovmlip.cli.start import starts


@click.command(
    epilog=examples(
        'aiida-perovmlip md 1234 --start 77 --settings temperature=300 --settings steps=10000',
        'aiida-perovmlip md 1234 --start 77 --engine lammps --code lammps@cluster --submit',
    )
)
@click.argument('potential')
@click.option('--start', required=True, metavar='DATASET', help='A dataset of one frame, to begin with.')
@click.option('--engine', default='ase', show_default=True, metavar='NAME', help='What moves the atoms.')
@click.option('--code', metavar='NAME', help='The code to run with; the one with the name of the architecture.')
@click.option('--protocol', default='fast', show_default=True, metavar='NAME', help='A set of settings with a name.')
@click.option('--head', metavar='NAME', help='The head to predict with; needed where the potential has several.')
@click.option('--seed', type=int, default=0, show_default=True)
@starts('Simulating')
def md(potential: str, start: str, **inputs: Any) -> Any:
    """Run molecular dynamics with POTENTIAL, in as many jobs as it takes."""
    from aiida_perovmlip.starting import md_builder

    return md_builder(potential, start, **inputs)
