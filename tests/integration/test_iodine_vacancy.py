"""A band of a real potential: the iodine vacancy of CsPbI3 with NEP89."""

from __future__ import annotations

import numpy as np
import pytest
from aiida.engine import run_get_node
from ase import Atoms

from aiida_perovmlip.calculations.neb import NebCalculation
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.hops import vacancy_hops
from aiida_perovmlip.structures.paths import idpp

pytestmark = pytest.mark.slow

PLACES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]


def test_the_iodine_vacancy_of_cspbi3_has_its_barriers(plugin_code, store_nep):
    host = Atoms('PbCsI3', scaled_positions=PLACES, cell=3 * [6.29], pbc=True).repeat(2)
    ends = vacancy_hops(host, 'I', 5.0)[0].ends(host)
    shake = np.random.default_rng(0).normal(0, 0.05, ends[0].positions.shape)  # so that the octahedra can tilt
    for end in ends:
        end.positions += shake
    builder = NebCalculation.get_builder()
    builder.code = plugin_code('nep')
    builder.potential, builder.path = store_nep('nep89_CsPbI.txt'), DatasetData.from_ase(idpp(*ends, 7))
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    path = outputs['path'].frames
    energies = path.column('energy')
    barriers = sorted(energies.max() - energies[[0, -1]])
    assert barriers == pytest.approx([0.30, 0.36], abs=0.01)
    pairs = zip(path, builder.path.frames, strict=True)
    drift = [now.positions.mean(axis=0) - then.positions.mean(axis=0) for now, then in pairs]
    assert np.abs(drift).max() < 1e-6
