"""What labellers of density functionals refuse, which needs none of their packages."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.labeller import refuse_odd_electrons, refuse_small_cell
from aiida_perovmlip.compute.labellers.gpaw import Gpaw, GpawSettings
from aiida_perovmlip.compute.labellers.pyscf import Pyscf, PyscfSettings


def frame(numbers=(55, 82, 53, 53, 53), length=12.0, pbc=(True, True, True), **fields):
    rng = np.random.default_rng(0)
    positions = length * rng.random((len(numbers), 3))
    return Frame(np.array(numbers), positions, length * np.eye(3), np.array(pbc), **fields)


@pytest.mark.parametrize(
    ('charge', 'spin', 'refused'),
    [(None, None, False), (0, 1, False), (0, 2, True), (0, 3, False), (1, 1, True), (1, 2, False), (-1, None, True)],
)
def test_electrons_have_to_fit_the_spin(charge, spin, refused):
    given = frame(charge=charge, spin=spin)  # 296 electrons
    assert bool(refuse_odd_electrons(given)) == refused
    assert bool(Pyscf().refusal(PyscfSettings(), given)) == refused
    assert bool(Gpaw().refusal(GpawSettings(), given)) == refused


def test_only_what_is_periodic_in_all_directions_is_labelled():
    slab = frame(pbc=(True, True, False))
    assert 'all three directions' in Pyscf().refusal(PyscfSettings(), slab)
    assert 'all three directions' in Gpaw().refusal(GpawSettings(), slab)


def test_the_gamma_point_needs_a_large_cell():
    assert '6.00 Å high' in Pyscf().refusal(PyscfSettings(), frame(length=6.0))
    assert Pyscf().refusal(PyscfSettings(smallest_cell=0.0), frame(length=6.0)) is None
    assert Gpaw().refusal(GpawSettings(), frame(length=6.0)) is None


def test_the_height_of_a_sheared_cell_counts_and_not_the_length_of_its_vectors():
    sheared = Frame(np.array([1, 1]), np.zeros((2, 3)), np.array([[9.0, 0, 0], [8, 3, 0], [0, 0, 9]]), np.ones(3, bool))
    assert '3.00 Å high' in refuse_small_cell(sheared, 5.0, 'why')
    molecule = Frame(np.array([1, 1]), np.zeros((2, 3)))
    assert refuse_small_cell(molecule, 5.0, 'why') is None


def test_what_changes_the_numbers_changes_the_level_and_what_does_not_does_not():
    def pyscf(**settings):
        return Pyscf().level(PyscfSettings(**settings)).fingerprint

    assert len({pyscf(), pyscf(basis='SZV'), pyscf(cutoff=300.0), pyscf(convergence=1e-6)}) == 4
    assert pyscf() == pyscf(level_shift=0.3, max_cycles=200, stress=True, smallest_cell=0.0)

    def gpaw(**settings):
        return Gpaw().level(GpawSettings(**settings)).fingerprint

    assert len({gpaw(), gpaw(functional='LDA'), gpaw(cutoff=600.0), gpaw(kpoint_density=0.0), gpaw(smearing=0.1)}) == 5
    assert gpaw() == gpaw(max_cycles=1000)
