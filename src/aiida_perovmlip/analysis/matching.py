"""Which frames of two datasets are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class DigestIndex:
    """Where a structure is in a dataset, by its digest; of equal ones the first counts.

    :param digests: (n_frames, 16) uint8.
    """

    def __init__(self, digests: NDArray[np.uint8]) -> None:
        self._keys, self._first = np.unique(_keys(digests), return_index=True)
        self.n_repeated = len(digests) - len(self._keys)

    def find(self, digests: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the position of each digest (n,); -1 where there is none."""
        wanted = _keys(digests)
        if not len(self._keys):
            return np.full(len(wanted), -1, np.int64)
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[place] == wanted, self._first[place], -1).astype(np.int64)


def _keys(digests: NDArray[np.uint8]) -> NDArray[Any]:
    """Return digests as values that numpy can sort; all have one length, so zeros at the end do no harm."""
    return np.ascontiguousarray(digests).view('S16').reshape(-1)
