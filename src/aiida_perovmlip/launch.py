"""Run a job from a script and see it work: its progress while it runs, and whether it was taken from the cache."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

EVERY = 1.0
"""Seconds between two looks at the progress of a job."""


class JobFailed(RuntimeError):  # noqa: N818 - says what happened
    """A job ended with an exit code; the message is that of the job.

    :param node: the job, with whatever outputs it has left.
    """

    def __init__(self, message: str, node: Any) -> None:
        super().__init__(message)
        self.node = node


def run_job(builder: Any, what: str, stream: TextIO | None = None) -> Any:
    """Run a job here, show its progress, and return its node; raise `JobFailed` where it did not succeed.

    :param what: what the job does, in a few words for the reader.
    """
    from aiida_perovmlip.calculations.running import run_here

    stream = stream or sys.stdout
    started = time.monotonic()
    with _showing_progress(what, stream):
        node = run_here(builder)
    seconds = time.monotonic() - started
    if not node.is_finished_ok:
        _line(stream, f'{what}: failed ({node.process_label}, PK {node.pk})')
        message = f'{node.process_label} (PK {node.pk}) ended with exit code {node.exit_status}: {node.exit_message}'
        raise JobFailed(message, node)
    source = node.base.caching.get_cache_source()
    how = f'reused from the cache, as PK {_pk(source)} had done it' if source else f'done in {seconds:.0f} s'
    _line(stream, f'{what}: {how} (PK {node.pk})')
    return node


@contextmanager
def _showing_progress(what: str, stream: TextIO) -> Iterator[None]:
    """Print the progress of the job that starts next, from a thread of its own."""
    over = threading.Event()
    before = _newest_pk()  # here and not in the thread, which may come after the job
    thread = threading.Thread(target=_follow_newest, args=(what, stream, over, before), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10)


def _follow_newest(what: str, stream: TextIO, over: threading.Event, before: int) -> None:
    """Find the job's working directory as soon as there is one, and print what changes in its progress.

    Nothing of the storage is shared with the thread of the job: sessions belong to a thread, but a storage hands out
    its default user, which belongs to the session that asked first. Two threads in one session end in an exception of
    either, and that of the job would end the job.
    """
    from aiida_perovmlip.calculations.progress import describe, read_last_states

    shown, interactive, printed = '', stream.isatty(), 0.0
    try:
        storage = _open_storage()
    except Exception:  # progress is a courtesy: it must never stop a job
        return
    while not over.wait(EVERY):
        try:
            node = _newest_job(before, storage)
            states = read_last_states(node) if node is not None else []
        except Exception:
            continue
        text = f'{what}: {describe(states[-1], states[:-1])}' if states else ''
        due = interactive or time.monotonic() - printed > 10 * EVERY
        if text and text != shown and due:
            _line(stream, text, final=not interactive)
            shown, printed = text, time.monotonic()
    storage.close()


def _open_storage() -> Any:
    """Return a storage of the profile with a connection of its own."""
    from aiida.manage import get_manager

    profile = get_manager().get_profile()
    assert profile is not None
    return profile.storage_cls(profile)


def _newest_pk() -> int:
    from aiida import orm

    found = orm.QueryBuilder().append(orm.CalcJobNode, project='id').order_by({orm.CalcJobNode: {'id': 'desc'}}).first()
    return int(found[0]) if found else 0


def _newest_job(after: int, storage: Any) -> Any:
    """Return the newest job of ours in a storage that was made after another one."""
    from aiida import orm

    ours = {'id': {'>': after}, 'process_type': {'like': 'aiida.calculations:perovmlip.%'}}
    query = orm.QueryBuilder(backend=storage).append(orm.CalcJobNode, filters=ours)
    found = query.order_by({orm.CalcJobNode: {'id': 'desc'}}).first()
    return found[0] if found else None


def _line(stream: TextIO, text: str, final: bool = True) -> None:
    """Write a line; one that is not final is overwritten by the next."""
    if stream.isatty():
        stream.write(f'\r\033[K{text}' + ('\n' if final else ''))
    else:
        stream.write(f'{text}\n')
    stream.flush()


def _pk(uuid: str) -> Any:
    from aiida import orm

    return orm.load_node(uuid).pk


def write_archive(entities: Iterable[Any], path: Path) -> Path:
    """Write nodes and groups, with all that these were made from, into an archive that others can import."""
    import logging

    from aiida.common.log import LOG_LEVEL_REPORT
    from aiida.tools.archive import create_archive

    logging.disable(LOG_LEVEL_REPORT)  # forty lines about what follows from the next call
    try:
        create_archive(list(entities), filename=path, overwrite=True, return_backward=True, call_calc_backward=True)
    finally:
        logging.disable(logging.NOTSET)
    return path


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows of text as a table with aligned columns."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ['  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return '\n'.join([text[0], '  '.join('─' * width for width in widths), *text[1:]])
