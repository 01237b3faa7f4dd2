"""What every engine of molecular dynamics has to fulfil; one that is registered is tested."""

from __future__ import annotations

import inspect

import pytest

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architectures.reference import Reference
from aiida_perovmlip.compute.engine import Engine, MdRun
from aiida_perovmlip.compute.md import BAROSTATS, CELLS, THERMOSTATS, read_md_settings
from aiida_perovmlip.compute.plugin import versions_of

NAMES = registry.names('engines')


@pytest.fixture(params=NAMES)
def engine(request) -> Engine:
    return registry.load('engines', request.param)()


def test_it_says_who_it_is(engine):
    assert registry.load('engines', engine.name) is type(engine)
    assert engine.summary
    assert inspect.getdoc(type(engine)).endswith('.')
    assert list(inspect.signature(engine.run).parameters) == ['run']
    assert MdRun.__annotations__['recorder'] == 'Recorder'


def test_it_runs_where_its_packages_are(engine):
    assert engine.needs_potential == engine.uses_calculator
    assert engine.needs_packages_of('architecture') == engine.uses_calculator
    assert engine.needs_packages_of('engine')


def test_what_it_says_that_it_has_is_a_setting(engine):
    assert set(engine.thermostats) <= set(THERMOSTATS)
    assert set(engine.barostats) <= set(BAROSTATS)
    assert set(engine.thermostats_of_barostats) == set(engine.cells) == set(engine.barostats)
    assert all(set(cells) <= set(CELLS) for cells in engine.cells.values())


def test_it_lacks_nothing_of_what_it_says_that_it_has(engine):
    for thermostat in engine.thermostats:
        assert engine.lack(read_md_settings({'thermostat': thermostat})) is None
    for barostat in engine.barostats:
        for cell in engine.cells[barostat]:
            for thermostat in (None, *engine.thermostats_of_barostats[barostat]):
                given = {'ensemble': 'npt', 'barostat': barostat, 'cell': cell, 'thermostat': thermostat}
                assert engine.lack(read_md_settings(given)) is None


def test_it_says_what_it_lacks_and_what_it_has(engine):
    for barostat in set(BAROSTATS) - set(engine.barostats):
        lacking = engine.lack(read_md_settings({'ensemble': 'npt', 'barostat': barostat}))
        assert f'has no barostat `{barostat}`; it has' in lacking
    for thermostat in set(THERMOSTATS) - set(engine.thermostats):
        assert f'has no thermostat `{thermostat}`' in engine.lack(read_md_settings({'thermostat': thermostat}))
    ramp, frozen, spread = (
        engine.lack(read_md_settings(given))
        for given in ({'temperature': [300, 400]}, {'frozen': [0]}, {'max_spread': 0.1})
    )
    assert (ramp is None) == engine.has_ramps
    assert (frozen is None) == engine.has_frozen_atoms
    assert (spread is None) == engine.has_committee


def test_it_refuses_in_a_sentence_or_not_at_all(engine):
    refusal = engine.refusal(read_md_settings({}), Reference())
    assert refusal is None or refusal.endswith('.')


def test_its_self_test_passes_where_its_packages_are(engine):
    missing = [name for name, version in versions_of(engine.packages()).items() if version == 'missing']
    if missing or not engine.uses_calculator:
        pytest.skip('it is a program of its own; `integration` runs it in its environment')
    assert engine.self_test()
