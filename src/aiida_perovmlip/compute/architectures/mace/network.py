"""The network in the file of a MACE potential: opened, compared, evaluated and put together; only inside a job."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.compute.architecture import PotentialFacts, Prediction, Predictor, in_batches
from aiida_perovmlip.compute.architectures.mace.settings import MaceSettings, chosen
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Frame

FILENAME = 'mace.model'
ATOMS_OF_BATCH = {'cpu': 512, 'cuda': 8192}
"""Atoms that are evaluated at once, by device; more need memory and gain nothing."""

TRAINED = 'ScaleShiftMACE'
"""The kind of network that is made, and that can be a parent."""

LAYERS = {
    'node_embedding': 'embedding',
    'interactions': 'interactions',
    'products': 'products',
    'readouts': 'readouts',
}
"""Kinds of layers by the first word of the names of their parameters, in the order in which atoms see them."""


def preload() -> None:
    """Load what opens a network: beside a trainer that starts, which does so on one core, this takes no time."""
    with suppress(ImportError):  # what is missing is told where it is needed
        import mace.modules  # noqa: F401


def load(path: Path, device: str = 'cpu') -> Any:
    """Open the pickled network."""
    import mace  # noqa: F401  (has to be imported before e3nn)
    import torch

    return torch.load(path, map_location=device, weights_only=False)


def save(network: Any, path: Path) -> None:
    """Write a network."""
    import torch

    torch.save(network, path)


def heads_in(network: Any) -> tuple[str, ...]:
    """Return the names of the heads."""
    return tuple(getattr(network, 'heads', None) or ('Default',))


def kind_of(network: Any) -> str:
    """Return what kind of network it is; one that was compiled still tells."""
    return str(getattr(network, 'original_name', type(network).__name__))


def symbols_in(network: Any) -> list[str]:
    """Return the elements in the order of the network."""
    from ase.data import chemical_symbols

    return [chemical_symbols[int(number)] for number in network.atomic_numbers]


def facts_of(network: Any) -> PotentialFacts:
    """Return what is in a network."""
    if not all(hasattr(network, name) for name in ('atomic_numbers', 'r_max', 'atomic_energies_fn')):
        raise JobError(
            Status.BAD_INPUT,
            f'{FILENAME} holds an object of the kind `{kind_of(network)}`, which is no MACE potential.',
        )
    symbols, heads = symbols_in(network), heads_in(network)
    energies = network.atomic_energies_fn.atomic_energies.detach().reshape(len(heads), -1).tolist()
    parameters = list(network.parameters())
    bad = sum(int((~parameter.isfinite()).sum()) for parameter in parameters)
    if bad:
        raise JobError(Status.DIVERGED, f'{bad} parameters of the potential are not finite numbers.')
    return PotentialFacts(
        elements=tuple(sorted(symbols)),
        cutoff=float(network.r_max),
        heads=heads,
        dtype=str(parameters[0].dtype).removeprefix('torch.'),
        n_parameters=sum(parameter.numel() for parameter in parameters),
        energies_of_atoms={
            head: dict(zip(symbols, row, strict=True)) for head, row in zip(heads, energies, strict=True)
        },
    )


# ---------------------------------------------------------------------- before the training


def open_parent(folder: Path, head: str | None, dtype: str) -> Any:
    """Return the network of a parent with the one head that is trained on, in the precision of the training."""
    import torch

    network = load(folder / FILENAME)
    if type(network).__name__ != TRAINED:
        raise JobError(
            Status.BAD_INPUT,
            f'The parent is a network of the kind `{kind_of(network)}`'
            + (', compiled' if kind_of(network) == TRAINED else '')
            + f', but only a `{TRAINED}` as mace-torch saves it can be trained on; take another parent.',
        )
    if len(heads_in(network)) > 1:
        from mace.tools.scripts_utils import remove_pt_head
        from mace.tools.torch_tools import default_dtype

        with default_dtype(next(network.parameters()).dtype):  # in which it makes the new network
            network = remove_pt_head(network, head)
    return network.to(getattr(torch, dtype))


def with_energies(network: Any, energies: Mapping[str, float]) -> Any:
    """Return a network of one head with these energies of isolated atoms.

    Where parent and potential have the same elements and one head, mace-torch takes the energies that are in the file
    of the parent, whatever it is told.
    """
    network = copy.deepcopy(network)
    for index, symbol in enumerate(symbols_in(network)):
        if symbol in energies:
            network.atomic_energies_fn.atomic_energies[..., index] = energies[symbol]
    return network


# ---------------------------------------------------------------------- after the training


def assembled(shell: Any, state: Path, settings: MaceSettings, strategy: str, heads: Mapping[str, str]) -> Any:
    """Return the network of a state.

    :param shell: a network of the shape of the potential, as the trainer wrote it at its end.
    :param state: the trainer's file of an epoch.
    :param heads: names of the heads in their order, by what the trainer calls them.
    """
    import torch

    if heads_in(shell) != tuple(heads):
        raise JobError(
            Status.SETTINGS_IGNORED,
            f'The trainer did not do what was asked: the heads were {", ".join(heads)}, but its file has '
            f'{", ".join(heads_in(shell))}.',
        )
    content = torch.load(state, map_location='cpu', weights_only=True)['model']
    if strategy == 'lora':
        from mace.modules.lora import inject_LoRAs, merge_lora_weights

        network = inject_LoRAs(shell, rank=chosen(settings, 'lora_rank'), alpha=chosen(settings, 'lora_alpha'))
        network.load_state_dict(content, strict=True)
        network = merge_lora_weights(network)
    elif settings.enable_cueq:
        from mace.cli.convert_cueq_e3nn import run as to_e3nn
        from mace.cli.convert_e3nn_cueq import run as to_cueq

        network = to_cueq(shell, device='cpu')
        network.load_state_dict(content, strict=True)
        network = to_e3nn(network, device='cpu')
    else:
        network = shell
        network.load_state_dict(content, strict=True)
    network.heads = list(heads.values())
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return network


def changes(network: Any, parent: Any) -> dict[str, str]:
    """Return by kind of layer whether its parameters are the parent's: `all`, `some` or `none` of them changed.

    What is compared with is not the parent, but what mace-torch makes of it in a network of this shape: elements can
    be fewer, readouts can be more.
    """
    import torch
    from mace.tools.finetuning_utils import load_foundations_elements
    from mace.tools.utils import AtomicNumberTable

    start = load_foundations_elements(
        copy.deepcopy(network),
        parent,
        AtomicNumberTable([int(number) for number in network.atomic_numbers]),
        load_readout=True,
        max_L=parent.products[0].linear.irreps_out.lmax,
        default_dtype=next(network.parameters()).dtype,
    )
    before = dict(start.named_parameters())
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in network.named_parameters():
        kind = LAYERS.get(name.split('.')[0], 'others')
        changed, total = counts.get(kind, (0, 0))
        counts[kind] = (changed + int(not torch.equal(parameter, before[name])), total + 1)
    return {
        kind: 'none' if not changed else ('all' if changed == total else 'some')
        for kind, (changed, total) in counts.items()
    }


def rank_of_lora(state: Path) -> int | None:
    """Return the rank of the added matrices in the trainer's file of an epoch; None where there are none."""
    import torch

    content = torch.load(state, map_location='cpu', weights_only=True)['model']
    ranks = [tensor.shape[-1] for name, tensor in content.items() if name.endswith('.lora_A') and tensor.ndim == 2]
    return max(ranks, default=None)


def settings_in(network: Any, asked: MaceSettings) -> dict[str, Any]:
    """Return the settings that the network itself shows."""
    from mace.tools.scripts_utils import extract_config_mace_model

    found = extract_config_mace_model(network)
    layers = int(found['num_interactions'])
    settings = {
        'hidden_irreps': spelled(asked.hidden_irreps, str(found['hidden_irreps'])),
        'r_max': float(found['r_max']),
        'num_interactions': layers,
        'correlation': int(found['correlation']),
        'max_ell': int(found['max_ell']),
        'radial_mlp': [int(width) for width in found['radial_MLP']],
        'dtype': str(next(network.parameters()).dtype).removeprefix('torch.'),
    }
    if layers > 1:  # the readout of a single layer is linear
        width = str(found['MLP_irreps'])
        settings['readout_irreps'] = spelled(asked.readout_irreps, width)
    return settings


def spelled(asked: str, done: str) -> str:
    """Return what was done, in the spelling of what was asked where both mean the same."""
    return asked if terms_of(asked) == terms_of(done) else done


def terms_of(irreps: str) -> dict[str, int]:
    """Return the number of channels by symmetry."""
    terms: dict[str, int] = {}
    for term in irreps.replace(' ', '').split('+'):
        count, times, symmetry = term.rpartition('x')
        terms[symmetry] = terms.get(symmetry, 0) + (int(count) if times else 1)
    return terms


# ---------------------------------------------------------------------- evaluation


def predict(network: Any, frames: Iterable[Frame], device: str, head: str) -> Iterator[Prediction]:
    """Predict frames once."""
    yield from predictor(network, device, head)(frames)


def predictor(network: Any, device: str, head: str) -> Predictor:
    """Return what predicts frames in batches with a copy of a network: the caller's stays where and as it is."""
    network = copy.deepcopy(network).to(device)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    limit = ATOMS_OF_BATCH.get(device, ATOMS_OF_BATCH['cpu'])
    return in_batches(lambda frames: _predict_batch(network, frames, device, head), limit)


def _predict_batch(network: Any, frames: list[Frame], device: str, head: str) -> Iterator[Prediction]:
    """Yield the predictions of frames that are computed at once."""
    from mace.tools import torch_geometric

    numbers = [int(number) for number in network.atomic_numbers]
    graphs = [_graph(frame, network, numbers, head) for frame in frames]
    batch = torch_geometric.Batch.from_data_list(graphs).to(device)
    output = network(batch.to_dict(), training=False, compute_force=True, compute_stress=True)
    energies, forces, stresses = (
        output[name].detach().cpu().double().numpy() for name in ('energy', 'forces', 'stress')
    )
    ends = np.cumsum([len(frame) for frame in frames])
    for index, frame in enumerate(frames):
        yield Prediction(
            energy=float(energies[index]),
            forces=forces[ends[index] - len(frame) : ends[index]],
            stress=_voigt(stresses[index]) if frame.has_volume else None,
        )


def relabelled(network: Any, frames: Iterable[Frame], device: str) -> Iterator[Frame]:
    """Yield frames with the labels that a network of one head predicts."""
    kept = list(frames)
    for frame, found in zip(kept, predict(network, kept, device, heads_in(network)[0]), strict=True):
        yield replace(frame, energy=found.energy, forces=found.forces, stress=found.stress)


def _graph(frame: Frame, network: Any, numbers: list[int], head: str) -> Any:
    """Return a frame as mace-torch wants it, in the precision of the network."""
    from mace import data
    from mace.tools.torch_tools import default_dtype
    from mace.tools.utils import AtomicNumberTable

    dtype = str(next(network.parameters()).dtype).removeprefix('torch.')
    configuration = data.config_from_atoms(frame.to_atoms(labels=False), head_name=head)
    with default_dtype(dtype):
        return data.AtomicData.from_config(
            configuration,
            z_table=AtomicNumberTable(numbers),
            cutoff=float(network.r_max),
            heads=list(heads_in(network)),
        )


def _voigt(stress: Any) -> Any:
    """Return xx yy zz yz xz xy of a (3, 3) stress."""
    mean = 0.5 * (stress + stress.T)
    return mean[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]


def descriptors(calculator: Any, frames: Iterable[Frame]) -> Iterator[Any]:
    """Yield the invariant features of the atoms of each frame, (n_atoms, n)."""
    for frame in frames:
        yield np.asarray(calculator.get_descriptors(frame.to_atoms(labels=False), invariants_only=True))


def set_rates(state: Path, target: Path, factor: float, rate: float | None, of_stage_two: float | None = None) -> None:
    """Copy the trainer's file of an epoch with other learning rates: what it holds goes before what it is told.

    :param factor: what all rates are multiplied by.
    :param rate: what all rates are then; None leaves them.
    :param of_stage_two: the rate to which stage two goes in its first step after the one of this state.
    """
    import torch

    content = torch.load(state, map_location='cpu', weights_only=True)
    for group in content['optimizer']['param_groups']:
        for name in ('lr', 'initial_lr'):
            if name in group:
                group[name] = group[name] * factor if rate is None else rate
        if of_stage_two is not None:
            group['swa_lr'] = of_stage_two
    torch.save(content, target)


def schedule_in(state: Path, is_stage_two: bool) -> dict[str, Any]:
    """Return the settings of the learning rate that the trainer's file of an epoch holds."""
    import torch

    content = torch.load(state, map_location='cpu', weights_only=True)
    groups, schedule = content['optimizer']['param_groups'], content['lr_scheduler']
    if 'factor' in schedule:
        found = {'scheduler': 'ReduceLROnPlateau', 'lr_factor': float(schedule['factor'])}
        found |= {'scheduler_patience': int(schedule['patience'])}
    else:
        found = {'scheduler': 'ExponentialLR', 'lr_scheduler_gamma': float(schedule['gamma'])}
    name = 'lr' if is_stage_two else 'swa_lr'
    return found | ({'stage_two_learning_rate': float(groups[0][name])} if 'swa_lr' in groups[0] else {})
