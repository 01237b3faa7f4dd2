"""Formamidinium turns in cubic FAPbI3: a scan of a real potential along rigid rotations, with provenance."""

from __future__ import annotations

import pytest
from aiida.engine import run_get_node

from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.query.paths import barriers_records
from aiida_perovmlip.structures.perovskite import cubic
from aiida_perovmlip.workflows.neb_validation import NebValidationWorkChain

pytestmark = pytest.mark.slow

AXES = ('normal', 'C-H', 'N-N')


def test_a_rigid_turn_stays_below_two_ev_about_each_axis_and_the_axis_is_told(plugin_code, store_nep):
    host = DatasetData.from_ase([cubic('FA', 'Pb', 'I', 6.36, (2, 2, 2))]).store()
    potential, code = store_nep('nep89_HCNIPbCs.txt'), plugin_code('nep')
    for axis in AXES:
        builder = NebValidationWorkChain.get_builder_from_protocol(
            {'nep89': potential},
            code,
            recipe={'kind': 'turn', 'axis': axis, 'degrees': 180.0, 'n_images': 7},
            structures=host,
            relax=False,
        )
        outputs, node = run_get_node(builder)
        assert node.is_finished_ok, node.exit_message
        (record,) = barriers_records([node])
        assert (record['name'], record['path'], record['n_images']) == ('turn', 'first', 7)
        assert 0.01 < record['span'] < 2.0
        comparison = outputs['comparison'].get_dict()
        assert comparison['recipe']['axis'] == axis
        images = [frame.to_atoms() for frame in comparison_frames(node)]
        assert len(images) == 9
        bonds = [image.get_distance(*carbon_and_nitrogen(images[0]), mic=True) for image in images]
        assert max(bonds) - min(bonds) < 1e-6


def comparison_frames(node):
    """Return the images that were compared: those that the recipe made."""
    labels = {link.link_label: link.node for link in node.base.links.get_outgoing().all()}
    return list(labels['first_path'].outputs.result)


def carbon_and_nitrogen(atoms):
    """Return a carbon and the nitrogen that is nearest to it."""
    carbon = next(iter((atoms.numbers == 6).nonzero()[0]))
    nitrogens = (atoms.numbers == 7).nonzero()[0]
    distances = atoms.get_distances(carbon, nitrogens, mic=True)
    return carbon, nitrogens[distances.argmin()]
