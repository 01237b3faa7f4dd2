"""The way from a script to the daemon, made anew where the broker at its end is another one."""

from __future__ import annotations

from typing import Any


class Connection:
    """What a script that lives for days submits by.

    The broker that AiiDA brings does not outlive the daemon, and one that takes its place is not told of those that
    were connected: what is submitted by an old connection is stored, and nobody ever runs it.
    """

    def __init__(self) -> None:
        self._broker = _broker_pid()

    def submit(self, builder: Any) -> Any:
        """Submit a process to the daemon that there is now, and return its node."""
        from aiida.engine import submit
        from aiida.manage import get_manager

        if (now := _broker_pid()) != self._broker:
            self._broker = now
            get_manager().reset_runner()
            get_manager().reset_broker()
        return submit(builder)


def _broker_pid() -> Any:
    """Return what tells one broker from another; RabbitMQ is connected to again by its own library."""
    from aiida.manage import get_manager

    told: Any = getattr(get_manager().get_broker(), 'probe_service_status', dict)()
    return told.get('pid')
