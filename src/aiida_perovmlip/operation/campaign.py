"""Many chains, a bounded number at a time, each submitted once: a script that runs again goes on where it stopped."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiida_perovmlip.operation.connection import Connection
from aiida_perovmlip.watching import ACTIVE

PREFIX = 'campaign/'
"""Beginning of the labels of groups that are campaigns."""

EVERY = 5.0
"""Seconds between two looks whether there is room for another chain."""

Make = Callable[[], Any]
"""Returns the builder of an item; called when its turn has come, so that a thousand of them take no memory."""

Tries = dict[str, list[tuple[str, int | None, int]]]
"""State, exit status and PK of each process of each item, the oldest first."""


@dataclass(frozen=True)
class Standing:
    """How far a campaign is.

    :param waiting: items that are not submitted yet; None where only the script knows.
    """

    name: str
    active: int
    done: int
    failed: int
    waiting: int | None = None

    def __str__(self) -> str:
        waiting = '' if self.waiting is None else f', {self.waiting} wait for their turn'
        return f'{self.name}: {self.done} done, {self.failed} failed, {self.active} at work{waiting}'


class Campaign:
    """A group of chains, one for each item.

    An item is found again by its name, which the label of its process holds from its birth on: whatever is killed, no
    item is submitted twice.

    :param name: what to call it.
    :param at_once: how many chains may be at work.
    :param max_jobs: how many jobs a computer may have, by its label, of all chains and users of this profile, when
        another chain is submitted. A chain that runs starts further jobs as its own bound allows.
    :param attempts: how often an item is submitted that fails.
    """

    def __init__(
        self, name: str, at_once: int = 10, max_jobs: Mapping[str, int] | None = None, attempts: int = 1
    ) -> None:
        if not name or at_once < 1 or attempts < 1 or any(number < 1 for number in (max_jobs or {}).values()):
            raise ValueError('a campaign has a name, and each of its numbers is at least 1.')
        self.name, self.at_once, self.max_jobs, self.attempts = name, at_once, dict(max_jobs or {}), attempts

    def run(self, items: Iterable[tuple[str, Make]], every: float = EVERY) -> Iterator[Standing]:
        """Submit items as there is room, and yield how it stands after each, until all of them have ended.

        Stop it whenever you like: what was submitted goes on, and the next run submits the rest.
        """
        wanted, daemon = dict(items), Connection()
        with self._alone():
            before: Standing | None = None
            while True:
                tries = self._tries()
                due = [name for name in wanted if self._is_due(tries.get(name, []))]
                if due and self._has_room(tries):
                    process = daemon.submit(self._builder(due[0], wanted[due[0]]))
                    self._group().add_nodes(process)
                    tries.setdefault(due[0], []).append(('created', None, process.pk))
                now = self._standing(tries, len(due))
                if now != before:
                    yield now
                if not due and not now.active:
                    return
                if now == before or not due or not self._has_room(tries):
                    time.sleep(every)
                before = now

    def standing(self, waiting: int | None = None) -> Standing:
        """Return how far it is; of an item that was tried again its last try counts."""
        return self._standing(self._tries(), waiting)

    def failed(self) -> dict[str, int]:
        """Return the PK of the last try of each item that failed."""
        last = {item: tries[-1] for item, tries in self._tries().items()}
        return {item: pk for item, (state, status, pk) in last.items() if _has_failed(state, status)}

    def _standing(self, tries: Tries, waiting: int | None) -> Standing:
        last = [each[-1] for each in tries.values()]
        active = sum(state in ACTIVE for state, _, _ in last)
        failed = sum(_has_failed(state, status) for state, status, _ in last)
        return Standing(self.name, active, len(last) - active - failed, failed, waiting)

    def _builder(self, item: str, make: Make) -> Any:
        try:
            builder = make()
        except Exception as error:
            error.add_note(f'This was the item `{item}` of the campaign `{self.name}`; those before it are submitted.')
            raise
        builder.metadata.label = self._label(item)
        return builder

    def _label(self, item: str) -> str:
        return f'{self.name}: {item}'

    def _group(self) -> Any:
        from aiida import orm

        group, _ = orm.Group.collection.get_or_create(label=f'{PREFIX}{self.name}')
        return group

    def _tries(self) -> Tries:
        from aiida import orm

        prefix = self._label('')
        project = ['label', 'attributes.process_state', 'attributes.exit_status', 'id']
        query = orm.QueryBuilder().append(
            orm.ProcessNode, filters={'label': {'like': f'{_escaped(prefix)}%'}}, project=project, tag='process'
        )
        tries: Tries = {}
        for label, state, status, pk in query.order_by({'process': {'id': 'asc'}}).iterall():
            tries.setdefault(label.removeprefix(prefix), []).append((state, status, pk))
        return tries

    def _is_due(self, tries: list[tuple[str, int | None, int]]) -> bool:
        """Whether an item is to be submitted."""
        if not tries:
            return True
        state, status, _ = tries[-1]
        return _has_failed(state, status) and len(tries) < self.attempts

    def _has_room(self, tries: Tries) -> bool:
        """Whether another chain may be submitted."""
        from aiida import orm

        if sum(each[-1][0] in ACTIVE for each in tries.values()) >= self.at_once:
            return False
        for label, bound in self.max_jobs.items():
            query = orm.QueryBuilder().append(orm.Computer, filters={'label': label}, tag='computer')
            filters = {'attributes.process_state': {'in': list(ACTIVE)}}
            if query.append(orm.CalcJobNode, with_computer='computer', filters=filters).count() >= bound:
                return False
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the campaign, so that no second script submits the same items at the same time."""
        from hashlib import sha256

        from aiida.manage import get_manager

        from aiida_perovmlip.installation.profile import config_folder

        folder = config_folder() / 'campaigns'
        folder.mkdir(parents=True, exist_ok=True)
        profile = get_manager().get_profile()
        digest = sha256(f'{profile.name if profile else ""}/{self.name}'.encode()).hexdigest()[:16]
        with (folder / f'{digest}.lock').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RuntimeError(
                    f'another process runs the campaign `{self.name}` just now; wait for it, or stop it first.'
                ) from None
            yield


def _has_failed(state: str, status: int | None) -> bool:
    """Whether a process has ended, and not well."""
    return state not in ACTIVE and (state != 'finished' or bool(status))


def _escaped(text: str) -> str:
    """Return text in which no sign stands for others in a comparison by `like`."""
    return text.replace('\\', '\\\\').replace('%', '\\%').replace('_', '\\_')


def campaigns() -> list[Standing]:
    """Return how far each campaign of the profile is."""
    from aiida import orm

    query = orm.QueryBuilder().append(orm.Group, filters={'label': {'like': f'{PREFIX}%'}}, project='label')
    return [Campaign(label.removeprefix(PREFIX)).standing() for label in sorted(query.all(flat=True))]
