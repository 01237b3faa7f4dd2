"""CP2K input of a batch of frames: settings, frames and a repair become nested sections and files of coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import units

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.labellers.cp2k import elements
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings, mesh_of, multiplicity_of, names_of, uses_ot

Sections = dict[str, Any]
"""CP2K input as aiida-cp2k writes it: upper-case keys, `_` is the parameter of a section, a list repeats."""

PROJECT = 'aiida'
INPUT = f'{PROJECT}.inp'
OUTPUT = f'{PROJECT}.out'
COORDINATES = f'{PROJECT}.coords.xyz'
TRAJECTORY_IN = f'{PROJECT}-reftraj.xyz'
CELLS_IN = f'{PROJECT}-reftraj.cell'
POSITIONS_OUT = f'{PROJECT}-pos-1.xyz'
CELLS_OUT = f'{PROJECT}-1.cell'

FORCE_UNIT = units.Hartree / units.Bohr
"""One atomic unit of force in eV/Å."""

LOOSE = 1e3
"""A criterion of a relaxation that never decides."""

HELPING_TEMPERATURE = 150.0
"""In K: of the smearing that a repair adds. The entropy of a gap above 0.2 eV is nothing at this temperature."""


# ---------------------------------------------------------------------- how the SCF cycle is converged


@dataclass(frozen=True)
class Cycle:
    """How the SCF cycle is to be converged; none of it is part of the level of theory.

    :param linesearch: of the minimiser CG of OT.
    :param stepsize: first step of OT in atomic units; None leaves it to CP2K.
    :param mixing: share of the new density.
    :param smearing: temperature in K.
    """

    ot: bool
    max_scf: int
    outer_scf: int = 0
    preconditioner: str = ''
    minimiser: str = ''
    linesearch: str = '2PNT'
    stepsize: float | None = None
    energy_gap: float = 0.05
    mixer: str = 'BROYDEN_MIXING'
    mixing: float = 0.4
    history: int = 8
    smearing: float = 0.0

    @classmethod
    def of(cls, settings: Cp2kSettings, frame: Frame) -> Cycle:
        """Return the cycle that the settings ask for."""
        if not uses_ot(settings, frame):
            cycles = settings.max_scf * max(1, settings.outer_scf)
            return cls(False, cycles, mixing=settings.mixing, smearing=settings.electronic_temperature)
        return cls(True, settings.max_scf, settings.outer_scf, settings.preconditioner, settings.minimiser)


def repaired(cycle: Cycle, repair: str | None) -> Cycle:
    """Return the cycle as a repair changes it; whatever the settings say, a repair has cycles enough."""
    if repair is None:
        return cycle
    if repair == 'diagonalisation':
        smearing = cycle.smearing or HELPING_TEMPERATURE
        return Cycle(False, max(500, cycle.max_scf), mixing=0.2, history=12, smearing=smearing)
    if cycle.ot:
        enough = replace(cycle, max_scf=max(50, cycle.max_scf), outer_scf=max(20, cycle.outer_scf))
        return _repaired_ot(enough, repair)
    return _repaired_mixing(replace(cycle, max_scf=max(500, cycle.max_scf)), repair)


def _repaired_ot(cycle: Cycle, repair: str) -> Cycle:
    """Repair an orbital transformation: a better preconditioner, another minimiser, small and careful steps."""
    if repair == 'tighter_ot':
        return replace(cycle, preconditioner='FULL_ALL', energy_gap=0.01)
    if repair == 'other_minimiser':
        other = 'DIIS' if cycle.minimiser == 'CG' else 'CG'
        return replace(cycle, preconditioner='FULL_ALL', energy_gap=0.01, minimiser=other, linesearch='3PNT')
    if repair == 'smaller_step':
        return replace(cycle, preconditioner='FULL_SINGLE_INVERSE', minimiser='CG', linesearch='GOLD', stepsize=0.02)
    raise ValueError(f'there is no repair {repair!r}.')


def _repaired_mixing(cycle: Cycle, repair: str) -> Cycle:
    """Repair a diagonalisation: a longer memory, another way to mix, a small share of the new density."""
    if repair == 'tighter_ot':
        return replace(cycle, mixing=0.2, history=16)
    if repair == 'other_minimiser':
        return replace(cycle, mixer='PULAY_MIXING', mixing=0.2, history=8)
    if repair == 'smaller_step':
        return replace(cycle, mixing=0.03, history=6)
    raise ValueError(f'there is no repair {repair!r}.')


# ---------------------------------------------------------------------- sections


def sections_of(
    settings: Cp2kSettings, frames: Sequence[Frame], repair: str | None = None, walltime: float | None = None
) -> Sections:
    """Return the whole input of one batch: frames of one composition, charge, spin, periodicity and mesh."""
    frame = frames[0]
    cycle = repaired(Cycle.of(settings, frame), repair)
    whole: Sections = {
        'GLOBAL': _global(settings, len(frames), walltime),
        'FORCE_EVAL': {
            'METHOD': 'QS',
            'PRINT': {'FORCES': {'_': 'ON', 'NDIGITS': 12}},
            'DFT': _dft(settings, frame, cycle),
            'SUBSYS': _subsys(settings, frame),
        },
    }
    if frame.pbc.all():
        whole['FORCE_EVAL']['STRESS_TENSOR'] = 'ANALYTICAL'
        whole['FORCE_EVAL']['PRINT']['STRESS_TENSOR'] = {'_': 'ON'}
    motion = _motion(settings, len(frames))
    if motion:
        whole['MOTION'] = motion
    return merged(whole, settings.sections)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Sections:
    """Return two nested inputs as one; where both say something, the one above counts."""
    whole = dict(below)
    for key, value in above.items():
        known = whole.get(key)
        whole[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return whole


def _global(settings: Cp2kSettings, n_frames: int, walltime: float | None) -> Sections:
    run_type = {'energy': 'ENERGY_FORCE' if n_frames == 1 else 'MD', 'relax': 'GEO_OPT', 'md': 'MD'}[settings.run]
    return {
        'PROJECT': PROJECT,
        'RUN_TYPE': run_type,
        'PRINT_LEVEL': 'MEDIUM',  # what ran is read back from it
        'EXTENDED_FFT_LENGTHS': True,
        'SEED': settings.seed,
        **({'WALLTIME': int(walltime)} if walltime else {}),
    }


def _dft(settings: Cp2kSettings, frame: Frame, cycle: Cycle) -> Sections:
    """Return what the electrons are told."""
    multiplicity = multiplicity_of(settings, frame)
    mesh = mesh_of(settings, frame)
    dft: Sections = {
        'BASIS_SET_FILE_NAME': list(elements.BASIS_FILES[settings.family]),  # type: ignore[index]
        'POTENTIAL_FILE_NAME': elements.POTENTIAL_FILES[settings.family],  # type: ignore[index]
        'CHARGE': frame.charge or 0,
        'MULTIPLICITY': multiplicity,
        'UKS': multiplicity > 1,
        'MGRID': {'CUTOFF': settings.cutoff, 'REL_CUTOFF': settings.rel_cutoff, 'NGRIDS': settings.n_grids},
        'QS': {'METHOD': 'GPW', 'EPS_DEFAULT': settings.eps_default, 'EXTRAPOLATION': _extrapolation(settings, mesh)},
        'POISSON': _poisson(frame),
        'SCF': _scf(settings, cycle, multiplicity),
        'XC': _functional(settings),
        'PRINT': _print(settings, cycle),
    }
    if mesh != (1, 1, 1):
        dft['KPOINTS'] = _kpoints(settings, mesh)
    return dft


def _extrapolation(settings: Cp2kSettings, mesh: tuple[int, int, int]) -> str:
    """Return what a step starts from: each frame of a batch from atoms, so that it depends on no other frame."""
    if settings.run == 'energy':
        return 'USE_GUESS'
    return 'ASPC' if mesh == (1, 1, 1) else 'USE_PREV_P'


def _kpoints(settings: Cp2kSettings, mesh: tuple[int, int, int]) -> Sections:
    """Return the mesh; time reversal is used, further symmetry is not."""
    scheme = f'MONKHORST-PACK {mesh[0]} {mesh[1]} {mesh[2]}'
    if settings.gamma_centred and any(number % 2 == 0 for number in mesh):
        shifts = ' '.join(repr(0.0 if number % 2 else 0.5 / number) for number in mesh)
        scheme = f'MACDONALD {mesh[0]} {mesh[1]} {mesh[2]} {shifts}'
    return {'SCHEME': scheme, 'SYMMETRY': False, 'FULL_GRID': False, 'EPS_GEO': 1e-8}


def _poisson(frame: Frame) -> Sections:
    """Return the boundary conditions of the electrostatics."""
    if frame.pbc.all():
        return {'PERIODIC': 'XYZ', 'POISSON_SOLVER': 'PERIODIC'}
    return {'PERIODIC': 'NONE', 'POISSON_SOLVER': isolated_solver(frame)}


def isolated_solver(frame: Frame) -> str:
    """Return the solver for isolated systems: wavelets need a cube, Martyna-Tuckerman a box of twice the system."""
    return 'WAVELET' if np.ptp(np.diag(frame.cell)) < 1e-9 else 'MT'


def _scf(settings: Cp2kSettings, cycle: Cycle, multiplicity: int) -> Sections:
    scf: Sections = {
        'SCF_GUESS': 'ATOMIC',
        'EPS_SCF': settings.eps_scf,
        'MAX_SCF': cycle.max_scf,
        'PRINT': {'RESTART': {'_': 'OFF'}, 'RESTART_HISTORY': {'_': 'OFF'}},
    }
    return scf | (_transformation(settings, cycle) if cycle.ot else _diagonalisation(settings, cycle, multiplicity))


def _transformation(settings: Cp2kSettings, cycle: Cycle) -> Sections:
    """Return the orbital transformation."""
    sections: Sections = {
        'OT': {
            'MINIMIZER': cycle.minimiser,
            'PRECONDITIONER': cycle.preconditioner,
            'ENERGY_GAP': cycle.energy_gap,
            **({'LINESEARCH': cycle.linesearch} if cycle.minimiser == 'CG' else {}),
            **({'STEPSIZE': cycle.stepsize} if cycle.stepsize else {}),
        }
    }
    if cycle.outer_scf:
        sections['OUTER_SCF'] = {'EPS_SCF': settings.eps_scf, 'MAX_SCF': cycle.outer_scf}
    return sections


def _diagonalisation(settings: Cp2kSettings, cycle: Cycle, multiplicity: int) -> Sections:
    """Return diagonalisation with mixing, and the smearing where there is one."""
    sections: Sections = {
        'DIAGONALIZATION': {'ALGORITHM': 'STANDARD'},
        'MIXING': {'METHOD': cycle.mixer, 'ALPHA': cycle.mixing, 'NBUFFER': cycle.history},
    }
    added = _added_orbitals(settings, cycle)
    if added:
        sections['ADDED_MOS'] = f'{added} {added}' if multiplicity > 1 else added
    if cycle.smearing:
        smear: Sections = {'_': True, 'METHOD': 'FERMI_DIRAC', 'ELECTRONIC_TEMPERATURE': f'[K] {cycle.smearing!r}'}
        if multiplicity > 1:
            smear['FIXED_MAGNETIC_MOMENT'] = float(multiplicity - 1)
        sections['SMEAR'] = smear
    return sections


def _added_orbitals(settings: Cp2kSettings, cycle: Cycle) -> int:
    """Return how many orbitals above the occupied ones there are; -1 is all, which smearing of the level needs."""
    if settings.extra_orbitals:
        return settings.extra_orbitals
    if settings.electronic_temperature > 0:
        return -1
    return settings.n_unoccupied if settings.band_edges or cycle.smearing else 0


def _functional(settings: Cp2kSettings) -> Sections:
    """Return exchange, correlation and dispersion."""
    shortcuts: dict[str, Sections] = {
        'PBE': {'_': 'PBE'},
        'PBEsol': {'PBE': {'PARAMETRIZATION': 'PBESOL'}},
        'revPBE': {'PBE': {'PARAMETRIZATION': 'REVPBE'}},
        'SCAN': {'MGGA_X_SCAN': {}, 'MGGA_C_SCAN': {}},
        'r2SCAN': {'MGGA_X_R2SCAN': {}, 'MGGA_C_R2SCAN': {}},
    }
    sections: Sections = {'XC_FUNCTIONAL': shortcuts[settings.functional]}
    if settings.dispersion == 'rVV10':
        sections['VDW_POTENTIAL'] = _rvv10(settings)
    elif settings.dispersion:
        sections['VDW_POTENTIAL'] = _d3(settings)
    return sections


def _d3(settings: Cp2kSettings) -> Sections:
    """Return Grimme's D3 without three-body terms."""
    return {
        'POTENTIAL_TYPE': 'PAIR_POTENTIAL',
        'PAIR_POTENTIAL': {
            'TYPE': 'DFTD3(BJ)' if settings.dispersion == 'D3BJ' else 'DFTD3',
            'PARAMETER_FILE_NAME': 'dftd3.dat',
            'REFERENCE_FUNCTIONAL': settings.functional,
            'R_CUTOFF': '[angstrom] 16.0',
        },
    }


def _rvv10(settings: Cp2kSettings) -> Sections:
    """Return rVV10, whose b belongs to the functional: 10.1103/PhysRevX.6.041005 and 10.1103/PhysRevB.106.075422."""
    b = {'SCAN': 15.7, 'r2SCAN': 11.95}[settings.functional]
    return {
        'POTENTIAL_TYPE': 'NON_LOCAL',
        'NON_LOCAL': {
            'TYPE': 'RVV10',
            'PARAMETERS': f'{b!r} 0.0093',
            'KERNEL_FILE_NAME': 'rVV10_kernel_table.dat',
            'CUTOFF': settings.cutoff / 4,
        },
    }


def _print(settings: Cp2kSettings, cycle: Cycle) -> Sections:
    """Return what is printed beyond the usual; eigenvalues once for each frame, after its last SCF cycle."""
    if not settings.band_edges:
        return {}
    if cycle.ot:
        return {'MO_CUBES': {'_': 'ON', 'WRITE_CUBE': False, 'NLUMO': settings.n_unoccupied, 'NHOMO': 1}}
    return {
        'MO': {
            '_': 'ON',
            'ENERGIES': True,
            'OCCUPATION_NUMBERS': True,
            'COEFFICIENTS': False,
            'NDIGITS': 8,
            'EACH': {'QS_SCF': 0},
            'ADD_LAST': 'NUMERIC',
        }
    }


def _subsys(settings: Cp2kSettings, frame: Frame) -> Sections:
    """Return the cell, the kinds of atoms and where the coordinates are."""
    vectors = {letter: _numbers(row) for letter, row in zip('ABC', frame.cell, strict=True)}
    names = {element: names_of(settings, element) for element in sorted(set(frame.symbols))}
    return {
        'CELL': {**vectors, 'PERIODIC': 'XYZ' if frame.pbc.all() else 'NONE'},
        'TOPOLOGY': {'COORD_FILE_NAME': COORDINATES, 'COORD_FILE_FORMAT': 'XYZ'},
        'KIND': [
            {'_': element, 'ELEMENT': element, 'BASIS_SET': basis, 'POTENTIAL': potential}
            for element, (basis, potential) in names.items()
        ],
    }


def _motion(settings: Cp2kSettings, n_frames: int) -> Sections:
    """Return how atoms move: not at all, from frame to frame of a batch, downhill, or in time."""
    if settings.run == 'energy':
        return {} if n_frames == 1 else {'MD': _replay(n_frames), 'PRINT': _trajectory_prints()}
    if settings.run == 'relax':
        return {'GEO_OPT': _relaxation(settings), 'PRINT': _trajectory_prints()}
    return {'MD': _dynamics(settings), 'PRINT': _trajectory_prints()}


def _trajectory_prints() -> Sections:
    """Return positions and cells of each step, and no restart files."""
    every_step = {'MD': 1, 'GEO_OPT': 1}
    return {
        'TRAJECTORY': {'_': 'ON', 'FORMAT': 'XYZ', 'UNIT': 'angstrom', 'EACH': every_step},
        'CELL': {'_': 'ON', 'EACH': every_step},
        'VELOCITIES': {'_': 'OFF'},
        'RESTART': {'_': 'OFF'},
        'RESTART_HISTORY': {'_': 'OFF'},
    }


def _replay(n_frames: int) -> Sections:
    """Return a run through the frames of a batch."""
    return {
        'ENSEMBLE': 'REFTRAJ',
        'STEPS': n_frames,
        'REFTRAJ': {
            'TRAJ_FILE_NAME': TRAJECTORY_IN,
            'CELL_FILE_NAME': CELLS_IN,
            'VARIABLE_VOLUME': True,
            'EVAL_ENERGY_FORCES': True,
            'EVAL_FORCES': True,
            'FIRST_SNAPSHOT': 1,
            'LAST_SNAPSHOT': n_frames,
        },
    }


def _relaxation(settings: Cp2kSettings) -> Sections:
    """Return a relaxation of the atoms in which the largest force alone decides."""
    return {
        'TYPE': 'MINIMIZATION',
        'OPTIMIZER': 'BFGS',
        'MAX_ITER': settings.steps,
        'MAX_FORCE': settings.max_force / FORCE_UNIT,
        'RMS_FORCE': LOOSE,
        'MAX_DR': LOOSE,
        'RMS_DR': LOOSE,
        'BFGS': {'TRUST_RADIUS': '[angstrom] 0.15', 'RESTART_HESSIAN': False},
    }


def _dynamics(settings: Cp2kSettings) -> Sections:
    sections: Sections = {
        'ENSEMBLE': settings.ensemble,
        'STEPS': settings.steps,
        'TIMESTEP': f'[fs] {settings.timestep!r}',
        'TEMPERATURE': f'[K] {settings.temperature!r}',
    }
    if settings.ensemble == 'NVT':
        sections['THERMOSTAT'] = {'TYPE': 'CSVR', 'CSVR': {'TIMECON': '[fs] 50.0'}}
    return sections


# ---------------------------------------------------------------------- files


def shift_of(frame: Frame) -> Array:
    """Return what is added to the positions in Å, shape (3,): an isolated system stands in the middle of its box."""
    if frame.pbc.all():
        return np.zeros(3)
    middle: Array = 0.5 * np.diag(frame.cell) - 0.5 * (frame.positions.max(axis=0) + frame.positions.min(axis=0))
    return middle


def xyz_text(frames: Iterable[Frame], shift: Array | None = None) -> str:
    """Return the frames as XYZ, to the last digit.

    :param shift: added to all positions in Å, shape (3,); without it, each frame has its own.
    """
    lines = []
    for step, frame in enumerate(frames, 1):
        lines += [f'{len(frame)}', f' i = {step}, time = {step}.000, E = 0.0']
        positions = frame.positions + (shift_of(frame) if shift is None else shift)
        lines += [f'{symbol} {_numbers(row)}' for symbol, row in zip(frame.symbols, positions, strict=True)]
    return '\n'.join(lines) + '\n'


def cell_text(frames: Iterable[Frame]) -> str:
    """Return the cells of the frames as CP2K reads them beside an XYZ file."""
    lines = ['# Step Time [fs] Ax Ay Az Bx By Bz Cx Cy Cz [Angstrom] Volume [Angstrom^3]']
    for step, frame in enumerate(frames, 1):
        volume = abs(float(np.linalg.det(frame.cell)))
        lines.append(f'{step} {step}.000 {_numbers(frame.cell.ravel())} {volume:.10f}')
    return '\n'.join(lines) + '\n'


def _numbers(row: Array) -> str:
    return ' '.join(map(repr, row.tolist()))
