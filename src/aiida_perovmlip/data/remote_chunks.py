"""Chunks that stay on the computer where they were made: fetched one at a time, checked, and deleted after use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from aiida import orm
from aiida.common.exceptions import NotExistent

from aiida_perovmlip.compute.chunk import ChunkEntry, TrajectoryError
from aiida_perovmlip.compute.frames import sha256_of


class MissingChunkError(TrajectoryError):
    """A chunk is no longer on the computer."""


class ChangedChunkError(TrajectoryError):
    """A chunk on the computer is not what it was when the trajectory was stored."""


class UnreachableComputerError(TrajectoryError):
    """The computer that has the chunks cannot be reached."""


class RemoteChunks:
    """A connection to a computer with chunks, which is made when the first one is asked for."""

    def __init__(self, computer: orm.Computer) -> None:
        self.computer = computer
        self._stack = ExitStack()
        self._transport: Any = None

    def __enter__(self) -> RemoteChunks:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport = None
        self._stack.close()

    @contextmanager
    def open(self, entry: ChunkEntry) -> Iterator[BinaryIO]:
        """Fetch a chunk and open it; the copy goes when it is closed."""
        with TemporaryDirectory(prefix='chunk-') as scratch:
            path = Path(scratch) / 'chunk.npz'
            self._fetch(entry, path)
            found = sha256_of(path)
            if found != entry.name:
                raise ChangedChunkError(
                    f'on {self.computer.label} its SHA-256 is {found}, but it was {entry.name} when the trajectory '
                    'was stored. What is there now is not used; run the job again, or bring the file back.'
                )
            with path.open('rb') as handle:
                yield handle

    def _fetch(self, entry: ChunkEntry, path: Path) -> None:
        """Copy a chunk from the computer."""
        try:
            if self._transport is None:
                self._transport = self._stack.enter_context(self._connection())
            there = self._transport.isfile(entry.path)
            if there:
                self._transport.getfile(entry.path, str(path))
        except Exception as error:  # transports raise what the libraries beneath them raise
            raise UnreachableComputerError(
                f'the computer {self.computer.label} did not give it ({type(error).__name__}: {error}). Try again when '
                f'`verdi computer test {self.computer.label}` succeeds.'
            ) from error
        if not there:
            raise MissingChunkError(
                f'it is not on {self.computer.label} any more. Bring the file back from where it was moved, or run '
                'the job again.'
            )

    def _connection(self) -> Any:
        """Return a transport that is not open yet."""
        try:
            return self.computer.get_authinfo(orm.User.collection.get_default()).get_transport()
        except NotExistent as error:
            raise ConnectionError(f'it is not configured: verdi computer configure … {self.computer.label}') from error
