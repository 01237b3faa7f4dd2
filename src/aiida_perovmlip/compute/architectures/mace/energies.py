"""Energies of isolated atoms: what a MACE potential gives each element by itself, found before its trainer starts.

mace-torch can find them too, but does so silently where they are not determined, takes those of the parent instead
where the shapes agree, and zero where an element has none. So it is told a number for each element of each head, and
the file is compared with these numbers after the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from aiida_perovmlip.compute.architecture import Plan, PotentialFacts, default_way, notes_of_way
from aiida_perovmlip.compute.architectures.mace.heads import Head, with_head
from aiida_perovmlip.compute.architectures.mace.settings import WAYS, Given, chosen
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.frames import Frames

SPREAD = 1e-3
"""How far energies of one isolated atom may lie apart, in eV."""

ROUNDING = {'float32': 1e-6, 'float64': 1e-12}
"""Relative difference of two energies that are the same, by precision: with all electrons 1e-6 would be 0.2 eV."""

Energies = dict[str, float]


@dataclass
class AtomicEnergies:
    """Energies in eV by head and symbol, how they were found, and what is to be said of them.

    :param way: one of `WAYS`, or None where they were given.
    """

    by_head: dict[str, Energies] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    way: str | None = None

    def about(self) -> dict[str, Any]:
        """Return what a run that takes up this one has to know, as plain JSON."""
        return {'atomic_energies': self.by_head, 'notes': self.notes, 'way': self.way}

    @classmethod
    def kept(cls, about: Mapping[str, Any]) -> AtomicEnergies:
        """Return those of an earlier run."""
        return cls(dict(about['atomic_energies']), list(about.get('notes', ())), about.get('way'))


def way_of(plan: Plan) -> str | None:
    """Return how energies are found: one of `WAYS`, or None where they are given."""
    given: Given = plan.settings.atomic_energies
    if isinstance(given, dict):
        return None
    return given or default_way(plan)


def problem_of_energies(plan: Plan) -> str | None:
    """Return a sentence where energies of isolated atoms are missing, cannot be understood, or would spoil the rest."""
    given, has_parent = plan.settings.atomic_energies, plan.known is not None
    way = way_of(plan)
    if way is None:
        return _problem_of_given(given, plan)
    if way not in WAYS:
        return f'`atomic_energies` is {way!r}, but has to be one of {", ".join(WAYS)}, or an energy for each symbol.'
    if not has_parent and way in ('parent', 'estimated'):
        return f'`atomic_energies` is {way!r}, which needs a parent.'
    if has_parent and way == 'average':
        return (
            "`atomic_energies` is 'average', which would shift all energies of the parent by what it never learned; "
            'take `parent`, `estimated` or `isolated`.'
        )
    return _problem_of_isolated(plan) if way == 'isolated' else None


def _problem_of_given(given: Any, plan: Plan) -> str | None:
    """Return a sentence where given energies do not cover the frames."""
    heads = list(plan.training.categories('head'))
    is_by_head = any(isinstance(value, dict) for value in given.values())
    if is_by_head and set(given) != set(heads):
        return (
            f'`atomic_energies` are given for {", ".join(given)}, but the heads of the frames are {", ".join(heads)}.'
        )
    for name in heads if is_by_head else ['']:
        frames = with_head(plan.training, name) if is_by_head else plan.training
        missing = sorted(set(frames.elements()) - set(given[name] if is_by_head else given))
        if missing:
            return f'`atomic_energies` has no {", ".join(missing)}, which the training frames hold.'
    return None


def _problem_of_isolated(plan: Plan) -> str | None:
    """Return a sentence where the frames of one atom do not give one energy for each element of a head."""
    for name in plan.training.categories('head'):
        frames = with_head(plan.training, name)
        found = isolated(frames)
        missing = sorted(set(frames.elements()) - set(found))
        if missing:
            return (
                f"`atomic_energies` is 'isolated', but the training frames of the head `{name}` hold no single atom of "
                f'{", ".join(missing)}; label these, or give an energy for each symbol.'
            )
        for symbol, energies in found.items():
            if max(energies) - min(energies) > SPREAD:
                return (
                    f'single atoms of {symbol} have energies from {min(energies):.4f} to {max(energies):.4f} eV; keep '
                    'the one in its ground state.'
                )
    return None


def isolated(frames: Frames) -> dict[str, list[float]]:
    """Return the energies in eV of all frames of one atom by symbol."""
    found: dict[str, list[float]] = {}
    for chunk in frames.chunks(('numbers', 'energy')):
        offsets = chunk.columns['offsets']
        for index in np.flatnonzero(np.diff(offsets) == 1):
            symbol = chemical_symbols[int(chunk.columns['numbers'][offsets[index]])]
            found.setdefault(symbol, []).append(float(chunk.columns['energy'][index]))
    return found


def find_energies(
    plan: Plan, heads: Sequence[Head], predict: Callable[[Frames], Iterable[float]] | None = None
) -> AtomicEnergies:
    """Return the energies of all elements of all heads.

    :param predict: gives the energies in eV that the parent predicts for frames.
    """
    known = parent_energies(plan.known, plan.settings.parent_head) if plan.known else {}
    energies = AtomicEnergies(way=way_of(plan))
    if plan.settings.atomic_energies is None:
        energies.notes += notes_of_way(plan)
    for head in heads:
        found = known if head.is_replay else _of_head(plan, head, known, predict, energies.notes)
        energies.by_head[head.name] = dict(found)
    _complete(energies, elements_of(plan, heads), known)
    return energies


def _of_head(
    plan: Plan, head: Head, known: Energies, predict: Callable[[Frames], Iterable[float]] | None, notes: list[str]
) -> Energies:
    """Return the energies of one head that follow from its frames and from the parent."""
    given = plan.settings.atomic_energies
    way = way_of(plan)
    if isinstance(given, dict):
        mine: Any = given.get(head.origin[1])
        return dict(mine) if isinstance(mine, dict) else dict(given)
    if way == 'isolated':
        frames = with_head(plan.training, head.origin[1]) if head.origin[1] else plan.training
        return {symbol: float(np.mean(values)) for symbol, values in isolated(frames).items()}
    if way == 'parent':
        return known
    if way == 'average':
        return fit(head.training, energies_of(head.training))[0]
    assert predict is not None
    errors = energies_of(head.training) - np.array(list(predict(head.training)))
    shifts, rank = fit(head.training, errors)
    if rank < len(shifts):
        notes.append(
            f'The energies of atoms of the head `{head.name}` are estimated for {len(shifts)} elements from frames '
            f'that determine {rank} combinations of these: they fit these compositions, and mean nothing for others. '
            'Label single atoms and take `isolated`, or give an energy for each symbol.'
        )
    return {symbol: known.get(symbol, 0.0) + shift for symbol, shift in shifts.items()}


def _complete(energies: AtomicEnergies, elements: set[str], known: Energies) -> None:
    """Give each head an energy of each element: of the parent, or of the other heads; and say so.

    Elements that are not in the potential go.
    """
    others: Energies = {}
    for found in energies.by_head.values():
        others |= found
    for name, found in energies.by_head.items():
        missing = sorted(elements - set(found))
        source = known if known else others
        energies.by_head[name] = {symbol: found.get(symbol, source.get(symbol, 0.0)) for symbol in sorted(elements)}
        if missing and found is not known:
            whose = 'of the parent' if known else 'of another head'
            energies.notes.append(
                f'The head `{name}` was given no energy of {", ".join(missing)}: it has that {whose}.'
            )


def elements_of(plan: Plan, heads: Sequence[Head]) -> set[str]:
    """Return the elements that the potential knows: those of all frames, and of the parent where these are kept."""
    present = {symbol for head in heads for part in (head.training, head.validation) for symbol in part.elements()}
    kept = set(plan.known.elements) if plan.known is not None and chosen(plan.settings, 'keep_elements') else set()
    return present | kept


def parent_energies(known: PotentialFacts, head: str | None) -> Energies:
    """Return the energies of a head of the parent."""
    return known.energies_of_atoms[head or known.heads[0]]


def energies_of(frames: Frames) -> Array:
    """Return the energies of all frames in eV."""
    return np.concatenate([chunk.columns['energy'] for chunk in frames.chunks(('energy',))])


def fit(frames: Frames, energies: Array) -> tuple[Energies, int]:
    """Return the energy of each element that explains energies of frames best, and the rank of the fit.

    Where several answers are equally good, it is the smallest.
    """
    symbols = frames.elements()
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    counts = []
    for chunk in frames.chunks(('numbers',)):
        is_of = chunk.columns['numbers'][:, None] == numbers[None]
        counts.append(np.add.reduceat(is_of.astype(float), chunk.columns['offsets'][:-1], axis=0))
    solution, _, rank, _ = np.linalg.lstsq(np.concatenate(counts), energies, rcond=None)
    return dict(zip(symbols, solution.tolist(), strict=True)), int(rank)


def refuse_other_energies(
    wanted: Mapping[str, Energies], done: Mapping[str, Energies], rounding: float = 1e-12
) -> None:
    """Raise where a file holds other energies of isolated atoms than it was to hold.

    :param rounding: relative difference that the precision of the file explains.
    """
    facts = []
    for head, energies in wanted.items():
        mine = done.get(head, {})
        facts += [f'{symbol} ({head}): not in the file' for symbol in sorted(set(energies) - set(mine))]
        facts += [f'{symbol} ({head}): not asked for, done {mine[symbol]:.6f} eV' for symbol in mine.keys() - energies]
        facts += [
            f'{symbol} ({head}): asked {energies[symbol]:.6f} eV, done {mine[symbol]:.6f} eV'
            for symbol in sorted(energies.keys() & mine.keys())
            if not math.isclose(energies[symbol], mine[symbol], rel_tol=rounding, abs_tol=1e-6)
        ]
    if facts:
        raise JobError(
            Status.SETTINGS_IGNORED,
            f'The trainer did not do what was asked. `atomic_energies` are others in the file: {"; ".join(facts)}.',
        )
