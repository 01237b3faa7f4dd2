"""Recipes: determinism, independence of families, and refusals that say what to mend."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from aiida_perovmlip.structures.distort import is_too_close
from aiida_perovmlip.structures.perovskite import cubic
from aiida_perovmlip.structures.recipes import frames_from_recipe, read_recipe

RECIPE = {
    'families': [
        {'formula': 'CsPbI3', 'count': 3, 'repeat': [2, 2, 1], 'strain': 0.03, 'rattle': 0.08},
        {'formula': 'MAPbBr3', 'count': 2, 'repeat': [1, 1, 1], 'strain': 0.02, 'rattle': 0.05, 'group': 'hybrid'},
        {
            'formula': 'CsPbI3',
            'count': 4,
            'glazer': ['a0a0a0', 'a0a0c+', 'a-a-c+'],
            'tilt_degrees': 8,
            'rattle': 0.05,
            'group': 'tilted',
        },
    ]
}


def contents(recipe: dict, seed: int = 7) -> list[bytes]:
    """Return everything of each frame as bytes."""
    return [
        b'|'.join(
            [
                frame.numbers.tobytes(),
                frame.positions.tobytes(),
                frame.cell.array.tobytes(),
                frame.arrays['molecule'].tobytes(),
                frame.info['group'].encode(),
            ]
        )
        for frame in frames_from_recipe(recipe, seed)
    ]


def changed(number: int, **values) -> dict:
    """Return the recipe with some values of one family changed."""
    recipe = copy.deepcopy(RECIPE)
    recipe['families'][number].update(values)
    return recipe


def family(**values) -> dict:
    """Return a recipe of one family."""
    return {'families': [{'formula': 'CsPbI3', 'count': 1, **values}]}


def test_the_same_recipe_and_seed_give_the_same_bytes():
    assert contents(RECIPE) == contents(json.loads(json.dumps(RECIPE)))


def test_another_seed_gives_other_frames():
    assert not set(contents(RECIPE, 7)) & set(contents(RECIPE, 8))


def test_frames_come_in_order_with_count_and_group_of_their_family():
    groups = [frame.info['group'] for frame in frames_from_recipe(RECIPE, 0)]
    assert groups == ['CsPbI3'] * 3 + ['hybrid'] * 2 + ['tilted'] * 4


@pytest.mark.parametrize('values', [{'rattle': 0.01}, {'count': 1}, {'formula': 'FAPbI3'}, {'group': 'new'}])
def test_changing_one_family_leaves_the_frames_of_the_others(values):
    before, after = contents(RECIPE), contents(changed(0, **values))
    assert after[-6:] == before[-6:]
    assert after[:-6] != before[:-6]


def test_a_larger_count_only_appends_frames():
    assert contents(changed(0, count=5))[:3] == contents(RECIPE)[:3]


def test_two_equal_families_give_different_frames():
    twice = {'families': [RECIPE['families'][0], RECIPE['families'][0]]}
    frames = contents(twice)
    assert len(set(frames)) == len(frames) == 6


def test_spelling_out_a_default_changes_nothing():
    assert contents(family(rattle=0.1)) == contents(
        family(rattle=0.1, repeat=(2, 2, 2), glazer=['a0a0a0'], strain=0, tilt_degrees=0, lattice_constant=6.29)
    )


def test_a_family_without_distortion_is_the_ideal_crystal():
    (frame,) = frames_from_recipe(family(repeat=[2, 1, 1]), 0)
    ideal = cubic('Cs', 'Pb', 'I', 6.29, (2, 1, 1))
    assert frame.positions == pytest.approx(ideal.positions, abs=1e-12)
    assert frame.pbc.all()


def test_tilt_systems_are_taken_in_turn():
    frames = list(frames_from_recipe(family(count=4, glazer=['a0a0a0', 'a0a0c+'], tilt_degrees=8), 0))
    ideal = cubic('Cs', 'Pb', 'I', 6.29, (2, 2, 2))
    moved = [float(np.abs(frame.positions - ideal.positions).max()) for frame in frames]
    expected = 6.29 / 2 * np.tan(np.radians(8))
    assert moved == pytest.approx([0.0, expected, 0.0, expected], abs=1e-9)


def test_a_formula_outside_the_table_works_with_a_lattice_constant():
    (frame,) = frames_from_recipe(family(formula='RbGeCl3', lattice_constant=5.3, repeat=[1, 1, 1]), 0)
    assert frame.get_chemical_formula() == 'Cl3GeRb'
    assert frame.cell.lengths() == pytest.approx([5.3] * 3)


def test_no_frame_has_atoms_that_are_too_close():
    recipe = family(formula='FAPbBr3', count=10, glazer='a-a-c+', tilt_degrees=8, strain=0.03, rattle=0.08)
    for frame in frames_from_recipe(recipe, 1):
        assert not is_too_close(frame, 0.8)
        distances = frame.get_all_distances(mic=True)
        assert distances[np.ix_(frame.symbols == 'H', frame.symbols == 'Br')].min() > 1.5


@pytest.mark.parametrize(
    ('values', 'sentence'),
    [
        ({'ratle': 0.1}, "family 1 has no 'ratle'; known are .*rattle"),
        ({'count': 0}, "'count' 0 .* whole number of at least 1"),
        ({'count': 2.0}, 'whole number'),
        ({'count': True}, 'whole number'),
        ({'formula': 'H2O'}, 'no perovskite'),
        ({'formula': 3}, 'has to be a text'),
        ({'formula': 'RbPbI3'}, "needs 'lattice_constant'.*RbPbI3"),
        ({'lattice_constant': 629}, 'from 3.0 to 10.0'),
        ({'repeat': [2, 2]}, 'three whole numbers'),
        ({'repeat': 2}, 'three whole numbers'),
        ({'repeat': [2, 2, 0]}, 'at least 1'),
        ({'glazer': 'a+b+c+', 'tilt_degrees': 5}, 'one or a list of a0a0a0'),
        ({'glazer': [], 'tilt_degrees': 5}, 'one or a list of'),
        ({'glazer': [['a0a0c+']], 'tilt_degrees': 5}, 'one or a list of'),
        ({'glazer': 'a0a0c+'}, "by no angle: give 'tilt_degrees'"),
        ({'glazer': 'a0a0c-', 'tilt_degrees': 5, 'repeat': [2, 2, 3]}, 'family 1: .*even number of cells'),
        ({'tilt_degrees': 90}, 'from 0.0 to 30.0'),
        ({'strain': 3}, 'from 0.0 to 0.2'),
        ({'rattle': -0.1}, 'from 0.0 to 0.5'),
        ({'rattle': float('nan')}, 'from 0.0 to 0.5'),
        ({'rattle': '0.1'}, 'has to be a number'),
        ({'group': ' '}, 'has to be a text'),
    ],
)
def test_odd_values_are_refused_before_the_first_frame_with_a_sentence(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        frames_from_recipe(family(**values), 0)


@pytest.mark.parametrize(
    'recipe', [{}, [], {'families': []}, {'families': {}}, {'families': ['CsPbI3']}, {'family': []}]
)
def test_what_is_no_recipe_is_refused(recipe):
    with pytest.raises(ValueError, match='has to be a'):
        read_recipe(recipe)


@pytest.mark.parametrize('key', ['formula', 'count'])
def test_a_family_needs_a_formula_and_a_count(key):
    content = {'formula': 'CsPbI3', 'count': 1}
    del content[key]
    with pytest.raises(ValueError, match=f"family 1 has no '{key}': give it"):
        read_recipe({'families': [content]})


@pytest.mark.parametrize('seed', [-1, 1.5, True, None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match='the seed is'):
        frames_from_recipe(family(), seed)
