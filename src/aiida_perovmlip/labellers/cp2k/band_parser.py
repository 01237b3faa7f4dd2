"""From the files of a band of CP2K to the outputs that every band of a labeller has."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode

from aiida_perovmlip.compute.band import ONE_PLACE, distance_of_ends
from aiida_perovmlip.labellers.band import band_outputs
from aiida_perovmlip.labellers.cp2k.band import (
    DISTANCES_OUT,
    ENVIRONMENT_OUT,
    POSITIONS_OUT,
    REFUSED,
    REPLICA_OUT,
    band_sections,
    read_inputs,
    steps_of,
)
from aiida_perovmlip.labellers.cp2k.inputs import OUTPUT
from aiida_perovmlip.labellers.cp2k.output import Cp2kOutput, Header
from aiida_perovmlip.labellers.cp2k.parser import CODES, SCHEDULER_MEMORY, SCHEDULER_WALLTIME, Cp2kJobParser, lines_of
from aiida_perovmlip.labellers.cp2k.replicas import (
    Asked,
    Relaxed,
    Replica,
    failure_of_band,
    judge_band,
    read_distances,
    read_log,
    read_replica,
    spring_of,
)
from aiida_perovmlip.labellers.cp2k.settings import level
from aiida_perovmlip.labellers.cp2k.trajectory import read_steps


class Cp2kBandParser(Cp2kJobParser):
    """Turn the files of a band into a path, and an exit code."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Read, attach, judge."""
        if OUTPUT not in self.retrieved.base.repository.list_object_names():
            return self.stopped('CP2K left no output.')
        try:
            asked = self.asked()
            relaxed = self.read(asked, Path(kwargs.get('retrieved_temporary_folder') or '/nonexistent'))
            if relaxed.wrong:
                return self.exit_codes.ERROR_SETTINGS_IGNORED.format(message=f'{"; ".join(relaxed.wrong)}.')
            self.attach(asked, relaxed)
        except Exception as error:  # whatever a half-written file raises
            self.logger.warning('The output of CP2K could not be read.', exc_info=True)
            return self.exit_codes.ERROR_RESPONSE_UNREADABLE.format(message=f'{type(error).__name__}: {error}')
        return self.exit_code_of(asked, relaxed)

    def asked(self) -> Asked:
        """Return what the job was asked to do."""
        settings, band = read_inputs(self.node.inputs)
        frames, steps = list(self.node.inputs.path.frames), steps_of(self.node.inputs)
        return Asked(settings, band, frames, band_sections(settings, frames, band, steps), steps)

    def read(self, asked: Asked, folder: Path) -> Relaxed:
        """Return what became of the band."""
        with ExitStack() as stack:
            main = Cp2kOutput(self.lines(stack, OUTPUT))
            for _ in main.snapshots():  # there are none, but the text has to be read to its end
                pass
            log = read_log(self.lines(stack, OUTPUT))
            distances = read_distances(lines_of(stack, folder / DISTANCES_OUT))
            spring = spring_of(log, distances, asked.steps_before_climb if asked.band.climb else None)
            header, replicas = self.replicas(stack, asked, folder)
        return judge_band(asked, header, log, spring, main.ending, replicas)

    def replicas(self, stack: ExitStack, asked: Asked, folder: Path) -> tuple[Header, list[Replica]]:
        """Return what CP2K says of its settings, and all images as far as they came."""
        texts, places = numbered(folder, REPLICA_OUT), numbered(folder, POSITIONS_OUT)
        header, replicas = Cp2kOutput(self.lines(stack, ENVIRONMENT_OUT)), []
        for index, path in enumerate(texts[: len(asked.frames)]):  # idle processes compute one more
            start = self.lines(stack, ENVIRONMENT_OUT) if index == 0 else ()
            output = Cp2kOutput(chain(start, lines_of(stack, path)))
            header = output if index == 0 else header
            steps = read_steps(lines_of(stack, places[index])) if index < len(places) else ()
            replicas.append(read_replica(asked, index, output, steps))
        if not texts:
            list(header.snapshots())
        return header.header, replicas

    def lines(self, stack: ExitStack, name: str) -> Iterator[str]:
        """Return the lines of a file that is kept; none where it is not there."""
        if name not in self.retrieved.base.repository.list_object_names():
            return iter(())
        text = stack.enter_context(self.retrieved.base.repository.open(name, 'rb'))
        return io.TextIOWrapper(text, encoding='utf-8', errors='replace')

    def attach(self, asked: Asked, relaxed: Relaxed) -> None:
        """Attach the path as far as it came."""
        if not relaxed.images:
            return
        honoured = {name: value for name, value in asdict(asked.band).items() if name not in REFUSED}
        about = {**relaxed.about, 'settings': honoured}
        for name, output in band_outputs(self.node, relaxed.images, level(asked.settings), **about):
            output._validate()  # now, while there is an exit code for it
            self.out(name, output)

    def exit_code_of(self, asked: Asked, relaxed: Relaxed) -> ExitCode | None:
        """Return the exit code: none where the band that was read has converged."""
        about, ending = relaxed.about, relaxed.ending
        if asked.band.relax_ends and relaxed.images and distance_of_ends(relaxed.images) < ONE_PLACE:
            return self.exit_codes.ERROR_ENDS_MEET
        if about.get('is_converged'):
            return None
        kept = f'The path after {about["n_steps"]} steps is kept.' if about else 'There is no path.'
        if ending.out_of_time or self.node.exit_status == SCHEDULER_WALLTIME:
            return self.exit_codes.ERROR_OUT_OF_WALLTIME.format(message=kept)
        if self.node.exit_status == SCHEDULER_MEMORY:
            return self.exit_codes.ERROR_OUT_OF_MEMORY.format(message=kept)
        if (failure := failure_of_band(relaxed)) is not None:
            kind, reason = failure
            name = next((name for known, name in CODES if kind in known), 'ERROR_FAILED')
            return self.exit_codes[name].format(message=f'{reason} {kept}')
        if not ending.ended or not about:
            said = f'Its last line: {ending.last_line[:300]}' if ending.last_line else 'It printed nothing.'
            return self.stopped(f'{said} {kept}')
        forces = f'the largest force on it is {about["residual"]:.3g} eV/Å after {about["n_steps"]} steps'
        ends = f', those of its ends are {about["forces_of_ends"][0]:.3g} and {about["forces_of_ends"][1]:.3g}'
        asked_for = f'; {asked.band.fmax:g} was asked for. {kept}'
        return self.exit_codes.ERROR_NOT_CONVERGED.format(message=f'{forces}{ends}{asked_for}')


def numbered(folder: Path, pattern: str) -> list[Path]:
    """Return files in the order of the number where the pattern has its star."""
    before, after = (re.escape(part) for part in pattern.split('*'))
    found = {
        int(match[1]): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := re.fullmatch(rf'{before}(\d+){after}', path.name))
    }
    return [found[number] for number in sorted(found)]
