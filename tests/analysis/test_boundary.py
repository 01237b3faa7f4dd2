"""The boundary of shares that were made from a curve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from aiida_perovmlip.analysis.boundary import boundary_of, diagram_of
from aiida_perovmlip.analysis.transitions import Ramp, Transition

X = np.array([0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0])


def shares(centre=0.27, width=0.05, n=6, noise=0.05, seed=0, x=X):
    rng = np.random.default_rng(seed)
    return [np.clip(expit((each - centre) / width) + rng.normal(0, noise, n), 0, 1) for each in x]


def test_the_centre_of_an_exact_curve_is_exact():
    found = boundary_of(X, shares(noise=0.0, n=1))
    assert found.centre == pytest.approx(0.27, abs=1e-6)
    assert found.width == pytest.approx(0.05, abs=1e-6)
    assert found.midpoint == pytest.approx(0.27, abs=0.005)
    assert found.error == pytest.approx(0.0, abs=1e-6)
    assert found.n_compositions == 8


def test_a_falling_share_has_the_same_boundary():
    falling = [1 - values for values in shares(noise=0.0, n=1)]
    assert boundary_of(X, falling).centre == pytest.approx(0.27, abs=1e-6)


def test_the_order_of_compositions_does_not_matter():
    known = shares()
    order = np.random.default_rng(1).permutation(len(X))
    assert boundary_of(X[order], [known[index] for index in order]) == boundary_of(X, known)


@pytest.mark.parametrize('n', [1, 6])
def test_the_error_covers_the_truth_in_two_of_three_experiments(n):
    """Each of 20 layers is M with the probability of the curve."""
    inside = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        drawn = [rng.binomial(20, expit((x - 0.27) / 0.05), n) / 20 for x in X]
        found = boundary_of(X, drawn, n_draws=100)
        inside.append(abs(found.centre - 0.27) <= found.error)
    assert 0.5 < np.mean(inside) < 0.85


def test_more_runs_make_a_smaller_error():
    assert boundary_of(X, shares(n=40)).error < boundary_of(X, shares(n=4)).error


def test_a_jump_between_two_compositions_lies_between_them():
    found = boundary_of([0.0, 0.25, 0.3, 1.0], [[0.0], [0.0], [1.0], [1.0]])
    assert 0.25 < found.centre < 0.3
    assert found.midpoint == pytest.approx(0.275)


@pytest.mark.parametrize(('low', 'high'), [(0.0, 1.0), (0.1, 0.4)])
def test_a_jump_is_anywhere_between_two_compositions(low, high):
    """A uniform distribution over what lies between."""
    found = boundary_of([low, high], [[0.01, 0.0, 0.02], [0.99, 1.0, 0.98]])
    length = high - low
    assert found.error == pytest.approx(length / np.sqrt(12), rel=0.1)
    assert found.midpoint_error == pytest.approx(length / np.sqrt(12), rel=0.1)
    middle = (low + high) / 2
    assert found.interval == pytest.approx((middle - 0.34 * length, middle + 0.34 * length), abs=0.05 * length)


@pytest.mark.parametrize(
    ('x', 'values', 'sentence'),
    [
        ([0.5], [[0.5]], 'at least two that differ'),
        ([0.5, 0.5], [[0.5], [0.4]], 'at least two that differ'),
        ([0, 1], [[0.2], [1.2]], 'between 0 and 1'),
        ([0, 1], [[0.2], []], 'needs a share of M'),
        ([0, 1], [[0.1], [0.4]], 'is below one half from x = 0 .* there is no boundary'),
        ([0, 1], [[0.9], [0.6]], 'is above one half'),
    ],
)
def test_shares_that_tell_no_boundary_are_refused(x, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        boundary_of(x, values)


def test_a_phase_diagram_has_a_line_for_each_kind_and_direction():
    def ramp(direction, *each):
        return Ramp(direction, tuple(Transition(direction, t, 2.0, low, high) for t, low, high in each), (), ())

    heating = {
        0.0: [ramp('heating', (225, 'a-a-c+', 'a0a0c-'), (385, 'a0a0c-', 'a0a0a0'))],
        1.0: [ramp('heating', (170, 'a-a-c+', 'a0a0c+'), (310, 'a0a0c+', 'a0a0a0'))],
        0.1: [
            ramp('heating', (380, 'a0a0c-', 'a0a0a0')),
            ramp('cooling', (376, 'a0a0c-', 'a0a0a0')),
        ],
    }
    lines = diagram_of(heating)
    found = {(line.low, line.high, line.direction): line for line in lines}
    assert len(lines) == len(found) == 5
    upper = found['a0a0c-', 'a0a0a0', 'heating']
    assert (upper.x, upper.temperatures) == ((0.0, 0.1), (385, 380))
    assert found['a0a0c-', 'a0a0a0', 'cooling'].to_dict()['x'] == [0.1]
    assert diagram_of({}) == ()
