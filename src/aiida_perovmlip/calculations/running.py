"""Running a job in this process."""

from __future__ import annotations

from typing import Any


def run_here(builder: Any) -> Any:
    """Run a job and return its node; its computer may be reached by `core.ssh_async`.

    Such a transport waits in the loop of the runner that the manager knows. AiiDA's own `run` makes another one.
    """
    from aiida.manage import get_manager

    manager = get_manager()
    before, runner = manager._runner, manager.create_runner(communicator=None)
    manager._runner = runner  # to set it would close the one of submissions, and the loop of its communicator
    try:
        return runner.run_get_node(builder)[1]
    finally:
        manager._runner = before
        runner.close()
