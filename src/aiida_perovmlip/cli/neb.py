"""The verb `neb`: barriers of potentials on a path, beside those of a reference."""

from __future__ import annotations

from typing import Any

import click

from aiida_perovmlip.cli.options import examples
from aiida_perovmlip.cli.start import starts


@click.command(
    epilog=examples(
        'aiida-perovmlip neb 1234 --path 1300 --settings fmax=0.05',
        'aiida-perovmlip neb old=900 new=1234 --path 1300 --reference cp2k --protocol fast',
    )
)
@click.argument('potentials', nargs=-1, required=True, metavar='POTENTIAL...')
@click.option('--path', metavar='DATASET', help='The first path: its ends and the images between these.')
@click.option('--recipe', metavar='FILE', help='Else the JSON file with the recipe of the path.')
@click.option('--structures', metavar='DATASET', help='The structures that the recipe starts from.')
@click.option('--code', 'codes', multiple=True, metavar='NAME', help='One for all, or `architecture=name`; repeatable.')
@click.option('--relax/--no-relax', default=True, show_default=True, help='Whether potentials relax the path.')
@click.option('--reference', metavar='LABELLER', help='What labels the paths; without it potentials are compared.')
@click.option('--protocol', default='balanced', show_default=True, metavar='NAME', help='That of the reference.')
@click.option('--reference-code', 'reference_codes', multiple=True, metavar='NAME', help='Codes of the reference.')
@click.option('--reference-settings', multiple=True, metavar='KEY=VALUE', help='Settings of the reference.')
@click.option('--reference-band', is_flag=True, help='The reference relaxes a path by itself, too.')
@starts('Relaxing the path')
def neb(
    potentials: tuple[str, ...],
    reference: str | None,
    protocol: str,
    reference_codes: tuple[str, ...],
    reference_settings: tuple[str, ...],
    reference_band: bool,
    **inputs: Any,
) -> Any:
    """Relax a path with each POTENTIAL, and compare the barriers.

    A potential may be given a name: `tuned=1234`. The settings are those of the band.
    """
    from aiida_perovmlip.arguments import read_settings
    from aiida_perovmlip.starting import neb_builder

    judge = None
    if reference is not None:
        said = read_settings(reference_settings)
        judge = {'labeller': reference, 'protocol': protocol, 'settings': said, 'codes': reference_codes}
    return neb_builder(potentials, reference=judge, reference_band={} if reference_band else None, **inputs)
