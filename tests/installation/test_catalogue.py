from __future__ import annotations

import pytest

from aiida_perovmlip.installation import catalogue
from aiida_perovmlip.installation.outcome import SetupFailure


def test_plugins_are_found_with_their_role_and_requirements(tiny_plugins):
    (plugin,) = catalogue.find('tiny')
    assert (plugin.role, plugin.reference, plugin.requirements) == ('labeller', 'tiny_plugins:Tiny', ('tinypackage',))


def test_plugins_that_need_nothing_are_told_from_the_others(tiny_plugins):
    free = catalogue.without_requirements()
    assert 'free' in free
    assert 'reference' in free
    assert not {'tiny', 'mace', 'broken'} & set(free)


def test_a_plugin_that_borrows_an_environment_gets_none_of_its_own():
    assert 'potential' in catalogue.names()
    assert catalogue.find('potential') == ()
    assert 'potential' not in catalogue.without_requirements()


def test_a_plugin_nobody_has_is_a_sentence_that_names_the_others():
    with pytest.raises(SetupFailure, match=r'there is no plug-in `nonsense`; installed are .*mace'):
        catalogue.find('nonsense')


def test_a_plugin_that_cannot_be_loaded_is_a_sentence(tiny_plugins):
    with pytest.raises(SetupFailure, match='`broken` cannot be loaded'):
        catalogue.find('broken')


def test_a_program_of_its_own_is_set_up_where_it_is_asked_for_and_not_by_default():
    assert [plugin.role for plugin in catalogue.find('lammps')] == ['engine']
    assert not {'lammps', 'gpumd'} & set(catalogue.without_requirements())


def test_an_engine_that_runs_beside_the_potential_gets_no_environment_of_its_own():
    assert 'ase' in catalogue.names()
    assert catalogue.find('ase') == ()
