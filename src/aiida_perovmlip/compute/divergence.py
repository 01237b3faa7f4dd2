"""Whether a training curve shows that the training has gone astray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aiida_perovmlip.compute.contract import number_of

WINDOW = 5
"""Steps whose median is compared with the best."""

GROWTH = 10.0
"""How many times the smallest loss it may grow to."""

QUANTITIES = ('loss', 'validation_loss', 'validation_forces_rmse')


def sign_of_divergence(curve: Sequence[Mapping[str, Any]], growth: float = GROWTH, window: int = WINDOW) -> str | None:
    """Return a sentence where a loss is not finite, or where it has grown for good; None where all is well.

    A single peak is no divergence: the median of the last `window` steps has to be `growth` times as large as the
    smallest value of the curve before these. Losses of different stages, which weigh things differently, are not
    compared.
    """
    stage = curve[-1].get('stage') if curve else None
    curve = [step for step in curve if step.get('stage') == stage]
    for name in QUANTITIES:
        values = [(step.get('step'), number_of(step[name])) for step in curve if name in step]
        numbers = [(where, value) for where, value in values if value is not None]
        for where, value in numbers:
            if not math.isfinite(value):
                return f'`{name}` is {value} at step {where}.'
        if len(numbers) > window:
            best = min(value for _, value in numbers[:-window])
            last = sorted(value for _, value in numbers[-window:])[window // 2]
            if best > 0 and last > growth * best:
                return (
                    f'`{name}` was {best:.3g} and is {last:.3g} over the last {window} steps (to step '
                    f'{numbers[-1][0]}).'
                )
    return None
