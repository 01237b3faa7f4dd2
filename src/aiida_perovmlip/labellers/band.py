"""What all calculations have in common in which a labeller relaxes a path by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level

if TYPE_CHECKING:  # importing AiiDA makes folders; who only asks which labellers there are must not
    from aiida import orm
    from aiida.engine import CalcJobProcessSpec


def define_band_ports(spec: CalcJobProcessSpec) -> None:
    """Define the inputs, outputs and exit codes by which a chain knows a band of a labeller."""
    from aiida import orm

    from aiida_perovmlip.data.dataset import DatasetData

    empty: dict[str, Any] = {'default': lambda: orm.Dict({}), 'serializer': orm.to_aiida_type}
    spec.input('path', valid_type=DatasetData, help='The first path: both ends and the images between them, in order.')
    spec.input('settings', valid_type=orm.Dict, help='Settings of the labeller, as for a label.', **empty)
    spec.input('band', valid_type=orm.Dict, help='Settings of the band; see `BandSettings`. Some are refused.', **empty)
    spec.output(
        'path',
        valid_type=DatasetData,
        required=False,
        help='The path as far as it came, with energies and forces; also of a band that did not converge.',
    )
    spec.output(
        'results',
        valid_type=orm.Dict,
        required=False,
        help='`n_images`, `n_steps`, `residual` (largest force on the band in eV/Å), `is_climbing`, `is_converged`, '
        '`level`, and in `profile` the barriers in eV.',
    )


def band_outputs(
    node: orm.CalcJobNode, images: Sequence[Frame], level: Level, **about: Any
) -> Iterator[tuple[str, orm.Data]]:
    """Yield the outputs of a band from its images as they are at last, ends included.

    :param images: with energies, and with forces where the program tells them.
    :param about: the further results that `define_band_ports` names.
    """
    import numpy as np
    from aiida import orm

    from aiida_perovmlip.analysis.barriers import profile_of
    from aiida_perovmlip.data.dataset import DatasetData

    first = list(node.inputs.path.frames)
    if [image.symbols for image in images] != [frame.symbols for frame in first]:
        raise ValueError('the images are not those of the path that went in.')
    marked = [
        replace(image, charge=frame.charge, spin=frame.spin, group=frame.group, head='default', source=node.uuid)
        for image, frame in zip(images, first, strict=True)
    ]
    yield 'path', DatasetData.from_frames(marked, level)
    positions, energies = (np.array([getattr(image, name) for image in images]) for name in ('positions', 'energy'))
    forces = None if any(image.forces is None for image in images) else np.array([image.forces for image in images])
    profile = profile_of(positions, energies, forces).numbers()
    yield 'results', orm.Dict({'level': level.to_dict(), 'n_images': len(images) - 2, **about, 'profile': profile})
