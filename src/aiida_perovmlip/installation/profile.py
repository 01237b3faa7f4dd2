"""The AiiDA profile, the computer `localhost` and the codes: found where they exist, made where they do not."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.installation.outcome import Done, SetupFailure

if TYPE_CHECKING:
    from aiida.manage.configuration import Profile
    from aiida.manage.configuration.config import Config
    from aiida.orm import Computer, InstalledCode

PROFILE = 'perovmlip'
COMPUTER = 'localhost'
OPTIONS: dict[str, Any] = {
    'runner.poll.interval': 1,
    'daemon.timeout': 60,  # the 2 s of AiiDA are too few on a busy machine
    'daemon.default_workers': 2,
    'warnings.showdeprecations': False,  # they speak to us, not to who uses this package
}
"""What a profile made here sets."""


def config_folder() -> Path:
    """Return the folder of AiiDA's configuration by AiiDA's own rule.

    Importing AiiDA makes this folder; who only looks must not, so the rule is written down here a second time.
    """
    if settings := sys.modules.get('aiida.manage.configuration.settings'):
        return Path(settings.AiiDAConfigDir.get())
    candidates = [Path(part).expanduser() for part in os.environ.get('AIIDA_PATH', '').split(':') if part]
    folders = [part if part.name == '.aiida' else part / '.aiida' for part in candidates] or [Path.home() / '.aiida']
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def is_configured() -> bool:
    """Tell whether AiiDA has a configuration at all."""
    return (config_folder() / 'config.json').is_file()


def choose_profile(name: str | None) -> tuple[str, bool]:
    """Return the name of the profile that is meant, and whether it exists."""
    if not is_configured():
        return name or PROFILE, False
    config = _config()
    chosen = str(name or config.default_profile_name or PROFILE)
    return chosen, chosen in config.profile_names


def load_profile(name: str | None = None) -> Profile:
    """Load a profile, the default one if no name is given; a missing one is a sentence, not a traceback."""
    chosen, exists = choose_profile(name)
    if not exists:
        how = f' --profile {name}' if name else ''
        raise SetupFailure(f'there is no AiiDA profile `{chosen}`. Make one: `aiida-perovmlip setup{how}`.')
    from aiida import load_profile as load
    from aiida.common.exceptions import AiidaException

    try:
        return load(chosen, allow_switch=True)
    except AiidaException as error:
        raise SetupFailure(f'the AiiDA profile `{chosen}` cannot be loaded: {error}') from error


def ensure_profile(name: str | None = None, dry_run: bool = False) -> Done:
    """Load the named profile or the default one; make it, with SQLite and the broker inside AiiDA, if it is missing."""
    chosen, exists = choose_profile(name)
    if not exists and not dry_run:
        _create_profile(chosen)
    if exists or not dry_run:
        load_profile(chosen)
    return Done('profile', chosen, 'found' if exists else 'created', str(config_folder()), dry_run)


def ensure_localhost(dry_run: bool = False) -> Done:
    """Make sure that jobs can run on this very machine; needs a loaded profile."""
    computer = find_computer()
    if computer is not None:
        if not computer.is_configured and not dry_run:
            _configure(computer)
        return Done('computer', COMPUTER, 'found', str(computer.get_workdir()), dry_run)
    if not dry_run:
        _create_computer()
    return Done('computer', COMPUTER, 'created', str(work_folder()), dry_run)


def ensure_code(label: str, executable: Path, dry_run: bool = False, **about: str) -> Done:
    """Make sure that the code `label@localhost` is this executable; needs a loaded profile.

    A code is part of provenance and never changed: one that points elsewhere gets another label and is hidden.

    :param about: further properties of a code that has to be made, such as `description`.
    """
    old = find_code(label)
    name = f'{label}@{COMPUTER}'
    if old is not None and str(old.filepath_executable) == str(executable):
        return Done('code', name, 'found', str(executable), dry_run)
    if not dry_run:
        if old is not None:
            retire(old)
        _create_code(label, executable, about)
    return Done('code', name, 'created' if old is None else 'replaced', str(executable), dry_run)


def would_be_created(labels: Mapping[str, Path]) -> list[Done]:
    """Return what a new profile would get, where there is none to look into."""
    codes = [Done('code', f'{label}@{COMPUTER}', 'created', str(python), True) for label, python in labels.items()]
    return [Done('computer', COMPUTER, 'created', '', True), *codes]


def find_computer(label: str = COMPUTER) -> Computer | None:
    """Return a computer of the loaded profile."""
    from aiida.common.exceptions import NotExistent
    from aiida.orm import Computer

    try:
        return Computer.collection.get(label=label)
    except NotExistent:
        return None


def find_code(label: str, computer: str = COMPUTER) -> InstalledCode | None:
    """Return the newest code of a label on a computer that is not hidden."""
    return next((code for code in reversed(find_codes(label)) if code.computer.label == computer), None)


def retire(code: InstalledCode) -> None:
    """Make room for another code of this label: a code is part of provenance and never changed."""
    code.label = f'{code.label}-{code.pk}'
    code.is_hidden = True


def find_codes(label: str | None = None) -> list[InstalledCode]:
    """Return all codes that are not hidden, of one label or of any, on all computers, oldest first."""
    from aiida.orm import ContainerizedCode, InstalledCode, QueryBuilder

    kinds = (InstalledCode, ContainerizedCode)
    query = QueryBuilder().append(kinds, filters={} if label is None else {'label': label}, tag='code')
    codes = query.order_by({'code': 'id'}).all(flat=True)
    return [code for code in codes if not code.is_hidden]


def work_folder() -> Path:
    """Return where the jobs of the loaded profile run: beside the profile, so that two of them never meet."""
    from aiida.manage.configuration import get_profile

    profile = get_profile()
    return config_folder() / 'work' / (PROFILE if profile is None else profile.name)


def _config(create: bool = False) -> Config:
    from aiida.manage.configuration import get_config

    return get_config(create=create)


def _create_profile(name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Creating AiiDA configuration folder')
        from aiida.manage.configuration import create_profile
    from aiida.common.exceptions import AiidaException
    from aiida.common.log import override_log_level

    config = _config(create=True)
    try:
        with override_log_level():
            create_profile(
                config,
                name=name,
                email='aiida@localhost',
                storage_backend='core.sqlite_dos',
                storage_config={},
                broker_backend='core.zeromq',
                broker_config={'supervised_by_daemon': True},
            )
    except (AiidaException, ValueError, TypeError) as error:
        raise SetupFailure(f'the AiiDA profile `{name}` could not be made: {error}') from error
    for option, value in OPTIONS.items():
        config.set_option(option, value, scope=name)
    if config.default_profile_name in (None, name):
        config.set_default_profile(name, overwrite=True)
    config.store()


def _create_computer() -> None:
    from aiida.orm import Computer

    computer = Computer(
        label=COMPUTER,
        hostname='localhost',
        description='This machine',
        transport_type='core.local',
        scheduler_type='core.direct',
        workdir=str(work_folder()),
    )
    computer.set_default_mpiprocs_per_machine(1)
    _configure(computer.store())


def _configure(computer: Computer) -> None:
    """Configure without a login shell, which costs half a second a command."""
    computer.configure(safe_interval=0.0, use_login_shell=False)
    computer.set_minimum_job_poll_interval(2.0)  # a look takes 50 ms of a core, which a training misses


def _create_code(label: str, executable: Path, about: dict[str, str]) -> None:
    from aiida.orm import InstalledCode, load_computer

    computer = load_computer(COMPUTER)
    InstalledCode(label=label, computer=computer, filepath_executable=str(executable), with_mpi=False, **about).store()
