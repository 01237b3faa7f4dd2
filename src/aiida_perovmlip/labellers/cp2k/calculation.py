"""A batch of frames labelled by one run of CP2K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec
from aiida.plugins import ParserFactory
from aiida_cp2k.calculations import Cp2kCalculation
from aiida_cp2k.utils import Cp2kInput

from aiida_perovmlip.calculations.resources import ResourcedCalculation
from aiida_perovmlip.calculations.sources import digest, host_sources
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.labellers.base import define_label_ports
from aiida_perovmlip.labellers.cp2k import Cp2k
from aiida_perovmlip.labellers.cp2k.inputs import (
    CELLS_IN,
    CELLS_OUT,
    COORDINATES,
    INPUT,
    OUTPUT,
    POSITIONS_OUT,
    TRAJECTORY_IN,
    cell_text,
    sections_of,
    xyz_text,
)
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings

LARGEST_MARGIN = 300.0
"""In s: how long before the end of its wall time CP2K is told to stop at most."""

OURS = ('aiida_perovmlip', 'aiida_cp2k')


class Cp2kJob(ResourcedCalculation, Cp2kCalculation):
    """A run of CP2K with inputs, outputs and exit codes of ours instead of those of aiida-cp2k."""

    parser: ClassVar[str]
    """The name of its parser."""

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Drop what a single calculation has, and define options and exit codes."""
        super().define(spec)
        for name in set(spec.inputs) - set(CalcJob.spec().inputs):
            del spec.inputs[name]
        for name in set(spec.outputs) - set(CalcJob.spec().outputs):
            del spec.outputs[name]
        for label in set(spec.exit_codes) - set(CalcJob.spec().exit_codes):
            del spec.exit_codes[label]
        spec.outputs.dynamic = False
        options = spec.inputs['metadata']['options']
        options['parser_name'].default = cls.parser
        options['withmpi'].default = False
        options['resources'].default = lambda: {'num_machines': 1, 'num_mpiprocs_per_machine': 1}
        options['input_filename'].default = INPUT
        options['output_filename'].default = OUTPUT
        spec.inputs['code'].required = True
        spec.inputs['code'].help = 'CP2K, such as `cp2k@localhost`.'
        _define_exit_codes(spec)

    @property
    def CACHE_VERSION(self) -> int:  # noqa: N802
        """A digest of all sources that shape inputs and outputs."""
        parser = ParserFactory(self.inputs.metadata.options.parser_name)
        classes = [each.__module__ for each in (*type(self).__mro__, *parser.__mro__)]
        modules = {module for module in classes if module.partition('.')[0] in OURS}
        return digest(host_sources(sorted(modules)).values())

    def run_of(self, folder: Folder, texts: Mapping[str, str]) -> CalcInfo:
        """Write the files, and return how CP2K is run on them."""
        for name, text in texts.items():
            with folder.open(name, 'w', encoding='utf-8') as handle:
                handle.write(text)
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ['-i', INPUT]
        code.stdout_name = OUTPUT
        code.join_files = True
        info = CalcInfo()
        info.codes_info = [code]
        info.retrieve_list = [OUTPUT]
        return info


class Cp2kLabelCalculation(Cp2kJob):
    """Compute energies, forces and stresses of frames of one composition with CP2K, or let their atoms move.

    A frame whose SCF cycle does not converge, and everything that CP2K did at other settings than it was asked for,
    is listed in `results` with the reason and is never a label.
    """

    parser = 'perovmlip.cp2k.label'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs: those of every labeller."""
        super().define(spec)
        define_label_ports(spec)
        spec.inputs.validator = _validate
        spec.default_output_node = 'results'

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the input and the coordinates, and name the files to bring back."""
        settings = read_settings(Cp2kSettings, self.inputs.settings.get_dict())
        frames = list(self.inputs.frames.frames)
        repair = self.inputs.repair.value if 'repair' in self.inputs else None
        sections = sections_of(settings, frames, repair, walltime(self.inputs.metadata.options))
        texts = {INPUT: Cp2kInput(sections).render(), COORDINATES: xyz_text(frames[:1])}
        if len(frames) > 1:
            texts |= {TRAJECTORY_IN: xyz_text(frames), CELLS_IN: cell_text(frames)}
        info = self.run_of(folder, texts)
        info.retrieve_temporary_list = [POSITIONS_OUT, CELLS_OUT]
        return info


def walltime(options: Any) -> float | None:
    """Return when CP2K should stop by itself, in s: a tenth, but at most five minutes, before it is stopped."""
    limit = options.get('max_wallclock_seconds', None)
    if limit is None:
        return None
    return float(max(1.0, limit - min(LARGEST_MARGIN, 0.1 * limit)))


def _define_exit_codes(spec: CalcJobProcessSpec) -> None:
    """Define the exit codes; names and numbers are those of our other jobs where these mean the same."""
    spec.exit_code(
        310,
        'ERROR_NO_RESPONSE',
        invalidates_cache=True,
        message='CP2K was stopped from outside, or it never started. {message}',
    )
    spec.exit_code(
        311, 'ERROR_RESPONSE_UNREADABLE', invalidates_cache=True, message='What CP2K wrote cannot be read: {message}'
    )
    spec.exit_code(
        320,
        'ERROR_MISSING_PACKAGE',
        invalidates_cache=True,
        message='The program or a file that it needs is not there: {message}',
    )
    spec.exit_code(400, 'ERROR_OUT_OF_WALLTIME', invalidates_cache=True, message='The wall time ran out: {message}')
    spec.exit_code(410, 'ERROR_OUT_OF_MEMORY', invalidates_cache=True, message='The memory ran out: {message}')
    spec.exit_code(420, 'ERROR_FAILED', invalidates_cache=True, message='CP2K gave up: {message}')
    spec.exit_code(500, 'ERROR_NOT_CONVERGED', message='No frame converged: {message}')
    spec.exit_code(520, 'ERROR_SETTINGS_IGNORED', message='CP2K did not do what it was asked: {message}')


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no run of CP2K could do."""
    if 'frames' not in inputs or 'settings' not in inputs:
        return None
    labeller = Cp2k()
    try:
        settings = labeller.read(inputs['settings'].get_dict())
    except SettingsError as error:
        return f'cp2k: {error}'
    known = [repair.name for repair in labeller.repairs]
    if 'repair' in inputs and inputs['repair'].value not in known:
        return f'there is no repair `{inputs["repair"].value}`; known are {", ".join(known)}.'
    kinds = set()
    for index, frame in enumerate(inputs['frames'].frames):
        refusal = labeller.refusal(settings, frame)
        if refusal:
            return f'frame {index}: {refusal}'
        kinds.add(labeller.kind_of(settings, frame))
    return _validate_kinds(len(inputs['frames']), kinds, labeller.moves_atoms(settings))


def _validate_kinds(n_frames: int, kinds: set[tuple[Any, ...]], moves: bool) -> str | None:
    if moves and n_frames > 1:
        return f'there are {n_frames} frames, but a run in which atoms move begins with one.'
    if len(kinds) > 1:
        return (
            'the frames differ in elements or their order, charge, spin, periodicity or k-points; use one job for each.'
        )
    return None
