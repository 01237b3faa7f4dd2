"""What VASP is given for a frame: tags of INCAR, the k-point mesh, and the order of the atoms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.labellers.vasp.settings import VaspSettings, level_tags

Incar = dict[str, Any]


def order_of(frame: Frame) -> Array:
    """Return the positions of the frame's atoms in the order of POSCAR, shape (atoms,).

    Each species stands together, in the order in which the species first appear, so one POTCAR per species is enough;
    atoms of one species keep their order.
    """
    _, first, species = np.unique(frame.numbers, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(first[species], kind='stable'))


def species_of(frame: Frame) -> list[str]:
    """Return the elements in the order of POSCAR."""
    return list(dict.fromkeys(frame.symbols))


def mesh_of(settings: VaspSettings, frame: Frame) -> tuple[int, int, int]:
    """Return the k-point mesh of a frame; (1, 1, 1) is Γ alone."""
    if settings.kspacing is None:
        first, second, third = settings.kpoints or (1, 1, 1)
        return (first, second, third)
    reciprocal = 2 * math.pi * np.linalg.norm(np.linalg.inv(frame.cell), axis=0)
    # the rule of KSPACING; a cell that fits exactly shall not get another point by the rounding of its vectors
    first, second, third = (max(1, math.ceil(length / settings.kspacing - 1e-9)) for length in reciprocal.tolist())
    return (first, second, third)


def shift_of(settings: VaspSettings, mesh: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return the shift of a mesh away from Γ in units of its spacing: that of Monkhorst and Pack for even numbers."""
    first, second, third = (0.0 if settings.gamma_centred or n % 2 else 0.5 for n in mesh)
    return (first, second, third)


def n_electrons(frame: Frame, valences: Mapping[str, float]) -> float:
    """Return the number of electrons that are treated.

    :param valences: ZVAL of the POTCAR of each element.
    """
    return sum(valences[symbol] for symbol in frame.symbols) - (frame.charge or 0)


def incar_of(settings: VaspSettings, frame: Frame, valences: Mapping[str, float], repair: str = '') -> Incar:
    """Return the tags of INCAR in lower case for a frame."""
    tags = {
        **level_tags(settings),
        **_electron_tags(settings, frame, valences),
        **_MOVING[settings.run](settings, frame),
        **settings.incar,
    }
    tags |= REPAIRS[repair](tags) if repair else {}
    return {tag: tidy(value) for tag, value in tags.items() if value is not None}


def _electron_tags(settings: VaspSettings, frame: Frame, valences: Mapping[str, float]) -> Incar:
    """Return how the SCF cycle is converged, and for how many electrons of which spin."""
    polarised = settings.spin_polarised or (frame.spin or 1) > 1
    tags: Incar = {
        'algo': settings.algorithm,
        'nelm': settings.max_scf,
        'ispin': 2 if polarised else 1,
        'lwave': False,
        'lcharg': False,
    }
    if polarised and frame.spin is not None:
        tags['nupdown'] = frame.spin - 1
    if frame.charge:  # VASP itself counts the electrons of a neutral cell
        tags['nelect'] = n_electrons(frame, valences)
    return tags


def _stand_still(_: VaspSettings, __: Frame) -> Incar:
    # without ISIF, hybrid functionals get no stress
    return {'nsw': 0, 'ibrion': -1, 'isif': 2}


def _relax(settings: VaspSettings, _: Frame) -> Incar:
    return {
        'nsw': settings.steps,
        'ibrion': 2,
        'isif': 3 if settings.vary_cell else 2,
        'ediffg': -settings.max_force,
        'potim': 0.5,
    }


def _move(settings: VaspSettings, frame: Frame) -> Incar:
    species = species_of(frame)
    tags: Incar = {
        'nsw': settings.steps,
        'ibrion': 0,
        'isif': 3 if settings.ensemble == 'NPT' else 2,
        'potim': settings.timestep,
        'tebeg': settings.temperature,
        'teend': settings.last_temperature or settings.temperature,
        'isym': 0,
        'random_seed': [settings.seed, 0, 0],
    }
    if settings.ensemble == 'NVE':
        tags |= {'mdalgo': 1, 'andersen_prob': 0.0}
    else:
        tags |= {'mdalgo': 3, 'langevin_gamma': [settings.friction] * len(species)}
    if settings.ensemble == 'NPT':
        tags['langevin_gamma_l'] = settings.friction
    if set(settings.masses) & set(species):
        tags['pomass'] = [settings.masses.get(element, _usual_mass(element)) for element in species]
    return tags | ({'ml_lmlff': True} | settings.ml if settings.ml else {})


_MOVING: dict[str, Callable[[VaspSettings, Frame], Incar]] = {'energy': _stand_still, 'relax': _relax, 'md': _move}


def _usual_mass(element: str) -> float:
    from ase.data import atomic_masses, atomic_numbers

    return float(atomic_masses[atomic_numbers[element]])


def tidy(value: Any) -> Any:
    """Return whole numbers without a decimal point."""
    if isinstance(value, list):
        return [tidy(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---------------------------------------------------------------------- repairs


def _algo_normal(tags: Incar) -> Incar:
    return {'algo': 'Normal', 'nelm': 2 * tags['nelm']}


def _algo_all(tags: Incar) -> Incar:
    return {'algo': 'All', 'nelm': 3 * tags['nelm']}


def _smaller_mixing(tags: Incar) -> Incar:
    # near-linear mixing with a small step: slow, and hardly able to slosh
    return {
        'algo': 'Normal',
        'nelm': 4 * tags['nelm'],
        'nelmdl': -12,
        'amix': 0.1,
        'bmix': 0.0001,
        'amix_mag': 0.4,
        'bmix_mag': 0.0001,
    }


def _smaller_steps(tags: Incar) -> Incar:
    # TIME is the trial step of the electrons with ALGO = All, POTIM that of the atoms
    steps = {'algo': 'All', 'nelm': 4 * tags['nelm'], 'time': 0.1}
    return steps | ({'potim': 0.5 * tags['potim']} if 'potim' in tags else {})


REPAIRS: dict[str, Callable[[Incar], Incar]] = {
    'algo_normal': _algo_normal,
    'algo_all': _algo_all,
    'smaller_mixing': _smaller_mixing,
    'smaller_steps': _smaller_steps,
}
"""What each repair changes of the tags; it wins over `incar`, and touches none that is part of the level."""


# ---------------------------------------------------------------------- what is refused


def refuse_shape(frame: Frame) -> str | None:
    """Return a sentence where VASP has no use for the cell of a frame."""
    volume = float(np.linalg.det(frame.cell))
    if abs(volume) < 1e-6:
        return (
            'it has no cell, and VASP computes periodic ones. Put it into a box with 5 Å of vacuum on all sides: '
            '`atoms.center(vacuum=5)`.'
        )
    if volume < 0:
        return 'its cell vectors are left-handed, which VASP refuses. Exchange two of them, with their periodicity.'
    return None


def refuse_spin(settings: VaspSettings, frame: Frame, valences: Mapping[str, float]) -> str | None:
    """Return a sentence where charge and multiplicity do not fit the number of electrons."""
    electrons = round(n_electrons(frame, valences))
    if electrons < 1:
        return f'a charge of {frame.charge} leaves {electrons} electrons.'
    if frame.spin is None:
        if electrons % 2 == 0 or settings.spin_polarised:
            return None
        return (
            f'{electrons} valence electrons (charge {frame.charge or 0}) cannot be paired, and it has no multiplicity. '
            'Give it a `spin`, or set `spin_polarised`.'
        )
    if (electrons + frame.spin) % 2 == 0 or frame.spin > electrons + 1:
        allowed = 'odd' if electrons % 2 == 0 else 'even'
        return (
            f'{electrons} valence electrons (charge {frame.charge or 0}) cannot have the multiplicity {frame.spin}; '
            f'it has to be {allowed} and at most {electrons + 1}. Mend `spin` or `charge` of the frame.'
        )
    return None
