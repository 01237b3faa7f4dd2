"""Files that several nodes have: the object store keeps each once, and here they are named instead of copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from aiida import orm


def adopt(node: orm.Data, files: Mapping[str, str], opener: Callable[[str], AbstractContextManager[BinaryIO]]) -> None:
    """Take over files of another node; those that the object store has are named and not read.

    :param files: SHA-256 by path.
    :param opener: opens one of these by its path.
    """
    store = node.backend.get_repository()
    for path, sha256 in files.items():
        known = store.key_format == 'sha256' and store.has_object(sha256)
        if known and _works_in(node, store):
            node.base.repository._repository._insert_file(PurePosixPath(path), sha256)
        else:
            with opener(path) as handle:
                node.base.repository.put_object_from_filelike(handle, path)


def _works_in(node: orm.Data, store: Any) -> bool:
    """Let an unstored node work in the object store itself, so that it can name what is there; whether it does.

    AiiDA has no public way to do so: a file that is put into an unstored node is copied into a sandbox and from
    there into the object store, which for large files costs gigabytes of traffic to find that nothing is new.
    """
    from aiida.repository import Repository
    from aiida.repository.backend import SandboxRepositoryBackend

    interface = node.base.repository
    if not isinstance(interface._repository.backend, SandboxRepositoryBackend):
        return True
    if not interface._repository.is_empty():
        return False  # files wait in the sandbox already
    interface._repository = Repository(backend=store)
    return True
