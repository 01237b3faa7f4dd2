"""A work chain that goes on as soon as any of its jobs has ended, and never starts one twice."""

from __future__ import annotations

from functools import partial
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.common.links import LinkType
from aiida.engine import WorkChain
from plumpy.process_states import ProcessState

PATIENCE = 60.0
"""Seconds after which a job that was started before the daemon was killed should have begun."""


def has_lived(job: orm.ProcessNode) -> bool:
    """Whether a job lives or has lived.

    One that was killed between its birth and its first checkpoint is a node that nothing can ever run.
    """
    return job.is_terminated or bool(job.checkpoint)


class PoolWorkChain(WorkChain):
    """Base of chains that keep a bounded number of jobs at work.

    A work chain of AiiDA waits for all that it awaits; where jobs differ in length, most of its slots stand idle.
    This one is resumed by the first that ends: its step takes stock, starts others, and awaits what still runs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watched: set[int] = set()

    def load_instance_state(self, saved_state: Any, load_context: Any) -> None:
        """Restore after a restart of the daemon: nothing is watched yet."""
        self._watched = set()
        super().load_instance_state(saved_state, load_context)

    def start(self, label: str, builder: Any) -> orm.ProcessNode:
        """Submit a job, or return the one that this chain has started under this label.

        A step runs again where the daemon was killed before its end was recorded; what it had started by then is
        known to the provenance graph.
        """
        known = self._started(label)
        if known is not None:
            if known.process_state is ProcessState.CREATED:
                self.loop.call_later(PATIENCE, self._nudge, known.pk)
            return known
        builder.metadata.call_link_label = label
        return self.submit(builder)

    def once(self, label: str, function: Any, *args: Any, **inputs: Any) -> dict[str, Any]:
        """Return the outputs of a function that is recorded, run once under its label.

        Where a step runs again, what had been computed by then is found.
        """
        known = self._started(label)
        if known is None or not known.is_finished_ok:
            function(*args, **inputs, metadata={'call_link_label': label})
            known = self._started(label)
        assert known is not None
        return {each.link_label: each.node for each in known.base.links.get_outgoing(link_type=LinkType.CREATE)}

    def _started(self, label: str) -> orm.ProcessNode | None:
        """Return the job of a label that lives or has lived."""
        query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': self.node.pk}, tag='chain')
        query.append(orm.ProcessNode, with_incoming='chain', edge_filters={'label': label}, tag='job')
        jobs = query.order_by({'job': {'id': 'desc'}}).all(flat=True)
        return next(filter(has_lived, jobs), None)

    def _nudge(self, pk: int) -> None:
        """Ask the daemon once more for a job that nobody has begun: it may have been killed before it could ask."""
        if orm.load_node(pk).process_state is ProcessState.CREATED and self.runner.controller is not None:
            self.logger.warning(f'the job {pk} has not begun for {PATIENCE:.0f} s; the daemon is asked again.')
            self.runner.controller.continue_process(pk, nowait=True, no_reply=True)

    def watch(self, pks: list[int]) -> None:
        """Await these jobs; the next step is taken when the first of them has ended."""
        self.ctx.awaited = AttributeDict()  # nodes of jobs that ended are not carried along
        for pk in pks:
            self.to_context(**{f'awaited.j{pk}': orm.load_node(pk)})

    def _action_awaitables(self) -> None:
        """Ask to be told of the end of each job, once."""
        for awaitable in self._awaitables:
            if awaitable.pk not in self._watched:
                self._watched.add(awaitable.pk)
                callback = partial(self.call_soon, self._on_job_ended, awaitable.pk)
                self.runner.call_on_process_finish(awaitable.pk, callback)

    def _on_job_ended(self, pk: int) -> None:
        """Go on; where the chain is at work just now, its step sees by itself that the job has ended."""
        self._watched.discard(pk)
        if self.state != ProcessState.WAITING:  # it will be asked for again, and answers at once
            return
        awaitable = next((each for each in self._awaitables if each.pk == pk), None)
        if awaitable is not None:
            self._on_awaitable_finished(awaitable)
            self.resume()
