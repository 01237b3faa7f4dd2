"""Whether VASP ran what it was asked for: its own account, compared with INCAR, KPOINTS, POTCAR and the frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.labellers.vasp.vasprun import Header, Step

ACCOUNTED = frozenset(
    {'encut', 'ediff', 'prec', 'ismear', 'sigma', 'gga', 'metagga', 'lhfcalc', 'hfscreen', 'aexx', 'luse_vdw', 'lasph'}
    | {'lreal', 'ispin', 'nupdown', 'nelect', 'nsw', 'ibrion', 'isif', 'potim', 'ldau', 'isym'}
)
"""Tags that VASP always gives an account of and has no reason to change; METAGGA as it was read, not as it was used."""

COMPARED = ACCOUNTED | {'bparam', 'cparam', 'ivdw', 'ediffg'}
"""Tags that are compared where VASP gives an account of them, which depends on its version."""

TOLERANCE = 1e-5
"""Relative; vasprun.xml has eight decimals."""

FARTHEST = 1e-4
"""In Å: how far atoms may be from where they were put."""


def differences(
    header: Header,
    incar: Mapping[str, Any],
    mesh: tuple[int, int, int],
    shift: tuple[float, float, float],
    electrons: float,
    titles: Mapping[str, str],
) -> list[str]:
    """Return a sentence for each thing that VASP did otherwise.

    :param electrons: how many it should have.
    :param titles: title of the POTCAR of each element.
    """
    found = [_differ(tag, incar[tag], header.value(tag)) for tag in sorted(COMPARED & set(incar))]
    sentences = [sentence for sentence in found if sentence]
    count = header.value('nelect')
    if not isinstance(count, (int, float)) or abs(count - electrons) > 1e-4:
        sentences.append(f'it has {count} electrons instead of {electrons:g} (NELECT)')
    if header.mesh != mesh:
        sentences.append(f'its k-point mesh is {header.mesh or "a list"} instead of {mesh}')
    elif not np.allclose(header.shift, shift, atol=1e-6):
        sentences.append(f'its k-point mesh is shifted by {header.shift} instead of {shift}')
    used = {kind.element: kind.title for kind in header.species}
    for element in sorted(used):
        asked = ' '.join(titles.get(element, '').split())
        if not used[element] or not asked.startswith(used[element]):  # long titles are cut
            sentences.append(f'its POTCAR of {element} is {used[element]!r} instead of {asked!r}')
    return sentences


def unchecked(header: Header, incar: Mapping[str, Any]) -> list[str]:
    """Return the tags of which VASP gives no account, so that nobody can tell whether they had an effect."""
    return sorted(tag for tag in incar if header.value(tag) is None)


def _differ(tag: str, asked: Any, used: Any) -> str | None:
    """Return a sentence where a tag was ignored or changed."""
    if used is None and tag not in ACCOUNTED:
        return None
    if used is None:
        return f'it says nothing of {tag.upper()}, which was to be {asked}'
    return None if _same(tag, asked, used) else f'{tag.upper()} is {used} instead of {asked}'


def _same(tag: str, asked: Any, used: Any) -> bool:
    if tag == 'lreal':  # of Auto and On, VASP may only say that it is true
        return (_letter(asked) == 'F') == (_letter(used) == 'F')
    if isinstance(asked, bool) or isinstance(used, bool):
        return _letter(asked) == _letter(used)
    if isinstance(asked, (int, float)):
        return isinstance(used, (int, float)) and abs(asked - used) <= TOLERANCE * abs(asked) + 1e-8
    # VASP keeps six letters of PREC, and may write GGA in either case
    return str(asked).strip().lower()[:6] == str(used).strip().lower()[:6]


def _letter(value: Any) -> str:
    return str(value).strip('. ').upper()[:1]


def moved_by(frame: Frame, order: Array, step: Step) -> float:
    """Return how far, in Å, an atom or the end of a cell vector is at most from where the frame has it."""
    if step.cell is None or step.fractions is None or len(step.fractions) != len(frame):
        return float('inf')
    cell = float(np.abs(step.cell - frame.cell).max())
    fractions = step.fractions - frame.positions[order] @ np.linalg.inv(frame.cell)
    return max(cell, float(np.linalg.norm((fractions - np.round(fractions)) @ frame.cell, axis=1).max()))
