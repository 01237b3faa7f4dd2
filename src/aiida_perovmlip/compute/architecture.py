"""An architecture of potentials: how to train one, what is in its files, and what it predicts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aiida_perovmlip.compute.checkpoint import Checkpoint, State
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import DEFAULTS, Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.plugin import Plugin
from aiida_perovmlip.compute.settings import are_same
from aiida_perovmlip.compute.shard import Shard


@dataclass(frozen=True)
class Prediction:
    """What a potential says of one frame: energy in eV, forces (n_atoms, 3) in eV/Å, stress (6,) in eV/Å³ or None."""

    energy: float
    forces: Array
    stress: Array | None = None


Predictor = Callable[[Iterable[Frame]], Iterator[Prediction]]
"""What predicts frames with a potential that is open; it may take many before it gives the first."""


def in_batches(predict: Callable[[list[Frame]], Iterator[Prediction]], limit: int) -> Predictor:
    """Return what predicts as many frames at once as have so many atoms together.

    The very first frame is a batch of its own, so that who measures the speed can leave out what warms up.
    """
    is_warm = False

    def predictor(frames: Iterable[Frame]) -> Iterator[Prediction]:
        nonlocal is_warm
        batch: list[Frame] = []
        atoms = 0
        for frame in frames:
            if batch and (not is_warm or atoms + len(frame) > limit):
                yield from predict(batch)
                batch, atoms, is_warm = [], 0, True
            batch.append(frame)
            atoms += len(frame)
        if batch:
            yield from predict(batch)
            is_warm = True

    return predictor


def prediction_of(calculator: Any, frame: Frame) -> Prediction:
    """Return what an ASE calculator says of a frame."""
    wanted = ['energy', 'forces', *(['stress'] if frame.has_volume else [])]
    calculator.calculate(frame.to_atoms(labels=False), wanted)
    return Prediction(
        energy=float(calculator.results['energy']),
        forces=np.array(calculator.results['forces'], dtype=float),
        stress=np.array(calculator.results['stress'], dtype=float) if frame.has_volume else None,
    )


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
class NativeForm:
    """How a program of molecular dynamics reads a potential by itself.

    :param lines: what stands in its input, with paths relative to the folder that it runs in.
    :param energies: energy in eV of each element that it leaves out of what it says, by chemical symbol.
    """

    lines: tuple[str, ...]
    energies: dict[str, float] = field(default_factory=dict)

    def offset_of(self, frame: Frame) -> float:
        """Return the energy in eV of a frame that the program leaves out."""
        return math.fsum(self.energies.get(symbol, 0.0) for symbol in frame.symbols)


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
    :param has_level_of_parent: whether the labels of the training frames are of the level of theory of the head of the
        parent that is trained on; None where one of the two is not known.
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

    filename: ClassVar[str] = ''
    """The name under which it looks for a potential that is one file; empty where a potential is always a folder."""

    strategies: ClassVar[tuple[str, ...]] = ('scratch',)
    """What it can do with a parent: names of `STRATEGIES`."""

    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {'fast': ('The defaults.', {})}
    """For each protocol what it is for, in a sentence, and its settings."""

    def check(self, plan: Plan) -> str | None:
        """Return a sentence where this plan cannot work, before anything runs."""
        return None

    sees: ClassVar[tuple[str, ...]] = ()
    """What it sees of a cell besides its atoms: names of `UNSEEN`."""

    def has_heads(self, strategy: str) -> bool:
        """Whether a training by this strategy can have a head for each of several levels of theory."""
        return False

    def head_of_parent(self, settings: Any, heads: Sequence[str]) -> str | None:
        """Return the head of a parent that is trained on; None where that is not said."""
        return heads[0] if len(heads) == 1 else None

    def heads_to_be(self, plan: Plan) -> dict[str, tuple[str, str]]:
        """Return the heads of the potential that a plan gives: for each whose it is, and its name there.

        Whose is `training` or `parent`; the level of theory is that one's. Where several heads of the training frames
        become one, its name there is empty.
        """
        names = list(plan.training.categories('head'))
        return {'default': ('training', names[0] if len(names) == 1 else '')}

    def elements_to_be(self, plan: Plan) -> frozenset[str]:
        """Return the elements that the potential of a plan will know, as somebody taught it these.

        They are those of the training frames and, unless the architecture drops what no frame holds, of the parent.
        """
        return frozenset(plan.training.elements()) | frozenset(plan.known.elements if plan.known is not None else ())

    def shape_to_be(self, first: Any, settings: Any) -> dict[str, Any]:
        """Return what the settings of `shape` will be of a potential that was made from scratch, and trained on since.

        :param first: the settings by which it was made.
        :param settings: those of the training that will have it as parent, which may spell the same in another way.
        """
        return {name: value for name in self.shape if (value := getattr(first, name)) is not None}

    def may_change(self, settings: Any, state: State) -> frozenset[str]:
        """Return the settings that a run which is taken up at a state may have otherwise than the runs before it.

        Whatever lies in the state and would have no effect is none of them.
        """
        return frozenset()

    def learns_from_replay(self, settings: Any) -> bool:
        """Return whether the labels of replayed frames are learned, and not what the parent says of these."""
        return True

    def smaller_batch(self, settings: Any, has_parent: bool = False) -> dict[str, Any] | None:
        """Return the settings to change where memory ran out, as far as possible without another result.

        None where there is nothing smaller.
        """
        return None

    def lower_rate(self, settings: Any, has_parent: bool = False) -> dict[str, Any] | None:
        """Return the settings to change where the training diverged; None where the rate cannot be lowered."""
        return None

    shape: ClassVar[tuple[str, ...]] = ()
    """Settings that a parent has the last word on: those of its network. A protocol leaves them to it."""

    for_new: ClassVar[tuple[str, ...]] = ()
    """Further settings that a protocol gives to new potentials alone: rates that would spoil what a parent knows, and
    what not all strategies can do."""

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
        """Predict frames once; nothing is opened before the first is asked for."""
        yield from self.predictor(potential, device, head)(frames)

    def predictor(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Predictor:
        """Open a potential to predict with it again and again.

        This one goes from frame to frame; an architecture that can evaluate batches overrides it.
        """
        calculator = self.calculator(potential, device, head)

        def predict(frames: Iterable[Frame]) -> Iterator[Prediction]:
            for frame in frames:
                calculator.reset()
                yield prediction_of(calculator, frame)

        return predict

    def descriptors(self, potential: Path, frames: Iterable[Frame], device: str = 'cpu') -> Iterator[Array]:
        """Yield what the potential sees of the atoms of each frame, (n_atoms, n); for choosing and mapping frames."""
        raise JobError(Status.BAD_INPUT, f'{self.name} gives no descriptors.')

    lammps_styles: ClassVar[dict[str, str]] = {}
    """Pair styles of LAMMPS that read its potentials, the best first, and for each how one gets a LAMMPS with it."""

    runs_in_gpumd: ClassVar[bool] = False
    """Whether GPUMD reads its potentials."""

    def lammps(
        self,
        style: str,
        potential: Path,
        elements: Sequence[str],
        folder: Path,
        device: str = 'cpu',
        head: str | None = None,
    ) -> NativeForm:
        """Return how LAMMPS reads a potential with one of `lammps_styles`; only called inside a job.

        :param elements: chemical symbols in the order of the atom types.
        :param folder: where LAMMPS runs, and where files that it needs can be made.
        """
        raise JobError(Status.BAD_INPUT, f'LAMMPS has nothing that reads potentials of {self.name}.')

    def gpumd(self, potential: Path, folder: Path) -> NativeForm:
        """Return how GPUMD reads a potential; only called inside a job.

        :param folder: where GPUMD runs, and where files that it needs can be made.
        """
        raise JobError(Status.BAD_INPUT, f'GPUMD does not read potentials of {self.name}.')


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
    return (
        _problem_of_validation(architecture, plan)
        or problem_of_shape(plan, {setting: fact for setting, fact in facts.items() if fact})
        or architecture.check(plan)
        or problem_of_states(architecture, plan)
    )


def _problem_of_validation(architecture: Architecture, plan: Plan) -> str | None:
    """Return a sentence where validation frames hold elements that the potential will have learned nothing of."""
    if plan.validation is None:
        return None
    learned = architecture.elements_to_be(plan)
    missing = missing_elements(plan.validation.elements(), sorted(learned))
    if not missing:
        return None
    return (
        f'the validation dataset holds {", ".join(missing)}, which the potential will not know: it learns '
        f'{", ".join(sorted(learned))}. Take such frames out, or into the training dataset.'
    )


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


UNKNOWN_LEVEL = (
    'It is not known whether the frames are of the level of theory of the parent. As nothing was said by '
    '`atomic_energies`, the energies of atoms are those of the parent; take `estimated` where the levels differ.'
)
"""What is to be said where `default_way` keeps the energies of the parent for want of better knowledge."""


def default_way(plan: Plan) -> str:
    """Return where energies of atoms come from if nothing is said: another level has another zero of energy."""
    if plan.known is None:
        return 'average'
    return 'estimated' if plan.has_level_of_parent is False else 'parent'


def notes_of_way(plan: Plan) -> list[str]:
    """Return what is to be said where energies of atoms come from `default_way`."""
    if plan.known is None or plan.has_level_of_parent:
        return []
    return [UNKNOWN_LEVEL if plan.has_level_of_parent is None else OTHER_LEVEL]


UNSEEN = {'charge': ('charge', 'charges'), 'spin': ('spin multiplicity', 'spin multiplicities')}
"""What two frames can differ in without a difference in their atoms, in words."""


def problem_of_states(architecture: Architecture, plan: Plan) -> str | None:
    """Return a sentence where frames of the same atoms differ in their charge or their spin, which nobody would see.

    Those of other atoms may: an atom by itself has a spin of its own, a defect its charge. Nor are frames compared that
    teach different heads.
    """
    sets = [each for each in (plan.training, plan.validation) if each is not None]
    groups = [sets]
    if plan.replay is not None and architecture.learns_from_replay(plan.settings):
        groups.append([plan.replay])
    for column in (name for name in UNSEEN if name not in architecture.sees):
        for group in groups:
            values = _clashing(column, group, by_head=architecture.has_heads(plan.strategy))
            if values:
                return _clash(architecture.name, column, values)
    return None


def _clash(name: str, column: str, values: Sequence[int]) -> str:
    """Return the sentence on frames that differ in what an architecture does not see."""
    words, plural = UNSEEN[column]
    shown = ', '.join(f'{value:+d}' if value and column == 'charge' else str(value) for value in values)
    return (
        f'frames of the same atoms have the {plural} {shown}, but {name} does not see the {words} of a cell; train one '
        f'potential for each {words}.'
    )


def _clashing(column: str, sets: Sequence[Frames], by_head: bool) -> list[int]:
    """Return the values of a column that frames of one composition have, if these are several.

    Frames that do not tell their charge are neutral; those that do not tell their spin agree with any. Atoms are only
    read where there are several values at all.
    """
    alone = {value for frames in sets for chunk in frames.chunks((column,)) for value in _values(column, chunk)}
    if len(alone) < 2:
        return []
    found: dict[tuple[str, bytes], set[int]] = {}
    for chunk in (chunk for frames in sets for chunk in frames.chunks((column, 'numbers', 'head'))):
        for head, composition, value in zip(
            _heads(chunk) if by_head else [''] * len(chunk), _compositions(chunk), _values(column, chunk), strict=False
        ):
            values = found.setdefault((head, composition), set())
            values.add(value)
    return next((sorted(values) for values in found.values() if len(values) > 1), [])


def _values(column: str, chunk: Shard) -> list[int]:
    """Return the charge or the spin of each frame; none where frames do not tell a spin."""
    if column in chunk.columns:
        return [int(value) for value in chunk.columns[column]]
    return [0] * len(chunk) if column == 'charge' else []


def _heads(chunk: Shard) -> list[str]:
    """Return the head of each frame."""
    names = chunk.names.get('head', (DEFAULTS['head'],))
    return [names[code] for code in chunk.columns.get('head', np.zeros(len(chunk), np.int32))]


def _compositions(chunk: Shard) -> Iterator[bytes]:
    """Yield for each frame what is equal where the numbers of atoms of all elements are."""
    for start, end in pairwise(chunk.columns['offsets']):
        yield np.sort(chunk.columns['numbers'][start:end]).tobytes()


def missing_elements(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the wanted elements that are not known."""
    return sorted(set(wanted) - set(known))
