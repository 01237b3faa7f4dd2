"""What every labeller that runs inside a job has to fulfil; one that is registered is tested."""

from __future__ import annotations

import dataclasses

import pytest

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.labeller import AseLabeller, Teacher
from aiida_perovmlip.compute.plugin import versions_of
from aiida_perovmlip.compute.settings import SettingsError, describe_settings, read_settings

NAMES = registry.names('labellers')


TEACHER = Teacher('reference', '0' * 64, ('Cs', 'I', 'Pb'), ('default',))


@pytest.fixture(params=NAMES)
def labeller(request) -> AseLabeller:
    kind = registry.load('labellers', request.param)
    if not issubclass(kind, AseLabeller):
        pytest.skip('it has a calculation of its own')
    return kind().taught_by(TEACHER) if kind.needs_potential else kind()


def test_it_says_who_it_is(labeller):
    assert registry.load('labellers', labeller.name) is type(labeller)
    assert dataclasses.is_dataclass(labeller.Settings)
    assert all(row['help'] for row in describe_settings(labeller.Settings))


def test_its_level_is_known_without_its_package(labeller):
    level = labeller.level(labeller.Settings())
    assert level.labeller == labeller.name
    assert level.fingerprint == labeller.level(labeller.Settings()).fingerprint


def test_its_protocols_are_settings_that_it_understands(labeller):
    assert 'balanced' in labeller.protocols
    for about, settings in labeller.protocols.values():
        assert about.endswith('.')
        assert labeller.level(read_settings(labeller.Settings, settings)).labeller == labeller.name


def test_it_takes_a_potential_where_it_needs_one_and_only_there(labeller):
    if labeller.needs_potential:
        with pytest.raises(ValueError, match='pass one as `potential`'):
            type(labeller)().level(labeller.Settings())
    else:
        with pytest.raises(ValueError, match='takes no potential'):
            labeller.taught_by(TEACHER)


def test_it_refuses_rubbish(labeller):
    with pytest.raises(SettingsError, match='unknown setting'):
        read_settings(labeller.Settings, {'no_such_setting': 1})


def test_its_self_test_passes_where_its_package_is(labeller):
    missing = [name for name, version in versions_of(labeller.packages()).items() if version == 'missing']
    if missing:
        pytest.skip(f'{", ".join(missing)} is not installed beside the tests; `integration` runs it in its environment')
    assert labeller.self_test()
