"""Find the path of least energy between two structures with a potential."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.analysis.barriers import profile_of
from aiida_perovmlip.calculations.base import PotentialCalculation, results_of
from aiida_perovmlip.calculations.label import level_of
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.compute.band import BandSettings
from aiida_perovmlip.compute.contract import Response
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.compute.tasks.neb import HISTORY, PATH, read_path
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.paths import problem_of_path

MOST_IMAGES = 200
"""A path of more structures than this is taken for a dataset that is none."""


class NebCalculation(PotentialCalculation):
    """Relax a nudged elastic band with a potential, all images in one call of it.

    A path is a dataset: its first and last frames are the ends, those between them the images, in order and in
    positions that are not wrapped. What comes out is a path too, converged or not, and can go in again.
    """

    task = 'neb'
    products = (PATH, HISTORY)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        spec.inputs['potential'].help = 'The potential on whose surface the path is sought.'
        spec.input(
            'path',
            valid_type=DatasetData,
            help='The first path: both ends and the images between them, in order. Labels are not read.',
        )
        spec.input(
            'head',
            valid_type=orm.Str,
            required=False,
            serializer=orm.to_aiida_type,
            help='The head to predict with; needed where the potential has several.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            serializer=orm.to_aiida_type,
            help='Settings of the band: forces, springs, climbing, steps; what is left out has its default.',
        )
        spec.inputs.validator = _validate
        spec.output(
            'path',
            valid_type=DatasetData,
            required=False,
            help='The path as far as it came, with energies and forces of the potential; also of a job that did not '
            'converge, or was stopped.',
        )
        spec.output(
            'history',
            valid_type=orm.ArrayData,
            required=False,
            help='Before each step and after the last: `residual` (n,), the largest force on the band in eV/Å, and '
            '`barrier` (n,), its highest energy above the first end in eV.',
        )
        spec.outputs['results'].help = (
            'How far the band came, and in `profile` its barriers in eV: `forward` and `reverse` from the ends to the '
            'top, `span` from the lowest image, `reaction` from end to end, those of the curve through forces, and the '
            'images that are minima between the ends.'
        )
        spec.default_output_node = 'results'

    def settings(self) -> dict[str, Any]:
        """Return the settings of the band, and the head."""
        head = self.inputs.head.value if 'head' in self.inputs else None
        return {'band': self.inputs.settings.get_dict(), 'head': head}

    def folders(self) -> dict[str, Any]:
        """Return potential and path."""
        return {'potential': self.inputs.potential, 'path': self.inputs.path}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield how far the band came, and the path as it was then."""
        images = _images(node, folder / PATH) if (folder / PATH).is_file() else []
        if response is not None and response.results:
            yield 'results', results_of(response, profile=_profile(images))
        if images:
            yield 'path', DatasetData.from_frames(images, _level(node.inputs))
        if (folder / HISTORY).is_file():
            history = np.array(json.loads((folder / HISTORY).read_text()), dtype=float).reshape(-1, 2)
            yield 'history', orm.ArrayData({'residual': history[:, 0], 'barrier': history[:, 1]})


def _images(node: orm.CalcJobNode, path: Path) -> list[Frame]:
    """Return the images that a job left; refuse those of another path."""
    images = read_path(path)
    first = list(node.inputs.path.frames)
    if [image.symbols for image in images] != [frame.symbols for frame in first]:
        raise ValueError('the images are not those of the path that went in.')
    return [replace(image, head='default', source=node.uuid) for image in images]


def _profile(images: list[Frame]) -> dict[str, Any] | None:
    """Return the barriers of a path; None where its images have no energies yet."""
    if not images or any(image.energy is None or image.forces is None for image in images):
        return None
    positions, energies, forces = (
        np.array([getattr(image, name) for image in images]) for name in ('positions', 'energy', 'forces')
    )
    return profile_of(positions, energies, forces).numbers()


def _level(inputs: Any) -> Level:
    """Return the level of theory of energies and forces: the potential itself."""
    head = {'head': inputs['head'].value} if 'head' in inputs else {}
    return level_of('potential', head, inputs['potential'])


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in inputs for name in ('potential', 'path')):
        return None
    potential, path = inputs['potential'], inputs['path']
    try:
        read_settings(BandSettings, inputs['settings'].get_dict())
        registry.reference('architectures', potential.architecture)
        _level(inputs)
    except (SettingsError, ValueError) as error:
        return str(error)
    unknown = missing_elements(path.elements, potential.elements)
    if unknown:
        return f'the path holds {", ".join(unknown)}, but the potential knows only {", ".join(potential.elements)}.'
    if len(path) > MOST_IMAGES:
        return f'the path has {len(path)} structures; a band of more than {MOST_IMAGES} is none that anybody wants.'
    return problem_of_path([frame.to_atoms(labels=False) for frame in path.frames])
