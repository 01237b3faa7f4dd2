"""Label the frames of a dataset: thousands of jobs, a few at a time, none lost and none done twice."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.calculations.functions.labels import collect_labels, cut_frames
from aiida_perovmlip.compute.frame import Array
from aiida_perovmlip.compute.registry import UnknownPlugin
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.base import labeller_named
from aiida_perovmlip.workflows.forecast import Forecast, describe_left, forecast
from aiida_perovmlip.workflows.labelling import Known, Labelling
from aiida_perovmlip.workflows.ledger import Batch, Ledger
from aiida_perovmlip.workflows.pool import PoolWorkChain

CUT_AT_ONCE = 10_000
"""About how many frames are copied into batches by one calcfunction."""


class LabelWorkChain(PoolWorkChain):
    """Label all frames of a dataset with one labeller.

    Frames that have a label of the same level of theory in this profile are not computed again. A frame that fails is
    repaired as far as the labeller knows how, and else listed in `failures` with the reason; it never stops the rest.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        to_node = orm.to_aiida_type
        spec.input('frames', valid_type=DatasetData, help='The frames to label; labels that they have are not used.')
        spec.input('labeller', valid_type=orm.Str, serializer=to_node, help='Name of the labeller, such as `cp2k`.')
        spec.input(
            'settings',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            serializer=to_node,
            help='Settings of the labeller; those of a protocol come by `get_builder_from_protocol`.',
        )
        spec.input_namespace(
            'codes',
            valid_type=orm.AbstractCode,
            dynamic=True,
            help='The codes to run with, under any names; jobs are shared out among these.',
        )
        spec.input(
            'options',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            serializer=to_node,
            help='`metadata.options` of every job: resources, wall time, queue.',
        )
        spec.input(
            'options_of',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            serializer=to_node,
            help='Options that differ for a code, by the name of the code.',
        )
        spec.input_namespace(
            'job',
            valid_type=orm.Data,
            dynamic=True,
            required=False,
            help='Further inputs of every job, such as `potential` for the labeller `potential`.',
        )
        spec.input(
            'max_concurrent',
            valid_type=orm.Int,
            default=lambda: orm.Int(4),
            serializer=to_node,
            validator=_at_least_one,
            help='Largest number of jobs at a time.',
        )
        spec.input(
            'batch_size',
            valid_type=orm.Int,
            required=False,
            serializer=to_node,
            validator=_at_least_one,
            help='Number of frames of a job; by default the labeller decides.',
        )
        spec.input(
            'repair',
            valid_type=orm.Bool,
            default=lambda: orm.Bool(True),
            serializer=to_node,
            help='Whether frames that fail are tried again with the repairs of the labeller.',
        )
        spec.input(
            'reuse',
            valid_type=orm.Bool,
            default=lambda: orm.Bool(True),
            serializer=to_node,
            help='Whether labels of the same level of theory that this profile has are used.',
        )
        spec.input(
            'failures',
            valid_type=orm.Dict,
            required=False,
            help='Output `failures` of an earlier run: its frames go on with the repair behind the last one tried.',
        )
        spec.input(
            'labelled',
            valid_type=DatasetData,
            required=False,
            help='Output `dataset` of that run: what has a label keeps it.',
        )
        spec.inputs.validator = _validate
        spec.outline(cls.plan, while_(cls.has_work)(cls.take_stock, cls.launch), cls.collect)
        spec.output('dataset', valid_type=DatasetData, required=False, help='The frames that have labels, in order.')
        spec.output('failures', valid_type=orm.Dict, help='The frames without a label, each with kind and reason.')
        spec.output('results', valid_type=orm.Dict, help='Level of theory, counts, repairs, cost.')
        spec.exit_code(430, 'ERROR_NO_CODE_WORKS', message='No code brings anything back: {message}')
        spec.exit_code(540, 'ERROR_NO_LABELS', message='Not one of {n_frames} frames has a label: {message}')

    @classmethod
    def get_builder_from_protocol(
        cls,
        labeller: str,
        codes: Any,
        frames: DatasetData,
        protocol: str = 'balanced',
        settings: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> Any:
        """Return a builder with the settings of a protocol.

        :param codes: a code, or several by name.
        :param settings: what differs from the protocol.
        :param inputs: further inputs of the chain.
        """
        known = labeller_named(labeller).protocols()
        if protocol not in known:
            raise ValueError(f'{labeller} has no protocol `{protocol}`; there are {", ".join(known)}.')
        builder = cls.get_builder()
        builder.frames, builder.labeller = frames, labeller
        builder.settings = {**known[protocol].settings, **(settings or {})}
        alone = isinstance(codes, orm.AbstractCode)
        builder.codes = {re.sub(r'\W', '_', codes.label): codes} if alone else dict(codes)
        for name, value in inputs.items():
            setattr(builder, name, value)
        return builder

    @classmethod
    def forecast(cls, builder: Any) -> Forecast:
        """Return what a builder would do and cost, without doing it: print it."""
        inputs = cls.spec().inputs.pre_process(dict(builder))
        problem = _validate(inputs, None)
        if problem:
            raise ValueError(problem)
        return forecast(Labelling.of(inputs), bool(inputs['reuse']))

    @classmethod
    def retry_failed(cls, node: orm.WorkChainNode, **changes: Any) -> Any:
        """Return a builder that takes up the frames that an earlier run lists as failed, with the next repair.

        Whatever has a label keeps it; where settings change the level of theory, or atoms move, only what is new is
        returned. The other inputs are those of the earlier run, but for the changes.
        """
        if 'failures' not in node.outputs:
            raise ValueError(
                f'{node.pk} lists no failures: it did not get to its end. Start it again; labels are kept.'
            )
        builder = node.get_builder_restart()
        builder.failures = node.outputs.failures
        if 'dataset' in node.outputs:
            builder.labelled = node.outputs.dataset
        for name, value in changes.items():
            setattr(builder, name, value)
        return builder

    # ------------------------------------------------------------------ the steps

    def plan(self) -> None:
        """Find out which frames have labels already, which cannot be labelled, and which are to be run."""
        known = self.task.look_up() if self.inputs.reuse else Known()
        survey = self.task.survey(known)
        ledger = Ledger(n_planned=0, codes=sorted(self.inputs.codes))
        todo, n_left_out = survey.todo, 0
        if 'failures' in self.inputs:
            ledger.waiting, ledger.failed = self.task.batches_again(todo, self.inputs.failures.get_dict())
            ledger.merge_waiting(self.task.kind_of, self.task.size_of_batch)
            again = {frame for batch in ledger.waiting for frame in batch.frames} | set(ledger.failed)
            todo, n_left_out = todo[:0], len(todo) - len(again)
        self.ctx.todo, self.ctx.known, self.ctx.cut, self.ctx.moved = _pack(todo), list(known.datasets), {}, {}
        if 'labelled' in self.inputs and self._keeps(self.inputs.labelled):
            self.ctx.known.append(self.inputs.labelled.pk)
        self.ctx.refused = {reason: _pack(np.array(frames)) for reason, frames in survey.refused.items()}
        self.ctx.counts = {'n_known': survey.n_known, 'n_repeated': survey.n_repeated, 'n_left_out': n_left_out}
        self.ctx.n_todo = len(survey.todo) - n_left_out
        ledger.n_planned = len(self._planned())
        self.ctx.ledger = ledger.dump()
        n_waiting = ledger.n_planned + len(ledger.waiting)
        self.report(f'{survey.describe()}: {n_waiting} jobs, {self.inputs.max_concurrent.value} at a time.')

    def _keeps(self, labelled: DatasetData) -> bool:
        """Whether labels of the earlier run can be part of the result: of the same level, and of frames that stayed."""
        same = labelled.level is not None and labelled.level.fingerprint == self.task.level.fingerprint
        return same and not self.task.moves_atoms

    def has_work(self) -> bool:
        """Whether there is something to do or to wait for."""
        return Ledger.load(self.ctx.ledger).has_work

    def take_stock(self) -> None:
        """Enter what has ended, and give batches to the slots that are free.

        Nothing is started yet: AiiDA stores the book between this step and the next, so that a launch which is
        repeated after a kill gives the same names to the same batches.
        """
        ledger = Ledger.load(self.ctx.ledger)
        for label in [label for label, job in ledger.running.items() if orm.load_node(job.pk).is_terminated]:
            self._enter(ledger, label)
        if not ledger.working_codes:
            ledger.give_up(self._planned())
        hold = self.task.labeller.largest_batch > 1 and not self.task.moves_atoms
        if ledger.is_through and not (hold and ledger.first_round_runs):
            ledger.merge_waiting(self.task.kind_of, self.task.size_of_batch)
        while ledger.n_busy < self.inputs.max_concurrent.value:
            batch = ledger.next_batch(self._planned(), hold)
            if batch is None:
                break
            ledger.assign(batch)
        self.ctx.ledger = ledger.dump()

    def launch(self) -> None:
        """Start what has been given a slot, and wait for the first job that ends."""
        ledger = Ledger.load(self.ctx.ledger)
        assigned = dict(ledger.starting)
        self._cut([each.batch for each in assigned.values()], self._planned()[ledger.cursor : -ledger.tail or None])
        for label, each in assigned.items():
            try:
                node = self.start(label, self._builder(each.batch, each.code))
            except (AttributeError, TypeError, ValueError) as error:  # what AiiDA raises where inputs are refused
                del ledger.starting[label]
                ledger.reject(each.batch, f'its job could not be submitted: {" ".join(str(error).split())}')
                continue
            ledger.started(label, node.pk, node.uuid)
            self.ctx.cut.pop(_key(each.batch), None)
        self.ctx.ledger = ledger.dump()
        self.watch([job.pk for job in ledger.running.values()])

    def collect(self) -> ExitCode | None:
        """Put the labels to their frames."""
        ledger = Ledger.load(self.ctx.ledger)
        labelled = {f'known_{number:05d}': orm.load_node(pk) for number, pk in enumerate(self.ctx.known)}
        told = {
            **self.ctx.counts,
            'n_jobs': ledger.n_jobs,
            'core_hours': round(ledger.core_seconds / 3600, 6),
            'repaired': {str(frame): name for frame, name in sorted(ledger.repaired.items())},
            'retired_codes': ledger.retired,
            'failed': {str(frame): why for frame, why in ledger.failed.items()},
            'refused': {reason: _unpack(frames).tolist() for reason, frames in self.ctx.refused.items()},
            'asked': self.task.asked,
            'trajectories': self.ctx.moved,
            'facts': self._facts(),
        }
        level = orm.Dict(self.task.level.to_dict())
        labelled |= self._labelled_by_jobs()
        outputs = collect_labels(self.inputs.frames, level, orm.Dict(told), **labelled)
        self.out_many(outputs)
        return self._judge(outputs, ledger)

    def _judge(self, outputs: Mapping[str, Any], ledger: Ledger) -> ExitCode | None:
        """Return how the chain ended; that some frames failed is a result and no failure."""
        if ledger.retired and not ledger.working_codes and outputs['failures']['n_failed']:
            message = '; '.join(f'{code}: {reason}' for code, reason in ledger.retired.items())
            return self.exit_codes.ERROR_NO_CODE_WORKS.format(message=message)
        if 'dataset' not in outputs:
            first = outputs['failures']['frames'][0]
            message = f'frame {first["frame"]}: {first["reason"]}'
            return self.exit_codes.ERROR_NO_LABELS.format(n_frames=len(self.inputs.frames), message=message)
        return None

    # ------------------------------------------------------------------ what the steps are made of

    @property
    def task(self) -> Labelling:
        """What is to be labelled and how; read once in each process."""
        if not hasattr(self, '_task'):
            self._task = Labelling.of(self.inputs)
        return self._task

    def _planned(self) -> list[Batch]:
        """Return the batches of the plan: the same in every process."""
        if not hasattr(self, '_batches'):
            self._batches = self.task.batches(_unpack(self.ctx.todo))
        return self._batches

    def _enter(self, ledger: Ledger, label: str) -> None:
        """Enter an ended job into the book."""
        job = ledger.running[label]
        node = orm.load_node(job.pk)
        ended = self.task.ended(node, job.batch)
        ledger.core_seconds += _core_seconds(node)
        if ended.done and self.task.moves_atoms:
            self.ctx.moved[str(job.batch.frames[0])] = label
        ledger.close(label, ended, self.task.next_repair if self.inputs.repair else lambda kind, tried: None)
        n_lost = len(job.batch.frames) - len(ended.done)
        if n_lost:
            self.report(
                f'{label} (PK {job.pk}, {job.code}): {len(ended.done)} labels, {n_lost} without. {ended.message}'
            )
        if job.code in ledger.retired:
            self.report(f'the code {job.code} is not used any more: {ledger.retired[job.code]}')
        n_ended = ledger.n_jobs - len(ledger.running)
        if ledger.n_done and n_ended in (4**power for power in range(10)):
            n_left = max(0, self.ctx.n_todo - ledger.n_done - len(ledger.failed))
            self.report(describe_left(n_left, ledger.n_done, ledger.core_seconds))

    def _cut(self, batches: Sequence[Batch], later: Sequence[Batch]) -> None:
        """Make the datasets of batches that are about to start, and of some that come later, in one go."""
        whole = tuple(range(len(self.inputs.frames)))
        missing = [batch for batch in batches if _key(batch) not in self.ctx.cut and batch.frames != whole]
        if not missing:
            return
        n_frames = sum(len(batch.frames) for batch in missing)
        for batch in later:
            n_frames += len(batch.frames)
            if n_frames > CUT_AT_ONCE or len(missing) >= 100:
                break
            missing.append(batch)
        parts = {_key(batch): list(batch.frames) for batch in missing}
        made = cut_frames(self.inputs.frames, orm.Dict(parts))
        self.ctx.cut.update({key: node.pk for key, node in made.items()})

    def _builder(self, batch: Batch, code: str) -> Any:
        """Return the builder of the job of a batch."""
        builder = self.task.labeller.process.get_builder()
        known = self.ctx.cut.get(_key(batch))
        builder.frames = orm.load_node(known) if known is not None else self.inputs.frames
        builder.code = self.inputs.codes[code]
        given = dict(self.inputs.job) if 'job' in self.inputs else {}
        for name, value in {**self.task.labeller.inputs(self.inputs.settings, batch.repair), **given}.items():
            setattr(builder, name, value)
        options = {**self.inputs.options.get_dict(), **self.inputs.options_of.get_dict().get(code, {})}
        builder.metadata.options.update(options)
        return builder

    def _facts(self) -> dict[str, Any]:
        """Return what jobs tell of single frames beside the labels, such as band edges, by position of the frame."""
        found: dict[bytes, Any] = {}
        for job in self.node.called:
            facts = job.outputs.results.get_dict().get('facts', {}) if 'results' in job.outputs else {}
            if facts:
                told = job.inputs.frames.frames.with_digests()
                found |= {digest: facts[str(index)] for index, digest, _ in told if str(index) in facts}
        if not found:
            return {}
        frames = self.inputs.frames.frames.with_digests()
        return {str(position): found[digest] for position, digest, _ in frames if digest in found}

    def _labelled_by_jobs(self) -> dict[str, DatasetData]:
        """Return the dataset of each job of this chain that made one, by the label of the job."""
        query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': self.node.pk}, tag='chain')
        ours = {'label': {'like': 'job_%'}}
        query.append(orm.CalcJobNode, with_incoming='chain', edge_filters=ours, edge_project='label', tag='job')
        query.append(DatasetData, with_incoming='job', edge_filters={'label': 'dataset'}, project='*')
        rows = query.dict()
        labels = [next(iter(row['chain--job'].values())) for row in rows]
        datasets = [next(value for key, value in row.items() if key != 'chain--job')['*'] for row in rows]
        return dict(sorted(zip(labels, datasets, strict=True)))


def _core_seconds(node: orm.CalcJobNode) -> float:
    """Return what the labels of a job cost."""
    results = node.outputs.results.get_dict() if 'results' in node.outputs else {}
    return float(results.get('seconds_of_labels', 0.0))


def _key(batch: Batch) -> str:
    """Return a name for the frames of a batch."""
    return f'frames_{hashlib.sha256(repr(batch.frames).encode()).hexdigest()[:16]}'


def _pack(positions: Array) -> str:
    """Return positions as short text."""
    return base64.b64encode(zlib.compress(positions.astype(np.int64).tobytes())).decode()


def _unpack(text: str) -> Array:
    """Return what `_pack` was given."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.int64)


def _at_least_one(value: orm.Int, _: Any) -> str | None:
    return None if value is None or value.value >= 1 else f'it is {value.value} but has to be at least 1.'


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what no job could do."""
    if 'labeller' not in inputs:
        return None
    if not inputs.get('codes'):
        return 'there is no code to run with: `builder.codes = {"localhost": orm.load_code("cp2k@localhost")}`.'
    try:
        labeller = labeller_named(inputs['labeller'].value)
    except UnknownPlugin as error:
        return str(error)
    unknown = sorted(set(inputs['options_of'].get_dict()) - set(inputs['codes']))
    if unknown:
        return f'`options_of` names {", ".join(unknown)}, but the codes are {", ".join(sorted(inputs["codes"]))}.'
    given = inputs.get('job', {})
    problem = labeller.problem(inputs['settings'].get_dict(), given)
    return problem or _strange(labeller.process.spec().inputs, inputs)


OURS = frozenset({'frames', 'settings', 'repair', 'labeller', 'code', 'metadata'})
"""Inputs of a job that the chain itself gives."""


def _strange(ports: Any, inputs: Mapping[str, Any]) -> str | None:
    """Return a sentence where inputs or options are given to jobs that have none of that name."""
    given = set(inputs.get('job', {}))
    if given & OURS:
        return f'`job` may not hold {", ".join(sorted(given & OURS))}, which the chain gives to each job.'
    if given - set(ports):
        return f'the calculation has no input {", ".join(map(repr, sorted(given - set(ports))))}.'
    every = [inputs['options'].get_dict(), *inputs['options_of'].get_dict().values()]
    unknown = sorted({name for options in every for name in options} - set(ports['metadata']['options']))
    return f'jobs have no option {", ".join(map(repr, unknown))}.' if unknown else None
