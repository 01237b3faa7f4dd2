"""The file `loss.out` of GPUMD's trainer: its errors, generation by generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.contract import JobError, Status

PLAIN = ('generation', 'total', 'L1', 'L2', *(f'rmse_{quantity}_{which}' for which in ('train', 'test')
         for quantity in ('energy', 'force', 'virial')))  # fmt: skip
"""The ten columns of a file without a header."""

QUANTITIES = {'energy': 'energy_per_atom', 'force': 'forces', 'virial': 'virial_per_atom'}


def read_loss(path: Path, done: int = 0, has_validation: bool = True) -> list[dict[str, Any]]:
    """Return the steps of the training curve that one run wrote; half a line at its end is left for later.

    A run that took up another one counts its generations from zero again. The virial errors are in eV/atom, over six
    components; they cannot be turned into errors of stresses, as the frames have different volumes per atom.

    :param done: the generations before this run.
    :param has_validation: whether there are test frames; GPUMD writes zeros where there are none.
    """
    if not path.is_file():
        return []
    text = path.read_text(errors='replace')
    columns, steps = PLAIN, []
    for number, line in enumerate(text[: text.rfind('\n') + 1].splitlines(), 1):
        words = line.split()
        if words and words[0] == '#':
            columns = _columns(words, path) or columns
        elif words:
            steps.append(_step(words, columns, done, has_validation, f'{path.name}, line {number}'))
    return steps


def _columns(words: list[str], path: Path) -> tuple[str, ...] | None:
    """Return the names of the columns where a line of the header has them."""
    if words[1:2] == ['columns']:
        return tuple(words[2:])
    if words[1:2] == ['epoch']:
        raise JobError(
            Status.FAILED,
            f'{path.name} is of another trainer, which counts epochs; its columns are not those of GPUMD.',
        )
    return None


def _step(words: list[str], columns: tuple[str, ...], done: int, has_validation: bool, where: str) -> dict[str, Any]:
    """Return one line as a step of the training curve."""
    if len(words) != len(columns):
        raise JobError(Status.FAILED, f'{where} has {len(words)} columns instead of {len(columns)}.')
    try:
        values = dict(zip(columns, map(float, words), strict=True))
    except ValueError as error:
        raise JobError(Status.FAILED, f'{where} holds something else than numbers.') from error
    step: dict[str, Any] = {'step': int(values['generation']) + done, 'loss': values['total']}
    for theirs, ours in (('train', 'training'), ('test', 'validation')):
        for quantity, name in QUANTITIES.items():
            value = values.get(f'rmse_{quantity}_{theirs}')
            if value is not None and (has_validation or theirs == 'train'):
                step[f'{ours}_{name}_rmse'] = value
    return step
