"""The POTCAR files of a family in AiiDA: which node belongs to an element, and how many electrons it treats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from aiida_perovmlip.labellers.vasp.settings import VaspSettings


class PotentialError(ValueError):
    """A POTCAR that is not there or cannot be read; the message says how to mend it."""


def find_potentials(settings: VaspSettings, elements: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the node of each element, and a sentence for each element that has none."""
    from aiida.orm import QueryBuilder
    from aiida_vasp.data.potcar import PotcarData, PotcarGroup

    family = settings.potential_family
    if not QueryBuilder().append(PotcarGroup, filters={'label': family}).count():
        reason = (
            f'there is no family `{family}` of POTCAR files in AiiDA. Make it from your licensed files by '
            f'`aiida-vasp potcar uploadfamily --path FOLDER --name {family}`, or set `potential_family`.'
        )
        return {}, dict.fromkeys(elements, reason)
    query = QueryBuilder()
    query.append(PotcarGroup, filters={'label': family}, tag='family')
    query.append(PotcarData, with_group='family', project=['attributes.full_name', '*'], tag='potcar')
    query.order_by({'potcar': 'ctime'})
    known: dict[str, Any] = {}
    for name, node in query.iterall():
        known.setdefault(name, node)
    found, lacking = {}, {}
    for element in elements:
        name = settings.potential_mapping.get(element)
        if name is None:
            lacking[element] = f'`potential_mapping` names no POTCAR for {element}: add it, such as {{"{element}": …}}.'
        elif name not in known:
            lacking[element] = f'the family `{family}` has no POTCAR `{name}` for {element}.'
        else:
            found[element] = known[name]
    return found, lacking


def basis_of(potentials: Mapping[str, Any]) -> str:
    """Return the basis as a level of theory has it: title of each POTCAR and the start of the SHA-512 of its text."""
    named = (f'{element}: {_name(potentials[element])}' for element in sorted(potentials))
    return f'PAW {", ".join(named)}' if potentials else ''


def _name(node: Any) -> str:
    return f'{" ".join(node.title.split())} ({node.sha512[:8]})'


def valences_of(potentials: Mapping[str, Any]) -> dict[str, float]:
    """Return the electrons that the POTCAR of each element treats; raises `PotentialError`."""
    return {element: _valence(element, node) for element, node in potentials.items()}


def _valence(element: str, node: Any) -> float:
    """Return ZVAL of a POTCAR; AiiDA keeps its text apart from the node, which may be shared."""
    from aiida.common.exceptions import NotExistent

    if node.element != element:
        raise PotentialError(f'the POTCAR for {element} is of {node.element}: {node.title}.')
    try:
        content = node.get_content().decode(errors='replace')
    except NotExistent:
        raise PotentialError(
            f'the text of POTCAR {node.title} is not in this profile; upload it by `aiida-vasp potcar uploadfamily`.'
        ) from None
    match = re.search(r'\bZVAL\s*=\s*(\d+(?:\.\d*)?)', content)
    if match is None:
        raise PotentialError(f'the POTCAR {node.title} has no ZVAL.')
    return float(match.group(1))
