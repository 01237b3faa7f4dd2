"""What MACE's trainer really did, read from its log, its states and the network that it wrote."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida_perovmlip.compute.architectures.mace.settings import FREEZE, MaceSettings

PLAIN = (
    'batch_size',
    'energy_weight',
    'forces_weight',
    'stress_weight',
    'lr_factor',
    'scheduler_patience',
    'lr_scheduler_gamma',
    'enable_cueq',
)
"""Arguments that are settings of the same name."""

SQUARED = ('WeightedEnergyForces', 'WeightedEnergyForcesStress')
"""What mace-torch calls losses of squared errors."""

OTHERS = {
    'valid_batch_size': 'valid_batch_size',
    'stage_two_learning_rate': 'swa_lr',
    'stage_two_energy_weight': 'swa_energy_weight',
    'stage_two_forces_weight': 'swa_forces_weight',
    'stage_two_stress_weight': 'swa_stress_weight',
    'keep_elements': 'foundation_model_elements',
}
"""Settings with the name of the argument."""


def debug_log(folder: Path) -> str:
    """Return the trainer's debug log; empty where there is none."""
    log = next((folder / 'logs').glob('*_debug.log'), None)
    return log.read_text(errors='replace') if log else ''


def settings_of_log(log: str) -> dict[str, Any]:
    """Return the settings that the trainer's debug log shows that it used.

    The arguments are logged before some strategies change them; what is logged after that goes before.
    """
    used = namespace(log)
    effective = {name: used[name] for name in PLAIN if name in used}
    effective |= {ours: used[theirs] for ours, theirs in OTHERS.items() if theirs in used}
    named = re.search(r'INFO: (\w+)Loss\(', log)
    if named:
        effective['loss'] = 'universal' if named[1] == 'Universal' else 'squared' if named[1] in SQUARED else named[1]
    if 'clip_grad' in used:
        effective['clip_grad'] = used['clip_grad'] or 0.0
    effective |= {'learning_rate': _number(r'Learning rate: ([-+.\de]+)', log, used.get('lr'))}
    if 'ema' in used:
        pattern = r'Using Exponential Moving Average with decay: ([-+.\de]+)'
        effective['ema_decay'] = _number(pattern, log, used.get('ema_decay')) if used['ema'] else 0.0
    processes = _number(r'Processes: (\d+)', log, 1)
    return {name: value for name, value in effective.items() if value is not None} | {'gpus': int(processes or 1)}


def namespace(log: str) -> Mapping[str, Any]:
    """Return the plain values among the arguments of the first run of the trainer that the log shows."""
    found = re.findall(r'Configuration: Namespace\((.*)\)\s*$', log, flags=re.MULTILINE)
    call = ast.parse(f'Namespace({found[0] if found else ""})', mode='eval').body
    assert isinstance(call, ast.Call)
    used: dict[str, Any] = {}
    for keyword in call.keywords:
        try:
            used[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return used


def _number(pattern: str, log: str, otherwise: Any) -> float | None:
    """Return the first number that follows a text in the log, or the argument where the text is not there."""
    found = re.search(pattern, log)
    if found:
        return float(found[1])
    return None if otherwise is None else float(otherwise)


def epochs_done(curve: Sequence[Mapping[str, Any]], settings: MaceSettings, begun: int = 0) -> dict[str, int]:
    """Return the epochs of both stages; those that were not needed, as a stage ended early, count as done.

    How many there really were is told too, as `…epochs_done`.

    :param begun: the step from which an earlier run was taken up; a stage that was over then is not judged again.
    """
    asked = {'epochs': settings.epochs, 'stage_two_epochs': settings.stage_two_epochs}
    done: dict[str, int] = {}
    for stage, (name, epochs) in enumerate(asked.items(), 1):
        steps, was_over = _stage(curve, stage), _was_over(curve, stage, begun)
        is_enough = steps and (was_over or 0 < settings.patience <= _waits(steps)[-1])
        done |= {name: epochs if is_enough else len(steps), f'{name}_done': len(steps)}
    return {**done, 'patience': patience_done(curve, settings, begun)}


def patience_done(curve: Sequence[Mapping[str, Any]], settings: MaceSettings, begun: int = 0) -> int:
    """Return the epochs without a smaller loss after which stages ended, as the curve shows.

    Where none ended early, that is what was asked for as long as the curve does not contradict it: no stage waited for
    as long as that. An earlier run may have been asked for another patience, so that only those epochs count after
    which this one had to decide.

    :param begun: the step from which an earlier run was taken up.
    """
    waited = []
    for stage, epochs in {1: settings.epochs, 2: settings.stage_two_epochs}.items():
        steps = [] if _was_over(curve, stage, begun) else _stage(curve, stage)
        waits = _waits(steps)
        if steps and len(steps) < epochs:
            had_waited = steps[-1]['step'] <= begun and 0 < settings.patience <= waits[-1]
            return settings.patience if had_waited else waits[-1]
        waited += [wait for step, wait in zip(steps[:-1], waits, strict=False) if step['step'] >= begun]
    return settings.patience if not settings.patience or max(waited, default=0) < settings.patience else max(waited)


def _stage(curve: Sequence[Mapping[str, Any]], stage: int) -> list[Mapping[str, Any]]:
    """Return the steps of a stage."""
    return [step for step in curve if step.get('stage', 1) == stage]


def _was_over(curve: Sequence[Mapping[str, Any]], stage: int, begun: int) -> bool:
    """Whether a run was taken up when the stage after this one had begun."""
    return any(step.get('stage', 1) > stage and step['step'] <= begun for step in curve)


def _waits(steps: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return for each epoch how many went by since the smallest loss before it."""
    losses = [float(step['validation_loss']) for step in steps]
    best, waits = 0, []
    for index, loss in enumerate(losses):
        best = index if loss < losses[best] else best
        waits.append(index - best)
    return waits


def notes_of(curve: Sequence[Mapping[str, Any]], settings: MaceSettings) -> list[str]:
    """Return what is to be said of the way that a training went."""
    notes = []
    for stage, epochs in {1: settings.epochs, 2: settings.stage_two_epochs}.items():
        steps = _stage(curve, stage)
        if 0 < len(steps) < epochs:
            which = f'Stage {stage}' if settings.stage_two_epochs else 'The training'
            notes.append(
                f'{which} ended after {len(steps)} epochs, as the validation loss had not fallen for '
                f'{_waits(steps)[-1]}.'
            )
    return notes


def strategy_done(heads: int, changed: Mapping[str, str] | None, lora_rank: int | None, pinned: bool) -> str:
    """Return the strategy that the trainer's files show.

    :param heads: number of heads.
    :param changed: what of the parent's parameters is other, by kind of layer; None without a parent.
    :param lora_rank: rank of the added matrices in its states.
    :param pinned: whether layers were asked to stay as they are.
    """
    if changed is None:
        return 'scratch'
    if lora_rank is not None:
        return 'lora'
    if heads > 1:
        return 'multihead'
    still = [kind for kind in ('embedding', 'interactions', 'products') if changed.get(kind) == 'none']
    return 'freeze' if still and pinned else 'naive'


def settings_of_strategy(
    strategy: str, changed: Mapping[str, str] | None, lora_rank: int | None, log: str
) -> dict[str, Any]:
    """Return the settings of a strategy that its files show."""
    done: dict[str, Any] = {}
    if strategy == 'freeze' and changed is not None:
        kinds = list(FREEZE)
        still = 0
        while still < len(kinds) and changed.get(kinds[still]) == 'none':
            still += 1
        done['freeze_layers'] = kinds[still - 1] if still else 'nothing'
    if strategy == 'lora':
        done['lora_rank'] = lora_rank
        done['lora_alpha'] = _number(r'Injecting LoRA layers with rank=\d+ and alpha=([-+.\de]+)', log, None)
    return done


def replay_done(path: Path, energies: Mapping[str, float | None], asked: str) -> dict[str, Any]:
    """Return whose labels, and with which weight, the frames that the trainer replayed have in its file.

    :param path: the file, by the name that the trainer logged.
    :param energies: of the first frame in eV, by whose it is; None where there is none.
    :param asked: whose they were to be; it is so where more than one have the same energy.
    """
    with path.open(encoding='utf-8') as handle:
        comment = f'{handle.readline()}{handle.readline()}'
    written = _number(r'\bREF_energy=([-+.\de]+)', comment, None)
    same = [
        name
        for name, energy in energies.items()
        if None not in (energy, written) and math.isclose(energy or 0.0, written or 0.0, rel_tol=1e-6, abs_tol=1e-6)
    ]
    weight = _number(r'\bconfig_energy_weight=([-+.\de]+)', comment, 1.0)
    return {'replay_labels': asked if asked in same else next(iter(same), 'others'), 'replay_weight': weight}
