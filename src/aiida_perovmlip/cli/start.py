"""What the verbs share that start a chain: dry run, submission, running, and what is printed of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from aiida_perovmlip.cli import display
from aiida_perovmlip.cli.options import json_option, profile_option

SHARED = (
    click.option(
        '--settings',
        'settings',
        multiple=True,
        metavar='KEY=VALUE',
        help='A setting that differs from the protocol, such as `cutoff=5.5` or `l_max=[4,2,1]`; repeatable.',
    ),
    click.option(
        '--option',
        'options',
        multiple=True,
        metavar='KEY=VALUE',
        help='An option of every job, such as `max_wallclock_seconds=3600`, `queue_name=gpu` or '
        '`resources={"num_machines": 1}`; repeatable.',
    ),
    click.option('--label', 'name', default='', help='What to call the chain and, if it is run here, what it makes.'),
    click.option('--dry-run', is_flag=True, help='Say what would be done; store and start nothing.'),
    click.option('--submit', is_flag=True, help='Leave it to the daemon, and return at once.'),
    json_option,
    profile_option,
)


def starts(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn a function that returns the builder of a chain into a verb that starts it as it is told to.

    The function gets its own arguments and options, and `settings` and `options` as mappings.

    :param what: what somebody who waits is told that is going on.
    """

    def decorate(make: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(make)
        def verb(settings: tuple[str, ...], options: tuple[str, ...], profile: str | None, **given: Any) -> None:
            from aiida_perovmlip.installation.profile import load_profile

            load_profile(profile)
            from aiida_perovmlip.arguments import read_settings

            how = {key: given.pop(key) for key in ('name', 'dry_run', 'submit', 'as_json')}
            _start(make(settings=read_settings(settings), options=read_settings(options), **given), what, **how)

        for option in reversed(SHARED):
            verb = option(verb)
        return verb

    return decorate


def _start(builder: Any, what: str, name: str, dry_run: bool, submit: bool, as_json: bool) -> None:
    """Start a chain in the way that was asked for, and say which process it is or what it left."""
    from aiida_perovmlip import starting

    if name:
        builder.metadata.label = name
    if dry_run:
        starting.check(builder)
        _show_dry_run(builder, as_json)
    elif submit:
        show_submitted(starting.submit(builder), as_json)
    else:
        _show_ended(starting.run(builder, what), as_json)


def _show_dry_run(builder: Any, as_json: bool) -> None:
    """Print the inputs, and what a chain that can forecast says of its jobs."""
    from aiida_perovmlip.starting import inputs_of

    inputs, chain = inputs_of(builder), builder.process_class
    told = chain.forecast(builder) if hasattr(chain, 'forecast') else None
    if as_json:
        more = {} if told is None else {'forecast': told.__dict__}
        display.show_json({'process': chain.__name__, 'inputs': inputs, **more})
        return
    click.echo(f'{chain.__name__} would run with')
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
