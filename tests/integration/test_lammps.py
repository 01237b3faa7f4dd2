"""Molecular dynamics by a real LAMMPS: with NEP by the plugin, and with a pair potential of its own."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk

from aiida_perovmlip.compute.architecture import NativeForm
from aiida_perovmlip.compute.architectures.nep import Nep
from aiida_perovmlip.compute.architectures.reference import Reference
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import MdRun
from aiida_perovmlip.compute.engines.lammps import Lammps, motion, program
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import read_md_settings
from aiida_perovmlip.compute.recorder import ARRAYS, CANDIDATES, Exploded, MdState, Recorder
from aiida_perovmlip.compute.shard import Shard
from aiida_perovmlip.compute.trajectory import Trajectory
from aiida_perovmlip.installation import environments
from aiida_perovmlip.installation.environments import Environment, default_prefix
from aiida_perovmlip.installation.libraries import LIBRARIES

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).resolve().parents[2] / 'src'
ENERGIES = {'Cs': -1.0, 'Pb': -2.0, 'I': -3.0}
"""Energies in eV that lie beside the potential, as if it had been trained without these."""


class Argon(Reference):
    """An architecture whose potential is one of LAMMPS itself."""

    name: ClassVar[str] = 'argon'
    lammps_styles: ClassVar[dict[str, str]] = {'lj/cut': 'any LAMMPS has it'}
    lines: ClassVar[tuple[str, ...]] = ('pair_style lj/cut 8.0', 'pair_coeff * * 0.0104 3.4')

    def lammps(self, *arguments: Any) -> NativeForm:
        return NativeForm(self.lines)


class Watching(Recorder):
    """A recorder that remembers the forces of each step that it looked at."""

    def watch(self, step: int, *arguments: Any, **told: Any) -> None:
        self.__dict__.setdefault('forces', {})[step] = told['forces']
        super().watch(step, *arguments, **told)


@pytest.fixture(scope='session')
def lammps_environment() -> Environment:
    """Return the environment of LAMMPS, or skip the test."""
    found = Environment('lammps', Lammps.requirements, default_prefix(), library=LIBRARIES['lammps'])
    if not found.is_complete:
        pytest.skip('no environment of lammps; build it: aiida-perovmlip setup --environments-only --with lammps')
    return found


@pytest.fixture
def lammps(lammps_environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Let LAMMPS be found by the engine in this process."""
    ours = program.environment_of(['lmp'], lammps_environment.python)
    for name in ('PATH', 'LD_LIBRARY_PATH', 'LAMMPS_PLUGIN_PATH'):
        if name in ours:
            monkeypatch.setenv(name, ours[name])
    monkeypatch.setenv(program.COMMAND, 'lmp')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    return lammps_environment


@pytest.fixture
def nep(lammps: Environment, shared_data: Path, tmp_path: Path) -> Path:
    """Return the folder of a NEP of CsPbI3, with energies beside it; skip where LAMMPS cannot read it."""
    if not (lammps.path / LIBRARIES['lammps'].path).is_file():
        pytest.skip('LAMMPS has no plugin for NEP; build it: aiida-perovmlip setup --environments-only --with lammps')
    potential = tmp_path / 'nep'
    potential.mkdir()
    shutil.copyfile(shared_data / 'nep89' / 'nep89_CsPbI.txt', potential / 'nep.txt')
    (potential / 'energies.json').write_text(json.dumps(ENERGIES))
    return potential


def perovskite() -> Atoms:
    """Return 40 atoms of CsPbI3 in a cell that is oblique and left-handed, with some atoms outside of it."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    atoms = Atoms('CsPbI3', scaled_positions=sites, cell=3 * [6.3], pbc=True) * (2, 2, 2)
    strain = np.array([[0.01, 0.02, 0.03], [0.01, -0.01, 0.02], [-0.02, 0.01, 0.0]])
    atoms.set_cell(np.diag([1, 1, -1]) @ atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.positions += np.random.default_rng(0).normal(0, 0.1, atoms.positions.shape)
    return atoms


def argon() -> Atoms:
    return bulk('Ar', 'fcc', a=5.3, cubic=True) * (3, 3, 3)


def simulate(
    folder: Path,
    given: dict[str, Any],
    *,
    atoms: Atoms | None = None,
    potential: Path | None = None,
    architecture: Any = None,
    seconds_left: Any = lambda: math.inf,
    begun: MdState | None = None,
) -> tuple[dict[str, Any], Watching]:
    """Run LAMMPS in a folder; return what the engine says, and the recorder."""
    folder.mkdir(exist_ok=True)
    atoms = atoms or (argon() if potential is None else perovskite())
    frame, settings = Frame.from_atoms(atoms), read_md_settings(given)
    recorder = Watching(settings, frame, Checkpoint(folder / 'checkpoint', 'run'), folder, begun=begun)
    run = MdRun(
        settings=settings,
        frame=frame,
        architecture=architecture or (Argon() if potential is None else Nep()),
        potential=potential or folder,
        recorder=recorder,
        folder=folder,
        seed=3,
        seconds_left=seconds_left,
    )
    about = Lammps().run(run)
    recorder.close()
    return about, recorder


def columns_of(folder: Path, timestep: float = 1.0) -> dict[str, np.ndarray]:
    """Return all columns of a trajectory."""
    chunks = list(Trajectory.open_folder(folder, timestep).chunks())
    return {name: np.concatenate([chunk.columns[name] for chunk in chunks]) for name in chunks[0].columns}


def refuse_gaps(columns: dict[str, np.ndarray], given: dict[str, Any]) -> None:
    """Check that no frame and no row is missing or there twice."""
    for name, every in (('steps', 'frames_every'), ('thermo_steps', 'thermo_every')):
        assert columns[name].tolist() == list(range(0, given['steps'] + 1, given[every]))


# ---------------------------------------------------------------------- the same physics as elsewhere


BY_ASE = """
import json, math, sys
from pathlib import Path
import numpy as np
from aiida_perovmlip.compute.architectures.nep import Nep
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.engine import MdRun
from aiida_perovmlip.compute.engines.ase import Ase
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import read_md_settings
from aiida_perovmlip.compute.recorder import Recorder

folder, potential = Path(sys.argv[1]), Path(sys.argv[2])
with np.load(folder / 'frame.npz') as found:
    frame = Frame(found['numbers'], found['positions'], found['cell'], np.ones(3, dtype=bool))
(said,) = Nep().predict(potential, [frame])
np.savez(folder / 'said.npz', energy=said.energy, forces=said.forces, stress=said.stress)
settings = read_md_settings(json.loads((folder / 'settings.json').read_text()))
recorder = Recorder(settings, frame, Checkpoint(folder / 'checkpoint', 'run'), folder)
Ase().run(MdRun(settings=settings, frame=frame, architecture=Nep(), potential=potential, recorder=recorder,
                folder=folder, seed=3))
recorder.close()
"""


def test_lammps_gives_energies_forces_stresses_and_paths_of_the_calculator(nep, tmp_path):
    python = environments.python_of('nep')
    if python is None:
        pytest.skip('no environment of nep; build it: aiida-perovmlip setup --environments-only --with nep')
    given = {'ensemble': 'nve', 'steps': 40, 'frames_every': 10, 'thermo_every': 10, 'velocities': True}
    other, frame = tmp_path / 'ase', Frame.from_atoms(perovskite())
    other.mkdir()
    np.savez(other / 'frame.npz', numbers=frame.numbers, positions=frame.positions, cell=frame.cell)
    (other / 'settings.json').write_text(json.dumps(given))
    command = [str(python), '-c', BY_ASE, str(other), str(nep)]
    environ = {**os.environ, 'PYTHONPATH': str(SOURCE), 'LD_LIBRARY_PATH': ''}
    answer = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr

    _, recorder = simulate(tmp_path / 'lammps', given, potential=nep)
    ours, theirs = columns_of(tmp_path / 'lammps'), columns_of(other)
    with np.load(other / 'said.npz') as said:
        assert ours['thermo_potential_energy'][0] == pytest.approx(float(said['energy']), abs=1e-6)
        assert np.abs(recorder.forces[0] - said['forces']).max() < 1e-6
    assert np.abs(ours['thermo_stress'][0] - theirs['thermo_stress'][0]).max() < 1e-6
    assert set(ours) == set(theirs)
    for name in ('steps', 'thermo_steps'):
        assert np.array_equal(ours[name], theirs[name])
    for name, tolerance in {'positions': 1e-5, 'cells': 1e-9, 'velocities': 1e-4, 'thermo_conserved': 1e-6,
                            'thermo_kinetic_energy': 1e-5, 'thermo_volume': 1e-6}.items():  # fmt: skip
        assert np.abs(ours[name] - theirs[name]).max() < tolerance, name


def test_nothing_is_lost_or_gained_in_nve(nep, tmp_path):
    given = {'ensemble': 'nve', 'steps': 500, 'timestep': 2.0, 'velocities': True}
    simulate(tmp_path / 'run', given, potential=nep)
    columns = columns_of(tmp_path / 'run', 2.0)
    drift = np.polyfit(columns['thermo_steps'] * 0.002, columns['thermo_conserved'] / 40, 1)[0]
    assert abs(drift) < 1e-4  # eV/atom/ps
    assert np.ptp(columns['thermo_conserved']) / 40 < 1e-4
    masses = perovskite().get_masses()[:, None]
    kinetic = 0.5 * (masses * (columns['velocities'].astype(float) / (1000 * units.fs)) ** 2).sum(axis=(1, 2))
    every = given['steps'] // (len(columns['thermo_steps']) - 1)
    rows = columns['thermo_kinetic_energy'][columns['steps'] // every]
    assert np.allclose(kinetic, rows, rtol=1e-5)


def test_two_processes_move_the_atoms_as_one_does(nep, tmp_path, monkeypatch):
    given = {'ensemble': 'nve', 'steps': 20, 'frames_every': 10}
    simulate(tmp_path / 'one', given, potential=nep)
    monkeypatch.setenv(program.COMMAND, 'mpirun -n 2 lmp')
    about, _ = simulate(tmp_path / 'two', given, potential=nep)
    assert about['processes'] == 2
    one, two = columns_of(tmp_path / 'one'), columns_of(tmp_path / 'two')
    assert np.abs(one['positions'] - two['positions']).max() < 1e-5


def test_a_ramp_at_constant_pressure_follows_its_schedule_and_lets_the_cell_move(nep, tmp_path):
    given = {
        'ensemble': 'npt',
        'timestep': 2.0,
        'stages': [{'steps': 150, 'temperature': [200, 400]}, {'steps': 100, 'temperature': 400.0}],
        'pressure_time': 400,
        'temperature_time': 50,
        'frames_every': 50,
    }
    about, _ = simulate(tmp_path / 'run', given, potential=nep)
    columns = columns_of(tmp_path / 'run', 2.0)
    assert columns['thermo_target_temperature'][[0, -1]].tolist() == [200.0, 400.0]
    assert len(about['integrator']) == 2
    assert np.ptp(columns['thermo_volume']) > 1.0
    assert np.allclose(np.abs(np.linalg.det(columns['cells'])), columns['thermo_volume'][::5], rtol=1e-6)
    assert np.ptp(columns['thermo_conserved']) < 0.02 * 40  # the fixes of the second stage count from zero again
    jumps = np.abs(np.diff(columns['thermo_conserved']))
    assert jumps.max() < 0.05


@pytest.mark.parametrize('thermostat', ['langevin', 'bussi', 'nose-hoover'])
def test_thermostats_keep_the_temperature(lammps, tmp_path, thermostat):
    given = {'thermostat': thermostat, 'temperature': 30.0, 'timestep': 5.0, 'steps': 2000, 'temperature_time': 200}
    about, _ = simulate(tmp_path / 'run', given)
    columns = columns_of(tmp_path / 'run', 5.0)
    temperature = columns['thermo_temperature'][40:]
    assert temperature.mean() == pytest.approx(30.0, rel=0.1)
    assert about['degrees_of_freedom'] == 3 * 108 - (0 if thermostat == 'langevin' else 3)
    assert np.ptp(columns['thermo_conserved']) / 108 < 1e-3


@pytest.mark.parametrize(('cell', 'free'), [('isotropic', 1), ('orthogonal', 3), ('flexible', 6)])
def test_a_barostat_moves_what_it_is_to_move_and_turns_nothing(lammps, tmp_path, cell, free):
    given = {'ensemble': 'npt', 'cell': cell, 'temperature': 30.0, 'timestep': 5.0, 'steps': 200, 'frames_every': 50}
    simulate(tmp_path / 'run', given)
    strains = columns_of(tmp_path / 'run', 5.0)['cells'] / argon().cell.lengths()[0] - np.eye(3)
    assert np.abs(np.triu(strains, 1)).max() < 1e-12
    values = [*np.diag(strains[-1]), *strains[-1][np.tril_indices(3, -1)]]
    assert len({round(value, 9) for value in values if abs(value) > 1e-9}) == free


def test_frozen_atoms_do_not_move_and_are_not_counted(lammps, tmp_path):
    frozen = [0, 5, 50]
    given = {'thermostat': 'bussi', 'temperature': 30.0, 'timestep': 5.0, 'steps': 200, 'frozen': frozen}
    about, _ = simulate(tmp_path / 'run', given)
    columns = columns_of(tmp_path / 'run', 5.0)
    moved = np.abs(columns['positions'] - columns['positions'][0]).max(axis=(0, 2))
    assert np.flatnonzero(moved < 1e-6).tolist() == frozen
    assert about['degrees_of_freedom'] == 3 * 105
    assert columns['thermo_temperature'][0] == pytest.approx(30.0, rel=1e-5)


# ---------------------------------------------------------------------- stopped, killed and taken up


class Clock:
    """The seconds that are left to a job: none any more once it was asked so often."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> float:
        self.left -= 1
        return 0.0 if self.left < 0 else math.inf


LONG = {'ensemble': 'npt', 'temperature': 30.0, 'timestep': 5.0, 'steps': 6000, 'frames_every': 100, 'thermo_every': 50}


def test_a_run_that_is_out_of_time_stops_by_itself_and_goes_on_without_a_gap(lammps, tmp_path):
    folder = tmp_path / 'run'
    with pytest.raises(JobError, match='steps were left') as caught:
        simulate(folder, LONG, seconds_left=Clock(2))
    assert caught.value.status is Status.OUT_OF_WALLTIME
    assert (folder / 'lammps' / 'last.restart').is_file()
    _, recorder = simulate(folder, LONG)
    columns = columns_of(folder, 5.0)
    refuse_gaps(columns, LONG)
    assert min(recorder.forces) > 0
    assert np.abs(np.diff(columns['thermo_conserved'])).max() < 0.01


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {source!r}]
from pathlib import Path
from test_lammps import simulate
simulate(Path(sys.argv[1]), {given!r})
"""


def test_a_killed_run_takes_lammps_with_it_and_goes_on_without_a_gap(lammps, tmp_path, kill_with_its_program):
    folder, given = tmp_path / 'run', {**LONG, 'steps': 8000, 'save_every': 1000}
    script = SCRIPT.format(tests=str(Path(__file__).parent), source=str(SOURCE), given=given)
    process = subprocess.Popen([sys.executable, '-c', textwrap.dedent(script), str(folder)])
    kill_with_its_program(process, folder, 'lammps')
    _, recorder = simulate(folder, given)
    columns = columns_of(folder, 5.0)
    refuse_gaps(columns, given)
    assert min(recorder.forces) > 0
    assert np.abs(np.diff(columns['thermo_conserved'])).max() < 0.01


def test_a_state_is_gone_on_from_in_another_folder_as_if_nothing_had_been(lammps, tmp_path):
    given = {'ensemble': 'npt', 'temperature': 30.0, 'timestep': 5.0, 'frames_every': 20, 'save_every': 100}
    simulate(tmp_path / 'whole', {**given, 'steps': 200})
    simulate(tmp_path / 'first', {**given, 'steps': 100})
    state = Checkpoint(tmp_path / 'first' / 'checkpoint', 'run').state()
    with np.load(state.folder / ARRAYS) as arrays:
        begun = MdState(state.step, dict(arrays), state.about['engine'], state.folder)
    simulate(tmp_path / 'second', {**given, 'steps': 200}, begun=begun)
    whole, second = columns_of(tmp_path / 'whole', 5.0), columns_of(tmp_path / 'second', 5.0)
    assert second['steps'].tolist() == [120, 140, 160, 180, 200]
    assert np.abs(second['positions'] - whole['positions'][6:]).max() < 1e-4
    assert np.abs(second['thermo_conserved'] - whole['thermo_conserved'][11:]).max() < 1e-4


def test_a_run_that_is_done_does_nothing(lammps, tmp_path):
    given = {'ensemble': 'nve', 'temperature': 30.0, 'steps': 20}
    simulate(tmp_path / 'run', given)
    shutil.rmtree(tmp_path / 'run' / 'lammps')
    assert simulate(tmp_path / 'run', given)[0] == {}
    assert not (tmp_path / 'run' / 'lammps').exists()


# ---------------------------------------------------------------------- what goes wrong


def test_an_explosion_ends_the_run_with_the_frames_before_it(lammps, tmp_path):
    given = {'ensemble': 'nve', 'temperature': 300.0, 'timestep': 60.0, 'steps': 10_000, 'frames_every': 1}
    with pytest.raises(Exploded, match='exploded at step') as caught:
        simulate(tmp_path / 'run', given)
    with (tmp_path / 'run' / CANDIDATES).open('rb') as handle:
        assert len(Shard.read(handle)) == len(caught.value.results['candidates']) > 0


def test_atoms_that_lammps_loses_are_an_explosion(lammps, tmp_path):
    atoms = argon()
    atoms.positions[1] = atoms.positions[0] + [1.5, 0, 0]
    given = {'ensemble': 'nve', 'temperature': 3.0, 'timestep': 20.0, 'steps': 1000, 'thermo_every': 1000,
             'frames_every': 1000, 'save_every': 1000, 'max_temperature': 1e12, 'max_force': 1e12}  # fmt: skip
    with pytest.raises(Exploded, match='exploded at step'):
        simulate(tmp_path / 'run', given, atoms=atoms)


def with_lines(*lines: str) -> Argon:
    """Return an architecture that tells LAMMPS this."""
    return type('Wrong', (Argon,), {'lines': lines})()


def test_an_error_of_lammps_is_told_in_its_words(lammps, tmp_path):
    with pytest.raises(JobError, match='at step 0 of 10000: Unknown command: nonsense') as caught:
        simulate(tmp_path / 'run', {'temperature': 30.0}, architecture=with_lines('nonsense'))
    assert caught.value.status is Status.FAILED


def test_a_lammps_that_ends_early_without_a_word_is_told(lammps, tmp_path):
    with pytest.raises(JobError, match='exit status 0, and did not say why') as caught:
        simulate(tmp_path / 'run', {'temperature': 30.0}, architecture=with_lines('quit'))
    assert caught.value.status is Status.FAILED


@pytest.mark.parametrize(
    ('number', 'status', 'words'),
    [
        (signal.SIGKILL, Status.OUT_OF_MEMORY, 'ran out of memory, or was killed'),
        (signal.SIGTERM, Status.FAILED, 'ended by SIGTERM'),
    ],
)
def test_a_lammps_that_a_signal_ended_is_told(lammps, tmp_path, processes_in, number, status, words):
    def end_lammps() -> float:
        for process in processes_in(tmp_path / 'run' / 'lammps'):
            os.kill(process, number)
        return math.inf

    with pytest.raises(JobError, match=words) as caught:
        simulate(tmp_path / 'run', {**LONG, 'steps': 1_000_000}, seconds_left=end_lammps)
    assert caught.value.status is status


def test_a_lammps_that_does_not_stop_is_ended_and_the_last_state_counts(lammps, tmp_path, monkeypatch):
    monkeypatch.setattr(motion, 'PATIENCE', 0.0)
    given = {**LONG, 'steps': 1_000_000, 'save_every': 5000}
    with pytest.raises(JobError, match='steps were left') as caught:
        simulate(tmp_path / 'run', given, seconds_left=Clock(10))
    assert caught.value.status is Status.OUT_OF_WALLTIME


def test_a_lammps_without_the_pair_style_is_told_how_to_get_it(lammps, tmp_path):
    class Unknown(Argon):
        lammps_styles: ClassVar[dict[str, str]] = {'of/nobody': 'nobody has it'}

    with pytest.raises(JobError, match=r'no pair style that reads.*`of/nobody`: nobody has it') as caught:
        simulate(tmp_path / 'run', {'temperature': 30.0}, architecture=Unknown())
    assert caught.value.status is Status.MISSING_PACKAGE


def test_a_molecule_without_a_cell_is_refused_with_what_to_do(lammps, tmp_path):
    with pytest.raises(JobError, match='make it periodic, or take the engine `ase`') as caught:
        simulate(tmp_path / 'run', {'temperature': 30.0}, atoms=Atoms('Ar2', [[0, 0, 0], [4, 0, 0]]))
    assert caught.value.status is Status.BAD_INPUT


def test_its_self_test_names_the_potentials_that_it_can_use(nep):
    assert 'nep/cpu' in Lammps().self_test()


# ---------------------------------------------------------------------- through AiiDA


def test_a_job_of_lammps_runs_where_its_environment_is_and_leaves_trajectory_and_state(
    nep, plugin_code, store_nep, localhost
):
    from aiida.engine import run_get_node

    from aiida_perovmlip.calculations.md import MdCalculation
    from aiida_perovmlip.data.dataset import DatasetData

    builder = MdCalculation.get_builder()
    builder.code, builder.potential = plugin_code('lammps'), store_nep('nep89_CsPbI.txt')
    builder.start = DatasetData.from_frames([Frame.from_atoms(perovskite())])
    builder.engine, builder.settings = 'lammps', {'ensemble': 'npt', 'steps': 40, 'timestep': 2.0, 'frames_every': 10}
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['trajectory'].base.attributes.get('n_frames') == 5
    assert motion.RESTART in outputs['state'].base.repository.list_object_names()
    assert outputs['results']['effective']['pair_style'] == 'nep/cpu'
    assert outputs['results']['effective']['integrator'][0].startswith('fix motion all npt')

    builder = node.get_builder_restart()
    builder.settings = {**builder.settings.get_dict(), 'steps': 80}
    builder.state = outputs['state']
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['trajectory'].base.attributes.get('first_step') == 50
    assert outputs['results']['step'] == 80


def test_doctor_finds_what_lammps_can_use(nep, plugin_code):
    from aiida_perovmlip.installation import catalogue, checks

    (plugin,) = catalogue.find('lammps')
    finding = checks.try_code(plugin_code('lammps'), plugin)
    assert (finding.status, finding.role) == ('ok', 'engine')
    assert 'nep/cpu' in finding.message
