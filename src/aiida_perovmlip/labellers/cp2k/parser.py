"""From the files of a run of CP2K to the outputs that every labeller has."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.parsers import Parser

from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.compute.tasks.label import PASSING
from aiida_perovmlip.labellers.base import NOT_REACHED, label_outputs
from aiida_perovmlip.labellers.cp2k.inputs import CELLS_OUT, OUTPUT, POSITIONS_OUT
from aiida_perovmlip.labellers.cp2k.output import Cp2kOutput
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings, level
from aiida_perovmlip.labellers.cp2k.trajectory import read_cells, read_steps
from aiida_perovmlip.labellers.cp2k.verdict import Batch, Files, Verdict, failure_of, judge

SCHEDULER_MEMORY, SCHEDULER_WALLTIME = 110, 120
"""Exit codes of AiiDA for a job that the scheduler stopped."""

CODES = (
    ({'environment'}, 'ERROR_MISSING_PACKAGE'),
    ({'memory'}, 'ERROR_OUT_OF_MEMORY'),
    ({'not_converged'}, 'ERROR_NOT_CONVERGED'),
    ({'inconsistent'}, 'ERROR_SETTINGS_IGNORED'),
)
"""How a job ended of whose frames not one has a label, by the kinds of their failures."""


class Cp2kJobParser(Parser):
    """What all readers of our runs of CP2K have in common."""

    def stopped(self, message: str) -> ExitCode:
        """Return the exit code of a run that something else ended; the scheduler may know what."""
        if self.node.exit_status is not None:
            return ExitCode(self.node.exit_status, self.node.exit_message)
        return self.exit_codes.ERROR_NO_RESPONSE.format(message=message)


class Cp2kLabelParser(Cp2kJobParser):
    """Turn the text and the trajectory of CP2K into labels, and an exit code."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Read, attach, judge."""
        if OUTPUT not in self.retrieved.base.repository.list_object_names():
            return self.stopped('CP2K left no output.')
        try:
            verdict = self.read(Path(kwargs.get('retrieved_temporary_folder') or '/nonexistent'))
            self.attach(verdict)
        except Exception as error:  # whatever a half-written file raises
            self.logger.warning('The output of CP2K could not be read.', exc_info=True)
            return self.exit_codes.ERROR_RESPONSE_UNREADABLE.format(message=f'{type(error).__name__}: {error}')
        return self.exit_code_of(verdict)

    def read(self, folder: Path) -> Verdict:
        """Return what became of each frame."""
        inputs = self.node.inputs
        frames = list(inputs.frames.frames.with_digests())
        batch = Batch(
            settings=read_settings(Cp2kSettings, inputs.settings.get_dict()),
            frames=[frame for _, _, frame in frames],
            digests=[digest.hex() for _, digest, _ in frames],
            repair=inputs.repair.value if 'repair' in inputs else None,
        )
        with ExitStack() as stack:
            text = stack.enter_context(self.retrieved.base.repository.open(OUTPUT, 'rb'))
            lines = io.TextIOWrapper(text, encoding='utf-8', errors='replace')
            positions = lines_of(stack, folder / POSITIONS_OUT)
            cells = lines_of(stack, folder / CELLS_OUT)
            return judge(batch, Cp2kOutput(lines), Files(read_steps(positions), read_cells(cells)))

    def attach(self, verdict: Verdict) -> None:
        """Attach the outputs, and say whether another run could end otherwise."""
        settings = read_settings(Cp2kSettings, self.node.inputs.settings.get_dict())
        for name, output in label_outputs(self.node, verdict.outcomes, level(settings), **verdict.about):
            output._validate()  # now, while there is an exit code for it
            self.out(name, output)
        passing = any(outcome.kind in PASSING for outcome in verdict.outcomes)
        cut = any(outcome.facts.get('complete') is False for outcome in verdict.outcomes)
        if passing or cut or NOT_REACHED in verdict.outcomes:
            self.node.base.caching.is_valid_cache = False

    def exit_code_of(self, verdict: Verdict) -> ExitCode | None:
        """Return the exit code: none where each frame has a label or, beside others that have, a reason."""
        outcomes, ending = verdict.outcomes, verdict.ending
        failed = [outcome for outcome in outcomes if outcome.kind]
        if any(outcome.facts.get('complete') is False for outcome in outcomes):
            return self.broke_off(verdict)
        if NOT_REACHED in outcomes and not ending.out_of_time and not failed_by_itself(verdict):
            return self.stopped(
                f'Its last line: {ending.last_line[:300]}' if ending.last_line else 'It printed nothing.'
            )
        if NOT_REACHED in outcomes and ending.out_of_time:
            left = outcomes.count(NOT_REACHED)
            return self.exit_codes.ERROR_OUT_OF_WALLTIME.format(message=f'{left} of {len(outcomes)} frames are left.')
        if NOT_REACHED not in outcomes and len(failed) < len(outcomes):
            return None
        kinds = {outcome.kind for outcome in failed}
        name = next((name for known, name in CODES if kinds <= known), 'ERROR_FAILED')
        return self.exit_codes[name].format(message=failed[-1].reason if failed else '')

    def broke_off(self, verdict: Verdict) -> ExitCode:
        """Return the exit code of a relaxation or a simulation that did not come to its end; its frames stay."""
        ending, failure = verdict.ending, failure_of(verdict.ending)
        done = f'{sum(len(outcome.frames) for outcome in verdict.outcomes)} frames were labelled before.'
        if ending.out_of_time or self.node.exit_status == SCHEDULER_WALLTIME:
            return self.exit_codes.ERROR_OUT_OF_WALLTIME.format(message=done)
        if self.node.exit_status == SCHEDULER_MEMORY:
            return self.exit_codes.ERROR_OUT_OF_MEMORY.format(message=done)
        kind = {failure.kind} if failure else set()
        name = next((name for known, name in CODES if kind and kind <= known), 'ERROR_FAILED')
        said = failure.reason if failure else f'it was stopped from outside. Its last line: {ending.last_line[:300]}'
        return self.exit_codes[name].format(message=f'{said} {done}')


def failed_by_itself(verdict: Verdict) -> bool:
    """Whether CP2K said why it stopped."""
    return bool(verdict.ending.abort or verdict.ending.trouble)


def lines_of(stack: ExitStack, path: Path) -> Iterator[str]:
    """Return the lines of a file; none where CP2K did not write it."""
    if not path.is_file():
        return iter(())
    return iter(stack.enter_context(path.open(encoding='utf-8', errors='replace')))
