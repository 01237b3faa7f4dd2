"""Settings check themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.settings import SettingsError, describe_settings, option, read_settings


@dataclass(frozen=True)
class Example:
    size: int = option(3, 'How many.', minimum=1, maximum=5)
    width: float = option(0.5, 'How wide.', unit='Å', minimum=0.0)
    kind: str = option('a', 'Which.', choices=('a', 'b'))
    switch: bool = option(False, 'Whether.')
    widths: list[int] = option([1, 2], 'How wide each.')
    energies: str | dict[str, float] = option('average', 'Given or averaged.')
    limit: float | None = option(None, 'At most.')


def test_defaults_are_used_for_what_is_not_given():
    assert read_settings(Example, {}) == Example()
    assert read_settings(Example, {}).widths is not read_settings(Example, {}).widths


def test_plain_values_are_taken():
    given: dict[str, Any] = {'size': 2, 'width': 1, 'widths': [3], 'energies': {'Cs': -1}, 'limit': 2, 'switch': True}
    settings = read_settings(Example, given)
    assert settings.width == 1.0
    assert isinstance(settings.width, float)
    assert settings.energies == {'Cs': -1.0}


@pytest.mark.parametrize(
    ('given', 'sentence'),
    [
        ({'sice': 1}, "unknown setting 'sice'; known are"),
        ({'size': 0}, 'at least 1'),
        ({'size': 9}, 'at most 5'),
        ({'size': 2.5}, 'type int'),
        ({'size': True}, 'type int'),
        ({'size': '2'}, 'type int'),
        ({'width': -1}, r'-1.0 Å but has to be at least 0.0 Å'),
        ({'width': float('nan')}, 'at least'),
        ({'kind': 'c'}, "one of 'a', 'b'"),
        ({'switch': 1}, 'type bool'),
        ({'widths': [1, 'x']}, 'widths'),
        ({'energies': {'Cs': 'low'}}, 'energies'),
        ({'limit': 'none'}, 'limit'),
    ],
)
def test_rubbish_is_refused_with_a_sentence(given, sentence):
    with pytest.raises(SettingsError, match=sentence):
        read_settings(Example, given)


def test_settings_describe_themselves():
    rows = {row['name']: row for row in describe_settings(Example)}
    assert rows['width']['unit'] == 'Å'
    assert rows['width']['default'] == 0.5
    assert rows['widths']['default'] == [1, 2]
    assert 'dict[str, float]' in rows['energies']['type']


def test_equal_levels_have_equal_fingerprints_and_no_others():
    one = Level('cp2k', 'PBE', cutoff='500 Ry', details={'a': 1, 'b': 2})
    assert one.fingerprint == Level('cp2k', 'PBE', cutoff='500 Ry', details={'b': 2, 'a': 1}).fingerprint
    assert one.fingerprint != Level('cp2k', 'PBE', cutoff='400 Ry', details={'a': 1, 'b': 2}).fingerprint
    assert Level.from_dict(one.to_dict()) == one
    assert str(one) == 'cp2k / PBE / 500 Ry'


def test_numbers_of_a_level_are_equal_whatever_their_type():
    assert Level('a', details={'t': 300}).fingerprint == Level('a', details={'t': 300.0}).fingerprint


@pytest.mark.parametrize('content', [{'functional': 'PBE'}, {'labeller': ''}, {'labeller': 'a', 'cutoff': 500}])
def test_a_level_that_is_none_is_refused(content):
    with pytest.raises(ValueError, match=r'labeller|text'):
        Level.from_dict(content)


def test_a_level_with_a_foreign_fingerprint_is_refused():
    with pytest.raises(ValueError, match='does not belong'):
        Level.from_dict({'labeller': 'cp2k', 'fingerprint': '0' * 16})
