"""Heads of a MACE potential: which frames teach which level of theory, and under which name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from aiida_perovmlip.compute.architecture import Plan
from aiida_perovmlip.compute.architectures.mace.settings import chosen
from aiida_perovmlip.compute.frame import DEFAULTS, Array
from aiida_perovmlip.compute.frames import Frames

ONLY = 'Default'
"""The name of the head of a potential that has one."""

REPLAY = 'pt_head'
"""What mace-torch calls the head of the frames that are replayed; it knows it by this name alone."""

EVERY = 10
"""One replayed frame in so many is kept for the validation."""


@dataclass(frozen=True)
class Head:
    """One head of the potential that is trained.

    :param name: its name in the potential.
    :param alias: its name while mace-torch trains it.
    :param origin: whose head it is (`training` or `parent`), and its name there; the level of theory is that one's.
    """

    name: str
    alias: str
    origin: tuple[str, str]
    training: Frames
    validation: Frames

    @property
    def is_replay(self) -> bool:
        """Whether it holds what the parent knew."""
        return self.alias == REPLAY


def heads_of(plan: Plan) -> list[Head]:
    """Return the heads that a training has, that of the replayed frames first, as in the file.

    The potential has one head, but for the strategy `multihead`, and for a training from scratch on frames with several
    heads. Where that is so, the heads have the names that they have in the training frames and in the parent; where
    these would be one, differing by capitals at most, the parent's is called `parent`.
    """
    assert plan.validation is not None
    training, validation = _training_of(plan), plan.validation
    origins = origins_of(plan)
    if not _is_by_head(plan):
        return [Head(ONLY, ONLY, origins[ONLY], training, validation)]
    mine = {name: there for name, (of, there) in origins.items() if of == 'training'}
    heads = [
        Head(name, alias, ('training', there), with_head(training, there), with_head(validation, there))
        for (name, there), alias in zip(mine.items(), _aliases(list(mine)), strict=True)
    ]
    return [*(_replay_head(plan, name, there) for name, (of, there) in origins.items() if of == 'parent'), *heads]


def origins_of(plan: Plan) -> dict[str, tuple[str, str]]:
    """Return the names of the heads in their order, each with whose head it is and its name there."""
    names = list(plan.training.categories('head'))
    if not _is_by_head(plan):
        return {ONLY: ('training', names[0] if len(names) == 1 else '')}
    mine = {name: ('training', name) for name in names}
    if plan.strategy != 'multihead':
        return mine
    theirs = parent_head(plan)
    is_taken = theirs.lower() in [name.lower() for name in names]
    return {_free('parent', names) if is_taken else theirs: ('parent', theirs), **mine}


def _is_by_head(plan: Plan) -> bool:
    """Whether the heads of the potential are those of the frames."""
    return plan.strategy == 'multihead' or (plan.strategy == 'scratch' and len(plan.training.categories('head')) > 1)


def _replay_head(plan: Plan, name: str, theirs: str) -> Head:
    """Return the head of the frames that are replayed."""
    frames = replayed(plan)
    positions = np.arange(len(frames))
    kept = positions % EVERY == min(EVERY, len(frames)) - 1
    return Head(name, REPLAY, ('parent', theirs), frames.take(positions[~kept]), frames.take(positions[kept]))


def parent_head(plan: Plan) -> str:
    """Return the head of the parent that is trained on."""
    assert plan.known is not None
    return plan.settings.parent_head or plan.known.heads[0]


def replayed(plan: Plan) -> Frames:
    """Return the frames that are replayed: those given, or the training frames with labels of the parent."""
    return plan.training if plan.replay is None else plan.replay


def _free(name: str, names: list[str]) -> str:
    """Return the name, with as many underscores as make it new."""
    while name.lower() in [each.lower() for each in names]:
        name += '_'
    return name


def _aliases(names: list[str]) -> Iterator[str]:
    """Yield a name for each head that survives command line and log, and that means nothing to mace-torch."""
    for index, name in enumerate(names):
        yield name if re.fullmatch(r'[A-Za-z][A-Za-z0-9_]*', name) and name.lower() != REPLAY else f'head_{index}'


def _training_of(plan: Plan) -> Frames:
    """Return the frames to train on: without those of one atom where these are its energies."""
    if plan.settings.atomic_energies != 'isolated':
        return plan.training
    return plan.training.take(np.flatnonzero(sizes(plan.training) > 1))


def with_head(frames: Frames, name: str) -> Frames:
    """Return the frames of one head."""
    masks = []
    for chunk in frames.chunks(('head',)):
        texts = np.array(chunk.names.get('head', (DEFAULTS['head'],)))
        masks.append(texts[chunk.columns.get('head', np.zeros(len(chunk), np.int32))] == name)
    return frames.take(np.flatnonzero(np.concatenate(masks)) if masks else [])


def sizes(frames: Frames) -> Array:
    """Return the number of atoms of each frame."""
    counts = [np.diff(chunk.columns['offsets']) for chunk in frames.chunks(('energy',))]
    return np.concatenate(counts) if counts else np.zeros(0, np.int64)


def labels_of_replay(plan: Plan) -> str:
    """Return whose labels the replayed frames have: of the `dataset` or of the `parent`."""
    return str(chosen(plan.settings, 'replay_labels'))
