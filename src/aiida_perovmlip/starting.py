"""Start chains from what a user names: datasets, potentials and codes by PK or label, protocols, settings."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from aiida_perovmlip.arguments import read_json, read_pairs
from aiida_perovmlip.query.codes import find_code
from aiida_perovmlip.query.describe import describe, load

# ---------------------------------------------------------------------- what is to be done


def train_builder(
    training: str,
    architecture: str,
    *,
    protocol: str,
    settings: Mapping[str, Any],
    validation: str | None = None,
    parent: str | None = None,
    replay: str | None = None,
    strategy: str | None = None,
    code: str | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Return the builder of a `TrainWorkChain`; see its `get_builder_from_protocol`."""
    from aiida_perovmlip.compute import registry
    from aiida_perovmlip.workflows.train import TrainWorkChain

    registry.load('architectures', architecture)  # its absence is to be told before that of a code
    return TrainWorkChain.get_builder_from_protocol(
        architecture,
        find_code(code, architecture),
        load(training, 'dataset'),
        _given(validation, 'dataset'),
        protocol=protocol,
        strategy=strategy,
        parent=_given(parent, 'potential'),
        replay=_given(replay, 'dataset'),
        settings=dict(settings),
        seed=seed,
        options=options,
    )


def label_builder(
    frames: str,
    labeller: str,
    *,
    protocol: str,
    settings: Mapping[str, Any],
    codes: Sequence[str] = (),
    potential: str | None = None,
    options: Mapping[str, Any] | None = None,
    **inputs: Any,
) -> Any:
    """Return the builder of a `LabelWorkChain`; see its `get_builder_from_protocol`.

    :param potential: the potential that labels, for the labeller `potential`.
    :param inputs: further inputs of the chain; what is None is left out.
    """
    from aiida_perovmlip.labellers.base import labeller_named
    from aiida_perovmlip.workflows.label import LabelWorkChain

    labeller_named(labeller)
    teacher = _given(potential, 'potential')
    default = labeller if teacher is None else teacher.architecture
    found = [find_code(name, default) for name in codes] or [find_code(None, default)]
    given = {name: value for name, value in inputs.items() if value is not None}
    if teacher is not None:
        given['job'] = {'potential': teacher}
    if options:
        given['options'] = dict(options)
    return LabelWorkChain.get_builder_from_protocol(
        labeller,
        {re.sub(r'\W', '_', code.full_label): code for code in found},
        load(frames, 'dataset'),
        protocol=protocol,
        settings=dict(settings),
        **given,
    )


def neb_builder(
    potentials: Sequence[str],
    *,
    path: str | None = None,
    recipe: str | None = None,
    structures: str | None = None,
    settings: Mapping[str, Any],
    codes: Sequence[str] = (),
    reference: Mapping[str, Any] | None = None,
    reference_band: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    relax: bool = True,
) -> Any:
    """Return the builder of a `NebValidationWorkChain`; see its `get_builder_from_protocol`.

    :param potentials: those to judge, each alone or as `name=potential`.
    :param recipe: the name of a JSON file.
    :param codes: one for all, or `architecture=code` and `name=code` words.
    :param reference: what `label_builder` takes beside the frames, for what labels the paths.
    """
    from aiida_perovmlip.compute.band import BandSettings
    from aiida_perovmlip.compute.settings import read_settings
    from aiida_perovmlip.workflows.neb_validation import NebValidationWorkChain

    if (path is None) == (recipe is None):
        raise ValueError('a band needs a first path: either --path, or --recipe with --structures.')
    read_settings(BandSettings, settings)  # the chain itself would only see it at its first band
    judged = named_potentials(potentials)
    return NebValidationWorkChain.get_builder_from_protocol(
        judged,
        _codes_of(judged, codes),
        path=_given(path, 'dataset'),
        recipe=read_json(recipe) if recipe is not None else None,
        structures=_given(structures, 'dataset'),
        settings=settings or None,
        reference=label_builder(path or structures or '', **reference) if reference is not None else None,
        reference_band=reference_band,
        options=options,
        relax=relax,
    )


def md_builder(
    potential: str,
    start: str,
    *,
    engine: str,
    protocol: str,
    settings: Mapping[str, Any],
    code: str | None = None,
    head: str | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Return the builder of a `MdWorkChain`; see its `get_builder_from_protocol`.

    :param start: the dataset of the frame to begin with.
    """
    from aiida_perovmlip.workflows.md import MdWorkChain

    node = load(potential, 'potential')
    return MdWorkChain.get_builder_from_protocol(
        find_code(code, node.architecture),
        node,
        load(start, 'dataset'),
        protocol=protocol,
        engine=engine,
        settings=dict(settings),
        options=options,
        head=head,
        seed=seed,
    )


def named_potentials(words: Sequence[str]) -> dict[str, Any]:
    """Return potentials by name; one that has no name of its own is called as its architecture."""
    pairs = [word.partition('=') for word in words]
    loaded = [load(value if sign else name, 'potential') for name, sign, value in pairs]
    count = Counter(node.architecture for node in loaded)
    found: dict[str, Any] = {}
    for (said, sign, _), node in zip(pairs, loaded, strict=True):
        alone = node.architecture if count[node.architecture] == 1 else f'{node.architecture}_{node.pk}'
        name = said if sign else alone
        if not name.isidentifier():
            raise ValueError(f'`{name}` is no name for a potential; take letters, digits and `_`.')
        if name in found:
            raise ValueError(f'two potentials are called `{name}`.')
        found[name] = node
    return found


def _codes_of(potentials: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the code of each potential by the name of the potential."""
    said = read_pairs([word for word in words if '=' in word])
    alone = [word for word in words if '=' not in word]
    if len(alone) > 1:
        raise ValueError('say which code is for what: --code mace=mace@cluster --code nep=nep@localhost.')
    strangers = sorted(set(said) - set(potentials) - {node.architecture for node in potentials.values()})
    if strangers:
        raise ValueError(f'there is a code for {", ".join(strangers)}, but no such potential or architecture.')
    return {
        name: find_code(said.get(name) or said.get(node.architecture) or next(iter(alone), None), node.architecture)
        for name, node in potentials.items()
    }


def _given(identifier: str | None, kind: str) -> Any:
    return None if identifier is None else load(identifier, kind)


def split_into(
    dataset: str,
    parts: Mapping[str, float | int | None],
    by: Literal['random', 'stratified', 'trajectory', 'group'],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Split a dataset, and return what is known of each part by its name; see `DatasetData.split`."""
    from aiida import orm

    from aiida_perovmlip.calculations.functions.dataset import split_dataset

    node = load(dataset, 'dataset')
    node.split_indices(parts, by, seed)  # what cannot be split is told before anything is stored
    found = split_dataset(node, orm.Dict(dict(parts)), orm.Str(by), orm.Int(seed))
    for name, part in found.items():
        part.label = f'{node.label} {name}'.strip()
    return {name: describe(part.pk, 'dataset') for name, part in found.items()}


# ---------------------------------------------------------------------- doing it


def check(builder: Any) -> None:
    """Raise ValueError with the sentence that the chain itself has for what is wrong with its inputs."""
    ports = builder.process_class.spec().inputs
    error = ports.validate(ports.pre_process(builder._inputs(prune=True)))
    if error is not None:
        raise ValueError(error.message)


def run(builder: Any, what: str) -> dict[str, Any]:
    """Run a chain here, with its progress on the error stream, and return how it ended and what it left.

    Datasets and potentials that it makes are called as the chain is.
    """
    from aiida_perovmlip.launch import run_job

    check(builder)
    node = run_job(builder, what, sys.stderr)
    for link in node.base.links.get_outgoing(link_type=_outputs()).all():
        if node.label and not link.node.label and link.link_label in ('dataset', 'potential'):
            link.node.label = node.label
    return ended(node)


def submit(builder: Any) -> dict[str, Any]:
    """Leave a chain to the daemon, and return which process it is."""
    from aiida.engine import submit as leave

    check(builder)
    node = leave(builder)
    return {'pk': node.pk, 'uuid': node.uuid, 'process': node.process_label, 'daemon': is_daemon_running()}


def is_daemon_running() -> bool:
    """Tell whether somebody is there who starts what was submitted."""
    from aiida.engine.daemon.client import get_daemon_client

    try:
        return bool(get_daemon_client().is_daemon_running)
    except Exception:  # a profile without a broker has no daemon
        return False


def ended(node: Any) -> dict[str, Any]:
    """Return how a process ended and what it left, as plain values."""
    links = node.base.links.get_outgoing(link_type=_outputs()).all()
    outputs = {link.link_label: {'pk': link.node.pk, 'type': type(link.node).__name__} for link in links}
    return {
        'pk': node.pk,
        'uuid': node.uuid,
        'process': node.process_label,
        'exit_status': node.exit_status,
        'outputs': dict(sorted(outputs.items())),
    }


def _outputs() -> Any:
    from aiida.common.links import LinkType

    return (LinkType.RETURN, LinkType.CREATE)


def inputs_of(builder: Any) -> dict[str, Any]:
    """Return the inputs of a builder as plain values by their full names; of data nodes, what these are."""
    return dict(_flat(builder._inputs(prune=True)))


def _flat(inputs: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    from aiida import orm

    for name, value in sorted(inputs.items()):
        if isinstance(value, Mapping) and not isinstance(value, orm.Node):
            yield from _flat(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', _plain(value)


def _plain(value: Any) -> Any:
    from aiida import orm

    if isinstance(value, orm.Dict):
        return value.get_dict()
    if isinstance(value, (orm.List, orm.Bool, orm.Int, orm.Float, orm.Str)):
        return value.get_list() if isinstance(value, orm.List) else value.value
    if isinstance(value, orm.AbstractCode):
        return value.full_label
    if isinstance(value, orm.Node):
        return f'{type(value).__name__} (PK {value.pk})'
    return value
