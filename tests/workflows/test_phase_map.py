"""Phase maps of CsPbI3 in a small cell by a small potential: what is run, found, and told to be missing."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architectures.nep import Nep
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.md import read_md_settings
from aiida_perovmlip.compute.settings import SettingsError
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.report.phase_map import write_damping, write_diagram, write_oscillations, write_ramps
from aiida_perovmlip.structures.perovskite import cubic, tilted
from aiida_perovmlip.workflows.md import MdWorkChain
from aiida_perovmlip.workflows.phase_map import PhaseMapWorkChain
from aiida_perovmlip.workflows.phase_map_plan import (
    PhaseMapSettings,
    forecast,
    planned_runs,
    protocols,
    read_phase_map_settings,
)

SMALL = {
    'compositions': ['CsPbI3'],
    'repeat': [2, 2, 2],
    'temperatures': [20.0, 80.0],
    'rate': 1e5,  # 0.6 ps for all
    'equilibration': 0.02,
    'timestep': 10.0,
    'frames_every': 0.01,
    'thermo_every': 0.01,
    'window': 10.0,
    'cooling_start': 'heating',
    'boundary_temperature': None,
    'modes': [],
    # A pair potential of springs has no business at constant pressure.
    'md': {'ensemble': 'nvt', 'thermostat': 'langevin', 'barostat': None},
}

SPRINGS: list = []
"""The potential of the tests; it is trained once."""


def springs(atoms, ideal):
    """Return a frame whose energy is that of springs to the sites of the crystal."""
    away = atoms.positions - ideal.positions
    return Frame(
        atoms.numbers,
        atoms.positions,
        atoms.cell.array,
        np.ones(3, dtype=bool),
        energy=float(np.sum(away**2)) - 3.0 * len(atoms),
        forces=-2 * away,
        stress=np.zeros(6),
    )


@pytest.fixture
def potential(python_code):
    """Return a pair potential that holds a perovskite together near its sites."""
    if not SPRINGS:
        rng = np.random.default_rng(0)
        ideal = cubic('Cs', 'Pb', 'I', 6.29, (2, 2, 2))
        frames = []
        for number in range(24):
            atoms = tilted('Cs', 'Pb', 'I', 6.29, (2, 2, 2), 'a-a-c+', 8.0 * (number % 2))
            atoms.positions += rng.normal(0, 0.15, atoms.positions.shape)
            frames.append(springs(atoms, ideal))
        builder = TrainCalculation.get_builder()
        builder.code, builder.architecture = python_code, 'reference'
        builder.training = DatasetData.from_frames(frames, {'labeller': 'test', 'functional': 'springs'}).store()
        builder.settings = {'cutoff': 6.0, 'basis_size': 12}
        outputs, node = run_get_node(builder)
        assert node.is_finished_ok, node.exit_message
        SPRINGS.append(outputs['potential'])
    return SPRINGS[0]


@pytest.fixture
def builder(python_code, potential):
    """Return a function that makes the builder of a small map."""

    def make(settings=None, **inputs):
        told = {**SMALL, **(settings or {})}
        return PhaseMapWorkChain.get_builder_from_protocol(
            python_code, potential, settings=told, **{'seed': 5, **inputs}
        )

    return make


KEPT = {}


@pytest.fixture
def small_map(builder):
    """Return outputs and node of a map with modes, which is run once for all tests."""
    if not KEPT:
        settings = {'modes': [60.0], 'modes_length': 1.7, 'modes_every': 0.01, 'modes_equilibration': 0.05}
        KEPT['map'] = run_get_node(builder(settings))
    return KEPT['map']


def runs_of(node):
    """Return the chains of a map by their labels."""
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'id': node.pk}, tag='map')
    query.append(MdWorkChain, with_incoming='map', edge_project='label', project='*')
    return {label: run for run, label in query.all()}


# ---------------------------------------------------------------------- the chain


def test_a_map_goes_from_crystals_to_phases_and_pictures(small_map, tmp_path):
    outputs, node = small_map
    assert node.is_finished_ok, node.exit_message
    runs = runs_of(node)
    assert list(runs) == ['heating_CsPbI3', 'cooling_CsPbI3', 'settling_CsPbI3_60K', 'modes_CsPbI3_60K']
    phases = outputs['phases'].get_dict()
    entry = phases['compositions']['CsPbI3']
    assert entry['x'] == 1.0
    assert entry['ramps']['heating']['n_windows'] == 6
    assert entry['ramps']['heating']['rate'] == pytest.approx(1e5, rel=0.05)
    # The springs pull the tilts out of the start; what was frozen in is gone.
    assert entry['ramps']['cooling']['labels'] == ['a0a0a0']
    assert len(phases['warnings']) == 4  # too fast and too small, twice
    assert phases['modes'][0]['kelvin'] == 60.0
    assert phases['modes'][0]['m']['kind'] in ('underdamped', 'overdamped', 'undecided')
    assert phases['failed'] == {}
    temperatures = outputs['curves'].get_array('CsPbI3__heating__temperature')
    assert temperatures == pytest.approx([25, 35, 45, 55, 65, 75], abs=2)
    assert outputs['tilts']['heating_CsPbI3'].get_array('layers_3').shape == (61, 2)
    assert len(outputs['trajectories']['cooling_CsPbI3']) == 63
    for number, write in enumerate((write_ramps, write_diagram, write_damping, write_oscillations)):
        text = write(node, tmp_path / f'{number}.svg').read_text()
        assert outputs['phases'].uuid in text
    with pytest.raises(ValueError, match="no composition 'CsPbBr3'; it has CsPbI3"):
        write_ramps(node, tmp_path / 'none.svg', ['CsPbBr3'])
    # Cooling goes on from where heating has ended, and the modes from where they have settled.
    for before, after in (('heating_CsPbI3', 'cooling_CsPbI3'), ('settling_CsPbI3_60K', 'modes_CsPbI3_60K')):
        last = runs[before].outputs.trajectory.frame(-1)
        (first,) = runs[after].inputs.start.frames
        assert np.array_equal(first.positions, last.positions)
    assert [stage['temperature'] for stage in runs['heating_CsPbI3'].inputs.settings['stages']] == [20.0, [20.0, 80.0]]
    assert [stage['temperature'] for stage in runs['cooling_CsPbI3'].inputs.settings['stages']] == [80.0, [80.0, 20.0]]


def test_starts_of_their_own_need_not_wait_and_a_ramp_that_fails_does_not_stop_the_rest(builder):
    """A limit of temperature that the springs in the tilted start exceed, and those of the cubic one do not."""
    settings = {
        'md': {**SMALL['md'], 'max_temperature': 300.0},
        'cooling_start': 'cubic',
        'modes': [70.0],
        'modes_length': 1.7,
        'modes_every': 0.01,
        'modes_equilibration': 0.0,
    }
    outputs, node = run_get_node(builder(settings))
    assert node.exit_status == 581
    assert 'heating_CsPbI3: MdWorkChain' in node.exit_message
    runs = runs_of(node)
    (cold,), (hot,) = (runs[f'{name}_CsPbI3'].inputs.start.frames for name in ('heating', 'cooling'))
    ideal = cubic('Cs', 'Pb', 'I', 6.29, (2, 2, 2))
    assert hot.positions == pytest.approx(ideal.positions)
    assert np.abs(cold.positions - ideal.positions).max() > 0.4
    assert (runs['heating_CsPbI3'].inputs.seed.value, runs['cooling_CsPbI3'].inputs.seed.value) == (5, 6)
    entry = outputs['phases'].get_dict()['compositions']['CsPbI3']
    assert entry['ramps']['cooling']['n_windows'] == 6
    assert 'heating_CsPbI3' in outputs['phases']['failed']
    # The motion is that of a frame of the ramp that ended well.
    ramp = runs['cooling_CsPbI3'].outputs.trajectory
    (start,) = runs['modes_CsPbI3_70K'].inputs.start.frames
    frames = [index for index in range(len(ramp)) if np.array_equal(ramp.frame(index).positions, start.positions)]
    assert frames == [12]  # 0.02 ps at 80 K, then 0.1 ps down to 70 K, a frame each 0.01 ps


def test_what_needs_a_ramp_that_failed_is_told(builder):
    settings = {
        'md': {**SMALL['md'], 'max_force': 1e-6},
        'modes': [40.0],
        'modes_length': 1.7,
        'modes_every': 0.01,
    }
    _, node = run_get_node(builder(settings))
    assert node.exit_status == 584
    assert 'heating_CsPbI3, from whose end it starts, did not end well' in node.exit_message
    assert 'no ramp of its crystal ended well' in node.exit_message


def test_a_crystal_that_cannot_be_built_is_told(builder):
    settings = {'lattice_constants': {'CsPbI3': 3.0}, 'directions': ['heating']}
    outputs, node = run_get_node(builder(settings))
    assert node.exit_status == 584
    assert 'are too close at a lattice constant of 3.000 Å' in node.exit_message
    assert 'phases' not in outputs


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        ({'compositions': []}, 'has to name at least one'),
        ({'compositions': ['CsPbI3', 'CsPbI3']}, 'each of them once'),
        ({'compositions': ['PbI2']}, 'is none such as'),
        ({'compositions': ['RbPbI3']}, 'no lattice constant of RbPbI3'),
        ({'compositions': ['CsPbI3', 'CsPbBr3']}, 'the same x'),
        ({'repeat': [2, 3, 2]}, 'three even numbers'),
        ({'directions': ['up']}, 'has to name heating, cooling, or both'),
        ({'directions': ['cooling']}, "set `cooling_start` to 'cubic'"),
        ({'temperatures': [300.0, 100.0]}, 'the lowest and the highest'),
        ({'window': 20.0}, 'there are 3 windows'),
        ({'frames_every': 0.06}, 'there have to be two frames'),
        ({'purity': 0.5}, 'take more than one half'),
        ({'lattice_constants': {'CsPbBr3': 5.9}}, 'names CsPbBr3, of which no composition is made; they are made of'),
        ({'thermo_every': 0.2}, '`thermo_every` is 0.2 ps: each window needs two rows'),
        ({'modes': [100.0], 'modes_equilibration': 0.0}, 'these go from 20 to 80 K'),
        ({'modes': [50.0], 'modes_length': 1.0}, 'has 20 frames, but 160'),
        ({'md': {'timestep': 2.0}}, '`md` has `timestep`.*say it by `timestep`'),
        ({'md': {'steps': 10}}, '`md` has `steps`.*say it by `rate`, `equilibration` and `modes_length`'),
    ],
)
def test_settings_that_make_no_map_are_refused(settings, sentence):
    with pytest.raises(SettingsError, match=sentence):
        read_phase_map_settings({**SMALL, **settings})


@pytest.mark.parametrize(
    ('settings', 'inputs', 'sentence'),
    [
        ({'compositions': ['CsPbBr3']}, {}, 'CsPbBr3 holds Br, but the potential knows only Cs, I, Pb'),
        ({'rate': -1.0}, {}, '`rate` is -1.0 K/ns'),
        ({}, {'max_concurrent': 0}, 'has to be at least 1'),
        ({}, {'options': {'speed': 1}}, "no option 'speed'"),
        ({}, {'engine': 'gpumd'}, 'GPUMD does not read potentials of reference'),
        ({'md': {}, 'barostat': 'scr'}, {}, 'heating_CsPbI3: ase has no barostat `scr`; it has'),
        ({'md': {'maximal_force': 3.0}}, {}, 'heating_CsPbI3: .*maximal_force'),
    ],
)
def test_inputs_that_no_run_could_use_are_refused(builder, settings, inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        run_get_node(builder(settings, **inputs))


def test_a_protocol_that_is_not_there_is_refused(python_code, potential):
    with pytest.raises(ValueError, match='no protocol `quick`; there are fast, balanced, paper'):
        PhaseMapWorkChain.get_builder_from_protocol(python_code, potential, protocol='quick')


# ---------------------------------------------------------------------- the plan


@pytest.mark.parametrize('name', ['fast', 'balanced', 'paper'])
def test_protocols_can_be_read(name):
    settings = read_phase_map_settings(protocols()[name]['settings'])
    assert len(list(planned_runs(settings, 0))) > 1


@pytest.mark.parametrize('name', ['fast', 'balanced', 'paper'])
def test_the_engine_of_a_protocol_does_all_of_its_runs(name):
    engine = registry.load('engines', protocols()[name]['engine'])()
    for run in planned_runs(read_phase_map_settings(protocols()[name]['settings']), 0):
        assert engine.refusal(read_md_settings(run.settings), Nep()) is None


def test_defaults_warn_of_nothing():
    settings = PhaseMapSettings()
    assert settings.problem() is None
    assert settings.rate <= 30
    assert all(settings.n_atoms(formula) >= 10_000 for formula in settings.compositions)
    assert PhaseMapSettings(compositions=['CsPbBr3']).repeat_of('CsPbBr3') == [14, 14, 14]
    assert settings.repeat_of('MAPbI3') == [10, 10, 10]


def test_the_protocol_of_the_paper_has_its_numbers():
    settings = read_phase_map_settings(protocols()['paper']['settings'])
    runs = list(planned_runs(settings, 0))
    ramps = [run for run in runs if run.kind in ('heating', 'cooling')]
    assert len(ramps) == 2 * 12
    assert settings.n_atoms('MAPbI3') == settings.n_atoms('FAPbI3') == 96_000
    assert 7 <= settings.rate <= 15
    assert (settings.timestep, settings.boundary_temperature) == (0.5, 250.0)
    assert ramps[0].settings['stages'][1]['temperature'] == [1.0, 400.0]
    assert [settings.x_of(formula) for formula in settings.compositions][:3] == [0.0, 0.11, 0.2]
    assert len({run.label for run in runs}) == len(runs)
    assert len({run.seed for run in runs}) == len(runs)


def test_the_dry_run_lists_all_jobs_with_their_hours(python_code, potential):
    builder = PhaseMapWorkChain.get_builder_from_protocol(
        python_code, potential, protocol='paper', settings={'modes': []}
    )
    known = forecast(builder, protocols()['paper']['speed'], 'as published')
    assert len(known.runs) == 24
    steps = 2 * (399 / 12 * 1e6 + 1e5)
    assert known.runs[0][0].steps == pytest.approx(steps, rel=1e-6)
    assert known.hours == pytest.approx(24 * steps * 96_000 / 14e6 / 3600, rel=2e-3)
    assert known.gigabytes == pytest.approx(24 * steps * 0.5e-3 / 2 * 96_000 * 12 / 1e9, rel=2e-3)
    text = str(known)
    assert text.startswith('24 runs by gpumd, 800.4 ns in steps of 0.5 fs:')
    assert 'heating_MA0_73FA0_27PbI3' in text
    assert '1 to 400 K' in text
    assert 'GPU hours where each has one GPU' in text


def test_the_cost_is_unknown_where_nothing_was_run(builder):
    made = builder()
    made.engine = 'lammps'
    assert 'cost: unknown' in str(forecast(made))


def test_x_is_the_fraction_of_what_varies():
    settings = PhaseMapSettings(compositions=['MA0.8FA0.2PbI3', 'FAPbI3', 'MAPbI3'])
    assert settings.problem() is None
    assert [settings.x_of(formula) for formula in settings.compositions] == [0.8, 0.0, 1.0]
    settings = PhaseMapSettings(compositions=['MA0.8FA0.2PbI3', 'FAPbI3', 'MAPbI3'], axis='FA')
    assert [settings.x_of(formula) for formula in settings.compositions] == [0.2, 1.0, 0.0]


@pytest.mark.browser
def test_the_page_of_a_map_shows_ramps_diagram_and_modes(small_map, check_page):
    _, node = small_map
    page = check_page(node, 'ramp-curves', 'phase-diagram', 'damping', 'lineage')
    assert 'transitions' in page.lower()
