"""A computer and its codes from one readable file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.installation import catalogue, profile
from aiida_perovmlip.installation.outcome import Done, SetupFailure
from aiida_perovmlip.installation.programs import program_of

if TYPE_CHECKING:
    from aiida.orm import Computer, InstalledCode

TEMPLATES = ('cpu', 'gpu', 'multi-gpu')
OF_COMPUTER = (
    'label', 'hostname', 'transport', 'connect', 'scheduler', 'work_directory', 'poll_interval', 'mpirun', 'shebang',
    'modules', 'environment', 'prepend', 'node', 'description',
)  # fmt: skip
OF_QUEUE = {'queue': 'queue_name', 'account': 'account', 'qos': 'qos'}
"""Words that AiiDA has too, by the name that it gives them."""

APPTAINER = 'apptainer exec --nv {image_name}'
"""How a container is run unless the file says otherwise; `--nv` lets it see the GPUs that its job was given."""


@dataclass(frozen=True)
class CodeEntry:
    """A code as the file describes it.

    :param plugin: the plug-in that runs with it.
    :param options: what its jobs ask for where they do not say otherwise, in the words of the file.
    :param container: image and command of a container that the executable is in; empty where it is in none.
    """

    label: str
    plugin: str
    executable: str
    prepend: str
    options: dict[str, Any] = field(default_factory=dict)
    container: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> type[InstalledCode]:
        """The class of its node."""
        from aiida import orm

        found: type[InstalledCode] = orm.ContainerizedCode if self.container else orm.InstalledCode
        return found

    def is_that_of(self, code: InstalledCode) -> bool:
        """Return whether a code is what the file describes."""
        container = {name: str(code.base.attributes.get(name)) for name in self.container}
        executable, prepend = str(code.filepath_executable), code.prepend_text.strip()
        wanted = (self.kind, self.executable, self.prepend.strip(), self.container)
        return (type(code), executable, prepend, container) == wanted


@dataclass(frozen=True)
class Cluster:
    """A computer with its codes as a file describes it."""

    computer: dict[str, Any]
    prepend: str
    codes: tuple[CodeEntry, ...]

    @property
    def label(self) -> str:
        """What AiiDA calls the computer."""
        return str(self.computer['label'])


def template(name: str) -> str:
    """Return the content of a file to begin with."""
    folder = resources.files('aiida_perovmlip.installation') / 'templates'
    return (folder / f'{name}.yaml').read_text(encoding='utf-8')


def read(path: Path) -> Cluster:
    """Read a file; what is wrong in it is a `SetupFailure` that names the entry."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupFailure(
            f'{path} cannot be read: {error}. `aiida-perovmlip setup --template gpu` shows one.'
        ) from error
    try:
        return _cluster(content)
    except ValueError as error:
        raise SetupFailure(f'{path}: {error}') from error


def _cluster(content: Any) -> Cluster:
    if not isinstance(content, Mapping):
        raise ValueError('it has to have the parts `computer` and `codes`; `setup --template gpu` shows them.')
    _known(content, ('computer', 'defaults', 'codes'), 'the file')
    computer = _part(content, 'computer')
    _known(computer, OF_COMPUTER, '`computer`')
    for name in ('label', 'hostname', 'work_directory'):
        if not isinstance(computer.get(name), str) or not computer[name]:
            raise ValueError(f'`computer` needs a `{name}`.')
    from aiida_perovmlip.calculations.resources import Resources

    node = Resources.read(_part(computer, 'node', {})).given()
    defaults, codes = _part(content, 'defaults', {}), _part(content, 'codes')
    entries = tuple(_code(str(label), _part(codes, label), defaults) for label in codes)
    if not entries:
        raise ValueError('`codes` is empty: name at least one, such as `mace`.')
    scheduler = str(computer.get('scheduler', 'core.slurm'))
    for entry in entries:
        words = {name: value for name, value in entry.options.items() if name not in OF_QUEUE.values()}
        wanted = Resources.read(words)
        wanted.options(scheduler)
        if lack := wanted.lack(node):
            raise ValueError(f'`{entry.label}`: {lack}')
    known = {'transport': 'core.ssh_async', 'scheduler': scheduler, **computer, 'node': node}
    return Cluster(known, _shell(computer), entries)


def _part(content: Mapping[Any, Any], name: Any, default: Any = None) -> dict[str, Any]:
    found = content.get(name, default)
    if not isinstance(found, Mapping):
        raise ValueError(f'`{name}` has to be a list of names with values, not {found!r}.')
    return dict(found)


def _known(content: Mapping[Any, Any], names: tuple[str, ...], where: str) -> None:
    for name in content:
        if name not in names:
            raise ValueError(f'{where} has no entry `{name}`; there are {", ".join(names)}.')


def _code(label: str, entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> CodeEntry:
    from aiida_perovmlip.calculations.resources import NAMES

    own = ('executable', 'plugin', 'modules', 'environment', 'prepend', 'image', 'engine')
    allowed = (*own, *NAMES, *OF_QUEUE)
    _known(entry, allowed, f'`{label}`')
    _known(defaults, (*NAMES, *OF_QUEUE), '`defaults`')
    plugin = str(entry.get('plugin', label))
    if plugin not in catalogue.names() and program_of(plugin) is None:
        raise ValueError(
            f'`{label}` is no plug-in; say which one it is for by `plugin`: {", ".join(catalogue.names())}.'
        )
    if not isinstance(entry.get('executable'), str):
        raise ValueError(f'`{label}` needs an `executable`: the Python of its environment, or the program.')
    program = program_of(plugin)
    words = {name: value for name, value in {**defaults, **entry}.items() if name in (*NAMES, *OF_QUEUE)}
    options = {OF_QUEUE.get(name, name): value for name, value in words.items() if value is not None}
    prepend = '\n'.join(part for part in (_shell(entry), program.prepend if program else '') if part)
    return CodeEntry(label, plugin, str(entry['executable']), prepend, options, _container(label, entry))


def _container(label: str, entry: Mapping[str, Any]) -> dict[str, str]:
    """Return image and command of a container in the words of AiiDA; nothing where a code is in none."""
    if not entry.get('image'):
        if entry.get('engine'):
            raise ValueError(f'`{label}` has an `engine`, but no `image` that it would run.')
        return {}
    engine = str(entry.get('engine', APPTAINER))
    if '{image_name}' not in engine:
        raise ValueError(f'the `engine` of `{label}` has to say where the image goes, such as `{APPTAINER}`.')
    return {'engine_command': engine, 'image_name': str(entry['image'])}


def _shell(entry: Mapping[str, Any]) -> str:
    """Return the lines of shell before a program: modules, environment, and what is written out."""
    modules, environment = entry.get('modules') or [], entry.get('environment') or {}
    if not isinstance(modules, list) or not isinstance(environment, Mapping):
        raise ValueError('`modules` has to be a list, `environment` a list of names with values.')
    lines = [f'module load {" ".join(shlex.quote(str(name)) for name in modules)}'] if modules else []
    lines += [f'export {name}={shlex.quote(str(value))}' for name, value in environment.items()]
    return '\n'.join([*lines, *([str(entry['prepend']).rstrip()] if entry.get('prepend') else [])])


# ---------------------------------------------------------------------- what AiiDA gets


def register(cluster: Cluster, dry_run: bool = False) -> Iterator[Done]:
    """Make computer and codes, or find them; needs a loaded profile, and yields each as it is done."""
    computer = profile.find_computer(cluster.label)
    outcome: Any = 'created' if computer is None else 'found'
    if not dry_run:
        computer = _ensure_computer(cluster, computer)
    yield Done('computer', cluster.label, outcome, str(cluster.computer['work_directory']), dry_run)
    for entry in cluster.codes:
        yield _ensure_code(computer, cluster.label, entry, dry_run)


def _ensure_computer(cluster: Cluster, computer: Computer | None) -> Computer:
    """Make a computer, or refuse one that is another; what AiiDA lets change is as the file says."""
    from aiida import orm

    from aiida_perovmlip.calculations.resources import OF_NODE

    about = cluster.computer
    if computer is None:
        computer = orm.Computer(
            label=cluster.label,
            hostname=str(about['hostname']),
            transport_type=str(about['transport']),
            scheduler_type=str(about['scheduler']),
            workdir=str(about['work_directory']),
            description=str(about.get('description', '')),
        )
    else:
        for name, found in (
            ('hostname', computer.hostname),
            ('transport', computer.transport_type),
            ('scheduler', computer.scheduler_type),
        ):
            if found != about[name]:
                raise SetupFailure(
                    f'the computer `{cluster.label}` is there already, with the {name} {found} and not {about[name]}: '
                    'computers are part of provenance and never change; take another label.'
                )
    computer.set_workdir(str(about['work_directory']))
    computer.set_prepend_text(cluster.prepend)
    computer.set_shebang(str(about.get('shebang', '#!/bin/bash')))
    computer.set_mpirun_command(shlex.split(str(about.get('mpirun', 'srun -n {tot_num_mpiprocs}'))))
    computer.set_default_mpiprocs_per_machine(1)
    computer.set_use_double_quotes(False)
    computer.set_property(OF_NODE, about['node'])
    computer.store()
    interval = about.get('poll_interval')
    if interval is not None:
        computer.set_minimum_job_poll_interval(float(interval))
    _configure(computer, _part(about, 'connect', {}))
    return computer


def _configure(computer: Computer, connect: Mapping[str, Any]) -> None:
    """Tell AiiDA how to get there; raise a `SetupFailure` where the transport does not know an entry."""
    from aiida.common.exceptions import AiidaException

    known = set(computer.get_transport_class().get_valid_auth_params())
    unknown = sorted(set(connect) - known)
    if unknown:
        raise SetupFailure(
            f'`connect` has no entry `{unknown[0]}` for the transport {computer.transport_type}; there are '
            f'{", ".join(sorted(known))}.'
        )
    defaults = {'use_login_shell': False} if 'use_login_shell' in known else {}
    try:
        computer.configure(**{**defaults, **connect})
    except (AiidaException, ValueError, TypeError) as error:
        raise SetupFailure(f'the computer `{computer.label}` cannot be configured: {error}') from error


def _ensure_code(computer: Computer | None, label: str, entry: CodeEntry, dry_run: bool) -> Done:
    """Make a code; one that is another already gets another label and is hidden, as codes never change."""
    from aiida_perovmlip.calculations.resources import OF_CODE

    name = f'{entry.label}@{label}'
    old = profile.find_code(entry.label, label)
    is_same = old is not None and entry.is_that_of(old)
    outcome: Any = 'found' if is_same else 'created' if old is None else 'replaced'
    if not dry_run:
        assert computer is not None
        if not is_same:
            if old is not None:
                profile.retire(old)
            program = program_of(entry.plugin)
            plugin = {'default_calc_job_plugin': program.plugin} if program else {}
            old = entry.kind(
                label=entry.label,
                computer=computer,
                filepath_executable=entry.executable,
                prepend_text=entry.prepend,
                description=f'{entry.plugin} on {label}',
                **plugin,
                **entry.container,
            ).store()
        assert old is not None
        old.base.extras.set(OF_CODE, entry.options)
    return Done('code', name, outcome, entry.executable, dry_run)
