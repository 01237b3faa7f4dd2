"""Labels of crystals whose tilt system is known, frozen and warm."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aiida_perovmlip.analysis.glazer import activations, label_windows, name_of, shares_of, spectrum_of
from aiida_perovmlip.analysis.tilts import octahedra_of, tilt_series
from aiida_perovmlip.structures.perovskite import cubic, tilted

A = 6.3
D = A / 2 * np.tan(np.radians(8.0))


def stacked(pattern, repeat):
    """Return how far the atoms of an a0a0c+ crystal move whose layers along z turn by the signs of a pattern."""
    shift = tilted('Cs', 'Pb', 'I', A, repeat, 'a0a0c+', 8.0).positions - cubic('Cs', 'Pb', 'I', A, repeat).positions
    shift = shift.reshape(*repeat, 5, 3) * np.asarray(pattern, dtype=float)[:, None, None]
    return shift.reshape(-1, 3)


def frozen(glazer, repeat):
    return tilted('Cs', 'Pb', 'I', A, repeat, glazer, 8.0).positions - cubic('Cs', 'Pb', 'I', A, repeat).positions


def windows_of(shift, repeat=(4, 4, 4), noise=0.2, n_frames=40, window=None, seed=0, **options):
    """Return the labels of a crystal in white noise, strained by 1 % along z, drifting and wrapped."""
    rng = np.random.default_rng(seed)
    ideal = cubic('Cs', 'Pb', 'I', A, repeat)
    octahedra = octahedra_of(ideal.numbers, ideal.positions, ideal.cell.array)
    strain = np.diag([1.0, 1.0, 1.01])
    cell = ideal.cell.array @ strain
    shift = np.broadcast_to(shift, (n_frames, len(ideal), 3))
    positions = (ideal.positions + shift + rng.normal(0, noise, (n_frames, len(ideal), 3))) @ strain
    positions += np.arange(n_frames)[:, None, None] * np.array([0.3, -0.7, 0.1])
    positions = (positions @ np.linalg.inv(cell) % 1.0) @ cell
    blocks = [(0.1 * np.arange(n_frames), positions, np.repeat(cell[None], n_frames, axis=0))]
    return label_windows(tilt_series(blocks, octahedra, window), **options)


@pytest.mark.parametrize('glazer', ['a0a0a0', 'a0a0c-', 'a0a0c+', 'a-a-c+'])
@pytest.mark.parametrize('noise', [0.0, 0.35])
def test_frozen_tilts_get_their_names_on_strained_drifting_wrapped_warm_cells(glazer, noise):
    (window,) = windows_of(frozen(glazer, (4, 4, 4)), noise=noise)
    assert window.label == glazer
    assert window.confidence == 1.0
    assert window.lengths == pytest.approx([A, A, 1.01 * A])
    assert window.lengths_error == pytest.approx([0.0, 0.0, 0.0])


def test_layers_that_turn_in_pairs_are_mixed_and_not_cubic():
    (window,) = windows_of(stacked([1, 1, -1, -1], (4, 4, 4)))
    assert (window.label, window.pattern, window.confidence) == ('mixed', '00m', 1.0)
    assert np.abs([*window.m, *window.r]) == pytest.approx(0.0, abs=0.02)
    assert window.tilt[2] == pytest.approx(2 * D / 3, abs=0.02)
    assert window.shares[2] == pytest.approx((0, 0, 1), abs=0.02)
    assert window.m_layers[2] == pytest.approx(window.r_layers[2], abs=0.02)
    assert window.activation == pytest.approx(0.5, abs=0.02)


def test_half_layers_of_each_kind_are_mixed_with_equal_activations():
    pattern = [1, 1, 1, 1, -1, 1, -1, 1]
    (window,) = windows_of(stacked(pattern, (2, 2, 8)), repeat=(2, 2, 8))
    assert window.label == 'mixed'
    assert window.activation == pytest.approx(0.5, abs=0.02)


def test_domains_that_cancel_in_each_layer_are_mixed():
    shift = frozen('a0a0c-', (8, 4, 4)).reshape(8, 4, 4, 5, 3).copy()
    shift[4:] *= -1
    (window,) = windows_of(shift.reshape(-1, 3), repeat=(8, 4, 4))
    assert (window.label, window.pattern) == ('mixed', '00d')
    assert window.tilt[2] < window.floor[2]
    assert window.local[2] > 0.8 * 2 * D / 3


def test_a_tilt_that_flips_faster_than_the_window_is_cubic():
    shift = frozen('a0a0c-', (2, 2, 2)) * np.repeat([1, -1] * 10, 4)[:, None, None]
    (window,) = windows_of(shift, repeat=(2, 2, 2), n_frames=80)
    assert window.label == 'a0a0a0'
    assert window.r_absolute[2] == pytest.approx(2 * D / 3, abs=0.05)
    assert window.r[2] == pytest.approx(0.0, abs=0.05)
    assert window.floor[2] == pytest.approx(2 * 2 * D / 3, abs=0.1)  # twice what fluctuates is the floor


def test_a_tilt_smaller_than_asked_for_has_no_name():
    shift = frozen('a0a0c-', (4, 4, 4)) / 4  # 0.074 Å per halide
    assert windows_of(shift, noise=0.0)[0].label == 'a0a0a0'
    assert windows_of(shift, noise=0.0, smallest=0.05)[0].label == 'a0a0c-'


def test_a_window_in_which_a_tilt_sets_in_counts_to_the_side_without_it():
    shift = frozen('a0a0c-', (4, 4, 4)) * (np.arange(100) >= 50)[:, None, None]
    found = windows_of(shift, n_frames=100, window=2.0)
    assert [window.label for window in found] == ['a0a0a0'] * 3 + ['a0a0c-'] * 2
    assert found[2].tilt[2] > 0.15


def test_a_tilt_as_large_as_its_floor_is_not_sure():
    shift = frozen('a0a0c-', (2, 2, 2)) / 1.8
    found = windows_of(shift, repeat=(2, 2, 2), n_frames=200, window=4.0, noise=0.35)
    assert {window.label for window in found} == {'a0a0a0', 'a0a0c-'}
    assert min(window.confidence for window in found) < 0.8


def test_confidence_is_the_same_for_the_same_seed():
    shift = frozen('a0a0c-', (4, 4, 4)) * (np.arange(40) > 21)[:, None, None]
    assert windows_of(shift) == windows_of(shift)


def test_one_frame_has_a_label_but_no_confidence():
    (window,) = windows_of(frozen('a-a-c+', (2, 2, 2)), repeat=(2, 2, 2), noise=0.0, n_frames=1)
    assert (window.label, window.confidence, window.lengths_error) == ('a-a-c+', None, None)
    assert window.pattern == '--+'


def test_windows_are_plain_json():
    (window,) = windows_of(frozen('a-a-c+', (2, 2, 2)), repeat=(2, 2, 2))
    told = json.loads(json.dumps(window.to_dict()))
    assert told['label'] == 'a-a-c+'
    assert told['shares'][2] == pytest.approx([1, 0, 0], abs=0.1)


@pytest.mark.parametrize(
    ('pattern', 'name'),
    [
        ('000', 'a0a0a0'),
        ('0-0', 'a0a0c-'),
        ('+00', 'a0a0c+'),
        ('-+-', 'a-a-c+'),
        ('-0-', 'a0b-b-'),
        ('0m0', 'mixed'),
        ('-d-', 'mixed'),
    ],
)
def test_axes_may_come_in_any_order(pattern, name):
    assert name_of(pattern) == name


def own(*layers):
    return spectrum_of(np.array(layers), np.array(layers))


def test_shares_and_activations_have_closed_forms():
    assert shares_of(own(1.0, 1.0, 1.0, 1.0)) == pytest.approx([1, 0, 0])
    assert shares_of(own(*[1.0, -1.0] * 3)) == pytest.approx([0, 1, 0])
    assert shares_of(own(1.0, 0.0)) == pytest.approx([0.5, 0.5, 0])
    assert shares_of(own(1.0, 1.0, -1.0, -1.0)) == pytest.approx([0, 0, 1])
    assert shares_of(np.zeros(4)).tolist() == [0, 0, 0]
    assert activations(own(1.0, 1.0, -1.0, -1.0)) == pytest.approx((0.5**0.5, 0.5**0.5))
    layers = np.random.default_rng(0).normal(size=8)
    following = np.roll(layers, -1)
    halves = [np.sqrt(np.mean((layers + sign * following) ** 2)) / 2 for sign in (1, -1)]
    assert activations(own(*layers)) == pytest.approx(halves)
    assert own(*layers).sum() == pytest.approx(np.mean(layers**2))
    # A wave of wave number q has cos² πq of its square in phase.
    wave = np.cos(2 * np.pi * np.arange(12) / 12 * 2)
    assert activations(own(*wave))[0] ** 2 / np.mean(wave**2) == pytest.approx(np.cos(np.pi / 6) ** 2)


def test_what_turned_round_in_between_does_not_last():
    one = np.array([1.0, -1.0, 1.0, -1.0])
    assert spectrum_of(one, -one).sum() == pytest.approx(-1.0)
    assert shares_of(spectrum_of(one, -one)).tolist() == [0, 0, 0]
    assert activations(spectrum_of(one, -one)) == (0.0, 0.0)


def test_slow_motion_is_not_frozen_in_although_it_is_within_each_window():
    """A tilt that is the same for all of a window, and the other way round in the next."""
    shift = frozen('a0a0c-', (2, 2, 2)) * np.repeat([1, -1, 1, -1], 20)[:, None, None]
    found = windows_of(shift, repeat=(2, 2, 2), n_frames=80, window=2.0, noise=0.1)
    assert [window.label for window in found] == 4 * ['a0a0a0']
    assert [window.tilt[2] for window in found] == [window.local[2] for window in found] == 4 * [0.0]


def test_a_window_at_a_transition_is_held_against_its_own_side():
    shift = frozen('a0a0c-', (4, 4, 4)) * (np.arange(80) >= 40)[:, None, None]
    found = windows_of(shift, n_frames=80, window=2.0)
    assert [window.label for window in found] == ['a0a0a0', 'a0a0a0', 'a0a0c-', 'a0a0c-']
    assert [window.confidence for window in found] == [1.0] * 4
    assert [window.stop for window in found] == pytest.approx([2.0, 4.0, 6.0, 7.9])
    assert [window.n_frames for window in found] == [20] * 4


@pytest.mark.parametrize('options', [{'purity': 0.5}, {'purity': 1.1}, {'smallest': -0.1}])
def test_thresholds_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match='the purity is'):
        windows_of(np.zeros(3), repeat=(2, 2, 2), n_frames=2, **options)
