"""The settings of Allegro, and the configuration that nequip is given for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aiida_perovmlip.compute.architectures.allegro.loss import mean_squared_error_or_zero
from aiida_perovmlip.compute.settings import option

CONFIG = 'allegro.yaml'
TRAINING, VALIDATION = 'training.xyz', 'validation.xyz'
PARENT = 'parent.nequip.zip'
RESUMED = 'resumed.ckpt'
BEST, STATE = 'best', 'state'
"""Stems of the two kinds of checkpoints that the trainer writes; the number of the epoch follows, counted from 0."""

KEPT = 5
"""Best networks that the trainer keeps: one may be wanted that is no longer the best when it is looked for."""

MONITORED = 'val0_epoch/weighted_sum'
STRESS_WEIGHT = 100.0
WAYS = ('average', 'estimated', 'parent')
"""Where energies of atoms can come from, other than by symbol."""

NETWORK = (
    'r_max',
    'l_max',
    'parity',
    'num_layers',
    'num_scalar_features',
    'num_tensor_features',
    'num_bessels',
    'bessel_trainable',
    'polynomial_cutoff_p',
    'scalar_embed_mlp_hidden_layers_depth',
    'scalar_embed_mlp_hidden_layers_width',
    'allegro_mlp_hidden_layers_depth',
    'allegro_mlp_hidden_layers_width',
    'readout_mlp_hidden_layers_depth',
    'readout_mlp_hidden_layers_width',
    'readout_mlp_nonlinearity',
    'zbl',
    'dtype',
)
"""Settings that are in the network: with a parent, its network has the last word on them."""

MAY_CHANGE = ('epochs', 'batch_size', 'accumulate', 'learning_rate')
"""Settings that a run which is taken up may have other values of; all others lie in its state."""

RATE, TUNING_RATE = 0.01, 0.003
"""The initial learning rate where nothing is said: of a new network, and of one that is trained on.

With 48 frames of another strain and five epochs, 0.003 took two thirds to nine tenths of what 0.01 took off the force
errors on such frames, while those on the frames of before grew less; 0.03 spoiled the parent in its first epoch."""

MLPS = ('scalar_embed', 'allegro', 'readout')
"""The networks within the network, by the beginning of the names of their settings."""

SCHEDULES = {
    'constant': None,
    'cosine': 'torch.optim.lr_scheduler.CosineAnnealingLR',
    'plateau': 'torch.optim.lr_scheduler.ReduceLROnPlateau',
}


@dataclass(frozen=True)
class AllegroSettings:
    """Settings of Allegro; the names are those of nequip and nequip-allegro where these have one."""

    r_max: float = option(6.0, 'Cutoff; an atom sees nothing beyond.', unit='Å', minimum=1.0)
    l_max: int = option(2, 'Highest order of spherical harmonics.', minimum=1, maximum=6)
    parity: bool = option(True, 'Whether features of odd parity are kept: all of O(3), not only SO(3).')
    num_layers: int = option(1, 'Number of tensor-product layers.', minimum=1)
    num_scalar_features: int = option(32, 'Number of scalar features of a pair.', minimum=1)
    num_tensor_features: int = option(16, 'Number of tensor features of a pair.', minimum=1)
    num_bessels: int = option(8, 'Number of radial Bessel functions.', minimum=1)
    bessel_trainable: bool = option(False, 'Whether the frequencies of the Bessel functions are trained.')
    polynomial_cutoff_p: int = option(6, 'Exponent of the cutoff function; the smaller, the softer.', minimum=2)
    scalar_embed_mlp_hidden_layers_depth: int = option(1, 'Hidden layers of the two-body network.', minimum=0)
    scalar_embed_mlp_hidden_layers_width: int = option(
        64, 'Width of the hidden layers of the two-body network.', minimum=1
    )
    allegro_mlp_hidden_layers_depth: int = option(
        1, 'Hidden layers of the network after each tensor product.', minimum=0
    )
    allegro_mlp_hidden_layers_width: int = option(
        64, 'Width of the hidden layers after each tensor product.', minimum=1
    )
    readout_mlp_hidden_layers_depth: int = option(1, 'Hidden layers of the readout of pair energies.', minimum=0)
    readout_mlp_hidden_layers_width: int = option(32, 'Width of the hidden layers of the readout.', minimum=1)
    readout_mlp_nonlinearity: str = option(
        'silu', 'Nonlinearity of the readout.', choices=('silu', 'mish', 'gelu', 'none')
    )
    zbl: bool = option(False, 'Whether the Ziegler-Biersack-Littmark repulsion of close nuclei is added.')
    dtype: str = option(
        'float32', 'Precision of the network; energies are summed in float64.', choices=('float32', 'float64')
    )
    atomic_energies: str | dict[str, float] | None = option(
        None,
        'Energy of each atom alone in eV by symbol (`per_type_energy_shifts`), or where it comes from: `average`, a '
        'least-squares fit to the energies of the frames, which is what a training from scratch does if nothing is '
        'said; `parent`, those of the parent, which is what a training with a parent does if nothing is said; '
        '`estimated`, those of the parent shifted by a least-squares fit to what it gets wrong, which it does instead '
        'where the frames are of another level of theory than the parent.',
    )
    epochs: int = option(50, 'Number of epochs.', minimum=1)
    learning_rate: float | None = option(
        None, f'Initial learning rate; {RATE:g}, or {TUNING_RATE:g} with a parent.', minimum=0.0
    )
    lr_schedule: str = option(
        'cosine',
        'How the learning rate goes on: `cosine` falls to zero over all epochs, `plateau` shrinks it by 0.6 where the '
        'validation error has not improved for 10 epochs, `constant` leaves it.',
        choices=tuple(SCHEDULES),
    )
    betas: list[float] = option([0.9, 0.999], 'Decays of the two moments of the Adam optimiser.')
    batch_size: int = option(2, 'Frames that are computed at once.', minimum=1)
    accumulate: int = option(
        1,
        'Batches whose gradients are summed for one step (`accumulate_grad_batches`): a step sees `batch_size` times '
        'as many frames.',
        minimum=1,
    )
    energy_weight: float = option(1.0, 'Weight of squared errors of energies per atom in the loss.', minimum=0.0)
    forces_weight: float = option(1.0, 'Weight of squared force errors in the loss.', minimum=0.0)
    stress_weight: float | None = option(
        None,
        'Weight of squared stress errors in the loss; frames without a stress take no part in it. If nothing is said, '
        f'it is {STRESS_WEIGHT:g} where any training frame has a stress, and 0 where none has.',
        minimum=0.0,
    )
    ema_decay: float = option(
        0.99, 'Decay of the moving average of the parameters; 0 switches it off.', minimum=0.0, maximum=1.0
    )
    patience: int | None = option(
        None,
        'Epochs without a better validation error after which the training ends; None never ends it early.',
        minimum=1,
    )
    compile_mode: str = option(
        'eager',
        'Whether training steps are compiled (`compile`), which costs minutes at the start and pays on GPUs.',
        choices=('eager', 'compile'),
    )


def rate_of(rate: float | None, has_parent: bool) -> float:
    """Return the initial learning rate, also where none was said."""
    if rate is not None:
        return rate
    return TUNING_RATE if has_parent else RATE


def configuration(
    settings: AllegroSettings,
    *,
    has_parent: bool,
    model: Mapping[str, Any],
    types: Sequence[str],
    r_max: float,
    has_stress: bool,
    can_validate_stress: bool,
    seed: int,
    device: str,
    output: str,
    resumes: bool,
) -> dict[str, Any]:
    """Return the whole configuration as plain data; all its paths are relative to the working directory.

    Absolute ones would find their way into the potential, which then differed from machine to machine.

    :param model: how the network is built; see `new_network` and `network_of_parent`.
    :param types: chemical symbols in the order of the network.
    :param output: folder of this run of the trainer; never that of an earlier one, whose curve nequip would overwrite.
    """
    config: dict[str, Any] = {
        'run': ['train'],
        'data': _data(settings, list(types), r_max, seed),
        'trainer': _trainer(settings, device, output),
        'training_module': {
            **_averaging(settings),
            'loss': _loss(settings, has_stress),
            'val_metrics': _metrics(can_validate_stress),
            'optimizer': {
                '_target_': 'torch.optim.Adam',
                'lr': rate_of(settings.learning_rate, has_parent),
                'betas': list(settings.betas),
            },
            **_schedule(settings),
            'model': dict(model),
        },
        'global_options': {'allow_tf32': False},
        'hydra': {'run': {'dir': output}, 'job': {'chdir': False}},
    }
    return config | ({'ckpt_path': RESUMED} if resumes else {})


def new_network(
    settings: AllegroSettings, types: Sequence[str], shifts: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """Return how a new network is built; numbers of neighbours and the size of forces come from the training frames."""
    pairs = {
        '_target_': 'nequip.nn.pair_potential.ZBL',
        'chemical_species': list(types),
        'units': 'metal',  # LAMMPS' name for eV and Å
    }
    wanted = asdict(settings)
    names = [name for name in NETWORK if '_mlp_' in name or name.startswith(('l_', 'r_', 'num_'))]
    nonlinearity = settings.readout_mlp_nonlinearity
    return {
        '_target_': 'allegro.model.AllegroModel',
        **{name: wanted[name] for name in names if name != 'num_bessels'},
        'compile_mode': settings.compile_mode,
        'seed': seed,
        'model_dtype': settings.dtype,
        'type_names': list(types),
        'parity': settings.parity,
        'radial_chemical_embed': {
            '_target_': 'allegro.nn.TwoBodyBesselScalarEmbed',
            'num_bessels': settings.num_bessels,
            'bessel_trainable': settings.bessel_trainable,
            'polynomial_cutoff_p': settings.polynomial_cutoff_p,
        },
        'readout_mlp_nonlinearity': None if nonlinearity == 'none' else nonlinearity,
        'avg_num_neighbors': '${training_data_stats:num_neighbors_mean}',
        'per_type_energy_shifts': dict(shifts),
        'per_type_energy_scales': '${training_data_stats:forces_rms}',
        'pair_potential': pairs if settings.zbl else None,
    }


def network_of_parent(settings: AllegroSettings, shifts: Mapping[str, float]) -> dict[str, Any]:
    """Return how the network of the parent is taken over, with these energies of atoms in eV."""
    parent = {
        '_target_': 'nequip.model.ModelFromPackage',
        'package_path': PARENT,
        'compile_mode': settings.compile_mode,
    }
    change = {'modifier': 'modify_PerTypeScaleShift', 'shifts': dict(shifts)}
    return {'_target_': 'nequip.model.modify', 'modifiers': [change], 'model': parent}


def effective_settings(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are in what a checkpoint of the trainer says of itself (its `info_dict`)."""
    trainer, module, data = info['trainer'], info['training_module'], info['data']
    weights = module['loss']['coeffs']
    schedule = (module.get('lr_scheduler') or {}).get('scheduler', {}).get('_target_')
    patience = [each['patience'] for each in trainer['callbacks'] if each['_target_'].endswith('EarlyStopping')]
    stress = [each['coeff'] for each in module['loss'].get('extra_metrics') or ()]
    return {
        'epochs': trainer['max_epochs'],
        'accumulate': trainer['accumulate_grad_batches'],
        'batch_size': data['train_dataloader']['batch_size'],
        'learning_rate': module['optimizer']['lr'],
        'betas': list(module['optimizer']['betas']),
        'lr_schedule': next(name for name, target in SCHEDULES.items() if target == schedule),
        'energy_weight': weights['total_energy'],
        'forces_weight': weights['forces'],
        'stress_weight': stress[0] if stress else 0.0,
        'ema_decay': module.get('ema_decay', 0.0),
        'patience': patience[0] if patience else None,
        'compile_mode': _innermost(module['model'])['compile_mode'],
    }


def _innermost(model: Mapping[str, Any]) -> Mapping[str, Any]:
    return _innermost(model['model']) if 'model' in model else model


def _data(settings: AllegroSettings, types: list[str], r_max: float, seed: int) -> dict[str, Any]:
    loader = {'_target_': 'torch.utils.data.DataLoader', 'batch_size': settings.batch_size}
    return {
        '_target_': 'nequip.data.datamodule.ASEDataModule',
        'seed': seed,
        'train_file_path': TRAINING,
        'val_file_path': VALIDATION,
        'ase_args': {'format': 'extxyz'},
        'transforms': [
            {'_target_': 'nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper', 'model_type_names': types},
            {'_target_': 'nequip.data.transforms.NeighborListTransform', 'r_max': r_max},
        ],
        'train_dataloader': {**loader, 'shuffle': True},
        'val_dataloader': loader,
        'stats_manager': {
            '_target_': 'nequip.data.CommonDataStatisticsManager',
            'type_names': types,
            'dataloader_kwargs': {'batch_size': settings.batch_size},
        },
    }


def _trainer(settings: AllegroSettings, device: str, output: str) -> dict[str, Any]:
    saver: dict[str, Any] = {'_target_': 'lightning.pytorch.callbacks.ModelCheckpoint', 'dirpath': output}
    saver |= {'auto_insert_metric_name': False}
    # `save_last` would not do: it saves no state but where the best has improved.
    callbacks = [
        {**saver, 'monitor': MONITORED, 'mode': 'min', 'filename': f'{BEST}-{{epoch}}', 'save_top_k': KEPT},
        {**saver, 'filename': f'{STATE}-{{epoch}}', 'save_top_k': 1, 'save_on_train_epoch_end': True},
    ]
    if settings.patience is not None:
        stop = {'_target_': 'lightning.pytorch.callbacks.EarlyStopping', 'monitor': MONITORED, 'mode': 'min'}
        callbacks.append({**stop, 'patience': settings.patience})
    return {
        '_target_': 'lightning.Trainer',
        'accelerator': 'gpu' if device == 'cuda' else 'cpu',
        'devices': 1,
        'max_epochs': settings.epochs,
        'accumulate_grad_batches': settings.accumulate,
        'check_val_every_n_epoch': 1,
        'num_sanity_val_steps': 0,
        'log_every_n_steps': 1_000_000_000,  # epochs are logged all the same
        'enable_progress_bar': False,
        'logger': {
            '_target_': 'lightning.pytorch.loggers.CSVLogger',
            'save_dir': output,
            'name': 'csv',
            'version': 0,
            'flush_logs_every_n_steps': 1,
        },
        'callbacks': callbacks,
    }


def _averaging(settings: AllegroSettings) -> dict[str, Any]:
    if settings.ema_decay:
        return {'_target_': 'nequip.train.EMALightningModule', 'ema_decay': settings.ema_decay}
    return {'_target_': 'nequip.train.NequIPLightningModule'}


def _loss(settings: AllegroSettings, has_stress: bool) -> dict[str, Any]:
    """Return the loss; its stress term is our own, as nequip's is not a number where no frame of a batch has one."""
    weight = STRESS_WEIGHT if settings.stress_weight is None else settings.stress_weight
    loss: dict[str, Any] = {
        '_target_': 'nequip.train.EnergyForceLoss',
        'per_atom_energy': True,
        'coeffs': {'total_energy': settings.energy_weight, 'forces': settings.forces_weight},
    }
    if has_stress and weight:
        metric = {'_target_': f'{mean_squared_error_or_zero.__module__}.{mean_squared_error_or_zero.__name__}'}
        stress = {'name': 'stress_mse', 'field': 'stress', 'coeff': weight, 'metric': metric, 'ignore_nan': True}
        loss['extra_metrics'] = [stress]
    return loss


def _metrics(has_stress: bool) -> dict[str, Any]:
    kind = 'EnergyForceStressMetrics' if has_stress else 'EnergyForceMetrics'
    metrics: dict[str, Any] = {
        '_target_': f'nequip.train.{kind}',
        'coeffs': {'per_atom_energy_rmse': 1.0, 'forces_rmse': 1.0},
    }
    return metrics | ({'ignore_nan': {'stress': True}} if has_stress else {})


def _schedule(settings: AllegroSettings) -> dict[str, Any]:
    target = SCHEDULES[settings.lr_schedule]
    if target is None:
        return {}
    about = {'T_max': settings.epochs} if settings.lr_schedule == 'cosine' else {'factor': 0.6, 'patience': 10}
    scheduler = {'_target_': target, **about}
    return {'lr_scheduler': {'scheduler': scheduler, 'monitor': MONITORED, 'interval': 'epoch', 'frequency': 1}}
