"""What CP2K says that it used, against what it was asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ase.geometry import cell_to_cellpar

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.labellers.cp2k.inputs import Sections, shift_of
from aiida_perovmlip.labellers.cp2k.output import Header
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings, n_electrons

PRINTED_POSITION = 2e-6
"""In Å: positions, lengths and angles are printed to six digits."""

PRINTED_KELVIN = 0.06
"""In K: temperatures are printed to one digit."""

PRINTED_SHIFT = 6e-5
"""Shifts of meshes are printed to four digits."""

FUNCTIONALS = {
    'PBE': (['PBE'], ''),
    'PBEsol': (['PBE'], 'PBEsol'),
    'revPBE': (['PBE'], 'revPBE'),
    'SCAN': (['MGGA_X_SCAN', 'MGGA_C_SCAN'], ''),
    'r2SCAN': (['MGGA_X_R2SCAN', 'MGGA_C_R2SCAN'], ''),
}
"""Names that CP2K prints for a functional, and a word of what it cites."""

DISPERSION_WORDS = {'D3': 'Zero Damping', 'D3BJ': 'BJ Damping', 'rVV10': 'RVV10'}


def mismatches(header: Header, sections: Sections, settings: Cp2kSettings, frame: Frame) -> list[str]:
    """Return what ran at other settings than asked, as clauses; what CP2K does not print is not held against it."""
    clauses = []
    for name, asked, used in (*_numbers(header, sections), *_words(header, sections, settings, frame)):
        if asked is not None and used is not None and not _same(asked, used):
            clauses.append(f'{name} was {_shown(used)} instead of {_shown(asked)}')
    return [*clauses, *_structure(header, frame)]


def _numbers(header: Header, sections: Sections) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, asked and used value of the numbers, from the input as it was written."""
    dft = sections['FORCE_EVAL']['DFT']
    grid, scf = dft['MGRID'], dft['SCF']
    yield 'the cutoff in Ry', _plain(grid.get('CUTOFF')), header.cutoff
    yield 'the relative cutoff in Ry', _plain(grid.get('REL_CUTOFF')), header.rel_cutoff
    yield 'the number of grids', _plain(grid.get('NGRIDS')), header.n_grids
    yield 'EPS_SCF', _plain(scf.get('EPS_SCF')), header.eps_scf
    yield 'the charge', _plain(dft.get('CHARGE')), header.charge
    yield 'the multiplicity', _plain(dft.get('MULTIPLICITY')), header.multiplicity


def _words(header: Header, sections: Sections, settings: Cp2kSettings, frame: Frame) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, asked and used value of everything else."""
    dft = sections['FORCE_EVAL']['DFT']
    yield 'the spin treatment', _spin(dft.get('UKS')), _spin(header.unrestricted)
    yield 'the number of electrons', n_electrons(settings, frame), _electrons(header, dft.get('UKS'))
    yield 'the periodicity', 'XYZ' if frame.pbc.all() else 'NONE', header.periodicity or None
    yield 'the method', dft['QS'].get('METHOD'), header.method or None
    yield from _kpoints(header, dft.get('KPOINTS'))
    for kind in sections['FORCE_EVAL']['SUBSYS']['KIND']:
        yield f'the basis set of {kind["_"]}', kind.get('BASIS_SET'), header.basis.get(kind['_'])
        yield f'the pseudopotential of {kind["_"]}', kind.get('POTENTIAL'), header.potentials.get(kind['_'])
    if 'XC' not in settings.sections.get('FORCE_EVAL', {}).get('DFT', {}) and header.functional:
        yield from _functional(header, settings)
    yield from _smearing(header, dft['SCF'].get('SMEAR', {}))


def _smearing(header: Header, asked: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    if header.eps_scf is not None:
        yield 'the smearing', asked.get('METHOD', 'none'), header.smearing or 'none'
    words = str(asked.get('ELECTRONIC_TEMPERATURE', '')).split()
    if words[:1] == ['[K]'] and header.electronic_temperature is not None:
        kelvin, used = float(words[1]), header.electronic_temperature
        yield 'the electronic temperature in K', kelvin, kelvin if abs(kelvin - used) < PRINTED_KELVIN else used


def _kpoints(header: Header, asked: Mapping[str, Any] | None) -> Iterator[tuple[str, Any, Any]]:
    """Yield the mesh and how many k-points of it were computed: all of them, or one of each pair k, -k."""
    mesh = None if asked is None else tuple(int(word) for word in str(asked.get('SCHEME')).split()[1:4])
    if mesh is None and header.method:
        yield 'the k-point mesh', 'Γ alone', 'Γ alone' if header.mesh is None else header.mesh
    if mesh is not None and header.method:
        yield 'the k-point mesh', mesh, header.mesh or 'Γ alone'
    if asked is not None and header.scheme:
        words = str(asked.get('SCHEME')).split()
        yield 'the scheme of k-points', words[0].upper(), header.scheme.upper()
        shift = tuple(float(word) for word in words[4:7]) or (0.0, 0.0, 0.0)
        used = header.shift or (0.0, 0.0, 0.0)
        yield (
            'the shift of the k-points',
            shift,
            shift if np.allclose(shift, used, rtol=0, atol=PRINTED_SHIFT) else used,
        )
    if mesh is not None and header.n_kpoints is not None:
        whole = math.prod(mesh)
        fits = whole / 2 <= header.n_kpoints <= whole
        yield 'the number of k-points', whole, whole if fits else header.n_kpoints


def _functional(header: Header, settings: Cp2kSettings) -> Iterator[tuple[str, Any, Any]]:
    names, word = FUNCTIONALS[settings.functional]
    yield 'the functional', names, header.functional
    cited = ' '.join(header.references)
    variant = next((name for name in ('PBEsol', 'revPBE') if name in cited), '')
    if 'PBE' in names:
        yield 'the variant of PBE', word or 'PBE', variant or 'PBE'
    text = ' '.join(header.dispersion)
    used = next((name for name, word in DISPERSION_WORDS.items() if word in text), 'none')
    yield 'the dispersion correction', settings.dispersion or 'none', used


def _spin(unrestricted: Any) -> str | None:
    return {True: 'unrestricted', False: 'restricted'}.get(unrestricted) if unrestricted is not None else None


def _electrons(header: Header, unrestricted: Any) -> int | None:
    """Return the sum of both spins; a restricted calculation prints one number for both."""
    expected = 2 if unrestricted else 1
    return sum(header.electrons[:expected]) if len(header.electrons) >= expected else None


def _plain(value: Any) -> Any:
    """Return a number; None for text, such as one with a unit of its own, which cannot be compared."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _same(asked: Any, used: Any) -> bool:
    if isinstance(asked, (int, float)) and isinstance(used, (int, float)):
        return math.isclose(asked, used, rel_tol=1e-2 if isinstance(used, float) and asked < 1e-2 else 1e-6)
    return bool(asked == used)


def _shown(value: Any) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)


def _structure(header: Header, frame: Frame) -> list[str]:
    """Return what is wrong with the atoms and the cell that CP2K says it starts from."""
    clauses = []
    if header.atoms:
        expected = frame.positions + shift_of(frame)
        if [element for element, _ in header.atoms] != frame.symbols:
            clauses.append('the elements of the atoms were others')
        elif np.abs(np.array([row for _, row in header.atoms]) - expected).max() > PRINTED_POSITION:
            clauses.append('the positions of the atoms were others')
    cell = header.cell
    if cell is not None and np.abs(cell - cell_to_cellpar(frame.cell)).max() > PRINTED_POSITION:
        clauses.append('the cell was another')
    return clauses
