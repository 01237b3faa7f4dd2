"""Paths that are made from a recipe, cut and joined, with provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
from aiida import orm
from ase import Atoms

from aiida_perovmlip.analysis.barriers import profile_of
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.band import ONE_PLACE
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.settings import SettingsError, option, read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.bonds import molecules_by_bonds
from aiida_perovmlip.structures.exchange import moved_together, pushed
from aiida_perovmlip.structures.hops import (
    InterstitialHop,
    VacancyHop,
    interstitial_hops,
    interstitial_places,
    vacancy_hops,
)
from aiida_perovmlip.structures.paths import PathError, check_path, displacements, idpp, linear, resampled
from aiida_perovmlip.structures.rotations import between, rotated

WAYS = {'idpp': idpp, 'linear': linear}
N_IMAGES = 'Images between the ends.'
WAY = 'How the images are placed: distances that change evenly (`idpp`), or straight (`linear`).'


class Recipe(Protocol):
    """A kind of path: how many structures it starts from, and its images."""

    needs: ClassVar[int]

    def images(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return both ends and the images between them."""
        ...


@dataclass(frozen=True)
class OneHop:
    """One ion or molecule hops: what vacancies and interstitials have in common."""

    needs: ClassVar[int] = 1
    ion: str = option('I', 'The ion that hops: an element, `MA` or `FA`.')
    max_distance: float = option(5.0, 'Longest straight way of a hop.', unit='Å', minimum=0.1)
    which: int = option(0, 'Which of the distinct hops, counted from the shortest, which is 0.', minimum=0)
    charge: int | None = option(None, 'Charge of the cell; not stated if nothing is said.')
    n_images: int = option(5, N_IMAGES, minimum=1)
    way: str = option('idpp', WAY, choices=tuple(WAYS))
    symprec: float = option(1e-3, 'Distance within which atoms count as equivalent.', unit='Å', minimum=0.0)
    molecules_as_points: bool = option(False, 'Whether the symmetry is that of the centres of molecules.')

    def hops(self, host: Atoms) -> Sequence[VacancyHop | InterstitialHop]:
        """Return the distinct hops in a host."""
        raise NotImplementedError

    def images(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return the path of the hop that is wanted."""
        (host,) = structures
        hops = self.hops(host)
        if self.which >= len(hops):
            ways = ', '.join(f'{hop.distance:.2f}' for hop in hops) or 'none'
            raise ValueError(f'there is no hop {self.which} of {self.ion}; the ways are, in Å and from 0: {ways}.')
        start, end = hops[self.which].ends(host, self.charge)
        return WAYS[self.way](start, end, self.n_images)


@dataclass(frozen=True)
class Vacancy(OneHop):
    """An ion of a host hops into a vacancy of its kind."""

    def hops(self, host: Atoms) -> Sequence[VacancyHop]:
        """Return the distinct hops into a vacancy."""
        return vacancy_hops(host, self.ion, self.max_distance, self.symprec, self.molecules_as_points)


@dataclass(frozen=True)
class Interstitial(OneHop):
    """An ion that a host has one more of hops from one place between its atoms to another."""

    place: list[float] | None = option(None, 'Where it starts, in Å; where there is the most room if nothing is said.')

    def hops(self, host: Atoms) -> Sequence[InterstitialHop]:
        """Return the distinct hops between places that are alike."""
        places = [self.place] if self.place is not None else interstitial_places(host, 0.0, self.symprec)[:1]
        return interstitial_hops(host, self.ion, places, self.max_distance, self.symprec, self.molecules_as_points)


@dataclass(frozen=True)
class Exchange:
    """Several ions or molecules move at once, each into the place of the next one, and the last into a free place."""

    needs: ClassVar[int] = 1
    chain: list[int] = option([], 'An atom of each ion or molecule that moves, the one that pushes first.')
    last_place: list[float] = option([], 'Where the centre of mass of the last one goes.', unit='Å')
    charge: int | None = option(None, 'Charge of the cell; that of the structure if nothing is said.')
    n_images: int = option(5, N_IMAGES, minimum=1)
    way: str = option('idpp', WAY, choices=tuple(WAYS))

    def images(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return the path of all that move."""
        (host,) = structures
        if len(self.last_place) != 3:
            raise ValueError(f'`last_place` is {self.last_place} but has to be three coordinates in Å.')
        moves = pushed(host, [_ion_of(host, atom) for atom in self.chain], self.last_place)
        charge = host.info.get('charge') if self.charge is None else self.charge
        return WAYS[self.way](*moved_together(host, moves, charge), self.n_images)


@dataclass(frozen=True)
class Between:
    """Atoms go from one structure to another."""

    needs: ClassVar[int] = 2
    n_images: int = option(5, N_IMAGES, minimum=1)
    way: str = option('idpp', WAY, choices=tuple(WAYS))

    def images(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return the path from the one to the other."""
        start, end = structures
        return WAYS[self.way](start, end, self.n_images)


@dataclass(frozen=True)
class Turn:
    """A molecule turns as a rigid body about an axis, and all else rests."""

    needs: ClassVar[int] = 1
    axis: str | list[float] = option('normal', 'A vector, or by name: `normal`, `C-H` or `N-N` of FA, `C-N` of MA.')
    degrees: float = option(180.0, 'How far, right-handed about the axis.', unit='°')
    molecule: int = option(0, 'Which molecule, in the order in which bonds find them.', minimum=0)
    n_images: int = option(7, N_IMAGES, minimum=1)

    def images(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return the path of the turn."""
        (host,) = structures
        return rotated(host, _members(host, self.molecule), self.axis, self.degrees, self.n_images)


@dataclass(frozen=True)
class TurnBetween:
    """A molecule turns from how it stands in one structure to how it stands in another."""

    needs: ClassVar[int] = 2
    axis: str | list[float] | None = option(
        None, 'As for `turn`; only needed near 180°, where both senses are as long.'
    )
    molecule: int = option(0, 'Which molecule, in the order in which bonds find them.', minimum=0)
    n_images: int = option(7, N_IMAGES, minimum=1)

    def images(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return the path of the turn."""
        start, end = structures
        return between(start, end, _members(start, self.molecule), self.n_images, self.axis)


KINDS: dict[str, type[Any]] = {
    'vacancy': Vacancy,
    'interstitial': Interstitial,
    'exchange': Exchange,
    'between': Between,
    'turn': Turn,
    'turn_between': TurnBetween,
}
"""Kinds of paths, by the name that a recipe has for them."""


@recorded
def build_path(recipe: orm.Dict, structures: DatasetData) -> DatasetData:
    """Build the first path of a migration: both ends and the images between them.

    :param recipe: `kind`, and the settings of that kind; see :data:`KINDS`.
    :param structures: one frame, the host, or two, the ends; labels are not read.
    """
    kind = read_recipe(recipe.get_dict())
    frames = [frame.to_atoms(labels=False) for frame in structures.frames]
    if len(frames) != kind.needs:
        wanted = {1: 'one structure, the host', 2: 'two structures, its ends'}[kind.needs]
        raise ValueError(f'a path of the kind `{recipe["kind"]}` starts from {wanted}, but there are {len(frames)}.')
    images = kind.images(frames)
    try:
        check_path(images, may_return=True)  # a scan may; whoever relaxes the path looks again
    except PathError as error:
        raise type(error)(f'no band should start from this path: {error}') from error
    return DatasetData.from_ase(images)


@recorded
def cut_path(path: DatasetData, minima: orm.List, n_images: orm.Int) -> dict[str, DatasetData]:
    """Cut a path at images that are minima; each piece has these, or ends of the path, as its ends.

    :param minima: numbers of the images, counted from 0, the first end.
    :param n_images: images between the ends of each piece, which are placed along the old path.
    """
    images = [frame.to_atoms(labels=False) for frame in path.frames]
    stops = [0, *sorted(minima.get_list()), len(images) - 1]
    pieces = [resampled(images[one : other + 1], n_images.value) for one, other in pairwise(stops)]
    return {f'piece_{number:02d}': DatasetData.from_ase(piece) for number, piece in enumerate(pieces, 1)}


@recorded
def finish_path(report: orm.Dict, **pieces: DatasetData) -> dict[str, orm.Data]:
    """Join relaxed pieces, in the order of their names, to one path, and say what barriers it has.

    :param report: what is told of the pieces; it is passed on in `results`, beside `profile`.

    Returns `path` and `results`.
    """
    ordered = [list(pieces[name]) for name in sorted(pieces)]
    frames = list(ordered[0])
    for piece in ordered[1:]:
        _refuse_gap(frames[-1], piece[0])
        frames += piece[1:]
    positions, energies, forces = (
        np.array([getattr(frame, name) for frame in frames]) for name in ('positions', 'energy', 'forces')
    )
    profile = profile_of(positions, energies, forces).numbers()
    path = DatasetData.from_frames(frames, pieces[min(pieces)].level)
    return {'path': path, 'results': orm.Dict({**report.get_dict(), 'profile': profile})}


@recorded
def take_ends(path: DatasetData) -> DatasetData:
    """Take the first and the last frame of a path, with their labels."""
    return path.select([0, len(path) - 1])


def _refuse_gap(end: Frame, start: Frame) -> None:
    """Refuse pieces that do not meet: a minimum between two bands is the end of one and the start of the other."""
    shifts = displacements(end.to_atoms(labels=False), start.to_atoms(labels=False))
    gap = float(np.linalg.norm(shifts, axis=1).max())
    if gap > ONE_PLACE:
        raise ValueError(
            f'two pieces of the path do not meet: an atom of the minimum between these is {gap:.2f} Å from where it is '
            'in the other. Relax both with the same settings.'
        )


def read_recipe(recipe: Mapping[str, Any]) -> Recipe:
    """Return what a recipe asks for; raise a ValueError that says how to mend it."""
    settings = dict(recipe)
    name = settings.pop('kind', None)
    if name not in KINDS:
        raise ValueError(f'the kind of the path is {name!r} but has to be one of {", ".join(KINDS)}.')
    try:
        kind: Recipe = read_settings(KINDS[name], settings)
    except SettingsError as error:
        raise ValueError(f'the path of the kind `{name}`: {error}') from error
    return kind


def _ion_of(host: Atoms, atom: int) -> list[int]:
    """Return the atoms of the molecule that an atom belongs to, or the atom alone."""
    if not 0 <= atom < len(host):
        raise ValueError(f'`chain` names the atom {atom}, but the structure has atoms 0 to {len(host) - 1}.')
    return next((part.tolist() for part in molecules_by_bonds(host) if atom in part), [atom])


def _members(host: Atoms, molecule: int) -> Any:
    """Return the atoms of a molecule of the host."""
    found = molecules_by_bonds(host)
    if molecule >= len(found):
        raise ValueError(f'there is no molecule {molecule}: bonds show {len(found)} in {host.get_chemical_formula()}.')
    return found[molecule]
