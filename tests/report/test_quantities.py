from __future__ import annotations

import pytest

from aiida_perovmlip.report.quantities import (
    milli_of,
    shorten,
    to_number,
    write_count,
    write_duration,
    write_number,
    write_range,
)


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (0.0, '0'),
        (3.14159, '3.14'),
        (-0.02468, '−0.0247'),
        (12345.6, '12346'),
        (9.999, '10.00'),
        (1.5e-7, '1.50 × 10⁻⁷'),
        (-6.02e23, '−6.02 × 10²³'),
        (None, '–'),
        ('nan', 'not a number'),
        ('-inf', 'negative infinite'),
    ],
)
def test_numbers_are_written_with_three_significant_digits(value, text):
    assert write_number(value) == text


@pytest.mark.parametrize('value', [True, None, 'nan', '3', float('nan'), float('inf')])
def test_only_finite_numbers_are_numbers(value):
    assert to_number(value) is None


def test_counts_have_thin_spaces_between_thousands():
    assert write_count(1234567) == '1\u202f234\u202f567'
    assert write_count(None) == '–'


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(3.21, '3.21 s'), (59.9, '59.9 s'), (61, '1 min'), (3599, '60 min'), (3600, '1 h 00 min'), (7530, '2 h 06 min')],
)
def test_durations_are_in_the_unit_people_use(seconds, text):
    assert write_duration(seconds) == text


def test_errors_are_read_in_thousandths_of_an_electronvolt_and_other_units_are_left_alone():
    assert milli_of('eV/Å') == (1000.0, 'meV/Å')
    assert milli_of('GPa') == (1.0, 'GPa')


def test_a_range_has_a_true_minus_sign():
    assert write_range((-4.2134, 3.0), 2) == '−4.21 to 3.00'


def test_control_characters_do_not_survive():
    assert shorten('a\x00b\nc', 10) == 'a b c'
    assert shorten('abcdefgh', 5) == 'abcd…'
