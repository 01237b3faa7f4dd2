"""The query for chains of one kind and what they found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.query.filters import among

if TYPE_CHECKING:
    from aiida.orm import QueryBuilder


def found_query(
    process: str, chain: str, output: str, attributes: Iterable[str], chains: Iterable[Any] | None = None
) -> QueryBuilder:
    """Return the query for chains and an output of theirs, the oldest first.

    A row is PK, UUID and label of the chain, the UUID of the output, and its attributes.

    :param process: the process type of the chains.
    :param chain: the tag of the chains.
    :param output: the label of the output, and its tag.
    :param chains: nodes, PKs or UUIDs; None for all.
    """
    from aiida import orm

    query = orm.QueryBuilder()
    query.append(
        orm.WorkChainNode,
        tag=chain,
        filters={'process_type': process, **among(chains)},
        project=['id', 'uuid', 'label'],
    )
    query.append(
        orm.Dict,
        tag=output,
        with_incoming=chain,
        edge_filters={'label': output},
        project=['uuid', *(f'attributes.{name}' for name in attributes)],
    )
    return query.order_by({chain: {'id': 'asc'}})
