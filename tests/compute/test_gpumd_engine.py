"""GPUMD: what it is told, what it says, and runs with a stand-in, as GPUMD itself needs a GPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiida_perovmlip.compute.architectures.nep import Nep
from aiida_perovmlip.compute.architectures.reference import Reference
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.engine import MdRun
from aiida_perovmlip.compute.engines import gpumd
from aiida_perovmlip.compute.engines.gpumd import Gpumd, inputs, motion
from aiida_perovmlip.compute.engines.gpumd.inputs import pieces_of, problem_of_cell, rows_of
from aiida_perovmlip.compute.engines.gpumd.outputs import FINISHED, ThermoReader, Unwrapper, judge, read_dump
from aiida_perovmlip.compute.engines.starting import first_velocities
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import read_md_settings
from aiida_perovmlip.compute.recorder import Exploded, Recorder
from aiida_perovmlip.compute.trajectory import Trajectory
from aiida_perovmlip.installation import environments

STAND_IN = Path(__file__).parents[1] / 'stand_ins' / 'gpumd_stand_in.py'
SHORT = {'ensemble': 'nve', 'steps': 600, 'frames_every': 50, 'thermo_every': 10}


def frame_of(oblique: bool = False) -> Frame:
    cell = np.array([[10.0, 0, 0], [1.0 if oblique else 0.0, 11.0, 0], [0, 0, 12.0]])
    places = np.random.default_rng(0).uniform(-0.3, 1.3, (6, 3))
    return Frame(np.array([55, 53, 82, 53, 55, 53]), places @ cell, cell, np.ones(3, dtype=bool))


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Return a function that lets GPUMD be one that is like this."""

    def be(*ways: str) -> None:
        monkeypatch.setenv('GPUMD_STAND_IN', ' '.join(ways))

    monkeypatch.setenv(gpumd.COMMAND, f'{sys.executable} {STAND_IN}')
    monkeypatch.setattr(motion, 'POLL', 0.02)
    be()
    return be


def simulate(folder: Path, given: dict[str, Any], *, frame=None, seconds_left=lambda: math.inf) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    potential = folder / 'potential'
    potential.mkdir(exist_ok=True)
    (potential / 'nep.txt').write_text('nep4 3 Cs I Pb\n')
    (potential / 'energies.json').write_text(json.dumps({'Cs': -1.0, 'I': -2.0, 'Pb': -3.0}))
    frame, settings = frame or frame_of(), read_md_settings(given)
    recorder = Recorder(settings, frame, Checkpoint(folder / 'checkpoint', 'run'), folder)
    run = MdRun(
        settings=settings,
        frame=frame,
        architecture=Nep(),
        potential=potential,
        recorder=recorder,
        folder=folder,
        seed=3,
        seconds_left=seconds_left,
    )
    about = Gpumd().run(run)
    recorder.close()
    return about


def columns_of(folder: Path) -> dict[str, np.ndarray]:
    chunks = list(Trajectory.open_folder(folder, 1.0).chunks())
    return {name: np.concatenate([chunk.columns[name] for chunk in chunks]) for name in chunks[0].columns}


def refuse_gaps(columns: dict[str, np.ndarray], given: dict[str, Any], end: int) -> None:
    for name, every in (('steps', 'frames_every'), ('thermo_steps', 'thermo_every')):
        assert columns[name].tolist() == list(range(0, end + 1, given[every]))


def flown(given: dict[str, Any], steps: np.ndarray) -> np.ndarray:
    """Return where atoms without forces are after so many steps, (n_steps, n_atoms, 3) in Å."""
    frame, settings = frame_of(), read_md_settings(given)
    velocities = first_velocities(settings, frame, 3, 3 * len(frame))
    return frame.positions + 1e-3 * settings.timestep * steps[:, None, None] * velocities


# ---------------------------------------------------------------------- what it is told


def test_pieces_and_rows_fall_on_the_steps_on_which_they_are_due():
    settings = read_md_settings({'stages': [{'steps': 150}, {'steps': 330}], 'frames_every': 100, 'thermo_every': 20})
    first, second = pieces_of(settings, 0)
    assert (first.begin, first.steps, first.frames, first.rows) == (0, 150, 100, 20)
    assert (second.begin, second.steps, second.frames, second.rows) == (150, 330, 50, 10)
    rows = list(rows_of([first, second], has_start=True))
    assert rows[:2] == [0, 20]
    assert set(range(0, 481, 20)) <= set(rows)
    assert rows == sorted(set(rows))


@pytest.mark.parametrize(('every', 'states'), [(50, 1000), (3000, 3000), (10_000, 10_000), (200_000, 10_000)])
def test_states_do_not_wait_for_frames_that_are_rare(every, states):
    (piece,) = pieces_of(read_md_settings({'steps': 200_000, 'frames_every': every, 'thermo_every': 10}), 0)
    assert (piece.states, piece.rows) == (states, 10)


def test_a_ramp_that_is_taken_up_goes_on_from_where_it_was():
    settings = read_md_settings({'steps': 100, 'temperature': [100, 300], 'ensemble': 'npt', 'pressure': [0, 2]})
    (piece,) = pieces_of(settings, 50)
    assert (piece.begin, piece.steps) == (50, 50)
    assert piece.temperature == (200.0, 300.0)
    assert piece.pressure == (1.0, 2.0)
    assert pieces_of(settings, 100) == []


@pytest.mark.parametrize(
    ('given', 'line'),
    [
        ({'ensemble': 'nve'}, 'ensemble nve'),
        ({'thermostat': 'langevin', 'temperature': [100, 200]}, 'ensemble nvt_lan 100.0 200.0 50.0'),
        ({'thermostat': 'bussi'}, 'ensemble nvt_bdp 300.0 300.0 50.0'),
        ({'thermostat': 'nose-hoover'}, 'ensemble nvt_nhc 300.0 300.0 50.0'),
        (
            {'ensemble': 'npt', 'cell': 'isotropic', 'pressure': 1.5},
            'ensemble npt_scr 300.0 300.0 50.0 1.5 15.0 500.0',
        ),
        (
            {'ensemble': 'npt', 'cell': 'orthogonal'},
            'ensemble npt_scr 300.0 300.0 50.0 0.0 0.0 0.0 15.0 15.0 15.0 500.0',
        ),
        (
            {'ensemble': 'npt', 'pressure': 1.0, 'bulk_modulus': 20.0},
            'ensemble npt_scr 300.0 300.0 50.0 1.0 1.0 1.0 0.0 0.0 0.0 20.0 20.0 20.0 20.0 20.0 20.0 500.0',
        ),
        (
            {'ensemble': 'npt', 'barostat': 'mtk', 'pressure': [0, 1]},
            'ensemble npt_mttk temp 300.0 300.0 tri 0.0 1.0 tperiod 50.0 pperiod 500.0',
        ),
    ],
)
def test_settings_become_ensembles_in_the_units_of_gpumd(stand_in, tmp_path, given, line):
    about = simulate(tmp_path / 'run', {'timestep': 2.0, 'steps': 10, **given})
    assert line in (tmp_path / 'run' / 'gpumd' / 'run.in').read_text().splitlines()
    assert about['integrator'] == [line.removeprefix('ensemble ')]


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'ensemble': 'npt', 'barostat': 'baoab'}, 'no barostat `baoab`; it has `scr`, `mtk`'),
        ({'ensemble': 'npt', 'thermostat': 'langevin'}, 'has the thermostat `bussi`'),
        ({'ensemble': 'npt', 'barostat': 'mtk', 'pressure_time': 100.0}, '200 steps at least for the barostat `mtk`'),
        ({'ensemble': 'npt', 'pressure_time': 0.5}, '`pressure_time` of one step'),
        ({'temperature_time': 0.5}, '`temperature_time` of one step'),
        ({'ensemble': 'npt', 'pressure': [0, 1]}, 'take `mtk` for a ramp of the pressure'),
        ({'max_spread': 0.1}, 'spread of a committee'),
    ],
)
def test_what_gpumd_cannot_do_is_refused_with_what_can(given, words):
    assert words in Gpumd().refusal(read_md_settings(given), Nep())


def test_other_potentials_than_nep_are_refused_with_what_can():
    assert 'the engine `ase` runs any' in Gpumd().refusal(read_md_settings({}), Reference())
    assert Gpumd().refusal(read_md_settings({}), Nep()) is None


def test_a_cell_that_its_barostat_cannot_move_is_refused_before_it_starts(stand_in, tmp_path):
    settings = read_md_settings({'ensemble': 'npt', 'cell': 'isotropic'})
    assert problem_of_cell(settings, frame_of().cell, 'scr') is None
    assert problem_of_cell(settings, frame_of(oblique=True).cell, 'mtk') is None
    with pytest.raises(JobError, match='turn the cell') as caught:
        simulate(tmp_path / 'run', {'ensemble': 'npt', 'cell': 'isotropic'}, frame=frame_of(oblique=True))
    assert caught.value.status is Status.BAD_INPUT


def test_a_molecule_without_a_cell_is_refused_with_what_to_do(stand_in, tmp_path):
    with pytest.raises(JobError, match='make it periodic, or take the engine `ase`') as caught:
        simulate(tmp_path / 'run', {}, frame=Frame(np.array([53, 53]), np.zeros((2, 3))))
    assert caught.value.status is Status.BAD_INPUT


def test_without_gpumd_a_sentence_says_how_to_get_it_and_what_can_do_without(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv(gpumd.COMMAND, raising=False)
    for action in (Gpumd().self_test, lambda: simulate(tmp_path / 'run', {})):
        with pytest.raises(JobError, match=r'GPUMD is compiled.*`lammps` and `ase`') as caught:
            action()
        assert caught.value.status is Status.MISSING_PACKAGE
    monkeypatch.setenv(gpumd.COMMAND, 'my-gpumd --flag')
    with pytest.raises(JobError, match='There is no `my-gpumd` here'):
        Gpumd().self_test()


def test_it_computes_on_a_gpu_and_nowhere_else(stand_in):
    assert Gpumd().device('auto') == 'cuda'
    assert STAND_IN.name in Gpumd().self_test()
    with pytest.raises(JobError, match='needs a GPU'):
        Gpumd().device('cpu')


# ---------------------------------------------------------------------- what it says

HEADER = '# format_version 1\n# num_atoms 2\n# dt_output 10.0 fs\n# columns T KE PE sxx syy szz syz sxz sxy '


@pytest.mark.parametrize(
    ('header', 'cell', 'volume'),
    [
        ('', '10 11 12', 1320.0),
        ('', '10 0 0 1 11 0 0 2 12', 1320.0),
        (HEADER + 'ax by cz\n', '10 11 12', 1320.0),
        (HEADER + 'ax ay az bx by bz cx cy cz\n', '10 0 0 1 11 0 0 2 12', 1320.0),
    ],
)
def test_rows_are_read_with_and_without_headers(tmp_path, header, cell, volume):
    (tmp_path / 'thermo.out').write_text(f'{header}300 1.5 -9 1 2 3 0.1 0.2 0.3 {cell}\n')
    (row,) = ThermoReader(tmp_path / 'thermo.out').rows()
    assert (row.temperature, row.kinetic, row.potential) == (300.0, 1.5, -9.0)
    assert row.volume == pytest.approx(volume)
    assert np.allclose(row.stress * -160.21766208, [1, 2, 3, 0.1, 0.2, 0.3])


def test_a_row_that_is_half_written_is_read_once_it_is_whole(tmp_path):
    path = tmp_path / 'thermo.out'
    reader = ThermoReader(path)
    assert list(reader.rows()) == []
    path.write_text('300 1.5 -9 1 2 3 0.1 0.2 0.3 10 1')
    assert list(reader.rows()) == []
    with path.open('a') as handle:
        handle.write('1 12\n')
    assert [row.volume for row in reader.rows()] == [pytest.approx(1320.0)]


@pytest.mark.parametrize('text', ['300 1.5 -9\n', '300 1.5 -9 1 2 3 a b c 10 11 12\n', '# columns T KE\n300 1.5\n'])
def test_a_row_that_is_none_is_told(tmp_path, text):
    (tmp_path / 'thermo.out').write_text(text)
    with pytest.raises(JobError, match=r'thermo\.out of GPUMD has a row'):
        list(ThermoReader(tmp_path / 'thermo.out').rows())


def test_calorine_reads_the_same_rows(tmp_path):
    python = environments.python_of('nep')
    if python is None:
        pytest.skip('no environment of nep; build it: aiida-perovmlip setup --environments-only --with nep')
    path = tmp_path / 'thermo.out'
    path.write_text(HEADER + 'ax ay az bx by bz cx cy cz\n300 1.5 -9 1 2 3 0.1 0.2 0.3 10 0 0 1 11 0 0 2 12\n')
    code = (
        'import sys, json; from calorine.gpumd import read_thermo; '
        'row = read_thermo(sys.argv[1], normalize=False).iloc[0];'
        'names = ["temperature", "kinetic_energy", "potential_energy", "volume", *("stress_" + each for each in '
        '("xx", "yy", "zz", "yz", "xz", "xy"))]; print(json.dumps([float(row[name]) for name in names]))'
    )
    answer = subprocess.run([str(python), '-c', code, str(path)], capture_output=True, text=True, check=True)
    (row,) = ThermoReader(path).rows()
    ours = [row.temperature, row.kinetic, row.potential, row.volume, *(-160.21766208 * row.stress)]
    assert json.loads(answer.stdout.splitlines()[-1]) == pytest.approx(ours)


def test_a_dump_is_read_once_it_is_whole(tmp_path):
    path = tmp_path / '0_10'
    text = (
        '2\nTime=10.0 pbc="T T T" Lattice="10 0 0 1 11 0 0 2 12" energy=-1 Properties=species:S:1:pos:R:3:vel:R:3\n'
        'Cs 1 2 3 0.001 0 0\nI 4 5 6 0 0.002 0\n'
    )
    assert read_dump(path) is None
    for end in (1, 40, len(text) - 5, len(text) - 1):
        path.write_text(text[:end])
        assert read_dump(path) is None
    path.write_text(text)
    dump = read_dump(path)
    assert dump.symbols == ['Cs', 'I']
    assert dump.time == 10.0
    assert np.allclose(dump.positions, [[1, 2, 3], [4, 5, 6]])
    assert np.allclose(dump.velocities, [[1, 0, 0], [0, 2, 0]])
    assert np.allclose(dump.cell[1], [1, 11, 0])


@pytest.mark.parametrize('line', ['pbc="T T T" Properties=species:S:1:pos:R:3', 'Lattice="1 0 0 0 1 0 0 0 1"'])
def test_a_dump_that_is_none_is_told(tmp_path, line):
    (tmp_path / '0_10').write_text(f'1\n{line}\nCs 1 2 3\n')
    with pytest.raises(JobError, match='0_10 of GPUMD cannot be read'):
        read_dump(tmp_path / '0_10')


def test_atoms_are_followed_through_boundaries_also_of_a_cell_that_moves():
    frame = frame_of(oblique=True)
    unwrapper, places = Unwrapper(frame.positions, frame.cell), frame.positions @ np.linalg.inv(frame.cell)
    random = np.random.default_rng(1)
    for step in range(1, 60):
        cell = frame.cell * (1 + 0.01 * step)
        places = places + random.uniform(-0.1, 0.3, places.shape)
        wrapped = (places - np.floor(places)) @ cell
        assert np.allclose(unwrapper.follow(wrapped, cell, step), places @ cell, atol=1e-9)


def test_an_atom_that_moves_too_far_between_two_frames_is_told():
    frame = frame_of()
    with pytest.raises(JobError, match='take a smaller `frames_every`'):
        Unwrapper(frame.positions, frame.cell).follow(frame.positions + np.array([4.5, 0, 0]), frame.cell, 10)


def test_what_gpumd_prints_is_judged():
    error = 'Input Error:\n    File:       run.cu\n    Line:       7\n    Error text: what is this?\n'
    verdict = judge('*   version 5.5   *\n' + error)
    assert (verdict.error, verdict.version, verdict.is_finished) == ('Input Error: what is this?', '5.5', False)
    assert verdict.is_of_input
    assert not judge(error.replace('Input', 'CUDA')).is_of_input
    assert judge('Version 3.9.1\nFinished running GPUMD.\n').is_finished


# ---------------------------------------------------------------------- runs


@pytest.mark.parametrize('ways', [(), ('old',), ('headers',)])
def test_a_run_keeps_each_frame_and_row_once_whatever_the_version_is(stand_in, tmp_path, ways):
    stand_in(*ways)
    given = {**SHORT, 'temperature': 3000.0, 'velocities': True}
    about = simulate(tmp_path / 'run', given)
    columns = columns_of(tmp_path / 'run')
    refuse_gaps(columns, given, 600)
    assert np.abs(columns['positions'] - flown(given, columns['steps'])).max() < 1e-5
    assert columns['thermo_potential_energy'][0] == pytest.approx(-6.0 + 2 * -1.0 + 3 * -2.0 - 3.0)
    assert columns['thermo_temperature'] == pytest.approx(3000.0, rel=1e-5)
    assert np.ptp(columns['thermo_conserved']) < 1e-8
    assert np.allclose(columns['thermo_volume'], 1320.0)
    kinetic = 0.5 * (read_md_settings(given).masses_of(frame_of())[:, None] * columns['velocities'] ** 2).sum((1, 2))
    assert kinetic * 1.03642697e-4 == pytest.approx(columns['thermo_kinetic_energy'][::5], rel=1e-5)
    assert about['version'] == '5.5'
    assert list((tmp_path / 'run' / 'gpumd' / 'frames').iterdir()) == []


def test_stages_that_end_between_frames_and_a_cell_that_moves_leave_no_gap(stand_in, tmp_path):
    given = {'ensemble': 'npt', 'barostat': 'mtk', 'frames_every': 20, 'thermo_every': 10, 'temperature': 300.0,
             'stages': [{'steps': 55}, {'steps': 130}]}  # fmt: skip
    simulate(tmp_path / 'run', given)
    columns = columns_of(tmp_path / 'run')
    refuse_gaps(columns, given, 185)
    grown = (1 + 1e-4) ** (3 * columns['thermo_steps'])
    assert columns['thermo_volume'] == pytest.approx(1320.0 * grown, rel=1e-6)
    places = columns['positions'] @ np.linalg.inv(columns['cells'])
    assert np.abs(np.diff(places, axis=0)).max() < 0.1


def test_a_run_that_keeps_its_last_frame_alone_is_followed_in_between(stand_in, tmp_path, monkeypatch):
    """An atom that goes farther than half the cell between two frames is told by the states between them."""
    monkeypatch.setattr(inputs, 'STEPS_OF_STATES', (10, 100))
    given = {**SHORT, 'frames_every': 600, 'temperature': 2e4}
    simulate(tmp_path / 'run', given)
    columns = columns_of(tmp_path / 'run')
    refuse_gaps(columns, given, 600)
    wanted = flown(given, columns['steps'])
    assert np.abs(np.diff(wanted, axis=0)).max() > 6.0
    assert np.abs(columns['positions'] - wanted).max() < 1e-3


def test_frozen_atoms_are_a_group_that_does_not_move(stand_in, tmp_path):
    given = {**SHORT, 'frozen': ['Pb']}
    about = simulate(tmp_path / 'run', given)
    positions = columns_of(tmp_path / 'run')['positions']
    assert np.flatnonzero(np.ptp(positions, axis=0).max(axis=1) < 1e-6).tolist() == [2]
    assert about['degrees_of_freedom'] == 15


class Clock:
    """The seconds that are left to a job: none any more once it was asked so often."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> float:
        self.left -= 1
        return 0.0 if self.left < 0 else math.inf


LONG = {**SHORT, 'temperature': 1000.0, 'steps': 20_000, 'save_every': 100}


def test_a_run_that_is_out_of_time_goes_on_without_a_gap(stand_in, tmp_path):
    stand_in('slow')
    folder = tmp_path / 'run'

    def seconds_left():
        return 0.0 if (folder / 'checkpoint' / '000002').is_dir() else math.inf

    with pytest.raises(JobError, match='steps were left') as caught:
        simulate(folder, LONG, seconds_left=seconds_left)
    assert caught.value.status is Status.OUT_OF_WALLTIME
    stand_in()
    simulate(folder, LONG)
    columns = columns_of(folder)
    refuse_gaps(columns, LONG, 20_000)
    assert np.abs(columns['positions'] - flown(LONG, columns['steps'])).max() < 1e-4
    assert simulate(folder, LONG) == {}


@pytest.mark.parametrize('is_over', [False, True])
def test_a_gpumd_that_is_faster_than_its_reader_is_stopped_all_the_same(stand_in, tmp_path, monkeypatch, is_over):
    """With a look that chases all that is there, the run would be at its end before the time is looked at.

    Where GPUMD has come to its end by then, what was not read yet must not be left out.
    """
    folder, read = tmp_path / 'run', []

    def read_slowly(path):
        while is_over and FINISHED not in (folder / 'gpumd' / 'printed.log').read_text():
            time.sleep(0.05)
        time.sleep(0.02)
        read.append(path)
        return read_dump(path)

    monkeypatch.setattr(motion, 'read_dump', read_slowly)
    monkeypatch.setattr(motion, 'LOOK', 0.1)
    with pytest.raises(JobError, match='steps were left') as caught:
        simulate(folder, LONG, seconds_left=lambda: 0.0 if len(read) > 10 else math.inf)
    assert caught.value.status is Status.OUT_OF_WALLTIME
    assert len(read) < 60
    monkeypatch.setattr(motion, 'read_dump', read_dump)
    simulate(folder, LONG)
    columns = columns_of(folder)
    refuse_gaps(columns, LONG, 20_000)
    assert np.abs(columns['positions'] - flown(LONG, columns['steps'])).max() < 1e-4


def test_a_gpumd_that_reaches_no_state_is_ended_all_the_same(stand_in, tmp_path, monkeypatch):
    stand_in('slow')
    monkeypatch.setattr(motion, 'PATIENCE', 0.0)
    with pytest.raises(JobError, match='20000 of 20000 steps were left'):
        simulate(tmp_path / 'run', {**LONG, 'save_every': 20_000}, seconds_left=Clock(5))


def test_a_killed_run_takes_gpumd_with_it_and_goes_on_without_a_gap(stand_in, tmp_path, kill_with_its_program):
    stand_in('slow')
    folder = tmp_path / 'run'
    code = (
        f'import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; from pathlib import Path; '
        f'from test_gpumd_engine import LONG, simulate; simulate(Path({str(folder)!r}), LONG)'
    )
    process = subprocess.Popen([sys.executable, '-c', code], env=dict(os.environ))
    kill_with_its_program(process, folder, 'gpumd')
    stand_in()
    simulate(folder, LONG)
    columns = columns_of(folder)
    refuse_gaps(columns, LONG, 20_000)
    assert np.abs(columns['positions'] - flown(LONG, columns['steps'])).max() < 1e-4


@pytest.mark.parametrize(
    ('way', 'words'),
    [('hot', r'the temperature was 1e\+06 K'), ('nan', 'what is no number')],
)
def test_an_explosion_ends_the_run_with_the_frames_before_it(stand_in, tmp_path, way, words):
    stand_in(way)
    with pytest.raises(Exploded, match=words) as caught:
        simulate(tmp_path / 'run', SHORT)
    assert caught.value.results['candidates']
    assert caught.value.results['exploded_at_step'] == 300


@pytest.mark.parametrize(
    ('way', 'words'),
    [
        ('crash', 'CUDA Error: an illegal memory access was encountered'),
        ('silent', 'exit status 0, and did not say why'),
        ('others', 'that should be that of step 50 is of other atoms'),
        ('late', 'that should be that of step 50 is of 57.* fs after the start'),
        ('more', 'more rows into thermo.out than it was asked for'),
        ('leap', 'take a smaller `frames_every`'),
    ],
)
def test_what_goes_wrong_is_told(stand_in, tmp_path, way, words):
    stand_in(way)
    with pytest.raises(JobError, match=words) as caught:
        simulate(tmp_path / 'run', SHORT)
    assert caught.value.status is Status.FAILED


def test_an_input_that_no_version_takes_is_told_in_the_words_of_the_first(stand_in, tmp_path, monkeypatch):
    text = 'raise SystemExit(print("Input Error:\\n    Error text: error", open("run.in").read().count("precision")))'
    monkeypatch.setenv(gpumd.COMMAND, f"{sys.executable} -c '{text}'")
    with pytest.raises(JobError, match='Input Error: error 2') as caught:
        simulate(tmp_path / 'run', SHORT)
    assert caught.value.status is Status.FAILED
