"""The kinds of pages: one module for each, and one list of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiida_perovmlip.report.kinds.barriers import BarriersKind
from aiida_perovmlip.report.kinds.base import Kind
from aiida_perovmlip.report.kinds.dataset import DatasetKind
from aiida_perovmlip.report.kinds.diffusion import DiffusionKind
from aiida_perovmlip.report.kinds.phase_map import PhaseMapKind
from aiida_perovmlip.report.kinds.phases import PhasesKind
from aiida_perovmlip.report.kinds.potential import PotentialKind

KINDS: tuple[type[Kind], ...] = (PotentialKind, DatasetKind, BarriersKind, PhasesKind, DiffusionKind, PhaseMapKind)


def has_page(node: Any) -> bool:
    """Return whether there is a kind of page that is made of such a node."""
    return any(kind.fits(node) for kind in KINDS)


def kind_of(nodes: Sequence[Any]) -> type[Kind]:
    """Return the kind of page that can be made of nodes; raise a ValueError where there is none, or are several."""
    found = []
    for node in nodes:
        kind = next((kind for kind in KINDS if kind.fits(node)), None)
        if kind is None:
            known = ', '.join(each.made_of for each in KINDS)
            what = getattr(node, 'process_label', None) or type(node).__name__
            raise ValueError(f'PK {node.pk} is a {what}; a page is made of {known}.')
        found.append(kind)
    if len(set(found)) > 1:
        told = ', '.join(f'PK {node.pk} is {kind.made_of}' for node, kind in zip(nodes, found, strict=True))
        raise ValueError(f'one page compares nodes of one kind, but {told}.')
    return found[0]
