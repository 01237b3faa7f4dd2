"""What molecular dynamics through the plug-in costs, beside the same engine run bare in the same process.

Simulates CsPbI3 with a potential in both ways, turn by turn, and prints atoms × steps a second of the fastest turn of
each and their ratio: thermodynamics each 10 steps, a frame each 100, guards and the last state included. Processor time
is counted, which others on the machine do not change; that of a program of its own from its start to its end, with that
of the process that follows it. Run it with the Python of the environment of the architecture, or of the engine where
that is a program of its own; these have no AiiDA.

    PYTHONPATH=src PYTHON_OF_ENVIRONMENT benchmarks/md.py --architecture nep --potential FOLDER [--repeat 2 3 4]
    PYTHONPATH=src PYTHON_OF_LAMMPS benchmarks/md.py --architecture nep --potential FOLDER --engines lammps
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.verlet import VelocityVerlet

from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.engine import MdRun
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import MdSettings, read_md_settings
from aiida_perovmlip.compute.plugin import load_object
from aiida_perovmlip.compute.recorder import Recorder

PLACES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
TURNS = 3


@dataclass(frozen=True)
class Case:
    """One run to be timed.

    :param potential: folder with the files of the potential.
    """

    frame: Frame
    settings: MdSettings
    architecture: Any
    potential: Path


def crystal(repeat: int) -> Frame:
    """Return a slightly shaken cubic CsPbI3 of so many cells along each direction."""
    atoms = Atoms('PbCsI3', scaled_positions=PLACES, cell=3 * [6.29], pbc=True).repeat(repeat)
    atoms.positions += np.random.default_rng(0).normal(0, 0.05, atoms.positions.shape)
    return Frame.from_atoms(atoms)


class Timed(Recorder):
    """A recorder that remembers when the first step was there, behind all that is opened once."""

    began: float | None = None

    def watch(self, *arguments: Any, **named: Any) -> None:
        """Look at the clock first."""
        if self.began is None:
            self.began, self.first = time.process_time(), arguments[0]
        super().watch(*arguments, **named)

    def speed(self) -> float:
        """Return atoms × steps a second."""
        assert self.began is not None
        return len(self.start) * (self.step - self.first) / (time.process_time() - self.began)


def through(engine: Any, case: Case) -> float:
    """Return atoms × steps a second of an engine through the plug-in."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recorder = Timed(case.settings, case.frame, Checkpoint(folder / 'checkpoint', 'timed'), folder)
        run = MdRun(
            settings=case.settings,
            frame=case.frame,
            architecture=case.architecture,
            potential=case.potential,
            recorder=recorder,
            folder=folder,
        )
        started = _with_children()
        engine.run(run)
        if engine.uses_calculator:
            return recorder.speed()
        return len(case.frame) * case.settings.n_steps / (_with_children() - started)


def _with_children() -> float:
    """Return the processor time in s of this process and of all that it has started and that has ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def bare_ase(case: Case) -> float:
    """Return atoms × steps a second of ASE alone."""
    atoms, settings = case.frame.to_atoms(labels=False), case.settings
    atoms.calc = case.architecture.calculator(case.potential, 'cpu', None)
    momenta = (
        np.random.default_rng(0).normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    )
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    atoms.get_forces()
    timestep = settings.timestep * units.fs
    if settings.ensemble == 'nve':
        dynamics: Any = VelocityVerlet(atoms, timestep)
    else:
        about = {'externalstress': 0.0, 'P_tau': 1000 * units.fs} if settings.ensemble == 'npt' else {}
        rng = np.random.default_rng(0)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the mass that it guesses for the cell
            dynamics = LangevinBAOAB(atoms, timestep, temperature_K=300, T_tau=100 * units.fs, rng=rng, **about)
    started = time.process_time()
    dynamics.run(settings.n_steps)
    return settings.n_steps * len(atoms) / (time.process_time() - started)


def bare_lammps(case: Case) -> float:
    """Return atoms × steps a second of LAMMPS alone, with the input that a user would write."""
    from ase.io.lammpsdata import write_lammps_data

    from aiida_perovmlip.compute.engines.lammps import program

    found, settings = program.find(), case.settings
    style = next(each for each in case.architecture.lammps_styles if found.has(each))
    motion = {'nve': 'nve', 'nvt': 'nvt temp 300 300 0.1', 'npt': 'npt temp 300 300 0.1 tri 0 0 1.0'}
    elements = sorted(set(case.frame.symbols))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        atoms = case.frame.to_atoms(labels=False)
        write_lammps_data(folder / 'start', atoms, specorder=elements, masses=True, force_skew=True)
        form = case.architecture.lammps(style, case.potential, elements, folder)
        lines = [
            *('units metal', 'atom_style atomic', 'atom_modify map yes', 'read_data start', *form.lines),
            *(
                f'timestep {settings.timestep / 1000}',
                'velocity all create 300 1',
                f'fix 1 all {motion[settings.ensemble]}',
            ),
            *('thermo 10', 'dump 1 all custom 100 dump id xu yu zu', f'run {settings.n_steps}'),
        ]
        (folder / 'in').write_text('\n'.join(lines) + '\n')
        environment = {'OMP_NUM_THREADS': '1', **found.environment}
        command = [*found.command, '-in', 'in', '-screen', 'none']
        started = _with_children()
        subprocess.run(command, cwd=folder, env=environment, check=True)
        return len(case.frame) * settings.n_steps / (_with_children() - started)


BARE: dict[str, Callable[[Case], float]] = {'ase': bare_ase, 'lammps': bare_lammps}
"""For each engine what runs it without the plug-in."""


def main() -> None:
    """Time all and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--architecture', required=True)
    parser.add_argument('--potential', type=Path, required=True, help='folder with the files of the potential')
    parser.add_argument('--engines', nargs='+', default=['ase'], choices=sorted(BARE))
    parser.add_argument('--ensembles', nargs='+', default=['nve', 'nvt', 'npt'])
    parser.add_argument('--repeat', type=int, nargs='+', default=[2, 3, 4], help='cells along each direction')
    parser.add_argument('--atom-steps', type=int, default=60_000, help='atoms × steps of one turn')
    arguments = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    name = arguments.architecture
    architecture = load_object(f'aiida_perovmlip.compute.architectures.{name}:{name.capitalize()}')()
    print(f'{"engine":10s}{"ensemble":>10s}{"atoms":>8s}{"bare /s":>12s}{"plug-in /s":>12s}{"ratio":>8s}')
    for engine_name in arguments.engines:
        engine = load_object(f'aiida_perovmlip.compute.engines.{engine_name}:{engine_name.capitalize()}')()
        for ensemble in arguments.ensembles:
            for repeat in arguments.repeat:
                frame = crystal(repeat)
                steps = max(100, arguments.atom_steps // len(frame))
                settings = read_md_settings({'ensemble': ensemble, 'steps': steps, 'timestep': 2.0})
                case = Case(frame, settings, architecture, arguments.potential)
                turns = [(BARE[engine_name](case), through(engine, case)) for _ in range(TURNS)]
                bare, ours = (max(each) for each in zip(*turns, strict=True))
                print(
                    f'{engine_name:10s}{ensemble:>10s}{len(frame):8d}{bare:12.0f}{ours:12.0f}{ours / bare:8.3f}',
                    flush=True,
                )


if __name__ == '__main__':
    main()
