"""NEP: neuroevolution potentials, trained by neppo on any machine or by GPUMD on a GPU."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from aiida_perovmlip.compute.architecture import (
    Architecture,
    NativeForm,
    Plan,
    PotentialFacts,
    Predictor,
    Trained,
    Training,
    prediction_of,
)
from aiida_perovmlip.compute.architectures.nep import neppo_program
from aiida_perovmlip.compute.architectures.nep.gpumd import FOUNDATION, keywords_of_parent, train_with_gpumd
from aiida_perovmlip.compute.architectures.nep.inputs import (
    FILES,
    NEP_IN,
    Energies,
    fitted_energies,
    nep_in,
    problem_of_precision,
    read_energies,
    spread,
    write_energies,
    write_frames,
)
from aiida_perovmlip.compute.architectures.nep.neppo_run import report_every, train_with_neppo
from aiida_perovmlip.compute.architectures.nep.potential_file import FILENAME, Header, read_nep
from aiida_perovmlip.compute.architectures.nep.settings import (
    LOWEST_RATE,
    OWN,
    STRUCTURE,
    TUNING,
    NepSettings,
    problem_of_settings,
    resolve,
)
from aiida_perovmlip.compute.checkpoint import State
from aiida_perovmlip.compute.citation import Citation
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array, Frame
from aiida_perovmlip.compute.frames import Frames
from aiida_perovmlip.compute.plugin import device_of_torch

PARENT = neppo_program.PARENT
CHECKED = 5
"""Frames whose forces are compared with those that the trainer wrote."""

TOLERANCE = 1e-4
"""Largest difference of these in eV/Å, and as a part of the force."""

TOLD = {'neppo': ('energies', 'batches'), 'gpumd': ('energies', 'effective')}
"""What a state of a trainer has to tell for a run to go on from it."""

FITTED = 2000
"""Frames at most that tell what a parent gets wrong of the energies of elements."""

CALCULATORS = 32
"""Calculators that are kept at most, one for each number of atoms: to make one, the file is read again."""


class Nep(Architecture):
    """NEP by neppo, or by GPUMD."""

    name: ClassVar[str] = 'nep'
    summary: ClassVar[str] = 'Neuroevolution potential: fast on CPUs and GPUs, made for long simulations'
    citations = (
        Citation(
            'fan2021nep',
            ('Fan, Zheyong', 'others'),
            'Neuroevolution machine learning potentials: Combining high accuracy and low cost in atomistic '
            'simulations and application to heat transport',
            'Physical Review B 104, 104309',
            2021,
            '10.1103/PhysRevB.104.104309',
        ),
        Citation(
            'lindgren2024calorine',
            (
                'Lindgren, Eric',
                'Rahm, Magnus',
                'Fransson, Erik',
                'Eriksson, Fredrik',
                'Österbacka, Nicklas',
                'Fan, Zheyong',
                'Erhart, Paul',
            ),
            'calorine: A Python package for constructing and sampling neuroevolution potential models',
            'Journal of Open Source Software 9, 6264',
            2024,
            '10.21105/joss.06264',
        ),
    )
    requirements: ClassVar[tuple[str, ...]] = ('torch', 'neppo', 'calorine')
    opens_pickles: ClassVar[bool] = False
    filename: ClassVar[str] = FILENAME
    records: ClassVar[tuple[str, ...]] = (NEP_IN, 'loss.out', 'nep.restart', neppo_program.CURVE)
    strategies: ClassVar[tuple[str, ...]] = ('scratch', 'naive')
    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        'fast': ('A first potential of some hundred small cells, within minutes on two cores.', {}),
        'balanced': (
            'A potential to work with: finer functions of distances and angles, longer cutoffs, smaller steps.',
            {
                'radial_cutoff': 8.0,
                'angular_cutoff': 6.0,
                'n_max': [8, 6],
                'basis_size': [12, 10],
                'l_max': [4, 2, 1],
                'neurons': 60,
                'steps': 20_000,
                'learning_rate': 0.02,
                'lambda_f': 2.0,
            },
        ),
        'paper': (
            'The potential of the study of MA(1-x)FA(x)PbI3: 5 radial and (4 + 1) · 5 = 25 angular descriptors; needs '
            'a GPU.',
            {
                'trainer': 'gpumd',
                'radial_cutoff': 8.0,
                'angular_cutoff': 4.0,
                'n_max': [4, 4],
                'basis_size': [8, 8],
                'l_max': [4, 2, 0],
                'neurons': 30,
                'generations': 1_000_000,
            },
        ),
    }
    shape: ClassVar[tuple[str, ...]] = tuple(STRUCTURE)
    for_new: ClassVar[tuple[str, ...]] = tuple(TUNING)
    known_shape: ClassVar[dict[str, str]] = {'radial_cutoff': 'cutoff'}
    Settings = NepSettings

    def device(self, wanted: str) -> str:
        """Return `cuda` where it is wanted, or for `auto` where there is one."""
        return device_of_torch(wanted)

    def check(self, plan: Plan) -> str | None:
        """Refuse what a trainer would crash on, or worse, would not."""
        settings: NepSettings = plan.settings
        problem = problem_of_settings(settings, has_parent=plan.known is not None)
        if problem:
            return problem
        if settings.batch_size is not None and settings.batch_size > len(plan.training):
            return f'`batch_size` is {settings.batch_size}, but there are only {len(plan.training)} training frames.'
        if settings.lambda_v and not plan.training.has('stress'):
            return f'`lambda_v` is {settings.lambda_v:g}, but no training frame has a stress; leave it out.'
        problem = _problem_of_energies(settings, plan) or _problem_of_frames(plan)
        if problem is None and isinstance(settings.atomic_energies, dict):
            problem = problem_of_precision(plan.training, settings.atomic_energies)
        return problem

    def elements_to_be(self, plan: Plan) -> frozenset[str]:
        """Return those of the training frames: of a parent no other is kept."""
        return frozenset(plan.training.elements())

    def smaller_batch(self, settings: NepSettings, has_parent: bool = False) -> dict[str, Any] | None:
        """Return half the frames of a step; GPUMD's are as many as the user said, or all of them."""
        if settings.trainer == 'gpumd':
            frames = settings.frames_per_generation
            return {'frames_per_generation': frames // 2} if frames is not None and frames > 1 else None
        batch = resolve(settings, None, 0, has_stress=False)['batch_size']
        return {'batch_size': batch // 2} if batch > 1 else None

    def may_change(self, settings: NepSettings, state: State) -> frozenset[str]:
        """Return all but the network, its trainer and the energies that were taken off."""
        return frozenset(asdict(settings)) - {*STRUCTURE, 'trainer', 'atomic_energies'}

    def lower_rate(self, settings: NepSettings, has_parent: bool = False) -> dict[str, Any] | None:
        """Return a third of the learning rate; an evolution strategy has none."""
        if settings.trainer == 'gpumd':
            return None
        own = OWN['neppo'] | (TUNING if has_parent else {})
        first, last = (getattr(settings, name) or own[name] for name in ('learning_rate', 'final_learning_rate'))
        if first / 3 < LOWEST_RATE:
            return None
        return {'learning_rate': first / 3, 'final_learning_rate': min(last, first / 3)}

    def train(self, training: Training) -> Trained:
        """Write the run directory, run the trainer there, and deliver what it found.

        From neppo, this is the potential of the report with the lowest loss on the validation frames, over all runs of
        the training; from GPUMD, that of the last generation.
        """
        parent = self._slimmed_parent(training)
        wanted = resolve(training.settings, parent, len(training.training), training.training.has('stress'))
        elements = parent.elements if parent is not None else training.training.elements()
        state = training.checkpoint.state()
        energies = self._energies(training) if state is None else dict(state.told(*TOLD[wanted['trainer']])['energies'])
        problem = problem_of_precision(training.training, energies)
        if problem:
            raise JobError(Status.BAD_INPUT, problem)
        header = parent or _header_of(wanted, elements)
        about = {'energies': energies}
        for name, frames in _sets(training).items():
            write_frames(frames, training.folder / FILES[name], energies)
        curve, effective = self._run(training, wanted, about, header)
        potential = training.folder / 'potential'
        source = neppo_program.BEST if wanted['trainer'] == 'neppo' else FILENAME
        shutil.copyfile(training.folder / source, potential / FILENAME)
        write_energies(potential, energies)
        done = read_nep(potential / FILENAME).header
        self._check_forces(training, energies)
        given = training.settings.atomic_energies
        effective |= {
            'trainer': wanted['trainer'],
            **done.settings(),
            'atomic_energies': {**given, **read_energies(potential)}
            if isinstance(given, dict)
            else self._way(training),
        }
        return Trained(curve, effective, _notes(training, wanted, curve))

    def _run(
        self, training: Training, wanted: dict[str, Any], about: dict[str, Any], header: Header
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Write `nep.in` and run the trainer; return its curve and the settings that it used."""
        folder, parent = training.folder, training.folder / PARENT
        if wanted['trainer'] == 'neppo':
            interval = report_every(wanted['steps'], wanted['batch_size'], len(training.training))
            extra: dict[str, Any] = {'seed': training.seed, 'output_interval': interval}
            (folder / NEP_IN).write_text(nep_in(wanted, header.elements, extra))
            return train_with_neppo(training, wanted, about)
        extra = keywords_of_parent(parent, header, self._is_foundation(training)) if training.parent else {}
        state = training.checkpoint.state()
        if state is not None and extra:  # its restart file stands for all that came before, but for the scales
            extra = {'import_q_scaler': 1}
        left = {**wanted, 'generations': wanted['generations'] - (state.step if state else 0)}
        (folder / NEP_IN).write_text(nep_in(left, header.elements, extra))
        return train_with_gpumd(training, wanted, about, header)

    def _is_foundation(self, training: Training) -> bool:
        """Whether the parent is NEP89 as a whole, which GPUMD fine-tunes in a way of its own."""
        assert training.parent is not None
        return len(read_nep(training.parent / FILENAME).header.elements) == FOUNDATION

    def _slimmed_parent(self, training: Training) -> Header | None:
        """Write the parent with the elements at hand alone; return its header.

        The elements stay in the order of the file, which is that of the parameters: trainers take any other order
        without a word and go on with scrambled ones.
        """
        path = training.folder / PARENT
        path.unlink(missing_ok=True)
        if training.parent is None:
            return None
        source = training.parent / FILENAME
        whole, present = read_nep(source).header, set(training.training.elements())
        kept = tuple(symbol for symbol in whole.elements if symbol in present)
        if kept == whole.elements or (training.settings.trainer == 'gpumd' and self._is_foundation(training)):
            shutil.copyfile(source, path)
        else:
            from calorine.nep import read_model

            read_model(str(source)).keep_species(list(kept)).write(str(path))
        slim = read_nep(path).header
        if training.settings.trainer == 'gpumd' and len(slim.elements) == FOUNDATION:
            return whole.slimmed(kept)
        wanted = whole.slimmed(kept)
        pairs, asked = np.array(slim.own_cutoffs), np.array(wanted.own_cutoffs)
        if slim.elements != kept or pairs.shape != asked.shape or not np.allclose(pairs, asked, rtol=TOLERANCE):
            raise JobError(
                Status.FAILED,
                f'The parent was to keep {", ".join(kept)} with the cutoffs {wanted.own_cutoffs or wanted.cutoffs}. It '
                f'has {", ".join(slim.elements)} with {slim.own_cutoffs or slim.cutoffs}.',
            )
        return slim

    def _way(self, training: Training) -> str:
        """Return where the energies of elements come from."""
        way = training.settings.atomic_energies
        return way if isinstance(way, str) else ('average' if training.parent is None else 'estimated')

    def _energies(self, training: Training) -> Energies:
        """Return the energies of elements in eV that are taken off the labels."""
        given, elements = training.settings.atomic_energies, training.training.elements()
        if isinstance(given, dict):
            return {symbol: given[symbol] for symbol in elements}
        way, frames = self._way(training), training.training
        if way == 'average':
            return fitted_energies(frames, (_energy(frame) for frame in frames), elements)
        assert training.parent is not None
        known = read_energies(training.parent)
        known = {symbol: known.get(symbol, 0.0) for symbol in elements}
        if way == 'parent':
            return known
        chosen = list(spread(frames, FITTED))
        predictions = self.predict(training.parent, chosen)
        wrong = [_energy(frame) - prediction.energy for frame, prediction in zip(chosen, predictions, strict=True)]
        shifts = fitted_energies(chosen, wrong, elements)
        return {symbol: known[symbol] + shifts[symbol] for symbol in elements}

    def _check_forces(self, training: Training, energies: Energies) -> None:
        """Raise where calorine gives other forces than the trainer says that its potential gives."""
        name, frames = list(_sets(training).items())[-1]
        path = training.folder / f'force_{name}.out'
        if training.settings.trainer == 'gpumd' and training.validation is None:
            return  # GPUMD may sort the training frames
        if not path.is_file():
            raise JobError(Status.FAILED, f'The trainer left no {path.name}, by which its potential is checked.')
        chosen, row = list(frames.take(np.arange(min(CHECKED, len(frames))))), 0
        written = np.loadtxt(path, ndmin=2, max_rows=sum(map(len, chosen)))
        for frame, prediction in zip(chosen, self.predict(training.folder / 'potential', chosen), strict=True):
            theirs, row = written[row : row + len(frame)], row + len(frame)
            if theirs.shape != (len(frame), 6) or frame.forces is None or not _agree(theirs[:, 3:], frame.forces):
                raise JobError(Status.FAILED, f'{path.name} does not hold the forces of the frames that were given.')
            if not _agree(theirs[:, :3], prediction.forces):
                worst = np.abs(theirs[:, :3] - prediction.forces).max()
                raise JobError(
                    Status.FAILED,
                    f'calorine gives forces that differ by {worst:.2g} eV/Å from those that the trainer gives with the '
                    'same potential. One of them is not of the version that it should be; check the environment.',
                )

    def shape_of(self, parent: Path, settings: Any) -> dict[str, Any]:
        """Read the header of a parent."""
        return read_nep(parent / FILENAME).header.settings()

    def facts(self, potential: Path) -> PotentialFacts:
        """Read the facts from the file itself."""
        content, energies = read_nep(Path(potential) / FILENAME), read_energies(Path(potential))
        header = content.header
        atoms = {symbol: energy + energies.get(symbol, 0.0) for symbol, energy in content.energies_of_atoms().items()}
        return PotentialFacts(
            elements=tuple(sorted(header.elements)),
            cutoff=max(header.cutoffs),
            dtype='float32',
            n_parameters=header.n_parameters,
            energies_of_atoms={'default': atoms},
        )

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Return calorine's calculator, which works on the CPU whatever the device is."""
        from aiida_perovmlip.compute.architectures.nep.calculator import NepCalculator

        path = (Path(potential) / FILENAME).resolve()  # it is read again for another number of atoms
        cutoff = max(read_nep(path).header.cutoffs)
        return NepCalculator(str(path), read_energies(Path(potential)), cutoff)

    def predictor(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Predictor:
        """Predict frame after frame with one calculator for each number of atoms."""
        find = _calculators(lambda: self.calculator(potential, device, head))
        return lambda frames: (prediction_of(find(len(frame)), frame) for frame in frames)

    def descriptors(self, potential: Path, frames: Iterable[Frame], device: str = 'cpu') -> Iterator[Array]:
        """Yield the descriptors of the atoms of each frame, (n_atoms, n), before they are scaled."""
        find = _calculators(lambda: self.calculator(potential, device))
        for frame in frames:
            calculator = find(len(frame))
            calculator.calculate(frame.to_atoms(labels=False), ['descriptors'])
            yield np.array(calculator.results['descriptors'], dtype=float)

    lammps_styles: ClassVar[dict[str, str]] = {
        'nep/gpu/kk': 'the plugin of nep-adapters for GPUs, compiled for a LAMMPS with KOKKOS and CUDA, has it',
        'nep/cpu': '`aiida-perovmlip setup --with lammps` builds it where there is a C++ compiler',
    }
    runs_in_gpumd: ClassVar[bool] = True

    def lammps(
        self,
        style: str,
        potential: Path,
        elements: Sequence[str],
        folder: Path,
        device: str = 'cpu',
        head: str | None = None,
    ) -> NativeForm:
        """Return the lines for nep-adapters, which reads `nep.txt` as it is."""
        shutil.copyfile(Path(potential) / FILENAME, folder / FILENAME)
        lines = (f'pair_style {style}', f'pair_coeff * * {FILENAME} {" ".join(elements)}')
        return NativeForm(lines, read_energies(Path(potential)))

    def gpumd(self, potential: Path, folder: Path) -> NativeForm:
        """Return the line for GPUMD, which reads `nep.txt` as it is."""
        shutil.copyfile(Path(potential) / FILENAME, folder / FILENAME)
        return NativeForm((f'potential {FILENAME}',), read_energies(Path(potential)))

    def self_test(self) -> str:
        """Import the trainer and compute a product on the device."""
        import neppo
        import torch

        importlib.import_module('calorine.calculators')
        device = self.device('auto')
        if float((torch.eye(64, device=device) @ torch.eye(64, device=device)).sum()) != 64.0:
            raise ArithmeticError(f'the product of two unit matrices on {device} is wrong.')
        has_gpumd = 'GPUMD is there too' if shutil.which('nep') else "GPUMD's `nep` is not there"
        return f'neppo {neppo.__version__} works on {device}; {has_gpumd}'


def _calculators(make: Callable[[], Any]) -> Callable[[int], Any]:
    """Return a function that gives the calculator for a number of atoms, and makes it where there is none."""
    kept: dict[int, Any] = {}

    def find(n_atoms: int) -> Any:
        if n_atoms not in kept:
            if len(kept) >= CALCULATORS:
                kept.pop(next(iter(kept)))
            kept[n_atoms] = make()
        return kept[n_atoms]

    return find


def _sets(training: Training) -> dict[str, Frames]:
    """Return the frames by the names that the trainers have for them."""
    found = {'train': training.training}
    return found if training.validation is None else {**found, 'test': training.validation}


def _energy(frame: Frame) -> float:
    assert frame.energy is not None
    return frame.energy


def _agree(one: Array, other: Array) -> bool:
    """Whether two arrays of forces in eV/Å are the same up to single precision and what a text file holds of them."""
    return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE))


def _header_of(wanted: dict[str, Any], elements: tuple[str, ...]) -> Header:
    """Return what the header of a potential from scratch will be."""
    return Header(
        elements=elements,
        cutoffs=(wanted['radial_cutoff'], wanted['angular_cutoff']),
        n_max=tuple(wanted['n_max']),
        basis_size=tuple(wanted['basis_size']),
        l_max=tuple(wanted['l_max']),
        neurons=wanted['neurons'],
        zbl=None if wanted['zbl'] is None else (wanted['zbl'] / 2, wanted['zbl']),
    )


def _problem_of_energies(settings: NepSettings, plan: Plan) -> str | None:
    """Return a sentence where energies of elements are missing or come from a parent that is not there."""
    given = settings.atomic_energies
    if isinstance(given, str) and given != 'average' and plan.known is None:
        return f'`atomic_energies` is {given!r}, which needs a parent.'
    if given == 'average' and plan.known is not None:
        return (
            "`atomic_energies` is 'average', which would shift all energies of the parent by what it never learned; "
            'take `parent` or `estimated`.'
        )
    if not isinstance(given, dict):
        return None
    missing = sorted(set(plan.training.elements()) - set(given))
    return f'`atomic_energies` has no {", ".join(missing)}, which the training frames hold.' if missing else None


def _problem_of_frames(plan: Plan) -> str | None:
    """Return a sentence where frames have no labels or are not periodic."""
    sets = {'training': plan.training, 'validation': plan.validation}
    for name, frames in sets.items():
        for chunk in () if frames is None else frames.chunks(('energy', 'forces', 'pbc')):
            columns, n = chunk.columns, len(chunk)
            for label in ('energy', 'forces'):
                if label not in columns or not np.isfinite(columns[label]).all():
                    return f'some {name} frames have no {label}; NEP learns from frames that have both. Label them.'
            n_open = int((~columns['pbc'].all(axis=1)).sum()) if 'pbc' in columns else n
            if n_open:
                return (
                    f'{n_open} {name} frames are not periodic in all three directions, but NEP knows periodic cells '
                    'alone: put them into a cell with vacuum around them and make it periodic, or leave them out.'
                )
    return None


def _notes(training: Training, wanted: dict[str, Any], curve: list[dict[str, Any]]) -> list[str]:
    """Return what a user would not expect."""
    notes = []
    if training.validation is None:
        notes.append('There are no validation frames: the best potential was chosen by the training frames.' if
                     wanted['trainer'] == 'neppo' else 'There are no validation frames.')  # fmt: skip
    if wanted['trainer'] == 'gpumd':
        notes.append(
            'GPUMD takes its random numbers from the clock: the seed has no effect, and no two runs are equal.'
        )
    return notes
