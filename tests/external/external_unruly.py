"""Plug-ins that misbehave on request, so that every way to fail can be entered."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones

from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, Trained, Training
from aiida_perovmlip.compute.checkpoint import State
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller, Repair
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import option

__version__ = '1.0'


@dataclass(frozen=True)
class UnrulySettings:
    """Which way to misbehave."""

    way: str = option('none', 'How to fail.')
    steps: int = option(3, 'Steps of the training.', minimum=1)


@dataclass(frozen=True)
class UnrulyTraining(UnrulySettings):
    """When a training misbehaves."""

    at: int = option(1, 'The step at which memory runs out, or at which the job dies.', minimum=1)
    pause: float = option(0.0, 'Seconds of a step.', minimum=0.0)
    batch_size: int = option(4, 'Frames of a batch.', minimum=1)
    fits: int = option(1000, 'The largest batch that fits into memory.', minimum=1)
    rate: float = option(0.1, 'The learning rate.', minimum=0.0)
    stable: float = option(1000.0, 'The highest rate at which the loss does not grow.', minimum=0.0)


class Unruly(Architecture):
    """Fails the way it is told to."""

    name: ClassVar[str] = 'unruly'
    strategies: ClassVar[tuple[str, ...]] = ('scratch', 'naive')
    protocols: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        'fast': ('Short.', {}),
        'long': ('Longer.', {'steps': 5}),
    }
    Settings = UnrulyTraining

    def smaller_batch(self, settings: UnrulyTraining, has_parent: bool = False) -> dict[str, Any] | None:
        """Halve it."""
        if settings.way == 'careless':
            return {'batch_size': 0}
        return {'batch_size': settings.batch_size // 2} if settings.batch_size > 1 else None

    def lower_rate(self, settings: UnrulyTraining, has_parent: bool = False) -> dict[str, Any] | None:
        """Take a tenth of it, down to a thousandth."""
        return {'rate': settings.rate / 10} if settings.rate > 1e-3 else None

    def may_change(self, settings: UnrulyTraining, state: State) -> frozenset[str]:
        """Leave it to the training."""
        return frozenset(asdict(settings))

    def train(self, training: Training) -> Trained:
        """Misbehave."""
        settings = training.settings
        way, steps = settings.way, settings.steps
        state = training.checkpoint.state()
        curve = list(state.curve) if state else []
        if way == 'stubborn' and state and state.about['batch_size'] != settings.batch_size:
            raise JobError(Status.BAD_INPUT, 'the batch may not change on the way.')
        memory = training.folder / 'memory.json'
        for step in range(len(curve) + 1, steps + 1):
            self._misbehave_at(step, training, anew=state is None)
            curve.append({'step': step, 'loss': self._loss(settings, step)})
            training.report({**curve[-1], 'of': steps})
            memory.write_text(json.dumps(step))
            training.checkpoint.save(step, {'memory.json': memory}, curve, {'batch_size': settings.batch_size})
            time.sleep(settings.pause)
            if way == 'slow' or settings.pause:
                time.sleep(0.2)
                if training.seconds_left() <= 0:
                    raise JobError(Status.OUT_OF_WALLTIME, f'stopped at step {step}.', {'last': curve[-1]})
        self._misbehave(way)
        content = {
            'way': way,
            'elements': ['Cs', 'Pb', 'I'] if way != 'forgets' else ['Cs'],
            'seed': training.seed,
            'has_parent': training.parent is not None,
        }
        if way != 'nothing':
            (training.folder / 'potential' / 'unruly.json').write_text(json.dumps(content))
        return Trained(curve, {**asdict(settings), 'steps': steps + 1 if way == 'ignore' else steps})

    @staticmethod
    def _loss(settings: UnrulyTraining, step: int) -> float:
        if settings.way == 'diverge':
            return float('nan')
        return 1.0 / step if settings.rate <= settings.stable else 10.0**step

    @staticmethod
    def _misbehave_at(step: int, training: Training, anew: bool) -> None:
        settings = training.settings
        if step == settings.at and settings.batch_size > settings.fits:
            raise MemoryError('out of memory')
        if step == settings.at and settings.way == 'die once' and anew:
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.way == 'odd' and training.seed % 2:
            raise ZeroDivisionError('the seed is odd')

    @staticmethod
    def _misbehave(way: str) -> None:
        if way == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if way == 'memory':
            raise MemoryError('out of memory')
        if way == 'raise':
            raise ZeroDivisionError('a fault of the program')
        if way == 'import':
            import package_that_does_not_exist  # noqa: F401
        if way == 'converge':
            raise JobError(Status.NOT_CONVERGED, 'it did not converge.')

    def facts(self, potential: Path) -> PotentialFacts:
        """Read the file."""
        content = json.loads((potential / 'unruly.json').read_text())
        heads = tuple(content.get('heads', ['default']))
        return PotentialFacts(elements=tuple(content['elements']), cutoff=5.0, heads=heads, n_parameters=1)

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Return a calculator that may predict nonsense."""
        content = json.loads((potential / 'unruly.json').read_text())
        constants = dict(zip(content.get('heads', []), (1.0, 2.0, 3.0), strict=False))
        return _Constant(content['way'], constants.get(head, 0.0))

    def descriptors(self, potential: Path, frames: Any, device: str = 'cpu') -> Any:
        """Yield descriptors that are of no use."""
        way = json.loads((potential / 'unruly.json').read_text())['way']
        for index, frame in enumerate(frames):
            if way == 'short' and index == 1:
                return
            time.sleep(0.1 if way == 'sluggish' else 0.0)
            value = np.nan if way == 'nan' and index == 1 else 1.0
            yield np.full(len(frame) if way == 'flat' else (len(frame), 2), value)
        if way == 'long':
            yield np.ones((1, 2))

    def self_test(self) -> str:
        """Pass."""
        return 'calm'


def impatience(node: Any, transport: Any) -> str:
    """Stop every job, as a monitor."""
    return 'It takes too long.'


class _Constant(Calculator):
    implemented_properties: ClassVar[list[str]] = ['energy', 'forces', 'stress']

    def __init__(self, way: str, constant: float = 0.0) -> None:
        super().__init__()
        self.way, self.constant = way, constant

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        value = {'nan': np.nan, 'huge': 1e9}.get(self.way, self.constant)
        if self.way == 'sluggish':
            time.sleep(0.1)
        self.results = {'energy': value, 'forces': np.full((len(self.atoms), 3), value), 'stress': np.full(6, value)}


class UnrulyLabeller(AseLabeller):
    """Fails on the frames whose group says so."""

    name: ClassVar[str] = 'unruly'
    Settings = UnrulySettings
    repairs: ClassVar[tuple[Repair, ...]] = (
        Repair('soothe', frozenset({'failed'}), 'Calms what raises.', {'way': 'calm'}),
        Repair('tame', frozenset({'failed'}), 'Calms what raises twice.', {'way': 'tame'}),
    )

    def level(self, settings: UnrulySettings) -> Level:
        """Return the level of theory."""
        return Level(labeller='unruly', details={'steps': settings.steps})

    def refusal(self, settings: UnrulySettings, frame: Frame) -> str | None:
        """Refuse what is marked so."""
        return 'it is marked so.' if frame.group == 'refuse' else None

    def calculator(self, settings: UnrulySettings, frame: Frame) -> Any:
        """Misbehave as the group of the frame says."""
        if frame.group == 'raise' or (frame.group == 'sulk' and settings.way == 'none'):
            raise RuntimeError('SCF not converged')
        if frame.group == 'sulk twice' and settings.way in ('none', 'calm'):
            raise RuntimeError('SCF not converged')
        if frame.group == 'crash':
            os.kill(os.getpid(), signal.SIGKILL)
        if frame.group == 'slow':
            time.sleep(0.5)
            return LennardJones()
        if frame.group == 'hang':
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        if frame.group == 'exit':
            raise SystemExit(3)
        if frame.group == 'interrupt':
            raise KeyboardInterrupt
        if frame.group == 'import':
            import package_that_does_not_exist  # noqa: F401
        if frame.group == 'killjob':
            time.sleep(0.5)
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(5)
        return _Constant(frame.group if frame.group in ('nan', 'huge') else 'none')

    def self_test(self) -> str:
        """Pass."""
        return 'calm'
