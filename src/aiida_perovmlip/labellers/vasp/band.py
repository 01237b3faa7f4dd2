"""Relax a band with VASP itself: climbing images by VTST."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec
from aiida_vasp.calcs.vasp import VaspCalculation
from aiida_vasp.parsers.content_parsers.poscar import PoscarParser

from aiida_perovmlip.calculations.sources import digest, host_sources
from aiida_perovmlip.compute.band import BandSettings
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.data.dataset import DatasetData, LevelError
from aiida_perovmlip.labellers.band import define_band_ports
from aiida_perovmlip.labellers.vasp import inputs, neb
from aiida_perovmlip.labellers.vasp.calculation import (
    DIGITS,
    STDOUT,
    VASPRUN,
    VaspLabelCalculation,
    refuse,
    structure_of,
)
from aiida_perovmlip.labellers.vasp.potentials import basis_of, valences_of
from aiida_perovmlip.labellers.vasp.settings import VaspSettings, level_of

OUTCAR = 'OUTCAR'


class VaspBandCalculation(VaspLabelCalculation):
    """Relax the images of a path by the climbing-image nudged elastic band of VASP with VTST.

    The calculation is that of a label, with a folder of each image: `vasp.neb` of aiida-vasp would want each structure
    as a node of its own, and all tags as an input, so that nobody could tell whether these belong to the settings.
    VASP does not compute both ends: `ends` brings their labels, or the path itself has them.
    """

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs: those of every band, labels of the ends, and what a label of VASP needs."""
        super().define(spec)
        for ports, names in ((spec.inputs, ('frames', 'ml_ab')), (spec.outputs, ('dataset',))):
            for name in names:
                del ports[name]
        define_band_ports(spec)
        spec.input(
            'ends',
            valid_type=DatasetData,
            required=False,
            help='Both ends with labels of the level of theory of `settings`, in order; VASP does not compute them. '
            'Without it the first and last frames of `path` need such labels, as in a path that comes from such a job.',
        )
        spec.inputs.validator = _validate
        options = spec.inputs['metadata']['options']
        options['parser_name'].default = 'perovmlip.vasp.band'
        spec.exit_code(310, 'ERROR_NO_RESPONSE', 'An image left no output: {message}', invalidates_cache=True)
        spec.exit_code(500, 'ERROR_NOT_CONVERGED', 'The band did not converge: {message}')

    @property
    def CACHE_VERSION(self) -> int:  # noqa: N802
        """A digest of our sources and those of aiida-vasp; see `VaspLabelCalculation`."""
        from aiida_perovmlip.labellers.vasp import band_parser

        return digest(host_sources([__name__, band_parser.__name__, VaspCalculation.__module__]).values())

    @cached_property
    def frames(self) -> list[Frame]:
        """The path, ends included."""
        return list(self.inputs.path.frames)

    @cached_property
    def frame(self) -> Frame:
        """The first end, which has the atoms and the cell of all images."""
        return self.frames[0]

    @property
    def _parameters(self) -> dict[str, Any]:
        """The tags of INCAR."""
        return tags_of(self.inputs)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write a folder of each image, and name what to bring back of each."""
        info = super().prepare_for_submission(folder)
        for index, frame in enumerate(self.frames):
            place = Path(folder.get_abs_path(folder_of(index)))
            place.mkdir()
            PoscarParser(data=structure_of(frame), precision=DIGITS).write(str(place / 'POSCAR'))
        images = [folder_of(index) for index in range(1, len(self.frames) - 1)]
        # VASP prints what it says of the first image to the output of the job, and of each other one to a file
        info.retrieve_list = [STDOUT, *([f'{image}/{IMAGE_STDOUT}', '.', 2] for image in images[1:])]
        names = (OUTCAR, VASPRUN)
        info.retrieve_temporary_list = [VASPRUN, *([f'{image}/{name}', '.', 2] for image in images for name in names)]
        return info


IMAGE_STDOUT = 'stdout'


def folder_of(index: int) -> str:
    """Return the folder of an image; the first end is number 0."""
    return f'{index:02d}'


def ends_of(given: Any) -> list[Frame]:
    """Return both ends with their labels; those of the path where no others are given."""
    frames = list(given['ends' if 'ends' in given else 'path'].frames)
    return frames if 'ends' in given else [frames[0], frames[-1]]


def tags_of(given: Any) -> dict[str, Any]:
    """Return the tags of INCAR that follow from the inputs of a band."""
    frames = list(given['path'].frames)
    potentials = {element: given['potential'][element] for element in set(frames[0].symbols)}
    return neb.band_tags(
        read_settings(VaspSettings, given['settings'].get_dict()),
        read_settings(BandSettings, given['band'].get_dict()),
        frames,
        ends_of(given),
        valences_of(potentials),
        given['repair'].value if 'repair' in given else '',
    )


# ---------------------------------------------------------------------- what is refused


def _validate(given: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in given for name in ('path', 'settings', 'band')):
        return None
    problem = neb.problem_of_settings(given['settings'].get_dict(), given['band'].get_dict())
    if problem:
        return f'vasp: {problem}'
    repair = given['repair'].value if 'repair' in given else ''
    if repair and repair not in inputs.REPAIRS:
        return f'there is no repair `{repair}`; there are {", ".join(inputs.REPAIRS)}.'
    frames = list(given['path'].frames)
    return neb.problem_of_images(frames) or _refuse(frames, given)


def _refuse(frames: list[Frame], given: Any) -> str | None:
    """Return a sentence where an image, a POTCAR, the ends or the machine stand in the way."""
    settings = read_settings(VaspSettings, given['settings'].get_dict())
    resources = given.get('metadata', {}).get('options', {}).get('resources', {})
    return (
        refuse(settings, frames[0], given.get('potential', {}))
        or _refuse_level(settings, given)
        or neb.problem_of_ends(frames, ends_of(given))
        or neb.problem_of_resources(resources, len(frames) - 2)
    )


def _refuse_level(settings: VaspSettings, given: Any) -> str | None:
    """Return a sentence where the ends have labels of another level of theory than the images will have."""
    name = 'ends' if 'ends' in given else 'path'
    try:
        theirs = given[name].level
    except LevelError as error:
        return f'`{name}`: {error}'
    if theirs is None:
        return 'there are no labels of both ends, which VASP does not compute. Label them, and give them as `ends`.'
    ours = level_of(settings, basis_of(given['potential']))
    if theirs.fingerprint == ours.fingerprint:
        return None
    return f'both ends are labelled by {_short(theirs)}, but the images will be by {_short(ours)}. Label them anew.'


def _short(level: Any) -> str:
    """Return a level in a few words, with what tells it from others of these words."""
    return f'{level.labeller} {level.functional} {level.cutoff} ({level.fingerprint[:8]})'
