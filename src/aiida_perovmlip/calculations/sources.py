"""The sources that a job takes along: the modules of its task and plug-ins and all that these import of ours."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

HARNESS = 'aiida_perovmlip.compute.harness'
OURS = 'aiida_perovmlip.compute'


def job_sources(task: str, plugins: Iterable[str]) -> dict[str, Path | None]:
    """Return the file of each path that a job's working directory needs; None stands for an empty file.

    :param task: `module:Class` of the task.
    :param plugins: `module:Class` of each plug-in.
    """
    waiting = [HARNESS, *(reference.partition(':')[0] for reference in (task, *plugins))]
    roots = {OURS, *(module.partition('.')[0] for module in waiting if not module.startswith('aiida_perovmlip.'))}
    found: dict[str, Path] = {}
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found[module] = _file_of(module)
        names = _imports(found[module], found[module].stat().st_mtime_ns, module)
        waiting += [name for name in names if _is_ours(name, roots) and _exists(name)]
    return _with_packages(found)


def digest(files: Iterable[Path | None]) -> int:
    """Return a number that changes when one of the files changes."""
    state = hashlib.sha256()
    for content in sorted(path.read_bytes() for path in files if path is not None):
        state.update(hashlib.sha256(content).digest())
    return int(state.hexdigest()[:12], 16)


def _with_packages(modules: dict[str, Path]) -> dict[str, Path | None]:
    """Return the files by path; the packages around them get an empty `__init__.py`."""
    paths: dict[str, Path | None] = {}
    for module, file in modules.items():
        if file.name == '__init__.py':
            continue
        parts = module.split('.')
        paths['/'.join(parts) + '.py'] = file
        for depth in range(1, len(parts)):
            paths.setdefault('/'.join((*parts[:depth], '__init__.py')), None)
    return dict(sorted(paths.items()))


def _is_ours(module: str, roots: set[str]) -> bool:
    """Whether a module is uploaded: part of `compute`, or of the package of a plug-in from elsewhere."""
    return any(module == root or module.startswith(f'{root}.') for root in roots)


def _exists(module: str) -> bool:
    """Whether this is a module, and not a name inside one."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _file_of(module: str) -> Path:
    """Return the source file of a module without running it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f'the source of {module} was not found.')
    return Path(spec.origin)


@lru_cache(maxsize=256)
def _imports(path: Path, modified: int, module: str) -> frozenset[str]:
    """Return the names of all modules that a file imports anywhere; `modified` keeps the answer fresh."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = module.split('.')[: -node.level] if node.level else []
            base = '.'.join([*parent, *([node.module] if node.module else [])])
            names |= {base, *(f'{base}.{alias.name}' for alias in node.names)}
    return frozenset(names)
