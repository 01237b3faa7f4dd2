"""A whole set-up, step by step: environments, profile, computer, codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aiida_perovmlip.installation import catalogue, profile
from aiida_perovmlip.installation.environments import Environment, Torch, environment_of, own_python
from aiida_perovmlip.installation.outcome import Done
from aiida_perovmlip.installation.programs import find_executable, program_of


def set_up(
    plugins: tuple[str, ...],
    prefix: Path,
    torch: Torch = 'cpu',
    profile_name: str | None = None,
    environments_only: bool = False,
    dry_run: bool = False,
) -> Iterator[Done]:
    """Set this machine up for these plug-ins and for all that need no environment; yield each step as it is done.

    Environments come first: where one fails, AiiDA was not touched.
    """
    executables = required_executables(plugins)
    environments = required_environments(plugins, prefix, torch)
    for environment in environments.values():
        yield environment.build(dry_run)
        if (library := environment.build_library(dry_run)) is not None:
            yield library
    if environments_only:
        return
    yield from _set_up_aiida(environments, executables, profile_name, dry_run)


def required_environments(plugins: tuple[str, ...], prefix: Path, torch: Torch = 'cpu') -> dict[str, Environment]:
    """Return the environments of these plug-ins by name, without those plug-ins that need none."""
    wanted = {name: environment_of(name, prefix, torch) for name in dict.fromkeys(plugins)}
    return {name: environment for name, environment in wanted.items() if environment is not None}


def required_executables(plugins: tuple[str, ...]) -> dict[str, Path]:
    """Return the executables of those of these plug-ins that run a program of its own."""
    wanted = {name: program_of(name) for name in dict.fromkeys(plugins)}
    return {name: find_executable(name, program) for name, program in wanted.items() if program is not None}


def interpreters(environments: dict[str, Environment]) -> dict[str, Path]:
    """Return the Python of each code: that of its environment, or ours for plug-ins that need nothing."""
    free = {name: own_python() for name in catalogue.without_requirements()}
    return free | {name: environment.python for name, environment in environments.items()}


def _set_up_aiida(
    environments: dict[str, Environment], executables: dict[str, Path], name: str | None, dry_run: bool
) -> Iterator[Done]:
    pythons = interpreters(environments)
    _, exists = profile.choose_profile(name)
    yield profile.ensure_profile(name, dry_run)
    if dry_run and not exists:
        yield from profile.would_be_created({**pythons, **executables})
        return
    yield profile.ensure_localhost(dry_run)
    for label, python in pythons.items():
        where = f'the environment {label}-{environments[label].key}' if label in environments else 'this installation'
        yield profile.ensure_code(label, python, dry_run, description=f'Python of {where}')
    for label, executable in executables.items():
        yield profile.ensure_code(label, executable, dry_run, **_about_program(label))


def _about_program(name: str) -> dict[str, str]:
    """Return the properties of the code of a program."""
    program = program_of(name)
    if program is None:
        return {}
    return {'default_calc_job_plugin': program.plugin, 'prepend_text': program.prepend, 'description': name}
