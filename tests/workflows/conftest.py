"""Fixtures of the tests of chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def label(python_code: Any) -> Callable[..., Any]:
    """Return a function that labels frames with the plug-in `unruly` and returns the node of the chain."""
    from aiida.engine import run_get_node

    from aiida_perovmlip.workflows.label import LabelWorkChain

    def run(frames: Any, **inputs: Any) -> Any:
        builder = LabelWorkChain.get_builder()
        builder.frames = frames
        builder.labeller = 'unruly'
        builder.codes = {'here': python_code}
        for name, value in inputs.items():
            setattr(builder, name, value)
        return run_get_node(builder)[1]

    return run


@pytest.fixture
def bare_frames(make_frames: Any) -> Callable[..., Any]:
    """Return a function that makes an unstored dataset of unlabelled frames, one group for each name given."""
    from aiida_perovmlip.data.dataset import DatasetData

    def make(*groups: str, seed: int = 0) -> Any:
        frames = [
            frame
            for number, group in enumerate(groups)
            for frame in make_frames(1, seed=1000 * seed + number, labels=False, group=group)
        ]
        return DatasetData.from_frames(frames)

    return make
