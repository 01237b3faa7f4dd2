"""Find the path of least energy between two structures, with a potential or with a labeller."""

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
from aiida_perovmlip.calculations.base import ComputeCalculation, PotentialCalculation, check_plugin, results_of
from aiida_perovmlip.calculations.label import level_of
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.compute.band import BandSettings
from aiida_perovmlip.compute.contract import Response
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller
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
        _define_path(spec)

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
        return _outputs(node, response, folder, _level(node.inputs))


class LabelBandCalculation(ComputeCalculation):
    """Relax a nudged elastic band with a labeller that is an ASE calculator: the reference's own path.

    It is the band of `NebCalculation`, image by image. Programs such as CP2K and VASP have bands of their own.
    """

    task = 'neb'
    products = (PATH, HISTORY)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.input('labeller', valid_type=orm.Str, help='Name of a labeller that is an ASE calculator.', **to_node)
        spec.input(
            'settings',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='Settings of the labeller, as for a label.',
            **to_node,
        )
        spec.input(
            'band',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='Settings of the band; what is left out has its default.',
            **to_node,
        )
        spec.inputs.validator = _validate_labeller
        _define_path(spec)

    def plugins(self) -> dict[str, str]:
        """Return the labeller."""
        return {'labeller': registry.reference('labellers', self.inputs.labeller.value)}

    def settings(self) -> dict[str, Any]:
        """Return the settings of the band and of the labeller."""
        return {'band': self.inputs.band.get_dict(), self.inputs.labeller.value: self.inputs.settings.get_dict()}

    def folders(self) -> dict[str, Any]:
        """Return the path."""
        return {'path': self.inputs.path}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield how far the band came, and the path as it was then."""
        level = level_of(node.inputs.labeller.value, node.inputs.settings.get_dict())
        return _outputs(node, response, folder, level)


def _define_path(spec: CalcJobProcessSpec) -> None:
    """Define the path that goes in, and what comes out."""
    spec.input(
        'path',
        valid_type=DatasetData,
        help='The first path: both ends and the images between them, in order. Labels are not read.',
    )
    spec.output(
        'path',
        valid_type=DatasetData,
        required=False,
        help='The path as far as it came, with energies and forces; also of a job that did not converge, or was '
        'stopped.',
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


def _outputs(
    node: orm.CalcJobNode, response: Response | None, folder: Path, level: Level
) -> Iterator[tuple[str, orm.Data]]:
    """Yield how far a band came, and the path as it was then."""
    images = _images(node, folder / PATH) if (folder / PATH).is_file() else []
    if images:
        yield 'path', DatasetData.from_frames(images, level)
    if response is not None and response.results:
        yield 'results', results_of(response, profile=_profile(images))
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
    return _problem_of_path(path)


def _validate_labeller(inputs: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in inputs for name in ('labeller', 'path')):
        return None
    name, settings = inputs['labeller'].value, inputs['settings'].get_dict()
    problem = check_plugin('labellers', name, settings)
    if problem:
        return problem
    kind = registry.load('labellers', name)
    if not issubclass(kind, AseLabeller) or kind.needs_potential:
        return f'the labeller `{name}` is no ASE calculator that works by itself, so it relaxes no band this way.'
    try:
        read_settings(BandSettings, inputs['band'].get_dict())
    except SettingsError as error:
        return str(error)
    return _problem_of_path(inputs['path'])


def _problem_of_path(path: DatasetData) -> str | None:
    """Return a sentence where no band should start from a path."""
    if len(path) > MOST_IMAGES:
        return f'the path has {len(path)} structures; a band of more than {MOST_IMAGES} is none that anybody wants.'
    return problem_of_path([frame.to_atoms(labels=False) for frame in path.frames])
