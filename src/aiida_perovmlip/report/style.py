"""The look of all figures: one palette for light and dark paper, one set of matplotlib settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

INK = '#1c242b'
MUTED = '#5d6872'
RULE = '#d9dee3'
SURFACE = '#fffffe'
ACCENT = '#0072b2'

SERIES = (ACCENT, '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7f5f3f', '#8a949d')
"""Colours that stay apart for all common kinds of colour blindness: Okabe and Ito (2008), yellow and black replaced."""

MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', 'o')
"""One marker for each colour, so that nothing is told by colour alone."""

_VARIABLES = ('ink', 'muted', 'rule', 'surface', *(f'series-{number}' for number in range(1, len(SERIES) + 1)))

LIGHT: Mapping[str, str] = MappingProxyType(dict(zip(_VARIABLES, (INK, MUTED, RULE, SURFACE, *SERIES), strict=True)))
_DARK = ('#e4e8eb', '#9ba6b0', '#343c44', '#14181c')
_DARK_SERIES = ('#4db3ec', '#ff8a3d', '#2fc79a', '#e59bc4', '#f2b632', '#8fd0f5', '#c09a73', '#8a949d')
DARK: Mapping[str, str] = MappingProxyType(dict(zip(_VARIABLES, _DARK + _DARK_SERIES, strict=True)))

SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        'axes.axisbelow': True,
        'axes.edgecolor': MUTED,
        'axes.facecolor': 'none',
        'axes.grid': True,
        'axes.labelcolor': INK,
        'axes.labelpad': 6.0,
        'axes.linewidth': 0.8,
        'axes.spines.right': False,
        'axes.spines.top': False,
        'axes.titlecolor': INK,
        'axes.titlelocation': 'left',
        'axes.titlesize': 10.5,
        'axes.titleweight': 'bold',
        'axes.unicode_minus': True,
        'figure.facecolor': 'none',
        'font.family': ['sans-serif'],
        'font.sans-serif': ['DejaVu Sans'],
        'font.size': 9.5,
        'grid.color': RULE,
        'grid.linewidth': 0.6,
        'legend.fontsize': 8.5,
        'legend.frameon': False,
        'legend.labelcolor': INK,
        'lines.linewidth': 1.6,
        'savefig.facecolor': 'none',
        # Text stays text: crisp at every size, searchable, and in the reader's own font.
        'svg.fonttype': 'none',
        # A fixed salt gives equal figures equal bytes.
        'svg.hashsalt': 'aiida-perovmlip',
        'text.color': INK,
        # Labels come from users; a dollar sign in them is no mathematics.
        'text.parse_math': False,
        'xtick.color': MUTED,
        'xtick.labelcolor': INK,
        'xtick.major.size': 3.0,
        'xtick.minor.size': 1.8,
        'ytick.color': MUTED,
        'ytick.labelcolor': INK,
        'ytick.major.size': 3.0,
        'ytick.minor.size': 1.8,
    }
)


def css_variables(palette: Mapping[str, str]) -> str:
    """Return a palette as declarations of CSS variables."""
    return ' '.join(f'--{name}: {colour};' for name, colour in palette.items())


def themed(colour: str) -> str:
    """Return a colour of the light palette as a CSS value that follows the theme of the page around it."""
    for name, value in LIGHT.items():
        if value == colour:
            return f'var(--{name}, {colour})'
    return colour


SUPERSCRIPTS = str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹')
FEW_DECADES = 1.3
"""An axis of fewer decades has labels between the powers of ten."""


def scale_by_powers(axes: Any, direction: Literal['x', 'y'] = 'y') -> None:
    """Make an axis of drawn values logarithmic, with labels that are text and no mathematics."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f'{direction}scale': 'log'})
    axis = getattr(axes, f'{direction}axis')
    low, high = axis.get_view_interval()
    if math.log10(high / low) < FEW_DECADES:
        axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write_power(value)))
    axis.set_minor_formatter(NullFormatter())


def write_power(value: float) -> str:
    """Return a positive number as a label: plain where it is of a handy size, else with a power of ten."""
    if not 0.01 <= value < 1e4:
        digits, _, exponent = f'{value:.0e}'.partition('e')
        power = f'10{str(int(exponent)).translate(SUPERSCRIPTS)}'
        return power if digits == '1' else f'{digits}·{power}'
    return f'{value:g}'
