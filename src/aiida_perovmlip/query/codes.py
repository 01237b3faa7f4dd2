"""Which code is meant by a name."""

from __future__ import annotations

from typing import Any


def find_code(name: str | None, default: str) -> Any:
    """Return a code by its name, which may lack the computer where that is clear, or by its PK or UUID.

    :param default: the name of the plug-in that is to run, whose code has the same name unless one is said.
    :raises LookupError: where there is no such code, or several.
    """
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    wanted = name or default
    if '@' in wanted or wanted.isdecimal():
        try:
            return orm.load_code(wanted)
        except (NotExistent, MultipleObjectsError, ValueError):
            raise LookupError(f'there is no code `{wanted}`. {_known()}') from None
    found = _visible({'label': wanted})
    if len(found) == 1:
        return found[0]
    if found:
        names = ', '.join(sorted(code.full_label for code in found))
        raise LookupError(f'there are several codes `{wanted}`: {names}; say which by --code.')
    how = '' if name else f' Make one: `aiida-perovmlip setup --with {default}`; or name another by --code.'
    raise LookupError(f'there is no code `{wanted}`.{how} {_known()}')


def _visible(filters: dict[str, Any]) -> list[Any]:
    """Return the codes that nobody has hidden; some kinds of code cannot be."""
    from aiida import orm

    # Asked for by its class, AiiDA takes every datum for a code: the class of all codes has no type of its own.
    query = orm.QueryBuilder().append(orm.Data, filters={**filters, 'node_type': {'like': 'data.core.code.%'}})
    return [code for code in query.all(flat=True) if not getattr(code, 'is_hidden', False)]


def _known() -> str:
    names = ', '.join(sorted(code.full_label for code in _visible({}))[:10])
    return f'There are {names}.' if names else 'There is no code at all: `aiida-perovmlip setup` makes some.'
