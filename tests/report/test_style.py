"""What all figures have in common."""

from __future__ import annotations

import pytest

from aiida_perovmlip.report.style import scale_by_powers, write_power


@pytest.mark.parametrize(
    ('value', 'text'),
    [(1e-5, '10⁻⁵'), (2e-5, '2·10⁻⁵'), (1.0, '1'), (0.05, '0.05'), (200.0, '200'), (1e6, '10⁶')],
)
def test_powers_of_ten_are_text(value, text):
    assert write_power(value) == text


@pytest.mark.parametrize(('values', 'expected'), [([2e-6, 3e-4], '10⁻⁵'), ([0.6, 1.8], '1')])
def test_a_logarithmic_axis_has_labels_without_markup(values, expected):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    axes.plot(values)
    scale_by_powers(axes)
    figure.canvas.draw()
    low, high = axes.get_ylim()
    labels = [
        label.get_text()
        for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
        if low <= place <= high
    ]
    assert expected in labels
    assert len(labels) >= 2
    assert not any('$' in label for label in labels)
