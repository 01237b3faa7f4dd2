"""Settings of molecular dynamics: schedules, and what makes no run."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import MdSettings, identity_of, read_md_settings
from aiida_perovmlip.compute.settings import SettingsError, describe_settings, read_settings

FRAME = Frame(np.array([55, 82, 53, 53, 53]), np.arange(15.0).reshape(5, 3), 6.0 * np.eye(3), np.ones(3, dtype=bool))


def test_a_ramp_is_a_straight_line():
    settings = read_md_settings({'steps': 100, 'temperature': [100, 300], 'pressure': [1, 0], 'ensemble': 'npt'})
    assert settings.target_at(0) == (100.0, 1.0)
    assert settings.target_at(25) == pytest.approx((150.0, 0.75))
    assert settings.target_at(100) == (300.0, 0.0)
    assert settings.target_at(500) == (300.0, 0.0)
    assert not settings.is_constant


def test_stages_follow_each_other_and_have_from_the_settings_what_they_leave_out():
    stages = [{'steps': 10}, {'steps': 20, 'temperature': [300, 500]}, {'steps': 5, 'temperature': 500}]
    settings = read_md_settings({'stages': stages, 'temperature': 300})
    assert settings.n_steps == 35
    found = [settings.target_at(step)[0] for step in (0, 10, 11, 20, 30, 31, 35)]
    assert found == pytest.approx([300, 300, 310, 400, 500, 500, 500])
    assert settings.highest_temperature == 500
    assert settings.limit_of_temperature == 2000


def test_what_is_not_said_follows_from_the_schedule():
    settings = read_md_settings({'temperature': [600, 300]})
    assert settings.first_temperature == 600
    assert settings.limit_of_temperature == 3 * 600 + 500
    assert read_md_settings({'initial_temperature': 0.0}).first_temperature == 0
    assert read_md_settings({'max_temperature': 900.0}).limit_of_temperature == 900


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'temperature': [300, 400, 500]}, '`temperature` is .* but has to be a number, or the two between which'),
        ({'temperature': 0}, 'a temperature is 0 K, but `nvt` needs one above that'),
        ({'temperature': [-5, 300], 'ensemble': 'nve'}, 'below 0 K'),
        ({'temperature': float('nan')}, '`temperature` is nan'),
        ({'ensemble': 'nve', 'thermostat': 'bussi'}, '`nve` has no thermostat'),
        ({'ensemble': 'nve', 'temperature': [100, 300]}, '`nve` keeps the energy'),
        ({'ensemble': 'nve', 'stages': [{'steps': 5, 'temperature': 9}, {'steps': 5}]}, '`nve` keeps the energy'),
        ({'barostat': 'mtk'}, '`nvt` has no barostat'),
        ({'pressure': 1.0}, '`nvt` keeps the cell, so that `pressure` has no effect'),
        ({'ensemble': 'npt', 'frozen': [0]}, '`npt` moves all atoms with the cell'),
        ({'masses': {'H': 0.0}}, 'above 0 amu, but `masses` has H 0'),
        ({'masses': {'Xx': 4.0}}, '`masses` has Xx, which is no element'),
        ({'frozen': ['Pp']}, '`frozen` has Pp, which is no element'),
        ({'stages': [{'temperature': 300}]}, 'stage 1 has no `steps`'),
        ({'stages': [{'steps': 1.5}]}, '`steps` of stage 1 is 1.5'),
        ({'stages': [{'steps': 5}, {'steps': 5, 'heat': 1}]}, "stage 2 has 'heat'; it can have"),
        ({'ensemble': 'nvw'}, "has to be one of 'nve', 'nvt', 'npt'"),
        ({'timestep': 0.0}, '`timestep` is 0.0 fs but has to be at least'),
        ({'thermostat': 'oven'}, '`thermostat`'),
    ],
)
def test_what_makes_no_run_is_said(given, words):
    with pytest.raises(SettingsError, match=words):
        read_md_settings(given)


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'masses': {'H': 4.0}}, 'names H, which the frame does not hold'),
        ({'frozen': ['Br']}, 'names Br, which the frame does not hold'),
        ({'frozen': [5]}, '`frozen` names the atom 5, but the frame has 5 atoms'),
        ({'groups': {'lead': [1], 'more': [-1]}}, 'the group `more` names the atom -1'),
        ({'frozen': ['Cs', 'Pb', 'I']}, 'all atoms are frozen'),
        ({'ensemble': 'nve', 'pressure': 2.0}, 'keeps the cell'),
    ],
)
def test_what_makes_no_run_of_these_atoms_is_said(given, words):
    assert read_md_settings({}).problem_with(FRAME) is None
    assert words in read_settings(MdSettings, given).problem_with(FRAME)


def test_a_barostat_needs_a_cell_that_it_can_move():
    npt = read_md_settings({'ensemble': 'npt', 'cell': 'orthogonal'})
    assert npt.problem_with(FRAME) is None
    slanted = Frame(FRAME.numbers, FRAME.positions, FRAME.cell + np.eye(3, k=1), FRAME.pbc)
    assert 'do not lie along x, y and z' in npt.problem_with(slanted)
    assert read_md_settings({'ensemble': 'npt'}).problem_with(slanted) is None
    slab = Frame(FRAME.numbers, FRAME.positions, FRAME.cell, np.array([True, True, False]))
    assert 'periodic in all three directions' in npt.problem_with(slab)


def test_masses_and_frozen_atoms_are_those_of_the_elements():
    settings = read_md_settings({'masses': {'I': 4.0}, 'frozen': ['I', 0]})
    assert settings.masses_of(FRAME) == pytest.approx([132.905, 207.2, 4, 4, 4], abs=0.01)
    assert settings.frozen_indices(FRAME).tolist() == [0, 2, 3, 4]


def identity(given, frame=FRAME, engine='ase', potential='a'):
    return identity_of(read_md_settings(given), frame, engine, potential)


def test_jobs_of_one_run_agree_on_what_moves_the_atoms_and_on_nothing_else():
    base = {'temperature': 300.0, 'steps': 100}
    same = [
        {'steps': 200},
        {'frames_every': 7, 'thermo_every': 3},
        {'max_force': 10.0, 'n_candidates': 3},
        {'save_every': 4},
        {'stages': [{'steps': 50}, {'steps': 60}]},
    ]
    assert {identity({**base, **more}) for more in same} == {identity(base)}
    other = [{'timestep': 2.0}, {'temperature': [300.0, 310.0]}, {'ensemble': 'nve'}, {'frozen': ['Cs']},
             {'masses': {'I': 4.0}}, {'temperature_time': 50.0}]  # fmt: skip
    found = {identity({**base, **more}) for more in other}
    found |= {identity(base, engine='lammps'), identity(base, potential='b')}
    heavier = Frame(FRAME.numbers[::-1], FRAME.positions, FRAME.cell, FRAME.pbc)
    found |= {identity(base, frame=heavier), identity(base)}
    assert len(found) == len(other) + 4


def test_a_ramp_cannot_be_made_longer():
    ramp = {'temperature': [300.0, 310.0], 'steps': 100}
    assert identity(ramp) != identity({**ramp, 'steps': 200})


def test_each_setting_is_explained():
    assert all(row['help'] for row in describe_settings(MdSettings))
