"""Change points of ramps whose transitions were put in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aiida_perovmlip.analysis.transitions import (
    Ramp,
    Transition,
    cut,
    hysteresis_of,
    noise_of,
    transitions_of,
)


def ramp(low=225.0, high=385.0, n=80, noise=0.02, seed=0, jump=0.12):
    """Return windows of MAPbI3 as the study sees it: a-a-c+ up to `low`, a0a0c- up to `high`, then cubic."""
    rng = np.random.default_rng(seed)
    t = np.linspace(1, 480, n)
    order = np.sqrt(np.clip(1 - t / high, 0, None)) * 0.5 + 0.2 * (t < high)
    orthorhombic, tetragonal = t < low, (t >= low) & (t < high)
    m_z = np.where(orthorhombic, 0.5 - 2e-4 * t, 0.02)
    r_x = np.where(orthorhombic, 0.55 - 2e-4 * t, 0.02)
    r_z = np.where(tetragonal, order, 0.02)
    a = 6.3 + 2e-4 * t - jump * tetragonal
    c = 6.3 + 2e-4 * t + jump * tetragonal
    values = np.stack([m_z, r_x, r_z, a, c], axis=1) + rng.normal(0, noise, (n, 5))
    labels = np.where(orthorhombic, 'a-a-c+', np.where(tetragonal, 'a0a0c-', 'a0a0a0'))
    return t, values, labels.tolist()


def test_known_transitions_are_found_within_their_errors():
    t, values, labels = ramp()
    found = transitions_of(t, values, labels, 'heating')
    assert [(each.low, each.high) for each in found.transitions] == [('a-a-c+', 'a0a0c-'), ('a0a0c-', 'a0a0a0')]
    step = t[1] - t[0]
    for each, true in zip(found.transitions, (225.0, 385.0), strict=True):
        assert abs(each.temperature - true) <= step
        assert 0.999 * step / np.sqrt(12) <= each.error < 2 * step
        assert each.direction == 'heating'


def test_cooling_is_read_by_rising_temperature_as_well():
    t, values, labels = ramp()
    up = transitions_of(t, values, labels, 'heating')
    down = transitions_of(t[::-1], values[::-1], labels[::-1], 'cooling')
    assert [each.temperature for each in down.transitions] == [each.temperature for each in up.transitions]
    assert down.direction == 'cooling'


def test_a_phase_that_expands_has_no_transition():
    rng = np.random.default_rng(0)
    t = np.linspace(1, 400, 100)
    values = np.stack([6.3 + 4e-4 * t, 0.4 - 5e-4 * t], axis=1) + rng.normal(0, 0.005, (100, 2))
    found = transitions_of(t, values, ['a0a0c-'] * 100, 'heating')
    assert (found.transitions, found.within, found.labels) == ((), (), ('a0a0c-',))
    # Constant pieces would have cut it into steps.
    assert len(cut(t, values, straight=False).breaks) > 2


def test_a_jump_within_a_phase_is_told_but_is_no_transition():
    t = np.linspace(1, 400, 100)
    values = 6.3 + 0.1 * (t > 200) + np.random.default_rng(0).normal(0, 0.01, 100)
    found = transitions_of(t, values, ['a0a0a0'] * 100, 'cooling')
    assert found.transitions == ()
    assert found.within == pytest.approx((200.0,), abs=4.1)
    assert found.labels == ('a0a0a0',)


def test_a_single_odd_window_makes_no_phase():
    t, values, labels = ramp()
    labels[5] = labels[70] = 'mixed'
    found = transitions_of(t, values, labels, 'heating')
    assert [(each.low, each.high) for each in found.transitions] == [('a-a-c+', 'a0a0c-'), ('a0a0c-', 'a0a0a0')]


def test_a_tilt_that_sets_in_gently_is_found_by_its_label():
    t = np.linspace(100, 400, 60)
    values = np.clip((300 - t) / 200, 0, None) + np.random.default_rng(1).normal(0, 0.3, 60)
    labels = np.where(t < 300, 'a0a0c+', 'a0a0a0').tolist()
    (found,) = transitions_of(t, values, labels, 'heating').transitions
    assert found.temperature == pytest.approx(300, abs=5.1)


def test_errors_cover_the_truth_and_grow_with_noise():
    errors, inside = {}, []
    for noise in (0.02, 0.25):
        found = []
        for seed in range(20):
            t, values, labels = ramp(noise=noise, seed=seed, n=60)
            values = values[:, [2, 3]]
            (each,) = transitions_of(
                t, values, ['x' if name == 'a0a0a0' else 'y' for name in labels], 'heating', n_draws=20
            ).transitions
            found.append(each.error)
            inside.append(abs(each.temperature - 385.0) < 2 * each.error)
        errors[noise] = np.mean(found)
    assert errors[0.25] > errors[0.02]
    assert np.mean(inside) > 0.8


def test_the_cut_is_the_best_of_all():
    """Every cut of a short series, tried one by one."""
    rng = np.random.default_rng(4)
    x = np.arange(14.0)
    values = np.stack([np.where(x < 5, x, np.where(x < 9, 3 - x, 1.0)), x**2 / 20], axis=1) + rng.normal(
        0, 0.4, (14, 2)
    )
    for straight in (True, False):
        noise = noise_of(values)

        def cost(breaks, straight=straight, noise=noise):
            total = 0.0
            for start, stop in itertools.pairwise([0, *breaks, 14]):
                basis = np.vander(x[start:stop], 2 if straight else 1)
                part = values[start:stop] / noise
                total += np.sum((part - basis @ np.linalg.lstsq(basis, part, rcond=None)[0]) ** 2)
            return total

        allowed = [pair for pair in itertools.combinations(range(3, 12), 2) if pair[1] - pair[0] >= 3]
        best = min(allowed, key=cost)
        found = cut(x, values, n_breaks=2, straight=straight)
        assert found.breaks == best
        assert found.cost == pytest.approx(cost(best))


def test_noise_is_told_beside_a_line_and_jumps():
    rng = np.random.default_rng(0)
    x = np.arange(4000.0)
    values = 0.3 * x + 50 * (x > 1000) - 70 * (x > 3000) + rng.normal(0, 0.5, 4000)
    assert noise_of(values[:, None]) == pytest.approx([0.5], rel=0.05)


@pytest.mark.parametrize('seed', range(4))
def test_activations_that_are_mostly_zero_draw_no_transition_to_them(seed):
    """Where nothing lasts an activation is zero, and so are most of its differences; the rest is noise all the same."""
    rng, t = np.random.default_rng(seed), np.linspace(50, 450, 40)
    activations = np.where(rng.random((40, 6)) < 0.8, 0.0, np.abs(rng.normal(0, 0.02, (40, 6))))
    activations[:, 5] = np.where(t < 150, 0.35 + rng.normal(0, 0.01, 40), activations[:, 5])
    lengths = 6.2 + 1e-4 * t[:, None] + rng.normal(0, 0.003, (40, 3)) + np.outer(t < 150, [0, 0, 0.1])
    labels = ['a0a0c-' if kelvin < 150 else 'a0a0a0' for kelvin in t]
    (found,) = transitions_of(t, np.hstack([activations, lengths]), labels, 'heating').transitions
    assert found.temperature == pytest.approx(150, abs=11)


def test_a_quantity_that_never_varies_weighs_nothing():
    t, values, labels = ramp()
    wider = np.hstack([values, np.full((80, 2), 90.0)])
    known, found = (transitions_of(t, each, labels, 'heating') for each in (values, wider))
    assert [each.temperature for each in found.transitions] == [each.temperature for each in known.transitions]


def test_series_without_noise_are_cut_where_they_jump():
    x = np.arange(20.0)
    assert cut(x, np.where(x < 7, 0.0, 1.0)[:, None]).breaks == (7,)


def test_a_short_ramp_has_as_few_changes_as_fit():
    found = transitions_of(np.arange(5.0), np.zeros((5, 1)), ['a'] * 2 + ['b'] * 3, 'heating')
    assert found.transitions == ()
    assert found.labels == ('b',)


def test_heating_and_cooling_are_kept_apart():
    def seen(direction, *each):
        return Ramp(direction, tuple(Transition(direction, *values) for values in each), (), ())

    heating = seen('heating', (225.0, 3.0, 'a-a-c+', 'a0a0c-'), (385.0, 4.0, 'a0a0c-', 'a0a0a0'))
    cooling = seen('cooling', (379.0, 3.0, 'a0a0c-', 'a0a0a0'))
    lower, upper = hysteresis_of(heating, cooling)
    assert (lower.heating, lower.cooling, lower.width) == (225.0, None, None)
    assert (upper.heating, upper.cooling, upper.width) == (385.0, 379.0, 6.0)
    assert upper.width_error == pytest.approx(5.0)
    assert hysteresis_of(None, cooling)[0].heating is None
    assert hysteresis_of(None, None) == ()


@pytest.mark.parametrize(
    ('x', 'values', 'options', 'sentence'),
    [
        ([0, 1], [0, 1], {}, 'at least three finite points'),
        ([0, 2, 1], [0, 1, 2], {}, 'growing order'),
        ([0, 1, 2], [0, np.nan, 2], {}, 'finite points'),
        ([0, 1, 2, 3], [0, 1, 2, 3], {'n_breaks': 1}, 'cannot be cut 1 times into pieces of at least 3'),
    ],
)
def test_what_cannot_be_cut_is_refused(x, values, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        cut(np.array(x, dtype=float), np.array(values, dtype=float), **options)
