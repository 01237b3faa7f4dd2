"""Read what VASP left of a band: the path as far as it came, or a reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode

from aiida_perovmlip.compute.band import BandSettings, largest_force
from aiida_perovmlip.compute.frame import Array, Frame, FrameError
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.labellers.band import band_outputs
from aiida_perovmlip.labellers.vasp import inputs
from aiida_perovmlip.labellers.vasp.agreement import FARTHEST, moved_by, unchecked
from aiida_perovmlip.labellers.vasp.band import IMAGE_STDOUT, OUTCAR, ends_of, folder_of, tags_of
from aiida_perovmlip.labellers.vasp.calculation import STDOUT, VASPRUN
from aiida_perovmlip.labellers.vasp.neb import OF_VTST
from aiida_perovmlip.labellers.vasp.outcar import Outcar
from aiida_perovmlip.labellers.vasp.parser import Run, VaspLabelParser
from aiida_perovmlip.labellers.vasp.reading import Trajectory, unlabelled_because
from aiida_perovmlip.labellers.vasp.settings import VaspSettings
from aiida_perovmlip.labellers.vasp.vasprun import Header, Vasprun


@dataclass
class Image:
    """One image of a band, with what became of each of its steps.

    :param number: the first end is number 0.
    :param reasons: of each step, why it has no label; None where it has one.
    :param residuals: largest force on an atom in eV/Å, springs included, of each step.
    """

    number: int
    start: Frame
    outcar: Outcar
    reasons: list[str | None] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)
    departure: str = ''

    def look(self, header: Header, doubts: dict[int, str], order: Array) -> None:
        """Read all steps, and forget them."""
        for number, step in enumerate(self.outcar.steps(), 1):
            if number == 1 and (far := moved_by(self.start, order, step)) > FARTHEST and not step.problem:
                self.departure = f'it computed another structure: an atom is {far:.2g} Å away'
            doubt = f'VASP warns: "{doubts[number]}"' if number in doubts else None
            self.reasons.append(unlabelled_because(header, step) or doubt)
            self.residuals.append(step.residual)

    def frame(self, number: int, order: Array) -> Frame:
        """Return the labelled frame of a step, counted from 1, with positions that follow those of the path."""
        trajectory = Trajectory(self.start, order)
        for count, step in enumerate(self.outcar.steps(), 1):
            if step.fractions is not None and step.forces is not None:
                found = trajectory.frame(step, is_start=count == 1)
            if count == number:
                return replace(found, cell=self.start.cell, stress=None)
        raise IndexError(number)


@dataclass
class BandRun(Run):
    """What was read of a band.

    :param n_good: the last step, counted from 1, of which all images have a label; 0 where there is none.
    :param residual: largest force on an atom of the band at that step in eV/Å.
    """

    images: list[Image] = field(default_factory=list)
    n_good: int = 0
    residual: float = float('nan')

    def problems(self) -> list[str]:
        """Return a sentence for each image whose last step has no label."""
        last = self.counts.n_steps
        found = ((image.number, image.reasons[last - 1]) for image in self.images if last)
        return [f'image {number}, step {last}: {reason}.' for number, reason in found if reason]


class VaspBandParser(VaspLabelParser):
    """Turn the OUTCAR of each image, and the header of `vasprun.xml`, into a path and results."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Read, attach, judge."""
        given = self.node.inputs
        self.settings = read_settings(VaspSettings, given.settings.get_dict())
        self.band = read_settings(BandSettings, given.band.get_dict())
        self.path: list[Frame] = list(given.path.frames)
        self.frame = self.path[0]
        self.order = inputs.order_of(self.frame)
        self.folder = Path(kwargs.get('retrieved_temporary_folder') or '/nonexistent')
        self.vasprun = Vasprun(next(self.vaspruns(), self.folder / VASPRUN))
        run = self.read()
        _, code, reason = self.reason(run)
        exit_code = self.exit_codes[code].format(message=reason) if code else None
        return self.attach_path(run) or exit_code

    def vaspruns(self) -> Iterator[Path]:
        """Yield the files vasprun.xml that there are: VASP writes one of all images, or one of each."""
        yield from (path for path in (self.folder / name / VASPRUN for name in (*self.places(), '')) if path.is_file())

    def places(self) -> list[str]:
        """Return the folders of all images."""
        return [folder_of(number) for number in range(1, len(self.path) - 1)]

    def absent(self) -> list[str]:
        """Return the files without which nothing can be told; `vasprun.xml` is there once its header is complete."""
        names = (f'{place}/{OUTCAR}' for place in self.places())
        absent = [name for name in names if not (self.folder / name).is_file()]
        return absent if self.vasprun.header.used else [VASPRUN, *absent]

    # ------------------------------------------------------------------ reading

    def incar(self) -> dict[str, Any]:
        """Return the tags that VASP was given."""
        return tags_of(self.node.inputs)

    def read(self) -> BandRun:
        """Return what there is of each image, and what VASP did otherwise than it was asked."""
        run = BandRun()
        # all images write to one file at once in some versions, so that nothing behind its header can be believed
        next(self.vasprun.steps(), None)
        outcars = [Outcar(self.folder / name / OUTCAR) for name in self.places()]
        run.is_absent = bool(self.absent())
        if run.is_absent:
            return run
        for number, outcar in enumerate(outcars, 1):
            image = Image(number, self.path[number], outcar)
            image.look(self.vasprun.header, self.doubts(_stdout_of(number)), self.order)
            run.images.append(image)
        self.count(run)
        run.differences = self.differences() + list(self.departures_of(run))
        return run

    def count(self, run: BandRun) -> None:
        """Find the last step that all images have completed, and the last of which all have labels."""
        run.is_finished = all(image.outcar.is_finished for image in run.images)
        run.counts.n_steps = min(len(image.reasons) for image in run.images)
        run.is_doubted = any('VASP warns' in problem for problem in run.problems())
        good = (
            number
            for number in range(run.counts.n_steps, 0, -1)
            if not any(image.reasons[number - 1] for image in run.images)
        )
        run.n_good = next(good, 0)
        if run.n_good:
            run.residual = max(image.residuals[run.n_good - 1] for image in run.images)

    def departures_of(self, run: BandRun) -> Iterator[str]:
        """Yield what images did otherwise than they were asked; what is the same in all is said once."""
        tags = self.incar()
        said = set()
        for image in run.images:
            found = image.outcar.differences(tags) if image.outcar.has_begun else []
            yield from (sentence for sentence in found if sentence not in said)
            said.update(found)
            if image.departure:
                yield f'image {image.number}: {image.departure}'

    # ------------------------------------------------------------------ judging

    def reason(self, run: Run) -> tuple[str, str, str]:
        """Return the kind of the failure, the exit code and a sentence; all empty where all is well."""
        assert isinstance(run, BandRun)
        if run.differences:
            return 'inconsistent', 'ERROR_SETTINGS_IGNORED', '; '.join(run.differences) + '.'
        if not run.is_finished or not run.counts.n_steps:
            return self.stopped(run)
        problems = run.problems()
        if problems:
            code = 'ERROR_SETTINGS_IGNORED' if run.is_doubted else 'ERROR_NOT_CONVERGED'
            return 'not_converged', code, ' '.join(problems[:3])
        if run.residual <= self.band.fmax:
            return '', '', ''
        return 'not_converged', 'ERROR_NOT_CONVERGED', self._done(run)

    def _done(self, run: Run) -> str:
        assert isinstance(run, BandRun)
        if not run.n_good:
            return super()._done(run)
        return (
            f'after {run.n_good} steps the largest force on the band is {run.residual:.3g} eV/Å; {self.band.fmax:g} '
            'was asked. Go on from the output `path` as input `path`.'
        )

    def end_of(self, name: str) -> str:
        """Return the last part of a retrieved file; of what VASP prints, that of all images."""
        if name != STDOUT:
            return super().end_of(name)
        names = [_stdout_of(number) for number in range(len(self.path) - 2, 0, -1)]
        return '\n'.join(super(VaspBandParser, self).end_of(one) for one in names)

    def last_words(self, printed: str, errors: str) -> str:
        """Return which files are not there, and the end of what the job printed."""
        absent = self.absent()
        lacking = f'There is no {", ".join(absent[:3])}. ' if absent else ''
        return lacking + super().last_words(printed, errors)

    # ------------------------------------------------------------------ outputs

    def attach_path(self, run: BandRun) -> ExitCode | None:
        """Attach results and path; return an exit code where the labels cannot be stored."""
        if run.differences or not run.n_good:
            return None
        first, last = ends_of(self.node.inputs)
        images = [image.frame(run.n_good, self.order) for image in run.images]
        # the ends are where the path has them, which may be another periodic image of where they were labelled
        ends = [_labelled(frame, end) for frame, end in ((self.path[0], first), (self.path[-1], last))]
        try:
            outputs = band_outputs(self.node, [ends[0], *images, ends[1]], self.level(), **self.about(run, ends))
            for name, node in outputs:
                node._validate()  # now, while there is an exit code for it, and not when the engine stores it
                self.out(name, node)
        except FrameError as error:
            return self.exit_codes['ERROR_PRODUCT_UNREADABLE'].format(message=f'a label cannot be stored: {error}')
        return None

    def about(self, run: BandRun, ends: list[Frame]) -> dict[str, Any]:
        """Return what there is to say of a band in numbers, and of the program."""
        header, vtst = self.vasprun.header, run.images[0].outcar.told['vtst']
        return {
            'n_steps': run.n_good,
            'residual': run.residual,
            'forces_of_ends': [largest_force(end) if end.forces is not None else None for end in ends],
            'is_climbing': self.band.climb,
            'is_converged': run.is_finished and run.n_good == run.counts.n_steps and run.residual <= self.band.fmax,
            'versions': {'vasp': header.version, 'vtst': vtst},
            'potcars': [kind.title for kind in header.species],
            'mesh': list(inputs.mesh_of(self.settings, self.frame)),
            'unchecked': [tag for tag in unchecked(header, self.incar()) if tag not in OF_VTST],
        }


def _stdout_of(number: int) -> str:
    """Return where VASP prints what it says of an image."""
    return STDOUT if number == 1 else f'{folder_of(number)}/{IMAGE_STDOUT}'


def _labelled(frame: Frame, end: Frame) -> Frame:
    return replace(frame, energy=end.energy, forces=end.forces, stress=None)
