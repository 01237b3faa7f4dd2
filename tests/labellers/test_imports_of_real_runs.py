"""Outputs of VASP and CP2K that others published become datasets."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_perovmlip.compute import registry
from aiida_perovmlip.labellers.imports import dataset_from_run, guess_labeller


@pytest.fixture
def vasprun(shared_data):
    path = shared_data / 'fasni3_r2scan_vasp' / 'cubic.vasprun.xml.gz'
    if not path.is_file():
        pytest.skip(f'there is no {path}')
    return path


@pytest.fixture
def cp2k_log(shared_data):
    path = shared_data / 'cp2k_mapbi3_water' / 'Cluster_222_MAPbI3.cp2k.log.gz'
    if not path.is_file():
        pytest.skip(f'there is no {path}')
    if 'cp2k' not in registry.names('labellers'):
        pytest.skip('there is no labeller `cp2k`')
    return path


def test_a_run_of_vasp_is_recognised_and_read(vasprun):
    assert guess_labeller(vasprun) == 'vasp'
    dataset = dataset_from_run(vasprun, keep_files=False)
    report = dataset.creator.outputs.report.get_dict()
    assert dataset.level.labeller == 'vasp'
    assert dataset.level.functional == 'r2SCAN'
    assert set(dataset.elements) == {'C', 'H', 'I', 'N', 'Sn'}
    assert report['n_frames'] == len(dataset) > 0
    assert {frame.source for frame in dataset} == {report['files'][0]['hash']}
    assert np.abs(dataset.frames.column('forces')).max() < 50


def test_a_run_of_cp2k_without_its_trajectory_is_recognised_and_refused_with_the_reason(cp2k_log):
    assert guess_labeller(cp2k_log) == 'cp2k'
    with pytest.raises(
        ValueError,
        match=r'not one frame of Cluster_222_MAPbI3\.cp2k\.log\.gz.* can be used\. snapshot 0 .*not beside it',
    ):
        dataset_from_run(cp2k_log, keep_files=False)
