"""Fixtures of the job tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def run_job(python_code: Any) -> Callable[..., tuple[dict[str, Any], Any]]:
    """Return a function that runs a job with the tests' own Python and returns its outputs and its node."""
    from aiida.engine import run_get_node

    def run(process: Any, options: dict[str, Any] | None = None, **inputs: Any) -> tuple[dict[str, Any], Any]:
        builder = process.get_builder()
        builder.code = python_code
        for name, value in inputs.items():
            setattr(builder, name, value)
        for name, value in (options or {}).items():
            setattr(builder.metadata.options, name, value)
        return run_get_node(builder)

    return run


@pytest.fixture
def training(make_dataset: Any) -> Any:
    """Return a stored dataset to train on."""
    return make_dataset(8).store()


@pytest.fixture
def validation(make_dataset: Any) -> Any:
    """Return a stored dataset to validate on."""
    return make_dataset(3, seed=1).store()
