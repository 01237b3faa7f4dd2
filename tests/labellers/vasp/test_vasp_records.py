"""Against real output of VASP, which aiida-vasp keeps for its own tests, and against aiida-vasp itself."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.labellers.vasp.vasprun import Vasprun

RECORD = 'mock_silicon_sp-8b7a03a5b507fbc991f37a5632835b5b'

AS_RECORDED = {
    'functional': 'PBEsol',
    'cutoff': 250.0,
    'energy_tolerance': 2e-6,
    'precision': 'Normal',
    'kpoints': [7, 7, 7],
    'spin_polarised': True,
    'algorithm': 'Fast',
    'max_scf': 200,
    'incar': {
        'prec': 'normal',
        'algo': 'fast',
        'gga': 'ps',
        'lvhar': True,
        'nedos': 100,
        'nelmin': 4,
        'nwrite': 1,
        'nsw': None,
        'ibrion': None,
        'isif': None,
    },
}
"""Settings by which our INCAR and KPOINTS are those of the record, which is found by these."""


def mock_code(make_code, tmp_path, label, *exports):
    """Return the code of `mock-vasp`, the program of aiida-vasp that plays records back."""
    script = tmp_path / label
    mock = Path(sys.executable).with_name('mock-vasp')
    script.write_text('\n'.join(['#!/bin/sh', *(f'export {line}' for line in exports), f'exec {mock}', '']))
    script.chmod(0o755)
    return make_code(label, script)


def test_the_labels_of_a_real_run_of_vasp_are_those_of_its_output(label, make_code, records, tmp_path):
    code = mock_code(make_code, tmp_path, 'mock-vasp-record', f'MOCK_VASP_REG_BASE={records}')
    silicon = Frame.from_atoms(bulk('Si', 'diamond', 5.4))
    outputs, node = label(silicon, code=code, **AS_RECORDED)
    assert node.is_finished_ok, node.exit_message
    (frame,) = outputs['dataset']
    (step,) = Vasprun(records / RECORD / 'out' / 'vasprun.xml').steps()
    assert frame.energy == step.energy == -10.61487473
    assert np.array_equal(frame.forces, step.forces)
    # the record says 17.87702469 kB, positive as the cell is compressed
    assert np.allclose(frame.stress, [-17.87702469 / 1602.1766208] * 3 + [0, 0, 0], atol=1e-12)
    results = outputs['results']
    assert results['versions'] == {'vasp': '6.2.0'}
    assert results['potcars'] == ['PAW_PBE Si 05Jan2001']
    assert results['facts']['0']['gap_eV'] == pytest.approx(0.428)


def test_a_real_run_at_other_settings_is_refused(label, make_code, records, tmp_path):
    """The record is handed out for another INCAR: what VASP says that it did is not what was asked."""
    script = tmp_path / 'copies'
    script.write_text(f'#!/bin/sh\ncp {records / RECORD / "out"}/vasprun.xml .\n')
    script.chmod(0o755)
    silicon = Frame.from_atoms(bulk('Si', 'diamond', 5.4))
    _, node = label(silicon, code=make_code('copies', script), **{**AS_RECORDED, 'cutoff': 300.0})
    assert node.exit_status == 520
    assert 'ENCUT is 250.0 instead of 300' in node.exit_message
    _, node = label(silicon, code=make_code('copies', script), **{**AS_RECORDED, 'kpoints': [6, 6, 6]})
    assert node.exit_status == 520
    assert 'its k-point mesh is (7, 7, 7) instead of (6, 6, 6)' in node.exit_message
    _, node = label(silicon, code=make_code('copies', script), **AS_RECORDED)
    assert node.is_finished_ok, node.exit_message


def test_what_was_recorded_is_played_back(label, make_code, stand_in, shuffled, tmp_path):
    registry = tmp_path / 'registry'
    registry.mkdir()
    base = f'MOCK_VASP_REG_BASE={registry}'
    recording = mock_code(make_code, tmp_path, 'mock-vasp-recording', base, f'MOCK_VASP_VASP_CMD={stand_in}')
    settings = {'incar': {'system': 'pair'}}
    outputs, node = label(shuffled, code=recording, **settings)
    assert node.is_finished_ok, node.exit_message
    (recorded,) = outputs['dataset']
    playing = mock_code(make_code, tmp_path, 'mock-vasp-playing', base)
    outputs, node = label(shuffled, code=playing, **settings)
    assert node.is_finished_ok, node.exit_message
    (played,) = outputs['dataset']
    assert played.energy == recorded.energy
    assert np.array_equal(played.forces, recorded.forces)
    outputs, node = label(shuffled, code=playing, cutoff=400.0, **settings)
    assert node.exit_status == 310  # nothing was recorded at this cutoff


def test_aiida_vasp_itself_accepts_what_the_stand_in_writes(vasp_code, family, shuffled):
    """A stand-in that only our own reader understands would prove nothing."""
    from aiida import orm
    from aiida.engine import run_get_node
    from aiida.plugins import CalculationFactory
    from aiida_vasp.data.potcar import PotcarData

    atoms = shuffled.to_atoms()[[0, 2, 4, 1, 3]]
    structure = orm.StructureData(ase=atoms)
    builder = CalculationFactory('vasp.vasp').get_builder()
    builder.code, builder.structure = vasp_code, structure
    builder.parameters = orm.Dict({'encut': 300, 'ibrion': 2, 'nsw': 3, 'isif': 2, 'system': 'pair', 'potim': 0.5})
    builder.kpoints = orm.KpointsData()
    builder.kpoints.set_kpoints_mesh([1, 1, 1])
    names = {'I': 'I', 'Cs': 'Cs_sv', 'Pb': 'Pb'}
    builder.potential = PotcarData.get_potcars_from_structure(structure, family, names)
    builder.settings = orm.Dict({'parser_settings': {'include_node': ['trajectory'], 'check_ionic_convergence': False}})
    builder.metadata.options.resources = {'num_machines': 1}
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert outputs['misc']['run_status']['finished']
    assert np.array(outputs['misc']['forces']).shape == (5, 3)
    assert outputs['trajectory'].get_array('positions').shape == (3, 5, 3)
    assert outputs['structure'].get_ase().get_chemical_symbols() == atoms.get_chemical_symbols()
