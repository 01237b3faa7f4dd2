"""Read what VASP left and make labels of it, or a reason why there are none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiida.common.links import LinkType
from aiida.engine import ExitCode
from aiida.parsers import Parser

from aiida_perovmlip.compute.frame import Array, Frame, FrameError
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.labellers.base import Outcome, label_outputs
from aiida_perovmlip.labellers.vasp import inputs
from aiida_perovmlip.labellers.vasp.agreement import FARTHEST, differences, moved_by, unchecked
from aiida_perovmlip.labellers.vasp.calculation import ML_ABN, STDOUT, VASPRUN
from aiida_perovmlip.labellers.vasp.ml_ab import MlAbError, read_ml_ab
from aiida_perovmlip.labellers.vasp.potentials import basis_of, valences_of
from aiida_perovmlip.labellers.vasp.reading import (
    Counts,
    Trajectory,
    digest_of,
    doubts_in,
    learned_frames,
    unlabelled_because,
)
from aiida_perovmlip.labellers.vasp.settings import VaspSettings, level_of
from aiida_perovmlip.labellers.vasp.vasprun import Step, Vasprun

STDERR = '_scheduler-stderr.txt'
TAIL = 1 << 16

MEMORY = re.compile(r'out of memory|oom-?kill|insufficient (virtual )?memory|cannot allocate memory|bad_alloc', re.I)
ABSENT = re.compile(r'command not found|no such file or directory|cannot open shared object|vdw_kernel\.bindat', re.I)

SCHEDULER_MEMORY, SCHEDULER_WALLTIME = 110, 120
"""Exit codes that AiiDA has set already where the scheduler says why it ended a job."""


@dataclass
class Run:
    """What was read of a run.

    :param fault: what is wrong with a file: the exit code and the sentence.
    :param differences: what VASP did otherwise than it was asked.
    :param is_doubted: whether VASP itself doubts the numbers of a step.
    """

    frames: list[Frame] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    is_finished: bool = False
    is_absent: bool = False
    differences: list[str] = field(default_factory=list)
    is_doubted: bool = False
    fault: tuple[str, str] | None = None


class VaspLabelParser(Parser):
    """Turn `vasprun.xml`, and `ML_ABN` where VASP learned, into a dataset and results."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Read, attach, judge."""
        self.settings = read_settings(VaspSettings, self.node.inputs.settings.get_dict())
        self.frame = self.node.inputs.frames[0]
        self.vasprun = Vasprun(Path(kwargs.get('retrieved_temporary_folder') or '/nonexistent') / VASPRUN)
        run = self.read()
        outcome, exit_code = self.judge(run)
        return self.attach(run, outcome) or exit_code

    # ------------------------------------------------------------------ reading

    def read(self) -> Run:
        """Return all labels that can be read, and what stands in the way of others."""
        run = Run(is_absent=not self.vasprun.path.is_file())
        if run.is_absent:
            return run
        run.frames = list(self.labelled_steps(run))
        run.is_finished = self.vasprun.is_finished
        if self.vasprun.damage:
            run.fault = ('ERROR_RESPONSE_UNREADABLE', self.vasprun.damage)
        if self.settings.ml and not run.differences:
            run.frames = []
            self.read_learned(run)
        return run

    def labelled_steps(self, run: Run) -> Iterator[Frame]:
        """Yield the frame of each step that has a label; nothing at all where VASP did something else."""
        order = inputs.order_of(self.frame)
        moves = self.settings.run != 'energy'
        trajectory = Trajectory(self.frame, order, self.trajectory_name() if moves else '')
        doubts = self.doubts()
        for index, step in enumerate(self.vasprun.steps()):
            if index == 0:
                run.differences = self.differences() or self.departures(step, order)
            reason = unlabelled_because(self.vasprun.header, step)
            if reason is None and index + 1 in doubts:
                run.is_doubted, reason = True, f'VASP warns: "{doubts[index + 1]}"'
            run.counts.count(step, reason, learns=bool(self.settings.ml))
            if reason is None and not run.differences and not self.settings.ml:
                yield trajectory.frame(step, is_start=index == 0)

    def incar(self) -> dict[str, Any]:
        """Return the tags that VASP was given."""
        given = self.node.inputs
        repair = given.repair.value if 'repair' in given else ''
        return inputs.incar_of(self.settings, self.frame, valences_of(self.potentials()), repair)

    def potentials(self) -> dict[str, Any]:
        """Return the POTCAR of each element."""
        return {element: self.node.inputs.potential[element] for element in set(self.frame.symbols)}

    def differences(self) -> list[str]:
        """Return what VASP did otherwise than it was asked."""
        nodes = self.potentials()
        valences = valences_of(nodes)
        mesh = inputs.mesh_of(self.settings, self.frame)
        return differences(
            self.vasprun.header,
            self.incar(),
            mesh,
            inputs.shift_of(self.settings, mesh),
            inputs.n_electrons(self.frame, valences),
            {element: node.title for element, node in nodes.items()},
        )

    def departures(self, step: Step, order: Array) -> list[str]:
        """Return what the first step has otherwise than it was asked for."""
        far = moved_by(self.frame, order, step)
        if far > FARTHEST:
            return [f'it computed another structure: an atom is {far:.2g} Å away']
        if self.frame.has_volume and step.stress is None and not step.problem and not self.settings.ml:
            return ['it computed no stress']
        return []

    def doubts(self, name: str = STDOUT) -> dict[int, str]:
        """Return the warnings of VASP after which a step is no label."""
        if not self.has(name):
            return {}
        with self.retrieved.base.repository.open(name, 'rb') as handle:
            return doubts_in(line.decode(errors='replace') for line in handle)

    def read_learned(self, run: Run) -> None:
        """Read the frames that VASP collected; what is complete counts, whatever comes behind it."""
        path = self.vasprun.path.parent / ML_ABN
        if not path.is_file():
            if run.is_finished:
                run.fault = ('ERROR_PRODUCT_UNREADABLE', f'it learned on the fly, but there is no {ML_ABN}.')
            return
        try:
            with path.open(encoding='utf-8', errors='replace') as handle:
                found = read_ml_ab(handle, ML_ABN)
                known, unlabelled = self.known_before(), run.counts.unlabelled
                for frame in learned_frames(found, self.frame, known, unlabelled, self.trajectory_name()):
                    run.frames.append(frame)
        except MlAbError as error:
            run.fault = run.fault or ('ERROR_PRODUCT_UNREADABLE', str(error))

    def known_before(self) -> set[str]:
        """Return the structures that VASP had been given to learn from."""
        if 'ml_ab' not in self.node.inputs:
            return set()
        with self.node.inputs.ml_ab.open(mode='r') as handle:
            return {digest_of(frame) for frame in read_ml_ab(handle, self.node.inputs.ml_ab.filename)}

    def trajectory_name(self) -> str:
        """Return the name by which frames stay together: that of the frame, else one that follows from it."""
        return self.frame.trajectory or digest_of(self.frame)

    # ------------------------------------------------------------------ judging

    def judge(self, run: Run) -> tuple[Outcome, ExitCode | None]:
        """Return what became of the frame, and the exit code."""
        kind, code, reason = self.reason(run)
        frames = tuple(run.frames)
        outcome = Outcome(frames, kind='' if frames else kind, reason='' if frames else reason, facts=self.facts(run))
        return outcome, self.exit_codes[code].format(message=reason) if code else None

    def reason(self, run: Run) -> tuple[str, str, str]:
        """Return the kind of the failure, the exit code and a sentence; all empty where all is well."""
        if run.differences:
            return 'inconsistent', 'ERROR_SETTINGS_IGNORED', '; '.join(run.differences) + '.'
        if run.fault:
            code, sentence = run.fault
            # a damaged file says something of the machine, and nothing of the SCF cycle
            return 'crashed' if code == 'ERROR_RESPONSE_UNREADABLE' else 'failed', code, sentence
        if run.is_finished and run.frames:
            return '', '', ''
        if run.is_finished and run.counts.n_steps:
            return self.no_label(run)
        return self.stopped(run)

    def no_label(self, run: Run) -> tuple[str, str, str]:
        """Return why a run that reached its end has no label."""
        if self.settings.ml:
            return 'failed', 'ERROR_PRODUCT_UNREADABLE', f'{ML_ABN} has no new configuration whose SCF cycle converged.'
        sentence = ' '.join(run.counts.skipped[:3])
        if run.is_doubted:
            return 'inconsistent', 'ERROR_SETTINGS_IGNORED', sentence
        return 'not_converged', 'ERROR_NOT_CONVERGED', sentence

    def stopped(self, run: Run) -> tuple[str, str, str]:
        """Return why a run did not reach its end; the scheduler may know, or what was printed."""
        printed, errors = self.end_of(STDOUT), self.end_of(STDERR)
        words = self.last_words(printed, errors)
        if self.node.exit_status == SCHEDULER_WALLTIME:
            return 'timeout', 'ERROR_OUT_OF_WALLTIME', f'{self._done(run)} {words}'
        if self.node.exit_status == SCHEDULER_MEMORY or MEMORY.search(printed + errors):
            return 'memory', 'ERROR_OUT_OF_MEMORY', f'{self._done(run)} {words}'
        known = self.known_error(printed)
        if known:
            return 'failed', 'ERROR_FAILED', f'{known} {self._done(run)}'
        if run.counts.n_steps == 0 and ABSENT.search(printed + errors):
            return 'environment', 'ERROR_MISSING_PACKAGE', words
        if run.is_absent:
            return 'crashed', 'ERROR_NO_RESPONSE', words
        return 'crashed', 'ERROR_FAILED', f'{self._done(run)} {words}'

    def _done(self, run: Run) -> str:
        return f'It completed {run.counts.n_steps} steps.'

    def known_error(self, printed: str) -> str:
        """Return what VASP says of itself, where aiida-vasp knows the message."""
        import io

        from aiida_vasp.parsers.content_parsers.stream import StreamParser

        found = StreamParser(handler=io.StringIO(printed)).errors
        # one of its entries looks for the first line of VASP, which may lie before what we look at
        return next((f'{entry.message}' for entry in found if entry.shortname != 'nostart'), '')

    def has(self, name: str) -> bool:
        """Whether a file was retrieved."""
        folder, _, last = name.rpartition('/')
        repository = self.retrieved.base.repository
        return (not folder or folder in repository.list_object_names()) and last in repository.list_object_names(folder)

    def end_of(self, name: str) -> str:
        """Return the last part of a retrieved file, which may be large and hold any bytes."""
        if not self.has(name):
            return ''
        end = b''
        with self.retrieved.base.repository.open(name, 'rb') as handle:
            while block := handle.read(TAIL):
                end = (end + block)[-TAIL:]
        return end.decode(errors='replace').replace('\0', ' ')

    def last_words(self, printed: str, errors: str) -> str:
        """Return the end of what the job printed."""
        for name, text in ((STDERR, errors), (STDOUT, printed)):
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return f'The last line of {name}: {lines[-1][:300]}'
        return 'It printed nothing; look at the executable of the code.'

    # ------------------------------------------------------------------ outputs

    def facts(self, run: Run) -> dict[str, Any]:
        """Return what else is known of the frame."""
        counts = run.counts
        facts: dict[str, Any] = {}
        if counts.n_steps:
            facts |= {'n_steps': counts.n_steps, 'n_skipped': counts.n_skipped}
        if counts.skipped:
            facts['skipped'] = counts.skipped
        if self.settings.ml:
            facts['n_predicted'] = counts.n_predicted
        if self.settings.run == 'relax':
            facts['is_relaxed'] = run.is_finished and 0 < counts.n_steps < self.settings.steps
        if counts.edges is not None and self.settings.run == 'energy':
            top, bottom = counts.edges
            facts |= {'vbm_eV': top, 'cbm_eV': bottom, 'gap_eV': round(bottom - top, 6)}
        return facts

    def attach(self, run: Run, outcome: Outcome) -> ExitCode | None:
        """Attach results and dataset; return an exit code where the labels cannot be stored."""
        header = self.vasprun.header
        about = {
            'seconds_of_labels': round(run.counts.seconds * self.n_cores(), 3),
            'versions': {'vasp': header.version} if header.version else {},
            'potcars': [kind.title for kind in header.species],
            'mesh': list(inputs.mesh_of(self.settings, self.frame)),
            'unchecked': unchecked(header, self.incar()) if header.used else [],
        }
        try:
            for name, node in label_outputs(self.node, [outcome], self.level(), **about):
                node._validate()  # now, while there is an exit code for it, and not when the engine stores it
                self.out(name, node)
        except FrameError as error:
            return self.exit_codes['ERROR_PRODUCT_UNREADABLE'].format(message=f'a label cannot be stored: {error}')
        return None

    def level(self) -> Level:
        """Return the level of theory, with the POTCARs that the job was given."""
        given = self.node.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
        return level_of(self.settings, basis_of(given['potential']))

    def n_cores(self) -> int:
        """Return how many cores the job had."""
        resources = self.node.get_option('resources') or {}
        machines, processes = resources.get('num_machines', 1), resources.get('num_mpiprocs_per_machine', 1)
        total = resources.get('tot_num_mpiprocs') or machines * processes
        return int(total) * int(resources.get('num_cores_per_mpiproc') or 1)
