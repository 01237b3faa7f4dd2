"""A work chain of many tasks that says what is to be done as far as it is known, and does a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aiida import orm
from aiida.engine import ProcessSpec

from aiida_perovmlip.workflows.pool import PoolWorkChain
from aiida_perovmlip.workflows.training import how_it_ended

Task = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""The label of a process, what makes its builder, and of what."""


class TaskWorkChain(PoolWorkChain):
    """Base of chains whose tasks follow from each other.

    A chain says by `_wanted` all that is to be done as far as what has ended tells; whatever can run does, but no more
    at a time than asked for. What fails is told, and does not stop the rest.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define how many tasks run at a time."""
        super().define(spec)
        spec.input(
            'max_concurrent',
            valid_type=orm.Int,
            default=lambda: orm.Int(4),
            serializer=orm.to_aiida_type,
            help='Largest number of runs at a time.',
        )

    # ------------------------------------------------------------------ the steps

    def begin(self) -> None:
        """Begin with nothing done; the first step of each chain calls it."""
        self.ctx.tasks, self.ctx.made, self.ctx.failed = {}, {}, {}

    def has_work(self) -> bool:
        """Whether there is something to start or to wait for."""
        return bool(self._running()) or any(True for _ in self._due())

    def go_on(self) -> None:
        """Start what can be started in the slots that are free, and wait for the first that ends."""
        for label, make, inputs in list(self._due()):
            if len(self._running()) >= self.inputs.max_concurrent.value:
                break
            try:
                self.ctx.tasks[label] = self.start(label, make(*inputs)).pk
            except ValueError as error:  # what AiiDA raises where inputs are refused
                self._lack(label, f'it could not be submitted: {" ".join(str(error).split())}')
        self.watch(self._running())

    # ------------------------------------------------------------------ what the steps are made of

    def _wanted(self) -> Iterator[Task]:
        """Yield all that is to be done as far as it is known."""
        raise NotImplementedError

    def _due(self) -> Iterator[Task]:
        """Yield what can be started now."""
        return (each for each in self._wanted() if each[0] not in self.ctx.tasks and each[0] not in self.ctx.failed)

    def _running(self) -> list[int]:
        """Return what has been started and has not ended."""
        return [pk for pk in self.ctx.tasks.values() if not orm.load_node(pk).is_terminated]

    def _is_over(self, label: str) -> bool:
        """Whether a task has ended, well or not, or could not be started."""
        if label in self.ctx.failed:
            return True
        return label in self.ctx.tasks and orm.load_node(self.ctx.tasks[label]).is_terminated

    def _ended(self, label: str) -> Any:
        """Return what has ended well under a label; None where nothing has."""
        node = orm.load_node(self.ctx.tasks[label]) if label in self.ctx.tasks else None
        return node if node is not None and node.is_finished_ok else None

    def _recorded(self, label: str, function: Any, *args: Any, **inputs: Any) -> dict[str, Any] | None:
        """Return the outputs of a function that is recorded, run once under its label; None where it refused."""
        if label in self.ctx.failed:
            return None
        if label in self.ctx.made:
            return {name: orm.load_node(pk) for name, pk in self.ctx.made[label].items()}
        try:
            found = self.once(label, function, *args, **inputs)
        except ValueError as error:
            self._lack(label, str(error))
            return None
        self.ctx.made = {**self.ctx.made, label: {name: node.pk for name, node in found.items()}}
        return found

    def _lack(self, label: str, why: str) -> None:
        """Remember what there is not, and say so once."""
        if label not in self.ctx.failed:
            self.ctx.failed = {**self.ctx.failed, label: why}
            self.report(f'{label} gave nothing. {why}')

    def _enter_failures(self) -> None:
        """Remember the tasks that have failed."""
        for label, pk in self.ctx.tasks.items():
            node = orm.load_node(pk)
            if node.is_terminated and not node.is_finished_ok:
                self._lack(label, how_it_ended(node))

    def _what_lacks(self) -> str:
        """Return in sentences what there is not."""
        return ' '.join(f'{label}: {why}' for label, why in self.ctx.failed.items())
