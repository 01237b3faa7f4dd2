"""The verb `dataset`: bring frames in, look at them, split them, and write them for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, level_option, profile_option

KINDS = ('extxyz', 'run', 'ase-db', 'ml-ab')
DIALECTS = ('mace', 'gpumd', 'nequip', 'ase')


@click.group()
def dataset() -> None:
    """Bring datasets in, look at them, split them, write them."""


@dataset.command(
    'import',
    epilog=examples(
        'aiida-perovmlip dataset import my_frames.xyz --level labeller=vasp --level functional=PBE',
        'aiida-perovmlip dataset import runs/MAPbI3-500K',
    ),
)
@click.argument('path', type=click.Path(path_type=Path))
@click.option('--as', 'kind', type=click.Choice(KINDS), help='What it is; by default what its name says.')
@level_option
@click.option('--label', default='', help='What to call it; the name of the file if left out.')
@click.option(
    '--column',
    'columns',
    multiple=True,
    metavar='WHAT=NAME',
    help='Of a database of ASE: where `energy`, `forces`, `stress`, `group` and so on are; repeatable.',
)
@json_option
@profile_option
def import_(
    path: Path,
    kind: Any,
    level: tuple[str, ...],
    label: str,
    columns: tuple[str, ...],
    as_json: bool,
    profile: str | None,
) -> None:
    """Read PATH into a dataset; the file is kept before it in the graph.

    PATH is an extended XYZ file (also .gz), a folder or output of CP2K or VASP, a database of ASE, or an ML_AB.
    """
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.arguments import read_level, read_pairs
    from aiida_perovmlip.importing import import_dataset

    with display.patience(f'reading {path.name}'):
        node = import_dataset(path, kind, read_level(level), read_pairs(columns), label)
    _show(str(node.pk), as_json)


@dataset.command(
    epilog=examples('aiida-perovmlip dataset show 1234', 'aiida-perovmlip dataset show my_frames.xyz --json')
)
@click.argument('dataset')
@json_option
@profile_option
def show(dataset: str, as_json: bool, profile: str | None) -> None:
    """Show what is in DATASET; no file is opened."""
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    _show(dataset, as_json)


@dataset.command(
    epilog=examples(
        'aiida-perovmlip dataset split 1234 --part training=0.8 --part test=0.2',
        'aiida-perovmlip dataset split 1234 --part test=100 --part training=rest --by trajectory',
    )
)
@click.argument('dataset')
@click.option(
    '--part',
    'parts',
    multiple=True,
    required=True,
    metavar='NAME=SIZE',
    help='A part with its fraction of the frames (0.8), their number (200), or `rest`; repeatable.',
)
@click.option(
    '--by',
    type=click.Choice(('random', 'stratified', 'trajectory', 'group')),
    default='random',
    show_default=True,
    help='What is kept together, or shared out evenly.',
)
@click.option('--seed', type=int, default=0, show_default=True)
@json_option
@profile_option
def split(dataset: str, parts: tuple[str, ...], by: Any, seed: int, as_json: bool, profile: str | None) -> None:
    """Split DATASET into parts that share its frames among them."""
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.arguments import read_parts
    from aiida_perovmlip.launch import table
    from aiida_perovmlip.starting import split_into

    found = split_into(dataset, read_parts(parts), by, seed)
    if as_json:
        display.show_json(found)
        return
    rows = [
        (name, str(part['pk']), str(part['n_frames']), display.counts(part['groups'])) for name, part in found.items()
    ]
    click.echo(table(('part', 'PK', 'frames', 'groups'), rows))


@dataset.command(epilog=examples('aiida-perovmlip dataset stats 1234'))
@click.argument('dataset')
@json_option
@profile_option
def stats(dataset: str, as_json: bool, profile: str | None) -> None:
    """Show energies, forces, pressures and volumes of each group of DATASET."""
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.query.describe import load
    from aiida_perovmlip.query.statistics import dataset_statistics

    node = load(dataset, 'dataset')
    with click.progressbar(length=len(node), label='reading frames', file=click.get_text_stream('stderr')) as bar:
        groups = dataset_statistics(node, bar.update)
    if as_json:
        display.show_json(groups)
    else:
        click.echo(_table_of_groups(groups))


@dataset.command(epilog=examples('aiida-perovmlip dataset export 1234 -o frames.xyz --dialect gpumd'))
@click.argument('dataset')
@click.option('-o', '--output', type=click.Path(dir_okay=False, path_type=Path), required=True, help='The file.')
@click.option('--dialect', type=click.Choice(DIALECTS), default='ase', show_default=True, help='Who is to read it.')
@json_option
@profile_option
def export(dataset: str, output: Path, dialect: Any, as_json: bool, profile: str | None) -> None:
    """Write DATASET as extended XYZ in the dialect of a program."""
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.query.describe import load

    node = load(dataset, 'dataset')
    with display.patience(f'writing {output.name}'):
        node.to_extxyz(output, dialect)
    if as_json:
        display.show_json({'file': str(output), 'n_frames': len(node), 'dialect': dialect})
    else:
        click.echo(f'{len(node)} frames written to {output}')


def _show(identifier: str, as_json: bool) -> None:
    """Print what is known of a dataset."""
    from aiida_perovmlip.query.describe import describe

    known = describe(identifier, 'dataset')
    if as_json:
        display.show_json(known)
        return
    n_frames = known['n_frames']
    stress = known['n_stress']
    labels = [f'{name} ({stress} of {n_frames})' if name == 'stress' else name for name in known['labels']]
    display.show_fields(
        [
            ('dataset', f'PK {known["pk"]}  {known["uuid"]}'),
            ('label', known['label']),
            ('description', known['description']),
            ('frames', f'{n_frames}, with {known["n_atoms"]} atoms'),
            ('elements', ' '.join(known['elements'])),
            ('groups', display.counts(known['groups'])),
            ('labels', ', '.join(labels) or 'none'),
            ('level', display.levels(known['levels'])),
            ('heads', display.counts(known['heads']) if len(known['heads']) > 1 else ''),
            ('charges', ', '.join(f'{charge:+d} e' if charge else '0 e' for charge in known['charges'])),
            ('spins', ', '.join(map(str, known['spins']))),
            ('energy', display.span(known['energy_per_atom_range'], 'eV/atom')),
            ('force', display.span(known['force_range'], 'eV/Å')),
            ('content', known['content_hash']),
            ('made by', display.maker(known['made_by'])),
            ('created', known['created']),
        ]
    )


def _table_of_groups(groups: dict[str, dict[str, Any]]) -> str:
    """Return a line for each group; numbers that spread are mean ± standard deviation."""
    from aiida_perovmlip.launch import table

    head = (
        'group', 'frames', 'atoms', 'energy (eV/atom)', 'force RMS (eV/Å)', 'largest (eV/Å)', 'pressure (GPa)',
        'volume (Å³/atom)',
    )  # fmt: skip
    rows = [
        (
            name,
            str(found['n_frames']),
            str(found['n_atoms']),
            _spread(found['energy'], 6),
            display.number(found['forces_rms']),
            display.number(found['forces'] and found['forces']['highest']),
            _spread(found['pressure']),
            _spread(found['volume']),
        )
        for name, found in groups.items()
    ]
    return table(head, rows)


def _spread(found: dict[str, float] | None, digits: int = 4) -> str:
    return '–' if found is None else f'{found["mean"]:.{digits}g} ± {found["std"]:.2g}'
