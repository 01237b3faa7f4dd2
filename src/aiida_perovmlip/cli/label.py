"""The verb `label`: compute energies and forces of the frames of a dataset."""

from __future__ import annotations

from typing import Any

import click

from aiida_perovmlip.cli.options import examples
from aiida_perovmlip.cli.start import starts


@click.command(
    epilog=examples(
        'aiida-perovmlip label 1234 --labeller tblite',
        'aiida-perovmlip label 1234 --labeller cp2k --protocol fast --dry-run',
    )
)
@click.argument('frames', metavar='DATASET')
@click.option('--labeller', required=True, metavar='NAME', help='What computes labels, such as `cp2k` or `tblite`.')
@click.option('--code', 'codes', multiple=True, metavar='NAME', help='A code to run with; several share the jobs.')
@click.option('--protocol', default='balanced', show_default=True, metavar='NAME', help='A set of settings by name.')
@click.option('--potential', metavar='POTENTIAL', help='For the labeller `potential`: the one that labels.')
@click.option('--max-concurrent', type=int, metavar='N', help='Largest number of jobs at a time.')
@click.option('--batch-size', type=int, metavar='N', help='Frames of a job.')
@starts('Labelling')
def label(frames: str, labeller: str, **inputs: Any) -> Any:
    """Label the frames of DATASET; what has a label of the same level of theory is not computed again.

    A dry run tells how many jobs there will be and, by the jobs that were done before, what they will cost.
    """
    from aiida_perovmlip.starting import label_builder

    return label_builder(frames, labeller, **inputs)
