"""Tilts, phase maps and band edges of made-up runs whose phases were put in, with provenance."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.analysis.transitions import MOST
from aiida_perovmlip.calculations.functions.band_edges import compare_band_edges
from aiida_perovmlip.calculations.functions.mixtures import build_mixture
from aiida_perovmlip.calculations.functions.phase_map import map_phases
from aiida_perovmlip.calculations.functions.tilts import measure_modes, measure_tilts
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.trajectory import ChunkWriter, MovingAtoms
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.trajectory import TrajectoryData
from aiida_perovmlip.structures.perovskite import cubic, tilted

A = 6.3
EVERY, TIMESTEP = 500, 2.0  # a frame each ps
SHIFT = {
    glazer: tilted('Cs', 'Pb', 'I', A, (2, 2, 2), glazer, 8.0).positions
    - cubic('Cs', 'Pb', 'I', A, (2, 2, 2)).positions
    for glazer in ('a0a0a0', 'a0a0c+', 'a0a0c-', 'a-a-c+')
}


@pytest.fixture
def make_run(tmp_path_factory):
    """Return a function that stores a run in which tilts are frozen in by the temperature of each frame."""

    def make(temperatures, tilt_at, noise=0.1, seed=0, thermo=True, steps=EVERY, swing=None):
        rng = np.random.default_rng(seed)
        ideal = cubic('Cs', 'Pb', 'I', A, (2, 2, 2))
        atoms = MovingAtoms(ideal.numbers, ideal.get_masses(), np.ones(3, dtype=bool))
        folder = tmp_path_factory.mktemp('run')
        writer = ChunkWriter(folder, atoms, 100_000)
        for number, kelvin in enumerate(temperatures):
            stretch = 1 + 2e-5 * kelvin
            tilt = SHIFT[tilt_at(kelvin)] * (1.0 if swing is None else swing[number])
            positions = (ideal.positions + tilt + rng.normal(0, noise, (40, 3))) * stretch
            step = number * steps
            writer.frame(step, positions, ideal.cell.array * stretch)
            if thermo:
                writer.thermo(step, target_temperature=float(kelvin), temperature=float(kelvin + rng.normal(0, 5)))
        writer.close()
        return TrajectoryData.from_folder(folder, TIMESTEP).store()

    return make


def in_steps(*pairs):
    """Return a function that gives the tilt at a temperature, from pairs of a tilt and the temperature it ends at."""
    return lambda kelvin: next(tilt for tilt, end in pairs if kelvin < end)


MAPI = in_steps(('a-a-c+', 225.0), ('a0a0c-', 385.0), ('a0a0a0', 1e9))
COLD = in_steps(('a0a0c-', 375.0), ('a0a0a0', 1e9))


@pytest.fixture
def ramp(make_run):
    """Return a function that makes a ramp from 5 to 495 K and what is seen in its windows of 10 K."""

    def make(tilt_at, direction='heating', n=490, **fields):
        temperatures = np.linspace(5, 495, n)
        run = make_run(temperatures if direction == 'heating' else temperatures[::-1], tilt_at, **fields)
        return measure_tilts(run, orm.Dict({'window': 10.0}))

    return make


# ---------------------------------------------------------------------- windows


def test_windows_have_labels_temperatures_and_lattice(ramp):
    found = ramp(MAPI)
    windows = found['windows']['windows']
    assert len(windows) == 49
    assert [window['label'] for window in windows[::12]] == ['a-a-c+', 'a-a-c+', 'a0a0c-', 'a0a0c-', 'a0a0a0']
    assert [window['temperature'] for window in windows] == pytest.approx(np.arange(9.5, 495, 10.02), abs=0.6)
    assert windows[3]['measured'] == pytest.approx(windows[3]['temperature'], abs=8)
    assert windows[10]['lengths'] == pytest.approx(3 * [A * (1 + 2e-5 * windows[10]['temperature'])], abs=1e-4)
    assert found['tilts'].get_array('layers_3').shape == (490, 2)
    assert found['windows']['n_atoms'] == 40
    assert found['windows'].creator.process_label == 'measure_tilts'


def test_what_is_skipped_is_not_looked_at(make_run):
    run = make_run(np.full(40, 300.0), lambda _: 'a0a0c-')
    found = measure_tilts(run, orm.Dict({'skip': 20.0}))
    assert found['windows']['n_frames'] == 20
    assert found['windows']['windows'][0]['start'] == pytest.approx(20.0)
    with pytest.raises(ValueError, match=r'ends before the 50 ps'):
        measure_tilts(run, orm.Dict({'skip': 50.0}))


def test_a_run_without_rows_has_no_temperature(make_run):
    run = make_run(np.full(10, 300.0), lambda _: 'a0a0c-', thermo=False)
    found = measure_tilts(run, orm.Dict({}))['windows']
    assert found['windows'][0]['temperature'] is None
    assert found['windows'][0]['label'] == 'a0a0c-'
    report = orm.Dict({'ramps': [{'formula': 'CsPbI3', 'x': 0.0, 'direction': 'heating', 'windows': 'w'}]})
    with pytest.raises(ValueError, match='hold no temperature'):
        map_phases(report, w=found)


# ---------------------------------------------------------------------- modes


def test_modes_of_a_run_are_fitted(make_run):
    rng = np.random.default_rng(0)
    swing = np.zeros(2000)
    for step in range(1, 2000):  # forgets within 20 frames
        swing[step] = 0.95 * swing[step - 1] + rng.normal(0, 0.3)
    run = make_run(np.full(2000, 400.0), lambda _: 'a0a0c-', noise=0.02, steps=25, swing=swing)
    found = measure_modes(run, orm.Dict({}))
    told = found['modes'].get_dict()
    assert told['r']['relaxation'] == pytest.approx(20 * 0.05, rel=0.4)
    assert told['label'] == 'a0a0a0'
    assert told['temperature'] == pytest.approx(400.0)
    assert set(found['correlations'].get_arraynames()) == {
        f'{mode}__{name}' for mode in 'mr' for name in ('lags', 'correlation', 'fit')
    }


def test_modes_need_equal_times(tmp_path):
    ideal = cubic('Cs', 'Pb', 'I', A, (2, 2, 2))
    writer = ChunkWriter(tmp_path, MovingAtoms(ideal.numbers, ideal.get_masses(), np.ones(3, dtype=bool)))
    for step in (0, 1, 2, 4):
        writer.frame(step, ideal.positions, ideal.cell.array)
    writer.close()
    with pytest.raises(ValueError, match='do not follow each other at equal times'):
        measure_modes(TrajectoryData.from_folder(tmp_path, TIMESTEP), orm.Dict({}))


# ---------------------------------------------------------------------- the map


def mapped(*entries, **report):
    """Return the map of ramps: formula, x, direction, what was seen."""
    ramps = [
        {'formula': formula, 'x': x, 'direction': direction, 'windows': f'w{number}'}
        for number, (formula, x, direction, _) in enumerate(entries)
    ]
    nodes = {f'w{number}': seen['windows'] for number, (*_, seen) in enumerate(entries)}
    return map_phases(orm.Dict({'ramps': ramps, **report}), **nodes)


def test_transitions_of_heating_and_cooling_are_kept_apart(ramp):
    found = mapped(('MAPbI3', 0.0, 'heating', ramp(MAPI)), ('MAPbI3', 0.0, 'cooling', ramp(COLD, 'cooling', seed=1)))
    phases = found['phases'].get_dict()
    lower, upper = phases['compositions']['MAPbI3']['transitions']
    assert (lower['low'], lower['high'], lower['cooling']) == ('a-a-c+', 'a0a0c-', None)
    assert lower['heating'] == pytest.approx(225, abs=6)
    assert upper['heating'] == pytest.approx(385, abs=6)
    assert upper['cooling'] == pytest.approx(375, abs=6)
    assert upper['width'] == pytest.approx(10, abs=11)
    assert phases['compositions']['MAPbI3']['ramps']['cooling']['labels'] == ['a0a0c-', 'a0a0a0']
    assert {(line['low'], line['direction']) for line in phases['diagram']} == {
        ('a-a-c+', 'heating'),
        ('a0a0c-', 'heating'),
        ('a0a0c-', 'cooling'),
    }
    curves = found['curves']
    temperatures = curves.get_array('MAPbI3__cooling__temperature')
    assert np.all(np.diff(temperatures) > 0)
    assert curves.get_array('MAPbI3__cooling__lengths').shape == (49, 3)


def test_fast_and_small_runs_warn_of_themselves(ramp):
    found = mapped(('CsPbI3', 0.0, 'heating', ramp(MAPI)))['phases']
    fast, small = found['warnings']
    assert '1e+03 K/ns is faster than 30 K/ns' in fast
    assert '40 atoms are fewer than 10000' in small
    assert found['compositions']['CsPbI3']['ramps']['heating']['rate'] == pytest.approx(1002, rel=0.02)


def test_slow_ramps_do_not_warn_of_their_speed(ramp):
    found = mapped(('CsPbI3', 0.0, 'heating', ramp(MAPI, steps=200 * EVERY, n=98)))['phases']
    assert not any('K/ns' in each for each in found['warnings'])


def test_the_boundary_lies_where_m_takes_over(ramp):
    def seen(tilt, seed):
        return ramp(in_steps((tilt, 300.0), ('a0a0a0', 1e9)), seed=seed, n=147)

    entries = [
        (f'MA{1 - x:g}FA{x:g}PbI3', x, 'heating', seen('a0a0c-' if x < 0.27 else 'a0a0c+', number))
        for number, x in enumerate((0.1, 0.2, 0.3, 0.9))
    ]
    found = mapped(*entries, boundary={'temperature': 250.0, 'half_width': 40.0})['phases'].get_dict()
    assert 0.2 < found['boundary']['centre'] < 0.3
    assert found['boundary']['midpoint'] == pytest.approx(0.25, abs=0.02)
    assert 0.99 * 0.1 / np.sqrt(12) <= found['boundary']['error'] < 0.1
    assert list(found['boundary']['directions']) == ['heating']
    assert found['boundary']['directions']['heating']['centre'] == found['boundary']['centre']
    assert found['boundary']['x'] == [0.1, 0.2, 0.3, 0.9]
    hot = mapped(*entries, boundary={'temperature': 400.0, 'half_width': 40.0})['phases'].get_dict()
    assert hot['boundary'] is None
    assert 'at least two that differ' in hot['no_boundary']
    assert mapped(*entries)['phases']['no_boundary'] == 'it was not asked for.'


def test_a_ramp_that_broke_off_is_told_without_transitions(ramp):
    found = mapped(('CsPbI3', 0.0, 'heating', ramp(MAPI, n=20)))['phases']
    entry = found['compositions']['CsPbI3']['ramps']['heating']
    assert (entry['n_windows'], entry['transitions']) == (2, [])
    assert any('2 windows are too few' in each for each in found['warnings'])


def test_motion_is_passed_on(ramp, make_run):
    motion = {'m': {'kind': 'overdamped'}, 'r': {'kind': 'undecided'}, 'temperature': None, 'label': 'a0a0c-'}
    modes = orm.Dict(motion)
    report = {
        'ramps': [{'formula': 'CsPbI3', 'x': 0.0, 'direction': 'heating', 'windows': 'w'}],
        'modes': [{'formula': 'CsPbI3', 'x': 0.0, 'modes': 'n', 'kelvin': 400.0}],
    }
    found = map_phases(orm.Dict(report), w=ramp(MAPI, n=98)['windows'], n=modes)['phases']
    assert found['modes'][0]['r']['kind'] == 'undecided'
    assert found['modes'][0]['kelvin'] == 400.0
    assert 'modes of CsPbI3 at 400 K: the crystal is a0a0c-, whose axes differ' in found['warnings'][-1]


def test_a_penalty_of_nothing_is_taken_as_it_is(ramp):
    seen = ramp(lambda _: 'a0a0c-')

    def n_changes(penalty):
        (found,) = mapped(('CsPbI3', 0.0, 'heating', seen), penalty=penalty)['phases']['compositions'].values()
        return len(found['ramps']['heating']['within'])

    assert n_changes(1.0) < MOST == n_changes(0.0)


def test_a_map_of_nothing_is_refused():
    with pytest.raises(ValueError, match='no ramp to map'):
        map_phases(orm.Dict({'ramps': []}))


# ---------------------------------------------------------------------- crystals


def test_mixtures_are_built_with_provenance():
    found = build_mixture(orm.Dict({'formula': 'MA0.75FA0.25PbI3', 'repeat': [2, 2, 2]}), orm.Int(3))
    (frame,) = found.frames
    assert frame.group == 'MA0.75FA0.25PbI3'
    assert len(frame) == 32 + 8 * 8
    again = build_mixture(orm.Dict({'formula': 'MA0.75FA0.25PbI3', 'repeat': [2, 2, 2]}), orm.Int(3))
    assert again.content_hash == found.content_hash


def test_mixtures_take_lattice_constants_that_are_given():
    recipe = {'formula': 'RbPbI3', 'repeat': [2, 2, 2], 'lattice_constants': {'RbPbI3': 6.2}}
    (frame,) = build_mixture(orm.Dict(recipe), orm.Int(0)).frames
    assert frame.cell[0, 0] == pytest.approx(12.4)
    with pytest.raises(ValueError, match='no lattice constant of RbPbI3 is known'):
        build_mixture(orm.Dict({**recipe, 'lattice_constants': {}}), orm.Int(0))


# ---------------------------------------------------------------------- band edges


def snapshots(n, rattle=0.0):
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(n):
        atoms = cubic('Cs', 'Pb', 'I', A + rattle * rng.normal(), (1, 1, 1))
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        frames.append(Frame.from_atoms(atoms))
    return DatasetData.from_frames(frames)


def cp2k_facts(n, width, seed=0):
    rng = np.random.default_rng(seed)
    return {
        str(number): {
            'band_edges': [
                {'spin': 0, 'vbm': rng.normal(3, width), 'cbm': rng.normal(5, 0.01), 'gap': 2.0, 'fermi': 4.0},
                {'spin': 1, 'vbm': -9.0, 'cbm': 9.0, 'gap': 18.0, 'fermi': 4.0},
            ]
        }
        for number in range(n)
    }


def test_band_edges_are_compared_over_compositions():
    nodes = {'f0': snapshots(20), 'f1': snapshots(20)}
    nodes |= {'r0': orm.Dict({'facts': cp2k_facts(20, 0.05)}), 'r1': orm.Dict({'facts': cp2k_facts(18, 0.2, 1)})}
    report = {'compositions': [{'x': x, 'frames': f'f{n}', 'results': f'r{n}'} for n, x in ((1, 0.3), (0, 0.0))]}
    found = compare_band_edges(orm.Dict(report), **nodes).get_dict()
    pure, mixed = found['compositions']
    assert (pure['x'], pure['n'], pure['lacking']) == (0.0, 20, [])
    assert (mixed['x'], mixed['n'], mixed['lacking']) == (0.3, 18, [18, 19])
    assert pure['has_reference']
    assert mixed['vbm']['std'] == pytest.approx(0.2, rel=0.4)
    assert found['largest']['vbm'] == 0.3


def test_band_edges_of_vasp_are_read_and_cells_that_differ_have_no_reference():
    facts = {str(number): {'vbm_eV': 1.0 + 0.1 * number, 'cbm_eV': 3.0} for number in range(3)}
    report = orm.Dict({'compositions': [{'x': 0.0, 'frames': 'f', 'results': 'r'}]})
    found = compare_band_edges(report, f=snapshots(3, rattle=0.05), r=orm.Dict({'facts': facts})).get_dict()
    (entry,) = found['compositions']
    assert not entry['has_reference']
    assert entry['vbm']['std'] == pytest.approx(0.1)


def test_snapshots_without_band_edges_are_refused():
    report = orm.Dict({'compositions': [{'x': 0.0, 'frames': 'f', 'results': 'r'}]})
    facts = {'0': {'band_edges': [{'spin': 0, 'vbm': None, 'cbm': 1.0}]}, '1': {'vbm_eV': 0.0, 'cbm_eV': 1.0}}
    with pytest.raises(ValueError, match='1 of 3 snapshots have band edges'):
        compare_band_edges(report, f=snapshots(3), r=orm.Dict({'facts': facts}))
