"""Plug-ins that misbehave on request, so that every way to fail can be entered."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, Trained, Training
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import AseLabeller, Repair
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import option


@dataclass(frozen=True)
class UnrulySettings:
    """Which way to misbehave."""

    way: str = option('none', 'How to fail.')
    steps: int = option(3, 'Steps of the training.', minimum=1)


class Unruly(Architecture):
    """Fails the way it is told to."""

    name: ClassVar[str] = 'unruly'
    Settings = UnrulySettings

    def train(self, training: Training) -> Trained:
        """Misbehave."""
        way, steps = training.settings.way, training.settings.steps
        state = training.checkpoint.state()
        curve = list(state.curve) if state else []
        memory = training.folder / 'memory.json'
        for step in range(len(curve) + 1, steps + 1):
            loss = float('nan') if way == 'diverge' else 1.0 / step
            curve.append({'step': step, 'loss': loss})
            training.report({**curve[-1], 'of': steps})
            memory.write_text(json.dumps(step))
            training.checkpoint.save(step, {'memory.json': memory}, curve)
            if way == 'slow':
                time.sleep(0.2)
                if training.seconds_left() <= 0:
                    raise JobError(Status.OUT_OF_WALLTIME, f'stopped at step {step}.', {'last': curve[-1]})
        self._misbehave(way)
        content = {'way': way, 'elements': ['Cs', 'Pb', 'I'] if way != 'forgets' else ['Cs']}
        if way != 'nothing':
            (training.folder / 'potential' / 'unruly.json').write_text(json.dumps(content))
        return Trained(curve, {'way': way, 'steps': steps + 1 if way == 'ignore' else steps})

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
        return PotentialFacts(elements=tuple(content['elements']), cutoff=5.0, n_parameters=1)

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Return a calculator that may predict nonsense."""
        return _Constant(json.loads((potential / 'unruly.json').read_text())['way'])

    def self_test(self) -> str:
        """Pass."""
        return 'calm'


class _Constant(Calculator):
    implemented_properties: ClassVar[list[str]] = ['energy', 'forces', 'stress']

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        value = {'nan': np.nan, 'huge': 1e9}.get(self.way, 0.0)
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
