"""MACE: equivariant message passing, trained by the command line of mace-torch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, Trained, Training
from aiida_perovmlip.compute.children import start_child
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.extxyz import write_extxyz
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.settings import option

FILENAME = 'mace.model'
NAME = 'mace'
LOG = 'trainer.log'
POLL = 0.5
"""Seconds between two looks at the trainer's results."""


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
    atomic_energies: str | dict[str, float] = option(
        'average', 'Energy of each isolated atom in eV by symbol, or `average` for a least-squares estimate (`E0s`).'
    )
    epochs: int = option(60, 'Number of epochs.', minimum=1)
    learning_rate: float = option(0.01, 'Initial learning rate.', minimum=0.0)
    batch_size: int = option(4, 'Frames of one step.', minimum=1)
    energy_weight: float = option(1.0, 'Weight of energies per atom in the loss.', minimum=0.0)
    forces_weight: float = option(10.0, 'Weight of forces in the loss.', minimum=0.0)
    stress_weight: float = option(
        10.0, 'Weight of stresses in the loss; used where all frames have a stress.', minimum=0.0
    )
    ema_decay: float = option(
        0.99, 'Decay of the moving average of the parameters; 0 switches it off.', minimum=0.0, maximum=1.0
    )
    dtype: str = option('float64', 'Precision of the parameters.', choices=('float32', 'float64'))


class Mace(Architecture):
    """MACE by mace-torch."""

    name: ClassVar[str] = 'mace'
    summary: ClassVar[str] = 'Equivariant message passing with high body order'
    requirements: ClassVar[tuple[str, ...]] = ('torch', 'mace-torch')
    protocols: ClassVar[dict[str, dict[str, Any]]] = {
        'fast': {},
        'balanced': {
            'hidden_irreps': '32x0e + 32x1o',
            'r_max': 6.0,
            'max_ell': 3,
            'epochs': 200,
            'readout_irreps': '16x0e',
        },
    }
    Settings = MaceSettings

    def device(self, wanted: str) -> str:
        """Return `cuda` where it is wanted, or for `auto` where there is one."""
        if wanted == 'cpu':
            return 'cpu'
        import torch

        if torch.cuda.is_available():
            return 'cuda'
        if wanted == 'cuda':
            raise JobError(Status.BAD_INPUT, 'The device `cuda` was asked for, but torch sees none on this machine.')
        return 'cpu'

    def check(self, settings: MaceSettings, training: Frames, validation: Frames | None) -> str | None:
        """Refuse what mace-torch would crash on, or worse, would not."""
        if validation is None or not len(validation):
            return 'MACE chooses the best epoch by the errors on a validation set; give one, for example by a split.'
        if settings.batch_size > len(training):
            return f'`batch_size` is {settings.batch_size}, but there are only {len(training)} training frames.'
        return None

    def train(self, training: Training) -> Trained:
        """Run the trainer, follow its results, and reopen what it wrote."""
        has_stress = [_write(frames, training.folder / name) for name, frames in _sets(training).items()]
        arguments = _arguments(training, all(has_stress))
        curve = _run_trainer(training, arguments)
        source = training.folder / f'{NAME}.model'
        if not source.is_file():
            raise JobError(Status.FAILED, f'The trainer ended without a potential. {_last_lines(training.folder)}')
        shutil.copyfile(source, training.folder / 'potential' / FILENAME)
        effective = _effective(training.folder / 'potential')
        effective |= _effective_of_log(training.folder, all(has_stress))
        if isinstance(training.settings.atomic_energies, dict):
            effective['atomic_energies'] = self.facts(training.folder / 'potential').energies_of_atoms['Default']
        return Trained(curve, effective)

    def facts(self, potential: Path) -> PotentialFacts:
        """Read the facts from the file itself."""
        from ase.data import chemical_symbols

        network = _load(potential, 'cpu')
        symbols = [chemical_symbols[int(number)] for number in network.atomic_numbers]
        heads = tuple(getattr(network, 'heads', None) or ('Default',))
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

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Return mace-torch's calculator."""
        from mace.calculators import MACECalculator

        dtype = self.facts(Path(potential)).dtype
        return MACECalculator(
            str(Path(potential) / FILENAME), device=device, default_dtype=dtype, head=head or 'Default'
        )

    def self_test(self) -> str:
        """Multiply two matrices on the device and import the trainer."""
        import mace.cli.run_train  # noqa: F401
        import torch

        device = self.device('auto')
        one = torch.eye(64, device=device) @ torch.eye(64, device=device)
        if float(one.sum()) != 64.0:
            raise ArithmeticError(f'the product of two unit matrices on {device} is wrong.')
        where = torch.cuda.get_device_name(0) if device == 'cuda' else f'{torch.get_num_threads()} threads'
        return f'torch {torch.__version__} works on {device} ({where})'


def _sets(training: Training) -> dict[str, Frames]:
    """Return the files that the trainer reads and the frames in these."""
    assert training.validation is not None
    return {'training.xyz': training.training, 'validation.xyz': training.validation}


def _write(frames: Frames, path: Path) -> bool:
    """Write frames in MACE's dialect; return whether all of them have a stress."""
    complete = True

    def look(frame: Any) -> Any:
        nonlocal complete
        complete &= frame.stress is not None
        return frame

    with path.open('w', encoding='utf-8') as handle:
        write_extxyz((look(frame) for frame in frames), handle, 'mace')
    return complete


def _arguments(training: Training, has_stress: bool) -> dict[str, Any]:
    """Return the arguments of the trainer by name."""
    settings: MaceSettings = training.settings
    arguments: dict[str, Any] = {
        'name': NAME,
        'model': 'ScaleShiftMACE',
        'seed': training.seed,
        'work_dir': '.',
        'device': training.device,
        'default_dtype': settings.dtype,
        'train_file': 'training.xyz',
        'valid_file': 'validation.xyz',
        'energy_key': 'REF_energy',
        'forces_key': 'REF_forces',
        'stress_key': 'REF_stress',
        'total_charge_key': 'charge',
        'total_spin_key': 'spin',
        'loss': 'universal',
        'error_table': 'PerAtomRMSEstressvirials' if has_stress else 'PerAtomRMSE',
        'compute_stress': has_stress,
        'energy_weight': settings.energy_weight,
        'forces_weight': settings.forces_weight,
        'stress_weight': settings.stress_weight if has_stress else 0.0,
        'batch_size': settings.batch_size,
        'valid_batch_size': settings.batch_size,
        'lr': settings.learning_rate,
        'max_num_epochs': settings.epochs,
        'patience': settings.epochs,  # early stopping is a decision of its own, never a surprise
        'eval_interval': 1,
        'E0s': _atomic_energies(settings.atomic_energies),
        'scaling': 'rms_forces_scaling',
        'plot': False,
        'pin_memory': False,
        'num_workers': 0,
        'launcher': 'none',
        'multiheads_finetuning': False,
    }
    if settings.ema_decay:
        arguments |= {'ema': None, 'ema_decay': settings.ema_decay}
    if training.parent is not None:
        return arguments | {'foundation_model': str(training.parent / FILENAME)}
    return arguments | {
        'hidden_irreps': settings.hidden_irreps.replace(' ', ''),
        'r_max': settings.r_max,
        'num_interactions': settings.num_interactions,
        'correlation': settings.correlation,
        'max_ell': settings.max_ell,
        'MLP_irreps': settings.readout_irreps.replace(' ', ''),
        'radial_MLP': json.dumps(settings.radial_mlp),
    }


def _atomic_energies(given: str | dict[str, float]) -> str:
    """Return the energies of isolated atoms as the trainer wants them."""
    from ase.data import atomic_numbers

    if isinstance(given, str):
        return given
    return repr({atomic_numbers[symbol]: energy for symbol, energy in given.items()})


def _run_trainer(training: Training, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the trainer until it ends or time runs out; return the training curve."""
    command = [sys.executable, '-m', 'mace.cli.run_train']
    command += [f'--{name}' if value is None else f'--{name}={value}' for name, value in arguments.items()]
    environment = {**os.environ, 'OMP_NUM_THREADS': str(training.cores)}
    results = _Results(training.folder / 'results' / f'{NAME}_run-{training.seed}_train.txt')
    curve: list[dict[str, Any]] = []
    with (training.folder / LOG).open('w') as log:
        process = start_child(command, training.folder, log, environment)
        try:
            while process.poll() is None and training.seconds_left() > 0:
                time.sleep(POLL)
                for step in results.new_steps():
                    curve.append(step)
                    training.report({**step, 'of': training.settings.epochs})
        finally:
            stopped = process.poll() is None
            if stopped:
                process.terminate()
            process.wait()
    curve += list(results.new_steps())
    if stopped:
        raise JobError(
            Status.OUT_OF_WALLTIME,
            f'The trainer was stopped at epoch {len(curve)} of {training.settings.epochs}. Its checkpoint lies in the '
            'folder `checkpoints` of the working directory.',
            {'curve': curve[-1:]},
        )
    if process.returncode:
        raise _failure(training.folder, process.returncode, curve)
    return curve


class _Results:
    """The trainer's results file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self.position, self.loss = path, 0, float('nan')

    def new_steps(self) -> Iterator[dict[str, Any]]:
        """Yield the epochs that were finished since the last call."""
        if not self.path.is_file():
            return
        with self.path.open() as handle:
            handle.seek(self.position)
            for line in iter(handle.readline, ''):
                if not line.endswith('\n'):
                    return  # the trainer is writing it right now
                self.position = handle.tell()
                entry = json.loads(line)
                if entry.get('mode') == 'opt':
                    self.loss = entry['loss']
                elif entry.get('mode') == 'eval' and entry.get('epoch') is not None:
                    yield self._step(entry)

    def _step(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Return one epoch in the words of a training curve."""
        step = {'step': entry['epoch'] + 1, 'loss': self.loss, 'validation_loss': entry.get('loss')}
        for theirs, ours in (('rmse_e_per_atom', 'energy_per_atom'), ('rmse_f', 'forces'), ('rmse_stress', 'stress')):
            if entry.get(theirs) is not None:
                step[f'validation_{ours}_rmse'] = entry[theirs]
        return step


def _failure(folder: Path, code: int, curve: list[dict[str, Any]]) -> JobError:
    """Return what went wrong when the trainer failed."""
    log = (folder / LOG).read_text(errors='replace')
    results = {'curve': curve[-1:]}
    if code < 0:
        name = signal.Signals(-code).name
        hint = ' It may have used more memory than the machine has.' if name == 'SIGKILL' else ''
        status = Status.OUT_OF_MEMORY if 'out of memory' in log.lower() else Status.FAILED
        message = f'The trainer was killed by {name} after {len(curve)} epochs.{hint}'
        return JobError(status, message, results)
    if 'OutOfMemoryError' in log or 'out of memory' in log.lower() or "can't allocate memory" in log:
        return JobError(Status.OUT_OF_MEMORY, 'The trainer ran out of memory; lower `batch_size`.', results)
    return JobError(Status.FAILED, f'The trainer failed with exit status {code}. {_last_lines(folder)}', results)


def _last_lines(folder: Path, count: int = 5) -> str:
    """Return the end of the trainer's log."""
    lines = [line.strip() for line in (folder / LOG).read_text(errors='replace').splitlines() if line.strip()]
    return 'The log ends: ' + ' | '.join(lines[-count:])


def _load(potential: Path, device: str) -> Any:
    """Open the pickled network; only inside a job."""
    import mace  # noqa: F401  (has to be imported before e3nn)
    import torch

    return torch.load(potential / FILENAME, map_location=device, weights_only=False)


def _effective(potential: Path) -> dict[str, Any]:
    """Return the settings that the file itself shows."""
    network = _load(potential, 'cpu')
    return {
        'r_max': float(network.r_max),
        'num_interactions': int(network.num_interactions),
        'dtype': str(next(network.parameters()).dtype).removeprefix('torch.'),
    }


def _effective_of_log(folder: Path, has_stress: bool) -> dict[str, Any]:
    """Return the settings that the trainer's debug log shows that it used."""
    import ast
    import re

    log = next((folder / 'logs').glob('*_debug.log'), None)
    text = log.read_text(errors='replace') if log else ''
    found = re.findall(r'Configuration: Namespace\((.*)\)\s*$', text, flags=re.MULTILINE)
    if not found:
        return {}
    call = ast.parse(f'Namespace({found[-1]})', mode='eval').body
    assert isinstance(call, ast.Call)
    used: dict[str, Any] = {}
    for keyword in call.keywords:
        try:
            used[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    names = {'lr': 'learning_rate', 'max_num_epochs': 'epochs', 'batch_size': 'batch_size'}
    names |= {'energy_weight': 'energy_weight', 'forces_weight': 'forces_weight'}
    if has_stress:
        names['stress_weight'] = 'stress_weight'
    if used.get('ema'):
        names['ema_decay'] = 'ema_decay'
    return {ours: used[theirs] for theirs, ours in names.items() if theirs in used}
