"""Label frames with an ASE calculator, many in one job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.calculations.base import ComputeCalculation, check_plugin
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.contract import Response
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.labeller import AseLabeller, Teacher
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.compute.tasks.label import JOURNAL, PASSING, count_frames, describe_failure
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


class LabelCalculation(ComputeCalculation):
    """Compute energies, forces and stresses of all frames of a dataset.

    A frame that fails is listed in `results` with the reason and is left out of `dataset`; it never stops the others.
    What was labelled before a job was killed is kept.
    """

    task = 'label'
    products = (JOURNAL,)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        spec.input('frames', valid_type=DatasetData, help='The frames to label; labels that they have are not used.')
        spec.input(
            'labeller',
            valid_type=orm.Str,
            default=lambda: orm.Str('tblite'),
            serializer=orm.to_aiida_type,
            help='Name of a labeller that computes with an ASE calculator.',
        )
        spec.input(
            'settings',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            serializer=orm.to_aiida_type,
            help='Settings of the labeller; what is left out has the default of the reference.',
        )
        spec.input(
            'potential',
            valid_type=PotentialData,
            required=False,
            help='The potential to label with, for the labeller `potential`; `code` is then that of its architecture.',
        )
        spec.input(
            'metadata.options.seconds_per_frame',
            valid_type=(float, int),
            required=False,
            validator=_validate_limit,
            help='Time limit of a single frame in s, loading the calculator included; one above it fails. '
            'Without it a frame may take as long as the job.',
        )
        spec.inputs.validator = _validate
        spec.output('dataset', valid_type=DatasetData, required=False, help='The frames that have labels, in order.')
        spec.default_output_node = 'results'

    def plugins(self) -> dict[str, str]:
        """Return the labeller, and the architecture of the potential that it labels with."""
        found = {'labeller': registry.reference('labellers', self.inputs.labeller.value)}
        if 'potential' in self.inputs:
            found['architecture'] = registry.reference('architectures', self.inputs.potential.architecture)
        return found

    def settings(self) -> dict[str, Any]:
        """Return the settings of the labeller, the time limit of a frame and the name of the potential's content."""
        limit = self.inputs.metadata.options.get('seconds_per_frame', None)
        settings = {self.inputs.labeller.value: self.inputs.settings.get_dict(), 'seconds_per_frame': limit}
        if 'potential' in self.inputs:
            settings['content_hash'] = self.inputs.potential.content_hash
        return settings

    def folders(self) -> dict[str, Any]:
        """Return the frames and the potential."""
        return {name: self.inputs[name] for name in ('frames', 'potential') if name in self.inputs}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield the labelled dataset; the journal is enough where the job was killed before it could answer."""
        inputs = node.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
        journal = Journal.read(folder / JOURNAL, len(inputs['frames']))
        answer = dict(response.results) if response is not None else {}
        if answer or journal.done.any():
            if not answer or journal.n_unreadable:  # only what can be read counts
                answer |= count_frames(journal.done, list(journal.failed.values()))
            about = {'seconds': response.seconds, 'versions': response.versions} if response is not None else {}
            yield 'results', orm.Dict({**answer, **about, 'n_unreadable': journal.n_unreadable})
        if journal.n_unreadable or any(entry['kind'] in PASSING for entry in journal.failed.values()):
            node.base.caching.is_valid_cache = False  # another run may well do better
        if journal.done.sum() > len(journal.failed):
            labelled = _labelled(inputs['frames'], journal, node.uuid)
            level = level_of(inputs['labeller'].value, inputs['settings'].get_dict(), inputs.get('potential'))
            yield 'dataset', DatasetData.from_frames(labelled, level)
        elif answer.get('n_labelled'):
            raise FileNotFoundError(f'the job labelled {answer["n_labelled"]} frames, but not one is in {JOURNAL}.')


@dataclass
class Journal:
    """Where in a journal the line of each frame is; the lines themselves would not fit into the memory.

    :param offsets: byte at which the line of each frame begins, shape (frames,); -1 where there is none.
    :param failed: what the results say of each frame that failed, by its position.
    :param n_unreadable: lines that are complete but no entries.
    """

    path: Path
    offsets: Array
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)
    n_unreadable: int = 0

    @property
    def done(self) -> Array:
        """Whether there is a line for each frame, shape (frames,)."""
        return np.asarray(self.offsets >= 0)

    @classmethod
    def read(cls, path: Path, n_frames: int) -> Journal:
        """Find all lines; one that was cut off when the job was killed does not count."""
        journal = cls(path, np.full(n_frames, -1, np.int64))
        if not path.is_file():
            return journal
        offset = 0
        with path.open('rb') as handle:
            for line in handle:
                if line.endswith(b'\n'):
                    journal._add(line, offset)
                offset += len(line)
        return journal

    def _add(self, line: bytes, offset: int) -> None:
        """Note where a line is and whether it is a failure."""
        entry = _read_entry(line, len(self.offsets))
        if entry is None:
            self.n_unreadable += 1
            return
        index = entry['frame']
        self.offsets[index] = offset
        self.failed.pop(index, None)
        if 'failure' in entry:
            self.failed[index] = describe_failure(entry)

    def labels(self) -> Iterator[dict[str, Any] | None]:
        """Yield the entry of each frame in order; None where it has no label."""
        with self.path.open('rb') as handle:
            for index, offset in enumerate(self.offsets.tolist()):
                if offset < 0 or index in self.failed:
                    yield None
                    continue
                handle.seek(offset)
                yield json.loads(handle.readline())


def _read_entry(line: bytes, n_frames: int) -> dict[str, Any] | None:
    """Return a line of the journal as an entry; None where it is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    index = entry.get('frame')
    if not isinstance(index, int) or not 0 <= index < n_frames:
        return None
    if isinstance(entry.get('failure'), str):
        return entry
    kinds = {'energy': float, 'forces': list, 'digest': str}
    return entry if all(isinstance(entry.get(name), kind) for name, kind in kinds.items()) else None


def _labelled(given: DatasetData, journal: Journal, source: str) -> Iterator[Frame]:
    """Yield each frame with the label that was made of it, and of no other."""
    for (index, digest, frame), entry in zip(given.frames.with_digests(), journal.labels(), strict=True):
        if entry is None:
            continue
        if entry['digest'] != digest.hex():
            raise ValueError(f'the label of frame {index} was made of another structure.')
        stress = np.array(entry['stress']) if 'stress' in entry else None
        yield replace(
            frame,
            energy=entry['energy'],
            forces=np.array(entry['forces']),
            stress=stress,
            head='default',
            source=source,
        )


def level_of(labeller: str, settings: dict[str, Any], potential: PotentialData | None = None) -> Level:
    """Return the level of theory of labels; raises ValueError where these settings and this potential make none."""
    plugin: AseLabeller = registry.load('labellers', labeller)()
    if potential is not None:
        plugin = plugin.taught_by(teacher_of(potential))
    return plugin.level(read_settings(plugin.Settings, settings))


def teacher_of(potential: PotentialData) -> Teacher:
    """Return what a labeller has to know of a stored potential."""
    known = tuple(potential.elements), tuple(potential.heads)
    return Teacher(potential.architecture, potential.content_hash, *known)


def _validate_limit(value: float | None, _: Any) -> str | None:
    return None if value is None or value > 0 else f'`seconds_per_frame` is {value} but has to be above 0 s.'


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if 'labeller' not in inputs:
        return None
    name = inputs['labeller'].value
    problem = check_plugin('labellers', name, inputs['settings'].get_dict())
    if problem is None and not issubclass(registry.load('labellers', name), AseLabeller):
        return f'the labeller `{name}` does not run inside a job of ours; it has its own calculation.'
    return problem or _check_potential(name, inputs['settings'].get_dict(), inputs.get('potential', None))


def _check_potential(name: str, settings: dict[str, Any], potential: PotentialData | None) -> str | None:
    """Return a sentence where the labeller misses a potential, has one too many, or cannot use this one."""
    try:
        level_of(name, settings, potential)
        if potential is not None:
            registry.reference('architectures', potential.architecture)
    except ValueError as error:
        return str(error)
    return None
