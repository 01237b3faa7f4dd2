"""Paths on which a molecule in a crystal turns as a rigid body."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from aiida_perovmlip.structures.bonds import Indices, Positions, named, whole
from aiida_perovmlip.structures.paths import displacements, fractions, image_of

Axis = str | Sequence[float] | NDArray[np.float64]

AXES = {'FA': ('normal', 'C-H', 'N-N'), 'MA': ('C-N',)}
"""Names of the axes of each molecule."""

HALF_A_TURN = 20.0
"""Degrees around 180° within which the sense of a rotation has to be told: relaxed ends miss 180° by some degrees."""

ASKEW = 30.0
"""Largest angle in degrees between the axis that is passed and the one that the ends have turned about."""

AS_GOOD = 0.1
"""Orders of hydrogens whose ends fit each other as well as the best one, in Å of the root mean square misfit."""

MAX_ORDERS = 50_000
"""Most orders of hydrogens that are tried: FA has 4, MA 36."""


def rotated(
    atoms: Atoms,
    indices: Sequence[int] | Indices,
    axis: Axis,
    degrees: float,
    n_images: int,
    centre: Literal['mass', 'geometry'] = 'mass',
) -> list[Atoms]:
    """Return the path on which a molecule turns about an axis through its centre and all else rests, ends included.

    :param axis: vector (3,) in any length, or a name as in :func:`axis_of`; the rotation is right-handed about it.
    """
    if not math.isfinite(degrees) or degrees == 0:
        raise ValueError(f'the rotation is by {degrees}° but has to be finite and not zero.')
    members = _members(atoms, indices)
    origin, offsets = _centred(atoms, members, centre)
    direction = _direction(atoms, members, axis)
    images = []
    for part in fractions(n_images):
        positions = atoms.positions.copy()
        positions[members] = origin + Rotation.from_rotvec(part * math.radians(degrees) * direction).apply(offsets)
        images.append(image_of(atoms, atoms, positions))
    return images


def between(
    start: Atoms, end: Atoms, indices: Sequence[int] | Indices, n_images: int, axis: Axis | None = None
) -> list[Atoms]:
    """Return the path on which a molecule turns from one end to the other, ends included.

    Its hydrogens are matched first: those of the same C or N change places in `end` where the molecule then fits better
    as a rigid body. The centre of mass, the shape of the molecule in its own frame and all other atoms move straight.

    :param axis: vector (3,) or name as in :func:`axis_of`, of the start. Near 180°, where both senses are as short, the
        molecule turns right-handed about it; elsewhere it turns the shorter way.
    """
    shifts = displacements(start, end)
    members = _members(start, indices)
    origin, offsets = _centred(start, members, 'mass')
    order = matched(start, end, members)
    matched_end = end.copy()
    matched_end.positions[members] = end.positions[members[order]]
    goal, final = _centred(matched_end, members, 'mass')
    step = find_mic((goal - origin)[None], start.cell, start.pbc)[0][0]
    turn, _ = _fit(offsets, final, start.get_masses()[members])
    vector = _sensed(turn, None if axis is None else _direction(start, members, axis))
    back = turn.inv().apply(final) - offsets  # change of shape in the frame of the molecule
    images = []
    for part in fractions(n_images):
        positions = start.positions + part * shifts
        positions[members] = origin + part * step + Rotation.from_rotvec(part * vector).apply(offsets + part * back)
        images.append(image_of(start, end, positions))
    return images


def matched(start: Atoms, end: Atoms, indices: Sequence[int] | Indices) -> Indices:
    """Return the order (n,) in which the atoms of a molecule in `end` follow those in `start`.

    Hydrogens of one heavy atom are alike. The order given is kept if no other fits better by more than `AS_GOOD`; of
    those that do, the one with the smallest rotation is taken.
    """
    members = _members(start, indices)
    _, offsets = _centred(start, members, 'mass')
    _, final = _centred(end, members, 'mass')
    masses = start.get_masses()[members]
    fits = [(order, *_fit(offsets, final[order], masses)) for order in _orders(start, members, offsets, final)]
    best = min(misfit for _, _, misfit in fits)
    good = [(order, turn) for order, turn, misfit in fits if misfit <= best + AS_GOOD]
    given = np.arange(len(members))
    if any(np.array_equal(order, given) for order, _ in good):
        return given
    return min(good, key=lambda one: float(one[1].magnitude()))[0]


def axis_of(atoms: Atoms, indices: Sequence[int] | Indices, name: str) -> Positions:
    """Return the unit vector (3,) of an axis of a molecule.

    :param name: of FA, `normal` to the plane of C and both N, `C-H` from the carbon to its hydrogen, or `N-N` from the
        first nitrogen to the second; of MA, `C-N` from the carbon to the nitrogen.
    """
    members = _members(atoms, indices)
    formula = atoms[members].symbols.formula.format('hill')
    kind = {'CH5N2': 'FA', 'CH6N': 'MA'}.get(formula)
    if kind is None or name not in AXES[kind]:
        known = '; '.join(f'{", ".join(names)} of {one}' for one, names in AXES.items())
        raise ValueError(f'{formula} has no axis named {name!r}: give a vector, or one of {known}.')
    positions, symbols = whole(atoms, members), np.array(atoms.symbols)[members]
    carbon, nitrogens = positions[symbols == 'C'][0], positions[symbols == 'N']
    if name == 'normal':
        vector = np.cross(nitrogens[0] - carbon, nitrogens[1] - carbon)
    elif name == 'C-H':
        hydrogens = positions[symbols == 'H']
        vector = hydrogens[cdist([carbon], hydrogens)[0].argmin()] - carbon
    else:
        vector = nitrogens[-1] - (carbon if name == 'C-N' else nitrogens[0])
    return np.asarray(vector / np.linalg.norm(vector))


def _members(atoms: Atoms, indices: Sequence[int] | Indices) -> Indices:
    """Return the indices of a molecule as an array, checked."""
    members = np.asarray(indices, dtype=np.int64)
    if members.ndim != 1 or len(members) < 2 or len(set(members.tolist())) < len(members):
        raise ValueError(f'the molecule is {members.tolist()} but has to be two or more different atoms.')
    if members.min() < 0 or members.max() >= len(atoms):
        raise ValueError(f'the molecule is {members.tolist()} but the structure has atoms 0 to {len(atoms) - 1}.')
    return members


def _centred(atoms: Atoms, members: Indices, centre: str) -> tuple[Positions, Positions]:
    """Return the centre (3,) of a molecule and where its atoms lie around it (n, 3), in Å."""
    if centre not in ('mass', 'geometry'):
        raise ValueError(f"the centre is {centre!r} but has to be 'mass' or 'geometry'.")
    positions = whole(atoms, members)
    weights = atoms.get_masses()[members] if centre == 'mass' else np.ones(len(members))
    origin = weights @ positions / weights.sum()
    return origin, positions - origin


def _direction(atoms: Atoms, members: Indices, axis: Axis) -> Positions:
    """Return the unit vector (3,) of an axis that is given by name or as a vector."""
    if isinstance(axis, str):
        return axis_of(atoms, members, axis)
    vector = np.asarray(axis, dtype=float)
    length = float(np.linalg.norm(vector))
    if vector.shape != (3,) or not 0 < length < math.inf:
        raise ValueError(f'the axis is {axis!r} but has to be three numbers that are not all zero.')
    return np.asarray(vector / length)


def _fit(offsets: Positions, final: Positions, masses: NDArray[np.float64]) -> tuple[Rotation, float]:
    """Return the rotation that takes centred positions (n, 3) nearest to others, and the misfit left in Å."""
    turn, residual = Rotation.align_vectors(final, offsets, weights=masses)
    return turn, float(residual / math.sqrt(masses.sum()))


def _sensed(turn: Rotation, direction: Positions | None) -> Positions:
    """Return the rotation vector (3,) in radians, in the sense of the direction where the rotation is near 180°."""
    vector = np.asarray(turn.as_rotvec())
    angle = float(np.linalg.norm(vector))
    is_half = math.degrees(angle) > 180 - HALF_A_TURN
    if direction is None:
        if is_half:
            raise ValueError(
                f'the molecule turns by {math.degrees(angle):.1f}°, where both senses are as short: pass the axis '
                f'that it turns about, such as {np.round(vector / angle, 3).tolist()} or its opposite.'
            )
        return vector
    if math.degrees(angle) < HALF_A_TURN:
        return vector
    cosine = float(vector @ direction) / angle
    if abs(cosine) < math.cos(math.radians(ASKEW)):
        raise ValueError(
            f'the molecule turns by {math.degrees(angle):.1f}° about {np.round(vector / angle, 3).tolist()}, but the '
            f'axis passed is {np.round(direction, 3).tolist()}: pass the one it turns about.'
        )
    return vector * (1 - 2 * math.pi / angle) if is_half and cosine < 0 else vector


def _orders(start: Atoms, members: Indices, offsets: Positions, final: Positions) -> list[Indices]:
    """Return all orders (n,) of the end in which hydrogens stay with the heavy atom that they have at the start."""
    is_hydrogen = start.numbers[members] == 1
    heavy, light = np.flatnonzero(~is_hydrogen), np.flatnonzero(is_hydrogen)
    if not len(heavy) or not len(light):
        return [np.arange(len(members))]
    before, after = (heavy[cdist(places[light], places[heavy]).argmin(axis=1)] for places in (offsets, final))
    groups = [(light[before == atom], light[after == atom]) for atom in heavy]
    for atom, (one, other) in zip(heavy, groups, strict=True):
        if len(one) != len(other):
            raise ValueError(
                f'{named(start, [members[atom]])} has {len(one)} hydrogens in one end and {len(other)} in the other: '
                'give both ends the same order of C and N, and no proton that changed its place.'
            )
    number = math.prod(math.factorial(len(one)) for one, _ in groups)
    if number > MAX_ORDERS:
        raise ValueError(
            f'the hydrogens can be matched in {number} ways, more than {MAX_ORDERS}: give them in one order.'
        )
    orders = []
    for choice in itertools.product(*[itertools.permutations(other.tolist()) for _, other in groups]):
        order = np.arange(len(members))
        for (one, _), places in zip(groups, choice, strict=True):
            order[one] = places
        orders.append(order)
    return orders
