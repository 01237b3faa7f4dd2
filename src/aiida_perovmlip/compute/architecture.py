"""An architecture of potentials: how to train one, what is in its files, and what it predicts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aiida_perovmlip.compute.checkpoint import Checkpoint, State
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.plugin import Plugin
from aiida_perovmlip.compute.settings import are_same


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


STRATEGIES = {
    'scratch': 'A new potential, from nothing but the training frames.',
    'naive': 'All parameters of the parent are trained on; what it knew of other frames may be forgotten.',
    'multihead': 'As `naive`, with a head for each level of theory and with frames that replay what the parent knew.',
    'freeze': 'As `naive`, but the first layers of the parent stay as they are.',
    'lora': 'The parent stays as it is; small matrices that are added to its layers are trained.',
}
"""What a training can do with its parent. Zero-shot is no training: the parent is evaluated as it is. Continual
learning is several trainings, each of which has one of these strategies."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained on what: all that can be judged before anything runs.

    :param strategy: one of `STRATEGIES`.
    :param settings: an instance of the architecture's `Settings`.
    :param training: the frames to learn from.
    :param validation: the frames to choose the best state by; None where there are none.
    :param replay: the frames that keep the parent from forgetting; None where there are none.
    :param known: what is in the parent, the energies of atoms excepted where nobody has opened it yet; None for a
        training from scratch.
    :param said: names of the settings that the user gave; None where nobody kept them, and then those count that are
        not the defaults.
    :param has_level_of_parent: whether the labels of the training frames are of the level of theory that the parent
        was trained on; None where one of the two is not known.
    """

    strategy: str = 'scratch'
    settings: Any
    training: Frames
    validation: Frames | None = None
    replay: Frames | None = None
    known: PotentialFacts | None = None
    said: frozenset[str] | None = None
    has_level_of_parent: bool | None = None

    def is_said(self, name: str) -> bool:
        """Whether the user gave a value to a setting."""
        value = getattr(self.settings, name)
        if self.said is None:
            return bool(value != getattr(type(self.settings)(), name))
        return name in self.said and value is not None


@dataclass(frozen=True, kw_only=True)
class Training(Plan):
    """All that an architecture needs to train.

    :param folder: where it may write; what it leaves in `folder / 'potential'` is the potential.
    :param parent: folder of the potential to start from; None for training from scratch.
    :param checkpoint: where states are saved, and where that of an earlier run is found.
    :param report: takes one step of the training curve (numbers by name) and makes it visible from outside.
    :param seconds_left: seconds until the job has to be finished; infinite without a limit.
    """

    folder: Path
    checkpoint: Checkpoint
    seed: int = 0
    device: str = 'cpu'
    cores: int = 1
    parent: Path | None = None
    report: Callable[[dict[str, Any]], None] = field(default=lambda step: None)
    seconds_left: Callable[[], float] = field(default=lambda: math.inf)


@dataclass(frozen=True)
class Trained:
    """What a training left behind.

    :param curve: one entry a step: `step` and errors by name, `<training|validation>_<quantity>_<rmse|mae>`, in
        eV/atom, eV/Å and eV/Å³, and `loss`; errors of a further head carry `__<head>` at their end. It covers all runs
        of a training that was resumed.
    :param effective: the settings that the trainer really used, read back from what it wrote.
    :param notes: sentences on what the user would not expect, such as elements that the potential no longer knows.
    """

    curve: list[dict[str, Any]]
    effective: dict[str, Any]
    notes: list[str] = field(default_factory=list)


class Architecture(Plugin):
    """Base of all architectures; one file and one entry point add another."""

    opens_pickles: ClassVar[bool] = True
    """Whether reading the potential's files can run foreign code; such files are opened inside jobs alone."""

    strategies: ClassVar[tuple[str, ...]] = ('scratch',)
    """What it can do with a parent: names of `STRATEGIES`."""

    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {'fast': ('The defaults.', {})}
    """For each protocol what it is for, in a sentence, and its settings."""

    def check(self, plan: Plan) -> str | None:
        """Return a sentence where this plan cannot work, before anything runs."""
        return None

    def has_heads(self, strategy: str) -> bool:
        """Whether a training by this strategy can have a head for each of several levels of theory."""
        return False

    def may_change(self, settings: Any, state: State) -> frozenset[str]:
        """Return the settings that a run which is taken up at a state may have otherwise than the runs before it.

        Whatever lies in the state and would have no effect is none of them.
        """
        return frozenset()

    def learns_from_replay(self, settings: Any) -> bool:
        """Return whether the labels of replayed frames are learned, and not what the parent says of these."""
        return True

    def smaller_batch(self, settings: Any) -> dict[str, Any] | None:
        """Return the settings to change where memory ran out, as far as possible without another result.

        None where there is nothing smaller.
        """
        return None

    def lower_rate(self, settings: Any, has_parent: bool = False) -> dict[str, Any] | None:
        """Return the settings to change where the training diverged; None where the rate cannot be lowered."""
        return None

    shape: ClassVar[tuple[str, ...]] = ()
    """Settings that a parent has the last word on: those of its network. A protocol leaves them to it."""

    known_shape: ClassVar[dict[str, str]] = {}
    """Those of `shape` that are a fact of any potential, with the name of that in `PotentialFacts`: where they differ
    from the parent, a training is refused before there is a job."""

    records: ClassVar[tuple[str, ...]] = ()
    """Small files that a training writes for its trainer or that the trainer leaves; they are kept with the job."""

    @abstractmethod
    def train(self, training: Training) -> Trained:
        """Train a potential and leave its files in `training.folder / 'potential'`.

        It saves states to `training.checkpoint` as it goes, starts from the state that it finds there, and raises
        `JobError(Status.OUT_OF_WALLTIME, …)` where `seconds_left` runs out before the end.
        """

    def shape_of(self, parent: Path, settings: Any) -> dict[str, Any]:
        """Read from the files of a parent what the settings of `shape` will be; only called inside a job."""
        return {}

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

    def descriptors(self, potential: Path, frames: Iterable[Frame], device: str = 'cpu') -> Iterator[Array]:
        """Yield what the potential sees of the atoms of each frame, (n_atoms, n); for choosing and mapping frames."""
        raise JobError(Status.BAD_INPUT, f'{self.name} gives no descriptors.')


def common_problem(architecture: Architecture, plan: Plan) -> str | None:
    """Return a sentence where a plan cannot work with any architecture, or not with this one."""
    name, known = architecture.name, plan.known
    if plan.strategy not in STRATEGIES:
        return f'there is no strategy `{plan.strategy}`; there are {", ".join(STRATEGIES)}.'
    if plan.strategy not in architecture.strategies:
        return f'{name} has no strategy `{plan.strategy}`; it has {", ".join(architecture.strategies)}.'
    if (known is None) != (plan.strategy == 'scratch'):
        which = 'needs a `parent`' if known is None else 'has no use for a `parent`'
        return f'the strategy `{plan.strategy}` {which}.'
    if (plan.replay is not None) and plan.strategy != 'multihead':
        return f'the strategy `{plan.strategy}` replays nothing: leave `replay` out, or take the strategy `multihead`.'
    if not len(plan.training):
        return 'the training dataset is empty.'
    if plan.validation is not None and not len(plan.validation):
        return 'the validation dataset is empty; choose another split, or leave it out where the architecture allows.'
    unknown = missing_elements(plan.training.elements(), known.elements) if known is not None else []
    if unknown and known is not None:
        return f'the parent does not know {", ".join(unknown)}; it knows {", ".join(known.elements)}.'
    facts = {setting: getattr(known, fact) for setting, fact in architecture.known_shape.items() if known is not None}
    problem = problem_of_shape(plan, {setting: fact for setting, fact in facts.items() if fact})
    return problem or architecture.check(plan)


def problem_of_shape(plan: Plan, shown: Mapping[str, Any]) -> str | None:
    """Return a sentence where settings were given that the parent has otherwise; its trainer would pass over them.

    :param shown: settings that the parent shows.
    """
    asked = {name: getattr(plan.settings, name) for name in sorted(shown) if plan.is_said(name)}
    different = [name for name, value in asked.items() if not are_same(value, shown[name])]
    if not different:
        return None
    facts = '; '.join(f'`{name}`: asked {asked[name]!r}, the parent has {shown[name]!r}' for name in different)
    return f'the parent decides what the potential is made of. {facts}. Leave these out, or train from scratch.'


OTHER_LEVEL = (
    'The frames are of another level of theory than the parent. As nothing was said by `atomic_energies`, the energies '
    'of atoms are those of the parent, shifted by a least-squares fit to what it gets wrong.'
)
"""What is to be said where `default_way` is not to keep the energies of the parent."""


def default_way(plan: Plan) -> str:
    """Return where energies of atoms come from if nothing is said: another level has another zero of energy."""
    if plan.known is None:
        return 'average'
    return 'estimated' if plan.has_level_of_parent is False else 'parent'


UNSEEN = {'charge': ('charge', 'charges'), 'spin': ('spin multiplicity', 'spin multiplicities')}
"""What two frames can differ in without a difference in their atoms, in words."""


def problem_of_states(name: str, *sets: Frames | None) -> str | None:
    """Return a sentence where frames differ in their charge or their spin, of which most architectures see nothing.

    Frames that do not tell their charge are neutral; those that do not tell their spin agree with any.

    :param name: the architecture, as people write it.
    """
    for column, (words, plural) in UNSEEN.items():
        found: set[int] = set()
        for chunk in (chunk for frames in sets if frames is not None for chunk in frames.chunks((column,))):
            default = {0} if column == 'charge' else set()
            found |= set(np.unique(chunk.columns[column]).tolist()) if column in chunk.columns else default
        if len(found) > 1:
            values = ', '.join(f'{value:+d}' if value and column == 'charge' else str(value) for value in sorted(found))
            return (
                f'the frames have the {plural} {values}, but {name} does not see the {words} of a cell; train one '
                f'potential for each {words}.'
            )
    return None


def missing_elements(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the wanted elements that are not known."""
    return sorted(set(wanted) - set(known))
