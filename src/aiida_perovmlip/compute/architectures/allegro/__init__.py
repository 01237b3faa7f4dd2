"""Allegro: strictly local equivariant networks, trained by the command line of nequip."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from aiida_perovmlip.compute.architecture import (
    Architecture,
    NativeForm,
    Plan,
    PotentialFacts,
    Predictor,
    Trained,
    Training,
    default_way,
    in_batches,
    notes_of_way,
)
from aiida_perovmlip.compute.architectures.allegro import trainer
from aiida_perovmlip.compute.architectures.allegro.config import (
    CONFIG,
    MAY_CHANGE,
    MLPS,
    NETWORK,
    PARENT,
    TRAINING,
    VALIDATION,
    WAYS,
    AllegroSettings,
    configuration,
    effective_settings,
    network_of_parent,
    new_network,
    rate_of,
)
from aiida_perovmlip.compute.architectures.allegro.package import (
    ATOMS_AT_ONCE,
    FILENAME,
    epochs_of,
    info_of,
    network_settings,
    open_package,
    predict_batch,
    shifts_of,
    write_plain_archive,
)
from aiida_perovmlip.compute.architectures.export import export
from aiida_perovmlip.compute.checkpoint import State
from aiida_perovmlip.compute.children import start_child
from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.extxyz import write_extxyz
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.plugin import device_of_torch

WORKSHOP = 'package'
SLOWEST_RATE = 1e-6
Target = Literal['ase', 'batch', 'pair_allegro']
"""What a compiled potential is for: ASE, batches of structures (torch-sim), or the pair style of LAMMPS."""


class Allegro(Architecture):
    """Allegro by nequip and nequip-allegro."""

    name: ClassVar[str] = 'allegro'
    summary: ClassVar[str] = 'Strictly local equivariant network, made for large cells and many GPUs'
    citations = (
        Citation(
            'musaelian2023allegro',
            (
                'Musaelian, Albert',
                'Batzner, Simon',
                'Johansson, Anders',
                'Sun, Lixin',
                'Owen, Cameron J.',
                'Kornbluth, Mordechai',
                'Kozinsky, Boris',
            ),
            'Learning local equivariant representations for large-scale atomistic dynamics',
            'Nature Communications 14, 579',
            2023,
            '10.1038/s41467-023-36329-y',
        ),
        Citation(
            'batzner2022nequip',
            ('Batzner, Simon', 'others'),
            'E(3)-equivariant graph neural networks for data-efficient and accurate interatomic potentials',
            'Nature Communications 13, 2453',
            2022,
            '10.1038/s41467-022-29939-5',
        ),
    )
    requirements: ClassVar[tuple[str, ...]] = ('torch', 'nequip', 'nequip-allegro')
    filename: ClassVar[str] = FILENAME
    strategies: ClassVar[tuple[str, ...]] = ('scratch', 'naive')
    records: ClassVar[tuple[str, ...]] = (CONFIG,)
    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        'fast': (
            'A first potential of some hundred small cells, within minutes on two cores.',
            {'r_max': 8.0, 'learning_rate': 0.03, 'epochs': 40},
        ),
        'balanced': (
            'A potential to work with: wider networks, trained for longer.',
            {
                'r_max': 8.0,
                'num_scalar_features': 64,
                'num_tensor_features': 32,
                'scalar_embed_mlp_hidden_layers_width': 128,
                'allegro_mlp_hidden_layers_width': 128,
                'learning_rate': 0.02,
                'epochs': 100,
            },
        ),
        'paper': (
            'The network and the training of the study of ion migration in MAPbI3 (charged defects).',
            {
                'r_max': 6.5,
                'bessel_trainable': True,
                'num_layers': 2,
                'num_tensor_features': 32,
                'l_max': 2,
                'parity': True,
                'num_scalar_features': 1024,
                'scalar_embed_mlp_hidden_layers_depth': 3,
                'scalar_embed_mlp_hidden_layers_width': 512,
                'allegro_mlp_hidden_layers_depth': 2,
                'allegro_mlp_hidden_layers_width': 1024,
                'readout_mlp_hidden_layers_depth': 1,
                'readout_mlp_hidden_layers_width': 128,
                'readout_mlp_nonlinearity': 'none',
                'batch_size': 5,
                'learning_rate': 0.001,
                'lr_schedule': 'constant',
                'betas': [0.9, 0.99],
                'energy_weight': 1.0,
                'forces_weight': 1.0,
                'stress_weight': None,
                'ema_decay': 0.0,
                'epochs': 970,
            },
        ),
    }
    """`paper` is the network of the study of ion migration in MAPbI3 (potential of the charged defects), as far as
    nequip-allegro 0.8 can build it: its two-body network has layers of one width, so that 128, 256 and 512 became three
    times 512 (before the 1024 features that follow in both)."""

    shape: ClassVar[tuple[str, ...]] = NETWORK
    for_new: ClassVar[tuple[str, ...]] = ('learning_rate',)
    known_shape: ClassVar[dict[str, str]] = {'r_max': 'cutoff', 'dtype': 'dtype'}
    Settings = AllegroSettings

    def device(self, wanted: str) -> str:
        """Return `cuda` where it is wanted, or for `auto` where there is one."""
        return device_of_torch(wanted)

    def check(self, plan: Plan) -> str | None:
        """Refuse what nequip would crash on, or worse, would not."""
        settings, training, validation = plan.settings, plan.training, plan.validation
        if validation is None:
            return 'Allegro chooses the best epoch by the errors on a validation set; give one, for example by a split.'
        if settings.batch_size > len(training):
            return f'`batch_size` is {settings.batch_size}, but there are only {len(training)} training frames.'
        if settings.stress_weight and not training.has('stress'):
            return f'`stress_weight` is {settings.stress_weight:g}, but no training frame has a stress; leave it out.'
        if not rate_of(settings.learning_rate, plan.known is not None) > 0:
            return '`learning_rate` is 0, by which nothing is learned; take a positive one.'
        if not settings.energy_weight + settings.forces_weight > 0:
            return 'one of `energy_weight` and `forces_weight` has to be positive.'
        if len(settings.betas) != 2 or not all(0 <= beta < 1 for beta in settings.betas):
            return f'`betas` is {settings.betas}, but has to be two numbers from 0 to below 1.'
        return (
            _problem_of_layers(plan)
            or _problem_of_labels(training, validation)
            or _problem_of_energies(settings.atomic_energies, training, has_parent=plan.known is not None)
        )

    def smaller_batch(self, settings: AllegroSettings, has_parent: bool = False) -> dict[str, Any] | None:
        """Compute fewer frames at once, and sum over as many batches as give the same frames for one step."""
        frames = settings.batch_size * settings.accumulate
        sizes = [size for size in range(1, settings.batch_size // 2 + 1) if frames % size == 0]
        return {'batch_size': sizes[-1], 'accumulate': frames // sizes[-1]} if sizes else None

    def may_change(self, settings: AllegroSettings, state: State) -> frozenset[str]:
        """Return what is not in the state; a rate that falls to zero at the last epoch keeps the number of epochs."""
        return frozenset(MAY_CHANGE) - ({'epochs'} if settings.lr_schedule == 'cosine' else set())

    def lower_rate(self, settings: AllegroSettings, has_parent: bool = False) -> dict[str, Any] | None:
        """Halve the learning rate."""
        rate = rate_of(settings.learning_rate, has_parent) / 2
        return {'learning_rate': rate} if rate >= SLOWEST_RATE else None

    def train(self, training: Training) -> Trained:
        """Run the trainer, follow its curve, package its best network, and reopen what it wrote."""
        settings: AllegroSettings = training.settings
        self._refuse_unseen(training)
        state = training.checkpoint.state()
        energies = self._energies(training) if state is None else state.told(*trainer.TOLD)['atomic_energies']
        assert training.validation is not None
        for name, frames in ((TRAINING, training.training), (VALIDATION, training.validation)):
            _write(frames, training.folder / name, with_stress=frames.has('stress'))
        if training.parent is not None:
            shutil.copyfile(training.parent / FILENAME, training.folder / PARENT)
        if state is not None and state.step >= settings.epochs:
            result = trainer.Result.of(state)
        else:
            about = {'atomic_energies': energies}
            result = trainer.train(training, _configuration(training, energies, state), state, about)
        assert result.state is not None
        assert result.best is not None
        self._package(training, result.best)
        effective = effective_settings(info_of(result.state)) | _effective_network(training, energies)
        effective |= {'epochs': _epochs(result, effective), 'best_step': epochs_of(result.best)}
        if effective['best_step'] != result.best_step:
            raise JobError(
                Status.FAILED,
                f'The best network was to be that of epoch {result.best_step}, but is of {effective["best_step"]}.',
            )
        return Trained(result.curve, effective, _notes(result, training))

    def _refuse_unseen(self, training: Training) -> None:
        """Raise where settings were given of which a parent, whose network is taken as it is, does not show its own."""
        if training.parent is None:
            return
        shown = self.shape_of(training.parent, training.settings)
        unseen = [name for name in NETWORK if name not in shown and training.is_said(name)]
        if unseen:
            names = ', '.join(f'`{name}`' for name in unseen)
            raise JobError(
                Status.BAD_INPUT,
                f'the parent decides what the potential is made of, and its network shows nothing like {names}. Leave '
                f'{"it" if len(unseen) == 1 else "these"} out, or train from scratch.',
            )

    def _energies(self, training: Training) -> dict[str, float]:
        """Return the energies in eV that atoms alone are to have, of all elements that the potential will know."""
        given = training.settings.atomic_energies
        if training.parent is None:
            if isinstance(given, dict):
                return {symbol: given[symbol] for symbol in training.training.elements()}
            return least_squares((frame, _energy(frame)) for frame in training.training)
        before = self.facts(training.parent).energies_of_atoms['default']
        if isinstance(given, dict):
            return {symbol: given.get(symbol, energy) for symbol, energy in before.items()}
        if (given or default_way(training)) != 'estimated':
            return before
        wrong = self._errors(training.parent, training.training, training.device)
        changes = least_squares(wrong)
        return {symbol: energy + changes.get(symbol, 0.0) for symbol, energy in before.items()}

    def _errors(self, potential: Path, frames: Frames, device: str) -> Iterator[tuple[Frame, float]]:
        """Yield each frame and what a potential's energy of it lacks, in eV."""
        for frame, prediction in zip(frames, self.predict(potential, frames, device), strict=True):
            yield frame, _energy(frame) - prediction.energy

    def _package(self, training: Training, best: Path) -> None:
        """Write the potential: the network with the averaged parameters, its source, and one frame as an example."""
        workshop = training.folder / WORKSHOP
        shutil.rmtree(workshop, ignore_errors=True)
        workshop.mkdir()
        for name in (TRAINING, VALIDATION, PARENT):  # the checkpoint names them relative to the working directory
            if (training.folder / name).exists():
                (workshop / name).symlink_to(Path('..') / name)
        shutil.copyfile(best, workshop / best.name)
        command = [sys.executable, '-m', 'nequip.scripts.package', 'build', best.name, FILENAME]
        trainer.run_to_end(training, command, workshop, 'packaging the network')
        write_plain_archive(workshop / FILENAME, training.folder / 'potential' / FILENAME)

    def shape_of(self, parent: Path, settings: AllegroSettings) -> dict[str, Any]:
        """Read what the network of a parent shows."""
        network, _, r_max = open_package(parent)
        return {**network_settings(network), 'r_max': r_max}

    def facts(self, potential: Path) -> PotentialFacts:
        """Read the facts from the package itself; an atom by itself has the energy that its type is shifted by."""
        network, types, r_max = open_package(potential)
        parameters = list(network.parameters())
        numbers = [*parameters, *network.buffers()]
        bad = sum(int((~tensor.isfinite()).sum()) for tensor in numbers if tensor.is_floating_point())
        if bad:
            raise JobError(Status.DIVERGED, f'{bad} parameters of the potential are not finite numbers.')
        return PotentialFacts(
            elements=tuple(sorted(types)),
            cutoff=r_max,
            dtype=network.metadata['model_dtype'],
            n_parameters=sum(parameter.numel() for parameter in parameters),
            energies_of_atoms={'default': shifts_of(network)},
        )

    def calculator(
        self, potential: Path, device: str = 'cpu', head: str | None = None, compiled: Path | None = None
    ) -> Any:
        """Return nequip's calculator.

        :param compiled: what `compile` made for the target `ase` on this machine; it is used instead of the package.
        """
        from nequip.integrations.ase import NequIPCalculator

        if compiled is not None:
            return NequIPCalculator.from_compiled_model(
                str(compiled), device=device, chemical_species_to_atom_type_map=True
            )
        return NequIPCalculator._from_saved_model(
            str(Path(potential) / FILENAME), device=device, chemical_species_to_atom_type_map=True
        )

    def predictor(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Predictor:
        """Predict several frames at once."""
        calculator = self.calculator(potential, device, head)
        return in_batches(lambda frames: predict_batch(calculator, frames), ATOMS_AT_ONCE)

    def compile(self, potential: Path, target: Target, device: str, folder: Path) -> Path:
        """Compile a potential for a target and return the file, which runs on this kind of machine with this torch.

        Takes a minute or two and needs a C++ compiler; `pair_style allegro` of LAMMPS takes what is made for
        `pair_allegro`.
        """
        if target not in get_args(Target):
            raise JobError(Status.BAD_INPUT, f'There is no target `{target}`; there are {", ".join(get_args(Target))}.')
        output = folder / f'allegro-{target}.nequip.pt2'
        command = [sys.executable, '-m', 'nequip.scripts.compile', str(Path(potential).absolute() / FILENAME)]
        command += [str(output.absolute()), '--mode', 'aotinductor', '--device', device, '--target', target]
        with (folder / trainer.LOG).open('a') as log:
            code = start_child(command, folder, log, dict(os.environ)).wait()
        if code or not output.is_file():
            raise JobError(
                Status.FAILED,
                f'nequip could not compile the potential (exit {code}). {trainer.last_lines(folder)} Is there a C++ '
                'compiler on this machine?',
            )
        return output

    lammps_styles: ClassVar[dict[str, str]] = {
        'allegro': 'a LAMMPS that is compiled with pair_nequip_allegro of the authors of Allegro has it',
        'mliap': 'a LAMMPS with the packages ML-IAP, PYTHON and KOKKOS has it, in an environment with nequip-allegro '
        'and cupy',
    }

    def lammps(
        self,
        style: str,
        potential: Path,
        elements: Sequence[str],
        folder: Path,
        device: str = 'cpu',
        head: str | None = None,
    ) -> NativeForm:
        """Compile the potential for LAMMPS on this machine, and return the lines for it."""
        shutil.copyfile(Path(potential) / FILENAME, folder / FILENAME)
        symbols, packages = ' '.join(elements), {'nequip': 'nequip', 'allegro': 'nequip-allegro'}
        if style == 'mliap':
            arguments, output = [FILENAME, 'allegro.nequip.lmp.pt'], 'allegro.nequip.lmp.pt'
            module = 'nequip.integrations.lammps_mliap.create_lmp_mliap_file'
            path = export(module, arguments, folder, output, {**packages, 'lammps': 'lammps'})
            return NativeForm((f'pair_style mliap unified {path.name} 0', f'pair_coeff * * {symbols}'))
        output = 'allegro-pair_allegro.nequip.pt2'
        arguments = [FILENAME, output, '--mode', 'aotinductor', '--device', device, '--target', 'pair_allegro']
        path = export('nequip.scripts.compile', arguments, folder, output, packages)
        return NativeForm(('pair_style allegro', f'pair_coeff * * {path.name} {symbols}'))

    def self_test(self) -> str:
        """Multiply two matrices on the device and import the trainer."""
        import allegro.model  # noqa: F401
        import nequip.scripts.train  # noqa: F401
        import torch

        device = self.device('auto')
        one = torch.eye(64, device=device) @ torch.eye(64, device=device)
        if float(one.sum()) != 64.0:
            raise ArithmeticError(f'the product of two unit matrices on {device} is wrong.')
        where = torch.cuda.get_device_name(0) if device == 'cuda' else f'{torch.get_num_threads()} threads'
        return f'torch {torch.__version__} works on {device} ({where})'


# ---------------------------------------------------------------------- what is asked and what was done


def _configuration(training: Training, energies: dict[str, float], state: State | None) -> dict[str, Any]:
    """Return the configuration of nequip.

    :param energies: energies in eV that atoms alone are to have.
    """
    settings: AllegroSettings = training.settings
    if training.parent is None:
        types, r_max = list(training.training.elements()), settings.r_max
        network = new_network(settings, types, energies, training.seed)
    else:
        _, types, r_max = open_package(training.parent)
        network = network_of_parent(settings, energies)
    assert training.validation is not None
    return configuration(
        settings,
        has_parent=training.parent is not None,
        model=network,
        types=types,
        r_max=r_max,
        has_stress=training.training.has('stress'),
        can_validate_stress=training.validation.has('stress'),
        seed=training.seed,
        device=training.device,
        output=trainer.output_of(state),
        resumes=state is not None,
    )


def _effective_network(training: Training, energies: dict[str, float]) -> dict[str, Any]:
    """Return the settings that the packaged network itself shows; it has to hold the energies that were asked for."""
    network, _, r_max = open_package(training.folder / 'potential')
    refuse_other_energies(energies, shifts_of(network))
    given = training.settings.atomic_energies or default_way(training)
    return {**network_settings(network), 'r_max': r_max, 'atomic_energies': given}


def refuse_other_energies(asked: dict[str, float], done: dict[str, float]) -> None:
    """Raise where the energies in eV of atoms in a potential are not those that it was to hold."""
    facts = [
        f'{symbol}: asked {asked.get(symbol)} eV, done {done.get(symbol)} eV'
        for symbol in sorted(set(asked) | set(done))
        if not math.isclose(asked.get(symbol, math.nan), done.get(symbol, math.nan), rel_tol=1e-9, abs_tol=1e-6)
    ]
    if facts:
        raise JobError(
            Status.SETTINGS_IGNORED,
            f'The trainer did not do what was asked. `atomic_energies` are others: {"; ".join(facts)}.',
        )


def _epochs(result: trainer.Result, effective: dict[str, Any]) -> int:
    """Return how many epochs the trainer went for; where it was allowed to end early, what it was allowed."""
    return effective['epochs'] if effective['patience'] is not None else result.step


def _notes(result: trainer.Result, training: Training) -> list[str]:
    """Return what the user would not expect."""
    settings: AllegroSettings = training.settings
    notes = notes_of_way(training) if settings.atomic_energies is None else []
    if result.step >= settings.epochs:
        return notes
    return [
        *notes,
        f'The training ended at epoch {result.step} of {settings.epochs}, as the validation error had not improved for '
        f'{settings.patience} epochs.',
    ]


# ---------------------------------------------------------------------- frames


def _write(frames: Frames, path: Path, with_stress: bool) -> None:
    """Write frames in nequip's dialect; where some have a stress, the others say that they have none."""
    unknown = np.full(6, np.nan)
    with path.open('w', encoding='utf-8') as handle:
        write_extxyz(
            (replace(frame, stress=unknown) if with_stress and frame.stress is None else frame for frame in frames),
            handle,
            'nequip',
        )


def _energy(frame: Frame) -> float:
    assert frame.energy is not None
    return float(frame.energy)


def least_squares(energies: Iterable[tuple[Frame, float]]) -> dict[str, float]:
    """Return the energy of each element in eV that explains energies of frames best.

    Compositions that are all alike leave a choice; then all elements get the same. Solved for what is left after the
    mean energy of an atom was taken out, as totals of all-electron codes are large.
    """
    rows: list[Counter[str]] = []
    values = []
    for frame, energy in energies:
        rows.append(Counter(frame.symbols))
        values.append(energy)
    symbols = sorted({symbol for row in rows for symbol in row})
    matrix = np.array([[row[symbol] for symbol in symbols] for row in rows], dtype=float)
    totals = np.array(values, dtype=float)
    mean = float(totals.sum() / matrix.sum())
    rest = np.linalg.lstsq(matrix, totals - mean * matrix.sum(1), rcond=1e-10)[0]
    return {symbol: mean + float(change) for symbol, change in zip(symbols, rest, strict=True)}


def _problem_of_layers(plan: Plan) -> str | None:
    """Return a sentence where hidden layers are told what they are to be, but there are none."""
    for name in MLPS:
        depth = f'{name}_mlp_hidden_layers_depth'
        about = [f'{name}_mlp_hidden_layers_width', *(['readout_mlp_nonlinearity'] if name == 'readout' else [])]
        said = [setting for setting in about if plan.is_said(setting)]
        if getattr(plan.settings, depth) == 0 and said:
            names = ' and '.join(f'`{setting}`' for setting in said)
            return f'{names} would have no effect, as `{depth}` is 0: leave out the one or the other.'
    return None


def _problem_of_labels(training: Frames, validation: Frames) -> str | None:
    """Return a sentence where frames lack what is learned, or where there is nothing to learn."""
    for frames, what in ((training, 'training'), (validation, 'validation')):
        missing = [label for label in ('energy', 'forces') if not frames.has(label)]
        if missing:
            return f'the {what} frames have no {" and no ".join(missing)}; label them first.'
    if not any(chunk.columns['forces'].any() for chunk in training.chunks(('forces',))):
        return 'all forces of the training frames are zero, so that nothing can be learned from them.'
    return None


def _problem_of_energies(given: str | dict[str, float] | None, training: Frames, has_parent: bool) -> str | None:
    """Return a sentence where energies of atoms are missing, cannot be understood, or would do harm."""
    if isinstance(given, dict):
        missing = [] if has_parent else sorted(set(training.elements()) - set(given))
        return f'`atomic_energies` has no {", ".join(missing)}, which the training frames hold.' if missing else None
    if given is not None and given not in WAYS:
        return f'`atomic_energies` is {given!r}, but has to be one of {", ".join(WAYS)}, or an energy for each symbol.'
    if given == 'average' and has_parent:
        return (
            "`atomic_energies` is 'average', which would shift all energies of the parent by what it never learned; "
            'take `parent` or `estimated`.'
        )
    if given in ('parent', 'estimated') and not has_parent:
        return f'`atomic_energies` is {given!r}, which needs a parent.'
    return None
