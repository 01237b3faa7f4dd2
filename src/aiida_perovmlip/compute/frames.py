"""Frames: an ordered selection over a list of shards, the same for AiiDA and for jobs.

On disk the list is `frames.json`, beside the folder `shards` in which each shard is named by the SHA-256 of its
content, and `selection.npy` where not all frames of these shards are meant, in their order.
"""

from __future__ import annotations

import hashlib
import io
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from ase.data import chemical_symbols

from aiida_perovmlip.compute.frame import CATEGORIES, DEFAULTS, DTYPES, Array, Frame, FrameError
from aiida_perovmlip.compute.npz import write_array
from aiida_perovmlip.compute.shard import MAXIMUM_FRAMES, Columns, Shard, digests, join

MANIFEST = 'frames.json'
SELECTION = 'selection.npy'
FORMAT = 1

Opener = Callable[[str], AbstractContextManager[BinaryIO]]

STRUCTURE = ('numbers', 'positions', 'cells', 'pbc', 'charge', 'spin')
"""The columns that make two frames one for a labeller."""


@dataclass(frozen=True)
class ShardEntry:
    """A shard in the list: the SHA-256 of its file, the number of its frames and atoms.

    :param head: the head of all its frames where this list names it anew; None leaves what the shard says.
    """

    sha256: str
    n_frames: int
    n_atoms: int
    head: str | None = None

    @property
    def path(self) -> str:
        """Where the shard lies beside the list."""
        return f'shards/{self.sha256}.npz'


class Frames:
    """An ordered selection of frames over shards that are opened when they are needed.

    :param opener: opens one of the shards by its path.
    :param selection: positions in the concatenation of all shards; None selects all of them.
    """

    def __init__(self, shards: Sequence[ShardEntry], opener: Opener, selection: Array | None = None) -> None:
        self.shards = tuple(shards)
        self.opener = opener
        self.selection = selection
        self._last: tuple[int, Shard] | None = None  # asking for one frame after the other reads a shard once
        self._starts = np.concatenate([[0], np.cumsum([entry.n_frames for entry in self.shards])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self.selection is None else len(self.selection)

    def chunks(self, columns: Iterable[str] | None = None) -> Iterator[Shard]:
        """Yield the selected frames in order, as shards in memory, one at a time; only these columns where given."""
        wanted = None if columns is None else tuple(columns)
        if self.selection is None:
            yield from (self._read(shard, wanted) for shard in range(len(self.shards)))
            return
        for start in range(0, len(self.selection), MAXIMUM_FRAMES):
            window = self.selection[start : start + MAXIMUM_FRAMES]
            yield from self._sorted(window, wanted) if (np.diff(window) >= 0).all() else self._shuffled(window, wanted)

    def _sorted(self, window: Array, wanted: tuple[str, ...] | None) -> Iterator[Shard]:
        """Yield the frames of an ascending selection, shard after shard."""
        owner = np.searchsorted(self._starts, window, side='right') - 1
        for shard in np.unique(owner).tolist():
            yield self._read(shard, wanted).take(window[owner == shard] - self._starts[shard])

    def _shuffled(self, window: Array, wanted: tuple[str, ...] | None) -> Iterator[Shard]:
        """Yield the frames of a selection in any order; every shard is read once."""
        order = np.argsort(window, kind='stable')
        found = join(list(self._sorted(window[order], wanted)))
        yield found.take(np.argsort(order, kind='stable'))

    def _read(self, shard: int, wanted: tuple[str, ...] | None = None) -> Shard:
        """Read one shard, under the head that this list gives it."""
        entry = self.shards[shard]
        with self.opener(entry.path) as handle:
            found = Shard.read(handle, wanted)
        if entry.head is not None:
            found.rename('head', entry.head)
        return found

    def __iter__(self) -> Iterator[Frame]:
        for chunk in self.chunks():
            yield from chunk

    def with_digests(self) -> Iterator[tuple[int, bytes, Frame]]:
        """Yield position, digest of what a labeller is given, and frame; see `shard.digests`."""
        position = 0
        for chunk in self.chunks():
            for digest, frame in zip(digests(chunk, labels=False), chunk, strict=True):
                yield position, digest.tobytes(), frame
                position += 1

    def digests(self) -> Iterator[bytes]:
        """Yield the digest of what a labeller is given of each frame; labels are not read."""
        for chunk in self.chunks(STRUCTURE):
            yield from (digest.tobytes() for digest in digests(chunk, labels=False))

    def elements(self) -> tuple[str, ...]:
        """Return the chemical symbols of all atoms, in alphabetical order."""
        present: set[int] = set()
        for chunk in self.chunks(('numbers',)):
            present |= set(np.unique(chunk.columns['numbers']).tolist())
        return tuple(sorted(chemical_symbols[number] for number in present))

    def has(self, label: str) -> bool:
        """Whether any frame has this label."""
        chunks = (chunk.columns for chunk in self.chunks((label,)))
        return any(label in columns and bool(np.isfinite(columns[label]).any()) for columns in chunks)

    def categories(self, name: str) -> dict[str, int]:
        """Return the number of frames by the text of a category: `group`, `trajectory`, `head` or `source`."""
        counts: dict[str, int] = {}
        for chunk in self.chunks((name,)):
            texts = chunk.names.get(name, (DEFAULTS[name],))
            codes = chunk.columns.get(name, np.zeros(len(chunk), np.int32))
            for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
                counts[texts[code]] = counts.get(texts[code], 0) + int(count)
        return dict(sorted(counts.items()))

    def __getitem__(self, index: int) -> Frame:
        if not -len(self) <= index < len(self):
            raise IndexError(f'there is no frame {index} among {len(self)}.')
        position = index % len(self)
        position = int(self.selection[position]) if self.selection is not None else position
        shard = bisect_right(self._starts.tolist(), position) - 1
        if self._last is None or self._last[0] != shard:
            self._last = (shard, self._read(shard))
        return self._last[1].frame(position - int(self._starts[shard]))

    def column(self, name: str) -> Array:
        """Return one column of all selected frames; an explicit call that needs the memory for it.

        Categories come as arrays of text, `offsets` as the offsets of the selection.
        """
        return self.columns((name,))[name]

    def columns(self, names: Iterable[str] | None = None) -> Columns:
        """Return these columns, or all of them, of all selected frames in one pass over the shards."""
        chunks = list(self.chunks(names))
        missing = [name for name in names or () if chunks and not any(name in chunk.columns for chunk in chunks)]
        if missing:
            raise KeyError(f'these frames have no {", ".join(missing)}.')
        if not chunks:
            empty = {name: np.zeros((0, *DTYPES[name][1])) for name in names or () if name in DTYPES}
            return {**empty, 'offsets': np.zeros(1, np.int64)}
        joined = join(chunks)
        texts = {
            name: np.array(joined.names[name])[joined.columns[name]] for name in CATEGORIES if name in joined.columns
        }
        return {**joined.columns, **texts}

    def take(self, indices: Any) -> Frames:
        """Return the frames at these positions of this selection, in this order."""
        positions = np.asarray(indices, dtype=np.int64)
        if len(positions) and (positions.min() < 0 or positions.max() >= len(self)):
            raise IndexError(f'positions have to lie between 0 and {len(self) - 1}.')
        return replace_selection(self, positions if self.selection is None else self.selection[positions])

    def manifest(self) -> str:
        """Return the list of shards as JSON text."""
        content = {
            'format': FORMAT,
            'selection': SELECTION if self.selection is not None else None,
            'shards': [vars(entry) for entry in self.shards],
        }
        return json.dumps(content, indent=1, sort_keys=True)

    @classmethod
    def open(cls, opener: Opener) -> Frames:
        """Read the list of shards through the opener."""
        with opener(MANIFEST) as handle:
            content = json.loads(handle.read())
        if content.get('format') != FORMAT:
            raise FrameError(f'the frames are written in format {content.get("format")}; this version reads {FORMAT}.')
        selection = None
        if content['selection']:
            with opener(content['selection']) as handle:
                selection = np.load(io.BytesIO(handle.read()), allow_pickle=False).astype(np.int64)
        return cls([ShardEntry(**entry) for entry in content['shards']], opener, selection)

    @classmethod
    def open_folder(cls, folder: Path) -> Frames:
        """Open the frames that lie in a folder."""
        return cls.open(lambda path: (folder / path).open('rb'))


def replace_selection(frames: Frames, selection: Array) -> Frames:
    """Return other frames of the same shards; shards of which no frame is left are dropped."""
    starts = frames._starts
    owner = np.searchsorted(starts, selection, side='right') - 1
    used = np.unique(owner)
    entries = [frames.shards[index] for index in used]
    new_starts = np.concatenate([[0], np.cumsum([entry.n_frames for entry in entries])]).astype(np.int64)
    shift = np.zeros(len(frames.shards), dtype=np.int64)
    shift[used] = new_starts[:-1] - starts[used]
    moved = selection + shift[owner] if len(selection) else selection
    everything = len(moved) == new_starts[-1] and bool((moved == np.arange(len(moved))).all())
    return Frames(entries, frames.opener, None if everything else moved)


def selection_bytes(selection: Array) -> bytes:
    """Return a selection as the content of its file."""
    buffer = io.BytesIO()
    smallest = np.uint32 if not len(selection) or selection.max() < 2**32 else np.uint64
    write_array(buffer, selection.astype(smallest))
    return buffer.getvalue()


def write_folder(shards: Iterable[Shard], folder: Path) -> Frames:
    """Write shards and their list into a folder, one shard in memory at a time."""
    (folder / 'shards').mkdir(parents=True, exist_ok=True)
    entries = []
    for shard in shards:
        partial = folder / 'shards' / 'partial'
        with partial.open('wb') as handle:
            shard.write(handle)
        entry = ShardEntry(sha256_of(partial), len(shard), shard.n_atoms)
        partial.replace(folder / entry.path)
        entries.append(entry)
    frames = Frames(entries, lambda path: (folder / path).open('rb'))
    (folder / MANIFEST).write_text(frames.manifest())
    return frames


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open('rb') as handle:
        return hashlib.file_digest(handle, 'sha256').hexdigest()
