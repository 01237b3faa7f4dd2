"""Displacements, lattice constants and coefficients of diffusion of made-up runs, with provenance."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.analysis.arrhenius import BOLTZMANN
from aiida_perovmlip.analysis.diffusion import Window, diffusion_of
from aiida_perovmlip.analysis.displacement import Msd
from aiida_perovmlip.analysis.sites import midpoints
from aiida_perovmlip.calculations.functions.defects import make_defect
from aiida_perovmlip.calculations.functions.diffusion import _dependence, analyse_diffusion, measure_displacements
from aiida_perovmlip.calculations.functions.lattice import fit_lattice, measure_lattice, repeat_of, scale_cell
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.trajectory import ChunkWriter, MovingAtoms
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.trajectory import TrajectoryData
from aiida_perovmlip.structures.perovskite import cubic

A = 6.3
EVERY = 100
TIMESTEP = 1.0


@pytest.fixture
def make_run(tmp_path_factory):
    """Return a function that stores positions (F, N, 3) and cells as a trajectory, 0.1 ps from frame to frame."""

    def make(numbers, positions, cells, masses=None):
        folder = tmp_path_factory.mktemp('run')
        masses = np.ones(len(numbers)) if masses is None else masses
        writer = ChunkWriter(folder, MovingAtoms(numbers, masses, np.ones(3, dtype=bool)))
        for frame, (places, cell) in enumerate(zip(positions, cells, strict=True)):
            writer.frame(frame * EVERY, places, cell)
        writer.close()
        return TrajectoryData.from_folder(folder, TIMESTEP).store()

    return make


@pytest.fixture
def vacancy_run(make_run):
    """Return a function that makes a run of CsPbI3 in which halides hop into a vacancy, so many times a ps."""

    def make(rate, n_frames=2000, seed=0, swing=0.2):
        rng = np.random.default_rng(seed)
        corners = A * np.array([(i, j, k) for i in range(2) for j in range(2) for k in range(2)], dtype=float)
        sites = midpoints(corners, 2 * A * np.eye(3))
        places, atom_at = sites.places[1:] @ sites.cell, {site: site - 1 for site in range(1, 24)}
        vacancy, paths = 0, np.empty((n_frames, 23, 3))
        every = np.arange(24)
        for frame in range(n_frames):
            if rng.random() < 0.1 * rate:
                near = every[np.isclose(sites.distance(np.full(24, vacancy), every), A / np.sqrt(2), atol=0.1)]
                site = int(rng.choice(near))
                atom = atom_at.pop(site)
                way = sites.places[vacancy] - places[atom] @ np.linalg.inv(sites.cell)
                places[atom] += (way - np.round(way)) @ sites.cell
                atom_at[vacancy], vacancy = atom, site
            paths[frame] = places
        rest = np.concatenate([corners, corners + A / 2])
        positions = np.concatenate([paths, np.tile(rest, (n_frames, 1, 1))], axis=1)
        positions += rng.normal(0, swing, positions.shape)
        numbers = np.array([53] * 23 + [82] * 8 + [55] * 8)
        return make_run(numbers, positions, np.tile(sites.cell, (n_frames, 1, 1)))

    return make


def measured(run, **settings):
    return measure_displacements(run, orm.Dict(settings))


def test_species_are_followed_and_hops_counted(vacancy_run):
    run = vacancy_run(rate=0.2)
    found = measured(run, followed=['I', 'Cs'])
    arrays, species = found['displacements'], found['counts']['species']
    kinds = [f'{name}__{kind}__{what}' for name in ('I', 'Cs') for kind in ('sum', 'tracer', 'collective')
             for what in ('values', 'parts')]  # fmt: skip
    assert set(arrays.get_arraynames()) == {*kinds, 'I__lags', 'Cs__lags'}
    assert arrays.get_array('I__lags')[1] == pytest.approx(0.1)
    assert species['I']['n_particles'] == 23
    assert species['I']['n_host'] == 8
    assert 25 <= species['I']['hops']['n_hops'] <= 60
    assert species['I']['hops']['n_defects'] == 1
    assert species['Cs']['hops']['n_hops'] == 0
    assert found['counts']['content_hash'] == run.content_hash
    assert found['counts'].creator.inputs.trajectory.uuid == run.uuid


def test_hops_that_cannot_be_counted_are_told_and_do_not_stop_the_rest(make_run):
    rng = np.random.default_rng(0)
    positions = np.tile(rng.uniform(0, 10, (6, 3)), (100, 1, 1)) + rng.normal(0, 0.1, (100, 6, 3))
    run = make_run(np.array([53, 53, 53, 53, 82, 82]), positions, np.tile(10 * np.eye(3), (100, 1, 1)))
    species = measured(run)['counts']['species']['I']
    assert species['hops'] is None
    assert 'name the sites yourself' in species['hops_lack']
    assert measured(run, hop_window=None)['counts']['species']['I']['hops_lack'] is None


@pytest.fixture
def molecular_run(make_run):
    """Return a run of MAPbI3 in which molecules turn and walk as wholes, and the walk (F, 8, 3) in Å."""
    atoms = cubic('MA', 'Pb', 'I', A, (2, 2, 2))
    rng, n_frames = np.random.default_rng(0), 400
    members = [np.flatnonzero(np.isin(atoms.numbers, (1, 6, 7))).reshape(8, 8)[at] for at in range(8)]
    walk = np.cumsum(rng.normal(0, 0.05, (n_frames, 8, 3)), axis=0)
    atoms.positions[members[0][:2]] += atoms.cell.array[0]  # cut by the border
    positions = np.tile(atoms.positions, (n_frames, 1, 1))
    for at, part in enumerate(members):
        positions[:, part] += walk[:, at, None]
    run = make_run(atoms.numbers, positions, np.tile(atoms.cell.array, (n_frames, 1, 1)), atoms.get_masses())
    return run, walk


def test_molecules_are_followed_by_any_convention(molecular_run):
    run, walk = molecular_run
    exact = ((walk[50:] - walk[:-50]) ** 2).sum((1, 2)).mean()
    centre = measured(run, followed=['MA'])
    species = centre['counts']['species']['MA']
    assert species['n_particles'] == 8
    assert species['hops']['ambiguous'] < 0.5  # also where a molecule lies across the border of the cell
    values = centre['displacements'].get_array('MA__sum__values')
    assert values[50] == pytest.approx(exact, rel=1e-4)
    elements = measured(run, followed=['MA'], molecules='elements')['displacements']
    assert elements.get_array('MA__sum__values')[50] == pytest.approx(exact, rel=1e-4)
    assert 'MA__tracer__values' not in elements.get_arraynames()
    literal = measured(run, followed=['MA'], molecules='literal')['displacements']
    assert literal.get_array('MA__sum__values')[50] == pytest.approx(8 / 3 * exact, rel=1e-4)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'followed': ['Br']}, 'there is no Br in the trajectory; it holds Cs, I, Pb'),
        ({'followed': ['MA']}, 'bonds show no MA'),
        ({'followed': ['I'], 'host': 'Sn'}, 'there is no Sn'),
        ({'follow': ['I']}, "unknown setting 'follow'"),
        ({'molecules': 'somehow'}, "'centre', 'elements', 'literal'"),
    ],
)
def test_what_cannot_be_followed_is_refused(vacancy_run, settings, words):
    with pytest.raises(ValueError, match=words):
        measured(vacancy_run(rate=0.0, n_frames=30), **settings)


def test_the_bayesian_check_is_made_or_says_what_it_takes(vacancy_run):
    run = vacancy_run(rate=1.0, n_frames=500)
    try:
        import kinisi  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match='pip install kinisi'):
            measured(run, bayesian=True)
        return
    assert measured(run, bayesian=True)['counts']['species']['I']['posterior']['error'] > 0


def analysed(runs, **more):
    """Return what runs say together; `runs` has temperatures and what was measured."""
    entries, nodes = [], {}
    for number, (kelvin, found) in enumerate(runs):
        entries.append({'temperature': kelvin, 'seed': number, 'displacements': f'd{number}', 'counts': f'c{number}'})
        nodes |= {f'd{number}': found['displacements'], f'c{number}': found['counts']}
    return analyse_diffusion(orm.Dict({'runs': entries, **more}), **nodes)


def diffusion_from(values):
    """Return a coefficient as runs have it that gave these."""
    lags = np.linspace(0, 10, 30)
    slopes = np.asarray(values) * 6e4
    return diffusion_of([Msd('sum', lags, slope * lags, slope * np.tile(lags, (5, 1)), 1, 60, 20.0, 0, True)
                         for slope in slopes], Window(1.0, 5.0))  # fmt: skip


def test_runs_at_several_temperatures_make_an_arrhenius_line(vacancy_run):
    energy, kelvins = 0.2, (500.0, 600.0, 700.0)
    runs = []
    for number, kelvin in enumerate(kelvins):
        rate = 1.0 * np.exp(-energy / BOLTZMANN * (1 / kelvin - 1 / 700.0))
        runs += [(kelvin, measured(vacancy_run(rate, 1500, seed=10 * number + seed))) for seed in range(3)]
    found = analysed(runs, material='CsPbI3')
    result = found['diffusion'].get_dict()
    assert result['material'] == 'CsPbI3'
    assert 'ends at 1/5' in result['rule']
    rows = result['species']['I']['sum']['temperatures']
    assert [row['temperature'] for row in rows] == list(kelvins)
    for row in rows:
        assert (row['n_runs'], row['error_of'], row['lack']) == (3, 'runs', None)
        assert row['coefficient'] > 0
        assert row['window']['is_chosen']
    fit = result['species']['I']['sum']['arrhenius']
    assert fit['activation_energy'] == pytest.approx(energy, abs=0.08)
    assert result['species']['I']['bound'] is None
    hops = result['species']['I']['hops']
    assert [row['n_runs'] for row in hops] == [3, 3, 3]
    assert hops[0]['n_hops'] < hops[2]['n_hops']
    for row, seen in zip(rows, hops, strict=True):
        assert row['coefficient'] < 1.6 * seen['coefficient']  # hops that return carry nothing on
    assert result['species']['I']['notes'] == []
    arrays = found['msd']
    assert arrays.get_array('I__sum__600K__runs').shape[0] == 3
    assert arrays.get_array('I__sum__600K__mean')[-1] == pytest.approx(
        arrays.get_array('I__sum__600K__runs')[:, -1].mean()
    )
    assert len(arrays.get_array('I__sum__600K__lags')) < 450


def test_what_does_not_move_has_a_lower_bound_and_no_line(vacancy_run):
    runs = [(kelvin, measured(vacancy_run(0.0, 600, seed=int(kelvin)))) for kelvin in (500.0, 600.0)]
    species = analysed(runs, attempt_frequency=0.5)['diffusion']['species']['I']
    assert species['sum']['arrhenius'] is None
    assert 'is not 4 times its standard error' in species['sum']['arrhenius_lack']
    assert species['bound']['temperature'] == 600.0
    assert species['bound']['activation_energy'] == pytest.approx(BOLTZMANN * 600 * np.log(0.5 * 59.9))


def test_where_sites_cannot_be_told_there_is_no_bound(make_run):
    """Iodides that walk freely are on no sites: that no hop was counted does not say that they rest."""
    corners = A * np.array([(i, j, k) for i in range(2) for j in range(2) for k in range(2)], dtype=float)
    rng, n_frames = np.random.default_rng(0), 600
    start = midpoints(corners, 2 * A * np.eye(3)).places * 2 * A + rng.uniform(-2, 2, (24, 3))
    walk = start + np.cumsum(rng.normal(0, 0.3, (n_frames, 24, 3)), axis=0)
    positions = np.concatenate([walk, np.tile(corners, (n_frames, 1, 1))], axis=1)
    run = make_run(np.array([53] * 24 + [82] * 8), positions, np.tile(2 * A * np.eye(3), (n_frames, 1, 1)))
    species = analysed([(600.0, measured(run))])['diffusion']['species']['I']
    (row,) = species['hops']
    assert (row['n_hops'], row['ambiguous'], row['duration_told']) == (0, 1.0, 0.0)
    assert species['bound'] is None


def test_a_run_that_is_too_short_has_no_coefficient_and_says_why(vacancy_run):
    found = analysed([(600.0, measured(vacancy_run(1.0, 25)))])['diffusion']['species']['I']
    (row,) = found['collective']['temperatures']
    assert '30 are the least for a window' in row['lack']
    assert found['collective']['arrhenius'] is None


def test_what_hops_do_not_account_for_is_noted(make_run):
    """Iodides that crawl within their sites are no diffusion, however surely their displacement grows."""
    corners = A * np.array([(i, j, k) for i in range(2) for j in range(2) for k in range(2)], dtype=float)
    sites = midpoints(corners, 2 * A * np.eye(3))
    places, n_frames, rng = sites.places @ sites.cell, 400, np.random.default_rng(0)
    crawl = np.linspace(0, 1.5, n_frames)[:, None, None] * rng.choice([-1.0, 1.0], (1, 24, 3))
    positions = np.concatenate([places + crawl, np.tile(corners, (n_frames, 1, 1))], axis=1)
    positions += rng.normal(0, 0.1, positions.shape)
    cells = np.tile(sites.cell, (n_frames, 1, 1))
    seen = measured(make_run(np.array([53] * 24 + [82] * 8), positions, cells))
    found = analysed([(600.0, seen), (700.0, seen)])
    notes = found['diffusion']['species']['I']['notes']
    assert any('0 hops account for 0 cm²/s' in note for note in notes)
    assert any('nowhere grows evenly' in note for note in notes)
    assert found['diffusion']['species']['I']['bound'] is not None
    fitted = found['diffusion']['species']['I']['sum']
    assert fitted['arrhenius'] is None
    assert 'no hop was seen at any temperature' in fitted['arrhenius_lack']


@pytest.mark.parametrize('seed', range(3))
def test_chance_at_one_of_five_temperatures_makes_no_line(seed):
    """Three runs do not know their own spread; with two degrees of freedom one in ten is above twice its error."""
    rng = np.random.default_rng(seed)
    draws = np.array([draw for draw in rng.normal(0, 1e-6, (400, 3)) if draw.mean() > 2 * draw.std(ddof=1) / 3**0.5])
    rest = rng.normal(0, 1e-6, (4, 3))
    runs = [*rest - rest.mean(axis=1, keepdims=True), draws[0]]
    found = [(500.0 + 25 * at, diffusion_from(values)) for at, values in enumerate(runs)]
    assert any(each.coefficient > 2 * each.error for _, each in found)
    assert _dependence(found)['arrhenius'] is None


def test_runs_that_melt_are_left_out_and_named(vacancy_run, make_run):
    rng, n_frames = np.random.default_rng(0), 400
    liquid = np.cumsum(rng.normal(0, 0.2, (n_frames, 39, 3)), axis=0)
    numbers = np.array([53] * 23 + [82] * 8 + [55] * 8)
    melted = measured(make_run(numbers, liquid, np.tile(2 * A * np.eye(3), (n_frames, 1, 1))))
    assert not melted['counts']['host']['stays']
    whole = measured(vacancy_run(1.0, n_frames))
    assert whole['counts']['host']['stays']
    assert whole['counts']['host']['distance'] == pytest.approx(A)
    species = analysed([(600.0, whole), (800.0, melted), (600.0, melted)])['diffusion']['species']['I']
    assert [row['n_runs'] for row in species['sum']['temperatures']] == [1]
    assert [note.partition(' is left out')[0] for note in species['notes'] if 'it melts' in note] == [
        'at 800 K the run with the seed 1',
        'at 600 K the run with the seed 2',
    ]
    with pytest.raises(ValueError, match='in all 1 runs the host goes away'):
        analysed([(800.0, melted)])


def test_a_window_of_ones_own_is_kept(vacancy_run):
    found = analysed([(600.0, measured(vacancy_run(1.0, 300)))], window=[1.0, 2.5])['diffusion']
    row = found['species']['I']['sum']['temperatures'][0]
    assert (row['window']['begin'], row['window']['end'], row['window']['is_chosen']) == (1.0, 2.5, False)


# ------------------------------------------------------------------ defects


def test_defects_are_put_into_a_crystal_and_lead_back_to_it():
    crystal = DatasetData.from_ase([cubic('Cs', 'Pb', 'I', A, (2, 2, 2))])
    vacancy = make_defect(crystal, orm.Dict({'ion': 'I', 'which': 5, 'charge': 1}))
    assert (len(vacancy.frames[0]), vacancy.frames[0].charge) == (39, 1)
    assert vacancy.creator.inputs.crystal.uuid == crystal.uuid
    more = make_defect(crystal, orm.Dict({'kind': 'interstitial', 'ion': 'MA', 'charge': 1}))
    assert len(more.frames[0]) == 48
    with pytest.raises(ValueError, match='2 frames'):
        make_defect(DatasetData.from_frames([crystal.frames[0]] * 2), orm.Dict({}))
    with pytest.raises(ValueError, match="'vacancy', 'interstitial'"):
        make_defect(crystal, orm.Dict({'kind': 'hole'}))


# ------------------------------------------------------------------ lattice constants


@pytest.fixture
def npt_run(make_run):
    def make(constant, n=2, noise=0.01, seed=0):
        rng = np.random.default_rng(seed)
        sides = n * (constant + rng.normal(0, noise, 200))
        numbers = np.array([82] * n**3 + [53])
        cells = sides[:, None, None] * np.eye(3)
        return make_run(numbers, np.zeros((200, n**3 + 1, 3)), cells)

    return make


def test_lattice_constants_of_runs_are_extrapolated(npt_run):
    points = {}
    for kelvin in (300, 400, 500):
        run = npt_run(6.2 + 3e-4 * kelvin, seed=kelvin)
        points[f'at_{kelvin}'] = measure_lattice(run, orm.Dict({'temperature': kelvin, 'host': 'Pb'}))
    assert points['at_300']['repeat'] == [2, 2, 2]
    assert points['at_300']['constant'] == pytest.approx(6.29, abs=0.003)
    found = fit_lattice(orm.Dict({'temperatures': [400.0, 600.0]}), **points).get_dict()
    inside, outside = found['constants']
    assert outside['constant'] == pytest.approx(6.38, abs=3 * outside['error'])
    assert (inside['is_extrapolated'], outside['is_extrapolated']) == (False, True)
    assert outside['error'] > inside['error']
    assert found['line']['slope'] == pytest.approx(3e-4, rel=0.1)


def test_given_lattice_constants_are_taken_as_they_are():
    found = fit_lattice(orm.Dict({'temperatures': [500.0], 'given': {'500': 6.354, '600': 6.377}}))
    assert found['constants'] == [{'temperature': 500.0, 'constant': 6.354}]
    with pytest.raises(ValueError, match='given at 550 K'):
        fit_lattice(orm.Dict({'temperatures': [550.0], 'given': {'500': 6.354}}))


def test_a_structure_is_scaled_to_the_constant_of_a_temperature():
    frame = Frame(np.array([82] * 8), np.full((8, 3), 3.0), np.diag([12.0, 12.0, 13.0]), np.ones(3, bool), charge=1)
    lattice = orm.Dict({'constants': [{'temperature': 500.0, 'constant': 6.354}]})
    found = scale_cell(
        DatasetData.from_frames([frame]), lattice, orm.Dict({'temperature': 500.0, 'host': 'Pb'})
    ).frames[0]
    assert abs(np.linalg.det(found.cell)) == pytest.approx(8 * 6.354**3)
    assert found.cell[2, 2] / found.cell[0, 0] == pytest.approx(13 / 12)
    assert found.positions[0, 0] / found.cell[0, 0] == pytest.approx(0.25)
    assert found.charge == 1


def test_cells_that_are_not_made_of_cubes_need_a_word():
    numbers = np.array([82] * 4 + [53] * 12)
    assert repeat_of(np.array([82] * 12), np.diag([12.4, 12.6, 19.0]), 'Pb') == (2, 2, 3)
    slanted = 6.2 * np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 2]])
    with pytest.raises(ValueError, match='say by `repeat`'):
        repeat_of(numbers, slanted, 'Pb')
    with pytest.raises(ValueError, match='0 Sn'):
        repeat_of(numbers, np.diag([12.4, 12.4, 6.2]), 'Sn')
