"""A level of theory: the settings that make two labels comparable, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Level:
    """How energies, forces and stresses were computed; two labels are comparable when their fingerprints are equal.

    :param labeller: the program or calculator, such as `cp2k` or `tblite`.
    :param functional: density functional or Hamiltonian, such as `PBE` or `GFN2-xTB`.
    :param cutoff: plane-wave or grid cutoff with unit, such as `500 Ry`.
    :param basis: basis set and pseudopotentials.
    :param dispersion: dispersion correction.
    :param kpoints: mesh or spacing, such as `2x2x2` or `Gamma`.
    :param charge: how the charge of the cell is treated.
    :param spin: how spin is treated.
    :param details: whatever else changes the numbers, such as an electronic temperature.
    """

    labeller: str
    functional: str = ''
    cutoff: str = ''
    basis: str = ''
    dispersion: str = ''
    kpoints: str = ''
    charge: str = ''
    spin: str = ''
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that are equal for equal levels and only for these."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(',', ':'), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the level with its fingerprint as plain values."""
        return {**asdict(self), 'fingerprint': self.fingerprint}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Level:
        """Read what `to_dict` returned, or a dictionary written by hand; unknown keys are refused."""
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(content) - known - {'fingerprint'})
        if unknown:
            raise ValueError(
                f'a level of theory has no {", ".join(map(repr, unknown))}; known are {", ".join(sorted(known))}.'
            )
        level = cls(**{key: value for key, value in content.items() if key in known})
        if content.get('fingerprint', level.fingerprint) != level.fingerprint:
            raise ValueError(f'the fingerprint {content["fingerprint"]} does not belong to this level of theory.')
        return level

    def __str__(self) -> str:
        parts = (self.labeller, self.functional, self.dispersion, self.cutoff, self.basis, self.kpoints)
        return ' / '.join(part for part in parts if part)
