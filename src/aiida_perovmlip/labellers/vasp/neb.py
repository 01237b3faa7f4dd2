"""What VASP with VTST is given for a band, and what of a band it cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiida_perovmlip.compute.band import BandSettings
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.labellers.vasp.agreement import FARTHEST
from aiida_perovmlip.labellers.vasp.inputs import Incar, incar_of, tidy
from aiida_perovmlip.labellers.vasp.settings import VaspSettings

LBFGS = 1
"""IOPT of the optimiser that moves the whole band at once; of the others there is no record of what VTST says."""

MOST_IMAGES = 98
"""VASP names the folders of images and ends by two digits."""

OWN = ('images', 'spring', 'ibrion', 'potim', 'nsw', 'isif', 'ediffg')
"""Tags that the band sets, and `incar` may not."""

OF_VTST = frozenset({'images', 'spring', 'lclimb', 'ichain', 'iopt', 'efirst', 'elast'})
"""Tags of which `vasprun.xml` gives no account, but OUTCAR does."""


def band_tags(
    settings: VaspSettings,
    band: BandSettings,
    frames: Sequence[Frame],
    ends: Sequence[Frame],
    valences: Mapping[str, float],
    repair: str = '',
) -> Incar:
    """Return the tags of INCAR in lower case for a path.

    :param ends: both ends with their energies, which VASP does not compute: VTST takes them for the tangents.
    """
    tags: Incar = {
        'images': len(frames) - 2,
        'ichain': 0,
        'spring': -band.spring,
        'lclimb': band.climb,
        'iopt': LBFGS,
        'ibrion': 3,  # VASP itself takes steps of no length, and leaves the atoms to VTST
        'potim': 0.0,
        'nsw': band.max_steps,
        'ediffg': -band.fmax,
        'isif': 2,
        'isym': settings.incar.get('isym') or 0,
        'efirst': ends[0].energy,
        'elast': ends[-1].energy,
    }
    return incar_of(settings, frames[0], valences, repair) | {tag: tidy(value) for tag, value in tags.items()}


# ---------------------------------------------------------------------- what is refused


def problem_of_settings(settings: dict[str, Any], band: Mapping[str, Any]) -> str | None:
    """Return a sentence where settings of VASP or of the band are no good, or ask for what VASP cannot do."""
    try:
        checked, asked = read_settings(VaspSettings, settings), read_settings(BandSettings, dict(band))
    except SettingsError as error:
        return str(error)
    return _problem_of_vasp(checked) or _problem_of_band(asked, band)


def _problem_of_vasp(settings: VaspSettings) -> str | None:
    if settings.run != 'energy':
        return f'`run` is {settings.run!r}, but it is the band that moves the atoms; leave it at `energy`.'
    own = [tag for tag in OWN if settings.incar.get(tag) is not None]
    if own:
        return f'`incar` has {own[0]!r}, which follows from the settings of the band.'
    if settings.incar.get('isym') not in (None, 0, -1):
        return '`incar` turns the symmetry on (`isym`), but images of a band have to be free to lose it. Leave it out.'
    return None


def _problem_of_band(asked: BandSettings, given: Mapping[str, Any]) -> str | None:
    if asked.relax_ends:
        return (
            '`relax_ends` is on, but VASP leaves both ends of a band as they are. Relax them by the setting `run: '
            'relax` of the labeller first, and set `relax_ends` to false.'
        )
    if asked.climb and 'fmax_before_climb' in given:
        return (
            '`fmax_before_climb` is given, but with VTST the highest image climbs from the first step on. Leave it '
            'out; or relax the band with `climb` off first, and go on from its path.'
        )
    if asked.spring == 0:
        return '`spring` is 0, which VTST takes for images that know nothing of each other.'
    return None


def problem_of_ends(path: Sequence[Frame], ends: Sequence[Frame]) -> str | None:
    """Return a sentence where two labelled frames are not the ends of a path."""
    if len(ends) != 2:
        return f'`ends` has {len(ends)} frames, but a path has two ends.'
    for name, end, frame in zip(('first', 'last'), ends, (path[0], path[-1]), strict=True):
        if end.energy is None:
            return f'the {name} end has no energy, and VASP does not compute it. Label both ends by `LabelWorkChain`.'
        if end.symbols != frame.symbols or (end.charge or 0, end.spin) != (frame.charge or 0, frame.spin):
            return f'the {name} frame of `ends` has other atoms than that of the path, or in another order or charge.'
        far = _distance(end, frame)
        if far > FARTHEST:
            return f'the {name} frame of `ends` is not that of the path: an atom or a cell vector is {far:.2g} Å away.'
    return None


def _distance(one: Frame, other: Frame) -> float:
    """Return how far, in Å, an atom or the end of a cell vector is at most from where the other has it."""
    shift = (one.positions - other.positions) @ np.linalg.inv(other.cell)
    moved = np.linalg.norm((shift - np.round(shift)) @ other.cell, axis=1).max()
    return max(float(np.abs(one.cell - other.cell).max()), float(moved))


def problem_of_images(path: Sequence[Frame]) -> str | None:
    """Return a sentence where one INCAR cannot be that of all images."""
    from aiida_perovmlip.structures.paths import problem_of_path

    if len(path) - 2 > MOST_IMAGES:
        return f'the path has {len(path) - 2} images, but VASP has names for {MOST_IMAGES}.'
    if len({(frame.charge or 0, frame.spin) for frame in path}) > 1:
        return 'structures of the path differ in charge or multiplicity, but all have one INCAR.'
    return problem_of_path([frame.to_atoms(labels=False) for frame in path])


def problem_of_resources(resources: Mapping[str, Any], n_images: int) -> str | None:
    """Return a sentence where the MPI processes of a job cannot be shared out among the images."""
    machines, each = resources.get('num_machines', 1), resources.get('num_mpiprocs_per_machine')
    total = resources.get('tot_num_mpiprocs') or (machines * each if each else None)
    if total is None or total % n_images == 0:
        return None
    return (
        f'the job has {total} MPI process{"es" if total > 1 else ""}, but VASP shares them out evenly among '
        f'{n_images} images. Set `metadata.options.resources` to a multiple of {n_images}, such as '
        f'{{"num_machines": 1, "num_mpiprocs_per_machine": {n_images * max(1, round(total / n_images))}}}.'
    )
