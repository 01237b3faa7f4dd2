"""From trajectories to displacements and coefficients of diffusion, with provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from aiida import orm
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from aiida_perovmlip.analysis.arrhenius import Arrhenius, fit_arrhenius, lower_bound
from aiida_perovmlip.analysis.diffusion import RULE, Diffusion, Window, choose_window, diffusion_of, posterior_of
from aiida_perovmlip.analysis.displacement import (
    Kind,
    Msd,
    Particles,
    Survey,
    average_of_elements,
    displacements,
    survey,
    tracks_of,
)
from aiida_perovmlip.analysis.sites import cages, count_hops, mean_places, midpoints
from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.settings import option, read_settings
from aiida_perovmlip.compute.trajectory import Trajectory
from aiida_perovmlip.data.trajectory import TrajectoryData
from aiida_perovmlip.structures.defects import ions_of
from aiida_perovmlip.structures.molecules import MOLECULES

HALIDES = ('F', 'Cl', 'Br', 'I')
KINDS: tuple[Kind, ...] = ('sum', 'tracer', 'collective')
CONVENTIONS = ('centre', 'elements', 'literal')
ATTEMPTS = 0.5
"""Attempts to hop in THz that the bound of an immobile species assumes: those of halides and MA in MAPbI3."""

SHOWN = 400
"""Displacements are kept at about so many times, half of these evenly and half geometrically spaced."""

MELTED = 0.3
"""Where the host goes this part of the distance of its atoms on the root mean square, there is no crystal any more."""

MOST_OF_HOPS = 1.5
"""A coefficient that is surely larger than so many times that of the hops has something else in it."""

N_SPREADS = 2.0
"""What is surely larger is so by so many standard errors."""

SURE = 4.0
"""A species diffuses where the sum of its coefficients over the temperatures is so many standard errors of that sum.

At one temperature three runs do not know their own error: a species that rests would seem to diffuse at one of five.
Vibrations that the window has not left behind alone make a sum of two or three errors; seven hops a run make six.
"""


@dataclass(frozen=True)
class Following:
    """What is followed in a trajectory, and how."""

    followed: list[str] = option(['I'], 'What diffuses: elements, or the molecules `MA` and `FA`.')
    host: str | None = option(
        'Pb', 'Element whose mean displacement is the drift that is subtracted; None subtracts nothing.'
    )
    molecules: str = option(
        'centre',
        'How a molecule is followed: by its centre of mass; by the mean of its elements, each counted once in a '
        'molecule; or by the mean of the sums over all atoms of its elements, as Eq. S2 of the study reads.',
        choices=CONVENTIONS,
    )
    every: int = option(1, 'Take each such frame.', minimum=1)
    hop_window: float | None = option(
        1.0, 'Over so much time positions are averaged before hops are counted; None counts none.', unit='ps', minimum=0
    )
    bayesian: bool = option(False, 'Whether Bayesian regression by kinisi checks the fit; it has to be installed.')


@recorded
def measure_displacements(trajectory: TrajectoryData, settings: orm.Dict) -> dict[str, orm.Data]:
    """Follow species through a trajectory, which is read chunk by chunk.

    :param settings: see :class:`Following`.

    Returns `displacements`, arrays of all kinds by species (`I__sum__values` in Å², `…__parts` of the parts of the run,
    `I__lags` in ps), and `counts`, what was followed, how often, and which hops were seen.
    """
    how: Following = read_settings(Following, settings.get_dict())
    run = _Opened.of(trajectory.trajectory, how)
    arrays: dict[str, Array] = {}
    about: dict[str, dict[str, Any]] = {}
    for name in how.followed:
        found = run.displacements(name)
        for msd in found:
            arrays |= {f'{name}__{msd.kind}__values': msd.values, f'{name}__{msd.kind}__parts': msd.parts}
        arrays[f'{name}__lags'] = found[0].lags
        about[name] = {**_about(found[0]), **run.hops(name), 'posterior': run.posterior(name, found[0])}
    told = {'settings': settings.get_dict(), 'content_hash': trajectory.content_hash}
    counts = {'species': about, 'host': run.state_of_host(), **told}
    return {'displacements': orm.ArrayData(arrays), 'counts': orm.Dict(counts)}


@recorded
def analyse_diffusion(report: orm.Dict, **nodes: orm.Data) -> dict[str, orm.Data]:
    """Return what runs say of diffusion: coefficients, their temperature dependence, and mean displacements.

    :param report: `runs`, a list with `temperature` in K, `seed`, and the names of the nodes `displacements` and
        `counts` of each; `window`, begin and end in ps or None; `attempt_frequency` in THz. What else it holds is
        passed on.
    :param nodes: what `measure_displacements` returned of each run.

    Returns `diffusion`, whose keys are described in the topic on diffusion, and `msd`, arrays by species, kind and
    temperature.
    """
    told = report.get_dict()
    every = [_Run.of(entry, nodes) for entry in told.pop('runs')]
    runs, melted = [run for run in every if run.is_crystal], [run for run in every if not run.is_crystal]
    if not runs:
        raise ValueError(f'in all {len(every)} runs the host goes away from its places: the crystal melts. Run colder.')
    window = Window(*told['window']) if told.get('window') else None
    names = list(dict.fromkeys(name for run in runs for name in run.counts))
    species: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for name in names:
        known = [run for run in runs if name in run.counts]
        species[name], own = _species(name, known, window, told.get('attempt_frequency') or ATTEMPTS)
        species[name]['notes'] += [run.note() for run in melted]
        arrays |= own
    found = {**told, 'rule': RULE, 'species': species}
    return {'diffusion': orm.Dict(found), 'msd': orm.ArrayData(arrays)}


# ---------------------------------------------------------------------- displacements of one run


@dataclass(frozen=True)
class _Opened:
    """A trajectory with all that is followed in it, which is surveyed once for all species.

    :param members: of each molecular species the atoms of its molecules.
    """

    run: Trajectory
    how: Following
    atoms: dict[str, Array]
    members: dict[str, list[Array]]
    host: Array | None
    known: Survey

    @classmethod
    def of(cls, run: Trajectory, how: Following) -> _Opened:
        """Find all species, and read the trajectory once."""
        members = {name: members_of(run, name) for name in how.followed if name in MOLECULES}
        atoms = {name: np.concatenate(found) for name, found in members.items()}
        atoms |= {name: _atoms_of(run, name) for name in how.followed if name not in MOLECULES}
        host = _atoms_of(run, how.host) if how.host else None
        followed = np.unique(np.concatenate(list(atoms.values())))
        known = survey(lambda: run.blocks(every=how.every), host, followed)
        return cls(run, how, atoms, members, host, known)

    def source(self) -> Iterator[Any]:
        """Open the trajectory."""
        return self.run.blocks(every=self.how.every)

    def particles(self, name: str) -> Particles:
        """Return the particles of a species: its atoms, or its molecules by their centres of mass."""
        if name in self.members:
            return Particles.of_molecules(self.members[name], self.run.atoms.masses)
        return Particles.of_atoms(self.atoms[name])

    def displacements(self, name: str) -> list[Msd]:
        """Return all displacements of a species; of a mean over elements there is the sum alone."""
        if name not in self.members or self.how.molecules == 'centre':
            found = displacements(self.source, self.particles(name), self.host, known=self.known)
            return [found.sum, found.tracer, found.collective]
        numbers, n_molecules = self.run.atoms.numbers, len(self.members[name])
        elements = {number: self.atoms[name][numbers[self.atoms[name]] == number]
                    for number in np.unique(numbers[self.atoms[name]])}  # fmt: skip
        sums, counts = {}, {}
        for number, own in elements.items():
            symbol = chemical_symbols[number]
            sums[symbol] = displacements(self.source, Particles.of_atoms(own), self.host, known=self.known).sum
            counts[symbol] = len(own) // n_molecules
        return [average_of_elements(sums, counts, 'molecule' if self.how.molecules == 'elements' else 'literal')]

    def state_of_host(self) -> dict[str, Any] | None:
        """Return how far the host goes in half of the run, root mean square in Å, and whether that is a crystal."""
        if self.host is None:
            return None
        found = displacements(self.source, Particles.of_atoms(self.host), self.host, known=self.known).tracer
        gone = float(np.sqrt(max(0.0, found.values[-1])))
        distance = float(np.cbrt(abs(np.linalg.det(self.known.cell)) / len(self.host)))
        stays = gone < MELTED * distance
        return {'element': self.how.host, 'displacement': gone, 'distance': distance, 'stays': stays}

    def hops(self, name: str) -> dict[str, Any]:
        """Return the hops of a species between the sites that the host makes, and why there are none."""
        if self.how.hop_window is None or self.host is None:
            return {'hops': None, 'hops_lack': None}
        try:
            metals = mean_places(self.source, Particles.of_atoms(self.host), self.known)
            sites = (midpoints if name in HALIDES else cages)(metals, self.known.cell)
            particles = self._anchors(name)
            found = count_hops(self.source, particles, sites, self.host, self.how.hop_window, self.known)
        except ValueError as error:
            return {'hops': None, 'hops_lack': str(error)}
        return {'hops': found.numbers(), 'hops_lack': None}

    def _anchors(self, name: str) -> Particles:
        """Return what tells the site of each particle: of a molecule its first carbon atom.

        The centre of a molecule that lies across the border of the cell in the first frame is somewhere else.
        """
        if name not in self.members:
            return self.particles(name)
        carbon = self.run.atoms.numbers == atomic_numbers['C']
        return Particles.of_atoms([int(part[carbon[part]][0]) for part in self.members[name]])

    def posterior(self, name: str, found: Msd) -> dict[str, Any] | None:
        """Return the Bayesian check of a species, where it was asked for."""
        if not self.how.bayesian:
            return None
        tracks = tracks_of(self.source, self.particles(name), self.known)
        posterior = posterior_of(tracks, self.known.interval, choose_window([found]).begin)
        low, high = posterior.interval
        return {'coefficient': posterior.coefficient, 'error': posterior.error, 'interval': [low, high]}


def members_of(run: Trajectory, name: str) -> list[Array]:
    """Return the atoms of each molecule of a name, as bonds show them in the first frame."""
    frame = run.frame(0)
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    found = ions_of(atoms, name)
    if not found:
        raise ValueError(f'bonds show no {name} in the first frame of {atoms.get_chemical_formula()}.')
    return found


def _atoms_of(run: Trajectory, symbol: str) -> Array:
    """Return the atoms of an element."""
    number = atomic_numbers.get(symbol)
    found = np.flatnonzero(run.atoms.numbers == number) if number is not None else np.zeros(0, dtype=np.int64)
    if not len(found):
        held = ', '.join(sorted({chemical_symbols[each] for each in run.atoms.numbers}))
        raise ValueError(f'there is no {symbol} in the trajectory; it holds {held}.')
    return found


def _about(msd: Msd) -> dict[str, Any]:
    """Return what is told of a displacement beside its arrays."""
    names = ('n_particles', 'n_frames', 'duration', 'n_host', 'is_cell_fixed')
    return {name: getattr(msd, name) for name in names}


# ---------------------------------------------------------------------- all runs together


@dataclass(frozen=True)
class _Run:
    """What one run gave."""

    temperature: float
    seed: int | None
    counts: dict[str, Any]
    host: dict[str, Any] | None
    arrays: orm.ArrayData

    @property
    def is_crystal(self) -> bool:
        """Whether the host has stayed at its places."""
        return self.host is None or bool(self.host['stays'])

    def note(self) -> str:
        """Return a sentence on a run that is left out."""
        assert self.host is not None
        return (
            f'at {self.temperature:g} K the run with the seed {self.seed} is left out: its {self.host["element"]} goes '
            f'{self.host["displacement"]:.1f} Å, where neighbours are {self.host["distance"]:.1f} Å apart; it melts.'
        )

    @classmethod
    def of(cls, entry: Mapping[str, Any], nodes: Mapping[str, orm.Data]) -> _Run:
        """Return a run from the entry of a report."""
        counts = cast(orm.Dict, nodes[entry['counts']]).get_dict()
        arrays = cast(orm.ArrayData, nodes[entry['displacements']])
        return cls(float(entry['temperature']), entry.get('seed'), counts['species'], counts['host'], arrays)

    def kinds(self, name: str) -> list[Kind]:
        """Return the kinds of displacement that are known of a species."""
        known = set(self.arrays.get_arraynames())
        return [kind for kind in KINDS if f'{name}__{kind}__values' in known]

    def msd(self, name: str, kind: Kind) -> Msd:
        """Return a displacement as it was measured."""
        about = {key: self.counts[name][key] for key in ('n_particles', 'n_frames', 'duration', 'n_host')}
        values, parts = (self.arrays.get_array(f'{name}__{kind}__{what}') for what in ('values', 'parts'))
        lags = self.arrays.get_array(f'{name}__lags')
        return Msd(kind, lags, values, parts, **about, is_cell_fixed=self.counts[name]['is_cell_fixed'])


def _species(
    name: str, runs: list[_Run], window: Window | None, attempts: float
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return all that runs say of a species, and its mean displacements."""
    arrays: dict[str, Array] = {}
    by_kind: dict[str, Any] = {}
    kelvins = sorted({run.temperature for run in runs})
    hops = [_hops_at(kelvin, name, runs) for kelvin in kelvins]
    bound = _bound(hops, attempts)
    for kind in runs[0].kinds(name):
        rows, found = [], []
        for kelvin in kelvins:
            msds = [run.msd(name, kind) for run in runs if run.temperature == kelvin]
            row, result = _at_temperature(kelvin, msds, window)
            rows.append(row)
            arrays |= _shown(f'{name}__{kind}__{kelvin:g}K'.replace('.', '_'), msds)
            if result is not None:
                found.append((kelvin, result))
        by_kind[kind] = {'temperatures': rows, **_dependence(found, bound is not None)}
    notes = list(_notes(by_kind['sum'], hops))
    posteriors = [
        {'temperature': run.temperature, 'seed': run.seed, **run.counts[name]['posterior']}
        for run in runs
        if run.counts[name].get('posterior')
    ]
    return {**by_kind, 'hops': hops, 'bound': bound, 'notes': notes, 'posteriors': posteriors}, arrays


def _at_temperature(kelvin: float, msds: list[Msd], window: Window | None) -> tuple[dict[str, Any], Diffusion | None]:
    """Return the coefficient at one temperature, or why there is none."""
    try:
        found = diffusion_of(msds, window)
    except ValueError as error:
        return {'temperature': kelvin, 'lack': str(error), 'n_runs': len(msds)}, None
    return {'temperature': kelvin, 'lack': None, **found.numbers()}, found


def _dependence(found: list[tuple[float, Diffusion]], rests: bool = False) -> dict[str, Any]:
    """Return the Arrhenius fit of all runs, or why there is none.

    :param rests: whether no hop was seen at any temperature, though there would be time for some.
    """
    kelvins = [kelvin for kelvin, diffusion in found for _ in diffusion.coefficients]
    values = [value for _, diffusion in found for value in diffusion.coefficients]
    total = sum(each.coefficient for _, each in found)
    error = float(np.sqrt(sum((each.error or 0.0) ** 2 for _, each in found)))
    if not total > SURE * error:
        lack = f'the sum of all coefficients, {total:.2g} cm²/s, is not {SURE:g} times its standard error, {error:.2g}.'
        return {'arrhenius': None, 'arrhenius_lack': lack}
    if rests:
        return {
            'arrhenius': None,
            'arrhenius_lack': 'no hop was seen at any temperature; `bound` says what that tells.',
        }
    try:
        fit: Arrhenius = fit_arrhenius(kelvins, values)
    except ValueError as error:
        return {'arrhenius': None, 'arrhenius_lack': str(error)}
    return {'arrhenius': fit.numbers(), 'arrhenius_lack': None}


def _hops_at(kelvin: float, name: str, runs: list[_Run]) -> dict[str, Any]:
    """Return the hops of all runs at a temperature together."""
    known = [run.counts[name] for run in runs if run.temperature == kelvin]
    counted = [entry['hops'] for entry in known if entry.get('hops')]
    lacks = [entry['hops_lack'] for entry in known if entry.get('hops_lack')]
    return {
        'temperature': kelvin,
        'n_runs': len(counted),
        'n_hops': sum(entry['n_hops'] for entry in counted) if counted else None,
        'n_returns': sum(entry['n_returns'] for entry in counted) if counted else None,
        'ambiguous': _weighted(counted, 'ambiguous', 'n_windows'),
        'n_defects': counted[0]['n_defects'] if counted else None,
        'window': counted[0]['window'] if counted else None,
        'coefficient': _weighted(counted, 'coefficient', 'duration'),
        'duration': sum(entry['duration'] for entry in counted),
        'duration_told': sum(entry['duration'] * (1.0 - entry['ambiguous']) for entry in counted),
        'lack': lacks[0] if lacks else None,
    }


def _weighted(entries: list[dict[str, Any]], name: str, weight: str) -> float | None:
    """Return the mean of a number over runs, by a weight; None where there is none."""
    total = sum(entry[weight] for entry in entries)
    return sum(entry[name] * entry[weight] for entry in entries) / total if total else None


def _notes(kind: Mapping[str, Any], hops: list[dict[str, Any]]) -> Iterator[str]:
    """Yield sentences on coefficients that should not be trusted."""
    for row, seen in zip(kind['temperatures'], hops, strict=True):
        if row['lack']:
            continue
        at = f'at {row["temperature"]:g} K'
        if not row['window']['is_settled']:
            yield f'{at} the displacement nowhere grows evenly; run longer.'
        sure = row['coefficient'] - N_SPREADS * (row['error'] or 0.0)
        if seen['coefficient'] is not None and sure > MOST_OF_HOPS * seen['coefficient'] and sure > 0:
            yield (
                f'{at} the coefficient is {row["coefficient"]:.2g} cm²/s but {seen["n_hops"]} hops account for '
                f'{seen["coefficient"]:.2g} cm²/s: slow vibrations or wandering sites are in it; run longer.'
            )


def _bound(hops: list[dict[str, Any]], attempts: float) -> dict[str, Any] | None:
    """Return the largest lower bound of the activation energy of a species that did not hop at any temperature.

    Times at which sites could not be told say nothing of hops, and do not count.
    """
    if any(row['n_hops'] != 0 for row in hops):
        return None
    found = []
    for row in hops:
        waited = max(1, abs(row['n_defects'] or 1)) * row['duration_told']
        if waited * attempts > 1.0:
            found.append(lower_bound(row['temperature'], waited, attempts))
    best = max(found, key=lambda each: each.activation_energy, default=None)
    return None if best is None else {**vars(best), 'rule': 'fewer than one hop expected'}


def _shown(name: str, msds: list[Msd]) -> dict[str, Array]:
    """Return the displacements of all runs at a temperature, thinned, with their mean."""
    n_lags = min(len(msd.lags) for msd in msds)
    even, geometric = np.linspace(0, n_lags - 1, SHOWN // 2), np.geomspace(1, max(2, n_lags - 1), SHOWN // 2)
    places = np.unique(np.concatenate([even, geometric]).round().astype(int).clip(0, n_lags - 1))
    values = np.array([msd.values[places] for msd in msds])
    return {f'{name}__lags': msds[0].lags[places], f'{name}__runs': values, f'{name}__mean': values.mean(axis=0)}
