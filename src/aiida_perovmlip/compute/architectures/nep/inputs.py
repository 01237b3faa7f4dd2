"""The run directory of a NEP training: `nep.in`, the frames, and the energies that are taken off their labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from aiida_perovmlip.compute.extxyz import write_extxyz
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import Frames

NEP_IN = 'nep.in'
ENERGIES = 'energies.json'
"""Beside `nep.txt`: the energy in eV of each element that the file itself does not hold."""

FILES = {'train': 'train.xyz', 'test': 'test.xyz'}
Energies = dict[str, float]

RESOLUTION = 2e-4
"""Difference of two energies in eV/atom that the trainers have to tell apart."""


def nep_in(wanted: Mapping[str, Any], elements: Sequence[str], extra: Mapping[str, Any]) -> str:
    """Return the text of `nep.in` for the trainer that is wanted.

    The two trainers read the same keywords, but `generation` and `batch` mean different things to them, so that each
    gets its own numbers here. GPUMD wants the elements before the cutoffs.

    :param extra: further keywords, as they are written.
    """
    lines: dict[str, Any] = {
        'version': 4,
        'type': [len(elements), *elements],
        **({} if wanted['zbl'] is None else {'zbl': wanted['zbl']}),
        'cutoff': _cutoffs(wanted['radial_cutoff'], wanted['angular_cutoff'], elements),
        **{name: wanted[name] for name in ('n_max', 'basis_size', 'l_max')},
        'neuron': wanted['neurons'],
        **{name: wanted[name] for name in wanted if name.startswith('lambda_')},
    }
    if wanted['trainer'] == 'neppo':
        lines |= {
            'batch': wanted['batch_size'],
            'generation': wanted['steps'],
            'learning_rate': [wanted['learning_rate'], wanted['final_learning_rate']],
            'weight_decay': wanted['weight_decay'],
            'loss_form': wanted['loss_form'],
        }
    else:
        lines |= {
            'batch': wanted['frames_per_generation'],
            'population': wanted['population'],
            'generation': wanted['generations'],
        }
    return ''.join(f'{name}  {_words(value)}\n' for name, value in {**lines, **extra}.items())


def _cutoffs(radial: Any, angular: Any, elements: Sequence[str]) -> list[float]:
    """Return the cutoffs as they stand in `nep.in`: one pair, or one for each element, in their order."""
    if not isinstance(radial, Mapping):
        return [radial, angular]
    return [cutoff for symbol in elements for cutoff in (radial[symbol], angular[symbol])]


def _words(value: Any) -> str:
    """Return a value as it stands in `nep.in`."""
    if isinstance(value, (list, tuple)):
        return ' '.join(map(_words, value))
    return f'{value:.10g}' if isinstance(value, float) else str(value)


def write_frames(frames: Iterable[Frame], path: Path, energies: Energies) -> None:
    """Write frames as both trainers read them, without what is taken off their energies."""
    with path.open('w', encoding='utf-8') as handle:
        write_extxyz((_bare(frame, energies) for frame in frames), handle, 'gpumd')


def _bare(frame: Frame, energies: Energies) -> Frame:
    """Return a frame with nothing but what the trainers use."""
    assert frame.energy is not None
    return Frame(
        frame.numbers,
        frame.positions,
        frame.cell,
        frame.pbc,
        energy=frame.energy - offset_of(frame, energies),
        forces=frame.forces,
        stress=frame.stress,
        group='frames',
    )


def offset_of(frame: Frame, energies: Energies) -> float:
    """Return the sum in eV of the energies of all atoms."""
    return float(sum(count * energies.get(symbol, 0.0) for symbol, count in _composition(frame).items()))


def _composition(frame: Frame) -> dict[str, int]:
    """Return the number of atoms by symbol."""
    numbers, counts = np.unique(frame.numbers, return_counts=True)
    return {chemical_symbols[number]: int(count) for number, count in zip(numbers, counts, strict=True)}


def fitted_energies(frames: Iterable[Frame], residuals: Iterable[float], elements: Sequence[str]) -> Energies:
    """Return the energy per element in eV that explains these energies best, the smallest such where many do."""
    rows = [_composition(frame) for frame in frames]
    counts = np.array([[row.get(symbol, 0) for symbol in elements] for row in rows], dtype=float)
    solution = np.linalg.lstsq(counts, np.array(list(residuals)), rcond=None)[0]
    return dict(zip(elements, solution.tolist(), strict=True))


def problem_of_precision(frames: Frames, energies: Energies) -> str | None:
    """Return a sentence where single precision rounds what is left of total energies too coarsely to learn from."""
    of_number = np.array([energies.get(symbol, 0.0) for symbol in chemical_symbols])
    for chunk in frames.chunks(('numbers', 'energy')):
        offsets = chunk.columns['offsets']
        taken = np.add.reduceat(of_number[chunk.columns['numbers']], offsets[:-1])
        rest = np.abs(chunk.columns['energy'] - taken)
        steps = np.spacing(rest.astype(np.float32)) / np.diff(offsets)
        if steps.max() > RESOLUTION:
            return (
                f'what `atomic_energies` leave of the energies reaches {rest.max():.3g} eV, which float32, in which '
                f'NEP is trained, rounds to {1e3 * steps.max():.2g} meV/atom. Take `average` (with a parent '
                '`estimated`), or the energies of isolated atoms at the level of theory of the frames.'
            )
    return None


def spread(frames: Frames, count: int) -> Iterator[Frame]:
    """Yield at most so many frames, evenly spread over all of them."""
    positions = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    return iter(frames.take(positions))


def read_energies(potential: Path) -> Energies:
    """Return the energies that lie beside a `nep.txt`; none where it came alone."""
    path = potential / ENERGIES
    if not path.is_file():
        return {}
    return {str(symbol): float(energy) for symbol, energy in json.loads(path.read_text()).items()}


def write_energies(potential: Path, energies: Energies) -> None:
    """Write the energies beside a `nep.txt`."""
    (potential / ENERGIES).write_text(json.dumps(energies, indent=1, sort_keys=True) + '\n')
