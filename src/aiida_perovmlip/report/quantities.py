"""Numbers with units, written as a paper prints them."""

from __future__ import annotations

import math
from typing import Any

MISSING = '–'
NAMES = {'nan': 'not a number', 'inf': 'infinite', '-inf': 'negative infinite'}
"""Numbers that AiiDA cannot store come as these names."""

_SUPERSCRIPTS = str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹')


def to_number(value: Any) -> float | None:
    """Return a finite number, or None where the value is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def write_number(value: Any, digits: int = 3) -> str:
    """Write a number with so many significant digits."""
    number = to_number(value)
    if number is None:
        return MISSING if value is None else NAMES.get(str(value), str(value))
    if number == 0:
        return '0'
    exponent = math.floor(math.log10(abs(number)))
    if not -4 <= exponent <= 5:
        return f'{number / 10**exponent:.{digits - 1}f} × {write_power(exponent)}'.replace('-', '−')
    return f'{number:.{max(0, digits - 1 - exponent)}f}'.replace('-', '−')


def write_power(exponent: int) -> str:
    """Write a power of ten."""
    return f'10{str(exponent).translate(_SUPERSCRIPTS)}'


def write_count(value: Any) -> str:
    """Write a whole number with thin spaces between thousands."""
    number = to_number(value)
    return write_number(value) if number is None else f'{number:,.0f}'.replace(',', '\u202f')


def write_number_of(count: int, noun: str) -> str:
    """Write how many of something there are, such as `2 jobs`."""
    return f'{write_count(count)} {noun}{"" if count == 1 else "s"}'


def write_range(limits: tuple[float, float] | None, digits: int = 2) -> str:
    """Write an interval."""
    if limits is None:
        return MISSING
    return ' to '.join(f'{limit:.{digits}f}'.replace('-', '−') for limit in limits)


def write_duration(seconds: Any) -> str:
    """Write a time given in s in the unit that people would use."""
    number = to_number(seconds)
    if number is None or number < 60:
        return f'{write_number(number)} s' if number is not None else MISSING
    minutes, hours = round(number / 60), number / 3600
    return f'{minutes} min' if hours < 1 else f'{int(minutes // 60)} h {int(minutes % 60):02d} min'


def milli_of(unit: str) -> tuple[float, str]:
    """Return the factor to, and the name of, a thousandth of a unit of energy; errors are read in meV."""
    return (1000.0, f'm{unit}') if unit.startswith('eV') else (1.0, unit)


def shorten(text: str, length: int) -> str:
    """Return text without control characters that is no longer than this."""
    clean = ''.join(character if character.isprintable() else ' ' for character in text)
    return clean if len(clean) <= length else f'{clean[: length - 1]}…'
