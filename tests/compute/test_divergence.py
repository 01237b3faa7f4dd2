"""When a training curve shows a divergence."""

from __future__ import annotations

import pytest

from aiida_perovmlip.compute.divergence import sign_of_divergence


def curve(*losses, name='loss', **more):
    return [{'step': step, name: loss, **more} for step, loss in enumerate(losses, 1)]


def test_a_curve_that_falls_is_well():
    assert sign_of_divergence(curve(*(1 / step for step in range(1, 50)))) is None


@pytest.mark.parametrize('bad', [float('nan'), 'nan', 'inf', float('-inf')])
def test_what_is_not_finite_is_a_divergence_at_once(bad):
    assert 'at step 3' in sign_of_divergence(curve(1.0, 0.5, bad))


def test_one_peak_is_none():
    assert sign_of_divergence(curve(1.0, 0.1, 0.1, 0.1, 90.0, 0.1, 0.1)) is None


def test_a_loss_that_grew_for_good_is_one():
    assert 'was 0.1 and is 50' in sign_of_divergence(curve(1.0, 0.1, 10.0, 40.0, 50.0, 60.0, 90.0))


def test_the_errors_of_the_validation_count_too():
    found = sign_of_divergence(curve(1.0, 0.1, 10.0, 40.0, 50.0, 60.0, 90.0, name='validation_forces_rmse'))
    assert found.startswith('`validation_forces_rmse`')


def test_losses_of_two_stages_are_not_compared():
    assert sign_of_divergence(curve(1.0, 0.1, stage=1) + curve(*[50.0] * 6, stage=2)) is None


def test_nothing_is_no_divergence():
    assert sign_of_divergence([]) is None
