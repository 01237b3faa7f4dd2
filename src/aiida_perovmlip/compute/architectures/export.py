"""A potential written for another program, by a tool that comes with its trainer."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from aiida_perovmlip.compute.children import last_lines_of, start_child
from aiida_perovmlip.compute.contract import JobError, Status

LOG = 'export.log'


def export(module: str, arguments: Sequence[str], folder: Path, output: str, packages: dict[str, str]) -> Path:
    """Run a module of a trainer in a folder and return the file that it left there; one that is there is used again.

    :param packages: names of the packages that it needs, by what is imported of each.
    """
    path = folder / output
    if path.is_file():
        return path
    missing = [package for name, package in packages.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise JobError(
            Status.MISSING_PACKAGE,
            f'The potential has to be written in a form of its own before the program can read it, and {sys.executable}'
            f' has no {", ".join(missing)} for that. Take as `code` a Python that has it, with the program in its '
            'path, for example by `module load` in the `prepend_text` of the code.',
        )
    with (folder / LOG).open('a') as log:
        process = start_child([sys.executable, '-m', module, *arguments], folder, log, dict(os.environ))
        code = process.wait()
    if code or not path.is_file():
        said = last_lines_of((folder / LOG).read_text(errors='replace'))
        raise JobError(Status.FAILED, f'{module} could not write {output} (exit status {code}). {said}')
    return path
