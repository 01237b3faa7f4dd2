"""Jobs of GPUMD through AiiDA, with a stand-in, as GPUMD needs a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from aiida_perovmlip.compute.engines.gpumd import COMMAND
from aiida_perovmlip.compute.frame import Frame

STAND_IN = Path(__file__).parents[1] / 'stand_ins' / 'gpumd_stand_in.py'


@pytest.fixture
def builder_of(store_nep, python_code):
    """Return a function that gives the builder of a run, with a line before the job."""
    from aiida_perovmlip.calculations.md import MdCalculation
    from aiida_perovmlip.data.dataset import DatasetData

    sites = np.array([(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)])
    potential = store_nep('nep89_CsPbI.txt')
    start = Frame(np.array([55, 82, 53, 53, 53]), 6.3 * sites, 6.3 * np.eye(3), np.ones(3, dtype=bool))

    def make(line: str, steps: int = 40):
        builder = MdCalculation.get_builder()
        builder.code, builder.potential, builder.engine = python_code, potential, 'gpumd'
        builder.start = DatasetData.from_frames([start])
        builder.settings = {'ensemble': 'nve', 'steps': steps, 'frames_every': 10}
        builder.metadata.options.prepend_text = line
        return builder

    return make


def test_a_job_without_gpumd_says_how_to_get_it(builder_of):
    from aiida.engine import run_get_node

    _, node = run_get_node(builder_of(f'export {COMMAND}=gpumd-of-nobody'))
    assert node.exit_status == 320
    assert 'There is no `gpumd-of-nobody` here. GPUMD is compiled' in node.exit_message


def test_a_job_of_gpumd_leaves_a_trajectory_and_goes_on_from_its_state(builder_of):
    from aiida.engine import run_get_node

    line = f"export {COMMAND}='{sys.executable} {STAND_IN}'"
    outputs, node = run_get_node(builder_of(line))
    assert node.is_finished_ok, node.exit_message
    assert outputs['trajectory'].base.attributes.get('n_frames') == 5
    assert outputs['results']['effective']['program'] == 'GPUMD'
    builder = builder_of(line, steps=80)
    builder.state = outputs['state']
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['trajectory'].base.attributes.get('first_step') == 50
