"""What LAMMPS is told and what it says, without a LAMMPS."""

from __future__ import annotations

import io
import time
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from ase.io.lammpsdata import read_lammps_data

from aiida_perovmlip.compute.architectures.nep import Nep
from aiida_perovmlip.compute.architectures.reference import Reference
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engines.lammps import Lammps, motion, program
from aiida_perovmlip.compute.engines.lammps.box import Turn, is_orthogonal
from aiida_perovmlip.compute.engines.lammps.inputs import Plan, Rhythm, data_file, input_file, seed_of, types_of
from aiida_perovmlip.compute.engines.lammps.outputs import LogReader, Row, judge, read_dump, row_of
from aiida_perovmlip.compute.engines.starting import degrees_of_freedom, first_velocities
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import read_md_settings

RANDOM = np.random.default_rng(0)
CELLS = {
    'orthogonal': np.diag([3.0, 4.0, 5.0]),
    'left-handed': np.diag([3.0, -4.0, 5.0]),
    'exchanged axes': np.array([[0.0, 0.0, 5.0], [3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]),
    'primitive': 3.0 * (1 - np.eye(3)),
    'general': 5 * np.eye(3) + RANDOM.normal(size=(3, 3)),
    'general and left-handed': -5 * np.eye(3) + RANDOM.normal(size=(3, 3)),
}
UNTURNED = Turn(np.eye(3))


def frame_of(cell=CELLS['general']) -> Frame:
    places = np.random.default_rng(1).uniform(-0.5, 1.5, (4, 3)) @ cell
    return Frame(np.array([55, 53, 82, 53]), places, np.array(cell), np.ones(3, dtype=bool))


def plan_of(frame: Frame, first: int = 0, **given) -> Plan:
    settings = read_md_settings(given)
    engine = Lammps()
    thermostat = engine.thermostat_of(settings)
    return Plan(
        settings=settings,
        frame=frame,
        turn=Turn.of(frame.cell),
        rhythm=Rhythm.of(settings, len(frame)),
        style=('pair_style zero 5.0', 'pair_coeff * *'),
        thermostat=thermostat,
        n_degrees=degrees_of_freedom(settings, frame, thermostat != 'langevin'),
        frozen=settings.frozen_indices(frame),
        seed=1,
        first=first,
        restart='lammps.restart' if first else None,
    )


# ---------------------------------------------------------------------- the box


@pytest.mark.parametrize('name', CELLS)
def test_a_cell_is_turned_into_a_box_and_back(name):
    cell = CELLS[name]
    turn = Turn.of(cell)
    box = turn.box_of(cell)
    assert np.allclose(turn.matrix @ turn.matrix.T, np.eye(3), atol=1e-14)
    assert np.array_equal(np.triu(box, 1), np.zeros((3, 3)))
    assert (np.diag(box) > 0).all()
    assert np.allclose(turn.back(box), cell, atol=1e-13)
    vectors = RANDOM.normal(size=(5, 3))
    assert np.allclose(turn.back(turn.to_lammps(vectors)), vectors, atol=1e-14)


@pytest.mark.parametrize('name', CELLS)
def test_a_tensor_is_turned_as_its_vectors_are(name):
    turn = Turn.of(CELLS[name])
    one, two = RANDOM.normal(size=(2, 3))
    theirs = np.outer(turn.to_lammps(one[None])[0], turn.to_lammps(two[None])[0])
    assert np.allclose(turn.tensor_back(theirs), np.outer(one, two), atol=1e-14)


def test_a_box_along_the_axes_has_no_tilt_of_rounding():
    for name in ('orthogonal', 'left-handed', 'exchanged axes'):
        assert is_orthogonal(Turn.of(CELLS[name]).box_of(CELLS[name]))
    noisy = CELLS['orthogonal'] + 1e-13 * RANDOM.normal(size=(3, 3))
    assert is_orthogonal(Turn.of(noisy).box_of(noisy))
    assert not is_orthogonal(Turn.of(CELLS['general']).box_of(CELLS['general']))


# ---------------------------------------------------------------------- the input


@pytest.mark.parametrize('name', CELLS)
def test_ase_reads_from_the_data_file_the_structure_that_was_written(name):
    frame = frame_of(CELLS[name])
    plan = plan_of(frame, masses={'I': 200.0})
    velocities = RANDOM.normal(size=(4, 3))
    atoms = read_lammps_data(io.StringIO(data_file(plan, velocities)), atom_style='atomic', units='metal')
    turn = plan.turn
    assert atoms.get_masses()[1] == pytest.approx(200.0)
    assert np.allclose(turn.back(atoms.cell.array), frame.cell, atol=1e-12)
    assert np.allclose(turn.back(atoms.positions), frame.positions, atol=1e-12)
    from ase import units

    assert np.allclose(turn.back(atoms.get_velocities()) * 1000 * units.fs, velocities, rtol=1e-6)


def test_types_are_elements_in_the_order_of_their_numbers():
    assert types_of(frame_of()) == ['I', 'Cs', 'Pb']


def test_a_cell_that_is_to_become_oblique_is_so_from_the_start():
    frame = frame_of(CELLS['orthogonal'])
    assert 'xy xz yz' not in data_file(plan_of(frame), np.zeros((4, 3)))
    assert 'xy xz yz' in data_file(plan_of(frame, ensemble='npt'), np.zeros((4, 3)))


@pytest.mark.parametrize(
    ('given', 'lines'),
    [
        ({'ensemble': 'nve'}, ['fix motion all nve']),
        ({'thermostat': 'langevin'}, ['fix motion all nve', 'fix heat all langevin 300.0 300.0 0.1 ']),
        ({'thermostat': 'bussi'}, ['fix motion all nve', 'fix heat all temp/csvr 300.0 300.0 0.1 ']),
        ({'thermostat': 'nose-hoover', 'temperature': [100, 400]}, ['fix motion all nvt temp 100.0 400.0 0.1']),
        (
            {'ensemble': 'npt', 'cell': 'isotropic', 'pressure': [0, 1], 'pressure_time': 500},
            ['fix motion all npt temp 300.0 300.0 0.1 iso 0.0 10000.0 0.5 '],
        ),
        ({'ensemble': 'npt', 'cell': 'orthogonal'}, [' aniso 0.0 0.0 1.0 ']),
        ({'ensemble': 'npt', 'cell': 'flexible'}, [' tri 0.0 0.0 1.0 flip no fixedpoint 0 0 0']),
        ({'thermostat': 'bussi', 'frozen': ['Pb', 0]}, ['group frozen id 1 3', 'fix motion moving nve']),
    ],
)
def test_settings_become_fixes_in_the_units_of_lammps(given, lines):
    text = input_file(plan_of(frame_of(CELLS['orthogonal']), **given))
    for line in lines:
        assert line in text


def test_each_ramp_runs_over_the_whole_of_its_stage_wherever_a_job_begins():
    stages = [{'steps': 100, 'temperature': [100, 200]}, {'steps': 200, 'temperature': [200, 300]}]
    whole = [line for line in input_file(plan_of(frame_of(), stages=stages)).splitlines() if line.startswith('run')]
    assert whole == ['run 100 upto start 0 stop 100', 'run 300 upto start 100 stop 300']
    rest = input_file(plan_of(frame_of(), first=150, stages=stages)).splitlines()
    assert [line for line in rest if line.startswith('run')] == whole[1:]
    assert 'read_restart lammps.restart' in rest
    assert 'read_data start.data' not in rest


def test_no_two_jobs_or_stages_have_the_same_random_forces():
    seeds = {seed_of(seed, first, stage) for seed in (0, 1) for first in (0, 100) for stage in (0, 1)}
    assert len(seeds) == 8
    assert seed_of(0, 100, 1) == seed_of(0, 100, 1)
    assert all(0 < seed <= 900_000_000 for seed in seeds)


@pytest.mark.parametrize(
    ('given', 'n_atoms', 'rhythm'),
    [
        ({}, 100, (50, 100, 10)),
        ({'timestep': 2.0}, 100, (50, 100, 10)),
        ({'timestep': 5.0}, 100, (10, 100, 10)),
        ({'frames_every': 97}, 100, (97, 194, 1)),
        ({'frames_every': 10, 'thermo_every': 4}, 100, (10, 100, 2)),
        ({'frames_every': 1000, 'save_every': 150}, 100_000, (1000, 150, 10)),
    ],
)
def test_all_that_is_written_falls_on_a_row_of_thermodynamics(given, n_atoms, rhythm):
    found = Rhythm.of(read_md_settings(given), n_atoms)
    assert (found.frames, found.states, found.rows) == rhythm
    assert not any(each % found.rows for each in (found.frames, found.states))
    assert read_md_settings(given).frames_every % found.frames == 0


def test_first_velocities_have_the_temperature_exactly_and_no_drift():
    frame, settings = frame_of(), read_md_settings({'temperature': 250.0})
    velocities, masses = first_velocities(settings, frame, 3, 9), settings.masses_of(frame)
    from ase import units

    kinetic = 0.5 * (masses[:, None] * (velocities / (1000 * units.fs)) ** 2).sum()
    assert 2 * kinetic / (9 * units.kB) == pytest.approx(250.0)
    assert np.allclose(masses @ velocities, 0.0, atol=1e-10)


def test_frozen_atoms_are_drawn_no_velocities():
    frame, settings = frame_of(), read_md_settings({'frozen': ['Pb']})
    velocities = first_velocities(settings, frame, 3, degrees_of_freedom(settings, frame, keeps_momentum=True))
    assert np.array_equal(velocities[2], np.zeros(3))
    assert degrees_of_freedom(settings, frame, keeps_momentum=True) == 9


# ---------------------------------------------------------------------- the output

LOG = """LAMMPS (22 Jul 2025 - Update 4)
NEPAdapters 1.0.3: loaded model nep.txt
---
keywords: ['Step', 'Temp', ]
data:
  - [0, 300, -10.5, 1.5, -9, 1000, 1000, 2000, 3000, 40, 50, 60, ]
WARNING: Something is odd (src/fix.cpp:12)
  - [10, 310, -10.6, 1.6, -9, 1000, 1000, 2000, 3000, 40, 50, 60, ]
Loop time of 0.1 on 2 procs for 10 steps with 40 atoms
50.0% CPU use with 2 MPI tasks x 3 OpenMP threads
Dangerous builds = 0
"""


def test_rows_are_read_in_the_units_and_the_sign_of_ase():
    row = row_of(LOG.splitlines()[5], UNTURNED)
    assert (row.step, row.temperature, row.potential, row.kinetic) == (0, 300.0, -10.5, 1.5)
    assert np.allclose(row.stress * -1.6021765e6, [1000, 2000, 3000, 40, 50, 60])


def test_a_row_that_is_half_written_is_read_once_it_is_whole(tmp_path):
    path, lines = tmp_path / 'log', LOG.splitlines(keepends=True)
    reader = LogReader(path, UNTURNED)
    assert reader.rows() == []
    path.write_text(''.join(lines[:6]) + lines[7][:12])
    assert [row.step for row in reader.rows()] == [0]
    with path.open('a') as handle:
        handle.write(lines[7][12:])
    assert [row.step for row in reader.rows()] == [10]


@pytest.mark.parametrize('line', ['  - [0, 300, ]', '  - [zero, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ]', 'run 100'])
def test_what_is_no_row_is_passed_over(line):
    assert row_of(line, UNTURNED) is None


def test_a_row_without_numbers_is_a_row():
    row = row_of('  - [10, nan, nan, inf, nan, 1000, nan, nan, nan, nan, nan, nan, ]', UNTURNED)
    assert row.step == 10
    assert np.isnan(row.stress).all()


DUMP = """ITEM: TIMESTEP
20
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS xy xz yz pp pp pp
-1.5e+00 6.2e+00 1.0e+00
0.5e+00 7.0e+00 -2.0e+00
2.5e+00 9.5e+00 5.0e-01
ITEM: ATOMS id xu yu zu fx fy fz vx vy vz
1 1 2 3 0.1 0.2 0.3 7 8 9
2 4 5 6 0.4 0.5 0.6 1 1 1
"""


def test_a_dump_is_read_from_the_origin_of_its_box(tmp_path):
    (tmp_path / '20.txt').write_text(DUMP)
    dump = read_dump(tmp_path / '20.txt', UNTURNED)
    # the bounds contain the tilts 1, -2 and 1 - 2 along x, and 0.5 along y
    assert np.allclose(dump.cell, [[5.2 - 0.5, 0, 0], [1, 6.0, 0], [-2, 0.5, 7.0]])
    assert np.allclose(dump.positions[0], np.array([1, 2, 3]) - [0.5, 0.5, 2.5])
    assert np.allclose(dump.forces[1], [0.4, 0.5, 0.6])
    assert np.allclose(dump.velocities[0], [7, 8, 9])


def test_a_dump_that_is_cut_off_is_told(tmp_path):
    (tmp_path / '20.txt').write_text(DUMP[:-20])
    with pytest.raises(JobError, match=r'20\.txt of LAMMPS cannot be read') as caught:
        read_dump(tmp_path / '20.txt', UNTURNED)
    assert caught.value.status is Status.FAILED


def test_a_log_tells_what_was_done_and_what_is_odd():
    verdict = judge(LOG)
    assert not verdict.is_finished
    assert verdict.warnings == ['Something is odd']
    assert verdict.about == {
        'version': '22 Jul 2025 - Update 4',
        'nep_adapters': '1.0.3',
        'processes': 2,
        'threads': 3,
        'dangerous_builds': 0,
    }
    assert judge(LOG + 'Total wall time: 0:00:01\n').is_finished


@pytest.mark.parametrize(
    ('line', 'exploded'),
    [
        ('ERROR: Lost atoms: original 40 current 39 (src/thermo.cpp:494)', True),
        ('ERROR on proc 0: Non-numeric atom coords - simulation unstable (src/domain.cpp:548)', True),
        ('ERROR: Unknown command: bogus (src/input.cpp:314)', False),
    ],
)
def test_an_error_of_atoms_that_flew_apart_is_told_from_others(line, exploded):
    verdict = judge(LOG + line + '\n')
    assert verdict.error
    assert verdict.has_exploded is exploded


# ---------------------------------------------------------------------- the program

ANSWER = """LAMMPS (1 Jan 2000)

Installed packages:

ML-IAP {python}
REPLICA

Styles information:

Pair styles:

lj/cut          mliap
nep/cpu

Total wall time: 0:00:00
"""


def test_a_network_by_python_needs_a_lammps_with_python():
    for python, usable in (('', False), ('PYTHON', True)):
        found = program.read_answer(['lmp'], {}, ANSWER.format(python=python))
        assert found.version == '1 Jan 2000'
        assert found.has('nep/cpu')
        assert found.has('mliap') is usable
        assert not found.has('Total')


def test_without_lammps_a_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv(program.COMMAND, raising=False)
    with pytest.raises(JobError, match='setup --with lammps') as caught:
        Lammps().self_test()
    assert caught.value.status is Status.MISSING_PACKAGE


@pytest.mark.parametrize(
    ('script', 'words'),
    [
        ('echo "libmpi.so.12: cannot open shared object file" >&2; exit 127', r'libmpi\.so\.12'),
        ('exit 3', 'it said nothing and ended with status 3'),
        ('echo "LAMMPS (1 Jan 2000)"', r'LAMMPS \(1 Jan 2000\)'),
    ],
)
def test_a_program_that_is_no_lammps_is_told_by_what_it_says(monkeypatch, tmp_path, script, words):
    path = tmp_path / 'lmp'
    path.write_text(f'#!/bin/sh\n{script}\n')
    path.chmod(0o755)
    monkeypatch.setenv(program.COMMAND, str(path))
    with pytest.raises(JobError, match=f'cannot be used as LAMMPS: .*{words}') as caught:
        program.find()
    assert caught.value.status is Status.MISSING_PACKAGE


def test_a_command_that_does_not_exist_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(program.COMMAND, str(tmp_path / 'none'))
    with pytest.raises(JobError, match='No such file'):
        program.find()


def test_a_bare_lmp_is_that_of_the_environment_with_its_plugins(tmp_path, monkeypatch):
    wheel = tmp_path / 'lib' / 'python3.11' / 'site-packages' / 'lammps'
    wheel.mkdir(parents=True)
    (wheel / 'lmp').touch()
    (tmp_path / program.PLUGINS).mkdir()
    monkeypatch.setenv('PATH', '/usr/bin')
    python = tmp_path / 'bin' / 'python'
    ours = program.environment_of(['mpirun', '-n', '2', 'lmp'], python)
    assert ours['PATH'] == f'{wheel}:{tmp_path}/bin:/usr/bin'
    assert ours['LAMMPS_PLUGIN_PATH'] == str(tmp_path / 'lib' / 'lammps')
    theirs = program.environment_of(['/opt/lammps/bin/lmp'], python)
    assert theirs['PATH'] == '/usr/bin'


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'ensemble': 'npt', 'barostat': 'baoab'}, 'no barostat `baoab`; it has `mtk`'),
        ({'ensemble': 'npt', 'thermostat': 'langevin'}, 'has the thermostat `nose-hoover`'),
        ({'max_spread': 0.1}, 'spread of a committee'),
        ({'thermostat': 'bussi', 'initial_temperature': 0}, 'cannot start from atoms at rest'),
    ],
)
def test_what_lammps_cannot_do_is_refused_with_what_can(given, words):
    assert words in Lammps().refusal(read_md_settings(given), Nep())


def test_what_lammps_can_do_is_not_refused():
    for given in ({}, {'ensemble': 'nve'}, {'ensemble': 'npt'}, {'thermostat': 'bussi', 'frozen': ['Pb']}):
        assert Lammps().refusal(read_md_settings(given), Nep()) is None


def test_an_architecture_that_lammps_does_not_read_is_refused_with_what_can():
    assert 'the engine `ase` runs any' in Lammps().refusal(read_md_settings({}), Reference())


def test_neps_file_is_read_by_lammps_as_it_is_and_the_energies_beside_it_are_told(tmp_path):
    potential, folder = tmp_path / 'potential', tmp_path / 'run'
    potential.mkdir()
    folder.mkdir()
    (potential / 'nep.txt').write_text('nep4 2 I Cs\n')
    (potential / 'energies.json').write_text('{"I": -1.5, "Cs": -2.0}')
    form = Nep().lammps('nep/cpu', potential, ['I', 'Cs'], folder)
    assert form.lines == ('pair_style nep/cpu', 'pair_coeff * * nep.txt I Cs')
    assert (folder / 'nep.txt').is_file()
    assert form.offset_of(Frame(np.array([53, 53, 55]), np.zeros((3, 3)))) == -5.0


def test_engines_do_not_read_what_they_do_not_know(tmp_path):
    with pytest.raises(JobError, match='LAMMPS has nothing that reads'):
        Reference().lammps('lj/cut', tmp_path, ['Cu'], tmp_path)
    with pytest.raises(JobError, match='GPUMD does not read'):
        Reference().gpumd(tmp_path, tmp_path)


def test_the_python_of_a_lammps_job_needs_no_package_of_lammps():
    assert Lammps.packages() == ()
    assert not Lammps.uses_calculator


def test_restart_files_do_not_wait_for_frames_that_are_rare():
    settings = read_md_settings({'steps': 100_000, 'frames_every': 100_000, 'thermo_every': 100})
    assert Rhythm.of(settings, 100).states == 100
    assert Rhythm.of(settings, 10_000) == Rhythm(frames=100_000, states=1000, rows=100)


def test_a_look_at_many_rows_ends_in_time_and_the_next_one_goes_on(monkeypatch):
    """What writes faster than it is read must not keep the job from seeing that its time is over."""
    rows = [Row(step, 300.0, -1.0, 1.0, 0.0, 60.0, np.zeros(6)) for step in range(0, 200, 10)]
    come, taken = [rows], []
    following = object.__new__(motion.Motion)
    following.reader = SimpleNamespace(rows=lambda: come.pop() if come else [])
    following.waiting, following.step = deque(), -1

    def take(row):
        time.sleep(0.02)
        taken.append(row.step)

    monkeypatch.setattr(following, '_take', take, raising=False)
    monkeypatch.setattr(motion, 'LOOK', 0.05)
    assert following._look()
    assert 0 < len(taken) < 10
    while following._look():
        pass
    assert taken == list(range(0, 190, 10))  # behind the last row there may come more of its step
    assert not following._look(is_over=True)
    assert taken[-1] == 190
