"""First paths as calculation functions: what they start from, what they refuse, and their provenance."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from ase.build import bulk

from aiida_perovmlip.calculations.functions.paths import build_path
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.bonds import centre_of_mass, molecules_by_bonds
from aiida_perovmlip.structures.molecules import molecule
from aiida_perovmlip.structures.paths import path_length, problem_of_path
from aiida_perovmlip.structures.perovskite import cubic
from aiida_perovmlip.structures.recipes import frames_from_recipe


@pytest.fixture
def host():
    return DatasetData.from_ase([bulk('CsI', 'cesiumchloride', a=4.57) * (2, 2, 2)]).store()


@pytest.fixture
def hybrid():
    recipe = {'families': [{'formula': 'FAPbI3', 'count': 1, 'repeat': [1, 1, 2]}]}
    return DatasetData.from_ase(frames_from_recipe(recipe, 0)).store()


def build(structures, **recipe):
    return build_path(orm.Dict(recipe), structures)


def test_a_vacancy_hops_with_its_charge_and_its_provenance(host):
    path = build(host, kind='vacancy', ion='I', n_images=3, charge=1)
    images = [frame.to_atoms() for frame in path.frames]
    assert len(images) == 5
    assert {len(image) for image in images} == {15}
    assert {image.info['charge'] for image in images} == {1}
    assert np.linalg.norm(images[-1].positions - images[0].positions, axis=1).max() == pytest.approx(4.57)
    assert path.creator.inputs.structures.uuid == host.uuid


def test_an_interstitial_hops_between_places_of_its_kind():
    host = DatasetData.from_ase([cubic('Cs', 'Pb', 'I', 6.29, (2, 2, 2))]).store()
    path = build(host, kind='interstitial', ion='I', n_images=3, charge=-1)
    images = [frame.to_atoms() for frame in path.frames]
    assert {(len(image), image.info['charge']) for image in images} == {(41, -1)}
    moved = np.linalg.norm(images[-1].positions - images[0].positions, axis=1)
    assert np.flatnonzero(moved > 1e-6).tolist() == [40]
    # both places have the same room
    nearest = [image.get_distances(40, range(40), mic=True).min() for image in (images[0], images[-1])]
    assert nearest[0] == pytest.approx(nearest[1])
    place = images[0].positions[40]
    named = build(host, kind='interstitial', ion='I', n_images=3, charge=-1, place=place.tolist())
    assert named.frames[0].positions == pytest.approx(images[0].positions)


def test_molecules_push_each_other_on_with_the_charge_of_the_structure():
    length = 6.33
    crowded = cubic('MA', 'Pb', 'I', length, (3, 2, 2))
    added = molecule('MA')
    added.translate([0.0, length / 2, length / 2])
    crowded.extend(added)
    crowded.info['charge'] = 1
    first, *_, last = molecules_by_bonds(crowded)
    second = min(
        molecules_by_bonds(crowded)[1:-1],
        key=lambda part: np.linalg.norm(
            centre_of_mass(crowded, part) - centre_of_mass(crowded, first) - [length, 0, 0]
        ),
    )
    goal = centre_of_mass(crowded, second) + np.array([length / 2, 0, 0])
    chain = [int(last[1]), int(first[0]), int(second[2])]  # three MA move at once, each named by an atom of its own
    path = build(DatasetData.from_ase([crowded]), kind='exchange', chain=chain, last_place=goal.tolist(), n_images=3)
    images = [frame.to_atoms() for frame in path.frames]
    assert {image.info['charge'] for image in images} == {1}
    moved = np.flatnonzero(np.linalg.norm(images[-1].positions - images[0].positions, axis=1) > 1e-6)
    assert set(moved) == {*first, *second, *last}
    assert len(molecules_by_bonds(images[2])) == 13


def test_ends_of_ones_own_are_joined_by_either_way(host):
    ends = build(host, kind='vacancy', ion='Cs', n_images=1).select([0, 2]).store()
    straight = build(ends, kind='between', way='linear', n_images=4)
    assert len(straight) == 6
    assert path_length([frame.to_atoms() for frame in straight.frames]) == pytest.approx(4.57)


def test_a_molecule_turns_by_itself_or_between_two_structures(hybrid):
    turned = build(hybrid, kind='turn', axis='N-N', degrees=90.0, molecule=1, n_images=2)
    images = [frame.to_atoms() for frame in turned.frames]
    members = molecules_by_bonds(images[0])[1]
    moved = np.flatnonzero(np.linalg.norm(images[-1].positions - images[0].positions, axis=1) > 1e-6)
    assert set(moved) <= set(members.tolist())
    ends = turned.select([0, 3]).store()
    again = build(ends, kind='turn_between', molecule=1, n_images=2)
    for one, other in zip(images, again.frames, strict=True):
        assert other.positions == pytest.approx(one.positions, abs=1e-6)


def test_a_whole_turn_comes_back_to_where_it_began(hybrid):
    turned = build(hybrid, kind='turn', axis='C-H', degrees=360.0, n_images=7)
    first, last = turned.frames[0], turned.frames[8]
    assert first.positions == pytest.approx(last.positions)
    assert problem_of_path([frame.to_atoms() for frame in turned.frames]).startswith('both ends are the same')


@pytest.mark.parametrize(
    ('recipe', 'words'),
    [
        ({}, 'the kind of the path is None but has to be one of vacancy, interstitial, exchange, between, turn'),
        ({'kind': 'vacancy', 'ions': 'I'}, "unknown setting 'ions'"),
        ({'kind': 'vacancy', 'ion': 'Br'}, 'holds no Br that could hop'),
        ({'kind': 'vacancy', 'which': 7, 'max_distance': 4.6}, r'there is no hop 7 of I; .* 4\.57'),
        (
            {'kind': 'interstitial', 'which': 99},
            r'there is no hop 99 of I; the ways are, in Å and from 0: [\d., ]+\.',
        ),
        ({'kind': 'interstitial', 'place': [0.0]}, 'have to be one or more of three coordinates'),
        ({'kind': 'exchange', 'chain': [0, 1]}, r'`last_place` is \[\] but has to be three coordinates'),
        (
            {'kind': 'exchange', 'chain': [99], 'last_place': [0, 0, 0]},
            'names the atom 99, but the structure has atoms',
        ),
        ({'kind': 'exchange', 'last_place': [0, 0, 0]}, 'the chain has 0 ions'),
        ({'kind': 'between'}, 'starts from two structures, its ends, but there are 1'),
        ({'kind': 'turn', 'axis': 'N-N'}, 'there is no molecule 0: bonds show 0'),
    ],
)
def test_a_recipe_that_makes_no_path_is_refused_in_a_sentence(host, recipe, words):
    with pytest.raises(ValueError, match=words):
        build(host, **recipe)


def test_a_path_that_is_none_is_not_stored(host):
    still = host.select([0, 0]).store()
    with pytest.raises(ValueError, match='images 0 and 1 are the same structure'):
        build(still, kind='between', way='linear')
