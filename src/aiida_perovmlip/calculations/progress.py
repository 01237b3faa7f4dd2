"""What a job reports of itself while it works, read through the transport of its computer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from aiida_perovmlip.compute.contract import PROGRESS, RESPONSE

TAIL = 1 << 15
"""Bytes at the end of the report that are enough to see the present state and how fast it changes."""

CHUNK = 1 << 20
"""Bytes that are read at once, so that no report can hold up the daemon."""

ERRORS = {'energy_per_atom': ('energy', 1000.0, 'meV/atom'), 'forces': ('forces', 1000.0, 'meV/Å')}
"""How errors are called and in which unit they are told, by what they are called in the report (eV/atom, eV/Å)."""


def read_progress(node: Any) -> dict[str, Any] | None:
    """Return the last state that a running job reported; None where there is none yet."""
    states = read_last_states(node)
    return states[-1] if states else None


def read_last_states(node: Any, transport: Any = None) -> list[dict[str, Any]]:
    """Return the last states that a running job reported, oldest first; works on any computer.

    :param transport: a connection to its computer that is open already; None opens one.
    """
    if transport is None:
        with node.computer.get_transport() as opened:
            return read_last_states(node, opened)
    folder = node.get_remote_workdir()
    if folder is None:
        return []
    _, text, _ = transport.exec_command_wait(f'tail -c {TAIL} {shlex.quote(f"{folder}/{PROGRESS}")}')
    return parse_states(text)


def read_states_from(node: Any, transport: Any, start: int) -> tuple[list[dict[str, Any]], int]:
    """Return the states that lie behind a byte of the report, and the byte behind them.

    None are returned once the job has written its response: then it has itself said how it ended.
    """
    folder = node.get_remote_workdir()
    if folder is None:
        return [], start
    command = (
        f'cd {shlex.quote(folder)} && [ ! -e {RESPONSE} ] && '
        f'tail -c +{start + 1} {PROGRESS} 2>/dev/null | head -c {CHUNK}'
    )
    code, text, _ = transport.exec_command_wait(command)
    whole, end, _ = text.rpartition('\n')  # the job may be writing the last line just now
    return (parse_states(whole), start + len((whole + end).encode())) if code == 0 else ([], start)


def retrieved_states(node: Any) -> list[dict[str, Any]]:
    """Return all states that a job reported which has ended; none where nothing came back."""
    if 'retrieved' not in node.outputs:
        return []
    repository = node.outputs.retrieved.base.repository
    if PROGRESS not in repository.list_object_names():
        return []
    return parse_states(repository.get_object_content(PROGRESS, mode='rb').decode(errors='replace'))


def parse_states(text: str) -> list[dict[str, Any]]:
    """Return the states of the lines that are whole."""
    states = []
    for line in text.splitlines():
        try:
            state = json.loads(line)
        except ValueError:
            continue
        if isinstance(state, dict):
            states.append(state)
    return states


def describe(state: dict[str, Any], before: Sequence[dict[str, Any]] = ()) -> str:
    """Return a line for a state of progress.

    :param before: the states before it, from which the time that is left follows.
    """
    parts = [str(state.get('what', 'at work'))]
    if 'step' in state:
        parts.append(f'{state["step"]} of {state["of"]}' if 'of' in state else str(state['step']))
    parts += [f'{name} {state[name]:.3g}' for name in ('loss',) if is_number(state.get(name))]
    parts += [f'{name} is {state[name]}' for name in ('loss',) if state.get(name) in ('nan', 'inf', '-inf')]
    parts += _describe_errors(state)
    if state.get('failed'):
        parts.append(f'{state["failed"]} failed')
    left = seconds_left([*before, state])
    if left is not None:
        parts.append(f'about {_duration(left)} left' if left >= 1 else 'nearly done')
    return ', '.join(parts)


def seconds_left(states: Sequence[dict[str, Any]]) -> float | None:
    """Return the seconds until the last step at the pace of the last states; None where that is not known.

    A run that goes on where another has stopped repeats the report of that one at once: such steps took no time and
    tell nothing of the pace.
    """
    timed = [state for state in states if all(is_number(state.get(name)) for name in ('step', 'of', 'seconds'))]
    if not timed:
        return None
    last, paces = timed[-1], list(_paces(timed))
    if paces:
        pace = float(median(paces[-20:]))
    elif len(timed) == 1 and last['step']:
        pace = float(last['seconds'] / last['step'])
    else:
        return None
    return max(0.0, pace * float(last['of'] - last['step']))


def _paces(timed: Sequence[dict[str, Any]]) -> Iterable[float]:
    """Yield the seconds a step between states that follow each other in time."""
    for first, second in pairwise(timed):
        steps, seconds = second['step'] - first['step'], second['seconds'] - first['seconds']
        if steps > 0 and seconds > 0.01 * steps:  # seconds are reported to a hundredth
            yield seconds / steps


def _describe_errors(state: dict[str, Any]) -> Iterable[str]:
    """Yield the errors on the validation frames, with their units."""
    for key, (name, factor, unit) in ERRORS.items():
        for kind in ('rmse', 'mae'):
            value = state.get(f'validation_{key}_{kind}')
            if is_number(value):
                yield f'{name} {kind.upper()} {factor * float(value or 0):.3g} {unit}'


def _duration(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 120:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 7200 else f'{seconds / 3600:.1f} h'


def is_number(value: Any) -> bool:
    """Whether it is a number and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
