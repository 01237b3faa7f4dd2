"""Real plane-wave labels by GPAW.

Skipped where there is no environment of GPAW, which is compiled while it is installed: it needs a C compiler, libxc and
a BLAS library, and a file named by GPAW_CONFIG that says so where MPI has no headers.
"""

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
        builder.code, builder.frames, builder.labeller = plugin_code('gpaw'), frames.store(), 'gpaw'
        builder.settings = {'cutoff': 300.0, 'kpoint_density': 0.0, **settings}
        return run_get_node(builder)

    return run


def test_forces_and_stress_of_a_perovskite_are_the_slopes_of_the_free_energy(label):
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    origin = Atoms('CsPbI3', scaled_positions=sites, cell=[6.3] * 3, pbc=True)
    origin.rattle(0.1, seed=1)
    copies, step = [origin], 0.01
    for sign in (1, -1):
        moved = origin.copy()
        moved.positions[1, 0] += sign * step
        copies.append(moved)
    outputs, node = label(DatasetData.from_ase(copies), smearing=0.2)
    assert node.is_finished_ok, node.exit_message
    energy, first = outputs['dataset'].frames.column('energy'), outputs['dataset'][0]
    assert first.forces[1, 0] == pytest.approx(-(energy[1] - energy[2]) / (2 * step), abs=2e-3)
    assert np.isfinite(first.stress).all()
    assert outputs['dataset'].level.kpoints == 'Gamma'


def test_charge_and_spin_are_those_of_the_frame(label):
    frames = []
    for charge, spin in ((0, 1), (0, 3), (1, 2), (1, 1)):
        atoms = Atoms('H2', positions=[(0, 0, 0), (0.74, 0, 0)], cell=[5.0] * 3, pbc=True)
        atoms.info.update(charge=charge, spin=spin)
        frames.append(atoms)
    outputs, node = label(DatasetData.from_ase(frames))
    assert node.is_finished_ok, node.exit_message
    energy = outputs['dataset'].frames.column('energy')
    assert energy[0] == pytest.approx(-6.65, abs=0.1)
    assert energy[1] > energy[0] + 3
    assert abs(energy[2] - energy[0]) > 3
    (failed,) = outputs['results']['failed']
    assert (failed['frame'], failed['kind']) == (3, 'refused')


def test_an_scf_that_does_not_converge_is_a_failed_frame(label):
    frames = DatasetData.from_ase([Atoms('H2', positions=[(0, 0, 0), (0.74, 0, 0)], cell=[5.0] * 3, pbc=True)])
    outputs, node = label(frames, max_cycles=2)
    assert node.exit_status == 500
    assert 'dataset' not in outputs
    assert 'onverge' in outputs['results']['failed'][0]['reason']
