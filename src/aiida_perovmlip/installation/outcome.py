"""What one step of a set-up did, or why it could not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal['created', 'found', 'replaced', 'left out']
Kind = Literal['environment', 'library', 'profile', 'computer', 'code']


@dataclass(frozen=True)
class Done:
    """One step of a set-up.

    :param name: of the environment, profile, computer or code.
    :param outcome: what was done; under `dry_run` what would be.
    :param detail: where it is; of what was left out, why.
    """

    kind: Kind
    name: str
    outcome: Outcome
    detail: str = ''
    dry_run: bool = False

    @property
    def says(self) -> str:
        """Return the outcome in words."""
        return f'would be {self.outcome}' if self.dry_run and self.outcome != 'found' else self.outcome


class SetupFailure(Exception):  # noqa: N818 - a noun says it better
    """Something that a machine lacks; the message says what, and what to do next."""
