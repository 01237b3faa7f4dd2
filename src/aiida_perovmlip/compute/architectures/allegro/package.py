"""What nequip writes, read and used: packaged networks and checkpoints of its trainer."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.compute.architecture import Prediction
from aiida_perovmlip.compute.frame import Frame

FILENAME = 'allegro.nequip.zip'
ATOMS_AT_ONCE = 2000
"""Atoms that are predicted at once."""

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The oldest date that an archive can hold."""


def write_plain_archive(source: Path, target: Path) -> None:
    """Copy a package without what differs from one writing to the next: dates and the order of its parts."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, 'w', zipfile.ZIP_STORED) as plain:
        for name in sorted(archive.namelist()):
            plain.writestr(zipfile.ZipInfo(name, LONG_AGO), archive.read(name))


def open_package(potential: Path) -> tuple[Any, list[str], float]:
    """Return the network in a potential, its chemical symbols in its order, and its cutoff in Å; runs foreign code."""
    from nequip.model.saved_models.load_utils import load_saved_model
    from nequip.utils.global_state import set_global_state

    set_global_state()
    network = load_saved_model(str(Path(potential) / FILENAME))
    network.eval()
    return network, network.metadata['type_names'].split(' '), float(network.metadata['r_max'])


def info_of(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint of the trainer says of its configuration; runs foreign code."""
    import torch

    content = torch.load(checkpoint, map_location='cpu', weights_only=False)
    info: dict[str, Any] = content['hyper_parameters']['info_dict']
    return info


def epochs_of(checkpoint: Path) -> int:
    """Return the number of epochs that a checkpoint of the trainer has seen; runs foreign code."""
    import torch

    return int(torch.load(checkpoint, map_location='cpu', weights_only=False)['epoch']) + 1


def _part(network: Any, kind: str) -> Any:
    """Return the part of a network whose class has this name; packaged classes are not those that are installed."""
    return next((module for module in network.modules() if type(module).__name__ == kind), None)


def shifts_of(network: Any) -> dict[str, float]:
    """Return the energy in eV that each element has by itself."""
    part = _part(network, 'PerTypeScaleShift')
    shifts = part.shifts.detach().reshape(-1).tolist() if part.has_shifts else [0.0]
    types = list(part.type_names)
    return dict(zip(types, shifts * len(types) if len(shifts) == 1 else shifts, strict=True))


def predict_batch(calculator: Any, frames: Sequence[Frame]) -> Iterator[Prediction]:
    """Yield the predictions of some frames that are computed at once."""
    from nequip.data import AtomicDataDict

    data = [calculator.atoms_to_data(frame.to_atoms(labels=False)) for frame in frames]
    out = calculator.call_model(AtomicDataDict.batched_from_list(data))
    energies = out['total_energy'].detach().cpu().numpy().reshape(-1)
    forces = np.split(out['forces'].detach().cpu().numpy(), np.cumsum([len(frame) for frame in frames])[:-1])
    tensors = out['stress'].detach().cpu().numpy().reshape(-1, 9)[:, (0, 4, 8, 5, 2, 1)]
    for frame, energy, force, stress in zip(frames, energies, forces, tensors, strict=True):
        has_stress = frame.has_volume
        yield Prediction(float(energy), force.astype(float), stress.astype(float) if has_stress else None)


def network_settings(network: Any) -> dict[str, Any]:
    """Return the settings that a network itself shows, whatever its training was asked for.

    A parent from elsewhere may be another network of nequip's, in which not all that Allegro has can be found.
    """
    found = {'zbl': _part(network, 'ZBL') is not None, 'dtype': network.metadata['model_dtype']}
    bessels = _part(network, 'BesselEdgeLengthEncoding')
    if bessels is not None:
        found |= {
            'num_bessels': int(bessels.num_bessels),
            'bessel_trainable': bool(bessels.trainable),
            'polynomial_cutoff_p': int(_part(bessels, 'PolynomialCutoff').p),
        }
    layers = _part(network, 'Allegro_Module')
    found |= _tensors_of_nequip(network) if layers is None else _tensors_of_allegro(layers)
    for name, mlp in _mlps(network, layers).items():
        found |= {f'{name}_mlp_{what}': value for what, value in _hidden(mlp).items()}
        nonlinearity = _nonlinearity(mlp)
        if name == 'readout' and nonlinearity is not None:
            found['readout_mlp_nonlinearity'] = nonlinearity
    return found


def _tensors_of_allegro(layers: Any) -> dict[str, Any]:
    """Return what the layers of an Allegro network are made of."""
    return {
        'l_max': max(irrep.ir.l for irrep in layers.irreps_in['edge_attrs']),
        'parity': len({irrep.ir.p * (-1) ** irrep.ir.l for irrep in layers.tensor_track_allowed_irreps}) > 1,
        'num_layers': int(layers.num_layers),
        'num_scalar_features': int(layers.num_scalar_features),
        'num_tensor_features': int(layers.num_tensor_features),
    }


def _tensors_of_nequip(network: Any) -> dict[str, Any]:
    """Return what the layers of a network of NequIP are made of; nothing where it is neither."""
    layers = [module for module in network.modules() if type(module).__name__ == 'ConvNetLayer']
    if not layers:
        return {}
    hidden = [irrep.ir for layer in layers for irrep in layer.feature_irreps_hidden]
    return {
        'l_max': max(irrep.ir.l for irrep in layers[0].irreps_in['edge_attrs']),
        'parity': len({ir.p * (-1) ** ir.l for ir in hidden}) > 1,
        'num_layers': len(layers),
    }


def _mlps(network: Any, layers: Any) -> dict[str, Any]:
    """Return the networks within a network that are found, by the beginning of the names of their settings."""
    whole = _part(network, 'SequentialGraphNetwork')
    parts = {'scalar_embed': 'scalar_embed_mlp', 'readout': 'edge_readout'}
    if layers is None:
        parts = {'readout': 'per_atom_energy_readout'}
    found = {name: getattr(getattr(whole, part, None), 'mlp_module', None) for name, part in parts.items()}
    found |= {} if layers is None else {'allegro': layers.latents[0]}
    return {name: mlp for name, mlp in found.items() if hasattr(mlp, 'dims')}


def _hidden(mlp: Any) -> dict[str, Any]:
    """Return the number of hidden layers and their width; without any, there is no width."""
    hidden = [int(width) for width in mlp.dims[1:-1]]
    return {'hidden_layers_depth': len(hidden), **({'hidden_layers_width': hidden[0]} if hidden else {})}


def _nonlinearity(mlp: Any) -> str | None:
    """Return the name of what stands between the layers; None where there is but one."""
    if len(_hidden(mlp)) < 2:  # a depth without a width
        return None
    between = [type(part).__name__.lower() for part in mlp.mlp if type(part).__name__ != 'ScalarLinearLayer']
    return 'none' if not between or between[0] == 'identity' else between[0]
