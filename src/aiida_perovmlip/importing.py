"""Datasets and potentials from files of any origin, with the files as their beginning in the graph."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

Kind = Literal['extxyz', 'run', 'ase-db', 'ml-ab']
KINDS: tuple[Kind, ...] = ('extxyz', 'run', 'ase-db', 'ml-ab')
"""What a dataset can be read from: extended XYZ, a folder or file of CP2K or VASP, a database of ASE, an `ML_AB`."""

TRUSTED = 'perovmlip-trusted'
"""The file beside AiiDA's configuration with the hashes that somebody vouched for, as `sha256sum` writes them."""


class NotTrusted(PermissionError):  # noqa: N818 - says what is the matter
    """Files would run foreign code where they are opened, and nobody has vouched for them."""

    exit_code = 5


# ---------------------------------------------------------------------- datasets


def import_dataset(
    path: Path,
    kind: Kind | None = None,
    level: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    label: str = '',
) -> Any:
    """Return a stored dataset of a file or folder; a file that cannot be read leaves nothing in the profile.

    :param kind: what it is; by default what its name says.
    :param level: level of theory of the labels; read from the files where these are of CP2K or VASP.
    :param columns: for a database of ASE: where it has what; see `import_ase_db`.
    """
    if not path.exists():
        raise FileNotFoundError(f'there is no file or folder {path}.')
    path = path.absolute()
    kind = kind or kind_of(path)
    if kind == 'ase-db' and not level:
        raise ValueError('a database of ASE does not tell its level of theory; state it by --level, twice or more.')
    read = {'extxyz': _from_extxyz, 'run': _from_run, 'ase-db': _from_database, 'ml-ab': _from_ml_ab}[kind]
    dataset = read(path, dict(level or {}), dict(columns or {}))
    dataset.label = label or path.name
    return dataset


def kind_of(path: Path) -> Kind:
    """Return what a file or folder is by its name."""
    name = path.name.removesuffix('.gz').lower()
    if path.is_dir():
        return 'run'
    if name.endswith(('.xyz', '.extxyz')):
        return 'extxyz'
    if name.endswith('.db'):
        return 'ase-db'
    return 'ml-ab' if name.startswith('ml_ab') else 'run'


def _from_extxyz(path: Path, level: dict[str, Any], _: Any) -> Any:
    from aiida import orm

    from aiida_perovmlip.calculations.functions.dataset import import_extxyz

    file, stated = orm.SinglefileData(path), orm.Dict(level)
    with nothing_left_behind(file, stated):
        return import_extxyz(file, stated)


def _from_run(path: Path, level: dict[str, Any], _: Any) -> Any:
    from aiida_perovmlip.labellers.imports import dataset_from_run

    return dataset_from_run(path, level=level or None)


def _from_database(path: Path, level: dict[str, Any], columns: dict[str, str]) -> Any:
    from aiida import orm

    from aiida_perovmlip.labellers.imports import import_ase_db

    file, stated, options = orm.SinglefileData(path), orm.Dict(level), orm.Dict(columns)
    with nothing_left_behind(file, stated, options):
        return import_ase_db(file, stated, options)['dataset']


def _from_ml_ab(path: Path, level: dict[str, Any], _: Any) -> Any:
    from aiida import orm

    from aiida_perovmlip.labellers.vasp.functions import import_ml_ab

    file, stated = orm.SinglefileData(path), orm.Dict(level)
    with nothing_left_behind(file, stated):
        return import_ml_ab(file, stated)


@contextmanager
def nothing_left_behind(*nodes: Any) -> Iterator[None]:
    """Where an import fails, delete the nodes that went in, which nobody can use, and the process that tried."""
    try:
        yield
    except Exception:
        _delete([node.pk for node in nodes if node.is_stored])
        raise


def _delete(pks: Sequence[int]) -> None:
    """Delete nodes and the processes that they went into, without a word."""
    import logging

    from aiida.common.log import LOG_LEVEL_REPORT
    from aiida.tools import delete_nodes

    logging.disable(LOG_LEVEL_REPORT)
    try:
        delete_nodes(pks, dry_run=False)
    finally:
        logging.disable(logging.NOTSET)


# ---------------------------------------------------------------------- potentials


def import_potential(
    path: Path,
    architecture: str,
    levels: Mapping[str, Any] | None = None,
    *,
    code: str | None = None,
    trust: bool = False,
    sha256: str | None = None,
    label: str = '',
) -> Any:
    """Return a stored potential of a file or folder that somebody else made.

    Text is read here. A pickle is opened in a job, by the Python of a code, and only where it is vouched for: by
    `trust`, by a hash that the files have, or because a file of this hash was vouched for before on this machine.

    :param levels: the level of theory, or one for each head; None where it is not known.
    :param code: name of the code; by default the one that is called as the architecture.
    :param sha256: the hash that its author has published: that of the file or, of a folder, see `hash_of_files`.
    """
    from aiida import orm

    from aiida_perovmlip.calculations.functions import potentials
    from aiida_perovmlip.compute import registry
    from aiida_perovmlip.query.codes import find_code

    kind = registry.load('architectures', architecture)()
    digest = hash_of_files(path)
    if sha256 is not None and sha256.lower() != digest:
        raise ValueError(f'{path} has the SHA-256 {digest}, not {sha256}: it is not the file that was published.')
    with TemporaryDirectory() as scratch:
        files = _files_of(path, kind, Path(scratch))
        inputs = {'architecture': orm.Str(architecture), 'levels': orm.Dict(dict(levels or {}))}
        if kind.opens_pickles:
            _refuse_unknown(path, kind.name, digest, trust or sha256 is not None)
            potential = _open_in_job(files, find_code(code, architecture), **inputs)
            remember(digest, path.name)
        else:
            with nothing_left_behind(files, *inputs.values()):
                potential = potentials.import_potential(files=files, **inputs)
    potential.label = label or path.name
    return potential


def _files_of(path: Path, kind: Any, scratch: Path) -> Any:
    """Return an unstored node of the files, of which a single one gets the name that its architecture looks for."""
    import shutil

    from aiida import orm

    if path.is_dir():
        return orm.FolderData(tree=str(path.absolute()))
    if not kind.filename:
        raise ValueError(f'a potential of {kind.name} is a folder; give the folder, not one file of it.')
    shutil.copyfile(path, scratch / kind.filename)
    return orm.FolderData(tree=str(scratch))


def _refuse_unknown(path: Path, name: str, digest: str, is_trusted: bool) -> None:
    """Refuse a pickle that nobody has vouched for."""
    if is_trusted or digest in known_hashes():
        return
    raise NotTrusted(
        f'files of {name} are pickles, which can run foreign code when they are opened, and {path} (SHA-256 {digest}) '
        'is not known here. Compare this hash with the one that its author has published, and pass that by --sha256; '
        'or pass --trust where you know whom the file is from.'
    )


def _open_in_job(files: Any, code: Any, **inputs: Any) -> Any:
    """Return the potential that a job has looked into, with what it had to tell where there is none."""
    import sys

    from aiida_perovmlip.calculations.inspect import InspectCalculation
    from aiida_perovmlip.launch import run_job

    builder = InspectCalculation.get_builder()
    builder.files, builder.code, builder.trust = files, code, True
    for name, value in inputs.items():
        setattr(builder, name, value)
    return run_job(builder, 'Looking into the files', sys.stderr).outputs.potential


def hash_of_files(path: Path) -> str:
    """Return the SHA-256 of a file, or that of the list of all files of a folder as `sha256sum` writes it."""
    if not path.exists():
        raise FileNotFoundError(f'there is no file or folder {path}.')
    if path.is_file():
        return _sha256(path)
    names = {file.relative_to(path).as_posix(): file for file in path.rglob('*') if file.is_file()}
    lines = ''.join(f'{_sha256(names[name])}  {name}\n' for name in sorted(names))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open('rb') as handle:
        return hashlib.file_digest(handle, 'sha256').hexdigest()


def trusted_file() -> Path:
    """Return where the hashes are that somebody vouched for: on this machine, and in no archive."""
    from aiida_perovmlip.installation.profile import config_folder

    return config_folder() / TRUSTED


def known_hashes() -> set[str]:
    """Return the hashes that somebody vouched for."""
    file = trusted_file()
    lines = file.read_text(encoding='utf-8').splitlines() if file.is_file() else []
    return {line.split()[0].lower() for line in lines if line.strip() and not line.startswith('#')}


def remember(digest: str, name: str) -> None:
    """Enter a hash among those that somebody vouched for."""
    if digest not in known_hashes():
        with trusted_file().open('a', encoding='utf-8') as handle:
            handle.write(f'{digest}  {name}\n')
