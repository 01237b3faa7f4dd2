"""The book of a labelling: which frames wait, run, have failed or are done, and what is tried next."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

STRIKES = 4
"""After so many jobs in a row that came to nothing by no fault of their frames, a code counts as broken."""

PROVEN = 5
"""How many times as many a code may have that has brought labels before."""

ATTEMPTS = 3
"""How often a single frame is tried whose job brings back neither a label nor a reason."""

NextRepair = Callable[[str, Sequence[str]], str | None]

PASSING = frozenset({'crashed', 'memory', 'environment'})
"""Kinds of failures that say something of the machine: worth another attempt."""


@dataclass(frozen=True)
class Batch:
    """Frames of one job.

    :param frames: positions in the dataset.
    :param repair: the repair to run with; empty where the settings are used as they are.
    :param tried: the repairs that have failed.
    :param attempt: how often nothing came back.
    :param suspect: whether a frame of it may have taken a job down, so that it is kept apart from others.
    """

    frames: tuple[int, ...]
    repair: str = ''
    tried: tuple[str, ...] = ()
    attempt: int = 0
    suspect: bool = False


@dataclass(frozen=True)
class Ended:
    """What an ended job says.

    :param done: positions of the frames that have labels.
    :param failed: kind and reason of each frame that the job gave up.
    :param message: why the job ended, in a sentence.
    :param kind: the kind of failure that its end is.
    :param killed: whether a person killed it.
    """

    done: frozenset[int]
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)
    message: str = ''
    kind: str = 'stopped'
    killed: bool = False


@dataclass
class Running:
    """A job at work."""

    batch: Batch
    code: str
    pk: int
    uuid: str


@dataclass
class Assigned:
    """A batch with the code that its job will run with."""

    batch: Batch
    code: str


@dataclass
class Ledger:
    """What a chain has to remember between two steps.

    :param waiting: batches that have been put back, in order; those of the plan come first.
    :param cursor: how many batches of the plan have been taken from its beginning.
    :param tail: how many have been taken from its end.
    :param starting: batches that have a label and a code, and whose jobs are about to be submitted.
    :param last: what was last said of each frame that is to be tried again.
    :param proven: codes that have brought labels.
    :param failed: what is said of each frame without a label, by its position.
    :param repaired: the repair by which a frame got its label, by its position.
    :param strikes: jobs in a row of which no frame came back, by code.
    :param retired: why a code is not used any more.
    """

    n_planned: int
    codes: list[str]
    cursor: int = 0
    tail: int = 0
    starting: dict[str, Assigned] = field(default_factory=dict)
    last: dict[int, dict[str, Any]] = field(default_factory=dict)
    proven: list[str] = field(default_factory=list)
    waiting: list[Batch] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)
    repaired: dict[int, str] = field(default_factory=dict)
    strikes: dict[str, int] = field(default_factory=dict)
    retired: dict[str, str] = field(default_factory=dict)
    n_jobs: int = 0
    n_done: int = 0
    core_seconds: float = 0.0

    @property
    def is_through(self) -> bool:
        """Whether all batches of the plan have been taken."""
        return self.cursor + self.tail >= self.n_planned

    @property
    def has_work(self) -> bool:
        """Whether a batch waits or runs."""
        return not self.is_through or bool(self.waiting or self.starting or self.running)

    @property
    def first_round_runs(self) -> bool:
        """Whether a job of the plan is still at work, so that there may be more to repair soon."""
        return any(not job.batch.repair and not job.batch.attempt for job in self.running.values())

    @property
    def n_busy(self) -> int:
        """How many slots are taken."""
        return len(self.running) + len(self.starting)

    @property
    def working_codes(self) -> list[str]:
        """The codes that may be used."""
        return [code for code in self.codes if code not in self.retired]

    def next_code(self) -> str:
        """Return the working code with the fewest jobs; one of which nothing came back of late counts as busier."""
        busy = [job.code for job in self.running.values()] + [each.code for each in self.starting.values()]
        return min(self.working_codes, key=lambda code: busy.count(code) + self.strikes.get(code, 0))

    def next_batch(self, plan: Sequence[Batch], hold: bool = False) -> Batch | None:
        """Take the next batch from the plan, or from those put back; None where none is to be started now.

        Where jobs come to nothing the plan goes on at its end: what the frames of one family do says nothing of a code.

        :param hold: whether single frames wait until all jobs of the plan have ended, since they may then share jobs.
        """
        if not self.is_through:
            if any(self.strikes.values()):
                self.tail += 1
                return plan[self.n_planned - self.tail]
            self.cursor += 1
            return plan[self.cursor - 1]
        held = hold and self.first_round_runs
        for index, batch in enumerate(self.waiting):
            if not held or batch.suspect or len(batch.frames) > 1:
                return self.waiting.pop(index)
        return None

    def assign(self, batch: Batch) -> None:
        """Give a batch a label that no other job of the chain has, and a code."""
        self.n_jobs += 1
        self.starting[f'job_{self.n_jobs:05d}'] = Assigned(batch, self.next_code())

    def started(self, label: str, pk: int, uuid: str) -> None:
        """Enter a job that was submitted."""
        assigned = self.starting.pop(label)
        self.running[label] = Running(assigned.batch, assigned.code, pk, uuid)

    def close(self, label: str, ended: Ended, next_repair: NextRepair) -> None:
        """Enter what became of a job: who is done, who is tried again and how, and who has failed for good.

        :param next_repair: gives the name of the repair for a kind of failure behind those tried, or None.
        """
        job = self.running.pop(label)
        batch = job.batch
        done = [frame for frame in batch.frames if frame in ended.done]
        self.n_done += len(done)
        for frame in done:
            self.last.pop(frame, None)
        if batch.repair:
            self.repaired.update(dict.fromkeys(done, batch.repair))
        self._judge_code(job, bool(done), ended)
        given_up = {frame: why for frame, why in ended.failed.items() if frame in batch.frames and frame not in done}
        for frame, (kind, reason) in given_up.items():
            if kind != 'environment':
                self._retry_or_fail(frame, kind, reason, job, next_repair)
        self._move_elsewhere({frame: why for frame, why in given_up.items() if why[0] == 'environment'}, job)
        lost = [frame for frame in batch.frames if frame not in done and frame not in given_up]
        if lost:
            self._put_back(lost, job, ended, next_repair)

    def _move_elsewhere(self, frames: dict[int, tuple[str, str]], job: Running) -> None:
        """Put back, together, frames that nothing is wrong with: the machine lacks something."""
        batch = job.batch
        if frames and batch.attempt + 1 < ATTEMPTS:
            self.waiting.append(replace(batch, frames=tuple(frames), attempt=batch.attempt + 1))
            return
        for frame, (kind, reason) in frames.items():
            self._fail(frame, kind, reason, job, batch.tried)

    def _put_back(self, lost: list[int], job: Running, ended: Ended, next_repair: NextRepair) -> None:
        """Put back the frames that the job says nothing of."""
        batch = job.batch
        if ended.killed:
            for frame in lost:
                self._fail(frame, 'stopped', f'its job was killed by hand. {ended.message}'.strip(), job, batch.tried)
        elif len(lost) < len(batch.frames):  # the job got on, so the rest will too
            self.waiting.append(replace(batch, frames=tuple(lost)))
        elif len(lost) > 1:  # perhaps one frame stops all
            half = len(lost) // 2
            halves = (tuple(lost[:half]), tuple(lost[half:]))
            self.waiting += [replace(batch, frames=part, suspect=True) for part in halves]
        else:
            self._retry_or_fail(lost[0], ended.kind, ended.message, job, next_repair, nothing_came=True)

    def _retry_or_fail(
        self,
        frame: int,
        kind: str,
        reason: str,
        job: Running,
        next_repair: NextRepair,
        nothing_came: bool = False,
    ) -> None:
        """Try a single frame again, repaired where there is a repair, or list it."""
        batch = job.batch
        tried = (*batch.tried, *([batch.repair] if batch.repair else []))
        repair = next_repair(kind, tried)
        self.last[frame] = {'kind': kind, 'reason': reason, 'process': job.uuid}
        if repair is not None:
            self.waiting.append(Batch((frame,), repair, tried))
        elif (
            ((nothing_came and kind != 'timeout') or kind in PASSING)
            and batch.attempt + 1 < ATTEMPTS
            and self.working_codes
        ):
            self.waiting.append(Batch((frame,), batch.repair, batch.tried, batch.attempt + 1, suspect=True))
        else:
            self._fail(frame, kind, reason, job, tried)

    def reject(self, batch: Batch, reason: str) -> None:
        """List the frames of a batch whose job could not even be submitted."""
        for frame in batch.frames:
            self._fail(frame, 'failed', reason, None, batch.tried)

    def _fail(self, frame: int, kind: str, reason: str, job: Running | None, tried: Sequence[str] = ()) -> None:
        """List a frame as failed for good."""
        self.last.pop(frame, None) if job else None
        self.failed[frame] = {
            'kind': kind,
            'reason': reason,
            'repairs': list(tried),
            'process': job.uuid if job else '',
        }

    def _judge_code(self, job: Running, labelled: bool, ended: Ended) -> None:
        """Count a job against its code where it came to nothing and not by its frames; retire the code after too many.

        A frame that has failed before says nothing of the code, nor does one that takes too much time or memory.
        """
        code = job.code
        if labelled and code not in self.proven:
            self.proven.append(code)
        if labelled or any(kind != 'environment' for kind, _ in ended.failed.values()):
            self.strikes[code] = 0
            return
        of_frames = not ended.failed and ended.kind in ('timeout', 'memory')
        if of_frames or ended.killed or job.batch.attempt or job.batch.tried:
            return
        self.strikes[code] = self.strikes.get(code, 0) + 1
        if self.strikes[code] >= STRIKES * (PROVEN if code in self.proven else 1):
            reasons = [ended.message, *(reason for _, reason in ended.failed.values())]
            self.retired[code] = next((reason for reason in reasons if reason), 'its jobs bring nothing back.')

    def give_up(self, plan: Sequence[Batch]) -> None:
        """List all frames that wait as failed, as there is no code left that works."""
        why = '; '.join(f'{code}: {reason}' for code, reason in self.retired.items())
        while (batch := self.next_batch(plan)) is not None:
            for frame in batch.frames:
                self._fail(frame, 'environment', f'no code works. {why}', None, batch.tried)
                self.failed[frame] |= self.last.pop(frame, {})

    def merge_waiting(self, kind_of: Callable[[int], Any], size: Callable[[int], int]) -> None:
        """Put single frames that wait for the same thing into common batches, so that repairs do not cost a job each.

        :param kind_of: what frames must have in common to share a job.
        :param size: the size of a batch, of the number of frames of a kind.
        """
        groups: dict[Any, list[Batch]] = {}
        kept: list[Batch] = []
        for batch in self.waiting:
            if batch.suspect or len(batch.frames) > 1:
                kept.append(batch)
            else:
                groups.setdefault((kind_of(batch.frames[0]), batch.repair, batch.tried, batch.attempt), []).append(
                    batch
                )
        for batches in groups.values():
            frames = [batch.frames[0] for batch in batches]
            step = size(len(frames))
            kept += [
                replace(batches[0], frames=tuple(frames[start : start + step])) for start in range(0, len(frames), step)
            ]
        self.waiting = kept

    # ------------------------------------------------------------------ between two steps

    def dump(self) -> str:
        """Return everything as short text: AiiDA writes the context of a chain at every step."""
        return base64.b64encode(zlib.compress(json.dumps(asdict(self)).encode())).decode()

    @classmethod
    def load(cls, text: str) -> Ledger:
        """Read what `dump` returned."""
        content = json.loads(zlib.decompress(base64.b64decode(text)))
        content['waiting'] = [_batch(entry) for entry in content['waiting']]
        content['running'] = {
            label: Running(**{**entry, 'batch': _batch(entry['batch'])}) for label, entry in content['running'].items()
        }
        content['starting'] = {
            label: Assigned(_batch(entry['batch']), entry['code']) for label, entry in content['starting'].items()
        }
        for name in ('failed', 'repaired', 'last'):
            content[name] = {int(frame): entry for frame, entry in content[name].items()}
        return cls(**content)


def _batch(content: dict[str, Any]) -> Batch:
    return Batch(**{**content, 'frames': tuple(content['frames']), 'tried': tuple(content['tried'])})
