"""The name of a file by its content, which is the source of all frames that are read from it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def hash_of(file: Path | Any) -> str:
    """Return `sha256:` and the hash of a file, or of the content of a `SinglefileData`."""
    with file.open(mode='rb') as handle:
        return f'sha256:{hashlib.file_digest(handle, "sha256").hexdigest()}'
