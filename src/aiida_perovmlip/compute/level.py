"""A level of theory: the settings that make two labels comparable, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
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

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != 'details' and not isinstance(value, str):
                raise ValueError(
                    f'`{one.name}` of a level of theory is {value!r} but has to be text, such as "500 Ry".'
                )
        if not self.labeller:
            raise ValueError('a level of theory needs a `labeller`, such as "cp2k" or "vasp".')
        object.__setattr__(self, 'details', _plain(self.details))

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that are equal for equal levels and only for these."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(',', ':'), default=str)
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
        if 'labeller' not in content:
            raise ValueError('a level of theory needs a `labeller`, such as "cp2k" or "vasp".')
        level = cls(**{key: value for key, value in content.items() if key in known})
        if content.get('fingerprint', level.fingerprint) != level.fingerprint:
            raise ValueError(f'the fingerprint {content["fingerprint"]} does not belong to this level of theory.')
        return level

    def __str__(self) -> str:
        parts = (self.labeller, self.functional, self.dispersion, self.cutoff, self.basis, self.kpoints)
        return ' / '.join(part for part in parts if part)


def _plain(value: Any) -> Any:
    """Return plain values that a database gives back as they are: every number as a float of twelve digits."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(f'{value:.12g}')
    raise ValueError(f'{value!r} cannot be part of a level of theory; use numbers, text, lists and dictionaries.')
