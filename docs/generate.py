"""The reference pages, written from the code itself, so that they cannot say anything else than the code."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, distribution
from pathlib import Path
from typing import Any, get_args

PACKAGE = 'aiida-perovmlip'
TITLES = {
    'aiida.data': 'Data',
    'aiida.calculations': 'Calculations',
    'aiida.workflows': 'Chains',
    'aiida.parsers': 'Parsers',
    'aiida_perovmlip.architectures': 'Architectures',
    'aiida_perovmlip.labellers': 'Labellers',
    'aiida_perovmlip.engines': 'Engines',
    'aiida_perovmlip.tasks': 'Tasks',
    'console_scripts': 'Commands',
    'aiida.cmdline.data': 'Commands of `verdi data`',
}
OURS = 200
"""The first exit code of ours; those below are AiiDA's own."""


def write(folder: Path) -> list[Path]:
    """Write all pages; one that is as it should be is left alone, so that Sphinx need not read it again."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = dict(all_pages())
    for path in folder.glob('*.md'):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f'{name}.md'
        if not path.exists() or path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')
    return [folder / f'{name}.md' for name in pages]


def all_pages() -> Iterator[tuple[str, str]]:
    """Yield name and text of each page."""
    for point in entry_points('aiida.calculations'):
        yield f'calculation-{_slug(point.name)}', calculation_page(point)
    for point in entry_points('aiida.workflows'):
        yield f'chain-{_slug(point.name)}', calculation_page(point)
    yield 'exit-codes', exit_code_page()
    yield 'nodes', node_page()
    yield 'columns', column_page()
    yield 'questions', question_page()
    yield 'architectures', plugin_page('architectures', 'Architectures')
    yield 'labellers', labeller_page()
    yield 'engines', engine_page()
    yield 'labelling-tables', labelling_tables()
    yield 'recipes', recipe_page()
    yield 'command-line', command_line_page()
    yield 'entry-points', entry_point_page()
    yield 'environments', environment_page()


# ---------------------------------------------------------------------- calculations


def calculation_page(point: EntryPoint) -> str:
    """Return the page of one calculation or chain: inputs, options of the job, outputs and exit codes."""
    process = point.load()
    spec = process.spec()
    ports = dict(flat_ports(spec.inputs))
    options = {name: port for name, port in ports.items() if name.startswith('metadata.options.')}
    generic = {name: port for name, port in ports.items() if is_generic(name) and name not in options}
    own = {name: port for name, port in ports.items() if not is_generic(name)}
    return page(
        f'`{point.name}`',
        f'`{point.value.replace(":", ".")}`',
        markdown(process.__doc__),
        '## Inputs',
        port_table(own),
        dropdown('Inputs of every calculation of AiiDA', port_table(generic)),
        *_options_of_job(options),
        '## Outputs',
        table(('Output', 'Type', 'Always there', 'Meaning'), map(_output_row, spec.outputs.items())),
        '## Exit codes',
        'What to do about each is said in [Mend what is broken](../../how-to/mend.md).',
        exit_code_table(spec.exit_codes.values(), spec),
    )


def _options_of_job(options: Mapping[str, Any]) -> tuple[str, ...]:
    if not options:
        return ()
    best = '`resources`, `max_wallclock_seconds`, `queue_name`, `account` and `device`'
    return (
        '## Options of the job',
        f'Those of `metadata.options`; the most useful ones are {best}.',
        dropdown('All options', port_table(options)),
    )


def flat_ports(namespace: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the full name of each port and the port, also of those in namespaces within."""
    from plumpy.ports import PortNamespace

    for name, port in namespace.items():
        if isinstance(port, PortNamespace) and len(port):
            yield from flat_ports(port, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', port


def is_generic(name: str) -> bool:
    """Whether every calculation of AiiDA has this input; all need a code, but ours is a special one."""
    from aiida.engine import CalcJob

    return name.partition('.')[0] in CalcJob.spec().inputs and name != 'code'


def port_table(ports: Mapping[str, Any]) -> str:
    """Return input ports as a table."""
    rows = (
        (f'`{name}`', type_of(port), 'yes' if is_asked_for(port) else 'no', default_of(port), _sentence(port.help))
        for name, port in ports.items()
    )
    return table(('Input', 'Type', 'Required', 'Default', 'Meaning'), rows)


def is_asked_for(port: Any) -> bool:
    """Whether the user has to give it: required, and without a default."""
    return bool(port.required) and not _has_default(port)


def type_of(port: Any) -> str:
    """Return the types that a port takes."""
    types = port.valid_type if isinstance(port.valid_type, tuple) else (port.valid_type,)
    return ' or '.join(f'`{kind.__name__}`' for kind in types if kind not in (None, type(None))) or 'any'


def default_of(port: Any) -> str:
    """Return the default of a port as plain Python."""
    if not _has_default(port):
        return ''
    value = port.default() if callable(port.default) else port.default
    for method in ('get_dict', 'get_list'):
        if hasattr(value, method):
            value = getattr(value, method)()
    value = getattr(value, 'value', value)
    return '' if value is None else f'`{value!r}`'


def _has_default(port: Any) -> bool:
    return hasattr(port, 'has_default') and port.has_default()


def _output_row(item: tuple[str, Any]) -> tuple[str, ...]:
    name, port = item
    return f'`{name}`', type_of(port), 'yes' if port.required else 'no', _sentence(port.help)


# ---------------------------------------------------------------------- exit codes


def exit_code_page() -> str:
    """Return the page of all exit codes, and of the status that makes a job end with each."""
    from aiida_perovmlip.compute.contract import Status

    kinds = (point.load() for group in ('aiida.calculations', 'aiida.workflows') for point in entry_points(group))
    specs = [kind.spec() for kind in kinds if _is_ours_alone(kind)]
    known = {code.status: (label, code) for spec in specs for label, code in spec.exit_codes.items()}
    rows = ((f'`{status.value}`', _status_code(status, known)) for status in Status)
    return page(
        'Exit codes',
        'All calculations of this package share these; those that run a program of another plug-in, such as CP2K, have '
        'its codes as well. 2xx: the inputs; 3xx: files or packages are missing or cannot '
        'be read; 4xx: the run stopped and can be repaired; 5xx: the science did not work out. What to do about each '
        'is said in [Mend what is broken](../../how-to/mend.md).',
        '## Ours',
        _codes_table(known, lambda status: status >= OURS),
        '## Those of AiiDA',
        _codes_table(known, lambda status: status < OURS),
        '## From the answer of a job to its exit code',
        'A job writes `response.json` however it ends. Its `status` decides the exit code.',
        table(('Status', 'Exit code'), rows),
    )


def _is_ours_alone(kind: type[Any]) -> bool:
    """Whether a process stands on AiiDA alone, and not on a calculation of another plug-in with codes of its own."""
    return all(
        each.__module__.partition('.')[0] in ('aiida_perovmlip', 'aiida', 'plumpy', 'builtins') for each in kind.__mro__
    )


def exit_code_table(codes: Iterable[Any], spec: Any) -> str:
    """Return the exit codes of one calculation as two tables, that of AiiDA's own folded away."""
    known = {code.status: (label, code) for label, code in spec.exit_codes.items()}
    ours = _codes_table(known, lambda status: status >= OURS)
    return f'{ours}\n\n{dropdown("Those of AiiDA", _codes_table(known, lambda status: status < OURS))}'


def _codes_table(known: Mapping[int, tuple[str, Any]], wanted: Any) -> str:
    rows = (
        (str(status), f'`{label}`', _sentence(code.message), 'no' if code.invalidates_cache else 'yes')
        for status, (label, code) in sorted(known.items())
        if wanted(status)
    )
    return table(('Status', 'Label', 'Message', 'Reused from the cache'), rows)


def _status_code(status: Any, known: Mapping[int, tuple[str, Any]]) -> str:
    if status.value == 'ok':
        return '0, unless a product cannot be read (312) or a prediction is not finite (530)'
    return next(str(number) for number, (label, _) in known.items() if label == f'ERROR_{status.name}')


# ---------------------------------------------------------------------- nodes


def node_page() -> str:
    """Return the page of the data nodes: what can be asked in queries, and the methods."""
    return page('Nodes', *(part for point in entry_points('aiida.data') for part in _node_parts(point)))


def _node_parts(point: EntryPoint) -> Iterator[str]:
    kind = point.load()
    yield f'## `{point.name}`'
    yield f'`{point.value.replace(":", ".")}`'
    yield markdown(kind.__doc__)
    yield '### Attributes'
    yield 'Each can be used in the filters and projections of a query, as `attributes.NAME` or by `fields.NAME`.'
    fields = kind.AttributesModel.model_fields
    own = kind.AttributesModel.__annotations__
    yield table(('Attribute', 'Meaning'), ((f'`{name}`', _sentence(fields[name].description)) for name in own))
    yield '### Properties and methods'
    for name, member in vars(kind).items():
        if not name.startswith('_') and (text := describe_member(name, member)):
            yield text


def describe_member(name: str, member: Any) -> str:
    """Return a property or method as an entry of a definition list; nothing for what is neither."""
    function = getattr(member, '__func__', None) or getattr(member, 'fget', None) or getattr(member, 'func', None)
    function = function or member
    if not inspect.isfunction(function) or not function.__doc__:
        return ''
    is_method = not isinstance(member, property) and not hasattr(member, 'attrname')
    call = f'{name}{_signature(function)}' if is_method else name
    return f'`{call}`\n: {textwrap.indent(markdown(function.__doc__), "  ").strip()}'


def _signature(function: Any) -> str:
    """Return the signature as one writes a call: without `self` and `cls`, and without what is returned."""
    signature = inspect.signature(function)
    parameters = [value for name, value in signature.parameters.items() if name not in ('self', 'cls')]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)).replace("'", '')


def column_page() -> str:
    """Return the page of the columns of shards and chunks, which the modules themselves describe."""
    from aiida_perovmlip.compute import chunk, shard

    parts = []
    for title, module in (('Columns of a shard', shard), ('Columns of a chunk', chunk)):
        text = inspect.cleandoc(module.__doc__ or '').replace('`', '``')
        parts += [f'## {title}', f'```{{eval-rst}}\n{text}\n```']
    return page('Columns', *parts)


def question_page() -> str:
    """Return the page of the questions to the database, with the columns of their tables."""
    from aiida_perovmlip import query
    from aiida_perovmlip.query import compare, jobs, motion, nodes, origins, paths, phase_results, repairs, tradeoffs
    from aiida_perovmlip.query.filters import headings

    columns = {
        'ancestors': origins.COLUMNS,
        'barriers': paths.COLUMNS,
        'compare_architectures': tradeoffs.COLUMNS,
        'costs': jobs.COLUMNS,
        'datasets': nodes.DATASETS,
        'diffusion': motion.COLUMNS,
        'evaluations': compare.COLUMNS,
        'phase_energies': phase_results.ENERGIES,
        'phases': phase_results.TRANSITIONS,
        'potentials': nodes.POTENTIALS,
        'repaired_labels': repairs.COLUMNS,
    }
    parts = []
    for name in query.__all__:
        function = getattr(query, name)
        parts += [f'## `{name}`', f'`{name}{_signature(function)}`', markdown(function.__doc__)]
        if name in columns:
            parts.append('Columns: ' + ', '.join(f'`{each}`' for each in headings(columns[name]).values()) + '.')
    return page(
        'Questions', 'All are in `aiida_perovmlip.query`; [Ask the database](../../how-to/ask.md) uses them.', *parts
    )


# ---------------------------------------------------------------------- plug-ins


def plugin_page(group: str, title: str) -> str:
    """Return the page of all plug-ins of a group with their settings."""
    parts = []
    for point in entry_points(f'aiida_perovmlip.{group}'):
        kind = point.load()
        parts += [f'## `{point.name}`', markdown(kind.__doc__), f'`{point.value.replace(":", ".")}`']
        wants = ', '.join(f'`{requirement}`' for requirement in kind.requirements)
        parts.append(f'Needs in its environment: {wants or "nothing but numpy and ase"}.')
        parts.append(settings_table(kind.Settings))
        if hasattr(kind, 'protocols'):
            parts += ['Protocols, which are sets of these settings by name:', _protocols(kind)]
        if hasattr(kind, 'strategies'):
            names = ', '.join(f'`{name}`' for name in kind.strategies)
            parts.append(f'[Strategies](../../topics/training.md): {names}.')
    return page(title, *parts)


def labeller_page() -> str:
    """Return the page of all labellers with their settings."""
    from aiida_perovmlip.labellers.base import labeller_named

    parts = []
    for point in entry_points('aiida_perovmlip.labellers'):
        kind, labeller = point.load(), labeller_named(point.name)
        parts += [f'## `{point.name}`', markdown(kind.__doc__), f'`{point.value.replace(":", ".")}`']
        if labeller.program is not None:
            names = ' or '.join(f'`{name}`' for name in labeller.program.names)
            parts.append(f'Runs {names}. {labeller.program.how_to_get}')
        else:
            wants = ', '.join(f'`{requirement}`' for requirement in kind.requirements)
            parts.append(f'Needs in its environment: {wants or "nothing but numpy and ase"}.')
        parts.append(settings_table(labeller.Settings))
    return page('Labellers', *parts)


def engine_page() -> str:
    """Return the page of the settings of molecular dynamics, and of what each engine has of them."""
    from aiida_perovmlip.compute.md import MdSettings
    from aiida_perovmlip.workflows.md import protocols

    parts = ['## Settings of a run', settings_table(MdSettings)]
    rows = [
        (f'`{name}`', f'{protocol["about"]} {protocol["origin"]}', _plain_settings(protocol['settings']))
        for name, protocol in protocols().items()
    ]
    parts += ['Protocols, which are sets of these settings by name:', table(('Protocol', 'For', 'Settings'), rows)]
    for point in entry_points('aiida_perovmlip.engines'):
        kind = point.load()
        place = 'of the architecture' if kind.uses_calculator else 'of its own'
        parts += [f'## `{point.name}`', markdown(kind.__doc__), f'Runs in the environment {place}.']
        rows = [('`nvt`', _named(kind.thermostats), '')]
        rows += [
            (f'`npt`, `{barostat}`', _named(kind.thermostats_of_barostats[barostat]), _named(kind.cells[barostat]))
            for barostat in kind.barostats
        ]
        parts.append(table(('Ensemble, barostat', 'Thermostats', 'Cells'), rows))
        lacks = [
            name
            for name, has in {
                'ramps': kind.has_ramps,
                'frozen atoms': kind.has_frozen_atoms,
                'committees': kind.has_committee,
            }.items()
            if not has
        ]
        if lacks:
            parts.append(f'It has no {", ".join(lacks)}.')
    return page('Engines', *parts)


def _named(names: Iterable[str]) -> str:
    return ', '.join(f'`{name}`' for name in names)


def labelling_tables() -> str:
    """Return the tables of the page on labelling: protocols, kinds of failures, repairs."""
    from aiida_perovmlip.labellers.base import KINDS, labeller_named

    labellers = [labeller_named(point.name) for point in entry_points('aiida_perovmlip.labellers')]
    protocols = (
        (f'`{labeller.name}`', f'`{name}`', protocol.about, _plain_settings(protocol.settings), protocol.origin)
        for labeller in labellers
        for name, protocol in labeller.protocols().items()
    )
    repairs = (
        (f'`{one.name}`', f'`{repair.name}`', ', '.join(f'`{kind}`' for kind in sorted(repair.sees)), repair.does)
        for one in labellers
        for repair in one.repairs
    )
    return page(
        'Protocols, failures and repairs',
        '## Protocols',
        table(('Labeller', 'Protocol', 'For', 'Settings', 'Where the numbers are from'), protocols),
        '## Kinds of failures',
        table(('Kind', 'Meaning'), ((f'`{kind}`', meaning) for kind, meaning in KINDS.items())),
        '## Repairs',
        'In the order in which they are tried. None changes the level of theory.',
        table(('Labeller', 'Repair', 'Sees', 'Does'), repairs),
    )


def _plain_settings(settings: Mapping[str, Any]) -> str:
    return ', '.join(f'`{key}` = `{value!r}`' for key, value in settings.items()) or 'the defaults'


def settings_table(kind: type[Any]) -> str:
    """Return the settings of a plug-in as a table."""
    from aiida_perovmlip.compute.settings import describe_settings

    rows = (
        (f'`{row["name"]}`', f'`{row["type"]}`', f'`{row["default"]!r}`', _limits(row), _sentence(row['help']))
        for row in describe_settings(kind)
    )
    return table(('Setting', 'Type', 'Default', 'Allowed', 'Meaning'), rows)


def _limits(row: Mapping[str, Any]) -> str:
    unit = f' {row["unit"]}' if row['unit'] else ''
    if row['choices']:
        return ' or '.join(f'`{choice!r}`' for choice in row['choices'])
    parts = [f'at least {row["minimum"]:g}{unit}'] if row['minimum'] is not None else []
    parts += [f'at most {row["maximum"]:g}{unit}'] if row['maximum'] is not None else []
    return ', '.join(parts) or unit.strip()


def _protocols(kind: Any) -> str:
    rows = ((f'`{name}`', sentence, _plain_settings(settings)) for name, (sentence, settings) in kind.protocols.items())
    return table(('Protocol', 'For', 'Settings'), rows)


def recipe_page() -> str:
    """Return the page of recipes, from which frames are built."""
    from aiida_perovmlip.structures.perovskite import LATTICE_CONSTANTS, Glazer
    from aiida_perovmlip.structures.recipes import Family, read_recipe

    family = read_recipe({'families': [{'formula': 'CsPbI3', 'count': 1}]})[0]
    meanings = re.findall(r':param (\w+): (.+)', Family.__doc__ or '')
    rows = ((f'`{name}`', _recipe_default(name, getattr(family, name)), _sentence(text)) for name, text in meanings)
    return page(
        'Recipes',
        'A recipe is a dictionary with one key, `families`: a list of families. Each family is a dictionary with these '
        'keys.',
        table(('Key', 'Default', 'Meaning'), rows),
        f'Tilt systems that are known: {", ".join(f"`{name}`" for name in get_args(Glazer))}.',
        '## Lattice constants',
        'Typical experimental constants of the cubic phase; a start, not a reference.',
        table(('Formula', 'Å'), ((f'`{name}`', f'{value:.2f}') for name, value in sorted(LATTICE_CONSTANTS.items()))),
    )


def _recipe_default(name: str, value: Any) -> str:
    special = {'formula': 'required', 'count': 'required', 'group': 'the formula', 'lattice_constant': 'see below'}
    return special.get(name) or f'`{list(value) if isinstance(value, tuple) else value!r}`'


# ---------------------------------------------------------------------- command line and installation


def command_line_page() -> str:
    """Return the page of the command line: what `--help` says."""
    from aiida_perovmlip.cli import main

    return page('Command line', *_help_texts(main, None, PACKAGE, ''))


def _help_texts(command: Any, parent: Any, name: str, title: str) -> Iterator[str]:
    """Yield the help text of a command and, if it is a group, those of its commands."""
    import click

    how = {**command.context_settings, 'max_content_width': 100, 'terminal_width': 100}
    context = click.Context(command, parent=parent, info_name=name, **how)
    yield f'{f"## {title}" if title else ""}\n\n```text\n{command.get_help(context)}\n```'.strip()
    for verb in command.list_commands(context) if isinstance(command, click.Group) else ():
        yield from _help_texts(command.get_command(context, verb), context, verb, f'{title} {verb}'.strip())


def entry_point_page() -> str:
    """Return the page of all entry points."""
    parts = [
        'The names by which AiiDA and this package find classes. They are stored with every node, so they never change.'
    ]
    for group, title in TITLES.items():
        rows = ((f'`{point.name}`', f'`{point.value}`') for point in entry_points(group))
        parts += [f'## {title}', f'Group `{group}`.', table(('Name', 'Object'), rows)]
    return page('Entry points', *parts)


def environment_page() -> str:
    """Return the page of environments: requirements of the plug-ins, pinned versions, and why a build can fail."""
    from aiida_perovmlip.installation.diagnosis import ADVICE
    from aiida_perovmlip.installation.environments import CONSTRAINTS, constraint_lines, name_of

    pinned = constraint_lines(CONSTRAINTS.read_text())
    rows = []
    for group in ('architectures', 'labellers', 'engines'):
        for point in entry_points(f'aiida_perovmlip.{group}'):
            requirements = getattr(point.load(), 'requirements', ())
            wanted = (pinned.get(name_of(requirement), requirement) for requirement in requirements)
            rows.append((f'`{point.name}`', group[:-1], ', '.join(f'`{line}`' for line in wanted) or 'none of its own'))
    return page(
        'Environments',
        'Each plug-in that needs packages has an environment of its own. These versions are installed.',
        table(('Plug-in', 'Kind', 'Packages'), rows),
        '## All pinned versions',
        f'```text\n{CONSTRAINTS.read_text().strip()}\n```',
        '## Why building an environment can fail',
        '`setup` looks at what pip said and prints the sentence that belongs to the cause, with the last lines of pip.',
        table(('Cause', 'Advice'), ((f'`{cause.value}`', _sentence(text)) for cause, text in ADVICE.items())),
    )


# ---------------------------------------------------------------------- Markdown


def entry_points(group: str) -> list[EntryPoint]:
    """Return the entry points of this package in a group, in alphabetical order."""
    found = (point for point in distribution(PACKAGE).entry_points if point.group == group)
    return sorted(found, key=lambda point: point.name)


def page(title: str, *parts: str) -> str:
    """Return a page."""
    return '\n\n'.join((f'# {title}', *(part for part in parts if part))) + '\n'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a cell is one line."""
    lines = [tuple(head), ('---',) * len(head), *(tuple(cell.replace('|', '\\|') for cell in row) for row in rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) if len(lines) > 2 else 'None.'


def dropdown(title: str, text: str) -> str:
    """Return text that is folded away."""
    return f':::{{dropdown}} {title}\n{text}\n:::'


def markdown(docstring: str | None) -> str:
    """Return a docstring with its fields as a list."""
    text = inspect.cleandoc(docstring or '')
    body, *fields = re.split(r'^:param (\w+):', text, flags=re.MULTILINE)
    pairs = zip(fields[::2], fields[1::2], strict=True)
    entries = [f'- `{name}`: {_sentence(meaning)}' for name, meaning in pairs]
    return '\n\n'.join(part for part in (body.strip(), '\n'.join(entries)) if part)


def _sentence(text: str | None) -> str:
    return ' '.join((text or '').split())


def _slug(name: str) -> str:
    return name.removeprefix('perovmlip.').replace('.', '-')
