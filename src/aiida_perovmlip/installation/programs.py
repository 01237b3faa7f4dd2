"""Programs that come by their own means, such as CP2K: found on this machine, or named with how to get them."""

from __future__ import annotations

import shutil
from pathlib import Path

from aiida_perovmlip.compute import registry
from aiida_perovmlip.installation.outcome import SetupFailure
from aiida_perovmlip.labellers.base import Labeller, Program


def program_of(name: str) -> Program | None:
    """Return the program that a plug-in runs; None where it runs in an environment of ours, or is none."""
    if name not in registry.names('labellers'):
        return None
    try:
        kind = registry.load('labellers', name)
    except (ImportError, AttributeError) as error:
        raise SetupFailure(f'the plug-in `{name}` cannot be loaded: {error}.') from error
    return kind.program if isinstance(kind, type) and issubclass(kind, Labeller) else None


def find_executable(name: str, program: Program) -> Path:
    """Return the executable on this machine."""
    for candidate in program.names:
        if found := shutil.which(candidate):
            return Path(found)
    raise SetupFailure(f'there is no {" or ".join(program.names)} on this machine for `{name}`. {program.how_to_get}')
