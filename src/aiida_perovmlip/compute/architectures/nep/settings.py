"""The settings of NEP, and which of its two trainers each of them belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiida_perovmlip.compute.architectures.nep.potential_file import Header
from aiida_perovmlip.compute.settings import option

TRAINERS = ('neppo', 'gpumd')
WAYS = ('average', 'estimated', 'parent')
"""Where the energies of elements that are taken off before the training can come from, other than by symbol."""

STRUCTURE: dict[str, Any] = {
    'radial_cutoff': 7.0,
    'angular_cutoff': 5.5,
    'n_max': [8, 6],
    'basis_size': [12, 10],
    'l_max': [4, 2, 1],
    'neurons': 60,
    'zbl': None,
}
"""What makes a potential, with its defaults; a parent has the last word on all of it."""

OWN: dict[str, dict[str, Any]] = {
    'neppo': {
        'steps': 3000,
        'batch_size': 4,
        'learning_rate': 0.05,
        'final_learning_rate': 1e-4,
        'weight_decay': 0.0,
        'loss_form': 'mse',
    },
    'gpumd': {'generations': 100_000, 'frames_per_generation': None, 'population': 50, 'executable': 'nep'},
}
"""What one trainer has and the other does not, with its defaults."""

TUNING = {'learning_rate': 1e-3, 'final_learning_rate': 1e-5}
"""What is different by default where a parent is trained on; what a protocol says of it is for new potentials."""

HINTS = {
    'steps': '`gpumd` counts `generations` of an evolution strategy, of which it needs some hundred times as many',
    'generations': '`neppo` counts `steps` along gradients, of which it needs some hundred times fewer',
    'batch_size': '`gpumd` looks at all frames in each generation, or at `frames_per_generation`',
    'frames_per_generation': '`neppo` looks at `batch_size` frames in each step',
}

LOWEST_RATE = 1e-8
"""Below this a smaller learning rate trains nothing."""

LAMBDA_V = 0.1


@dataclass(frozen=True)
class NepSettings:
    """Settings of NEP; what belongs to one trainer alone says so, and is refused for the other."""

    trainer: str = option(
        'neppo',
        '`neppo`, gradient descent on any machine, or `gpumd`, the evolution strategy of the executable `nep`, which '
        'needs a GPU.',
        choices=TRAINERS,
    )
    executable: str | None = option(None, '`gpumd`: name or path of the executable; `nep` if nothing is said.')
    radial_cutoff: float | None = option(
        None, 'Cutoff of the radial descriptors; 7, or that of the parent.', unit='Å', minimum=2.0, maximum=20.0
    )
    angular_cutoff: float | None = option(
        None, 'Cutoff of the angular descriptors; 5.5, or that of the parent.', unit='Å', minimum=2.0, maximum=20.0
    )
    n_max: list[int] | None = option(
        None, 'Number of radial functions minus one, radial and angular; [8, 6], or that of the parent.'
    )
    basis_size: list[int] | None = option(
        None, 'Number of basis functions of these minus one, radial and angular; [12, 10], or that of the parent.'
    )
    l_max: list[int] | None = option(
        None,
        'Highest degree of the three-body terms, 2 for four-body terms or 0, 1 for five-body terms or 0; [4, 2, 1], or '
        'that of the parent.',
    )
    neurons: int | None = option(None, 'Neurons of the hidden layer; 60, or that of the parent.', minimum=1)
    zbl: float | None = option(
        None,
        'Outer cutoff of a repulsion at short distance (ZBL); none, or that of the parent.',
        unit='Å',
        minimum=1.0,
        maximum=4.0,
    )
    atomic_energies: str | dict[str, float] | None = option(
        None,
        'Energy in eV of each element by symbol that is taken off the labels before the training and added to what '
        'the potential predicts, or where it comes from: `average`, a least-squares fit to the energies of the frames '
        '(without a parent, if nothing is said); `estimated`, those of the parent shifted by a least-squares fit to '
        'what it gets wrong (with a parent, if nothing is said); `parent`, those of the parent.',
    )
    lambda_e: float = option(1.0, 'Weight of energies per atom in the loss.', minimum=0.0)
    lambda_f: float = option(1.0, 'Weight of forces in the loss.', minimum=0.0)
    lambda_v: float | None = option(
        None,
        f'Weight of virials per atom in the loss; {LAMBDA_V:g} where any training frame has a stress, else 0.',
        minimum=0.0,
    )
    lambda_1: float | None = option(
        None, 'Weight of the L1 regularisation; none for `neppo`, chosen by the trainer for `gpumd`.', minimum=0.0
    )
    lambda_2: float | None = option(
        None, 'Weight of the L2 regularisation; none for `neppo`, chosen by the trainer for `gpumd`.', minimum=0.0
    )
    steps: int | None = option(None, '`neppo`: number of steps along the gradient of a batch; 3000.', minimum=1)
    batch_size: int | None = option(None, '`neppo`: frames of one step; 4.', minimum=1)
    learning_rate: float | None = option(
        None, '`neppo`: learning rate of the first step; 0.05, or 0.001 with a parent.', minimum=1e-12
    )
    final_learning_rate: float | None = option(
        None,
        '`neppo`: learning rate of the last step, to which it decays along a cosine; 1e-4, or 1e-5 with a parent.',
        minimum=1e-12,
    )
    weight_decay: float | None = option(None, '`neppo`: decay of the parameters (AdamW); 0.', minimum=0.0)
    loss_form: str | None = option(
        None, '`neppo`: whether the loss sums mean squares (`mse`) or their roots, as GPUMD does (`rmse`); `mse`.'
    )
    generations: int | None = option(
        None, '`gpumd`: generations of the evolution strategy, a multiple of 100; 100 000.', minimum=100
    )
    frames_per_generation: int | None = option(
        None, '`gpumd`: frames that a generation is judged by (`batch`); all of them.', minimum=1
    )
    population: int | None = option(None, '`gpumd`: solutions of one generation; 50.', minimum=10, maximum=200)


def problem_of_settings(settings: NepSettings, has_parent: bool = False) -> str | None:
    """Return a sentence where settings contradict each other or the chosen trainer.

    :param has_parent: whether what was not said is as in a parent, and not as by default.
    """
    for trainer, own in OWN.items():
        foreign = [name for name in own if trainer != settings.trainer and getattr(settings, name) is not None]
        if foreign:
            names = ', '.join(f'`{name}`' for name in foreign)
            hints = '; '.join(HINTS[name] for name in foreign if name in HINTS)
            which = 'belongs' if len(foreign) == 1 else 'belong'
            return (
                f'{names} {which} to the trainer `{trainer}`, but `trainer` is `{settings.trainer}`'
                f'{": " + hints if hints else ""}.'
            )
    structure = {name: getattr(settings, name) for name in STRUCTURE} if has_parent else structure_of(settings)
    return _problem_of_structure(structure) or _problem_of_values(settings)


def structure_of(settings: NepSettings) -> dict[str, Any]:
    """Return what makes a potential that has no parent."""
    given = {name: getattr(settings, name) for name in STRUCTURE}
    return {name: STRUCTURE[name] if value is None else value for name, value in given.items()}


def _problem_of_structure(structure: dict[str, Any]) -> str | None:
    """Return a sentence where the lists have a wrong length or hold what NEP does not have.

    :param structure: what is known of it; None is not.
    """
    limits = {'n_max': ((0, 12), (0, 8)), 'basis_size': ((0, 16), (0, 12)), 'l_max': ((2, 8), (0, 2), (0, 1))}
    for name, bounds in limits.items():
        values = structure[name]
        if values is None:
            continue
        within = len(values) == len(bounds) and all(
            low <= value <= high for value, (low, high) in zip(values, bounds, strict=True)
        )
        if not within or (name == 'l_max' and values[1] == 1):
            wanted = '0 or 2, 0 or 1' if name == 'l_max' else ''
            ranges = ', '.join(f'{low} to {high}' for low, high in bounds[: 1 if wanted else 2])
            return f'`{name}` is {values}, but has to be [{ranges}{", " + wanted if wanted else ""}].'
    angular, radial = structure['angular_cutoff'], structure['radial_cutoff']
    if angular is not None and radial is not None and angular > radial:
        return f'`angular_cutoff` is {angular:g} Å, but cannot be larger than `radial_cutoff`, {radial:g} Å.'
    return None


def _problem_of_values(settings: NepSettings) -> str | None:
    """Return a sentence where a value cannot be used by the chosen trainer."""
    if settings.loss_form not in (None, 'mse', 'rmse'):
        return f'`loss_form` is {settings.loss_form!r}, but has to be `mse` or `rmse`.'
    if settings.generations is not None and settings.generations % 100:
        return f'`generations` is {settings.generations}, but GPUMD writes the potential every 100; take a multiple.'
    if isinstance(settings.atomic_energies, str) and settings.atomic_energies not in WAYS:
        ways = ', '.join(WAYS)
        return f'`atomic_energies` is {settings.atomic_energies!r}, but has to be {ways}, or an energy for each symbol.'
    return None


def resolve(settings: NepSettings, parent: Header | None, n_frames: int, has_stress: bool) -> dict[str, Any]:
    """Return the value of every setting that plays a role.

    :param n_frames: number of training frames.
    """
    wanted = structure_of(settings) if parent is None else parent.settings()
    own = OWN[settings.trainer] | (TUNING if parent is not None and settings.trainer == 'neppo' else {})
    wanted |= {name: default if getattr(settings, name) is None else getattr(settings, name)
               for name, default in own.items()}  # fmt: skip
    if settings.trainer == 'gpumd' and wanted['frames_per_generation'] is None:
        wanted['frames_per_generation'] = n_frames
    lambda_v = settings.lambda_v
    if lambda_v is None:
        lambda_v = LAMBDA_V if has_stress else 0.0
    weights = {'lambda_e': settings.lambda_e, 'lambda_f': settings.lambda_f, 'lambda_v': lambda_v}
    optional = {name: getattr(settings, name) for name in ('lambda_1', 'lambda_2')}
    return {
        'trainer': settings.trainer,
        **wanted,
        **weights,
        **{name: value for name, value in optional.items() if value is not None},
    }
