"""MACE: equivariant message passing, trained by the command line of mace-torch."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aiida_perovmlip.compute.architecture import Architecture, Plan, PotentialFacts, Trained, Training
from aiida_perovmlip.compute.children import start_child
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.extxyz import write_extxyz
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.settings import option

FILENAME = 'mace.model'
NAME = 'mace'
LOG = 'trainer.log'
PARENT = 'parent.model'
POLL = 0.5
"""Seconds between two looks at the trainer's results."""

PATIENCE = 20.0
"""Seconds that a trainer which was asked to end may take."""

STRESS_WEIGHT = 10.0
WAYS = ('average', 'estimated', 'parent')
"""Where energies of isolated atoms can come from, other than by symbol."""


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
    atomic_energies: str | dict[str, float] | None = option(
        None,
        'Energy of each isolated atom in eV by symbol (`E0s`), or where it comes from: `average`, a least-squares fit '
        'to the energies of the frames, which is what a training from scratch does if nothing is said; `parent`, those '
        'of the parent, which is what a training with a parent does if nothing is said; `estimated`, those of the '
        'parent shifted by a least-squares fit to what it gets wrong.',
    )
    epochs: int = option(60, 'Number of epochs.', minimum=1)
    learning_rate: float = option(0.01, 'Initial learning rate.', minimum=0.0)
    batch_size: int = option(4, 'Frames of one step.', minimum=1)
    energy_weight: float = option(1.0, 'Weight of energies per atom in the loss.', minimum=0.0)
    forces_weight: float = option(10.0, 'Weight of forces in the loss.', minimum=0.0)
    stress_weight: float | None = option(
        None,
        'Weight of stresses in the loss; frames without a stress take no part in it. If nothing is said, it is '
        f'{STRESS_WEIGHT:g} where any training frame has a stress, and 0 where none has.',
        minimum=0.0,
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
    strategies: ClassVar[tuple[str, ...]] = ('scratch', 'naive')
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

    def check(self, plan: Plan) -> str | None:
        """Refuse what mace-torch would crash on, or worse, would not."""
        settings, training, validation = plan.settings, plan.training, plan.validation
        if validation is None:
            return 'MACE chooses the best epoch by the errors on a validation set; give one, for example by a split.'
        if settings.batch_size > len(training):
            return f'`batch_size` is {settings.batch_size}, but there are only {len(training)} training frames.'
        if settings.stress_weight and not training.has('stress'):
            return f'`stress_weight` is {settings.stress_weight:g}, but no training frame has a stress; leave it out.'
        return _problem_of_energies(settings.atomic_energies, training) or _problem_of_charges(training, validation)

    def train(self, training: Training) -> Trained:
        """Run the trainer, follow its results, and reopen what it wrote.

        The stress error of the curve is the trainer's: over nine components, of which three are the same as three
        others, so that shear counts twice; that of an evaluation is over six.
        """
        known = self.facts(training.parent).elements if training.parent is not None else None
        way = _way(training.settings.atomic_energies, known, set(training.training.elements()))
        has_stress = {name: frames.has('stress') for name, frames in _sets(training).items()}
        for name, frames in _sets(training).items():
            _write(frames, training.folder / name)
        arguments = _arguments(training, way, *has_stress.values())
        if training.parent is not None:
            _copy_parent(training.parent, training.folder / PARENT, way)
        curve = _run_trainer(training, arguments)
        source = training.folder / f'{NAME}.model'
        if not source.is_file():
            raise JobError(Status.FAILED, f'The trainer ended without a potential. {_last_lines(training.folder)}')
        potential = training.folder / 'potential'
        shutil.copyfile(source, potential / FILENAME)
        log = _debug_log(training.folder)
        effective = _effective_of_file(potential, training.settings) | _effective_of_log(log)
        self._check_energies(training, way, log)
        given = training.settings.atomic_energies  # with those of elements that are not there, which have no effect
        return Trained(curve, effective | {'atomic_energies': given if isinstance(given, dict) else way})

    def _check_energies(self, training: Training, way: str | dict[str, float], log: str) -> None:
        """Raise where the file holds other energies of isolated atoms than it was to hold; mace-torch can ignore them.

        The energies that it was to hold are those given, those of the parent, or those that the trainer's log tells.
        """
        done = _first(self.facts(training.folder / 'potential'))
        wanted = way if isinstance(way, dict) else _energies_of_log(log)
        if way == 'parent' and training.parent is not None:
            wanted = _first(self.facts(training.parent))
        missing = sorted(set(done) - set(wanted))
        wrong = [symbol for symbol in done if symbol in wanted and not _close(done[symbol], wanted[symbol])]
        facts = [f'{symbol}: asked {wanted[symbol]:.6f} eV, done {done[symbol]:.6f} eV' for symbol in wrong]
        facts += [f'{symbol}: done {done[symbol]:.6f} eV, but it is not known what was asked' for symbol in missing]
        if facts:
            raise JobError(
                Status.SETTINGS_IGNORED,
                f'The trainer did not do what was asked. `atomic_energies` are not those of {_words(way)}: '
                f'{"; ".join(facts)}.',
            )

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


def _write(frames: Frames, path: Path) -> None:
    """Write frames in MACE's dialect.

    Groups stay behind: they play no role in a training, but for `IsolatedAtom`, of which mace-torch makes energies of
    atoms before it drops these frames.
    """
    with path.open('w', encoding='utf-8') as handle:
        write_extxyz((replace(frame, group='frames') for frame in frames), handle, 'mace')


def _problem_of_energies(given: str | dict[str, float] | None, training: Frames) -> str | None:
    """Return a sentence where energies of isolated atoms are missing or cannot be understood."""
    if isinstance(given, str) and given not in WAYS:
        return f'`atomic_energies` is {given!r}, but has to be one of {", ".join(WAYS)}, or an energy for each symbol.'
    missing = sorted(set(training.elements()) - set(given)) if isinstance(given, dict) else []
    return f'`atomic_energies` has no {", ".join(missing)}, which the training frames hold.' if missing else None


def _problem_of_charges(*sets: Frames) -> str | None:
    """Return a sentence where frames differ in their charge."""
    charges: set[int] = set()
    for chunk in (chunk for frames in sets for chunk in frames.chunks(('charge',))):
        charges |= set(np.unique(chunk.columns['charge']).tolist()) if 'charge' in chunk.columns else {0}
    if len(charges) < 2:
        return None
    found = ', '.join(f'{charge:+d}' if charge else '0' for charge in sorted(charges))
    return (
        f'the frames have the charges {found}, but MACE does not see the charge of a cell; train one potential for '
        'each charge.'
    )


def _way(
    given: str | dict[str, float] | None, known: tuple[str, ...] | None, present: set[str]
) -> str | dict[str, float]:
    """Return how the energies of isolated atoms are to be found.

    :param known: elements of the parent; None without a parent.
    :param present: elements of the frames; those that are not there have no energy.
    """
    if given is None:
        return 'average' if known is None else 'parent'
    if isinstance(given, dict):
        return {symbol: energy for symbol, energy in given.items() if symbol in present}
    problem = None
    if known is None and given != 'average':
        problem = 'needs a parent'
    elif known is not None and given == 'average':
        problem = 'would shift all energies of the parent by what it never learned; take `parent` or `estimated`'
    elif known is not None and given == 'estimated' and set(known) == present:
        problem = (
            'has no effect where the parent has the same elements as the frames: mace-torch keeps the energies of the '
            'parent; take `parent`, or give an energy for each symbol'
        )
    if problem:
        raise JobError(Status.BAD_INPUT, f'`atomic_energies` is {given!r}, which {problem}.')
    return given


def _words(way: str | dict[str, float]) -> str:
    """Return a way to find energies of isolated atoms as words."""
    if isinstance(way, dict):
        return 'the settings'
    return 'the parent' if way == 'parent' else f"the trainer's log ({way})"


def _close(one: float, other: float) -> bool:
    """Whether two energies are the same up to single precision."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)


def _first(facts: PotentialFacts) -> dict[str, float]:
    """Return the energies of isolated atoms of the only head."""
    return facts.energies_of_atoms[facts.heads[0]]


def _copy_parent(parent: Path, target: Path, way: str | dict[str, float]) -> None:
    """Copy the file of the parent; where energies of isolated atoms are given, with these.

    Where parent and frames have the same elements, mace-torch takes those of the parent's file and nothing else.
    """
    if not isinstance(way, dict):
        shutil.copyfile(parent / FILENAME, target)
        return
    import torch
    from ase.data import chemical_symbols

    network = _load(parent, 'cpu')
    energies = network.atomic_energies_fn.atomic_energies
    for index, number in enumerate(network.atomic_numbers.tolist()):
        symbol = chemical_symbols[number]
        if symbol in way:
            energies[..., index] = way[symbol]
    torch.save(network, target)


def _arguments(
    training: Training, way: str | dict[str, float], has_stress: bool, can_validate_stress: bool
) -> dict[str, Any]:
    """Return the arguments of the trainer by name."""
    settings: MaceSettings = training.settings
    stress_weight = STRESS_WEIGHT if settings.stress_weight is None else settings.stress_weight
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
        'error_table': 'PerAtomRMSEstressvirials' if has_stress and can_validate_stress else 'PerAtomRMSE',
        'compute_stress': has_stress,
        'energy_weight': settings.energy_weight,
        'forces_weight': settings.forces_weight,
        'stress_weight': stress_weight if has_stress else 0.0,
        'batch_size': settings.batch_size,
        'valid_batch_size': settings.batch_size,
        'lr': settings.learning_rate,
        'max_num_epochs': settings.epochs,
        'patience': settings.epochs,  # early stopping is a decision of its own, never a surprise
        'eval_interval': 1,
        'E0s': _atomic_energies(way),
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
        return arguments | {'foundation_model': PARENT}
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
        return 'foundation' if given == 'parent' else given
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
            was_running = process.poll() is None
            _end(process)
    curve += list(results.new_steps())
    # A scheduler may signal the trainer too, which then ends before it is asked.
    if was_running or (process.returncode and training.seconds_left() <= 0):
        raise JobError(
            Status.OUT_OF_WALLTIME,
            f'The trainer was stopped at epoch {len(curve)} of {training.settings.epochs}. Its checkpoint lies in the '
            'folder `checkpoints` of the working directory.',
            {'curve': curve[-1:]},
        )
    if process.returncode:
        raise _failure(training.folder, process.returncode, curve)
    return curve


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and make it end where it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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


def _effective_of_file(potential: Path, asked: MaceSettings) -> dict[str, Any]:
    """Return the settings that the file itself shows."""
    network = _load(potential, 'cpu')
    from mace.tools.scripts_utils import extract_config_mace_model

    found = extract_config_mace_model(network)
    layers = int(found['num_interactions'])
    effective = {
        'hidden_irreps': _spelled(asked.hidden_irreps, str(found['hidden_irreps'])),
        'r_max': float(found['r_max']),
        'num_interactions': layers,
        'correlation': int(found['correlation']),
        'max_ell': int(found['max_ell']),
        'radial_mlp': [int(width) for width in found['radial_MLP']],
        'dtype': str(next(network.parameters()).dtype).removeprefix('torch.'),
    }
    if layers > 1:  # the readout of a single layer is linear
        effective['readout_irreps'] = _spelled(asked.readout_irreps, str(found['MLP_irreps']))
    return effective


def _spelled(asked: str, done: str) -> str:
    """Return what was done, in the spelling of what was asked where both mean the same."""
    return asked if _terms(asked) == _terms(done) else done


def _terms(irreps: str) -> dict[str, int]:
    """Return the number of channels by symmetry."""
    terms: dict[str, int] = {}
    for term in irreps.replace(' ', '').split('+'):
        count, times, symmetry = term.rpartition('x')
        terms[symmetry] = terms.get(symmetry, 0) + (int(count) if times else 1)
    return terms


def _debug_log(folder: Path) -> str:
    """Return the trainer's debug log; empty where there is none."""
    log = next((folder / 'logs').glob('*_debug.log'), None)
    return log.read_text(errors='replace') if log else ''


def _effective_of_log(log: str) -> dict[str, Any]:
    """Return the settings that the trainer's debug log shows that it used."""
    used = _namespace(log)
    names = {'lr': 'learning_rate', 'max_num_epochs': 'epochs'}
    names |= {name: name for name in ('batch_size', 'energy_weight', 'forces_weight', 'stress_weight')}
    effective = {ours: used[theirs] for theirs, ours in names.items() if theirs in used}
    if 'ema' in used:
        effective['ema_decay'] = used.get('ema_decay') if used['ema'] else 0.0
    return effective


def _namespace(log: str) -> Mapping[str, Any]:
    """Return the plain values among the arguments that the log shows."""
    found = re.findall(r'Configuration: Namespace\((.*)\)\s*$', log, flags=re.MULTILINE)
    call = ast.parse(f'Namespace({found[-1] if found else ""})', mode='eval').body
    assert isinstance(call, ast.Call)
    used: dict[str, Any] = {}
    for keyword in call.keywords:
        try:
            used[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return used


def _energies_of_log(log: str) -> dict[str, float]:
    """Return the energies of isolated atoms in eV by symbol that the log shows."""
    from ase.data import chemical_symbols

    found = re.findall(r'Atomic Energies used \(z: eV\) for head \S+: \{(.*)\}', log)
    pairs = [pair.split(':') for pair in found[-1].split(',')] if found else []
    return {chemical_symbols[int(number)]: float(energy) for number, energy in pairs}
