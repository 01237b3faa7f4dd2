"""A labelling that is asked for: which frames are to be run, in which batches, and what a job says of its batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import STRUCTURE
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.shard import digests
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.base import Labeller, labeller_named
from aiida_perovmlip.workflows.ledger import PASSING, Batch, Ended

KIND_OF_EXIT = {110: 'memory', 120: 'timeout', 210: 'failed', 320: 'environment', 400: 'timeout', 410: 'memory'}
"""The kind of failure that an exit code is, where a job says nothing of its frames; every other is `stopped`."""

ANEW = PASSING | {'stopped', 'timeout'}
"""Kinds of failures that are tried again as they are on request: nothing was found wrong with the frame itself."""


@dataclass(frozen=True)
class Known:
    """Labels of the level that the profile has already.

    :param digests: what of the wanted frames has a label.
    :param datasets: primary keys of the datasets that hold these.
    """

    digests: frozenset[bytes] = frozenset()
    datasets: tuple[int, ...] = ()


@dataclass
class Survey:
    """What a look at all frames says.

    :param todo: positions of the frames to run, ascending.
    :param refused: positions of the frames that should not be labelled this way, by the reason.
    :param n_known: frames whose label is known.
    :param n_repeated: frames that are identical to an earlier one.
    """

    todo: Array
    refused: dict[str, list[int]]
    n_known: int
    n_repeated: int

    @property
    def n_refused(self) -> int:
        """Number of frames that are refused."""
        return sum(map(len, self.refused.values()))

    def describe(self) -> str:
        """Return a sentence."""
        parts = [f'{len(self.todo)} frames are to be labelled']
        parts += [f'{self.n_known} have a label of this level already'] if self.n_known else []
        parts += [f'{self.n_repeated} repeat another one'] if self.n_repeated else []
        parts += [f'{self.n_refused} are refused'] if self.refused else []
        return ', '.join(parts)


@dataclass(frozen=True)
class Labelling:
    """Frames, labeller, settings, and how many jobs may run at a time.

    :param given: further inputs of every job.
    """

    frames: DatasetData
    labeller: Labeller
    plain_settings: dict[str, Any]
    slots: int = 1
    largest_batch: int | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Mapping[str, Any]) -> Labelling:
        """Read the inputs of the chain."""
        return cls(
            frames=inputs['frames'],
            labeller=labeller_named(inputs['labeller'].value),
            plain_settings=inputs['settings'].get_dict(),
            slots=inputs['max_concurrent'].value,
            largest_batch=inputs['batch_size'].value if 'batch_size' in inputs else None,
            given=dict(inputs.get('job', {})),
        )

    @cached_property
    def settings(self) -> Any:
        """The checked settings."""
        return self.labeller.read(self.plain_settings)

    @cached_property
    def level(self) -> Level:
        """The level of theory of the labels."""
        return self.labeller.level_of(self.plain_settings, self.given)

    @property
    def moves_atoms(self) -> bool:
        """Whether each frame becomes a trajectory."""
        return self.labeller.moves_atoms(self.settings)

    # ------------------------------------------------------------------ before anything runs

    def survey(self, known: Known) -> Survey:
        """Look at every frame once."""
        todo, seen = [], set()
        refused: dict[str, list[int]] = {}
        n_known = n_repeated = 0
        for position, digest, frame in self.frames.frames.with_digests():
            if (reason := self.labeller.refusal(self.settings, frame)) is not None:
                refused.setdefault(reason, []).append(position)
            elif digest in known.digests:
                n_known += 1
            elif digest in seen and not self.moves_atoms:
                n_repeated += 1
            else:
                seen.add(digest)
                todo.append(position)
        return Survey(np.array(todo, dtype=np.int64), refused, n_known, n_repeated)

    def look_up(self) -> Known:
        """Find labels of identical frames at an identical level among those that jobs of this profile made."""
        if self.moves_atoms:
            return Known()
        wanted = set(self.frames.frames.digests())
        found: set[bytes] = set()
        datasets = []
        for pk in _labelled_at(self.level, self.labeller.process.build_process_type()):
            if len(found) == len(wanted):
                break
            fresh = (self._usable(orm.load_node(pk)) & wanted) - found
            if fresh:
                found |= fresh
                datasets.append(pk)
        return Known(frozenset(found), tuple(datasets))

    def _usable(self, dataset: DatasetData) -> set[bytes]:
        """Return the digests of the frames that have all labels that are asked for."""
        usable: set[bytes] = set()
        for chunk in dataset.frames.chunks((*STRUCTURE, 'stress')):
            rows = digests(chunk, labels=False)
            if self.labeller.gives_stress(self.settings):
                periodic = chunk.columns['pbc'].all(axis=1)
                stress = chunk.columns.get('stress', np.full((len(chunk), 6), np.nan))
                rows = rows[~periodic | np.isfinite(stress).all(axis=1)]
            usable.update(row.tobytes() for row in rows)
        return usable

    def batches(self, todo: Array) -> list[Batch]:
        """Return the batches of some frames: those of one kind share jobs, in the order of the frames."""
        kinds: dict[Any, list[int]] = {}
        for position, frame in zip(todo.tolist(), self._frames_at(todo), strict=True):
            kinds.setdefault(self.labeller.kind_of(self.settings, frame), []).append(position)
        batches = [
            Batch(tuple(positions[start : start + size]))
            for positions in kinds.values()
            if (size := self.size_of_batch(len(positions)))
            for start in range(0, len(positions), size)
        ]
        return sorted(batches, key=lambda batch: batch.frames[0])

    def size_of_batch(self, n_frames: int) -> int:
        """Return how many of so many frames of one kind a job takes."""
        if self.moves_atoms:
            return 1
        if self.largest_batch is not None:
            return min(self.largest_batch, self.labeller.largest_batch)
        return self.labeller.batch_size(self.settings, n_frames, self.slots)

    def kind_of(self, position: int) -> Any:
        """Return what the frame at a position has in common with those it may share a job with."""
        return self.labeller.kind_of(self.settings, self.frames[position])

    def next_repair(self, kind: str, tried: Sequence[str]) -> str | None:
        """Return the name of the next repair; None where there is none."""
        repair = self.labeller.next_repair(kind, tried)
        return repair.name if repair else None

    def batches_again(self, todo: Array, failures: Mapping[str, Any]) -> tuple[list[Batch], dict[int, dict[str, Any]]]:
        """Return batches for frames that an earlier run lists as failed, and what is said of those left as they are.

        With other settings, or another labeller, nothing has been tried.
        """
        anew = failures.get('asked') != self.asked
        listed: dict[bytes, Mapping[str, Any]] = {}
        for entry in sorted(failures['frames'], key=lambda entry: len(entry['repairs'])):
            listed[bytes.fromhex(entry['digest'])] = entry
        batches: list[Batch] = []
        hopeless, open_ = {}, set(todo.tolist())
        for position, digest in enumerate(self.frames.frames.digests()):
            if digest not in listed or position not in open_:
                continue
            entry = listed[digest]
            tried = () if anew else tuple(entry['repairs'])
            repair = None if anew else self.next_repair(entry['kind'], tried)
            if repair is not None:
                batches.append(Batch((position,), repair, tried))
            elif anew or entry['kind'] in ANEW:
                batches.append(Batch((position,), tried[-1] if tried else '', tried[:-1]))
            else:
                told = {key: entry[key] for key in ('kind', 'reason', 'repairs', 'process')}
                hopeless[position] = {**told, 'reason': f'{entry["reason"]} There is no further repair.'}
        return batches, hopeless

    @property
    def asked(self) -> dict[str, Any]:
        """What decides on labels and failures, as plain values."""
        return {'labeller': self.labeller.name, 'settings': self.plain_settings, 'level': self.level.fingerprint}

    def _frames_at(self, positions: Array) -> Iterator[Frame]:
        for chunk in self.frames.frames.take(positions).chunks():
            yield from chunk

    # ------------------------------------------------------------------ after a job

    def ended(self, node: orm.CalcJobNode, batch: Batch) -> Ended:
        """Return what an ended job says of its batch; what has a label is known by its content alone."""
        outputs = node.outputs
        dataset = outputs.dataset if 'dataset' in outputs else None
        done = self._done(dataset, batch)
        told = outputs.results.get_dict().get('failed', []) if 'results' in outputs else []
        failed = {
            batch.frames[entry['frame']]: (entry['kind'], entry['reason'])
            for entry in told
            if entry['frame'] < len(batch.frames)
        }
        message = node.exit_message or (str(node.process_state.value) if not node.is_finished_ok else '')
        if node.is_excepted:
            message = f'{message}: {(node.exception or "").strip()}'
        kind = KIND_OF_EXIT.get(node.exit_status or 0, 'stopped')
        return Ended(frozenset(done), failed, f'{node.process_label} (PK {node.pk}): {message}', kind, node.is_killed)

    def _done(self, dataset: DatasetData | None, batch: Batch) -> Iterable[int]:
        """Return the positions of the frames of a batch that a dataset has labels of."""
        if dataset is None:
            return ()
        if self.moves_atoms:
            return batch.frames
        labelled = set(dataset.frames.digests())
        wanted = self.frames.frames.take(np.array(batch.frames)).digests()
        return [frame for frame, digest in zip(batch.frames, wanted, strict=True) if digest in labelled]


def _labelled_at(level: Level, process: str) -> list[int]:
    """Return the datasets that jobs of a kind made at a level of theory, oldest first."""
    query = orm.QueryBuilder()
    query.append(orm.CalcJobNode, filters={'process_type': process}, tag='job')
    at_level = {'attributes.fingerprints': {'contains': [level.fingerprint]}}
    query.append(DatasetData, with_incoming='job', edge_filters={'label': 'dataset'}, filters=at_level, project='id')
    return sorted(query.all(flat=True))
