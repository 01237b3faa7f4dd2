"""Steps of a chain that run in the AiiDA process, with provenance."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from aiida import orm
from aiida.engine import calcfunction
from aiida.engine.processes.functions import ProcessFunctionType

P = ParamSpec('P')
R = TypeVar('R')


def recorded(function: Callable[P, R]) -> ProcessFunctionType[P, R, orm.CalcFunctionNode]:
    """Make a calcfunction that always runs: AiiDA would not see an edit of the modules behind it.

    Equal outputs have equal hashes, so jobs that start from these are still found in the cache.
    """
    process = calcfunction(function)
    process.is_valid_cache = _never
    return process


def _never(node: orm.ProcessNode) -> bool:
    """Whether a finished run may stand in for another one."""
    return False
