"""What potentials and a reference say of the same paths, with provenance."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from aiida import orm

from aiida_perovmlip.analysis.barriers import BARRIERS, LABELS, Profile, difference_of, profile_of
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.paths import path_length, rmsd_between


@recorded
def compare_paths(report: orm.Dict, **labelled: DatasetData) -> dict[str, orm.Data]:
    """Compare barriers, energies and forces of potentials with those of a reference, image by image.

    :param report: `paths` and what to pass on. Of each path by its name: `potentials`, the dataset of each potential's
        energies on it by the name of the potential; `reference`, the dataset of the reference, or None; `unlabelled`,
        the images that the reference gave no label, counted from 0; `relaxed_by`, the potential whose path it is.
    :param labelled: the datasets.

    Returns `comparison`, whose keys are described in the topic on paths, and `profiles`: arrays of places in Å,
    energies in eV, slopes in eV/Å and curves through both, named by path and method.
    """
    told = report.get_dict()
    paths = {name: _Path(name, entry, labelled) for name, entry in told.pop('paths').items()}
    arrays = {key: values for path in paths.values() for key, values in path.arrays().items()}
    comparison = {
        **told,
        'formula': next(iter(paths.values())).images[0].to_atoms(labels=False).get_chemical_formula(),
        'charge': next(iter(paths.values())).images[0].charge,
        'paths': {name: path.described() for name, path in paths.items()},
        'distances': _distances(paths),
    }
    return {'comparison': orm.Dict(comparison), 'profiles': orm.ArrayData(arrays)}


class _Path:
    """One path as all methods see it."""

    def __init__(self, name: str, entry: Mapping[str, Any], labelled: Mapping[str, DatasetData]) -> None:
        self.name, self.entry = name, entry
        self.sets = {potential: labelled[key] for potential, key in entry['potentials'].items()}
        self.frames = {potential: list(dataset) for potential, dataset in self.sets.items()}
        self.images = next(iter(self.frames.values()))
        self.profiles = {potential: _profile(frames) for potential, frames in self.frames.items()}
        self.unlabelled = [int(image) for image in entry.get('unlabelled') or []]
        known = labelled[entry['reference']] if entry.get('reference') else None
        self.reference = list(known) if known is not None else []
        self.level = known.level if known is not None else None
        whole = self.reference and not self.unlabelled
        self.of_reference = _profile(self.reference) if whole else None

    def described(self) -> dict[str, Any]:
        """Return what can be asked of the database."""
        potentials = {name: self._against_reference(name) for name in self.profiles}
        return {
            'relaxed_by': self.entry.get('relaxed_by'),
            'n_images': len(self.images) - 2,
            'length': path_length([frame.to_atoms(labels=False) for frame in self.images]),
            'unlabelled': self.unlabelled,
            'reference': self.of_reference.numbers() if self.of_reference is not None else None,
            'reference_level': self.level.to_dict() if self.level is not None else None,
            'potentials': potentials,
            'committee': _committee(self.profiles),
        }

    def _against_reference(self, name: str) -> dict[str, Any]:
        """Return the barriers of a potential, and how far they and the images are from the reference."""
        profile, level = self.profiles[name], self.sets[name].level
        found: dict[str, Any] = {
            'profile': profile.numbers(),
            'potential': (level.details.get('content_hash') if level is not None else None),
            'architecture': level.functional if level is not None else None,
        }
        if self.of_reference is not None:
            pair = (_column(self.frames[name], 'forces'), _column(self.reference, 'forces'))
            found['difference'] = difference_of(profile, self.of_reference, pair).numbers()
        found['images'] = self._images(name)
        return found

    def _images(self, name: str) -> list[dict[str, Any] | None]:
        """Return the errors of each image: of the energy above the first one in eV, and of the forces in eV/Å."""
        labels = iter(self.reference)
        known = [None if image in self.unlabelled else next(labels, None) for image in range(len(self.images))]
        pairs = list(zip(self.frames[name], known, strict=True))
        return [_errors(frame, label, *pairs[0]) if label is not None else None for frame, label in pairs]

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of all methods, named `path__method__what`; the reference is the method `labels`."""
        found: dict[str, Array] = {}
        methods = {**self.profiles, **({LABELS: self.of_reference} if self.of_reference is not None else {})}
        for method, profile in methods.items():
            values = {'places': profile.places, 'energies': profile.energies, 'curve': profile.curve}
            if profile.slopes is not None:
                values['slopes'] = profile.slopes
            found |= {f'{self.name}__{method}__{what}': array for what, array in values.items()}
        return found


def _errors(frame: Frame, label: Frame, first: Frame, first_label: Frame | None) -> dict[str, Any]:
    """Return the errors of one image; that of the energy is None where the first image has no label."""
    forces = np.asarray(frame.forces) - np.asarray(label.forces)
    energy = None if first_label is None else _height(frame, first) - _height(label, first_label)
    return {
        'energy': energy,
        'forces_rmse': float(np.sqrt(np.mean(forces**2))),
        'forces_mae': float(np.abs(forces).mean()),
    }


def _height(frame: Frame, first: Frame) -> float:
    """Return the energy above the first image in eV."""
    return float(frame.energy or 0.0) - float(first.energy or 0.0)


def _profile(frames: list[Frame]) -> Profile:
    return profile_of(_column(frames, 'positions'), _column(frames, 'energy'), _column(frames, 'forces'))


def _column(frames: list[Frame], name: str) -> Array:
    return np.array([getattr(frame, name) for frame in frames], dtype=float)


def _committee(profiles: Mapping[str, Profile]) -> dict[str, Any] | None:
    """Return mean and spread in eV of the barriers over the potentials; None where there is one alone."""
    if len(profiles) < 2:
        return None
    found = {name: np.array([getattr(profile, name) for profile in profiles.values()]) for name in BARRIERS}
    return {name: {'mean': float(values.mean()), 'spread': float(values.std(ddof=1))} for name, values in found.items()}


def _distances(paths: Mapping[str, _Path]) -> dict[str, dict[str, float]]:
    """Return the root mean square distance in Å of each pair of paths that have equally many images."""
    found: dict[str, dict[str, float]] = {}
    for (name, one), (other, two) in combinations(paths.items(), 2):
        if len(one.images) == len(two.images):
            atoms = [[frame.to_atoms(labels=False) for frame in path.images] for path in (one, two)]
            found.setdefault(name, {})[other] = rmsd_between(*atoms)
    return found


def level_in_words(level: Mapping[str, Any] | None) -> str:
    """Return a level of theory that a comparison holds, in words; nothing where there is none."""
    return str(Level.from_dict(dict(level))) if level else ''
