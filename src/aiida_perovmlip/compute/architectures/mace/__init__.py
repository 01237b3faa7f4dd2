"""MACE: equivariant message passing, trained by the command line of mace-torch."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from aiida_perovmlip.compute.architecture import (
    Architecture,
    NativeForm,
    Plan,
    PotentialFacts,
    Predictor,
    Trained,
    Training,
)
from aiida_perovmlip.compute.architectures.export import export
from aiida_perovmlip.compute.architectures.mace import checks as mace_checks
from aiida_perovmlip.compute.architectures.mace import effective as mace_effective
from aiida_perovmlip.compute.architectures.mace import network as mace_network
from aiida_perovmlip.compute.architectures.mace import settings as mace_settings
from aiida_perovmlip.compute.architectures.mace.arguments import (
    PARENT,
    arguments_of,
    files_of,
    write_frames,
)
from aiida_perovmlip.compute.architectures.mace.energies import (
    ROUNDING,
    AtomicEnergies,
    find_energies,
    refuse_other_energies,
)
from aiida_perovmlip.compute.architectures.mace.heads import Head, heads_of, labels_of_replay, origins_of, replayed
from aiida_perovmlip.compute.architectures.mace.network import FILENAME
from aiida_perovmlip.compute.architectures.mace.run import Run, best_step
from aiida_perovmlip.compute.architectures.mace.settings import MaceSettings
from aiida_perovmlip.compute.checkpoint import State
from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.plugin import device_of_torch


class Mace(Architecture):
    """MACE by mace-torch."""

    name: ClassVar[str] = 'mace'
    summary: ClassVar[str] = 'Equivariant message passing with high body order'
    citations = (
        Citation(
            'batatia2022mace',
            ('Batatia, Ilyes', 'Kovács, Dávid Péter', 'Simm, Gregor N. C.', 'Ortner, Christoph', 'Csányi, Gábor'),
            'MACE: Higher Order Equivariant Message Passing Neural Networks for Fast and Accurate Force Fields',
            'Advances in Neural Information Processing Systems 35, 11423',
            2022,
        ),
    )
    requirements: ClassVar[tuple[str, ...]] = ('torch', 'mace-torch')
    filename: ClassVar[str] = FILENAME
    strategies: ClassVar[tuple[str, ...]] = ('scratch', 'naive', 'multihead', 'freeze', 'lora')
    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = mace_settings.PROTOCOLS
    for_new: ClassVar[tuple[str, ...]] = ('loss', 'energy_weight')
    shape: ClassVar[tuple[str, ...]] = mace_settings.SHAPE
    known_shape: ClassVar[dict[str, str]] = {'r_max': 'cutoff'}  # the precision can be another one
    Settings = MaceSettings

    def device(self, wanted: str) -> str:
        """Return `cuda` where it is wanted, or for `auto` where there is one."""
        return device_of_torch(wanted)

    def check(self, plan: Plan) -> str | None:
        """Refuse what mace-torch would crash on, or worse, would not."""
        return mace_checks.problem_of(plan)

    def has_heads(self, strategy: str) -> bool:
        """Return whether there may be several: the other strategies keep the one head of their parent."""
        return strategy in ('scratch', 'multihead')

    def head_of_parent(self, settings: Any, heads: Sequence[str]) -> str | None:
        """Return the one that is said, or the only one."""
        return settings.parent_head or super().head_of_parent(settings, heads)

    def heads_to_be(self, plan: Plan) -> dict[str, tuple[str, str]]:
        """Return them as `heads_of` will name them."""
        return origins_of(plan)

    def elements_to_be(self, plan: Plan) -> frozenset[str]:
        """Return those of the parent, unless they are dropped that no frame at all holds."""
        everything = super().elements_to_be(plan)
        if plan.known is None or mace_settings.chosen(plan.settings, 'keep_elements'):
            return everything
        sets = [each for each in (plan.training, plan.validation, replayed(plan)) if each is not None]
        return everything & {symbol for frames in sets for symbol in frames.elements()}

    def shape_to_be(self, first: Any, settings: Any) -> dict[str, Any]:
        """Return all but the precision, which can be another one, in the spelling of the training to come."""
        shape = {name: value for name, value in super().shape_to_be(first, settings).items() if name != 'dtype'}
        shape |= {
            name: mace_network.spelled(getattr(settings, name), shape[name])
            for name in ('hidden_irreps', 'readout_irreps')
        }
        return shape | ({'readout_irreps': None} if first.num_interactions == 1 else {})

    def smaller_batch(self, settings: Any, has_parent: bool = False) -> dict[str, Any] | None:
        """Return half of the batch and the learning rate that belongs to it."""
        return mace_settings.smaller_batch(settings, has_parent)

    def may_change(self, settings: Any, state: State) -> frozenset[str]:
        """Return what is not in the state; the number of epochs counts no more once stage two has begun."""
        begun = any(step.get('stage') == 2 for step in state.curve)
        return mace_settings.MAY_CHANGE - ({'epochs'} if begun else set())

    def learns_from_replay(self, settings: Any) -> bool:
        """Return whether the labels of the replayed frames are those of their dataset."""
        return bool(mace_settings.chosen(settings, 'replay_labels') == 'dataset')

    def lower_rate(self, settings: Any, has_parent: bool = False) -> dict[str, Any] | None:
        """Return a third of the learning rates."""
        return mace_settings.lower_rate(settings, has_parent)

    # ------------------------------------------------------------------ training

    def train(self, training: Training) -> Trained:
        """Run the trainer, follow its results, and reopen what it wrote.

        The stress error of the curve is the trainer's: over nine components, of which three are the same as three
        others, so that shear counts twice; that of an evaluation is over six.
        """
        _refuse_machine(training)
        state = training.checkpoint.state()
        parent = _parent(training)
        heads = heads_of(training)
        energies = _energies(training, heads, parent, state)
        _write_inputs(training, heads, parent, energies)
        arguments = arguments_of(training, heads, energies.by_head)
        run = Run(training, heads, arguments, energies.about(), state)
        run.run()
        shell = mace_network.load(run.shell)
        names = {head.alias: head.name for head in heads}
        network = mace_network.assembled(shell, run.best, training.settings, training.strategy, names)
        mace_network.save(network, training.folder / 'potential' / FILENAME)
        return self._read_back(training, heads, parent, energies, run, state.step if state else 0)

    def _read_back(
        self,
        training: Training,
        heads: list[Head],
        parent: Any,
        energies: AtomicEnergies,
        run: Run,
        begun: int,
    ) -> Trained:
        """Return what was really done; raise where it is something else than was asked.

        :param begun: the step from which an earlier run was taken up.
        """
        settings: MaceSettings = training.settings
        curve = run.curve
        network = mace_network.load(training.folder / 'potential' / FILENAME)
        facts = mace_network.facts_of(network)
        refuse_other_energies(energies.by_head, facts.energies_of_atoms, ROUNDING[facts.dtype])
        log = mace_effective.debug_log(training.folder)
        changed = None if parent is None else mace_network.changes(network, parent)
        rank = mace_network.rank_of_lora(run.best)
        done = mace_effective.strategy_done(len(heads), changed, rank, training.strategy == 'freeze')
        _refuse_strategy(training.strategy, done, changed)
        given = settings.atomic_energies  # with those of elements that are not there, which have no effect
        effective = {
            **mace_network.settings_in(network, settings),
            **mace_effective.settings_of_log(log),
            **mace_effective.epochs_done(curve, settings, begun),
            **mace_network.schedule_in(run.newest, is_stage_two=curve[-1].get('stage') == 2),
            **mace_effective.settings_of_strategy(done, changed, rank, log),
            **_replay_done(training, heads, parent, log),
            'atomic_energies': energies.way or given,
            'strategy': done,
            'heads': {head.name: {'of': head.origin[0], 'head': head.origin[1]} for head in heads},
            'best_step': best_step(curve),
        }
        if parent is not None:
            effective |= {'changed': changed}
        if settings.parent_head is not None:
            (effective['parent_head'],) = mace_network.heads_in(mace_network.load(training.folder / PARENT))
        return Trained(curve, effective, [*energies.notes, *mace_effective.notes_of(curve, settings)])

    # ------------------------------------------------------------------ potentials

    def shape_of(self, parent: Path, settings: Any) -> dict[str, Any]:
        """Read what the network of a parent shows; one of a single layer has no features of a last readout."""
        network = mace_network.open_parent(parent, settings.parent_head, settings.dtype)
        return {'readout_irreps': None, **mace_network.settings_in(network, settings)}

    def facts(self, potential: Path) -> PotentialFacts:
        """Read the facts from the file itself."""
        return mace_network.facts_of(mace_network.load(potential / FILENAME))

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Return mace-torch's calculator; it would take the last head where there is none of that name."""
        from mace.calculators import MACECalculator

        facts = self.facts(Path(potential))
        return MACECalculator(
            str(Path(potential) / FILENAME),
            device=device,
            default_dtype=facts.dtype,
            head=known_head(facts.heads, head),
        )

    def predictor(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Predictor:
        """Predict many frames at once."""
        network = mace_network.load(potential / FILENAME)
        name = known_head(mace_network.heads_in(network), head)
        return mace_network.predictor(network, device, name)

    def descriptors(self, potential: Path, frames: Iterable[Frame], device: str = 'cpu') -> Iterator[Array]:
        """Yield the invariant features of all layers; they are the same for all heads."""
        heads = self.facts(potential).heads
        yield from mace_network.descriptors(self.calculator(potential, device, heads[0]), frames)

    lammps_styles: ClassVar[dict[str, str]] = {
        'mliap': 'a LAMMPS with the packages ML-IAP, PYTHON and KOKKOS has it, in an environment with mace-torch, '
        'cuequivariance and cupy',
        'mace': 'the LAMMPS of the authors of MACE has it, which is compiled with libtorch',
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
        """Write the potential for LAMMPS, and return the lines for it."""
        shutil.copyfile(Path(potential) / FILENAME, folder / FILENAME)
        precision = self.facts(Path(potential)).dtype if importlib.util.find_spec('mace') is not None else 'float64'
        form = 'mliap' if style == 'mliap' else 'libtorch'
        arguments = [FILENAME, f'--format={form}', f'--dtype={precision}', *([f'--head={head}'] if head else [])]
        packages = {'mace': 'mace-torch', **({'cuequivariance': 'cuequivariance-torch'} if form == 'mliap' else {})}
        output = f'{FILENAME}-{"mliap_lammps" if form == "mliap" else "lammps"}.pt'
        path = export('mace.cli.create_lammps_model', arguments, folder, output, packages)
        symbols = ' '.join(elements)
        if style == 'mliap':
            return NativeForm((f'pair_style mliap unified {path.name} 0', f'pair_coeff * * {symbols}'))
        return NativeForm(('pair_style mace no_domain_decomposition', f'pair_coeff * * {path.name} {symbols}'))

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


def known_head(heads: tuple[str, ...], wanted: str | None) -> str:
    """Return the head that is wanted; raise where there is none of that name, or where none is named among several."""
    if wanted is None and len(heads) == 1:
        return heads[0]
    if wanted is None or wanted not in heads:
        said = 'none was named' if wanted is None else f'`{wanted}` is none of them'
        raise JobError(
            Status.BAD_INPUT, f'The potential has the head{"s"[: len(heads) > 1]} {", ".join(heads)}; {said}.'
        )
    return wanted


def _refuse_machine(training: Training) -> None:
    """Raise where the settings need what this machine does not have."""
    settings: MaceSettings = training.settings
    if settings.enable_cueq and importlib.util.find_spec('cuequivariance_torch') is None:
        raise JobError(
            Status.MISSING_PACKAGE,
            '`enable_cueq` needs cuequivariance, which this environment does not have: install `cuequivariance`, '
            '`cuequivariance-torch` and, for the GPU, `cuequivariance-ops-torch-cu12`, or leave it out.',
        )
    if settings.gpus > 1 and training.device != 'cuda':
        raise JobError(
            Status.BAD_INPUT,
            f'`gpus` is {settings.gpus}, but the device is {training.device}; train on one processor, or on a machine '
            'with GPUs.',
        )


def _parent(training: Training) -> Any:
    """Return the network of the parent with one head; None without a parent."""
    if training.parent is None:
        return None
    settings: MaceSettings = training.settings
    return mace_network.open_parent(training.parent, settings.parent_head, settings.dtype)


def _energies(training: Training, heads: list[Head], parent: Any, state: State | None) -> AtomicEnergies:
    """Return energies of isolated atoms: those of the run that is taken up, else found anew."""
    if state is not None:
        return AtomicEnergies.kept({**state.about, **state.told('atomic_energies')})

    def predict(frames: Frames) -> Iterator[float]:
        name = mace_network.heads_in(parent)[0]
        return (each.energy for each in mace_network.predict(parent, frames, training.device, name))

    return find_energies(training, heads, predict)


def _write_inputs(training: Training, heads: list[Head], parent: Any, energies: AtomicEnergies) -> None:
    """Write the files that the trainer reads."""
    for head in heads:
        weight = mace_settings.chosen(training.settings, 'replay_weight') if head.is_replay else 1.0
        for frames, name in zip((head.training, head.validation), files_of(head), strict=True):
            is_relabelled = head.is_replay and labels_of_replay(training) == 'parent'
            found = mace_network.relabelled(parent, frames, training.device) if is_relabelled else frames
            write_frames(found, training.folder / name, weight)
    if parent is not None:
        own = energies.by_head[heads[0].name] if len(heads) == 1 else {}
        mace_network.save(mace_network.with_energies(parent, own), training.folder / PARENT)


def _replay_done(training: Training, heads: list[Head], parent: Any, log: str) -> dict[str, Any]:
    """Return the settings of the frames that were replayed, as the file shows that the trainer says it read."""
    name = mace_effective.namespace(log).get('pt_train_file')
    if name is None:
        return {}
    first = next(iter(next(head for head in heads if head.is_replay).training))
    (said,) = mace_network.relabelled(parent, [first], training.device)
    energies = {'dataset': first.energy, 'parent': said.energy}
    return mace_effective.replay_done(training.folder / str(name), energies, labels_of_replay(training))


def _refuse_strategy(asked: str, done: str, changed: dict[str, str] | None) -> None:
    """Raise where another strategy was followed than the one that was asked for, or where nothing was learned."""
    if asked != done:
        raise JobError(
            Status.SETTINGS_IGNORED,
            f'The trainer did not do what was asked: the strategy was `{asked}`, but its files show `{done}`'
            + (f' (parameters changed by layer: {changed}).' if changed else '.'),
        )
    if changed is not None and set(changed.values()) == {'none'}:
        raise JobError(
            Status.SETTINGS_IGNORED,
            'The trainer changed no parameter of the parent: the learning rate is too small for the precision.',
        )
