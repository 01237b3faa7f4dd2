"""Label a frame with VASP."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec
from aiida_vasp.calcs.vasp import VaspCalculation
from aiida_vasp.parsers.content_parsers.incar import IncarParser

from aiida_perovmlip.calculations.resources import ResourcedCalculation
from aiida_perovmlip.calculations.sources import digest, host_sources
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.labellers.base import define_label_ports
from aiida_perovmlip.labellers.vasp import inputs
from aiida_perovmlip.labellers.vasp.potentials import PotentialError, valences_of
from aiida_perovmlip.labellers.vasp.settings import VaspSettings

STDOUT, VASPRUN, ML_AB, ML_ABN = 'vasp_output', 'vasprun.xml', 'ML_AB', 'ML_ABN'

DIGITS = 16
"""Of positions and cell in POSCAR, so that VASP computes the frame and not one that is rounded."""


class VaspLabelCalculation(ResourcedCalculation, VaspCalculation):
    """Compute energies, forces and stresses of one frame, or of each step of a relaxation or a simulation from it.

    INCAR, KPOINTS and POSCAR follow from `settings`, `repair` and the frame, and are kept with the calculation; POTCAR
    is not, as it is licensed. `vasprun.xml` is read and dropped: ask for it, or for OUTCAR, by the option
    `additional_retrieve_list`.
    """

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs: those of every labeller, the POTCARs, and files that VASP may need."""
        super().define(spec)
        for name in ('parameters', 'structure', 'kpoints', 'settings', 'dynamics', 'restart_folder'):
            del spec.inputs[name]
        for name in ('charge_density', 'wavefunctions'):
            del spec.inputs[name]
        for name in [name for name in spec.outputs if name not in CalcJob.spec().outputs]:
            del spec.outputs[name]
        define_label_ports(spec)
        spec.inputs['potential'].help = 'POTCAR of each element, by its symbol.'
        spec.input('ml_ab', valid_type=orm.SinglefileData, required=False, help='What was learned on the fly before.')
        spec.inputs['vdw_kernel'].help = 'The file `vdw_kernel.bindat`, for versions of VASP that need it for rVV10.'
        spec.inputs.validator = _validate
        spec.default_output_node = 'results'
        options = spec.inputs['metadata']['options']
        options['parser_name'].default = 'perovmlip.vasp.label'
        options['output_filename'].default = STDOUT
        options['resources'].default = lambda: {'num_machines': 1, 'num_mpiprocs_per_machine': 1}
        _define_exit_codes(spec)

    # ------------------------------------------------------------------ what follows from the inputs

    @property
    def CACHE_VERSION(self) -> int:  # noqa: N802
        """A digest of our sources and those of aiida-vasp: an edited reader is never served an old result."""
        from aiida_perovmlip.labellers.vasp import parser

        return digest(host_sources([__name__, parser.__name__, VaspCalculation.__module__]).values())

    @cached_property
    def frame(self) -> Frame:
        """The frame to label."""
        found: Frame = self.inputs.frames[0]
        return found

    @cached_property
    def vasp_settings(self) -> VaspSettings:
        """The checked settings."""
        return read_settings(VaspSettings, self.inputs.settings.get_dict())

    @property
    def _parameters(self) -> dict[str, Any]:
        """The tags of INCAR."""
        potentials = {element: self.inputs.potential[element] for element in set(self.frame.symbols)}
        repair = self.inputs.repair.value if 'repair' in self.inputs else ''
        return inputs.incar_of(self.vasp_settings, self.frame, valences_of(potentials), repair)

    def _structure(self) -> orm.StructureData:
        """Return the structure of POSCAR."""
        return structure_of(self.frame)

    # ------------------------------------------------------------------ the files

    def verify_inputs(self) -> None:
        """Nothing is left to verify: the validator did."""

    def write_incar(self, dst: str, validate_tags: bool = False) -> None:
        """Write INCAR; the settings refuse tags that VASP does not know, and the tables of parsevasp lack ML_*."""
        IncarParser(data=orm.Dict(self._parameters), validate_tags=validate_tags).write(dst)

    def write_poscar(self, dst: str) -> None:
        """Write POSCAR."""
        from aiida_vasp.parsers.content_parsers.poscar import PoscarParser

        PoscarParser(data=self._structure(), precision=DIGITS).write(dst)

    def write_kpoints(self, dst: str) -> None:
        """Write KPOINTS with the mesh itself, so that it is kept."""
        from aiida_vasp.parsers.content_parsers.kpoints import KpointsParser

        mesh = inputs.mesh_of(self.vasp_settings, self.frame)
        kpoints = orm.KpointsData()
        kpoints.set_kpoints_mesh(mesh, offset=inputs.shift_of(self.vasp_settings, mesh))
        KpointsParser(data=kpoints).write(dst)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the files, take along what VASP may read, and name what to bring back."""
        info = super().prepare_for_submission(folder)
        if 'ml_ab' in self.inputs:
            info.local_copy_list.append((self.inputs.ml_ab.uuid, self.inputs.ml_ab.filename, ML_AB))
        info.retrieve_list = [STDOUT, 'OSZICAR']
        info.retrieve_temporary_list = [VASPRUN]
        if self.vasp_settings.ml:
            info.retrieve_list.append('ML_LOGFILE')
            info.retrieve_temporary_list.append(ML_ABN)
        return info


def structure_of(frame: Frame) -> orm.StructureData:
    """Return a frame with each species together, as one POTCAR of each wants it."""
    atoms = frame.to_atoms(labels=False)[inputs.order_of(frame)]
    atoms.pbc = True  # VASP knows nothing else
    return orm.StructureData(ase=atoms)


def _define_exit_codes(spec: CalcJobProcessSpec) -> None:
    """Define the exit codes: 3xx files, 4xx the run stopped, 5xx the science did not work out."""
    of_all = CalcJob.spec().exit_codes
    for name in list(spec.exit_codes):  # aiida-vasp's parser, which enters its codes, has no part in this
        if name in of_all:
            spec.exit_codes[name] = of_all[name]
        else:
            del spec.exit_codes[name]

    def define(status: int, name: str, message: str, **more: Any) -> None:
        spec.exit_code(status, name, message=message, **more)

    define(310, 'ERROR_NO_RESPONSE', 'VASP left no vasprun.xml: {message}', invalidates_cache=True)
    define(311, 'ERROR_RESPONSE_UNREADABLE', 'The output cannot be read: {message}', invalidates_cache=True)
    define(312, 'ERROR_PRODUCT_UNREADABLE', 'VASP ended well, but: {message}', invalidates_cache=True)
    define(
        320,
        'ERROR_MISSING_PACKAGE',
        'A program or a file that VASP needs is missing: {message}',
        invalidates_cache=True,
    )
    define(400, 'ERROR_OUT_OF_WALLTIME', 'The wall time ran out: {message}', invalidates_cache=True)
    define(410, 'ERROR_OUT_OF_MEMORY', 'The memory ran out: {message}', invalidates_cache=True)
    define(420, 'ERROR_FAILED', 'VASP did not reach its end: {message}', invalidates_cache=True)
    define(500, 'ERROR_NOT_CONVERGED', 'The SCF cycle did not converge: {message}')
    define(520, 'ERROR_SETTINGS_IGNORED', 'VASP did not do what it was asked: {message}')


def _validate(given: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if 'frames' not in given or 'settings' not in given:
        return None
    try:
        settings = read_settings(VaspSettings, given['settings'].get_dict())
    except SettingsError as error:
        return f'vasp: {error}'
    repair = given['repair'].value if 'repair' in given else ''
    if repair and repair not in inputs.REPAIRS:
        return f'there is no repair `{repair}`; there are {", ".join(inputs.REPAIRS)}.'
    if len(given['frames']) != 1:
        return f'there are {len(given["frames"])} frames, but a job takes one; `LabelWorkChain` takes many.'
    if settings.ml == {} and 'ml_ab' in given:
        return '`ml_ab` is for runs that learn on the fly; set `ml`.'
    return refuse(settings, given['frames'][0], given.get('potential', {}))


def refuse(settings: VaspSettings, frame: Frame, potentials: Any) -> str | None:
    """Return a sentence where the frame or a POTCAR stands in the way."""
    lacking = sorted(set(frame.symbols) - set(potentials))
    if lacking:
        return f'`potential` has no POTCAR for {", ".join(lacking)}; `Vasp().inputs` finds those of a family.'
    try:
        valences = valences_of({element: potentials[element] for element in set(frame.symbols)})
    except PotentialError as error:
        return str(error)
    refusal = inputs.refuse_shape(frame) or inputs.refuse_spin(settings, frame, valences)
    return f'frame 0: {refusal}' if refusal else None
