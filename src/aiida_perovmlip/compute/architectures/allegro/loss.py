"""A squared error that is zero where there is nothing to compare, as in batches in which no frame has a stress."""

from __future__ import annotations

from typing import Any


def mean_squared_error_or_zero() -> Any:
    """Return nequip's mean squared error, but zero instead of 0/0, which would spoil all parameters.

    Mentioned by name in the configuration of the trainer, so that importing this module needs no torch.
    """
    import torch
    from nequip.train.metrics import MeanSquaredError

    class ErrorOrZero(MeanSquaredError):  # noqa: N818 - a measure, not an exception
        """The mean squared error of what was seen; zero before anything was."""

        def compute(self) -> torch.Tensor:
            """Return the mean."""
            return self.sum / self.count.clamp(min=1)

    return ErrorOrZero()
