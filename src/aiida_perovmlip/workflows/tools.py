"""A trainer's tool, or any command of one's own, run on a stored potential or dataset with provenance."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Formatter
from typing import Any, Literal

Dialect = Literal['mace', 'gpumd', 'nequip', 'ase']

TAIL = 300
"""Characters of the last line that a failed command printed which its error quotes."""


@dataclass(frozen=True)
class Tool:
    """A program that comes with a trainer.

    :param executable: its file, in the folder of the Python of the architecture's environment.
    :param arguments: where `{potential}` stands for the file of the potential and `{name}` for an option that has to
        be given.
    :param outputs: files that it has to leave, with the same placeholders.
    :param file: how the name of the potential's file ends that it takes.
    """

    summary: str
    architecture: str
    executable: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    file: str


TOOLS: dict[str, Tool] = {
    'mace-lammps': Tool(
        'Write a potential for the LAMMPS `pair_style mace` of the MACE authors (libtorch).',
        'mace',
        'mace_create_lammps_model',
        ('{potential}', '--format=libtorch'),
        ('{potential}-lammps.pt',),
        '.model',
    ),
    'mace-mliap': Tool(
        'Write a potential for the LAMMPS `pair_style mliap`; its environment needs cuequivariance-torch.',
        'mace',
        'mace_create_lammps_model',
        ('{potential}', '--format=mliap'),
        ('{potential}-mliap_lammps.pt',),
        '.model',
    ),
    'mace-select-head': Tool(
        'Take one head out of a MACE potential with several; option `head`.',
        'mace',
        'mace_select_head',
        ('{potential}', '-n', '{head}', '-o', 'selected.model'),
        ('selected.model',),
        '.model',
    ),
    'allegro-compile': Tool(
        'Compile a potential for the machine at hand; options `device` (cpu, cuda) and `target` (ase, batch, '
        'pair_allegro). Takes a minute or two and needs g++.',
        'allegro',
        'nequip-compile',
        (
            '{potential}',
            'compiled.nequip.pt2',
            '--mode',
            'aotinductor',
            '--device',
            '{device}',
            '--target',
            '{target}',
        ),
        ('compiled.nequip.pt2',),
        '.nequip.zip',
    ),
    'allegro-lammps': Tool(
        'Write a potential for the LAMMPS `pair_style mliap`; its environment needs the package `lammps`.',
        'allegro',
        'nequip-prepare-lmp-mliap',
        ('{potential}', 'potential.nequip.lmp.pt'),
        ('potential.nequip.lmp.pt',),
        '.nequip.zip',
    ),
}


class ToolError(RuntimeError):
    """A tool cannot be run, or did not do what it is for; the message says why and what to do."""


def run_tool(
    command: str,
    arguments: Sequence[str] | str = (),
    *,
    potential: Any = None,
    dataset: Any = None,
    dialect: Dialect = 'mace',
    nodes: Mapping[str, Any] | None = None,
    options: Mapping[str, str] | None = None,
    outputs: Sequence[str] = (),
    code: Any = None,
    metadata: Mapping[str, Any] | None = None,
    submit: bool = False,
) -> tuple[dict[str, Any], Any]:
    """Run a tool and return its output files by label, and its process; with `submit` there are no outputs yet.

    :param command: a name of `TOOLS`, which knows its arguments and outputs, or a program of one's own: a path, or the
        name of a program in the environment of `code`.
    :param arguments: of a program of one's own, with `{potential}`, `{dataset}` and the names of `nodes` where their
        files are to stand; further arguments for one of `TOOLS`. A brace itself is doubled.
    :param potential: its only file stands for it; a folder where it has several.
    :param dataset: is written as extended XYZ.
    :param dialect: in which the dataset is written.
    :param nodes: further input files (SinglefileData, FolderData) by name.
    :param options: what one of `TOOLS` asks for, such as `head`.
    :param outputs: files that the command has to leave; where one is absent that is a failure, whatever it returned.
    :param code: the Python of the environment that holds the program; for a tool of an architecture, the code with
        the name of that architecture if left out.
    :param metadata: of the job, as for any calculation.
    """
    _refuse_missing_package()
    tool = TOOLS.get(command)
    if tool is not None and (potential is None or potential.architecture != tool.architecture):
        what = 'none was given' if potential is None else f'this is one of {potential.architecture}'
        raise ToolError(f'`{command}` is for a potential of {tool.architecture}; {what}.')
    _refuse_wildcards(outputs)
    names = _file_names(potential, dataset, tool)
    filled = {**names, **(options or {})}
    wanted = shlex.split(arguments) if isinstance(arguments, str) else list(arguments)
    if tool is not None:
        wanted = [*_fill(command, tool.arguments, filled), *wanted]
        outputs = [*_fill_all(command, tool.outputs, filled), *outputs]
    program = _program(tool.executable if tool else command, code or _code_of(tool.architecture if tool else ''))
    inputs = {**_input_nodes(potential, dataset, dialect, names), **(nodes or {})}
    _refuse_unknown_placeholders(wanted, inputs)
    return _launch(program, wanted, inputs, names, list(outputs), metadata, submit)


def _launch(
    program: Any,
    arguments: list[str],
    nodes: dict[str, Any],
    names: dict[str, str],
    outputs: list[str],
    metadata: Mapping[str, Any] | None,
    submit: bool,
) -> tuple[dict[str, Any], Any]:
    """Start the job; where it runs here, judge it too."""
    from aiida_shell import launch_shell_job

    given = dict(metadata or {})
    # What trainers write to stderr are warnings, which aiida-shell would take for a failure.
    given['options'] = {'redirect_stderr': True, **given.get('options', {})}
    found, node = launch_shell_job(
        program,
        arguments=arguments,
        nodes=nodes,
        filenames={key: name for key, name in names.items() if key in nodes},
        outputs=outputs,
        metadata=given,
        submit=submit,
    )
    if not submit:
        _judge(node, found, outputs)
    return found, node


def _judge(node: Any, found: Mapping[str, Any], outputs: Sequence[str]) -> None:
    """Raise where the command failed, or left without an error what it should have left."""
    if node.exit_status == 0:
        return
    said = found['stdout'].get_content() if 'stdout' in found else ''
    lines = [line for line in said.splitlines() if line.strip()]
    last = f' The last line that it printed: {lines[-1][-TAIL:]}' if lines else ' It printed nothing.'
    who, returned = f'{node.process_label} (PK {node.pk})', _return_code(node)
    absent = 303  # ERROR_OUTPUT_FILEPATHS_MISSING of aiida-shell, which it says also where the command failed
    if node.exit_status == absent and returned == 0:
        raise ToolError(f'{who} returned 0 but did not leave all of {", ".join(outputs)}.{last}')
    if returned:
        raise ToolError(f'{who} returned {returned}.{last}')
    raise ToolError(f'{who} ended with exit code {node.exit_status}: {node.exit_message}{last}')


def _return_code(node: Any) -> int | None:
    """Return what the command returned, which aiida-shell leaves in the folder of the job; None where it is gone."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / 'status'
        try:
            node.outputs.remote_folder.getfile('status', str(path))
            return int(path.read_text())
        except (OSError, ValueError, AttributeError):  # the folder was cleaned, or the job never ran
            return None


def _input_nodes(potential: Any, dataset: Any, dialect: str, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the files of potential and dataset as nodes that lead back to them."""
    from aiida import orm

    from aiida_perovmlip.calculations.functions.files import dataset_file, potential_file, potential_folder

    found: dict[str, Any] = {}
    if potential is not None:
        name = names['potential']
        is_file = name in potential.file_names()
        found['potential'] = potential_file(potential, orm.Str(name)) if is_file else potential_folder(potential)
    if dataset is not None:
        found['dataset'] = dataset_file(dataset, orm.Str(dialect))
    return found


def _file_names(potential: Any, dataset: Any, tool: Tool | None) -> dict[str, str]:
    """Return under which names potential and dataset lie in the folder of the job."""
    names = {} if dataset is None else {'dataset': 'dataset.xyz'}
    if potential is None:
        return names
    files = potential.file_names()
    if tool is not None:
        files = [name for name in files if name.endswith(tool.file)]
        if len(files) != 1:
            raise ToolError(
                f'`{tool.executable}` takes one file that ends in {tool.file}; this potential has '
                f'{", ".join(potential.file_names())}.'
            )
    return {**names, 'potential': files[0] if len(files) == 1 and '/' not in files[0] else 'potential'}


def _fill(command: str, texts: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Put options into arguments; the placeholder of the potential stays, for the job to fill."""
    return _fill_all(command, texts, {**values, 'potential': '{potential}'})


def _fill_all(command: str, texts: Sequence[str], values: Mapping[str, str]) -> list[str]:
    try:
        return [text.format(**values) for text in texts]
    except KeyError as error:
        raise ToolError(f'`{command}` needs the option {error}: pass `options={{{error}: …}}`.') from error


def _refuse_unknown_placeholders(arguments: Sequence[str], nodes: Mapping[str, Any]) -> None:
    """Refuse arguments that name a file that nobody gave."""
    for argument in arguments:
        try:
            fields = [field for _, field, _, _ in Formatter().parse(argument) if field is not None]
        except ValueError as error:
            raise ToolError(f'the argument {argument!r} cannot be read: {error}; double a brace itself.') from error
        unknown = [field for field in fields if field not in nodes]
        if unknown:
            known = ', '.join(f'{{{name}}}' for name in nodes) or 'none'
            raise ToolError(
                f'the argument {argument!r} names `{unknown[0]}`, but what was given is {known}; double a brace itself.'
            )


def _refuse_wildcards(outputs: Sequence[str]) -> None:
    """Refuse outputs whose absence nobody would notice, and those that would not be found."""
    for name in outputs:
        if '*' in name or '/' in name:
            raise ToolError(f'the output `{name}` has to be the name of one file, without `*` and `/`.')


def _code_of(architecture: str) -> Any:
    """Return the code with the name of an architecture; None where none is meant."""
    from aiida import orm

    if not architecture:
        return None
    known = orm.QueryBuilder().append(orm.InstalledCode, filters={'label': architecture}).all(flat=True)
    found = [code for code in known if not code.is_hidden]
    if len(found) == 1:
        return found[0]
    if found:
        names = ', '.join(code.full_label for code in found)
        raise ToolError(f'there are several codes for {architecture}: {names}; say which by `code`.')
    raise ToolError(
        f'there is no code for {architecture}; make one by `aiida-perovmlip setup --with {architecture}`, or name '
        'the Python of its environment by `code`.'
    )


def _program(executable: str, code: Any) -> Any:
    """Return the program as a code of its own on the computer of a Python, or its name where there is no Python."""
    if code is None:
        return executable
    path = PurePosixPath(code.filepath_executable).parent / executable
    with code.computer.get_transport() as transport:
        status, _, _ = transport.exec_command_wait(f'test -x {shlex.quote(str(path))}')
    if status:
        raise ToolError(
            f'there is no program {path} on {code.computer.label}. The environment of {code.full_label} does not hold '
            f'it; install what it belongs to there, or name another Python by `code`.'
        )
    return _stored_program(code, path)


def _stored_program(code: Any, path: PurePosixPath) -> Any:
    """Return the code of a program, with the surroundings of the Python beside it; made where there is none yet."""
    from aiida import orm
    from aiida_shell import ShellCode

    label = f'{path.name}-of-{code.label}'
    query = orm.QueryBuilder().append(orm.Computer, filters={'id': code.computer.pk}, tag='computer')
    query.append(ShellCode, with_computer='computer', filters={'label': label})
    for (known,) in query.all():
        same = str(known.filepath_executable) == str(path) and known.prepend_text == code.prepend_text
        if same:
            return known
    return ShellCode(
        label=label,
        computer=code.computer,
        filepath_executable=str(path),
        default_calc_job_plugin='core.shell',
        prepend_text=code.prepend_text,
    ).store()


def _refuse_missing_package() -> None:
    """Say how to install what runs commands, where it is not there."""
    try:
        import aiida_shell  # noqa: F401
    except ImportError as error:
        raise ToolError(
            'tools are run through aiida-shell, which is not installed: `pip install "aiida-perovmlip[shell]"`, then '
            '`verdi daemon restart`.'
        ) from error
