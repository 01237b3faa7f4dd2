"""Barriers along paths whose energies are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.analysis.barriers import by_potential, difference_of, minima_of, profile_of, tangents

N = 9


def straight(n_images=N, n_atoms=1, length=2.0):
    """Return positions of atoms that all go straight, and the coordinate of each image from -1 to 1."""
    x = np.linspace(-1, 1, n_images)
    positions = np.zeros((n_images, n_atoms, 3))
    positions[:, :, 0] = x[:, None] * length / 2
    return positions, x


def double_well(x, tilt=0.1):
    """Return energies (n,) and forces (n, 1, 3) of two wells at ±1."""
    forces = np.zeros((len(x), 1, 3))
    forces[:, 0, 0] = -(4 * x * (x**2 - 1) + tilt)
    return (x**2 - 1) ** 2 + tilt * x, forces


def test_the_four_numbers_are_told_apart():
    positions, x = straight()
    profile = profile_of(positions, double_well(x)[0])
    assert profile.forward == pytest.approx(1.1)
    assert profile.reverse == pytest.approx(0.9)
    assert profile.reaction == pytest.approx(0.2)
    assert profile.span == pytest.approx(1.1)
    assert (profile.top, profile.is_interior, profile.minima) == (4, True, ())


def test_span_counts_from_the_lowest_image_and_not_from_an_end():
    positions, _ = straight(5)
    profile = profile_of(positions, np.array([0.0, -0.2, 1.0, 0.5, 0.3]))
    assert (profile.forward, profile.reverse, profile.span) == pytest.approx((1.0, 0.7, 1.2))
    assert profile.minima == (1,)  # the first end is no minimum of its path


def test_the_curve_finds_the_top_that_the_images_miss():
    positions, x = straight(6)  # no image at the top
    energies, forces = double_well(x, tilt=0.0)
    assert profile_of(positions, energies).forward < 0.93
    assert profile_of(positions, energies, forces).curve_forward == pytest.approx(1.0, abs=2e-3)


def test_slopes_are_minus_the_forces_along_the_path():
    positions, x = straight()
    energies, forces = double_well(x)
    profile = profile_of(positions, energies, forces)
    assert profile.slopes == pytest.approx(4 * x * (x**2 - 1) + 0.1)
    three = profile_of(np.repeat(positions, 3, axis=1), energies, np.repeat(forces, 3, axis=1) / 3)
    assert three.places == pytest.approx(np.sqrt(3) * profile.places)
    assert three.slopes == pytest.approx(profile.slopes / np.sqrt(3))


def test_tangents_of_a_circle_are_at_right_angles_to_the_radius():
    angles = np.linspace(0, np.pi / 2, 15)
    positions = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)[:, None]
    found = tangents(positions, angles)
    assert np.einsum('ijk,ijk->i', found, positions) == pytest.approx(0.0, abs=1e-3)
    assert np.linalg.norm(found, axis=(1, 2)) == pytest.approx(1.0)


def test_a_path_that_goes_there_and_back_is_level_where_it_turns():
    positions, x = straight(5)
    order = [2, 3, 2]
    energies, forces = double_well(x)
    profile = profile_of(positions[order], energies[order], forces[order])
    assert profile.slopes[1] == 0.0
    assert profile.slopes[0] == pytest.approx(-profile.slopes[2])
    assert np.isfinite(profile.curve).all()


@pytest.mark.parametrize(
    ('heights', 'minima'),
    [
        ([0, 0.5, 0.2, 0.6, 0.1], (2,)),
        ([0, 0.5, 0.495, 0.6, 0.1], ()),  # noise
        ([0, 0.5, 0.2, 0.2, 0.6, 0.1], (2,)),  # a flat one counts once
        ([0, 0.1, 0.6, 0.2, 0.1], ()),
        ([0, 0.4, 0.1, 0.5, 0.2, 0.6, 0], (2, 4)),
    ],
)
def test_minima_between_the_ends_are_found(heights, minima):
    assert minima_of(np.array(heights)) == minima


def test_a_path_that_climbs_to_its_end_has_no_interior_top():
    positions, x = straight(5)
    profile = profile_of(positions, x)
    assert not profile.is_interior
    assert profile.reverse == 0.0


def test_the_difference_of_two_methods_is_that_of_their_barriers():
    positions, x = straight()
    one, other = double_well(x, tilt=0.1), double_well(x, tilt=0.3)
    profiles = [profile_of(positions, *each) for each in (one, other)]
    found = difference_of(*profiles, forces=(one[1], other[1]))
    assert found.forward == pytest.approx(-0.2)
    assert found.reaction == pytest.approx(-0.4)
    assert found.reverse == pytest.approx(0.2)
    assert found.energies_largest == pytest.approx(0.4)
    assert found.forces_rmse == pytest.approx(0.2 / np.sqrt(3))
    assert found.forces_mae == pytest.approx(0.2 / 3)
    assert set(found.numbers()) == {*found.__dataclass_fields__} - {'energies'}


def test_a_common_zero_changes_nothing():
    positions, x = straight()
    energies, _ = double_well(x)
    assert profile_of(positions, energies + 1e4).forward == pytest.approx(profile_of(positions, energies).forward)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda p, e: (p[:2], e[:2]), 'at least three images'),
        (lambda p, e: (p, e[:-1]), 'not those of the images'),
        (lambda p, e: (p, np.where(np.arange(N) == 3, np.nan, e)), 'not all images have a label'),
        (lambda p, e: (p[np.r_[0, 0, 2:N]], e), 'are the same'),
    ],
)
def test_what_is_no_path_is_refused(change, words):
    positions, x = straight()
    with pytest.raises(ValueError, match=words):
        profile_of(*change(positions, x))


def test_a_potential_is_judged_by_its_own_paths_or_by_all_where_it_has_none():
    def record(potential, path, relaxed_by):
        return {'potential': potential, 'path': path, 'is_own': potential == relaxed_by}

    records = [record(potential, path, path) for path in ('one', 'first') for potential in ('one', 'other')]
    found = by_potential(records)
    assert {name: [row['path'] for row in rows] for name, rows in found.items()} == {
        'one': ['one'],
        'other': ['one', 'first'],
    }


def test_profiles_of_other_images_are_not_compared():
    one, x = straight()
    other, _ = straight(length=3.0)
    with pytest.raises(ValueError, match='different images'):
        difference_of(profile_of(one, x), profile_of(other, x))
