"""The reference architecture: a linear pair potential in numpy, for tests and as an example.

The energy is a sum over atoms and pairs, linear in its parameters:

    E = Σ_i e(Z_i) + Σ_{i<j} Σ_k c_k(Z_i, Z_j) φ_k(r_ij),   φ_k(r) = exp(-(r - r_k)² / 2w²) f_c(r)

so that one regularised least-squares fit to energies, forces and stresses is the whole training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list

from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, Prediction, Trained, Training
from aiida_perovmlip.compute.checkpoint import State
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.settings import option

FILENAME = 'reference.json'
SUMS = 'sums.npz'
SAVE_EVERY = 1000
"""Frames between two states of the checkpoint."""


@dataclass(frozen=True)
class ReferenceSettings:
    """Settings of the reference architecture."""

    cutoff: float = option(5.0, 'Interaction cutoff.', unit='Å', minimum=1.0)
    basis_size: int = option(8, 'Number of radial functions of a pair of elements.', minimum=1)
    ridge: float = option(1e-6, 'Strength of the regularisation.', minimum=0.0)
    energy_weight: float = option(1.0, 'Weight of an energy error per atom.', unit='Å', minimum=0.0)
    forces_weight: float = option(1.0, 'Weight of a force error.', minimum=0.0)
    stress_weight: float = option(1.0, 'Weight of a stress error.', minimum=0.0)


class Reference(Architecture):
    """A linear pair potential: exact derivatives, no randomness, nothing to install."""

    name: ClassVar[str] = 'reference'
    summary: ClassVar[str] = 'Linear pair potential in numpy, for tests and as an example'
    opens_pickles: ClassVar[bool] = False
    filename: ClassVar[str] = FILENAME
    strategies: ClassVar[tuple[str, ...]] = ('scratch', 'naive')
    shape: ClassVar[tuple[str, ...]] = ('cutoff', 'basis_size')
    known_shape: ClassVar[dict[str, str]] = {'cutoff': 'cutoff'}
    Settings = ReferenceSettings

    def train(self, training: Training) -> Trained:
        """Solve the normal equations, which are summed frame by frame; with a parent, look near its parameters."""
        settings = training.settings
        if training.parent is None:
            basis = Basis(_elements(training.training), settings.cutoff, settings.basis_size)
            centre = np.zeros(len(basis))
            centre[: len(basis.elements)] = _atomic_energies(training.training, basis.elements)
        else:
            basis, centre = _read(training.parent)
        normal = self._sum(training, basis, centre)
        weights = centre + normal.solve(settings.ridge)
        done = {**asdict(settings), 'cutoff': basis.cutoff, 'basis_size': basis.size}
        content = {**done, 'elements': list(basis.elements), 'weights': weights.tolist()}
        (training.folder / 'potential' / FILENAME).write_text(json.dumps(content))
        step: dict[str, Any] = {'step': 1, **_errors('training', basis, weights, training.training)}
        if training.validation is not None:
            step |= _errors('validation', basis, weights, training.validation)
        training.report(step)
        return Trained([step], done)

    def _sum(self, training: Training, basis: Basis, centre: Array) -> _NormalEquations:
        """Return the normal equations of what the centre does not explain, from where an earlier run stopped."""
        state = training.checkpoint.state()
        normal = _NormalEquations(len(basis))
        if state is not None:
            normal.read(state.file(SUMS))
        done = state.step if state is not None else 0
        rest = training.training.take(np.arange(done, len(training.training)))
        for index, frame in enumerate(rest, done + 1):
            normal.add(basis, frame, centre, training.settings)
            if training.seconds_left() <= 0 or index % SAVE_EVERY == 0:
                path = training.folder / SUMS
                normal.write(path)
                training.checkpoint.save(index, {SUMS: path}, [])
            if training.seconds_left() <= 0:
                raise JobError(Status.OUT_OF_WALLTIME, f'The wall time ran out after {index} frames.')
        return normal

    def may_change(self, settings: ReferenceSettings, state: State) -> frozenset[str]:
        """Return what has no part in the sums."""
        return frozenset({'ridge'})

    def shape_of(self, parent: Path, settings: ReferenceSettings) -> dict[str, Any]:
        """Read what the parent is made of."""
        content = json.loads((parent / FILENAME).read_text())
        return {name: content[name] for name in self.shape}

    def facts(self, potential: Path) -> PotentialFacts:
        """Read the JSON file."""
        content = json.loads((potential / FILENAME).read_text())
        atoms = dict(zip(content['elements'], content['weights'], strict=False))
        return PotentialFacts(
            elements=tuple(sorted(content['elements'])),
            cutoff=content['cutoff'],
            n_parameters=len(content['weights']),
            energies_of_atoms={'default': atoms},
        )

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Return a calculator."""
        return PairCalculator(*_read(Path(potential)))

    def descriptors(self, potential: Path, frames: Iterable[Frame], device: str = 'cpu') -> Iterator[Array]:
        """Yield, for each atom, which element it is and Σ_j φ_k(r_ij) over its neighbours of each element."""
        basis, _ = _read(potential)
        return (basis.describe(frame) for frame in frames)

    def self_test(self) -> str:
        """Compare a force with the slope of the energy."""
        basis = Basis(('H',), 3.0, 4)
        weights = np.array([0.0, 1.0, -0.5, 0.2, 0.1])
        energies = [basis.predict(weights, _dimer(distance)).energy for distance in (0.99999, 1.00001)]
        slope, force = (energies[1] - energies[0]) / 2e-5, basis.predict(weights, _dimer(1.0)).forces[1, 0]
        if abs(slope + force) > 1e-6:
            raise ArithmeticError(f'the force {force} is not minus the slope {slope} of the energy.')
        return f'force and slope agree to {abs(slope + force):.1e} eV/Å'


class Basis:
    """The linear model: what multiplies each parameter in energy, forces and stress."""

    def __init__(self, elements: tuple[str, ...], cutoff: float, size: int) -> None:
        self.elements, self.cutoff, self.size = elements, cutoff, size
        self.numbers = np.array([atomic_numbers[symbol] for symbol in elements])
        self.centres = np.linspace(0.3 * cutoff, cutoff, size)
        self.width = self.centres[1] - self.centres[0] if size > 1 else cutoff / 3

    def __len__(self) -> int:
        n = len(self.elements)
        return n + n * (n + 1) // 2 * self.size

    def radial(self, distances: Array) -> tuple[Array, Array]:
        """Return φ_k(r) and its derivative, (n_pairs, size)."""
        r = distances[:, None]
        gauss = np.exp(-0.5 * ((r - self.centres) / self.width) ** 2)
        cut = 0.5 * (1 + np.cos(np.pi * r / self.cutoff))
        slope = -0.5 * np.pi / self.cutoff * np.sin(np.pi * r / self.cutoff)
        return gauss * cut, gauss * (slope - cut * (r - self.centres) / self.width**2)

    def design(self, frame: Frame) -> tuple[Array, Array, Array]:
        """Return what multiplies the parameters: energy (P,), forces (n_atoms, 3, P), V·stress (6, P)."""
        kinds = np.searchsorted(self.numbers, frame.numbers)
        n, size = len(self.elements), self.size
        energy, forces, virial = np.zeros(len(self)), np.zeros((len(frame), 3, len(self))), np.zeros((6, len(self)))
        energy[:n] = np.bincount(kinds, minlength=n)
        first, second, distances, vectors = neighbor_list('ijdD', frame.to_atoms(labels=False), self.cutoff)
        values, slopes = self.radial(distances)
        low, high = np.minimum(kinds[first], kinds[second]), np.maximum(kinds[first], kinds[second])
        pair = low * n - low * (low - 1) // 2 + high - low
        columns = n + pair[:, None] * size + np.arange(size)
        # Every pair is listed twice, so each entry carries half of the pair's energy.
        np.add.at(energy, columns, 0.5 * values)
        gradient = vectors[:, :, None] / distances[:, None, None] * slopes[:, None, :]
        np.add.at(forces, (first[:, None, None], np.arange(3)[None, :, None], columns[:, None, :]), gradient)
        voigt = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
        for row, (a, b) in enumerate(voigt):
            np.add.at(virial[row], columns, 0.5 * gradient[:, a] * vectors[:, b, None])
        return energy, forces, virial

    def describe(self, frame: Frame) -> Array:
        """Return what is seen of each atom, (n_atoms, n_elements · (1 + size)), dimensionless."""
        kinds = np.searchsorted(self.numbers, frame.numbers)
        seen = np.zeros((len(frame), len(self.elements), self.size))
        first, second, distances = neighbor_list('ijd', frame.to_atoms(labels=False), self.cutoff)
        np.add.at(seen, (first, kinds[second]), self.radial(distances)[0])
        return np.concatenate([np.eye(len(self.elements))[kinds], seen.reshape(len(frame), -1)], axis=1)

    def predict(self, weights: Array, frame: Frame) -> Prediction:
        """Return energy, forces and, for a periodic frame, stress."""
        energy, forces, virial = self.design(frame)
        stress = virial @ weights / abs(np.linalg.det(frame.cell)) if frame.has_volume else None
        return Prediction(float(energy @ weights), forces @ weights, stress)


class PairCalculator(Calculator):
    """The reference potential as an ASE calculator."""

    implemented_properties: ClassVar[list[str]] = ['energy', 'free_energy', 'forces', 'stress']

    def __init__(self, basis: Basis, weights: Array) -> None:
        super().__init__()
        self.basis, self.weights = basis, weights

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Compute all properties at once."""
        super().calculate(atoms, properties, system_changes)
        prediction = self.basis.predict(self.weights, Frame.from_atoms(self.atoms))
        self.results = {'energy': prediction.energy, 'free_energy': prediction.energy, 'forces': prediction.forces}
        if prediction.stress is not None:
            self.results['stress'] = prediction.stress


class _NormalEquations:
    """AᵀA and Aᵀb of a weighted least-squares fit."""

    def __init__(self, size: int) -> None:
        self.matrix, self.right = np.zeros((size, size)), np.zeros(size)

    def add(self, basis: Basis, frame: Frame, centre: Array, settings: ReferenceSettings) -> None:
        """Add the rows of one frame."""
        energy, forces, virial = basis.design(frame)
        if frame.energy is not None:
            self._rows(energy[None], np.array([frame.energy]), centre, settings.energy_weight / len(frame) ** 2)
        if frame.forces is not None:
            self._rows(forces.reshape(-1, len(basis)), frame.forces.reshape(-1), centre, settings.forces_weight)
        if frame.stress is not None:
            self._rows(virial / abs(np.linalg.det(frame.cell)), frame.stress, centre, settings.stress_weight)

    def _rows(self, rows: Array, values: Array, centre: Array, weight: float) -> None:
        self.matrix += weight * rows.T @ rows
        self.right += weight * rows.T @ (values - rows @ centre)

    def write(self, path: Path) -> None:
        """Write both."""
        np.savez(path, matrix=self.matrix, right=self.right)

    def read(self, path: Path) -> None:
        """Take both from a file."""
        with np.load(path, allow_pickle=False) as archive:
            self.matrix, self.right = archive['matrix'], archive['right']

    def solve(self, ridge: float) -> Array:
        """Return the parameters of the best fit."""
        scale = float(np.trace(self.matrix)) / len(self.matrix) or 1.0
        matrix = self.matrix + ridge * scale * np.eye(len(self.matrix))
        solution: Array = np.linalg.lstsq(matrix, self.right, rcond=None)[0]
        return solution


def _read(potential: Path) -> tuple[Basis, Array]:
    """Return what is in the file of a potential."""
    content = json.loads((potential / FILENAME).read_text())
    basis = Basis(tuple(content['elements']), content['cutoff'], content['basis_size'])
    return basis, np.array(content['weights'])


def _elements(frames: Frames) -> tuple[str, ...]:
    """Return the elements of all frames in order of atomic number."""
    return tuple(sorted(frames.elements(), key=atomic_numbers.__getitem__))


def _atomic_energies(frames: Frames, elements: tuple[str, ...]) -> Array:
    """Return the energies per element that explain the total energies best; large offsets would spoil the fit."""
    numbers = [atomic_numbers[symbol] for symbol in elements]
    counts, energies = [], []
    for frame in frames:
        if frame.energy is None:
            return np.zeros(len(elements))
        counts.append([np.count_nonzero(frame.numbers == number) for number in numbers])
        energies.append(frame.energy)
    offsets: Array = np.linalg.lstsq(np.array(counts, dtype=float), np.array(energies), rcond=None)[0]
    return offsets


def _errors(what: str, basis: Basis, weights: Array, frames: Frames) -> dict[str, float]:
    """Return the root mean square errors of energy per atom and forces."""
    energy: list[float] = []
    forces: list[Array] = []
    for frame, prediction in _predictions(basis, weights, frames):
        if frame.energy is not None:
            energy.append((prediction.energy - frame.energy) / len(frame))
        if frame.forces is not None:
            forces.append((prediction.forces - frame.forces).reshape(-1))
    found = {}
    if energy:
        found[f'{what}_energy_per_atom_rmse'] = float(np.sqrt(np.mean(np.square(energy))))
    if forces:
        found[f'{what}_forces_rmse'] = float(np.sqrt(np.mean(np.square(np.concatenate(forces)))))
    return found


def _predictions(basis: Basis, weights: Array, frames: Frames) -> Iterator[tuple[Frame, Prediction]]:
    return ((frame, basis.predict(weights, frame)) for frame in frames)


def _dimer(distance: float) -> Frame:
    return Frame(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]]))
