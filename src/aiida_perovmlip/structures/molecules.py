"""Organic cations of the A site, from internal coordinates."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Positions = NDArray[np.float64]

MOLECULES = ('MA', 'FA')
"""Names of the cations: methylammonium CH₃NH₃⁺ and formamidinium CH(NH₂)₂⁺."""

# Typical bond lengths in Å and angles in degrees of the free cations, as neutron diffraction and DFT give them.
_C_H = 1.09
_N_H = 1.03
_MA_C_N = 1.49
_FA_C_N = 1.32
_FA_N_C_N = 125.0
_FA_H_N_C = 121.0
_MA_H_N_C = 111.0
_MA_H_C_N = 108.5


def molecule(name: str) -> Atoms:
    """Return a cation, its centre of mass at the origin; MA lies along z and FA in the xy plane.

    :param name: `MA` or `FA`.
    """
    if name not in MOLECULES:
        raise ValueError(f'the molecule is {name!r} but has to be one of {", ".join(MOLECULES)}.')
    atoms = _methylammonium() if name == 'MA' else _formamidinium()
    atoms.translate(-atoms.get_center_of_mass())
    return atoms


def _methylammonium() -> Atoms:
    """Return CH₃NH₃⁺ in its staggered conformation."""
    nitrogen = np.array([0.0, 0.0, _MA_C_N])
    ammonium = nitrogen + _umbrella(_N_H, _MA_H_N_C, twist=0.0)
    methyl = _umbrella(_C_H, _MA_H_C_N, twist=60.0) * np.array([1.0, 1.0, -1.0])
    return Atoms('CNH6', positions=np.vstack([np.zeros(3), nitrogen, methyl, ammonium]))


def _umbrella(bond: float, angle: float, twist: float) -> Positions:
    """Return three hydrogens (3, 3) in Å around the z axis, whose apex at the origin has its neighbour below.

    :param angle: hydrogen–apex–neighbour, in degrees.
    """
    theta = np.radians(angle)
    phi = np.radians(twist + np.array([0.0, 120.0, 240.0]))
    radius = bond * np.sin(theta)
    return np.column_stack([radius * np.cos(phi), radius * np.sin(phi), np.full(3, -bond * np.cos(theta))])


def _formamidinium() -> Atoms:
    """Return planar CH(NH₂)₂⁺ with carbon at the origin and its hydrogen on the negative y axis."""
    half = np.radians(_FA_N_C_N / 2)
    positions = [np.zeros(3), np.array([0.0, -_C_H, 0.0])]
    for side in (-1.0, 1.0):
        outward = np.array([side * np.sin(half), np.cos(half), 0.0])
        nitrogen = _FA_C_N * outward
        hydrogens = [nitrogen + _N_H * _turned(-outward, sign * _FA_H_N_C) for sign in (-1, 1)]
        positions += [nitrogen, *hydrogens]
    return Atoms('CHNH2NH2', positions=np.array(positions))


def _turned(vector: Positions, degrees: float) -> Positions:
    """Return the vector (3,) turned about the z axis."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y, z = vector
    return np.array([cosine * x - sine * y, sine * x + cosine * y, z])
