"""What MACE's trainer is asked: its input files, its arguments, and the command that starts it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from aiida_perovmlip.compute import children
from aiida_perovmlip.compute.architecture import Training
from aiida_perovmlip.compute.architectures.mace.energies import Energies
from aiida_perovmlip.compute.architectures.mace.heads import REPLAY, Head
from aiida_perovmlip.compute.architectures.mace.network import TRAINED
from aiida_perovmlip.compute.architectures.mace.settings import (
    FREEZE,
    LOSSES,
    STRESS_WEIGHT,
    MaceSettings,
    chosen,
    rate_of,
)
from aiida_perovmlip.compute.extxyz import write_extxyz
from aiida_perovmlip.compute.frame import Frame

NAME = 'mace'
PARENT = 'parent.model'
NEVER = 10**9
"""Epochs that no training has."""


def files_of(head: Head) -> tuple[str, str]:
    """Return the names of the files with the frames of a head: to train on, and to validate by."""
    return (f'training_{head.alias}.xyz', f'validation_{head.alias}.xyz')


def write_frames(frames: Iterable[Frame], path: Path, weight: float = 1.0) -> None:
    """Write frames in MACE's dialect.

    Groups stay behind: they play no role in a training, but for `IsolatedAtom`, of which mace-torch makes energies of
    atoms before it drops these frames.

    :param weight: what the errors of these frames are multiplied by. It is written for each label, as the loss
        `universal` does not look at the weight of a frame.
    """
    weights = ''.join(f' config_{label}_weight={weight!r}' for label in ('energy', 'forces', 'stress'))
    with path.open('w', encoding='utf-8') as handle:
        for frame in frames:
            text = io.StringIO()
            write_extxyz([replace(frame, group='frames', head='default')], text, 'mace')
            size, comment, atoms = text.getvalue().split('\n', 2)
            handle.write(f'{size}\n{comment}{weights if weight != 1.0 else ""}\n{atoms}')


def arguments_of(training: Training, heads: Sequence[Head], energies: Mapping[str, Energies]) -> dict[str, Any]:
    """Return the arguments of the trainer by name, for all epochs of a training that nothing interrupts."""
    settings: MaceSettings = training.settings
    has_stress = any(head.training.has('stress') for head in heads)
    can_validate_stress = any(head.validation.has('stress') for head in heads)
    weight = STRESS_WEIGHT if settings.stress_weight is None else settings.stress_weight
    arguments: dict[str, Any] = {
        'name': NAME,
        'model': TRAINED,
        'seed': training.seed,
        'work_dir': '.',
        'device': training.device,
        'default_dtype': settings.dtype,
        'energy_key': 'REF_energy',
        'forces_key': 'REF_forces',
        'stress_key': 'REF_stress',
        'total_charge_key': 'charge',
        'total_spin_key': 'spin',
        'loss': LOSSES[settings.loss][0 if has_stress else 1],
        'error_table': 'PerAtomRMSEstressvirials' if has_stress and can_validate_stress else 'PerAtomRMSE',
        'compute_stress': has_stress,
        'energy_weight': settings.energy_weight,
        'forces_weight': settings.forces_weight,
        'stress_weight': weight if has_stress else 0.0,
        'batch_size': settings.batch_size,
        'valid_batch_size': settings.valid_batch_size or settings.batch_size,
        'lr': rate_of(settings, training.known is not None),
        'scheduler': settings.scheduler,
        'lr_factor': settings.lr_factor,
        'scheduler_patience': settings.scheduler_patience,
        'lr_scheduler_gamma': settings.lr_scheduler_gamma,
        'clip_grad': settings.clip_grad or None,
        'max_num_epochs': settings.epochs + settings.stage_two_epochs,
        'patience': NEVER,  # its own looks at one head, and ends nothing where there is one process; see `run`
        'eval_interval': 1,
        'save_all_checkpoints': True,
        'restart_latest': True,
        'scaling': 'rms_forces_scaling',
        'plot': False,
        'pin_memory': False,
        'num_workers': 0,
        'launcher': 'none' if settings.gpus == 1 else 'torchrun',
        'distributed': settings.gpus > 1,
        'multiheads_finetuning': training.strategy == 'multihead',
        'enable_cueq': settings.enable_cueq,
        'ema': bool(settings.ema_decay),
    }
    if settings.ema_decay:
        arguments['ema_decay'] = settings.ema_decay
    arguments |= _stage_two(settings, arguments['stress_weight'], has_stress)
    arguments |= _data(heads, energies)
    arguments |= _shape(settings) if training.parent is None else _start(training)
    return arguments


def _stage_two(settings: MaceSettings, stress_weight: float, has_stress: bool) -> dict[str, Any]:
    """Return what stage two needs; nothing where there is none."""
    if not settings.stage_two_epochs:
        return {}
    given = settings.stage_two_stress_weight
    return {
        'stage_two': True,
        'start_stage_two': settings.epochs,
        'stage_two_lr': settings.stage_two_learning_rate,
        'stage_two_energy_weight': settings.stage_two_energy_weight,
        'stage_two_forces_weight': settings.stage_two_forces_weight,
        'stage_two_stress_weight': (stress_weight if given is None else given) if has_stress else 0.0,
    }


def _data(heads: Sequence[Head], energies: Mapping[str, Energies]) -> dict[str, Any]:
    """Return where the frames lie and which energies isolated atoms have."""
    if len(heads) == 1:
        train, valid = files_of(heads[0])
        return {'train_file': train, 'valid_file': valid, 'E0s': numbered(energies[heads[0].name])}
    found: dict[str, Any] = {}
    targets: dict[str, dict[str, str]] = {}
    for head in heads:
        train, valid = files_of(head)
        if head.alias == REPLAY:
            found = {'pt_train_file': train, 'pt_valid_file': valid}
        else:
            targets[head.alias] = {'train_file': train, 'valid_file': valid, 'E0s': numbered(energies[head.name])}
    return found | {'heads': repr(targets)}


def _shape(settings: MaceSettings) -> dict[str, Any]:
    """Return the shape of the network; that of a parent is taken from its file."""
    return {
        'hidden_irreps': settings.hidden_irreps.replace(' ', ''),
        'r_max': settings.r_max,
        'num_interactions': settings.num_interactions,
        'correlation': settings.correlation,
        'max_ell': settings.max_ell,
        'MLP_irreps': settings.readout_irreps.replace(' ', ''),
        'radial_MLP': json.dumps(settings.radial_mlp),
    }


def _start(training: Training) -> dict[str, Any]:
    """Return how to start from the parent."""
    settings: MaceSettings = training.settings
    arguments = {'foundation_model': PARENT, 'foundation_model_elements': bool(chosen(settings, 'keep_elements'))}
    if training.strategy == 'multihead':
        # Without the first the learning rate and the moving average are mace-torch's own; the second copies no frames.
        arguments |= {'force_mh_ft_lr': True, 'real_pt_data_ratio_threshold': 0.0}
    if training.strategy == 'freeze':
        arguments |= {'freeze': FREEZE[chosen(settings, 'freeze_layers')]}
    if training.strategy == 'lora':
        rank, alpha = chosen(settings, 'lora_rank'), chosen(settings, 'lora_alpha')
        arguments |= {'lora': True, 'lora_rank': rank, 'lora_alpha': alpha}
    return arguments


def numbered(energies: Energies) -> str:
    """Return energies of isolated atoms as the trainer wants them."""
    return repr({atomic_numbers[symbol]: energy for symbol, energy in energies.items()})


SWITCHES = ('ema', 'save_all_checkpoints', 'restart_latest', 'stage_two', 'distributed')
"""Arguments without a value."""


def command_of(arguments: Mapping[str, Any], gpus: int = 1) -> list[str]:
    """Return the command that starts the trainer, on several GPUs as several processes.

    These are children of torchrun, which is killed with the job and could not end them any more.
    """
    python = [sys.executable, '-m']
    if gpus > 1:
        python += ['torch.distributed.run', '--standalone', '--nnodes=1', f'--nproc_per_node={gpus}', '-m']
        python += [children.__name__]
    given = [
        f'--{name}' if name in SWITCHES else f'--{name}={value}'
        for name, value in arguments.items()
        if name not in SWITCHES or value
    ]
    return [*python, 'mace.cli.run_train', *given]
