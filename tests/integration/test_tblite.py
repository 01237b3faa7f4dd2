"""Real tight-binding labels."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.functions.structures import build_frames
from aiida_perovmlip.calculations.label import LabelCalculation

pytestmark = pytest.mark.slow


def label(code, frames, **settings):
    builder = LabelCalculation.get_builder()
    builder.code, builder.frames, builder.labeller, builder.settings = code, frames, 'tblite', settings
    return run_get_node(builder)


def test_forces_and_stress_are_the_slopes_of_the_energy(plugin_code):
    """Six displaced and strained copies of one frame, labelled in one job."""
    from aiida_perovmlip.data.dataset import DatasetData

    recipe = {'families': [{'formula': 'CsPbI3', 'count': 1, 'repeat': [2, 2, 2], 'strain': 0.02, 'rattle': 0.1}]}
    origin = build_frames(orm.Dict(recipe), orm.Int(3))[0].to_atoms()
    copies, step, strain = [origin], 0.01, 2e-3
    for atom, axis in ((1, 0), (7, 2)):
        for sign in (1, -1):
            moved = origin.copy()
            moved.positions[atom, axis] += sign * step
            copies.append(moved)
    for sign in (1, -1):
        strained = origin.copy()
        strained.set_cell(origin.cell.array @ np.diag([1 + sign * strain, 1, 1]), scale_atoms=True)
        copies.append(strained)
    outputs, node = label(plugin_code('tblite'), DatasetData.from_ase(copies).store(), accuracy=0.1)
    assert node.is_finished_ok, node.exit_message
    energy = outputs['dataset'].frames.column('energy')
    first = outputs['dataset'][0]
    assert first.forces[1, 0] == pytest.approx(-(energy[1] - energy[2]) / (2 * step), abs=5e-3)
    assert first.forces[7, 2] == pytest.approx(-(energy[3] - energy[4]) / (2 * step), abs=5e-3)
    slope = (energy[5] - energy[6]) / (2 * strain * origin.get_volume())
    assert first.stress[0] == pytest.approx(slope, rel=0.1, abs=2e-4)


def test_small_cells_and_gfn1_with_nitrogen_are_refused_one_by_one(plugin_code):
    recipe = {
        'families': [
            {'formula': 'CsPbI3', 'count': 1, 'repeat': [1, 1, 1]},
            {'formula': 'MAPbI3', 'count': 1, 'repeat': [2, 2, 2]},
        ]
    }
    frames = build_frames(orm.Dict(recipe), orm.Int(0))
    outputs, node = label(plugin_code('tblite'), frames, method='GFN1-xTB')
    assert node.exit_status == 500
    reasons = [entry['reason'] for entry in outputs['results']['failed']]
    assert 'Γ only' in reasons[0]
    assert 'halogen bond' in reasons[1]


def test_an_scf_that_does_not_converge_is_a_failed_frame(plugin_code):
    recipe = {'families': [{'formula': 'CsPbI3', 'count': 1, 'repeat': [2, 2, 2], 'rattle': 0.1}]}
    outputs, node = label(plugin_code('tblite'), build_frames(orm.Dict(recipe), orm.Int(0)), max_iterations=2)
    assert node.exit_status == 500
    assert 'dataset' not in outputs
    assert outputs['results']['failed'][0]['reason']
