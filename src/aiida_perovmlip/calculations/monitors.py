"""Monitors: what the daemon looks for in a job while it runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from aiida.common.datastructures import CalcJobState
from aiida.schedulers import JobState

from aiida_perovmlip.calculations.progress import is_number, read_states_from
from aiida_perovmlip.compute.divergence import GROWTH, QUANTITIES, WINDOW, sign_of_divergence

DIVERGENCE = 'The training diverges'
"""How the message of the monitor begins; a chain knows by it which monitor has stopped a job."""

JOBS = 1000
"""Jobs of which a worker of the daemon remembers how far it has read."""

_read: OrderedDict[str, tuple[int, list[dict[str, Any]]]] = OrderedDict()
"""By UUID of a job: the byte up to which its report was read, and what is needed of the curve up to there."""


def divergence(node: Any, transport: Any, growth: float = GROWTH, window: int = WINDOW) -> str | None:
    """Return a sentence where the loss of a running training is not finite or has grown for good; it is then killed.

    Only what is new in the report is read. A job that has ended is left alone: there is nothing to be killed.
    """
    if node.get_scheduler_state() is JobState.DONE or node.get_state() is not CalcJobState.WITHSCHEDULER:
        return None
    start, curve = _read.pop(node.uuid, (0, []))
    states, end = read_states_from(node, transport, start)
    curve = curve + [state for state in states if is_number(state.get('step'))]
    sign = sign_of_divergence(curve, growth, window)
    _remember(node.uuid, end, thinned(curve, window))
    return f'{DIVERGENCE}: {sign} The job was stopped.' if sign else None


def thinned(curve: Sequence[dict[str, Any]], window: int = WINDOW) -> list[dict[str, Any]]:
    """Return the part of a curve that tells as much of a divergence as the whole: the best and the last steps."""
    stage = curve[-1].get('stage') if curve else None
    indices = [index for index, step in enumerate(curve) if step.get('stage') == stage]
    kept = set(indices[-1:])
    for name in QUANTITIES:
        known = [index for index in indices if is_number(curve[index].get(name))]
        kept |= set(known[-window:])
        kept |= set(sorted(known[:-window], key=lambda index: float(curve[index][name]))[:1])
    return [curve[index] for index in sorted(kept)]


def _remember(uuid: str, end: int, curve: list[dict[str, Any]]) -> None:
    """Keep how far a job was read; the jobs that were looked at longest ago are forgotten, and read anew."""
    _read[uuid] = end, curve
    while len(_read) > JOBS:
        _read.popitem(last=False)
