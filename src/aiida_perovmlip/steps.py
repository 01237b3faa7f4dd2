"""The steps that scripts of studies are made of: each runs one job or chain here and returns what it made."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida_perovmlip.launch import JobFailed, run_job

if TYPE_CHECKING:
    from aiida_perovmlip.data.dataset import DatasetData
    from aiida_perovmlip.data.potential import PotentialData

Labels = tuple[str, str, Mapping[str, Any]]
"""How frames are labelled: labeller, protocol, and settings that differ from it."""

# ---------------------------------------------------------------------- what a script is told


def study_parser(about: str, output: str, protocols: Sequence[str] = ('fast', 'paper')) -> argparse.ArgumentParser:
    """Return a parser of the options that all studies have.

    :param about: the docstring of the script; its first line is shown.
    :param output: name of the folder of what is written.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument('--protocol', choices=list(protocols), default=protocols[0], help='`paper`: as published')
    parser.add_argument('--dry-run', action='store_true', help='list the jobs with their settings; run none')
    parser.add_argument('--output', type=Path, default=Path(output), help='folder of what is written')
    parser.add_argument('--computer', default='', help='where the codes are; needed if they are on several')
    parser.add_argument('--jobs', type=int, default=2, help='jobs at a time')
    parser.add_argument('--cores', type=int, default=1, help='cores of each job')
    parser.add_argument(
        '--options', type=_read_options, default={}, help='further options of each training as JSON: {"gpus": 1}'
    )
    return parser


def _read_options(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object such as {{"gpus": 1}}.')
    return found


def run_study(study: Callable[[], None]) -> None:
    """Run a study with caching of its jobs; an error that a user can mend ends it with its sentence alone."""
    from aiida.manage.caching import enable_caching

    wrong = None
    with enable_caching(identifier='aiida.calculations:perovmlip.*'):  # it stays on where an exception leaves the block
        try:
            study()
        except (JobFailed, LookupError, OSError, ValueError) as error:
            wrong = str(error)
    if wrong is not None:
        sys.exit(wrong)


# ---------------------------------------------------------------------- what would be run


@dataclass(frozen=True)
class Planned:
    """Jobs of one kind that a study would run.

    :param count: how many; None where that depends on what comes before.
    :param settings: those of each job.
    :param about: what else is to be said, such as the cost; each line of it becomes one.
    """

    what: str
    count: int | None = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: str = ''


def describe_plan(title: str, plan: Iterable[Planned]) -> str:
    """Return what a study would run as text: a dry run runs nothing."""
    lines = [title, '']
    for number, step in enumerate(plan, start=1):
        count = 'some jobs' if step.count is None else '1 job' if step.count == 1 else f'{step.count} jobs'
        lines.append(f'{number:2d}. {step.what}: {count}')
        if step.settings:
            lines.append('    ' + ', '.join(f'{name} {_plain(value)}' for name, value in step.settings.items()))
        lines += [f'    {line}' for line in step.about.splitlines()]
    return '\n'.join([*lines, '', 'Nothing was run.'])


def planned_labels(what: str, labels: Labels, sizes: Sequence[int], about: str = '') -> Planned:
    """Return a labelling that would be run, with its cost by the jobs of this level that have been done here.

    :param sizes: atoms of each frame.
    :param about: what else is to be said of the frames.
    """
    from aiida_perovmlip.compute.level import Level
    from aiida_perovmlip.labellers.base import labeller_named
    from aiida_perovmlip.workflows.forecast import estimate, measured_costs

    name, protocol, settings = labels
    labeller = labeller_named(name)
    told = {**labeller.protocols()[protocol].settings, **settings}
    level: Level = labeller.level_of(told, {})
    known = measured_costs(level, labeller.process.build_process_type())
    cost = 'cost: unknown, as no job of this level has been done here; label a few frames first.'
    if known:
        cost = f'cost: about {estimate(sizes, known):.3g} core-hours, by {len(known)} jobs that have been done'
    span = f'{min(sizes)}' if min(sizes) == max(sizes) else f'{min(sizes)} to {max(sizes)}'
    frames = f'{len(sizes)} frames of {span} atoms; {cost}'
    return Planned(f'label {what} by {name}', None, told, '\n'.join(filter(None, [about, frames])))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------- what is run


@dataclass(frozen=True)
class Workbench:
    """Where the jobs of a study run, and how many at a time.

    :param options: further options of trainings, such as `{'gpus': 1}`.
    :param repair: whether frames without a label are tried again; a small study leaves them out, which is quicker.
    """

    computer: str = ''
    jobs: int = 2
    cores: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    repair: bool = True

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Workbench:
        """Return that of the options of a script."""
        repair = arguments.protocol != 'fast'
        return cls(arguments.computer, arguments.jobs, arguments.cores, arguments.options, repair)

    def code(self, name: str) -> Any:
        """Return the code with the name of a plug-in."""
        from aiida_perovmlip.query.codes import find_code

        return find_code(f'{name}@{self.computer}' if self.computer else None, name)

    @property
    def job_options(self) -> dict[str, Any]:
        """Options of each job."""
        return {'resources': {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': self.cores}}

    # ---- labels

    def labelling(self, frames: DatasetData, labeller: str, protocol: str, settings: Mapping[str, Any]) -> Any:
        """Return the builder that labels frames."""
        from aiida_perovmlip.workflows.label import LabelWorkChain

        given = {'options': self.job_options, 'max_concurrent': self.jobs, 'repair': self.repair}
        return LabelWorkChain.get_builder_from_protocol(
            labeller, self.code(labeller), frames, protocol, settings, **given
        )

    def label(
        self, frames: DatasetData, labeller: str, protocol: str, settings: Mapping[str, Any], what: str
    ) -> DatasetData:
        """Return the frames with labels; those that have none are named."""
        chain = run_job(self.labelling(frames, labeller, protocol, settings), f'{what}: labels of {len(frames)} frames')
        for failure in chain.outputs.failures['frames']:
            print(f'  frame {failure["frame"]} has no label and is left out: {failure["reason"]}')
        dataset: DatasetData = chain.outputs.dataset
        return dataset

    # ---- potentials

    def train(
        self,
        architecture: str,
        parts: Mapping[str, DatasetData],
        what: str,
        *,
        settings: Mapping[str, Any] | None = None,
        protocol: str = 'fast',
        seed: int = 1,
        **inputs: Any,
    ) -> PotentialData:
        """Train on `parts['training']`, choose by `parts['validation']`, and return the potential.

        :param inputs: further inputs of `TrainWorkChain`: `strategy`, `parent`, `replay`.
        """
        from aiida_perovmlip.workflows.train import TrainWorkChain

        builder = TrainWorkChain.get_builder_from_protocol(
            architecture,
            self.code(architecture),
            parts['training'],
            parts['validation'],
            protocol=protocol,
            settings=settings,
            seed=seed,
            options={**self.job_options, **self.options},
            **inputs,
        )
        potential: PotentialData = run_job(builder, f'{what}: training on {len(parts["training"])} frames').outputs[
            'potential'
        ]
        return potential

    def evaluate(self, potential: PotentialData, dataset: DatasetData, what: str, head: str | None = None) -> Any:
        """Return the evaluation of a potential.

        :param head: that predicts; by default the one of the level of the labels.
        """
        from aiida_perovmlip.calculations.evaluate import EvaluateCalculation

        builder = EvaluateCalculation.get_builder()
        builder.code, builder.potential, builder.dataset = self.code(potential.architecture), potential, dataset
        builder.head = head or heads_of_level(potential, dataset)[0]
        builder.metadata.options.update(self.job_options)
        return run_job(builder, f'{what}: errors on {len(dataset)} frames')

    def predict(self, potential: PotentialData, frames: DatasetData, what: str) -> DatasetData:
        """Return frames whose labels are what a potential predicts, by its first head where it has several."""
        from aiida_perovmlip.workflows.label import LabelWorkChain

        builder = LabelWorkChain.get_builder()
        builder.frames, builder.labeller = frames, 'potential'
        builder.codes = {'code': self.code(potential.architecture)}
        builder.job = {'potential': potential}
        builder.settings = {'head': potential.heads[0]} if len(potential.heads) > 1 else {}
        builder.options = self.job_options
        dataset: DatasetData = run_job(builder, f'{what}: predictions of {len(frames)} frames').outputs.dataset
        return dataset

    def explore(self, run: Any, what: str) -> DatasetData | None:
        """Return the frames of a run by a potential, or where it exploded those before that: it has to learn them.

        :param run: the builder of an `MdWorkChain`.
        """
        from aiida import orm

        from aiida_perovmlip.calculations.functions.trajectories import select_frames

        try:
            frames: DatasetData = select_frames(run_job(run, what).outputs.trajectory, orm.Int(1))
        except JobFailed as error:
            print(f'  {error}')
            return error.node.outputs.candidates if 'candidates' in error.node.outputs else None
        return frames

    def describe(self, potential: PotentialData, frames: DatasetData, what: str) -> Any:
        """Return the descriptors of frames."""
        from aiida_perovmlip.calculations.embed import EmbedCalculation

        builder = EmbedCalculation.get_builder()
        builder.code, builder.potential, builder.dataset = self.code(potential.architecture), potential, frames
        builder.metadata.options.update(self.job_options)
        return run_job(builder, f'{what}: describing {len(frames)} frames').outputs.descriptors


def joined(datasets: Iterable[DatasetData]) -> DatasetData:
    """Return the frames of some datasets as one, in order."""
    from aiida_perovmlip.calculations.functions.dataset import join_datasets

    whole: DatasetData = join_datasets(**{f'd{number:04d}': dataset for number, dataset in enumerate(datasets)})
    return whole


def heads_of_level(potential: PotentialData, dataset: DatasetData) -> list[str]:
    """Return the heads of the level of theory of the labels, the oldest first; all heads where there is none."""
    wanted = {level.fingerprint for level in dataset.levels.values()}
    same = [head for head, level in potential.levels.items() if {level.fingerprint} == wanted]
    return same or list(potential.heads)
