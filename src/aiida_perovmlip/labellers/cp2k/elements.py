"""Which basis sets and pseudopotentials CP2K's own files hold for which element, and how many electrons remain."""

from __future__ import annotations

import re
from typing import Literal

Size = Literal['SZV', 'DZVP', 'TZVP', 'TZV2P']
Family = Literal['molopt', 'uzh']

VALENCE: dict[str, int] = {
    **{'H': 1, 'He': 2, 'Li': 3, 'Be': 4, 'B': 3, 'C': 4, 'N': 5, 'O': 6, 'F': 7, 'Ne': 8, 'Na': 9, 'Mg': 10},
    **{'Al': 3, 'Si': 4, 'P': 5, 'S': 6, 'Cl': 7, 'Ar': 8, 'K': 9, 'Ca': 10, 'Sc': 11, 'Ti': 12, 'V': 13, 'Cr': 14},
    **{'Mn': 15, 'Fe': 16, 'Co': 17, 'Ni': 18, 'Cu': 11, 'Zn': 12, 'Ga': 13, 'Ge': 4, 'As': 5, 'Se': 6, 'Br': 7},
    **{'Kr': 8, 'Rb': 9, 'Sr': 10, 'Y': 11, 'Zr': 12, 'Nb': 13, 'Mo': 14, 'Tc': 15, 'Ru': 16, 'Rh': 17, 'Pd': 18},
    **{'Ag': 11, 'Cd': 12, 'In': 13, 'Sn': 4, 'Sb': 5, 'Te': 6, 'I': 7, 'Xe': 8, 'Cs': 9, 'Ba': 10, 'La': 11},
    **{'Ce': 12, 'Pr': 13, 'Nd': 14, 'Pm': 15, 'Sm': 16, 'Eu': 17, 'Gd': 18, 'Tb': 19, 'Dy': 20, 'Ho': 21, 'Er': 22},
    **{'Tm': 23, 'Yb': 24, 'Lu': 25, 'Hf': 12, 'Ta': 13, 'W': 14, 'Re': 15, 'Os': 16, 'Ir': 17, 'Pt': 18, 'Au': 11},
    **{'Hg': 12, 'Tl': 13, 'Pb': 4, 'Bi': 5, 'Po': 6, 'At': 7, 'Rn': 8},
}
"""Electrons that the pseudopotential of each element leaves, as in `GTH-PBE-qN`, where a MOLOPT basis belongs to it."""

_LANTHANIDES = frozenset(('La', 'Ce', 'Pr', 'Nd', 'Pm', 'Sm', 'Eu', 'Gd', 'Tb', 'Dy', 'Ho', 'Er', 'Tm', 'Yb', 'Lu'))
_MAIN = frozenset(VALENCE) - _LANTHANIDES
_LIGHT = frozenset(('H', 'C', 'N', 'O', 'F', 'Si', 'P', 'S', 'Cl'))
_UCL_TRIPLE = frozenset(VALENCE) - _LIGHT - {'He', 'Ne', 'Na', 'Mg', 'Ar', 'Kr', 'Xe', 'Rn'}

_NAMES: dict[tuple[Family, Size], tuple[tuple[str, frozenset[str]], ...]] = {
    ('molopt', 'SZV'): (('SZV-MOLOPT-SR-GTH', _MAIN | _LANTHANIDES - {'La'}),),
    ('molopt', 'DZVP'): (('DZVP-MOLOPT-SR-GTH', _MAIN | _LANTHANIDES),),
    ('molopt', 'TZVP'): (('TZVP-MOLOPT-GTH', _LIGHT), ('TZVP-MOLOPT-SR-GTH', _UCL_TRIPLE)),
    ('molopt', 'TZV2P'): (('TZV2P-MOLOPT-GTH', _LIGHT), ('TZV2P-MOLOPT-SR-GTH', _UCL_TRIPLE)),
    ('uzh', 'SZV'): (),
    ('uzh', 'DZVP'): (('DZVP-MOLOPT-{pseudo}-GTH', _MAIN),),
    ('uzh', 'TZVP'): (('TZVP-MOLOPT-{pseudo}-GTH', _MAIN),),
    ('uzh', 'TZV2P'): (('TZV2P-MOLOPT-{pseudo}-GTH', _MAIN),),
}

BASIS_FILES: dict[Family, tuple[str, ...]] = {
    'molopt': ('BASIS_MOLOPT', 'BASIS_MOLOPT_UCL'),
    'uzh': ('BASIS_MOLOPT_UZH',),
}
POTENTIAL_FILES: dict[Family, str] = {'molopt': 'GTH_POTENTIALS', 'uzh': 'POTENTIAL_UZH'}


def pseudo_kind(family: Family, functional: str) -> str:
    """Return for which functional the pseudopotentials were made; only the UZH files have others than PBE."""
    return 'SCAN' if family == 'uzh' and 'SCAN' in functional else 'PBE'


def basis_name(family: Family, size: Size, functional: str, element: str) -> str | None:
    """Return the full name of a basis set, such as `DZVP-MOLOPT-SR-GTH-q4`; None where the files hold none."""
    for pattern, elements in _NAMES[family, size]:
        if element in elements:
            return f'{pattern.format(pseudo=pseudo_kind(family, functional))}-q{VALENCE[element]}'
    return None


def potential_name(family: Family, functional: str, element: str) -> str | None:
    """Return the full name of a pseudopotential, such as `GTH-PBE-q4`; None where the files hold none."""
    if element not in VALENCE or (family == 'uzh' and element in _LANTHANIDES):
        return None
    return f'GTH-{pseudo_kind(family, functional)}-q{VALENCE[element]}'


def valence_of(potential: str) -> int | None:
    """Return how many electrons a pseudopotential leaves, from the end of its name; None where it does not say."""
    match = re.search(r'-q(\d+)$', potential)
    return int(match[1]) if match else None
