"""Energies of phases relative to one of them, and how far those of two methods are apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """The energy of a phase as one method sees it.

    :param energy: of the lowest of its structures, in eV per formula unit above the phase that is the zero.
    :param lowest: which of its structures that is, counted from 0.
    :param formula_units: of that structure.
    """

    energy: float
    lowest: int
    formula_units: int


def formula_units_of(symbols: Sequence[str]) -> int:
    """Return how many times the smallest whole formula a structure holds."""
    return math.gcd(*Counter(symbols).values())


def formula_of(symbols: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Return the smallest whole formula of a structure, in alphabetical order."""
    units = formula_units_of(symbols)
    return tuple(sorted((symbol, count // units) for symbol, count in Counter(symbols).items()))


def phases_of(names: Sequence[str], energies: Sequence[float], units: Sequence[int], zero: str) -> dict[str, Phase]:
    """Return each phase, by its name, from the energies of structures.

    :param names: the phase of each structure.
    :param energies: of each structure in eV.
    :param units: formula units of each structure.
    :param zero: the phase whose energy is zero.
    """
    if zero not in names:
        raise ValueError(f'there is no phase `{zero}`; there are {", ".join(dict.fromkeys(names))}.')
    each = [energy / count for energy, count in zip(energies, units, strict=True)]
    places = {name: [at for at, one in enumerate(names) if one == name] for name in dict.fromkeys(names)}
    lowest = {name: min(at, key=each.__getitem__) for name, at in places.items()}
    base = each[lowest[zero]]
    return {name: Phase(each[at] - base, places[name].index(at), units[at]) for name, at in lowest.items()}


def errors_of(one: Mapping[str, Phase], other: Mapping[str, Phase], zero: str) -> dict[str, float]:
    """Return how far each phase but the zero is from what another method says, in eV per formula unit."""
    return {name: phase.energy - other[name].energy for name, phase in one.items() if name != zero and name in other}


def ranks_alike(one: Mapping[str, Phase], other: Mapping[str, Phase]) -> bool:
    """Whether two methods put the phases that both know into the same order."""
    known = [name for name in one if name in other]
    return sorted(known, key=lambda name: one[name].energy) == sorted(known, key=lambda name: other[name].energy)
