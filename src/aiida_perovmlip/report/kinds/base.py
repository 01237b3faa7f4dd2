"""What a kind of page is: which nodes it is made of, and how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from aiida_perovmlip.report.methods import methods_of, methods_section
from aiida_perovmlip.report.page import Identity, Page, Section


class Kind(ABC):
    """Base of all kinds of pages."""

    name: ClassVar[str]
    """What it is about in one word, the beginning of the name of the file."""

    made_of: ClassVar[str]
    """What it is made of, as a sentence says it."""

    @classmethod
    @abstractmethod
    def fits(cls, node: Any) -> bool:
        """Return whether a page of this kind can be made of a node."""

    @classmethod
    @abstractmethod
    def page(cls, node: Any, created: str) -> Page:
        """Return the page of one node.

        :raises ValueError: with a sentence, where the node has come to no result.
        """

    @classmethod
    def comparison(cls, nodes: Sequence[Any], created: str) -> Page:
        """Return the page of several nodes side by side."""
        raise ValueError(f'a page of several nodes is not made of {cls.made_of}; ask for one page for each of them.')


class OfChain(Kind):
    """Base of the pages of chains."""

    process: ClassVar[str]
    """Entry point of the chain."""

    @classmethod
    def fits(cls, node: Any) -> bool:
        """Return whether a node is of this chain."""
        return (getattr(node, 'process_type', None) or '') == f'aiida.workflows:{cls.process}'


def beside(nodes: Sequence[Any], created: str, section: Section, *, kind: str, title: str, lead: str) -> Page:
    """Return the page of several chains, whose numbers stand in one section."""
    methods = methods_of(nodes)
    return Page(
        kind=kind,
        title=title,
        lead=lead,
        created=created,
        nodes=tuple(Identity(node.label, node.uuid, node.pk) for node in nodes),
        sections=(section, methods_section(methods)),
        citations=methods.citations,
    )


def result_of(node: Any, label: str) -> Any:
    """Return an output of a chain; raise a ValueError that says how the chain ended where it has none."""
    from aiida_perovmlip.workflows.training import how_it_ended

    if label in node.outputs:
        return node.outputs[label]
    ended = how_it_ended(node) if node.is_terminated else f'{node.process_label} (PK {node.pk}) has not ended yet.'
    raise ValueError(f'there is nothing to show, as it has no output `{label}`. {ended}')
