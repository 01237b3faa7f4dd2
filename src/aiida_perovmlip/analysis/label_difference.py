"""How the labels of two levels of theory differ on the same structures, added up chunk by chunk.

A difference means `one` minus `other`. Two programs count energies from different zeros, so differences of energies are
given as they are and once more without what a sum over elements explains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aiida_perovmlip.analysis.energy_zero import ReferenceFit, align_energies
from aiida_perovmlip.analysis.force_difference import AtomSums, Floats, ForceDifference, Histograms, Integers

N_WORST = 20
"""How many frames the result names, those with the largest force differences."""


@dataclass(frozen=True)
class EnergyDifference:
    """Differences of energies per atom over frames, in eV/atom.

    :param spread: standard deviation, which is the `rms` without the `mean`.
    """

    n_frames: int
    mean: float
    rms: float
    spread: float
    mean_absolute: float
    largest: float


@dataclass(frozen=True)
class StressDifference:
    """Differences of stress components over the frames in which both have a stress, in eV/Å³.

    :param mean_pressure: mean of the difference of pressures, which are minus a third of the trace.
    """

    n_frames: int
    rms: float
    mean_absolute: float
    largest: float
    mean_pressure: float
    other_rms: float


@dataclass(frozen=True)
class WorstFrame:
    """A frame with a large force difference: where it is in `one` and `other`, and the difference in eV/Å."""

    one: int
    other: int
    group: str
    largest: float
    rms: float


@dataclass(frozen=True)
class FrameDifferences:
    """One row a frame that was compared, in the order in which they came.

    :param one: (n_frames,) position in `one`.
    :param other: (n_frames,) position in `other`.
    :param force_rms: (n_frames,) root mean square of a component of the force difference in eV/Å.
    :param force_largest: (n_frames,) largest length of a force difference in eV/Å.
    :param energy_per_atom: (n_frames,) in eV/atom; None where one has no energies.
    :param energy_per_atom_aligned: (n_frames,) in eV/atom, without the reference.
    """

    one: Integers
    other: Integers
    force_rms: Floats
    force_largest: Floats
    energy_per_atom: Floats | None
    energy_per_atom_aligned: Floats | None


@dataclass(frozen=True)
class LabelDifference:
    """All that two sets of labels differ by. Elements are in the order of atomic numbers, groups in the alphabet's."""

    n_frames: int
    n_atoms: int
    forces: ForceDifference
    forces_per_element: dict[str, ForceDifference]
    forces_per_group: dict[str, ForceDifference]
    forces_per_element_and_group: dict[str, dict[str, ForceDifference]]
    energy: EnergyDifference | None
    energy_aligned: EnergyDifference | None
    energy_aligned_per_group: dict[str, EnergyDifference]
    reference: ReferenceFit | None
    stress: StressDifference | None
    worst: tuple[WorstFrame, ...]
    histograms: Histograms = field(repr=False)
    frames: FrameDifferences = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the arrays as plain JSON, without what there is not."""
        names = [name for name in self.__dataclass_fields__ if name not in ('histograms', 'frames')]
        return {name: _plain(getattr(self, name)) for name in names if getattr(self, name) is not None}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, without what there is not."""
        found = {**vars(self.histograms), **{f'frame_{name}': array for name, array in vars(self.frames).items()}}
        return {name: array for name, array in found.items() if array is not None}


class DifferenceAccumulator:
    """Adds up the differences of paired frames; what it keeps is some numbers a frame, and sums."""

    def __init__(self) -> None:
        self._atoms = AtomSums()
        self._groups: dict[str, int] = {}
        self._rows: dict[str, list[NDArray[Any]]] = {}
        self._compositions: dict[bytes, int] = {}
        self._stress = _StressSums()
        self._with_energy: bool | None = None

    def add(
        self,
        positions: tuple[ArrayLike, ArrayLike],
        numbers: ArrayLike,
        offsets: ArrayLike,
        groups: Sequence[str],
        forces: tuple[ArrayLike, ArrayLike],
        energies: tuple[ArrayLike, ArrayLike] | None = None,
        stresses: tuple[ArrayLike, ArrayLike] | None = None,
        charges: ArrayLike | None = None,
    ) -> None:
        """Add frames, their atoms one after another; of each pair the first is of `one`, the second of `other`.

        :param positions: (n_frames,) where each frame is in its dataset.
        :param numbers: (n_atoms,) atomic numbers.
        :param offsets: (n_frames + 1,) where the atoms of each frame start, and the end of the last.
        :param groups: the group of each frame; a `.` in it becomes `_`, because queries read it as a step.
        :param forces: (n_atoms, 3) in eV/Å.
        :param energies: (n_frames,) in eV, of whole frames.
        :param stresses: (n_frames, 6) in eV/Å³; a row of NaN means "none".
        :param charges: (n_frames,) in e; None where they are not stated.
        """
        starts = np.asarray(offsets, dtype=np.int64)
        sizes, kinds = np.diff(starts), np.asarray(numbers, dtype=np.int64)
        if not len(sizes):
            return
        if len(groups) != len(sizes) or starts[0] != 0 or starts[-1] != len(kinds) or (sizes < 1).any():
            raise ValueError(f'{len(kinds)} atoms, {len(sizes)} frames and {len(groups)} groups do not fit together.')
        if self._with_energy not in (None, energies is not None):
            raise ValueError('some frames have energies, and others have not.')
        self._with_energy = energies is not None
        pair = tuple(_finite('forces', array, (len(kinds), 3)) for array in forces)
        codes = np.array([self._groups.setdefault(name.replace('.', '_'), len(self._groups)) for name in groups])
        owner = np.repeat(np.arange(len(sizes)), sizes)
        norms = self._atoms.add(kinds, codes[owner], owner, pair[0] - pair[1], pair[1])
        q = np.zeros(len(sizes), np.int64) if charges is None else np.asarray(charges, dtype=np.int64)
        row = {
            'one': np.asarray(positions[0], dtype=np.int64),
            'other': np.asarray(positions[1], dtype=np.int64),
            'group': codes,
            'composition': self._composition_codes(kinds, owner, q),
            'force_rms': np.sqrt(np.add.reduceat(norms**2, starts[:-1]) / (3 * sizes)),
            'force_largest': np.maximum.reduceat(norms, starts[:-1]),
        }
        if energies is not None:
            first, second = (_finite('energy', array, (len(sizes),)) for array in energies)
            row['energy_per_atom'] = (first - second) / sizes
        for name, values in row.items():
            self._rows.setdefault(name, []).append(values)
        if stresses is not None:
            self._stress.add(np.asarray(stresses[0]), np.asarray(stresses[1]), len(sizes))

    def _composition_codes(self, numbers: Integers, owner: Integers, charges: Integers) -> Integers:
        """Return a code (n_frames,) for composition and charge of each frame."""
        known, columns = np.unique(numbers, return_inverse=True)
        counts = np.zeros((len(charges), len(known)), np.int64)
        np.add.at(counts, (owner, columns), 1)
        found = []
        for row, charge in zip(counts, charges, strict=True):
            present = row > 0
            content = np.concatenate([[charge], known[present], row[present]]).astype(np.int64)
            found.append(self._compositions.setdefault(content.tobytes(), len(self._compositions)))
        return np.array(found, dtype=np.int64)

    def result(self) -> LabelDifference:
        """Return all differences; raises ValueError where nothing was added."""
        if not self._rows:
            raise ValueError('there is no frame to compare.')
        rows = {name: np.concatenate(parts) for name, parts in self._rows.items()}
        names = sorted(self._groups)
        forces = self._atoms.per_kind(names, self._groups)
        aligned, reference = self._align(rows) if self._with_energy else (None, None)
        frames = FrameDifferences(
            **{name: rows[name] for name in ('one', 'other', 'force_rms', 'force_largest')},
            energy_per_atom=rows.get('energy_per_atom'),
            energy_per_atom_aligned=aligned,
        )
        return LabelDifference(
            n_frames=len(rows['one']),
            n_atoms=forces.all.n_atoms,
            forces=forces.all,
            forces_per_element=forces.per_element,
            forces_per_group=forces.per_group,
            forces_per_element_and_group=forces.per_both,
            energy=None if aligned is None else _energy_difference(rows['energy_per_atom']),
            energy_aligned=None if aligned is None else _energy_difference(aligned),
            energy_aligned_per_group={}
            if aligned is None
            else {name: _energy_difference(aligned[rows['group'] == self._groups[name]]) for name in names},
            reference=reference,
            stress=self._stress.result(),
            worst=_worst(rows, {code: name for name, code in self._groups.items()}),
            histograms=self._atoms.histograms(names, self._groups),
            frames=frames,
        )

    def _align(self, rows: Mapping[str, NDArray[Any]]) -> tuple[Floats, ReferenceFit]:
        """Return energy differences per atom without the reference, (n_frames,) in eV/atom, and the reference."""
        contents = [np.frombuffer(content, np.int64) for content in self._compositions]
        charges = np.array([content[0] for content in contents], dtype=np.float64)
        parts = [np.split(content[1:], 2) for content in contents]
        numbers = np.unique(np.concatenate([present for present, _ in parts]))
        counts = np.zeros((len(parts), len(numbers)))
        for row, (present, count) in enumerate(parts):
            counts[row, np.searchsorted(numbers, present)] = count
        return align_energies(rows['energy_per_atom'], rows['composition'], numbers, counts, charges)


class _StressSums:
    """Sums over the differences of stresses."""

    def __init__(self) -> None:
        self.n = 0
        self.squares = self.absolute = self.largest = self.pressure = self.other_squares = 0.0

    def add(self, one: Floats, other: Floats, n_frames: int) -> None:
        """Add frames; those in which one has no stress do not count."""
        for stress in (one, other):
            none = np.isnan(stress).all(axis=1)
            _finite('stress', np.where(none[:, None], 0.0, stress), (n_frames, 6))
        both = ~(np.isnan(one).all(axis=1) | np.isnan(other).all(axis=1))
        if not both.any():
            return
        difference = one[both] - other[both]
        self.n += int(both.sum())
        self.squares += float((difference**2).sum())
        self.absolute += float(np.abs(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max()))
        self.pressure -= float(difference[:, :3].sum()) / 3
        self.other_squares += float((other[both] ** 2).sum())

    def result(self) -> StressDifference | None:
        """Return the means; None where no frame has two stresses."""
        if not self.n:
            return None
        components = 6 * self.n
        return StressDifference(
            n_frames=self.n,
            rms=float(np.sqrt(self.squares / components)),
            mean_absolute=self.absolute / components,
            largest=self.largest,
            mean_pressure=self.pressure / self.n,
            other_rms=float(np.sqrt(self.other_squares / components)),
        )


# ---------------------------------------------------------------------- small pieces


def _energy_difference(values: Floats) -> EnergyDifference:
    """Return the differences of some frames.

    :param values: (n_frames,) in eV/atom.
    """
    mean = float(values[0] + np.mean(values - values[0]))  # precise also where the zeros are far apart
    return EnergyDifference(
        n_frames=len(values),
        mean=mean,
        rms=float(np.sqrt(np.mean(values**2))),
        spread=float(np.sqrt(np.mean((values - mean) ** 2))),
        mean_absolute=float(np.abs(values).mean()),
        largest=float(np.abs(values).max()),
    )


def _worst(rows: Mapping[str, NDArray[Any]], names: Mapping[int, str]) -> tuple[WorstFrame, ...]:
    """Return the frames with the largest force differences, the largest first."""
    order = np.argsort(-rows['force_largest'], kind='stable')[:N_WORST]
    return tuple(
        WorstFrame(
            one=int(rows['one'][index]),
            other=int(rows['other'][index]),
            group=names[int(rows['group'][index])],
            largest=float(rows['force_largest'][index]),
            rms=float(rows['force_rms'][index]),
        )
        for index in order
    )


def _finite(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Return an array of this shape; raises ValueError where it has another or is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f'`{name}` has shape {array.shape} instead of {shape}.')
    if not np.isfinite(array).all():
        raise ValueError(f'`{name}` has values that are not finite.')
    return array


def _plain(value: Any) -> Any:
    """Return dataclasses as dictionaries, without what there is not."""
    if hasattr(value, '__dataclass_fields__'):
        return {name: entry for name, entry in asdict(value).items() if entry is not None}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value
