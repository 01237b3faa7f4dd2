"""What every plug-in that runs inside a job has: a name, requirements, versions and a self-test."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any, ClassVar

from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.contract import JobError, Status


class Plugin:
    """Base of architectures, of engines, and of labellers that run inside a job.

    A plug-in is one module that imports nothing but the standard library, numpy, ase and
    `aiida_perovmlip.compute` at module level; its own package is imported inside the methods that need it.
    """

    name: ClassVar[str]
    """The name of the entry point."""

    summary: ClassVar[str] = ''
    """One sentence for lists."""

    citations: ClassVar[tuple[Citation, ...]] = ()
    """The works that who publishes what it did has to cite."""

    requirements: ClassVar[tuple[str, ...]] = ()
    """What pip must install in the environment of this plug-in; nothing where numpy and ase are enough."""

    needs_potential: ClassVar[bool] = False
    """Whether it works with a stored potential, and so in the environment of that potential's architecture."""

    Settings: ClassVar[type[Any]]
    """The settings that this plug-in understands."""

    @classmethod
    def packages(cls) -> tuple[str, ...]:
        """Return the names of the packages whose versions a job reports."""
        names = (requirement.split(';')[0].strip() for requirement in cls.requirements)
        return tuple(name.split('[')[0].split('=')[0].split('<')[0].split('>')[0].strip() for name in names)

    @classmethod
    def needs_packages_of(cls, role: str) -> bool:
        """Return whether a job with this plug-in needs the packages of its plug-in of another role."""
        return True

    def device(self, wanted: str) -> str:
        """Return the device that this plug-in will use where `wanted` (`auto`, `cpu` or `cuda`) is asked for."""
        return 'cpu'

    def self_test(self) -> str:
        """Do one small real thing in about a second; return a sentence of what was found, or raise."""
        raise NotImplementedError


def device_of_torch(wanted: str) -> str:
    """Return `cuda` where it is wanted, or for `auto` where torch sees one; raise where it is wanted in vain."""
    if wanted == 'cpu':
        return 'cpu'
    import torch

    if torch.cuda.is_available():
        return 'cuda'
    if wanted == 'cuda':
        raise JobError(Status.BAD_INPUT, 'The device `cuda` was asked for, but torch sees none on this machine.')
    return 'cpu'


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each package; a missing one is called `missing`."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = 'missing'
    return found


def load_object(name: str) -> Any:
    """Return the object called `module:Name`."""
    module, _, attribute = name.partition(':')
    return getattr(importlib.import_module(module), attribute)
