"""First paths made from a recipe, with provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from aiida import orm
from ase import Atoms

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.settings import SettingsError, option, read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.bonds import molecules_by_bonds
from aiida_perovmlip.structures.hops import vacancy_hops
from aiida_perovmlip.structures.paths import idpp, linear, problem_of_path
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
class Vacancy:
    """An ion of a host hops into a vacancy of its kind."""

    needs: ClassVar[int] = 1
    ion: str = option('I', 'The ion that is missing and the one that hops: an element, `MA` or `FA`.')
    max_distance: float = option(5.0, 'Longest straight way of a hop.', unit='Å', minimum=0.1)
    which: int = option(0, 'Which of the distinct hops, counted from the shortest, which is 0.', minimum=0)
    charge: int | None = option(None, 'Charge of the cell; not stated if nothing is said.')
    n_images: int = option(5, N_IMAGES, minimum=1)
    way: str = option('idpp', WAY, choices=tuple(WAYS))
    symprec: float = option(1e-3, 'Distance within which atoms count as equivalent.', unit='Å', minimum=0.0)
    molecules_as_points: bool = option(False, 'Whether the symmetry is that of the centres of molecules.')

    def images(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return the path of the hop."""
        (host,) = structures
        hops = vacancy_hops(host, self.ion, self.max_distance, self.symprec, self.molecules_as_points)
        if self.which >= len(hops):
            ways = ', '.join(f'{hop.distance:.2f}' for hop in hops) or 'none'
            raise ValueError(f'there is no hop {self.which} of {self.ion}; the ways are, in Å and from 0: {ways}.')
        start, end = hops[self.which].ends(host, self.charge)
        return WAYS[self.way](start, end, self.n_images)


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
    problem = problem_of_path(images)
    if problem:
        raise ValueError(f'no band should start from this path: {problem}')
    return DatasetData.from_ase(images)


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


def _members(host: Atoms, molecule: int) -> Any:
    """Return the atoms of a molecule of the host."""
    found = molecules_by_bonds(host)
    if molecule >= len(found):
        raise ValueError(f'there is no molecule {molecule}: bonds show {len(found)} in {host.get_chemical_formula()}.')
    return found[molecule]
