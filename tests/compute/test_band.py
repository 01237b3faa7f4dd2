"""The nudged elastic band on surfaces whose saddles are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.compute.architecture import Prediction
from aiida_perovmlip.compute.band import Band, BandSettings, EndsMeetError, NotFiniteError, relax_band
from aiida_perovmlip.compute.frame import Frame

SCALE = 1 / 50
"""Müller and Brown's energies in eV: barriers of about one."""

AMPLITUDES, A, B, C, X, Y = np.array(
    [[-200, -100, -170, 15], [-1, -1, -6.5, 0.7], [0, 0, 11, 0.6], [-10, -10, -6.5, 0.7], [1, 0, -0.5, -1],
     [0, 0.5, 1.5, 1]]
)  # fmt: skip
MINIMA = ((-0.558224, 1.441726), (0.623499, 0.028038))
SADDLE = -40.664844
SHARP = BandSettings(fmax=1e-3, fmax_before_climb=0.05, fmax_ends=1e-4, spring=1.0, max_steps=3000)


def mueller_brown(frames):
    """Predict the energies of one atom on the surface of Müller and Brown, Theor. Chim. Acta 53, 75 (1979)."""
    for frame in frames:
        x, y, z = frame.positions[0]
        parts = AMPLITUDES * np.exp(A * (x - X) ** 2 + B * (x - X) * (y - Y) + C * (y - Y) ** 2)
        slope = [(parts * (2 * A * (x - X) + B * (y - Y))).sum(), (parts * (B * (x - X) + 2 * C * (y - Y))).sum()]
        forces = np.array([[-SCALE * slope[0], -SCALE * slope[1], -z]])
        yield Prediction(SCALE * parts.sum() + 0.5 * z**2, forces)


def straight(start, end, n_images=9, pbc=(False, False, False)):
    """Return frames of atoms that go straight from one place to another."""
    start, end = (np.atleast_2d(np.array(place, dtype=float)) for place in (start, end))
    return [
        Frame(
            np.ones(len(start), np.uint8),
            start + part * (end - start),
            cell=10 * np.eye(3),
            pbc=np.array(pbc),
            charge=1,
        )
        for part in np.linspace(0, 1, n_images + 2)
    ]


def energies(band):
    return np.array([frame.energy for frame in band.frames])


def relaxed(frames, settings=SHARP, predictor=mueller_brown, watch=lambda band: True):
    return relax_band(frames, predictor, settings, watch)


@pytest.fixture(scope='module')
def path():
    """Return the path between two minima, from ends beside them."""
    return relaxed(straight((-0.6, 1.4, 0), (0.6, 0.05, 0)))


def test_the_highest_image_climbs_to_the_saddle(path):
    assert path.is_converged
    assert path.is_climbing
    assert energies(path).max() / SCALE == pytest.approx(SADDLE, abs=1e-3)
    for frame, minimum in zip((path.frames[0], path.frames[-1]), MINIMA, strict=True):
        assert frame.positions[0, :2] == pytest.approx(minimum, abs=1e-3)


def test_without_climbing_the_saddle_lies_between_the_images():
    band = relaxed(straight((-0.6, 1.4, 0), (0.6, 0.05, 0), n_images=8), replace(SHARP, climb=False))
    assert band.is_converged
    assert energies(band).max() / SCALE < SADDLE - 0.1


def test_the_way_back_has_the_same_saddle(path):
    back = relaxed(straight((0.6, 0.05, 0), (-0.6, 1.4, 0)))
    assert energies(back).max() == pytest.approx(energies(path).max(), abs=2e-5)
    assert energies(back)[::-1][[0, -1]] == pytest.approx(energies(path)[[0, -1]], abs=1e-6)


def double_well(frames):
    """Predict two wells at x = ±1, one lower than the other."""
    for frame in frames:
        x, y, z = frame.positions[0]
        force = [-4 * x * (x**2 - 1) - 0.1, -y, -z]
        yield Prediction((x**2 - 1) ** 2 + 0.1 * x + 0.5 * (y**2 + z**2), np.array([force]))


def test_a_straight_path_climbs_to_the_exact_top():
    band = relaxed(straight((-1, 0, 0), (1, 0, 0), n_images=4), predictor=double_well)
    top = np.roots([4, 0, -4, 0.1])[2].real
    assert band.is_converged
    assert energies(band).max() == pytest.approx((top**2 - 1) ** 2 + 0.1 * top, abs=1e-6)


def rising(frames):
    """Predict a well at x = 0 and a shoulder at x = 2, which no top lies before."""
    for frame in frames:
        x, y, z = frame.positions[0]
        force = np.array([[-x * (x - 2) ** 2, -y, -z]])
        yield Prediction(x**4 / 4 - 4 * x**3 / 3 + 2 * x**2 + 0.5 * (y**2 + z**2), force)


def test_nothing_climbs_over_the_end_of_a_path_that_only_rises():
    for start, end in ((0, 2), (2, 0)):
        band = relaxed(straight((start, 0.1, 0), (end, 0.1, 0), n_images=5), predictor=rising)
        assert band.is_converged
        assert not band.is_climbing
        assert energies(band).max() == max(energies(band)[[0, -1]])
        assert np.ptp([frame.positions[0, 0] for frame in band.frames]) == pytest.approx(2.0, abs=0.05)


def test_an_image_climbs_to_a_top_that_lies_between_it_and_a_higher_end():
    def tilted(frames):
        for frame, said in zip(frames, double_well(frames), strict=True):
            yield Prediction(said.energy + 1.1 * frame.positions[0, 0], said.forces - [[1.1, 0, 0]])

    frames = straight((-1.13, 0, 0), (0.83, 0, 0), n_images=1)
    for path in (frames, frames[::-1]):
        band = relaxed(path, predictor=tilted)
        top = sorted(np.roots([4, 0, -4, 1.2]).real)[1]
        assert band.is_climbing
        assert energies(band)[1] == pytest.approx((top**2 - 1) ** 2 + 1.2 * top, abs=1e-6)


def shifting(frames):
    """Predict a pair of atoms whose forces do not quite add up to zero, as those in single precision do not."""
    for frame in frames:
        distance = frame.positions[1] - frame.positions[0]
        x = distance[0] - 3.0
        force = np.array([-4 * x * (x**2 - 1), -distance[1], -distance[2]])
        energy = (x**2 - 1) ** 2 + 0.5 * (distance[1] ** 2 + distance[2] ** 2)
        yield Prediction(energy, np.array([-force, force]) + 1e-3)


def test_nothing_drifts_in_a_crystal():
    frames = straight([(0, 0, 0), (2.1, 0, 0)], [(0, 0, 0), (3.9, 0.1, 0)], pbc=(True, True, True))
    band = relaxed(frames, replace(SHARP, fmax=0.01, fmax_ends=0.01), predictor=shifting)
    assert band.is_converged
    for frame, before in zip(band.frames, frames, strict=True):
        assert frame.positions.mean(axis=0) == pytest.approx(before.positions.mean(axis=0), abs=1e-9)


def test_a_band_that_did_not_converge_is_kept_and_gone_on_from():
    frames = straight((-0.6, 1.4, 0), (0.6, 0.05, 0))
    part = relaxed(frames, replace(SHARP, max_steps=40))
    assert not part.is_converged
    assert part.residual > SHARP.fmax
    assert part.steps == 40
    whole = relaxed(part.frames)
    assert whole.is_converged
    assert energies(whole).max() / SCALE == pytest.approx(SADDLE, abs=1e-3)


@pytest.mark.parametrize('looks', [3, 60])
def test_who_watches_can_stop_it_at_any_step(looks):
    seen = []

    def watch(band: Band) -> bool:
        seen.append((band.steps, band.residual))
        return len(seen) < looks

    band = relaxed(straight((-0.6, 1.4, 0), (0.6, 0.05, 0)), watch=watch)
    assert len(seen) == looks
    assert not band.is_converged
    assert len(band.frames) == 11


def test_all_images_are_predicted_in_one_call():
    sizes = []

    def counted(frames):
        frames = list(frames)
        sizes.append(len(frames))
        return mueller_brown(frames)

    band = relaxed(straight((-0.6, 1.4, 0), (0.6, 0.05, 0)), predictor=counted)
    assert set(sizes) == {1, 11, 9}  # an end, the first look, the images between the ends
    assert sizes.count(9) <= len(band.history) + 1


def test_what_a_frame_carries_stays(path):
    assert {frame.charge for frame in path.frames} == {1}
    assert all(frame.forces is not None for frame in path.frames)


def test_ends_that_fall_into_one_minimum_are_no_path():
    with pytest.raises(EndsMeetError, match=r'0\.00\d* Å'):
        relaxed(straight((-0.6, 1.4, 0), (-0.5, 1.5, 0)))


def test_ends_that_are_not_relaxed_stay_where_they_are():
    frames = straight((-0.6, 1.4, 0), (0.6, 0.05, 0))
    band = relaxed(frames, replace(SHARP, relax_ends=False))
    assert band.is_converged
    for end in (0, -1):
        assert np.array_equal(band.frames[end].positions, frames[end].positions)
    assert min(band.ends) > SHARP.fmax_ends


def test_ends_that_do_not_relax_do_not_converge():
    band = relaxed(straight((-0.6, 1.4, 0), (0.6, 0.05, 0)), replace(SHARP, max_steps_ends=2))
    assert max(band.ends) > SHARP.fmax_ends
    assert not band.is_converged


def test_a_prediction_that_is_no_number_is_named():
    def broken(frames):
        return (Prediction(np.nan, np.zeros((1, 3))) for _ in frames)

    with pytest.raises(NotFiniteError):
        relaxed(straight((-0.6, 1.4, 0), (0.6, 0.05, 0)), predictor=broken)
