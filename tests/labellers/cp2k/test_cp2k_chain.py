"""The labelling chain with real CP2K: batches, repairs, refusals and band edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.workflows.label import LabelWorkChain


@pytest.mark.slow
def test_frames_that_do_not_converge_are_repaired_and_tell_their_band_edges(cp2k_code):
    sites = np.array([(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)])
    positions = sites * 6.3 + np.random.default_rng(0).normal(0, 0.05, (5, 3))
    first = Frame(np.array([55, 82, 53, 53, 53], np.uint8), positions, 6.3 * np.eye(3), np.ones(3, bool), group='cube')
    other = replace(first, positions=positions * 1.02, cell=first.cell * 1.02)
    odd = replace(first, spin=2, group='odd')
    frames = [replace(frame, spin=1) for frame in (first, other)] + [odd]
    builder = LabelWorkChain.get_builder_from_protocol(
        'cp2k',
        cp2k_code,
        DatasetData.from_frames(frames),
        protocol='fast',
        settings={'kpoints': [2, 2, 2], 'max_scf': 3, 'outer_scf': 0, 'band_edges': True},
        max_concurrent=1,
    )
    _, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    results = node.outputs.results.get_dict()
    assert results['repaired'] == {'0': 'tighter_ot', '1': 'tighter_ot'}
    assert [len(job.inputs.frames) for job in node.called if isinstance(job, orm.CalcJobNode)] == [2, 2]
    assert set(results['facts']) == {'0', '1'}
    assert all(1 < edges['gap'] < 8 for facts in results['facts'].values() for edges in facts['band_edges'])
    (failure,) = node.outputs.failures['frames']
    assert (failure['frame'], failure['kind']) == (2, 'refused')
    assert 'electrons' in failure['reason']
    energies = node.outputs.dataset.frames.column('energy')
    assert energies[0] != energies[1]
    assert np.abs(energies[0] - energies[1]) < 2.0
