"""What may be asked of CP2K, and what follows from it for a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import SettingsError, option
from aiida_perovmlip.labellers.cp2k import elements

SMALLEST_CUTOFF_OF_SCAN = 400.0
"""In Ry: below, SCF cycles with SCAN do not converge on the density grid; r²SCAN does."""

DISPERSIONS = {
    'D3': ('PBE', 'PBEsol', 'revPBE'),
    'D3BJ': ('PBE', 'PBEsol', 'revPBE'),
    'rVV10': ('SCAN', 'r2SCAN'),
}
"""For which functionals a correction was parametrised."""


@dataclass(frozen=True)
class Cp2kSettings:
    """Settings of CP2K: the level of theory, how the SCF cycle is converged, and whether atoms move."""

    # ---- the level of theory
    functional: str = option('PBE', 'Density functional.', choices=('PBE', 'PBEsol', 'revPBE', 'SCAN', 'r2SCAN'))
    dispersion: str = option(
        '',
        'Dispersion correction: D3 with zero damping, D3 with Becke-Johnson damping, or the rVV10 functional; empty '
        'for none.',
        choices=('', 'D3', 'D3BJ', 'rVV10'),
    )
    basis: str = option('DZVP', 'Size of the MOLOPT basis sets.', choices=('SZV', 'DZVP', 'TZVP', 'TZV2P'))
    family: str = option(
        'molopt',
        'Basis sets and pseudopotentials: `molopt` is BASIS_MOLOPT and BASIS_MOLOPT_UCL with GTH-PBE for every '
        'functional; `uzh` is BASIS_MOLOPT_UZH and POTENTIAL_UZH, which hold both for PBE and for SCAN.',
        choices=('molopt', 'uzh'),
    )
    basis_sets: dict[str, str] = option(
        {}, 'Basis set of single elements by its full name: {"Pb": "TZVPP-MOLOPT-PBE-GTH-q22"}.'
    )
    pseudopotentials: dict[str, str] = option(
        {}, 'Pseudopotential of single elements by its full name with the electrons it leaves: {"Pb": "GTH-PBE-q14"}.'
    )
    cutoff: float = option(400.0, 'Cutoff of the finest density grid.', unit='Ry', minimum=50.0)
    rel_cutoff: float = option(60.0, 'Cutoff that decides on which grid a Gaussian is put.', unit='Ry', minimum=10.0)
    n_grids: int = option(4, 'Number of density grids.', minimum=1, maximum=10)
    eps_default: float = option(1e-12, 'Precision of the integrals.', minimum=1e-20, maximum=1e-6)
    eps_scf: float = option(
        1e-6,
        'Convergence of the SCF cycle: the largest derivative (OT) or change of density.',
        minimum=1e-12,
        maximum=1e-3,
    )
    kpoints: list[int] | None = option(None, 'k-point mesh, three numbers; without it, or with [1, 1, 1], Γ only.')
    kspacing: float | None = option(
        None,
        'Largest distance of k-points along each reciprocal vector (which has the factor 2π); sets the mesh of each '
        'cell.',
        unit='Å⁻¹',
        minimum=0.01,
    )
    gamma_centred: bool = option(
        False,
        'Whether meshes with an even number hold Γ; the usual Monkhorst-Pack mesh does not, nor the zone corner R, '
        'where the band edges of cubic perovskites are.',
    )
    electronic_temperature: float = option(
        0.0, 'Temperature of the Fermi smearing; 0 is none. Needs diagonalisation.', unit='K', minimum=0.0
    )
    sections: dict[str, Any] = option(
        {},
        'Further CP2K input, put on top of ours: nested sections with upper-case keys, `_` for the parameter of a '
        'section, such as {"FORCE_EVAL": {"DFT": {"QS": {"METHOD": "GAPW"}}}}. All of it is part of the level.',
    )
    smallest_cell: float = option(
        10.0,
        'Shortest height of a periodic cell, times the k-points along it. A 5-atom cell at Γ alone converges to '
        'energies that mean nothing beside those of supercells; 0 allows any cell.',
        unit='Å',
        minimum=0.0,
    )
    # ---- how the SCF cycle is converged: no part of the level
    solver: str = option(
        'auto',
        '`ot` (orbital transformation: Γ only, needs a gap) or `diagonalisation`; `auto` takes OT where it can.',
        choices=('auto', 'ot', 'diagonalisation'),
    )
    max_scf: int = option(40, 'SCF cycles; with OT, those of each outer cycle.', minimum=1)
    outer_scf: int = option(10, 'Outer SCF cycles of OT.', minimum=0)
    preconditioner: str = option(
        'FULL_SINGLE_INVERSE',
        'Preconditioner of OT.',
        choices=('FULL_SINGLE_INVERSE', 'FULL_KINETIC', 'FULL_ALL', 'FULL_SINGLE', 'FULL_S_INVERSE'),
    )
    minimiser: str = option('DIIS', 'Minimiser of OT.', choices=('DIIS', 'CG'))
    mixing: float = option(0.4, 'Share of the new density in diagonalisation.', minimum=0.001, maximum=1.0)
    extra_orbitals: int = option(
        0,
        'Unoccupied orbitals of diagonalisation; 0 takes all with `electronic_temperature` and leaves the number to '
        'the other settings without. With `electronic_temperature`, another number is part of the level.',
        minimum=0,
    )
    # ---- what is done with each frame
    run: str = option(
        'energy',
        '`energy`: label the frame as it is. `relax`: relax the atoms; each step is a labelled frame. '
        '`md`: molecular dynamics; each step is a labelled frame.',
        choices=('energy', 'relax', 'md'),
    )
    max_force: float = option(0.02, 'Relaxation: largest force that may remain.', unit='eV/Å', minimum=1e-4)
    steps: int = option(200, 'Relaxation: largest number of steps; molecular dynamics: number of steps.', minimum=1)
    ensemble: str = option('NVT', 'Molecular dynamics: ensemble.', choices=('NVT', 'NVE'))
    timestep: float = option(1.0, 'Molecular dynamics: time step.', unit='fs', minimum=0.01, maximum=10.0)
    temperature: float = option(300.0, 'Molecular dynamics: temperature.', unit='K', minimum=0.1)
    seed: int = option(1, 'Molecular dynamics: seed of the velocities and the thermostat.', minimum=0)
    band_edges: bool = option(False, 'Whether to report band edges, gap and Fermi level.')
    n_unoccupied: int = option(8, 'Unoccupied states computed for the band edges.', minimum=1)

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise SettingsError(problem)


def _problems(settings: Cp2kSettings) -> list[str]:
    """Return a sentence for each combination that makes no sense."""
    kpoints, dispersion = settings.kpoints, settings.dispersion
    problems = []
    if kpoints is not None and (len(kpoints) != 3 or min(kpoints) < 1):
        problems.append(f'`kpoints` is {kpoints} but has to be three numbers from 1 on, such as [2, 2, 2].')
    if kpoints is not None and settings.kspacing is not None:
        problems.append('`kpoints` and `kspacing` say the same thing; give one of them.')
    if dispersion and settings.functional not in DISPERSIONS[dispersion]:
        known = ', '.join(DISPERSIONS[dispersion])
        problems.append(f'`dispersion` {dispersion} was parametrised for {known}, but not for {settings.functional}.')
    if settings.functional == 'SCAN' and settings.cutoff < SMALLEST_CUTOFF_OF_SCAN:
        problems.append(
            f'`cutoff` is {settings.cutoff:g} Ry, but SCAN does not converge on grids below '
            f'{SMALLEST_CUTOFF_OF_SCAN:g} Ry. Raise it, or use r2SCAN.'
        )
    if settings.family == 'uzh' and settings.basis == 'SZV':
        problems.append('BASIS_MOLOPT_UZH has no SZV basis sets; use DZVP, or the family `molopt`.')
    if settings.solver == 'ot' and (has_kpoints(settings) or settings.electronic_temperature > 0):
        problems.append('`solver` is `ot`, which knows neither k-points nor smearing; use `diagonalisation`.')
    vague = {name for name in settings.pseudopotentials.values() if elements.valence_of(name) is None}
    if vague:
        problems.append(f'`pseudopotentials`: {", ".join(sorted(vague))} has to end on its electrons, such as -q4.')
    if settings.sections and not is_input(settings.sections):
        problems.append(
            '`sections` has to be nested sections of CP2K with upper-case keys and plain values; a list repeats a '
            'keyword and holds plain values only, so that sections cannot be repeated.'
        )
    elif wrong := sorted(_no_sections(settings.sections)):
        problems.append(f'`sections`: {", ".join(wrong)} has to be a section, that is a dictionary.')
    elif settings.sections and (taken := sorted(_taken(settings.sections))):
        problems.append(f'`sections`: {", ".join(taken)} is said by other means: by the frame, or by settings of ours.')
    return problems


OUTSIDE = (
    'GLOBAL/RUN_TYPE',
    'GLOBAL/PROJECT',
    'GLOBAL/PRINT_LEVEL',
    'FORCE_EVAL/DFT/CHARGE',
    'FORCE_EVAL/DFT/MULTIPLICITY',
    'FORCE_EVAL/DFT/UKS',
    'FORCE_EVAL/DFT/LSD',
    'FORCE_EVAL/DFT/KPOINTS',
    'FORCE_EVAL/SUBSYS/CELL',
    'FORCE_EVAL/SUBSYS/COORD',
    'FORCE_EVAL/SUBSYS/KIND',
    'FORCE_EVAL/SUBSYS/TOPOLOGY',
)
"""What further sections may not say, because a frame or the reading of the output depends on it."""


def _taken(sections: dict[str, Any], path: str = '') -> list[str]:
    """Return the entries that further sections may not have."""
    found = []
    for name, entry in sections.items():
        here = f'{path}{name}'
        found += [here] if here in OUTSIDE else _taken(entry, f'{here}/') if isinstance(entry, dict) else []
    return found


SECTIONS = (
    'DFT', 'SUBSYS', 'MGRID', 'QS', 'POISSON', 'SCF', 'OT', 'OUTER_SCF', 'DIAGONALIZATION', 'MIXING', 'SMEAR', 'XC',
    'VDW_POTENTIAL', 'PAIR_POTENTIAL', 'NON_LOCAL', 'PRINT', 'MD', 'GEO_OPT', 'REFTRAJ', 'THERMOSTAT', 'CSVR',
    'XC_FUNCTIONAL',
)  # fmt: skip
"""Names of sections that we write, or look into."""


def _no_sections(sections: dict[str, Any], path: str = '') -> list[str]:
    """Return where a value or a list stands in place of a section."""
    found = []
    for name, entry in sections.items():
        here = f'{path}{name}'
        if isinstance(entry, dict):
            found += _no_sections(entry, f'{here}/')
        elif not path or name in SECTIONS:
            found.append(here)
    return found


def is_input(value: Any, key: str = 'A') -> bool:
    """Whether this can be written as CP2K input: upper-case keys, plain values, lists of these."""
    if key != key.upper() or key.startswith(('@', '$')):
        return False
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_input(entry, name) for name, entry in value.items())
    if isinstance(value, list):
        return bool(value) and all(isinstance(entry, (str, int, float)) for entry in value)
    return isinstance(value, (str, int, float))


def has_kpoints(settings: Cp2kSettings) -> bool:
    """Whether k-points are sampled, be it for some cells only."""
    return settings.kspacing is not None or (settings.kpoints or [1, 1, 1]) != [1, 1, 1]


def level(settings: Cp2kSettings) -> Level:
    """Return the level of theory; what only helps the SCF cycle to converge is no part of it."""
    pseudo = elements.pseudo_kind(settings.family, settings.functional)  # type: ignore[arg-type]
    files = '+'.join(elements.BASIS_FILES[settings.family])  # type: ignore[index]
    details: dict[str, Any] = {
        'rel_cutoff_Ry': settings.rel_cutoff,
        'n_grids': settings.n_grids,
        'eps_default': settings.eps_default,
        'eps_scf': settings.eps_scf,
        'method': 'GPW',
    }
    optional = {
        'basis_sets': settings.basis_sets,
        'pseudopotentials': settings.pseudopotentials,
        'sections': settings.sections,
        'electronic_temperature_K': settings.electronic_temperature,
        'extra_orbitals': settings.extra_orbitals if settings.electronic_temperature else 0,
    }
    return Level(
        labeller='cp2k',
        functional=settings.functional,
        cutoff=f'{settings.cutoff:g} Ry',
        basis=f'{settings.basis}-MOLOPT ({files}), GTH-{pseudo}',
        dispersion=settings.dispersion,
        kpoints=kpoints_text(settings),
        charge='total charge of the cell',
        spin='multiplicity of the frame; lowest where it has none; restricted for singlets',
        details=details | {name: value for name, value in optional.items() if value},
    )


def kpoints_text(settings: Cp2kSettings) -> str:
    """Return how the Brillouin zone is sampled, in words."""
    if not has_kpoints(settings):
        return 'Gamma'
    differs = settings.kspacing is not None or any(number % 2 == 0 for number in settings.kpoints or ())
    centred = ', Gamma-centred' if settings.gamma_centred and differs else ''
    if settings.kspacing is not None:
        return f'spacing {settings.kspacing:g} 1/Å{centred}'
    return 'x'.join(map(str, settings.kpoints or ())) + centred


# ---------------------------------------------------------------------- what follows for a frame


def mesh_of(settings: Cp2kSettings, frame: Frame) -> tuple[int, int, int]:
    """Return the k-point mesh of a frame; (1, 1, 1) is Γ alone."""
    if not frame.pbc.all():
        return (1, 1, 1)
    if settings.kspacing is None:
        first, second, third = settings.kpoints or (1, 1, 1)
        return (first, second, third)
    reciprocal = 2 * math.pi / heights(frame)
    first, second, third = (max(1, math.ceil(length / settings.kspacing - 1e-9)) for length in reciprocal.tolist())
    return (first, second, third)


def heights(frame: Frame) -> Any:
    """Return the distances between opposite faces of the cell in Å, shape (3,)."""
    return 1 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0)


def uses_ot(settings: Cp2kSettings, frame: Frame) -> bool:
    """Whether orbitals are found by orbital transformation."""
    if mesh_of(settings, frame) != (1, 1, 1) or settings.electronic_temperature > 0:
        return False
    return settings.solver != 'diagonalisation'


def names_of(settings: Cp2kSettings, element: str) -> tuple[str | None, str | None]:
    """Return the basis set and the pseudopotential of an element; None where there is none."""
    family, functional = settings.family, settings.functional
    basis = elements.basis_name(family, settings.basis, functional, element)  # type: ignore[arg-type]
    potential = elements.potential_name(family, functional, element)  # type: ignore[arg-type]
    return settings.basis_sets.get(element, basis), settings.pseudopotentials.get(element, potential)


def n_electrons(settings: Cp2kSettings, frame: Frame) -> int:
    """Return the number of electrons that are treated."""
    names = {element: names_of(settings, element)[1] for element in set(frame.symbols)}
    return sum(elements.valence_of(names[element] or '') or 0 for element in frame.symbols) - (frame.charge or 0)


def multiplicity_of(settings: Cp2kSettings, frame: Frame) -> int:
    """Return 2S + 1: that of the frame, else the lowest that the number of electrons allows."""
    return frame.spin if frame.spin is not None else 1 + n_electrons(settings, frame) % 2


def refusal(settings: Cp2kSettings, frame: Frame) -> str | None:
    """Return a sentence where a frame cannot be labelled at these settings; None where it may be."""
    return (
        _refuse_elements(settings, frame)
        or _refuse_spin(settings, frame)
        or _refuse_boundary(frame)
        or _refuse_small_cell(settings, frame)
    )


def _refuse_elements(settings: Cp2kSettings, frame: Frame) -> str | None:
    names = {element: names_of(settings, element) for element in sorted(set(frame.symbols))}
    lacking = [element for element, pair in names.items() if None in pair]
    if not lacking:
        return None
    return (
        f'there is no {settings.basis} basis set with its pseudopotential for {", ".join(lacking)} in the family '
        f'`{settings.family}`. Name these by `basis_sets` and `pseudopotentials`, or use another `basis`.'
    )


def _refuse_spin(settings: Cp2kSettings, frame: Frame) -> str | None:
    electrons, multiplicity = n_electrons(settings, frame), multiplicity_of(settings, frame)
    if electrons < 1:
        return f'a charge of {frame.charge} leaves {electrons} electrons.'
    if (electrons + multiplicity) % 2 == 0 or multiplicity > electrons + 1:
        allowed = 'odd' if electrons % 2 == 0 else 'even'
        return (
            f'{electrons} valence electrons (charge {frame.charge or 0}) cannot have the multiplicity {multiplicity}; '
            f'it has to be {allowed} and at most {electrons + 1}. Mend `spin` or `charge` of the frame.'
        )
    return None


def _refuse_boundary(frame: Frame) -> str | None:
    if frame.pbc.all():
        return None
    if frame.pbc.any():
        return (
            'it is periodic in some directions only. Make it periodic in all three with vacuum around the slab or '
            'wire, or in none.'
        )
    if abs(float(np.linalg.det(frame.cell))) < 1e-6:
        return (
            'it is not periodic and has no cell. Put it into a box with 5 Å of vacuum on all sides: '
            '`atoms.center(vacuum=5)`.'
        )
    return _refuse_box(frame)


def _refuse_box(frame: Frame) -> str | None:
    """Refuse boxes in which the density of an isolated system does not fade before the faces."""
    cell = frame.cell
    if np.abs(cell - np.diag(np.diag(cell))).max() > 1e-9:
        return 'it is not periodic, and its box is not rectangular along x, y and z, which the Poisson solver needs.'
    extent = np.ptp(frame.positions, axis=0)
    room = float((np.diag(cell) - extent).min()) / 2
    if room < SMALLEST_VACUUM:
        return (
            f'it is not periodic, and its box leaves {room:.2f} Å of vacuum, less than {SMALLEST_VACUUM:g} Å. '
            'Make the box larger: `atoms.center(vacuum=5)`.'
        )
    if np.ptp(np.diag(cell)) > 1e-9 and (np.diag(cell) < 2 * extent).any():
        return (
            'it is not periodic, and its box is neither a cube, which wavelets need, nor twice as long as the system '
            'along each direction, which the Martyna-Tuckerman solver needs. A cube is cheaper.'
        )
    return None


SMALLEST_VACUUM = 4.0
"""In Å: between an isolated system and the faces of its box."""


def _refuse_small_cell(settings: Cp2kSettings, frame: Frame) -> str | None:
    if not frame.pbc.all():
        return None
    reach = heights(frame) * np.array(mesh_of(settings, frame))
    if float(reach.min()) >= settings.smallest_cell:
        return None
    return (
        f'cell times k-points reach {reach.min():.2f} Å along one direction, less than {settings.smallest_cell:g} Å: '
        'its energy would not be comparable with those of larger cells. Set `kpoints` or `kspacing`, label a '
        'supercell, or set `smallest_cell` to 0.'
    )
