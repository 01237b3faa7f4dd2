"""First paths as calculation functions: what they start from, what they refuse, and their provenance."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from ase.build import bulk

from aiida_perovmlip.calculations.functions.paths import build_path
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.bonds import molecules_by_bonds
from aiida_perovmlip.structures.paths import path_length
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


@pytest.mark.parametrize(
    ('recipe', 'words'),
    [
        ({}, 'the kind of the path is None but has to be one of vacancy, between, turn, turn_between'),
        ({'kind': 'vacancy', 'ions': 'I'}, "unknown setting 'ions'"),
        ({'kind': 'vacancy', 'ion': 'Br'}, 'holds no Br that could hop'),
        ({'kind': 'vacancy', 'which': 7, 'max_distance': 4.6}, r'there is no hop 7 of I; .* 4\.57'),
        ({'kind': 'between'}, 'starts from two structures, its ends, but there are 1'),
        ({'kind': 'turn', 'axis': 'N-N'}, 'there is no molecule 0: bonds show 0'),
    ],
)
def test_a_recipe_that_makes_no_path_is_refused_in_a_sentence(host, recipe, words):
    with pytest.raises(ValueError, match=words):
        build(host, **recipe)


def test_a_path_that_is_none_is_not_stored(host):
    still = host.select([0, 0]).store()
    with pytest.raises(ValueError, match='both ends are the same structure'):
        build(still, kind='between', way='linear')
