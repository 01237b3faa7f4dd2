"""The nudged elastic band: from a first path between two ends to the path of least energy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.mep import NEB
from ase.optimize import FIRE

from aiida_perovmlip.compute.architecture import Prediction, Predictor
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.settings import option


@dataclass(frozen=True)
class BandSettings:
    """Settings of a band."""

    fmax: float = option(
        0.03,
        'Largest force on an atom of the band at which it has converged, springs included.',
        unit='eV/Å',
        minimum=0,
    )
    climb: bool = option(
        True,
        'Whether the highest image climbs to the saddle, once the band is near the path; nothing climbs where the path '
        'only rises to an end.',
    )
    fmax_before_climb: float = option(
        0.1, 'Largest force on an atom of the band at which it begins to climb.', unit='eV/Å', minimum=0
    )
    spring: float = option(5.0, 'Stiffness of the springs between images.', unit='eV/Å²', minimum=0)
    max_steps: int = option(1000, 'Most steps of the band.', minimum=1)
    relax_ends: bool = option(True, 'Whether both ends are relaxed first, in the cell that they have.')
    fmax_ends: float = option(0.01, 'Largest force on an atom of a relaxed end.', unit='eV/Å', minimum=0)
    max_steps_ends: int = option(1000, 'Most steps of the relaxation of an end.', minimum=1)


@dataclass
class Band:
    """A path on its way, with what the potential says of each of its images.

    :param frames: both ends and the images between them, in order.
    :param ends: largest force on an atom of each end in eV/Å.
    :param steps: how many steps the images between the ends have made.
    :param residual: largest force on an atom of the band in eV/Å, springs included; this one converges.
    :param is_climbing: whether the highest image climbed in the last step.
    :param history: the residual in eV/Å and the highest energy above the first end in eV, before each step and after
        the last one.
    """

    frames: list[Frame]
    ends: list[float] = field(default_factory=lambda: [np.inf, np.inf])
    steps: int = 0
    residual: float = np.inf
    is_climbing: bool = False
    is_converged: bool = False
    history: list[tuple[float, float]] = field(default_factory=list)


class NotFiniteError(ArithmeticError):
    """A potential that predicts what is no number for an image of the band."""


class EndsMeetError(ValueError):
    """Two ends that relax into one structure."""


class Stopped(Exception):  # noqa: N818
    """Whoever watches a band wants it to end here."""


ONE_PLACE = 0.1
"""Largest displacement of an atom in Å between two ends that are one structure."""

LOWEST_TOP = 1e-3
"""How far, in eV, a top between an image and an end has to be above this end to count as one."""

Watch = Callable[[Band], bool]
"""Looks at a band after each step, and says whether to go on."""


def relax_band(frames: Sequence[Frame], predictor: Predictor, settings: BandSettings, watch: Watch) -> Band:
    """Relax both ends, move the images between them along, and relax these; the highest climbs at last.

    Nothing drifts: where there are periodic directions, the mean position of each image moves as that of the ends does.
    """
    band = Band(list(frames))
    try:
        if settings.relax_ends:
            _relax_ends(band, predictor, settings, watch)
            _refuse_one_place(band)
        band.frames = _labelled(band.frames, predictor)
        band.ends = [largest_force(band.frames[end]) for end in (0, -1)]
        if settings.climb:
            _relax(band, predictor, settings, max(settings.fmax_before_climb, settings.fmax), watch, climb=False)
        _relax(band, predictor, settings, settings.fmax, watch, climb=settings.climb)
        band.is_converged = band.residual <= settings.fmax and _are_at_rest(band, settings)
    except Stopped:
        pass
    return band


def _refuse_one_place(band: Band) -> None:
    """Raise where both ends have come to the same place."""
    moved = distance_of_ends(band.frames)
    if moved < ONE_PLACE:
        raise EndsMeetError(
            f'both ends relax into one structure, in which no atom is farther than {moved:.3f} Å from where it is in '
            'the other: there is nothing between them. Choose ends that are minima of this potential.'
        )


def distance_of_ends(frames: Sequence[Frame]) -> float:
    """Return the largest displacement of an atom in Å from the first to the last frame."""
    return float(np.linalg.norm(frames[-1].positions - frames[0].positions, axis=1).max())


def _are_at_rest(band: Band, settings: BandSettings) -> bool:
    """Whether the ends are as relaxed as was asked."""
    return not settings.relax_ends or max(band.ends) <= settings.fmax_ends


def largest_force(frame: Frame) -> float:
    """Return the largest force on an atom of a labelled frame in eV/Å, what would shift all atoms left out."""
    return float(np.linalg.norm(_at_rest(frame.forces, frame.pbc), axis=1).max())


def residual_of(frames: Sequence[Frame], spring: float, climb: bool) -> float:
    """Return the largest force on an atom of a band of labelled frames in eV/Å, springs included."""
    atoms = [frame.to_atoms() for frame in frames]
    images = NEB(atoms, k=spring, climb=climb and _has_top(atoms), method='improvedtangent')
    forces = images.get_forces().reshape(len(frames) - 2, -1, 3)
    return max(float(np.linalg.norm(_at_rest(each, frames[0].pbc), axis=1).max()) for each in forces)


def _relax_ends(band: Band, predictor: Predictor, settings: BandSettings, watch: Watch) -> None:
    """Relax both ends in their cells; each image moves by its share of what these move."""
    parts = np.linspace(0.0, 1.0, len(band.frames))
    for end, shares in ((0, 1.0 - parts), (-1, parts)):
        for positions, force in _steps_of_end(band.frames[end], predictor, settings):
            moved = positions - band.frames[end].positions
            band.frames = [
                replace(frame, positions=frame.positions + share * moved, energy=None, forces=None)
                for frame, share in zip(band.frames, shares, strict=True)
            ]
            band.ends[end] = force
            if not watch(band):
                raise Stopped


def _steps_of_end(frame: Frame, predictor: Predictor, settings: BandSettings) -> Iterator[tuple[Array, float]]:
    """Yield the positions (n_atoms, 3) in Å of an end that relaxes, and the largest force on its atoms in eV/Å."""
    atoms = frame.to_atoms(labels=False)
    atoms.calc = _Predicting(predictor)
    for _ in FIRE(atoms, logfile=None).irun(fmax=settings.fmax_ends, steps=settings.max_steps_ends):
        yield atoms.positions.copy(), float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def _relax(band: Band, predictor: Predictor, settings: BandSettings, fmax: float, watch: Watch, climb: bool) -> None:
    """Relax the images between the ends until the forces on them are small enough, or the steps used up."""
    images = _Images(band.frames, predictor, settings.spring, climb)
    before = band.steps
    for done, _ in enumerate(FIRE(images, logfile=None).irun(fmax=fmax, steps=settings.max_steps - before)):
        band.frames[1:-1] = images.frames
        band.steps, band.residual, band.is_climbing = before + done, images.residual, images.climb
        energies = [float(frame.energy or 0.0) for frame in band.frames]
        band.history.append((band.residual, max(energies) - energies[0]))
        if not watch(band):
            raise Stopped


class _Images(NEB):
    """The images between the ends as ASE moves them, all of which are predicted at once."""

    def __init__(self, frames: Sequence[Frame], predictor: Predictor, spring: float, climb: bool) -> None:
        atoms = [frame.to_atoms() for frame in frames]
        super().__init__(atoms, k=spring, method='improvedtangent')
        self.predictor, self.frames, self.may_climb = predictor, list(frames[1:-1]), climb
        self.residual = np.inf
        self._last: Array | None = None
        self._forces: Array = np.empty(0)

    def get_forces(self) -> Array:
        """Return what moves the images, (n_images * n_atoms, 3) in eV/Å; asked again, it is not computed again."""
        positions = self.get_positions()
        if self._last is None or not np.array_equal(positions, self._last):
            self._predict(positions)
            forces = super().get_forces().reshape(len(self.frames), -1, 3)
            self._forces = np.concatenate([_at_rest(each, self.frames[0].pbc) for each in forces])
            self._last = positions.copy()
            self.residual = float(np.linalg.norm(self._forces, axis=1).max())
        return self._forces.copy()

    def _predict(self, positions: Array) -> None:
        """Predict all images at once."""
        places = positions.reshape(len(self.frames), -1, 3)
        moved = [replace(frame, positions=place.copy()) for frame, place in zip(self.frames, places, strict=True)]
        self.frames = _labelled(moved, self.predictor)
        for atoms, frame in zip(self.images[1:-1], self.frames, strict=True):
            atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
        self.climb = self.may_climb and _has_top(self.images)


def _has_top(images: Sequence[Atoms]) -> bool:
    """Whether there is a top between the ends; on a path that only rises, the highest image would climb over its end.

    Where an end is higher than all images, the top may lie between it and the image beside it: the curve through the
    energies and forces of both tells.
    """
    energies = [float(atoms.get_potential_energy()) for atoms in images]
    if max(energies[1:-1]) > max(energies[0], energies[-1]):
        return True
    end, beside = (0, 1) if energies[0] > energies[-1] else (-1, -2)
    way = images[end].positions - images[beside].positions
    rise = energies[end] - energies[beside]
    first, last = (-float(np.sum(images[each].get_forces() * way)) for each in (beside, end))
    part = np.linspace(0.0, 1.0, 101)
    curve = part * (first + part * (3 * rise - 2 * first - last + part * (first + last - 2 * rise)))
    return bool(curve.max() > rise + LOWEST_TOP)


class _Predicting(Calculator):
    """An open potential as an ASE calculator, under whose forces nothing drifts."""

    implemented_properties: ClassVar[list[str]] = ['energy', 'forces']

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Predict one structure."""
        super().calculate(atoms, properties, system_changes)
        (frame,) = _labelled([Frame.from_atoms(self.atoms)], self.predictor)
        self.results = {'energy': frame.energy, 'forces': _at_rest(frame.forces, frame.pbc)}


def _labelled(frames: Sequence[Frame], predictor: Predictor) -> list[Frame]:
    """Return frames with energy and forces of the potential."""
    return [_with(frame, said) for frame, said in zip(frames, predictor(frames), strict=True)]


def _with(frame: Frame, said: Prediction) -> Frame:
    """Return a frame with what was predicted of it; refuse what is no number."""
    if not np.isfinite(said.energy) or not np.isfinite(said.forces).all():
        raise NotFiniteError('the potential predicts an energy or a force that is not finite.')
    return replace(frame, energy=said.energy, forces=said.forces, stress=None)


def _at_rest(forces: Any, pbc: Array) -> Array:
    """Return forces (n_atoms, 3) without their mean, where a shift of all atoms changes nothing."""
    values = np.array(forces, dtype=float)
    return values - values.mean(axis=0) if pbc.any() else values
