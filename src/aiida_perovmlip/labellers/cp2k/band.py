"""A path relaxed by CP2K itself: a nudged elastic band in which the highest image climbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec
from aiida_cp2k.utils import Cp2kInput
from ase import units

from aiida_perovmlip.compute.band import BandSettings, residual_of
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.labellers.band import define_band_ports
from aiida_perovmlip.labellers.cp2k import Cp2k
from aiida_perovmlip.labellers.cp2k.calculation import Cp2kJob, walltime
from aiida_perovmlip.labellers.cp2k.inputs import (
    COORDINATES,
    FORCE_UNIT,
    INPUT,
    LOOSE,
    PROJECT,
    Sections,
    merged,
    sections_of,
    shift_of,
    xyz_text,
)
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings, level
from aiida_perovmlip.structures.paths import problem_of_path

SPRING_UNIT = units.Hartree / units.Bohr**2
"""One atomic unit of stiffness in eV/Å²."""

ENVIRONMENT_OUT = f'{PROJECT}-r-0.out'
"""What CP2K says of its settings; the text of the run itself has the steps of the band."""

REPLICA_OUT, POSITIONS_OUT = f'{PROJECT}-BAND*.out', f'{PROJECT}-pos-Replica_nr_*-1.xyz'
DISTANCES_OUT = f'{PROJECT}-1.ener'

STEPS_BEFORE_CLIMB = 5
"""Steps in which nothing climbs, where nobody knows that the path is near."""

STEPSIZE = 1.5
"""In bohr²/hartree: of steepest descent before DIIS. Stretched bonds of C with N have about 1 hartree/bohr², and a step
of more than twice the inverse of that would diverge; the softer modes are what DIIS is for."""

REFUSED = {
    'fmax_before_climb': 'CP2K begins to climb after a number of steps, whatever the forces are',
    'fmax_ends': 'CP2K relaxes the ends along with the band, down to `fmax`',
    'max_steps_ends': 'CP2K relaxes the ends along with the band, in its `max_steps`',
}
"""Settings of a band that CP2K cannot honour, and why."""


# ---------------------------------------------------------------------- input


def band_sections(
    settings: Cp2kSettings,
    frames: Sequence[Frame],
    band: BandSettings,
    steps_before_climb: int = STEPS_BEFORE_CLIMB,
    ranks: int = 1,
    seconds: float | None = None,
) -> Sections:
    """Return the whole input of a band through these frames, in the grid and the cell of the first one.

    :param ranks: MPI processes of the job.
    """
    return merged(
        sections_of(settings, frames[:1], walltime=seconds),
        {
            'GLOBAL': {'RUN_TYPE': 'BAND'},
            'MOTION': {'BAND': _band(band, len(frames), steps_before_climb, ranks), 'PRINT': _prints()},
        },
    )


def _band(band: BandSettings, n_replicas: int, steps_before_climb: int, ranks: int) -> Sections:
    """Return how the band moves; the largest component of a force decides, so that no atom's is above `fmax`."""
    return {
        'BAND_TYPE': 'CI-NEB' if band.climb else 'IT-NEB',
        'NUMBER_OF_REPLICA': n_replicas,
        'NPROC_REP': ranks_of_replica(ranks, n_replicas),
        'K_SPRING': band.spring / SPRING_UNIT,
        'ALIGN_FRAMES': False,  # turned frames would leave their cell
        'ROTATE_FRAMES': False,
        'CI_NEB': {'NSTEPS_IT': steps_before_climb},
        'CONVERGENCE_CONTROL': {
            'MAX_FORCE': band.fmax / FORCE_UNIT / 3**0.5,
            'RMS_FORCE': LOOSE,
            'MAX_DR': LOOSE,
            'RMS_DR': LOOSE,
        },
        'OPTIMIZE_BAND': {
            'OPT_TYPE': 'DIIS',
            'OPTIMIZE_END_POINTS': band.relax_ends,
            'DIIS': {'MAX_STEPS': band.max_steps, 'NO_LS': True, 'STEPSIZE': STEPSIZE},
        },
        'PROGRAM_RUN_INFO': {'_': 'ON'},
        'ENERGY': {'_': 'ON'},
        'REPLICA': [{'COORD_FILE_NAME': image_file(index)} for index in range(n_replicas)],
    }


def ranks_of_replica(ranks: int, n_replicas: int) -> int:
    """Return how many processes compute an image, so that as many images as can be are computed at a time."""
    return ranks // max(groups for groups in range(1, n_replicas + 1) if ranks % groups == 0)


def _prints() -> Sections:
    """Return positions of each step, and no restart files."""
    return {
        'TRAJECTORY': {'_': 'ON', 'FORMAT': 'XYZ', 'UNIT': 'angstrom'},
        'VELOCITIES': {'_': 'OFF'},
        'RESTART': {'_': 'OFF'},
        'RESTART_HISTORY': {'_': 'OFF'},
    }


def image_file(index: int) -> str:
    """Return the name of the coordinates of an image."""
    return f'{PROJECT}-image-{index}.xyz'


def steps_before_climb(frames: Sequence[Frame], band: BandSettings, same_level: bool) -> int:
    """Return in how many steps nothing climbs: none where a path goes in again that is near.

    Otherwise it could converge without climbing, and would do so again whenever it went in.
    """
    if not same_level or any(frame.energy is None or frame.forces is None for frame in frames):
        return STEPS_BEFORE_CLIMB
    near = residual_of(frames, band.spring, climb=False) <= max(band.fmax_before_climb, band.fmax)
    return 0 if near else STEPS_BEFORE_CLIMB


# ---------------------------------------------------------------------- the calculation


class Cp2kBandCalculation(Cp2kJob):
    """Relax a path with CP2K's BAND: improved tangents, and a climbing image.

    Each image is computed from atoms at each step, so that it has the energy and the forces of a label at the same
    settings. Ends relax along with the images between them, by the same criterion. Nothing is interpolated: there are
    as many replicas as the path has structures.
    """

    parser: ClassVar[str] = 'perovmlip.cp2k.band'

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs: those of every band of a labeller."""
        super().define(spec)
        define_band_ports(spec)
        spec.inputs.validator = _validate
        spec.default_output_node = 'results'
        spec.exit_code(
            570, 'ERROR_ENDS_MEET', message='Both ends relax into one structure: choose ends that are minima.'
        )
        spec.exit_code(500, 'ERROR_NOT_CONVERGED', message='The band did not converge: {message}')

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the input and a file for each image, and name the files to bring back."""
        frames, options = list(self.inputs.path.frames), self.inputs.metadata.options
        settings, band = read_inputs(self.inputs)
        machines = options.resources
        ranks = machines.get('tot_num_mpiprocs') or machines.get('num_machines', 1) * machines.get(
            'num_mpiprocs_per_machine', 1
        )
        steps = steps_of(self.inputs)
        sections = band_sections(settings, frames, band, steps, ranks if options.withmpi else 1, walltime(options))
        shift = shift_of(frames[0])
        texts = {INPUT: Cp2kInput(sections).render(), COORDINATES: xyz_text(frames[:1])}
        info = self.run_of(
            folder, texts | {image_file(index): xyz_text([frame], shift) for index, frame in enumerate(frames)}
        )
        info.retrieve_list.append(ENVIRONMENT_OUT)
        info.retrieve_temporary_list = [(name, '.', 0) for name in (REPLICA_OUT, POSITIONS_OUT, DISTANCES_OUT)]
        return info


def read_inputs(inputs: Any) -> tuple[Cp2kSettings, BandSettings]:
    """Return the settings of CP2K and of the band."""
    return read_settings(Cp2kSettings, inputs.settings.get_dict()), read_settings(BandSettings, inputs.band.get_dict())


def steps_of(inputs: Any) -> int:
    """Return in how many steps nothing climbs."""
    settings, band = read_inputs(inputs)
    return steps_before_climb(list(inputs.path.frames), band, _level_of(inputs.path) == level(settings))


def _level_of(path: Any) -> Level | None:
    """Return the level of theory of the labels of a path."""
    found: Level | None = path.level
    return found


def problem_of_settings(settings: Mapping[str, Any], band: Mapping[str, Any]) -> str | None:
    """Return a sentence where CP2K relaxes no band with these settings."""
    try:
        asked = read_settings(Cp2kSettings, settings)
        read_settings(BandSettings, band)
    except SettingsError as error:
        return f'cp2k: {error}'
    if asked.run != 'energy':
        return f'cp2k: `run` is `{asked.run}`, but the images of a band move by the band alone: leave `run` out.'
    if asked.band_edges:
        return 'cp2k: a band has no `band_edges`; label its path with them.'
    if 'MOTION' in asked.sections:
        return 'cp2k: `sections` may not say how atoms move (MOTION) where the settings of a band do.'
    reasons = [f'`{name}` cannot be honoured, as {why}' for name, why in REFUSED.items() if name in band]
    return f'cp2k: {"; ".join(reasons)}. Leave it out.' if reasons else None


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no run of CP2K could do."""
    if any(name not in inputs for name in ('path', 'settings', 'band')):
        return None
    problem = problem_of_settings(inputs['settings'].get_dict(), inputs['band'].get_dict())
    return problem or _problem_of_frames(list(inputs['path'].frames), inputs['settings'].get_dict())


def _problem_of_frames(frames: Sequence[Frame], settings: dict[str, Any]) -> str | None:
    """Return a sentence where the path is none, or where CP2K cannot compute its images alike."""
    labeller = Cp2k()
    asked = labeller.read(settings)
    if problem := problem_of_path([frame.to_atoms(labels=False) for frame in frames]):
        return problem
    for index, frame in enumerate(frames):
        if refusal := labeller.refusal(asked, frame):
            return f'image {index}: {refusal}'
    if len({labeller.kind_of(asked, frame) for frame in frames}) > 1:
        return 'the images differ in charge, spin, periodicity or box.'
    return None
