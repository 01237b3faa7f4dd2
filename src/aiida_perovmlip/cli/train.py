"""The verb `train`: train a potential by a protocol."""

from __future__ import annotations

from typing import Any

import click

from aiida_perovmlip.cli.options import examples
from aiida_perovmlip.cli.start import starts


@click.command(
    epilog=examples(
        'aiida-perovmlip train 1234 --architecture nep --protocol fast --validation 1235',
        'aiida-perovmlip train 1234 --architecture mace --parent 900 --settings epochs=50 --submit',
        'aiida-perovmlip train 1234 --architecture mace --protocol balanced --dry-run',
    )
)
@click.argument('training', metavar='DATASET')
@click.option('--architecture', required=True, metavar='NAME', help='What to train, such as `mace`.')
@click.option('--code', metavar='NAME', help='The Python to train with; the code with the name of the architecture.')
@click.option('--validation', metavar='DATASET', help='The frames to choose the best state by.')
@click.option('--protocol', default='fast', show_default=True, metavar='NAME', help='A set of settings with a name.')
@click.option('--parent', metavar='POTENTIAL', help='The potential to start from.')
@click.option('--strategy', metavar='NAME', help='What to do with the parent: naive, multihead, freeze, lora.')
@click.option('--replay', metavar='DATASET', help='For multihead: frames that keep the parent from forgetting.')
@click.option('--seed', type=int, default=0, show_default=True)
@starts('Training')
def train(training: str, architecture: str, **inputs: Any) -> Any:
    """Train a potential on DATASET, in as many jobs as it takes."""
    from aiida_perovmlip.starting import train_builder

    return train_builder(training, architecture, **inputs)
