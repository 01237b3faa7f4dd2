"""Coefficients of diffusion of walks that are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.diffusion import Window, choose_window, diffusion_of, posterior_of
from aiida_perovmlip.analysis.displacement import Particles, displacements, sum_msd, survey, tracer_msd, tracks_of

CORRELATION = 0.6531
"""Part of a vacancy's hops on a simple cubic lattice that moves its neighbours on: Compaan and Haven (1956)."""

SIDE = 500.0


def blocks(positions, interval):
    n_frames = len(positions)
    return [(interval * np.arange(n_frames), positions, np.tile(SIDE * np.eye(3), (n_frames, 1, 1)))]


def walk(coefficient, n_frames=2000, n=50, interval=0.5, seed=0, swing=0.0):
    """Return a walk (n_frames, n, 3) in Å of a coefficient in cm²/s, with vibrations of a width in Å."""
    rng = np.random.default_rng(seed)
    width = np.sqrt(2 * coefficient * 1e4 * interval)
    positions = np.cumsum(rng.normal(0, width, (n_frames, n, 3)), axis=0)
    return positions + (rng.normal(0, swing, positions.shape) if swing else 0.0)


def run_of(positions, interval=0.5):
    return tracer_msd(blocks(positions, interval), Particles.of_atoms(np.arange(positions.shape[1])))


def vacancy_walk(n_steps, side=6, seed=0):
    """Return where the atoms of a simple cubic lattice are (n_steps + 1, n, 3) while a vacancy walks in it."""
    rng = np.random.default_rng(seed)
    places = np.array([(i, j, k) for i in range(side) for j in range(side) for k in range(side)])
    atom_at = np.arange(side**3).reshape(side, side, side)
    steps = np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)])
    vacancy, positions = np.zeros(3, dtype=int), places.astype(float)
    frames = np.empty((n_steps + 1, side**3, 3), dtype=np.float32)
    frames[0] = positions
    for frame, way in enumerate(steps[rng.integers(6, size=n_steps)], 1):
        there = (vacancy + way) % side
        atom = atom_at[tuple(there)]
        positions[atom] -= way
        atom_at[tuple(vacancy)], vacancy = atom, there
        frames[frame] = positions
    return frames[:, 1:]  # the first one is the vacancy


@pytest.fixture(scope='module')
def vacancies():
    """Return all displacements of four walks of a vacancy, one hop of 1 Å each ps."""
    found = []
    for seed in range(4):
        positions = vacancy_walk(12000, seed=seed)
        found.append(displacements(blocks(positions, 1.0), Particles.of_atoms(np.arange(positions.shape[1]))))
    return found


def test_units_are_those_of_the_handbook():
    """1 Å²/ps = 1e-4 cm²/s: a walk of 6 Å²/ps has D = 1e-4 cm²/s."""
    found = diffusion_of([run_of(walk(1e-4, n_frames=4000, n=200))])
    assert found.coefficient == pytest.approx(1e-4, rel=0.05)
    assert found.kind == 'tracer'


def test_the_sum_over_a_vacancys_neighbours_is_its_walk_less_correlation(vacancies):
    found = diffusion_of([run.sum for run in vacancies])
    walker = 1e-4 / 6  # one hop of 1 Å each ps
    assert found.coefficient / walker == pytest.approx(CORRELATION, abs=0.02)
    assert found.error < 0.01 * walker
    assert found.window.is_settled
    tracer = diffusion_of([run.tracer for run in vacancies])
    assert tracer.coefficient * found.n_particles == pytest.approx(found.coefficient)


def test_the_collective_displacement_is_the_walk_of_the_vacancy_itself(vacancies):
    found = diffusion_of([run.collective for run in vacancies], Window(1.0, 20.0))
    walker = 1e-4 / 6
    assert found.coefficient == pytest.approx(walker, rel=0.1)
    assert found.coefficient == pytest.approx(walker, abs=4 * found.block_error)


def test_vibrations_are_in_the_intercept_and_not_in_the_slope():
    still, swinging = (diffusion_of([run_of(walk(1e-6, n=100, swing=swing))]) for swing in (0.0, 0.5))
    assert swinging.intercepts[0] - still.intercepts[0] == pytest.approx(6 * 0.5**2, rel=0.05)
    assert swinging.coefficient == pytest.approx(still.coefficient, rel=0.1)


def test_a_window_begins_when_slow_vibrations_are_over():
    """An overdamped oscillator forgets within some relaxation times; what diffuses beneath comes out after these."""
    rng, interval, relaxation, n_frames = np.random.default_rng(0), 0.5, 10.0, 8000
    keeps = np.exp(-interval / relaxation)
    swing = np.zeros((n_frames, 100, 3))
    kicks = rng.normal(0, np.sqrt(1 - keeps**2), swing.shape)
    for frame in range(1, n_frames):
        swing[frame] = keeps * swing[frame - 1] + kicks[frame]
    found = diffusion_of([run_of(walk(1e-6, n_frames, 100) + swing)])
    assert found.window.is_settled
    assert found.window.begin > 2 * relaxation
    assert found.coefficient == pytest.approx(1e-6, rel=0.25)
    early = diffusion_of([run_of(walk(1e-6, n_frames, 100) + swing)], Window(0.5, 10.0))
    assert early.coefficient > 10e-6


def test_a_run_that_never_settles_says_so():
    n_frames = 400
    straight = np.arange(n_frames)[:, None, None] * np.random.default_rng(0).normal(0, 0.1, (1, 20, 3))
    window = choose_window([run_of(straight)])
    assert not window.is_settled
    assert (window.begin, window.end) == (26.5, 40.0)


def test_runs_give_the_standard_error_of_their_mean():
    runs = [run_of(walk(1e-5, n_frames=400, n=10, seed=seed)) for seed in range(5)]
    found = diffusion_of(runs)
    each = [diffusion_of([run], found.window).coefficient for run in runs]
    assert found.coefficients == pytest.approx(each)
    assert found.coefficient == pytest.approx(np.mean(each))
    assert found.error == pytest.approx(np.std(each, ddof=1) / np.sqrt(5))
    assert (found.error_of, found.n_runs, found.duration) == ('runs', 5, pytest.approx(5 * 199.5))


def test_the_error_of_a_single_run_is_as_large_as_runs_differ():
    runs = [run_of(walk(1e-5, n_frames=1000, n=5, seed=seed)) for seed in range(60)]
    window = Window(0.5, 50.0)
    alone = [diffusion_of([run], window) for run in runs]
    assert {found.error_of for found in alone} == {'blocks'}
    spread = np.std([found.coefficient for found in alone], ddof=1)
    assert np.sqrt(np.mean([found.error**2 for found in alone])) == pytest.approx(spread, rel=0.3)
    covers = np.mean([abs(found.coefficient - 1e-5) < found.error for found in alone])
    assert 0.5 < covers < 0.8
    assert diffusion_of(runs, window).block_error == pytest.approx(spread / np.sqrt(60), rel=0.3)


def test_what_does_not_move_diffuses_by_no_more_than_its_error():
    rng = np.random.default_rng(0)
    runs = [run_of(rng.normal(0, 0.3, (1000, 40, 3))) for _ in range(5)]
    found = diffusion_of(runs)
    assert abs(found.coefficient) < 3 * found.error
    assert found.error < 1e-8


def test_a_window_of_ones_own_is_kept():
    found = diffusion_of([run_of(walk(1e-5))], Window(5.0, 20.0))
    assert found.window == Window(5.0, 20.0, is_settled=True, is_chosen=False)
    assert found.numbers()['window']['begin'] == 5.0


def test_what_has_no_coefficient_is_refused():
    run = run_of(walk(1e-5, n_frames=200))
    with pytest.raises(ValueError, match='no run'):
        diffusion_of([])
    with pytest.raises(ValueError, match='different kinds'):
        diffusion_of([run, sum_msd(blocks(walk(1e-5), 0.5), Particles.of_atoms([0]))])
    with pytest.raises(ValueError, match='0 times lie between 300 and 400 ps'):
        diffusion_of([run], Window(300.0, 400.0))
    short = displacements(blocks(walk(1e-5, n_frames=29), 0.5), Particles.of_atoms(np.arange(50)))
    with pytest.raises(ValueError, match='29 frames; 30 are the least'):
        choose_window([short.collective])
    assert choose_window([short.sum]).end == 2.5
    with pytest.raises(ValueError, match='different times'):
        choose_window([run, run_of(walk(1e-5, n_frames=200), interval=0.25)])


def test_without_kinisi_the_bayesian_check_says_how_to_get_it():
    try:
        import kinisi  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match='pip install kinisi'):
            posterior_of(np.zeros((1, 3, 50)), 0.5, 1.0)


def test_bayesian_regression_agrees_with_the_fit():
    pytest.importorskip('kinisi', reason='kinisi, which asks for numpy 2, is not installed')
    positions = walk(1e-5, n_frames=1000, n=50, swing=0.2)
    source, particles = blocks(positions, 0.5), Particles.of_atoms(np.arange(50))
    fit = diffusion_of([sum_msd(source, particles)])
    posterior = posterior_of(tracks_of(source, particles, survey(source)), 0.5, fit.window.begin)
    assert posterior.coefficient == pytest.approx(50 * 1e-5, rel=0.15)
    assert posterior.coefficient == pytest.approx(fit.coefficient, abs=3 * np.hypot(fit.error, posterior.error))
    assert posterior.interval[0] < posterior.coefficient < posterior.interval[1]
