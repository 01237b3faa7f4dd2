"""What a report of one potential says, as plain values that need neither AiiDA nor a drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

Array = npt.NDArray[Any]

Quantity = Literal['energy', 'forces', 'stress']

METRIC_OF: dict[Quantity, str] = {'energy': 'energy_per_atom', 'forces': 'forces', 'stress': 'stress'}
"""The key in the metrics that belongs to each quantity."""


@dataclass(frozen=True)
class NodeMark:
    """A node of the provenance graph as it is drawn.

    :param kind: what AiiDA stores (`data`) or does (`process`).
    :param type_name: the class, such as `DatasetData`.
    :param detail: one sentence for those who point at the node.
    :param state: how a process ended: `finished`, `finished with exit code 410`, `excepted`…; empty for data.
    """

    uuid: str
    pk: int
    kind: Literal['data', 'process']
    label: str
    type_name: str
    detail: str = ''
    state: str = ''


@dataclass(frozen=True)
class Edge:
    """A link from an input to its process, or from a process to its output."""

    source_uuid: str
    target_uuid: str
    label: str


@dataclass(frozen=True)
class Lineage:
    """The part of the provenance graph that leads to a node, and what was made of it.

    :param focus_uuid: the node that the report is about.
    :param is_complete: whether no ancestor was left out.
    """

    nodes: tuple[NodeMark, ...]
    edges: tuple[Edge, ...]
    focus_uuid: str
    is_complete: bool = True


@dataclass(frozen=True)
class DatasetCard:
    """A dataset in numbers.

    :param groups: number of frames in each structure family.
    :param labels: the labelled quantities.
    :param levels: level of theory of each head.
    :param energy_per_atom_range: smallest and largest energy per atom in eV.
    :param force_range: smallest and largest norm of a force in eV/Å.
    :param role: what the dataset was for, such as `training` or `validation`.
    """

    uuid: str
    pk: int
    label: str
    n_frames: int
    n_atoms: int
    elements: tuple[str, ...]
    groups: Mapping[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    levels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    energy_per_atom_range: tuple[float, float] | None = None
    force_range: tuple[float, float] | None = None
    content_hash: str = ''
    role: str = ''


@dataclass(frozen=True)
class PotentialCard:
    """A potential in numbers.

    :param cutoff: interaction cutoff in Å.
    :param level: the level of theory that it predicts; None where it is unknown or depends on the head.
    :param settings: the settings that the trainer really used.
    """

    uuid: str
    pk: int
    label: str
    architecture: str
    elements: tuple[str, ...]
    cutoff: float
    heads: tuple[str, ...] = ('default',)
    level: Mapping[str, Any] | None = None
    dtype: str = ''
    n_parameters: int = 0
    content_hash: str = ''
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingRecord:
    """The process that made a potential.

    :param seconds: time in s by stage, such as `total`.
    :param parent_uuid: the potential that training started from; empty for training from scratch.
    """

    uuid: str
    pk: int
    label: str
    strategy: str = ''
    seed: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    parent_uuid: str = ''


@dataclass(frozen=True, eq=False)
class Parity:
    """Predicted against reference values, point by point.

    :param unit: unit of both arrays.
    :param reference: (n_points,) in `unit`.
    :param predicted: (n_points,) in `unit`.
    :param categories: element or structure family of each point; None where points are of one kind.
    :param category: what the categories are.
    :param n_total: number of points before some were selected for drawing; 0 means that all are here.
    """

    quantity: Quantity
    unit: str
    reference: Array
    predicted: Array
    categories: tuple[str, ...] | None = None
    category: Literal['', 'element', 'group'] = ''
    n_total: int = 0

    def __post_init__(self) -> None:
        if self.reference.ndim != 1 or self.reference.shape != self.predicted.shape:
            raise ValueError(
                f'reference {self.reference.shape} and predicted {self.predicted.shape} must be flat and of one length.'
            )
        if self.categories is not None and len(self.categories) != len(self.reference):
            raise ValueError(f'{len(self.categories)} categories cannot belong to {len(self.reference)} points.')


@dataclass(frozen=True)
class Curve:
    """A training curve, one dictionary a step.

    Keys are `step`, `loss` and `<training|validation>_<energy_per_atom|forces|stress>_<rmse|mae>` in eV/atom, eV/Å
    and eV/Å³; any of them may be missing from any step.
    """

    steps: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class EvaluationSection:
    """How well the potential predicts one dataset.

    :param metrics: errors as the evaluation stored them, in eV/atom, eV/Å and eV/Å³.
    :param uuid: the process that computed them.
    """

    dataset: DatasetCard
    metrics: Mapping[str, Any]
    parities: tuple[Parity, ...] = ()
    uuid: str = ''
    pk: int = 0


@dataclass(frozen=True)
class PotentialReport:
    """All that the page of one potential shows.

    :param created: when the report was made, in ISO 8601.
    :param datasets: what the potential was trained and validated on.
    :param training: None for a potential that was imported.
    :param versions: version of each package that took part.
    """

    title: str
    created: str
    potential: PotentialCard
    datasets: tuple[DatasetCard, ...] = ()
    evaluations: tuple[EvaluationSection, ...] = ()
    curve: Curve = Curve()
    lineage: Lineage | None = None
    training: TrainingRecord | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
