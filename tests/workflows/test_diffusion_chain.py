"""Studies of diffusion in copper with a vacancy, by a small potential: what is run, found, and told to be missing."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.query import diffusion
from aiida_perovmlip.query.motion import diffusion_records
from aiida_perovmlip.report.diffusion import write_arrhenius, write_msd
from aiida_perovmlip.workflows.diffusion import DiffusionWorkChain
from aiida_perovmlip.workflows.diffusion_plan import forecast, protocols
from aiida_perovmlip.workflows.md import MdWorkChain

SMALL = {
    'temperatures': [400.0, 700.0],
    'n_runs': 1,
    'followed': ['Cu'],
    'host': 'Cu',
    'repeat': [2, 2, 2],
    'timestep': 2.0,
    'equilibration': 0.02,
    'production': 0.6,
    'frames_every': 0.01,
    'thermo_every': 0.05,
    'lattice_temperatures': [300.0, 500.0],
    'lattice': 0.4,
}


def dataset_of(atoms, **fields):
    return DatasetData.from_frames([Frame.from_atoms(atoms, **fields)])


@pytest.fixture
def crystal(copper):
    return dataset_of(copper)


@pytest.fixture
def vacant(copper):
    atoms = copper.copy()
    del atoms[0]
    return dataset_of(atoms)


@pytest.fixture
def builder(python_code, copper_potential, crystal, vacant):
    """Return a function that makes the builder of a small study."""

    def make(settings=None, **inputs):
        inputs = {'crystal': crystal, 'seed': 7, **inputs}
        told = {**SMALL, **(settings or {})}
        return DiffusionWorkChain.get_builder_from_protocol(
            python_code, copper_potential(), vacant, settings=told, **inputs
        )

    return make


KEPT = {}


@pytest.fixture
def study(builder):
    """Return outputs and node of a study, which is run once for all tests."""
    if not KEPT:
        KEPT['study'] = run_get_node(builder(max_concurrent=2))
        KEPT['study'][1].label = 'a vacancy'
    return KEPT['study']


def runs_of(node):
    """Return the runs of a chain by their labels."""
    links = node.base.links.get_outgoing(node_class=orm.WorkChainNode).all()
    return {link.link_label: link.node for link in links}


def test_a_study_gives_lattice_diffusion_displacements_and_trajectories(study):
    outputs, node = study
    assert node.is_finished_ok, node.exit_message
    assert set(outputs['trajectories']) == {'at_400K_run_1', 'at_700K_run_1'}
    rows = outputs['lattice']['constants']
    assert [row['temperature'] for row in rows] == [400.0, 700.0]
    assert [row['is_extrapolated'] for row in rows] == [False, True]
    assert 3.4 < rows[0]['constant'] < 3.9
    found = outputs['diffusion'].get_dict()
    assert (found['formula'], found['engine'], found['failed']) == ('Cu31', 'ase', {})
    at = found['species']['Cu']['sum']['temperatures']
    assert [row['n_runs'] for row in at] == [1, 1]
    assert all(row['error_of'] == 'blocks' for row in at)
    assert 'name the sites yourself' in found['species']['Cu']['hops'][0]['lack']
    names = set(outputs['msd'].get_arraynames())
    assert {'Cu__sum__400K__lags', 'Cu__tracer__700K__mean', 'Cu__collective__400K__runs'} <= names


def test_runs_start_where_the_ones_before_ended_in_the_cell_of_their_temperature(study):
    outputs, node = study
    runs = runs_of(node)
    before, run = runs['equilibrate_700K_run_1'], runs['produce_700K_run_1']
    constant = outputs['lattice']['constants'][1]['constant']
    cell = run.inputs.start.frames[0].cell
    assert abs(np.linalg.det(cell)) == pytest.approx(8 * constant**3)
    last = before.outputs.trajectory.frame(-1)
    assert np.array_equal(run.inputs.start.frames[0].positions, last.positions)
    assert before.outputs.trajectory.base.attributes.get('last_step') == 10
    told = before.inputs.settings.get_dict(), run.inputs.settings.get_dict()
    assert [each['thermostat'] for each in told] == ['langevin', 'nose-hoover']
    assert [each['temperature_time'] for each in told] == [330.0, 100.0]
    assert runs['lattice_300K'].inputs.settings['ensemble'] == 'npt'
    assert len(runs['lattice_300K'].inputs.start.frames[0]) == 32


def test_runs_differ_by_their_seeds(study):
    runs = runs_of(study[1])
    seeds = {label: run.inputs.seed.value for label, run in runs.items()}
    assert min(seeds.values()) == 7
    assert len(set(seeds.values())) == len(seeds)


def test_no_more_runs_than_asked_for_go_on_at_a_time(study):
    spans = [(run.ctime, run.mtime) for run in runs_of(study[1]).values()]
    assert max(sum(start < other < end for start, end in spans) for other, _ in spans) <= 1  # itself not counted


def test_the_result_leads_back_to_every_run(study):
    outputs, node = study
    analysis = outputs['diffusion'].creator
    measured = {link.link_label: link.node for link in analysis.base.links.get_incoming().all()}
    counts = measured['counts_400K_run_1']
    assert counts.creator.inputs.trajectory.uuid == outputs['trajectories']['at_400K_run_1'].uuid
    assert outputs['diffusion']['potential'] == node.inputs.potential.content_hash


def test_what_was_found_is_asked_of_the_database(study):
    outputs, node = study
    (record,) = diffusion_records([node])
    assert (record['name'], record['species'], record['n_temperatures']) == ('a vacancy', 'Cu', 2)
    assert record['diffusion_uuid'] == outputs['diffusion'].uuid
    table = diffusion([node])
    assert list(table['species']) == ['Cu']
    assert 'activation_energy [eV]' in table.columns


def test_pictures_carry_the_uuids_of_what_they_show(study, tmp_path):
    outputs, node = study
    picture = write_msd(node, tmp_path / 'msd.svg').read_text()
    assert outputs['msd'].uuid in picture
    assert '400 K' in picture
    assert node.uuid in write_arrhenius([node], tmp_path / 'arrhenius.svg').read_text()


def test_runs_that_fail_are_told_and_the_others_measured(builder):
    told = {'temperatures': [400.0, 9000.0], 'lattice_temperatures': [], 'equilibration': 0.0,
            'md': {'max_temperature': 2500.0}}  # fmt: skip
    outputs, node = run_get_node(builder(told))
    assert node.exit_status == 581
    assert 'produce_9000K_run_1' in node.exit_message
    found = outputs['diffusion'].get_dict()
    assert set(found['failed']) == {'produce_9000K_run_1'}
    assert [row['temperature'] for row in found['species']['Cu']['sum']['temperatures']] == [400.0]
    assert 'lattice' not in outputs


def test_without_lattice_constants_there_is_no_study(builder):
    told = {'lattice_temperatures': [300.0, 9000.0], 'md': {'max_temperature': 2500.0}}
    _, node = run_get_node(builder(told))
    assert node.exit_status == 583
    assert '1 of 2 runs gave a lattice constant' in node.exit_message
    assert not [label for label in runs_of(node) if label.startswith('produce')]


def test_where_every_run_fails_that_is_said(builder):
    told = {'temperatures': [9000.0], 'lattice_constants': {'9000': 3.7}, 'equilibration': 0.0,
            'md': {'max_temperature': 2500.0}}  # fmt: skip
    outputs, node = run_get_node(builder(told))
    assert node.exit_status == 584
    assert outputs['lattice']['constants'] == [{'temperature': 9000.0, 'constant': 3.7}]


def test_a_cell_that_cannot_be_scaled_is_told(builder):
    told = {'lattice_constants': {'400': 3.6, '700': 3.7}, 'repeat': None}  # copper has four atoms in a cubic cell
    _, node = run_get_node(builder(told))
    assert node.exit_status == 584
    assert 'say by `repeat`' in node.exit_message
    assert not runs_of(node)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'temperatures': []}, 'has to hold a temperature'),
        ({'temperatures': [500.0, 500.0]}, 'raise `n_runs`'),
        ({'followed': []}, 'names nothing'),
        ({'followed': ['I']}, 'and no I'),
        ({'production': 0.1}, '10 frames, but 30 are the least'),
        ({'lattice_temperatures': [300.0]}, 'two temperatures, or none'),
        ({'lattice': 0.1}, 'has 8 frames that are averaged, but 16 are the least'),
        ({'window': [3.0, 1.0]}, 'begin and the end'),
        ({'lattice_constants': {'400': 3.6}}, 'has none at 700 K'),
        ({'lattice_constants': {'warm': 3.6}}, 'which are no temperatures'),
        ({'production_thermostat': 'ice'}, 'production_thermostat|thermostat'),
        ({'md': {'steppes': 3}}, 'unknown setting'),
        ({'md': {'timestep': 3.0}}, '`md` has `timestep`.*say it by `timestep`'),
        ({'md': {'temperature_time': 500.0}}, 'say it by `equilibration_time` and `production_time`'),
        ({'n_runs': 0}, 'at least 1'),
    ],
)
def test_what_is_no_study_is_refused_before_anything_runs(builder, settings, words):
    with pytest.raises(ValueError, match=words):
        run_get_node(builder(settings))


def test_inputs_that_do_not_fit_are_refused(builder, python_code, copper_potential):
    with pytest.raises(ValueError, match='there is no `crystal`'):
        run_get_node(builder(crystal=None))
    with pytest.raises(ValueError, match='`max_concurrent` is 0'):
        run_get_node(builder(max_concurrent=0))
    with pytest.raises(ValueError, match='`lattice_potential` has no effect'):
        run_get_node(builder({'lattice_temperatures': []}, lattice_potential=copper_potential()))
    with pytest.raises(ValueError, match='no option'):
        run_get_node(builder(options={'wall': 3}))
    try:
        import kinisi  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match='needs the package kinisi'):
            run_get_node(builder({'bayesian': True}))


# ------------------------------------------------------------------ plans


def test_the_protocol_of_the_paper_has_its_numbers(builder, copper_potential, python_code, crystal, vacant):
    made = DiffusionWorkChain.get_builder_from_protocol(
        python_code, copper_potential(), vacant, crystal=crystal, protocol='paper'
    )
    plan = forecast(made, speed=1e6)
    kinds = [kind for _, kind, *_ in plan.runs]
    assert [kinds.count(kind) for kind in ('lattice', 'equilibration', 'production')] == [4, 25, 25]
    steps = {kind: steps for _, kind, _, steps, _ in plan.runs}
    assert steps == {'lattice': 100_000, 'equilibration': 100_000, 'production': 2_000_000}
    assert {kelvin for _, kind, kelvin, *_ in plan.runs if kind == 'production'} == {500, 525, 550, 575, 600}
    assert plan.hours == pytest.approx((25 * 2_100_000 * 31 + 4 * 100_000 * 32) / 1e6 / 3600)
    shown = str(plan)
    assert 'produce_525K_run_5' in shown
    assert 'hours of jobs' in shown
    with pytest.raises(ValueError, match='no protocol `quick`'):
        DiffusionWorkChain.get_builder_from_protocol(python_code, copper_potential(), vacant, protocol='quick')
    assert set(protocols()) == {'fast', 'balanced', 'paper'}


def test_a_forecast_asks_what_runs_of_the_potential_took(study, builder):
    plan = forecast(builder())
    assert plan.speed > 0
    assert 'jobs that have been done' in str(plan)
    assert len(plan.runs) == 6


def test_a_forecast_of_what_never_ran_says_so(builder, copper_potential):
    made = builder()
    made.potential = copper_potential(5)
    assert 'cost: unknown' in str(forecast(made))
    assert forecast(made).hours is None


def test_an_md_chain_is_what_each_run_is(study):
    assert {run.process_class for run in runs_of(study[1]).values()} == {MdWorkChain}


@pytest.mark.browser
def test_the_page_of_a_study_shows_displacements_and_coefficients(study, check_page):
    _, node = study
    page = check_page(node, 'msd-sum', 'lineage')
    assert 'Molecular dynamics ran with ase' in page
    assert 'Coefficients at each temperature' in page
