"""The labelling chain with VASP, by a stand-in that is not VASP."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from aiida.engine import run_get_node

from aiida_perovmlip.data.dataset import DatasetData


def test_the_chain_labels_repairs_and_tells_of_what_is_left(vasp_code, family, shuffled, evaluate):
    from aiida_perovmlip.workflows.label import LabelWorkChain

    moved = replace(shuffled, positions=shuffled.positions + np.array([[0.05, 0, 0], *[[0, 0, 0]] * 4]))
    tin = replace(shuffled, numbers=np.array([53, 55, 53, 50, 53], np.uint8))
    builder = LabelWorkChain.get_builder_from_protocol(
        'vasp',
        {'vasp': vasp_code},
        DatasetData.from_frames([shuffled, tin, moved]).store(),
        settings={'potential_family': family, 'kspacing': 0.6, 'incar': {'system': 'needs:algo=All'}},
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert len(outputs['dataset']) == 2
    for frame, start, expected in zip(outputs['dataset'], (shuffled, moved), evaluate([shuffled, moved]), strict=True):
        assert np.array_equal(frame.positions, start.positions)
        assert np.allclose(frame.forces, expected['forces'], atol=1e-6)
    assert outputs['dataset'].level.functional == 'PBE'
    assert 'has no POTCAR `Sn_d` for Sn' in str(outputs['failures'].get_dict())
    assert outputs['results']['repaired'] == {'0': 'algo_all', '2': 'algo_all'}
