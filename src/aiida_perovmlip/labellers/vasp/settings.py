"""What may be asked of VASP, and the level of theory that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import SettingsError, option

FUNCTIONALS: dict[str, dict[str, Any]] = {
    'PBE': {'gga': 'PE'},
    'PBEsol': {'gga': 'PS'},
    'revPBE': {'gga': 'RE'},
    'RPBE': {'gga': 'RP'},
    'SCAN': {'metagga': 'SCAN'},
    'r2SCAN': {'metagga': 'R2SCAN'},
    'PBE0': {'gga': 'PE', 'lhfcalc': True},
    'HSE06': {'gga': 'PE', 'lhfcalc': True, 'hfscreen': 0.2},
}
"""The tags of each functional: always written, so that it is never a POTCAR that decides."""

DISPERSIONS: dict[str, dict[str, dict[str, Any]]] = {
    'D3': {name: {'ivdw': 11} for name in ('PBE', 'PBEsol', 'revPBE', 'RPBE', 'PBE0', 'HSE06')},
    'D3BJ': {name: {'ivdw': 12} for name in ('PBE', 'PBEsol', 'revPBE', 'RPBE', 'PBE0', 'HSE06')},
    'rVV10': {
        # Peng et al., Phys. Rev. X 6, 041005 (2016) and Ning et al., Phys. Rev. B 106, 075422 (2022)
        'SCAN': {'luse_vdw': True, 'bparam': 15.7, 'cparam': 0.0093},
        'r2SCAN': {'luse_vdw': True, 'bparam': 11.95, 'cparam': 0.0093},
    },
}
"""The tags of each dispersion correction by the functionals that it was parametrised for."""

SMEARINGS = {'gaussian': 0, 'fermi': -1, 'tetrahedron': -5}

SILENT = frozenset(
    {'system', 'nwrite', 'lwave', 'lcharg', 'lvtot', 'lvhar', 'lelf', 'lorbit', 'nedos', 'emin', 'emax', 'lh5'}
    | {'ncore', 'npar', 'kpar', 'nsim', 'lplane', 'lscalapack', 'lscalu', 'lasync'}
    | {'algo', 'ialgo', 'nelm', 'nelmin', 'nelmdl', 'time', 'amix', 'bmix', 'amix_mag', 'bmix_mag', 'amin', 'maxmix'}
    | {'ibrion', 'nsw', 'potim', 'isif', 'ediffg', 'mdalgo', 'smass', 'tebeg', 'teend', 'pmass'}
    | {'langevin_gamma', 'langevin_gamma_l', 'andersen_prob', 'random_seed', 'nblock', 'kblock'}
)
"""Tags of `incar` that are no part of the level: output, parallel running, how the SCF cycle and the atoms move."""

DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(('lsorbit', 'lnoncollinear', 'lspiral', 'ldipol', 'lmono', 'addgrid', 'lsol', 'ldau'), False),
    **dict.fromkeys(('lhfone', 'lrhfcalc', 'lthomas', 'lmodelhf', 'lfockaedft', 'nlspline'), False),
    **dict.fromkeys(('pstress', 'idipol', 'efield', 'voskown', 'i_constrained_m'), 0),
    **dict.fromkeys(('nkredx', 'nkredy', 'nkredz', 'epsilon'), 1),
    **{'precfock': '', 'lmaxmix': 2, 'lmaxpaw': -100, 'gga_compat': True, 'isym': 2, 'symprec': 1e-5},
    **{'istart': 0, 'icharg': 2, 'dfield': [0, 0, 0]},
}
"""What VASP uses where nobody says anything, of tags that may change a label."""

MINIMISERS = frozenset({'normal', 'veryfast', 'fast', 'all', 'damped', 'conjugate'})
"""Values of ALGO that make an SCF cycle."""

MINIMISERS_BY_NUMBER = frozenset({38, 48, 53, 54, 58, 68})
"""The same as IALGO."""

OWNED = {
    'encut': 'cutoff',
    'ediff': 'energy_tolerance',
    'ispin': 'spin_polarised',
    'nupdown': '`spin` of the frame',
    'nelect': '`charge` of the frame',
    'kspacing': 'kspacing',
    'kgamma': 'gamma_centred',
    'pomass': 'masses',
}
"""Tags that `incar` may not have, since another setting, or the frame, says the same."""


@dataclass(frozen=True)
class VaspSettings:
    """Settings of VASP: the level of theory, how the SCF cycle is converged, and whether atoms move."""

    # ---- the level of theory
    functional: str = option('PBE', 'Density functional.', choices=tuple(FUNCTIONALS))
    dispersion: str = option(
        '',
        'Dispersion correction: D3 with zero damping, D3 with Becke-Johnson damping, or the rVV10 functional; empty '
        'for none. Versions of VASP that read `vdw_kernel.bindat` for rVV10 get it by the input `vdw_kernel`.',
        choices=('', *DISPERSIONS),
    )
    cutoff: float = option(520.0, 'Cutoff of the plane waves (ENCUT).', unit='eV', minimum=50.0)
    potential_family: str = option(
        'PBE.54', 'Family of POTCAR files in AiiDA: `aiida-vasp potcar uploadfamily` makes one of your licensed files.'
    )
    potential_mapping: dict[str, str] = option(
        {
            **{name: name for name in ('H', 'C', 'N', 'O', 'F', 'Si', 'P', 'S', 'Cl', 'Br', 'I', 'Pb')},
            **{'Li': 'Li_sv', 'Na': 'Na_pv', 'K': 'K_sv', 'Rb': 'Rb_sv', 'Cs': 'Cs_sv', 'Ge': 'Ge_d', 'Sn': 'Sn_d'},
        },
        'POTCAR of each element: {"Pb": "Pb_d", "I": "I"}. Elements that are not here are refused.',
    )
    precision: str = option('Accurate', 'Grids and augmentation (PREC).', choices=('Accurate', 'Normal', 'Single'))
    energy_tolerance: float = option(
        1e-6, 'Convergence of the SCF cycle (EDIFF).', unit='eV', minimum=1e-12, maximum=1e-2
    )
    smearing: str = option('gaussian', 'Smearing of the occupations.', choices=tuple(SMEARINGS))
    smearing_width: float = option(0.05, 'Width of the smearing (SIGMA).', unit='eV', minimum=1e-4)
    kpoints: list[int] | None = option(None, 'k-point mesh, three numbers; without it, or with [1, 1, 1], Γ only.')
    kspacing: float | None = option(
        None,
        'Largest distance of k-points along each reciprocal vector, which has the factor 2π as in KSPACING of VASP '
        '(but not as in `kpoints_spacing` of aiida-vasp); sets the mesh of each cell, which is written to KPOINTS.',
        unit='Å⁻¹',
        minimum=0.01,
    )
    gamma_centred: bool = option(
        True,
        'Whether meshes with an even number hold Γ; a Monkhorst-Pack mesh does not, nor the zone corner R, where the '
        'band edges of cubic perovskites are.',
    )
    spin_polarised: bool = option(
        False, 'Whether frames without a multiplicity are spin-polarised too; those with one above 1 always are.'
    )
    aspherical: bool = option(True, 'Aspherical terms inside the PAW spheres (LASPH).')
    incar: dict[str, Any] = option(
        {},
        'Further INCAR tags, put on top of ours: {"lreal": "Auto"}; null removes a tag. All that may change a label '
        'are part of the level.',
    )
    # ---- how the SCF cycle is converged: no part of the level
    algorithm: str = option(
        'Normal',
        'Electronic minimisation (ALGO).',
        choices=('Normal', 'Fast', 'VeryFast', 'All', 'Damped', 'Conjugate'),
    )
    max_scf: int = option(100, 'Largest number of SCF steps (NELM); a label that needs all of them counts for nothing.')
    # ---- what is done with each frame
    run: str = option(
        'energy',
        '`energy`: label the frame as it is. `relax`: relax it; each step is a labelled frame. `md`: molecular '
        'dynamics; each step is a labelled frame, with `ml` each that was computed from first principles.',
        choices=('energy', 'relax', 'md'),
    )
    steps: int = option(200, 'Relaxation: largest number of steps; molecular dynamics: number of steps.', minimum=1)
    max_force: float = option(0.02, 'Relaxation: largest force that may remain.', unit='eV/Å', minimum=1e-4)
    vary_cell: bool = option(
        False,
        'Relaxation: relax the cell too. The plane waves stay those of the first cell, so take a cutoff at which the '
        'stress is converged.',
    )
    ensemble: str = option(
        'NVT', 'Molecular dynamics: NVE, or NVT or NPT by Langevin dynamics.', choices=('NVE', 'NVT', 'NPT')
    )
    timestep: float = option(1.0, 'Molecular dynamics: time step (POTIM).', unit='fs', minimum=0.01, maximum=10.0)
    temperature: float = option(300.0, 'Molecular dynamics: temperature.', unit='K', minimum=0.1)
    last_temperature: float | None = option(
        None, 'Molecular dynamics: temperature at the end, where it changes.', unit='K', minimum=0.1
    )
    friction: float = option(
        3.0, 'Molecular dynamics: friction of the atoms and, for NPT, of the cell.', unit='1/ps', minimum=0.0
    )
    masses: dict[str, float] = option({}, 'Molecular dynamics: masses that are not the usual ones, in u: {"H": 4.0}.')
    seed: int = option(1, 'Molecular dynamics: seed of velocities and thermostat.', minimum=0, maximum=900_000_000)
    ml: dict[str, Any] = option(
        {},
        'Molecular dynamics: tags of the on-the-fly machine learning of VASP, such as {"ml_mode": "train"}; '
        'ML_LMLFF is set. What it learned before comes by the input `ml_ab`.',
    )

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise SettingsError(problem)


def _problems(settings: VaspSettings) -> list[str]:
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
    algorithm = str(settings.incar.get('algo') or settings.algorithm)
    if settings.functional in ('PBE0', 'HSE06') and algorithm.lower() in ('fast', 'veryfast'):
        problems.append(f'`algorithm` is {algorithm}, which hybrid functionals cannot use; take All or Normal.')
    if settings.max_scf < 2:
        problems.append(f'`max_scf` is {settings.max_scf}, but the last step of an SCF cycle has to be left over.')
    if settings.ml and settings.run != 'md':
        problems.append(f'`ml` is for molecular dynamics, but `run` is {settings.run!r}.')
    return problems + _tag_problems(settings)


def _tag_problems(settings: VaspSettings) -> list[str]:
    """Return a sentence for each tag that VASP would pass over in silence, or that contradicts a setting."""
    try:
        from parsevasp.constants import incar_tags
    except ImportError:  # without aiida-vasp nothing can be run; settings of stored nodes are read all the same
        incar_tags = dict.fromkeys(settings.incar)
    problems = []
    for tag, value in settings.incar.items():
        if tag != tag.lower():
            problems.append(f'`incar` has {tag!r}; write tags in lower case.')
        elif tag.startswith('ml_'):
            problems.append(f'`incar` has {tag!r}; machine learning goes into `ml`.')
        elif tag in OWNED:
            problems.append(f'`incar` has {tag!r}; this is said by {OWNED[tag]}.')
        elif tag not in incar_tags:
            problems.append(f'`incar` has {tag!r}, which VASP does not know and would pass over in silence.')
        elif not _is_plain(value):
            problems.append(f'`incar` has {value!r} for {tag!r}; use numbers, text, booleans and lists of these.')
        elif value is not None and not _LABELS_IF.get(tag, _always)(value):
            problems.append(f'`incar` has {value!r} for {tag!r}, which gives no labels: {_NO_LABELS[tag]}')
    strange = [tag for tag in settings.ml if not tag.startswith('ml_')]
    if strange:
        problems.append(f'`ml` has {strange[0]!r}; its tags begin with `ml_`, in lower case.')
    return problems


def _always(_: Any) -> bool:
    return True


_LABELS_IF: dict[str, Callable[[Any], bool]] = {
    'pstress': lambda value: same_value(value, 0),
    'algo': lambda value: str(value).strip().lower() in MINIMISERS,
    'ialgo': lambda value: value in MINIMISERS_BY_NUMBER,
    'isif': lambda value: value not in (0, 1),
    'icharg': lambda value: same_value(value, 2),
    'istart': lambda value: same_value(value, 0),
}
"""Tags that have to have certain values, so that what comes out is a label."""

_NO_LABELS = {
    'pstress': 'energies and stresses would be those under an outer pressure. Leave it out.',
    'algo': 'it does not minimise the energy of the electrons. Take Normal, VeryFast, Fast, All, Damped or Conjugate.',
    'ialgo': 'it does not minimise the energy of the electrons. Set `algorithm` instead.',
    'isif': 'there would be no whole stress. Leave it out; `vary_cell` and `ensemble` say what moves.',
    'icharg': 'there is no charge density to start from, and one that is held fixed makes no label. Leave it out.',
    'istart': 'there are no wave functions to start from. Leave it out.',
}


def _is_plain(value: Any) -> bool:
    """Whether this can be written as one value of INCAR."""
    if isinstance(value, list):
        return all(isinstance(entry, (str, int, float)) for entry in value)
    return value is None or isinstance(value, (str, int, float))


def level_tags(settings: VaspSettings) -> dict[str, Any]:
    """Return the tags of INCAR that belong to the level of theory."""
    dispersion = DISPERSIONS[settings.dispersion][settings.functional] if settings.dispersion else {}
    return {
        **FUNCTIONALS[settings.functional],
        **dispersion,
        'encut': settings.cutoff,
        'prec': settings.precision,
        'ediff': settings.energy_tolerance,
        'ismear': SMEARINGS[settings.smearing],
        'sigma': settings.smearing_width,
        'lasph': settings.aspherical,
        'lreal': False,
    }


def departures(tags: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tags that may change a label and have another value than the usual one, or no usual one."""
    return {
        tag: value
        for tag, value in tags.items()
        if tag not in SILENT and not (tag in usual and same_value(value, usual[tag]))
    }


def same_value(one: Any, other: Any) -> bool:
    """Whether two values of a tag are one for VASP, which does not tell upper from lower case."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return _letter(one) == _letter(other)
    if isinstance(one, str) and isinstance(other, str):
        return one.strip().lower() == other.strip().lower()
    return bool(one == other)


def _letter(value: Any) -> str:
    """Return T or F for a truth value in any spelling."""
    return str(value).strip('. ').upper()[:1]


def level_of(settings: VaspSettings, basis: str = '') -> Level:
    """Return the level of theory; what only helps the SCF cycle to converge is no part of it.

    :param basis: the POTCARs themselves, by `potentials.basis_of`; without these, they are known by name alone.
    """
    named = ', '.join(settings.potential_mapping[element] for element in sorted(settings.potential_mapping))
    written = level_tags(settings)
    usual = {**DEFAULTS, **({'isym': 3} if written.get('lhfcalc') else {}), **written}
    overrides = departures(settings.incar, usual)
    details: dict[str, Any] = {
        # forces and stress are derivatives of the free energy, not of the energy extrapolated to no smearing
        'energy': 'free energy',
        'ediff_eV': settings.energy_tolerance,
        'ismear': SMEARINGS[settings.smearing],
        'sigma_eV': settings.smearing_width,
        'prec': settings.precision.lower(),
        'lasph': settings.aspherical,
        'lreal': 'F',
    }
    if 'lreal' in overrides:
        details['lreal'] = _letter(overrides.pop('lreal') or 'F')
    return Level(
        labeller='vasp',
        functional=settings.functional,
        cutoff=f'{settings.cutoff:g} eV',
        basis=basis or f'PAW {settings.potential_family}: {named}',
        dispersion=settings.dispersion,
        kpoints=kpoints_text(settings),
        charge='total charge of the cell',
        spin='polarised' if settings.spin_polarised else 'multiplicity of the frame; restricted where it has none',
        details=details | ({'incar': overrides} if overrides else {}),
    )


def kpoints_text(settings: VaspSettings) -> str:
    """Return how the Brillouin zone is sampled, in words."""
    centred = ', Gamma-centred' if settings.gamma_centred else ''
    if settings.kspacing is not None:
        return f'spacing {settings.kspacing:g} 1/Å{centred}'
    mesh = settings.kpoints or [1, 1, 1]
    if mesh == [1, 1, 1]:
        return 'Gamma'
    # a mesh whose numbers are all odd holds Γ anyhow
    return 'x'.join(map(str, mesh)) + (centred if any(n % 2 == 0 for n in mesh) else '')
