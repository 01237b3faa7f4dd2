"""Settings of MACE, and the protocols that give them values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from aiida_perovmlip.compute.settings import option

STRESS_WEIGHT = 10.0
RATE, TUNING_RATE = 0.01, 0.001
"""The initial learning rate where nothing is said: of a new network, and of one that is trained on."""

WAYS = ('average', 'estimated', 'isolated', 'parent')
"""Where energies of isolated atoms can come from, other than by symbol."""

LOSSES = {'universal': ('universal', 'universal'), 'squared': ('stress', 'weighted')}
"""What mace-torch calls a loss where there are stresses, and where there are none."""

Given = str | dict[str, float] | dict[str, dict[str, float]] | None


@dataclass(frozen=True)
class MaceSettings:
    """Settings of MACE; the names are those of mace-torch where it has one."""

    hidden_irreps: str = option('16x0e', 'Hidden features: channels and their symmetry, such as `128x0e + 128x1o`.')
    r_max: float = option(5.0, 'Cutoff of one layer.', unit='Å', minimum=1.0)
    num_interactions: int = option(2, 'Number of message-passing layers.', minimum=1)
    correlation: int = option(2, 'Body order of a message minus one.', minimum=1, maximum=4)
    max_ell: int = option(2, 'Highest spherical harmonic of an edge.', minimum=0)
    readout_irreps: str = option('8x0e', 'Features of the last readout (`MLP_irreps`).')
    radial_mlp: list[int] = option([16, 16], 'Widths of the radial network (`radial_MLP`).')
    atomic_energies: str | dict[str, float] | dict[str, dict[str, float]] | None = option(
        None,
        'Energy of each isolated atom in eV by symbol (`E0s`; where there are several heads, by head and symbol), or '
        'where it comes from: `average`, a least-squares fit to the energies of the frames, which is what a training '
        'from scratch does if nothing is said; `isolated`, the frames of one atom in the training dataset, which are '
        'then not trained on; `parent`, those of the parent, which is what a training with a parent does if nothing is '
        'said; `estimated`, those of the parent shifted by a least-squares fit to what it gets wrong, which it does '
        'instead where the frames are of another level of theory than the parent.',
    )
    epochs: int = option(60, 'Number of epochs, those of stage two not counted.', minimum=1)
    learning_rate: float | None = option(
        None, f'Initial learning rate; {RATE:g}, or {TUNING_RATE:g} with a parent.', minimum=0.0
    )
    scheduler: str = option(
        'ReduceLROnPlateau',
        'How the learning rate falls: where the error stops falling, or exponentially with the epochs.',
        choices=('ReduceLROnPlateau', 'ExponentialLR'),
    )
    lr_factor: float = option(0.8, 'What the learning rate is multiplied by on a plateau.', minimum=0.0, maximum=1.0)
    scheduler_patience: int = option(50, 'Epochs without improvement that make a plateau.', minimum=0)
    lr_scheduler_gamma: float = option(
        0.9993, 'What `ExponentialLR` multiplies the learning rate by in each epoch.', minimum=0.0, maximum=1.0
    )
    clip_grad: float = option(10.0, 'Largest norm of the gradient, longer ones are cut; 0 cuts none.', minimum=0.0)
    batch_size: int = option(4, 'Frames of one step (of each GPU).', minimum=1)
    valid_batch_size: int | None = option(
        None, 'Frames of one step of the validation; `batch_size` if nothing is said.', minimum=1
    )
    loss: str = option(
        'universal',
        'How errors count in the loss: `universal`, large ones by their size, and those of large forces less; '
        '`squared`, by their square. Frames near a minimum, such as those of a relaxation, are learned with `squared` '
        'alone: only the few large forces tell how stiff their bonds are. `multihead` knows `universal` alone.',
        choices=tuple(LOSSES),
    )
    energy_weight: float = option(1.0, 'Weight of energies per atom in the loss.', minimum=0.0)
    forces_weight: float = option(10.0, 'Weight of forces in the loss.', minimum=0.0)
    stress_weight: float | None = option(
        None,
        'Weight of stresses in the loss; frames without a stress take no part in it. If nothing is said, it is '
        f'{STRESS_WEIGHT:g} where any training frame has a stress, and 0 where none has.',
        minimum=0.0,
    )
    stage_two_epochs: int = option(
        0, 'Further epochs, after `epochs`, with other weights; the best of these is the potential then.', minimum=0
    )
    stage_two_learning_rate: float = option(0.001, 'Learning rate of stage two (`stage_two_lr`).', minimum=0.0)
    stage_two_energy_weight: float = option(1000.0, 'Weight of energies per atom in stage two.', minimum=0.0)
    stage_two_forces_weight: float = option(100.0, 'Weight of forces in stage two.', minimum=0.0)
    stage_two_stress_weight: float | None = option(
        None, 'Weight of stresses in stage two; if nothing is said, as `stress_weight`.', minimum=0.0
    )
    patience: int = option(
        0,
        'Epochs without a smaller validation loss after which a stage ends early; 0 never ends it. (That of mace-torch '
        'itself ends nothing on one processor, and looks at one head.)',
        minimum=0,
    )
    ema_decay: float = option(
        0.99, 'Decay of the moving average of the parameters; 0 switches it off.', minimum=0.0, maximum=1.0
    )
    dtype: str = option(
        'float64',
        'Precision of the parameters; float32 is faster, but cannot tell large total energies apart.',
        choices=('float32', 'float64'),
    )
    parent_head: str | None = option(
        None, 'The head of the parent to start from; needed where the parent has several. The others are dropped.'
    )
    keep_elements: bool | None = option(
        None,
        'Whether the potential still knows elements of the parent that the frames do not hold; it does if nothing is '
        'said.',
    )
    freeze_layers: str | None = option(
        None,
        'For `freeze`: the last kind of layers that stays as it is in the parent, with all before it; `interactions` '
        'if nothing is said.',
        choices=(None, 'embedding', 'interactions', 'products'),
    )
    lora_rank: int | None = option(None, 'For `lora`: rank of the added matrices; 4 if nothing is said.', minimum=1)
    lora_alpha: float | None = option(
        None, 'For `lora`: their weight is this over the rank; 8 if nothing is said.', minimum=0.0
    )
    replay_labels: str | None = option(
        None,
        'For `multihead`: labels of the frames that are replayed. `dataset`: those that they have, the choice if '
        'nothing is said; `parent`: what the parent predicts for them, and without a dataset `replay`, for the '
        'training frames.',
        choices=(None, 'dataset', 'parent'),
    )
    replay_weight: float | None = option(
        None,
        'For `multihead`: what the errors of replayed frames are multiplied by in the loss; 1 if nothing is said.',
        minimum=0.0,
    )
    gpus: int = option(1, 'Number of GPUs of one machine to train on, each with batches of its own.', minimum=1)
    enable_cueq: bool = option(False, 'Whether to train with cuEquivariance, the fast operations for NVIDIA GPUs.')


ONLY_FOR = {
    'freeze_layers': ('freeze',),
    'lora_rank': ('lora',),
    'lora_alpha': ('lora',),
    'replay_labels': ('multihead',),
    'replay_weight': ('multihead',),
    'parent_head': ('naive', 'multihead', 'freeze', 'lora'),
    'keep_elements': ('naive', 'multihead', 'freeze', 'lora'),
}
"""Settings that have a meaning with some strategies alone."""

FREEZE = {'embedding': 1, 'interactions': 5, 'products': 6}
"""What mace-torch calls the layers that stay as they are."""

DEFAULTS: dict[str, Any] = {
    'freeze_layers': 'interactions',
    'lora_rank': 4,
    'lora_alpha': 8.0,
    'replay_labels': 'dataset',
    'replay_weight': 1.0,
    'keep_elements': True,
}
"""What a setting is where nothing is said and the strategy has a use for it."""

SHAPE = (
    'hidden_irreps',
    'r_max',
    'num_interactions',
    'correlation',
    'max_ell',
    'readout_irreps',
    'radial_mlp',
    'dtype',
)
"""What a parent has the last word on."""

MAY_CHANGE = frozenset(
    {
        'epochs',
        'batch_size',
        'valid_batch_size',
        'learning_rate',
        'stage_two_learning_rate',
        'patience',
        'clip_grad',
        'gpus',
    }
)
"""What a run that is taken up may have otherwise; all else lies in its state, or would spoil the choice of the best."""

PROTOCOLS: dict[str, tuple[str, dict[str, Any]]] = {
    'fast': (
        'A first potential of some hundred small cells, within minutes on two cores.',
        {'hidden_irreps': '32x0e', 'r_max': 6.0, 'correlation': 2, 'epochs': 60},
    ),
    'balanced': (
        'A potential to work with: vectors among the features, squared errors, a learning rate that falls, averaged '
        'parameters.',
        {
            'hidden_irreps': '32x0e + 32x1o',
            'r_max': 6.0,
            'correlation': 2,
            'readout_irreps': '16x0e',
            'radial_mlp': [64, 64, 64],
            'loss': 'squared',
            'energy_weight': 10.0,
            'epochs': 80,
            'scheduler': 'ExponentialLR',
            'lr_scheduler_gamma': 0.97,
            'ema_decay': 0.99,
        },
    ),
    'paper': (
        'The fine-tuning of a foundation potential in the study of substitutional defects; the network is that of the '
        'parent.',
        {'learning_rate': 1e-5, 'epochs': 20, 'atomic_energies': 'isolated'},
    ),
}


def chosen(settings: MaceSettings, name: str) -> Any:
    """Return a setting, or what it is where nothing was said."""
    value = getattr(settings, name)
    return DEFAULTS.get(name) if value is None else value


def rate_of(settings: MaceSettings, has_parent: bool) -> float:
    """Return the initial learning rate, also where none was said."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    return TUNING_RATE if has_parent else RATE


def smaller_batch(settings: MaceSettings, has_parent: bool) -> dict[str, Any] | None:
    """Return half of the batch, with a learning rate that keeps the noise of Adam's steps what it was.

    The steps of Adam do not grow with the gradient, so their noise is that of the learning rate over the square root
    of the batch.
    """
    if settings.batch_size == 1 and (settings.valid_batch_size or 1) == 1:
        return None
    changed: dict[str, Any] = {}
    if settings.valid_batch_size:
        changed['valid_batch_size'] = max(settings.valid_batch_size // 2, 1)
    if settings.batch_size > 1:
        batch = settings.batch_size // 2
        rate = rate_of(settings, has_parent) * math.sqrt(batch / settings.batch_size)
        changed |= {'batch_size': batch, 'learning_rate': rate}
    return changed


LOWEST_RATE = 1e-8


def lower_rate(settings: MaceSettings, has_parent: bool) -> dict[str, Any] | None:
    """Return a third of the learning rates; None where they are as low as makes sense."""
    rate = rate_of(settings, has_parent)
    if rate <= LOWEST_RATE:
        return None
    changed = {'learning_rate': rate / 3}
    if settings.stage_two_epochs:
        changed['stage_two_learning_rate'] = settings.stage_two_learning_rate / 3
    return changed
