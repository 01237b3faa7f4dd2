"""Energies of phases in numbers that one can add up by hand."""

from __future__ import annotations

import pytest

from aiida_perovmlip.analysis.phases import errors_of, formula_of, formula_units_of, phases_of, ranks_alike

NAMES = ['cubic', 'black', 'yellow', 'black']
UNITS = [1, 4, 4, 2]
ENERGIES = [-10.0, -40.4, -41.0, -20.3]


def test_a_formula_unit_is_the_smallest_whole_formula():
    assert formula_units_of(['Cs', 'Pb', 'I', 'I', 'I'] * 4) == 4
    assert formula_of(['Cs', 'Pb', 'I', 'I', 'I'] * 4) == (('Cs', 1), ('I', 3), ('Pb', 1))
    assert formula_units_of(['Cu'] * 3) == 3


def test_energies_are_those_of_the_lowest_structure_of_a_phase_per_formula_unit():
    phases = phases_of(NAMES, ENERGIES, UNITS, 'cubic')
    assert phases['cubic'].energy == 0.0
    assert phases['black'].energy == pytest.approx(-0.15)  # -20.3 / 2, which is below -40.4 / 4
    assert (phases['black'].lowest, phases['black'].formula_units) == (1, 2)
    assert phases['yellow'].energy == pytest.approx(-0.25)


def test_a_shift_of_all_energies_per_formula_unit_changes_nothing():
    shifted = [energy + 7.0 * count for energy, count in zip(ENERGIES, UNITS, strict=True)]
    one, other = phases_of(NAMES, ENERGIES, UNITS, 'yellow'), phases_of(NAMES, shifted, UNITS, 'yellow')
    assert errors_of(one, other, 'yellow') == pytest.approx({'cubic': 0.0, 'black': 0.0}, abs=1e-12)
    assert ranks_alike(one, other)


def test_another_order_of_phases_is_seen():
    other = phases_of(NAMES, [-10.0, -40.4, -39.0, -20.3], UNITS, 'cubic')
    assert not ranks_alike(phases_of(NAMES, ENERGIES, UNITS, 'cubic'), other)


def test_a_zero_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match='there is no phase `green`; there are cubic, black, yellow'):
        phases_of(NAMES, ENERGIES, UNITS, 'green')
