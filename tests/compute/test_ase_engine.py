"""Molecular dynamics of ASE: exact where it is taken up, and what statistical mechanics asks of it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet

from aiida_perovmlip.analysis.series import average_of
from aiida_perovmlip.compute.architecture import Architecture
from aiida_perovmlip.compute.architectures.reference import PairCalculator, Reference
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import MdRun
from aiida_perovmlip.compute.engines.ase import Ase
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import GPA, MdSettings, read_md_settings
from aiida_perovmlip.compute.recorder import (
    ABOUT,
    ARRAYS,
    CANDIDATES,
    Exploded,
    MdState,
    Recorder,
    read_state,
    spread_of,
)
from aiida_perovmlip.compute.shard import Shard
from aiida_perovmlip.compute.trajectory import Trajectory

CELL = bulk('Cu', cubic=True) * (2, 2, 1)


class Watched(Reference):
    """The reference architecture, which remembers its calculators and counts how often each is asked."""

    def __init__(self) -> None:
        self.made: list[Counted] = []

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        plain = super().calculator(potential, device, head)
        self.made.append(Counted(plain.basis, plain.weights))
        return self.made[-1]


class Counted(PairCalculator):
    """A calculator that counts how often it is asked."""

    calls = 0

    def calculate(self, *arguments: Any, **named: Any) -> None:
        self.calls += 1
        super().calculate(*arguments, **named)


def frame_of(atoms: Atoms = CELL) -> Frame:
    return Frame.from_atoms(atoms)


class Exact(Architecture):
    """Potentials whose averages are known: springs to the sites of atoms, softer for one atom than for the other.

    The name of a folder is the mean constant of the springs in eV/Å²: at 0 the atoms are an ideal gas. Nothing moves
    the centre of mass.
    """

    name = 'exact'

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        return Springs(float(potential.name))

    def facts(self, potential):
        raise NotImplementedError

    def train(self, training):
        raise NotImplementedError


class Springs(Calculator):
    """The calculator of the above."""

    implemented_properties = ('energy', 'forces', 'stress')

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        self.atoms = atoms.copy()
        weights = self.constant * np.linspace(0.5, 1.5, len(atoms))[:, None]
        away = atoms.positions - sites(atoms)
        away -= (weights * away).sum(axis=0) / weights.sum() if self.constant else 0.0
        self.results = {
            'energy': float(0.5 * (weights * away**2).sum()),
            'forces': -weights * away,
            'stress': np.zeros(6),
        }


def sites(atoms: Atoms):
    """Return where the springs hold the atoms of a cell of any size."""
    return CELL.get_scaled_positions() @ atoms.cell.array


@pytest.fixture
def exactly(simulate):
    """Return a function that runs with such a potential, and returns the trajectory."""

    def run(folder: Path, settings: MdSettings, constant: float = 2.0, **more) -> Trajectory:
        simulate(folder, settings, architecture=Exact(), potential=Path(str(constant)), **more)
        return opened(folder)

    return run


class Clock:
    """The seconds that are left to a job: none any more once it was asked so often."""

    def __init__(self, steps: int | None = None) -> None:
        self.steps, self.asked = steps, 0

    def __call__(self) -> float:
        self.asked += 1
        return math.inf if self.steps is None or self.asked < self.steps else 0.0


def recorder_of(folder: Path, settings: MdSettings, frame: Frame, begun=None) -> Recorder:
    folder.mkdir(exist_ok=True)
    return Recorder(settings, frame, Checkpoint(folder / 'checkpoint', 'this run'), folder, begun=begun)


@pytest.fixture
def simulate(copper_files: Path) -> Any:
    """Return a function that runs in a folder, for so many steps where these are given.

    It returns what the engine says, and the architecture.
    """

    def run(folder: Path, settings: MdSettings, *, steps=None, begun=None, frame=None, architecture=None, **more):
        frame, architecture = frame or frame_of(), architecture or Watched()
        recorder = recorder_of(folder, settings, frame, begun)
        job = {'frame': frame, 'architecture': architecture, 'recorder': recorder, 'folder': folder, 'seed': 7}
        job |= {'settings': settings, 'potential': copper_files, 'seconds_left': Clock(steps)}
        assert Ase().refusal(settings, architecture) is None
        try:
            return Ase().run(MdRun(**{**job, **more})), architecture
        finally:
            recorder.close()

    return run


@pytest.fixture
def stop(simulate: Any) -> Any:
    """Return a function that runs for so many steps and no more, and returns the state for a further job."""

    def run(folder: Path, settings: MdSettings, steps: int, **more: Any) -> MdState:
        with pytest.raises(JobError, match='steps were left') as caught:
            simulate(folder, settings, steps=steps, **more)
        assert caught.value.status is Status.OUT_OF_WALLTIME
        return carried(folder)

    return run


def carried(folder: Path):
    """Return the newest state of a folder as a further job finds it."""
    state = Checkpoint(folder / 'checkpoint', 'this run').state()
    about = {name: state.about[name] for name in ('engine', 'spread')}
    (state.folder / ABOUT).write_text(json.dumps({'step': state.step, 'identity': 'this run', **about}))
    return read_state(state.folder, 'this run')


def opened(folder: Path) -> Trajectory:
    return Trajectory.open_folder(folder, 2.0)


def bytes_of(*trajectories: Trajectory) -> dict[str, bytes]:
    """Return all columns of trajectories that follow each other."""
    chunks = [chunk for trajectory in trajectories for chunk in trajectory.chunks()]
    return {name: np.concatenate([chunk.columns[name] for chunk in chunks]).tobytes() for name in chunks[0].columns}


RUNS = {
    'nve': {'ensemble': 'nve'},
    'nvt langevin': {'ensemble': 'nvt', 'thermostat': 'langevin'},
    'nvt bussi': {'ensemble': 'nvt', 'thermostat': 'bussi'},
    'nvt nose-hoover': {'ensemble': 'nvt', 'thermostat': 'nose-hoover'},
    'npt baoab isotropic': {'ensemble': 'npt', 'cell': 'isotropic'},
    'npt baoab orthogonal': {'ensemble': 'npt', 'cell': 'orthogonal'},
    'npt baoab flexible': {'ensemble': 'npt', 'cell': 'flexible'},
    'npt mtk isotropic': {'ensemble': 'npt', 'cell': 'isotropic', 'barostat': 'mtk', 'thermostat': 'nose-hoover'},
    'npt mtk orthogonal': {'ensemble': 'npt', 'cell': 'orthogonal', 'barostat': 'mtk', 'thermostat': 'nose-hoover'},
    'npt mtk flexible': {'ensemble': 'npt', 'cell': 'flexible', 'barostat': 'mtk', 'thermostat': 'nose-hoover'},
}


def settings_of(name: str = 'nve', **more: Any) -> MdSettings:
    short = {'timestep': 2.0, 'steps': 30, 'frames_every': 4, 'thermo_every': 2, 'temperature': 400.0}
    return read_md_settings({**short, **RUNS[name], **more})


@pytest.mark.parametrize('name', RUNS)
def test_a_run_in_three_jobs_is_bit_by_bit_the_run_that_never_stopped(simulate, stop, tmp_path, name):
    ramp = {} if name == 'nve' else {'temperature': [200.0, 500.0]}
    pressure = {'pressure': [0.0, 0.5]} if name.startswith('npt') else {}
    settings = settings_of(name, velocities=True, **ramp, **pressure)
    simulate(tmp_path / 'whole', settings)
    first = stop(tmp_path / 'first', settings, 9)
    assert first.step == 9
    second = stop(tmp_path / 'second', settings, 11, begun=first)
    assert second.step == 20
    with pytest.raises(JobError, match='steps were left'):
        simulate(tmp_path / 'third', settings, steps=1, begun=second)
    simulate(tmp_path / 'third', settings, begun=second)  # its own state is newer than the one that it began from
    legs = [opened(tmp_path / leg) for leg in ('first', 'second', 'third')]
    whole = opened(tmp_path / 'whole')
    assert whole.steps().tolist() == list(range(0, 29, 4))
    assert bytes_of(*legs) == bytes_of(whole)
    assert carried(tmp_path / 'third').arrays.keys() == carried(tmp_path / 'whole').arrays.keys()
    for key, array in carried(tmp_path / 'whole').arrays.items():
        assert carried(tmp_path / 'third').arrays[key].tobytes() == array.tobytes()


def test_a_job_that_is_started_again_in_its_folder_repeats_no_frame(simulate, stop, tmp_path):
    settings = settings_of('nvt bussi', save_every=10)
    simulate(tmp_path / 'whole', settings)
    stop(tmp_path / 'again', settings, 17)
    states = sorted((tmp_path / 'again' / 'checkpoint').iterdir())
    (states[-1] / ARRAYS).write_bytes(b'damaged')  # the newest state, of step 17: that of step 10 serves
    simulate(tmp_path / 'again', settings)
    assert bytes_of(opened(tmp_path / 'again')) == bytes_of(opened(tmp_path / 'whole'))
    simulate(tmp_path / 'again', settings)  # once more, after its end: nothing is left to do
    assert bytes_of(opened(tmp_path / 'again')) == bytes_of(opened(tmp_path / 'whole'))


@pytest.mark.parametrize('name', RUNS)
def test_the_calculator_is_attached_once_and_asked_once_a_step(simulate, tmp_path, name):
    _, architecture = simulate(tmp_path, settings_of(name))
    (calculator,) = architecture.made
    assert calculator.calls == 31


def test_velocity_verlet_is_that_of_ase_bit_by_bit(simulate, tmp_path, copper_files):
    settings = settings_of('nve', initial_temperature=0.0, steps=20)
    frame = frame_of(shaken())
    simulate(tmp_path, settings, frame=frame)
    atoms = frame.to_atoms(labels=False)
    atoms.calc = Reference().calculator(copper_files)
    VelocityVerlet(atoms, 2.0 * units.fs).run(20)
    assert carried(tmp_path).arrays['positions'].tobytes() == atoms.positions.tobytes()


def shaken(seed: int = 0) -> Atoms:
    atoms = CELL.copy()
    atoms.positions += np.random.default_rng(seed).normal(0, 0.1, atoms.positions.shape)
    return atoms


# ---------------------------------------------------------------------- statistical mechanics


def degrees(name: str) -> int:
    """Return what moves freely: where nothing pushes the centre of mass, it stays."""
    return 3 * len(CELL) - (0 if 'langevin' in name or 'baoab' in name else 3)


def is_near(values, expected: float) -> None:
    """Assert that the mean of a series is what is expected, within four of its errors."""
    average = average_of(values)
    assert average.error < 0.1 * abs(expected)
    assert average.mean == pytest.approx(expected, abs=4 * average.error)


@pytest.mark.parametrize('name', ['nvt langevin', 'nvt bussi', 'nvt nose-hoover'])
def test_a_thermostat_gives_potential_and_kinetic_energy_their_canonical_means(tmp_path, exactly, name):
    settings = settings_of(name, steps=4_000, thermo_every=2, frames_every=4_000, temperature_time=30.0)
    trajectory = exactly(tmp_path, settings)
    late = slice(400, None)
    kinetic, potential = (trajectory.thermo(f'{kind}_energy')[1][late] for kind in ('kinetic', 'potential'))
    energy = 0.5 * units.kB * 400.0
    is_near(trajectory.thermo('temperature')[1][late], 400.0)
    is_near(kinetic, degrees(name) * energy)
    is_near(potential, (3 * len(CELL) - 3) * energy)
    assert kinetic.var() == pytest.approx(2 * degrees(name) * energy**2, rel=0.3)


@pytest.mark.parametrize('name', [name for name in RUNS if name.startswith('npt')])
def test_an_ideal_gas_has_the_pressure_that_is_asked_for(tmp_path, exactly, name):
    settings = settings_of(
        name, steps=1_500, thermo_every=3, frames_every=1_500, pressure=0.4, pressure_time=100.0, temperature_time=30.0
    )
    trajectory = exactly(tmp_path, settings, constant=0.0)
    late = slice(150, None)
    is_near(-trajectory.thermo('stress')[1][late, :3].mean(axis=1) * GPA, 0.4)
    is_near(trajectory.thermo('temperature')[1][late], 400.0)
    if name == 'npt baoab isotropic':
        gas = (len(CELL) + 1) * units.kB * 400.0 / (0.4 / GPA)
        is_near(trajectory.thermo('volume')[1][late], gas)


def test_the_stress_has_its_kinetic_part_with_the_sign_of_ase(tmp_path, exactly):
    trajectory = exactly(tmp_path, settings_of('nve', steps=10), constant=0.0)
    pressure = -trajectory.thermo('stress')[1][:, :3].mean(axis=1)
    expected = 2 * trajectory.thermo('kinetic_energy')[1] / (3 * CELL.get_volume())
    assert pressure == pytest.approx(expected)


def test_the_stress_of_a_solid_is_that_of_ase(tmp_path, simulate, copper_files):
    settings = settings_of('nve', steps=7, thermo_every=7)
    simulate(tmp_path, settings)
    state = carried(tmp_path).arrays
    atoms = Atoms(CELL.numbers, state['positions'], cell=state['cell'], pbc=True, momenta=state['momenta'])
    atoms.calc = Reference().calculator(copper_files)
    assert opened(tmp_path).thermo('stress')[1][-1] == pytest.approx(atoms.get_stress(include_ideal_gas=True))


@pytest.mark.parametrize('name', ['nve', 'nvt bussi', 'nvt nose-hoover', 'npt mtk flexible', 'npt mtk isotropic'])
def test_what_is_conserved_stays_while_the_energy_does_not(tmp_path, exactly, name):
    short = {'steps': 1000, 'timestep': 0.5, 'frames_every': 1000, 'temperature_time': 50.0, 'pressure_time': 200.0}
    is_gas = name.startswith('npt')  # the springs follow the cell without a stress
    settings = settings_of(name, **short, **({'pressure': 0.5} if is_gas else {}))
    trajectory = exactly(tmp_path, settings, constant=0.0 if is_gas else 2.0)
    conserved, moving = (trajectory.thermo(kind)[1] for kind in ('conserved', 'kinetic_energy'))
    assert np.ptp(conserved) < 0.02 * np.ptp(moving)


def test_langevin_conserves_nothing_that_could_be_told(tmp_path, exactly):
    assert 'conserved' not in exactly(tmp_path, settings_of('nvt langevin')).thermo_names


def test_a_ramp_goes_where_it_is_to_go(tmp_path, exactly):
    stages = [{'steps': 500, 'temperature': 100.0}, {'steps': 1000, 'temperature': [100.0, 900.0]}]
    settings = settings_of('nvt langevin', stages=stages, temperature_time=20.0, thermo_every=1)
    trajectory = exactly(tmp_path, settings)
    times, targets = trajectory.thermo('target_temperature')
    assert targets[[0, 500, 1000, 1500]] == pytest.approx([100.0, 100.0, 500.0, 900.0])
    found = trajectory.thermo('temperature')[1]
    assert found[200:500].mean() == pytest.approx(100.0, rel=0.15)
    assert found[1350:].mean() == pytest.approx(targets[1350:].mean(), rel=0.15)
    assert times[-1] == pytest.approx(3.0)


def test_a_pressure_ramp_squeezes_the_cell(tmp_path, exactly):
    settings = settings_of('npt baoab isotropic', steps=1500, pressure=[0.2, 2.0], pressure_time=100.0, thermo_every=1)
    trajectory = exactly(tmp_path, settings, constant=0.0)
    volume = trajectory.thermo('volume')[1]
    assert volume[-200:].mean() < 0.5 * volume[200:400].mean()
    assert trajectory.thermo('target_pressure')[1][-1] == pytest.approx(2.0)


def test_an_atom_that_leaves_the_cell_goes_on(tmp_path, exactly):
    trajectory = exactly(tmp_path, settings_of('nve', steps=2000, velocities=True, temperature=3000.0), constant=0.0)
    (block,) = trajectory.blocks()
    (chunk,) = trajectory.chunks()
    expected = block.positions[0] + block.times[:, None, None] * chunk.velocities[0]
    assert np.allclose(block.positions, expected, atol=1e-3)
    assert np.ptp(block.positions[:, :, 0]) > 2 * CELL.cell[0, 0]


def test_frozen_atoms_stay_and_count_for_no_temperature(tmp_path, exactly):
    for name in ('nve', 'nvt langevin', 'nvt bussi', 'nvt nose-hoover'):
        settings = settings_of(name, steps=200, frozen=[0, 5], temperature_time=30.0)
        trajectory = exactly(tmp_path / name, settings)
        first, last = trajectory.frame(0), trajectory.frame(-1)
        moved = np.abs(last.positions - first.positions).max(axis=1)
        assert moved[[0, 5]].tolist() == [0.0, 0.0]
        assert np.delete(moved, [0, 5]).min() > 0
        kinetic, temperature = (trajectory.thermo(kind)[1] for kind in ('kinetic_energy', 'temperature'))
        assert temperature == pytest.approx(2 * kinetic / (3 * (len(CELL) - 2) * units.kB))


def test_other_masses_move_otherwise(tmp_path, exactly):
    heavy = exactly(tmp_path / 'heavy', settings_of('nve', masses={'Cu': 4 * 63.546}, velocities=True))
    plain = exactly(tmp_path / 'plain', settings_of('nve', velocities=True))
    assert heavy.atoms.masses == pytest.approx(4 * plain.atoms.masses)
    slow, fast = (next(trajectory.chunks()).velocities[0] for trajectory in (heavy, plain))
    assert slow == pytest.approx(fast / 2, rel=1e-5)


def test_the_first_velocities_have_their_temperature_and_no_drift(tmp_path, exactly):
    trajectory = exactly(tmp_path / 'warm', settings_of('nve', initial_temperature=250.0, velocities=True))
    assert trajectory.thermo('temperature')[1][0] == pytest.approx(250.0)
    velocities = next(trajectory.chunks()).velocities[0]
    assert np.abs(velocities.mean(axis=0)).max() < 1e-5
    cold = exactly(tmp_path / 'cold', settings_of('nvt langevin', initial_temperature=0.0, steps=10))
    assert cold.thermo('temperature')[1][0] == 0.0
    assert cold.thermo('temperature')[1][-1] > 0.0


def test_seeds_make_other_runs_and_equal_seeds_equal_ones(tmp_path, exactly):
    settings = settings_of('nvt langevin', steps=20)
    runs = [exactly(tmp_path / str(number), settings, seed=seed) for number, seed in enumerate((1, 1, 2))]
    one, same, other = (run.frame(-1).positions for run in runs)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_an_orthogonal_cell_stays_orthogonal_and_a_flexible_one_does_not(tmp_path, simulate):
    for barostat in ('baoab', 'mtk'):
        for cell in ('orthogonal', 'flexible', 'isotropic'):
            simulate(tmp_path / f'{barostat} {cell}', settings_of(f'npt {barostat} {cell}', temperature=800.0))
            last = opened(tmp_path / f'{barostat} {cell}').frame(-1).cell
            slant, lengths = np.abs(last - np.diag(np.diag(last))).max(), np.diag(last) / np.diag(CELL.cell.array)
            assert (slant > 1e-4) == (cell == 'flexible')
            assert (np.ptp(lengths) > 1e-4) == (cell != 'isotropic')


def test_a_cluster_has_neither_stress_nor_volume(tmp_path, simulate):
    cluster = Atoms('Cu4', [[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.5]])
    simulate(tmp_path, settings_of('nve', steps=10, temperature=50.0), frame=frame_of(cluster))
    assert not {'stress', 'volume'} & set(opened(tmp_path).thermo_names)


def test_all_integrators_are_there():
    assert 'all integrators' in Ase().self_test()


def test_an_ase_that_lacks_an_integrator_is_named(monkeypatch):
    monkeypatch.delattr('ase.md.langevinbaoab.LangevinBAOAB')
    with pytest.raises(JobError, match=r'has no LangevinBAOAB; install ASE 3\.29') as caught:
        Ase().self_test()
    assert caught.value.status is Status.MISSING_PACKAGE


# ---------------------------------------------------------------------- explosions


def exploded(folder: Path, exactly, settings: MdSettings, **more: Any) -> Exploded:
    with pytest.raises(Exploded) as caught:
        exactly(folder, settings, **more)
    return caught.value


def test_an_explosion_ends_the_run_and_leaves_the_frames_before_it(tmp_path, exactly):
    settings = settings_of('nve', steps=5000, temperature=100.0, n_candidates=5)
    error = exploded(tmp_path, exactly, settings, constant=-1.0)
    assert error.status is Status.EXPLODED
    assert 'above `max_' in error.message
    assert 'label them and train on' in error.message
    with (tmp_path / CANDIDATES).open('rb') as handle:
        kept = list(Shard.read(handle))
    told = error.results['candidates']
    assert len(kept) == len(told) == 5
    assert {step['step'] % 10 for step in told} == {0}  # 20 fs apart
    assert error.results['exploded_at_step'] - told[-1]['step'] <= 10
    assert all(frame.energy is None and frame.forces is None for frame in kept)
    assert [step['energy'] for step in told] == sorted((step['energy'] for step in told), reverse=True)
    steps = opened(tmp_path).steps()
    assert steps[-1] > error.results['exploded_at_step'] - 5
    again = exploded(tmp_path, exactly, settings, constant=-1.0)  # the job is started once more in its folder
    assert again.message == error.message
    assert again.results == error.results


@pytest.mark.parametrize(
    ('limits', 'words'),
    [
        ({'max_temperature': 300.0}, r'the temperature was .* K, above `max_temperature` of 300 K'),
        ({'max_force': 0.5}, r'the largest force on an atom was .* eV/Å, above `max_force` of 0\.5 eV/Å'),
    ],
)
def test_limits_are_what_the_settings_say(tmp_path, exactly, limits, words):
    error = exploded(tmp_path, exactly, settings_of('nvt langevin', steps=2000, **limits))
    assert re.search(words, error.message)


def test_what_is_not_finite_is_an_explosion_too(tmp_path, exactly):
    error = exploded(tmp_path, exactly, settings_of('nve'), constant=math.nan)
    assert 'the potential energy was nan eV' in error.message
    assert 'There was no frame before it' in error.message
    assert not (tmp_path / CANDIDATES).exists()


def test_a_committee_that_disagrees_ends_the_run(tmp_path, exactly):
    committee = (Path('2.0'), Path('2.6'))
    calm = settings_of('nve', steps=20, thermo_every=2, frames_every=4)
    trajectory = exactly(tmp_path / 'calm', calm, committee=committee)
    spread = trajectory.thermo('spread')[1]
    assert np.ptp(spread[2:4]) == 0.0 < np.ptp(spread)  # it is that of the last frame
    state = carried(tmp_path / 'calm')
    moved = state.arrays['positions'] - sites(CELL)
    calculators = [Springs(2.0), Springs(2.0), Springs(2.6)]
    atoms = CELL.copy()
    atoms.positions = sites(CELL) + moved
    forces = np.array([calculator.get_forces(atoms) for calculator in calculators])
    assert spread[-1] == pytest.approx(spread_of(forces))
    watched = settings_of('nve', steps=2000, max_spread=float(spread.max() * 1.01))
    error = exploded(tmp_path / 'watched', exactly, watched, committee=committee)
    assert 'above `max_spread`' in error.message
    assert error.results['candidates'][-1]['spread'] > watched.max_spread
    assert error.results['candidates'][-1]['step'] == error.results['exploded_at_step']


def test_the_spread_goes_on_from_the_state(tmp_path, exactly, stop):
    settings = settings_of('nve', steps=40, frames_every=20, thermo_every=2)
    more = {'committee': (Path('2.6'),), 'architecture': Exact(), 'potential': Path('2.0')}
    whole = exactly(tmp_path / 'whole', settings, committee=more['committee'])
    first = stop(tmp_path / 'first', settings, 9, **more)
    rest = exactly(tmp_path / 'rest', settings, committee=more['committee'], begun=first)
    assert bytes_of(opened(tmp_path / 'first'), rest) == bytes_of(whole)


def test_a_committee_may_come_and_go_with_a_new_job(tmp_path, exactly, stop):
    """Each row of a job has a spread or none has; that of a committee that is gone is not told of later steps."""
    settings = settings_of('nve', steps=40, frames_every=20, thermo_every=2)
    more, committee = {'architecture': Exact(), 'potential': Path('2.0')}, (Path('2.6'),)
    alone, watched = stop(tmp_path / 'alone', settings, 9, **more), tmp_path / 'watched'
    rest = exactly(tmp_path / 'rest', settings, committee=committee, begun=alone)
    assert len(rest.thermo('spread')[1]) == len(rest.thermo('temperature')[1]) == 16
    followed = stop(watched, settings, 9, committee=committee, **more)
    assert 'spread' not in exactly(tmp_path / 'unwatched', settings, begun=followed).thermo_names


@pytest.mark.parametrize('limit', [None, 1.0])
def test_a_committee_without_a_number_ends_the_run(tmp_path, limit):
    frame = Frame.from_atoms(bulk('Cu', cubic=True))
    recorder = Recorder(settings_of('nve', max_spread=limit), frame, Checkpoint(tmp_path / 'c', 'x'), tmp_path)
    forces = np.zeros((2, len(frame), 3))
    recorder.watch(0, frame.positions, frame.cell, energy=0.0, forces=forces[0])
    forces[1, 2] = np.nan
    with pytest.raises(Exploded, match='was no number') as caught:
        recorder.spread(0, forces, frame.positions, frame.cell)
    assert [each['step'] for each in caught.value.results['candidates']] == [0]


def test_the_spread_of_a_force_is_the_one_by_its_definition():
    forces = np.zeros((3, 2, 3))
    forces[:, 1, 0] = [1.0, 2.0, 3.0]  # variance 1 along x, none along y and z
    assert spread_of(forces) == pytest.approx((1 / 3) ** 0.5)


def test_what_ase_cannot_do_is_refused():
    settings = settings_of('nvt bussi', initial_temperature=0.0)
    assert 'cannot start from atoms at rest' in Ase().refusal(settings, Exact())
    assert 'has no barostat `scr`' in Ase().refusal(read_md_settings({'ensemble': 'npt', 'barostat': 'scr'}), Exact())
    mixed = read_md_settings({'ensemble': 'npt', 'barostat': 'mtk', 'thermostat': 'langevin'})
    assert 'the barostat `mtk` of ase has the thermostat `nose-hoover`' in Ase().refusal(mixed, Exact())
    assert Ase().refusal(read_md_settings({'ensemble': 'npt', 'barostat': 'mtk'}), Exact()) is None
