"""From the provenance graph of a stored potential to the contents of its report."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from aiida_perovmlip import __version__
from aiida_perovmlip.query.stages import EVALUATE
from aiida_perovmlip.report.contents import (
    Array,
    Curve,
    DatasetCard,
    Edge,
    EvaluationSection,
    Lineage,
    NodeMark,
    Parity,
    PotentialCard,
    PotentialReport,
    TrainingRecord,
)

THIS_PAGE = 'aiida-perovmlip (this page)'
"""What the version of this package is told as; that of the jobs may be another."""

MOST_POINTS = 20_000
"""Points of a parity plot; of more, as many are drawn by lot with a fixed seed."""

MOST_NODES = 60
"""Nodes of a lineage; those nearest to the potential are kept."""

MOST_EVALUATIONS = 10
"""Evaluations in a lineage; the latest are kept."""


def potential_report(node: Any, created: str | None = None) -> PotentialReport:
    """Return the contents of the report of a stored potential, read from attributes and arrays; its files stay shut.

    :param created: when the report is made, in ISO 8601; now, where it is left out.
    """
    training = node.creator
    results = _output(training, 'results')
    evaluations = find_evaluations(node)
    return PotentialReport(
        title=_title_of(node),
        created=created or datetime.now(UTC).isoformat(timespec='seconds'),
        potential=describe_potential(node, results),
        datasets=tuple(describe_inputs(training)),
        evaluations=tuple(describe_evaluation(process) for process in evaluations),
        curve=read_curve(training),
        lineage=trace(node, evaluations),
        training=describe_training(training, results) if training is not None else None,
        versions=_versions(training, evaluations),
    )


def _title_of(node: Any) -> str:
    """Return the label of a potential, or what it is made of."""
    attributes = node.base.attributes
    return (
        node.label or f'{attributes.get("architecture", "")} potential for {"–".join(attributes.get("elements", []))}'
    )


def _output(process: Any, label: str) -> dict[str, Any]:
    """Return the content of an output Dict; empty where there is none."""
    node = _output_node(process, label)
    return node.get_dict() if node is not None else {}


def _output_node(process: Any, label: str) -> Any:
    """Return an output by its label; None where there is none."""
    from aiida.common.links import LinkType

    if process is None:
        return None
    links = process.base.links.get_outgoing(link_type=LinkType.CREATE, link_label_filter=label).all()
    return links[0].node if links else None


def inputs_of(process: Any) -> dict[str, Any]:
    """Return the inputs of a process by label."""
    from aiida.common.links import LinkType

    if process is None:
        return {}
    links = process.base.links.get_incoming(link_type=(LinkType.INPUT_CALC, LinkType.INPUT_WORK))
    return {link.link_label: link.node for link in links}


def describe_potential(node: Any, results: Mapping[str, Any]) -> PotentialCard:
    """Return the card of a potential.

    :param results: what its training said, with the settings that it really used as `effective`.
    """
    attributes = node.base.attributes
    levels = attributes.get('levels', {}) or {}
    return PotentialCard(
        uuid=node.uuid,
        pk=node.pk,
        label=node.label,
        architecture=attributes.get('architecture', ''),
        elements=tuple(attributes.get('elements', [])),
        cutoff=float(attributes.get('cutoff', 0.0)),
        heads=tuple(attributes.get('heads', [])),
        level=next(iter(levels.values())) if len(levels) == 1 else None,
        dtype=attributes.get('dtype', ''),
        n_parameters=int(attributes.get('n_parameters', 0)),
        content_hash=attributes.get('content_hash', ''),
        settings=results.get('effective', {}),
    )


def describe_dataset(node: Any, role: str = '') -> DatasetCard:
    """Return the card of a dataset."""
    attributes = node.base.attributes
    return DatasetCard(
        uuid=node.uuid,
        pk=node.pk,
        label=node.label,
        n_frames=int(attributes.get('n_frames', 0)),
        n_atoms=int(attributes.get('n_atoms', 0)),
        elements=tuple(attributes.get('elements', [])),
        groups=attributes.get('groups', {}),
        labels=tuple(attributes.get('labels', [])),
        levels=attributes.get('levels', {}),
        energy_per_atom_range=_range(attributes.get('energy_per_atom_range', None)),
        force_range=_range(attributes.get('force_range', None)),
        content_hash=attributes.get('content_hash', ''),
        role=role,
    )


def _range(limits: Any) -> tuple[float, float] | None:
    return (float(limits[0]), float(limits[1])) if limits else None


def describe_inputs(training: Any) -> Iterator[DatasetCard]:
    """Yield the cards of the datasets that a training used."""
    inputs = inputs_of(training)
    for role in ('training', 'validation'):
        if role in inputs:
            yield describe_dataset(inputs[role], role)


def describe_training(process: Any, results: Mapping[str, Any]) -> TrainingRecord:
    """Return what is known of a training."""
    inputs = inputs_of(process)
    seconds = results.get('seconds', {})
    return TrainingRecord(
        uuid=process.uuid,
        pk=process.pk,
        label=process.process_label or process.label,
        strategy=str(inputs['strategy'].value) if 'strategy' in inputs else '',
        seed=int(inputs['seed'].value) if 'seed' in inputs else None,
        seconds=seconds if isinstance(seconds, Mapping) else {'total': seconds},
        parent_uuid=inputs['parent'].uuid if 'parent' in inputs else '',
    )


def read_curve(training: Any) -> Curve:
    """Return the training curve, without the NaN that stand for what a step does not have."""
    node = _output_node(training, 'curve')
    if node is None:
        return Curve()
    columns = {name: node.get_array(name) for name in node.get_arraynames()}
    n_steps = max((len(column) for column in columns.values()), default=0)
    steps = (
        {name: float(column[index]) for name, column in columns.items() if np.isfinite(column[index])}
        for index in range(n_steps)
    )
    return Curve(tuple(steps))


def find_evaluations(node: Any) -> list[Any]:
    """Return the processes that evaluated a potential, oldest first.

    One that met values that are not finite has failed, but its metrics say so, and a report must not hide it.
    """
    from aiida.common.links import LinkType

    links = node.base.links.get_outgoing(link_type=LinkType.INPUT_CALC, link_label_filter='potential').all()
    processes = {link.node.pk: link.node for link in links if link.node.process_type == EVALUATE}
    return [processes[pk] for pk in sorted(processes) if _has_measured(processes[pk])]


def _has_measured(process: Any) -> bool:
    """Whether an evaluation left metrics of a dataset."""
    if not process.is_finished or 'dataset' not in inputs_of(process):
        return False
    return bool(_output(process, 'metrics'))


def describe_evaluation(process: Any) -> EvaluationSection:
    """Return errors and parities of one evaluation."""
    dataset = inputs_of(process)['dataset']
    predictions = _output_node(process, 'predictions')
    return EvaluationSection(
        dataset=describe_dataset(dataset),
        metrics=_output(process, 'metrics'),
        parities=tuple(_parities(dataset.frames, predictions)) if predictions is not None else (),
        uuid=process.uuid,
        pk=process.pk,
    )


def _parities(frames: Any, predictions: Any) -> Iterator[Parity]:
    """Yield predicted against reference energies, forces and stresses, one after another in memory."""
    offsets, groups = frames.column('offsets'), _column(frames, 'group')
    sizes = np.diff(offsets)
    known = set(predictions.get_arraynames())
    for quantity, unit in (('energy', 'eV/atom'), ('forces', 'eV/Å'), ('stress', 'eV/Å³')):
        reference = _column(frames, quantity)
        if reference is None or quantity not in known:
            continue
        predicted = predictions.get_array(quantity)
        if quantity == 'energy':
            yield _parity('energy', unit, reference / sizes, predicted / sizes, groups)
        elif quantity == 'forces':
            yield _parity('forces', unit, reference, predicted, _column(frames, 'numbers'))
        elif np.isfinite(reference).any():
            yield _parity('stress', unit, reference, predicted, groups)


def _column(frames: Any, name: str) -> Any:
    """Return a column of all frames; None where they have none."""
    try:
        return frames.column(name)
    except KeyError:
        return None


def _parity(quantity: Any, unit: str, reference: Any, predicted: Any, kinds: Any) -> Parity:
    """Return the finite values of two arrays, at most `MOST_POINTS` of them.

    :param kinds: group of each frame or atomic number of each atom, whichever the rows of the arrays are; or None.
    """
    width = reference.size // max(1, len(reference))
    reference, predicted = reference.ravel(), predicted.ravel()
    usable = np.flatnonzero(np.isfinite(reference) & np.isfinite(predicted))
    chosen = usable[choose_points(len(usable), MOST_POINTS)]
    category: Any = 'element' if quantity == 'forces' else 'group'
    categories = None if kinds is None else _names(kinds[chosen // width], category)
    return Parity(quantity, unit, reference[chosen], predicted[chosen], categories, category, n_total=len(usable))


def _names(kinds: Any, category: str) -> tuple[str, ...]:
    """Return groups or chemical symbols as text."""
    if category == 'group':
        return tuple(str(kind) for kind in kinds)
    from ase.data import chemical_symbols

    return tuple(chemical_symbols[number] for number in kinds)


def choose_points(n_points: int, most: int) -> Array:
    """Return the sorted positions of at most so many of all points, always the same ones for the same number.

    A stride would meet the same component or element again and again; a lot does not.
    """
    if n_points <= most:
        return np.arange(n_points)
    return np.sort(np.random.default_rng(0).choice(n_points, most, replace=False))


def _versions(training: Any, evaluations: list[Any]) -> dict[str, str]:
    """Return the versions that the jobs reported, and that of this package."""
    versions: dict[str, str] = {}
    for process in [*reversed(evaluations), training]:
        versions |= {
            name: str(version) for name, version in (_output(process, 'results').get('versions') or {}).items()
        }
    return {**versions, THIS_PAGE: __version__}


def trace(node: Any, evaluations: Sequence[Any] = ()) -> Lineage:
    """Return the ancestors of a node, and of a potential what was measured of it on which datasets."""
    shown = list(evaluations)[-MOST_EVALUATIONS:]
    datasets = [inputs_of(process)['dataset'] for process in shown]
    nodes, is_complete = _walk([node, *datasets], MOST_NODES - 2 * len(shown))
    for process in shown:
        nodes |= {found.uuid: found for found in (process, _output_node(process, 'metrics'))}
    edges = [
        Edge(ancestor.uuid, uuid, label)
        for uuid, current in nodes.items()
        for label, ancestor in _ancestors(current)
        if ancestor.uuid in nodes
    ]
    marks = tuple(mark_of(current) for current in nodes.values())
    return Lineage(marks, tuple(edges), node.uuid, is_complete)


def _walk(starts: list[Any], most: int) -> tuple[dict[str, Any], bool]:
    """Return the starts and their nearest ancestors by UUID, and whether these are all."""
    nodes = {node.uuid: node for node in starts}
    queue = deque(nodes.values())
    is_complete = True
    while queue:
        for _, ancestor in _ancestors(queue.popleft()):
            if ancestor.uuid in nodes:
                continue
            if len(nodes) < most:
                nodes[ancestor.uuid] = ancestor
                queue.append(ancestor)
            else:
                is_complete = False
    return nodes, is_complete


def _ancestors(node: Any) -> list[tuple[str, Any]]:
    """Return label and node of what a node was made from, without codes.

    Workflows only return what calculations made, so the links of data and calculations tell the whole story.
    """
    from aiida.common.links import LinkType
    from aiida.orm import Code

    incoming = node.base.links.get_incoming(link_type=(LinkType.INPUT_CALC, LinkType.CREATE)).all()
    return [(link.link_label, link.node) for link in incoming if not isinstance(link.node, Code)]


def mark_of(node: Any) -> NodeMark:
    """Return a node as it is drawn."""
    from aiida.orm import ProcessNode

    if isinstance(node, ProcessNode):
        name = node.process_label or type(node).__name__
        return NodeMark(node.uuid, node.pk, 'process', node.label, name, _codes_of(node), _state_of(node))
    return NodeMark(node.uuid, node.pk, 'data', node.label, type(node).__name__, _facts_of(node))


def _codes_of(process: Any) -> str:
    """Return the codes that a process ran, which are no nodes of their own in the drawing."""
    from aiida.orm import Code

    codes = sorted(node.full_label for node in inputs_of(process).values() if isinstance(node, Code))
    return f'ran {", ".join(codes)}' if codes else ''


def _state_of(process: Any) -> str:
    """Return how a process ended."""
    if process.is_finished_ok:
        return 'finished'
    if process.is_finished:
        return f'finished with exit code {process.exit_status}'
    return process.process_state.value if process.process_state else 'created'


def _facts_of(node: Any) -> str:
    """Return what is worth knowing of a datum in one line, from its attributes alone."""
    attributes = node.base.attributes
    if attributes.get('n_frames', None) is not None:
        atoms = attributes.get('n_atoms', None)
        return f'{attributes.get("n_frames")} frames{"" if atoms is None else f", {atoms} atoms"}'
    if attributes.get('architecture', None) is not None:
        return f'{attributes.get("architecture")}, {", ".join(attributes.get("elements", []))}'
    value = attributes.get('value', None)
    return '' if value is None else str(value)[:80]
