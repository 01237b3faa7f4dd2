"""How a run begins: the first velocities, and what its temperature counts."""

from __future__ import annotations

import numpy as np
from ase import units

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.md import MdSettings

PER_PICOSECOND = 1000 * units.fs
"""One Å/ps is so many of the units in which ASE has velocities, the other way round."""


def degrees_of_freedom(settings: MdSettings, frame: Frame, keeps_momentum: bool) -> int:
    """Return what the temperature counts: nothing of what is frozen, nor the centre of mass where it never moves."""
    n_free = len(frame) - len(settings.frozen_indices(frame))
    return 3 * n_free - (3 if keeps_momentum and n_free == len(frame) > 1 else 0)


def first_velocities(settings: MdSettings, frame: Frame, seed: int, n_degrees: int) -> Array:
    """Draw velocities (n_atoms, 3) in Å/ps by Maxwell's law; their temperature is exact, and nothing drifts."""
    masses = settings.masses_of(frame)[:, None]
    frozen = settings.frozen_indices(frame)
    momenta = np.random.default_rng(seed).normal(size=(len(masses), 3)) * np.sqrt(masses)
    momenta[frozen] = 0.0
    if not len(frozen) and len(masses) > 1:
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    wanted = n_degrees * units.kB * settings.first_temperature
    velocities: Array = momenta * np.sqrt(wanted / (momenta**2 / masses).sum()) / masses * PER_PICOSECOND
    return velocities
