"""Label frames with an ASE calculator, many in one job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.calculations.base import ComputeCalculation, check_plugin
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.contract import Response
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.compute.shard import digests
from aiida_perovmlip.compute.tasks.label import JOURNAL
from aiida_perovmlip.data.dataset import DatasetData


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
        spec.inputs.validator = _validate
        spec.output('dataset', valid_type=DatasetData, required=False, help='The frames that have labels, in order.')
        spec.default_output_node = 'results'

    def plugins(self) -> dict[str, str]:
        """Return the labeller."""
        return {'labeller': registry.reference('labellers', self.inputs.labeller.value)}

    def settings(self) -> dict[str, Any]:
        """Return the settings of the labeller."""
        return {self.inputs.labeller.value: self.inputs.settings.get_dict()}

    def folders(self) -> dict[str, Any]:
        """Return the frames."""
        return {'frames': self.inputs.frames}

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield the labelled dataset; the journal is enough where the job was killed before it could answer."""
        entries = _read_journal(folder / JOURNAL)
        if response is not None and response.results:
            results = {**response.results, 'seconds': response.seconds, 'versions': response.versions}
            yield 'results', orm.Dict(results)
        elif entries:
            failed = [{'frame': i, 'reason': e['failure']} for i, e in sorted(entries.items()) if 'failure' in e]
            yield (
                'results',
                orm.Dict(
                    {'n_frames': len(node.inputs.frames), 'n_labelled': len(entries) - len(failed), 'failed': failed}
                ),
            )
        if any('energy' in entry for entry in entries.values()):
            yield 'dataset', DatasetData.from_frames(_labelled(node, entries), _level(node))


def _read_journal(path: Path) -> dict[int, dict[str, Any]]:
    """Return what was finished; a line that was cut off when the job was killed does not count."""
    entries: dict[int, dict[str, Any]] = {}
    if not path.is_file():
        return entries
    with path.open() as handle:
        for line in handle:
            if line.endswith('\n'):
                entry = json.loads(line)
                entries[int(entry['frame'])] = entry
    return entries


def _labelled(node: orm.CalcJobNode, entries: dict[int, dict[str, Any]]) -> Iterator[Frame]:
    """Yield each frame with the label that was made of it, and of no other."""
    index = -1
    for chunk in node.inputs.frames.frames.chunks():
        for digest, frame in zip(digests(chunk, labels=False), chunk, strict=True):
            index += 1
            entry = entries.get(index)
            if entry is None or 'failure' in entry:
                continue
            if entry['digest'] != digest.tobytes().hex():
                raise ValueError(f'the label of frame {index} was made of another structure.')
            stress = np.array(entry['stress']) if 'stress' in entry else None
            yield replace(
                frame,
                energy=entry['energy'],
                forces=np.array(entry['forces']),
                stress=stress,
                head='default',
                source=node.uuid,
            )


def _level(node: orm.CalcJobNode) -> Level:
    """Return the level of theory of the labels."""
    labeller: AseLabeller = registry.load('labellers', node.inputs.labeller.value)()
    return labeller.level(read_settings(labeller.Settings, node.inputs.settings.get_dict()))


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if 'labeller' not in inputs:
        return None
    name = inputs['labeller'].value
    problem = check_plugin('labellers', name, inputs['settings'].get_dict())
    if problem is None and not issubclass(registry.load('labellers', name), AseLabeller):
        return f'the labeller `{name}` does not run inside a job of ours; it has its own calculation.'
    return problem
