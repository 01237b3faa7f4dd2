"""A labeller as the labelling chain sees it: a level of theory, a calculation, and repairs for what fails."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from typing import Protocol as TypingProtocol

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import Repair
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import SettingsError, read_settings

if TYPE_CHECKING:  # importing AiiDA makes folders; who only asks which labellers there are must not
    from aiida import orm
    from aiida.engine import CalcJob, CalcJobProcessSpec

KINDS = {
    'refused': 'the labeller is known to be wrong for the frame; nothing was run.',
    'not_converged': 'the self-consistency cycle did not converge.',
    'inconsistent': 'the calculation ran at other settings than it was asked for, or its output contradicts itself.',
    'failed': 'the calculation ended with an error of its own.',
    'crashed': 'the program died on this frame.',
    'timeout': 'the frame took longer than its time limit.',
    'memory': 'the memory ran out.',
    'environment': 'the program or a file that it needs is not there.',
    'stopped': 'its jobs ended, again and again, before the frame was reached.',
}
"""Why a frame has no label, and what that means."""


@dataclass(frozen=True)
class Protocol:
    """Settings with a name.

    :param about: what it is for, one sentence.
    :param origin: the paper each number is from.
    """

    about: str
    settings: dict[str, Any]
    origin: str = ''


class Run(TypingProtocol):
    """An existing output of a program that was run without AiiDA."""

    level: Level
    """The level of theory, as the output tells it."""

    files: list[Path]
    """What was read."""

    skipped: list[str]
    """A sentence for each snapshot without a label; complete once all frames have been taken."""

    @property
    def frames(self) -> Iterator[Frame]:
        """The labelled frames, one after the other."""


@dataclass(frozen=True)
class Program:
    """An executable that a labeller runs and that is installed by its own means.

    :param names: what it may be called, the best first.
    :param how_to_get: a sentence for who has none.
    :param plugin: entry point of the calculation that runs it.
    :param prepend: lines of shell before it is run.
    :param version: arguments by which it tells its version and ends; none where it cannot.
    """

    names: tuple[str, ...]
    how_to_get: str
    plugin: str
    prepend: str = ''
    version: tuple[str, ...] = ()


class Labeller(ABC):
    """Base of all labellers; one file (or folder) and one entry point add another."""

    name: ClassVar[str]
    """The name of the entry point."""

    summary: ClassVar[str] = ''
    """One sentence for lists."""

    citations: ClassVar[tuple[Citation, ...]] = ()
    """The works that who publishes its labels has to cite."""

    Settings: ClassVar[type[Any]]
    """The settings that this labeller understands: a dataclass of `option(…)`."""

    program: ClassVar[Program | None] = None
    """The executable that it runs; None where it runs in an environment of ours."""

    repairs: tuple[Repair, ...] = ()
    """What is tried on frames that failed, in this order."""

    largest_batch: ClassVar[int] = 1
    """How many frames a job may have."""

    @property
    @abstractmethod
    def process(self) -> type[CalcJob]:
        """The calculation that labels a batch; see `define_label_ports` and `label_outputs`."""

    @property
    def band(self) -> type[CalcJob] | None:
        """The calculation that relaxes a path by itself; see `labellers.band`. None where there is none."""
        return None

    def problem_of_band(self, settings: dict[str, Any], band: Mapping[str, Any]) -> str | None:
        """Return a sentence where the labeller cannot relax a band with these settings; None where it can."""
        return f'`{self.name}` relaxes no paths by itself.'

    @abstractmethod
    def level(self, settings: Any) -> Level:
        """Return the level of theory of labels made with these settings; a repair does not change it."""

    def protocols(self) -> dict[str, Protocol]:
        """Return the protocols by name: those of the file `protocols.yaml` beside the labeller."""
        return read_protocols(type(self).__module__)

    def refusal(self, settings: Any, frame: Frame) -> str | None:
        """Return a sentence where the frame should not be labelled this way; None where it may be."""
        return None

    def kind_of(self, settings: Any, frame: Frame) -> tuple[Any, ...]:
        """Return what frames must have in common to share a job."""
        return ()

    def batch_size(self, settings: Any, n_frames: int, slots: int) -> int:
        """Return how many of so many frames of one kind a job should take, where so many jobs run at a time."""
        return max(1, min(self.largest_batch, math.ceil(n_frames / slots)))

    def moves_atoms(self, settings: Any) -> bool:
        """Whether each frame becomes a trajectory of labelled frames instead of one."""
        return False

    def gives_stress(self, settings: Any) -> bool:
        """Whether labels of periodic frames have a stress; known ones without it are not taken over then."""
        return bool(getattr(settings, 'stress', True))

    def inputs(self, settings: orm.Dict, repair: str) -> dict[str, Any]:
        """Return the inputs of the calculation beside `frames`, `code` and `metadata`.

        :param repair: name of the repair; empty where the settings are used as they are.
        """
        from aiida import orm

        return {'settings': settings, **({'repair': orm.Str(repair)} if repair else {})}

    def level_of(self, settings: dict[str, Any], given: Mapping[str, Any]) -> Level:
        """Return the level of theory of labels made with plain settings and further inputs of the calculation."""
        return self.level(self.read(settings))

    def read_run(self, path: Path) -> Run:
        """Return what an existing output, made without AiiDA, holds; a file or a folder."""
        raise ValueError(f'outputs of `{self.name}` cannot be imported; those of CP2K and VASP can, and extended XYZ.')

    def read(self, settings: dict[str, Any]) -> Any:
        """Return checked settings, or raise `SettingsError`."""
        return read_settings(self.Settings, settings)

    def next_repair(self, kind: str, tried: Sequence[str]) -> Repair | None:
        """Return the first repair for a kind of failure behind all that were tried; None where there is none left."""
        names = [repair.name for repair in self.repairs]
        start = max((names.index(name) + 1 for name in tried if name in names), default=0)
        return next((repair for repair in self.repairs[start:] if kind in repair.sees), None)

    def problem(self, settings: dict[str, Any], given: Mapping[str, Any]) -> str | None:
        """Return a sentence where the settings, or further inputs of the calculation, cannot be used."""
        try:
            self.level_of(settings, given)
        except (SettingsError, ValueError) as error:
            return f'{self.name}: {error}'
        return None


def labeller_named(name: str) -> Labeller:
    """Return a labeller by the name of its entry point; raises `UnknownPlugin`."""
    from aiida_perovmlip.labellers.ase import AseJobs

    plugin = registry.load('labellers', name)
    found: Labeller = plugin() if issubclass(plugin, Labeller) else AseJobs(plugin)
    return found


@cache
def read_protocols(package: str) -> dict[str, Protocol]:
    """Return what the file `protocols.yaml` of a package holds."""
    import yaml

    content = yaml.safe_load((files(package) / 'protocols.yaml').read_text(encoding='utf-8'))
    return {name: Protocol(**entry) for name, entry in content.items()}


# ---------------------------------------------------------------------- what calculations of labellers have in common


@dataclass(frozen=True)
class Outcome:
    """What became of one frame of a batch: frames with labels, or a failure, or nothing where the job never got there.

    :param frames: the labelled frame; several where the atoms moved.
    :param kind: one of `KINDS`.
    :param reason: a sentence with the facts.
    :param facts: further plain values that are kept with the results, such as band edges.
    """

    frames: tuple[Frame, ...] = ()
    kind: str = ''
    reason: str = ''
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind and self.kind not in KINDS:
            raise ValueError(f'there is no kind of failure {self.kind!r}.')


NOT_REACHED = Outcome()


def define_label_ports(spec: CalcJobProcessSpec) -> None:
    """Define the inputs and outputs by which the chain knows a calculation."""
    from aiida import orm

    from aiida_perovmlip.data.dataset import DatasetData

    spec.input('frames', valid_type=DatasetData, help='The frames to label; labels that they have are not used.')
    spec.input(
        'settings',
        valid_type=orm.Dict,
        default=lambda: orm.Dict({}),
        serializer=orm.to_aiida_type,
        help='Settings of the labeller; what is left out has the default of the reference.',
    )
    spec.input(
        'repair',
        valid_type=orm.Str,
        required=False,
        serializer=orm.to_aiida_type,
        help='Name of the repair to run with; without it the settings are used as they are.',
    )
    spec.output('dataset', valid_type=DatasetData, required=False, help='The frames that have labels, in order.')
    spec.output('results', valid_type=orm.Dict, required=False, help='Counts, failures with reasons, level, cost.')


def label_outputs(
    node: orm.CalcJobNode, outcomes: Sequence[Outcome], level: Level, **about: Any
) -> Iterator[tuple[str, orm.Data]]:
    """Yield the outputs of a calculation from what became of its frames, one outcome for each, in order.

    :param about: further results, among these `seconds_of_labels`: core-seconds that the labels took.
    """
    import numpy as np
    from aiida import orm

    from aiida_perovmlip.compute.tasks.label import count_frames
    from aiida_perovmlip.data.dataset import DatasetData

    failed = [
        {'frame': index, 'kind': outcome.kind, 'reason': outcome.reason}
        for index, outcome in enumerate(outcomes)
        if outcome.kind
    ]
    done = np.array([bool(outcome.frames or outcome.kind) for outcome in outcomes])
    facts = {str(index): outcome.facts for index, outcome in enumerate(outcomes) if outcome.facts}
    results = {'level': level.to_dict(), **count_frames(done, failed), **about}
    yield 'results', orm.Dict(results | ({'facts': facts} if facts else {}))
    labelled = [frame for outcome in outcomes for frame in outcome.frames]
    if labelled:
        marked = (replace(frame, head='default', source=node.uuid) for frame in labelled)
        yield 'dataset', DatasetData.from_frames(marked, level)
