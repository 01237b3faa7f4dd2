"""Real density-functional labels by PySCF."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.engine import run_get_node
from ase import Atoms

from aiida_perovmlip.calculations.label import LabelCalculation
from aiida_perovmlip.data.dataset import DatasetData

pytestmark = pytest.mark.slow


@pytest.fixture
def label(plugin_code):
    def run(frames, **settings):
        builder = LabelCalculation.get_builder()
        builder.code, builder.frames, builder.labeller = plugin_code('pyscf'), frames.store(), 'pyscf'
        builder.settings = {'basis': 'SZV', 'cutoff': 150.0, 'smallest_cell': 0.0, **settings}
        return run_get_node(builder)

    return run


def perovskite():
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    atoms = Atoms('CsPbI3', scaled_positions=sites, cell=[6.3] * 3, pbc=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def hydrogen(**info):
    atoms = Atoms('H2', positions=[(0, 0, 0), (0.5, 0.6, 0.1)], cell=[4.0, 4.2, 4.4], pbc=True)
    atoms.info.update(info)
    return atoms


def test_forces_on_a_perovskite_are_the_slopes_of_the_energy(label):
    origin = perovskite()
    copies, step = [origin], 0.01
    for sign in (1, -1):
        moved = origin.copy()
        moved.positions[1, 0] += sign * step
        copies.append(moved)
    outputs, node = label(DatasetData.from_ase(copies))
    assert node.is_finished_ok, node.exit_message
    energy, first = outputs['dataset'].frames.column('energy'), outputs['dataset'][0]
    assert first.forces[1, 0] == pytest.approx(-(energy[1] - energy[2]) / (2 * step), abs=2e-3)
    assert np.abs(first.forces.sum(axis=0)).max() < 0.01
    assert first.stress is None
    assert outputs['dataset'].level.cutoff == '150 Ry'


@pytest.mark.parametrize('state', [{'charge': 0, 'spin': 1}, {'charge': 1, 'spin': 2}])
def test_the_stress_is_the_slope_of_the_energy(label, state):
    """Of closed and open shells, which PySCF differentiates in different modules."""
    origin = hydrogen(**state)
    copies, strain = [origin], 2e-3
    for row, column in ((0, 0), (0, 1)):
        for sign in (1, -1):
            tensor = np.eye(3)
            tensor[row, column] += 0.5 * sign * strain
            tensor[column, row] += 0.5 * sign * strain
            strained = origin.copy()
            strained.set_cell(origin.cell.array @ tensor, scale_atoms=True)
            copies.append(strained)
    outputs, node = label(DatasetData.from_ase(copies), stress=True)
    assert node.is_finished_ok, node.exit_message
    energy, first = outputs['dataset'].frames.column('energy'), outputs['dataset'][0]
    slopes = [(energy[1] - energy[2]), (energy[3] - energy[4])] / (2 * strain * origin.get_volume())
    assert first.stress[0] == pytest.approx(slopes[0], rel=0.03, abs=1e-4)
    assert first.stress[5] == pytest.approx(slopes[1], rel=0.03, abs=1e-4)


def test_charge_and_spin_change_the_energy_and_what_cannot_be_is_refused(label):
    states = [{'charge': 0, 'spin': 1}, {'charge': 0, 'spin': 3}, {'charge': 1, 'spin': 2}, {'charge': 1, 'spin': 1}]
    outputs, node = label(DatasetData.from_ase([hydrogen(**state) for state in states]))
    assert node.is_finished_ok, node.exit_message
    energy = outputs['dataset'].frames.column('energy')
    assert energy[1] > energy[0] + 3
    assert abs(energy[2] - energy[0]) > 3
    (failed,) = outputs['results']['failed']
    assert (failed['frame'], failed['kind']) == (3, 'refused')
    assert 'odd number of electrons' in failed['reason']


def test_an_scf_that_does_not_converge_is_a_failed_frame(label):
    outputs, node = label(DatasetData.from_ase([hydrogen()]), max_cycles=1)
    assert node.exit_status == 500
    assert 'dataset' not in outputs
    assert 'did not converge in 1 cycles' in outputs['results']['failed'][0]['reason']


def test_an_element_without_a_basis_set_is_a_failed_frame(label):
    outputs, node = label(DatasetData.from_ase([Atoms('U', cell=[4.0] * 3, pbc=True)]))
    assert node.exit_status == 500
    assert outputs['results']['failed'][0]['reason']
