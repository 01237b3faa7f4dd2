"""Potentials that somebody else made, with provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiida import orm

from aiida_perovmlip.calculations.functions import recorded
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.contract import JobError
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.data.potential import PotentialData


@recorded
def import_potential(files: orm.FolderData, architecture: orm.Str, levels: orm.Dict) -> PotentialData:
    """Read a potential whose files are text; one that has to be unpickled is refused, as this is AiiDA's own process.

    :param levels: the level of theory, or one for each head; empty where it is not known.
    """
    kind = registry.load('architectures', architecture.value)()
    if kind.opens_pickles:
        raise PermissionError(
            f'files of {kind.name} are pickles, which can run foreign code when they are opened. They are opened in a '
            'job alone: run InspectCalculation.'
        )
    with TemporaryDirectory() as scratch:
        files.base.repository.copy_tree(Path(scratch))
        try:
            facts = kind.facts(Path(scratch))
        except JobError as error:
            raise ValueError(error.message) from error
        except (KeyError, TypeError, LookupError, ValueError, OSError) as error:
            raise ValueError(
                f'{kind.name} cannot read {", ".join(files.base.repository.list_object_names())}: '
                f'{type(error).__name__}: {error}. Is it a potential of this architecture?'
            ) from error
    return potential_of(files, architecture.value, asdict(facts), levels.get_dict())


def potential_of(
    files: orm.FolderData, architecture: str, facts: Mapping[str, Any], levels: Mapping[str, Any]
) -> PotentialData:
    """Return an unstored potential of these files, of which somebody has read the facts.

    :param levels: the level of theory, or one for each head; empty where it is not known.
    """
    with TemporaryDirectory() as scratch:
        files.base.repository.copy_tree(Path(scratch))
        return PotentialData(
            scratch,
            architecture=architecture,
            elements=facts['elements'],
            cutoff=facts['cutoff'],
            heads=facts['heads'],
            levels=levels_of_heads(levels, facts['heads']),
            dtype=facts['dtype'],
            n_parameters=facts['n_parameters'],
        )


def levels_of_heads(levels: Mapping[str, Any], heads: Sequence[str]) -> dict[str, Level]:
    """Return the level of theory of each head, as far as it is said.

    :param levels: one level, or one for each head; empty where nothing is known.
    """
    if not levels:
        return {}
    if 'labeller' not in levels:
        strangers = sorted(set(levels) - set(heads))
        if strangers:
            raise ValueError(
                f'the potential has the heads {", ".join(heads)}, but there is a level of theory for '
                f'{", ".join(strangers)}.'
            )
        return {head: Level.from_dict(level) for head, level in levels.items()}
    if len(heads) > 1:
        raise ValueError(
            f'the potential has the heads {", ".join(heads)}; give the level of theory of each: '
            f'{{"{heads[0]}": {{…}}}}.'
        )
    return {heads[0]: Level.from_dict(levels)}
