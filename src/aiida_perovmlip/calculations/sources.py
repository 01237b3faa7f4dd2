"""The sources that a job takes along: the modules of its task and plug-ins and all that these import of ours."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

HARNESS = 'aiida_perovmlip.compute.harness'
OURS = 'aiida_perovmlip'
SOURCES = 'sources.zip'
"""The file of a job that Python imports them from: one file takes less to send and to store than many."""

TRAVELLING = f'{OURS}.compute.'
INSTALLED = ('site-packages', 'dist-packages')
"""Folders in which modules lie beside each other that have nothing to do with each other."""


def job_sources(task: str, plugins: Iterable[str]) -> dict[str, Path | None]:
    """Return the file of each path that a job's working directory needs; None stands for an empty file.

    Our own packages are empty there, so that their modules are found and nothing else of ours is.

    :param task: `module:Class` of the task.
    :param plugins: `module:Class` of each plug-in.
    :raises ValueError: where the source of one of them is not found.
    """
    start = [HARNESS, *(reference.partition(':')[0] for reference in (task, *plugins))]
    for module in start:
        source_of(module)
    belongs = _family(start)
    modules = _closure(start, lambda name: _travels(name) or belongs(_top(name)))
    paths = {_path_in_job(module, file): file for module, file in modules.items()}
    return dict(sorted({**_packages_of_ours(modules), **paths}.items()))


def pack(sources: Mapping[str, Path | None], target: Path) -> None:
    """Write sources into one file; equal sources are equal bytes, of which the repository keeps one copy."""
    folders = {f'{folder}/' for path in sources for folder in PurePosixPath(path).parents} - {'./'}
    with ZipFile(target, 'w') as packed:
        for folder in sorted(folders):  # else Python finds no packages without `__init__.py`
            packed.writestr(ZipInfo(folder), b'')
        for path, source in sources.items():
            packed.writestr(ZipInfo(path), source.read_bytes() if source else b'', ZIP_DEFLATED)


def host_sources(modules: Sequence[str]) -> dict[str, Path]:
    """Return the file of each module of the AiiDA side that some modules need: of ours, and beside theirs."""
    belongs = _family(modules)
    return _closure(modules, lambda name: _top(name) == OURS or belongs(_top(name)))


def source_of(module: str) -> Path:
    """Return the source file of a module without running it.

    :raises ValueError: where there is none.
    """
    file = _locate(module)
    if file is None:
        raise ValueError(f'no Python source of the module `{module}` was found, so it cannot be taken along.')
    return file


def digest(files: Iterable[Path | None]) -> int:
    """Return a number that changes when one of the files changes."""
    state = hashlib.sha256()
    for content in sorted(path.read_bytes() for path in files if path is not None):
        state.update(hashlib.sha256(content).digest())
    return int(state.hexdigest()[:12], 16)


# ---------------------------------------------------------------------- which modules


def _closure(start: Iterable[str], taken: Callable[[str], bool]) -> dict[str, Path]:
    """Return the files of modules, of the packages around them, and of all that these import and that is taken."""
    found: dict[str, Path] = {}
    waiting, seen = list(start), set(start)
    while waiting:
        module = waiting.pop()
        file = _locate(module)
        if file is None:  # a namespace package, or a name inside of a module
            continue
        found[module] = file
        names = _imports(file, file.stat().st_mtime_ns, module)
        around = {name for each in (module, *names) for name in _packages_around(each)}
        fresh = {name for name in names | around if name not in seen and taken(name)}
        seen |= fresh
        waiting += fresh
    return found


def _travels(module: str) -> bool:
    """Whether this is a module of ours that jobs can use, and not a package."""
    if not module.startswith(TRAVELLING):
        return False
    file = _locate(module)
    return file is not None and file.name != '__init__.py'


def _family(modules: Iterable[str]) -> Callable[[str], bool]:
    """Return whether a top-level module comes with some modules from elsewhere.

    It does where both are of one distribution, or where both lie in one folder into which nothing is installed.
    """
    tops = {_top(module) for module in modules} - {OURS}
    folders = {folder for folder in map(_folder_of, tops) if folder and folder.name not in INSTALLED}

    @cache
    def belongs(top: str) -> bool:
        if top in tops or not tops or top == OURS:
            return top in tops
        owners = set(_distributions().get(top, ()))
        theirs = {owner for each in tops for owner in _distributions().get(each, ())}
        return bool(owners & theirs) if owners else _folder_of(top) in folders

    return belongs


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    """Return the names of the installed distributions that each top-level module is of."""
    return packages_distributions()


def _packages_of_ours(modules: Iterable[str]) -> dict[str, None]:
    """Return the path of an empty `__init__.py` for each of our packages around some modules."""
    around = {package for module in modules if _top(module) == OURS for package in _packages_around(module)}
    return {f'{package.replace(".", "/")}/__init__.py': None for package in around}


def _path_in_job(module: str, file: Path) -> str:
    """Return the path at which Python finds a module in the working directory."""
    path = module.replace('.', '/')
    return f'{path}/__init__.py' if file.name == '__init__.py' else f'{path}.py'


# ---------------------------------------------------------------------- where modules are


def _top(module: str) -> str:
    return module.partition('.')[0]


def _packages_around(module: str) -> list[str]:
    parts = module.split('.')
    return ['.'.join(parts[:depth]) for depth in range(1, len(parts))]


def _locate(module: str) -> Path | None:
    """Return the source file of a module; the packages around it are not imported, as they may need their own."""
    top, *rest = module.split('.')
    file, folders = _locate_top(top)
    for part in rest:
        file, folders = _locate_inside(folders, part)
    return file


def _locate_top(name: str) -> tuple[Path | None, list[Path]]:
    """Return the file of a top-level module and the folders of a package."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a ValueError says that the module was made by hand
        spec = None
    if spec is None:
        return None, []
    file = Path(spec.origin) if spec.origin and spec.origin.endswith('.py') else None
    return file, [Path(folder) for folder in spec.submodule_search_locations or ()]


def _locate_inside(folders: Iterable[Path], part: str) -> tuple[Path | None, list[Path]]:
    """Return the file of a module inside of a package, and its folders where it is a package itself."""
    within = [folder / part for folder in folders]
    for place in within:
        if (package := place / '__init__.py').is_file():
            return package, [place]
        if (module := place.with_name(f'{part}.py')).is_file():
            return module, []
    return None, [place for place in within if place.is_dir()]


def _folder_of(top: str) -> Path | None:
    """Return the folder that a top-level module lies in."""
    file, folders = _locate_top(top)
    if folders:
        return folders[0].parent
    return file.parent if file else None


# ---------------------------------------------------------------------- what a module imports


@lru_cache(maxsize=1024)
def _imports(path: Path, modified: int, module: str) -> frozenset[str]:
    """Return the names of all modules that a file imports anywhere; `modified` keeps the answer fresh."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'the source of the module `{module}` cannot be read: {error}') from None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _base_of(node, module, is_package=path.name == '__init__.py')
            names |= {base, *(f'{base}.{alias.name}' for alias in node.names)} if base else set()
    return frozenset(names)


def _base_of(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Return the full name of the module that is imported from; one dot inside of a package is the package itself."""
    parts = module.split('.')
    depth = len(parts) - node.level + is_package
    parents = parts[: max(depth, 0)] if node.level else []
    return '.'.join([*parents, *([node.module] if node.module else [])])
