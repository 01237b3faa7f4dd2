"""Where two programs put the zero of the energy: what a sum over elements explains of their differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ReferenceFit:
    """What the zeros of two programs differ by: the sum over elements that explains the energy differences best.

    :param per_element: eV for each atom of an element; of all equally good sets the smallest.
    :param per_charge: eV for each unit of charge of the cell; None where no cell is charged.
    :param rank: how many independent numbers the compositions determine.
    :param n_unknowns: how many there are.
    :param warning: a sentence where the numbers are not determined, or explain everything by being so many.
    """

    per_element: dict[str, float]
    per_charge: float | None
    rank: int
    n_unknowns: int
    warning: str = ''


def align_energies(
    differences: Floats, compositions: Integers, numbers: Integers, counts: Floats, charges: Floats
) -> tuple[Floats, ReferenceFit]:
    """Take from energy differences what a sum over elements and the charge explains, by least squares.

    A charged cell has a further difference between programs, as these disagree on where the potential is zero.

    :param differences: (n_frames,) in eV/atom.
    :param compositions: (n_frames,) row of `counts` and `charges` of each frame.
    :param numbers: (n_elements,) atomic numbers.
    :param counts: (n_compositions, n_elements) atoms of each element.
    :param charges: (n_compositions,) in e.
    :returns: what is left, (n_frames,) in eV/atom, and what was taken.
    """
    from ase.data import chemical_symbols

    is_charged = bool(charges.any())
    columns = np.column_stack([counts, charges]) if is_charged else counts
    design = columns / counts.sum(axis=1)[:, None]
    frames = np.bincount(compositions, minlength=len(counts))
    weights = np.sqrt(frames)
    means = np.bincount(compositions, differences, minlength=len(counts)) / np.maximum(frames, 1)
    solution, _, rank, _ = np.linalg.lstsq(design * weights[:, None], means * weights, rcond=1e-10)
    left = differences - (design @ solution)[compositions]
    symbols = [chemical_symbols[number] for number in numbers]
    fit = ReferenceFit(
        per_element=dict(zip(symbols, solution[: len(numbers)].tolist(), strict=True)),
        per_charge=float(solution[-1]) if is_charged else None,
        rank=int(rank),
        n_unknowns=columns.shape[1],
        warning=_warning(int(rank), columns.shape[1], len(differences)),
    )
    return left, fit


def _warning(rank: int, n_unknowns: int, n_frames: int) -> str:
    """Return what a reader of the reference has to know; nothing where all is well."""
    if n_frames <= rank:
        return (
            f'{rank} numbers were fitted to {n_frames} frames, so what is left is zero by construction and says '
            'nothing; compare more frames.'
        )
    if rank < n_unknowns:
        return (
            f'the compositions determine only {rank} of {n_unknowns} numbers: those of single elements mean nothing '
            'by themselves, but their sum over a frame does, and so does what is left.'
        )
    return ''
