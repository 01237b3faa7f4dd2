"""Whether a training can be done, judged by the attributes of its nodes: nothing here grows with the frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import Architecture, Plan, PotentialFacts, common_problem, problem_of_shape
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.compute.shard import Shard
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData

VALUES = {'charge': 'charges', 'spin': 'spins'}
"""Columns of which a dataset tells all values, and the attributes that hold these."""


class NotToldError(LookupError):
    """What was asked for is not in the attributes; the job, which reads the frames and opens the parent, judges it."""


class DescribedFrames(Frames):
    """The frames of a dataset as far as its attributes tell of them; whatever else is asked raises NotToldError."""

    def __init__(self, dataset: DatasetData) -> None:
        super().__init__([], _refuse)
        self._told = dataset.base.attributes

    def __len__(self) -> int:
        return int(self._told.get('n_frames', 0))

    def __getitem__(self, index: int) -> NoReturn:
        _refuse(f'frame {index}')

    def take(self, indices: Any) -> NoReturn:
        """Refuse."""
        _refuse('a selection')

    def elements(self) -> tuple[str, ...]:
        """Return the chemical symbols of all atoms, in alphabetical order."""
        return tuple(self._told.get('elements', ()))

    def has(self, label: str) -> bool:
        """Whether any frame has this label."""
        if label == 'stress':
            return bool(self._told.get('n_stress', 0))
        return label in self._told.get('labels', ()) or (label in VALUES and bool(self._told.get(VALUES[label], ())))

    def categories(self, name: str) -> dict[str, int]:
        """Return the number of frames by group or head."""
        counts = self._told.get(f'{name}s', None)
        return dict(counts) if isinstance(counts, dict) else _refuse(f'the column `{name}`')

    def chunks(self, columns: Iterable[str] | None = None) -> Iterator[Shard]:
        """Yield a chunk in which each value of the one column that was asked for occurs once, where they are known."""
        wanted = None if columns is None else tuple(columns)
        if wanted is None or len(wanted) != 1 or wanted[0] not in VALUES:
            _refuse('the columns')
        values = self._told.get(VALUES[wanted[0]], [])
        found = {wanted[0]: np.array(values, dtype=np.int64)} if values else {}
        return iter([Shard({'offsets': np.arange(max(len(values), 1) + 1), **found}, {})])


@dataclass(frozen=True)
class Parent:
    """What is known of a parent.

    :param facts: what is in it; of one that is not there yet, what it will be where that is known, while all else is
        zero or empty, by which architectures know that nobody knows it.
    :param fingerprints: of the level of theory of each head, where it is known.
    :param first: of one that is not there yet, the settings by which its network will be made, where that is known.
    """

    facts: PotentialFacts
    fingerprints: Mapping[str, str]
    first: Any = None

    @classmethod
    def of(cls, potential: PotentialData) -> Parent:
        """Return what is known of a potential without opening its files."""
        attributes = potential.base.attributes
        facts = PotentialFacts(
            elements=tuple(potential.elements),
            cutoff=potential.cutoff,
            heads=tuple(potential.heads),
            dtype=attributes.get('dtype'),
            n_parameters=attributes.get('n_parameters'),
        )
        return cls(facts, _fingerprints(potential))

    def level(self, head: str | None) -> str | None:
        """Return the fingerprint of the level of theory of a head; None where nobody knows it."""
        return None if head is None else self.fingerprints.get(head)


def parent_to_be(name: str, settings: dict[str, Any], inputs: Any, strategy: str, parent: Parent | None) -> Parent:
    """Return what can be known of the potential that a training will give, before it is trained.

    :param inputs: as those of `problem_of_training`, which found nothing to refuse.
    """
    known = None if strategy == 'scratch' else parent
    architecture, plan = _plan(name, settings, inputs, strategy, known)
    origins = architecture.heads_to_be(plan)
    theirs = {'training': _fingerprints(inputs['training']), 'parent': known.fingerprints if known is not None else {}}
    levels = {head: theirs[of].get(there) for head, (of, there) in origins.items()}
    if len(origins) == 1 and len(own := set(theirs['training'].values())) == 1:
        levels = dict.fromkeys(origins, next(iter(own)))
    shape = {fact: getattr(plan.settings, setting) for setting, fact in architecture.known_shape.items()}
    shape = {fact: getattr(known.facts, fact) for fact in shape} if known is not None else shape
    facts = PotentialFacts(
        elements=tuple(sorted(architecture.elements_to_be(plan))),
        cutoff=shape.get('cutoff') or 0.0,
        heads=tuple(origins),
        dtype=shape.get('dtype') or '',
    )
    first = known.first if known is not None else plan.settings
    return Parent(facts, {head: level for head, level in levels.items() if level is not None}, first)


def has_level_of_parent(
    name: str, settings: dict[str, Any], training: DatasetData, parent: Parent | None
) -> bool | None:
    """Whether the labels are of the level of theory of the parent's head that is trained on; None where nobody knows.

    :param settings: those of the architecture of this name, which say which head that is.
    """
    return _has_level(training, _level_of_parent(*_load(name, settings), parent))


def _has_level(training: DatasetData, level: str | None) -> bool | None:
    """Whether labels are of a level of theory; None where that is not known."""
    own = set(_fingerprints(training).values())
    return None if level is None or not own else own == {level}


def _level_of_parent(architecture: Architecture, settings: Any, parent: Parent | None) -> str | None:
    """Return the level of theory of the parent's head that is trained on; None where nobody knows it."""
    return None if parent is None else parent.level(architecture.head_of_parent(settings, parent.facts.heads))


def _load(name: str, settings: dict[str, Any]) -> tuple[Architecture, Any]:
    """Return an architecture and its settings."""
    architecture: Architecture = registry.load('architectures', name)()
    return architecture, read_settings(architecture.Settings, settings)


def _plan(
    name: str, settings: dict[str, Any], inputs: Any, strategy: str, parent: Parent | None
) -> tuple[Architecture, Plan]:
    """Return an architecture and what it is to do, as far as attributes tell."""
    architecture, values = _load(name, settings)
    training, validation, replay = (inputs.get(each, None) for each in ('training', 'validation', 'replay'))
    plan = Plan(
        strategy=strategy,
        settings=values,
        training=DescribedFrames(training),
        validation=None if validation is None else DescribedFrames(validation),
        replay=None if replay is None else DescribedFrames(replay),
        known=None if parent is None else parent.facts,
        said=frozenset(settings),
        has_level_of_parent=_has_level(training, _level_of_parent(architecture, values, parent)),
    )
    return architecture, plan


def strategy_of(inputs: Any) -> str:
    """Return the strategy that was asked for, or that follows from what was given."""
    if 'strategy' in inputs:
        return str(inputs['strategy'].value)
    return 'naive' if 'parent' in inputs else 'scratch'


def problem_of_training(
    name: str, settings: dict[str, Any], inputs: Any, strategy: str, parent: Parent | None
) -> str | None:
    """Return a sentence where an architecture cannot be trained in this way, as far as attributes tell.

    :param inputs: `training` and, where they are given, `validation` and `replay`.
    """
    training: DatasetData = inputs['training']
    validation: DatasetData | None = inputs.get('validation', None)
    replay: DatasetData | None = inputs.get('replay', None)
    architecture, plan = _plan(name, settings, inputs, strategy, parent)
    problem = _problem_of_labels(training, validation) or _problem_of_mixture(
        architecture, strategy, training, validation
    )
    if problem is None and replay is not None and architecture.learns_from_replay(plan.settings):
        problem = _problem_of_replay(replay, _level_of_parent(architecture, plan.settings, parent))
    if problem is None and parent is not None and parent.first is not None:
        problem = problem_of_shape(plan, architecture.shape_to_be(parent.first, plan.settings))
    try:
        return problem or common_problem(architecture, plan)
    except NotToldError:
        return None


def _problem_of_labels(training: DatasetData, validation: DatasetData | None) -> str | None:
    """Return a sentence where there is nothing to learn, or where it cannot be judged."""
    for dataset, what in ((training, 'training'), (validation, 'validation')):
        missing = sorted({'energy', 'forces'} - set(dataset.labels)) if dataset is not None else []
        if missing:
            return f'the {what} dataset has no {" and no ".join(missing)}; label it first.'
    return None


def _problem_of_mixture(
    architecture: Architecture, strategy: str, training: DatasetData, validation: DatasetData | None
) -> str | None:
    """Return a sentence where levels of theory are mixed that the potential cannot tell apart."""
    sets = [dataset for dataset in (training, validation) if dataset is not None]
    fingerprints = {each for dataset in sets for each in _fingerprints(dataset).values()}
    if len(fingerprints) > 1 and not architecture.has_heads(strategy):
        heads = ', '.join(training.levels)
        return (
            f'the datasets mix {len(fingerprints)} levels of theory (heads {heads}), and a potential of '
            f'`{architecture.name}` by the strategy `{strategy}` has one. Take one of them: '
            '`dataset.select_head(…)`.'
        )
    return problem_of_levels(training, validation)


def problem_of_levels(training: DatasetData, validation: DatasetData | None) -> str | None:
    """Return a sentence where validation frames are of a level, or under a name of it, that is not trained."""
    known = training.levels
    for head, level in (validation.levels if validation is not None else {}).items():
        if len(known) > 1 and (head not in known or known[head].fingerprint != level.fingerprint):
            return (
                f'the validation dataset has the head `{head}`, which the training dataset does not have at this level '
                f'of theory; it has {", ".join(known)}.'
            )
        if level.fingerprint not in {each.fingerprint for each in known.values()}:
            return f'the validation dataset is of a level of theory (head `{head}`) that the training dataset has not.'
    return None


def _problem_of_replay(replay: DatasetData, level: str | None) -> str | None:
    """Return a sentence where the labels of replayed frames cannot be learned as those of the parent's level.

    :param level: the fingerprint of that of the head that is trained on; None where nobody knows it.
    """
    missing = sorted({'energy', 'forces'} - set(replay.labels))
    if missing:
        return (
            f'the replay dataset has no {" and no ".join(missing)}; label it first, or let the parent say what it is.'
        )
    theirs = set(_fingerprints(replay).values())
    if len(theirs) > 1 or (level is not None and theirs != {level}):
        return (
            'the replayed frames are of another level of theory than the parent, whose knowledge they are to keep; '
            'take frames of its level, or let the parent label them.'
        )
    return None


def _fingerprints(node: DatasetData | PotentialData) -> dict[str, str]:
    """Return the fingerprint of the level of theory of each head."""
    return {head: level.fingerprint for head, level in node.levels.items()}


def _refuse(what: str) -> NoReturn:
    """Raise; nothing is read here."""
    raise NotToldError(f'{what} cannot be told without reading frames or potentials.')
