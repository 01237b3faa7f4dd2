"""Whether a training can be done, judged by the attributes of its nodes: nothing here grows with the frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import Architecture, Plan, PotentialFacts, common_problem, missing_elements
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
        return iter([Shard({'offsets': np.arange(len(values) + 1), **found}, {})])


class UnnamedHeads(tuple[str, ...]):
    """The heads of a potential that is not there yet: nobody knows their names."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> NoReturn:
        _refuse('a head')


@dataclass(frozen=True)
class Parent:
    """What is known of a parent.

    :param facts: what is in it; of one that is not there yet the elements that it will know at most, while all else is
        zero or empty, by which architectures know that nobody knows it.
    :param fingerprints: those of the levels of theory that it knows, or will know at most.
    """

    facts: PotentialFacts
    fingerprints: frozenset[str]

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


def parent_to_be(strategy: str, training: DatasetData, parent: Parent | None) -> Parent:
    """Return what can be known of the potential that a training will give, before it is trained."""
    elements = training.elements if parent is None or strategy == 'scratch' else parent.facts.elements
    own = _fingerprints(training)
    levels = own | parent.fingerprints if parent is not None and strategy == 'multihead' else own
    return Parent(PotentialFacts(elements=tuple(elements), cutoff=0.0, heads=UnnamedHeads(), dtype=''), levels)


def has_level_of_parent(training: DatasetData, parent: Parent | None) -> bool | None:
    """Whether the labels are of a level of theory that the parent knows; None where nobody knows that."""
    own = _fingerprints(training)
    if parent is None or not parent.fingerprints or not own:
        return None
    return own <= parent.fingerprints


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
    architecture: Architecture = registry.load('architectures', name)()
    values = read_settings(architecture.Settings, settings)
    problem = _problem_of_labels(training, validation) or _problem_of_mixture(
        architecture, strategy, training, validation
    )
    if problem is None and replay is not None and architecture.learns_from_replay(values):
        problem = _problem_of_replay(replay, parent)
    plan = Plan(
        strategy=strategy,
        settings=values,
        training=DescribedFrames(training),
        validation=None if validation is None else DescribedFrames(validation),
        replay=None if replay is None else DescribedFrames(replay),
        known=None if parent is None else parent.facts,
        said=frozenset(settings),
        has_level_of_parent=has_level_of_parent(training, parent),
    )
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
    unseen = missing_elements(validation.elements, training.elements) if validation is not None else []
    return f'the validation dataset holds {", ".join(unseen)}, which the training dataset does not.' if unseen else None


def _problem_of_mixture(
    architecture: Architecture, strategy: str, training: DatasetData, validation: DatasetData | None
) -> str | None:
    """Return a sentence where levels of theory are mixed that the potential cannot tell apart."""
    fingerprints = _fingerprints(training) | (_fingerprints(validation) if validation is not None else frozenset())
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


def _problem_of_replay(replay: DatasetData, parent: Parent | None) -> str | None:
    """Return a sentence where the labels of replayed frames cannot be learned as those of the parent's level."""
    missing = sorted({'energy', 'forces'} - set(replay.labels))
    if missing:
        return (
            f'the replay dataset has no {" and no ".join(missing)}; label it first, or let the parent say what it is.'
        )
    theirs = _fingerprints(replay)
    known = parent.fingerprints if parent is not None else frozenset()
    if len(theirs) > 1 or (known and not theirs <= known):
        return (
            'the replayed frames are of another level of theory than the parent, whose knowledge they are to keep; '
            'take frames of its level, or let the parent label them.'
        )
    return None


def _fingerprints(node: DatasetData | PotentialData) -> frozenset[str]:
    return frozenset(level.fingerprint for level in node.levels.values())


def _refuse(what: str) -> NoReturn:
    """Raise; nothing is read here."""
    raise NotToldError(f'{what} cannot be told without reading frames or potentials.')
