"""What is refused before MACE is trained: what mace-torch would crash on, or worse, would not."""

from __future__ import annotations

import re
from dataclasses import fields

import numpy as np

from aiida_perovmlip.compute.architecture import Plan, missing_elements
from aiida_perovmlip.compute.architectures.mace.energies import energies_of, problem_of_energies
from aiida_perovmlip.compute.architectures.mace.heads import (
    Head,
    heads_of,
    labels_of_replay,
    replayed,
    sizes,
)
from aiida_perovmlip.compute.architectures.mace.network import terms_of
from aiida_perovmlip.compute.architectures.mace.settings import ONLY_FOR, MaceSettings
from aiida_perovmlip.compute.frames import Frames

RESOLUTION = 2e-4
"""Difference of two energies in eV/atom that a precision has to tell apart."""

FEWEST_REPLAYED = 2
"""One to train on, one to validate by."""

TERM = r'(?:[1-9]\d*x)?(?:0|[1-9]\d*)[eo]'
IRREPS = re.compile(rf'{TERM}(?:\+{TERM})*')
"""Channels and their symmetry as e3nn reads and writes them, without spaces."""


def problem_of(plan: Plan) -> str | None:
    """Return a sentence where a plan cannot work."""
    if plan.validation is None:
        return 'MACE chooses the best epoch by the errors on a validation set; give one, for example by a split.'
    problem = (
        _problem_of_strategy(plan)
        or _problem_of_replay(plan)
        or _problem_of_network(plan)
        or _problem_of_settings(plan.settings, plan.training)
        or problem_of_energies(plan)
    )
    return problem or _problem_of_heads(heads_of(plan), plan.settings) or _problem_of_precision(plan)


def _problem_of_strategy(plan: Plan) -> str | None:
    """Return a sentence where a setting has no meaning with the strategy, or where the parent's head is not known."""
    settings: MaceSettings = plan.settings
    for name, strategies in ONLY_FOR.items():
        if getattr(settings, name) is not None and plan.strategy not in strategies:
            return (
                f'`{name}` has a meaning with {", ".join(strategies)} only, not with `{plan.strategy}`; leave it out.'
            )
    if plan.strategy == 'lora' and settings.enable_cueq:
        return 'the matrices of `lora` cannot be trained with cuEquivariance; leave `enable_cueq` out.'
    if plan.strategy == 'multihead' and settings.loss != 'universal':
        told = 'mace-torch trains `multihead` with the loss `universal` whatever it is asked'
        return f'{told}; `loss` is {settings.loss!r}.'
    known = plan.known.heads if plan.known is not None else ()
    if len(known) > 1 and settings.parent_head is None:
        return f'the parent has the heads {", ".join(known)}; say by `parent_head` which to start from.'
    if known and settings.parent_head is not None and settings.parent_head not in known:
        return f'the parent has no head `{settings.parent_head}`; it has {", ".join(known)}.'
    return None


def _problem_of_replay(plan: Plan) -> str | None:
    """Return a sentence where there is nothing to replay; mace-torch would train without it and say nothing."""
    if plan.strategy != 'multihead' or plan.known is None:
        return None
    if plan.replay is None and labels_of_replay(plan) == 'dataset':
        return (
            'the strategy `multihead` needs frames that keep the parent from forgetting: give a dataset as `replay`, '
            "or take the training frames with the parent's labels by the setting `replay_labels: parent`."
        )
    frames = replayed(plan)
    if len(frames) < FEWEST_REPLAYED:
        return f'there is {len(frames)} frame to replay; give {FEWEST_REPLAYED} or more.'
    missing = missing_elements(frames.elements(), plan.known.elements)
    if missing:
        return f'the frames to replay hold {", ".join(missing)}, which the parent does not know.'
    if labels_of_replay(plan) == 'dataset':
        return None if frames.has('energy') else 'the frames to replay have no labels; take `replay_labels: parent`.'
    return None


def _problem_of_network(plan: Plan) -> str | None:
    """Return a sentence where features are spelled wrongly, or are some that MACE does not make."""
    settings: MaceSettings = plan.settings
    for name in ('hidden_irreps', 'readout_irreps'):
        irreps = getattr(settings, name)
        if not IRREPS.fullmatch(irreps.replace(' ', '')):
            return f'`{name}` is {irreps!r}, but has to be channels and their symmetry, such as `128x0e + 128x1o`.'
    hidden, n_terms = terms_of(settings.hidden_irreps), settings.hidden_irreps.count('+') + 1
    if '0e' not in hidden or len(set(hidden.values())) > 1 or len(hidden) < n_terms:
        return (
            f'`hidden_irreps` is {settings.hidden_irreps!r}, but MACE has as many channels of each symmetry, `0e` '
            'among them: such as `32x0e + 32x1o`.'
        )
    if set(terms_of(settings.readout_irreps)) != {'0e'}:
        return f'`readout_irreps` is {settings.readout_irreps!r}, but MACE reads scalars alone: such as `16x0e`.'
    if plan.known is None and settings.num_interactions == 1 and plan.is_said('readout_irreps'):
        return (
            '`readout_irreps` has no meaning with `num_interactions: 1`, as the only readout is linear then; leave it '
            'out, also where a protocol has it, or take more layers.'
        )
    return None


def _problem_of_settings(settings: MaceSettings, training: Frames) -> str | None:
    """Return a sentence where settings contradict each other or the frames, or where nothing would be learned."""
    rates = ('learning_rate', *(['stage_two_learning_rate'] if settings.stage_two_epochs else []))
    for name in rates:
        if getattr(settings, name) == 0:
            return f'`{name}` is 0, by which nothing is learned; take a positive one.'
    for name in ('stress_weight', 'stage_two_stress_weight'):
        weight = getattr(settings, name)
        if weight and not training.has('stress'):
            return f'`{name}` is {weight:g}, but no training frame has a stress; leave it out.'
    if not settings.stage_two_epochs:
        said = [name for name in _names('stage_two_') if getattr(settings, name) != getattr(MaceSettings(), name)]
        if said:
            return f'`{said[0]}` has no meaning without a stage two; give `stage_two_epochs`, or leave it out.'
    return None


def _names(start: str) -> list[str]:
    """Return the names of the settings that begin in this way."""
    return [field.name for field in fields(MaceSettings) if field.name.startswith(start)]


def _problem_of_precision(plan: Plan) -> str | None:
    """Return a sentence where single precision rounds total energies too coarsely, as with all electrons."""
    if plan.settings.dtype != 'float32' or not len(plan.training):
        return None
    energies, atoms = energies_of(plan.training), sizes(plan.training)
    steps = np.spacing(np.abs(energies).astype(np.float32)) / atoms
    if steps.max() <= RESOLUTION:
        return None
    return (
        f'the energies reach {np.abs(energies).max():.3g} eV, which float32 rounds to {1e3 * steps.max():.2g} '
        'meV/atom; take `dtype: float64`, or subtract the energies of isolated atoms from the labels.'
    )


def _problem_of_heads(heads: list[Head], settings: MaceSettings) -> str | None:
    """Return a sentence where a head has too few frames; mace-torch would crash at the end of the training."""
    for head in heads:
        of = f' of the head `{head.name}`' if len(heads) > 1 else ''
        if not head.is_replay and settings.batch_size > len(head.training):
            return (
                f'`batch_size` is {settings.batch_size}, but there are only {len(head.training)} training frames{of}.'
            )
        if not len(head.validation):
            return f'there are no validation frames{of}; split each head by itself.'
    return None
