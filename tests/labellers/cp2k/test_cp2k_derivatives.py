"""Forces and stress of CP2K are the derivatives of its energy, with our units and signs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from aiida.engine import run_get_node

from aiida_perovmlip.compute.frame import from_voigt
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.cp2k.calculation import Cp2kLabelCalculation

SETTINGS = {'basis': 'DZVP', 'cutoff': 300.0, 'rel_cutoff': 50.0, 'eps_scf': 1e-7, 'kpoints': [2, 2, 2]}
SHIFT = 0.02
"""In Å."""

STRAIN = 2e-3
DIRECTION = np.array([[1.0, 0.5, 0.3], [0.5, -0.4, 0.2], [0.3, 0.2, 0.6]])


@pytest.mark.slow
@pytest.mark.long
def test_forces_and_stress_are_derivatives_of_the_energy(cp2k_code, cspbi3):
    frame = cspbi3(6.1)
    along = np.zeros((5, 3))
    along[1, 0], along[3, 2] = 1.0, 1.0
    shifted = [replace(frame, positions=frame.positions + sign * SHIFT * along) for sign in (1, -1)]
    maps = [np.eye(3) + sign * STRAIN * DIRECTION for sign in (1, -1)]
    strained = [replace(frame, positions=frame.positions @ each, cell=frame.cell @ each) for each in maps]
    frames = DatasetData.from_frames([frame, *shifted, *strained])
    results, node = run_get_node(Cp2kLabelCalculation, code=cp2k_code, frames=frames, settings=SETTINGS)
    assert node.is_finished_ok, node.exit_message
    here, forward, backward, wider, narrower = results['dataset']
    assert -(forward.energy - backward.energy) / (2 * SHIFT) == pytest.approx((here.forces * along).sum(), abs=5e-3)
    work = np.linalg.det(frame.cell) * (from_voigt(here.stress) * DIRECTION).sum()
    assert (wider.energy - narrower.energy) / (2 * STRAIN) == pytest.approx(work, rel=1e-2)
    assert abs(work) > 1.0
