"""The verb `potential`: bring potentials in, look at them, follow their lineage, and write their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import examples, json_option, level_option, profile_option


@click.group()
def potential() -> None:
    """Bring potentials in, look at them, write their files."""


@potential.command(
    'import',
    epilog=examples(
        'aiida-perovmlip potential import nep.txt --architecture nep --level labeller=vasp --level functional=PBE',
        'aiida-perovmlip potential import MACE.model --architecture mace --sha256 5f9…',
    ),
)
@click.argument('path', type=click.Path(path_type=Path))
@click.option('--architecture', required=True, metavar='NAME', help='What it is a potential of, such as `mace`.')
@level_option
@click.option('--code', metavar='NAME', help='The Python to open it with; the code with the name of the architecture.')
@click.option('--trust', is_flag=True, help='You know whom the file is from: it may run foreign code in a job.')
@click.option('--sha256', metavar='HASH', help='The hash that its author has published.')
@click.option('--label', default='', help='What to call it; the name of the file if left out.')
@json_option
@profile_option
def import_(
    path: Path,
    architecture: str,
    level: tuple[str, ...],
    code: str | None,
    trust: bool,
    sha256: str | None,
    label: str,
    as_json: bool,
    profile: str | None,
) -> None:
    """Make a potential of PATH, a file or a folder that somebody else made.

    Files of some architectures, MACE among them, are pickles: opening one runs what its author put in. Such a file is
    opened in a job alone, and only where you vouch for it by --sha256 or --trust, or did so before on this machine.
    Where nobody has, the exit code is 5.
    """
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.arguments import read_level
    from aiida_perovmlip.importing import import_potential

    node = import_potential(path, architecture, read_level(level), code=code, trust=trust, sha256=sha256, label=label)
    _show(str(node.pk), as_json)


@potential.command(epilog=examples('aiida-perovmlip potential show 1234', 'aiida-perovmlip potential show 1234 --json'))
@click.argument('potential')
@json_option
@profile_option
def show(potential: str, as_json: bool, profile: str | None) -> None:
    """Show what is known of POTENTIAL; its files are not opened."""
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    _show(potential, as_json)


@potential.command(epilog=examples('aiida-perovmlip potential export 1234 -o my-potential'))
@click.argument('potential')
@click.option('-o', '--output', type=click.Path(file_okay=False, path_type=Path), required=True, help='The folder.')
@json_option
@profile_option
def export(potential: str, output: Path, as_json: bool, profile: str | None) -> None:
    """Write the files of POTENTIAL into a folder; they are copied and not opened."""
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.query.describe import load

    node = load(potential, 'potential')
    folder, names = node.export(output), node.file_names()
    if as_json:
        display.show_json({'folder': str(folder), 'files': names, 'content_hash': node.content_hash})
    else:
        click.echo('\n'.join(str(folder / name) for name in names))


@potential.command(epilog=examples('aiida-perovmlip potential lineage 1234'))
@click.argument('potential')
@json_option
@profile_option
def lineage(potential: str, as_json: bool, profile: str | None) -> None:
    """Show from which potentials POTENTIAL was trained, the oldest first, and on what."""
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.launch import table
    from aiida_perovmlip.query.describe import find
    from aiida_perovmlip.query.stages import lineage_records

    stages = lineage_records(find(potential, 'potential')['id'])
    if as_json:
        display.show_json(stages)
        return
    head = ('stage', 'potential', 'architecture', 'strategy', 'training PK', 'dataset', 'frames', 'replayed')
    click.echo(table(head, [_stage(stage) for stage in stages]))


@potential.command(epilog=examples('aiida-perovmlip potential card 1234 -o README.md'))
@click.argument('potential')
@click.option('-o', '--output', type=click.Path(dir_okay=False, path_type=Path), help='The file; printed if left out.')
@json_option
@profile_option
def card(potential: str, output: Path | None, as_json: bool, profile: str | None) -> None:
    """Write the model card of POTENTIAL: data, level, settings, errors, known limits, and how to run it again."""
    from aiida_perovmlip.installation.profile import load_profile

    load_profile(profile)
    from aiida_perovmlip.query.describe import load
    from aiida_perovmlip.report.card import card_of

    content = card_of(load(potential, 'potential'))
    if output is not None:
        output.write_text(content, encoding='utf-8')
    if as_json:
        display.show_json({'card': content, 'file': None if output is None else str(output)})
    else:
        click.echo(content if output is None else output)


def _stage(stage: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one stage."""
    known = {name: '–' if value is None else str(value) for name, value in stage.items()}
    return (
        known['stage'],
        _named(stage, 'potential'),
        known['architecture'],
        stage['strategy'] or ('imported' if stage['training'] is None else '–'),
        known['training'],
        _named(stage, 'dataset'),
        known['n_frames'],
        known['n_replay'],
    )


def _named(stage: dict[str, Any], kind: str) -> str:
    if stage[kind] is None:
        return '–'
    return f'{stage[f"{kind}_label"]} ({stage[kind]})' if stage[f'{kind}_label'] else str(stage[kind])


def _show(identifier: str, as_json: bool) -> None:
    """Print what is known of a potential."""
    from aiida_perovmlip.query.describe import describe

    known = describe(identifier, 'potential')
    if as_json:
        display.show_json(known)
        return
    display.show_fields(
        [
            ('potential', f'PK {known["pk"]}  {known["uuid"]}'),
            ('label', known['label']),
            ('description', known['description']),
            ('architecture', known['architecture']),
            ('elements', ' '.join(known['elements'])),
            ('cutoff', f'{known["cutoff"]:g} Å'),
            ('heads', ', '.join(known['heads'])),
            ('level', display.levels(known['levels']) or 'not known'),
            ('parameters', f'{known["n_parameters"]} ({known["dtype"]})'),
            ('content', known['content_hash']),
            ('made by', display.maker(known['made_by'])),
            ('created', known['created']),
        ]
    )
