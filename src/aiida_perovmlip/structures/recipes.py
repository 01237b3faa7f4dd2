"""Recipes: plain JSON that says which frames to build, the same for the same seed.

A recipe is `{'families': [...]}`; each family has the keys of :class:`Family`, of which only `formula` and `count` are
needed. For example::

    {'families': [{'formula': 'CsPbI3', 'count': 30, 'glazer': ['a0a0a0', 'a0a0c+'], 'tilt_degrees': 8,
                   'strain': 0.03, 'rattle': 0.08}]}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

import numpy as np
from ase import Atoms

from aiida_perovmlip.structures.distort import distorted
from aiida_perovmlip.structures.perovskite import GLAZER, Glazer, lattice_constant_of, sites_of, tilt_signs, tilted

DECIMALS = 9
"""Decimals of positions and cells in Å."""


@dataclass(frozen=True)
class Family:
    """Frames that are built alike.

    :param formula: a perovskite such as `CsPbI3` or `MAPbBr3`.
    :param count: number of frames.
    :param repeat: number of cells along each axis.
    :param lattice_constant: in Å.
    :param glazer: tilt systems, which the frames take in turn.
    :param tilt_degrees: angle of the tilts in degrees.
    :param strain: largest absolute value of each component of the strain.
    :param rattle: standard deviation of the displacements in Å.
    :param group: name of the family in the dataset.
    """

    formula: str
    count: int
    repeat: tuple[int, int, int]
    lattice_constant: float
    glazer: tuple[Glazer, ...]
    tilt_degrees: float
    strain: float
    rattle: float
    group: str


def frames_from_recipe(recipe: Mapping[str, Any], seed: int) -> Iterator[Atoms]:
    """Check a recipe, then return its frames one by one, each with its group in `atoms.info['group']`.

    Every frame has random numbers of its own, made from the seed, the place and the content of its family and its place
    in there. So a change of one family leaves the frames of all others as they were, and a larger `count` only
    appends frames.
    """
    families = read_recipe(recipe)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f'the seed is {seed!r} but has to be a whole number that is not negative.')
    return (frame for index, family in enumerate(families) for frame in _frames_of(family, index, int(seed)))


def read_recipe(recipe: Mapping[str, Any]) -> tuple[Family, ...]:
    """Return the families of a recipe, or raise a ValueError that says how to mend it."""
    if not isinstance(recipe, Mapping) or set(recipe) != {'families'}:
        raise ValueError("a recipe has to be a dictionary with the one key 'families'.")
    families = recipe['families']
    if not isinstance(families, (list, tuple)) or not families:
        raise ValueError("'families' has to be a list of at least one family.")
    return tuple(_read_family(f'family {number}', content) for number, content in enumerate(families, start=1))


def _frames_of(family: Family, index: int, seed: int) -> Iterator[Atoms]:
    """Yield the frames of one family."""
    entropy = _entropy(family, index, seed)
    for number in range(family.count):
        rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(number,)))
        glazer = family.glazer[number % len(family.glazer)]
        sites = sites_of(family.formula)
        ideal = tilted(*sites, family.lattice_constant, family.repeat, glazer, family.tilt_degrees, rng)
        frame = distorted(ideal, family.strain, family.rattle, rng)
        # The last digits depend on the version of numpy; without them a recipe means the same everywhere.
        frame.set_cell(np.round(frame.cell.array, DECIMALS))
        frame.positions = np.round(frame.positions, DECIMALS)
        frame.info['group'] = family.group
        yield frame


def _entropy(family: Family, index: int, seed: int) -> int:
    """Return a number that stands for the seed, the place of the family and what shapes each of its frames."""
    content = {key: value for key, value in asdict(family).items() if key not in ('count', 'group')}
    text = json.dumps([seed, index, content], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), 'big')


def _read_family(where: str, content: Any) -> Family:
    """Return one family with its defaults filled in."""
    if not isinstance(content, Mapping):
        raise ValueError(f'{where} is {content!r} but has to be a dictionary.')
    known = [field.name for field in fields(Family)]
    unknown = sorted(str(key) for key in content if key not in known)
    if unknown:
        raise ValueError(f'{where} has no {", ".join(map(repr, unknown))}; known are {", ".join(known)}.')
    for key in ('formula', 'count'):
        if key not in content:
            raise ValueError(f'{where} has no {key!r}: give it.')
    formula = _text(where, 'formula', content['formula'])
    sites_of(formula)
    family = Family(
        formula=formula,
        count=_whole(where, 'count', content['count']),
        repeat=_repeat(where, content.get('repeat', (2, 2, 2))),
        lattice_constant=_lattice_constant(where, formula, content.get('lattice_constant')),
        glazer=_glazer(where, content.get('glazer', 'a0a0a0')),
        tilt_degrees=_number(where, 'tilt_degrees', content.get('tilt_degrees', 0.0), 0.0, 30.0),
        strain=_number(where, 'strain', content.get('strain', 0.0), 0.0, 0.2),
        rattle=_number(where, 'rattle', content.get('rattle', 0.0), 0.0, 0.5),
        group=_text(where, 'group', content.get('group', formula)),
    )
    _check_tilts(where, family)
    return family


def _check_tilts(where: str, family: Family) -> None:
    """Refuse tilts without an angle, or in a supercell that cannot hold them."""
    if family.tilt_degrees == 0 and set(family.glazer) != {'a0a0a0'}:
        raise ValueError(f"{where} tilts {', '.join(family.glazer)} by no angle: give 'tilt_degrees'.")
    for glazer in family.glazer:
        try:
            tilt_signs(glazer, family.repeat)
        except ValueError as exception:
            raise ValueError(f'{where}: {exception}') from exception


def _text(where: str, key: str, value: Any) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'{where} has {key!r} {value!r} but it has to be a text.')
    return value


def _whole(where: str, key: str, value: Any) -> int:
    """Return a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{where} has {key!r} {value!r} but it has to be a whole number of at least 1.')
    return value


def _number(where: str, key: str, value: Any, minimum: float, maximum: float) -> float:
    """Return a number between two limits."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not minimum <= value <= maximum:
        raise ValueError(f'{where} has {key!r} {value!r} but it has to be a number from {minimum} to {maximum}.')
    return float(value)


def _repeat(where: str, value: Any) -> tuple[int, int, int]:
    """Return three whole numbers."""
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise ValueError(f"{where} has 'repeat' {value!r} but it has to be three whole numbers.")
    return cast(tuple[int, int, int], tuple(_whole(where, 'repeat', number) for number in value))


def _lattice_constant(where: str, formula: str, value: Any) -> float:
    """Return the given lattice constant in Å, or the typical one of the formula."""
    if value is not None:
        return _number(where, 'lattice_constant', value, 3.0, 10.0)
    try:
        return lattice_constant_of(formula)
    except ValueError as exception:
        raise ValueError(f"{where} needs 'lattice_constant': {exception}") from exception


def _glazer(where: str, value: Any) -> tuple[Glazer, ...]:
    """Return the tilt systems, given as one or as a list."""
    systems = [value] if isinstance(value, str) else value
    if not isinstance(systems, (list, tuple)) or not systems or any(system not in GLAZER for system in systems):
        raise ValueError(f"{where} has 'glazer' {value!r} but it has to be one or a list of {', '.join(GLAZER)}.")
    return tuple(systems)
