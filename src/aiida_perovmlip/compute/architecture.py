"""An architecture of potentials: how to train one, what is in its files, and what it predicts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.plugin import Plugin


@dataclass(frozen=True)
class Prediction:
    """What a potential says of one frame: energy in eV, forces (n_atoms, 3) in eV/Å, stress (6,) in eV/Å³ or None."""

    energy: float
    forces: Array
    stress: Array | None = None


@dataclass(frozen=True)
class PotentialFacts:
    """What is in the files of a potential, read from these and from nothing else.

    :param elements: chemical symbols in alphabetical order.
    :param cutoff: interaction cutoff in Å.
    :param heads: names of the levels of theory that the potential can predict.
    :param dtype: precision of the parameters.
    :param n_parameters: number of fitted parameters.
    :param energies_of_atoms: energy in eV that the potential gives each element by itself, per head.
    """

    elements: tuple[str, ...]
    cutoff: float
    heads: tuple[str, ...] = ('default',)
    dtype: str = 'float64'
    n_parameters: int = 0
    energies_of_atoms: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """All that an architecture needs to train.

    :param folder: where it may write; what it leaves in `folder / 'potential'` is the potential.
    :param training: the frames to learn from.
    :param validation: the frames to choose the best state by; None where there are none.
    :param settings: an instance of the architecture's `Settings`.
    :param parent: folder of the potential to start from; None for training from scratch.
    :param report: takes one step of the training curve (numbers by name) and makes it visible from outside.
    :param seconds_left: seconds until the job has to be finished; infinite without a limit.
    """

    folder: Path
    training: Frames
    validation: Frames | None
    settings: Any
    seed: int
    device: str
    cores: int
    parent: Path | None
    report: Callable[[dict[str, Any]], None]
    seconds_left: Callable[[], float]


@dataclass(frozen=True)
class Trained:
    """What a training left behind.

    :param curve: one entry a step: `step` and errors by name, `<training|validation>_<quantity>_<rmse|mae>`, in
        eV/atom, eV/Å and eV/Å³, and `loss`.
    :param effective: the settings that the trainer really used, read back from what it wrote.
    """

    curve: list[dict[str, Any]]
    effective: dict[str, Any]


class Architecture(Plugin):
    """Base of all architectures; one file and one entry point add another."""

    opens_pickles: ClassVar[bool] = True
    """Whether reading the potential's files can run foreign code; such files are opened inside jobs alone."""

    protocols: ClassVar[dict[str, dict[str, Any]]] = {'fast': {}}
    """Settings by name of protocol."""

    def check(self, settings: Any, training: Frames, validation: Frames | None) -> str | None:
        """Return a sentence where these settings cannot work with these frames, before anything runs."""
        return None

    @abstractmethod
    def train(self, training: Training) -> Trained:
        """Train a potential and leave its files in `training.folder / 'potential'`."""

    @abstractmethod
    def facts(self, potential: Path) -> PotentialFacts:
        """Read what is in the files of a potential; only called inside a job."""

    @abstractmethod
    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Return an ASE calculator."""

    def predict(
        self, potential: Path, frames: Iterable[Frame], device: str = 'cpu', head: str | None = None
    ) -> Iterator[Prediction]:
        """Predict frame after frame; an architecture that can evaluate batches overrides this."""
        calculator = self.calculator(potential, device, head)
        for frame in frames:
            atoms = frame.to_atoms(labels=False)
            calculator.reset()
            calculator.calculate(atoms, ['energy', 'forces', *(['stress'] if frame.has_volume else [])])
            yield Prediction(
                energy=float(calculator.results['energy']),
                forces=np.array(calculator.results['forces'], dtype=float),
                stress=np.array(calculator.results['stress'], dtype=float) if frame.has_volume else None,
            )


def missing_elements(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the wanted elements that are not known."""
    return sorted(set(wanted) - set(known))
