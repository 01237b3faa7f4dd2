"""What the verbs share that start a chain: dry run, submission, running, and what is printed of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from aiida_perovmlip.cli import display


def start(
    builder: Any,
    what: str,
    *,
    label: str,
    dry_run: bool,
    submit: bool,
    as_json: bool,
    forecast: Callable[[Any], Any] | None = None,
) -> None:
    """Start a chain in the way that was asked for, and say which process it is or what it left.

    :param forecast: gives what a dry run is to say beside the inputs.
    """
    from aiida_perovmlip import starting

    if label:
        builder.metadata.label = label
    if dry_run:
        starting.check(builder)
        _show_dry_run(builder, as_json, forecast)
    elif submit:
        show_submitted(starting.submit(builder), as_json)
    else:
        _show_ended(starting.run(builder, what), as_json)


def _show_dry_run(builder: Any, as_json: bool, forecast: Callable[[Any], Any] | None) -> None:
    from aiida_perovmlip.starting import inputs_of

    inputs = inputs_of(builder)
    told = forecast(builder) if forecast is not None else None
    if as_json:
        more = {} if told is None else {'forecast': told.__dict__}
        display.show_json({'process': builder.process_class.__name__, 'inputs': inputs, **more})
        return
    click.echo(f'{builder.process_class.__name__} would run with')
    display.show_fields([(f'  {name}', _text(value)) for name, value in inputs.items()])
    if told is not None:
        click.echo(told)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return '\n'.join(f'{name} = {each!r}' for name, each in value.items()) or 'the defaults'
    return str(value)


def show_submitted(process: dict[str, Any], as_json: bool) -> None:
    """Say which process it is, and whether somebody is there who starts it."""
    if as_json:
        display.show_json(process)
        return
    name, pk = process['process'], process['pk']
    click.echo(f'{name} (PK {pk}) is submitted; see it work: `aiida-perovmlip watch {pk}`')
    if not process['daemon']:
        click.echo('No daemon runs that could start it: `verdi daemon start`.', err=True)


def _show_ended(process: dict[str, Any], as_json: bool) -> None:
    from aiida_perovmlip.launch import table

    if as_json:
        display.show_json(process)
        return
    click.echo(f'{process["process"]} (PK {process["pk"]}) left')
    rows = [(name, str(node['pk']), node['type']) for name, node in process['outputs'].items()]
    click.echo(table(('output', 'PK', 'type'), rows))
